//! The world of a shard as chance has it: sockets with small buffers, edge-triggered readiness, a clock that stands still
//! unless it is moved.
//!
//! An edge comes exactly when epoll promises one: when bytes, an end or a reset arrive, when a socket is registered, and when
//! room returns to a socket that refused bytes. What it says is the state at the time of the wait. A shard that makes
//! more of it than that gets stuck here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crosspoint::router::Now;
use crosspoint::shard::mesh::Doorbell;
use crosspoint::shard::world::{Accepted, Ready, Token, World};

use super::random::Random;

/// EMFILE.
const OUT_OF_DESCRIPTORS: i32 = 24;

/// A doorbell as a flag.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Doorbell for Flag {
    fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the router has sent by one wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub bytes: u64,
    /// Of what it offered last the kernel did not take everything.
    pub is_refused: bool,
}

/// The same of all wires, for who has to know it in the midst of a turn.
pub type Traffic = Arc<Mutex<Vec<Sent>>>;

/// A connection between a client and a shard.
#[derive(Debug)]
pub struct Wire {
    core: usize,
    /// What has arrived at the router and was not received.
    pub to_router: VecDeque<u8>,
    to_router_max: usize,
    /// What the router sent and the client has not read.
    pub to_client: VecDeque<u8>,
    pub to_client_max: usize,
    /// How much of that the client has read, ever.
    pub read_bytes: u64,
    fin_from_client: bool,
    reset_by_client: bool,
    /// The router has shut its write side, or closed.
    fin_from_router: bool,
    /// The router closed while there was something to read, which is a reset.
    pub reset_by_router: bool,
    pub closed_by_router: bool,
    token: Option<(u32, u32)>,
    edge: bool,
    wants_room: bool,
}

impl Wire {
    fn room(&self) -> usize {
        self.to_client_max - self.to_client.len()
    }

    /// As the kernel has it: a third must be free before it says so.
    fn is_writable(&self) -> bool {
        self.reset_by_client || self.room() * 3 >= self.to_client_max
    }

    /// Whether the client sees the end once it has read everything.
    pub fn is_ended_by_router(&self) -> bool {
        self.fin_from_router
    }

    /// Whether the shard has something to read, an end included.
    pub fn has_input(&self) -> bool {
        !self.to_router.is_empty() || self.fin_from_client || self.reset_by_client
    }
}

/// What one shard waits on.
#[derive(Debug)]
struct Port {
    doorbell: Arc<Flag>,
    backlog: VecDeque<usize>,
    listening: bool,
    deadline_us: Option<u64>,
}

/// How often the kernel did something that a shard must bear.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelCounts {
    pub out_of_descriptors: u64,
    pub interrupted: u64,
    pub registrations_refused: u64,
}

/// All wires and ports.
pub struct Net {
    pub now_us: u64,
    pub wires: Vec<Wire>,
    pub counts: KernelCounts,
    pub traffic: Traffic,
    /// Descriptors run out, calls are interrupted; off while everything has to settle.
    pub unkind: bool,
    /// Lets some other shard have a turn: while one makes a system call, the others do not stand still.
    pub meanwhile: Option<Meanwhile>,
    ports: Vec<Port>,
    random: Random,
}

/// Gives a turn to the shard of this number, if it can have one.
pub type Meanwhile = Rc<dyn Fn(usize)>;

/// The kernel that all shards of a run share.
pub type Kernel = Rc<RefCell<Net>>;

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("now_us", &self.now_us).field("wires", &self.wires.len()).finish()
    }
}

impl Net {
    pub fn new(random: Random) -> Kernel {
        Rc::new(RefCell::new(Self {
            now_us: 1_000_000,
            wires: Vec::new(),
            counts: KernelCounts::default(),
            traffic: Traffic::default(),
            unkind: true,
            meanwhile: None,
            ports: Vec::new(),
            random,
        }))
    }

    /// A place for one more shard; gives its doorbell.
    pub fn add_port(&mut self) -> Arc<Flag> {
        let doorbell = Arc::<Flag>::default();
        let port = Port {
            doorbell: Arc::clone(&doorbell),
            backlog: VecDeque::new(),
            listening: true,
            deadline_us: None,
        };
        self.ports.push(port);
        doorbell
    }

    /// A client connects; the shard has to accept it.
    pub fn connect(&mut self, core: usize, to_router_max: usize, to_client_max: usize) -> usize {
        let wire = self.wires.len();
        self.wires.push(Wire {
            core,
            to_router: VecDeque::new(),
            to_router_max,
            to_client: VecDeque::new(),
            to_client_max,
            read_bytes: 0,
            fin_from_client: false,
            reset_by_client: false,
            fin_from_router: false,
            reset_by_router: false,
            closed_by_router: false,
            token: None,
            edge: false,
            wants_room: false,
        });
        self.ports[core].backlog.push_back(wire);
        if let Ok(mut traffic) = self.traffic.lock() {
            traffic.push(Sent::default());
        }
        wire
    }

