//! One S3 client: one kept-alive TCP connection with TCP_NODELAY, requests one after the other.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::net::TcpStream;

use crate::payload::{Check, Objects, Pieces};
use crate::sigv4::{Canonical, Signer, UNSIGNED_PAYLOAD, query_string};

/// The longest wait for an answer's head: far above any sane latency, so that a hang ends the run.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where requests go and who signs them.
#[derive(Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub authority: String,
    /// The signer.
    pub signer: Signer,
}

/// Why a request gave no good answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The variables that name the endpoint are not as they should be.
    #[error("{0} is not set, or is not of the form http://host:port")]
    Environment(&'static str),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A request that cannot be formed.
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    /// No answer in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// An answer other than success.
    #[error("{method} {path}: {status}: {body}")]
    Status {
        /// Method of the request.
        method: &'static str,
        /// Path of the request.
        path: String,
        /// What was answered.
        status: StatusCode,
        /// The first bytes of the error's body.
        body: String,
    },
    /// A body that is not the object that was put.
    #[error("GET {path}: the body is not the object that was put ({len} bytes)")]
    WrongBody {
        /// Path of the request.
        path: String,
        /// Bytes that came.
        len: u64,
    },
}

impl ClientError {
    /// Whether the server asked to slow down.
    #[must_use]
    pub fn is_slow_down(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::SERVICE_UNAVAILABLE, .. })
    }
}

impl Endpoint {
    /// From `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if set, `AWS_REGION` or
    /// `AWS_DEFAULT_REGION`, by way of `get`.
    ///
    /// # Errors
    /// [`ClientError::Environment`] names the variable.
    pub fn from_variables(get: impl Fn(&'static str) -> Option<String>) -> Result<Self, ClientError> {
        let need = |name| get(name).filter(|value| !value.is_empty()).ok_or(ClientError::Environment(name));
        let url = need("AWS_ENDPOINT_URL")?;
        let wrong = ClientError::Environment("AWS_ENDPOINT_URL");
        let authority = url.strip_prefix("http://").ok_or(wrong)?.trim_end_matches('/').to_owned();
        let signer = Signer {
            access_key: need("AWS_ACCESS_KEY_ID")?,
            secret_key: need("AWS_SECRET_ACCESS_KEY")?,
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".to_owned()),
        };
        Ok(Self { authority, signer })
    }
}

/// One client.
pub struct Client {
    endpoint: Endpoint,
    connection: Option<SendRequest<Pieces>>,
}

impl Client {
    /// Connects at the first request.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: None }
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn make_bucket(&mut self, bucket: &str) -> Result<(), ClientError> {
        let response = self.request("PUT", &format!("/{bucket}"), &[], Pieces::default()).await?;
        self.drain(response).await
    }

    /// Puts object `number` of `objects`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put(&mut self, path: &str, objects: &Objects, number: u64) -> Result<(), ClientError> {
        let response = self.request("PUT", path, &[], objects.body(number)).await?;
        self.drain(response).await
    }

