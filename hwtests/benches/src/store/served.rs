//! A store on its device's own thread, as the node runs it, and loads on either side of the handle: from another
//! thread, or on the device's thread beside the serving loop, which shows what the hop between threads costs.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use base::{Clock, ClusterId, DeviceId, OsClock};
use disk::{BlockDevice, DiskError, IO_ALIGN};
use futures::executor::block_on;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use shards::{FormatOptions, Store, StoreError, StoreHandle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::store::load::Payloads;

/// Where the load is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// On a thread of its own: how the node uses a store.
    Caller,
    /// On the device's thread.
    Device,
}

type Work = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// A store being served.
pub struct Served {
    handle: StoreHandle,
    work: UnboundedSender<Work>,
    thread: JoinHandle<Result<(), String>>,
}

impl Served {
    /// Formats the file and serves it.
    ///
    /// # Errors
    /// Why it cannot be served.
    pub fn start(path: &Path) -> Result<Self, String> {
        let (ready, handle) = mpsc::channel();
        let (work, orders) = unbounded_channel();
        let options = uring::OpenOptions::new(path);
        let thread = std::thread::spawn(move || serve(&options, ready, orders));
        match handle.recv() {
            Ok(handle) => Ok(Self { handle, work, thread }),
            // Why the thread ended says more than that it did.
            Err(_) => Err(ended(thread).err().unwrap_or_else(|| "the store was not served".to_owned())),
        }
    }

    /// The store.
    #[must_use]
    pub fn handle(&self) -> &StoreHandle {
        &self.handle
    }

    /// Runs a load to its end.
    ///
    /// # Errors
    /// The load's own.
    pub fn run<T, F>(&self, side: Side, load: impl FnOnce(StoreHandle) -> F + Send + 'static) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + 'static,
    {
        let handle = self.handle.clone();
        let done = match side {
            Side::Caller => block_on(load(handle)),
            Side::Device => {
                let (tell, told) = mpsc::channel();
                let work: Work = Box::new(move || {
                    Box::pin(async move {
                        // The other side waits for just this.
                        drop(tell.send(load(handle).await));
                    })
                });
                self.work.send(work).map_err(|_| StoreError::Closed.to_string())?;
                told.recv().unwrap_or(Err(StoreError::Closed))
            }
        };
        done.map_err(|error| error.to_string())
    }

    /// Closes the store and lets its file go.
    ///
    /// # Errors
    /// What the store said, or why its thread ended.
    pub fn close(self) -> Result<(), String> {
        let closed = block_on(self.handle.close()).map_err(|error| error.to_string());
        drop(self.work);
        ended(self.thread).and(closed)
    }
}

fn ended(thread: JoinHandle<Result<(), String>>) -> Result<(), String> {
    thread.join().unwrap_or_else(|_| Err("the store's thread panicked".to_owned()))
}

/// Owns the device on this thread until the store is closed.
fn serve(
    options: &uring::OpenOptions,
    ready: mpsc::Sender<StoreHandle>,
    mut orders: UnboundedReceiver<Work>,
) -> Result<(), String> {
    let format = format_options();
    let served = uring::run(options, |device| async move {
        Store::format(&device, &format).await?;
        let store = Store::open(device, false).await?;
        let serving = store.serve(move |handle| {
            // The other side waits for just this, unless it is gone.
            drop(ready.send(handle));
        });
        let working = async {
            while let Some(work) = orders.recv().await {
                work().await;
            }
        };
        futures::join!(serving, working);
        Ok::<(), StoreError>(())
    });
    served.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// A device of a cluster that exists only here.
#[must_use]
pub fn format_options() -> FormatOptions {
    FormatOptions {
        cluster: ClusterId([1; 16]),
        device: DeviceId([2; 16]),
        salt: std::process::id(),
        now_ms: OsClock::new().unix_ms(),
        extent_bytes: None,
    }
}

/// Makes a file of which every byte has been written: like a raw device, it then has no more to allocate.
///
/// # Errors
/// The disk's.
pub fn create_written(path: &Path, size_bytes: u64) -> Result<(), String> {
    let size_bytes = size_bytes.next_multiple_of(IO_ALIGN as u64);
    let fill = || {
        uring::create_file(path, size_bytes)?;
        uring::run(&uring::OpenOptions::new(path), |device| async move {
            let pieces = Payloads::new(1 << 20, 16);
            let mut writes = FuturesUnordered::new();
            for (number, offset) in (0u64..).zip((0..size_bytes).step_by(1 << 20)) {
                let len = (size_bytes - offset).min(1 << 20) as usize;
                writes.push(device.write(offset, vec![pieces.bytes(number).slice(0..len)]));
                if writes.len() == 16 {
                    writes.next().await.unwrap_or(Ok(()))?;
                }
            }
            while let Some(done) = writes.next().await {
                done?;
            }
            device.flush().await
        })?
    };
    fill().map_err(|error: DiskError| error.to_string())
}
