//! Reclaim: live records of a mostly dead extent move on, so that it can be freed.
//!
//! Crash-safe at every step: a moved record is durable in its new place before the index turns to it;
//! the old extent is freed only by a checkpoint that no longer names it. A record that cannot be read
//! stays where it is, and so does its extent.

use std::rc::Rc;

use disk::BlockDevice;
use format::{ExtentState, RecordKind, ShardKey, Stream};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::extent::Location;
use crate::handle::Payload;
use crate::state::State;
use crate::{StoreError, StoreResult};

/// Extents with more than this share of live units, in percent, are not worth moving.
const LIVE_MAX_PERCENT: u64 = 90;

/// The extent whose reclaim gains most, when one gains enough.
pub(crate) fn victim(state: &State) -> Option<u32> {
    let units = u64::from(state.extent_units());
    (0u32..)
        .zip(&state.extents)
        .filter(|(_, extent)| extent.is_sealed_data() && !extent.unreadable && extent.live_units > 0)
        .filter(|(number, _)| !state.tracks.contains_key(number))
        .filter(|(_, extent)| u64::from(extent.live_units) * 100 <= units * LIVE_MAX_PERCENT)
        .min_by_key(|(_, extent)| extent.live_units)
        .map(|(number, _)| number)
}

impl<D: BlockDevice> Core<D> {
    pub(crate) async fn reclaim_one(self: Rc<Self>) {
        let (chosen, waiters) = {
            let mut state = self.state.borrow_mut();
            (victim(&state), std::mem::take(&mut state.reclaim_waiters))
        };
        let mut told = Ok(chosen.is_some());
        if let Some(extent) = chosen {
            let done = self.evacuate(extent).await;
            told = done.clone().map(|()| true);
            let mut state = self.state.borrow_mut();
            match done {
                Ok(()) => state.stats.extents_reclaimed += 1,
                Err(error) => {
                    state.extents[extent as usize].unreadable |= error.is_lost_record();
                    tracing::warn!(device = %state.label.device, extent, %error, "an extent could not be emptied");
                }
            }
            if state.has_dead_extents() {
                state.checkpoint_wanted = true;
            }
        }
        self.state.borrow_mut().reclaim_busy = false;
        waiters.into_iter().for_each(|waiter| drop(waiter.send(told.clone())));
        self.touch();
    }

    /// Empties the extent that gains most, now; whether there was one.
    pub(crate) async fn reclaim_now(&self) -> StoreResult<bool> {
        let done = {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            let (tell, done) = oneshot::channel();
            state.reclaim_waiters.push(tell);
            done
        };
        self.touch();
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Moves every live record of an extent; the first failure is given when all have been tried.
    async fn evacuate(self: &Rc<Self>, extent: u32) -> StoreResult<()> {
        let mut records: Vec<(ShardKey, Location)> = {
            let state = self.state.borrow();
            assert!(matches!(state.extents[extent as usize].state, ExtentState::Sealed(_)));
            state.index.iter().filter(|(_, l)| l.extent == extent).map(|(k, l)| (*k, *l)).collect()
        };
        records.sort_by_key(|(_, location)| location.offset_units);
        let moves_at_once = self.state.borrow().limits.moves_at_once;
        let mut moves = FuturesUnordered::new();
        let mut records = records.into_iter();
        let mut result = Ok(());
        loop {
            while moves.len() < moves_at_once
                && let Some((key, location)) = records.next()
            {
                moves.push(self.move_record(key, location));
            }
            match moves.next().await {
                None => return result,
                Some(done) => {
                    if matches!(done, Err(StoreError::Poisoned { .. } | StoreError::Full)) {
                        // What is under way still ends in order: it holds its keys.
                        records = Vec::new().into_iter();
                    }
                    result = result.and(done);
                }
            }
        }
    }

    async fn move_record(&self, key: ShardKey, from: Location) -> StoreResult<()> {
        self.locks.lock(key).await;
        let done = self.move_locked(key, from).await;
        self.locks.unlock(key);
        done
    }

    async fn move_locked(&self, key: ShardKey, from: Location) -> StoreResult<()> {
        if self.state.borrow().index.get(&key) != Some(&from) {
            return Ok(());
        }
        let record = self.read_record(&from).await?;
        let len = record.head.payload_bytes as usize;
        let end = record.payload_at + len;
        let payload = Payload::Parts(vec![record.buf.freeze().to_bytes(record.payload_at..end)]);
        let descriptor = record.head.descriptor.into();
        self.write(Stream::Moved, RecordKind::Put, Some(key), Vec::new(), descriptor, payload).await?;
        self.state.borrow_mut().stats.moved_bytes += len as u64;
        Ok(())
    }
}
