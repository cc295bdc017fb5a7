//! What fan-out costs without a router: one thread that sends every publication to every subscriber, one send each.
//!
//! It knows no topics, realms, rights or bounds, and trusts its clients: a floor to compare with, nothing else.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use crosspoint::wamp::codec::Encoder;
use crosspoint::wamp::features::RouterFeatures;
use crosspoint::wamp::message::{Event, Message, Published, Subscribed, Welcome};
use crosspoint::wamp::options::{EventDetails, WelcomeDetails};
use crosspoint::wamp::{PublicationId, SessionId, SubscriptionId};
use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags};

use crate::wamp::{self, Serializer};
use crate::websocket::FrameKind;

const LISTENER: u64 = u64::MAX;

/// What a handshake is answered with: every client of this load test sends the same key.
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: wamp.2.json\r\n\r\n";

struct Client {
    socket: OwnedFd,
    inbox: Vec<u8>,
    is_upgraded: bool,
}

/// Serves until it is killed.
pub(crate) fn run(listen: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poller, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut server = Server {
        clients: Vec::new(),
        subscribers: Vec::new(),
        encoder: Encoder::new(),
        encoded: Vec::new(),
        framed: Vec::new(),
    };
    let mut events = Vec::with_capacity(1024);
    let mut scratch = vec![0; 1 << 16];
    loop {
        events.clear();
        match epoll::wait(&poller, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let token = event.data.u64();
            if token != LISTENER {
                server.read(token as usize, &mut scratch);
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let socket = OwnedFd::from(stream);
                let data = epoll::EventData::new_u64(server.clients.len() as u64);
                epoll::add(&poller, &socket, data, epoll::EventFlags::IN)?;
                server.clients.push(Some(Client { socket, inbox: Vec::new(), is_upgraded: false }));
            }
        }
    }
}

struct Server {
    /// By token; a place is not used again.
    clients: Vec<Option<Client>>,
    subscribers: Vec<usize>,
    encoder: Encoder,
    encoded: Vec<u8>,
    framed: Vec<u8>,
}

impl Server {
    fn read(&mut self, key: usize, scratch: &mut [u8]) {
        let Some(client) = self.clients[key].as_mut() else { return };
        let count = match rustix::net::recv(&client.socket, &mut *scratch, RecvFlags::empty()) {
            Ok((count @ 1.., _)) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Ok(_) | Err(_) => {
                self.clients[key] = None;
                self.subscribers.retain(|subscriber| *subscriber != key);
                return;
            }
        };
        client.inbox.extend_from_slice(&scratch[..count]);
        let mut inbox = std::mem::take(&mut client.inbox);
        let mut at = 0;
        while let Some(consumed) = self.next(key, &mut inbox[at..]) {
            at += consumed;
        }
        inbox.drain(..at);
        if let Some(client) = self.clients[key].as_mut() {
            client.inbox = inbox;
        }
    }

    /// Handles the next thing in the inbox; its length, or `None` when it is not whole.
    fn next(&mut self, key: usize, bytes: &mut [u8]) -> Option<usize> {
        let client = self.clients[key].as_mut()?;
        if !client.is_upgraded {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
            client.is_upgraded = true;
            self.send(key, ANSWER);
            return Some(end + 4);
        }
        // The frames of clients are masked, which is what the reader of the other side refuses: take the mask off first.
        let second = *bytes.get(1)?;
        let head = match second & 127 {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let mask: [u8; 4] = bytes.get(head..head + 4)?.try_into().ok()?;
        let mut unmasked = bytes[..head].to_vec();
        unmasked[1] &= 127;
        unmasked.extend(bytes[head + 4..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let frame = crate::websocket::next_frame(&unmasked).ok()??;
        if matches!(frame.kind, FrameKind::Data(_)) {
            self.handle(key, &unmasked[frame.start..frame.end]);
        }
        Some(frame.end + 4)
    }

    fn handle(&mut self, key: usize, message: &[u8]) {
        let Ok(message) = wamp::decode(message, Serializer::Json) else { return };
        match message {
            Message::Hello(_) => {
                let session = SessionId(key as u64 + 1);
                let details =
                    WelcomeDetails { features: RouterFeatures::BROKER, ..WelcomeDetails::default() };
                self.say(key, &Message::Welcome(Welcome { session, details }));
            }
            Message::Subscribe(subscribe) => {
                self.subscribers.push(key);
                let subscription = SubscriptionId(1);
                self.say(key, &Message::Subscribed(Subscribed { request: subscribe.request, subscription }));
            }
            Message::Publish(publish) => {
                let publication = PublicationId(publish.request.0);
                self.frame(&Message::Event(Event {
                    subscription: SubscriptionId(1),
                    publication,
                    details: EventDetails::default(),
                    payload: publish.payload,
                }));
                let framed = std::mem::take(&mut self.framed);
                for subscriber in &self.subscribers {
                    if let Some(client) = &self.clients[*subscriber] {
                        // A reader that is not there, or slow, gets nothing: nobody waits here.
                        let _ = rustix::net::send(&client.socket, &framed, SendFlags::NOSIGNAL);
                    }
                }
                self.framed = framed;
                if publish.options.acknowledge {
                    self.say(key, &Message::Published(Published { request: publish.request, publication }));
                }
            }
            _ => {}
        }
    }

    /// Into `framed`.
    fn frame(&mut self, message: &Message<'_>) {
        let mut encoded = std::mem::take(&mut self.encoded);
        wamp::encode(message, Serializer::Json, &mut self.encoder, &mut encoded);
        self.framed.clear();
        crosspoint::link::frame_echo(true, &encoded, &mut self.framed);
        self.encoded = encoded;
    }

    fn say(&mut self, key: usize, message: &Message<'_>) {
        self.frame(message);
        let framed = std::mem::take(&mut self.framed);
        self.send(key, &framed);
        self.framed = framed;
    }

    fn send(&self, key: usize, bytes: &[u8]) {
        if let Some(client) = &self.clients[key] {
            // A reply that does not fit into an empty socket buffer does not exist here.
            let _ = rustix::net::send(&client.socket, bytes, SendFlags::NOSIGNAL);
        }
    }
}
