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
    /// Bytes of a zone.
    pub zone_bytes: Option<u64>,
    /// Zones that may be written in part at once; none for no limit.
    pub max_open_zones: Option<u32>,
    /// A volatile cache stands between a write and the medium.
    pub volatile_cache: Option<bool>,
    /// One write can be made durable without flushing the cache (FUA).
    pub fua: Option<bool>,
    /// Bytes of a write that happens whole or not at all, at most; none where nothing is promised.
    pub atomic_write_bytes: Option<u32>,
    /// The device has queues to poll for completions.
    pub polled: Option<bool>,
    /// The device can discard.
    pub discard: Option<bool>,
    /// What a discard is rounded inward to, in bytes.
    pub discard_granularity_bytes: Option<u32>,
    /// The character device for NVMe commands past the block layer.
    pub passthrough: Option<String>,
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
    let zoned = text(&queue.join("zoned")).map(|zoned| zoned != "none");
    let positive = |name: &str| number(&queue.join(name)).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    BlockFacts {
        name: directory.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        // Always in units of 512 bytes, whatever the sector size.
        size_bytes: number(&directory.join("size")).map(|sectors| sectors.saturating_mul(512)),
        sector_bytes: number(&queue.join("logical_block_size")).and_then(|n| u32::try_from(n).ok()),
        rotational: flag(&queue.join("rotational")),
        zoned,
        // The same file is the stripe size of devices without zones.
        zone_bytes: positive("chunk_sectors").filter(|_| zoned == Some(true)).map(|sectors| u64::from(sectors) * 512),
        // Zero means no limit. A zone that was written in part stays active when it is closed, so both count.
        max_open_zones: ["max_open_zones", "max_active_zones"].into_iter().filter_map(positive).min(),
        volatile_cache: text(&queue.join("write_cache")).map(|cache| cache == "write back"),
        fua: flag(&queue.join("fua")),
        atomic_write_bytes: positive("atomic_write_unit_max_bytes"),
        polled: flag(&queue.join("io_poll")),
        discard_granularity_bytes: positive("discard_granularity"),
        passthrough: if is_partition { None } else { passthrough(disk) },
        discard: number(&queue.join("discard_max_bytes")).map(|max| max > 0),
        read_only: flag(&directory.join("ro")),
        removable: flag(&disk.join("removable")),
        model: text(&disk.join("device/model")),
        serial: text(&disk.join("device/serial")).or_else(|| text(&disk.join("serial"))),
        wwn: text(&disk.join("wwid")).or_else(|| text(&disk.join("device/wwid"))),
        is_partition,
    }
}

/// The character device beside the NVMe namespace in `disk`: `ng0n1` beside `nvme0n1`.
fn passthrough(disk: &Path) -> Option<String> {
    let name = disk.file_name()?.to_str()?;
    let generic = format!("ng{}", name.strip_prefix("nvme")?);
    disk.join("device").join(&generic).exists().then(|| format!("/dev/{generic}"))
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
    fn what_a_queue_promises() {
        let root = tree(&[
            ("nvme0n1/queue/zoned", "host-managed"),
            ("nvme0n1/queue/chunk_sectors", "4096"),
            ("nvme0n1/queue/max_open_zones", "0"),
            ("nvme0n1/queue/max_active_zones", "14"),
            ("nvme0n1/queue/fua", "1"),
            ("nvme0n1/queue/io_poll", "0"),
            ("nvme0n1/queue/atomic_write_unit_max_bytes", "65536"),
            ("nvme0n1/queue/discard_granularity", "0"),
            ("nvme0n1/device/ng0n1/dev", "1:1"),
            ("nvme0n1/nvme0n1p1/partition", "1"),
            ("sdb/queue/chunk_sectors", "1024"),
            ("sdb/queue/zoned", "none"),
        ]);
        let facts = block_facts(&root.path().join("nvme0n1"));
        assert_eq!((facts.zoned, facts.zone_bytes, facts.max_open_zones), (Some(true), Some(2 << 20), Some(14)));
        assert_eq!((facts.fua, facts.polled, facts.atomic_write_bytes), (Some(true), Some(false), Some(65536)));
        assert_eq!((facts.discard_granularity_bytes, facts.passthrough.as_deref()), (None, Some("/dev/ng0n1")));
        assert_eq!(block_facts(&root.path().join("nvme0n1/nvme0n1p1")).passthrough, None);
        assert_eq!(block_facts(&root.path().join("sdb")).zone_bytes, None, "stripes are no zones");
    }

    #[test]
    fn absence_and_nonsense_are_no_facts() {
        let root = tree(&[("x/size", "many\n"), ("x/device/serial", "  \n")]);
        let facts = block_facts(&root.path().join("x"));
        assert_eq!(facts, BlockFacts { name: "x".to_owned(), ..BlockFacts::default() });
    }
}
