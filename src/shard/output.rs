//! Bytes on their way out: the flush, and the end of a connection.

use std::io::{ErrorKind, IoSlice};

use super::connection::{Paused, Phase};
use super::core::Core;
use super::world::World;
use super::{CLOSES_A_TURN, Shard};
use crate::router::effects::Effects;
use crate::router::peer::SessionKey;
use crate::wamp::CloseReason;

/// What a farewell takes of an outbox, at most: ABORT with its text, and the link's own close.
const FAREWELL_BYTES_MAX: usize = 1024;

/// How many pieces one system call takes.
const SLICES_MAX: usize = 64;

impl<W: World> Core<W> {
    /// Flushes all replies and small fan-outs, and of the large ones what a turn permits.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            self.flush_listed(key);
        }
        // What became dirty meanwhile (a connection with more pieces than one call takes) is for the next turn.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
        let count = self.bulk.len().min(self.limits.turn_flush_bulk_max);
        for _ in 0..count {
            let Some(key) = self.bulk.pop_front() else { break };
            self.bulk_flushed += 1;
            self.flush_listed(key);
        }
        if !self.bulk.is_empty() {
            self.counters.flush_cut += 1;
        }
    }

    fn flush_listed(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.dirty = false;
            self.flush_connection(key);
        }
    }

    /// One send. What the kernel refuses waits for EPOLLOUT.
    pub(super) fn flush_connection(&mut self, key: SessionKey) {
        let now_us = self.now.monotonic_us;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.blocked {
            return;
        }
        if connection.outbox.is_empty() {
            self.flushed(key);
            return;
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = connection.outbox.fill_slices(&mut slices);
        let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        self.counters.sends += 1;
        let taken = match self.world.send(&connection.socket, &slices[..count]) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                // Nothing was refused, so no event will say that there is room.
                self.list_dirty(key);
                return;
            }
            Err(_) => {
                self.broken.push(key);
                return;
            }
        };
        self.counters.bytes_sent += taken as u64;
        connection.answered |= taken > 0;
        let tick = self.lived.tick();
        let was_refused = connection.outbox.last_accepted_us().is_some();
        if taken > 0 || !was_refused {
            connection.stalled_since = tick;
        }
        let before = connection.outbox.bytes();
        connection.outbox.consume(now_us, taken, &mut self.pool);
        let after = connection.outbox.bytes();
        self.outbox_bytes -= before - after;
        if after == 0 && was_refused && connection.pinged && connection.phase == Phase::Open {
            // The ping has waited among what was refused, and has only now left.
            connection.since = tick;
        }
        if taken < offered {
            connection.blocked = true;
            if taken == 0 {
                self.counters.send_refused += 1;
            } else {
                self.counters.send_partial += 1;
            }
            let patience = self.lived.ticks(self.limits.slow_consumer_timeout);
            self.check_by(key, self.lived.tick().saturating_add(patience));
        } else if after > 0 {
            self.list_dirty(key);
        }
        self.update_half(key);
        if after == 0 {
            self.flushed(key);
        }
    }

    /// Marks a connection to be flushed.
    pub(super) fn list_dirty(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    pub(super) fn update_half(&mut self, key: SessionKey) {
        let half = self.limits.outbox_hard_bytes / 2;
        if let Some(connection) = self.connections.get_mut(key)
            && connection.over_half
            && connection.outbox.bytes() <= half
        {
            connection.over_half = false;
            self.over_half -= 1;
            if connection.paused.remove(Paused::OUTBOX) {
                // Its requests wait in the backlog: no event will say so.
                self.list_readable(key);
            }
        }
    }

    /// Everything is sent: a connection that closes can shut its write side now.
    fn flushed(&mut self, key: SessionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase != Phase::Closing {
            return;
        }
        // A peer that has ended its side has nothing left that a reset could hurt.
        if connection.ended || self.lingering >= self.limits.lingering_per_core_max {
            self.free(key);
            return;
        }
        self.world.shutdown_write(&connection.socket);
        connection.phase = Phase::Lingering;
        self.lingering += 1;
        connection.readable = true;
        self.list_readable(key);
    }

    /// Whether the connection is broken for good; one that its peer only has ended is not.
    pub(super) fn is_reset(&mut self, key: SessionKey) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        loop {
            match self.world.send(&connection.socket, &[]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
                Ok(_) => return false,
            }
        }
    }

    /// The kernel has room again.
    pub(super) fn handle_writable(&mut self, key: SessionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.blocked {
            return;
        }
        connection.blocked = false;
        self.list_dirty(key);
    }

    /// Reads and throws away, so that close() does not become a reset that takes the farewell with it.
    pub(super) fn discard(&mut self, key: SessionKey, scratch: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.readable = false;
        let ended = match self.world.recv(&connection.socket, scratch) {
            Ok(0) => {
                connection.ended = true;
                true
            }
            Ok(count) => {
                connection.discarded = connection.discarded.saturating_add(count as u32);
                connection.readable = true;
                connection.discarded as usize > self.limits.linger_bytes_max
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                connection.readable = true;
                false
            }
            Err(_) => {
                self.free(key);
                return;
            }
        };
        if ended && connection.phase == Phase::Lingering {
            self.free(key);
        } else if connection.readable {
            self.list_readable(key);
        }
    }
}

