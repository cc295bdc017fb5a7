//! One whole shard in a world without a kernel: input is there before it is measured, and sockets take everything.
//!
//! The clock stands still, so that no ping falls due however many turns are taken.

#![allow(dead_code, unreachable_pub, reason = "each bench takes what it needs")]

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crosspoint::config;
use crosspoint::link::LinkConfig;
use crosspoint::router::peer::{CoreId, PeerMessage};
use crosspoint::router::{Door, Now, Router, RouterConfig};
use crosspoint::shard::mesh::{self, Doorbell, MeshEnd, SharedDoorbell};
use crosspoint::shard::world::{Accepted, Ready, Token, World};
use crosspoint::shard::{Shard, ShardParts, Turn};

/// Any time but 0.
const NOW: Now = Now { monotonic_us: 1_000_000, wall_us: 1_700_000_000_000_000 };

/// What clients put into their frames: any mask, so that unmasking does its work.
const MASK: [u8; 4] = [0x3c, 0xa5, 0x5a, 0xc3];

/// What a client begins with.
pub const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n";

/// What it goes on with.
pub const HELLO: &str =
    "[1,\"realm1\",{\"roles\":{\"caller\":{},\"callee\":{},\"publisher\":{},\"subscriber\":{}}}]";

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

/// One end of a connection.
#[derive(Default)]
struct Socket {
    token: Option<Token>,
    input: Vec<u8>,
    /// What of the input has arrived and was not received.
    arrived: Range<usize>,
    /// What was sent, while it is kept.
    output: Vec<u8>,
}

#[derive(Default)]
struct Net {
    sockets: Vec<Socket>,
    to_be_accepted: usize,
    ready: Vec<Ready>,
    keeps_output: bool,
    sends: usize,
}

/// The world of the shard: [`World`].
pub struct Prepared(Rc<RefCell<Net>>);

impl World for Prepared {
    type Socket = usize;

    fn now(&mut self) -> Now {
        NOW
    }

    fn wait(&mut self, _block: bool, ready: &mut Vec<Ready>) {
        ready.append(&mut self.0.borrow_mut().ready);
    }

    fn set_deadline(&mut self, _deadline_us: Option<u64>) {}

    fn accept(&mut self, _listener: u16) -> io::Result<Accepted<usize>> {
        let net = &mut *self.0.borrow_mut();
        if net.to_be_accepted == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        net.to_be_accepted -= 1;
        net.sockets.push(Socket::default());
        Ok(Accepted { socket: net.sockets.len() - 1, address: None })
    }

    fn listen(&mut self, _listener: u16, _on: bool) {}

    fn register(&mut self, socket: &usize, slot: u32, generation: u32) -> io::Result<()> {
        self.0.borrow_mut().sockets[*socket].token = Some(Token::Connection { slot, generation });
        Ok(())
    }

