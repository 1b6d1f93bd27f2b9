//! Reclaim: live records of a mostly dead extent move on, so that it can be freed.
//!
//! Crash-safe at every step: a moved record is durable in its new place before the index turns to it;
//! the old extent is free when the last of its records has moved, or by the next checkpoint (space.rs). A
//! record that cannot be read stays where it is, and so does its extent.

use std::rc::Rc;

use bytes::Bytes;
use disk::BlockDevice;
use format::{ExtentState, ShardKey, Stream};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::extent::{Change, Effect, Location};
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
    /// Units of records that were left because they are being replaced.
    left_units: u32,
}

impl Moves {
    fn note(&mut self, done: StoreResult<u32>) {
        match done {
            Ok(left_units) => self.left_units += left_units,
            Err(error) => {
                self.stop |= matches!(error, StoreError::Poisoned { .. } | StoreError::Full | StoreError::Closed);
                self.failed.get_or_insert(error);
            }
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
            let generation = self.state.borrow().extents[extent as usize].generation;
            let done = self.evacuate(extent).await;
            told = done.clone().map(|()| true);
            let mut state = self.state.borrow_mut();
            match done {
                Ok(()) => {
                    state.stats.extents_reclaimed += 1;
                    if state.extents[extent as usize].generation == generation {
                        state.extents[extent as usize].left_units = state.extents[extent as usize].live_units;
                    }
                    state.note_emptied();
                }
                Err(error) => {
                    let is_lost = error.is_lost_record() && state.extents[extent as usize].generation == generation;
                    state.extents[extent as usize].unreadable |= is_lost;
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
        let (mut walk, mut moves) = (Walk::new(self, extent, 0, READS_AHEAD), Moves::default());
        let mut under_way = FuturesUnordered::new();
        while !moves.stop
            && let Some(met) = walk.next().await
        {
            // A record that did not verify is read once more below, alone.
            let Ok(payload) = met.payload else { continue };
            under_way.push(self.move_record(met.key, met.location, payload, met.head.descriptor));
            if under_way.len() >= moves_at_once {
                moves.note(under_way.next().await.unwrap_or(Ok(0)));
            }
        }
        while let Some(done) = under_way.next().await {
            moves.note(done);
        }
        // What the walk did not meet, because of damage; not what is just being replaced.
        let left: Vec<(ShardKey, Location)> = {
            let state = self.state.borrow();
            let live = state.extents[extent as usize].live_units;
            let unmet = walk.is_current() && live > moves.left_units && !moves.stop;
            if unmet { state.index.after(None).filter(|(_, l)| l.extent == extent).collect() } else { Vec::new() }
        };
        for (key, location) in left {
            if moves.stop {
                break;
            }
            moves.note(self.move_alone(key, location).await);
        }
        moves.failed.map_or(Ok(()), Err)
    }

    /// Reads a record by itself and moves it.
    async fn move_alone(self: &Rc<Self>, key: ShardKey, from: Location) -> StoreResult<u32> {
        let is_live = || self.state.borrow().index.get(&key) == Some(from);
        if !is_live() {
            return Ok(0);
        }
        if mutant::on(Mutant::WalkTrustedBlindly) {
            self.state.borrow_mut().apply(Effect::Remove(vec![key]));
            return Ok(0);
        }
        let record = match self.read_record(&from).await {
            Ok(record) => record,
            Err(_) if !is_live() => return Ok(0),
            Err(_) if mutant::on(Mutant::ReclaimForgetsAfterReadError) => {
                self.state.borrow_mut().apply(Effect::Remove(vec![key]));
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let end = record.payload_at + record.head.payload_bytes as usize;
        let payload = record.buf.freeze().to_bytes(record.payload_at..end);
        self.move_record(key, from, payload, record.head.descriptor).await
    }

    /// Writes a live record again elsewhere. No key is held: the move is void if the key changes meanwhile. Gives
    /// the units that are still live where they were.
    async fn move_record(
        &self,
        key: ShardKey,
        from: Location,
        payload: Bytes,
        descriptor: Vec<u8>,
    ) -> StoreResult<u32> {
        let len = payload.len() as u64;
        let payload = match payload.len() % format::BLOCK_BYTES {
            1 if mutant::on(Mutant::ReclaimOffByOne) => payload.slice(1..),
            _ => payload,
        };
        let payload = Payload::Parts(vec![payload]);
        self.write(Stream::Moved, Change::Move(key, from), descriptor.into(), payload).await?;
        let mut state = self.state.borrow_mut();
        if state.index.get(&key) == Some(from) {
            return Ok(from.record_units);
        }
        state.stats.moved_bytes += len;
        Ok(0)
    }
}
