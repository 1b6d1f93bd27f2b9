//! Who may import whom: LAYOUT's laws that manifests show.

use crate::Finding;
use crate::crates::{Crate, ROOMS};

/// Every crate in reading order; a crate is built only from crates before it. A new crate gets its line here.
pub const ORDER: &[&str] = &[
    "drivers/base",
    "drivers/gf",
    "drivers/md5lanes",
    "drivers/disk",
    "drivers/uring",
    "drivers/simdisk",
    "drivers/health",
    "drivers/hotplug",
    "drivers/nvme-user",
    "node/format",
    "node/wire",
    "node/coding",
    "node/etag",
    "node/placement",
    "node/shards",
    "node/journal",
    "node/witness",
    "node/replica",
    "node/index",
    "node/object",
    "node/peers",
    "node/gateway",
    "node/vectors",
    "node/auditor",
    "node/repair",
    "node/salvage",
    "node/daemon",
    "provisioning/membership",
    "provisioning/durability",
    "provisioning/catalog",
    "provisioning/enrolment",
    "provisioning/controller",
    "provisioning/console",
    "provisioning/cli",
    "hwtests/models",
    "hwtests/simulation",
    "hwtests/schedules",
    "hwtests/vrack",
    "hwtests/burnin",
    "hwtests/ringbench",
    "hwtests/benches",
];

/// Crates outside the order: they import nothing of ours and nothing imports them.
const APART: [&str; 1] = ["hwtests/tidy"];

/// Crates that are plain state machines or mathematics.
pub const PURE: [&str; 7] = ["journal", "witness", "placement", "coding", "format", "membership", "durability"];

/// Crates that compose a process, and so may name a concrete driver.
const ROOTS: [&str; 3] = ["daemon", "controller", "cli"];
const CONCRETE_DRIVERS: [&str; 3] = ["uring", "simdisk", "nvme-user"];

/// What provisioning may take from node, and why where LAYOUT does not say so.
const PROVISIONING_FROM_NODE: [(&str, &str, &str); 2] = [
    ("cli", "daemon", "`holdfast dev` runs a whole node in the operator's process"),
    ("cli", "salvage", "`holdfast fsck`, `dump` and `salvage` work on devices on a bench, without a node"),
];
const PROVISIONING_FROM_NODE_ALL: [&str; 2] = ["wire", "placement"];

/// Pairs that are never built together.
const NEVER: [(&str, &[&str], &str); 5] = [
    ("gateway", &["shards", "journal", "index", "replica", "format"], "a face sees object alone"),
    ("vectors", &["shards", "journal", "index", "replica", "format"], "a face sees object alone"),
    ("journal", &["replica", "index", "shards"], "the machine does not know its shell"),
    ("coding", &["disk", "shards"], "mathematics knows no device"),
    ("format", &["disk", "shards"], "structs do no I/O"),
];

/// Foreign crates that stop at a place of ours.
const STOPS_AT: [(&str, &[&str]); 8] = [
    ("s3s", &["node/gateway", "node/vectors"]),
    ("clap", &["provisioning/cli", "hwtests/"]),
    ("stateright", &["hwtests/"]),
    ("turmoil", &["hwtests/"]),
    // etcd's messages are no service of ours; they stop at the store that speaks them.
    ("prost", &["node/wire", "provisioning/catalog"]),
    ("redb", &["provisioning/catalog", "node/index"]),
    ("io-uring", &["drivers/", "hwtests/"]),
    ("libc", &["drivers/", "hwtests/"]),
];

/// Checks the manifests.
#[must_use]
pub fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for own in crates {
        let mut say = |what: String| findings.push(Finding::new(&format!("{}/Cargo.toml", own.place()), 0, &what));
        let folder = own.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if own.name != folder && own.name != format!("hf-{folder}") {
            say(format!("the package {} lives in a folder {folder}", own.name));
        }
        if !own.workspace_lints {
            say("the workspace's lints are not taken".to_owned());
        }
        if !ROOMS.contains(&own.room.as_str()) {
            say(format!("{} is no room", own.room));
        } else if position(own).is_none() && !APART.contains(&own.place().as_str()) {
            say("the crate has no line in tidy's ORDER".to_owned());
        }
        for other in crates.iter().filter(|other| own.dependencies.contains(&other.name)) {
            if let Some(why) = forbidden(own, other) {
                say(format!("{} imports {}: {why}", own.name, other.name));
            }
        }
        for (foreign, places) in STOPS_AT {
            let uses = own.dependencies.contains(foreign);
            if uses && !places.iter().any(|place| own.place().starts_with(place)) {
                say(format!("{foreign} stops at {}", places.join(" and ")));
            }
        }
        if PURE.contains(&own.name.as_str()) && own.dependencies.contains("tokio") {
            say(format!("{} is pure and needs no tokio", own.name));
        }
    }
    findings
}

/// Why `own` may not be built from `other`.
fn forbidden(own: &Crate, other: &Crate) -> Option<String> {
    let room = |of: &Crate| ROOMS.iter().position(|room| *room == of.room);
    if room(own) < room(other) {
        return Some(format!("{} comes before {}", own.room, other.room));
    }
    if let (Some(own_at), Some(other_at)) = (position(own), position(other))
        && own_at <= other_at
    {
        return Some("it comes later in LAYOUT's order".to_owned());
    }
    let never = NEVER.iter().find(|(a, b, _)| *a == own.name && b.contains(&other.name.as_str()));
    if let Some((_, _, why)) = never {
        return Some((*why).to_owned());
    }
    if own.room == "provisioning" && other.room == "node" {
        let excepted = PROVISIONING_FROM_NODE.iter().any(|(a, b, _)| *a == own.name && *b == other.name);
        if !excepted && !PROVISIONING_FROM_NODE_ALL.contains(&other.name.as_str()) {
            return Some("provisioning takes wire and placement from node".to_owned());
        }
    }
    let composes = ROOTS.contains(&own.name.as_str()) || own.room == "hwtests" || own.room == "drivers";
    if CONCRETE_DRIVERS.contains(&other.name.as_str()) && !composes {
        return Some("only a composition root names a concrete driver".to_owned());
    }
    None
}

fn position(own: &Crate) -> Option<usize> {
    ORDER.iter().position(|place| *place == own.place())
}
