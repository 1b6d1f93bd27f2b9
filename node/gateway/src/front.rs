//! One request from hyper to s3s and back.
//!
//! Order: identifier, permit, guards on the head, the body set aside, s3s (signature, access, operation),
//! then the response with its identifier. A [`ResponseBody`] holds the permit until its last byte is gone
//! and then counts and logs the request once, whatever way it ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base::{Clock, Entropy};
use bytes::Bytes;
use etag::Md5Lanes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use object::api::ObjectApi;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::StreamingBlob;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3Result, StdError, s3_error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use crate::access::Access;
use crate::context::{RequestContext, RequestId};
use crate::incoming::RawBody;
use crate::keys::{Keys, KeysAdapter};
use crate::ops::Face;
use crate::serve::Limits;
use crate::socket::{PHASE_IDLE, PHASE_REQUEST};
use crate::stats::GatewayStats;
use crate::xml::{XmlBody, XmlDigests};
use crate::{declared, errors, guard};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The S3 service over an object layer; give it to [`crate::serve`].
#[derive(Clone)]
pub struct Gateway {
    s3: S3Service,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stats: Arc<GatewayStats>,
}

impl Gateway {
    /// A gateway over `api` for the users in `keys`. `entropy` makes request identifiers only.
    pub fn new<O: ObjectApi>(
        api: Arc<O>,
        keys: Arc<dyn Keys>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let mut builder = S3ServiceBuilder::new(Face { api, lanes: Md5Lanes::new() });
        builder.set_auth(KeysAdapter(keys));
        builder.set_access(Access);
        let mut config = S3Config::default();
        // The scanner's bound is the lower one; this is what s3s would hold at most.
        config.xml_max_body_size = usize::MAX;
        config.form_max_fields_size = 0;
        config.post_object_max_file_size = 0;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        Self { s3: builder.build(), clock, entropy, stats: Arc::default() }
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Arc<GatewayStats> {
        self.stats.clone()
    }
}

/// The gateway with the limits of one server.
pub(crate) struct Front {
    gateway: Gateway,
    limits: Limits,
    permits: Arc<Semaphore>,
}

impl Front {
    pub(crate) fn new(gateway: Gateway, limits: Limits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.requests_max));
        Self { gateway, limits, permits }
    }

    /// Answers one request. `phase` tells the socket what the connection is doing.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        phase: Arc<AtomicU8>,
    ) -> Response<ResponseBody> {
        phase.store(PHASE_REQUEST, Ordering::Relaxed);
        let gateway = &self.gateway;
        gateway.stats.begin();
        let context = Arc::new(RequestContext::new(RequestId::draw(&*gateway.entropy)));
        let mut finish = Finish {
            context: context.clone(),
            clock: gateway.clock.clone(),
            stats: gateway.stats.clone(),
            began: gateway.clock.monotonic(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            status: StatusCode::INTERNAL_SERVER_ERROR,
            bytes_out: 0,
            broken: false,
            phase,
            permit: None,
        };
        let is_head = request.method() == Method::HEAD;
        let confuses = expects_for_nothing(request.headers());
        let result = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => {
                finish.permit = Some(permit);
                self.call(request, &context).await
            }
            Err(_) => Err(errors::slow_down()),
        };
        // What no operation wanted is dropped now, so that hyper knows that nobody will read it.
        drop(context.take_body());
        let response = result.unwrap_or_else(|error| render(error, context.id));
        let (mut parts, body) = response.into_parts();
        let body = without_body(&mut parts.headers, parts.status, is_head).unwrap_or(body);
        if is_head && parts.status == StatusCode::OK && parts.headers.contains_key(header::CONTENT_RANGE) {
            // s3s says so for GET only.
            parts.status = StatusCode::PARTIAL_CONTENT;
        }
        parts.headers.insert(REQUEST_ID, context.id.header());
        if confuses {
            parts.headers.insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        finish.status = parts.status;
        Response::from_parts(parts, ResponseBody { inner: body, finish })
    }

    async fn call(&self, request: Request<Incoming>, context: &Arc<RequestContext>) -> S3Result<Response<Body>> {
        let (mut parts, incoming) = request.into_parts();
        guard::check(&parts)?;
        say_empty(&mut parts);
        let body = self.set_aside(&parts, incoming, context)?;
        parts.extensions.insert(context.clone());
        // Everything that is logged below while the request is answered carries its identifier.
        let span = tracing::error_span!("request", request_id = %context.id);
        let response = self.gateway.s3.call(Request::from_parts(parts, body)).instrument(span).await;
        if let Some(refusal) = context.take_refusal() {
            return Err(refusal);
        }
        response.map_err(|error| {
            let error: StdError = error.into();
            tracing::error!(%error, request_id = %context.id, "the S3 library could not answer");
            s3_error!(InternalError, "We encountered an internal error. Please try again.")
        })
    }

    /// The body s3s gets: none for uploads (the operation takes it from the context) and for methods that
    /// have none, the guarded one where XML is due.
    fn set_aside(&self, parts: &Parts, incoming: Incoming, context: &Arc<RequestContext>) -> S3Result<Body> {
        let raw = || RawBody::new(incoming, context.counter_in(), self.limits.stall_timeout);
        match parts.method {
            Method::PUT if names_object(&parts.uri) => {
                context.keep_body(raw());
                Ok(Body::empty())
            }
            Method::PUT | Method::POST => {
                let declared = xml_digests(&parts.headers)?;
                if declared.bytes == Some(0) {
                    return Ok(Body::empty());
                }
                let xml = XmlBody::new(raw(), context.clone(), self.limits.xml_bytes_max, declared);
                Ok(Body::from(StreamingBlob::new(xml)))
            }
            _ => Ok(Body::empty()),
        }
    }
}

