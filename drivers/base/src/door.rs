//! The clock and entropy doors: the operating system's, and stepped ones from a seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads time. `monotonic` orders and measures; `unix_ms` only labels (it may jump).
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed point in this process's life; never goes back.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn unix_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct OsClock {
    start: Instant,
}

impl OsClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for OsClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        // A clock before 1970 is a broken clock; 0 labels it as one and orders nothing.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}

/// A clock that moves only when told to; clones share one time.
#[derive(Debug, Clone, Default)]
pub struct StepClock {
    now_us: Arc<AtomicU64>,
}

impl StepClock {
    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        self.now_us.fetch_add(by.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for StepClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.now_us.load(Ordering::Relaxed))
    }

    fn unix_ms(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed) / 1000
    }
}

/// Gives random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The operating system's generator, fit for keys and identifiers.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    /// When the kernel gives no randomness: nothing may go on without it.
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the kernel's random generator answers");
    }
}

/// SplitMix64 from a seed: for simulation only, never for secrets. Clones share one stream.
#[derive(Debug, Clone)]
pub struct SeededEntropy {
    state: Arc<Mutex<u64>>,
}

impl SeededEntropy {
    /// A stream that `seed` decides wholly.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(seed)) }
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "a bound of zero leaves nothing to draw");
        self.next_u64() % bound
    }

    /// True once in `n` draws on average; never for 0.
    #[must_use]
    pub fn one_in(&self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_stream_and_seeds_differ() {
        let draw = |seed| (0..4).map(|_| SeededEntropy::new(seed).next_u64()).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_step_clock_moves_only_when_told() {
        let clock = StepClock::default();
        let other = clock.clone();
        assert_eq!(other.monotonic(), Duration::ZERO);
        clock.advance(Duration::from_secs(2));
        assert_eq!((other.monotonic(), other.unix_ms()), (Duration::from_secs(2), 2000));
    }
}
