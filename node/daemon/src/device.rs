//! One device, one thread: claims it, formats it when it is new, recovers its store and serves it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use base::{Clock, ClusterId, DeviceId, Entropy};
use disk::{BlockDevice, DeviceFacts, DeviceKind, DiskError};
use format::{FormatError, Label};
use shards::{FormatOptions, RecoveryReport, Store, StoreError, StoreHandle, identify};
use thiserror::Error;
use tokio::sync::oneshot;
use uring::{OpenOptions, UringDevice};

/// A device to be opened.
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of the sparse file to make when nothing is there; `None` for what has to be there.
    pub create_bytes: Option<u64>,
}

/// Why a device cannot be used.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// It holds something else.
    #[error("{path}: {}; it is not touched (claim it to take it over, which destroys what is on it)", reasons.join("; "))]
    Objected {
        /// Where.
        path: String,
        /// What speaks against it.
        reasons: Vec<String>,
    },
    /// It is in use: claiming does not help.
    #[error("{path}: {}; it is not touched", reasons.join("; "))]
    InUse {
        /// Where.
        path: String,
        /// Who uses it.
        reasons: Vec<String>,
    },
    /// It belongs to another cluster.
    #[error("{path}: belongs to cluster {cluster}, not to this one; it is not touched (claim it to take it over)")]
    OtherCluster {
        /// Where.
        path: String,
        /// Whose it is.
        cluster: ClusterId,
    },
    /// It was one of ours and carries no label any more.
    #[error("{path}: carries no label of this cluster (blank, replaced or overwritten)")]
    Blank {
        /// Where.
        path: String,
    },
    /// It cannot be opened or read.
    #[error("{path}: {source}")]
    Disk {
        /// Where.
        path: String,
        /// Why.
        source: DiskError,
    },
    /// What is on it cannot be told.
    #[error("{path}: {reason}")]
    Unknown {
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
    /// Its store cannot be formatted or recovered.
    #[error("{path}: {source}")]
    Store {
        /// Where.
        path: String,
        /// Why.
        source: StoreError,
    },
    /// Its thread ended without a word.
    #[error("{path}: the device's thread ended early")]
    Ended {
        /// Where.
        path: String,
    },
}

/// What opening needs to know besides the device.
#[derive(Clone)]
pub(crate) struct OpenContext {
    pub(crate) cluster: ClusterId,
    /// Whether a device without a label may become one of ours: only at the first start.
    pub(crate) may_format: bool,
    /// Whether what is on a device may be destroyed.
    pub(crate) claim: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// A device being served.
pub(crate) struct OpenDevice {
    pub(crate) path: PathBuf,
    pub(crate) facts: DeviceFacts,
    pub(crate) label: Label,
    pub(crate) store: StoreHandle,
    pub(crate) report: RecoveryReport,
    pub(crate) thread: JoinHandle<()>,
}

type Opened = (DeviceFacts, Label, StoreHandle, RecoveryReport);

/// Starts the device's thread; returns when its store serves.
pub(crate) async fn open(spec: DeviceSpec, context: OpenContext) -> Result<OpenDevice, DeviceError> {
    let path = spec.path.clone();
    let (tell, told) = oneshot::channel();
    let name = path.file_name().map_or_else(|| "device".into(), |name| name.to_string_lossy().into_owned());
    let thread = std::thread::Builder::new()
        .name(format!("dev {name}"))
        .spawn(move || serve(&spec, &context, tell))
        .map_err(|e| DeviceError::Unknown { path: path.display().to_string(), reason: e.to_string() })?;
    let ended = || DeviceError::Ended { path: path.display().to_string() };
    let (facts, label, store, report) = told.await.map_err(|_| ended())??;
    Ok(OpenDevice { path, facts, label, store, report, thread })
}

fn serve(spec: &DeviceSpec, context: &OpenContext, tell: oneshot::Sender<Result<Opened, DeviceError>>) {
    let path = spec.path.display().to_string();
    if let Err(error) = ready_path(spec, context) {
        let _ = tell.send(Err(error));
        return;
    }
    let mut tell = Some(tell);
    let done =
        uring::run(&OpenOptions::new(&spec.path), async |device| match open_store(device, &path, context).await {
            Ok((facts, store)) => {
                let (label, report) = (store.label(), store.report().clone());
                let tell = tell.take();
                store
                    .serve(|handle| {
                        if let Some(tell) = tell {
                            let _ = tell.send(Ok((facts, label, handle, report)));
                        }
                    })
                    .await;
            }
            Err(error) => {
                if let Some(tell) = tell.take() {
                    let _ = tell.send(Err(error));
                }
            }
        });
    if let Err(source) = done {
        match tell.take() {
            Some(tell) => _ = tell.send(Err(DeviceError::Disk { path, source })),
            None => tracing::error!(path, error = %source, "the device's executor failed"),
        }
    }
}

/// Judges a device without changing anything: a new cluster takes all of its devices or touches none.
pub(crate) async fn check(spec: DeviceSpec, context: OpenContext) -> Result<(), DeviceError> {
    let path = spec.path.display().to_string();
    let judged = tokio::task::spawn_blocking(move || {
        if spec.create_bytes.is_some() && !spec.path.exists() {
            return Ok(());
        }
        refuse_in_use(&spec, &context)?;
        let path = spec.path.display().to_string();
        let options = OpenOptions { read_only: true, ..OpenOptions::new(&spec.path) };
        let judged = uring::run(&options, async |device| judge(&device, &path, &context).await.map(drop));
        judged.map_err(|source| DeviceError::Disk { path: spec.path.display().to_string(), source })?
    });
    judged.await.map_err(|_| DeviceError::Ended { path })?
}

/// Makes the file when it may; refuses what somebody uses before anything is opened for writing.
fn ready_path(spec: &DeviceSpec, context: &OpenContext) -> Result<(), DeviceError> {
    let path = spec.path.display().to_string();
    if let Some(size_bytes) = spec.create_bytes.filter(|_| context.may_format && !spec.path.exists()) {
        return uring::create_file(&spec.path, size_bytes).map_err(|source| DeviceError::Disk { path, source });
    }
    refuse_in_use(spec, context)
}

fn refuse_in_use(spec: &DeviceSpec, context: &OpenContext) -> Result<(), DeviceError> {
    let path = spec.path.display().to_string();
    if !is_block_device(&spec.path) {
        return Ok(());
    }
    let found = hotplug::inspect(&spec.path)
        .map_err(|error| DeviceError::Unknown { path: path.clone(), reason: error.to_string() })?;
    let reasons: Vec<String> = found.objections.iter().map(ToString::to_string).collect();
    if found.is_in_use() {
        return Err(DeviceError::InUse { path, reasons });
    }
    if !found.is_free() && !context.claim {
        return Err(DeviceError::Objected { path, reasons });
    }
    Ok(())
}

fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
}

