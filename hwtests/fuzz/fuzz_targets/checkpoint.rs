//! Feeds `fuzz::run("checkpoint", ..)`; what is checked is described there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("checkpoint", data));
