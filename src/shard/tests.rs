//! A shard among connections that only stand there: what one turn may end.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use super::mesh::{Doorbell, SharedDoorbell};
use super::world::{Accepted, World};
use super::*;
use crate::config;
use crate::router::effects::Sent;
use crate::router::{Door, Now, RouterConfig};

/// Enough for several turns.
const CONNECTIONS: usize = 3 * CLOSES_A_TURN + 7;

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

const BEGINNING: &str = "GET /ws HTTP/1.1\r\nHost: local";

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: local\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n";

/// Sockets that send a request, or the beginning of one, and then neither send nor take anything.
#[derive(Default)]
struct Standing {
    now_us: u64,
    request: &'static str,
    arriving: usize,
    /// Whether each socket, by number, has still to send its request.
    unread: Vec<bool>,
    listening: bool,
}

impl World for Standing {
    type Socket = usize;

    fn now(&mut self) -> Now {
        Now { monotonic_us: self.now_us, wall_us: self.now_us }
    }

    fn wait(&mut self, _block: bool, ready: &mut Vec<Ready>) {
        if self.arriving > 0 {
            ready.push(Ready { token: Token::Listener(0), readable: true, writable: false, hangup: false });
        }
        for (slot, unread) in self.unread.iter().enumerate().filter(|(_, unread)| **unread) {
            let token = Token::Connection { slot: slot as u32, generation: 0 };
            ready.push(Ready { token, readable: *unread, writable: false, hangup: false });
        }
    }

    fn set_deadline(&mut self, _deadline_us: Option<u64>) {}

    fn accept(&mut self, _listener: u16) -> io::Result<Accepted<usize>> {
        if self.arriving == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.arriving -= 1;
        self.unread.push(true);
        Ok(Accepted { socket: self.unread.len() - 1, address: None })
    }

    fn listen(&mut self, _listener: u16, on: bool) {
        self.listening = on;
    }

    fn register(&mut self, _socket: &usize, _slot: u32, _generation: u32) -> io::Result<()> {
        Ok(())
    }

