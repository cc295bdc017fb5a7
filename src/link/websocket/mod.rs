//! WebSocket after its handshake (RFC 6455): frames in, messages out. Frame headers are tungstenite's, the
//! rules and the putting together of messages are here.

mod assembly;
mod batch;
pub(super) mod deflate;
mod extension;
pub(super) mod handshake;
mod mask;

use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use self::assembly::{Assembled, Assembly};
use self::batch::Batch;
use self::deflate::Inflater;
use super::{Encoding, Event, Framing, Received};
use crate::link::frame::{push_close, push_control};
use crate::wamp::CloseReason;
use crate::wamp::codec::Serializer;

/// The longest header of a masked frame (RFC 6455 section 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// The longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What the peer did wrong, for the Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    reason: CloseReason,
    message: &'static str,
}

impl Violation {
    /// Bad text.
    pub(super) const UTF8: Self = Self { reason: CloseReason::InvalidUtf8, message: "the text is not UTF-8" };

    const fn frame(message: &'static str) -> Self {
        Self { reason: CloseReason::LinkViolation, message }
    }

    const fn too_large(message: &'static str) -> Self {
        Self { reason: CloseReason::MessageTooLarge, message }
    }

    const fn unsupported(message: &'static str) -> Self {
        Self { reason: CloseReason::UnsupportedData, message }
    }

    /// The end of the connection, with its Close frame.
    pub(super) fn into_event(self) -> Event {
        let (reply, reason) = self.into_close();
        Event::Close { reply, reason }
    }

    /// The Close frame, and the reason.
    pub(super) fn into_close(self) -> (Vec<u8>, CloseReason) {
        let mut reply = Vec::new();
        push_close(self.reason.info().websocket_code, self.message, &mut reply);
        (reply, self.reason)
    }
}

/// The bounds of messages, as they are at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The longest message in bytes, all its fragments together.
    pub(super) message_bytes_max: usize,
    /// The most frames of one message.
    pub(super) frames_per_message_max: u32,
    /// How many times as long as it came a message may be once it is inflated.
    pub(super) inflate_ratio_max: u32,
}

/// An open WebSocket. Without a message under way it holds no heap.
#[derive(Debug)]
pub(super) struct WebSocket {
    partial: Option<Box<Partial>>,
    /// Bytes at the beginning of the next input that are the rest of a batch: unmasked and checked already.
    batch_left: u32,
    /// The beginning of a frame header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    encoding: Option<Encoding>,
    /// permessage-deflate was agreed on.
    takes_compressed: bool,
}

/// What is needed only between the first and the last byte of a frame or a message.
#[derive(Debug, Default)]
struct Partial {
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The message that its frames make up.
    message: Option<Message>,
    /// The payload so far of a control frame, which may come between the fragments of a message.
    control: Vec<u8>,
    /// A batch that was put together and is given out message by message.
    batch: Option<Batch>,
}

#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    payload_left: usize,
    mask: [u8; 4],
}

#[derive(Debug)]
struct Message {
    /// Of a compressed message what came, however it is cut: it is inflated when all of it is there.
    assembly: Assembly,
    frames: u32,
    is_text: bool,
    is_compressed: bool,
}

/// A frame header that keeps all rules.
struct Header {
    opcode: OpCode,
    is_final: bool,
    is_compressed: bool,
    length: usize,
    mask: [u8; 4],
}

impl WebSocket {
    /// Just opened. Without an encoding both kinds of messages are taken.
    pub(super) fn new(encoding: Option<Encoding>, takes_compressed: bool) -> Self {
        let header = [0; HEADER_BYTES_MAX];
        Self { partial: None, batch_left: 0, header, header_len: 0, encoding, takes_compressed }
    }

    /// What the handshake agreed on.
    pub(super) fn encoding(&self) -> Option<Encoding> {
        self.encoding
    }

    /// Heap held, in bytes.
    pub(super) fn partial_bytes(&self) -> usize {
        let Some(partial) = &self.partial else { return 0 };
        let message = partial.message.as_ref().map_or(0, |message| message.assembly.capacity());
        let batch = partial.batch.as_ref().map_or(0, Batch::capacity);
        size_of::<Partial>() + message + partial.control.capacity() + batch
    }

