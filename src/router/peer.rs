//! Everything that cores say to each other.

use std::sync::Arc;

use super::cookies::CookieNews;
use super::database::{Catalogue, DatabaseIndex, Receivers};
use super::dealer::Sharing;
use super::history::HistoryAsk;
use super::meta::{Answer, Ask, Cause, News};
use super::sharding::{NodeNews, Shard};
use super::terms::{CallTerms, Disclosed};
use crate::wamp::codec::Serializer;
use crate::wamp::error::uri;
use crate::wamp::options::{CancelMode, EventDetails, MatchPolicy, Passthru, Text};
use crate::wamp::{Payload, PublicationId, RegistrationId, RequestId, SessionId};

/// The number of a core: an index into the running ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// The number of a realm: its place in the configuration, the same on every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealmIndex(pub u16);

/// A connection of this core, and the session on it. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct SessionKey {
    pub slot: u32,
    pub generation: u32,
}

/// A connection on any core, and whatever session is on it: what charges and credit belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct SessionRef {
    pub core: CoreId,
    pub key: SessionKey,
}

/// One session on any core. A connection may carry one after the other, and each counts its requests anew, so what is
/// on its way to one must not reach the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Sitting {
    pub core: CoreId,
    /// Counts the sessions of the connection, and wraps: no ring holds that many of them.
    pub number: u16,
    pub key: SessionKey,
}

impl Sitting {
    /// The connection.
    #[must_use]
    pub fn session(self) -> SessionRef {
        SessionRef { core: self.core, key: self.key }
    }
}

/// What a message on its way cost the session that caused it, in bytes (R8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Bytes to be given back.
    pub bytes: u32,
    /// The session is not read until it gets credit: all that is owed to it goes back at once.
    pub paused: bool,
}

/// What a session that is not the sender of a message was charged for it, and who it is: it caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Payment {
    pub session: SessionRef,
    pub charge: Charge,
}

impl Payment {
    /// Takes one of so many parts out of it.
    #[must_use]
    pub fn part(&mut self, of: u32) -> Self {
        let bytes = self.charge.bytes / of.max(1);
        self.charge.bytes -= bytes;
        Self { charge: Charge { bytes, ..self.charge }, ..*self }
    }
}

/// What every entry of a ring costs on top of its payload, in bytes: its place in the ring and its heads.
pub const MESSAGE_OVERHEAD_BYTES: u32 = 160;

/// What a core itself is charged for: meta events of sessions that have ended (R8). No slot of a connection comes near.
pub const NEWS_KEY: SessionKey = SessionKey { slot: u32::MAX, generation: 1 };

/// A URI and a payload that outlive the message they came in, in one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    bytes: Box<[u8]>,
    uri_length: u32,
    args_length: u32,
    serializer: Serializer,
}

impl Body {
    /// What it holds, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Copies both, once.
    #[must_use]
    pub fn new(uri: &str, payload: Payload<'_>) -> Self {
        let mut bytes = Vec::with_capacity(uri.len() + payload.len());
        bytes.extend_from_slice(uri.as_bytes());
        bytes.extend_from_slice(payload.args);
        bytes.extend_from_slice(payload.kwargs);
        // Both lengths are below the largest message, 16 MiB.
        Self {
            bytes: bytes.into_boxed_slice(),
            uri_length: uri.len() as u32,
            args_length: payload.args.len() as u32,
            serializer: payload.serializer,
        }
    }

    /// The URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        // It was a `str` when it was copied.
        std::str::from_utf8(&self.bytes[..self.uri_length as usize]).unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> Payload<'_> {
        let (args, kwargs) = self.bytes[self.uri_length as usize..].split_at(self.args_length as usize);
        Payload { serializer: self.serializer, args, kwargs }
    }
}

/// A head, a URI and a payload: borrowed from the message that brought them, or owned since they crossed a ring.
///
/// What stays on one core is never copied.
#[derive(Debug)]
pub enum Parcel<'a, H> {
    /// Borrowed.
    Borrowed {
        /// The head.
        head: H,
        /// The procedure or error.
        uri: &'a str,
        /// Args and kwargs.
        payload: Payload<'a>,
    },
    /// Owned.
    Owned(Box<Letter<H>>),
}

/// What crosses a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter<H> {
    /// The head.
    pub head: H,
    /// URI and payload.
    pub body: Body,
}

