//! The first bytes of a connection: detection, HTTP heads, handshakes.
#![no_main]

#[path = "../bodies/link.rs"]
#[allow(dead_code)] // each target runs one of them
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::first_bytes(data));
