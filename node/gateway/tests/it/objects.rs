//! Single objects: put, get, head, delete, conditions, ranges, names.

use crate::client::{Call, encode};
use crate::server::Server;

const HELLO_MD5: &str = "\"5d41402abc4b2a76b9719d911017c592\"";

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = Server::with_bucket().await;
    let call = Call::new("PUT", "/bucket/key")
        .header("content-type", "text/x-test")
        .header("cache-control", "no-cache")
        .header("content-disposition", "attachment")
        .header("content-encoding", "identity")
        .header("content-language", "en")
        .header("expires", "Wed, 21 Oct 2015 07:28:00 GMT")
        .header("x-amz-meta-colour", "blue")
        .header("x-amz-website-redirect-location", "/elsewhere")
        .header("x-amz-storage-class", "STANDARD")
        .header("x-amz-acl", "private")
        .body("hello")
        .sign();
    let put = server.call(call).await.expect(200);
    assert_eq!(put.header("etag"), HELLO_MD5);
    assert_eq!(put.header("x-amz-checksum-type"), "FULL_OBJECT");
    assert!(!put.header("x-amz-checksum-crc64nvme").is_empty());
    for method in ["GET", "HEAD"] {
        let call = Call::new(method, "/bucket/key").header("x-amz-checksum-mode", "ENABLED").sign();
        let got = server.call(call).await.expect(200);
        assert_eq!(got.body, if method == "GET" { b"hello".to_vec() } else { Vec::new() });
        for (name, value) in [
            ("content-length", "5"),
            ("etag", HELLO_MD5),
            ("content-type", "text/x-test"),
            ("cache-control", "no-cache"),
            ("content-disposition", "attachment"),
            ("content-encoding", "identity"),
            ("content-language", "en"),
            ("expires", "Wed, 21 Oct 2015 07:28:00 GMT"),
            ("x-amz-meta-colour", "blue"),
            ("x-amz-website-redirect-location", "/elsewhere"),
            ("accept-ranges", "bytes"),
            ("x-amz-checksum-crc64nvme", put.header("x-amz-checksum-crc64nvme")),
            ("x-amz-checksum-type", "FULL_OBJECT"),
        ] {
            assert_eq!(got.header(name), value, "{method} {name}");
        }
        assert!(got.header("last-modified").ends_with("GMT"));
        assert_eq!(got.header("x-amz-request-id").len(), 16);
    }
    let plain = server.get("key").await.expect(200);
    assert_eq!(plain.header("x-amz-checksum-crc64nvme"), "", "only when asked for");
}

#[tokio::test]
async fn an_empty_object_is_one() {
    let server = Server::with_bucket().await;
    server.put("empty", b"").await.expect(200);
    let got = server.get("empty").await.expect(200);
    assert_eq!((got.header("content-length"), got.body.len()), ("0", 0));
    assert_eq!(got.header("content-type"), "binary/octet-stream");
    let ranged = Call::new("GET", "/bucket/empty").header("range", "bytes=0-").sign();
    server.call(ranged).await.expect_code(416, "InvalidRange");
}

#[tokio::test]
async fn response_headers_can_be_overridden() {
    let server = Server::with_bucket().await;
    server.put("key", b"hello").await.expect(200);
    let query = "response-content-type=a/b&response-cache-control=x&response-content-disposition=y\
        &response-content-encoding=z&response-content-language=fr";
    for method in ["GET", "HEAD"] {
        let got = server.call(Call::new(method, &format!("/bucket/key?{query}")).sign()).await.expect(200);
        for (name, value) in [
            ("content-type", "a/b"),
            ("cache-control", "x"),
            ("content-disposition", "y"),
            ("content-encoding", "z"),
            ("content-language", "fr"),
        ] {
            assert_eq!(got.header(name), value, "{method} {name}");
        }
    }
}

