//! Upload bodies: framings, digests, and every way in which they can be wrong. None of the wrong ones may
//! leave anything behind.

use base64_simd::STANDARD as BASE64;
use sha2::Digest as _;

use crate::client::{Call, sha256};
use crate::server::Server;

fn put(key: &str, body: &[u8]) -> Call {
    Call::new("PUT", &format!("/bucket/{key}")).body(body)
}

fn checksums(data: &[u8]) -> Vec<(&'static str, String)> {
    let crc = |algorithm, bytes: usize| {
        BASE64.encode_to_string(&crc_fast::checksum(algorithm, data).to_be_bytes()[8 - bytes..])
    };
    vec![
        ("crc32", crc(crc_fast::CrcAlgorithm::Crc32IsoHdlc, 4)),
        ("crc32c", crc(crc_fast::CrcAlgorithm::Crc32Iscsi, 4)),
        ("crc64nvme", crc(crc_fast::CrcAlgorithm::Crc64Nvme, 8)),
        ("sha1", BASE64.encode_to_string(sha1::Sha1::digest(data))),
        ("sha256", BASE64.encode_to_string(sha2::Sha256::digest(data))),
    ]
}

#[tokio::test]
async fn every_checksum_is_verified_kept_and_given_back() {
    let server = Server::with_bucket().await;
    let data = b"some data";
    for (name, value) in checksums(data) {
        let header = format!("x-amz-checksum-{name}");
        let call = put(name, data).header(&header, &value).header("x-amz-sdk-checksum-algorithm", name.to_uppercase());
        let answer = server.call(call.sign()).await.expect(200);
        assert_eq!(answer.header(&header), value);
        let call = Call::new("HEAD", &format!("/bucket/{name}")).header("x-amz-checksum-mode", "ENABLED");
        assert_eq!(server.call(call.sign()).await.expect(200).header(&header), value);
        let wrong = server.call(put("wrong", b"other").header(&header, &value).sign()).await;
        wrong.expect_code(400, "BadDigest");
        let invalid = server.call(put("wrong", data).header(&header, "AAA=").sign()).await;
        invalid.expect_code(400, "InvalidRequest");
    }
    let two = put("wrong", data).header("x-amz-checksum-crc32", "AAAAAA==").header("x-amz-checksum-crc32c", "AAAAAA==");
    server.call(two.sign()).await.expect_code(400, "InvalidRequest");
    let none = put("wrong", data).header("x-amz-sdk-checksum-algorithm", "CRC32");
    server.call(none.sign()).await.expect_code(400, "InvalidRequest");
    server.get("wrong").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn content_md5_and_payload_hash_are_verified() {
    let server = Server::with_bucket().await;
    let md5 = |data: &[u8]| BASE64.encode_to_string(md5::Md5::digest(data));
    server.call(put("good", b"data").header("content-md5", md5(b"data")).sign()).await.expect(200);
    server.call(put("bad", b"data").header("content-md5", md5(b"other")).sign()).await.expect_code(400, "BadDigest");
    server.call(put("bad", b"data").header("content-md5", "nonsense").sign()).await.expect_code(400, "InvalidDigest");
    let call = put("bad", b"data").payload(&sha256(b"other")).sign();
    server.call(call).await.expect_code(400, "XAmzContentSHA256Mismatch");
    let call = put("bad", b"data").payload("nonsense").sign();
    assert_eq!(server.call(call).await.status, 403);
    server.get("bad").await.expect_code(404, "NoSuchKey");
    server.call(put("good", b"data").payload("UNSIGNED-PAYLOAD").sign()).await.expect(200);
}

#[tokio::test]
async fn signed_chunks_are_verified() {
    let server = Server::with_bucket().await;
    let data: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
    for size in [8192, 65_536, 200_000, 300_000] {
        server.call(Call::new("PUT", "/bucket/key").chunked(&data, size, &[])).await.expect(200);
        let got = server.get("key").await.expect(200);
        assert!(got.body == data);
        assert_eq!(got.header("content-encoding"), "", "aws-chunked is the transport's");
        server.call(Call::new("DELETE", "/bucket/key").sign()).await.expect(204);
    }
    server.call(Call::new("PUT", "/bucket/empty").chunked(b"", 8192, &[])).await.expect(200);
    let mut altered = Call::new("PUT", "/bucket/key").chunked(&data, 65_536, &[]);
    let at = altered.body.len() / 2;
    altered.body[at] ^= 1;
    server.call(altered).await.expect_code(403, "SignatureDoesNotMatch");
    let mut cut = Call::new("PUT", "/bucket/key").chunked(&data, 65_536, &[]);
    let end = cut.body.len() - 100;
    cut.body.truncate(end);
    assert_eq!(server.call(cut).await.code(), "IncompleteBody");
    // Whole chunks, all signed, but the last ones are left out.
    let mut short = Call::new("PUT", "/bucket/key").chunked(&data, 65_536, &[]);
    let second = short.body.windows(17).enumerate().filter(|(_, w)| w == b";chunk-signature=").nth(1).unwrap().0;
    short.body.truncate(second - 5);
    assert_eq!(server.call(short).await.code(), "IncompleteBody");
    server.get("key").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn signed_trailers_are_verified() {
    let server = Server::with_bucket().await;
    let data = vec![9; 100_000];
    for (name, value) in checksums(&data) {
        let header = format!("x-amz-checksum-{name}");
        let call = Call::new("PUT", "/bucket/key").chunked(&data, 65_536, &[(&header, &value)]);
        assert_eq!(server.call(call).await.expect(200).header(&header), value);
    }
    server.call(Call::new("DELETE", "/bucket/key").sign()).await.expect(204);
    let wrong = [("x-amz-checksum-crc32", "AAAAAA==")];
    server.call(Call::new("PUT", "/bucket/key").chunked(&data, 65_536, &wrong)).await.expect_code(400, "BadDigest");
    let value = &checksums(&data)[0].1;
    let mut forged = Call::new("PUT", "/bucket/key").chunked(&data, 65_536, &[("x-amz-checksum-crc32", value)]);
    let at = forged.body.len() - 10;
    forged.body[at] = if forged.body[at] == b'0' { b'1' } else { b'0' };
    server.call(forged).await.expect_code(403, "SignatureDoesNotMatch");
    server.get("key").await.expect_code(404, "NoSuchKey");
}

fn unsigned_trailer(key: &str, decoded: usize, body: &str) -> Call {
    Call::new("PUT", &format!("/bucket/{key}"))
        .header("x-amz-decoded-content-length", decoded.to_string())
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .header("content-encoding", "aws-chunked")
        .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .body(body)
        .sign()
}

#[tokio::test]
async fn unsigned_trailers_are_verified() {
    let server = Server::with_bucket().await;
    let good = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    let answer = server.call(unsigned_trailer("good", 5, good)).await.expect(200);
    assert_eq!(answer.header("x-amz-checksum-crc32"), "NhCmhg==");
    assert_eq!(server.get("good").await.text(), "hello");
    for (decoded, body, code) in [
        (5, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", "BadDigest"),
        (5, "5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
        (5, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:x\r\n\r\n", "InvalidRequest"),
        (6, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", "IncompleteBody"),
        (4, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", "InvalidRequest"),
        (5, "5\r\nhello\r\n", "IncompleteBody"),
        (5, "5\r\nhelloo\r\n0\r\n\r\n", "InvalidRequest"),
        (5, "zz\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
        (5, "ffffffffffffffffff\r\nhello", "InvalidRequest"),
        (5, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\nmore", "InvalidRequest"),
    ] {
        let answer = server.call(unsigned_trailer("bad", decoded, body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body:?}");
    }
    server.get("bad").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn lengths_are_demanded_and_bounded() {
    let server = Server::with_bucket().await;
    let call = put("bad", b"").payload("UNSIGNED-PAYLOAD").header("transfer-encoding", "chunked").sign();
    let head = String::from_utf8(call.head_bytes()).unwrap().replace("content-length: 0\r\n", "");
    let mut connection = server.connect().await;
    connection.send(format!("{head}5\r\nhello\r\n0\r\n\r\n").as_bytes()).await;
    let answer = connection.receive(false).await.unwrap();
    answer.expect_code(411, "MissingContentLength");
    let call = put("bad", b"").payload("UNSIGNED-PAYLOAD").header("content-length", (5u64 << 30 | 1).to_string());
    server.call(call.sign()).await.expect_code(400, "EntityTooLarge");
    server.get("bad").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn a_body_cut_off_never_becomes_visible() {
    let server = Server::with_bucket().await;
    let call = put("cut", &vec![1; 100_000]).sign();
    let bytes = call.bytes();
    for length in [call.head_bytes().len(), bytes.len() - 1, bytes.len() - 50_000] {
        let mut connection = server.connect().await;
        connection.send(&bytes[..length]).await;
        drop(connection);
    }
    // The server notices the ends in its own time; whenever it does, nothing is there.
    for _ in 0..20 {
        server.get("cut").await.expect_code(404, "NoSuchKey");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_may_wait_for_the_go_ahead() {
    let server = Server::with_bucket().await;
    let call = put("key", b"hello").header("expect", "100-continue").sign();
    let mut connection = server.connect().await;
    connection.send(&call.head_bytes()).await;
    let mut interim = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut connection.stream, &mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"));
    connection.send(&call.body).await;
    connection.receive(false).await.unwrap().expect(200);
    // A refused one gets its answer at once, without the go-ahead.
    let refused = put("key", b"hello").header("expect", "100-continue").header("if-match", "\"00\"").sign();
    let mut connection = server.connect().await;
    connection.send(&refused.head_bytes()).await;
    connection.receive(false).await.unwrap().expect_code(412, "PreconditionFailed");
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let server = Server::start().await;
    let answer = server.call(put("key", &vec![0; 2 << 20]).sign()).await;
    answer.expect_code(404, "NoSuchBucket");
}
