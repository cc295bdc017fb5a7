//! A way in for threads of this process: connections that never pass through the network.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

/// How many may wait to be let in.
const WAITING_MAX: usize = 64;

/// One way in, to one core.
#[derive(Debug)]
pub struct Entrance {
    waiting: ArrayQueue<OwnedFd>,
    /// Readable while somebody may wait.
    bell: OwnedFd,
}

impl Entrance {
    /// A way in that nobody has come by.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { waiting: ArrayQueue::new(WAITING_MAX), bell }))
    }

    /// Goes in. What comes back is the client's end, which does not block.
    ///
    /// # Errors
    /// `WouldBlock` while too many wait already; the kernel's.
    pub fn enter(&self) -> io::Result<UnixStream> {
        let (client, router) = UnixStream::pair()?;
        client.set_nonblocking(true)?;
        router.set_nonblocking(true)?;
        self.waiting.push(router.into()).map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        // It could fail only by overflow.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        Ok(client)
    }

    /// The next who waits.
    ///
    /// # Errors
    /// `WouldBlock`: there is none.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        if let Some(socket) = self.waiting.pop() {
            return Ok(socket);
        }
        // Silenced first and looked at again: who comes later rings.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.waiting.pop().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

impl AsFd for Entrance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn who_comes_in_is_taken_once_and_there_are_not_too_many() {
        let entrance = Entrance::new().unwrap();
        assert_eq!(entrance.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut clients: Vec<_> = (0..WAITING_MAX).map(|_| entrance.enter().unwrap()).collect();
        assert_eq!(entrance.enter().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for (number, client) in (0..).zip(&mut clients) {
            client.write_all(&[number]).unwrap();
            let mut router = UnixStream::from(entrance.take().unwrap());
            let mut byte = [0];
            router.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [number]);
        }
        assert_eq!(entrance.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut bell = [0; 8];
        assert!(rustix::io::read(&entrance.bell, &mut bell).is_err(), "it is silent again");
    }
}
