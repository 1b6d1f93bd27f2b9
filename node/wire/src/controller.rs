//! The controller's services as nodes and operators use them. The records are flat and carry no rule of their own, so
//! they are used as they are; whoever takes them in checks them.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Request;
use tonic::transport::Channel;

use crate::Fault;
use crate::pb::controller::enrolment_client::EnrolmentClient;
use crate::pb::controller::rack_client::RackClient;

pub use crate::pb::controller::admin_client::AdminClient;
pub use crate::pb::controller::admin_server::{Admin, AdminServer};
pub use crate::pb::controller::enrolment_server::{Enrolment, EnrolmentServer};
pub use crate::pb::controller::rack_server::{Rack, RackServer};
pub use crate::pb::controller::*;

macro_rules! debug_without_secrets {
    ($($name:ident: $($field:ident),*;)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    )*};
}

debug_without_secrets! {
    AccessKey: id, name, created_ms;
    KeysUpdate: keys;
    KeyList: keys;
    JoinRequest: protocol, clock_ms, facts;
    Token: id, expires_ms, comment, used;
    TokenList: tokens;
}

/// Version of what nodes and controllers say to each other. A controller speaks to nodes of its own version and of
/// the one before it.
pub const PROTOCOL: u32 = 1;
/// Longest message from a controller: a map.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Longest message to a controller: a report of many devices.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A node's side of the controller. Clones share the connection.
#[derive(Debug, Clone)]
pub struct RackLink {
    client: RackClient<Channel>,
}

impl RackLink {
    /// Over a connection to a controller.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { client: RackClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX) }
    }

    /// Tells how the node is; gives when to tell again.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn report(&self, report: NodeReport, deadline: Duration) -> Result<ReportReply, Fault> {
        let mut request = Request::new(report);
        request.set_timeout(deadline);
        Ok(self.client.clone().report(request).await?.into_inner())
    }

    /// A fresh certificate for the node's key.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn renew(&self, csr: Vec<u8>, deadline: Duration) -> Result<RenewReply, Fault> {
        let mut request = Request::new(RenewRequest { csr: csr.into() });
        request.set_timeout(deadline);
        Ok(self.client.clone().renew(request).await?.into_inner())
    }

    /// The map, now when it is newer than `have_epoch`, and again whenever it changes.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn watch_map(&self, have_epoch: u64) -> Result<BoxStream<'static, Result<MapUpdate, Fault>>, Fault> {
        let updates = self.client.clone().watch_map(WatchMapRequest { have_epoch }).await?.into_inner();
        Ok(updates.map(|update| update.map_err(Fault::from)).boxed())
    }

    /// The access keys, now and whenever one changes.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn watch_keys(&self) -> Result<BoxStream<'static, Result<KeysUpdate, Fault>>, Fault> {
        let updates = self.client.clone().watch_keys(WatchKeysRequest {}).await?.into_inner();
        Ok(updates.map(|update| update.map_err(Fault::from)).boxed())
    }
}

/// Joins: the one call without a certificate of one's own.
///
/// # Errors
/// [`Fault`].
pub async fn join(channel: Channel, request: JoinRequest, deadline: Duration) -> Result<JoinReply, Fault> {
    let mut request = Request::new(request);
    request.set_timeout(deadline);
    Ok(EnrolmentClient::new(channel).join(request).await?.into_inner())
}
