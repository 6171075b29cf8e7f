//! A connection, with whatever a client may send.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::connection::run(data));
