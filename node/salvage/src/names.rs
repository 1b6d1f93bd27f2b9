//! Keys as file names: nothing escapes the directory, and no two keys meet.
//!
//! `%` is always written `%25`, so that every other sequence with `%` in a name is ours: `%2E` for a dot that
//! would mean a directory, `%empty` for nothing, `%+` at the end of a piece of a component that is too long,
//! `%file` at the end of a key that other keys use as a directory.

use std::collections::BTreeSet;
use std::fmt;

use crate::survey::Name;

/// Bytes of a file name at most; file systems take 255, and a suffix needs room.
const COMPONENT_MAX_BYTES: usize = 200;

/// Where below the directory something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Objects.
    Objects,
    /// Uploads and puts whose completion cannot be proven.
    Uncertain,
    /// Objects of which bytes are missing.
    Incomplete,
}

/// A relative path of plain names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePath(Vec<String>);

impl SafePath {
    /// Its names, outermost first; none is empty, `.` or `..`, none holds `/` or NUL.
    #[must_use]
    pub fn components(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Gives keys their paths.
#[derive(Debug, Default)]
pub struct Names {
    keys: BTreeSet<Name>,
}

impl Names {
    /// For these buckets and keys: which of them are directories of others is known.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { keys: keys.into_iter().collect() }
    }

    /// The path of a key. `version` tells several of one key apart, in the rooms where that may be.
    #[must_use]
    pub fn path(&self, room: Room, bucket: &str, key: &str, version: Option<u128>) -> SafePath {
        let mut names: Vec<String> = match room {
            Room::Objects => vec![],
            Room::Uncertain => vec!["_uncertain".into()],
            Room::Incomplete => vec!["_incomplete".into()],
        };
        let mut bucket_name = component(bucket);
        // Ours are `_uncertain`, `_incomplete` and `manifest.jsonl`.
        if bucket_name.starts_with('_') || bucket_name == "manifest.jsonl" {
            let first = bucket_name.remove(0);
            bucket_name.insert_str(0, &format!("%{:02X}", first as u32));
        }
        push(&mut names, bucket_name);
        for part in key.split('/') {
            push(&mut names, component(part));
        }
        let last = names.last_mut().expect("a key has a component");
        match version {
            Some(version) => last.push_str(&format!("%version-{version:032x}")),
            None if self.is_directory(bucket, key) => last.push_str("%file"),
            None => {}
        }
        SafePath(names)
    }

    fn is_directory(&self, bucket: &str, key: &str) -> bool {
        let below = format!("{key}/");
        let next = self.keys.range((bucket.to_owned(), below.clone())..).next();
        next.is_some_and(|(b, k)| b == bucket && k.starts_with(&below))
    }
}

fn component(text: &str) -> String {
    match text {
        "" => return "%empty".into(),
        "." => return "%2E".into(),
        ".." => return "%2E%2E".into(),
        _ => {}
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '%' || c == '/' || c.is_control() {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|b| out.push_str(&format!("%{b:02X}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// Adds a component, in pieces when it is too long.
fn push(names: &mut Vec<String>, mut name: String) {
    while name.len() > COMPONENT_MAX_BYTES {
        let mut cut = COMPONENT_MAX_BYTES;
        while !name.is_char_boundary(cut) {
            cut -= 1;
        }
        // A cut inside `%XX` would be undone by joining, but "." alone must not be left over.
        let rest = name.split_off(cut);
        names.push(format!("{name}%+"));
        name = if rest.chars().all(|c| c == '.') { rest.replace('.', "%2E") } else { rest };
    }
    names.push(name);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn path(keys: &[&str], key: &str) -> String {
        let names = Names::new(keys.iter().map(|key| ("b".to_owned(), (*key).to_owned())));
        names.path(Room::Objects, "b", key, None).to_string()
    }

    #[test]
    fn awkward_keys_stay_inside_and_apart() {
        for (key, expected) in [
            ("a/b.txt", "b/a/b.txt"),
            ("../x", "b/%2E%2E/x"),
            ("/etc/passwd", "b/%empty/etc/passwd"),
            ("a//b/", "b/a/%empty/b/%empty"),
            ("nul\0", "b/nul%00"),
            ("50%", "b/50%25"),
            ("%2E%2E", "b/%252E%252E"),
            (".", "b/%2E"),
            ("...", "b/..."),
            ("ключ", "b/ключ"),
        ] {
            assert_eq!(path(&[key], key), expected, "{key:?}");
        }
        assert_eq!(path(&["a", "a/b"], "a"), "b/a%file");
        assert_eq!(path(&["a", "a/b"], "a/b"), "b/a/b");
        assert_eq!(path(&["a", "a-b", "a0"], "a"), "b/a");
    }

    #[test]
    fn buckets_do_not_meet_our_own_names() {
        let names = Names::default();
        assert_eq!(names.path(Room::Objects, "_uncertain", "k", None).to_string(), "%5Funcertain/k");
        assert_eq!(names.path(Room::Objects, "manifest.jsonl", "k", None).to_string(), "%6Danifest.jsonl/k");
        assert_eq!(names.path(Room::Objects, "..", "k", None).to_string(), "%2E%2E/k");
    }

    proptest! {
        #[test]
        fn no_two_keys_meet(keys in proptest::collection::btree_set("[a./%\\x00é+]{0,9}|[a.]{195,420}", 1..12)) {
            let names = Names::new(keys.iter().map(|key| ("b".to_owned(), key.clone())));
            let mut seen: BTreeMap<SafePath, &String> = BTreeMap::new();
            for key in &keys {
                let path = names.path(Room::Objects, "b", key, None);
                for name in path.components() {
                    prop_assert!(!name.is_empty() && name != "." && name != ".." && name.len() <= 255);
                    prop_assert!(!name.contains('/') && !name.contains('\0'));
                }
                prop_assert_eq!(seen.insert(path, key), None);
            }
            // No file is another's directory.
            let files: Vec<String> = seen.keys().map(ToString::to_string).collect();
            for a in &files {
                prop_assert!(!files.iter().any(|b| b.starts_with(&format!("{a}/"))), "{:?}", files);
            }
        }
    }
}
