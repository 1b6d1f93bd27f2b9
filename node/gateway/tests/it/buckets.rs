//! Buckets, and the questions common clients ask about them.

use object::api::ObjectError;

use crate::client::Call;
use crate::server::Server;

#[tokio::test]
async fn a_bucket_lives_and_dies() {
    let server = Server::start().await;
    let made = server.call(Call::new("PUT", "/bucket").sign()).await.expect(200);
    assert_eq!(made.header("location"), "/bucket");
    server.call(Call::new("PUT", "/bucket").sign()).await.expect_code(409, "BucketAlreadyOwnedByYou");
    let mut other = Call::new("PUT", "/bucket");
    (other.access, other.secret) = ("AKOTHER".into(), "other".into());
    server.call(other.sign()).await.expect_code(409, "BucketAlreadyExists");
    let head = server.call(Call::new("HEAD", "/bucket").sign()).await.expect(200);
    assert_eq!(head.header("x-amz-bucket-region"), "us-east-1");
    server.put("key", b"x").await.expect(200);
    server.call(Call::new("DELETE", "/bucket").sign()).await.expect_code(409, "BucketNotEmpty");
    server.call(Call::new("DELETE", "/bucket/key").sign()).await.expect(204);
    server.call(Call::new("DELETE", "/bucket").sign()).await.expect(204);
    server.call(Call::new("DELETE", "/bucket").sign()).await.expect_code(404, "NoSuchBucket");
    server.call(Call::new("HEAD", "/bucket").sign()).await.expect(404);
}

#[tokio::test]
async fn a_change_without_a_body_needs_no_length() {
    let server = Server::start().await;
    let silent = |method, path| Call { silent: true, ..Call::new(method, path) }.payload("UNSIGNED-PAYLOAD").sign();
    server.call(silent("PUT", "/quiet")).await.expect(200);
    let begun = server.call(silent("POST", "/quiet/key?uploads=")).await.expect(200);
    assert!(!begun.tag("UploadId").is_empty());
    server.call(silent("PUT", "/quiet/key")).await.expect_code(411, "MissingContentLength");
}

#[tokio::test]
async fn a_location_is_kept() {
    let server = Server::start().await;
    let body = "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <LocationConstraint>eu-west-7</LocationConstraint></CreateBucketConfiguration>";
    server.call(Call::new("PUT", "/far").body(body).sign()).await.expect(200);
    server.call(Call::new("PUT", "/near").sign()).await.expect(200);
    let far = server.call(Call::new("GET", "/far?location").sign()).await.expect(200);
    assert!(far.text().contains("eu-west-7"), "{}", far.text());
    let near = server.call(Call::new("GET", "/near?location").sign()).await.expect(200);
    assert_eq!(near.tag("LocationConstraint"), "");
    let bad = body.replace("eu-west-7", "not a place");
    server.call(Call::new("PUT", "/bad").body(bad).sign()).await.expect_code(400, "InvalidLocationConstraint");
    server.call(Call::new("HEAD", "/bad").sign()).await.expect(404);
}

#[tokio::test]
async fn bucket_names_follow_awss_rules() {
    let server = Server::start().await;
    for name in ["ab", "Upper", "a_b", "-ab", "ab-", "a..b", "192.168.0.1", "xn--abc", "abc-s3alias", "sthree-x"] {
        server.call(Call::new("PUT", &format!("/{name}")).sign()).await.expect_code(400, "InvalidBucketName");
    }
    let long = "a".repeat(64);
    server.call(Call::new("PUT", &format!("/{long}")).sign()).await.expect_code(400, "InvalidBucketName");
    server.call(Call::new("PUT", &format!("/{}", &long[..63])).sign()).await.expect(200);
}

#[tokio::test]
async fn buckets_are_listed_in_pages() {
    let server = Server::start().await;
    for name in ["aaa", "aab", "bbb"] {
        server.call(Call::new("PUT", &format!("/{name}")).sign()).await.expect(200);
    }
    let all = server.call(Call::new("GET", "/").sign()).await.expect(200);
    assert_eq!(all.tags("Name"), ["aaa", "aab", "bbb"]);
    let first = server.call(Call::new("GET", "/?max-buckets=1&prefix=aa").sign()).await.expect(200);
    assert_eq!(first.tags("Name"), ["aaa"]);
    let token = first.tag("ContinuationToken");
    let next = format!("/?max-buckets=1&prefix=aa&continuation-token={token}");
    let second = server.call(Call::new("GET", &next).sign()).await.expect(200);
    assert_eq!((second.tags("Name"), second.tag("ContinuationToken")), (vec!["aab".to_owned()], String::new()));
    server.call(Call::new("GET", "/?continuation-token=zzz").sign()).await.expect_code(400, "InvalidArgument");
    server.call(Call::new("GET", "/?max-buckets=0").sign()).await.expect_code(400, "InvalidArgument");
}