    /// How many bytes of a client find room at the router.
    pub fn room_to_router(&self, wire: usize) -> usize {
        let wire = &self.wires[wire];
        // What is sent to somebody who is gone arrives nowhere.
        if wire.closed_by_router { usize::MAX } else { wire.to_router_max - wire.to_router.len() }
    }

    /// Bytes of a client arrive.
    pub fn arrive(&mut self, wire: usize, bytes: impl Iterator<Item = u8>) {
        let wire = &mut self.wires[wire];
        if wire.closed_by_router {
            wire.reset_by_router = true;
            return;
        }
        wire.to_router.extend(bytes);
        wire.edge = true;
    }

    /// The end of what a client sends arrives.
    pub fn arrive_fin(&mut self, wire: usize) {
        let wire = &mut self.wires[wire];
        // Too late: nobody has taken what came before it.
        wire.reset_by_router |= wire.closed_by_router;
        wire.fin_from_client = true;
        wire.edge = true;
    }

    /// A client is gone without a word. What has arrived may still be read, or not.
    pub fn reset(&mut self, wire: usize) {
        let purge = self.random.once_in(2);
        let wire = &mut self.wires[wire];
        wire.reset_by_client = true;
        wire.to_client.clear();
        if purge {
            wire.to_router.clear();
        }
        wire.edge = true;
    }

    /// A client reads at most so many bytes.
    pub fn read(&mut self, wire: usize, count: usize, into: &mut Vec<u8>) -> usize {
        let wire = &mut self.wires[wire];
        let count = count.min(wire.to_client.len());
        into.extend(wire.to_client.drain(..count));
        wire.read_bytes += count as u64;
        if wire.wants_room && wire.is_writable() {
            wire.wants_room = false;
            wire.edge = true;
        }
        count
    }

    fn edges(&self, core: usize) -> Vec<usize> {
        let has_edge = |wire: &Wire| wire.core == core && wire.edge && wire.token.is_some();
        (0..self.wires.len()).filter(|wire| has_edge(&self.wires[*wire])).collect()
    }

    /// Whether a blocking wait of this shard would return.
    pub fn wakes(&self, core: usize) -> bool {
        let port = &self.ports[core];
        port.doorbell.0.load(Ordering::Relaxed)
            || (port.listening && !port.backlog.is_empty())
            || port.deadline_us.is_some_and(|deadline_us| deadline_us <= self.now_us)
            || self.wires.iter().any(|wire| wire.core == core && wire.edge && wire.token.is_some())
    }

    pub fn deadline_us(&self, core: usize) -> Option<u64> {
        self.ports[core].deadline_us
    }

    /// Whether some connection of this shard that it knows of has input that it was told of.
    pub fn has_unread(&self, core: usize) -> Option<usize> {
        let is_unread = |wire: &Wire| {
            wire.core == core && wire.token.is_some() && !wire.closed_by_router && wire.has_input()
        };
        self.wires.iter().position(is_unread)
    }

    /// How many sockets of this shard are open.
    pub fn open_sockets(&self, core: usize) -> usize {
        let is_open = |wire: &&Wire| wire.core == core && wire.token.is_some() && !wire.closed_by_router;
        self.wires.iter().filter(is_open).count()
    }

    fn close(&mut self, wire: usize) {
        let lose = self.random.once_in(2);
        let wire = &mut self.wires[wire];
        wire.closed_by_router = true;
        wire.fin_from_router = true;
        if !wire.to_router.is_empty() {
            wire.reset_by_router = true;
            if lose {
                wire.to_client.clear();
            }
        }
        wire.to_router.clear();
    }
}

/// A connected socket of a shard; dropping it closes it.
#[derive(Debug)]
pub struct Socket {
    kernel: Kernel,
    wire: usize,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.kernel.borrow_mut().close(self.wire);
    }
}

/// What one shard sees.
#[derive(Debug)]
pub struct Simulated {
    pub kernel: Kernel,
    pub core: usize,
}

impl Simulated {
    /// Every system call takes a while, in which other shards go on: so messages come and rings are emptied in the midst of
    /// a turn.
    fn take_a_while(&self) {
        let chosen = {
            let net = &mut *self.kernel.borrow_mut();
            let (core, chance) = (net.random.below(net.ports.len()), net.random.once_in(6));
            net.meanwhile.clone().filter(|_| chance && core != self.core).map(|meanwhile| (meanwhile, core))
        };
        if let Some((meanwhile, core)) = chosen {
            meanwhile(core);
        }
    }
}

