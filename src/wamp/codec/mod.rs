//! Bytes to messages and back, for each serializer.

/// The serializers that the router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Serializer {
    /// RFC 8259 in UTF-8.
    Json,
    /// MessagePack, the version with `str` and `bin` apart.
    MsgPack,
    /// RFC 8949.
    Cbor,
}

impl Serializer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::MsgPack, Self::Cbor];
}

/// Bounds that hold before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// How deep lists and maps may nest, the message itself counted.
    pub depth_max: u32,
    /// How many entries a list in options may have (`exclude`, `eligible`, `authmethods`, …).
    pub list_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { depth_max: 64, list_max: 1000 }
    }
}

/// A payload that cannot be written in the receiver's serializer (docs/serialization.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRepresentable;
