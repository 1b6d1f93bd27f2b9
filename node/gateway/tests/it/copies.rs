//! Copies of objects and of ranges of them.

use crate::client::Call;
use crate::server::Server;

fn copy(to: &str, from: &str) -> Call {
    Call::new("PUT", &format!("/bucket/{to}")).header("x-amz-copy-source", from)
}

async fn with_source() -> Server {
    let server = Server::with_bucket().await;
    let call = Call::new("PUT", "/bucket/source").header("x-amz-meta-a", "1").header("content-type", "text/a");
    server.call(call.body("hello").sign()).await.expect(200);
    server
}

#[tokio::test]
async fn a_copy_takes_metadata_or_replaces_it() {
    let server = with_source().await;
    let done = server.call(copy("kept", "/bucket/source").sign()).await.expect(200);
    assert!(done.tag("ETag").contains("5d41402abc4b2a76b9719d911017c592"), "{}", done.text());
    assert!(!done.tag("LastModified").is_empty() && !done.tag("ChecksumCRC64NVME").is_empty());
    let kept = server.get("kept").await.expect(200);
    assert_eq!(
        (kept.text().as_str(), kept.header("x-amz-meta-a"), kept.header("content-type")),
        ("hello", "1", "text/a")
    );
    let call = copy("replaced", "bucket/source")
        .header("x-amz-metadata-directive", "REPLACE")
        .header("x-amz-meta-b", "2")
        .header("x-amz-checksum-algorithm", "SHA256")
        .sign();
    let done = server.call(call).await.expect(200);
    assert!(!done.tag("ChecksumSHA256").is_empty());
    let replaced = server.get("replaced").await.expect(200);
    assert_eq!((replaced.header("x-amz-meta-a"), replaced.header("x-amz-meta-b")), ("", "2"));
    assert_eq!(replaced.text(), "hello");
}

#[tokio::test]
async fn a_copy_onto_itself_must_change_something() {
    let server = with_source().await;
    server.call(copy("source", "/bucket/source").sign()).await.expect_code(400, "InvalidRequest");
    let call = copy("source", "/bucket/source").header("x-amz-metadata-directive", "REPLACE");
    server.call(call.header("x-amz-meta-z", "9").sign()).await.expect(200);
    let got = server.get("source").await.expect(200);
    assert_eq!((got.text().as_str(), got.header("x-amz-meta-z"), got.header("x-amz-meta-a")), ("hello", "9", ""));
}

#[tokio::test]
async fn copies_have_conditions_on_both_ends() {
    let server = with_source().await;
    let tag = "\"5d41402abc4b2a76b9719d911017c592\"";
    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    for (name, value) in [
        ("x-amz-copy-source-if-match", "\"00\""),
        ("x-amz-copy-source-if-none-match", tag),
        ("x-amz-copy-source-if-unmodified-since", past),
        ("if-match", "\"00\""),
    ] {
        let call = copy("source", "/bucket/source").header("x-amz-metadata-directive", "REPLACE").header(name, value);
        let answer = server.call(call.sign()).await;
        assert_eq!((answer.status, answer.code().as_str()), (412, "PreconditionFailed"), "{name}");
    }
    server.call(copy("new", "/bucket/source").header("if-none-match", "*").sign()).await.expect(200);
    let again = copy("new", "/bucket/source").header("if-none-match", "*").sign();
    server.call(again).await.expect_code(412, "PreconditionFailed");
    server.call(copy("x", "/bucket/none").sign()).await.expect_code(404, "NoSuchKey");
    server.call(copy("x", "/none/none").sign()).await.expect_code(404, "NoSuchBucket");
}

#[tokio::test]
async fn a_source_that_cannot_be_read_leaves_nothing() {
    let server = with_source().await;
    server.memory.limit_reads(3);
    server.call(copy("x", "/bucket/source").sign()).await.expect_code(500, "InternalError");
    server.get("x").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn parts_are_copied_with_and_without_a_range() {
    let server = with_source().await;
    let begun = server.call(Call::new("POST", "/bucket/whole?uploads").sign()).await.expect(200);
    let id = begun.tag("UploadId");
    let part = |n: u32, range: Option<&str>| {
        let call = copy(&format!("whole?partNumber={n}&uploadId={id}"), "/bucket/source");
        match range {
            Some(range) => call.header("x-amz-copy-source-range", range),
            None => call,
        }
    };
    let first = server.call(part(1, None).sign()).await.expect(200).tag("ETag");
    let second = server.call(part(2, Some("bytes=1-3")).sign()).await.expect(200).tag("ETag");
    server.call(part(3, Some("bytes=1-5")).sign()).await.expect_code(416, "InvalidRange");
    server.call(part(3, Some("bytes=1-")).sign()).await.expect_code(400, "InvalidArgument");
    let body = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{first}</ETag></Part>\
         <Part><PartNumber>2</PartNumber><ETag>{second}</ETag></Part></CompleteMultipartUpload>"
    );
    server.call(Call::new("POST", &format!("/bucket/whole?uploadId={id}")).body(body).sign()).await.expect(200);
    assert_eq!(server.get("whole").await.text(), "helloell");
}
