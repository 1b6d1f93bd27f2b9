//! XML that must not reach an XML library.

use base64_simd::STANDARD as BASE64;
use sha2::Digest as _;

use crate::client::{Call, sha256};
use crate::server::Server;

fn delete(body: impl Into<Vec<u8>>) -> Call {
    Call::new("POST", "/bucket?delete").body(body)
}

#[tokio::test]
async fn hostile_xml_is_refused() {
    let server = Server::with_bucket().await;
    server.put("k", b"x").await.expect(200);
    let key = "<Object><Key>k</Key></Object>";
    for body in [
        format!("<!DOCTYPE Delete [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><Delete>{key}</Delete>"),
        "<Delete><Object><Key>&e;</Key></Object></Delete>".to_owned(),
        format!("{}{}", "<Delete>".repeat(100_000), key),
        format!("<Delete><!-- {} -->{key}</Delete>", "x".repeat(100)),
        "<Delete><Object><Key>k</Key>".to_owned(),
        "not xml".to_owned(),
    ] {
        let answer = server.call(delete(body.clone()).sign()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "MalformedXML"), "{:.60}", body);
    }
    server.call(delete("").sign()).await.expect_code(400, "MissingRequestBodyError");
    let large = format!("<Delete>{}{key}</Delete>", " ".repeat(3 << 20));
    server.call(delete(large).sign()).await.expect_code(400, "MalformedXML");
    let bucket = "<!DOCTYPE x><CreateBucketConfiguration/>";
    server.call(Call::new("PUT", "/second").body(bucket).sign()).await.expect_code(400, "MalformedXML");
    server.call(Call::new("HEAD", "/second").sign()).await.expect(404);
    server.get("k").await.expect(200);
}

#[tokio::test]
async fn the_digests_of_xml_are_verified() {
    let server = Server::with_bucket().await;
    server.put("k", b"x").await.expect(200);
    let body = "<Delete><Object><Key>k</Key></Object></Delete>";
    server.call(delete(body).payload(&sha256(b"other")).sign()).await.expect_code(400, "XAmzContentSHA256Mismatch");
    let md5 = BASE64.encode_to_string(md5::Md5::digest(b"other"));
    server.call(delete(body).header("content-md5", md5).sign()).await.expect_code(400, "BadDigest");
    let crc = delete(body).header("x-amz-sdk-checksum-algorithm", "CRC32").header("x-amz-checksum-crc32", "AAAAAA==");
    server.call(crc.sign()).await.expect_code(400, "BadDigest");
    server.get("k").await.expect(200);
    let md5 = BASE64.encode_to_string(md5::Md5::digest(body));
    server.call(delete(body).header("content-md5", md5).sign()).await.expect(200);
    server.get("k").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn the_largest_honest_requests_pass() {
    let server = Server::with_bucket().await;
    let keys: String = (0..1000).map(|n| format!("<Object><Key>{n:0>1024}</Key></Object>")).collect();
    let answer = server.call(delete(format!("<Delete>{keys}</Delete>")).sign()).await.expect(200);
    assert_eq!(answer.tags("Deleted").len(), 1000);
    let parts: String = (1..=10_000)
        .map(|n| format!("<Part><PartNumber>{n}</PartNumber><ETag>&quot;{n:032x}&quot;</ETag><ChecksumSHA256>{}</ChecksumSHA256></Part>", "A".repeat(44)))
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let call = Call::new("POST", &format!("/bucket/k?uploadId={}", "0".repeat(32))).body(body).sign();
    server.call(call).await.expect_code(404, "NoSuchUpload");
}

#[tokio::test]
async fn browser_forms_are_refused_unread() {
    let server = Server::with_bucket().await;
    let call = Call::new("POST", "/bucket").header("content-type", "multipart/form-data; boundary=x").body("--x--");
    server.call(call.sign()).await.expect_code(501, "NotImplemented");
}
