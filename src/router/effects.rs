//! All that the router can ask of the world, as one trait. A shard performs it, tests record it.

use bytes::Bytes;

use super::SlowCheck;
use super::database::{DatabaseIndex, Query, QueryNumber, Receivers, Replay};
use super::peer::{Charge, CoreId, PeerMessage, SessionKey, SessionRef};
use crate::metrics::Counters;
use crate::wamp::codec::{NotRepresentable, OwnedPayload, Serializer};
use crate::wamp::message::{Event, Message};
use crate::wamp::{CloseReason, SessionId};

/// What became of a message for a session of this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It is in the outbox.
    Accepted,
    /// The outbox is at its hard bound. Nothing was queued.
    Full,
    /// The receiver's serializer cannot carry the payload. Nothing was queued.
    NotRepresentable,
    /// It is longer than the receiver takes. Nothing was queued.
    TooLarge,
    /// The connection is closing, or gone. Nothing was queued.
    Gone,
}

/// When the credit for a charge goes back to the session that was charged (R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditTime {
    /// At once: the message is done with.
    Now,
    /// Once the flush has offered to the kernel all that was pushed up to here.
    AfterFlush,
}

/// The frames of one EVENT, encoded at most once for each way that messages travel.
///
/// Lives as long as the delivery of one publication to one subscription, and allocates nothing while its receivers have
/// one encoding.
#[derive(Default)]
pub struct EventFrames {
    /// There is one receiver, so that nothing has to be kept for others.
    pub is_sole: bool,
    first: Option<(u8, Bytes)>,
    others: Vec<(u8, Bytes)>,
}

impl EventFrames {
    /// For one receiver alone.
    #[must_use]
    pub fn sole() -> Self {
        Self { is_sole: true, ..Self::default() }
    }

    /// The frame of an encoding, by a number that whoever performs [`Effects::event`] gives it.
    #[must_use]
    pub fn get(&self, encoding: u8) -> Option<&Bytes> {
        let mut all = self.first.iter().chain(&self.others);
        all.find(|(other, _)| *other == encoding).map(|(_, frame)| frame)
    }

    /// Keeps a frame for the next receivers.
    pub fn keep(&mut self, encoding: u8, frame: Bytes) {
        if self.first.is_none() {
            self.first = Some((encoding, frame));
        } else {
            self.others.push((encoding, frame));
        }
    }
}

/// The payload of one publication in the serializers that it did not come in, each made at most once.
///
/// Lives as long as the delivery of one publication: its subscriptions share it.
#[derive(Default)]
pub struct Transcoded {
    /// By serializer; filled by who performs [`Effects::event`].
    pub payloads: [Option<Result<OwnedPayload, NotRepresentable>>; 3],
}

/// What a router asks of the shard that runs it. Performed at once, in order.
pub trait Effects {
    /// Queues a message that may be refused at the outbox's hard bound: INVOCATION, RESULT.
    fn send(&mut self, to: SessionKey, message: &Message<'_>) -> Sent;

    /// As [`Self::send`], for one part of many: progress of a call. A receiver that is slow, and yet reads, holds the sender
    /// as it holds a publisher; so the credit for it is due after the flush.
    fn send_part(&mut self, to: SessionKey, message: &Message<'_>) -> Sent;

    /// Queues a small reply, which may use a little more than the hard bound; beyond that the session is closed as a
    /// slow consumer by the performer.
    fn reply(&mut self, to: SessionKey, message: &Message<'_>) -> Sent;

    /// Queues an EVENT; `frames` belongs to this very message and is shared among its receivers, `transcoded` to its
    /// publication.
    fn event(
        &mut self,
        to: SessionKey,
        event: &Event<'_>,
        frames: &mut EventFrames,
        transcoded: &mut Transcoded,
    ) -> Sent;

    /// Whether more may be told in this turn that no session can be held back for, and that this core pays itself
    /// ([`super::peer::NEWS_KEY`]). When it may again, the performer sees to it that it is.
    fn may_tell(&self) -> bool;

    /// A look-up has tried so many shapes of wildcard patterns: work that no message shows, and that counts in the budget
    /// of whoever caused it.
    fn searched(&mut self, shapes: usize);

    /// This core has subscribers of a topic, or has no more; or of a pattern of a realm ([`super::Router`] makes the number,
    /// the same on every core). The performer tells the other cores at once, and returns the era of this interest: it
    /// begins when there was none.
    fn announce(&mut self, topic: u64, wanted: bool) -> u32;

    /// Whether another core may have subscribers of a topic, and the era. One that had told so before the message that is
    /// being handled was sent has.
    fn interest(&self, core: CoreId, topic: u64) -> (bool, u32);

    /// Sends to another core, never to this one.
    fn peer(&mut self, to: CoreId, message: PeerMessage);

    /// Charges a session of this core for bytes on their way (R8). True when that took it over its share, so that the
    /// message should say that its session is paused.
    fn charge(&mut self, session: SessionKey, bytes: u32) -> bool;

    /// Gives back what was charged, wherever the session is.
    fn credit(&mut self, session: SessionRef, charge: Charge, when: CreditTime);

    /// The first request that waits for a decision, and those behind it, may be handled again.
    /// Whether that is next: a session that does not read what it is sent is held back until it does.
    fn resume_requests(&mut self, session: SessionKey) -> bool;

    /// Asks a client whether it is there, by a ping. The answer is [`super::Router::handle_probe`]; `false` where nobody
    /// can be asked like that, and none will come.
    fn probe(&mut self, session: SessionKey) -> bool;

    /// Whether somebody on this connection may try to log in: not too many from its address have failed.
    fn may_log_in(&mut self, session: SessionKey) -> bool;

    /// Somebody on this connection failed to log in.
    fn login_failed(&mut self, session: SessionKey);

    /// Has a check made that is too slow for a core; [`super::Router::handle_checked`] hears of it. `false`: there are
    /// too many under way.
    fn check(&mut self, session: SessionKey, check: SlowCheck) -> bool;

    /// Gives a call to a database; `false`: it is away, or as many wait for it as may wait. Of every one that was taken
    /// [`super::Router::handle_database`] hears once that it is over.
    fn query(&mut self, query: Query) -> bool;

    /// The next part of a result may come.
    fn query_more(&mut self, database: DatabaseIndex, query: QueryNumber);

    /// Nobody waits for a query any more.
    fn query_cancel(&mut self, database: DatabaseIndex, query: QueryNumber);

    /// Asks a database for what it has published; `false`: it is away. [`super::Router::handle_database`] hears the answer.
    fn replay(&mut self, replay: Replay) -> bool;

    /// How many sessions of one core got a publication of a database, where that is to be counted; said before the charge of that
    /// core is given back. A core without any says nothing.
    fn received(&mut self, receivers: Receivers);

    /// Whether a connection takes what it is sent, so that more may be made for it.
    fn has_room(&self, session: SessionKey) -> bool;

    /// A session opened on this connection.
    fn opened(&mut self, session: SessionKey, id: SessionId);

    /// The session is over while its transport lives on; another HELLO may come.
    fn left(&mut self, session: SessionKey);

    /// Ends the connection: sends `farewell`, closes the link, lingers. The router has forgotten the session.
    fn close(&mut self, session: SessionKey, reason: CloseReason, farewell: Option<&Message<'_>>);

    /// The serializer of a connection, for whoever builds payloads of his own.
    fn serializer(&self, session: SessionKey) -> Serializer;

    /// The counters of this core.
    fn counters(&mut self) -> &mut Counters;
}
