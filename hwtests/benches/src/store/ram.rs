//! A device of memory that is there only where it was written, and a store hosted on it on the calling thread.
//!
//! An operation takes effect at the call and finishes one poll later, so that the store's serving loop has its turn in
//! between. Nothing is ever lost: a crash is the end of the store, not of the device. What it shows is the store's own
//! cost, with the device's taken away.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use disk::{
    AlignedBuf, AlignedBytes, BlockDevice, DeviceFacts, DeviceKind, DiskError, DiskOp, DiskResult, MAX_WRITE_PARTS,
};
use futures::future::{Either, LocalBoxFuture, select};
use shards::{FormatOptions, RecoveryReport, Store, StoreError, StoreHandle, StoreResult};

/// Memory comes and goes in pieces of this many bytes: few enough to be cheap to look up.
const PIECE_BYTES: usize = 64 << 10;

/// The device. Clones are handles of the same memory.
#[derive(Clone)]
pub struct RamDevice {
    pieces: Rc<RefCell<Pieces>>,
    facts: Rc<DeviceFacts>,
}

struct Pieces {
    all: Vec<Option<Box<[u8]>>>,
    present: u64,
}

impl Pieces {
    /// Calls `each` with the memory from `offset` on, piece by piece; absent pieces are made when asked.
    fn walk(&mut self, offset: u64, len: usize, make: bool, mut each: impl FnMut(Option<&mut [u8]>, usize)) {
        let (mut at, end) = (offset as usize, offset as usize + len);
        while at < end {
            let (number, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let part = (PIECE_BYTES - from).min(end - at);
            let slot = &mut self.all[number];
            if make && slot.is_none() {
                *slot = Some(vec![0; PIECE_BYTES].into_boxed_slice());
                self.present += 1;
            }
            each(slot.as_mut().map(|piece| &mut piece[from..from + part]), part);
            at += part;
        }
    }
}

impl RamDevice {
    /// An empty device.
    #[must_use]
    pub fn new(size_bytes: u64) -> Self {
        let pieces = size_bytes.div_ceil(PIECE_BYTES as u64) as usize;
        let facts = DeviceFacts {
            kind: DeviceKind::Simulated,
            path: "memory".to_owned(),
            size_bytes,
            sector_bytes: 512,
            read_align_bytes: 512,
            rotational: false,
            zoned: false,
            zones: None,
            volatile_cache: Some(false),
            fua: None,
            atomic_write_bytes: None,
            polled: None,
            discard: true,
            discard_granularity_bytes: None,
            passthrough: None,
            model: None,
            serial: None,
            wwn: None,
            engine: "memory",
        };
        Self {
            pieces: Rc::new(RefCell::new(Pieces { all: (0..pieces).map(|_| None).collect(), present: 0 })),
            facts: Rc::new(facts),
        }
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.pieces.borrow().present * PIECE_BYTES as u64
    }

    fn check(&self, op: DiskOp, offset: u64, len: usize, align: u64) -> DiskResult<()> {
        let aligned = offset.is_multiple_of(align) && (len as u64).is_multiple_of(align) && len > 0;
        if aligned && offset.checked_add(len as u64).is_some_and(|end| end <= self.facts.size_bytes) {
            return Ok(());
        }
        Err(DiskError::Invalid { op, offset, len })
    }
}

impl BlockDevice for RamDevice {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read(&self, offset: u64, mut buf: AlignedBuf) -> impl Future<Output = DiskResult<AlignedBuf>> {
        let done = self.check(DiskOp::Read, offset, buf.len(), u64::from(self.facts.read_align_bytes));
        if done.is_ok() {
            let (len, mut at) = (buf.len(), 0);
            self.pieces.borrow_mut().walk(offset, len, false, |piece, part| {
                let out = &mut buf[at..at + part];
                match piece {
                    Some(piece) => out.copy_from_slice(piece),
                    None => out.fill(0),
                }
                at += part;
            });
        }
        async move {
            next_poll().await;
            done.map(|()| buf)
        }
    }

    fn write(&self, offset: u64, parts: Vec<AlignedBytes>) -> impl Future<Output = DiskResult<()>> {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut done = self.check(DiskOp::Write, offset, len, disk::IO_ALIGN as u64);
        if parts.len() > MAX_WRITE_PARTS || parts.iter().any(|part| !part.len().is_multiple_of(disk::IO_ALIGN)) {
            done = Err(DiskError::Invalid { op: DiskOp::Write, offset, len });
        }
        if done.is_ok() {
            let mut start = offset;
            for part in &parts {
                let mut at = 0;
                self.pieces.borrow_mut().walk(start, part.len(), true, |piece, len| {
                    piece.expect("made where it is absent").copy_from_slice(&part[at..at + len]);
                    at += len;
                });
                start += part.len() as u64;
            }
        }
        async move {
            next_poll().await;
            done
        }
    }