    fn recv(&mut self, socket: &usize, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::take(&mut self.unread[*socket]) {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffer[..self.request.len()].copy_from_slice(self.request.as_bytes());
        Ok(self.request.len())
    }

    fn send(&mut self, _socket: &usize, _slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn shutdown_write(&mut self, _socket: &usize) {}
}

/// A shard with as many connections, each of which has sent the beginning of its request.
fn shard() -> Shard<Standing> {
    let shard = shard_of(CONNECTIONS, BEGINNING);
    assert!(shard.core.partial_bytes > 0);
    shard
}

/// A shard with so many connections, each of which has sent this.
fn shard_of(connections: usize, request: &'static str) -> Shard<Standing> {
    shard_with(connections, request, [7; 32])
}

fn shard_with(connections: usize, request: &'static str, seed: [u8; 32]) -> Shard<Standing> {
    let config = config::parse("", "[[listener]]\nport = 1\n", &[]).unwrap();
    let listener = config.listeners[0].clone();
    let router = RouterConfig {
        realms: config.realms.clone(),
        limits: config.limits.clone(),
        doors: vec![Door::from(&listener)],
        publishers: Vec::new(),
    };
    let mesh = mesh::connect(16, vec![Arc::new(Silent) as SharedDoorbell]).pop().unwrap();
    let mut shard = Shard::new(ShardParts {
        core: CoreId(0),
        limits: Arc::new(config.limits.clone()),
        links: vec![LinkConfig { listener, limits: config.limits }],
        router: Router::new(&router, CoreId(0), 1, seed),
        world: Standing { now_us: 1_000_000, request, arriving: connections, ..Standing::default() },
        mesh,
        control: Arc::default(),
    });
    let has_all = |world: &Standing| world.unread.len() == connections && !world.unread.contains(&true);
    while !has_all(&shard.core.world) || !shard.is_idle() {
        assert_eq!(shard.turn(true), Turn::Continue);
    }
    shard
}

fn change_limits(shard: &mut Shard<Standing>, change: impl FnOnce(&mut Limits)) {
    let mut limits = Limits::clone(&shard.core.limits);
    change(&mut limits);
    shard.core.limits = Arc::new(limits);
}

/// Sleeps until the next deadline and a little longer.
fn sleep(shard: &mut Shard<Standing>) {
    assert!(shard.fall_asleep());
    let deadline_us = shard.next_deadline_us().unwrap();
    shard.core.world.now_us = deadline_us + 50_000;
    shard.core.mesh.awake();
}

/// Takes turns until the shard may sleep; how many `count` grew by in each.
fn turns(shard: &mut Shard<Standing>, count: impl Fn(&Shard<Standing>) -> u64) -> Vec<u64> {
    let mut grown = Vec::new();
    loop {
        let before = count(shard);
        assert_eq!(shard.turn(false), Turn::Continue);
        grown.push(count(shard) - before);
        if shard.is_idle() {
            return grown;
        }
    }
}

fn closed(reason: CloseReason) -> impl Fn(&Shard<Standing>) -> u64 {
    move |shard| shard.core.counters.closed[reason as usize]
}

/// Some in every turn, and never more than one may end.
fn assert_cut(grown: &[u64], sum: usize) {
    assert!(grown.iter().all(|count| *count <= CLOSES_A_TURN as u64), "{grown:?}");
    assert_eq!(grown.iter().sum::<u64>(), sum as u64, "{grown:?}");
}

#[test]
fn timers_end_so_many_connections_a_turn() {
    let mut shard = shard();
    while shard.core.lived.tick() < shard.core.lived.ticks(shard.core.limits.handshake_timeout) {
        sleep(&mut shard);
        shard.core.now = shard.core.world.now();
        shard.core.lived.advance(shard.core.now.monotonic_us);
    }
    let grown = turns(&mut shard, closed(CloseReason::HandshakeTimeout));
    assert_cut(&grown, CONNECTIONS);
    assert!(grown.len() > CONNECTIONS / CLOSES_A_TURN, "{grown:?}");
    // Nobody takes the farewell.
    assert_eq!(shard.core.connections.len(), CONNECTIONS);
    sleep(&mut shard);
    let gone = |shard: &Shard<Standing>| (CONNECTIONS - shard.core.connections.len()) as u64;
    assert_cut(&turns(&mut shard, gone), CONNECTIONS);
}

#[test]
fn a_bound_of_all_outboxes_ends_so_many_connections_a_turn_and_the_largest_first() {
    let mut shard = shard();
    let keys: Vec<_> = shard.core.connections.keys().collect();
    for (index, key) in keys.iter().enumerate() {
        let _ = shard.core.push_bytes(*key, &vec![0; 10_000 + index], 0);
    }
    let all = shard.core.outbox_bytes;
    shard.control.set_memory(MemoryLevel::Critical);
    let grown = turns(&mut shard, closed(CloseReason::OutOfMemory));
    assert!(shard.core.outbox_bytes <= all / 2);
    let ended: u64 = grown.iter().sum();
    assert_cut(&grown, ended as usize);
    assert!((CONNECTIONS as u64 * 4 / 10..=CONNECTIONS as u64 / 2 + 10).contains(&ended), "{grown:?}");
    let (small, large) = keys.split_at(keys.len() - ended as usize);
    let is_open = |key: &SessionKey| {
        shard.core.connections.get(*key).is_some_and(|connection| connection.phase == Phase::Handshake)
    };
    assert!(small.iter().all(is_open) && !large.iter().any(is_open));
}

#[test]
fn a_bound_of_all_input_ends_so_many_connections_a_turn() {
    let mut shard = shard();
    change_limits(&mut shard, |limits| limits.partial_bytes_per_core_max = 0);
    assert_cut(&turns(&mut shard, closed(CloseReason::OutOfMemory)), CONNECTIONS);
    assert_eq!(shard.core.partial_bytes, 0);
}

#[test]
fn a_stop_closes_the_listeners_and_ends_so_many_connections_a_turn() {
    let mut shard = shard();
    shard.core.world.listening = true;
    shard.control.give_order(Order::Stop);
    assert_cut(&turns(&mut shard, closed(CloseReason::SystemShutdown)), CONNECTIONS);
    assert!(!shard.core.world.listening);
}

#[test]
fn who_has_no_room_for_a_ping_is_not_waited_for() {
    let mut shard = shard_of(1, HANDSHAKE);
    let key = shard.core.connections.keys().next().unwrap();
    assert!(shard.core.begin_probe(key));
    assert_eq!((shard.core.probes.len(), shard.core.counters.pings), (1, 1));
    shard.core.probes.clear();
    let room = shard.core.limits.outbox_hard_bytes + shard.core.tuning.reply_reserve_bytes;
    let held = shard.core.outbox_bytes;
    // Hardly anything is left, and no frame of a ping fits into it.
    assert_eq!(shard.core.push_bytes(key, &vec![0; room - held - 2], room), Sent::Accepted);
    assert!(!shard.core.begin_probe(key));
    assert_eq!((shard.core.probes.len(), shard.core.counters.pings), (0, 1));
}

#[test]
fn nobody_knows_which_addresses_meet_in_the_table() {
    let address = "192.0.2.1".parse().unwrap();
    let places: Vec<u64> =
        (1..=3).map(|seed| shard_with(0, BEGINNING, [seed; 32]).core.addresses.hash_of(address)).collect();
    assert!(places[0] != places[1] && places[1] != places[2] && places[0] != places[2], "{places:?}");
}
