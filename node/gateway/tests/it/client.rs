//! A raw HTTP client with a small SigV4 signer, written against AWS's description and sharing no code with
//! the gateway, so that the two check each other.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const ACCESS: &str = "AKTEST";
pub(crate) const SECRET: &str = "secret/of+the=test";
pub(crate) const REGION: &str = "test-1";

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn sha256(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

fn mac(key: &[u8], data: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `YYYYMMDDTHHMMSSZ` of now plus an offset.
pub(crate) fn amz_date(offset_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + offset_s;
    let (days, rest) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    // Civil date from days since 1970 (Howard Hinnant's algorithm).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Everything but unreserved characters, percent-encoded.
pub(crate) fn encode(text: &str, keep_slash: bool) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b'/' if keep_slash => "/".to_owned(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

fn signing_key(secret: &str, date: &str) -> Vec<u8> {
    let key = mac(format!("AWS4{secret}").as_bytes(), &date[..8]);
    mac(&mac(&mac(&key, REGION), "s3"), "aws4_request")
}

/// A request being made. `path` is written as it goes over the wire.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) date: String,
    pub(crate) access: String,
    pub(crate) secret: String,
    pub(crate) payload: Option<String>,
    /// Chunk signatures need the request's.
    pub(crate) signature: String,
    /// Sends no `Content-Length`.
    pub(crate) silent: bool,
}

impl Call {
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
        Self {
            method,
            path: path.to_owned(),
            query: query.collect(),
            headers: Vec::new(),
            body: Vec::new(),
            date: amz_date(0),
            access: ACCESS.into(),
            secret: SECRET.into(),
            payload: None,
            signature: String::new(),
            silent: false,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn payload(mut self, payload: &str) -> Self {
        self.payload = Some(payload.into());
        self
    }

    pub(crate) fn date(mut self, offset_s: i64) -> Self {
        self.date = amz_date(offset_s);
        self
    }

    pub(crate) fn scope(&self) -> String {
        format!("{}/{REGION}/s3/aws4_request", &self.date[..8])
    }

    fn string_to_sign(&self, kind: &str, rest: &str) -> String {
        format!("{kind}\n{}\n{}\n{rest}", self.date, self.scope())
    }

    pub(crate) fn sign_text(&self, kind: &str, rest: &str) -> String {
        hex(&mac(&signing_key(&self.secret, &self.date), &self.string_to_sign(kind, rest)))
    }

    fn query_text(&self) -> String {
        let pairs: Vec<String> =
            self.query.iter().map(|(n, v)| format!("{}={}", encode(n, false), encode(v, false))).collect();
        pairs.join("&")
    }

    fn signature_over(&self, headers: &BTreeMap<String, String>, query: &str, payload: &str) -> String {
        let names: Vec<&str> = headers.keys().map(String::as_str).collect();
        let lines: String = headers.iter().map(|(n, v)| format!("{n}:{}\n", v.trim())).collect();
        let canonical = format!("{}\n{}\n{query}\n{lines}\n{}\n{payload}", self.method, self.path, names.join(";"));
        self.sign_text("AWS4-HMAC-SHA256", &sha256(canonical.as_bytes()))
    }

    /// Signs with the `Authorization` header; `path` must be in canonical encoding.
    pub(crate) fn sign(mut self) -> Self {
        let payload = self.payload.clone().unwrap_or_else(|| sha256(&self.body));
        self.headers.push(("x-amz-date".into(), self.date.clone()));
        self.headers.push(("x-amz-content-sha256".into(), payload.clone()));
        let mut signed: BTreeMap<String, String> =
            self.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect();
        signed.insert("host".into(), "localhost".into());
        let mut query = self.query.clone();
        query.sort();
        let query = Self { query, ..self.clone() }.query_text();
        self.signature = self.signature_over(&signed, &query, &payload);
        let names: Vec<&str> = signed.keys().map(String::as_str).collect();
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
            self.access,
            self.scope(),
            names.join(";"),
            self.signature
        );
        self.headers.push(("authorization".into(), value));
        self
    }

    /// Signs with the query, valid for so many seconds.
    pub(crate) fn presign(mut self, expires_s: u64) -> Self {
        for (name, value) in [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("X-Amz-Credential", format!("{}/{}", self.access, self.scope())),
            ("X-Amz-Date", self.date.clone()),
            ("X-Amz-Expires", expires_s.to_string()),
            ("X-Amz-SignedHeaders", "host".to_owned()),
        ] {
            self.query.push((name.into(), value));
        }
        self.query.sort();
        let signed = BTreeMap::from([("host".to_owned(), "localhost".to_owned())]);
        let signature = self.signature_over(&signed, &self.query_text(), "UNSIGNED-PAYLOAD");
        self.query.push(("X-Amz-Signature".into(), signature));
        self
    }

    /// Signed as an aws-chunked upload of `data` in chunks of `size`; `trailers` are signed too.
    pub(crate) fn chunked(self, data: &[u8], size: usize, trailers: &[(&str, &str)]) -> Self {
        let kind = if trailers.is_empty() { "" } else { "-TRAILER" };
        let mut call = self
            .header("x-amz-decoded-content-length", data.len().to_string())
            .header("content-encoding", "aws-chunked")
            .payload(&format!("STREAMING-AWS4-HMAC-SHA256-PAYLOAD{kind}"));
        if !trailers.is_empty() {
            let names: Vec<&str> = trailers.iter().map(|(n, _)| *n).collect();
            call = call.header("x-amz-trailer", names.join(","));
        }
        let mut call = call.sign();
        let empty = sha256(b"");
        let mut previous = call.signature.clone();
        let mut body = Vec::new();
        for chunk in data.chunks(size).chain([&b""[..]]) {
            let rest = format!("{previous}\n{empty}\n{}", sha256(chunk));
            previous = call.sign_text("AWS4-HMAC-SHA256-PAYLOAD", &rest);
            body.extend(format!("{:x};chunk-signature={previous}\r\n", chunk.len()).bytes());
            body.extend_from_slice(chunk);
            if !chunk.is_empty() || trailers.is_empty() {
                body.extend_from_slice(b"\r\n");
            }
        }
        if !trailers.is_empty() {
            let canonical: String = trailers.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
            let rest = format!("{previous}\n{}", sha256(canonical.as_bytes()));
            let signature = call.sign_text("AWS4-HMAC-SHA256-TRAILER", &rest);
            for (name, value) in trailers {
                body.extend(format!("{name}:{value}\r\n").bytes());
            }
            body.extend(format!("x-amz-trailer-signature:{signature}\r\n\r\n").bytes());
        }
        call.body = body;
        call
    }

    pub(crate) fn head_bytes(&self) -> Vec<u8> {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query_text()) };
        let mut head = format!("{} {}{query} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let sends = !self.silent && (!self.body.is_empty() || matches!(self.method, "PUT" | "POST"));
        if sends && !self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// The connection ended before the declared length.
    pub(crate) truncated: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// S3's error code, or "" when there is none.
    pub(crate) fn code(&self) -> String {
        self.tag("Code")
    }

    /// The text of the first element of that name.
    pub(crate) fn tag(&self, name: &str) -> String {
        self.tags(name).into_iter().next().unwrap_or_default()
    }

    pub(crate) fn tags(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let text = self.text();
        let mut found = Vec::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(&open) {
            rest = &rest[at + open.len()..];
            let end = rest.find(&close).unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        found
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }

    pub(crate) fn expect_code(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.text());
        self
    }
}

/// One keep-alive connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server that refuses early may close while we still send; the answer is what counts.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn fill(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                true
            }
        }
    }

    /// Reads one response; `None` when the connection ended before its header did.
    pub(crate) async fn receive(&mut self, is_head: bool) -> Option<Answer> {
        loop {
            let end = loop {
                if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                    break at;
                }
                if !self.fill().await {
                    return None;
                }
            };
            let head = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
            self.buffer.drain(..end + 4);
            let mut lines = head.lines();
            let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
                .collect();
            if status == 100 {
                continue;
            }
            let length = headers.get("content-length").and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
            let length = if is_head || status == 204 || status == 304 { 0 } else { length };
            let mut truncated = false;
            while self.buffer.len() < length && !truncated {
                truncated = !self.fill().await;
            }
            let body = self.buffer.drain(..length.min(self.buffer.len())).collect();
            return Some(Answer { status, headers, body, truncated });
        }
    }

    pub(crate) async fn call(&mut self, call: &Call) -> Answer {
        self.send(&call.bytes()).await;
        self.receive(call.method == "HEAD").await.expect("an answer")
    }
}
