//! Waiting for a store on a thread that may block: redb calls its storage synchronously.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use tokio::runtime::{Handle, RuntimeFlavor};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future` here. On a worker of a multi-threaded runtime the other tasks move to another
/// worker first. The future must be completed by another thread: a store has one of its own.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    // Out of the caller's cooperative budget: once that is spent, a future is woken by the scheduler only,
    // which cannot run while its thread waits here.
    let mut future = pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
        return value;
    }
    let mut park = || {
        loop {
            std::thread::park();
            let mut context = Context::from_waker(&waker);
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
        }
    };
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(park),
        _ => park(),
    }
}
