//! Raw block devices, as loop devices: needs root and /dev/loop-control, and says when it is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use disk::contract;
use disk::{BlockDevice, DeviceKind, DiskError};
use uring::{Engine, OpenOptions, create_file, run};

/// A loop device, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    /// None when this machine lets us have none.
    fn attach(file: &Path, sector_bytes: u32) -> Option<Self> {
        if !Path::new("/dev/loop-control").exists() {
            return None;
        }
        let sector = sector_bytes.to_string();
        let args = ["-f", "--show", "--direct-io=on", "--sector-size", &sector];
        let output = Command::new("losetup").args(args).arg(file).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| Self(PathBuf::from(text.trim())))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("-d").arg(&self.0).status();
        if !detached.is_ok_and(|s| s.success()) {
            eprintln!("{} could not be detached", self.0.display());
        }
    }
}

#[test]
fn loop_devices_keep_the_contract_and_have_one_owner() {
    for sector_bytes in [512, 4096] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = dir.path().join("backing");
        create_file(&file, 16 << 20).unwrap();
        let Some(device) = Loop::attach(&file, sector_bytes) else {
            eprintln!(
                "skipped: no loop device with {sector_bytes}-byte sectors to be had (not root, or no loop-control)"
            );
            continue;
        };
        for engine in [Engine::Ring, Engine::Blocking] {
            let options = OpenOptions { engine, ..OpenOptions::new(&device.0) };
            run(&options, |disk| {
                let options = &options;
                async move {
                    let facts = disk.facts().clone();
                    assert_eq!((facts.kind, facts.size_bytes), (DeviceKind::Block, 16 << 20));
                    assert_eq!((facts.sector_bytes, facts.read_align_bytes), (sector_bytes, sector_bytes));
                    assert!(!facts.engine.contains("buffered"), "{}", facts.engine);
                    contract::all(&disk).await;
                    let second = run(options, |_| async {}).unwrap_err();
                    assert!(matches!(&second, DiskError::Os { reason, .. } if reason.contains("owns it")), "{second}");
                }
            })
            .unwrap();
        }
    }
}
