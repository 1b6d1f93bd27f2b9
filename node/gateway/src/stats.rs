//! Counters of the gateway: plain atomics, read by whoever renders metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// Names of the operations that are told apart; the first is everything else.
        const NAMES: &[&str] = &["Other", $(stringify!($name)),*];
    };
}

operations!(
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CopyObject,
    CreateBucket,
    CreateMultipartUpload,
    DeleteBucket,
    DeleteObject,
    DeleteObjects,
    GetBucketAcl,
    GetBucketCors,
    GetBucketEncryption,
    GetBucketLifecycleConfiguration,
    GetBucketLocation,
    GetBucketOwnershipControls,
    GetBucketPolicy,
    GetBucketRequestPayment,
    GetBucketTagging,
    GetBucketVersioning,
    GetBucketWebsite,
    GetObject,
    GetObjectAcl,
    GetObjectAttributes,
    GetObjectLockConfiguration,
    GetObjectTagging,
    HeadBucket,
    HeadObject,
    ListBuckets,
    ListMultipartUploads,
    ListObjectVersions,
    ListObjects,
    ListObjectsV2,
    ListParts,
    PutObject,
    UploadPart,
    UploadPartCopy,
);

/// Upper bounds of the latency histogram, in microseconds; a last bucket takes the rest.
const LATENCY_BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// One operation, as an index into the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation(u8);

impl Operation {
    /// Not one of ours, or not known yet.
    pub(crate) const OTHER: Self = Self(0);

    /// The operation s3s calls so, when it is one that we have.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let at = NAMES.iter().skip(1).position(|n| *n == name)?;
        Some(Self(u8::try_from(at + 1).expect("fewer than 255 operations")))
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// Whether it changes anything.
    pub(crate) fn changes(self) -> bool {
        !["Get", "Head", "List", "Other"].iter().any(|prefix| self.name().starts_with(prefix))
    }
}

/// The first digit of an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// 1xx and 2xx.
    Success,
    /// 3xx.
    Redirect,
    /// 4xx.
    Client,
    /// 5xx.
    Server,
}

impl StatusClass {
    const ALL: [Self; 4] = [Self::Success, Self::Redirect, Self::Client, Self::Server];

    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            0..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::Client,
            _ => Self::Server,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::Client => "4xx",
            Self::Server => "5xx",
        }
    }
}

/// Requests of one operation that ended in one class of status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationCount {
    /// S3's name of the operation; `Other` for refused and unknown ones.
    pub operation: &'static str,
    /// How they ended.
    pub class: StatusClass,
    /// How many.
    pub requests: u64,
}

/// What the gateway counts, from the start of the process.
#[derive(Debug)]
pub struct GatewayStats {
    requests: Vec<[AtomicU64; 4]>,
    latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    latency_sum_us: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    requests_in_flight: AtomicU64,
    connections_open: AtomicU64,
    connections_refused: AtomicU64,
    responses_broken: AtomicU64,
}

