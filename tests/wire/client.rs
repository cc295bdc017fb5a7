//! A small blocking client: WebSocket and RawSocket frames by hand, WAMP in JSON, and raw bytes for abuse.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use simd_json::OwnedValue as Value;
use simd_json::prelude::*;
use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::PATIENCE;

/// What a client masks its frames with.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Where a router listens.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    WebSocket,
    RawSocket,
}

pub(super) use Framing::{RawSocket, WebSocket};

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// What comes from the router.
#[derive(Debug)]
pub(super) enum Received {
    Message(Value),
    Ping(Vec<u8>),
    Pong,
    /// A Close frame, its code.
    Close(u16),
    /// FIN.
    End,
    Reset,
}

/// How a connection ended, seen from the client.
#[derive(Debug)]
pub(super) struct Farewell {
    /// The messages before the end.
    pub(super) messages: Vec<Value>,
    /// The reason of ABORT, if there was one.
    pub(super) abort: Option<String>,
    /// The reason of GOODBYE, if there was one.
    pub(super) goodbye: Option<String>,
    /// The code of the Close frame, if there was one.
    pub(super) code: Option<u16>,
    /// Whether it ended by RST.
    pub(super) reset: bool,
}

/// A connection to the router.
pub(super) struct Client {
    stream: Stream,
    framing: Framing,
    inbox: Vec<u8>,
    last_request: u64,
    /// The window of compressed messages, if they were agreed on.
    window_bits: Option<u8>,
    /// How many frames came compressed.
    pub(super) compressed_frames: usize,
    /// The id of the session.
    pub(super) session: u64,
}

impl Client {
    /// A socket, and not a byte on it.
    pub(super) fn socket(at: &Address) -> Self {
        Self::socket_with_buffer(at, None)
    }

