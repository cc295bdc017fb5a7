//! Options and details, typed. Keys that a version of the specification does not define are ignored when read.
//!
//! Absent and default are the same unless the field is an `Option`. Own keys begin with `_` (basic profile,
//! "Extensibility").

use std::borrow::Cow;

use super::features::ClientFeatures;
use super::id::{RegistrationId, SessionId, SubscriptionId};
use super::message::Value;

/// A string of a message: borrowed from its bytes unless it had escapes to resolve.
pub type Text<'a> = Cow<'a, str>;

/// How a topic or procedure matches (advanced profile, "Pattern-based Subscriptions").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchPolicy {
    /// Byte for byte.
    #[default]
    Exact,
    /// Every URI that begins with this string.
    Prefix,
    /// Component by component; an empty one stands for any.
    Wildcard,
}

impl MatchPolicy {
    /// The word of the specification.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Wildcard => "wildcard",
        }
    }
}

/// Which callee of a shared registration is called (advanced profile, "Shared Registration").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InvocationPolicy {
    /// There is one callee.
    #[default]
    Single,
    /// The one that registered first.
    First,
    /// The one that registered last.
    Last,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest calls under way (our own).
    LeastBusy,
    /// For the same value always the same one (our own).
    Hash,
}

impl InvocationPolicy {
    /// The word of the specification, or our own.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::First => "first",
            Self::Last => "last",
            Self::RoundRobin => "roundrobin",
            Self::Random => "random",
            Self::LeastBusy => "least_busy",
            Self::Hash => "hash",
        }
    }
}

/// How a call is cancelled (advanced profile, "Call Canceling"). Without a mode the router takes `killnowait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CancelMode {
    /// The caller is answered at once, the callee is not told.
    Skip,
    /// The callee is interrupted, and the caller gets what the callee answers.
    Kill,
    /// The callee is interrupted, and the caller is answered at once.
    #[default]
    KillNoWait,
}

impl CancelMode {
    /// The word of the specification.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Kill => "kill",
            Self::KillNoWait => "killnowait",
        }
    }
}

/// Payload passthru mode: what the router hands on unread (advanced profile, "Payload Passthru Mode"). Nearly no message has
/// it, and all are moved about, so it is one word until it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passthru<'a>(Option<Box<PassthruTexts<'a>>>);

/// What there is of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassthruTexts<'a> {
    /// `ppt_scheme`; without it the others mean nothing.
    pub scheme: Option<Text<'a>>,
    /// `ppt_serializer`
    pub serializer: Option<Text<'a>>,
    /// `ppt_cipher`
    pub cipher: Option<Text<'a>>,
    /// `ppt_keyid`
    pub keyid: Option<Text<'a>>,
}

impl<'a> Passthru<'a> {
    /// These texts.
    #[must_use]
    pub fn new(texts: PassthruTexts<'a>) -> Self {
        Self((texts != PassthruTexts::default()).then(|| Box::new(texts)))
    }

    /// What there is; `None` where there is nothing.
    #[inline]
    #[must_use]
    pub fn texts(&self) -> Option<&PassthruTexts<'a>> {
        self.0.as_deref()
    }

    /// To be written to.
    pub fn texts_mut(&mut self) -> &mut PassthruTexts<'a> {
        self.0.get_or_insert_default()
    }

    /// Whether the payload is to be handed on unread: there is a scheme, and it is not empty.
    #[inline]
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.texts().is_some_and(|texts| texts.scheme.as_ref().is_some_and(|scheme| !scheme.is_empty()))
    }

    /// A copy that outlives the message.
    #[must_use]
    pub fn to_static(&self) -> Passthru<'static> {
        let Some(PassthruTexts { scheme, serializer, cipher, keyid }) = self.texts() else {
            return Passthru(None);
        };
        let [scheme, serializer, cipher, keyid] = [scheme, serializer, cipher, keyid]
            .map(|text| text.as_ref().map(|text| Cow::Owned(text.clone().into_owned())));
        Passthru(Some(Box::new(PassthruTexts { scheme, serializer, cipher, keyid })))
    }

    /// The same, borrowed.
    #[inline]
    #[must_use]
    pub fn borrowed(&self) -> Passthru<'_> {
        let Some(PassthruTexts { scheme, serializer, cipher, keyid }) = self.texts() else {
            return Passthru(None);
        };
        let [scheme, serializer, cipher, keyid] =
            [scheme, serializer, cipher, keyid].map(|text| text.as_ref().map(|text| Cow::Borrowed(&**text)));
        Passthru(Some(Box::new(PassthruTexts { scheme, serializer, cipher, keyid })))
    }

    /// What it holds beside itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Some(PassthruTexts { scheme, serializer, cipher, keyid }) = self.texts() else { return 0 };
        [scheme, serializer, cipher, keyid].into_iter().flatten().map(|text| text.len()).sum()
    }
}

