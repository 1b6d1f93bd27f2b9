//! One operation under way: a future that finishes after its drawn number of polls, and when dropped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use disk::DiskResult;

/// An operation that the device has accepted; `finish` takes effect once, at the last poll or at the drop.
pub(crate) struct Op<T, F: FnOnce() -> DiskResult<T> + Unpin> {
    polls_left: u32,
    finish: Option<F>,
}

impl<T, F: FnOnce() -> DiskResult<T> + Unpin> Op<T, F> {
    pub(crate) fn new(polls_left: u32, finish: F) -> Self {
        Self { polls_left, finish: Some(finish) }
    }
}

impl<T, F: FnOnce() -> DiskResult<T> + Unpin> Future for Op<T, F> {
    type Output = DiskResult<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left > 0 {
            self.polls_left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let finish = self.finish.take().expect("an operation is not polled after it has finished");
        Poll::Ready(finish())
    }
}

impl<T, F: FnOnce() -> DiskResult<T> + Unpin> Drop for Op<T, F> {
    /// The device does not take an operation back because nobody waits for it.
    fn drop(&mut self) {
        if let Some(finish) = self.finish.take() {
            // Nobody is left to hear of a failure.
            let _ = finish();
        }
    }
}
