//! Listings of objects: pages, prefixes, delimiters, markers, tokens.

use crate::client::{Answer, Call, encode};
use crate::server::Server;

async fn filled() -> Server {
    let server = Server::with_bucket().await;
    for key in ["a", "b/1", "b/2", "b/c/3", "d", "e/1", "f"] {
        server.put(key, b"x").await.expect(200);
    }
    server
}

async fn list(server: &Server, query: &str) -> Answer {
    server.call(Call::new("GET", &format!("/bucket?{query}")).sign()).await.expect(200)
}

/// Keys and rolled-up prefixes of all pages of at most `max` entries.
async fn walk(server: &Server, query: &str, max: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let page = list(server, &format!("list-type=2&max-keys={max}&{query}{token}")).await;
        let mut entries = page.tags("Key");
        entries.extend(page.tags("CommonPrefixes").iter().map(|p| p.replace("<Prefix>", "").replace("</Prefix>", "")));
        assert_eq!(page.tag("KeyCount"), entries.len().to_string());
        assert!(entries.len() <= max);
        entries.sort();
        found.extend(entries);
        match page.tag("NextContinuationToken") {
            next if next.is_empty() => {
                assert_eq!(page.tag("IsTruncated"), "false");
                return found;
            }
            next => token = format!("&continuation-token={next}"),
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_give_the_same() {
    let server = filled().await;
    for max in 1..9 {
        assert_eq!(walk(&server, "", max).await, ["a", "b/1", "b/2", "b/c/3", "d", "e/1", "f"]);
        assert_eq!(walk(&server, "delimiter=/", max).await, ["a", "b/", "d", "e/", "f"]);
        assert_eq!(walk(&server, "delimiter=/&prefix=b/", max).await, ["b/1", "b/2", "b/c/"]);
        assert_eq!(walk(&server, "start-after=b/2", max).await, ["b/c/3", "d", "e/1", "f"]);
        assert_eq!(walk(&server, "prefix=zzz", max).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn version_one_has_markers() {
    let server = filled().await;
    let page = list(&server, "max-keys=2&delimiter=/").await;
    assert_eq!((page.tag("IsTruncated").as_str(), page.tag("NextMarker").as_str()), ("true", "b/"));
    let page = list(&server, "delimiter=/&marker=b/").await;
    assert_eq!(page.tags("Key"), ["d", "f"]);
    assert_eq!(page.tag("Marker"), "b/");
    let page = list(&server, "max-keys=1").await;
    assert_eq!((page.tag("IsTruncated").as_str(), page.tag("NextMarker").as_str()), ("true", ""));
    assert!(page.text().contains("<Owner>"));
}

#[tokio::test]
async fn an_entry_says_what_it_is() {
    let server = filled().await;
    let page = list(&server, "list-type=2&prefix=a&fetch-owner=true").await;
    assert_eq!(page.tag("Size"), "1");
    assert_eq!(page.tag("StorageClass"), "STANDARD");
    assert_eq!(page.tag("ChecksumAlgorithm"), "CRC64NVME");
    assert_eq!(page.tag("ChecksumType"), "FULL_OBJECT");
    assert!(page.tag("ETag").contains("9dd4e461268c8034f5c8564e155c67a6"));
    assert!(page.text().contains("<Owner>"));
    assert!(!list(&server, "list-type=2&prefix=a").await.text().contains("<Owner>"));
}

#[tokio::test]
async fn arguments_are_checked() {
    let server = filled().await;
    for query in
        ["list-type=2&max-keys=-1", "list-type=2&continuation-token=nonsense", "max-keys=abc", "encoding-type=x"]
    {
        let answer = server.call(Call::new("GET", &format!("/bucket?{query}")).sign()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "InvalidArgument"), "{query}");
    }
    let empty = list(&server, "list-type=2&max-keys=0").await;
    assert_eq!((empty.tag("KeyCount").as_str(), empty.tag("IsTruncated").as_str()), ("0", "false"));
    assert_eq!(list(&server, "list-type=2&max-keys=5000").await.tag("MaxKeys"), "1000");
    server.call(Call::new("GET", "/nowhere?list-type=2&max-keys=0").sign()).await.expect_code(404, "NoSuchBucket");
    server.call(Call::new("GET", "/nowhere").sign()).await.expect_code(404, "NoSuchBucket");
}

#[tokio::test]
async fn names_are_escaped() {
    let server = Server::with_bucket().await;
    server.put(&encode("a<&>b c", true), b"x").await.expect(200);
    assert_eq!(list(&server, "list-type=2").await.tag("Key"), "a&lt;&amp;&gt;b c");
    let page = list(&server, "list-type=2&encoding-type=url&prefix=a<").await;
    assert_eq!(page.tag("Key"), "a%3C%26%3Eb%20c");
}

#[tokio::test]
async fn objects_are_their_only_versions() {
    let server = filled().await;
    let mut found = Vec::new();
    let mut markers = String::new();
    loop {
        let page = list(&server, &format!("versions&max-keys=3{markers}")).await;
        assert!(page.tags("VersionId").iter().all(|id| id == "null"));
        found.extend(page.tags("Key"));
        if page.tag("IsTruncated") == "false" {
            break;
        }
        markers =
            format!("&key-marker={}&version-id-marker={}", page.tag("NextKeyMarker"), page.tag("NextVersionIdMarker"));
    }
    assert_eq!(found, ["a", "b/1", "b/2", "b/c/3", "d", "e/1", "f"]);
    server.call(Call::new("DELETE", "/bucket/a?versionId=null").sign()).await.expect(204);
    server.get("a").await.expect_code(404, "NoSuchKey");
}
