//! A publish stream, and a group in a partition, through any sequence of what may happen to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::service::run(data));
