//! Recovery on any bytes, and on journals that were written well and then cut, torn or damaged.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::recovery::run(data));
