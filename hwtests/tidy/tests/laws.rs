//! The workspace obeys the laws, and each law is shown to see its violation in a sample tree.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tidy::check;

#[test]
fn the_workspace_obeys() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let findings = check(&root.canonicalize().unwrap());
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} broken laws:\n{}", lines.len(), lines.join("\n"));
}

/// A workspace of three crates that obey; each test changes one file.
struct Sample(TempDir);

impl Sample {
    fn new() -> Self {
        let sample = Self(tempfile::tempdir().unwrap());
        let members = "[workspace]\nmembers = [\"drivers/base\", \"node/format\", \"node/object\", \"node/gateway\"]\n";
        sample.write("Cargo.toml", members);
        for (place, dependencies) in [
            ("drivers/base", ""),
            ("node/format", "base = {}\n"),
            ("node/object", "format = {}\n"),
            ("node/gateway", "object = {}\ns3s = {}\n"),
        ] {
            sample.manifest(place, dependencies);
            sample.write(&format!("{place}/src/lib.rs"), "//! A crate.\n#![forbid(unsafe_code)]\n");
        }
        sample
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn manifest(&self, place: &str, dependencies: &str) {
        let name = place.rsplit('/').next().unwrap();
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependencies}[lints]\nworkspace = true\n");
        self.write(&format!("{place}/Cargo.toml"), &text);
    }

    fn code(&self, place: &str, code: &str) {
        self.write(&format!("{place}/src/lib.rs"), &format!("//! A crate.\n#![forbid(unsafe_code)]\n{code}\n"));
    }

    /// There is one finding, in this place, with this text.
    fn finds(&self, place: &str, what: &str) {
        let findings = check(self.0.path());
        assert_eq!(findings.len(), 1, "{what}: {findings:?}");
        let line = findings[0].to_string();
        assert!(line.starts_with(place) && line.contains(what), "{line} is not {place} ... {what}");
    }
}

#[test]
fn a_tree_that_obeys_has_no_findings() {
    let sample = Sample::new();
    assert_eq!(check(sample.0.path()), []);
    sample.code(
        "node/object",
        "use std::net::{IpAddr, SocketAddr};\nuse std::time::Duration;\n// unsafe todo!()\nconst T: &str = \"std::fs\";\n\
         #[cfg(test)]\nmod tests { use std::fs; }",
    );
    sample.write("node/object/tests/files.rs", "//! Tests.\nuse std::fs;\n");
    assert_eq!(check(sample.0.path()), []);
}

#[test]
fn imports_against_the_order_are_seen() {
    for (place, dependencies, what) in [
        ("drivers/base", "format = {}\n", "drivers comes before node"),
        ("node/format", "object = {}\n", "later in LAYOUT's order"),
        ("node/gateway", "object = {}\nformat = {}\n", "a face sees object alone"),
        ("node/object", "s3s = {}\n", "s3s stops at node/gateway"),
        ("node/format", "tokio = {}\n", "is pure"),
        ("node/object", "libc = {}\n", "libc stops at drivers/"),
    ] {
        let sample = Sample::new();
        sample.manifest(place, dependencies);
        sample.finds(place, what);
    }
}

#[test]
fn provisioning_and_concrete_drivers_are_watched() {
    let sample = Sample::new();
    sample
        .write("Cargo.toml", "[workspace]\nmembers = [\"drivers/uring\", \"node/object\", \"provisioning/catalog\"]\n");
    for place in ["drivers/uring", "provisioning/catalog"] {
        sample.manifest(place, "");
        sample.write(&format!("{place}/src/lib.rs"), "//! A crate.\n#![forbid(unsafe_code)]\n");
    }
    sample.manifest("node/object", "");
    assert_eq!(check(sample.0.path()), []);
    sample.manifest("provisioning/catalog", "object = {}\n");
    sample.finds("provisioning/catalog", "wire and placement");
    sample.manifest("provisioning/catalog", "");
    sample.manifest("node/object", "uring = {}\n");
    sample.finds("node/object", "composition root");
}