impl Default for GatewayStats {
    fn default() -> Self {
        Self {
            requests: NAMES.iter().map(|_| Default::default()).collect(),
            latency: Default::default(),
            latency_sum_us: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            requests_in_flight: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            responses_broken: AtomicU64::new(0),
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl GatewayStats {
    pub(crate) fn begin(&self) {
        self.requests_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, operation: Operation, status: StatusCode, bytes_in: u64, bytes_out: u64, took: Duration) {
        let class = StatusClass::of(status) as usize;
        self.requests[usize::from(operation.0)][class].fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
        self.latency_sum_us.fetch_add(took_us, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        self.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn broken(&self) {
        self.responses_broken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_opened(&self) {
        self.connections_open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections_open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests by operation and class of status; those that never happened are left out.
    #[must_use]
    pub fn operations(&self) -> Vec<OperationCount> {
        let mut counts = Vec::new();
        for (operation, classes) in NAMES.iter().zip(&self.requests) {
            for class in StatusClass::ALL {
                let requests = read(&classes[class as usize]);
                if requests > 0 {
                    counts.push(OperationCount { operation, class, requests });
                }
            }
        }
        counts
    }

    /// Bytes of request bodies.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        read(&self.bytes_in)
    }

    /// Bytes of response bodies.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        read(&self.bytes_out)
    }

    /// Requests that have begun and whose response has not ended.
    #[must_use]
    pub fn requests_in_flight(&self) -> u64 {
        read(&self.requests_in_flight)
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        read(&self.connections_open)
    }

    /// Responses whose body failed on the way, so that the connection was broken.
    #[must_use]
    pub fn responses_broken(&self) -> u64 {
        read(&self.responses_broken)
    }

    /// Appends everything in Prometheus's text format.
    pub fn prometheus(&self, out: &mut String) {
        out.push_str("# TYPE holdfast_gateway_requests_total counter\n");
        for count in self.operations() {
            let (operation, class) = (count.operation, count.class.label());
            let _ = writeln!(
                out,
                "holdfast_gateway_requests_total{{operation=\"{operation}\",status=\"{class}\"}} {}",
                count.requests
            );
        }
        self.prometheus_latency(out);
        let totals = [
            ("bytes_in_total", "counter", &self.bytes_in),
            ("bytes_out_total", "counter", &self.bytes_out),
            ("connections_refused_total", "counter", &self.connections_refused),
            ("responses_broken_total", "counter", &self.responses_broken),
            ("requests_in_flight", "gauge", &self.requests_in_flight),
            ("connections_open", "gauge", &self.connections_open),
        ];
        for (name, kind, counter) in totals {
            let value = read(counter);
            let _ = writeln!(out, "# TYPE holdfast_gateway_{name} {kind}\nholdfast_gateway_{name} {value}");
        }
    }

    fn prometheus_latency(&self, out: &mut String) {
        out.push_str("# TYPE holdfast_gateway_request_seconds histogram\n");
        let mut below = 0;
        for (bound_us, bucket) in LATENCY_BOUNDS_US.iter().zip(&self.latency) {
            below += read(bucket);
            let bound_s = *bound_us as f64 / 1e6;
            let _ = writeln!(out, "holdfast_gateway_request_seconds_bucket{{le=\"{bound_s}\"}} {below}");
        }
        let count = below + read(&self.latency[LATENCY_BOUNDS_US.len()]);
        let sum_s = read(&self.latency_sum_us) as f64 / 1e6;
        let _ = writeln!(out, "holdfast_gateway_request_seconds_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "holdfast_gateway_request_seconds_sum {sum_s}");
        let _ = writeln!(out, "holdfast_gateway_request_seconds_count {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_everywhere() {
        let stats = GatewayStats::default();
        let get = Operation::by_name("GetObject").unwrap();
        stats.begin();
        assert_eq!(stats.requests_in_flight(), 1);
        stats.end(get, StatusCode::NOT_FOUND, 3, 5, Duration::from_millis(3));
        assert_eq!((stats.requests_in_flight(), stats.bytes_in(), stats.bytes_out()), (0, 3, 5));
        let expected = OperationCount { operation: "GetObject", class: StatusClass::Client, requests: 1 };
        assert_eq!(stats.operations(), [expected]);
        let mut text = String::new();
        stats.prometheus(&mut text);
        for line in [
            "holdfast_gateway_requests_total{operation=\"GetObject\",status=\"4xx\"} 1",
            "holdfast_gateway_request_seconds_bucket{le=\"0.0025\"} 0",
            "holdfast_gateway_request_seconds_bucket{le=\"0.005\"} 1",
            "holdfast_gateway_request_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn only_our_operations_have_names() {
        assert_eq!(Operation::by_name("PutBucketPolicy"), None);
        assert_eq!(Operation::by_name("Other"), None);
        assert!(Operation::by_name("PutObject").unwrap().changes());
        assert!(!Operation::by_name("ListParts").unwrap().changes());
    }
}