/// HELLO.Details
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloDetails<'a> {
    /// `roles`: what the client is and can do.
    pub features: ClientFeatures,
    /// `agent`
    pub agent: Option<Text<'a>>,
    /// `authmethods`, in the client's order of preference; `None` where absent.
    pub authmethods: Option<Vec<Text<'a>>>,
    /// `authid`
    pub authid: Option<Text<'a>>,
    /// `authrole`
    pub authrole: Option<Text<'a>>,
    /// `authextra`, an encoded map.
    pub authextra: Option<Value<'a>>,
}

/// WELCOME.Details. `roles` are those of [`super::features::RouterFeatures`], written by the codec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WelcomeDetails<'a> {
    /// `realm`
    pub realm: Option<Text<'a>>,
    /// `authid`
    pub authid: Option<Text<'a>>,
    /// `authrole`
    pub authrole: Option<Text<'a>>,
    /// `authmethod`
    pub authmethod: Option<Text<'a>>,
    /// `authprovider`
    pub authprovider: Option<Text<'a>>,
    /// `authextra`, an encoded map: what the method proves to the client.
    pub authextra: Option<Value<'a>>,
    /// `agent`: what the router calls itself.
    pub agent: Option<Text<'a>>,
    /// `roles`
    pub features: super::features::RouterFeatures,
}

/// ABORT.Details and GOODBYE.Details
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseDetails<'a> {
    /// `message`: for people.
    pub message: Option<Text<'a>>,
}

/// PUBLISH.Options
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishOptions<'a> {
    /// `acknowledge`: the publisher wants PUBLISHED, or ERROR.
    pub acknowledge: bool,
    /// `exclude_me`: true unless the publisher says otherwise.
    pub exclude_me: bool,
    /// `disclose_me`
    pub disclose_me: bool,
    /// `retain`
    pub retain: bool,
    /// `_ttl`: for how long the event is retained, in milliseconds; 0 clears what is retained (our own key).
    pub ttl_ms: Option<u64>,
    /// Who shall not, or alone shall, receive it; `None` where none of its keys is there.
    pub audience: Option<Box<AudienceOptions<'a>>>,
    /// `rkey`: the key of a sharded subscription.
    pub rkey: Option<Text<'a>>,
    /// `ppt_*`
    pub passthru: Passthru<'a>,
}

impl Default for PublishOptions<'_> {
    fn default() -> Self {
        Self {
            acknowledge: false,
            exclude_me: true,
            disclose_me: false,
            retain: false,
            ttl_ms: None,
            audience: None,
            rkey: None,
            passthru: Passthru::default(),
        }
    }
}

/// The lists of PUBLISH.Options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AudienceOptions<'a> {
    /// `exclude`: sessions that shall not receive it.
    pub exclude: Vec<SessionId>,
    /// `exclude_authid`
    pub exclude_authid: Vec<Text<'a>>,
    /// `exclude_authrole`
    pub exclude_authrole: Vec<Text<'a>>,
    /// `eligible`: only these sessions. An empty list is nobody, an absent one is everybody.
    pub eligible: Option<Vec<SessionId>>,
    /// `eligible_authid`
    pub eligible_authid: Option<Vec<Text<'a>>>,
    /// `eligible_authrole`
    pub eligible_authrole: Option<Vec<Text<'a>>>,
}

/// SUBSCRIBE.Options
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions<'a> {
    /// `match`
    pub match_policy: MatchPolicy,
    /// `get_retained`
    pub get_retained: bool,
    /// `nkey`: the key of a sharded subscription.
    pub nkey: Option<Text<'a>>,
    /// `_after`: what a database published after this `_event_id` comes first (our own key).
    pub after: Option<u64>,
    /// `_database`: which database that is, where a realm has several that publish (our own key).
    pub database: Option<Text<'a>>,
}