    fn recv(&mut self, socket: &usize, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = &mut self.0.borrow_mut().sockets[*socket];
        let count = socket.arrived.len().min(buffer.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let start = socket.arrived.start;
        buffer[..count].copy_from_slice(&socket.input[start..start + count]);
        socket.arrived.start += count;
        Ok(count)
    }

    fn send(&mut self, socket: &usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let net = &mut *self.0.borrow_mut();
        net.sends += 1;
        if net.keeps_output {
            let output = &mut net.sockets[*socket].output;
            slices.iter().for_each(|slice| output.extend_from_slice(slice));
        }
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn shutdown_write(&mut self, _socket: &usize) {}
}

/// The only shard of a router with the default configuration.
pub fn shard<W: World>(world: W, doorbell: SharedDoorbell) -> Shard<W> {
    shard_of(world, mesh::connect(16, vec![doorbell]).pop().expect("one end"))
}

/// The shard at this end of the rings, of a router with the default configuration.
fn shard_of<W: World>(world: W, mesh: MeshEnd<PeerMessage>) -> Shard<W> {
    let config = config::parse("", "[[listener]]\nport = 1\n", &[]).expect("a configuration");
    let listener = config.listeners[0].clone();
    let (core, cores) = (CoreId(mesh.core() as u16), mesh.core_count() as u16);
    let router = RouterConfig {
        realms: config.realms.clone(),
        limits: config.limits.clone(),
        doors: vec![Door::from(&listener)],
        publishers: Vec::new(),
    };
    Shard::new(ShardParts {
        core,
        limits: Arc::new(config.limits.clone()),
        links: vec![LinkConfig { listener, limits: config.limits }],
        router: Router::new(&router, core, cores, [7; 32]),
        world,
        mesh,
        control: Arc::default(),
    })
}

/// The shard, and the far ends of its connections, named by numbers from 0.
pub struct Stand {
    shard: Shard<Prepared>,
    net: Rc<RefCell<Net>>,
}

impl Stand {
    /// A shard of its own, with the default configuration.
    pub fn new() -> Self {
        Self::cores(1).pop().expect("one core")
    }

    /// So many cores of one router, with rings between them and connections of their own each.
    pub fn cores(count: usize) -> Vec<Self> {
        let doorbells = (0..count).map(|_| Arc::new(Silent) as SharedDoorbell).collect();
        mesh::connect(4096, doorbells)
            .into_iter()
            .map(|end| {
                let net = Rc::<RefCell<Net>>::default();
                Self { shard: shard_of(Prepared(Rc::clone(&net)), end), net }
            })
            .collect()
    }

    /// A WebSocket with an open session of `realm1` that speaks JSON.
    pub fn connect(&mut self) -> usize {
        let socket = {
            let net = &mut *self.net.borrow_mut();
            net.to_be_accepted += 1;
            net.ready.push(Ready {
                token: Token::Listener(0),
                readable: true,
                writable: false,
                hangup: false,
            });
            net.sockets.len()
        };
        self.turn();
        let reply = self.converse(socket, UPGRADE.to_vec(), || {});
        assert!(reply.starts_with("HTTP/1.1 101"), "{reply}");
        let welcome = self.ask(socket, HELLO);
        assert!(welcome.contains("[2,"), "{welcome}");
        socket
    }

    /// Sends one message and returns the frames that come back to the same connection.
    pub fn ask(&mut self, socket: usize, text: &str) -> String {
        self.ask_across(socket, text, || {})
    }

    /// The same where the answer takes turns of other cores.
    pub fn ask_across(&mut self, socket: usize, text: &str, others: impl FnOnce()) -> String {
        let mut frames = Vec::new();
        append_frame(text, &mut frames);
        self.converse(socket, frames, others)
    }

    fn converse(&mut self, socket: usize, input: Vec<u8>, others: impl FnOnce()) -> String {
        let count = input.len();
        self.net.borrow_mut().keeps_output = true;
        self.prepare(socket, input);
        self.arrive(socket, count);
        self.turn();
        others();
        self.turn();
        let net = &mut *self.net.borrow_mut();
        net.keeps_output = false;
        String::from_utf8_lossy(&std::mem::take(&mut net.sockets[socket].output)).into_owned()
    }

    /// Sets what a client will send; none of it has arrived yet.
    pub fn prepare(&mut self, socket: usize, input: Vec<u8>) {
        let socket = &mut self.net.borrow_mut().sockets[socket];
        assert!(socket.arrived.is_empty(), "the shard did not receive all that had arrived");
        socket.input = input;
        socket.arrived = 0..0;
    }

    /// The next so many bytes arrive, for the next turn.
    pub fn arrive(&mut self, socket: usize, count: usize) {
        let net = &mut *self.net.borrow_mut();
        let socket = &mut net.sockets[socket];
        socket.arrived.end += count;
        let token = socket.token.expect("a connection that was accepted");
        net.ready.push(Ready { token, readable: true, writable: false, hangup: false });
    }

    /// One turn, as the thread of a core takes them.
    pub fn turn(&mut self) {
        assert_eq!(self.shard.turn(true), Turn::Continue);
    }

    /// How many messages the shard has queued for its clients.
    pub fn messages_sent(&self) -> u64 {
        self.shard.counters().messages_sent
    }

    /// How often the shard wrote to a socket.
    pub fn sends(&self) -> usize {
        self.net.borrow().sends
    }
}

/// Appends a masked text frame, as a client sends it.
pub fn append_frame(text: &str, frames: &mut Vec<u8>) {
    frames.push(0x81);
    match text.len() {
        length @ ..126 => frames.push(0x80 | length as u8),
        length => {
            frames.push(0x80 | 126);
            let length = u16::try_from(length).expect("a short message");
            frames.extend_from_slice(&length.to_be_bytes());
        }
    }
    frames.extend_from_slice(&MASK);
    frames.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
