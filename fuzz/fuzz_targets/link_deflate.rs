//! The content of compressed messages of WebSocket.
#![no_main]

#[path = "../bodies/link.rs"]
#[allow(dead_code)] // each target runs one of them
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::deflate(data));
