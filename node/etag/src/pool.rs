//! Chunks that wait to be hashed, and the one who comes by and hashes them.
//!
//! All state is behind one lock, held for moments; hashing happens outside it, on work moved out.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use md5lanes::{BLOCK_BYTES, INITIAL, Kernel, LANES_MAX, State};

use crate::Md5Stats;

/// Bytes of each lane between two looks at the queue: long against the lock, short enough for a
/// chunk that has just come to join.
const STRIDE_BYTES: usize = 16 << 10;

type Block = [u8; BLOCK_BYTES];

/// Whole blocks to be hashed: one put together from two chunks, then a chunk's own.
pub(crate) struct Work {
    pub(crate) head: Option<Block>,
    pub(crate) body: Bytes,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.head.is_none() && self.body.is_empty()
    }

    /// The bytes to hash next.
    fn front(&self) -> &[u8] {
        self.head.as_ref().map_or(&self.body, |head| head)
    }

    fn advance(&mut self, len: usize) {
        match self.head.take() {
            Some(head) => assert_eq!(len, head.len(), "the head is one block"),
            None => self.body.advance(len),
        }
    }
}

enum Phase {
    /// Nothing to do; the state is that of all that was submitted.
    Idle,
    /// In the queue.
    Waiting(Work),
    /// Somebody is hashing it.
    Running,
}

struct Upload {
    state: State,
    phase: Phase,
    /// Who wants to know when it is no longer running.
    waker: Option<Waker>,
    /// The stream is gone; whoever is hashing frees the place.
    is_closed: bool,
}

/// A stream's place in the pool.
pub(crate) struct Slot(usize);

#[derive(Default)]
struct Shared {
    uploads: Vec<Option<Upload>>,
    free: Vec<usize>,
    /// Places of the uploads in phase `Waiting`, oldest first; each at most once.
    waiting: VecDeque<usize>,
    stats: Md5Stats,
}

pub(crate) struct Pool {
    kernel: Kernel,
    shared: Mutex<Shared>,
}

/// One lane in use: an upload's work, moved out of the pool.
struct Lane {
    place: usize,
    state: State,
    work: Work,
}

impl Pool {
    pub(crate) fn new(kernel: Kernel) -> Self {
        Self { kernel, shared: Mutex::default() }
    }

    pub(crate) fn open(&self) -> Slot {
        let upload = Upload { state: INITIAL, phase: Phase::Idle, waker: None, is_closed: false };
        let mut shared = self.lock();
        if let Some(place) = shared.free.pop() {
            shared.uploads[place] = Some(upload);
            return Slot(place);
        }
        shared.uploads.push(Some(upload));
        Slot(shared.uploads.len() - 1)
    }

    pub(crate) fn close(&self, slot: &Slot) {
        let mut shared = self.lock();
        let upload = shared.upload(slot.0);
        match upload.phase {
            Phase::Idle => shared.release(slot.0),
            Phase::Waiting(_) => {
                shared.waiting.retain(|place| *place != slot.0);
                shared.release(slot.0);
            }
            Phase::Running => upload.is_closed = true,
        }
    }

    /// The state of an upload that is settled.
    pub(crate) fn state(&self, slot: &Slot) -> State {
        let mut shared = self.lock();
        let upload = shared.upload(slot.0);
        assert!(matches!(upload.phase, Phase::Idle), "not settled");
        upload.state
    }

    /// Leaves work waiting for an upload that is settled.
    pub(crate) fn submit(&self, slot: &Slot, work: Work) {
        if work.is_empty() {
            return;
        }
        assert!(work.body.len().is_multiple_of(BLOCK_BYTES));
        let mut shared = self.lock();
        let upload = shared.upload(slot.0);
        assert!(matches!(upload.phase, Phase::Idle), "not settled");
        upload.phase = Phase::Waiting(work);
        shared.waiting.push_back(slot.0);
    }