/// UNSUBSCRIBED.Details and UNREGISTERED.Details, in a revocation (request 0) only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationDetails<'a> {
    /// `subscription`
    pub subscription: Option<SubscriptionId>,
    /// `registration`
    pub registration: Option<RegistrationId>,
    /// `reason`
    pub reason: Option<Text<'a>>,
}

/// EVENT.Details
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventDetails<'a> {
    /// `topic`: the URI published to, for pattern subscriptions.
    pub topic: Option<Text<'a>>,
    /// `publisher`
    pub publisher: Option<SessionId>,
    /// `publisher_authid`
    pub publisher_authid: Option<Text<'a>>,
    /// `publisher_authrole`
    pub publisher_authrole: Option<Text<'a>>,
    /// `trustlevel`
    pub trustlevel: Option<u64>,
    /// `retained`
    pub retained: bool,
    /// `_lost`: how many events this subscriber missed since the last one (our own key); what is more is as many as there can be.
    pub lost: u32,
    /// `_event_id`: its place among all events of the database that published it, from 1 on; 0 is none (our own key).
    pub event_id: u64,
    /// `_depth`: how many events led to it, one behind the other, by functions of databases that were called by one and published
    /// the next; 0 where none did (our own key).
    pub depth: u32,
    /// `ppt_*`
    pub passthru: Passthru<'a>,
}

/// CALL.Options
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions<'a> {
    /// `timeout`, in milliseconds; 0 is none.
    pub timeout_ms: u64,
    /// `receive_progress`
    pub receive_progress: bool,
    /// `progress`: more of this call's input follows.
    pub progress: bool,
    /// `disclose_me`
    pub disclose_me: bool,
    /// `rkey`: the key of a sharded registration.
    pub rkey: Option<Text<'a>>,
    /// `runmode`: `"partition"` for a sharded registration.
    pub runmode: Option<Text<'a>>,
    /// `ppt_*`
    pub passthru: Passthru<'a>,
}

/// CANCEL.Options
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelOptions {
    /// `mode`
    pub mode: Option<CancelMode>,
}

/// RESULT.Details
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultDetails<'a> {
    /// `progress`
    pub progress: bool,
    /// `ppt_*`
    pub passthru: Passthru<'a>,
}

/// REGISTER.Options
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterOptions<'a> {
    /// `match`
    pub match_policy: MatchPolicy,
    /// `invoke`
    pub invoke: InvocationPolicy,
    /// `concurrency`: calls that run at a time; 0 is no limit.
    pub concurrency: u64,
    /// `force_reregister`
    pub force_reregister: bool,
    /// `disclose_caller`
    pub disclose_caller: bool,
    /// `nkey`: the key of a sharded registration.
    pub nkey: Option<Text<'a>>,
    /// `_hash`: the kwarg that `invoke = "hash"` goes by; without it that is the caller (our own key).
    pub hash: Option<Text<'a>>,
}

/// INVOCATION.Details
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvocationDetails<'a> {
    /// `procedure`: the URI called, for pattern registrations.
    pub procedure: Option<Text<'a>>,
    /// `caller`
    pub caller: Option<SessionId>,
    /// `caller_authid`
    pub caller_authid: Option<Text<'a>>,
    /// `caller_authrole`
    pub caller_authrole: Option<Text<'a>>,
    /// `trustlevel`
    pub trustlevel: Option<u64>,
    /// `timeout`, in milliseconds; 0 is none.
    pub timeout_ms: u64,
    /// `receive_progress`
    pub receive_progress: bool,
    /// `progress`
    pub progress: bool,
    /// `ppt_*`
    pub passthru: Passthru<'a>,
}

/// INTERRUPT.Options
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterruptOptions<'a> {
    /// `mode`
    pub mode: Option<CancelMode>,
    /// `reason`
    pub reason: Option<Text<'a>>,
}

/// YIELD.Options
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct YieldOptions<'a> {
    /// `progress`
    pub progress: bool,
    /// `ppt_*`
    pub passthru: Passthru<'a>,
}
