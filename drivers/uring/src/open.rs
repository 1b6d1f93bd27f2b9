//! Opening: exclusive ownership, direct I/O where it is to be had, and the choice of the engine.

use std::fs::{File, OpenOptions as FileOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use disk::{DeviceFacts, DiskError, IO_ALIGN};

use crate::core::{Backend, Core};
use crate::errno::open_error;
use crate::facts;
use crate::ring::Ring;
use crate::unpark::Unpark;

/// Operations in the kernel at once unless told otherwise: deeper than what NVMe devices gain from, and one page of
/// entries.
const QUEUE_DEPTH: u32 = 256;
/// The deepest queue accepted; the kernel's own limit is 32,768 entries, and one is ours.
const QUEUE_DEPTH_MAX: u32 = 16_384;

/// How operations reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// io_uring, or blocking calls where the kernel refuses it.
    #[default]
    Auto,
    /// io_uring or nothing.
    Ring,
    /// Blocking calls on the device's own thread.
    Blocking,
}

/// How long a claim is tried again: the kernel takes the ring of a killed process apart some time after the process is
/// gone, and until then it still owns the device. A live owner is not outwaited by this.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two tries.
const CLAIM_PAUSE: Duration = Duration::from_millis(10);

/// What to open, and how.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// A block device or a file.
    pub path: PathBuf,
    /// Refuse writes, flushes and discards; files are then shared with other readers.
    pub read_only: bool,
    /// How operations reach the kernel.
    pub engine: Engine,
    /// Operations in the kernel at once, from 1 to 16,384.
    pub queue_depth: u32,
    /// Use only this many bytes from the start; the whole device when absent.
    pub size_bytes: Option<u64>,
}

impl OpenOptions {
    /// The whole of `path`, for reading and writing, by the best engine there is.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read_only: false, engine: Engine::Auto, queue_depth: QUEUE_DEPTH, size_bytes: None }
    }
}

/// Creates a sparse file of `size_bytes` to stand in for a device. An existing file is left alone.
///
/// # Errors
/// When the path exists, or the file cannot be created or made that long.
pub fn create_file(path: &Path, size_bytes: u64) -> Result<(), DiskError> {
    let shown = path.display().to_string();
    let create = || {
        let file = FileOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // On failure nothing half-made is left to be taken for a device.
        file.set_len(size_bytes).and_then(|()| file.sync_all()).inspect_err(|_| drop(std::fs::remove_file(path)))?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    };
    create().map_err(|e| open_error(&shown, "cannot be created", &e))
}

/// A device ready to be driven.
pub(crate) struct Opened {
    pub(crate) core: Core,
    pub(crate) facts: DeviceFacts,
}

/// Opens and claims the device; the ring is bound to the current thread.
pub(crate) fn open(options: &OpenOptions, unpark: &Unpark) -> Result<Opened, DiskError> {
    let path = options.path.display().to_string();
    let failed = |what: &str| {
        let what = what.to_owned();
        let path = path.clone();
        move |error: io::Error| open_error(&path, &what, &error)
    };
    if options.queue_depth == 0 || options.queue_depth > QUEUE_DEPTH_MAX {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(failed(&format!("a queue depth of {} is outside 1..={QUEUE_DEPTH_MAX}", options.queue_depth))(
            error,
        ));
    }
    let kind = std::fs::metadata(&options.path).map_err(failed("cannot be opened"))?.file_type();
    let is_block = kind.is_block_device();
    if !is_block && !kind.is_file() {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(failed("is neither a block device nor a file")(error));
    }
    let (file, direct) = open_patiently(options, is_block).map_err(failed("cannot be opened"))?;
    let mut facts =
        facts::gather(&file, &path, is_block, direct, options.size_bytes).map_err(failed("cannot be used"))?;
    let backend = backend(options, &file, unpark).map_err(failed("io_uring is refused"))?;
    facts.engine = match (matches!(backend, Backend::Ring(_)), direct) {
        (true, true) => "io_uring",
        (true, false) => "io_uring, buffered",
        (false, true) => "blocking",
        (false, false) => "blocking, buffered",
    };
    tracing::debug!(path, engine = facts.engine, size_bytes = facts.size_bytes, "device opened");
    let read_align = facts.read_align_bytes as usize;
    let (zones, depth) = (facts.zones, options.queue_depth);
    Ok(Opened { core: Core::new(backend, file, is_block, read_align, zones, depth), facts })
}

/// As [`open_claimed`], for as long as the patience lasts.
fn open_patiently(options: &OpenOptions, is_block: bool) -> io::Result<(File, bool)> {
    let mut waited = Duration::ZERO;
    loop {
        match open_claimed(options, is_block) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && waited < CLAIM_PATIENCE => {
                std::thread::sleep(CLAIM_PAUSE);
                waited += CLAIM_PAUSE;
            }
            other => return other,
        }
    }
}

/// Opens for this process alone; whether I/O is direct comes with the file.
fn open_claimed(options: &OpenOptions, is_block: bool) -> io::Result<(File, bool)> {
    let claim = if is_block { libc::O_EXCL } else { 0 };
    let attempt = |flags| {
        let write = !options.read_only;
        FileOptions::new().read(true).write(write).custom_flags(flags | claim).open(&options.path)
    };
    let (file, direct) = match attempt(libc::O_DIRECT) {
        Ok(file) if is_block || accepts_our_alignment(&file) => (file, true),
        // A file system without direct I/O, or with coarser alignment than ours.
        Ok(_) => (attempt(0)?, false),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !is_block => (attempt(0)?, false),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && is_block => return Err(owned_elsewhere()),
        Err(error) => return Err(error),
    };
    if !is_block {
        let locked = if options.read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(owned_elsewhere()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok((file, direct))
}

fn owned_elsewhere() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another process owns it, or it is mounted")
}

/// Reads the first page: a file system that took `O_DIRECT` may still refuse requests of our alignment.
fn accepts_our_alignment(file: &File) -> bool {
    use std::os::unix::fs::FileExt;
    let mut page = disk::AlignedBuf::zeroed(IO_ALIGN);
    !matches!(file.read_at(&mut page, 0), Err(error) if error.raw_os_error() == Some(libc::EINVAL))
}

fn backend(options: &OpenOptions, file: &File, unpark: &Unpark) -> io::Result<Backend> {
    if options.engine == Engine::Blocking {
        return Ok(Backend::Blocking);
    }
    match Ring::new(options.queue_depth, file.as_raw_fd(), unpark.raw_fd()) {
        Ok(ring) => Ok(Backend::Ring(ring)),
        Err(error) if options.engine == Engine::Auto && is_refusal(&error) => {
            tracing::warn!(path = %options.path.display(), %error, "io_uring is refused; using blocking calls");
            Ok(Backend::Blocking)
        }
        Err(error) => Err(error),
    }
}

/// No io_uring in the kernel, or forbidden by sysctl or seccomp, or no locked memory left for it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::ENOMEM | libc::EINVAL))
}
