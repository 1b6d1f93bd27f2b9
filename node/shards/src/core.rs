//! The store's shell: state and device side by side, and the device operations that connect them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use disk::{AlignedBuf, BlockDevice, DiskError, DiskOp};
use format::Stream;
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;

use crate::anchors::AnchorLog;
use crate::extent::Change;
use crate::fault::FaultKind;
use crate::handle::Payload;
use crate::keylock::KeyLocks;
use crate::mutant::{self, Mutant};
use crate::place::{SegmentWrite, WriteItem};
use crate::state::State;
use crate::{StoreError, StoreResult};

pub(crate) struct Core<D> {
    pub(crate) device: D,
    pub(crate) state: RefCell<State>,
    pub(crate) locks: KeyLocks,
    /// Puts, gets and deletes under way: walks make room for them.
    foreground: Cell<u32>,
    /// Where anchor pages go on a zoned device.
    pub(crate) log: RefCell<AnchorLog>,
    spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    /// Set when the state may allow new device operations; the serving loop looks at it.
    dirty: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A put, get or delete under way.
pub(crate) struct Foreground<D>(Rc<Core<D>>);

impl<D> Drop for Foreground<D> {
    fn drop(&mut self) {
        self.0.foreground.set(self.0.foreground.get() - 1);
    }
}

impl<D: BlockDevice> Core<D> {
    pub(crate) fn new(device: D, state: State) -> Rc<Self> {
        Rc::new(Self {
            device,
            state: RefCell::new(state),
            locks: KeyLocks::default(),
            foreground: Cell::new(0),
            log: RefCell::default(),
            spawned: RefCell::new(Vec::new()),
            dirty: Cell::new(true),
            waker: RefCell::new(None),
        })
    }

    /// Counts a put, get or delete as under way until the guard is dropped.
    pub(crate) fn in_foreground(self: &Rc<Self>) -> Foreground<D> {
        self.foreground.set(self.foreground.get() + 1);
        Foreground(Rc::clone(self))
    }

    pub(crate) fn has_foreground(&self) -> bool {
        self.foreground.get() > 0
    }

    /// Tells the serving loop to look at the state again.
    pub(crate) fn touch(&self) {
        self.dirty.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(crate) fn park(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }

    pub(crate) fn take_dirty(&self) -> bool {
        self.dirty.replace(false)
    }

    /// Hands a future to the serving loop.
    pub(crate) fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        self.spawned.borrow_mut().push(task);
        self.touch();
    }

    /// Keeps a future for a later turn of the serving loop.
    pub(crate) fn hold(&self, task: LocalBoxFuture<'static, ()>) {
        self.spawned.borrow_mut().push(task);
    }

    pub(crate) fn take_spawned(&self) -> Vec<LocalBoxFuture<'static, ()>> {
        std::mem::take(&mut self.spawned.borrow_mut())
    }

    /// Starts every device operation that the state calls for.
    pub(crate) fn pump(self: &Rc<Self>) {
        if self.state.borrow().read_only {
            return;
        }
        for stream in Stream::ALL {
            loop {
                let write = self.state.borrow_mut().plan_write(stream);
                let Some(write) = write else { break };
                let core = Rc::clone(self);
                self.spawn(Box::pin(async move { core.write_segment(write).await }));
            }
        }
        let mut state = self.state.borrow_mut();
        if state.poison.is_some() {
            return;
        }
        for stream in std::mem::take(&mut state.finish_due) {
            let core = Rc::clone(self);
            self.spawn(Box::pin(async move { core.finish_sealed(stream).await }));
        }
        if state.anchor_dirty && !state.anchor_busy {
            (state.anchor_dirty, state.anchor_busy) = (false, true);
            let core = Rc::clone(self);
            self.spawn(Box::pin(async move { core.write_anchor().await }));
        }
        if !state.flush_busy && (!state.flush_waiters.is_empty() || !state.flush_cover().is_empty()) {
            state.flush_busy = true;
            let core = Rc::clone(self);
            self.spawn(Box::pin(async move { core.run_flush().await }));
        }
        if state.is_quiet() {
            state.quiet_waiters.drain(..).for_each(|waiter| _ = waiter.send(()));
        }
        let due = state.checkpoint_wanted
            || state.checkpoint_is_due()
            || (!state.checkpoint_stuck && state.checkpoint_makes_space());
        if due && !state.checkpoint_busy {
            state.checkpoint_busy = true;
            let core = Rc::clone(self);
            self.spawn(Box::pin(async move { core.background_checkpoint().await }));
        }
        let asked = !state.reclaim_waiters.is_empty();
        let due = asked || (state.space_is_low() && state.can_reclaim());
        if due && !state.reclaim_busy {
            state.reclaim_busy = true;
            let core = Rc::clone(self);
            self.spawn(Box::pin(async move { core.reclaim_one().await }));
        }
    }