impl<H> Parcel<'_, H> {
    /// The head.
    pub fn head(&self) -> &H {
        match self {
            Self::Borrowed { head, .. } => head,
            Self::Owned(letter) => &letter.head,
        }
    }

    /// The head.
    pub fn head_mut(&mut self) -> &mut H {
        match self {
            Self::Borrowed { head, .. } => head,
            Self::Owned(letter) => &mut letter.head,
        }
    }

    /// The procedure or error.
    pub fn uri(&self) -> &str {
        match self {
            Self::Borrowed { uri, .. } => uri,
            Self::Owned(letter) => letter.body.uri(),
        }
    }

    /// Args and kwargs.
    pub fn payload(&self) -> Payload<'_> {
        match self {
            Self::Borrowed { payload, .. } => *payload,
            Self::Owned(letter) => letter.body.payload(),
        }
    }

    /// How long a [`Body`] of it is.
    pub fn body_len(&self) -> usize {
        self.uri().len() + self.payload().len()
    }

    /// A copy.
    pub fn to_letter(&self) -> Letter<H>
    where
        H: Clone,
    {
        Letter { head: self.head().clone(), body: Body::new(self.uri(), self.payload()) }
    }

    /// For a ring: copies what is borrowed.
    pub fn into_letter(self) -> Box<Letter<H>> {
        match self {
            Self::Borrowed { head, uri, payload } => Box::new(Letter { head, body: Body::new(uri, payload) }),
            Self::Owned(letter) => letter,
        }
    }
}

/// The number by which home remembers a call, where it does (R10): what the callee's core has to tell home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(u32);

impl Ticket {
    /// Home remembers nothing of the call.
    pub const NONE: Self = Self(0);
    /// Numbers are 1 up to this.
    pub const NUMBER_MAX: u32 = Self::RETURNS - 1;
    const RETURNS: u32 = 1 << 31;

    /// A number; whether a call that the callee refuses goes back to home, and not to its caller.
    #[must_use]
    pub fn new(number: u32, returns: bool) -> Self {
        debug_assert!((1..=Self::NUMBER_MAX).contains(&number));
        Self(if returns { number | Self::RETURNS } else { number })
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0 & Self::NUMBER_MAX
    }

    /// Whether a call that the callee refuses goes back to home: it is re-routed there.
    #[must_use]
    pub fn returns(self) -> bool {
        self.0 & Self::RETURNS != 0
    }
}

/// How an invocation ended that home remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvocationEnd {
    /// The caller is answered, or wants no answer.
    Over,
    /// The callee refused it, or never got it, and nobody has answered: its ticket says that it goes back to home.
    Refused,
}

/// The head of a CALL on its way to the dealer and the callee.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CallHead {
    pub realm: RealmIndex,
    pub caller: Sitting,
    pub request: RequestId,
    pub charge: Charge,
    pub ticket: Ticket,
    /// `None` for an ordinary call.
    pub terms: Option<Box<CallTerms>>,
}

/// How a call ended, or that it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// RESULT with `progress`: more will come.
    Progress,
    /// RESULT; the URI of the letter is empty.
    Result,
    /// ERROR; the URI of the letter says which.
    Error,
}

/// Why a callee is interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CancelReason {
    /// The caller does not want the result any more.
    #[default]
    Canceled,
    /// It did not come in time.
    Timeout,
    /// The caller does not read what it gets, or the callee what it is sent.
    Unavailable,
    /// The other side cannot take what was sent.
    NotSupported,
}

impl CancelReason {
    /// INTERRUPT.Options.reason
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Canceled => uri::CANCELED,
            Self::Timeout => uri::TIMEOUT,
            Self::Unavailable => uri::UNAVAILABLE,
            Self::NotSupported => uri::FEATURE_NOT_SUPPORTED,
        }
    }
}

/// The head of an answer on its way to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ReplyHead {
    pub caller: Sitting,
    pub request: RequestId,
    pub outcome: Outcome,
    /// The callee that is charged for it; `None` where the router answers itself.
    pub callee: Option<SessionRef>,
    pub charge: Charge,
    pub passthru: Passthru<'static>,
}

/// Who shall not, or alone shall, receive a publication. Lists are sorted, so that every core searches them as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Audience {
    pub exclude: Vec<SessionId>,
    pub exclude_authid: Vec<Box<str>>,
    pub exclude_authrole: Vec<Box<str>>,
    pub eligible: Option<Vec<SessionId>>,
    pub eligible_authid: Option<Vec<Box<str>>>,
    pub eligible_authrole: Option<Vec<Box<str>>>,
}