#[tokio::test]
async fn ranges_are_those_of_the_rfc() {
    let server = Server::with_bucket().await;
    server.put("key", b"0123456789").await.expect(200);
    for (range, body, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-30", "0123456789", "bytes 0-9/10"),
        ("bytes=5-500", "56789", "bytes 5-9/10"),
    ] {
        let got = server.call(Call::new("GET", "/bucket/key").header("range", range).sign()).await.expect(206);
        assert_eq!((got.text().as_str(), got.header("content-range")), (body, content_range), "{range}");
        let head = server.call(Call::new("HEAD", "/bucket/key").header("range", range).sign()).await.expect(206);
        assert_eq!(head.header("content-length"), body.len().to_string());
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
        let got = server.call(Call::new("GET", "/bucket/key").header("range", range).sign()).await;
        let got = got.expect_code(416, "InvalidRange");
        assert_eq!(got.header("content-range"), "bytes */10", "{range}");
    }
}

#[tokio::test]
async fn reads_have_conditions() {
    let server = Server::with_bucket().await;
    server.put("key", b"hello").await.expect(200);
    let (past, future) = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT");
    for method in ["GET", "HEAD"] {
        for (headers, status) in [
            (vec![("if-match", HELLO_MD5)], 200),
            (vec![("if-match", "*")], 200),
            (vec![("if-match", "\"00\"")], 412),
            (vec![("if-none-match", HELLO_MD5)], 304),
            (vec![("if-none-match", "\"00\"")], 200),
            (vec![("if-modified-since", past)], 200),
            (vec![("if-modified-since", future)], 304),
            (vec![("if-unmodified-since", past)], 412),
            (vec![("if-unmodified-since", future)], 200),
            (vec![("if-match", HELLO_MD5), ("if-unmodified-since", past)], 200),
            (vec![("if-none-match", "\"00\""), ("if-modified-since", future)], 200),
        ] {
            let mut call = Call::new(method, "/bucket/key");
            for (name, value) in &headers {
                call = call.header(name, *value);
            }
            // On one connection: a 304 with a body would spoil the next answer.
            let mut connection = server.connect().await;
            let got = connection.call(&call.sign()).await;
            assert_eq!(got.status, status, "{method} {headers:?}");
            if status == 304 {
                assert_eq!((got.header("etag"), got.header("content-length")), (HELLO_MD5, ""));
                assert!(!got.header("last-modified").is_empty());
                connection.call(&Call::new("GET", "/bucket/key").sign()).await.expect(200);
            }
        }
    }
}

#[tokio::test]
async fn writes_have_conditions() {
    let server = Server::with_bucket().await;
    let put =
        |name: &str, value: &str, body: &str| Call::new("PUT", "/bucket/key").header(name, value).body(body).sign();
    server.call(put("if-match", "\"00\"", "a")).await.expect_code(404, "NoSuchKey");
    server.call(put("if-none-match", "*", "hello")).await.expect(200);
    server.call(put("if-none-match", "*", "other")).await.expect_code(412, "PreconditionFailed");
    server.call(put("if-match", "\"00\"", "other")).await.expect_code(412, "PreconditionFailed");
    server.call(put("if-none-match", "\"00\"", "other")).await.expect_code(501, "NotImplemented");
    assert_eq!(server.get("key").await.text(), "hello");
    server.call(put("if-match", HELLO_MD5, "other")).await.expect(200);
    assert_eq!(server.get("key").await.text(), "other");
}

#[tokio::test]
async fn deletes_have_conditions() {
    let server = Server::with_bucket().await;
    server.put("key", b"hello").await.expect(200);
    for (name, value) in [
        ("if-match", "\"00\""),
        ("x-amz-if-match-size", "4"),
        ("x-amz-if-match-last-modified-time", "Wed, 21 Oct 2015 07:28:00 GMT"),
    ] {
        let call = Call::new("DELETE", "/bucket/key").header(name, value).sign();
        server.call(call).await.expect_code(412, "PreconditionFailed");
    }
    let call = Call::new("DELETE", "/bucket/key").header("if-match", HELLO_MD5).header("x-amz-if-match-size", "5");
    server.call(call.sign()).await.expect(204);
    server.get("key").await.expect_code(404, "NoSuchKey");
    server.call(Call::new("DELETE", "/bucket/key").sign()).await.expect(204);
    server.call(Call::new("DELETE", "/bucket/key").header("if-match", "*").sign()).await.expect_code(404, "NoSuchKey");
    server.call(Call::new("DELETE", "/bucket/key?versionId=abc").sign()).await.expect_code(404, "NoSuchVersion");
}

