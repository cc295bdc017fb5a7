//! The client's end of one connection: RawSocket with JSON, without blocking.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// The handshake: messages of up to 16 MiB are taken, in JSON.
const HELLO: [u8; 4] = [0x7f, 0xf1, 0, 0];

const HEADER_BYTES: usize = 4;
const MESSAGE: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;

/// How much is read at a time, and in one turn.
const READ_BYTES: usize = 64 << 10;
const TURN_BYTES_MAX: usize = 1 << 20;

/// The longest message that a length of three bytes can say.
const LENGTH_MAX: usize = (1 << 24) - 1;

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    stream: UnixStream,
    input: Vec<u8>,
    /// So much of it was taken.
    taken: usize,
    output: Vec<u8>,
    /// So much of it was written.
    written: usize,
    /// The longest message that the router takes; `None` before it has said so.
    message_bytes_max: Option<usize>,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// The router takes messages from now on.
    Ready,
    Message(String),
    /// Nothing more is there.
    Nothing,
}

impl Session {
    /// Begins with the handshake.
    pub(super) fn new(stream: UnixStream) -> Self {
        let (input, output) = (Vec::new(), HELLO.to_vec());
        Self { stream, input, taken: 0, output, written: 0, message_bytes_max: None }
    }

    /// Queues a message; `false`: it is longer than the router takes.
    pub(super) fn send(&mut self, message: &str) -> bool {
        if message.len() > self.message_bytes_max.unwrap_or_default().min(LENGTH_MAX) {
            return false;
        }
        self.put(MESSAGE, message.as_bytes());
        true
    }

    fn put(&mut self, kind: u8, payload: &[u8]) {
        let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
        self.output.push(kind);
        self.output.extend_from_slice(&length);
        self.output.extend_from_slice(payload);
    }

    /// What waits to be written, in bytes.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes what can be written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.unsent() > 0 {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        if self.output.capacity() > READ_BYTES {
            self.output.shrink_to(READ_BYTES);
        }
        Ok(())
    }

    /// Reads what is there, but not for ever. `false` at its end.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let (mut buffer, mut count) = ([0; READ_BYTES], 0);
        while count < TURN_BYTES_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.input.extend_from_slice(&buffer[..read]);
                    count += read;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next of what was read.
    ///
    /// # Errors
    /// It is no RawSocket, or the router does not let anybody in.
    pub(super) fn next(&mut self) -> Result<Came, String> {
        loop {
            let rest = &self.input[self.taken..];
            let Some((header, rest)) = rest.split_at_checked(HEADER_BYTES) else { break };
            if self.message_bytes_max.is_none() {
                self.taken += HEADER_BYTES;
                let [0x7f, choice, 0, 0] = *header else { return Err("it speaks no RawSocket".to_owned()) };
                if choice & 0xf != 1 {
                    return Err("the router has as many connections as it may have".to_owned());
                }
                self.message_bytes_max = Some(1 << (9 + (choice >> 4)));
                return Ok(Came::Ready);
            }
            let (kind, length) = (header[0], u32::from_be_bytes([0, header[1], header[2], header[3]]));
            // 2^24 is written as a bit of its own.
            let length = if kind & 0b1000 != 0 { 1 << 24 } else { length as usize };
            let Some(payload) = rest.get(..length) else { break };
            self.taken += HEADER_BYTES + length;
            match kind & 0b111 {
                MESSAGE => {
                    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
                    return Ok(Came::Message(text.to_owned()));
                }
                PING => {
                    let payload = payload.to_vec();
                    self.put(PONG, &payload);
                }
                _ => {}
            }
        }
        self.input.drain(..self.taken);
        self.taken = 0;
        if self.input.is_empty() && self.input.capacity() > READ_BYTES {
            self.input = Vec::new();
        }
        Ok(Came::Nothing)
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
