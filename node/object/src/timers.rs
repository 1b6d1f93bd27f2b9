//! The timer door: the object layer waits for time only through it, so that a simulator can move time.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};

/// Waits for time.
pub trait Timers: Debug + Send + Sync + 'static {
    /// Returns after `time`; dropped, it is forgotten.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// No time ever passes: nobody is given up on and nothing is hedged.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTimers;

impl Timers for NoTimers {
    fn sleep(&self, _time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// What `work` gives, unless it takes longer than `time`.
pub(crate) async fn within<T>(timers: &dyn Timers, time: Duration, work: impl Future<Output = T> + Send) -> Option<T> {
    let work = std::pin::pin!(work);
    match select(work, timers.sleep(time)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), _)) => None,
    }
}
