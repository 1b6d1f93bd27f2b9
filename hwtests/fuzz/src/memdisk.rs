//! A device in memory: a shared base, and the pages that were changed over it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use disk::{AlignedBuf, AlignedBytes, BlockDevice, DeviceFacts, DiskError, DiskOp, DiskResult};
use simdisk::SimDisk;

/// Bytes of a page.
const PAGE: usize = 4096;

/// See the file's header. Clones share the changed pages.
#[derive(Clone)]
pub(crate) struct MemDisk {
    facts: Rc<DeviceFacts>,
    base: &'static [u8],
    pages: Rc<RefCell<BTreeMap<usize, Vec<u8>>>>,
}

impl MemDisk {
    /// Over `base`, whose length is a multiple of a page.
    pub(crate) fn over(base: &'static [u8]) -> Self {
        assert!(base.len().is_multiple_of(PAGE));
        // What a simulated device says of itself, whatever facts there are.
        let facts = SimDisk::new(base.len() as u64, 0).facts().clone();
        Self { facts: Rc::new(facts), base, pages: Rc::default() }
    }

    /// Fills `out` from `at` on.
    pub(crate) fn load(&self, at: usize, out: &mut [u8]) {
        let pages = self.pages.borrow();
        let mut done = 0;
        while done < out.len() {
            let (page, inside) = ((at + done) / PAGE, (at + done) % PAGE);
            let len = (PAGE - inside).min(out.len() - done);
            let from = match pages.get(&page) {
                Some(bytes) => &bytes[inside..inside + len],
                None => &self.base[page * PAGE + inside..][..len],
            };
            out[done..done + len].copy_from_slice(from);
            done += len;
        }
    }

    /// Changes bytes from `at` on.
    pub(crate) fn store(&self, at: usize, bytes: &[u8]) {
        let mut pages = self.pages.borrow_mut();
        let mut done = 0;
        while done < bytes.len() {
            let (page, inside) = ((at + done) / PAGE, (at + done) % PAGE);
            let len = (PAGE - inside).min(bytes.len() - done);
            let changed = pages.entry(page).or_insert_with(|| self.base[page * PAGE..][..PAGE].to_vec());
            changed[inside..inside + len].copy_from_slice(&bytes[done..done + len]);
            done += len;
        }
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut all = vec![0; self.base.len()];
        self.load(0, &mut all);
        all
    }

    fn check(&self, op: DiskOp, offset: u64, len: usize) -> DiskResult<usize> {
        let end = offset.checked_add(len as u64);
        let fits = end.is_some_and(|end| end <= self.facts.size_bytes) && offset.is_multiple_of(512);
        if fits { Ok(offset as usize) } else { Err(DiskError::Invalid { op, offset, len }) }
    }
}

impl BlockDevice for MemDisk {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    async fn read(&self, offset: u64, mut buf: AlignedBuf) -> DiskResult<AlignedBuf> {
        // A request outside the device is a bug of the store's, whatever the bytes on it say.
        let at = self.check(DiskOp::Read, offset, buf.len()).expect("a read lies inside the device");
        self.load(at, &mut buf);
        Ok(buf)
    }

    async fn write(&self, offset: u64, parts: Vec<AlignedBytes>) -> DiskResult<()> {
        let mut at = offset;
        for part in parts {
            let place = self.check(DiskOp::Write, at, part.len())?;
            self.store(place, &part);
            at += part.len() as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> DiskResult<()> {
        Ok(())
    }

    async fn discard(&self, _: u64, _: u64) -> DiskResult<()> {
        Ok(())
    }
}