    /// The next message where it is like nearly all: of one frame that lies whole in the input, plain, no batch. Where it is,
    /// and whether it is text; `None` leaves it to [`Self::next`], among whose many results it would be moved about.
    #[inline]
    pub(super) fn next_whole(&mut self, bounds: Bounds, input: &mut [u8]) -> Option<(Range<usize>, bool)> {
        if self.partial.is_some() || self.header_len > 0 || self.batch_serializer().is_some() {
            return None;
        }
        let (start, header, kind) = ordinary_header(input)?;
        let end = start + header.length;
        let payload = input.get_mut(start..end)?;
        self.check_data(bounds, kind, false, header.length as u64).ok()?;
        mask::unmask(payload, header.mask);
        Some((start..end, kind == Data::Text))
    }

    /// Takes bytes until they come to something: how many were taken, and what they came to. `Idle` has taken all.
    pub(super) fn next(
        &mut self,
        bounds: Bounds,
        inflater: &mut Inflater,
        input: &mut [u8],
    ) -> (usize, Event) {
        match self.advance(bounds, inflater, input) {
            Ok(taken) => taken,
            Err(violation) => (0, violation.into_event()),
        }
    }

    fn advance(
        &mut self,
        bounds: Bounds,
        inflater: &mut Inflater,
        input: &mut [u8],
    ) -> Result<(usize, Event), Violation> {
        if self.batch_left > 0 {
            return self.next_in_batch(0, input);
        }
        if let Some(event) = self.next_of_assembled_batch() {
            return Ok((0, event));
        }
        let mut at = 0;
        loop {
            if self.is_within_frame() {
                let (taken, event) = self.take_payload(bounds, inflater, &mut input[at..])?;
                at += taken;
                match event {
                    Some(event) => return Ok((at, event)),
                    None if self.is_within_frame() => return Ok((at, Event::Idle)),
                    None => continue,
                }
            }
            let (taken, header) = self.take_header(bounds, &input[at..])?;
            at += taken;
            let Some(header) = header else { return Ok((at, Event::Idle)) };
            let is_whole = input.len() - at >= header.length;
            match header.opcode {
                OpCode::Control(opcode) if is_whole => {
                    let payload = &mut input[at..at + header.length];
                    mask::unmask(payload, header.mask);
                    return Ok((at + header.length, handle_control(opcode, payload)?));
                }
                OpCode::Data(Data::Text | Data::Binary) if is_whole && header.is_final => {
                    let end = at + header.length;
                    mask::unmask(&mut input[at..end], header.mask);
                    if header.is_compressed {
                        let is_text = header.opcode == OpCode::Data(Data::Text);
                        let length = inflater.inflate(&input[at..end], bounds)?;
                        return Ok((end, self.handle_inflated(length, is_text, inflater)?));
                    }
                    return self.handle_whole_message(at, &header, input);
                }
                _ => self.begin_frame(&header),
            }
        }
    }

    /// A message of one frame that lies in the input: nothing is copied.
    fn handle_whole_message(
        &mut self,
        start: usize,
        header: &Header,
        input: &mut [u8],
    ) -> Result<(usize, Event), Violation> {
        let end = start + header.length;
        let is_text = header.opcode == OpCode::Data(Data::Text);
        if self.batch_serializer().is_none() {
            return Ok((end, Event::Message(Received::Whole { start, end, is_text })));
        }
        // All of the batch is checked before its first message is given out, as it is when it comes in pieces.
        if is_text && simdutf8::basic::from_utf8(&input[start..end]).is_err() {
            return Err(Violation::UTF8);
        }
        // The limit of messages is far below 2^32, and a length above it does not get here.
        self.batch_left = header.length as u32;
        self.next_in_batch(start, input)
    }

    /// A message that lies in the scratch of the inflater: nothing is copied, unless it is a batch.
    fn handle_inflated(
        &mut self,
        length: usize,
        is_text: bool,
        inflater: &Inflater,
    ) -> Result<Event, Violation> {
        let Some(serializer) = self.batch_serializer() else {
            return Ok(Event::Message(Received::Inflated { length, is_text }));
        };
        let mut assembly = Assembly::new(is_text);
        assembly.push(inflater.inflated(length))?;
        let partial = self.partial.get_or_insert_default();
        partial.batch = Some(Batch::new(serializer, assembly.finish()?));
        Ok(self.next_of_assembled_batch().unwrap_or(Event::Idle))
    }

