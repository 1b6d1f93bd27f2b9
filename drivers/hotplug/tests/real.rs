//! Inspection of real files and devices, made with whatever tools this machine has; says what it skips.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use hotplug::{HotplugError, Objection, Signature, inspect, list_block_devices};

const SIZE_BYTES: u64 = 64 << 20;

fn blank() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("image");
    File::create_new(&path).unwrap().set_len(SIZE_BYTES).unwrap();
    (dir, path)
}

/// Runs a tool; false, with a word about it, when it is not installed.
fn tool(name: &str, args: &[&str], path: &Path) -> bool {
    match Command::new(name).args(args).arg(path).output() {
        Ok(output) => {
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(_) => {
            eprintln!("skipped: {name} is not installed");
            false
        }
    }
}

/// A loop device, detached when dropped; none when this machine lets us have none.
struct Loop(PathBuf);

impl Loop {
    fn attach(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            eprintln!("skipped: no loop device to be had");
            return None;
        }
        Some(Self(PathBuf::from(text.trim())))
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
fn a_blank_file_is_free_and_a_claimed_one_is_not() {
    let (_dir, path) = blank();
    let inspection = inspect(&path).unwrap();
    assert!(inspection.is_free() && inspection.is_blank, "{inspection:?}");
    assert_eq!(inspection.size_bytes, SIZE_BYTES);
    let owner = File::open(&path).unwrap();
    owner.lock().unwrap();
    assert_eq!(inspect(&path).unwrap().objections, [Objection::OpenElsewhere]);
    drop(owner);
    assert!(inspect(&path).unwrap().is_free());
}

#[test]
fn what_is_no_device_is_refused() {
    let (dir, _path) = blank();
    assert!(matches!(inspect(dir.path()), Err(HotplugError::NotADevice { .. })));
    assert!(matches!(inspect(Path::new("/dev/null")), Err(HotplugError::NotADevice { .. })));
    assert!(matches!(inspect(&dir.path().join("absent")), Err(HotplugError::Os { .. })));
}

#[test]
fn what_real_tools_make_is_found() {
    let made: [(&str, &[&str], Signature); 8] = [
        ("mkfs.ext4", &["-q", "-F"], Signature::FileSystem("ext4")),
        ("mkfs.ext3", &["-q", "-F"], Signature::FileSystem("ext3")),
        ("mkfs.ext2", &["-q", "-F"], Signature::FileSystem("ext2")),
        ("mkswap", &["-q"], Signature::Swap),
        ("mkfs.xfs", &["-q", "-f", "-d", "size=64m"], Signature::FileSystem("xfs")),
        ("mkfs.btrfs", &["-q", "-f", "--mixed"], Signature::FileSystem("btrfs")),
        ("mkfs.vfat", &[], Signature::FileSystem("FAT")),
        ("mkfs.exfat", &[], Signature::FileSystem("exFAT")),
    ];
    for (name, args, expected) in made {
        let (_dir, path) = blank();
        if tool(name, args, &path) {
            let inspection = inspect(&path).unwrap();
            assert_eq!(inspection.objections, [Objection::Holds(expected)], "{name}");
            assert!(!inspection.is_in_use() && !inspection.is_blank);
        }
    }
}

#[test]
fn a_mounted_device_says_where_and_its_backing_file_who_holds_it() {
    let (dir, path) = blank();
    if !tool("mkfs.ext4", &["-q", "-F"], &path) {
        return;
    }
    let Some(device) = Loop::attach(&path) else { return };
    let found = inspect(&device.0).unwrap();
    assert_eq!(found.objections, [Objection::Holds(Signature::FileSystem("ext4"))]);
    let on_file = inspect(&path).unwrap();
    assert!(on_file.objections[0].to_string().starts_with("is held by loop"), "{on_file:?}");

    let point = dir.path().join("a mount");
    std::fs::create_dir(&point).unwrap();
    let mounted = Command::new("mount").arg(&device.0).arg(&point).output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        return eprintln!("skipped: mounting is not allowed here");
    }
    let inspection = inspect(&device.0);
    let unmounted = Command::new("umount").arg(&point).status();
    assert!(unmounted.is_ok_and(|s| s.success()));
    let words: Vec<String> = inspection.unwrap().objections.iter().map(ToString::to_string).collect();
    let name = device.0.file_name().unwrap().to_str().unwrap();
    assert_eq!(words, [format!("is mounted at {} ({name})", point.display()), "holds an ext4 file system".to_owned()]);
}

#[test]
fn a_device_open_for_exclusive_use_is_seen() {
    use std::os::unix::fs::OpenOptionsExt;
    let (_dir, path) = blank();
    let Some(device) = Loop::attach(&path) else { return };
    assert!(inspect(&device.0).unwrap().is_free());
    let owner = File::options().read(true).custom_flags(libc::O_EXCL).open(&device.0).unwrap();
    assert_eq!(inspect(&device.0).unwrap().objections, [Objection::OpenElsewhere]);
    drop(owner);
    let listed = list_block_devices().unwrap();
    let ours = listed.iter().find(|d| d.path == device.0).expect("the loop device is listed");
    assert!(ours.is_virtual && ours.facts.size_bytes == Some(SIZE_BYTES));
}
