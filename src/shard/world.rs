//! What a shard stands in: sockets, listeners, a clock and a way to wait, behind one small trait.
//!
//! In production it is the kernel ([`super::kernel`]); in the simulation, seeded chance.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::router::Now;

/// What waits for whom: tokens come back with readiness as they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A connection, by slot and generation.
    Connection {
        /// Its slot.
        slot: u32,
        /// Its generation: an event for an earlier tenant of the slot is stale.
        generation: u32,
    },
    /// A listener, by number.
    Listener(u16),
}

/// A socket or listener that something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whose.
    pub token: Token,
    /// There may be something to read, an end of stream included.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The peer has closed its side, or the connection is reset: reading will tell, once all before it is read.
    pub hangup: bool,
}

/// A connection fresh from a listener.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The socket, non-blocking, its options set.
    pub socket: S,
    /// The peer's address; `None` for Unix sockets and for loopback, which have no limits by address.
    pub address: Option<IpAddr>,
}

/// Everything outside of a shard, on one core.
pub trait World {
    /// A connected socket; dropping it closes it.
    type Socket;

    /// The time. Read once a turn.
    fn now(&mut self) -> Now;

    /// Appends what became ready. With `block`, waits until something does, the doorbell rings, or the time that
    /// [`Self::set_deadline`] last said has come; spurious returns are fine.
    fn wait(&mut self, block: bool, ready: &mut Vec<Ready>);

    /// What can be read when a blocking wait would return at once, to be waited for in some other way. A world that has none
    /// keeps its shard from sleeping while its host has something else to do.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When the next blocking wait must end, in monotonic microseconds; `None` is never.
    fn set_deadline(&mut self, deadline_us: Option<u64>);

    /// Takes the next connection of a listener.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; EMFILE and ENFILE when there are no descriptors; others concern one
    /// connection that is gone already.
    fn accept(&mut self, listener: u16) -> io::Result<Accepted<Self::Socket>>;

    /// Stops or resumes hearing of a listener's connections.
    fn listen(&mut self, listener: u16, on: bool);

    /// Closes a listener: from here on the kernel refuses those who come, and others may listen there.
    fn close_listener(&mut self, listener: u16) {
        self.listen(listener, false);
    }

    /// Watches a socket for as long as it lives, edge-triggered.
    ///
    /// # Errors
    /// The kernel's.
    fn register(&mut self, socket: &Self::Socket, slot: u32, generation: u32) -> io::Result<()>;

    /// Reads what there is, at most the buffer's length. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock`, or what ended the connection.
    fn recv(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;

    /// Offers these bytes; returns how many were taken. Without any it finds out whether the connection is broken.
    ///
    /// # Errors
    /// `WouldBlock`, or what ended the connection.
    fn send(&mut self, socket: &Self::Socket, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Says that nothing more will be written.
    fn shutdown_write(&mut self, socket: &Self::Socket);
}
