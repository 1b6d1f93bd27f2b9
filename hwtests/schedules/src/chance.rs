//! Choices of a harness, drawn from the scheduler so that a schedule replays them, and its scheduling points.

use std::future::poll_fn;
use std::task::Poll;

use shards::Limits;
use shuttle::rand::{RngCore, thread_rng};

use crate::watch;

/// A number below `bound`, which is not zero.
#[must_use]
pub fn below(bound: u64) -> u64 {
    thread_rng().next_u64() % bound
}

/// True once in `n` draws on average.
#[must_use]
pub fn one_in(n: u64) -> bool {
    below(n) == 0
}

/// One of `choices`.
#[must_use]
pub fn pick<T: Copy>(choices: &[T]) -> T {
    choices[below(choices.len() as u64) as usize]
}

/// A seed for a simulated disk.
#[must_use]
pub fn seed() -> u64 {
    thread_rng().next_u64()
}

/// Lets the scheduler run somebody else, or not. Unlike a yield it says nothing about who should be next.
pub async fn pause() {
    watch::moved();
    let mut paused = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Every pool as small as it can be.
#[must_use]
pub fn limits_of_one() -> Limits {
    Limits {
        queue_len: 1,
        tasks_max: 1,
        moves_at_once: 1,
        batch_max_bytes: 1,
        small_segments_max: 1,
        unflushed_max_bytes: 1,
        checkpoint_interval_bytes: 1,
    }
}

/// The usual limits, or every pool of a small random size.
#[must_use]
pub fn limits() -> Limits {
    if one_in(3) {
        return Limits::default();
    }
    Limits {
        queue_len: pick(&[1, 2, 8]),
        tasks_max: pick(&[1, 2, 3, 16]),
        moves_at_once: pick(&[1, 2, 8]),
        batch_max_bytes: pick(&[1, 8 << 10, 1 << 20]),
        small_segments_max: pick(&[1, 2, 4]),
        unflushed_max_bytes: pick(&[1, 128 << 10, 24 << 20]),
        checkpoint_interval_bytes: pick(&[64 << 10, 512 << 10, 512 << 20]),
    }
}