#[test]
fn doors_are_seen_however_they_are_written() {
    for (code, what) in [
        ("use std::fs;", "std::fs"),
        ("use std::{io, fs::File};", "std::fs::File"),
        ("fn f() { std::fs::read(\"x\"); }", "files"),
        ("use std::net::{SocketAddr, TcpStream};", "std::net::TcpStream"),
        ("use std::net;", "sockets"),
        ("use std::time::{Duration, Instant};", "the clock"),
        ("fn f() { std::time::SystemTime::now(); }", "the clock"),
        ("fn f() { tokio::time::sleep(d); }", "the clock"),
        ("use tokio::{net::TcpListener, sync};", "sockets"),
        ("fn f() { rand::random() }", "randomness"),
    ] {
        let sample = Sample::new();
        sample.code("node/object", code);
        sample.finds("node/object/src/lib.rs:3", what);
    }
}

#[test]
fn sources_that_break_a_law_are_seen() {
    for (place, code, what) in [
        ("node/object", "fn f() { unsafe { g() } }", "unsafe belongs in drivers"),
        ("node/object", "fn f() { todo!() }", "todo!"),
        ("node/object", "fn f() { unimplemented!(\"x\") }", "unimplemented!"),
        ("node/object", "use format::*;", "format::*"),
        ("node/format", "async fn f() {}", "a pure crate has no async"),
        ("node/format", "type M = std::collections::HashMap<u8, u8>;", "unordered map"),
    ] {
        let sample = Sample::new();
        sample.code(place, code);
        sample.finds(&format!("{place}/src/lib.rs:3"), what);
    }
}

#[test]
fn files_that_break_a_law_are_seen() {
    let cases: [(&str, String, &str); 6] = [
        ("node/object/src/lib.rs", "#![forbid(unsafe_code)]\n".into(), "does not open with"),
        ("node/object/src/lib.rs", "//! A crate.\n".into(), "forbid(unsafe_code)"),
        ("node/object/src/lost.rs", "//! A module.\n".into(), "no `mod lost;`"),
        ("node/object/tests/utils/lost.rs", "//! Tests.\n".into(), "says nothing"),
        ("node/object/tests/common/mod.rs", "//! Tests.\n".into(), "says nothing"),
        ("node/object/tests/long.rs", format!("//! Tests.\n{}", "\n".repeat(tidy::sources::LINES_MAX)), "too long"),
    ];
    for (path, text, what) in cases {
        let sample = Sample::new();
        sample.write(path, &text);
        sample.finds(path, what);
    }
}

#[test]
fn manifests_that_break_a_law_are_seen() {
    let sample = Sample::new();
    sample.write("node/object/Cargo.toml", "[package]\nname = \"object\"\n");
    sample.finds("node/object/Cargo.toml", "lints");

    let sample = Sample::new();
    sample.write("node/object/Cargo.toml", "[package]\nname = \"things\"\n[lints]\nworkspace = true\n");
    sample.finds("node/object/Cargo.toml", "lives in a folder object");

    let sample = Sample::new();
    sample.write("Cargo.toml", "[workspace]\nmembers = [\"node/novel\"]\n");
    sample.manifest("node/novel", "");
    sample.write("node/novel/src/lib.rs", "//! A crate.\n#![forbid(unsafe_code)]\n");
    sample.finds("node/novel/Cargo.toml", "no line in tidy's ORDER");

    let sample = Sample::new();
    sample.write("node/object/Cargo.toml", "[package\n");
    sample.finds("node/object/Cargo.toml", "");
}

#[test]
fn every_exception_has_a_reason_and_a_place_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (place, door, why) in tidy::sources::EXCEPTIONS.iter().copied() {
        assert!(why.len() > 20, "{place} {door}");
        assert!(root.join(place).exists(), "{place} is gone; so should be its exception");
    }
}
