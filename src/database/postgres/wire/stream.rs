//! A socket with or without TLS, read and written by one thread that never waits for the one without the other.
//!
//! A server that is sent many requests at once stops reading when nobody reads its answers. So sending never waits: what
//! the kernel does not take is sent while answers are read.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::Socket;

use super::deadline::Deadline;
use super::error::Error;
use super::tls;

/// The longest that the kernel waits before the deadline is looked at again, and whether the connection was given up.
const WAIT_MS_MAX: u64 = 1024;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    /// The time after which the kernel gives up a read, as it is set now.
    receive_timeout: Option<Duration>,
    /// The server takes nothing more; what it said before may still be read.
    send_over: bool,
    /// Another thread wants nothing of it to be waited for any more.
    given_up: Arc<AtomicBool>,
}

/// One way to the socket, as TLS wants it.
struct Raw<'a> {
    socket: &'a Socket,
    receive: RecvFlags,
}

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.socket, buffer, self.receive).map(|(bytes, _)| bytes)?)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, tls: None, receive_timeout: None, send_over: false, given_up: Arc::default() }
    }

    /// What says that nothing of it is to be waited for any more.
    pub(super) fn given_up(&self) -> &Arc<AtomicBool> {
        &self.given_up
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether what is said here is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The server's certificate (DER).
    pub(super) fn server_certificate(&self) -> Option<&[u8]> {
        let certificates = self.tls.as_ref()?.peer_certificates()?;
        certificates.first().map(AsRef::as_ref)
    }

    /// Agrees on TLS.
    pub(super) fn start_tls(
        &mut self,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let waiting_for = "agreeing on TLS";
        let mut tls =
            ClientConnection::new(Arc::clone(config), name).map_err(|error| Error::Tls(error.to_string()))?;
        let mut raw = Raw { socket: &self.socket, receive: RecvFlags::DONTWAIT };
        while tls.is_handshaking() {
            let wanted = if tls.wants_write() { PollFlags::OUT } else { PollFlags::IN };
            wait(&self.socket, wanted, deadline, waiting_for)?;
            let moved = if tls.wants_write() { tls.write_tls(&mut raw) } else { tls.read_tls(&mut raw) };
            match moved {
                Ok(0) => {
                    return Err(Error::Tls(
                        "the server closed the connection instead of agreeing".to_owned(),
                    ));
                }
                Ok(_) => {}
                Err(error) if is_again(&error) => continue,
                Err(error) => return Err(Error::Tls(format!("the connection broke: {error}"))),
            }
            if let Err(error) = tls.process_new_packets() {
                // It says why in an alert, which the server may log.
                let _ = tls.write_tls(&mut raw);
                return Err(Error::Tls(tls::explain(&error)));
            }
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Sends what the kernel takes at once.
    pub(super) fn send_some(&mut self, bytes: &mut BytesMut) -> Result<(), Error> {
        if self.send_over {
            bytes.clear();
            return Ok(());
        }
        let mut raw = Raw { socket: &self.socket, receive: RecvFlags::DONTWAIT };
        let mut push = || -> io::Result<()> {
            let Some(tls) = &mut self.tls else {
                while !bytes.is_empty() {
                    let sent = raw.write(bytes)?;
                    bytes.advance(sent);
                }
                return Ok(());
            };
            loop {
                while tls.wants_write() {
                    tls.write_tls(&mut raw)?;
                }
                if bytes.is_empty() {
                    return Ok(());
                }
                let taken = tls.writer().write(bytes)?;
                bytes.advance(taken);
            }
        };
        loop {
            match push() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_again(&error) => return Ok(()),
                // The server may have said why: that is still to be read.
                Err(error) if is_gone(&error) => {
                    self.send_over = true;
                    bytes.clear();
                    return Ok(());
                }
                Err(error) => return Err(Error::broken("sending to", &error)),
            }
        }
    }

    /// Sends all of it, for exchanges in which nothing comes back meanwhile.
    pub(super) fn send_all(&mut self, bytes: &mut BytesMut, deadline: Deadline) -> Result<(), Error> {
        loop {
            self.send_some(bytes)?;
            if !self.is_unsent(bytes) {
                return Ok(());
            }
            wait(&self.socket, PollFlags::OUT, deadline, "sending to the database")?;
        }
    }

    fn is_unsent(&self, bytes: &BytesMut) -> bool {
        !self.send_over && (!bytes.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write()))
    }

    /// Reads what has arrived, and sends what is left of `unsent` until something does. 0 is the end.
    pub(super) fn receive(
        &mut self,
        unsent: &mut BytesMut,
        into: &mut [u8],
        deadline: Deadline,
        waiting_for: &'static str,
    ) -> Result<usize, Error> {
        loop {
            if let Some(tls) = &mut self.tls {
                match tls.reader().read(into) {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // PostgreSQL ends without a farewell of TLS. What its messages are tells whether all have come.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                    Err(error) => return Err(Error::broken("reading from", &error)),
                }
            }
            if self.given_up.load(Ordering::Relaxed) {
                return Err(Error::closed("what it was used for was given up"));
            }
            self.send_some(unsent)?;
            let remaining = deadline.remaining();
            // What has arrived already is taken even when the time is over.
            let receive = if self.is_unsent(unsent) {
                if remaining.is_some() {
                    let events = PollFlags::IN | PollFlags::OUT;
                    let soon = deadline.within(Duration::from_millis(WAIT_MS_MAX));
                    let ready = match wait(&self.socket, events, soon, waiting_for) {
                        Err(Error::TimedOut { .. }) => continue,
                        ready => ready?,
                    };
                    if !ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                        continue;
                    }
                }
                RecvFlags::DONTWAIT
            } else if let Some(remaining) = remaining {
                self.set_receive_timeout(remaining)?;
                RecvFlags::empty()
            } else {
                RecvFlags::DONTWAIT
            };
            let mut raw = Raw { socket: &self.socket, receive };
            let read = match &mut self.tls {
                None => raw.read(into),
                Some(tls) => tls.read_tls(&mut raw),
            };
            match read {
                Ok(0) if self.tls.is_some() => {
                    self.process_tls()?;
                    return Ok(0);
                }
                Ok(_) if self.tls.is_some() => self.process_tls()?,
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_again(&error) => {
                    if remaining.is_none() {
                        return Err(Error::TimedOut { waiting_for });
                    }
                }
                Err(error) => return Err(Error::broken("reading from", &error)),
            }
        }
    }

    fn process_tls(&mut self) -> Result<(), Error> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.process_new_packets().map(drop).map_err(|error| Error::Tls(tls::explain(&error)))
    }

    /// Powers of two: the same time again and again needs no system call.
    fn set_receive_timeout(&mut self, remaining: Duration) -> Result<(), Error> {
        let milliseconds = u64::try_from(remaining.as_millis()).unwrap_or(WAIT_MS_MAX).clamp(1, WAIT_MS_MAX);
        let timeout = Duration::from_millis(1 << milliseconds.ilog2());
        if self.receive_timeout != Some(timeout) {
            self.socket
                .set_read_timeout(Some(timeout))
                .map_err(|error| Error::broken("setting a time for", &error))?;
            self.receive_timeout = Some(timeout);
        }
        Ok(())
    }
}

/// Waits for a socket; what it is ready for.
fn wait(
    socket: &Socket,
    events: PollFlags,
    deadline: Deadline,
    waiting_for: &'static str,
) -> Result<PollFlags, Error> {
    loop {
        let remaining = deadline.remaining().ok_or(Error::TimedOut { waiting_for })?;
        let timeout = Timespec::try_from(remaining).ok();
        let mut sockets = [PollFd::new(socket, events)];
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(sockets[0].revents()),
            Err(error) => return Err(Error::broken("waiting for", &error.into())),
        }
    }
}

fn is_again(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}
