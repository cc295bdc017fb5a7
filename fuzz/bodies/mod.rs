//! What the fuzz targets do with the bytes they are given. `tests/fuzz_corpus.rs` does the same with every file of
//! the corpus, so that whatever was found once is tried by every `cargo test`.

pub(crate) mod codec;
pub(crate) mod config;
pub(crate) mod differential;
pub(crate) mod link;

/// What a target does with one input; it panics where something does not hold.
pub(crate) type Body = fn(&[u8]);

/// Every target by its name, which is also that of its directory under `fuzz/corpus`.
pub(crate) const BODIES: &[(&str, Body)] = &[
    ("config", config::config),
    ("decode_json", codec::decode_json),
    ("decode_msgpack", codec::decode_msgpack),
    ("decode_cbor", codec::decode_cbor),
    ("differential_json", differential::differential_json),
    ("differential_msgpack", differential::differential_msgpack),
    ("differential_cbor", differential::differential_cbor),
    ("link_deflate", link::deflate),
    ("link_first_bytes", link::first_bytes),
    ("link_rawsocket", link::rawsocket),
    ("link_websocket", link::websocket),
    ("transcode", codec::transcode),
];
