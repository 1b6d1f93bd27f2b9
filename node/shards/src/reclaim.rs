//! Reclaim: live records of a mostly dead extent move on, so that it can be freed.
//!
//! Crash-safe at every step: a moved record is durable in its new place before the index turns to it;
//! the old extent is freed only by a checkpoint that no longer names it. A record that cannot be read
//! stays where it is, and so does its extent.

use std::rc::Rc;

use bytes::Bytes;
use disk::BlockDevice;
use format::{ExtentState, RecordKind, ShardKey, Stream};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::extent::{Effect, Location};
use crate::handle::Payload;
use crate::mutant::{self, Mutant};
use crate::walk::Walk;
use crate::{StoreError, StoreResult};

/// Reads under way while an extent is walked.
const READS_AHEAD: usize = 2;

/// How the moves of one extent went.
#[derive(Default)]
struct Moves {
    /// The first failure.
    failed: Option<StoreError>,
    /// Nothing more can be moved now.
    stop: bool,
}

impl Moves {
    fn note(&mut self, done: StoreResult<()>) {
        if let Err(error) = done {
            // What is under way still ends in order: it holds its keys.
            self.stop |= matches!(error, StoreError::Poisoned { .. } | StoreError::Full | StoreError::Closed);
            self.failed.get_or_insert(error);
        }
    }
}

impl<D: BlockDevice> Core<D> {
    pub(crate) async fn reclaim_one(self: Rc<Self>) {
        let (chosen, waiters) = {
            let mut state = self.state.borrow_mut();
            (state.victim(), std::mem::take(&mut state.reclaim_waiters))
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
                    state.reclaim_stuck |= !error.is_lost_record();
                    tracing::warn!(device = %state.label.device, extent, %error, "an extent could not be emptied");
                }
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
        let moves_at_once = {
            let state = self.state.borrow();
            assert!(matches!(state.extents[extent as usize].state, ExtentState::Sealed(_)));
            state.limits.moves_at_once
        };
        let (mut walk, mut moves, mut under_way) =
            (Walk::new(self, extent, 0, READS_AHEAD), Moves::default(), FuturesUnordered::new());
        while !moves.stop
            && let Some(met) = walk.next().await
        {
            // A record that did not verify is read once more below, alone.
            let Ok(payload) = met.payload else { continue };
            under_way.push(self.move_record(met.key, met.location, Some((payload, met.head.descriptor))));
            if under_way.len() >= moves_at_once {
                moves.note(under_way.next().await.unwrap_or(Ok(())));
            }
        }
        while let Some(done) = under_way.next().await {
            moves.note(done);
        }
        // What the walk did not meet: damage ended it, or a record is unreadable.
        let left: Vec<(ShardKey, Location)> = {
            let state = self.state.borrow();
            let live = state.extents[extent as usize].live_units > 0 && !moves.stop;
            state.index.after(None).filter(|(_, l)| live && l.extent == extent).collect()
        };
        for (key, location) in left {
            if moves.stop {
                break;
            }
            if mutant::on(Mutant::WalkTrustedBlindly) {
                self.state.borrow_mut().apply(Effect::Remove(vec![key]));
                continue;
            }
            moves.note(self.move_record(key, location, None).await);
        }
        moves.failed.map_or(Ok(()), Err)
    }

    async fn move_record(&self, key: ShardKey, from: Location, read: Option<(Bytes, Vec<u8>)>) -> StoreResult<()> {
        self.locks.lock(key).await;
        let done = self.move_locked(key, from, read).await;
        self.locks.unlock(key);
        done
    }

    async fn move_locked(&self, key: ShardKey, from: Location, read: Option<(Bytes, Vec<u8>)>) -> StoreResult<()> {
        let moved_on = self.state.borrow().index.get(&key) != Some(from);
        if moved_on && !mutant::on(Mutant::MoveWithoutRecheck) {
            return Ok(());
        }
        let (payload, descriptor) = match read {
            Some(read) => read,
            None => {
                let record = match self.read_record(&from).await {
                    Err(_) if mutant::on(Mutant::ReclaimForgetsAfterReadError) => {
                        self.state.borrow_mut().apply(Effect::Remove(vec![key]));
                        return Ok(());
                    }
                    read => read?,
                };
                let end = record.payload_at + record.head.payload_bytes as usize;
                (record.buf.freeze().to_bytes(record.payload_at..end), record.head.descriptor)
            }
        };
        let len = payload.len() as u64;
        let payload = match payload.len() % format::BLOCK_BYTES {
            1 if mutant::on(Mutant::ReclaimOffByOne) => payload.slice(1..),
            _ => payload,
        };
        let payload = Payload::Parts(vec![payload]);
        self.write(Stream::Moved, RecordKind::Put, Some(key), Vec::new(), descriptor.into(), payload).await?;
        self.state.borrow_mut().stats.moved_bytes += len;
        Ok(())
    }
}
