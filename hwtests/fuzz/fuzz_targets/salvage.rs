//! Feeds `fuzz::run("salvage", ..)`; what is checked is described there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("salvage", data));
