//! The servers as one: which to ask, when to go on to the next, and what their refusals mean.
//!
//! Invariant: a request that changes something is sent a second time only if the first did not leave this host.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

use super::config::EtcdConfig;
use super::door::{Door, chain};
use crate::facts::{FactsError, FactsResult};

pub(super) struct Servers {
    pub(super) config: EtcdConfig,
    doors: Vec<Server>,
    /// The one that answered last.
    current: AtomicUsize,
}

struct Server {
    door: Door,
    channel: Mutex<Option<Channel>>,
}

/// How an attempt at one server ended.
enum Attempt<T> {
    Answered(T),
    /// Refused, or answered with an error that says that nothing was done.
    Final(FactsError),
    /// It did not leave this host, or the server said that it did not take it.
    NotSent(String),
    /// No answer, or one that says nothing of what was done.
    Unclear(String),
}

impl Servers {
    pub(super) fn new(config: EtcdConfig) -> FactsResult<Self> {
        config.check()?;
        let doors = config
            .endpoints
            .iter()
            .map(|endpoint| Ok(Server { door: Door::new(&config, endpoint)?, channel: Mutex::new(None) }));
        let doors = doors.collect::<FactsResult<Vec<_>>>()?;
        Ok(Self { config, doors, current: AtomicUsize::new(0) })
    }

    /// Asks one server after the other until one answers. For what does no harm when done twice.
    pub(super) async fn read<T, F>(&self, ask: impl Fn(Channel) -> F) -> FactsResult<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.read_within(self.config.call_timeout, ask).await
    }

    /// The same with less patience for each server.
    pub(super) async fn read_within<T, F>(&self, limit: Duration, ask: impl Fn(Channel) -> F) -> FactsResult<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut why = String::new();
        for _ in 0..self.doors.len() {
            match self.attempt(limit.min(self.config.call_timeout), &ask).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Final(error) => return Err(error),
                Attempt::NotSent(text) | Attempt::Unclear(text) => why = text,
            }
        }
        Err(FactsError::Unavailable(why))
    }

    /// Sends a change to the first server that takes it.
    pub(super) async fn write<T, F>(&self, ask: impl Fn(Channel) -> F) -> FactsResult<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut why = String::new();
        for _ in 0..self.doors.len() {
            match self.attempt(self.config.call_timeout, &ask).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Final(error) => return Err(error),
                Attempt::Unclear(text) => return Err(FactsError::Unknown(text)),
                Attempt::NotSent(text) => why = text,
            }
        }
        Err(FactsError::Unavailable(why))
    }

    /// One attempt at the current server; without an answer, the next one is current.
    async fn attempt<T, F>(&self, limit: Duration, ask: &impl Fn(Channel) -> F) -> Attempt<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let at = self.current.load(Ordering::Relaxed);
        let server = &self.doors[at % self.doors.len()];
        let connected = tokio::time::timeout(limit.max(self.config.connect_timeout), server.channel()).await;
        let attempt = match connected.unwrap_or_else(|_| Err("no connection in time".to_owned())) {
            Err(why) => Attempt::NotSent(why),
            Ok(channel) => match tokio::time::timeout(limit, ask(channel)).await {
                Ok(Ok(answer)) => Attempt::Answered(answer.into_inner()),
                Ok(Err(status)) => judge(&status),
                Err(_) => Attempt::Unclear("no answer in time".to_owned()),
            },
        };
        match attempt {
            Attempt::NotSent(why) => Attempt::NotSent(self.leave(at, &why)),
            Attempt::Unclear(why) => Attempt::Unclear(self.leave(at, &why)),
            other => other,
        }
    }

    /// Goes on to the next server, if nobody else did already; names the one that failed.
    fn leave(&self, at: usize, why: &str) -> String {
        let at_server = at % self.doors.len();
        *self.doors[at_server].channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = self.current.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        format!("{}: {why}", self.config.endpoints[at_server])
    }
}

impl Server {
    async fn channel(&self) -> Result<Channel, String> {
        if let Some(channel) = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(channel);
        }
        let channel = self.door.open().await?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        Ok(channel)
    }
}

/// What a refusal means. Whatever is not known to have changed nothing is unclear.
fn judge<T>(status: &Status) -> Attempt<T> {
    if never_left(status) {
        return Attempt::NotSent(words(status));
    }
    let text = status.message().to_owned();
    match status.code() {
        Code::ResourceExhausted if text.contains("too many requests") => Attempt::NotSent(text),
        Code::ResourceExhausted if text.contains("space exceeded") => Attempt::Final(FactsError::Full(text)),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::ResourceExhausted
        | Code::OutOfRange
        | Code::Unimplemented => Attempt::Final(FactsError::Refused(text)),
        _ => Attempt::Unclear(words(status)),
    }
}

/// What is said to people: without the code, which is always the same for failed connections.
fn words(status: &Status) -> String {
    match std::error::Error::source(status) {
        None => status.message().to_owned(),
        Some(source) => chain(source),
    }
}

/// Whether a connection was wanted and not had.
fn never_left(status: &Status) -> bool {
    let mut inner = std::error::Error::source(status);
    while let Some(error) = inner {
        if error.is::<ConnectError>() {
            return true;
        }
        inner = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_is_classed() {
        let class = |status: &Status| match judge::<()>(status) {
            Attempt::Answered(()) => "answered",
            Attempt::Final(FactsError::Full(_)) => "full",
            Attempt::Final(FactsError::Refused(_)) => "refused",
            Attempt::Final(_) => "final",
            Attempt::NotSent(_) => "not sent",
            Attempt::Unclear(_) => "unclear",
        };
        for (code, text, expected) in [
            (Code::ResourceExhausted, "etcdserver: too many requests", "not sent"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "full"),
            (Code::ResourceExhausted, "grpc: received message larger than max", "refused"),
            (Code::InvalidArgument, "etcdserver: request is too large", "refused"),
            (Code::Unavailable, "etcdserver: request timed out", "unclear"),
            (Code::Unavailable, "etcdserver: leader changed", "unclear"),
            (Code::Unknown, "raft proposal dropped", "unclear"),
            (Code::DeadlineExceeded, "context deadline exceeded", "unclear"),
        ] {
            assert_eq!(class(&Status::new(code, text)), expected, "{text}");
        }
    }
}