    /// The next message of a batch that lies in the input from `start` on.
    fn next_in_batch(&mut self, start: usize, input: &[u8]) -> Result<(usize, Event), Violation> {
        let end = start + self.batch_left as usize;
        let Some(rest) = input.get(start..end) else { return Ok((0, Event::Idle)) };
        let Some(serializer) = self.batch_serializer() else { return Ok((0, Event::Idle)) };
        let is_text = serializer == Serializer::Json;
        let piece = match batch::first_of(serializer, rest) {
            Ok(piece) => piece,
            Err(error) => {
                self.batch_left = 0;
                return Ok((end, Event::Violation(error)));
            }
        };
        self.batch_left = (rest.len() - piece.used) as u32;
        let message = Received::Whole { start: start + piece.start, end: start + piece.end, is_text };
        Ok((start + piece.used, Event::Message(message)))
    }

    fn next_of_assembled_batch(&mut self) -> Option<Event> {
        let partial = self.partial.as_mut()?;
        let message = partial.batch.as_mut()?.next();
        let event = match message {
            Ok(message) => Event::Message(message),
            Err(error) => {
                partial.batch = None;
                Event::Violation(error)
            }
        };
        if partial.batch.as_ref().is_none_or(Batch::is_empty) {
            partial.batch = None;
            self.free_partial();
        }
        Some(event)
    }

