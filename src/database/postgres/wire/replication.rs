//! A session that streams the write-ahead log: CopyBoth, in which either side speaks when it likes.

use postgres_protocol::message::frontend::{CopyData, copy_done};

use super::connection::Connection;
use super::deadline::Deadline;
use super::error::Error;
use super::inbox::letter;
use super::message::{Message, Reader};
use super::requests::Expected;

/// A stream that was begun. Every `wal_sender_timeout` (a minute, unless the server says otherwise) the server wants to
/// hear [`Replication::send_status`], or it ends the stream.
#[derive(Debug)]
pub struct Replication {
    connection: Connection,
    ended: bool,
}

/// What the stream brings.
#[derive(Debug, Eq, PartialEq)]
pub enum Replicated<'a> {
    /// A piece of the log, as the plugin of the slot wrote it.
    Data {
        /// Where it is in the log.
        start: u64,
        /// Where the log ends on the server.
        end: u64,
        /// The server's clock: microseconds since 2000.
        clock_us: i64,
        /// The piece, until the next call.
        data: &'a [u8],
    },
    /// The server shows that it is there.
    KeepAlive {
        /// Where the log ends on the server.
        end: u64,
        /// The server's clock: microseconds since 2000.
        clock_us: i64,
        /// Whether it wants to hear of us at once.
        reply_wanted: bool,
    },
    /// A piece that is larger than `message_bytes_max` was passed over.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The server ended the stream.
    Ended,
}

impl Connection {
    /// Runs `START_REPLICATION`. The session must be one for replication ([`super::Settings::replication`]).
    ///
    /// # Errors
    /// The server refused, or anything else; the session is closed then.
    pub fn into_replication(mut self, command: &str, deadline: Deadline) -> Result<Replication, Error> {
        self.check_idle()?;
        self.requests.query(command)?;
        self.send()?;
        loop {
            let frame = self.frame(deadline, "the stream of the log to begin")?;
            match self.message(&frame)? {
                Message::CopyBoth => return Ok(Replication { connection: self, ended: false }),
                Message::Error(error) => return Err(Error::Server(error)),
                Message::Notice(_) | Message::Parameter { .. } => {
                    self.handle(&frame)?;
                    deadline.check("the stream of the log to begin")?;
                }
                _ => {
                    return Err(Error::protocol(format!(
                        "a message {} instead of the stream of the log: is this START_REPLICATION?",
                        letter(frame.tag)
                    )));
                }
            }
        }
    }
}

impl Replication {
    /// What comes next.
    ///
    /// # Errors
    /// The deadline passed, and this can be called again; or the stream is over.
    pub fn next(&mut self, deadline: Deadline) -> Result<Replicated<'_>, Error> {
        self.connection.check()?;
        if self.ended {
            return Ok(Replicated::Ended);
        }
        let frame = loop {
            let frame = self.connection.frame(deadline, "the stream of the log")?;
            if let (b'd', Some(bytes)) = (frame.tag, frame.left_out) {
                return Ok(Replicated::TooLarge { bytes });
            }
            match self.connection.message(&frame)? {
                Message::CopyData => break frame,
                // A server may end the command without having ended the stream.
                Message::CopyDone | Message::CommandComplete(_) => {
                    self.ended = true;
                    return Ok(Replicated::Ended);
                }
                Message::Error(server) => {
                    let problem = "the server ended the stream of the log".to_owned();
                    let over = Err(Error::Closed { problem, server: Some(server) });
                    return self.connection.guard(over);
                }
                _ => {
                    let handled = self.connection.handle(&frame).map(drop);
                    self.connection.guard(handled)?;
                    deadline.check("the stream of the log")?;
                }
            }
        };
        read(self.connection.inbox.body(&frame))
            .ok_or_else(|| Error::protocol("a piece of the stream of the log that cannot be read"))
    }

    /// Tells the server how far the log was written, made durable and applied here: up to that it may throw it away. It
    /// does not wait; [`Self::next`] sends what is left.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_status(
        &mut self,
        written: u64,
        flushed: u64,
        applied: u64,
        clock_us: i64,
        reply_wanted: bool,
    ) -> Result<(), Error> {
        let mut status = [0; 34];
        status[0] = b'r';
        status[1..9].copy_from_slice(&written.to_be_bytes());
        status[9..17].copy_from_slice(&flushed.to_be_bytes());
        status[17..25].copy_from_slice(&applied.to_be_bytes());
        status[25..33].copy_from_slice(&clock_us.to_be_bytes());
        status[33] = u8::from(reply_wanted);
        self.send(&status)
    }

    /// Sends anything else that the other side understands.
    ///
    /// # Errors
    /// The stream is over, or more waits to be sent than a message may have.
    pub fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.connection.check()?;
        let waiting = self.connection.requests.bytes.len() + data.len();
        let bytes_max = self.connection.inbox.message_bytes_max();
        if waiting > bytes_max {
            return Err(Error::TooLarge { what: "what waits to be sent", bytes: waiting, bytes_max });
        }
        CopyData::new(data)
            .map_err(|error| Error::protocol(error.to_string()))?
            .write(&mut self.connection.requests.bytes);
        self.connection.send()
    }

    /// Ends the stream, and gives the session back. Version 15 begins no second stream in a session: that needs a new one.
    ///
    /// # Errors
    /// The deadline passed, or the connection is over.
    pub fn finish(mut self, deadline: Deadline) -> Result<Connection, Error> {
        self.connection.check()?;
        copy_done(&mut self.connection.requests.bytes);
        self.connection.send()?;
        // What is under way comes first, then the end of the stream, then that of the command.
        while !self.ended {
            self.next(deadline)?;
            if !self.ended {
                deadline.check("the end of the stream of the log")?;
            }
        }
        let mut connection = self.connection;
        debug_assert_eq!(connection.requests.expected.front(), Some(&Expected::Query));
        connection.drain(deadline, usize::MAX)?;
        Ok(connection)
    }
}

fn read(body: &[u8]) -> Option<Replicated<'_>> {
    let mut reader = Reader(body);
    match reader.u8()? {
        b'w' => Some(Replicated::Data {
            start: reader.u64()?,
            end: reader.u64()?,
            clock_us: reader.i64()?,
            data: reader.0,
        }),
        b'k' => Some(Replicated::KeepAlive {
            end: reader.u64()?,
            clock_us: reader.i64()?,
            reply_wanted: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read() {
        let mut body = vec![b'w'];
        body.extend(7u64.to_be_bytes());
        body.extend(9u64.to_be_bytes());
        body.extend((-1i64).to_be_bytes());
        body.extend(b"data");
        assert_eq!(read(&body), Some(Replicated::Data { start: 7, end: 9, clock_us: -1, data: b"data" }));
        assert_eq!(read(&body[..24]), None);
        let mut body = vec![b'k'];
        body.extend(7u64.to_be_bytes());
        body.extend(1i64.to_be_bytes());
        body.push(1);
        assert_eq!(read(&body), Some(Replicated::KeepAlive { end: 7, clock_us: 1, reply_wanted: true }));
        assert_eq!(read(&body[..17]), None);
        assert_eq!(read(b"x"), None);
        assert_eq!(read(b""), None);
    }
}
