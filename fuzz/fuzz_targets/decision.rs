//! The decisions on the numbers of brokers and the capacity of channels, for any policy, reports, clock and restarts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::decision::run(data));
