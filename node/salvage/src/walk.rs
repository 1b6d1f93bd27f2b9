//! Listing several devices side by side, stripe by stripe, in ascending order; a page of each at a time.

use std::collections::VecDeque;

use base::StripeId;
use format::{ShardKey, Space};
use shards::{ShardInfo, StoreError, StoreHandle, StoreResult};

/// Records listed in one request.
const PAGE: usize = 4096;

/// A shard of a stripe and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The device, by its place in the list of stores.
    pub device: u16,
    /// The slot.
    pub slot: u8,
    /// Payload bytes.
    pub len: u32,
}

/// A stripe and its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeFound {
    /// The stripe.
    pub stripe: StripeId,
    /// Its shards, by device; a slot may be there twice.
    pub holders: Vec<Holder>,
}

/// Walks all stripes of a list of stores.
pub struct StripeWalk<'a> {
    stores: &'a [StoreHandle],
    pages: Vec<Pages>,
    /// Devices that stopped answering, and why; their remaining records are missing from the walk.
    pub failed: Vec<(u16, StoreError)>,
}

/// The records of one space of one store, page by page.
pub(crate) struct Pages {
    space: Space,
    ready: VecDeque<ShardInfo>,
    after: Option<ShardKey>,
    ended: bool,
}

impl Pages {
    pub(crate) fn of(space: Space) -> Self {
        let below = Space::from_byte(space.to_byte() - 1);
        let after = below.map(|space| ShardKey { space, owner: u32::MAX, id: u64::MAX, slot: u8::MAX });
        Self { space, ready: VecDeque::new(), after, ended: false }
    }

    /// The shards from this stripe on.
    pub(crate) fn from_stripe(stripe: u64) -> Self {
        let after = stripe.checked_sub(1).map(|id| ShardKey { space: Space::Stripe, owner: 0, id, slot: u8::MAX });
        Self { after, ..Self::of(Space::Stripe) }
    }

    /// The next record, left where it is.
    pub(crate) async fn peek(&mut self, store: &StoreHandle) -> StoreResult<Option<ShardInfo>> {
        if self.ready.is_empty() && !self.ended {
            let listed = store.list(self.after, PAGE).await.inspect_err(|_| self.ended = true)?;
            let full = listed.len() == PAGE;
            self.ready.extend(listed.iter().filter(|info| info.key.space == self.space).cloned());
            self.ended = !full || self.ready.len() < listed.len();
            self.after = listed.last().map(|info| info.key);
        }
        Ok(self.ready.front().cloned())
    }

    pub(crate) fn pop(&mut self) {
        self.ready.pop_front();
    }
}

impl<'a> StripeWalk<'a> {
    /// From the first stripe on.
    ///
    /// # Panics
    /// With more than 65,535 stores.
    #[must_use]
    pub fn new(stores: &'a [StoreHandle]) -> Self {
        assert!(u16::try_from(stores.len()).is_ok(), "a bench has fewer devices");
        Self { stores, pages: stores.iter().map(|_| Pages::of(Space::Stripe)).collect(), failed: Vec::new() }
    }

    /// The next stripe.
    pub async fn next(&mut self) -> Option<StripeFound> {
        let mut lowest: Option<u64> = None;
        for (device, (pages, store)) in (0u16..).zip(self.pages.iter_mut().zip(self.stores)) {
            match pages.peek(store).await {
                Ok(Some(info)) => lowest = Some(lowest.map_or(info.key.id, |low| low.min(info.key.id))),
                Ok(None) => {}
                Err(error) => self.failed.push((device, error)),
            }
        }
        let id = lowest?;
        let mut holders = Vec::new();
        for (device, (pages, store)) in (0u16..).zip(self.pages.iter_mut().zip(self.stores)) {
            loop {
                match pages.peek(store).await {
                    Ok(Some(info)) if info.key.id == id => {
                        holders.push(Holder { device, slot: info.key.slot, len: info.len });
                        pages.pop();
                    }
                    Ok(_) => break,
                    Err(error) => {
                        self.failed.push((device, error));
                        break;
                    }
                }
            }
        }
        Some(StripeFound { stripe: StripeId(id), holders })
    }
}
