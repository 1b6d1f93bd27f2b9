//! Objects put through the real object layer on file-backed devices, then verified and rebuilt by the
//! command from what is left of them: any four of six devices, no catalog, no service.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::JoinHandle;

use base::{ClusterId, DeviceId, OsClock, OsEntropy};
use bytes::Bytes;
use md5::{Digest, Md5};
use object::api::{Body, BodyDigest, BodyError, Condition, ObjectApi, ObjectMeta};
use object::{ObjectStore, OpenConfig, Redundancy};
use serde_json::Value;
use shards::{FormatOptions, Store, StoreHandle};
use tokio::sync::oneshot;

const DEVICES: u8 = 6;
const DEVICE_BYTES: u64 = 512 << 20;
const MIB: usize = 1 << 20;

struct Piece(Option<Vec<u8>>, [u8; 16]);

impl Body for Piece {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        self.0.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(bytes.into()))
    }

    fn size_hint(&self) -> Option<u64> {
        None
    }

    fn finish(&mut self) -> Result<BodyDigest, BodyError> {
        Ok(BodyDigest { md5: self.1, checksum: None })
    }
}

fn body(bytes: &[u8]) -> Piece {
    Piece(Some(bytes.to_vec()), Md5::digest(bytes).into())
}

/// Bytes that no other seed gives.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut out: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| step()).collect();
    out.truncate(len);
    out
}

struct Rack {
    objects: ObjectStore,
    stores: Vec<StoreHandle>,
    threads: Vec<JoinHandle<()>>,
    /// What must come back.
    expected: BTreeMap<String, Vec<u8>>,
}

fn device_path(dir: &Path, number: u8) -> PathBuf {
    dir.join(format!("{number:02}.img"))
}

async fn serve_new(path: PathBuf, number: u8) -> (StoreHandle, JoinHandle<()>) {
    uring::create_file(&path, DEVICE_BYTES).unwrap();
    let (tell, told) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        uring::run(&uring::OpenOptions::new(&path), async |device| {
            let options = FormatOptions {
                cluster: ClusterId([7; 16]),
                device: DeviceId([number + 1; 16]),
                salt: 1000 + u32::from(number),
                now_ms: 1_700_000_000_000,
                extent_bytes: None,
            };
            Store::format(&device, &options).await.unwrap();
            let store = Store::open(device, false).await.unwrap();
            store.serve(|handle| drop(tell.send(handle))).await;
        })
        .unwrap();
    });
    (told.await.unwrap(), thread)
}

impl Rack {
    async fn new(dir: &Path) -> Self {
        let (mut stores, mut threads) = (Vec::new(), Vec::new());
        for number in 0..DEVICES {
            let (store, thread) = serve_new(device_path(dir, number), number).await;
            stores.push(store);
            threads.push(thread);
        }
        let config = OpenConfig {
            stores: stores.iter().cloned().map(Some).collect(),
            redundancy: Redundancy::new(4, 2),
            memory_bytes: 256 * MIB,
            view_cache_bytes: 4 * MIB,
            clock: Arc::new(OsClock::new()),
            entropy: Arc::new(OsEntropy),
        };
        let objects = ObjectStore::open(config).await.unwrap();
        objects.create_bucket("b", "me", "here").await.unwrap();
        Self { objects, stores, threads, expected: BTreeMap::new() }
    }

    async fn put(&mut self, key: &str, data: Vec<u8>) {
        let (meta, condition) = (ObjectMeta::default(), Condition::default());
        self.objects.put("b", key, meta, condition, &mut body(&data)).await.unwrap();
        self.expected.insert(key.to_owned(), data);
    }

    async fn delete(&mut self, key: &str) {
        self.objects.delete("b", key, Condition::default()).await.unwrap();
        self.expected.remove(key);
    }

    async fn upload(&self, key: &str, parts: &[&[u8]]) -> (u128, Vec<(u32, [u8; 16])>) {
        let upload = self.objects.create_upload("b", key, "me", ObjectMeta::default(), None).await.unwrap();
        let mut named = Vec::new();
        for (number, part) in (1u32..).zip(parts) {
            let info = self.objects.put_part("b", key, upload, number, &mut body(part)).await.unwrap();
            named.push((number, info.md5));
        }
        (upload, named)
    }

    async fn multipart(&mut self, key: &str, parts: &[&[u8]]) {
        let (upload, named) = self.upload(key, parts).await;
        self.objects.complete_upload("b", key, upload, named, None, Condition::default()).await.unwrap();
        self.expected.insert(key.to_owned(), parts.concat());
    }

