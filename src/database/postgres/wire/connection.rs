//! A session with a server: what was asked, what comes back, and what comes unasked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::message::frontend;

use super::cancel::{CancelHandle, Target};
use super::deadline::Deadline;
use super::error::{Error, ServerError};
use super::inbox::{Frame, Inbox, letter};
use super::message::{self, Columns, Field, Message, Notification, ParameterTypes, Row, TransactionStatus};
use super::requests::{Expected, Requests};
use super::stream::Stream;

/// How many notifications and notices wait to be taken; what comes beyond is counted.
const NOTIFICATIONS_MAX: usize = 1024;
const NOTICES_MAX: usize = 64;
/// So much is heard at a time of what comes unasked: somebody wants the connection.
const UNASKED_MAX: usize = 10_000;
/// PostgreSQL reports some fifteen; a pooler may add its own.
const PARAMETERS_MAX: usize = 128;
/// Until somebody is let in nothing is said that is longer.
pub(super) const GREETING_BYTES_MAX: usize = 64 << 10;

/// What [`Connection::next`] waits for.
const ANSWER: &str = "the answer of the database";

/// An open session. It belongs to one thread at a time.
pub struct Connection {
    pub(super) stream: Stream,
    pub(super) inbox: Inbox,
    pub(super) requests: Requests,
    /// The values of the row that was read last.
    pub(super) fields: Vec<Field>,
    pub(super) status: TransactionStatus,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) process_id: i32,
    pub(super) target: Arc<Target>,
    notifications: VecDeque<Notification>,
    notifications_lost: u64,
    notices: VecDeque<Box<ServerError>>,
    notices_lost: u64,
    /// Why nothing more can be done.
    over: Option<Over>,
    /// Names of prepared statements that were given out.
    pub(super) statements: u64,
}

#[derive(Clone)]
struct Over {
    problem: String,
    server: Option<Box<ServerError>>,
}

