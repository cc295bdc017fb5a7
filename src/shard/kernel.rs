//! The real world of a shard: the kernel's sockets, its clock and its epoll.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};

use super::clock;
use super::listener::Listening;
use super::poller::Poller;
use super::world::{Accepted, Ready, World};
use crate::router::Now;

/// The kernel, as one core sees it.
#[derive(Debug)]
pub struct Kernel {
    poller: Poller,
    /// By the number of the listener; `None` where it is not for this core, or closed.
    listeners: Vec<Option<Listening>>,
}

impl Kernel {
    /// Watches the listeners of this core.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(poller: Poller, listeners: Vec<Option<Listening>>) -> io::Result<Self> {
        let mut kernel = Self { poller, listeners };
        for listener in 0..kernel.listeners.len() {
            kernel.watch(listener as u16)?;
        }
        Ok(kernel)
    }

    fn watch(&mut self, listener: u16) -> io::Result<()> {
        match &self.listeners[listener as usize] {
            Some(listening) => self.poller.add_listener(listening, listener, listening.is_shared()),
            None => Ok(()),
        }
    }
}

impl World for Kernel {
    type Socket = OwnedFd;

    fn now(&mut self) -> Now {
        clock::now()
    }

    fn wait(&mut self, block: bool, ready: &mut Vec<Ready>) {
        self.poller.wait(block, ready);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.poller.as_fd())
    }

    fn set_deadline(&mut self, deadline_us: Option<u64>) {
        self.poller.set_deadline(deadline_us);
    }

    fn accept(&mut self, listener: u16) -> io::Result<Accepted<OwnedFd>> {
        match &self.listeners[listener as usize] {
            Some(listening) => listening.accept(),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn listen(&mut self, listener: u16, on: bool) {
        if let Some(listening) = &self.listeners[listener as usize] {
            // Removed first, so that it is never there twice.
            self.poller.remove_listener(listening);
        }
        if on {
            // It was there before: the kernel has had the memory for it.
            let _ = self.watch(listener);
        }
    }

    fn close_listener(&mut self, listener: u16) {
        // Removed first: a socket that other cores share stays open, and would stay in this set.
        if let Some(listening) = self.listeners[listener as usize].take() {
            self.poller.remove_listener(&listening);
        }
    }

    fn register(&mut self, socket: &OwnedFd, slot: u32, generation: u32) -> io::Result<()> {
        self.poller.add_connection(socket, slot, generation)
    }

    fn recv(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = recv(socket, buffer, RecvFlags::empty())?;
        Ok(count)
    }

    fn send(&mut self, socket: &OwnedFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if slices.is_empty() {
            // Not an empty send: a Unix socket refuses that once its peer has closed, however cleanly.
            rustix::net::sockopt::socket_error(socket)??;
            return Ok(0);
        }
        if let [slice] = slices {
            return Ok(send(socket, slice, SendFlags::NOSIGNAL)?);
        }
        Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
    }

    fn shutdown_write(&mut self, socket: &OwnedFd) {
        // A connection that is reset already has nothing to shut.
        let _ = shutdown(socket, Shutdown::Write);
    }
}
