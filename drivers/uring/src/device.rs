//! The device as the layers above see it.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use disk::{
    AlignedBuf, AlignedBytes, BlockDevice, DeviceFacts, DiskError, DiskOp, DiskResult, IO_ALIGN, MAX_WRITE_PARTS,
    ZoneFacts, ZoneFault,
};

use crate::core::Core;
use crate::slab::Work;
use crate::zones;

/// A block device or file under [`crate::run`]. Clones are handles of the same device; what they are asked after
/// `run` has returned is answered [`DiskError::Gone`].
#[derive(Clone)]
pub struct UringDevice {
    core: Rc<RefCell<Core>>,
    facts: Rc<DeviceFacts>,
    read_only: bool,
}

impl fmt::Debug for UringDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UringDevice({}, {})", self.facts.path, self.facts.engine)
    }
}

impl UringDevice {
    pub(crate) fn new(core: Rc<RefCell<Core>>, facts: DeviceFacts, read_only: bool) -> Self {
        Self { core, facts: Rc::new(facts), read_only }
    }

    fn check(&self, op: DiskOp, offset: u64, len: u64) -> DiskResult<()> {
        let align = if op == DiskOp::Read { u64::from(self.facts.read_align_bytes) } else { IO_ALIGN as u64 };
        let aligned = offset.is_multiple_of(align) && len.is_multiple_of(align) && len > 0;
        if aligned && offset.checked_add(len).is_some_and(|end| end <= self.facts.size_bytes) {
            return Ok(());
        }
        Err(DiskError::Invalid { op, offset, len: usize::try_from(len).unwrap_or(usize::MAX) })
    }

    fn check_writable(&self, op: DiskOp) -> DiskResult<()> {
        if self.read_only {
            return Err(DiskError::Os { op, reason: format!("{} was opened read-only", self.facts.path) });
        }
        Ok(())
    }

    /// The zones, when the byte at `offset` lies in a sequential one.
    fn check_zone(&self, op: DiskOp, offset: u64) -> DiskResult<ZoneFacts> {
        let refused = |fault| Err(DiskError::Zone { op, offset, fault });
        match self.facts.zones {
            None => refused(ZoneFault::NotZoned),
            Some(_) if offset >= self.facts.size_bytes => Err(DiskError::Invalid { op, offset, len: 0 }),
            Some(zones) if !zones.is_sequential(offset) => refused(ZoneFault::Conventional),
            Some(zones) => Ok(zones),
        }
    }

    fn change_zone(&self, op: DiskOp, offset: u64) -> DiskResult<()> {
        let zones = self.check_zone(op, offset)?;
        self.check_writable(op)?;
        self.core.borrow().on_file(op, |file| zones::change(file, &zones, op, offset))
    }

    fn begin(&self, checked: DiskResult<()>, work: Work, offset: u64, len: u64) -> Operation {
        let begun = checked.and_then(|()| self.core.borrow_mut().begin(work, offset, len));
        Operation { core: Rc::clone(&self.core), begun: Some(begun) }
    }
}

impl BlockDevice for UringDevice {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read(&self, offset: u64, buf: AlignedBuf) -> impl Future<Output = DiskResult<AlignedBuf>> {
        let len = buf.len() as u64;
        let operation = self.begin(self.check(DiskOp::Read, offset, len), Work::Read(buf), offset, len);
        async move {
            match operation.await? {
                Work::Read(buf) => Ok(buf),
                _ => unreachable!("a read's slot holds a read"),
            }
        }
    }

    fn write(&self, offset: u64, parts: Vec<AlignedBytes>) -> impl Future<Output = DiskResult<()>> {
        let op = DiskOp::Write;
        let len = parts.iter().map(|p| p.len() as u64).sum();
        let mut checked = self.check(op, offset, len).and_then(|()| self.check_writable(op));
        if parts.len() > MAX_WRITE_PARTS || parts.iter().any(|p| p.is_empty() || !p.len().is_multiple_of(IO_ALIGN)) {
            checked = Err(DiskError::Invalid { op, offset, len: usize::try_from(len).unwrap_or(usize::MAX) });
        }
        if self.facts.zones.is_some_and(|zones| !zones.holds(offset, len)) {
            checked = checked.and(Err(DiskError::Zone { op, offset, fault: ZoneFault::Crosses }));
        }
        let operation = self.begin(checked, Work::Write(parts), offset, len);
        async move { operation.await.map(drop) }
    }

    fn flush(&self) -> impl Future<Output = DiskResult<()>> {
        let operation = self.begin(self.check_writable(DiskOp::Flush), Work::Flush, 0, 0);
        async move { operation.await.map(drop) }
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> impl Future<Output = DiskResult<()>> {
        let op = DiskOp::Discard;
        let mut checked = self.check(op, offset, len_bytes).and_then(|()| self.check_writable(op));
        if self.facts.zones.is_some_and(|zones| !zones.is_sequential(offset) && !zones.holds(offset, len_bytes)) {
            checked = checked.and(Err(DiskError::Zone { op, offset, fault: ZoneFault::Crosses }));
        }
        // What a sequential zone holds is freed by its reset.
        let idle = checked.is_ok() && self.facts.zones.is_some_and(|zones| zones.is_sequential(offset));
        let operation = (!idle).then(|| self.begin(checked, Work::Discard, offset, len_bytes));
        async move {
            match operation {
                Some(operation) => operation.await.map(drop),
                None => Ok(()),
            }
        }
    }

    fn write_pointer(&self, offset: u64) -> impl Future<Output = DiskResult<u64>> {
        let op = DiskOp::ReportZone;
        ready(
            self.check_zone(op, offset)
                .and_then(|zones| self.core.borrow().on_file(op, |file| zones::write_pointer(file, &zones, offset))),
        )
    }

    fn reset_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        ready(self.change_zone(DiskOp::ResetZone, offset))
    }

    fn finish_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        ready(self.change_zone(DiskOp::FinishZone, offset))
    }
}

/// One operation under way, or refused at the door. Dropping it leaves the operation to the device.
struct Operation {
    core: Rc<RefCell<Core>>,
    /// The slot; none once the outcome was taken.
    begun: Option<DiskResult<u32>>,
}

impl Future for Operation {
    type Output = DiskResult<Work>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let begun = self.begun.take().expect("an operation is not polled after it has finished");
        let index = match begun {
            Ok(index) => index,
            Err(refused) => return Poll::Ready(Err(refused)),
        };
        let mut stale = None;
        let taken = self.core.borrow_mut().slab.take(index, cx.waker(), &mut stale);
        match taken {
            Some((outcome, work)) => Poll::Ready(outcome.map(|()| work)),
            None => {
                self.begun = Some(Ok(index));
                Poll::Pending
            }
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(Ok(index)) = self.begun {
            let stale = self.core.borrow_mut().slab.abandon(index);
            drop(stale);
        }
    }
}
