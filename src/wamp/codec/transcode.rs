//! A payload of one serializer said in another.

use crate::wamp::message::Value;

use super::NotRepresentable;
use super::writer::Writer;

/// Scratch that is kept from payload to payload.
#[derive(Debug, Default)]
pub(super) struct Transcoder {}

impl Transcoder {
    pub(super) fn transcode<W: Writer>(
        &mut self,
        _value: Value<'_>,
        _writer: &mut W,
    ) -> Result<(), NotRepresentable> {
        Err(NotRepresentable)
    }
}
