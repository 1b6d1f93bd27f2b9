//! A request's body as it comes off the connection, with a bound on how long it may stand still.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use object::api::BodyError;
use tokio::time::{Instant, Sleep, sleep};

/// hyper's body and a watch over it. The bytes that came are counted where the request's context sees them.
pub(crate) struct RawBody {
    inner: Incoming,
    counter: Arc<AtomicU64>,
    stall_timeout: Duration,
    /// Made when the body is first waited for: a small body that came with its header costs no timer.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl RawBody {
    pub(crate) fn new(inner: Incoming, counter: Arc<AtomicU64>, stall_timeout: Duration) -> Self {
        Self { inner, counter, stall_timeout, sleep: None, waiting: false }
    }

    /// The next bytes; `None` at the end that the framing of HTTP gives.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting = false;
                    // HTTP trailers mean nothing in S3.
                    let Ok(data) = frame.into_data() else { continue };
                    self.counter.fetch_add(data.len() as u64, Ordering::Relaxed);
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.poll_stalled(cx));
                    return Poll::Ready(Some(Err(BodyError::TimedOut)));
                }
            }
        }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.stall_timeout;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(Instant::now() + timeout);
        }
        sleep.as_mut().poll(cx)
    }
}
