//! The client side of the admin socket: one request, one answer, one connection.

use std::io;
use std::path::Path;
use std::time::Duration;

use daemon::admin::{CreateKey, KEYS_PATH, KeyList, KeyRow, NewKey, Refusal};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::error::CliError;

/// How long a running server may take for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer: every key a catalog may hold, at its longest.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A server that listens on its socket.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    runtime: Runtime,
    stream: UnixStream,
}

impl AdminSocket {
    /// Connects; `None` when no server listens there.
    pub(crate) fn connect(path: &Path) -> Result<Option<Self>, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| CliError::Server(e.to_string()))?;
        match runtime.block_on(UnixStream::connect(path)) {
            Ok(stream) => Ok(Some(Self { runtime, stream })),
            // No socket, or one left by a server that was killed.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(source) => Err(CliError::File { path: path.to_owned(), source }),
        }
    }

    pub(crate) fn create_key(self, name: &str) -> Result<NewKey, CliError> {
        let body = serde_json::to_vec(&CreateKey { name: name.to_owned() }).expect("a name is JSON");
        let (status, answer) = self.ask(Method::POST, KEYS_PATH, body)?;
        if status == StatusCode::CREATED { parse(&answer) } else { Err(refused(status, &answer)) }
    }

    pub(crate) fn list_keys(self) -> Result<Vec<KeyRow>, CliError> {
        let (status, answer) = self.ask(Method::GET, KEYS_PATH, Vec::new())?;
        if status == StatusCode::OK { Ok(parse::<KeyList>(&answer)?.keys) } else { Err(refused(status, &answer)) }
    }

    pub(crate) fn delete_key(self, access_key_id: &str) -> Result<bool, CliError> {
        // Ids are letters and digits; anything else names no key, and must not become part of a path.
        if access_key_id.is_empty() || !access_key_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(false);
        }
        let (status, answer) = self.ask(Method::DELETE, &format!("{KEYS_PATH}/{access_key_id}"), Vec::new())?;
        match status {
            StatusCode::NO_CONTENT => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(status, &answer)),
        }
    }

    fn ask(self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), CliError> {
        let Self { runtime, stream } = self;
        runtime.block_on(async {
            match tokio::time::timeout(ANSWER_TIME_MAX, exchange(stream, method, path, body)).await {
                Ok(answer) => answer,
                Err(_) => Err(CliError::Server(format!("nothing came for {} s", ANSWER_TIME_MAX.as_secs()))),
            }
        })
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), CliError> {
    let broken = |e: &dyn std::fmt::Display| CliError::Server(e.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    // The connection drives itself; its error is also the request's.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "admin");
    let request = request.body(Full::new(Bytes::from(body))).map_err(|e| broken(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| broken(&e))?;
    Ok((status, body.to_bytes()))
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, CliError> {
    // The answer may hold a secret: the place of the error is told, not the text.
    serde_json::from_slice(answer).map_err(|e| CliError::Server(format!("its answer ends at column {}", e.column())))
}

fn refused(status: StatusCode, answer: &[u8]) -> CliError {
    match serde_json::from_slice::<Refusal>(answer) {
        Ok(refusal) => CliError::Refused(refusal.error),
        Err(_) => CliError::Server(format!("status {status}")),
    }
}
