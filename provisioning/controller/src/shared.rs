//! What the services share.

use std::sync::Arc;

use wire::Fault;

use crate::authority::Enroller;
use crate::keys::KeyRing;
use crate::state::{State, not_leading};

/// See the file's header.
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) authority: Enroller,
    pub(crate) keys: KeyRing,
}

impl Shared {
    /// Only who leads may hand out maps and keys: another one may be behind.
    pub(crate) fn require_lead(&self) -> Result<(), Fault> {
        if *self.state.leads().borrow() { Ok(()) } else { Err(not_leading()) }
    }
}