    async fn write_segment(self: Rc<Self>, write: SegmentWrite) {
        let bytes: usize = write.parts.iter().map(|p| p.len()).sum();
        let ready = if write.first { self.empty_extent(write.extent).await } else { Ok(()) };
        let done = match ready {
            Ok(()) => self.device.write(write.offset, write.parts).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                let mut state = self.state.borrow_mut();
                state.stats.writes += 1;
                state.stats.written_bytes += bytes as u64;
                state.segment_written(write.extent, write.segment);
            }
            Err(_) if mutant::on(Mutant::WriteErrorIgnored) => {
                self.state.borrow_mut().segment_written(write.extent, write.segment);
            }
            Err(error) => self.fail(&error),
        }
        self.touch();
    }

    /// Writes the anchor page; the caller has set `anchor_busy`.
    pub(crate) async fn write_anchor(self: Rc<Self>) {
        let (sequence, page, named) = {
            let mut state = self.state.borrow_mut();
            let anchor = state.anchor();
            let page = AlignedBuf::from_bytes(&anchor.encode(state.label.device, state.label.salt)).freeze();
            (anchor.sequence, page, anchor.opened)
        };
        if let Err(error) = self.put_anchor(sequence, page.clone()).await {
            self.fail(&error);
            return;
        }
        let mut state = self.state.borrow_mut();
        state.stats.writes += 2;
        state.stats.written_bytes += 2 * page.len() as u64;
        state.anchor_busy = false;
        state.anchor_waiters.drain(..).for_each(|waiter| _ = waiter.send(()));
        for opened in named {
            if state.extents[opened.extent as usize].generation == opened.generation
                && let Some(track) = state.tracks.get_mut(&opened.extent)
            {
                track.anchored = true;
            }
        }
        drop(state);
        self.touch();
    }

    async fn run_flush(self: Rc<Self>) {
        let (cover, waiters) = {
            let mut state = self.state.borrow_mut();
            (state.flush_cover(), std::mem::take(&mut state.flush_waiters))
        };
        let mut done = self.device.flush().await;
        if done.is_err() && mutant::on(Mutant::FlushErrorRetried) {
            done = self.device.flush().await;
        }
        let later = mutant::on(Mutant::FlushCoversLaterWrites).then(|| self.state.borrow().flush_cover());
        let cover = later.unwrap_or(cover);
        match &done {
            Ok(()) => {
                let mut state = self.state.borrow_mut();
                state.flush_busy = false;
                state.stats.flushes += 1;
                // A poisoned store acknowledges nothing any more, whatever this flush said.
                if state.poison.is_none() {
                    state.flushed(&cover);
                }
            }
            Err(error) => self.fail(error),
        }
        for waiter in waiters {
            let _ = waiter.send(done.clone().map_err(StoreError::from));
        }
        self.touch();
    }

    /// The device failed a write or flush: nothing is written to it any more.
    pub(crate) fn fail(&self, error: &DiskError) {
        let mut state = self.state.borrow_mut();
        state.stats.device_errors += 1;
        if state.poison.is_none() {
            tracing::error!(device = %state.label.device, %error, "device poisoned: no further writes");
        }
        let (kind, offset) = fault_of(error);
        state.faults.note(kind, offset, error.to_string());
        state.poison(&error.to_string());
        if mutant::on(Mutant::PoisonForgotten) {
            state.poison = None;
        }
        drop(state);
        self.touch();
    }

    /// Returns when everything written before is on the medium.
    pub(crate) async fn flush(&self) -> StoreResult<()> {
        let done = {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            let (tell, done) = oneshot::channel();
            state.flush_waiters.push(tell);
            done
        };
        self.touch();
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Queues a record; returns when it is durable and in effect.
    pub(crate) async fn write(
        &self,
        stream: Stream,
        change: Change,
        descriptor: Bytes,
        payload: Payload,
    ) -> StoreResult<()> {
        let done = {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            let (reply, done) = oneshot::channel();
            let item = WriteItem { change, descriptor, payload, reply };
            state.queues.get_mut(&stream).expect("every stream has a queue").push_back(item);
            done
        };
        self.touch();
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Reads `len` bytes at `offset`, both aligned outward; gives the buffer and where `offset` is in it.
    pub(crate) async fn read_span(&self, offset: u64, len: usize) -> StoreResult<(AlignedBuf, usize)> {
        let align = u64::from(self.device.facts().read_align_bytes);
        let start = offset - offset % align;
        let lead = (offset - start) as usize;
        let buf = AlignedBuf::for_read((lead + len).next_multiple_of(align as usize));
        let bytes = buf.len() as u64;
        let used = self.state.borrow().use_of_zone(start);
        let done = self.device.read(start, buf).await;
        let mut state = self.state.borrow_mut();
        state.stats.reads += 1;
        match done {
            Ok(buf) => {
                state.stats.read_bytes += bytes;
                Ok((buf, lead))
            }
            // What was read of a zone that was emptied meanwhile is not wanted any more, and no fault of the device.
            Err(error) if state.use_of_zone(start) != used => Err(error.into()),
            Err(error) => {
                state.stats.device_errors += 1;
                state.faults.note(FaultKind::Read, Some(start), error.to_string());
                Err(error.into())
            }
        }
    }
}

fn fault_of(error: &DiskError) -> (FaultKind, Option<u64>) {
    match error {
        DiskError::Medium { op: DiskOp::Flush, .. } => (FaultKind::Flush, None),
        DiskError::Medium { offset, .. } | DiskError::NoSpace { offset, .. } => (FaultKind::Write, Some(*offset)),
        DiskError::Gone { op: DiskOp::Flush } | DiskError::Os { op: DiskOp::Flush, .. } => (FaultKind::Flush, None),
        _ => (FaultKind::Write, None),
    }
}