impl<W: World> Shard<W> {
    /// Ends the connections that broke while something was written to them.
    pub(super) fn close_broken(&mut self) {
        while let Some(key) = self.core.broken.pop() {
            let Some(connection) = self.core.connections.get(key) else { continue };
            if matches!(connection.phase, Phase::Closing | Phase::Lingering) {
                self.core.free(key);
            } else {
                self.close(key, CloseReason::Reset);
            }
        }
        while let Some(key) = self.core.doomed.pop() {
            self.close(key, CloseReason::SlowConsumer);
        }
    }

    /// Ends a connection for a reason of the shard's own.
    pub(super) fn close(&mut self, key: SessionKey, reason: CloseReason) {
        if self.core.connections.get(key).is_some_and(|connection| connection.phase == Phase::Handshake) {
            // The router has not heard of it.
            Effects::close(&mut self.core, key, reason, None);
        } else {
            self.router.handle_close(self.core.now, key, reason, &mut self.core);
            if self
                .core
                .connections
                .get(key)
                .is_some_and(|connection| connection.phase == Phase::Open && connection.encoding.is_none())
            {
                // An echo link has no session.
                Effects::close(&mut self.core, key, reason, None);
            }
        }
    }

    /// Closes the connections with the largest outboxes, until all outboxes hold what they are to be shed to; in the next
    /// turn it goes on.
    pub(super) fn close_largest_outboxes(&mut self) {
        self.core.closes_are_left = false;
        let Some(to_bytes) = self.core.shed_to_bytes else { return };
        let mut largest = Vec::new();
        if self.core.outbox_bytes > to_bytes {
            largest = self.core.largest(|connection| connection.outbox.bytes());
        }
        let is_cut = largest.len() == CLOSES_A_TURN;
        while self.core.outbox_bytes > to_bytes
            && let Some((bytes, key)) = largest.pop()
        {
            let phase = self.core.connections.get(key).map(|connection| connection.phase);
            if phase != Some(Phase::Closing) {
                self.close(key, CloseReason::OutOfMemory);
            }
            // It ends, its reason is counted, and what it does not take is not worth anybody else's end: neither what waits
            // for a farewell to be read, nor the rest of a long frame that is half sent.
            let left = self.core.connections.get(key).map_or(0, |connection| connection.outbox.bytes());
            if phase == Some(Phase::Closing) || left > bytes / 2 + FAREWELL_BYTES_MAX {
                self.core.free(key);
            }
        }
        if is_cut && self.core.outbox_bytes > to_bytes {
            self.core.closes_are_left = true;
        } else {
            self.core.shed_to_bytes = None;
        }
    }

    /// Closes the connections that keep the most input, while all of it is over its bound.
    pub(super) fn close_largest_inputs(&mut self) {
        let bound = self.core.limits.partial_bytes_per_core_max;
        if self.core.partial_bytes <= bound {
            return;
        }
        let mut largest = self
            .core
            .largest(|connection| if connection.kept_paused { 0 } else { connection.kept_bytes as usize });
        let is_cut = largest.len() == CLOSES_A_TURN;
        while self.core.partial_bytes > bound
            && let Some((_, key)) = largest.pop()
        {
            self.close(key, CloseReason::OutOfMemory);
        }
        self.core.closes_are_left |= is_cut && self.core.partial_bytes > bound;
    }
}
