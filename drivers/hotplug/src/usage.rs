//! Who uses a device now: mounts, swap, and devices that stand on it.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::Objection;

/// A device or one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The kernel's name.
    pub(crate) name: String,
    /// The kernel's number, as `stat` gives it.
    pub(crate) number: u64,
    /// Its directory under `/sys`.
    pub(crate) directory: PathBuf,
}

/// One line of a mount table.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    number: u64,
    source: PathBuf,
    mount_point: PathBuf,
}

/// Mounts of any of `parts`, as this process sees them and as the first process does.
pub(crate) fn mounts(parts: &[Part]) -> Vec<Objection> {
    let mut found = Vec::new();
    for table in ["/proc/self/mountinfo", "/proc/1/mountinfo"] {
        // The second may be hidden from us; the first always exists.
        let text = fs::read(table).unwrap_or_default();
        for mount in text.split(|b| *b == b'\n').filter_map(parse_mount) {
            // Some file systems have a number of their own; their source then names the device.
            let by_source = block_number(&mount.source);
            let used = parts.iter().find(|p| p.number == mount.number || Some(p.number) == by_source);
            if let Some(part) = used {
                let objection = Objection::Mounted { name: part.name.clone(), mount_point: mount.mount_point };
                if !found.contains(&objection) {
                    found.push(objection);
                }
            }
        }
    }
    found
}

/// Swap areas on any of `parts`.
pub(crate) fn swaps(parts: &[Part]) -> Vec<Objection> {
    let text = fs::read("/proc/swaps").unwrap_or_default();
    let numbers = swap_paths(&text).into_iter().filter_map(|path| block_number(&path));
    let used = numbers.filter_map(|number| parts.iter().find(|p| p.number == number));
    used.map(|part| Objection::SwapInUse { name: part.name.clone() }).collect()
}

/// Devices that the kernel has put on any of `parts`.
pub(crate) fn holders(parts: &[Part]) -> Vec<Objection> {
    let mut found = Vec::new();
    for part in parts {
        let Ok(entries) = fs::read_dir(part.directory.join("holders")) else { continue };
        for entry in entries.flatten() {
            let holder = entry.file_name().to_string_lossy().into_owned();
            found.push(Objection::Held { name: part.name.clone(), holder });
        }
    }
    found
}

/// Loop devices that stand on the file at `path`.
pub(crate) fn loops_on(path: &Path) -> Vec<Objection> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let on_file = entries.flatten().filter(|entry| {
        let backing = fs::read(entry.path().join("loop/backing_file")).unwrap_or_default();
        Path::new(&os_string(backing.trim_ascii_end())) == path
    });
    let holder = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    on_file.map(|entry| Objection::Held { name: path.display().to_string(), holder: holder(entry) }).collect()
}

fn block_number(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    metadata.file_type().is_block_device().then(|| metadata.rdev())
}

/// Fields of a line: id, parent, major:minor, root, mount point, options, any number of tags, "-", type, source, ...
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    Some(Mount {
        number: libc::makedev(major.parse().ok()?, minor.parse().ok()?),
        source: unescape(fields.get(dash + 2)?),
        mount_point: unescape(fields.get(4)?),
    })
}

/// The first field of each line after the heading.
fn swap_paths(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|b| *b == b'\n').skip(1);
    let first = lines.filter_map(|line| line.split(|b| b.is_ascii_whitespace()).next());
    first.filter(|field| !field.is_empty()).map(unescape).collect()
}

/// Blanks, tabs, line ends and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(os_string(&out))
}

fn os_string(bytes: &[u8]) -> std::ffi::OsString {
    std::ffi::OsString::from_vec(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines_are_read_with_and_without_tags() {
        let mount = |number, source: &str, point: &str| Mount {
            number,
            source: PathBuf::from(source),
            mount_point: PathBuf::from(point),
        };
        let line = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        assert_eq!(parse_mount(line), Some(mount(libc::makedev(98, 0), "/dev/root", "/mnt2")));
        let line = b"36 35 0:44 / /mnt/a\\040b rw - btrfs /dev/sdb\\134 rw";
        assert_eq!(parse_mount(line), Some(mount(libc::makedev(0, 44), "/dev/sdb\\", "/mnt/a b")));
        for bad in [&b""[..], b"36 35", b"36 35 x:0 / / rw - a b c", b"1 2 3:4 / /mnt rw", b"1 2 3:4 / /mnt rw -"] {
            assert_eq!(parse_mount(bad), None);
        }
    }

    #[test]
    fn swap_lines_are_read_after_the_heading() {
        let text =
            b"Filename\tType\tSize\tUsed\tPriority\n/dev/sda2   partition\t1\t0\t-2\n/swap\\040file file 1 0 -3\n";
        assert_eq!(swap_paths(text), [PathBuf::from("/dev/sda2"), PathBuf::from("/swap file")]);
        assert_eq!(swap_paths(b"Filename Type\n"), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_broken_escape_is_kept_as_it_stands() {
        for (raw, plain) in [("a\\04", "a\\04"), ("\\", "\\"), ("\\999", "\\999"), ("\\134\\134", "\\\\")] {
            assert_eq!(unescape(raw.as_bytes()), PathBuf::from(plain));
        }
    }
}
