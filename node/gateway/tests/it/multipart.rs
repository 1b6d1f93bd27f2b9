//! Multipart uploads from beginning to end.

use std::sync::atomic::Ordering;

use base64_simd::STANDARD as BASE64;

use crate::client::{Answer, Call};
use crate::server::Server;

async fn begin(server: &Server, key: &str, headers: &[(&str, &str)]) -> Answer {
    let mut call = Call::new("POST", &format!("/bucket/{key}?uploads"));
    for (name, value) in headers {
        call = call.header(name, *value);
    }
    server.call(call.sign()).await
}

fn part(key: &str, id: &str, number: u32, body: &[u8]) -> Call {
    Call::new("PUT", &format!("/bucket/{key}?partNumber={number}&uploadId={id}")).body(body)
}

fn completion(parts: &[(u32, String)]) -> String {
    let parts: String =
        parts.iter().map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>")).collect();
    format!(
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
    )
}

fn complete(key: &str, id: &str, parts: &[(u32, String)]) -> Call {
    Call::new("POST", &format!("/bucket/{key}?uploadId={id}")).body(completion(parts))
}

fn crc64(data: &[u8]) -> String {
    BASE64.encode_to_string(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, data).to_be_bytes())
}

#[tokio::test]
async fn an_upload_becomes_an_object() {
    let server = Server::with_bucket().await;
    let begun = begin(&server, "big", &[("x-amz-meta-a", "1"), ("content-type", "a/b")]).await.expect(200);
    let id = begun.tag("UploadId");
    assert_eq!(begun.tag("Key"), "big");
    let (one, two) = (vec![1; 100_000], vec![2; 50_000]);
    let mut parts = Vec::new();
    for (number, data) in [(1, &one), (7, &two)] {
        let put = server.call(part("big", &id, number, data).sign()).await.expect(200);
        assert_eq!(put.header("x-amz-checksum-crc64nvme"), crc64(data));
        parts.push((number, put.header("etag").to_owned()));
    }
    server.get("big").await.expect_code(404, "NoSuchKey");
    let whole = [one.clone(), two.clone()].concat();
    let done = server.call(complete("big", &id, &parts).sign()).await.expect(200);
    assert_eq!(done.tag("ChecksumCRC64NVME"), crc64(&whole), "combined from the parts");
    assert_eq!(done.tag("ChecksumType"), "FULL_OBJECT");
    assert!(done.tag("ETag").contains("-2"), "{}", done.text());
    assert_eq!(done.tag("Location"), "/bucket/big");
    let again = server.call(complete("big", &id, &parts).sign()).await.expect(200);
    assert_eq!(again.tag("ETag"), done.tag("ETag"), "a completion may be repeated");
    let got = server.call(Call::new("GET", "/bucket/big").header("x-amz-checksum-mode", "ENABLED").sign()).await;
    let got = got.expect(200);
    assert!(got.body == whole);
    assert_eq!((got.header("x-amz-meta-a"), got.header("content-type")), ("1", "a/b"));
    assert_eq!(got.header("x-amz-checksum-crc64nvme"), crc64(&whole));
    let second = server.call(Call::new("GET", "/bucket/big?partNumber=7").sign()).await.expect(206);
    assert!(second.body == two);
    assert_eq!(second.header("content-range"), "bytes 100000-149999/150000");
    assert_eq!(second.header("x-amz-mp-parts-count"), "2");
    server.call(Call::new("GET", "/bucket/big?partNumber=2").sign()).await.expect_code(416, "InvalidPartNumber");
    let call = Call::new("GET", "/bucket/big?attributes").header("x-amz-object-attributes", "ObjectParts,Checksum");
    let attributes = server.call(call.sign()).await.expect(200);
    assert_eq!(attributes.tags("PartNumber"), ["1", "7"]);
}

