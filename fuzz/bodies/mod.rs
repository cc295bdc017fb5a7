//! What the fuzz targets do with the bytes they are given. `tests/fuzz_corpus.rs` does the same with every file of
//! the corpus, so that whatever was found once is tried by every `cargo test`.

pub(crate) mod codec;
pub(crate) mod config;

/// Every target by its name, which is also that of its directory under `fuzz/corpus`.
pub(crate) const BODIES: &[(&str, fn(&[u8]))] = &[
    ("config", config::config),
    ("decode_json", codec::decode_json),
    ("decode_msgpack", codec::decode_msgpack),
    ("decode_cbor", codec::decode_cbor),
    ("transcode", codec::transcode),
];