    /// Small, large, packed, multipart, replaced, deleted and awkwardly named objects.
    async fn fill(&mut self) {
        for n in 0..40 {
            self.put(&format!("packed/{n}"), bytes(100 + n, 3000 + n as usize)).await;
        }
        self.multipart("multi packed tail", &[&bytes(1, 5 * MIB + 11), &bytes(2, 700)]).await;
        assert!(self.objects.pack(true).await.unwrap().is_some());
        self.put("small", bytes(3, 10)).await;
        self.put("empty", Vec::new()).await;
        self.put("medium", bytes(4, 300_000)).await;
        self.put("large", bytes(5, 9 * MIB + 123)).await;
        self.put("whole stripes", bytes(6, 8 * MIB)).await;
        self.multipart("multi", &[&bytes(7, 6 * MIB), &bytes(8, 5 * MIB), &bytes(9, 90)]).await;
        self.put("grows", bytes(10, 100)).await;
        self.put("grows", bytes(11, 5 * MIB)).await;
        self.put("shrinks", bytes(12, 5 * MIB)).await;
        self.put("shrinks", bytes(13, 100)).await;
        self.put("gone small", bytes(14, 100)).await;
        self.delete("gone small").await;
        self.put("gone large", bytes(15, 2 * MIB)).await;
        self.delete("gone large").await;
        self.put("packed/7", bytes(16, 55)).await;
        self.delete("packed/8").await;
        let long = "long/".to_owned() + &"x".repeat(1000);
        for (n, key) in
            ["../escape", "/absolute", "a", "a/b", "a//b", "nul\0", "%2E%2E/x", "..", &long].iter().enumerate()
        {
            self.put(key, bytes(30 + n as u64, 200 + n)).await;
        }
    }

