//! Sees what the scheduler cannot: a task that spins for ever between two of its scheduling points.
//!
//! A thread of its own looks every few seconds whether any run moved. Runs take milliseconds, so it decides nothing
//! but that one will never end; then it says which and ends the process. Such a run is made again from its seed.

use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks without a move before a run counts as stuck.
const LOOKS_MAX: u32 = 6;

static MOVES: AtomicU64 = AtomicU64::new(0);
static BUSY: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The exit code of a process that was stuck.
pub const STUCK: i32 = 70;

/// A scheduling point was passed.
pub(crate) fn moved() {
    MOVES.fetch_add(1, Ordering::Relaxed);
}

/// While this lives, the thread that made it must move.
pub(crate) struct Watched(String);

impl Watched {
    /// Watches what `what` says.
    pub(crate) fn new(what: String) -> Self {
        static START: Once = Once::new();
        START.call_once(|| drop(std::thread::spawn(look)));
        busy().push(what.clone());
        Self(what)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        moved();
        let mut busy = busy();
        if let Some(at) = busy.iter().position(|what| *what == self.0) {
            busy.remove(at);
        }
    }
}

fn busy() -> std::sync::MutexGuard<'static, Vec<String>> {
    BUSY.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn look() {
    let (mut seen, mut looks) = (0, 0);
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = MOVES.load(Ordering::Relaxed);
        let busy = busy().join("; ");
        looks = if now == seen && !busy.is_empty() { looks + 1 } else { 0 };
        seen = now;
        if looks >= LOOKS_MAX {
            eprintln!("stuck between two scheduling points, in one of: {busy}");
            std::process::exit(STUCK);
        }
    }
}