impl Audience {
    /// What its lists hold, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ids = self.exclude.len() + self.eligible.as_ref().map_or(0, Vec::len);
        let lists = [
            Some(&self.exclude_authid),
            Some(&self.exclude_authrole),
            self.eligible_authid.as_ref(),
            self.eligible_authrole.as_ref(),
        ];
        let texts = lists.into_iter().flatten().flatten().map(|text| size_of::<Box<str>>() + text.len());
        ids * size_of::<SessionId>() + texts.sum::<usize>()
    }
}

/// The head of a publication on its way to the other cores.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PublicationHead {
    pub realm: RealmIndex,
    pub publisher: SessionRef,
    pub publication: PublicationId,
    /// `None` where everybody may receive it.
    pub audience: Option<Box<Audience>>,
    /// What only some publications have.
    pub attributes: Option<Box<Attributes>>,
    /// What a meta event comes from; `None` where a session publishes.
    pub cause: Option<Cause>,
}

impl PublicationHead {
    /// What it holds beside itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.audience.as_deref().map_or(0, Audience::bytes)
            + self.attributes.as_deref().map_or(0, Attributes::bytes)
    }
}

/// What only some publications have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Attributes {
    /// It is kept for those who subscribe later.
    pub retain: Option<Retain>,
    /// EVENT.Details.publisher…
    pub disclosed: Option<Disclosed>,
    /// EVENT.Details.trustlevel
    pub trust_level: Option<u64>,
    /// EVENT.Details.ppt_…
    pub passthru: Passthru<'static>,
    /// Where it goes among the nodes of sharded subscriptions.
    pub shard: Option<Box<Shard>>,
    /// EVENT.Details._event_id: its place among all that a database has published.
    /// 0 where a session published it.
    pub position: u64,
    /// EVENT.Details._depth
    pub depth: u32,
    /// Every core says how many of its sessions get it.
    pub is_counted: bool,
}

impl Attributes {
    /// What the subscribers are told of it.
    #[must_use]
    pub fn event_details(&self) -> EventDetails<'_> {
        let disclosed = self.disclosed.as_ref();
        EventDetails {
            publisher: disclosed.map(|publisher| publisher.session),
            publisher_authid: disclosed.map(|publisher| Text::Borrowed(&*publisher.authid)),
            publisher_authrole: disclosed.map(|publisher| Text::Borrowed(&*publisher.authrole)),
            trustlevel: self.trust_level,
            passthru: self.passthru.borrowed(),
            event_id: self.position,
            depth: self.depth,
            ..EventDetails::default()
        }
    }

    /// What it costs, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.disclosed.as_ref().map_or(0, Disclosed::bytes)
            + self.passthru.bytes()
            + self.shard.as_deref().map_or(0, Shard::bytes)
    }
}

/// Which of two retained events is the later one: the same to all cores. Wall time is never compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Monotonic microseconds when it was handled, or one more than the largest that its core had seen.
    pub time_us: u64,
    /// Where it was handled.
    pub core: u16,
}

/// How an event is retained (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retain {
    /// Its place among the others.
    pub stamp: Stamp,
    /// When it ends, in monotonic microseconds: the same moment on every core.
    pub until_us: Option<u64>,
    /// The publisher, where it does not get it itself.
    pub excluded: Option<SessionId>,
}

/// The head of a REGISTER on its way to the dealer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RegisterLetter {
    pub realm: RealmIndex,
    pub callee: Sitting,
    pub session: SessionId,
    pub request: RequestId,
    pub match_policy: MatchPolicy,
    /// The callee wants to know who calls.
    pub disclose_caller: bool,
    pub procedure: Box<str>,
    pub(super) sharing: Sharing,
    /// Calls that the callee takes at a time; 0 is no limit.
    pub concurrency: u32,
    pub force_reregister: bool,
    /// The callee announced `call_reroute`.
    pub can_reroute: bool,
    /// The node that the callee belongs to.
    pub nkey: Option<Box<str>>,
    /// Who the callee is; `None` for an anonymous session.
    pub authid: Option<Box<str>>,
    /// It waited for another callee's pong, and its credit went back then.
    pub has_waited: bool,
}

impl RegisterLetter {
    /// What it counts in the account of its session, in bytes.
    pub(super) fn uri_bytes(&self) -> u32 {
        let own = [&self.sharing.kwarg, &self.nkey].map(|text| text.as_deref().map_or(0, str::len));
        (self.procedure.len() + own.iter().sum::<usize>()) as u32
    }
}