/// One answer of the server.
#[derive(Debug)]
pub enum Event<'a> {
    /// A statement was parsed.
    ParseComplete,
    /// Parameters were bound.
    BindComplete,
    /// A statement or portal was closed.
    CloseComplete,
    /// The types of a statement's parameters.
    ParameterTypes(ParameterTypes<'a>),
    /// The columns of the rows that follow, or would follow.
    Columns(Columns<'a>),
    /// There will be no rows.
    NoData,
    /// A row, until the next event.
    Row(Row<'a>),
    /// A row that is larger than `message_bytes_max` was passed over.
    RowTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A command is done: `INSERT 0 5`.
    Complete(&'a str),
    /// There was no command in the text.
    EmptyQuery,
    /// As many rows came as were asked for, and the portal has more.
    Suspended,
    /// A COPY to the client: what it sends is passed over. A COPY from the client becomes an error of the server.
    CopyOut,
    /// The server refused. Nothing more comes of this group but [`Event::Ready`].
    Error(Box<ServerError>),
    /// A group is over.
    Ready(TransactionStatus),
}

impl Event<'_> {
    /// How many rows a command concerned, of its tag.
    #[must_use]
    pub fn rows(tag: &str) -> Option<u64> {
        tag.rsplit(' ').next()?.parse().ok()
    }
}

/// What became of a message: to be given out, or seen to.
pub(super) enum Outcome {
    Given(Given),
    SeenTo,
}

/// An event without what it borrows.
pub(super) enum Given {
    ParseComplete,
    BindComplete,
    CloseComplete,
    ParameterTypes,
    Columns,
    NoData,
    Row,
    RowTooLarge(usize),
    Complete,
    EmptyQuery,
    Suspended,
    CopyOut,
    Error(Box<ServerError>),
    Ready(TransactionStatus),
}

impl Connection {
    pub(super) fn new(stream: Stream, mut target: Target, message_bytes_max: usize) -> Self {
        target.given_up = Arc::clone(stream.given_up());
        Self {
            stream,
            inbox: Inbox::new(GREETING_BYTES_MAX),
            requests: Requests::new(message_bytes_max),
            fields: Vec::new(),
            status: TransactionStatus::Idle,
            parameters: BTreeMap::new(),
            process_id: 0,
            target: Arc::new(target),
            notifications: VecDeque::new(),
            notifications_lost: 0,
            notices: VecDeque::new(),
            notices_lost: 0,
            over: None,
            statements: 0,
        }
    }

    /// Where requests are written. Nothing is sent before [`Self::send`] or [`Self::next`].
    pub fn requests(&mut self) -> &mut Requests {
        &mut self.requests
    }

    /// Sends what was written, as far as the kernel takes it at once; the rest goes while answers are read. It never
    /// waits.
    ///
    /// # Errors
    /// The connection is over.
    pub fn send(&mut self) -> Result<(), Error> {
        self.check()?;
        let sent = self.stream.send_some(&mut self.requests.bytes);
        self.guard(sent)
    }

    /// The next answer. Each group ends with [`Event::Ready`], an error in it or not. One that has arrived is given whatever
    /// the deadline is.
    ///
    /// # Errors
    /// The deadline passed, and this can be called again; nothing is asked; or the connection is over.
    pub fn next(&mut self, deadline: Deadline) -> Result<Event<'_>, Error> {
        self.check()?;
        if self.requests.expected.is_empty() {
            return Err(Error::Misuse("an answer was waited for, and nothing is asked"));
        }
        let (frame, given) = loop {
            let frame = self.frame(deadline, ANSWER)?;
            let outcome = self.handle(&frame);
            match self.guard(outcome)? {
                Outcome::Given(given) => break (frame, given),
                // A server that notices without end ends here.
                Outcome::SeenTo => deadline.check(ANSWER)?,
            }
        };
        let body = self.inbox.body(&frame);
        let event = match given {
            Given::ParseComplete => Event::ParseComplete,
            Given::BindComplete => Event::BindComplete,
            Given::CloseComplete => Event::CloseComplete,
            Given::NoData => Event::NoData,
            Given::Row => Event::Row(Row::new(body, &self.fields)),
            Given::RowTooLarge(bytes) => Event::RowTooLarge { bytes },
            Given::EmptyQuery => Event::EmptyQuery,
            Given::Suspended => Event::Suspended,
            Given::CopyOut => Event::CopyOut,
            Given::Error(error) => Event::Error(error),
            Given::Ready(status) => Event::Ready(status),
            Given::ParameterTypes | Given::Columns | Given::Complete => {
                match message::read(frame.tag, body, &mut self.fields)? {
                    Message::ParameterTypes(types) => Event::ParameterTypes(types),
                    Message::Columns(columns) => Event::Columns(columns),
                    Message::CommandComplete(tag) => Event::Complete(tag),
                    // It was read as one of them a moment ago.
                    _ => return Err(Error::Misuse("a message changed")),
                }
            }
        };
        Ok(event)
    }

    /// Waits until something of the command behind so many others is there, or of the end of the group, and takes nothing of it.
    ///
    /// # Errors
    /// The deadline passed, and this can be called again; or the connection is over.
    pub fn wait(&mut self, commands: usize, deadline: Deadline) -> Result<(), Error> {
        self.check()?;
        while !self.inbox.is_behind(commands) {
            self.fill(deadline, ANSWER)?;
        }
        Ok(())
    }

    /// Reads and forgets what is still to come, until nothing is asked any more. A group without an end gets one.
    ///
    /// # Errors
    /// The deadline passed, or more than `bytes_max` came: cancel what runs, and drain again. The connection is over.
    pub fn drain(&mut self, deadline: Deadline, bytes_max: usize) -> Result<TransactionStatus, Error> {
        self.check()?;
        let ended = matches!(self.requests.expected.back(), Some(Expected::Sync | Expected::Query));
        if self.requests.passed_over || !(ended || self.requests.expected.is_empty()) {
            self.requests.sync();
        }
        self.send()?;
        let mut bytes = 0usize;
        while !self.requests.expected.is_empty() {
            let frame = self.frame(deadline, "what is left of an answer")?;
            bytes = bytes.saturating_add(frame.left_out.unwrap_or_else(|| frame.body.len()));
            let outcome = self.handle(&frame);
            self.guard(outcome)?;
            if !self.requests.expected.is_empty() {
                deadline.check("what is left of an answer")?;
            }
            if bytes > bytes_max && !self.requests.expected.is_empty() {
                return Err(Error::TooLarge { what: "what is left of an answer", bytes, bytes_max });
            }
        }
        Ok(self.status)
    }

    /// Ends the reading of a portal that was not read to its end, and its group with it.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub fn abandon_portal(
        &mut self,
        portal: &str,
        deadline: Deadline,
        bytes_max: usize,
    ) -> Result<TransactionStatus, Error> {
        self.check()?;
        self.requests.close_portal(portal)?;
        self.requests.sync();
        self.drain(deadline, bytes_max)
    }

    /// Asks the server whether it is there. A thread that waits for notifications does so now and then: a server that is
    /// stopped closes nothing.
    ///
    /// # Errors
    /// It did not answer in time, something is still asked, or the connection is over.
    pub fn ping(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.check_idle()?;
        self.requests.sync();
        self.drain(deadline, usize::MAX).map(drop)
    }

    /// Hears what has come unasked while nothing was asked, without waiting: that the server has ended the session above
    /// all. Who takes a connection out of a pool does this first, so that nothing is sent to nobody.
    ///
    /// # Errors
    /// Something is still asked, or the connection is over.
    pub fn hear(&mut self) -> Result<(), Error> {
        self.check_idle()?;
        for _ in 0..UNASKED_MAX {
            let frame = match self.frame(Deadline::after(Duration::ZERO), "what comes unasked") {
                Ok(frame) => frame,
                Err(Error::TimedOut { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            let outcome = self.handle(&frame);
            self.guard(outcome)?;
        }
        Ok(())
    }

    /// Waits for a notification, or none when the deadline passes.
    ///
    /// # Errors
    /// Something is asked whose answer comes first, or the connection is over.
    pub fn wait_notification(&mut self, deadline: Deadline) -> Result<Option<Notification>, Error> {
        loop {
            if let Some(notification) = self.notifications.pop_front() {
                return Ok(Some(notification));
            }
            self.check_idle()?;
            let frame = match self.frame(deadline, "a notification") {
                Ok(frame) => frame,
                Err(Error::TimedOut { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let outcome = self.handle(&frame);
            self.guard(outcome)?;
            if self.notifications.is_empty() && deadline.remaining().is_none() {
                return Ok(None);
            }
        }
    }

    /// A notification that has come already, with other answers.
    pub fn take_notification(&mut self) -> Option<Notification> {
        self.notifications.pop_front()
    }

    /// How many notifications were lost because nobody took them.
    #[must_use]
    pub fn notifications_lost(&self) -> u64 {
        self.notifications_lost
    }

    /// A notice of the server (`RAISE NOTICE`), the oldest first.
    pub fn take_notice(&mut self) -> Option<Box<ServerError>> {
        self.notices.pop_front()
    }

    /// How many notices were lost because nobody took them.
    #[must_use]
    pub fn notices_lost(&self) -> u64 {
        self.notices_lost
    }

    /// What the server reports of itself and the session: `server_version`, `TimeZone`, …
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The process of the server, as it said at the start. Behind a pooler it is none.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Whether a transaction block is open, as of the last group.
    #[must_use]
    pub fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether anything is asked whose answer is still to come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.requests.expected.is_empty() || self.requests.passed_over
    }

    /// Whether nothing more can be done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Whether what is said is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> String {
        self.target.address.to_string()
    }

    /// What cancels a statement of this session from another thread.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::new(Arc::clone(&self.target))
    }

    /// Whether anything can be done at all.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.over.clone() {
            None => Ok(()),
            Some(Over { problem, server }) => Err(Error::Closed { problem, server }),
        }
    }

    /// Whether nothing is asked.
    pub(super) fn check_idle(&self) -> Result<(), Error> {
        self.check()?;
        if self.is_waiting() { Err(Error::Misuse("answers are still to come")) } else { Ok(()) }
    }

    /// Keeps in mind that an error ended the connection.
    pub(super) fn guard<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result
            && error.ends_connection()
            && self.over.is_none()
        {
            let problem = match error {
                Error::Closed { problem, .. } => problem.clone(),
                other => other.to_string(),
            };
            self.over = Some(Over { problem, server: error.server().cloned().map(Box::new) });
        }
        result
    }

    /// The next message, whatever it is.
    pub(super) fn frame(&mut self, deadline: Deadline, waiting_for: &'static str) -> Result<Frame, Error> {
        loop {
            let next = self.inbox.next();
            if let Some(frame) = self.guard(next)? {
                return Ok(frame);
            }
            self.fill(deadline, waiting_for)?;
        }
    }

    /// Waits for more bytes.
    fn fill(&mut self, deadline: Deadline, waiting_for: &'static str) -> Result<(), Error> {
        let received =
            self.stream.receive(&mut self.requests.bytes, self.inbox.room(), deadline, waiting_for);
        let received = match received {
            Ok(0) if self.inbox.is_empty() => Err(Error::closed("the server closed it")),
            Ok(0) => Err(Error::closed("the server closed it in the middle of a message")),
            other => other,
        };
        let bytes = self.guard(received)?;
        self.inbox.filled(bytes);
        Ok(())
    }

    /// A message in words.
    pub(super) fn message(&mut self, frame: &Frame) -> Result<Message<'_>, Error> {
        message::read(frame.tag, self.inbox.body(frame), &mut self.fields)
    }

    /// Takes one message: it must be what is expected, or one of those that may come at any moment.
    pub(super) fn handle(&mut self, frame: &Frame) -> Result<Outcome, Error> {
        use Outcome::{Given as Give, SeenTo};
        let expected = self.requests.expected.front().copied();
        let rows = matches!(expected, Some(Expected::Execute | Expected::Query));
        if let Some(bytes) = frame.left_out {
            return match frame.tag {
                b'D' if rows => Ok(Give(Given::RowTooLarge(bytes))),
                b'd' if rows => Ok(SeenTo),
                tag => Err(unexpected(tag, expected)),
            };
        }
        let answered = |requests: &mut Requests, given| {
            requests.expected.pop_front();
            Ok(Give(given))
        };
        match message::read(frame.tag, self.inbox.body(frame), &mut self.fields)? {
            Message::Row if rows => Ok(Give(Given::Row)),
            Message::Notification(notification) => {
                if self.notifications.len() < NOTIFICATIONS_MAX {
                    self.notifications.push_back(notification);
                } else {
                    self.notifications_lost += 1;
                }
                Ok(SeenTo)
            }
            Message::Notice(notice) => {
                if self.notices.len() < NOTICES_MAX {
                    self.notices.push_back(notice);
                } else {
                    self.notices_lost += 1;
                }
                Ok(SeenTo)
            }
            Message::Parameter { name, value } => {
                if self.parameters.len() < PARAMETERS_MAX || self.parameters.contains_key(name) {
                    self.parameters.insert(name.to_owned(), value.to_owned());
                }
                Ok(SeenTo)
            }
            Message::Error(error) if error.is_last() || expected.is_none() => {
                Err(Error::Closed { problem: "the server ended the session".to_owned(), server: Some(error) })
            }
            Message::Error(error) => {
                self.requests.pass_over();
                Ok(Give(Given::Error(error)))
            }
            Message::Ready(status) if matches!(expected, Some(Expected::Sync | Expected::Query)) => {
                self.status = status;
                answered(&mut self.requests, Given::Ready(status))
            }
            Message::ParseComplete if expected == Some(Expected::Parse) => {
                answered(&mut self.requests, Given::ParseComplete)
            }
            Message::BindComplete if expected == Some(Expected::Bind) => {
                answered(&mut self.requests, Given::BindComplete)
            }
            Message::CloseComplete if expected == Some(Expected::Close) => {
                answered(&mut self.requests, Given::CloseComplete)
            }
            Message::ParameterTypes(_) if expected == Some(Expected::DescribeStatement) => {
                if let Some(front) = self.requests.expected.front_mut() {
                    *front = Expected::Describe;
                }
                Ok(Give(Given::ParameterTypes))
            }
            Message::Columns(_) if expected == Some(Expected::Describe) => {
                answered(&mut self.requests, Given::Columns)
            }
            Message::Columns(_) if expected == Some(Expected::Query) => Ok(Give(Given::Columns)),
            Message::NoData if expected == Some(Expected::Describe) => {
                answered(&mut self.requests, Given::NoData)
            }
            Message::CommandComplete(_) if expected == Some(Expected::Query) => Ok(Give(Given::Complete)),
            Message::CommandComplete(_) if expected == Some(Expected::Execute) => {
                answered(&mut self.requests, Given::Complete)
            }
            Message::EmptyQuery if expected == Some(Expected::Query) => Ok(Give(Given::EmptyQuery)),
            Message::EmptyQuery if expected == Some(Expected::Execute) => {
                answered(&mut self.requests, Given::EmptyQuery)
            }
            Message::PortalSuspended if expected == Some(Expected::Execute) => {
                answered(&mut self.requests, Given::Suspended)
            }
            Message::CopyIn if rows => self.refuse_copy(),
            Message::CopyOut if rows => Ok(Give(Given::CopyOut)),
            Message::CopyData | Message::CopyDone if rows => Ok(SeenTo),
            _ => Err(unexpected(frame.tag, expected)),
        }
    }

    /// The server wants data for a COPY: there is none.
    ///
    /// While it waits for them it passes over Sync, so the one that stands behind this request is lost and has to be sent
    /// again. If more groups stand behind that, nobody could tell any longer which answers are whose.
    fn refuse_copy(&mut self) -> Result<Outcome, Error> {
        let expected = &self.requests.expected;
        let simple = expected.front() == Some(&Expected::Query);
        let sync_next = !simple && expected.get(1) == Some(&Expected::Sync);
        if sync_next && expected.len() > 2 {
            return Err(Error::protocol(
                "COPY FROM STDIN, with more calls behind it: it cannot be used here",
            ));
        }
        frontend::copy_fail("COPY FROM STDIN cannot be used here", &mut self.requests.bytes)
            .map_err(|error| Error::protocol(error.to_string()))?;
        if sync_next {
            frontend::sync(&mut self.requests.bytes);
        }
        self.stream.send_some(&mut self.requests.bytes)?;
        Ok(Outcome::SeenTo)
    }
}

fn unexpected(tag: u8, expected: Option<Expected>) -> Error {
    let name = letter(tag);
    Error::protocol(match expected {
        None => format!("a message {name}, and nothing was asked"),
        Some(expected) => format!("a message {name} instead of an answer to {expected:?}"),
    })
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("address", &self.target.address)
            .field("process_id", &self.process_id)
            .field("status", &self.status)
            .field("expected", &self.requests.expected.len())
            .field("over", &self.over.as_ref().map(|over| &over.problem))
            .finish_non_exhaustive()
    }
}

impl Drop for Connection {
    /// Says goodbye if that needs no waiting: otherwise the server sees the socket close.
    fn drop(&mut self) {
        if self.over.is_none() && self.requests.bytes.is_empty() {
            frontend::terminate(&mut self.requests.bytes);
            let _ = self.stream.send_some(&mut self.requests.bytes);
        }
    }
}