/// What is to be done with a device.
enum Verdict {
    Ours,
    Format,
}

async fn judge(device: &UringDevice, path: &str, context: &OpenContext) -> Result<Verdict, DeviceError> {
    let path = || path.to_owned();
    match identify(device).await {
        Ok(label) if label.cluster == context.cluster => Ok(Verdict::Ours),
        Ok(label) if !(context.may_format && context.claim) => {
            Err(DeviceError::OtherCluster { path: path(), cluster: label.cluster })
        }
        Err(StoreError::Unusable(FormatError::Absent(_))) if !context.may_format => {
            Err(DeviceError::Blank { path: path() })
        }
        Ok(_) | Err(StoreError::Unusable(FormatError::Absent(_))) => {
            let facts = device.facts();
            if facts.kind == DeviceKind::File && !context.claim {
                refuse_foreign_file(facts).map_err(|reasons| DeviceError::Objected { path: path(), reasons })?;
            }
            Ok(Verdict::Format)
        }
        Err(source) => Err(DeviceError::Store { path: path(), source }),
    }
}

async fn open_store(
    device: UringDevice,
    path: &str,
    context: &OpenContext,
) -> Result<(DeviceFacts, Store<UringDevice>), DeviceError> {
    let failed = |source| DeviceError::Store { path: path.to_owned(), source };
    let facts = device.facts().clone();
    if let Verdict::Format = judge(&device, path, context).await? {
        let mut id = [0; 16];
        context.entropy.fill(&mut id);
        let options = FormatOptions {
            cluster: context.cluster,
            device: DeviceId(id),
            salt: context.entropy.next_u64() as u32,
            now_ms: context.clock.unix_ms(),
            extent_bytes: None,
        };
        Store::format(&device, &options).await.map_err(failed)?;
    }
    let store = Store::open(device, false).await.map_err(failed)?;
    Ok((facts, store))
}

/// A file named as a device may hold somebody's file system or disk image too.
fn refuse_foreign_file(facts: &DeviceFacts) -> Result<(), Vec<String>> {
    match hotplug::inspect(Path::new(&facts.path)) {
        Ok(found) => {
            // That it is open is our own doing.
            let reasons: Vec<String> =
                found.objections.iter().filter(|o| !o.is_in_use()).map(ToString::to_string).collect();
            if reasons.is_empty() { Ok(()) } else { Err(reasons) }
        }
        Err(error) => Err(vec![error.to_string()]),
    }
}