/// From the dealer to a callee's core: the callee has lost a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Revocation {
    pub callee: Sitting,
    pub registration: RegistrationId,
    /// To be given back to the session's account.
    pub uri_bytes: u32,
    pub reason: Box<str>,
}

/// How a REGISTER or UNREGISTER ended at the dealer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// REGISTERED.
    Registered(RegistrationId),
    /// ERROR `procedure_already_exists`; the URI was this long.
    AlreadyExists {
        /// In bytes, to be given back to the session's account.
        uri_bytes: u32,
    },
    /// ERROR `procedure_already_exists`: the callees that it has share it in another way; the URI was this long.
    SharedOtherwise {
        /// In bytes, to be given back to the session's account.
        uri_bytes: u32,
    },
    /// ERROR `limit_reached`: the registration has as many nodes as it may have; the URI was this long.
    TooManyNodes {
        /// In bytes, to be given back to the session's account.
        uri_bytes: u32,
    },
    /// ERROR `limit_reached`: the realm has as many shapes of wildcard patterns as it may have; the URI was this long.
    LimitReached {
        /// In bytes, to be given back to the session's account.
        uri_bytes: u32,
    },
    /// UNREGISTERED; the URI was this long.
    Unregistered {
        /// In bytes, to be given back to the session's account.
        uri_bytes: u32,
    },
    /// ERROR `no_such_registration`.
    NoSuchRegistration,
    /// Nothing yet: the answer comes when it is known whether the holder is there.
    Waits,
}

/// The eras of a core's interest in a topic, and in all patterns of its realm, in which a publication was sent to it.
///
/// A subscription takes nothing from before the era that it began in: between that and the next publication there may be
/// some that the core was not sent, because nobody there wanted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Eras {
    pub exact: u32,
    pub patterns: u32,
}

