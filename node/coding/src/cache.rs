//! Prepared decoding matrices, by which slots are there and which are wanted.
//!
//! While a device is away every read of its groups needs the same few matrices; preparing one takes
//! microseconds, as long as decoding a small shard. The cache is bounded and holds nothing that
//! could not be computed again.

use std::sync::{Arc, Mutex, PoisonError};

use gf::Product;

/// Entries kept: all single losses of a 32-wide code with room to spare, at about 3 KiB each for 17+3.
const ENTRIES_MAX: usize = 64;

struct Entry {
    present: u64,
    want: u64,
    product: Arc<Product>,
}

/// A least-recently-used list; short enough to be searched from the front.
pub(crate) struct Decoders {
    entries: Mutex<Vec<Entry>>,
}

impl Decoders {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::new(Vec::new()) }
    }

    /// The prepared matrix for these slots, made by `matrix` when it is not at hand.
    pub(crate) fn get(&self, present: u64, want: u64, matrix: impl FnOnce() -> Vec<u8>) -> Arc<Product> {
        if let Some(product) = self.find(present, want) {
            return product;
        }
        // Outside the lock: two threads may both do it, and the results are equal.
        let product = Arc::new(Product::new(want.count_ones() as usize, present.count_ones() as usize, &matrix()));
        let mut entries = self.lock();
        entries.truncate(ENTRIES_MAX - 1);
        let entry = Entry { present, want, product: Arc::clone(&product) };
        entries.insert(0, entry);
        assert!(entries.len() <= ENTRIES_MAX);
        product
    }

    fn find(&self, present: u64, want: u64) -> Option<Arc<Product>> {
        let mut entries = self.lock();
        let at = entries.iter().position(|entry| entry.present == present && entry.want == want)?;
        entries[..=at].rotate_right(1);
        Some(Arc::clone(&entries[0].product))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        // The list is whole between any two statements: a panic elsewhere cannot have torn it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_goes_first() {
        let decoders = Decoders::new();
        let made = |want: u64| {
            let mut made = false;
            decoders.get(1, want, || {
                made = true;
                vec![0; want.count_ones() as usize]
            });
            made
        };
        for want in 1..=ENTRIES_MAX as u64 {
            assert!(made(want));
        }
        assert!(!made(1), "still there, and now the newest");
        assert!(made(1000), "pushes out the oldest, which is 2");
        assert!(!made(1));
        assert!(made(2));
        assert_eq!(decoders.lock().len(), ENTRIES_MAX);
    }
}