#[tokio::test]
async fn a_composite_checksum_is_over_the_parts() {
    let server = Server::with_bucket().await;
    let begun = begin(&server, "k", &[("x-amz-checksum-algorithm", "CRC32")]).await.expect(200);
    assert_eq!(begun.header("x-amz-checksum-type"), "COMPOSITE");
    let id = begun.tag("UploadId");
    let crc = |data: &[u8]| crc_fast::crc32_iso_hdlc(data).to_be_bytes();
    let mut parts = Vec::new();
    let mut crcs = Vec::new();
    for (number, data) in [(1u32, b"aaa"), (2, b"bbb")] {
        let value = BASE64.encode_to_string(crc(data));
        let call = part("k", &id, number, data).header("x-amz-checksum-crc32", value.clone()).sign();
        let put = server.call(call).await.expect(200);
        assert_eq!(put.header("x-amz-checksum-crc32"), value);
        parts.push((number, put.header("etag").to_owned()));
        crcs.extend(crc(data));
    }
    let wrong = part("k", &id, 3, b"x").header("x-amz-checksum-sha1", BASE64.encode_to_string([0; 20])).sign();
    server.call(wrong).await.expect_code(400, "InvalidRequest");
    let bad_type = complete("k", &id, &parts).header("x-amz-checksum-type", "FULL_OBJECT").sign();
    server.call(bad_type).await.expect_code(400, "InvalidRequest");
    let bad_size = complete("k", &id, &parts).header("x-amz-mp-object-size", "7").sign();
    server.call(bad_size).await.expect_code(400, "InvalidRequest");
    let bad = complete("k", &id, &parts).header("x-amz-checksum-crc32", "AAAAAA==-2").sign();
    server.call(bad).await.expect_code(400, "BadDigest");
    server.get("k").await.expect_code(404, "NoSuchKey");
    let expected = format!("{}-2", BASE64.encode_to_string(crc(&crcs)));
    let call =
        complete("k", &id, &parts).header("x-amz-checksum-type", "COMPOSITE").header("x-amz-mp-object-size", "6");
    let done = server.call(call.sign()).await.expect(200);
    assert_eq!((done.tag("ChecksumCRC32"), done.tag("ChecksumType").as_str()), (expected, "COMPOSITE"));
}

#[tokio::test]
async fn algorithms_and_types_must_fit() {
    let server = Server::with_bucket().await;
    for headers in [
        [("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-type", "FULL_OBJECT")],
        [("x-amz-checksum-algorithm", "CRC64NVME"), ("x-amz-checksum-type", "COMPOSITE")],
        [("x-amz-checksum-algorithm", "MD4"), ("x-amz-checksum-type", "COMPOSITE")],
    ] {
        begin(&server, "k", &headers).await.expect_code(400, "InvalidRequest");
    }
    let full = [("x-amz-checksum-algorithm", "CRC32C"), ("x-amz-checksum-type", "FULL_OBJECT")];
    begin(&server, "k", &full).await.expect(200);
}

#[tokio::test]
async fn wrong_completions_change_nothing() {
    let server = Server::with_bucket().await;
    server.memory.strict_parts.store(true, Ordering::Relaxed);
    let id = begin(&server, "k", &[]).await.expect(200).tag("UploadId");
    let mut tags = Vec::new();
    for n in [1, 2] {
        tags.push(server.call(part("k", &id, n, b"small").sign()).await.expect(200).header("etag").to_owned());
    }
    let both = [(1, tags[0].clone()), (2, tags[1].clone())];
    let swapped = [both[1].clone(), both[0].clone()];
    let absent = [both[0].clone(), (5, tags[1].clone())];
    let other = [(1, "\"00000000000000000000000000000000\"".to_owned())];
    let text = [(1, "\"nonsense\"".to_owned())];
    for (parts, code) in [
        (&both[..], "EntityTooSmall"),
        (&swapped[..], "InvalidPartOrder"),
        (&absent[..], "InvalidPart"),
        (&other[..], "InvalidPart"),
        (&text[..], "InvalidPart"),
        (&[][..], "MalformedXML"),
    ] {
        server.call(complete("k", &id, parts).sign()).await.expect_code(400, code);
    }
    let wrong_id = "0".repeat(32);
    server.call(complete("k", &wrong_id, &both).sign()).await.expect_code(404, "NoSuchUpload");
    server.call(complete("k", "zzz", &both).sign()).await.expect_code(404, "NoSuchUpload");
    server.call(complete("other", &id, &both).sign()).await.expect_code(404, "NoSuchUpload");
    server.get("k").await.expect_code(404, "NoSuchKey");
    let call = complete("k", &id, &both[..1]).header("if-none-match", "*");
    server.call(call.sign()).await.expect(200);
    let id = begin(&server, "k", &[]).await.expect(200).tag("UploadId");
    let tag = server.call(part("k", &id, 1, b"x").sign()).await.expect(200).header("etag").to_owned();
    let call = complete("k", &id, &[(1, tag)]).header("if-none-match", "*");
    server.call(call.sign()).await.expect_code(412, "PreconditionFailed");
}

