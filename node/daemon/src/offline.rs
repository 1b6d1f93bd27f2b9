//! Devices at rest, or images of them, opened for reading only: nothing is ever written to them.
//!
//! One thread for each, as in a running node. Whose cluster a device belongs to is told, not judged. A
//! device that a running node owns is refused: its index would change under the reader.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use base::{ClusterId, DeviceId};
use disk::{AlignedBuf, BlockDevice, DiskError};
use format::{Geometry, Label};
use futures::future::join_all;
use shards::{RecoveryReport, Store, StoreError, StoreHandle};
use thiserror::Error;
use tokio::sync::oneshot;
use uring::{OpenOptions, UringDevice};

/// Why a device cannot be looked at.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// A running node has it.
    #[error("{path}: in use by another process (a running node, or mounted); stop it first, or take an image")]
    InUse {
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
    /// It holds no store that this program can read.
    #[error("{path}: {source}")]
    Store {
        /// Where.
        path: String,
        /// Why.
        source: StoreError,
    },
    /// Its thread cannot be had or ended without a word.
    #[error("{path}: its thread ended early: {reason}")]
    Ended {
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
}

/// A device open for reading.
pub struct OfflineDevice {
    /// Where it is.
    pub path: PathBuf,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its identifier.
    pub device: DeviceId,
    /// Its layout.
    pub geometry: Geometry,
    /// When it was formatted; milliseconds since 1970.
    pub created_ms: u64,
    /// What is wrong with each of the two label copies; `None` for a good one.
    pub label_faults: [Option<String>; 2],
    /// What recovery found.
    pub recovery: RecoveryReport,
    /// Its store.
    pub store: StoreHandle,
    thread: JoinHandle<()>,
}

struct Opened {
    label: Label,
    label_faults: [Option<String>; 2],
    recovery: RecoveryReport,
    store: StoreHandle,
}

type Tell = oneshot::Sender<Result<Opened, OfflineError>>;

/// Opens devices side by side; one answer for each path, in their order.
pub async fn open_offline(paths: &[PathBuf]) -> Vec<Result<OfflineDevice, OfflineError>> {
    join_all(paths.iter().map(|path| open(path))).await
}

impl OfflineDevice {
    /// Lets the device go.
    pub async fn close(self) {
        if let Err(error) = self.store.close().await {
            tracing::warn!(path = %self.path.display(), %error, "a device was not closed in order");
        }
        drop(self.store);
        let thread = self.thread;
        // The thread ends as soon as its store has closed.
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("a device's thread did not end in order");
        }
    }
}

async fn open(path: &Path) -> Result<OfflineDevice, OfflineError> {
    let shown = path.display().to_string();
    let ended = |reason: String| OfflineError::Ended { path: shown.clone(), reason };
    let (tell, told) = oneshot::channel();
    let at = path.to_owned();
    let name = path.file_name().map_or_else(|| "device".into(), |name| name.to_string_lossy().into_owned());
    let thread = std::thread::Builder::new()
        .name(format!("dev {name}"))
        .spawn(move || serve(&at, tell))
        .map_err(|error| ended(error.to_string()))?;
    let opened = told.await.map_err(|_| ended("it said nothing".into()))??;
    let Opened { label, label_faults, recovery, store } = opened;
    Ok(OfflineDevice {
        path: path.to_owned(),
        cluster: label.cluster,
        device: label.device,
        geometry: label.geometry,
        created_ms: label.created_ms,
        label_faults,
        recovery,
        store,
        thread,
    })
}

fn serve(path: &Path, tell: Tell) {
    let shown = path.display().to_string();
    let options = OpenOptions { read_only: true, ..OpenOptions::new(path) };
    let mut tell = Some(tell);
    let done = uring::run(&options, async |device| {
        let opened = look(device).await;
        let Some(tell) = tell.take() else { return };
        match opened {
            Ok((store, label_faults)) => {
                let (label, recovery) = (store.label(), store.report().clone());
                let ready = |store| drop(tell.send(Ok(Opened { label, label_faults, recovery, store })));
                store.serve(ready).await;
            }
            Err(source) => drop(tell.send(Err(OfflineError::Store { path: shown.clone(), source }))),
        }
    });
    if let Err(source) = done {
        let error = match &source {
            DiskError::Os { reason, .. } if reason.contains("another process owns it") => {
                OfflineError::InUse { path: shown.clone() }
            }
            _ => OfflineError::Disk { path: shown.clone(), source: source.clone() },
        };
        match tell.take() {
            Some(tell) => drop(tell.send(Err(error))),
            None => tracing::error!(%error, "the device's executor failed"),
        }
    }
}

/// Recovers the store and looks at both label copies.
async fn look(device: UringDevice) -> Result<(Store<UringDevice>, [Option<String>; 2]), StoreError> {
    let label = shards::identify(&device).await?;
    let mut faults = Vec::new();
    for offset in label.geometry.label_offsets() {
        faults.push(match device.read(offset, AlignedBuf::zeroed(Geometry::LABEL_BYTES)).await {
            Ok(bytes) => match Label::decode(&bytes) {
                Ok(copy) if copy == label => None,
                Ok(_) => Some("differs from the other copy".to_owned()),
                Err(error) => Some(error.to_string()),
            },
            Err(error) => Some(error.to_string()),
        });
    }
    // A zoned device has a place more than copies.
    if faults.len() > 2 {
        faults.sort_by_key(Option::is_some);
    }
    let mut faults = faults.into_iter().take(2);
    let faults = std::array::from_fn(|_| faults.next().flatten());
    Ok((Store::open(device, true).await?, faults))
}