    async fn close(self) {
        // Closed before by some.
        let _ = self.objects.close().await;
        drop(self.objects);
        for store in &self.stores {
            store.close().await.unwrap();
        }
        drop(self.stores);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn holdfast(line: &[&str], devices: &[PathBuf]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(line).args(devices).output().expect("the binary starts")
}

fn json(output: &Output, code: i32) -> Value {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{error}");
    serde_json::from_str(&out).unwrap()
}

fn all(dir: &Path) -> Vec<PathBuf> {
    (0..DEVICES).map(|number| device_path(dir, number)).collect()
}

/// Copies what is not a hole.
fn copy_sparse(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    to.set_len(DEVICE_BYTES).unwrap();
    let mut window = vec![0; MIB];
    for at in (0..DEVICE_BYTES).step_by(MIB) {
        from.read_exact_at(&mut window, at).unwrap();
        if window.iter().any(|byte| *byte != 0) {
            to.write_all_at(&window, at).unwrap();
        }
    }
}

/// Salvages and gives the summary and the manifest.
fn salvage(out: &Path, devices: &[PathBuf], code: i32) -> (Value, Vec<Value>) {
    let output = holdfast(&["salvage", "-o", "json", "--out", out.to_str().unwrap()], devices);
    let summary = json(&output, code);
    let manifest = fs::read_to_string(out.join("manifest.jsonl")).unwrap();
    (summary, manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Every expected object is there, byte for byte, and no other is.
fn compare(out: &Path, manifest: &[Value], expected: &BTreeMap<String, Vec<u8>>) {
    let mut whole = BTreeMap::new();
    for entry in manifest.iter().filter(|entry| entry["state"] == "whole") {
        let path = out.join(entry["path"].as_str().unwrap());
        assert!(path.canonicalize().unwrap().starts_with(out.canonicalize().unwrap()), "{entry}");
        whole.insert(entry["key"].as_str().unwrap().to_owned(), fs::read(path).unwrap());
    }
    let (found, wanted): (Vec<_>, Vec<_>) = (whole.keys().collect(), expected.keys().collect());
    assert_eq!(found, wanted);
    for (key, data) in expected {
        assert!(whole[key] == *data, "{key:?} came back with other bytes");
    }
}

/// Where the one uncertain object lies.
fn uncertain_path(manifest: &[Value]) -> &str {
    let entry = manifest.iter().find(|entry| entry["state"] == "uncertain").unwrap();
    entry["path"].as_str().unwrap()
}

fn states<'a>(manifest: &'a [Value], state: &str) -> Vec<&'a str> {
    manifest.iter().filter(|entry| entry["state"] == state).map(|entry| entry["key"].as_str().unwrap()).collect()
}

/// Changes one byte of the place where `needle` lies; gives whether it was found.
fn damage(dir: &Path, needle: &[u8]) -> bool {
    for path in all(dir) {
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut window = vec![0; 16 * MIB];
        for at in (0..192u64 << 20).step_by(16 * MIB) {
            let read = file.read_at(&mut window, at).unwrap();
            // Shards of this size begin at whole blocks.
            let hit = window[..read].chunks(4096).position(|block| block.starts_with(needle));
            if let Some(block) = hit {
                let place = at + block as u64 * 4096 + 5;
                file.write_all_at(&[!needle[5]], place).unwrap();
                return true;
            }
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_four_of_six_devices_give_every_object_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut rack = Rack::new(dir.path()).await;
    rack.fill().await;
    let busy = holdfast(&["fsck"], &all(dir.path()));
    assert_eq!(busy.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&busy.stderr).contains("in use by another process"));
    let expected = rack.expected.clone();
    rack.close().await;

    let report = json(&holdfast(&["fsck", "-o", "json"], &all(dir.path())), 0);
    assert_eq!((&report["clean"], report["devices"].as_array().unwrap().len()), (&Value::Bool(true), 6));
    assert_eq!(report["stripes"]["complete"], report["stripes"]["stripes"]);
    for (a, b) in (0..6).flat_map(|a| (a + 1..6).map(move |b| (a, b))) {
        let devices: Vec<PathBuf> = (0..6).filter(|n| *n != a && *n != b).map(|n| device_path(dir.path(), n)).collect();
        let out = dir.path().join(format!("without {a} {b}"));
        let (summary, manifest) = salvage(&out, &devices, 0);
        compare(&out, &manifest, &expected);
        assert_eq!(states(&manifest, "deleted"), ["gone large", "gone small", "packed/8"], "{summary}");
        assert_eq!((&summary["uncertain"], &summary["incomplete"]), (&0.into(), &0.into()), "{summary}");
    }
    let partial = json(&holdfast(&["fsck", "-o", "json"], &all(dir.path())[..4]), 3);
    assert!(partial["stripes"]["missing"]["2"].as_u64() > Some(5), "{partial}");
    assert_eq!(partial["stripes"]["unreadable"], 0);
    // Three devices are too few for stripes; what the journal has is there all the same.
    let out = dir.path().join("too few");
    let (summary, manifest) = salvage(&out, &all(dir.path())[..3], 3);
    assert!(
        states(&manifest, "incomplete").contains(&"large") && states(&manifest, "whole").contains(&"small"),
        "{summary}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_are_named_and_cost_no_more_than_they_must() {
    let dir = tempfile::tempdir().unwrap();
    let mut rack = Rack::new(dir.path()).await;
    rack.put("large", bytes(5, 9 * MIB)).await;
    rack.put("other", bytes(6, 3 * MIB)).await;
    let expected = rack.expected.clone();
    rack.close().await;
    let large = &expected["large"];

    assert!(damage(dir.path(), &large[..64]));
    let report = json(&holdfast(&["fsck", "-o", "json"], &all(dir.path())), 3);
    assert_eq!((&report["stripes"]["missing"]["1"], &report["stripes"]["unreadable"]), (&1.into(), &0.into()));
    let bad: u64 = report["devices"].as_array().unwrap().iter().map(|device| device["bad"].as_u64().unwrap()).sum();
    assert_eq!(bad, 1, "{report}");
    let (_, manifest) = salvage(&dir.path().join("one"), &all(dir.path()), 0);
    compare(&dir.path().join("one"), &manifest, &expected);

    assert!(damage(dir.path(), &large[MIB..MIB + 64]) && damage(dir.path(), &large[2 * MIB..2 * MIB + 64]));
    let report = json(&holdfast(&["fsck", "-o", "json"], &all(dir.path())), 3);
    assert_eq!(report["stripes"]["unreadable"], 1, "{report}");
    let out = dir.path().join("three");
    let (summary, manifest) = salvage(&out, &all(dir.path()), 3);
    assert_eq!(
        (states(&manifest, "whole"), states(&manifest, "incomplete")),
        (vec!["other"], vec!["large"]),
        "{summary}"
    );
    let entry = manifest.iter().find(|entry| entry["key"] == "large").unwrap();
    assert!(entry["notes"][0].as_str().unwrap().starts_with("bytes 0..4194304: stripe"), "{entry}");
    let holed = fs::read(out.join(entry["path"].as_str().unwrap())).unwrap();
    assert!(holed[..4 * MIB].iter().all(|byte| *byte == 0) && holed[4 * MIB..] == large[4 * MIB..]);
    let again = holdfast(&["salvage", "--out", out.to_str().unwrap()], &all(dir.path()));
    assert_eq!(again.status.code(), Some(1), "a directory that is not empty is refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_labels_foreign_files_and_stripes_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut rack = Rack::new(dir.path()).await;
    rack.put("large", bytes(5, 5 * MIB)).await;
    let expected = rack.expected.clone();
    rack.close().await;
    let first = OpenOptions::new().write(true).open(device_path(dir.path(), 0)).unwrap();
    first.write_all_at(&[0; 4096], 0).unwrap();
    let foreign = dir.path().join("foreign");
    File::create(&foreign).unwrap().set_len(DEVICE_BYTES).unwrap();
    let given = [all(dir.path()), vec![foreign, dir.path().join("absent")]].concat();
    let report = json(&holdfast(&["fsck", "-o", "json"], &given), 3);
    assert_eq!(report["devices"][0]["label_faults"][0], "first label copy: no device label here");
    assert_eq!(report["refused"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["stripes"]["complete"], 2);
    let out = dir.path().join("out");
    let (_, manifest) = salvage(&out, &given, 3);
    compare(&out, &manifest, &expected);

    let dump = holdfast(&["dump", "-o", "json", "--space", "stripe", "--limit", "1"], &all(dir.path()));
    let lines: Vec<Value> =
        String::from_utf8_lossy(&dump.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12, "a head and a record of each device");
    assert_eq!((&lines[1]["about"]["key"], &lines[1]["about"]["data_shards"]), (&"large".into(), &4.into()));
    let stripe = format!("{:016x}", lines[1]["id"].as_u64().unwrap());
    let dump = holdfast(&["dump", "--stripe", &stripe], &all(dir.path()));
    let shards = String::from_utf8_lossy(&dump.stdout).lines().filter(|line| line.starts_with("stripe ")).count();
    assert_eq!(shards, 6, "{}", String::from_utf8_lossy(&dump.stdout));
}

const CHILD: &str = "HOLDFAST_TEST_CHILD_DIR";

/// The process that the next test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is run, and killed, by another test"]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let mut rack = Rack::new(&dir).await;
    rack.fill().await;
    let (_, _) = rack.upload("never completed", &[&bytes(50, 5 * MIB), &bytes(51, 40)]).await;
    File::create(dir.join("ready")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_everything_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child"])
        .env(CHILD, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..600 {
        if dir.path().join("ready").exists() {
            break;
        }
        assert!(child.try_wait().unwrap().is_none(), "the child ended early");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(dir.path().join("ready").exists());
    // The same objects, from the same seeds.
    let model = tempfile::tempdir().unwrap();
    let mut rack = Rack::new(model.path()).await;
    rack.fill().await;
    let expected = rack.expected.clone();
    rack.close().await;

    json(&holdfast(&["fsck", "-o", "json"], &all(dir.path())), 0);
    let devices = [0, 1, 3, 4].map(|number| device_path(dir.path(), number));
    let out = dir.path().join("out");
    let (summary, manifest) = salvage(&out, &devices, 0);
    compare(&out, &manifest, &expected);
    assert_eq!(states(&manifest, "uncertain"), ["never completed"], "{summary}");
    let path = uncertain_path(&manifest);
    assert!(path.starts_with("_uncertain/b/never completed%version-"), "{path}");
    assert!(fs::read(out.join(path)).unwrap() == [bytes(50, 5 * MIB), bytes(51, 40)].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_journal_was_trimmed_the_index_helps_and_is_not_needed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rack = Rack::new(dir.path()).await;
    for n in 0..20 {
        rack.put(&format!("packed/{n}"), bytes(100 + n, 2000)).await;
    }
    rack.put("large", bytes(5, 5 * MIB)).await;
    rack.multipart("multi", &[&bytes(7, 6 * MIB), &bytes(8, 70)]).await;
    assert!(rack.objects.pack(true).await.unwrap().is_some());
    rack.delete("packed/3").await;
    // The journal keeps its newest record.
    rack.put("last", bytes(17, 100_000)).await;
    rack.objects.checkpoint().await.unwrap();
    let mut expected = rack.expected.clone();
    rack.objects.close().await.unwrap();
    for store in &rack.stores {
        store.checkpoint().await.unwrap();
    }
    // Images of the devices, as a person takes them before anything else.
    let images = tempfile::tempdir().unwrap();
    for number in 0..DEVICES {
        copy_sparse(&device_path(dir.path(), number), &device_path(images.path(), number));
    }
    let out = dir.path().join("with index");
    let (_, manifest) = salvage(&out, &all(images.path())[2..], 0);
    compare(&out, &manifest, &expected);
    assert_eq!(states(&manifest, "uncertain"), ["packed/3"], "a deleted object's bytes still lie in its pack");

    for store in &rack.stores {
        let mut index = store.list(None, usize::MAX).await.unwrap();
        index.retain(|info| info.key.space == format::Space::Region);
        store.delete(index.into_iter().map(|info| info.key).collect()).await.unwrap();
    }
    let multi = expected.remove("multi").unwrap();
    expected.insert("packed/3".into(), bytes(103, 2000));
    rack.close().await;
    let out = dir.path().join("without index");
    let (_, manifest) = salvage(&out, &all(dir.path())[2..], 0);
    compare(&out, &manifest, &expected);
    assert_eq!(states(&manifest, "uncertain"), ["multi"]);
    assert!(fs::read(out.join(uncertain_path(&manifest))).unwrap() == multi);
}