#[tokio::test]
async fn parts_are_checked_and_listed() {
    let server = Server::with_bucket().await;
    let id = begin(&server, "k", &[]).await.expect(200).tag("UploadId");
    for n in [1, 2, 3] {
        server.call(part("k", &id, n, b"data").sign()).await.expect(200);
    }
    for n in [0, 10_001] {
        server.call(part("k", &id, n, b"data").sign()).await.expect_code(400, "InvalidArgument");
    }
    server.call(part("k", &"0".repeat(32), 1, b"x").sign()).await.expect_code(404, "NoSuchUpload");
    let list = |query: &str| Call::new("GET", &format!("/bucket/k?uploadId={id}{query}")).sign();
    let first = server.call(list("&max-parts=2")).await.expect(200);
    assert_eq!(first.tags("PartNumber"), ["1", "2"]);
    assert_eq!((first.tag("IsTruncated").as_str(), first.tag("NextPartNumberMarker").as_str()), ("true", "2"));
    assert_eq!(first.tags("Size"), ["4", "4"]);
    let rest = server.call(list("&part-number-marker=2")).await.expect(200);
    assert_eq!((rest.tags("PartNumber"), rest.tag("IsTruncated").as_str()), (vec!["3".to_owned()], "false"));
    let abort = || Call::new("DELETE", &format!("/bucket/k?uploadId={id}")).sign();
    server.call(abort()).await.expect(204);
    server.call(abort()).await.expect_code(404, "NoSuchUpload");
    server.call(list("")).await.expect_code(404, "NoSuchUpload");
}

#[tokio::test]
async fn uploads_are_listed_in_pages_and_rolled_up() {
    let server = Server::with_bucket().await;
    for key in ["a", "a", "b/1", "b/2", "c"] {
        begin(&server, key, &[]).await.expect(200);
    }
    let mut found = Vec::new();
    let mut markers = String::new();
    loop {
        let call = Call::new("GET", &format!("/bucket?uploads&max-uploads=2{markers}")).sign();
        let page = server.call(call).await.expect(200);
        found.extend(page.tags("Key"));
        if page.tag("IsTruncated") == "false" {
            break;
        }
        markers =
            format!("&key-marker={}&upload-id-marker={}", page.tag("NextKeyMarker"), page.tag("NextUploadIdMarker"));
    }
    assert_eq!(found, ["a", "a", "b/1", "b/2", "c"]);
    let rolled = server.call(Call::new("GET", "/bucket?uploads&delimiter=/").sign()).await.expect(200);
    assert_eq!(rolled.tags("Key"), ["a", "a", "c"]);
    assert!(rolled.tag("CommonPrefixes").contains("b/"));
    let some = server.call(Call::new("GET", "/bucket?uploads&prefix=b/").sign()).await.expect(200);
    assert_eq!(some.tags("Key"), ["b/1", "b/2"]);
    assert!(!some.tag("Initiator").is_empty());
}