#[tokio::test]
async fn settings_that_do_not_exist_are_answered_as_unset() {
    let server = Server::with_bucket().await;
    server.put("key", b"x").await.expect(200);
    for (query, status, code) in [
        ("policy", 404, "NoSuchBucketPolicy"),
        ("cors", 404, "NoSuchCORSConfiguration"),
        ("lifecycle", 404, "NoSuchLifecycleConfiguration"),
        ("tagging", 404, "NoSuchTagSet"),
        ("website", 404, "NoSuchWebsiteConfiguration"),
        ("encryption", 404, "ServerSideEncryptionConfigurationNotFoundError"),
        ("object-lock", 404, "ObjectLockConfigurationNotFoundError"),
        ("versioning", 200, ""),
        ("acl", 200, ""),
        ("requestPayment", 200, ""),
        ("ownershipControls", 200, ""),
    ] {
        server.call(Call::new("GET", &format!("/bucket?{query}")).sign()).await.expect_code(status, code);
        server.call(Call::new("GET", &format!("/nowhere?{query}")).sign()).await.expect_code(404, "NoSuchBucket");
    }
    let acl = server.call(Call::new("GET", "/bucket/key?acl").sign()).await.expect(200);
    assert!(acl.text().contains("FULL_CONTROL"), "{}", acl.text());
    server.call(Call::new("GET", "/bucket/key?tagging").sign()).await.expect(200);
    server.call(Call::new("GET", "/bucket/none?tagging").sign()).await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let server = Server::with_bucket().await;
    server.put("key", b"x").await.expect(200);
    for (method, path) in [
        ("PUT", "/bucket?versioning"),
        ("PUT", "/bucket?policy"),
        ("GET", "/bucket?logging"),
        ("GET", "/bucket/key?torrent"),
        ("PUT", "/bucket/key?acl"),
        ("PUT", "/bucket/key?renameObject"),
        ("DELETE", "/bucket?metadataConfiguration"),
        ("DELETE", "/bucket/key?tagging"),
        ("POST", "/bucket/key?restore"),
    ] {
        let answer = server.call(Call::new(method, path).body("<A></A>").sign()).await;
        assert_eq!((answer.status, answer.code().as_str()), (501, "NotImplemented"), "{method} {path}");
    }
    for (name, value) in [
        ("x-amz-tagging", "a=b"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
    ] {
        let call = Call::new("PUT", "/bucket/new").header(name, value).body("x").sign();
        server.call(call).await.expect_code(501, "NotImplemented");
    }
    let class = Call::new("PUT", "/bucket/new").header("x-amz-storage-class", "GLACIER").body("x").sign();
    server.call(class).await.expect_code(400, "InvalidStorageClass");
    server.get("new").await.expect_code(404, "NoSuchKey");
}

#[tokio::test]
async fn the_object_layers_errors_have_their_codes() {
    let server = Server::with_bucket().await;
    for (error, status, code) in [
        (ObjectError::InsufficientStorage, 507, "InsufficientStorage"),
        (ObjectError::SlowDown, 503, "SlowDown"),
        (ObjectError::Unavailable("x".into()), 503, "ServiceUnavailable"),
        (ObjectError::Internal("x".into()), 500, "InternalError"),
        (ObjectError::TooLarge, 400, "EntityTooLarge"),
        (ObjectError::NoSuchUpload, 404, "NoSuchUpload"),
        (ObjectError::InvalidPartOrder, 400, "InvalidPartOrder"),
        (ObjectError::InvalidPart { number: 3 }, 400, "InvalidPart"),
        (ObjectError::PartTooSmall { number: 1, size: 1 }, 400, "EntityTooSmall"),
        (ObjectError::ChecksumMismatch, 400, "InvalidRequest"),
        (ObjectError::PreconditionFailed, 412, "PreconditionFailed"),
    ] {
        server.memory.fail_next(error);
        let answer = server.put("key", b"x").await.expect_code(status, code);
        assert_eq!(answer.tag("RequestId"), answer.header("x-amz-request-id"));
    }
    server.get("key").await.expect_code(404, "NoSuchKey");
}
