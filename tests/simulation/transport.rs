//! The client's end of WebSocket and RawSocket: handshakes, masked frames, and what comes back.

use crosspoint::wamp::codec::{Serializer, next_of_batch};

use super::random::Random;

/// How the messages of a client travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    WebSocket,
    Batched,
    RawSocket,
}

/// What a client reads.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// The handshake was accepted, with a cookie or without.
    Opened(Option<String>),
    /// WAMP messages, encoded.
    Messages(Vec<Vec<u8>>),
    /// A ping, and the frame that answers it.
    Ping(Vec<u8>),
    Pong,
    /// WebSocket's Close.
    Close,
}

/// Serializer and framing.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    pub serializer: Serializer,
    pub framing: Framing,
    /// The window of compressed messages, for who wants them.
    pub window_bits: Option<u8>,
}

impl Transport {
    pub fn any(random: &mut Random) -> Self {
        let framing = *random.pick(&[Framing::WebSocket, Framing::RawSocket, Framing::Batched]);
        Self { serializer: *random.pick(&Serializer::ALL), framing, window_bits: None }
    }

    /// The same with compressed messages, in one of four cases. Takes nothing from chance, so that what a seed plays stays
    /// what it is.
    pub fn perhaps_compressed(mut self, choice: usize) -> Self {
        if self.framing != Framing::RawSocket {
            self.window_bits = match choice % 8 {
                1 => Some(15),
                6 => Some(9),
                _ => None,
            };
        }
        self
    }

    /// What a client says first.
    pub fn handshake(self) -> Vec<u8> {
        self.handshake_with(None)
    }

    /// The same with a cookie; RawSocket has none.
    pub fn handshake_with(self, cookie: Option<&str>) -> Vec<u8> {
        let (name, number) = match self.serializer {
            Serializer::Json => ("json", 1),
            Serializer::MsgPack => ("msgpack", 2),
            Serializer::Cbor => ("cbor", 3),
        };
        let batched = match self.framing {
            Framing::RawSocket => return vec![0x7f, 0xf0 | number, 0, 0],
            Framing::WebSocket => "",
            Framing::Batched => ".batched",
        };
        let offer = self.window_bits.map_or_else(String::new, |bits| {
            let parameters = format!("client_max_window_bits; server_max_window_bits={bits}");
            format!("Sec-WebSocket-Extensions: permessage-deflate; {parameters}\r\n")
        });
        let cookie = cookie.map_or_else(String::new, |cookie| format!("Cookie: {cookie}\r\n"));
        format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: wamp.2.{name}{batched}\r\n{offer}{cookie}\r\n"
        )
        .into_bytes()
    }

    /// One message as it goes onto the wire; now and then in fragments.
    pub fn frame(self, message: &[u8], random: &mut Random) -> Vec<u8> {
        let mut payload = Vec::new();
        match self.framing {
            Framing::RawSocket => return rawsocket_frame(0, message),
            Framing::WebSocket => payload.extend_from_slice(message),
            Framing::Batched if self.serializer == Serializer::Json => {
                payload.extend_from_slice(message);
                payload.push(0x1e);
            }
            Framing::Batched => {
                payload.extend((message.len() as u32).to_be_bytes());
                payload.extend_from_slice(message);
            }
        }
        let mut opcode = if self.serializer == Serializer::Json { 1 } else { 2 };
        // Also where it becomes longer, which nothing forbids.
        if self.window_bits.is_some() && message.len().is_multiple_of(2) {
            payload = deflated(&payload);
            opcode |= COMPRESSED;
        }
        if payload.len() < 2 || !random.once_in(6) {
            return masked(0x80 | opcode, &payload, random);
        }
        let cut = random.between(1, payload.len() - 1);
        let mut frames = masked(opcode, &payload[..cut], random);
        if random.once_in(2) {
            // A control frame may come between fragments.
            frames.extend(masked(0x8a, b"", random));
        }
        frames.extend(masked(0x80, &payload[cut..], random));
        frames
    }

    /// A ping of the client's own.
    pub fn ping(self, random: &mut Random) -> Vec<u8> {
        match self.framing {
            Framing::RawSocket => rawsocket_frame(1, b"?"),
            _ => masked(0x89, b"?", random),
        }
    }

    /// WebSocket's Close; RawSocket has none.
    pub fn close(self, random: &mut Random) -> Option<Vec<u8>> {
        (self.framing != Framing::RawSocket).then(|| masked(0x88, &1000u16.to_be_bytes(), random))
    }

    /// Takes the next whole frame off `input`; before the handshake is answered, the answer.
    pub fn next(
        self,
        input: &mut Vec<u8>,
        is_open: bool,
        random: &mut Random,
    ) -> Result<Option<Frame>, String> {
        match (self.framing, is_open) {
            (Framing::RawSocket, false) => rawsocket_answer(input),
            (Framing::RawSocket, true) => rawsocket_next(input),
            (_, false) => self.websocket_answer(input),
            (_, true) => self.websocket_next(input, random),
        }
    }

    fn websocket_next(self, input: &mut Vec<u8>, random: &mut Random) -> Result<Option<Frame>, String> {
        let [first, second, ..] = input[..] else { return Ok(None) };
        if second & 0x80 != 0 {
            return Err("a frame of the router is masked".to_owned());
        }
        let (head, length) = match second {
            126 if input.len() >= 4 => (4, usize::from(u16::from_be_bytes([input[2], input[3]]))),
            127 if input.len() >= 10 => {
                let length = input[2..10].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                (10, length)
            }
            126 | 127 => return Ok(None),
            short => (2, usize::from(short)),
        };
        if input.len() < head + length {
            return Ok(None);
        }
        let payload: Vec<u8> = input.drain(..head + length).skip(head).collect();
        let text = u8::from(self.serializer != Serializer::Json) + 0x81;
        Ok(Some(match first {
            0x88 => Frame::Close,
            0x89 => Frame::Ping(masked(0x8a, &payload, random)),
            0x8a => Frame::Pong,
            data if data == text => Frame::Messages(self.messages(payload)?),
            data if data == text | COMPRESSED => {
                let Some(bits) = self.window_bits else {
                    return Err("a compressed frame for who takes none".to_owned());
                };
                Frame::Messages(self.messages(inflated(&payload, bits)?)?)
            }
            other => return Err(format!("a frame that begins with {other:#x}")),
        }))
    }

    fn websocket_answer(self, input: &mut Vec<u8>) -> Result<Option<Frame>, String> {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head: Vec<u8> = input.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head);
        let extension = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        let expected = self.window_bits.map(|bits| {
            format!(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits={bits}"
            )
        });
        if !head.starts_with("HTTP/1.1 101 ") || extension != expected.as_deref() {
            return Err(format!("the handshake was answered {head:?}"));
        }
        let cookie = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: "));
        let cookie = cookie.and_then(|cookie| cookie.split(';').next());
        Ok(Some(Frame::Opened(cookie.map(str::to_owned))))
    }

    fn messages(self, payload: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
        if self.framing != Framing::Batched {
            return Ok(vec![payload]);
        }
        let mut messages = Vec::new();
        let mut rest = &payload[..];
        while !rest.is_empty() {
            let (message, behind) =
                next_of_batch(self.serializer, rest).map_err(|error| error.message.to_string())?;
            messages.push(message.to_vec());
            rest = behind;
        }
        Ok(messages)
    }
}

