//! The device's executor: one thread, one root future, one ring.
//!
//! It polls the root only when woken, hands all that the poll queued to the kernel in one call, and sleeps in that
//! same call when there is nothing else to do.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use disk::DiskError;

use crate::UringDevice;
use crate::core::Core;
use crate::errno::open_error;
use crate::open::{OpenOptions, open};
use crate::unpark::Unpark;

/// Finishes what is under way when the root is done, also when it panicked.
struct Closing<'a> {
    core: &'a RefCell<Core>,
    unpark: &'a Unpark,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut core = self.core.borrow_mut();
        if let Err(error) = core.close(self.unpark) {
            tracing::error!(%error, "the ring failed while its last operations were awaited");
        }
        let mut woken = Vec::new();
        core.take_woken(&mut woken);
        drop(core);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Opens the device that `options` names on this thread and drives the future that `main` makes of it to its end.
///
/// The future may be woken from any thread. Operations still under way at the end are finished before this returns.
///
/// # Errors
/// When the device cannot be opened or is owned by someone else, or when the ring itself fails.
pub fn run<T, F>(options: &OpenOptions, main: impl FnOnce(UringDevice) -> F) -> Result<T, DiskError>
where
    F: Future<Output = T>,
{
    let path = options.path.display().to_string();
    let unpark = Arc::new(Unpark::new().map_err(|e| open_error(&path, "eventfd", &e))?);
    let opened = open(options, &unpark)?;
    let core = Rc::new(RefCell::new(opened.core));
    let _closing = Closing { core: &core, unpark: &unpark };
    let device = UringDevice::new(Rc::clone(&core), opened.facts, options.read_only);
    drive(&core, &unpark, main(device)).map_err(|e| open_error(&path, "the ring failed", &e))
}

fn drive<T>(core: &RefCell<Core>, unpark: &Arc<Unpark>, root: impl Future<Output = T>) -> std::io::Result<T> {
    let waker = Waker::from(Arc::clone(unpark));
    let mut cx = Context::from_waker(&waker);
    let mut root = pin!(root);
    let mut woken = Vec::new();
    loop {
        if unpark.take()
            && let Poll::Ready(output) = root.as_mut().poll(&mut cx)
        {
            return Ok(output);
        }
        {
            let mut core = core.borrow_mut();
            if unpark.park() {
                let slept = core.sleep(unpark);
                unpark.unpark();
                slept?;
            } else {
                core.advance()?;
            }
            core.take_woken(&mut woken);
        }
        woken.drain(..).for_each(Waker::wake);
    }
}