    /// Ready when all that was submitted is hashed. Hashes it here, and others' with it, when it
    /// is waiting; pending only while somebody else has it in hand.
    pub(crate) fn poll_settled(&self, slot: &Slot, context: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.lock();
        let upload = shared.upload(slot.0);
        match upload.phase {
            Phase::Idle => Poll::Ready(()),
            Phase::Running => {
                upload.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Phase::Waiting(_) => {
                shared.waiting.retain(|place| *place != slot.0);
                let own = shared.take(slot.0);
                drop(shared);
                self.hash(own);
                Poll::Ready(())
            }
        }
    }

    pub(crate) fn stats(&self) -> Md5Stats {
        self.lock().stats
    }

    /// Hashes `own` to its end, and as much of what is waiting as fits beside it.
    fn hash(&self, own: Lane) {
        let own_place = own.place;
        let mut lanes = Vec::with_capacity(self.kernel.lanes());
        lanes.push(own);
        loop {
            let mut shared = self.lock();
            while lanes.len() < self.kernel.lanes()
                && let Some(place) = shared.waiting.pop_front()
            {
                lanes.push(shared.take(place));
            }
            drop(shared);

            let len = self.step(&mut lanes);
            let mut shared = self.lock();
            shared.stats.steps += (len / BLOCK_BYTES) as u64;
            shared.stats.lane_blocks += (len / BLOCK_BYTES * lanes.len()) as u64;
            let mut wakers = Vec::new();
            for done in lanes.extract_if(.., |lane| lane.work.is_empty()) {
                wakers.extend(shared.put_back(done));
            }
            let is_done = lanes.iter().all(|lane| lane.place != own_place);
            if is_done {
                // The oldest first again, as they stood.
                for lane in lanes.drain(..).rev() {
                    wakers.extend(shared.put_back(lane));
                }
            }
            drop(shared);
            wakers.into_iter().for_each(Waker::wake);
            if is_done {
                return;
            }
        }
    }

    /// Advances every lane by what all of them have, at most a stride; says how many bytes.
    fn step(&self, lanes: &mut [Lane]) -> usize {
        let fronts = lanes.iter().map(|lane| lane.work.front().len());
        let len = fronts.min().unwrap_or(0).min(STRIDE_BYTES);
        assert!(len > 0 && len.is_multiple_of(BLOCK_BYTES));
        let mut states = [State::default(); LANES_MAX];
        let mut data: [&[u8]; LANES_MAX] = [&[]; LANES_MAX];
        for (i, lane) in lanes.iter().enumerate() {
            states[i] = lane.state;
            data[i] = &lane.work.front()[..len];
        }
        let count = lanes.len();
        self.kernel.compress(&mut states[..count], &data[..count]);
        for (lane, state) in lanes.iter_mut().zip(states) {
            lane.state = state;
            lane.work.advance(len);
        }
        len
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics under the lock but an assert; going on with what it guards is no worse then.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn upload(&mut self, place: usize) -> &mut Upload {
        self.uploads[place].as_mut().expect("a stream holds its place until it is closed")
    }

    fn release(&mut self, place: usize) {
        let released = self.uploads[place].take();
        assert!(released.is_some(), "released twice");
        self.free.push(place);
    }

    /// Moves the work of a waiting upload out. It is no longer in the queue.
    fn take(&mut self, place: usize) -> Lane {
        let upload = self.upload(place);
        match std::mem::replace(&mut upload.phase, Phase::Running) {
            Phase::Waiting(work) => Lane { place, state: upload.state, work },
            Phase::Idle | Phase::Running => unreachable!("only waiting uploads are taken"),
        }
    }

    /// Gives an upload its state back, and what is left of its work to the front of the queue. The
    /// caller wakes who waits for it.
    fn put_back(&mut self, lane: Lane) -> Option<Waker> {
        let upload = self.upload(lane.place);
        assert!(matches!(upload.phase, Phase::Running));
        if upload.is_closed {
            self.release(lane.place);
            return None;
        }
        upload.state = lane.state;
        let waker = upload.waker.take();
        if lane.work.is_empty() {
            upload.phase = Phase::Idle;
        } else {
            upload.phase = Phase::Waiting(lane.work);
            self.waiting.push_front(lane.place);
        }
        waker
    }
}