    async fn flush(&self) -> DiskResult<()> {
        next_poll().await;
        Ok(())
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> impl Future<Output = DiskResult<()>> {
        let done = self.check(DiskOp::Discard, offset, len_bytes as usize, disk::IO_ALIGN as u64);
        if done.is_ok() {
            let whole = offset.div_ceil(PIECE_BYTES as u64)..(offset + len_bytes) / PIECE_BYTES as u64;
            let mut pieces = self.pieces.borrow_mut();
            for number in whole {
                if pieces.all[number as usize].take().is_some() {
                    pieces.present -= 1;
                }
            }
        }
        async move { done }
    }
}

async fn next_poll() {
    let mut polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Drives a future that only memory and this thread can wake: when it waits for nothing that is under way, it hangs
/// for ever, and that is an error with a name.
///
/// # Errors
/// The hang.
pub fn drive<F: Future>(future: F) -> Result<F::Output, String> {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    while woken.0.swap(false, Ordering::Relaxed) {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
    }
    Err("the store hangs: nothing is under way that would wake what waits".to_owned())
}

/// A store that is served while a load runs, on the calling thread. Dropping it is a crash.
pub struct Hosted {
    handle: StoreHandle,
    serving: LocalBoxFuture<'static, ()>,
    /// What its recovery found.
    pub report: RecoveryReport,
}

impl Hosted {
    /// Formats a device.
    ///
    /// # Errors
    /// The store's.
    pub fn format(device: &RamDevice, options: &FormatOptions) -> Result<(), String> {
        drive(Store::format(device, options))?.map(drop).map_err(|error| error.to_string())
    }

    /// Opens the store of a device.
    ///
    /// # Errors
    /// The store's.
    pub fn open(device: &RamDevice) -> Result<Self, String> {
        let store = drive(Store::open(device.clone(), false))?.map_err(|error| error.to_string())?;
        let report = store.report().clone();
        let given = Rc::new(RefCell::new(None));
        let giving = Rc::clone(&given);
        let mut serving: LocalBoxFuture<'static, ()> =
            Box::pin(store.serve(move |handle| _ = giving.borrow_mut().insert(handle)));
        // The first poll gives the handle.
        let _ = drive(poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx))))?;
        let handle = given.borrow_mut().take().ok_or("the store was not served")?;
        Ok(Self { handle, serving, report })
    }

    /// Runs a load to its end, the store beside it.
    ///
    /// # Errors
    /// The load's own.
    pub fn run<T, F>(&mut self, load: impl FnOnce(StoreHandle) -> F) -> Result<T, String>
    where
        F: Future<Output = StoreResult<T>>,
    {
        let load = pin!(load(self.handle.clone()));
        let done = match drive(select(load, &mut self.serving))? {
            Either::Left((done, _)) => done,
            Either::Right(((), _)) => Err(StoreError::Closed),
        };
        done.map_err(|error| error.to_string())
    }

    /// Closes the store in good order.
    ///
    /// # Errors
    /// The store's.
    pub fn close(mut self) -> Result<(), String> {
        // The answer and the end come in the same poll; whichever is seen first, both are there.
        let handle = self.handle.clone();
        let closing = pin!(handle.close());
        let closed = match drive(select(closing, &mut self.serving))? {
            Either::Left((closed, _)) => closed,
            Either::Right(((), closing)) => drive(closing)?,
        };
        closed.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::load::{Order, Payloads, Records, Span, gets, puts};
    use crate::store::served::format_options;

    #[test]
    fn it_keeps_the_contract_of_a_device() {
        drive(disk::contract::all(&RamDevice::new(disk::contract::SIZE_BYTES_MIN + 4096))).expect("no hang");
    }

    #[test]
    fn memory_is_taken_where_it_was_written() {
        let device = RamDevice::new(1 << 40);
        let page = || vec![AlignedBuf::from_bytes(&[7; 4096]).freeze()];
        drive(device.write((1 << 39) - 4096, page())).expect("no hang").expect("written");
        drive(device.write(1 << 39, page())).expect("no hang").expect("written");
        assert_eq!(device.resident_bytes(), 2 * PIECE_BYTES as u64);
        drive(device.discard(1 << 39, PIECE_BYTES as u64)).expect("no hang").expect("discarded");
        assert_eq!(device.resident_bytes(), PIECE_BYTES as u64);
    }

    #[test]
    fn a_hang_is_an_error() {
        assert!(drive(std::future::pending::<()>()).is_err());
        assert_eq!(drive(next_poll()), Ok(()));
    }

    #[test]
    fn records_outlive_a_crash_and_a_close() {
        let device = RamDevice::new(512 << 20);
        let records = Records { slot: 0, count: 500, payloads: Payloads::new(100, 16) };
        Hosted::format(&device, &format_options()).expect("formatted");
        let mut store = Hosted::open(&device).expect("opened");
        let put = |store, from, ops| {
            let records = records.clone();
            async move { puts(&store, &records, Order::From(from), Span::ops(16, ops)).await }
        };
        store.run(|store| put(store, 0, 400)).expect("put");
        drop(store);
        let mut store = Hosted::open(&device).expect("opened after a crash");
        assert_eq!(store.report.rolled_forward, 400);
        store.run(|store| put(store, 400, 100)).expect("put");
        store.close().expect("closed");
        let mut store = Hosted::open(&device).expect("opened after a close");
        assert_eq!((store.report.rolled_forward, store.report.from_checkpoint), (0, 500));
        let all = store.run(|store| async move { gets(&store, &records, Order::From(0), Span::ops(9, 500)).await });
        assert_eq!(all.expect("all are there").ops, 500);
    }
}