    /// A socket that takes little before somebody reads, if told so.
    fn socket_with_buffer(at: &Address, receive_bytes: Option<usize>) -> Self {
        let stream = match at {
            Address::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).unwrap();
                if let Some(bytes) = receive_bytes {
                    // Before the connection is made, or the window is settled already.
                    socket.set_recv_buffer_size(bytes).unwrap();
                }
                socket.connect(&(*address).into()).unwrap();
                socket.set_tcp_nodelay(true).unwrap();
                Stream::Tcp(socket.into())
            }
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).unwrap()),
        };
        stream.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        stream.socket().set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            framing: RawSocket,
            inbox: Vec::new(),
            last_request: 0,
            window_bits: None,
            compressed_frames: 0,
            session: 0,
        }
    }

    /// What the handshake that the caller makes is about.
    pub(super) fn speak(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// A socket with the handshake of its link done, for JSON.
    pub(super) fn connect(at: &Address, framing: Framing) -> Self {
        Self::connect_as(at, framing, "wamp.2.json", 1)
    }

    /// The same for any serializer: the WebSocket subprotocol, and the number that RawSocket has for it.
    pub(super) fn connect_as(at: &Address, framing: Framing, subprotocol: &str, number: u8) -> Self {
        let mut client = Self::socket(at);
        client.shake_hands(framing, subprotocol, number);
        client
    }

    fn shake_hands(&mut self, framing: Framing, subprotocol: &str, number: u8) {
        self.framing = framing;
        match framing {
            WebSocket => {
                self.send_raw(upgrade(subprotocol, "").as_bytes());
                let head = self.read_head();
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
            }
            RawSocket => {
                // 2^24 bytes are fine.
                self.send_raw(&[0x7f, 0xf0 | number, 0, 0]);
                let reply = self.read_exactly(4);
                assert_eq!((reply[0], reply[1] & 0x0f, &reply[2..]), (0x7f, number, &[0, 0][..]));
            }
        }
    }

    /// A session on `realm1`.
    pub(super) fn join(at: &Address, framing: Framing) -> Self {
        Self::join_realm(at, framing, "realm1")
    }

    pub(super) fn join_realm(at: &Address, framing: Framing, realm: &str) -> Self {
        let mut client = Self::connect(at, framing);
        client.hello(realm);
        client
    }

    /// A session on `realm1` with compressed messages, in a window of this size.
    pub(super) fn join_compressed(at: &Address, window_bits: u8) -> Self {
        let mut client = Self::socket(at);
        client.framing = WebSocket;
        let offer =
            format!("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={window_bits}\r\n");
        client.send_raw(upgrade("wamp.2.json", &offer).as_bytes());
        let head = client.read_head();
        let answer = format!(
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover; server_max_window_bits={window_bits}\r\n"
        );
        assert!(head.contains(&answer), "{head}");
        client.window_bits = Some(window_bits);
        client.hello("realm1");
        client
    }

    /// A session of a client that takes little before somebody reads.
    pub(super) fn join_narrow(at: &Address, framing: Framing) -> Self {
        let mut client = Self::connect_narrow(at, framing);
        client.hello("realm1");
        client
    }

    fn connect_narrow(at: &Address, framing: Framing) -> Self {
        let mut client = Self::socket_with_buffer(at, Some(32 * 1024));
        client.shake_hands(framing, "wamp.2.json", 1);
        client
    }

    /// A session of a client that calls and is called in parts; narrow or not.
    pub(super) fn join_for_parts(at: &Address, framing: Framing, is_narrow: bool) -> Self {
        let mut client =
            if is_narrow { Self::connect_narrow(at, framing) } else { Self::connect(at, framing) };
        let features = r#"{"features":{"call_canceling":true,"progressive_call_results":true,"progressive_call_invocations":true}}"#;
        let roles = [r#""caller":{}"#, r#""callee":{}"#];
        let hello = roles
            .iter()
            .fold(hello("realm1"), |hello, role| hello.replace(role, &role.replace("{}", features)));
        client.send(&hello);
        assert_eq!(client.message()[0], 2);
        client
    }

    fn hello(&mut self, realm: &str) {
        self.send(&hello(realm));
        let welcome = self.message();
        assert_eq!(welcome[0], 2, "{welcome:?}");
        self.session = welcome[1].as_u64().unwrap();
    }

    /// The frame of one message.
    pub(super) fn frame(&self, message: &str) -> Vec<u8> {
        match self.framing {
            WebSocket => websocket_frame(0x81, message.as_bytes()),
            RawSocket => rawsocket_frame(0, message.as_bytes()),
        }
    }

    pub(super) fn send(&mut self, message: &str) {
        let frame = self.frame(message);
        self.send_raw(&frame);
    }

    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as long as the router takes it; it may have closed already.
    pub(super) fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends what fits now; how much that was. The rest would have to wait. `None` when the router has ended it.
    pub(super) fn send_some(&mut self, bytes: &[u8]) -> Option<usize> {
        self.stream.socket().set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sent < bytes.len() {
            let written = match &mut self.stream {
                Stream::Tcp(stream) => stream.write(&bytes[sent..]),
                Stream::Unix(stream) => stream.write(&bytes[sent..]),
            };
            match written {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return None;
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.socket().set_nonblocking(false).unwrap();
        Some(sent)
    }

    pub(super) fn request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// One recv into the inbox; how much there was. 0 is the end.
    pub(super) fn read_some(&mut self, bytes_max: usize) -> io::Result<usize> {
        let mut buffer = vec![0; bytes_max];
        let count = self.stream.read(&mut buffer)?;
        self.inbox.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// The next thing that came whole, if there is one.
    pub(super) fn take_received(&mut self) -> Option<Received> {
        match self.framing {
            WebSocket => self.take_websocket_frame(),
            RawSocket => self.take_rawsocket_frame(),
        }
    }

    fn take_websocket_frame(&mut self) -> Option<Received> {
        let [first, second, ..] = self.inbox[..] else { return None };
        assert_eq!(second & 0x80, 0, "a router does not mask");
        let (head, length) = match second {
            126 => (4, u16::from_be_bytes(self.inbox.get(2..4)?.try_into().unwrap()) as usize),
            127 => (10, u64::from_be_bytes(self.inbox.get(2..10)?.try_into().unwrap()) as usize),
            length => (2, usize::from(length)),
        };
        let payload = self.inbox.get(head..head + length)?.to_vec();
        self.inbox.drain(..head + length);
        Some(match first {
            0x81 | 0x82 => Received::Message(parse(payload)),
            0xc1 => {
                let bits = self.window_bits.expect("a frame is compressed that must not be");
                self.compressed_frames += 1;
                Received::Message(parse(inflated(&payload, bits)))
            }
            0x88 => {
                assert!(std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_ok());
                Received::Close(payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])))
            }
            0x89 => Received::Ping(payload),
            0x8a => Received::Pong,
            other => panic!("a router does not send a frame that begins with {other:#x}"),
        })
    }

    fn take_rawsocket_frame(&mut self) -> Option<Received> {
        let [kind, high, middle, low, ..] = self.inbox[..] else { return None };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let payload = self.inbox.get(4..4 + length)?.to_vec();
        self.inbox.drain(..4 + length);
        Some(match kind {
            0 => Received::Message(parse(payload)),
            1 => Received::Ping(payload),
            2 => Received::Pong,
            other => panic!("a router does not send RawSocket frames of type {other}"),
        })
    }

    /// Waits for the next thing.
    pub(super) fn receive(&mut self) -> Received {
        loop {
            if let Some(received) = self.take_received() {
                return received;
            }
            match self.read_some(64 * 1024) {
                Ok(0) => return Received::End,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Received::Reset;
                }
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Waits for the next message; pings are answered.
    pub(super) fn message(&mut self) -> Value {
        loop {
            match self.receive() {
                Received::Message(message) => return message,
                Received::Ping(payload) => self.pong(&payload),
                Received::Pong => {}
                other => panic!("expected a message, not {other:?}"),
            }
        }
    }

    pub(super) fn pong(&mut self, payload: &[u8]) {
        let frame = match self.framing {
            WebSocket => websocket_frame(0x8a, payload),
            RawSocket => rawsocket_frame(2, payload),
        };
        self.send_raw(&frame);
    }

    /// Reads to the end.
    pub(super) fn farewell(&mut self) -> Farewell {
        let mut farewell =
            Farewell { messages: Vec::new(), abort: None, goodbye: None, code: None, reset: false };
        loop {
            match self.receive() {
                Received::Message(message) => {
                    assert_eq!(farewell.code, None, "a message behind the Close frame: {message:?}");
                    let reason = message.get_idx(2).and_then(|reason| reason.as_str()).map(str::to_owned);
                    match message[0].as_u64() {
                        Some(3) => farewell.abort = reason,
                        Some(6) => farewell.goodbye = reason,
                        _ => {}
                    }
                    farewell.messages.push(message);
                }
                Received::Close(code) => farewell.code = Some(code),
                Received::Ping(_) | Received::Pong => {}
                Received::End => return farewell,
                Received::Reset => {
                    farewell.reset = true;
                    return farewell;
                }
            }
        }
    }

    /// Reads to the end and expects ABORT with this reason, Close with this code (on a WebSocket), and FIN.
    #[track_caller]
    pub(super) fn expect_abort(&mut self, what: &str, reason: &str, code: u16) -> Farewell {
        let farewell = self.farewell();
        let expected_code = (self.framing == WebSocket).then_some(code);
        assert_eq!(farewell.abort.as_deref(), Some(reason), "{what}: {farewell:?}");
        assert_eq!((farewell.code, farewell.reset), (expected_code, false), "{what}: {farewell:?}");
        assert_eq!(farewell.messages.last().unwrap()[0], 3, "{what}: {farewell:?}");
        farewell
    }

    #[track_caller]
    pub(super) fn expect_violation(&mut self, what: &str) -> Farewell {
        self.expect_abort(what, "wamp.error.protocol_violation", 1002)
    }

    /// Everything that comes until the end, as it came; whether the end was FIN.
    pub(super) fn read_to_end(&mut self) -> (Vec<u8>, bool) {
        loop {
            match self.read_some(64 * 1024) {
                Ok(0) => return (std::mem::take(&mut self.inbox), true),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return (std::mem::take(&mut self.inbox), false);
                }
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    pub(super) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.inbox.len() < count {
            assert_ne!(self.read_some(4096).unwrap(), 0, "the router closed: {:?}", self.inbox);
        }
        self.inbox.drain(..count).collect()
    }

    /// The head of an HTTP response.
    pub(super) fn read_head(&mut self) -> String {
        loop {
            if let Some(at) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.inbox.drain(..at + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let text = String::from_utf8_lossy(&self.inbox).into_owned();
            assert_ne!(self.read_some(4096).unwrap(), 0, "the router closed: {text}");
        }
    }

    /// FIN from this side.
    pub(super) fn shutdown_write(&mut self) {
        self.try_shutdown_write().unwrap();
    }

    /// FIN from this side; it may have been closed already.
    pub(super) fn try_shutdown_write(&mut self) -> io::Result<()> {
        self.stream.socket().shutdown(Shutdown::Write)
    }

    /// Closes with RST (TCP).
    pub(super) fn reset(self) {
        self.stream.socket().set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// GOODBYE, its answer, and the end: when it returns the router has counted the end.
    pub(super) fn leave(mut self) {
        self.send(r#"[6,{},"wamp.close.close_realm"]"#);
        assert_eq!(self.message()[2], "wamp.close.goodbye_and_out");
        self.shutdown_write();
        let farewell = self.farewell();
        assert!(farewell.messages.is_empty() && !farewell.reset, "{farewell:?}");
    }

    /// Asks for something and waits for the answer, whatever it is.
    pub(super) fn ask(&mut self, message: impl FnOnce(u64) -> String) -> Value {
        let request = self.request();
        self.send(&message(request));
        self.message()
    }

    pub(super) fn subscribe(&mut self, topic: &str) -> u64 {
        let answer = self.ask(|request| format!(r#"[32,{request},{{}},"{topic}"]"#));
        assert_eq!(answer[0], 33, "{answer:?}");
        answer[2].as_u64().unwrap()
    }

    pub(super) fn register(&mut self, procedure: &str) -> u64 {
        let answer = self.ask(|request| format!(r#"[64,{request},{{}},"{procedure}"]"#));
        assert_eq!(answer[0], 65, "{answer:?}");
        answer[2].as_u64().unwrap()
    }

    /// PUBLISH without an answer.
    pub(super) fn publish(&mut self, topic: &str, args: &str) {
        let request = self.request();
        self.send(&format!(r#"[16,{request},{{}},"{topic}",[{args}]]"#));
    }

    /// PUBLISH, and its PUBLISHED.
    pub(super) fn publish_acknowledged(&mut self, topic: &str, args: &str) {
        let answer =
            self.ask(|request| format!(r#"[16,{request},{{"acknowledge":true}},"{topic}",[{args}]]"#));
        assert_eq!(answer[0], 17, "{answer:?}");
    }

    /// CALL; the id of the request.
    pub(super) fn call(&mut self, procedure: &str, args: &str) -> u64 {
        let request = self.request();
        self.send(&format!(r#"[48,{request},{{}},"{procedure}",[{args}]]"#));
        request
    }

    /// Waits for an INVOCATION and answers it with its arguments; returns the message.
    pub(super) fn echo_invocation(&mut self) -> Value {
        let invocation = self.message();
        assert_eq!(invocation[0], 68, "{invocation:?}");
        let args = invocation.get_idx(4).map_or_else(|| "[]".to_owned(), Writable::encode);
        self.send(&format!("[70,{},{{}},{args}]", invocation[1]));
        invocation
    }
}

pub(super) fn hello(realm: &str) -> String {
    format!(r#"[1,"{realm}",{{"roles":{{"publisher":{{}},"subscriber":{{}},"caller":{{}},"callee":{{}}}}}}]"#)
}

/// A JSON string of so many bytes.
pub(super) fn filler(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes))
}

/// The request that opens a WebSocket, with header lines of its own.
pub(super) fn upgrade(subprotocol: &str, headers: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n{headers}\r\n"
    )
}

/// The payload of a compressed message.
pub(super) fn deflated(message: &[u8]) -> Vec<u8> {
    let mut deflate = zlib_rs::Deflate::new(6, false, 15);
    let mut out = vec![0; message.len() + message.len() / 8 + 64];
    deflate.compress(message, &mut out, zlib_rs::DeflateFlush::SyncFlush).unwrap();
    out.truncate(deflate.total_out() as usize);
    out.strip_suffix(b"\0\0\xff\xff").unwrap().to_vec()
}

/// Inflates as a client does that has no more than the agreed window, piece by piece so that it is the window that counts.
fn inflated(payload: &[u8], bits: u8) -> Vec<u8> {
    let mut inflate = zlib_rs::Inflate::new(false, bits);
    let mut all = Vec::new();
    for mut piece in [payload, b"\0\0\xff\xff"] {
        loop {
            let mut out = [0; 128];
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            inflate.decompress(piece, &mut out, zlib_rs::InflateFlush::NoFlush).unwrap();
            piece = &piece[(inflate.total_in() - before_in) as usize..];
            let given = (inflate.total_out() - before_out) as usize;
            all.extend_from_slice(&out[..given]);
            if given < out.len() && piece.is_empty() {
                break;
            }
        }
    }
    all
}

/// A masked frame; `first` has the opcode and the bits beside it.
pub(super) fn websocket_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame of a type.
pub(super) fn rawsocket_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![kind, high, middle, low];
    frame.extend_from_slice(payload);
    frame
}

fn parse(mut bytes: Vec<u8>) -> Value {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    simd_json::to_owned_value(&mut bytes).unwrap_or_else(|error| panic!("{error}: {text}"))
}
