//! The block devices that the kernel knows.

use std::fs;
use std::path::{Path, PathBuf};

use uring::sysfs::{self, BlockFacts};

use crate::HotplugError;

/// One whole device (never a partition) with a medium in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// Where it is opened.
    pub path: PathBuf,
    /// What sysfs tells of it.
    pub facts: BlockFacts,
    /// Kernel names of its partitions, sorted.
    pub partitions: Vec<String>,
    /// It has no hardware of its own: loop, RAM, device mapper, RAID and the like.
    pub is_virtual: bool,
}

/// All whole block devices of more than zero bytes, by name.
///
/// # Errors
/// When sysfs is not there.
pub fn list_block_devices() -> Result<Vec<ListedDevice>, HotplugError> {
    list_below(Path::new("/sys/block"))
}

fn list_below(root: &Path) -> Result<Vec<ListedDevice>, HotplugError> {
    let entries = fs::read_dir(root).map_err(HotplugError::os(root, "cannot be listed"))?;
    // A device that goes while we look has no directory any more, and is no device any more.
    let directories = entries.flatten().filter_map(|entry| fs::canonicalize(entry.path()).ok());
    let mut listed: Vec<ListedDevice> = directories.filter_map(|directory| listed(&directory)).collect();
    listed.sort_by(|a, b| a.facts.name.cmp(&b.facts.name));
    Ok(listed)
}

fn listed(directory: &Path) -> Option<ListedDevice> {
    let facts = sysfs::block_facts(directory);
    // An empty card reader, or a loop device without a file.
    facts.size_bytes.filter(|size| *size > 0)?;
    Some(ListedDevice {
        // The kernel writes "!" where a name has "/".
        path: Path::new("/dev").join(facts.name.replace('!', "/")),
        partitions: partitions(directory).into_iter().map(|(name, _)| name).collect(),
        is_virtual: directory.components().any(|c| c.as_os_str() == "virtual"),
        facts,
    })
}

/// Names and directories of the partitions of the device in `directory`, by name.
pub(crate) fn partitions(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let parts = entries.flatten().map(|e| e.path()).filter(|path| path.join("partition").exists());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut parts: Vec<(String, PathBuf)> = parts.map(|path| (name(&path), path)).collect();
    parts.sort();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_a_medium_are_listed_with_their_partitions() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("block/cciss!c0d0/size", "16\n");
        put("block/cciss!c0d0/c0d0p2/partition", "2\n");
        put("block/cciss!c0d0/c0d0p1/partition", "1\n");
        put("block/cciss!c0d0/queue/rotational", "0\n");
        put("block/sr0/size", "0\n");
        put("virtual/loop3/size", "8\n");
        std::os::unix::fs::symlink(root.path().join("virtual/loop3"), root.path().join("block/loop3")).unwrap();
        let listed = list_below(&root.path().join("block")).unwrap();
        let brief: Vec<_> = listed.iter().map(|d| (d.path.to_str().unwrap(), d.is_virtual)).collect();
        assert_eq!(brief, [("/dev/cciss/c0d0", false), ("/dev/loop3", true)]);
        assert_eq!(listed[0].partitions, ["c0d0p1", "c0d0p2"]);
        assert_eq!((listed[0].facts.size_bytes, listed[1].facts.size_bytes), (Some(8192), Some(4096)));
        assert!(list_below(&root.path().join("absent")).is_err());
    }
}