    fn is_within_frame(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.frame.is_some())
    }

    fn is_json(&self) -> bool {
        self.encoding.is_some_and(|encoding| encoding.serializer == Serializer::Json)
    }

    /// The serializer, where a WebSocket message holds several messages.
    fn batch_serializer(&self) -> Option<Serializer> {
        let encoding = self.encoding?;
        (encoding.framing == Framing::WebSocketBatched).then_some(encoding.serializer)
    }

    fn begin_frame(&mut self, header: &Header) {
        let partial = self.partial.get_or_insert_default();
        if let OpCode::Data(kind) = header.opcode {
            let message = partial.message.get_or_insert_with(|| {
                let (is_text, is_compressed) = (kind == Data::Text, header.is_compressed);
                let assembly = Assembly::new(is_text && !is_compressed);
                Message { assembly, frames: 0, is_text, is_compressed }
            });
            message.frames = message.frames.saturating_add(1);
        }
        partial.frame = Some(Frame {
            opcode: header.opcode,
            is_final: header.is_final,
            payload_left: header.length,
            mask: header.mask,
        });
    }

    /// Takes payload of the frame under way. An event is there when that frame completed something.
    fn take_payload(
        &mut self,
        bounds: Bounds,
        inflater: &mut Inflater,
        input: &mut [u8],
    ) -> Result<(usize, Option<Event>), Violation> {
        let Some(partial) = &mut self.partial else { return Ok((0, None)) };
        let Some(frame) = &mut partial.frame else { return Ok((0, None)) };
        let taken = frame.payload_left.min(input.len());
        let piece = &mut input[..taken];
        mask::unmask(piece, frame.mask);
        frame.mask = mask::advance(frame.mask, taken);
        frame.payload_left -= taken;
        match (frame.opcode, &mut partial.message) {
            (OpCode::Data(_), Some(message)) => message.assembly.push(piece)?,
            _ => partial.control.extend_from_slice(piece),
        }
        if frame.payload_left > 0 {
            return Ok((taken, None));
        }
        let (opcode, is_final) = (frame.opcode, frame.is_final);
        partial.frame = None;
        let event = match opcode {
            OpCode::Control(opcode) => {
                let payload = std::mem::take(&mut partial.control);
                Some(handle_control(opcode, &payload)?)
            }
            OpCode::Data(_) if is_final => self.finish_message(bounds, inflater)?,
            OpCode::Data(_) => None,
        };
        self.free_partial();
        Ok((taken, event))
    }

    fn finish_message(
        &mut self,
        bounds: Bounds,
        inflater: &mut Inflater,
    ) -> Result<Option<Event>, Violation> {
        let batch_serializer = self.batch_serializer();
        let Some(partial) = &mut self.partial else { return Ok(None) };
        let Some(message) = partial.message.take() else { return Ok(None) };
        let assembled = match (message.assembly.finish()?, message.is_compressed) {
            (Assembled::Binary(bytes), true) => {
                let length = inflater.inflate(&bytes, bounds)?;
                return self.handle_inflated(length, message.is_text, inflater).map(Some);
            }
            (assembled, _) => assembled,
        };
        let Some(serializer) = batch_serializer else {
            return Ok(Some(Event::Message(match assembled {
                Assembled::Text(text) => Received::Text(text),
                Assembled::Binary(bytes) => Received::Binary(bytes),
            })));
        };
        partial.batch = Some(Batch::new(serializer, assembled));
        Ok(self.next_of_assembled_batch())
    }

    /// An idle link holds no heap.
    fn free_partial(&mut self) {
        if let Some(partial) = &self.partial
            && partial.frame.is_none()
            && partial.message.is_none()
            && partial.batch.is_none()
        {
            self.partial = None;
        }
    }

    /// Takes a frame header, or keeps its beginning.
    fn take_header(&mut self, bounds: Bounds, input: &[u8]) -> Result<(usize, Option<Header>), Violation> {
        if input.is_empty() {
            return Ok((0, None));
        }
        if self.header_len == 0
            && let Some((size, header, length)) = parse_header(input)?
        {
            return Ok((size, Some(self.check_header(bounds, size, &header, length)?)));
        }
        let mut len = usize::from(self.header_len);
        let mut taken = 0;
        while len < header_size(&self.header[..len]) {
            let Some(byte) = input.get(taken) else {
                self.header_len = len as u8;
                return Ok((taken, None));
            };
            self.header[len] = *byte;
            len += 1;
            taken += 1;
        }
        self.header_len = 0;
        let Some((size, header, length)) = parse_header(&self.header[..len])? else {
            return Ok((taken, None));
        };
        Ok((taken, Some(self.check_header(bounds, size, &header, length)?)))
    }

    /// The rules of RFC 6455 sections 5.1 to 5.5, and our bounds, before anything is allocated.
    fn check_header(
        &self,
        bounds: Bounds,
        size: usize,
        header: &FrameHeader,
        length: u64,
    ) -> Result<Header, Violation> {
        // RSV1 in the first frame of a message says that it is compressed (RFC 7692 section 6).
        let begins_message = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        if header.rsv1 && !(self.takes_compressed && begins_message) || header.rsv2 || header.rsv3 {
            return Err(Violation::frame(
                "a reserved bit is set, which no extension has given a meaning here",
            ));
        }
        let Some(mask) = header.mask else {
            return Err(Violation::frame("a client must mask its frames"));
        };
        if length >> 63 != 0 || header.len(length) != size {
            return Err(Violation::frame("a length must be below 2^63 and in its shortest form"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => {
                return Err(Violation::frame("a control frame must not be fragmented"));
            }
            OpCode::Control(_) if length > CONTROL_BYTES_MAX => {
                return Err(Violation::frame("a control frame is longer than 125 bytes"));
            }
            OpCode::Control(_) => {}
            OpCode::Data(kind) => self.check_data(bounds, kind, header.rsv1, length)?,
        }
        // Not above a bound that is a usize.
        Ok(Header {
            opcode: header.opcode,
            is_final: header.is_final,
            is_compressed: header.rsv1,
            length: length as usize,
            mask,
        })
    }

    fn check_data(
        &self,
        bounds: Bounds,
        kind: Data,
        begins_compressed: bool,
        length: u64,
    ) -> Result<(), Violation> {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        let is_compressed = begins_compressed || message.is_some_and(|message| message.is_compressed);
        let (frames, len) = match (kind, message) {
            (Data::Continue, None) => {
                return Err(Violation::frame("a continuation frame without a message to continue"));
            }
            (Data::Continue, Some(message)) => (message.frames, message.assembly.len()),
            (_, Some(_)) => {
                return Err(Violation::frame("a new message before the last fragment of the one before"));
            }
            (_, None) => (0, 0),
        };
        if self.encoding.is_some() && kind == Data::Binary && self.is_json() {
            return Err(Violation::unsupported("this subprotocol has text messages only"));
        }
        if self.encoding.is_some() && kind == Data::Text && !self.is_json() {
            return Err(Violation::unsupported("this subprotocol has binary messages only"));
        }
        let bytes_max = if is_compressed {
            deflate::compressed_bytes_max(bounds.message_bytes_max)
        } else {
            bounds.message_bytes_max
        };
        if length > bytes_max.saturating_sub(len) as u64 {
            return Err(Violation::too_large("the message is longer than the limit of this router"));
        }
        if frames >= bounds.frames_per_message_max {
            return Err(Violation::too_large("the message has more fragments than this router takes"));
        }
        Ok(())
    }
}

/// How long the header is that begins with these bytes; two where that is not known yet.
fn header_size(begin: &[u8]) -> usize {
    let Some(second) = begin.get(1) else { return 2 };
    let length_bytes = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length_bytes + if second & 0x80 == 0 { 0 } else { 4 }
}

/// The size of the header and the header, where it is one as nearly all are: of a whole message, plain, masked, with a
/// length of one byte or two. That is decided by a look at its first bytes; all others take the long way.
#[inline]
fn ordinary_header(bytes: &[u8]) -> Option<(usize, Header, Data)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let kind = match first {
        0x81 => Data::Text,
        0x82 => Data::Binary,
        _ => return None,
    };
    let (length, size, mask) = match second {
        0x80..=0xfd => (usize::from(second & 0x7f), 6, rest.first_chunk()?),
        0xfe => {
            let (&length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(length)), 8, rest.first_chunk()?)
        }
        _ => return None,
    };
    // A length of two bytes that would fit into one is a violation.
    let is_shortest = size == 6 || length > 0x7d;
    let (opcode, mask) = (OpCode::Data(kind), *mask);
    let header = Header { opcode, is_final: true, is_compressed: false, length, mask };
    is_shortest.then_some((size, header, kind))
}

