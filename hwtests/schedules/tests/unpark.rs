//! The executor's sleep under `loom`: every interleaving, and every value that weak memory may show, of wakers on
//! other threads and an executor that parks. No wake is lost: what was published before a wake is seen by a poll
//! after it, and an executor that sleeps with a wake outstanding is a deadlock, which `loom` reports.
//!
//! The file under test is the driver's own; the eventfd is a counter that blocks, and the executor's loop is that of
//! `uring::run`, whose sleep may also end because an operation completed.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

#[allow(dead_code, reason = "the ring's side of it is not part of the check")]
#[path = "../../../drivers/uring/src/unpark.rs"]
mod unpark;

mod eventfd {
    //! What the kernel's eventfd does: a read waits for a count above zero and takes it whole.

    use std::io;

    use loom::sync::{Condvar, Mutex};

    pub(crate) struct EventFd {
        count: Mutex<u64>,
        written: Condvar,
    }

    impl EventFd {
        #[allow(clippy::unnecessary_wraps, reason = "the kernel's may fail")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self { count: Mutex::new(0), written: Condvar::new() })
        }

        #[allow(clippy::unnecessary_wraps, reason = "the kernel's may fail")]
        pub(crate) fn read(&self) -> io::Result<()> {
            let mut count = self.count.lock().expect("nobody panics with it");
            while *count == 0 {
                count = self.written.wait(count).expect("nobody panics with it");
            }
            *count = 0;
            Ok(())
        }

        #[allow(clippy::unnecessary_wraps, reason = "the kernel's may fail")]
        pub(crate) fn write(&self) -> io::Result<()> {
            *self.count.lock().expect("nobody panics with it") += 1;
            self.written.notify_one();
            Ok(())
        }
    }
}

/// What the executor and its wakers do with each other.
trait Parking: Send + Sync + 'static {
    fn take(&self) -> bool;
    fn park(&self) -> bool;
    fn unpark(&self);
    fn wait(&self) -> io::Result<()>;
    fn wake(self: &Arc<Self>);
}

impl Parking for unpark::Unpark {
    fn take(&self) -> bool {
        Self::take(self)
    }

    fn park(&self) -> bool {
        Self::park(self)
    }

    fn unpark(&self) {
        Self::unpark(self);
    }

    fn wait(&self) -> io::Result<()> {
        Self::wait(self)
    }

    fn wake(self: &Arc<Self>) {
        std::task::Wake::wake_by_ref(self);
    }
}

/// One executor, and wakers that each publish something before they wake it.
fn every_wake_is_seen<P: Parking>(new: fn() -> P, wakers: usize, wakes: usize, early: bool) {
    loom::model(move || {
        let parking = Arc::new(new());
        let published: Arc<Vec<AtomicUsize>> = Arc::new((0..wakers).map(|_| AtomicUsize::new(0)).collect());
        let threads: Vec<_> = (0..wakers)
            .map(|waker| {
                let (parking, published) = (Arc::clone(&parking), Arc::clone(&published));
                thread::spawn(move || {
                    for wake in 1..=wakes {
                        // Relaxed: the wake alone must carry it over.
                        published[waker].store(wake, Ordering::Relaxed);
                        parking.wake();
                    }
                })
            })
            .collect();
        // As `uring::executor::drive`: the root is done when it has seen everything.
        let mut operation_completes = early;
        loop {
            if parking.take() && published.iter().all(|seen| seen.load(Ordering::Relaxed) == wakes) {
                break;
            }
            if parking.park() {
                // A completion may end the sleep instead of the eventfd, whose count then stays for later.
                if !std::mem::take(&mut operation_completes) {
                    parking.wait().expect("the stand-in does not fail");
                }
                parking.unpark();
            }
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a waker does not panic"));
    });
}

fn real() -> unpark::Unpark {
    unpark::Unpark::new().expect("the stand-in does not fail")
}

#[test]
fn one_waker() {
    every_wake_is_seen(real, 1, 2, false);
}

#[test]
fn two_wakers() {
    every_wake_is_seen(real, 2, 1, false);
}

#[test]
fn a_sleep_that_a_completion_ends() {
    every_wake_is_seen(real, 1, 2, true);
}

/// Parks without looking whether a wake came first.
struct Careless(unpark::Unpark, loom::sync::atomic::AtomicBool);

impl Parking for Careless {
    fn take(&self) -> bool {
        self.1.swap(false, Ordering::AcqRel)
    }

    fn park(&self) -> bool {
        true
    }

    fn unpark(&self) {}

    fn wait(&self) -> io::Result<()> {
        if self.1.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.wait()
    }

    fn wake(self: &Arc<Self>) {
        // Nobody ever writes the eventfd of a state that never says parked.
        self.1.store(true, Ordering::Release);
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_wake_is_found() {
    every_wake_is_seen(|| Careless(real(), loom::sync::atomic::AtomicBool::new(true)), 1, 1, false);
}

/// The real one's steps, but none of them orders anything.
struct Unordered(AtomicUsize, eventfd::EventFd);

impl Parking for Unordered {
    fn take(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) == 1
    }

    fn park(&self) -> bool {
        self.0.compare_exchange(0, 2, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn unpark(&self) {
        let _ = self.0.compare_exchange(2, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn wait(&self) -> io::Result<()> {
        self.1.read()
    }

    fn wake(self: &Arc<Self>) {
        if self.0.swap(1, Ordering::Relaxed) == 2 {
            self.1.write().expect("the stand-in does not fail");
        }
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_that_carries_nothing_is_found() {
    let new = || Unordered(AtomicUsize::new(1), eventfd::EventFd::new().expect("the stand-in does not fail"));
    every_wake_is_seen(new, 1, 1, false);
}