/// Everything that one core says to another. Small, because thousands lie in a ring.
#[derive(Debug)]
pub enum PeerMessage {
    /// To every other core: deliver to your subscribers.
    Publish {
        /// Shared by all receivers.
        publication: Arc<Letter<PublicationHead>>,
        /// This receiver's part.
        charge: Charge,
        /// When it was sent, in the receiver's own measure.
        eras: Eras,
    },
    /// To the dealer: find a callee.
    Call(Box<Letter<CallHead>>),
    /// From the dealer to the callee's core.
    Invoke {
        /// Whom to invoke.
        callee: Sitting,
        /// By which registration.
        registration: RegistrationId,
        /// Whether INVOCATION.Details.procedure is due: the registration is a pattern.
        pattern: bool,
        /// What the caller asked.
        call: Box<Letter<CallHead>>,
    },
    /// From the dealer to the caller's core: a database's procedure is called from there (R7).
    RunHere(Box<Letter<CallHead>>),
    /// From the dealer to every other core: what a database offers.
    Catalogue(Arc<Catalogue>),
    /// To the dealer: this core calls nothing any more that is not in this catalogue.
    CatalogueTaken {
        /// Where the dealer is.
        realm: RealmIndex,
        /// Whose it is.
        database: DatabaseIndex,
        /// Which.
        version: u64,
    },
    /// To every other core: a node came to a sharded subscription, or left it.
    NodeNews(Box<NodeNews>),
    /// To every other core: somebody has logged in with a cookie, or out.
    CookieNews(Box<CookieNews>),
    /// To the dealer, which keeps the history: which events were there?
    AskHistory(Box<HistoryAsk>),
    /// From the callee's core (or the dealer's) to the caller's.
    Reply(Box<Letter<ReplyHead>>),
    /// To the dealer: the caller cancelled, or stopped waiting (R4).
    Cancel {
        /// Who called.
        caller: Sitting,
        /// Which call.
        request: RequestId,
        /// `Skip`: the callee is not told, its core only forgets.
        mode: CancelMode,
        /// What the callee is told.
        reason: CancelReason,
        /// Where the dealer is.
        realm: RealmIndex,
    },
    /// From the dealer to every core: interrupt this call, if its callee is yours.
    Interrupt {
        /// Who called.
        caller: Sitting,
        /// Which call.
        request: RequestId,
        /// How.
        mode: CancelMode,
        /// What the callee is told.
        reason: CancelReason,
    },
    /// To the dealer: a call ended before all of its input had come, which will not come any more.
    InputEnded {
        /// Who called.
        caller: Sitting,
        /// Which call.
        request: RequestId,
        /// Where the dealer is.
        realm: RealmIndex,
    },
    /// To the dealer: the caller left with calls open (R4).
    CallerGone {
        /// Who called.
        caller: Sitting,
        /// Where the dealer is.
        realm: RealmIndex,
    },
    /// From the dealer to every core: interrupt all calls of this caller.
    InterruptAll {
        /// Who called.
        caller: Sitting,
    },
    /// To the dealer.
    Register(Box<RegisterLetter>),
    /// To the dealer.
    Unregister {
        /// Where the dealer is.
        realm: RealmIndex,
        /// Who wants it.
        callee: Sitting,
        /// The request to answer.
        request: RequestId,
        /// What to remove.
        registration: RegistrationId,
    },
    /// From the dealer to the callee's core: the answer to `Register` or `Unregister`.
    RegisterReply {
        /// Who asked.
        callee: Sitting,
        /// The request to answer.
        request: RequestId,
        /// The answer.
        outcome: RegisterOutcome,
        /// Its credit went back already, or home sees to that.
        is_credited: bool,
    },
    /// From the dealer to the callee's core: is it there? Another session of its authid wants what it holds.
    Probe {
        /// Who.
        callee: Sitting,
        /// What it holds.
        registration: RegistrationId,
    },
    /// From the callee's core to the dealer.
    Probed {
        /// Where the dealer is.
        realm: RealmIndex,
        /// Who.
        callee: Sitting,
        /// What it holds.
        registration: RegistrationId,
        /// It answered a ping in time, or cannot be asked.
        is_there: bool,
    },
    /// From the dealer to a callee's core.
    Revoked(Box<Revocation>),
    /// To the dealer, from the callee's core: an invocation is over that home remembers (R10).
    Done {
        /// Where the dealer is.
        realm: RealmIndex,
        /// Which call.
        ticket: Ticket,
        /// How.
        end: InvocationEnd,
    },
    /// To the dealer: a session that ever registered is gone.
    CalleeGone {
        /// Where the dealer is.
        realm: RealmIndex,
        /// Who.
        callee: Sitting,
    },
    /// To home: something that becomes a meta event (R11).
    News(Box<News>),
    /// To every core: what a meta procedure wants to know.
    Ask(Box<Ask>),
    /// To the core that asked.
    Answer(Box<Answer>),
    /// To the core that publishes what a database has published: how many sessions of this one got it, before the credit for it.
    Received(Receivers),
    /// Gives bytes back to a session of the receiver (R8). Handled by the shard.
    Credit {
        /// Whom.
        session: SessionKey,
        /// How many.
        bytes: u32,
    },
    /// A publication of this session met an outbox that is more than half full: do not read it until as many ends
    /// as beginnings have come. Handled by the shard.
    Hold {
        /// Whom.
        session: SessionKey,
        /// Begin or end.
        begin: bool,
    },
    /// The sender is short of outbox memory (or is no longer): publishers wait. Handled by the shard.
    Pressure {
        /// Whether it begins.
        on: bool,
    },
}

// The cost sheet: a ring of 4,096 entries is 128 or 160 KiB for each ordered pair of cores.
const _: () = assert!(size_of::<PeerMessage>() <= 40);
const _: () = assert!(size_of::<Letter<CallHead>>() <= 80);
const _: () = assert!(size_of::<Letter<ReplyHead>>() <= 96);

impl PeerMessage {
    /// What it holds of a ring, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let body = match self {
            Self::Publish { publication, .. } => publication.body.bytes.len() + publication.head.bytes(),
            Self::Catalogue(catalogue) => catalogue.bytes(),
            Self::Call(call) | Self::RunHere(call) | Self::Invoke { call, .. } => {
                call.body.bytes.len() + call.head.terms.as_deref().map_or(0, CallTerms::bytes)
            }
            Self::AskHistory(ask) => ask.bytes(),
            Self::NodeNews(news) => news.bytes(),
            Self::CookieNews(news) => news.bytes(),
            Self::Register(register) => {
                register.uri_bytes() as usize + register.authid.as_deref().map_or(0, str::len)
            }
            Self::Revoked(revocation) => revocation.reason.len(),
            Self::News(news) => news.bytes(),
            Self::Ask(ask) => ask.bytes(),
            Self::Answer(answer) => answer.bytes(),
            Self::Reply(reply) => reply.body.bytes.len() + reply.head.passthru.bytes(),
            _ => 0,
        };
        body + MESSAGE_OVERHEAD_BYTES as usize
    }
}
