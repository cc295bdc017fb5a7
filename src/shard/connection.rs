//! One connection of a core: socket, link, outbox, and why it is not being read. An idle one holds no buffer.

use std::collections::VecDeque;

use super::outbox::Outbox;
use crate::link::{Encoding, Link, WindowBits};
use crate::router::peer::SessionKey;

/// Why a connection is not read, or its requests wait; a set (R9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Paused(u8);

impl Paused {
    /// It is over its share of bytes under way.
    pub(super) const CREDIT: Self = Self(1);
    /// It published to an outbox that is more than half full.
    pub(super) const HOLD: Self = Self(1 << 1);
    /// Its own outbox is more than half full: its requests wait, everything else passes.
    pub(super) const OUTBOX: Self = Self(1 << 2);
    /// Memory is short, and it publishes.
    pub(super) const MEMORY: Self = Self(1 << 3);
    /// More requests wait than may.
    pub(super) const WAITING: Self = Self(1 << 4);

    /// Its first request waits for a decision: all of them do, everything else passes.
    pub(super) const DECISION: Self = Self(1 << 5);

    /// The reasons for which nothing of the connection is handled.
    const HELD_BACK: Self = Self(Self::CREDIT.0 | Self::HOLD.0 | Self::MEMORY.0);

    pub(super) fn insert(&mut self, reason: Self) -> bool {
        let new = self.0 & reason.0 == 0;
        self.0 |= reason.0;
        new
    }

    pub(super) fn remove(&mut self, reason: Self) -> bool {
        let had = self.0 & reason.0 != 0;
        self.0 &= !reason.0;
        had
    }

    pub(super) fn contains(self, reason: Self) -> bool {
        self.0 & reason.0 != 0
    }

    /// Whether nothing of the connection is handled.
    pub(super) fn held_back(self) -> bool {
        self.contains(Self::HELD_BACK)
    }

    /// Whether the socket is not read.
    pub(super) fn reading(self) -> bool {
        self.held_back() || self.contains(Self::WAITING)
    }

    /// Whether requests wait.
    pub(super) fn requests(self) -> bool {
        self.contains(Self(Self::OUTBOX.0 | Self::DECISION.0))
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake of its link is not complete.
    Handshake,
    /// The link is made; HELLO has not come, or GOODBYE has.
    Linked,
    /// A session is open, or it is an echo link.
    Open,
    /// The last bytes are on their way out; nothing that comes in is heard.
    Closing,
    /// All is sent and the write side is shut; what still comes in is thrown away.
    Lingering,
}

/// Input that could not be handled yet. Allocated when there is some, freed when there is none.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Bytes that were received and not consumed: an incomplete head, or all behind a pause (R9).
    pub(super) unread: Vec<u8>,
    /// Requests that wait, each a whole message, in order.
    pub(super) waiting: VecDeque<Box<[u8]>>,
    /// The bytes of `waiting`.
    pub(super) waiting_bytes: usize,
    /// How many of `waiting` are CANCEL.
    pub(super) waiting_cancels: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.waiting.is_empty()
    }

    /// What it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.unread.capacity() + self.waiting_bytes
    }
}

/// A connection of this core.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) link: Link,
    pub(super) outbox: Outbox,
    pub(super) backlog: Option<Box<Backlog>>,
    pub(super) encoding: Option<Encoding>,
    /// The window of what is compressed for it, if it takes that.
    pub(super) deflate: Option<WindowBits>,
    pub(super) phase: Phase,
    pub(super) paused: Paused,
    /// Beyond a limit: it is told so and can open nothing.
    pub(super) refused: bool,
    pub(super) listener: u16,
    /// Publications of this session that met an outbox more than half full and are held.
    pub(super) holds: u16,
    /// On a dirty list.
    pub(super) dirty: bool,
    /// On the still-readable list.
    pub(super) listed: bool,
    /// On the list of those that are not received from because too much paused input is kept.
    pub(super) starved: bool,
    /// The kernel refused bytes; EPOLLOUT will tell.
    pub(super) blocked: bool,
    /// There may be something to read although no event will say so.
    pub(super) readable: bool,
    /// The end of the stream was read, or is known to be near: recv until it gives 0.
    pub(super) hangup: bool,
    /// The end of the stream was read; what came before it is still waiting.
    pub(super) ended: bool,
    /// The kernel took something of it: the answer to its handshake at least in part.
    pub(super) answered: bool,
    /// A ping is out.
    pub(super) pinged: bool,
    /// Its outbox counts among those over half.
    pub(super) over_half: bool,
    /// Charged and not yet given back, in bytes.
    pub(super) owed: u32,
    /// The longest message that the peer takes.
    pub(super) peer_message_bytes_max: u32,
    /// What its kept input counts in the account of the core, and in which.
    pub(super) kept_bytes: u32,
    pub(super) kept_paused: bool,
    /// When the kernel last took a byte of a blocked outbox, in ticks.
    pub(super) stalled_since: u32,
    /// Bytes thrown away while lingering.
    pub(super) discarded: u32,
    /// When this phase began, in ticks of lived time.
    pub(super) since: u32,
    /// When something was last received, or could not have been because it was not read, in ticks.
    pub(super) last_read: u32,
    /// An index into the table of addresses; `u32::MAX` where addresses have no limits.
    pub(super) address: u32,
}

// The cost sheet: what an idle connection takes, beside its 4 bytes of timer and the router's session.
const _: () = assert!(size_of::<Slot<std::os::fd::OwnedFd>>() <= 176);

/// A place for a connection. Its generation goes up with every tenant.
#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) generation: u32,
    pub(super) connection: Option<Connection<S>>,
}

/// All connections of a core.
#[derive(Debug)]
pub(super) struct Connections<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    /// When each slot's timers are next looked at, in ticks of lived time: dense, because it is scanned.
    pub(super) check_at: Vec<u32>,
}

/// No timer.
pub(super) const NEVER: u32 = u32::MAX;

impl<S> Connections<S> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), check_at: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The key that the next [`Self::insert`] gives.
    pub(super) fn next_key(&self) -> SessionKey {
        match self.free.last() {
            Some(&slot) => SessionKey { slot, generation: self.slots[slot as usize].generation },
            None => SessionKey { slot: self.slots.len() as u32, generation: 0 },
        }
    }

    pub(super) fn insert(&mut self, connection: Connection<S>) -> SessionKey {
        let key = self.next_key();
        if self.free.pop().is_some() {
            self.slots[key.slot as usize].connection = Some(connection);
        } else {
            self.slots.push(Slot { generation: 0, connection: Some(connection) });
            self.check_at.push(NEVER);
        }
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Connection<S>> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.check_at[key.slot as usize] = NEVER;
        self.free.push(key.slot);
        Some(connection)
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Connection<S>> {
        let slot = self.slots.get(key.slot as usize)?;
        (slot.generation == key.generation).then_some(slot.connection.as_ref()).flatten()
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Connection<S>> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation).then_some(slot.connection.as_mut()).flatten()
    }

    /// The key of whoever has this slot.
    pub(super) fn key_at(&self, slot: u32) -> Option<SessionKey> {
        let entry = self.slots.get(slot as usize)?;
        entry.connection.as_ref().map(|_| SessionKey { slot, generation: entry.generation })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        (0..self.slots.len() as u32).filter_map(|slot| self.key_at(slot))
    }
}
