//! What the fuzzers check of every decoder of outside bytes.
//!
//! A target is a function from bytes to nothing that panics when a law is broken:
//! - no input makes a decoder panic, overflow or hang;
//! - what it allocates at most is bounded by the input's length ([`bounded`]);
//! - what decodes encodes to the same bytes again, where the format has one form only.
//!
//! Checksums stop a fuzzer at the door. So most inputs start with a byte of options, and one option makes
//! the checksums right before decoding: this finds what a forger could do, and what a bug elsewhere might
//! have written.
//!
//! `make fuzz` runs the targets; `corpus/` holds seeds made by the `seeds` example from true encodings;
//! `regressions/` holds inputs that once broke a law.

#![forbid(unsafe_code)]

mod checks {
    pub(crate) mod catalog;
    pub(crate) mod device;
    pub(crate) mod face;
    pub(crate) mod format;
    pub(crate) mod index;
    pub(crate) mod salvage;
}
mod image;
mod memdisk;
pub mod seeds;

use peak_alloc::PeakAlloc;

/// One target.
pub type Check = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Check); 15] = [
    ("label", checks::format::label),
    ("anchor", checks::format::anchor),
    ("record", checks::format::record),
    ("checkpoint", checks::format::checkpoint),
    ("descriptor", checks::format::descriptor),
    ("pack", checks::format::pack),
    ("tombstone", checks::format::tombstone),
    ("journal", checks::format::journal),
    ("batch", checks::index::batch),
    ("catalog", checks::catalog::rows),
    ("chunked", checks::face::chunked),
    ("xml", checks::face::xml),
    ("head", checks::face::head),
    ("device", checks::device::device),
    ("salvage", checks::salvage::salvage),
];

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs a target over one input.
///
/// # Panics
/// When a law is broken, or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of this name");
    check(data);
}

/// Runs `decode`, which may hold at most `factor` bytes for each of `input` bytes and `constant` more.
fn bounded<T>(input: usize, factor: usize, constant: usize, decode: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let value = decode();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(peak <= factor * input + constant, "{peak} bytes allocated at once for {input} bytes of input");
    value
}

/// The options of an input and what follows them.
fn options(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(options, rest)| (*options, rest))
}
