//! The messages of WAMP, basic and advanced: one variant each, borrowing from the bytes they were decoded from.

use super::id::{PublicationId, RegistrationId, RequestId, SessionId, SubscriptionId};
use super::options::{
    CallOptions, CancelOptions, CloseDetails, EventDetails, HelloDetails, InterruptOptions,
    InvocationDetails, PublishOptions, RegisterOptions, ResultDetails, RevocationDetails, SubscribeOptions,
    Text, WelcomeDetails, YieldOptions,
};
use super::payload::Payload;

/// The code of a message type (basic profile, "Message Codes and Direction").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum MessageType {
    Hello = 1,
    Welcome = 2,
    Abort = 3,
    Challenge = 4,
    Authenticate = 5,
    Goodbye = 6,
    Error = 8,
    Publish = 16,
    Published = 17,
    Subscribe = 32,
    Subscribed = 33,
    Unsubscribe = 34,
    Unsubscribed = 35,
    Event = 36,
    Call = 48,
    Cancel = 49,
    Result = 50,
    Register = 64,
    Registered = 65,
    Unregister = 66,
    Unregistered = 67,
    Invocation = 68,
    Interrupt = 69,
    Yield = 70,
}

impl MessageType {
    /// All of them, by code.
    pub const ALL: [Self; 24] = [
        Self::Hello,
        Self::Welcome,
        Self::Abort,
        Self::Challenge,
        Self::Authenticate,
        Self::Goodbye,
        Self::Error,
        Self::Publish,
        Self::Published,
        Self::Subscribe,
        Self::Subscribed,
        Self::Unsubscribe,
        Self::Unsubscribed,
        Self::Event,
        Self::Call,
        Self::Cancel,
        Self::Result,
        Self::Register,
        Self::Registered,
        Self::Unregister,
        Self::Unregistered,
        Self::Invocation,
        Self::Interrupt,
        Self::Yield,
    ];

    /// The type of a code, if there is one.
    #[must_use]
    pub const fn of_code(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Abort,
            4 => Self::Challenge,
            5 => Self::Authenticate,
            6 => Self::Goodbye,
            8 => Self::Error,
            16 => Self::Publish,
            17 => Self::Published,
            32 => Self::Subscribe,
            33 => Self::Subscribed,
            34 => Self::Unsubscribe,
            35 => Self::Unsubscribed,
            36 => Self::Event,
            48 => Self::Call,
            49 => Self::Cancel,
            50 => Self::Result,
            64 => Self::Register,
            65 => Self::Registered,
            66 => Self::Unregister,
            67 => Self::Unregistered,
            68 => Self::Invocation,
            69 => Self::Interrupt,
            70 => Self::Yield,
            _ => return None,
        })
    }

    /// The name in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Abort => "ABORT",
            Self::Challenge => "CHALLENGE",
            Self::Authenticate => "AUTHENTICATE",
            Self::Goodbye => "GOODBYE",
            Self::Error => "ERROR",
            Self::Publish => "PUBLISH",
            Self::Published => "PUBLISHED",
            Self::Subscribe => "SUBSCRIBE",
            Self::Subscribed => "SUBSCRIBED",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsubscribed => "UNSUBSCRIBED",
            Self::Event => "EVENT",
            Self::Call => "CALL",
            Self::Cancel => "CANCEL",
            Self::Result => "RESULT",
            Self::Register => "REGISTER",
            Self::Registered => "REGISTERED",
            Self::Unregister => "UNREGISTER",
            Self::Unregistered => "UNREGISTERED",
            Self::Invocation => "INVOCATION",
            Self::Interrupt => "INTERRUPT",
            Self::Yield => "YIELD",
        }
    }
}

/// `[HELLO, Realm|uri, Details|dict]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Hello<'a> {
    pub realm: Text<'a>,
    pub details: HelloDetails<'a>,
}

/// `[WELCOME, Session|id, Details|dict]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Welcome<'a> {
    pub session: SessionId,
    pub details: WelcomeDetails<'a>,
}

