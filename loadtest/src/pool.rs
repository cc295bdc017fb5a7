//! The connections of one process: one loop over epoll that speaks WAMP or NATS and tells the work what happened.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crosspoint::wamp::RequestId;
use crosspoint::wamp::codec::Encoder;
use crosspoint::wamp::message::{Call, Message, Publish, Register, Subscribe, Yield};
use crosspoint::wamp::options::{
    CallOptions, PublishOptions, RegisterOptions, SubscribeOptions, Text, YieldOptions,
};
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tungstenite::protocol::frame::coding::{Control, OpCode};

use crate::plan::{Protocol, Settings};
use crate::target::{Place, Transport};
use crate::websocket::FrameKind;
use crate::{nats, wamp, websocket};

/// How many events one wait takes.
const EVENTS_MAX: usize = 1024;

/// What one recv takes, in bytes.
const SCRATCH_BYTES: usize = 256 * 1024;

/// With more connections than this, one that has nothing to send holds no buffer.
const BUFFERED_CONNECTIONS_MAX: usize = 2000;

/// The token of the descriptor that is nobody's connection.
const CONTROL: u64 = u64::MAX;

/// Which connection: its place in the pool.
pub(crate) type Key = usize;

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum Happening<'a> {
    /// The session is open.
    Open,
    /// SUBSCRIBE is done.
    Subscribed,
    /// REGISTER is done.
    Registered,
    /// PUBLISH is acknowledged.
    Published { request: u64 },
    /// The text of an event.
    Event { payload: &'a [u8] },
    /// The text of a result.
    Result { payload: &'a [u8] },
    /// A call to be answered.
    Invocation { token: Token<'a>, payload: &'a [u8] },
    /// A request was answered with ERROR.
    Refused { reason: &'a str },
    /// The connection is over.
    Ended { reason: &'a str },
}

/// What an answer to an invocation has to name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token<'a> {
    Wamp(u64),
    Nats(&'a str),
}

/// Who is told.
pub(crate) trait Work {
    fn on(&mut self, pool: &mut Pool, key: Key, happening: Happening<'_>);
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Joining,
    Open,
    Closed,
}

/// What the next PONG of a NATS server answers.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    Join,
    Subscribe,
    Register,
    Publish(u64),
}

#[derive(Debug)]
struct Connection {
    socket: Option<OwnedFd>,
    target: u8,
    stage: Stage,
    /// Received and not consumed: the beginning of something.
    inbox: Vec<u8>,
    /// Pieces of a WebSocket message, or of NATS's stream within WebSocket.
    assembly: Vec<u8>,
    outbox: Vec<u8>,
    /// On the list of those that have something to send.
    dirty: bool,
    /// The kernel took no more.
    blocked: bool,
    /// NATS: it has a subject for answers.
    has_inbox: bool,
    last_request: u64,
    awaited: VecDeque<Awaited>,
}

/// The connections.
pub(crate) struct Pool {
    poller: OwnedFd,
    settings: Settings,
    connections: Vec<Connection>,
    dirty: Vec<Key>,
    ready: Vec<epoll::Event>,
    scratch: Vec<u8>,
    encoder: Encoder,
    encoded: Vec<u8>,
    arguments: Vec<u8>,
    mask: u32,
}

impl Pool {
    /// Watches `control` beside the connections.
    pub(crate) fn new(settings: Settings, control: impl AsFd) -> io::Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poller, control, epoll::EventData::new_u64(CONTROL), epoll::EventFlags::IN)?;
        Ok(Self {
            poller,
            settings,
            connections: Vec::new(),
            dirty: Vec::new(),
            ready: Vec::with_capacity(EVENTS_MAX),
            scratch: vec![0; SCRATCH_BYTES],
            encoder: Encoder::new(),
            encoded: Vec::new(),
            arguments: Vec::new(),
            mask: std::process::id() | 1,
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Begins a connection to a target, by its number, from a source address if one is given.
    pub(crate) fn open(&mut self, target: u8, source: Option<IpAddr>) -> io::Result<Key> {
        let socket = self.connect(target, source)?;
        let key = self.connections.len();
        self.watch(&socket, key)?;
        self.connections.push(Connection {
            socket: Some(socket),
            target,
            stage: Stage::Connecting,
            inbox: Vec::new(),
            assembly: Vec::new(),
            outbox: Vec::new(),
            dirty: false,
            blocked: false,
            has_inbox: false,
            last_request: 0,
            awaited: VecDeque::new(),
        });
        Ok(key)
    }

    /// Begins it again after it ended.
    pub(crate) fn reopen(&mut self, key: Key, source: Option<IpAddr>) -> io::Result<()> {
        let socket = self.connect(self.connections[key].target, source)?;
        self.watch(&socket, key)?;
        let connection = &mut self.connections[key];
        connection.socket = Some(socket);
        connection.stage = Stage::Connecting;
        connection.inbox.clear();
        connection.assembly.clear();
        connection.outbox.clear();
        connection.blocked = false;
        connection.has_inbox = false;
        connection.last_request = 0;
        connection.awaited.clear();
        Ok(())
    }

    fn connect(&self, target: u8, source: Option<IpAddr>) -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, connected) = match &self.settings.targets[usize::from(target)].place {
            Place::Tcp(address) => {
                let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
                rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
                if let Some(source) = source {
                    rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
                }
                let connected = rustix::net::connect(&socket, address);
                (socket, connected)
            }
            Place::Unix(path) => {
                let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                let connected = rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path())?);
                (socket, connected)
            }
        };
        match connected {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    fn watch(&self, socket: &OwnedFd, key: Key) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::add(&self.poller, socket, data, epoll::EventFlags::OUT)?)
    }

    fn interest(&self, key: Key, flags: epoll::EventFlags) {
        if let Some(socket) = &self.connections[key].socket {
            // It is in the set: the descriptor is its own.
            let _ = epoll::modify(&self.poller, socket, epoll::EventData::new_u64(key as u64), flags);
        }
    }

    /// No longer reads a connection, or reads it again.
    pub(crate) fn pause(&mut self, key: Key, pause: bool) {
        self.interest(key, if pause { epoll::EventFlags::empty() } else { epoll::EventFlags::IN });
    }

    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.connections[key].stage == Stage::Open
    }

    /// Ends a connection without a word.
    pub(crate) fn close(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        connection.socket = None;
        connection.stage = Stage::Closed;
        connection.inbox = Vec::new();
        connection.assembly = Vec::new();
        connection.outbox = Vec::new();
    }

    /// Forgets connections that are all closed, so that keys begin again.
    pub(crate) fn forget(&mut self) {
        debug_assert!(self.connections.iter().all(|connection| connection.stage == Stage::Closed));
        self.connections.clear();
        self.dirty.clear();
    }

    /// Waits at most so long, handles what happened and sends what that led to. Whether `control` has something.
    pub(crate) fn turn(&mut self, timeout: Duration, work: &mut impl Work) -> io::Result<bool> {
        self.flush(work);
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        let timeout = Timespec::try_from(timeout).ok();
        match epoll::wait(&self.poller, rustix::buffer::spare_capacity(&mut ready), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut control = false;
        for event in &ready {
            let token = event.data.u64();
            if token == CONTROL {
                control = true;
                continue;
            }
            self.handle(token as Key, event.flags, work);
        }
        self.ready = ready;
        self.flush(work);
        Ok(control)
    }

    fn handle(&mut self, key: Key, flags: epoll::EventFlags, work: &mut impl Work) {
        if self.connections[key].socket.is_none() {
            return;
        }
        if flags.contains(epoll::EventFlags::OUT) {
            if self.connections[key].stage == Stage::Connecting {
                self.connected(key, work);
                return;
            }
            self.connections[key].blocked = false;
            self.interest(key, epoll::EventFlags::IN);
            self.mark(key);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.read(key, work);
        }
    }

    /// TCP is there: the transport's own handshake begins.
    fn connected(&mut self, key: Key, work: &mut impl Work) {
        let connection = &mut self.connections[key];
        let Some(socket) = &connection.socket else { return };
        let error = rustix::net::sockopt::socket_error(socket);
        if let Ok(Err(error)) | Err(error) = error {
            self.end(key, &io::Error::from(error).to_string(), work);
            return;
        }
        let protocol = self.settings.protocol;
        connection.stage = Stage::Upgrading;
        match &self.settings.targets[usize::from(connection.target)].transport {
            Transport::WebSocket { path, host } => {
                let subprotocol = match protocol {
                    Protocol::Wamp => Some(self.settings.serializer.subprotocol()),
                    Protocol::Nats => None,
                };
                connection.outbox.extend_from_slice(websocket::request(path, host, subprotocol).as_bytes());
            }
            Transport::RawSocket => {
                let serializer = self.settings.serializer.rawsocket();
                connection.outbox.extend_from_slice(&[0x7F, 0xF0 | serializer, 0, 0]);
            }
            // The server speaks first.
            Transport::Plain => connection.stage = Stage::Joining,
        }
        self.interest(key, epoll::EventFlags::IN);
        self.mark(key);
    }

    fn read(&mut self, key: Key, work: &mut impl Work) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let inbox = std::mem::take(&mut self.connections[key].inbox);
        if inbox.len() * 2 > scratch.len() {
            scratch.resize(inbox.len() * 2, 0);
        }
        scratch[..inbox.len()].copy_from_slice(&inbox);
        let socket = self.connections[key].socket.as_ref();
        let received = socket.map(|socket| {
            rustix::net::recv(socket, &mut scratch[inbox.len()..], RecvFlags::empty()).map(|(count, _)| count)
        });
        match received {
            Some(Ok(0)) => self.end(key, "the router closed the connection", work),
            Some(Ok(count)) => {
                let filled = inbox.len() + count;
                match self.feed(key, &scratch[..filled], work) {
                    Ok(consumed) if self.connections[key].stage != Stage::Closed => {
                        self.connections[key].inbox = scratch[consumed..filled].to_vec();
                    }
                    Ok(_) => {}
                    Err(error) => self.end(key, &error, work),
                }
            }
            Some(Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)) => {
                self.connections[key].inbox = inbox;
            }
            Some(Err(error)) => self.end(key, &io::Error::from(error).to_string(), work),
            None => {}
        }
        self.scratch = scratch;
    }

    fn end(&mut self, key: Key, reason: &str, work: &mut impl Work) {
        if self.connections[key].stage == Stage::Closed {
            return;
        }
        self.close(key);
        work.on(self, key, Happening::Ended { reason });
    }

    /// Handles what is whole; returns how much that was.
    fn feed(&mut self, key: Key, bytes: &[u8], work: &mut impl Work) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let connection = &self.connections[key];
            let transport = &self.settings.targets[usize::from(connection.target)].transport;
            let consumed = match (connection.stage, transport) {
                (Stage::Closed, _) => return Ok(bytes.len()),
                (Stage::Upgrading, Transport::WebSocket { .. }) => match websocket::check_answer(rest)? {
                    Some(consumed) => {
                        self.join(key);
                        consumed
                    }
                    None => return Ok(at),
                },
                (Stage::Upgrading, _) => match rest {
                    [0x7F, kind, _, _, ..] if kind & 15 == self.settings.serializer.rawsocket() => {
                        self.join(key);
                        4
                    }
                    [_, _, _, _, ..] => return Err(format!("refused: RawSocket {:02x?}", &rest[..4])),
                    _ => return Ok(at),
                },
                (_, Transport::WebSocket { .. }) => match self.feed_frame(key, rest, work)? {
                    Some(consumed) => consumed,
                    None => return Ok(at),
                },
                (_, Transport::RawSocket) => match self.feed_rawsocket(key, rest, work)? {
                    Some(consumed) => consumed,
                    None => return Ok(at),
                },
                (_, Transport::Plain) => return Ok(at + self.feed_nats(key, rest, work)?),
            };
            at += consumed;
        }
    }

    fn feed_frame(&mut self, key: Key, bytes: &[u8], work: &mut impl Work) -> Result<Option<usize>, String> {
        let Some(frame) = websocket::next_frame(bytes)? else { return Ok(None) };
        let payload = &bytes[frame.start..frame.end];
        match frame.kind {
            FrameKind::Data(is_final) => {
                if self.settings.protocol == Protocol::Nats {
                    self.feed_nats_piece(key, payload, work)?;
                } else if is_final && self.connections[key].assembly.is_empty() {
                    self.handle_wamp(key, payload, work)?;
                } else {
                    self.connections[key].assembly.extend_from_slice(payload);
                    if is_final {
                        let message = std::mem::take(&mut self.connections[key].assembly);
                        self.handle_wamp(key, &message, work)?;
                    }
                }
            }
            FrameKind::Ping => {
                let mask = self.next_mask();
                let outbox = &mut self.connections[key].outbox;
                websocket::push_frame(OpCode::Control(Control::Pong), payload, mask, outbox);
                self.mark(key);
            }
            FrameKind::Pong => {}
            FrameKind::Close => {
                let reason = websocket::close_reason(payload);
                self.end(key, &reason, work);
            }
        }
        Ok(Some(frame.end))
    }

    fn feed_rawsocket(
        &mut self,
        key: Key,
        bytes: &[u8],
        work: &mut impl Work,
    ) -> Result<Option<usize>, String> {
        let Some([kind, a, b, c]) = bytes.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize + (usize::from(kind & 8) << 21);
        let Some(payload) = bytes.get(4..4 + length) else { return Ok(None) };
        match kind & 7 {
            0 => self.handle_wamp(key, payload, work)?,
            1 => {
                let outbox = &mut self.connections[key].outbox;
                outbox.extend_from_slice(&[2 | kind & 8, *a, *b, *c]);
                outbox.extend_from_slice(payload);
                self.mark(key);
            }
            _ => {}
        }
        Ok(Some(4 + length))
    }

    /// NATS within WebSocket is a stream: its messages and the frames know nothing of each other.
    fn feed_nats_piece(&mut self, key: Key, piece: &[u8], work: &mut impl Work) -> Result<(), String> {
        let mut assembly = std::mem::take(&mut self.connections[key].assembly);
        if assembly.is_empty() {
            let consumed = self.feed_nats(key, piece, work)?;
            assembly.extend_from_slice(&piece[consumed..]);
        } else {
            assembly.extend_from_slice(piece);
            let consumed = self.feed_nats(key, &assembly, work)?;
            assembly.drain(..consumed);
        }
        self.connections[key].assembly = assembly;
        Ok(())
    }

    fn feed_nats(&mut self, key: Key, bytes: &[u8], work: &mut impl Work) -> Result<usize, String> {
        let mut at = 0;
        while let Some((said, length)) = nats::next(&bytes[at..])? {
            at += length;
            match said {
                nats::Said::Info if self.connections[key].stage == Stage::Joining => {
                    self.connections[key].awaited.push_back(Awaited::Join);
                    self.say_nats(key, nats::CONNECT.as_bytes());
                }
                nats::Said::Info | nats::Said::Ok => {}
                nats::Said::Ping => self.say_nats(key, b"PONG\r\n"),
                nats::Said::Pong => {
                    let happening = match self.connections[key].awaited.pop_front() {
                        Some(Awaited::Join) => {
                            self.connections[key].stage = Stage::Open;
                            Happening::Open
                        }
                        Some(Awaited::Subscribe) => Happening::Subscribed,
                        Some(Awaited::Register) => Happening::Registered,
                        Some(Awaited::Publish(request)) => Happening::Published { request },
                        None => continue,
                    };
                    work.on(self, key, happening);
                }
                nats::Said::Error(reason) => return Err(format!("NATS: {reason}")),
                nats::Said::Message { subject, reply, payload } => {
                    let happening = match reply {
                        Some(reply) => Happening::Invocation { token: Token::Nats(reply), payload },
                        None if subject.starts_with("_L.") => Happening::Result { payload },
                        None => Happening::Event { payload },
                    };
                    work.on(self, key, happening);
                }
            }
            if self.connections[key].stage == Stage::Closed {
                return Ok(bytes.len());
            }
        }
        Ok(at)
    }

    fn handle_wamp(&mut self, key: Key, bytes: &[u8], work: &mut impl Work) -> Result<(), String> {
        let message = wamp::decode(bytes, self.settings.serializer)
            .map_err(|error| format!("what the router sent cannot be read: {}", error.message))?;
        let happening = match &message {
            Message::Welcome(_) => {
                self.connections[key].stage = Stage::Open;
                Happening::Open
            }
            Message::Subscribed(_) => Happening::Subscribed,
            Message::Registered(_) => Happening::Registered,
            Message::Published(published) => Happening::Published { request: published.request.0 },
            Message::Event(event) => Happening::Event { payload: wamp::text(&event.payload) },
            Message::Result(result) => Happening::Result { payload: wamp::text(&result.payload) },
            Message::Invocation(invocation) => Happening::Invocation {
                token: Token::Wamp(invocation.request.0),
                payload: wamp::text(&invocation.payload),
            },
            Message::Error(error) => Happening::Refused { reason: &error.error },
            Message::Abort(abort) => {
                let text = abort.details.message.as_deref().unwrap_or_default();
                let reason = format!("ABORT {} {text}", abort.reason);
                self.end(key, reason.trim_end(), work);
                return Ok(());
            }
            Message::Goodbye(goodbye) => {
                let reason = format!("GOODBYE {}", goodbye.reason);
                self.end(key, &reason, work);
                return Ok(());
            }
            other => return Err(format!("the router sent {}", other.kind().name())),
        };
        work.on(self, key, happening);
        Ok(())
    }

    /// The transport is there: the session begins.
    fn join(&mut self, key: Key) {
        self.connections[key].stage = Stage::Joining;
        if self.settings.protocol == Protocol::Wamp {
            let realm = self.settings.realm.clone();
            self.say_wamp(key, &wamp::hello(&realm));
        }
    }

    fn next_request(&mut self, key: Key) -> u64 {
        let connection = &mut self.connections[key];
        connection.last_request += 1;
        connection.last_request
    }

    pub(crate) fn subscribe(&mut self, key: Key, topic: &str) {
        let request = self.next_request(key);
        match self.settings.protocol {
            Protocol::Wamp => self.say_wamp(
                key,
                &Message::Subscribe(Subscribe {
                    request: RequestId(request),
                    options: SubscribeOptions::default(),
                    topic: Text::Borrowed(topic),
                }),
            ),
            Protocol::Nats => {
                self.connections[key].awaited.push_back(Awaited::Subscribe);
                self.say_nats(key, format!("SUB {topic} {request}\r\nPING\r\n").as_bytes());
            }
        }
    }

    pub(crate) fn register(&mut self, key: Key, procedure: &str) {
        let request = self.next_request(key);
        match self.settings.protocol {
            Protocol::Wamp => self.say_wamp(
                key,
                &Message::Register(Register {
                    request: RequestId(request),
                    options: RegisterOptions::default(),
                    procedure: Text::Borrowed(procedure),
                }),
            ),
            Protocol::Nats => {
                self.connections[key].awaited.push_back(Awaited::Register);
                self.say_nats(key, format!("SUB {procedure} {request}\r\nPING\r\n").as_bytes());
            }
        }
    }

    /// Publishes a text; the number of the request, which [`Happening::Published`] names.
    pub(crate) fn publish(&mut self, key: Key, topic: &str, text: &[u8], acknowledge: bool) -> u64 {
        let request = self.next_request(key);
        match self.settings.protocol {
            Protocol::Wamp => {
                let mut arguments = std::mem::take(&mut self.arguments);
                let message = Message::Publish(Publish {
                    request: RequestId(request),
                    options: PublishOptions { acknowledge, ..PublishOptions::default() },
                    topic: Text::Borrowed(topic),
                    payload: wamp::payload(text, self.settings.serializer, &mut arguments),
                });
                self.say_wamp(key, &message);
                self.arguments = arguments;
            }
            Protocol::Nats => {
                let mut said = std::mem::take(&mut self.encoded);
                said.clear();
                nats::push_publish(topic, None, text, &mut said);
                if acknowledge {
                    self.connections[key].awaited.push_back(Awaited::Publish(request));
                    said.extend_from_slice(b"PING\r\n");
                }
                self.say_nats(key, &said);
                self.encoded = said;
            }
        }
        request
    }

    pub(crate) fn call(&mut self, key: Key, procedure: &str, text: &[u8]) {
        let request = self.next_request(key);
        match self.settings.protocol {
            Protocol::Wamp => {
                let mut arguments = std::mem::take(&mut self.arguments);
                let message = Message::Call(Call {
                    request: RequestId(request),
                    options: CallOptions::default(),
                    procedure: Text::Borrowed(procedure),
                    payload: wamp::payload(text, self.settings.serializer, &mut arguments),
                });
                self.say_wamp(key, &message);
                self.arguments = arguments;
            }
            Protocol::Nats => {
                let process = std::process::id();
                let mut said = std::mem::take(&mut self.encoded);
                said.clear();
                if !std::mem::replace(&mut self.connections[key].has_inbox, true) {
                    said.extend_from_slice(format!("SUB _L.{process}.{key}.* 0\r\n").as_bytes());
                }
                let reply = format!("_L.{process}.{key}.{request}");
                nats::push_publish(procedure, Some(&reply), text, &mut said);
                self.say_nats(key, &said);
                self.encoded = said;
            }
        }
    }

    /// Answers an invocation.
    pub(crate) fn answer(&mut self, key: Key, token: Token<'_>, text: &[u8]) {
        match token {
            Token::Wamp(request) => {
                let mut arguments = std::mem::take(&mut self.arguments);
                let message = Message::Yield(Yield {
                    request: RequestId(request),
                    options: YieldOptions::default(),
                    payload: wamp::payload(text, self.settings.serializer, &mut arguments),
                });
                self.say_wamp(key, &message);
                self.arguments = arguments;
            }
            Token::Nats(reply) => {
                let mut said = std::mem::take(&mut self.encoded);
                said.clear();
                nats::push_publish(reply, None, text, &mut said);
                self.say_nats(key, &said);
                self.encoded = said;
            }
        }
    }

    fn say_wamp(&mut self, key: Key, message: &Message<'_>) {
        let mut encoded = std::mem::take(&mut self.encoded);
        wamp::encode(message, self.settings.serializer, &mut self.encoder, &mut encoded);
        self.say(key, &encoded);
        self.encoded = encoded;
    }

    fn say_nats(&mut self, key: Key, said: &[u8]) {
        self.say(key, said);
    }

    /// Queues bytes of the application layer in the framing of the transport.
    fn say(&mut self, key: Key, bytes: &[u8]) {
        let mask = self.next_mask();
        let is_text = self.settings.protocol == Protocol::Wamp && self.settings.serializer.is_text();
        let connection = &mut self.connections[key];
        if connection.stage == Stage::Closed {
            return;
        }
        match &self.settings.targets[usize::from(connection.target)].transport {
            Transport::WebSocket { .. } => {
                websocket::push_message(is_text, bytes, mask, &mut connection.outbox);
            }
            Transport::RawSocket => {
                connection.outbox.extend_from_slice(&(bytes.len() as u32 & 0x00FF_FFFF).to_be_bytes());
                connection.outbox.extend_from_slice(bytes);
            }
            Transport::Plain => connection.outbox.extend_from_slice(bytes),
        }
        self.mark(key);
    }

    /// Not secret: what it has to be is not always the same.
    fn next_mask(&mut self) -> [u8; 4] {
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 17;
        self.mask ^= self.mask << 5;
        self.mask.to_ne_bytes()
    }

    fn mark(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// One send for each connection that has something to send.
    fn flush(&mut self, work: &mut impl Work) {
        let keeps_buffers = self.connections.len() <= BUFFERED_CONNECTIONS_MAX;
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let connection = &mut self.connections[key];
            connection.dirty = false;
            if connection.blocked || connection.outbox.is_empty() {
                continue;
            }
            let Some(socket) = &connection.socket else { continue };
            match rustix::net::send(socket, &connection.outbox, SendFlags::NOSIGNAL) {
                Ok(count) if count == connection.outbox.len() => {
                    if keeps_buffers {
                        connection.outbox.clear();
                    } else {
                        connection.outbox = Vec::new();
                    }
                }
                Ok(count) => {
                    connection.outbox.drain(..count);
                    connection.blocked = true;
                    self.interest(key, epoll::EventFlags::IN | epoll::EventFlags::OUT);
                }
                Err(rustix::io::Errno::AGAIN) => {
                    connection.blocked = true;
                    self.interest(key, epoll::EventFlags::IN | epoll::EventFlags::OUT);
                }
                Err(rustix::io::Errno::INTR) => {
                    connection.dirty = true;
                    self.dirty.push(key);
                }
                Err(error) => {
                    let reason = io::Error::from(error).to_string();
                    self.end(key, &reason, work);
                }
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }
}