/// RSV1: the message is compressed.
const COMPRESSED: u8 = 0x40;

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut deflate = zlib_rs::Deflate::new(1, false, 15);
    let mut out = vec![0; message.len() + message.len() / 8 + 64];
    deflate.compress(message, &mut out, zlib_rs::DeflateFlush::SyncFlush).expect("memory");
    out.truncate(deflate.total_out() as usize - 4);
    out
}

/// Inflates as somebody does who has this window and no more.
fn inflated(payload: &[u8], bits: u8) -> Result<Vec<u8>, String> {
    let mut inflate = zlib_rs::Inflate::new(false, bits);
    let mut all = Vec::new();
    for mut piece in [payload, &[0, 0, 0xff, 0xff]] {
        loop {
            let mut out = [0; 256];
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            let step = inflate.decompress(piece, &mut out, zlib_rs::InflateFlush::NoFlush);
            step.map_err(|error| format!("a compressed frame: {error:?}"))?;
            piece = &piece[(inflate.total_in() - before_in) as usize..];
            let given = (inflate.total_out() - before_out) as usize;
            all.extend_from_slice(&out[..given]);
            if piece.is_empty() && given < out.len() {
                break;
            }
        }
    }
    Ok(all)
}

fn masked(first: u8, payload: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = (random.below(1 << 32) as u32).to_be_bytes();
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn rawsocket_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame[0] = kind;
    frame.extend_from_slice(payload);
    frame
}

fn rawsocket_answer(input: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    if input.len() < 4 {
        return Ok(None);
    }
    let answer: Vec<u8> = input.drain(..4).collect();
    if answer[0] != 0x7f || answer[1] >> 4 == 0 {
        return Err(format!("the handshake was answered {answer:x?}"));
    }
    Ok(Some(Frame::Opened(None)))
}

fn rawsocket_next(input: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    let [kind, high, middle, low, ..] = input[..] else { return Ok(None) };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if input.len() < 4 + length {
        return Ok(None);
    }
    let payload: Vec<u8> = input.drain(..4 + length).skip(4).collect();
    Ok(Some(match kind {
        0 => Frame::Messages(vec![payload]),
        1 => Frame::Ping(rawsocket_frame(2, &payload)),
        2 => Frame::Pong,
        other => return Err(format!("a RawSocket frame of type {other}")),
    }))
}