/// An empty body announced with `Expect: 100-continue` is never asked for, and botocore then takes the final
/// status for the interim one and loses count of its answers: such a connection is not used again.
fn expects_for_nothing(headers: &HeaderMap) -> bool {
    let says =
        |name: HeaderName, value: &[u8]| headers.get(name).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(value));
    says(header::EXPECT, b"100-continue") && says(header::CONTENT_LENGTH, b"0")
}

/// HTTP lets a request without a body leave its length out, and clients do where none is due; s3s wants it
/// from every PUT and POST. An upload has to say its length itself.
fn say_empty(parts: &mut Parts) {
    let is_upload =
        parts.method == Method::PUT && names_object(&parts.uri) && !parts.headers.contains_key("x-amz-copy-source");
    let is_change = parts.method == Method::PUT || parts.method == Method::POST;
    let is_silent =
        !parts.headers.contains_key(header::CONTENT_LENGTH) && !parts.headers.contains_key(header::TRANSFER_ENCODING);
    if is_change && !is_upload && is_silent {
        parts.headers.insert(header::CONTENT_LENGTH, http::HeaderValue::from_static("0"));
    }
}

/// Whether the path has a key behind its bucket.
fn names_object(uri: &Uri) -> bool {
    uri.path().get(1..).and_then(|path| path.split_once('/')).is_some_and(|(_, key)| !key.is_empty())
}

fn xml_digests(headers: &HeaderMap) -> S3Result<XmlDigests> {
    let payload = declared::text(headers, declared::CONTENT_SHA256)?.unwrap_or_default();
    if payload.starts_with("STREAMING-") {
        return Err(errors::not_implemented("An aws-chunked payload for this operation"));
    }
    let length = declared::text(headers, header::CONTENT_LENGTH.as_str())?;
    Ok(XmlDigests {
        bytes: length.and_then(|value| value.parse().ok()),
        md5: declared::content_md5(headers)?,
        sha256: declared::content_sha256(headers),
        checksum: declared::body_checksum(headers)?,
    })
}

/// An error of the front as a response.
fn render(mut error: S3Error, id: RequestId) -> Response<Body> {
    error.set_request_id(id.as_str());
    let status = error.status_code().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    error.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    })
}

/// Responses that carry no body by HTTP's rules lose the one s3s gives every error.
fn without_body(headers: &mut HeaderMap, status: StatusCode, is_head: bool) -> Option<Body> {
    let bodiless = status == StatusCode::NOT_MODIFIED || status == StatusCode::NO_CONTENT;
    if bodiless || (is_head && !status.is_success()) {
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::CONTENT_TYPE);
        return Some(Body::empty());
    }
    None
}

/// A response's body on its way out.
pub(crate) struct ResponseBody {
    inner: Body,
    finish: Finish,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.finish.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(_))) => self.finish.broken = true,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Ends a request: counts it, logs it, gives its permit back.
struct Finish {
    context: Arc<RequestContext>,
    clock: Arc<dyn Clock>,
    stats: Arc<GatewayStats>,
    began: Duration,
    method: Method,
    uri: Uri,
    status: StatusCode,
    bytes_out: u64,
    broken: bool,
    phase: Arc<AtomicU8>,
    permit: Option<OwnedSemaphorePermit>,
}

macro_rules! log_request {
    ($level:ident, $this:ident, $took:ident) => {{
        let (bucket, key) = bucket_and_key(&$this.uri);
        tracing::$level!(
            request_id = %$this.context.id,
            operation = $this.context.operation().name(),
            method = %$this.method,
            bucket,
            key,
            status = $this.status.as_u16(),
            bytes_in = $this.context.bytes_in(),
            bytes_out = $this.bytes_out,
            duration_ms = $took.as_secs_f64() * 1e3,
            broken = $this.broken,
            "request"
        )
    }};
}

/// Bucket and key as they stand in the path, still percent-encoded.
fn bucket_and_key(uri: &Uri) -> (&str, &str) {
    let path = uri.path().trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

impl Drop for Finish {
    fn drop(&mut self) {
        let took = self.clock.monotonic().saturating_sub(self.began);
        let operation = self.context.operation();
        self.stats.end(operation, self.status, self.context.bytes_in(), self.bytes_out, took);
        if self.broken {
            self.stats.broken();
        }
        self.phase.store(PHASE_IDLE, Ordering::Relaxed);
        // 501 is the client's wish for what is not there, not this server's trouble.
        let trouble = self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED;
        if trouble || self.broken {
            log_request!(warn, self, took);
        } else if operation.changes() {
            log_request!(info, self, took);
        } else {
            log_request!(debug, self, took);
        }
        drop(self.permit.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_an_object_when_something_follows_the_bucket() {
        for (path, expected) in [("/", false), ("/b", false), ("/b/", false), ("/b/k", true), ("/b//", true)] {
            assert_eq!(names_object(&path.parse().unwrap()), expected, "{path}");
        }
    }
}
