//! What a source file may say: LAYOUT's and STYLE's laws that the text shows.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Finding;
use crate::crates::Crate;
use crate::lexer::{Placed, Word, without_tests, words};
use crate::paths::{Named, paths};
use crate::rooms::PURE;

/// Lines a file has at most; most have 100 to 400.
pub const LINES_MAX: usize = 1000;

/// Folder names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "common", "core", "helpers", "misc"];

/// What only drivers touch.
const DOORS: [(&[&str], &str); 11] = [
    (&["std", "fs"], "files"),
    (&["std", "net"], "sockets"),
    (&["std", "os", "unix", "net"], "sockets"),
    (&["std", "time", "Instant"], "the clock"),
    (&["std", "time", "SystemTime"], "the clock"),
    (&["tokio", "fs"], "files"),
    (&["tokio", "net"], "sockets"),
    (&["tokio", "time"], "the clock"),
    (&["tokio", "signal"], "signals"),
    (&["rand"], "randomness"),
    (&["getrandom"], "randomness"),
];

/// Parts of `std::net` that are data, not doors.
const ADDRESSES: [&str; 7] =
    ["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError"];

/// Who opens a door all the same, and why. The place is a prefix of a file's path.
pub const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("node/gateway/src/", "sockets", "the S3 face is HTTP over TCP; the simulator drives the object layer below it"),
    ("node/gateway/src/", "the clock", "bounds idle peers and stalled bodies; labels times for HTTP's date format"),
    ("node/wire/src/listen.rs", "sockets", "mutual TLS over TCP; the simulator drives the services above the wire"),
    ("node/wire/src/listen.rs", "the clock", "bounds handshakes of strangers; pauses when no socket can be had"),
    ("node/wire/src/dial.rs", "sockets", "mutual TLS over TCP; the simulator drives the services above the wire"),
    ("node/wire/src/dial.rs", "the clock", "bounds connects to hosts that do not answer"),
    (
        "node/wire/src/tls_conn.rs",
        "the clock",
        "wakes connections whose certificates end; the time itself is the door's",
    ),
    ("provisioning/catalog/src/redb_store.rs", "files", "opens the one file behind redb, with its mode"),
    ("provisioning/catalog/src/etcd/door.rs", "sockets", "the client of etcd; tests put other stores behind the trait"),
    (
        "provisioning/catalog/src/etcd/",
        "the clock",
        "bounds calls to etcd and renews leases; the time itself is the door's",
    ),
    (
        "provisioning/controller/src/",
        "the clock",
        "composition root: ticks, tries to lead, looks at keys; the time itself is the door's",
    ),
    ("provisioning/cli/", "files", "composition root: data directory, lock, credentials, config file"),
    ("provisioning/cli/", "sockets", "composition root: the client of the admin socket"),
    ("provisioning/cli/", "the clock", "composition root: bounds the wait for the admin socket's answer"),
    ("provisioning/cli/", "signals", "composition root: SIGINT and SIGTERM"),
    ("node/daemon/", "files", "composition root: devices' files, the admin socket's place and mode"),
    ("node/daemon/", "sockets", "composition root: listens for S3 and for the admin server"),
    ("node/daemon/", "the clock", "composition root: bounds connections and the wait at shutdown"),
];

/// Checks every source file of a crate.
#[must_use]
pub fn check(root: &Path, own: &Crate, ours: &[String]) -> Vec<Finding> {
    let mut files = Vec::new();
    collect(&root.join(&own.dir), &mut files);
    files.sort();
    let mut findings = Vec::new();
    let mut declared = Vec::new();
    let mut modules = Vec::new();
    for path in &files {
        let place = path.strip_prefix(root).unwrap_or(path).display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => {
                let all = words(&text);
                declared.extend(declarations(&all));
                modules
                    .extend(module_name(&own.dir, path.strip_prefix(root).unwrap_or(path)).map(|n| (place.clone(), n)));
                check_file(&File { place: &place, text: &text, all: &all, own, ours }, &mut findings);
            }
            Err(error) => findings.push(Finding::new(&place, 0, &error.to_string())),
        }
    }
    for (place, name) in modules.iter().filter(|(_, name)| !declared.contains(name)) {
        findings.push(Finding::new(place, 0, &format!("no `mod {name};` includes this file")));
    }
    findings
}

struct File<'a> {
    place: &'a str,
    text: &'a str,
    all: &'a [Placed],
    own: &'a Crate,
    ours: &'a [String],
}

