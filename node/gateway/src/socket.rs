//! A connection's socket with a bound on every wait that hyper does not bound itself.
//!
//! hyper bounds how long a connection may be idle before the next request's header is whole; here the
//! header alone gets a shorter bound from its first byte on, and a client that takes no bytes of a response
//! for too long is cut off. The phase is told by the front.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Between requests.
pub(crate) const PHASE_IDLE: u8 = 0;
/// The first bytes of a header have come.
const PHASE_HEADER: u8 = 1;
/// A request is being answered.
pub(crate) const PHASE_REQUEST: u8 = 2;

/// How long a closed connection's leftover input is read, so that the last response is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of leftover input read at most.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A timer that is armed only while something is waited for.
struct Watch {
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Watch {
    fn new(timeout: Duration) -> Self {
        Self { timeout, sleep: None, armed: false }
    }

    fn disarm(&mut self) {
        self.armed = false;
    }

    fn arm(&mut self) {
        if self.armed {
            return;
        }
        self.armed = true;
        let timeout = self.timeout;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
        sleep.as_mut().reset(Instant::now() + timeout);
    }

    /// Pending until the time is over; registers the task's waker.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.sleep {
            Some(sleep) if self.armed => sleep.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into()),
            _ => Poll::Pending,
        }
    }
}

/// The socket of one connection.
pub(crate) struct Socket {
    stream: TcpStream,
    phase: Arc<AtomicU8>,
    header: Watch,
    write: Watch,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, header_timeout: Duration, stall_timeout: Duration) -> Self {
        let phase = Arc::new(AtomicU8::new(PHASE_IDLE));
        Self { stream, phase, header: Watch::new(header_timeout), write: Watch::new(stall_timeout) }
    }

    /// What the connection is doing; the front writes it.
    pub(crate) fn phase(&self) -> Arc<AtomicU8> {
        self.phase.clone()
    }

    fn wrote<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write.disarm();
            return polled;
        }
        self.write.arm();
        self.write.poll(cx).map(Err)
    }
}

/// Ends a connection in order: nothing more to send, and what still comes is read away for a moment.
pub(crate) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut sink = vec![0; 64 * 1024];
    let drain = async {
        let mut left = LINGER_BYTES_MAX;
        while let Ok(bytes) = stream.read(&mut sink).await
            && bytes > 0
            && bytes < left
        {
            left -= bytes;
        }
    };
    // Whoever still sends after that has had a second to read the response.
    let _ = timeout(LINGER, drain).await;
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let phase = self.phase.load(Ordering::Relaxed);
        if polled.is_ready() {
            if phase == PHASE_IDLE && buf.filled().len() > before {
                self.phase.store(PHASE_HEADER, Ordering::Relaxed);
                self.header.disarm();
                self.header.arm();
            }
            return polled;
        }
        if phase == PHASE_HEADER {
            return self.header.poll(cx).map(Err);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
