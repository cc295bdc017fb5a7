//! What applications say to each other: args and kwargs, kept as the sender's validated bytes.

use super::codec::Serializer;

/// The application payload of a message, in the bytes of the serializer it came in.
///
/// `args` is the complete encoding of a list and `kwargs` that of a map with string keys, both validated when
/// they were decoded, so they can be spliced into another message of the same serializer as they are. Either is
/// empty (no bytes at all) where the message has none; an empty list and an empty map are made absent when decoded
/// ("SHOULD not be sent"), and a message with neither has [`Payload::EMPTY`] in every serializer. Kwargs without
/// args are sent behind an empty list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The serializer that `args` and `kwargs` are written in.
    pub serializer: Serializer,
    /// One encoded list, or nothing.
    pub args: &'a [u8],
    /// One encoded map with string keys, or nothing.
    pub kwargs: &'a [u8],
}

impl Payload<'_> {
    /// A message without args and kwargs.
    pub const EMPTY: Payload<'static> = Payload { serializer: Serializer::Json, args: &[], kwargs: &[] };

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.args.is_empty() && self.kwargs.is_empty()
    }

    /// The size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.args.len() + self.kwargs.len()
    }
}