/// The size of the header, the header, and the length of the payload; `None` when bytes are missing.
fn parse_header(bytes: &[u8]) -> Result<Option<(usize, FrameHeader, u64)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((header, length))) => Ok(Some((cursor.position() as usize, header, length))),
        Ok(None) => Ok(None),
        // Nothing else is refused by it: reading from memory does not fail.
        Err(_) => Err(Violation::frame("the opcode is reserved")),
    }
}

fn handle_control(opcode: Control, payload: &[u8]) -> Result<Event, Violation> {
    match opcode {
        Control::Ping => {
            let mut reply = Vec::with_capacity(2 + payload.len());
            push_control(Control::Pong, payload, &mut reply);
            Ok(Event::Reply(reply))
        }
        Control::Pong => Ok(Event::Pong(payload.try_into().ok().map(u64::from_be_bytes))),
        Control::Close => handle_close(payload),
        Control::Reserved(_) => Err(Violation::frame("the opcode is reserved")),
    }
}

/// The answer has the same code, or none if there was none (RFC 6455 section 5.5.1).
fn handle_close(payload: &[u8]) -> Result<Event, Violation> {
    let mut reply = Vec::new();
    match payload {
        [] => push_control(Control::Close, &[], &mut reply),
        [_] => return Err(Violation::frame("a close code has two bytes")),
        [high, low, text @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_close_code(code) {
                return Err(Violation::frame("the close code must not be sent"));
            }
            if simdutf8::basic::from_utf8(text).is_err() {
                return Err(Violation::UTF8);
            }
            push_close(code, "", &mut reply);
        }
    }
    Ok(Event::Close { reply, reason: CloseReason::Goodbye })
}

/// Codes that may come in a Close frame: RFC 6455 section 7.4, 1012 to 1014 from the registry of IANA.
fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::{OpCode, ordinary_header, parse_header};

    #[test]
    fn the_short_way_of_a_header_comes_to_what_the_long_way_does() {
        let mut short = 0;
        for begin in 0..=u16::MAX {
            for length in [[0, 0x7d], [0, 0x7e], [1, 0x7d], [0xff, 0xff]] {
                let [first, second] = begin.to_be_bytes();
                let bytes = [first, second, length[0], length[1], 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
                let Some((size, header, kind)) = ordinary_header(&bytes) else { continue };
                short += 1;
                let Ok(Some((long_size, long, long_length))) = parse_header(&bytes) else {
                    panic!("{bytes:?} is no header");
                };
                assert_eq!((size, header.length as u64), (long_size, long_length), "{bytes:?}");
                assert_eq!((header.opcode, header.is_final), (long.opcode, long.is_final), "{bytes:?}");
                assert_eq!(header.opcode, OpCode::Data(kind));
                assert_eq!(Some(header.mask), long.mask, "{bytes:?}");
                assert!(!header.is_compressed && !long.rsv1 && !long.rsv2 && !long.rsv3, "{bytes:?}");
                assert_eq!(long.len(long_length), size, "{bytes:?}");
                // What is cut is not guessed at.
                assert!((0..size).all(|end| ordinary_header(&bytes[..end]).is_none()), "{bytes:?}");
            }
        }
        assert_eq!(
            short,
            2 * (4 * 126 + 3),
            "text and binary, of every short length and of three longer ones"
        );
    }
}