    /// Gets a path and checks that it is object `number` of `objects`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&mut self, path: &str, objects: &Objects, number: u64) -> Result<(), ClientError> {
        let mut body = self.request("GET", path, &[], Pieces::default()).await?.into_body();
        let mut check = Check::default();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => check.update(frame.data_ref().map_or(&[][..], |data| data)),
                Err(error) => return Err(self.broken(error)),
            }
        }
        let len = check.len();
        if check.is(objects, number) { Ok(()) } else { Err(ClientError::WrongBody { path: path.to_owned(), len }) }
    }

    /// Asks for a path's head.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn head(&mut self, path: &str) -> Result<(), ClientError> {
        let response = self.request("HEAD", path, &[], Pieces::default()).await?;
        self.drain(response).await
    }

    /// Deletes a path.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&mut self, path: &str) -> Result<(), ClientError> {
        let response = self.request("DELETE", path, &[], Pieces::default()).await?;
        self.drain(response).await
    }

    /// One page of a listing: the keys, and the token of the next page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(
        &mut self,
        bucket: &str,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), ClientError> {
        let mut query = vec![("list-type", "2"), ("max-keys", "1000"), ("prefix", prefix)];
        query.extend(token.map(|token| ("continuation-token", token)));
        let response = self.request("GET", &format!("/{bucket}"), &query, Pieces::default()).await?;
        let body = self.text(response).await?;
        let keys = elements(&body, "Key").map(str::to_owned).collect();
        let next = elements(&body, "NextContinuationToken").next().map(unescape);
        Ok((keys, next))
    }

    /// Sends a request and gives its answer when that is a success.
    async fn request(
        &mut self,
        method: &'static str,
        path: &str,
        query: &[(&str, &str)],
        body: Pieces,
    ) -> Result<Response<Incoming>, ClientError> {
        let authority = self.endpoint.authority.as_str();
        let headers = [("host", authority)];
        let canonical = Canonical { method, path, query, headers: &headers, payload: UNSIGNED_PAYLOAD };
        let (stamp, authorization) = self.endpoint.signer.sign(&canonical, OffsetDateTime::now_utc());
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query_string(query)) };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", authority)
            .header("x-amz-content-sha256", UNSIGNED_PAYLOAD)
            .header("x-amz-date", stamp)
            .header("authorization", authorization);
        // An empty body is otherwise sent without a length, which S3 wants for every PUT.
        if method == "PUT" {
            request = request.header("content-length", hyper::body::Body::size_hint(&body).lower());
        }
        let request = request.body(body)?;
        let sent = self.connection().await?.send_request(request);
        let response = match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.broken(error)),
            Err(_) => {
                self.connection = None;
                return Err(ClientError::Silent);
            }
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.text(response).await?.chars().take(400).collect();
        Err(ClientError::Status { method, path: path.to_owned(), status, body })
    }

    /// The connection; a new one where there is none or the server has closed it.
    async fn connection(&mut self) -> Result<&mut SendRequest<Pieces>, ClientError> {
        if let Some(connection) = &mut self.connection
            && connection.ready().await.is_err()
        {
            self.connection = None;
        }
        if self.connection.is_none() {
            let stream = TcpStream::connect(&self.endpoint.authority).await?;
            stream.set_nodelay(true)?;
            let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the connection; its error is also the error of the request under way.
            tokio::spawn(async move { drop(driver.await) });
            sender.ready().await?;
            self.connection = Some(sender);
        }
        Ok(self.connection.as_mut().expect("just made"))
    }

    fn broken(&mut self, error: hyper::Error) -> ClientError {
        self.connection = None;
        error.into()
    }

    async fn drain(&mut self, response: Response<Incoming>) -> Result<(), ClientError> {
        self.text(response).await.map(drop)
    }

    async fn text(&mut self, response: Response<Incoming>) -> Result<String, ClientError> {
        match response.into_body().collect().await {
            Ok(body) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
            Err(error) => Err(self.broken(error)),
        }
    }
}

/// The texts of all `<name>` elements. Our keys need no more of XML than that.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open.len();
        let len = rest[start..].find(&close)?;
        let text = &rest[start..start + len];
        rest = &rest[start + len + close.len()..];
        Some(text)
    })
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_in_order() {
        let xml = "<R><Key>a</Key><X/><Key>b</Key><NextContinuationToken>t&amp;1</NextContinuationToken></R>";
        assert_eq!(elements(xml, "Key").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(elements(xml, "NextContinuationToken").next().map(unescape).as_deref(), Some("t&1"));
        assert_eq!(elements("<Key>cut", "Key").count(), 0);
    }

    #[test]
    fn the_environment_is_asked_for_by_name() {
        let all = |name| match name {
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:9000/".to_owned()),
            "AWS_REGION" => None,
            _ => Some("x".to_owned()),
        };
        assert_eq!(Endpoint::from_variables(all).expect("complete").authority, "127.0.0.1:9000");
        let missing = Endpoint::from_variables(|name| all(name).filter(|_| name != "AWS_ACCESS_KEY_ID"));
        assert!(matches!(missing, Err(ClientError::Environment("AWS_ACCESS_KEY_ID"))));
        let tls = Endpoint::from_variables(|name| all(name).map(|value| value.replace("http:", "https:")));
        assert!(matches!(tls, Err(ClientError::Environment("AWS_ENDPOINT_URL"))));
    }
}
