//! Waiting through glommio until a descriptor of any kind can be read.

use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::AsyncRead;
use glommio::net::TcpStream;

/// A descriptor to wait for. glommio waits for its own sockets alone, so it is told that this is one: reading nothing from it
/// first waits until it can be read (POLL_ADD), and then fails, because an epoll set or an eventfd is no socket. That is
/// nothing which glommio promises; its version is pinned and a test below covers it.
pub(super) struct Readable {
    descriptor: OwnedFd,
    /// The wait that is under way. It outlives those who no longer want to wait, so that nothing has to be cancelled.
    waiting: Option<ManuallyDrop<TcpStream>>,
}

impl Readable {
    /// For a descriptor that is not this one's to close.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub(super) fn new(descriptor: impl AsFd) -> io::Result<Self> {
        Ok(Self { descriptor: descriptor.as_fd().try_clone_to_owned()?, waiting: None })
    }

    /// Whether it can be read; it may turn out that it cannot. To be asked on an executor of glommio.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let descriptor = &self.descriptor;
        let waiting = self.waiting.get_or_insert_with(|| borrowed(descriptor));
        let polled = Pin::new(&mut **waiting).poll_read(context, &mut []);
        polled.map(|_not_a_socket| {
            // It would not wait again. What is left of it holds nothing: glommio has let go of what it waited on.
            self.waiting = None;
        })
    }

    /// Waits until it can be read.
    pub(super) async fn wait(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }
}

/// A stream that never closes its descriptor.
#[expect(unsafe_code, reason = "glommio makes a stream of a descriptor in no other way")]
fn borrowed(descriptor: &OwnedFd) -> ManuallyDrop<TcpStream> {
    // SAFETY: the descriptor is open, and stays so for as long as the stream is used: both are fields of one `Readable`,
    // which lends neither. The stream is never dropped, so the descriptor is closed once, by its owner. That it is no
    // socket breaks no promise: system calls on it fail.
    ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor.as_raw_fd()) })
}

#[cfg(test)]
mod tests {
    use glommio::{LocalExecutorBuilder, Placement};
    use rustix::event::{EventfdFlags, epoll, eventfd};
    use rustix::io::{read, write};

    use super::*;

    #[test]
    fn epoll_sets_and_eventfds_are_waited_for() {
        let made =
            std::thread::spawn(|| LocalExecutorBuilder::new(Placement::Unbound).make().map(drop)).join();
        if !matches!(made, Ok(Ok(()))) {
            eprintln!("not tested: there is no io_uring");
            return;
        }
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make().unwrap();
        executor.run(async {
            let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            epoll::add(&set, &bell, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
            let always = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
            let mut always = Readable::new(always).unwrap();
            let (mut bell_rung, mut set_ready) = (Readable::new(&bell).unwrap(), Readable::new(set).unwrap());
            for _ in 0..3 {
                for _ in 0..3 {
                    always.wait().await;
                    for readable in [&mut bell_rung, &mut set_ready] {
                        let polled = poll_fn(|context| Poll::Ready(readable.poll(context))).await;
                        assert_eq!(polled, Poll::Pending);
                    }
                }
                write(&bell, &1u64.to_ne_bytes()).unwrap();
                bell_rung.wait().await;
                set_ready.wait().await;
                read(&bell, &mut [0; 8]).unwrap();
            }
        });
    }
}