#[tokio::test]
async fn many_are_deleted_at_once() {
    let server = Server::with_bucket().await;
    for key in ["a", "b&b", "c"] {
        server.put(&encode(key, true), b"x").await.expect(200);
    }
    let long = "k".repeat(1025);
    let body = format!(
        "<Delete><Object><Key>a</Key></Object><Object><Key>b&amp;b</Key></Object><Object><Key>none</Key></Object>\
         <Object><Key>c</Key><ETag>00</ETag></Object><Object><Key>{long}</Key></Object></Delete>"
    );
    let answer = server.call(Call::new("POST", "/bucket?delete").body(body).sign()).await.expect(200);
    let deleted: Vec<&str> = vec!["a", "b&amp;b", "none"];
    assert_eq!(
        answer.tags("Deleted").iter().map(|d| d.replace("<Key>", "").replace("</Key>", "")).collect::<Vec<_>>(),
        deleted
    );
    assert_eq!(answer.tags("Code"), ["PreconditionFailed", "KeyTooLongError"]);
    server.get("a").await.expect_code(404, "NoSuchKey");
    server.get("c").await.expect(200);
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>c</Key></Object></Delete>";
    let answer = server.call(Call::new("POST", "/bucket?delete").body(quiet).sign()).await.expect(200);
    assert!(answer.tags("Deleted").is_empty());
    server.get("c").await.expect_code(404, "NoSuchKey");
    let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1001));
    server.call(Call::new("POST", "/bucket?delete").body(many).sign()).await.expect_code(400, "MalformedXML");
    server.call(Call::new("POST", "/none?delete").body(quiet).sign()).await.expect_code(404, "NoSuchBucket");
}

#[tokio::test]
async fn keys_are_plain_strings() {
    let server = Server::with_bucket().await;
    let keys =
        ["../x", "a//b", ".", "..", "/lead", "a/", "a/../b", "ü ö", "a+b", "a%2Fb", "a?b#c", "\u{1}x", "~-_.!'()*"];
    for (n, key) in keys.iter().enumerate() {
        let path = format!("/bucket/{}", encode(key, true));
        server.call(Call::new("PUT", &path).body(n.to_string()).sign()).await.expect(200);
    }
    for (n, key) in keys.iter().enumerate() {
        let got = server.get(&encode(key, true)).await.expect(200);
        assert_eq!(got.text(), n.to_string(), "{key:?}");
    }
    let listed = server.call(Call::new("GET", "/bucket?list-type=2&encoding-type=url").sign()).await.expect(200);
    let mut expected: Vec<String> = keys.iter().map(|key| encode(key, true)).collect();
    let mut found = listed.tags("Key");
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn keys_have_bounds() {
    let server = Server::with_bucket().await;
    server.put(&"k".repeat(1024), b"x").await.expect(200);
    server.put(&"k".repeat(1025), b"x").await.expect_code(400, "KeyTooLongError");
    server.put("%FF%FE", b"x").await.expect_code(400, "InvalidURI");
    server.put("%zz", b"x").await.expect_code(400, "InvalidURI");
}

#[tokio::test]
async fn attributes_are_told() {
    let server = Server::with_bucket().await;
    server.put("key", b"hello").await.expect(200);
    let call = Call::new("GET", "/bucket/key?attributes")
        .header("x-amz-object-attributes", "ETag,ObjectSize,Checksum,StorageClass");
    let got = server.call(call.sign()).await.expect(200);
    assert_eq!(got.tag("ObjectSize"), "5");
    assert_eq!(got.tag("StorageClass"), "STANDARD");
    assert_eq!(got.tag("ETag").trim_matches('"'), HELLO_MD5.trim_matches('"'));
    assert!(!got.tag("ChecksumCRC64NVME").is_empty());
}

#[tokio::test]
async fn a_read_that_fails_half_way_breaks_the_connection() {
    let server = Server::with_bucket().await;
    server.put("key", &vec![7; 1 << 20]).await.expect(200);
    server.memory.limit_reads(300_000);
    let got = server.get("key").await.expect(200);
    assert_eq!(got.header("content-length"), (1 << 20).to_string());
    assert!(got.truncated, "the body must not look complete");
    assert!(got.body.len() < 1 << 20 && got.body.iter().all(|b| *b == 7));
    server.memory.limit_reads(10);
    server.get("key").await.expect_code(500, "InternalError");
    assert_eq!(server.stats.responses_broken(), 1);
}