impl World for Simulated {
    type Socket = Socket;

    fn now(&mut self) -> Now {
        let now_us = self.kernel.borrow().now_us;
        Now { monotonic_us: now_us, wall_us: 1_700_000_000_000_000 + now_us }
    }

    fn wait(&mut self, _block: bool, ready: &mut Vec<Ready>) {
        let net = &mut *self.kernel.borrow_mut();
        net.ports[self.core].doorbell.0.store(false, Ordering::Relaxed);
        if net.ports[self.core].listening && !net.ports[self.core].backlog.is_empty() {
            ready.push(Ready { token: Token::Listener(0), readable: true, writable: false, hangup: false });
        }
        let mut edges = net.edges(self.core);
        net.random.shuffle(&mut edges);
        // One wait takes only so many events; the others are for the next.
        let count = if net.random.once_in(4) { net.random.between(0, edges.len()) } else { edges.len() };
        for wire in edges.into_iter().take(count) {
            let wire = &mut net.wires[wire];
            wire.edge = false;
            let Some((slot, generation)) = wire.token else { continue };
            let event = Ready {
                token: Token::Connection { slot, generation },
                readable: wire.has_input(),
                writable: wire.is_writable(),
                hangup: wire.fin_from_client || wire.reset_by_client,
            };
            if event.readable || event.writable {
                ready.push(event);
            }
        }
    }

    fn set_deadline(&mut self, deadline_us: Option<u64>) {
        self.kernel.borrow_mut().ports[self.core].deadline_us = deadline_us;
    }

    fn accept(&mut self, _listener: u16) -> io::Result<Accepted<Socket>> {
        let net = &mut *self.kernel.borrow_mut();
        if net.ports[self.core].backlog.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if net.unkind && net.random.once_in(12) {
            net.counts.out_of_descriptors += 1;
            return Err(io::Error::from_raw_os_error(OUT_OF_DESCRIPTORS));
        }
        let Some(wire) = net.ports[self.core].backlog.pop_front() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        if net.wires[wire].reset_by_client {
            net.close(wire);
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(Accepted { socket: Socket { kernel: Rc::clone(&self.kernel), wire }, address: None })
    }

    fn listen(&mut self, _listener: u16, on: bool) {
        self.kernel.borrow_mut().ports[self.core].listening = on;
    }

    fn register(&mut self, socket: &Socket, slot: u32, generation: u32) -> io::Result<()> {
        let net = &mut *self.kernel.borrow_mut();
        if net.unkind && net.random.once_in(100) {
            net.counts.registrations_refused += 1;
            return Err(ErrorKind::OutOfMemory.into());
        }
        let wire = &mut net.wires[socket.wire];
        wire.token = Some((slot, generation));
        wire.edge = true;
        Ok(())
    }

    fn recv(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        self.take_a_while();
        let net = &mut *self.kernel.borrow_mut();
        if net.unkind && net.random.once_in(200) {
            net.counts.interrupted += 1;
            return Err(ErrorKind::Interrupted.into());
        }
        let wire = &mut net.wires[socket.wire];
        if wire.to_router.is_empty() {
            return match (wire.reset_by_client, wire.fin_from_client) {
                (true, _) => Err(ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(0),
                (false, false) => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let count = buffer.len().min(wire.to_router.len());
        for (to, from) in buffer.iter_mut().zip(wire.to_router.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn send(&mut self, socket: &Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take_a_while();
        let net = &mut *self.kernel.borrow_mut();
        if net.unkind && net.random.once_in(200) {
            net.counts.interrupted += 1;
            return Err(ErrorKind::Interrupted.into());
        }
        let cut = net.unkind && net.random.once_in(8);
        let share = net.random.between(1, 64);
        let wire = &mut net.wires[socket.wire];
        if wire.reset_by_client {
            return Err(ErrorKind::BrokenPipe.into());
        }
        assert!(!wire.fin_from_router, "the router writes after it has shut its side");
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = offered.min(wire.room());
        if cut {
            // The client will read the rest, so room is sure to return.
            taken = taken.min(share);
        }
        wire.to_client.extend(slices.iter().flat_map(|slice| slice.iter()).take(taken));
        if let Some(sent) = net.traffic.lock().ok().as_mut().and_then(|traffic| traffic.get_mut(socket.wire))
        {
            sent.bytes += taken as u64;
            sent.is_refused = taken < offered;
        }
        if taken == offered {
            return Ok(taken);
        }
        wire.wants_room = true;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn shutdown_write(&mut self, socket: &Socket) {
        self.kernel.borrow_mut().wires[socket.wire].fin_from_router = true;
    }
}
