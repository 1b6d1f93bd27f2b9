//! Who may speak: signatures in headers and URLs, clocks, and what is refused.

use crate::client::{Call, encode};
use crate::server::Server;

#[tokio::test]
async fn only_known_users_with_the_right_secret_speak() {
    let server = Server::with_bucket().await;
    let anonymous = Call::new("GET", "/bucket/key");
    server.call(anonymous).await.expect_code(403, "AccessDenied");
    let mut unknown = Call::new("GET", "/bucket/key");
    unknown.access = "AKNOBODY".into();
    server.call(unknown.sign()).await.expect_code(403, "InvalidAccessKeyId");
    let mut wrong = Call::new("PUT", "/bucket/key").body("x");
    wrong.secret = "guess".into();
    server.call(wrong.sign()).await.expect_code(403, "SignatureDoesNotMatch");
    let mut altered = Call::new("PUT", "/bucket/key").body("x").sign();
    altered.path = "/bucket/other".into();
    server.call(altered).await.expect_code(403, "SignatureDoesNotMatch");
    for key in ["key", "other"] {
        server.get(key).await.expect_code(404, "NoSuchKey");
    }
}

#[tokio::test]
async fn clocks_may_differ_by_a_quarter_of_an_hour() {
    let server = Server::with_bucket().await;
    for offset in [-890, 890] {
        server.call(Call::new("HEAD", "/bucket").date(offset).sign()).await.expect(200);
    }
    for offset in [-910, 910, -90_000] {
        let answer = server.call(Call::new("GET", "/bucket").date(offset).sign()).await;
        answer.expect_code(403, "RequestTimeTooSkewed");
    }
}

#[tokio::test]
async fn presigned_urls_work_until_they_expire() {
    let server = Server::with_bucket().await;
    server.call(Call::new("PUT", "/bucket/a%20b").presign(60).body("hello")).await.expect(200);
    let got = server.call(Call::new("GET", "/bucket/a%20b").presign(60)).await.expect(200);
    assert_eq!(got.text(), "hello");
    // Older than the clock's tolerance, but within the time it was given.
    server.call(Call::new("GET", "/bucket/a%20b").date(-3000).presign(3600)).await.expect(200);
    let late = server.call(Call::new("GET", "/bucket/a%20b").date(-120).presign(60)).await;
    assert!(late.expect_code(403, "AccessDenied").text().contains("expired"));
    let early = server.call(Call::new("GET", "/bucket/a%20b").date(3600).presign(60)).await;
    early.expect_code(403, "RequestTimeTooSkewed");
    let long = server.call(Call::new("GET", "/bucket/a%20b").presign(604_801)).await;
    long.expect_code(400, "AuthorizationQueryParametersError");
    let mut altered = Call::new("GET", "/bucket/a%20b").presign(60);
    for (name, value) in &mut altered.query {
        if name == "X-Amz-Expires" {
            *value = "6000".into();
        }
    }
    server.call(altered).await.expect_code(403, "SignatureDoesNotMatch");
}

#[tokio::test]
async fn headers_added_after_signing_are_refused() {
    let server = Server::with_bucket().await;
    server.put("secret", b"x").await.expect(200);
    let added = Call::new("PUT", "/bucket/key").presign(60).header("x-amz-copy-source", "/bucket/secret");
    server.call(added).await.expect_code(403, "AccessDenied");
    let mut signed = Call::new("PUT", "/bucket/key").body("x").sign();
    signed.headers.push(("x-amz-meta-evil".into(), "1".into()));
    server.call(signed).await.expect_code(403, "AccessDenied");
    server.get("key").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn version_two_is_refused() {
    let server = Server::with_bucket().await;
    let call = Call::new("GET", "/bucket").header("authorization", "AWS AKTEST:c2ln").header("date", "x");
    server.call(call).await.expect_code(400, "InvalidRequest");
    let call = Call::new("GET", "/bucket/key?AWSAccessKeyId=AKTEST&Expires=99999999999&Signature=x");
    server.call(call).await.expect_code(400, "InvalidRequest");
}

#[tokio::test]
async fn signatures_cover_the_path_as_it_is() {
    let server = Server::with_bucket().await;
    for key in ["a/../b", "a//b", "ü", "a b+c", "x;y"] {
        server.put(&encode(key, true), key.as_bytes()).await.expect(200);
        assert_eq!(server.get(&encode(key, true)).await.expect(200).text(), key);
    }
    server.get("b").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn every_answer_has_an_identifier_of_its_own() {
    let server = Server::with_bucket().await;
    let mut seen = std::collections::BTreeSet::new();
    for call in [
        Call::new("GET", "/bucket").sign(),
        Call::new("GET", "/bucket"),
        Call::new("GET", "/bucket/none").sign(),
        Call::new("HEAD", "/none").sign(),
        Call::new("GET", "/Bad_Bucket/x").sign(),
    ] {
        let answer = server.call(call).await;
        let id = answer.header("x-amz-request-id");
        assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        seen.insert(id.to_owned());
    }
    assert_eq!(seen.len(), 5);
}
