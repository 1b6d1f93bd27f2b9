//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

use std::io;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit code after a second signal: 128 + SIGINT, as shells have it.
const SECOND_SIGNAL_EXIT: i32 = 130;

/// Becomes `true` at the first signal. Call it inside a runtime.
pub(crate) fn stop_on_signal() -> io::Result<watch::Receiver<bool>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        let mut any = async || {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        };
        let name = any().await;
        tracing::info!("{name}: finishing what is under way; once more to end at once");
        stop.send_replace(true);
        let name = any().await;
        tracing::warn!("{name} again: ending at once; what was acknowledged is durable");
        std::process::exit(SECOND_SIGNAL_EXIT);
    });
    Ok(stopped)
}

/// Asks a child process to end in order.
pub(crate) fn terminate(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // One that has ended already is what is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}