/// `[ABORT, Details|dict, Reason|uri (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Abort<'a> {
    pub details: CloseDetails<'a>,
    pub reason: Text<'a>,
    pub payload: Payload<'a>,
}

/// `[CHALLENGE, AuthMethod|string, Extra|dict]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// `ticket`, `wampcra`, …
    pub method: Text<'a>,
    /// The encoded map.
    pub extra: Value<'a>,
}

/// `[AUTHENTICATE, Signature|string, Extra|dict]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticate<'a> {
    /// What the method demands.
    pub signature: Text<'a>,
    /// The encoded map.
    pub extra: Value<'a>,
}

/// One value that is handed on as it was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// What `bytes` is written in.
    pub serializer: super::codec::Serializer,
    /// The complete encoding of one value; empty stands for an empty map.
    pub bytes: &'a [u8],
}

/// `[GOODBYE, Details|dict, Reason|uri]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Goodbye<'a> {
    pub details: CloseDetails<'a>,
    pub reason: Text<'a>,
}

/// `[ERROR, REQUEST.Type|int, REQUEST.Request|id, Details|dict, Error|uri (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error<'a> {
    /// The type of the request that failed, decoded as it stands; the router checks that it may fail.
    pub request_type: MessageType,
    /// The request that failed.
    pub request: RequestId,
    /// Why.
    pub error: Text<'a>,
    /// `ppt_*` in the details.
    pub passthru: super::options::Passthru<'a>,
    /// More about it.
    pub payload: Payload<'a>,
}

/// `[PUBLISH, Request|id, Options|dict, Topic|uri (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Publish<'a> {
    pub request: RequestId,
    pub options: PublishOptions<'a>,
    pub topic: Text<'a>,
    pub payload: Payload<'a>,
}

/// `[PUBLISHED, PUBLISH.Request|id, Publication|id]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Published {
    pub request: RequestId,
    pub publication: PublicationId,
}

/// `[SUBSCRIBE, Request|id, Options|dict, Topic|uri]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Subscribe<'a> {
    pub request: RequestId,
    pub options: SubscribeOptions<'a>,
    pub topic: Text<'a>,
}

/// `[SUBSCRIBED, SUBSCRIBE.Request|id, Subscription|id]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Subscribed {
    pub request: RequestId,
    pub subscription: SubscriptionId,
}

/// `[UNSUBSCRIBE, Request|id, SUBSCRIBED.Subscription|id]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unsubscribe {
    pub request: RequestId,
    pub subscription: SubscriptionId,
}

/// `[UNSUBSCRIBED, UNSUBSCRIBE.Request|id]`, or `[UNSUBSCRIBED, 0, Details|dict]` in a revocation
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unsubscribed<'a> {
    pub request: RequestId,
    /// In a revocation only.
    pub details: Option<RevocationDetails<'a>>,
}

/// `[EVENT, SUBSCRIBED.Subscription|id, PUBLISHED.Publication|id, Details|dict (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Event<'a> {
    pub subscription: SubscriptionId,
    pub publication: PublicationId,
    pub details: EventDetails<'a>,
    pub payload: Payload<'a>,
}

/// `[CALL, Request|id, Options|dict, Procedure|uri (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Call<'a> {
    pub request: RequestId,
    pub options: CallOptions<'a>,
    pub procedure: Text<'a>,
    pub payload: Payload<'a>,
}

/// `[CANCEL, CALL.Request|id, Options|dict]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Cancel {
    pub request: RequestId,
    pub options: CancelOptions,
}

/// `[RESULT, CALL.Request|id, Details|dict (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CallResult<'a> {
    pub request: RequestId,
    pub details: ResultDetails<'a>,
    pub payload: Payload<'a>,
}

/// `[REGISTER, Request|id, Options|dict, Procedure|uri]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Register<'a> {
    pub request: RequestId,
    pub options: RegisterOptions<'a>,
    pub procedure: Text<'a>,
}

/// `[REGISTERED, REGISTER.Request|id, Registration|id]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Registered {
    pub request: RequestId,
    pub registration: RegistrationId,
}

