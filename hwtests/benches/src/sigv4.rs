//! Signature Version 4 in the `Authorization` header, as far as a benchmark needs it: keys whose characters
//! need no escaping, and bodies that are not signed.
//!
//! AWS, "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)".

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// What stands for the hash of a body that is not signed.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Who signs.
#[derive(Clone)]
pub struct Signer {
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Region, `us-east-1` unless the server says otherwise.
    pub region: String,
}

/// What is signed. Header names in lower case.
pub struct Canonical<'a> {
    /// `GET`, `PUT`, ...
    pub method: &'a str,
    /// Escaped path, from the slash.
    pub path: &'a str,
    /// Query pairs, neither escaped nor sorted.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers beyond `x-amz-date` and `x-amz-content-sha256`; `host` among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// Hash of the body in hex, or [`UNSIGNED_PAYLOAD`].
    pub payload: &'a str,
}

impl Signer {
    /// The values of `x-amz-date` and `authorization`.
    #[must_use]
    pub fn sign(&self, request: &Canonical<'_>, now: OffsetDateTime) -> (String, String) {
        let (year, month, day) = now.to_calendar_date();
        let date = format!("{year:04}{:02}{day:02}", u8::from(month));
        let stamp = format!("{date}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());

        let mut headers = request.headers.to_vec();
        headers.extend([("x-amz-content-sha256", request.payload), ("x-amz-date", stamp.as_str())]);
        headers.sort_unstable();
        let listed: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let query = query_string(request.query);
        let canonical =
            format!("{}\n{}\n{query}\n{listed}\n{names}\n{}", request.method, request.path, request.payload);

        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let hash = hex(&Sha256::digest(canonical.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hash}");
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in [date.as_str(), &self.region, "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        let signature = hex(&hmac(&key, to_sign.as_bytes()));
        let access_key = &self.access_key;
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={access_key}/{scope},SignedHeaders={names},Signature={signature}");
        (stamp, authorization)
    }
}

/// The query as it is signed and sent: escaped, sorted, every name with an equals sign.
#[must_use]
pub fn query_string(pairs: &[(&str, &str)]) -> String {
    let mut escaped: Vec<(String, String)> = pairs.iter().map(|(name, value)| (escape(name), escape(value))).collect();
    escaped.sort_unstable();
    let joined: Vec<String> = escaped.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

fn escape(text: &str) -> String {
    let escape_byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape_byte).collect()
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The four examples of AWS's page named above.
    #[test]
    fn the_published_vectors() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let welcome = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let put_headers =
            [("date", "Fri, 24 May 2013 00:00:00 GMT"), host, ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        let (only_host, ranged) = ([host], [host, ("range", "bytes=0-9")]);
        fn request<'a>(
            method: &'a str,
            path: &'a str,
            query: &'a [(&'a str, &'a str)],
            headers: &'a [(&'a str, &'a str)],
            payload: &'a str,
        ) -> Canonical<'a> {
            Canonical { method, path, query, headers, payload }
        }
        let cases = [
            (
                request("GET", "/test.txt", &[], &ranged, EMPTY),
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                request("PUT", "/test%24file.text", &[], &put_headers, welcome),
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                request("GET", "/", &[("lifecycle", "")], &only_host, EMPTY),
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                request("GET", "/", &[("prefix", "J"), ("max-keys", "2")], &only_host, EMPTY),
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ];
        let now = OffsetDateTime::from_unix_timestamp(1_369_353_600).expect("a time");
        for (request, signature) in cases {
            let (stamp, authorization) = signer.sign(&request, now);
            assert_eq!(stamp, "20130524T000000Z");
            let found = authorization.rsplit_once("Signature=").expect("a signature").1;
            assert_eq!(found, signature, "{} {}", request.method, request.path);
        }
    }
}
