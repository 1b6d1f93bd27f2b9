//! What travels with one request through s3s and back: identifier, body, and what became of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base::Entropy;
use http::HeaderValue;
use s3s::{S3Error, S3Request, S3Result, s3_error};

use crate::incoming::RawBody;
use crate::stats::Operation;

/// `x-amz-request-id`: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 16]);

impl RequestId {
    pub(crate) fn draw(entropy: &dyn Entropy) -> Self {
        let number = entropy.next_u64();
        let mut digits = [0; 16];
        for (i, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789ABCDEF"[(number >> (60 - 4 * i)) as usize & 15];
        }
        Self(digits)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are text")
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("hexadecimal digits make a header")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One request's context; in the request's extensions as an `Arc`.
pub(crate) struct RequestContext {
    pub(crate) id: RequestId,
    /// The body of an upload. It goes round s3s, so that the operation reads it without s3s's layers
    /// (which hold whole chunks in memory) and only once it knows that it wants it.
    body: Mutex<Option<RawBody>>,
    /// The error of a body that s3s read, which s3s cannot name.
    refusal: Mutex<Option<S3Error>>,
    operation: OnceLock<Operation>,
    /// Shared with the body (which must not hold the context that holds it).
    bytes_in: Arc<AtomicU64>,
}

impl RequestContext {
    pub(crate) fn new(id: RequestId) -> Self {
        Self {
            id,
            body: Mutex::new(None),
            refusal: Mutex::new(None),
            operation: OnceLock::new(),
            bytes_in: Arc::default(),
        }
    }

    /// Leaves the body for the operation.
    pub(crate) fn keep_body(&self, body: RawBody) {
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    /// Takes the body.
    pub(crate) fn take_body(&self) -> Option<RawBody> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn refuse(&self, error: S3Error) {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(crate) fn take_refusal(&self) -> Option<S3Error> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn set_operation(&self, operation: Operation) {
        // s3s checks access once; were it ever to do so twice, the first word would stand.
        let _ = self.operation.set(operation);
    }

    pub(crate) fn operation(&self) -> Operation {
        self.operation.get().copied().unwrap_or(Operation::OTHER)
    }

    /// Where a body counts the bytes that came.
    pub(crate) fn counter_in(&self) -> Arc<AtomicU64> {
        self.bytes_in.clone()
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }
}

/// The body that the front left for an operation.
pub(crate) fn take_body<T>(request: &S3Request<T>) -> S3Result<RawBody> {
    let context = request.extensions.get::<Arc<RequestContext>>();
    context.and_then(|context| context.take_body()).ok_or_else(|| s3_error!(MissingRequestBodyError))
}