/// `[UNREGISTER, Request|id, REGISTERED.Registration|id]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unregister {
    pub request: RequestId,
    pub registration: RegistrationId,
}

/// `[UNREGISTERED, UNREGISTER.Request|id]`, or `[UNREGISTERED, 0, Details|dict]` in a revocation
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unregistered<'a> {
    pub request: RequestId,
    /// In a revocation only.
    pub details: Option<RevocationDetails<'a>>,
}

/// `[INVOCATION, Request|id, REGISTERED.Registration|id, Details|dict (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Invocation<'a> {
    pub request: RequestId,
    pub registration: RegistrationId,
    pub details: InvocationDetails<'a>,
    pub payload: Payload<'a>,
}

/// `[INTERRUPT, INVOCATION.Request|id, Options|dict]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Interrupt<'a> {
    pub request: RequestId,
    pub options: InterruptOptions<'a>,
}

/// `[YIELD, INVOCATION.Request|id, Options|dict (, Arguments|list, ArgumentsKw|dict)]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Yield<'a> {
    pub request: RequestId,
    pub options: YieldOptions<'a>,
    pub payload: Payload<'a>,
}

/// Any message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Message<'a> {
    Hello(Hello<'a>),
    Welcome(Welcome<'a>),
    Abort(Abort<'a>),
    Challenge(Challenge<'a>),
    Authenticate(Authenticate<'a>),
    Goodbye(Goodbye<'a>),
    Error(Error<'a>),
    Publish(Publish<'a>),
    Published(Published),
    Subscribe(Subscribe<'a>),
    Subscribed(Subscribed),
    Unsubscribe(Unsubscribe),
    Unsubscribed(Unsubscribed<'a>),
    Event(Event<'a>),
    Call(Call<'a>),
    Cancel(Cancel),
    Result(CallResult<'a>),
    Register(Register<'a>),
    Registered(Registered),
    Unregister(Unregister),
    Unregistered(Unregistered<'a>),
    Invocation(Invocation<'a>),
    Interrupt(Interrupt<'a>),
    Yield(Yield<'a>),
}

// All are moved as the largest is.
const _: () = assert!(size_of::<Message<'_>>() <= 192);

impl Message<'_> {
    /// The type of this message.
    #[must_use]
    pub fn kind(&self) -> MessageType {
        match self {
            Self::Hello(_) => MessageType::Hello,
            Self::Welcome(_) => MessageType::Welcome,
            Self::Abort(_) => MessageType::Abort,
            Self::Challenge(_) => MessageType::Challenge,
            Self::Authenticate(_) => MessageType::Authenticate,
            Self::Goodbye(_) => MessageType::Goodbye,
            Self::Error(_) => MessageType::Error,
            Self::Publish(_) => MessageType::Publish,
            Self::Published(_) => MessageType::Published,
            Self::Subscribe(_) => MessageType::Subscribe,
            Self::Subscribed(_) => MessageType::Subscribed,
            Self::Unsubscribe(_) => MessageType::Unsubscribe,
            Self::Unsubscribed(_) => MessageType::Unsubscribed,
            Self::Event(_) => MessageType::Event,
            Self::Call(_) => MessageType::Call,
            Self::Cancel(_) => MessageType::Cancel,
            Self::Result(_) => MessageType::Result,
            Self::Register(_) => MessageType::Register,
            Self::Registered(_) => MessageType::Registered,
            Self::Unregister(_) => MessageType::Unregister,
            Self::Unregistered(_) => MessageType::Unregistered,
            Self::Invocation(_) => MessageType::Invocation,
            Self::Interrupt(_) => MessageType::Interrupt,
            Self::Yield(_) => MessageType::Yield,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MessageType;

    #[test]
    fn every_code_is_that_of_its_type() {
        for kind in MessageType::ALL {
            assert_eq!(MessageType::of_code(kind as u64), Some(kind));
        }
        assert_eq!((0..=1024).filter_map(MessageType::of_code).count(), MessageType::ALL.len());
    }
}