fn check_file(file: &File<'_>, findings: &mut Vec<Finding>) {
    let mut say = |line: usize, what: &str| findings.push(Finding::new(file.place, line, what));
    if !file.text.starts_with("//!") {
        say(1, "the file does not open with `//!` and what it is");
    }
    if file.text.lines().count() > LINES_MAX {
        say(LINES_MAX, "the file is too long to be read in a sitting");
    }
    for part in Path::new(file.place).parent().into_iter().flat_map(Path::components) {
        let part = part.as_os_str().to_string_lossy();
        if EMPTY_NAMES.contains(&&*part) {
            say(0, &format!("a folder named {part} says nothing"));
        }
    }
    let in_drivers = file.own.room == "drivers";
    let root_file = ["src/lib.rs", "src/main.rs"].iter().any(|end| file.place == format!("{}/{end}", file.own.place()));
    if root_file && !in_drivers && !forbids_unsafe(file.all) {
        say(1, "the crate does not say #![forbid(unsafe_code)]");
    }
    for (at, placed) in file.all.iter().enumerate() {
        let next_is = |sign| file.all.get(at + 1).is_some_and(|next| next.word == Word::Sign(sign));
        if placed.word.is("unsafe") && !in_drivers {
            say(placed.line, "unsafe belongs in drivers");
        }
        for name in ["todo", "unimplemented", "dbg"] {
            if placed.word.is(name) && next_is('!') {
                say(placed.line, &format!("{name}! is left in"));
            }
        }
    }
    let own_name = file.own.name.replace('-', "_");
    for named in paths(file.all).iter().filter(|named| named.segments.last().is_some_and(|last| last == "*")) {
        let first = &named.segments[0];
        if *first != own_name && file.ours.iter().any(|our| our.replace('-', "_") == *first) {
            say(named.line, &format!("{first}::* hides where names come from"));
        }
    }
    let code = without_tests(file.all);
    if !in_drivers && file.own.room != "hwtests" && !is_test(file.place, file.own) {
        check_doors(file.place, &paths(&code), &mut say);
    }
    if PURE.contains(&file.own.name.as_str()) && !is_test(file.place, file.own) {
        for placed in &code {
            if ["async", "await", "tokio"].iter().any(|name| placed.word.is(name)) {
                say(placed.line, "a pure crate has no async");
            }
            if ["HashMap", "HashSet"].iter().any(|name| placed.word.is(name)) {
                say(placed.line, "a pure crate has no unordered map");
            }
        }
    }
}

fn check_doors(place: &str, named: &[Named], say: &mut impl FnMut(usize, &str)) {
    for named in named {
        let Some((_, door)) = DOORS.iter().find(|(prefix, _)| named.starts_with(prefix)) else { continue };
        let data = named.starts_with(&["std", "net"])
            && named.segments.get(2).is_some_and(|item| ADDRESSES.contains(&item.as_str()));
        let excepted = EXCEPTIONS.iter().any(|(prefix, what, _)| place.starts_with(prefix) && what == door);
        if !data && !excepted {
            say(named.line, &format!("{} opens a door ({door}) outside drivers", named.segments.join("::")));
        }
    }
}

/// Whether a file is test code as a whole.
fn is_test(place: &str, own: &Crate) -> bool {
    let inside = place.strip_prefix(&own.place()).unwrap_or(place).trim_start_matches('/');
    ["tests/", "benches/", "examples/"].iter().any(|dir| inside.starts_with(dir))
        || inside.ends_with("/tests.rs")
        || inside.contains("/tests/")
}

fn forbids_unsafe(words: &[Placed]) -> bool {
    words
        .windows(3)
        .any(|three| three[0].word.is("forbid") && three[1].word == Word::Sign('(') && three[2].word.is("unsafe_code"))
}

fn declarations(words: &[Placed]) -> impl Iterator<Item = String> + '_ {
    words.windows(3).filter_map(|three| match (&three[0].word, &three[1].word, &three[2].word) {
        (Word::Name(keyword), Word::Name(name), Word::Sign(';')) if keyword == "mod" => Some(name.clone()),
        _ => None,
    })
}

/// The module that a file below `src` is; `None` for roots of their own.
fn module_name(dir: &Path, path: &Path) -> Option<String> {
    let inside = path.strip_prefix(dir.join("src")).ok()?;
    let stem = inside.file_stem()?.to_string_lossy().into_owned();
    let top = inside.components().count() == 1;
    match stem.as_str() {
        "lib" | "main" if top => None,
        _ if inside.starts_with("bin") => None,
        "mod" => Some(inside.parent()?.file_name()?.to_string_lossy().into_owned()),
        _ => Some(stem),
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // A crate inside a crate is a member of its own.
            if name != "target" && !path.join("Cargo.toml").exists() {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
