//! A device whose completions are the scheduler's choice.
//!
//! An operation begins at its call, as on any device, and then waits at the gate. The device's task finishes one
//! waiting operation at a time, any of them, and pauses; so the order and the time of completions are free, and
//! a device with nothing to do sleeps. Dropping an operation's future does not take it back.
//!
//! Outside of what a harness examines the gate stands open: operations then finish at the call.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use disk::{AlignedBuf, AlignedBytes, BlockDevice, DeviceFacts, DiskResult};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use simdisk::SimDisk;

use crate::chance;

/// Where operations wait; clones are the same one.
#[derive(Clone, Default)]
pub struct Gate {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: RefCell<Vec<Rc<dyn Finish>>>,
    device: RefCell<Option<Waker>>,
    guarded: Cell<bool>,
    ended: Cell<bool>,
}

trait Finish {
    fn finish(&self);
}

/// An operation that has begun.
struct Begun<T> {
    under_way: RefCell<Option<LocalBoxFuture<'static, T>>>,
    /// Set when the operation has taken effect, which may be before the device says so.
    outcome: RefCell<Option<T>>,
    finished: Cell<bool>,
    caller: RefCell<Option<Waker>>,
}

impl<T> Finish for Begun<T> {
    fn finish(&self) {
        if let Some(mut op) = self.under_way.take() {
            // The simulated disk counts polls; nothing else has to happen for it to be done.
            let done = loop {
                if let Poll::Ready(done) = op.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    break done;
                }
            };
            *self.outcome.borrow_mut() = Some(done);
        }
        self.finished.set(true);
        if let Some(caller) = self.caller.take() {
            caller.wake();
        }
    }
}

impl<T> Begun<T> {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        if self.finished.get() {
            return Poll::Ready(self.outcome.take().expect("an outcome is taken once"));
        }
        *self.caller.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Gate {
    /// From now on the device's task decides when operations finish.
    pub fn guard(&self) {
        self.shared.guarded.set(true);
    }

    /// From now on operations finish at the call; those that wait still do.
    pub fn stand_open(&self) {
        self.shared.guarded.set(false);
    }

    /// Ends the device's task once nothing waits.
    pub fn end(&self) {
        self.shared.ended.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(device) = self.shared.device.take() {
            device.wake();
        }
    }

    /// The device's task.
    pub async fn run(self) {
        loop {
            let work = poll_fn(|cx| {
                if !self.shared.waiting.borrow().is_empty() {
                    return Poll::Ready(true);
                }
                if self.shared.ended.get() {
                    return Poll::Ready(false);
                }
                *self.shared.device.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            });
            if !work.await {
                return;
            }
            let count = self.shared.waiting.borrow().len();
            let chosen = chance::below(count as u64) as usize;
            let op = self.shared.waiting.borrow_mut().remove(chosen);
            op.finish();
            chance::pause().await;
        }
    }

    fn begin<T: 'static, F: Future<Output = T> + 'static>(&self, op: F) -> impl Future<Output = T> + use<T, F> {
        let mut op = op.boxed_local();
        // The first poll makes the call.
        let (under_way, outcome) = match op.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => (None, Some(done)),
            Poll::Pending => (Some(op), None),
        };
        let begun = Rc::new(Begun {
            under_way: RefCell::new(under_way),
            outcome: RefCell::new(outcome),
            finished: Cell::new(false),
            caller: RefCell::default(),
        });
        if self.shared.guarded.get() {
            self.shared.waiting.borrow_mut().push(Rc::clone(&begun) as Rc<dyn Finish>);
            self.wake();
        } else {
            begun.finish();
        }
        poll_fn(move |cx| begun.poll(cx))
    }
}

/// A simulated disk behind a gate.
#[derive(Clone)]
pub struct GatedDisk {
    disk: SimDisk,
    gate: Gate,
}

impl GatedDisk {
    /// `disk` behind `gate`.
    #[must_use]
    pub fn new(disk: SimDisk, gate: Gate) -> Self {
        Self { disk, gate }
    }
}

impl BlockDevice for GatedDisk {
    fn facts(&self) -> &DeviceFacts {
        self.disk.facts()
    }

    fn read(&self, offset: u64, buf: AlignedBuf) -> impl Future<Output = DiskResult<AlignedBuf>> {
        let disk = self.disk.clone();
        self.gate.begin(async move { disk.read(offset, buf).await })
    }

    fn write(&self, offset: u64, parts: Vec<AlignedBytes>) -> impl Future<Output = DiskResult<()>> {
        let disk = self.disk.clone();
        self.gate.begin(async move { disk.write(offset, parts).await })
    }

    fn flush(&self) -> impl Future<Output = DiskResult<()>> {
        let disk = self.disk.clone();
        self.gate.begin(async move { disk.flush().await })
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> impl Future<Output = DiskResult<()>> {
        let disk = self.disk.clone();
        self.gate.begin(async move { disk.discard(offset, len_bytes).await })
    }
}
