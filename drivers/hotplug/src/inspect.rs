//! Everything that speaks against taking one device, without changing a byte of it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uring::sysfs::{self, BlockFacts};

use crate::usage::{self, Part};
use crate::{HEAD_BYTES, HotplugError, Objection, TAIL_BYTES, list, signatures};

/// What was found out about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Where it is, with all links followed.
    pub path: PathBuf,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What sysfs tells of it; empty for a file.
    pub facts: BlockFacts,
    /// Every reason not to take it; those of present use come first.
    pub objections: Vec<Objection>,
    /// The first and last bytes (see [`HEAD_BYTES`] and [`TAIL_BYTES`]) are all zero. Without this the device
    /// may still hold something that has no known signature.
    pub is_blank: bool,
}

impl Inspection {
    /// Whether nothing speaks against taking the device.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.objections.is_empty()
    }

    /// Whether somebody uses the device now.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.objections.iter().any(Objection::is_in_use)
    }
}

/// Finds out what is on the block device or file at `path`, and who uses it. Reads only.
///
/// # Errors
/// When it is neither, or cannot be opened or read: then nothing may be concluded.
pub fn inspect(path: &Path) -> Result<Inspection, HotplugError> {
    let path = &fs::canonicalize(path).map_err(HotplugError::os(path, "cannot be found"))?;
    let metadata = fs::metadata(path).map_err(HotplugError::os(path, "cannot be examined"))?;
    let is_block = metadata.file_type().is_block_device();
    if !is_block && !metadata.is_file() {
        return Err(HotplugError::NotADevice { path: path.clone() });
    }
    let (facts, mut objections) = if is_block { block_usage(metadata.rdev()) } else { file_usage(path) };
    let file = File::open(path).map_err(HotplugError::os(path, "cannot be opened"))?;
    if !objections.iter().any(Objection::is_in_use) && is_claimed(path, is_block)? {
        objections.push(Objection::OpenElsewhere);
    }
    let size_bytes = { &file }.seek(SeekFrom::End(0)).map_err(HotplugError::os(path, "has no end"))?;
    let head = read_part(&file, path, 0, size_bytes.min(HEAD_BYTES as u64))?;
    let tail_bytes = size_bytes.min(TAIL_BYTES as u64);
    let tail = read_part(&file, path, size_bytes - tail_bytes, tail_bytes)?;
    objections.extend(signatures(&head, &tail, size_bytes).into_iter().map(Objection::Holds));
    let is_blank = head.iter().chain(&tail).all(|b| *b == 0);
    Ok(Inspection { path: path.clone(), size_bytes, facts, objections, is_blank })
}

fn block_usage(number: u64) -> (BlockFacts, Vec<Objection>) {
    let Some(directory) = sysfs::directory_of(libc::major(number), libc::minor(number)) else {
        return (BlockFacts::default(), Vec::new());
    };
    let facts = sysfs::block_facts(&directory);
    let mut parts = vec![Part { name: facts.name.clone(), number, directory: directory.clone() }];
    for (name, directory) in list::partitions(&directory) {
        let number = sysfs::text(&directory.join("dev")).and_then(|text| {
            let (major, minor) = text.split_once(':')?;
            Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
        });
        parts.extend(number.map(|number| Part { name, number, directory }));
    }
    let mut objections = usage::mounts(&parts);
    objections.extend(usage::swaps(&parts));
    objections.extend(usage::holders(&parts));
    if parts.len() > 1 {
        objections.push(Objection::Partitions { names: parts[1..].iter().map(|p| p.name.clone()).collect() });
    }
    if facts.read_only == Some(true) {
        objections.push(Objection::ReadOnly);
    }
    (facts, objections)
}

fn file_usage(path: &Path) -> (BlockFacts, Vec<Objection>) {
    (BlockFacts::default(), usage::loops_on(path))
}

/// Whether somebody else has claimed the device in the way that we would.
fn is_claimed(path: &Path, is_block: bool) -> Result<bool, HotplugError> {
    let claim = if is_block { libc::O_EXCL } else { 0 };
    let file = match OpenOptions::new().read(true).custom_flags(claim).open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(true),
        Err(error) => return Err(HotplugError::os(path, "cannot be claimed")(error)),
    };
    if is_block {
        return Ok(false);
    }
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(HotplugError::os(path, "cannot be locked")(error)),
    }
}

fn read_part(file: &File, path: &Path, offset: u64, len: u64) -> Result<Vec<u8>, HotplugError> {
    // At most TAIL_BYTES, so it fits any usize.
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, offset).map_err(HotplugError::os(path, "cannot be read"))?;
    Ok(bytes)
}
