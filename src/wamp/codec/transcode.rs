//! A payload of one serializer said in another: read as values onto a tape, written from there.
//!
//! The tape is needed because counts come first in the binary serializers, while JSON and CBOR's indefinite lengths
//! tell them last, and because of keys that occur twice only the last may be written.

use std::borrow::Cow;

use crate::wamp::message::Value;

use super::tape::{Extent, Node, Tape};
use super::values::{self, JsonValues};
use super::writer::{Mark, Writer};
use super::{NotRepresentable, Serializer};

/// Scratch above this many bytes is given back after a payload.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Up to so many entries, keys that occur twice are found by comparing all with all; above, by sorting.
const COMPARED_MAX: usize = 16;

/// In the place of an entry that is not written.
const DROPPED: usize = usize::MAX;

/// Scratch that is kept from payload to payload.
#[derive(Default)]
pub(super) struct Transcoder {
    /// Empty between payloads.
    tape: Tape<'static>,
    /// Where the entries begin of the maps that are being written.
    entries: Vec<usize>,
    /// What simd-json writes into.
    copy: Vec<u8>,
    json: JsonValues,
}

impl std::fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transcoder").finish_non_exhaustive()
    }
}

impl Transcoder {
    /// Writes `value`, which is in another serializer than the writer's.
    ///
    /// # Errors
    /// A value that the writer's serializer cannot represent, or more values than are transcoded; a part may be written
    /// then.
    pub(super) fn transcode<W: Writer>(
        &mut self,
        value: Value<'_>,
        writer: &mut W,
    ) -> Result<(), NotRepresentable> {
        let mut tape = std::mem::take(&mut self.tape).emptied();
        let read = match value.serializer {
            Serializer::Json => self.json.read(value.bytes, &mut self.copy, &mut tape),
            Serializer::MsgPack => values::read_msgpack(value.bytes, &mut tape),
            Serializer::Cbor => values::read_cbor(value.bytes, &mut tape),
        };
        self.entries.clear();
        let mut emitter = Emitter { tape: &mut tape, entries: &mut self.entries, writer };
        let written = match read {
            Ok(()) if emitter.tape.has_overflowed() => Err(NotRepresentable),
            Ok(()) => emitter.value(0),
            Err(error) => Err(error),
        };
        self.tape = tape.emptied();
        self.give_back();
        written.map(|_| ())
    }

    /// One large payload shall not cost its memory for ever.
    fn give_back(&mut self) {
        let held = self.tape.capacity_in_bytes()
            + self.entries.capacity() * size_of::<usize>()
            + self.copy.capacity() * 4;
        if held > KEPT_BYTES_MAX {
            *self = Self::default();
        }
    }
}

/// Writes what is on the tape. Recursion is as deep as the values, which the readers bound.
struct Emitter<'e, 't, W> {
    tape: &'e mut Tape<'t>,
    entries: &'e mut Vec<usize>,
    writer: &'e mut W,
}

impl<W: Writer> Emitter<'_, '_, W> {
    /// Writes the value at `at`; the index behind it.
    fn value(&mut self, at: usize) -> Result<usize, NotRepresentable> {
        match self.tape.node(at).ok_or(NotRepresentable)? {
            Node::List(extent) => {
                let Extent { count, .. } = *extent;
                self.writer.list(count);
                let mut next = at + 1;
                for _ in 0..count {
                    next = self.value(next)?;
                }
                self.writer.list_end();
                return Ok(next);
            }
            Node::Map(extent) => {
                let extent = *extent;
                self.map(at + 1, extent)?;
                return Ok(extent.end);
            }
            Node::Text(text) => self.writer.text(text),
            Node::Bytes(bytes) => self.writer.bytes(bytes),
            Node::Unsigned(value) => self.writer.unsigned(*value),
            Node::Negative(value) => self.writer.negative(*value),
            Node::Float(value) => self.writer.float(*value),
            Node::Boolean(value) => self.writer.boolean(*value),
            Node::Null => self.writer.null(),
        }
        Ok(at + 1)
    }

    fn map(&mut self, first: usize, extent: Extent) -> Result<(), NotRepresentable> {
        let before = self.entries.len();
        let mut key = first;
        for _ in 0..extent.count {
            if W::SERIALIZER == Serializer::Json {
                self.key_as_text(key)?;
            }
            self.entries.push(key);
            key = self.tape.after(self.tape.after(key));
        }
        let dropped = self.drop_duplicates(before);
        self.writer.map(extent.count - dropped);
        for entry in before..before + extent.count {
            match self.entries[entry] {
                DROPPED => {}
                key => self.entry(key)?,
            }
        }
        self.writer.map_end();
        self.entries.truncate(before);
        Ok(())
    }

    fn entry(&mut self, key: usize) -> Result<(), NotRepresentable> {
        let value = match self.tape.node(key) {
            Some(Node::Text(text)) => {
                self.writer.key(&mut Mark::default(), text);
                key + 1
            }
            _ => self.value(key)?,
        };
        self.value(value).map(|_| ())
    }

    /// JSON has no keys but strings.
    fn key_as_text(&mut self, at: usize) -> Result<(), NotRepresentable> {
        let text = match self.tape.node(at) {
            Some(Node::Text(_)) => return Ok(()),
            Some(Node::Unsigned(value)) => value.to_string(),
            Some(Node::Negative(value)) => value.to_string(),
            Some(Node::Boolean(value)) => value.to_string(),
            _ => return Err(NotRepresentable),
        };
        self.tape.replace(at, Node::Text(Cow::Owned(text)));
        Ok(())
    }

    /// Marks the entries from `first` on whose key comes again later; how many.
    fn drop_duplicates(&mut self, first: usize) -> usize {
        let entries = &mut self.entries[first..];
        let tape = &*self.tape;
        let same = |one: usize, two: usize| match (tape.node(one), tape.node(two)) {
            (Some(one), Some(two)) => one.is_same_key(two),
            _ => false,
        };
        let mut dropped = 0;
        if entries.len() <= COMPARED_MAX {
            for early in 0..entries.len() {
                if entries[early + 1..].iter().any(|&later| same(entries[early], later)) {
                    entries[early] = DROPPED;
                    dropped += 1;
                }
            }
            return dropped;
        }
        // Sorted by key and then by place, every entry but the last of each key is followed by one of the same key.
        let mut sorted: Vec<(usize, usize)> = entries.iter().copied().enumerate().collect();
        sorted.sort_unstable_by(|(early, one), (later, two)| {
            let order = match (tape.node(*one), tape.node(*two)) {
                (Some(one), Some(two)) => one.order(two),
                _ => std::cmp::Ordering::Equal,
            };
            order.then(early.cmp(later))
        });
        for pair in sorted.windows(2) {
            if same(pair[0].1, pair[1].1) {
                entries[pair[0].0] = DROPPED;
                dropped += 1;
            }
        }
        dropped
    }
}
