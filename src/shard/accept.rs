//! New connections, and what keeps them out: limits, memory, a lack of descriptors.

use std::io;

use super::addresses::UNLIMITED;
use super::connection::{Connection, Paused, Phase};
use super::core::{Core, MemoryLevel};
use super::outbox::Outbox;
use super::world::{Accepted, World};
use crate::link::Link;

/// How many connections one listener may bring in one turn.
const ACCEPTS_A_TURN: usize = 64;

/// Connections beyond a limit are told so, once their first bytes say in which protocol: so many of a core at a time, and the
/// rest is cut off. All cores together stay well below the descriptors that are reserved beside the connections.
const REFUSED_PER_CORE_MAX: usize = 64;
const REFUSED_PER_PROCESS_MAX: usize = 128;

/// After a lack of descriptors accepting pauses for this long, twice as long each time, in microseconds.
const BACKOFF_MIN_US: u64 = 10_000;
const BACKOFF_MAX_US: u64 = 1_000_000;

impl<W: World> Core<W> {
    /// Takes what a listener has, as long as it may.
    pub(super) fn accept(&mut self, listener: u16) {
        if !self.accepting {
            return;
        }
        for _ in 0..ACCEPTS_A_TURN {
            match self.world.accept(listener) {
                Ok(accepted) => self.admit(listener, accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_out_of_descriptors(&error) => {
                    self.pause_accepting();
                    return;
                }
                // This one was gone before it came.
                Err(_) => {}
            }
        }
    }

    /// EMFILE: the next attempt is not at once, and nobody spins.
    fn pause_accepting(&mut self) {
        self.counters.accept_paused += 1;
        self.accept_backoff_us = (self.accept_backoff_us * 2).clamp(BACKOFF_MIN_US, BACKOFF_MAX_US);
        self.accept_paused_until_us = Some(self.now.monotonic_us + self.accept_backoff_us);
        self.update_accepting();
    }

    /// Hears of new connections, or not, as things stand.
    pub(super) fn update_accepting(&mut self) {
        if self.accept_paused_until_us.is_some_and(|until_us| until_us <= self.now.monotonic_us) {
            self.accept_paused_until_us = None;
        }
        let accepting = !self.stopping
            && self.memory < MemoryLevel::High
            && self.accept_paused_until_us.is_none()
            && !self.mesh_is_full();
        if accepting != self.accepting {
            self.accepting = accepting;
            for listener in 0..self.links.len() as u16 {
                self.world.listen(listener, accepting);
            }
        }
    }

    /// Nobody comes in any more, and whoever tries is told so at once by the kernel.
    pub(super) fn close_listeners(&mut self) {
        for listener in 0..self.links.len() as u16 {
            self.world.close_listener(listener);
        }
    }

    /// Whether some other core is so far behind that nothing new may come in (R8).
    pub(super) fn mesh_is_full(&self) -> bool {
        self.is_behind_with_news
            || (0..usize::from(self.cores))
                .filter(|core| *core != usize::from(self.id.0))
                .any(|core| self.mesh.bytes_queued(core) > self.limits.ring_bytes_max as u64)
    }

    fn admit(&mut self, listener: u16, accepted: Accepted<W::Socket>) {
        self.accept_backoff_us = 0;
        let connections_max = self.limits.connections_max.unwrap_or(usize::MAX);
        let address = if self.mesh.take_place(connections_max) {
            let address = self.addresses.opened(accepted.address, self.now.monotonic_us);
            if address.is_none() {
                self.mesh.free_place();
            }
            address
        } else {
            None
        };
        let refused = address.is_none();
        let refused_max = REFUSED_PER_CORE_MAX.min(REFUSED_PER_PROCESS_MAX / usize::from(self.cores));
        if refused && self.refused >= refused_max {
            self.counters.connections_refused += 1;
            return;
        }
        // Of those that are refused none counts for its address.
        let address = address.unwrap_or(UNLIMITED);
        let key = self.connections.next_key();
        if self.world.register(&accepted.socket, key.slot, key.generation).is_err() {
            self.addresses.closed(address);
            if !refused {
                self.mesh.free_place();
            }
            self.counters.connections_refused += 1;
            return;
        }
        if refused {
            self.counters.connections_refused += 1;
            self.refused += 1;
        } else {
            self.counters.connections_accepted += 1;
        }
        let tick = self.lived.tick();
        let key = self.connections.insert(Connection {
            socket: accepted.socket,
            link: Link::new(),
            outbox: Outbox::default(),
            backlog: None,
            encoding: None,
            deflate: None,
            phase: Phase::Handshake,
            paused: Paused::default(),
            refused,
            listener,
            holds: 0,
            dirty: false,
            listed: false,
            starved: false,
            blocked: false,
            readable: false,
            hangup: false,
            ended: false,
            answered: false,
            pinged: false,
            over_half: false,
            owed: 0,
            peer_message_bytes_max: u32::MAX,
            kept_bytes: 0,
            kept_paused: false,
            stalled_since: tick,
            discarded: 0,
            since: tick,
            last_read: tick,
            address,
        });
        let timeout = self.lived.ticks(self.limits.handshake_timeout);
        self.check_by(key, tick.saturating_add(timeout));
        debug_assert!(address == UNLIMITED || accepted.address.is_some());
    }
}

/// EMFILE (this process) and ENFILE (the machine); ENOBUFS and ENOMEM pass as well when somebody closes.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
