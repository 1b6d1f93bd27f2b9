//! What the kernel's sysfs tells of a block device. Every fact may be absent: loop and virtual devices have few.

use std::fs;
use std::path::{Path, PathBuf};

/// Facts of one block device, as sysfs gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockFacts {
    /// The kernel's name, such as `nvme0n1` or `sda1`.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: Option<u64>,
    /// Logical sector size in bytes.
    pub sector_bytes: Option<u32>,
    /// Spinning medium.
    pub rotational: Option<bool>,
    /// Zoned medium, host-aware or host-managed.
    pub zoned: Option<bool>,
    /// A volatile cache stands between a write and the medium.
    pub volatile_cache: Option<bool>,
    /// The device can discard.
    pub discard: Option<bool>,
    /// Writes are refused.
    pub read_only: Option<bool>,
    /// The medium can be taken out.
    pub removable: Option<bool>,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World-wide name.
    pub wwn: Option<String>,
    /// Whether this is a partition of another device.
    pub is_partition: bool,
}

/// The sysfs directory of the block device numbered `major`:`minor`, when there is one.
#[must_use]
pub fn directory_of(major: u32, minor: u32) -> Option<PathBuf> {
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
}

/// The facts below `directory`, a device's (or partition's) directory under `/sys`.
#[must_use]
pub fn block_facts(directory: &Path) -> BlockFacts {
    let is_partition = directory.join("partition").exists();
    // A partition shares its disk's queue and identity.
    let disk = if is_partition { directory.parent().unwrap_or(directory) } else { directory };
    let queue = disk.join("queue");
    BlockFacts {
        name: directory.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        // Always in units of 512 bytes, whatever the sector size.
        size_bytes: number(&directory.join("size")).map(|sectors| sectors.saturating_mul(512)),
        sector_bytes: number(&queue.join("logical_block_size")).and_then(|n| u32::try_from(n).ok()),
        rotational: flag(&queue.join("rotational")),
        zoned: text(&queue.join("zoned")).map(|zoned| zoned != "none"),
        volatile_cache: text(&queue.join("write_cache")).map(|cache| cache == "write back"),
        discard: number(&queue.join("discard_max_bytes")).map(|max| max > 0),
        read_only: flag(&directory.join("ro")),
        removable: flag(&disk.join("removable")),
        model: text(&disk.join("device/model")),
        serial: text(&disk.join("device/serial")).or_else(|| text(&disk.join("serial"))),
        wwn: text(&disk.join("wwid")).or_else(|| text(&disk.join("device/wwid"))),
        is_partition,
    }
}

/// The trimmed contents of a small file; none when it is absent, unreadable or empty.
#[must_use]
pub fn text(path: &Path) -> Option<String> {
    let raw = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&raw).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
    (!text.is_empty()).then_some(text)
}

/// The number in a small file.
#[must_use]
pub fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

fn flag(path: &Path) -> Option<bool> {
    number(path).map(|n| n != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        root
    }

    #[test]
    fn a_disk_and_its_partition_share_queue_and_identity() {
        let root = tree(&[
            ("sda/size", "2000\n"),
            ("sda/queue/logical_block_size", "4096\n"),
            ("sda/queue/rotational", "1\n"),
            ("sda/queue/zoned", "none\n"),
            ("sda/queue/write_cache", "write back\n"),
            ("sda/queue/discard_max_bytes", "0\n"),
            ("sda/device/model", "DISK 9000     \n"),
            ("sda/sda1/size", "8\n"),
            ("sda/sda1/partition", "1\n"),
        ]);
        let disk = block_facts(&root.path().join("sda"));
        let part = block_facts(&root.path().join("sda/sda1"));
        assert_eq!((disk.size_bytes, part.size_bytes), (Some(1_024_000), Some(4096)));
        assert_eq!((disk.is_partition, part.is_partition), (false, true));
        for facts in [disk, part] {
            assert_eq!((facts.sector_bytes, facts.rotational, facts.zoned), (Some(4096), Some(true), Some(false)));
            assert_eq!((facts.volatile_cache, facts.discard), (Some(true), Some(false)));
            assert_eq!((facts.model.as_deref(), facts.serial), (Some("DISK 9000"), None));
        }
    }

    #[test]
    fn absence_and_nonsense_are_no_facts() {
        let root = tree(&[("x/size", "many\n"), ("x/device/serial", "  \n")]);
        let facts = block_facts(&root.path().join("x"));
        assert_eq!(facts, BlockFacts { name: "x".to_owned(), ..BlockFacts::default() });
    }
}
