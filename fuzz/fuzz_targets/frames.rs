//! The record decoder on any bytes, and on good records with one bit flipped.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::frames::run(data));
