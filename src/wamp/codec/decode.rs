//! Every message out of any reader: the layouts of the specification, checked element by element.

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::wamp::error::ProtocolError;
use crate::wamp::features::{ClientFeatures, Feature, RouterFeatures};
use crate::wamp::id::{ID_MAX, PublicationId, RegistrationId, RequestId, SessionId, SubscriptionId};
use crate::wamp::message::{
    Abort, Authenticate, Call, CallResult, Cancel, Challenge, Error, Event, Goodbye, Hello, Interrupt,
    Invocation, Message, MessageType, Publish, Published, Register, Registered, Subscribe, Subscribed,
    Unregister, Unregistered, Unsubscribe, Unsubscribed, Value, Welcome, Yield,
};
use crate::wamp::options::{
    AudienceOptions, CallOptions, CancelMode, CancelOptions, CloseDetails, EventDetails, HelloDetails,
    InterruptOptions, InvocationDetails, InvocationPolicy, MatchPolicy, Passthru, PublishOptions,
    RegisterOptions, ResultDetails, RevocationDetails, SubscribeOptions, Text, WelcomeDetails, YieldOptions,
};
use crate::wamp::payload::Payload;

use super::DecodeLimits;
use super::reader::Reader;

/// Reads one message, and nothing after it.
pub(super) fn decode<'a, R: Reader<'a>>(
    mut reader: R,
    limits: DecodeLimits,
) -> Result<Message<'a>, ProtocolError> {
    let Some(scope) = reader.list()? else {
        return Err(ProtocolError::new(format!(
            "a message is a list, but this is {}",
            reader.kind()?.describe()
        )));
    };
    let mut elements = Elements { reader, scope, ended: false, kind: MessageType::Hello, limits };
    elements.kind = elements.message_type()?;
    // The result is checked in its place: messages are large, and moving one costs as much as reading a small one.
    let message = elements.message();
    if message.is_ok()
        && let Err(error) = elements.end()
    {
        return Err(error);
    }
    message
}

/// The elements of one message, from the second on.
struct Elements<'a, R: Reader<'a>> {
    reader: R,
    scope: R::Scope,
    /// The end of the list was passed.
    ended: bool,
    kind: MessageType,
    limits: DecodeLimits,
}

impl<'a, R: Reader<'a>> Elements<'a, R> {
    /// Whether there is another element.
    #[inline]
    fn next(&mut self) -> Result<bool, ProtocolError> {
        self.ended = self.ended || !self.reader.next(&mut self.scope)?;
        Ok(!self.ended)
    }

    fn message_type(&mut self) -> Result<MessageType, ProtocolError> {
        if !self.next()? {
            return Err(ProtocolError::new("an empty list is not a message"));
        }
        let Some(code) = self.reader.unsigned()? else {
            let found = self.reader.kind()?.describe();
            return Err(ProtocolError::new(format!(
                "the type of a message is an integer, but the first element is {found}"
            )));
        };
        MessageType::of_code(code)
            .ok_or_else(|| ProtocolError::new(format!("there is no message type {code}")))
    }

    #[inline]
    fn message(&mut self) -> Result<Message<'a>, ProtocolError> {
        Ok(match self.kind {
            MessageType::Publish => Message::Publish(Publish {
                request: self.request()?,
                options: self.publish_options()?,
                topic: self.text("Topic")?,
                payload: self.payload()?,
            }),
            MessageType::Call => Message::Call(Call {
                request: self.request()?,
                options: self.call_options()?,
                procedure: self.text("Procedure")?,
                payload: self.payload()?,
            }),
            MessageType::Yield => Message::Yield(Yield {
                request: self.request()?,
                options: self.yield_options()?,
                payload: self.payload()?,
            }),
            MessageType::Error => Message::Error(self.error()?),
            MessageType::Event => Message::Event(Event {
                subscription: SubscriptionId(self.id("Subscription")?),
                publication: PublicationId(self.id("Publication")?),
                details: self.event_details()?,
                payload: self.payload()?,
            }),
            MessageType::Result => Message::Result(CallResult {
                request: self.request()?,
                details: self.result_details()?,
                payload: self.payload()?,
            }),
            MessageType::Invocation => Message::Invocation(Invocation {
                request: self.request()?,
                registration: RegistrationId(self.id("Registration")?),
                details: self.invocation_details()?,
                payload: self.payload()?,
            }),
            _ => return self.message_without_payload(),
        })
    }

    fn message_without_payload(&mut self) -> Result<Message<'a>, ProtocolError> {
        Ok(match self.kind {
            MessageType::Hello => {
                Message::Hello(Hello { realm: self.text("Realm")?, details: self.hello_details()? })
            }
            MessageType::Welcome => Message::Welcome(Welcome {
                session: SessionId(self.id("Session")?),
                details: self.welcome_details()?,
            }),
            MessageType::Challenge => Message::Challenge(Challenge {
                method: self.text("AuthMethod")?,
                extra: self.value("Extra")?,
            }),
            MessageType::Authenticate => Message::Authenticate(Authenticate {
                signature: self.text("Signature")?,
                extra: self.value("Extra")?,
            }),
            MessageType::Goodbye => {
                Message::Goodbye(Goodbye { details: self.close_details()?, reason: self.text("Reason")? })
            }
            MessageType::Published => Message::Published(Published {
                request: self.request()?,
                publication: PublicationId(self.id("Publication")?),
            }),
            MessageType::Subscribe => Message::Subscribe(Subscribe {
                request: self.request()?,
                options: self.subscribe_options()?,
                topic: self.text("Topic")?,
            }),
            MessageType::Subscribed => Message::Subscribed(Subscribed {
                request: self.request()?,
                subscription: SubscriptionId(self.id("Subscription")?),
            }),
            MessageType::Unsubscribe => Message::Unsubscribe(Unsubscribe {
                request: self.request()?,
                subscription: SubscriptionId(self.id("Subscription")?),
            }),
            MessageType::Unsubscribed => {
                let (request, details) = self.revocation()?;
                Message::Unsubscribed(Unsubscribed { request, details })
            }
            MessageType::Cancel => {
                Message::Cancel(Cancel { request: self.request()?, options: self.cancel_options()? })
            }
            MessageType::Register => Message::Register(Register {
                request: self.request()?,
                options: self.register_options()?,
                procedure: self.text("Procedure")?,
            }),
            MessageType::Registered => Message::Registered(Registered {
                request: self.request()?,
                registration: RegistrationId(self.id("Registration")?),
            }),
            MessageType::Unregister => Message::Unregister(Unregister {
                request: self.request()?,
                registration: RegistrationId(self.id("Registration")?),
            }),
            MessageType::Unregistered => {
                let (request, details) = self.revocation()?;
                Message::Unregistered(Unregistered { request, details })
            }
            MessageType::Interrupt => {
                Message::Interrupt(Interrupt { request: self.request()?, options: self.interrupt_options()? })
            }
            // ABORT, the only one left: `message` reads the others that have a payload.
            _ => Message::Abort(Abort {
                details: self.close_details()?,
                reason: self.text("Reason")?,
                payload: self.payload()?,
            }),
        })
    }

    fn error(&mut self) -> Result<Error<'a>, ProtocolError> {
        let code = self.unsigned("REQUEST.Type")?;
        let Some(request_type) = MessageType::of_code(code) else {
            return Err(self.complaint("REQUEST.Type", &format!("there is no message type {code}")));
        };
        let request = RequestId(self.id("REQUEST.Request")?);
        let mut passthru = Passthru::default();
        self.dict("Details", |key, field| passthru_or_skip(&mut passthru, key, field))?;
        Ok(Error { request_type, request, error: self.text("Error")?, passthru, payload: self.payload()? })
    }

    /// `Request`, or `0, Details` where the router takes a subscription or registration back.
    fn revocation(&mut self) -> Result<(RequestId, Option<RevocationDetails<'a>>), ProtocolError> {
        let request = self.unsigned("Request")?;
        if request != 0 {
            return Ok((RequestId(self.in_range("Request", request)?), None));
        }
        let mut details = RevocationDetails::default();
        self.dict("Details", |key, field| {
            match key {
                "subscription" => details.subscription = Some(SubscriptionId(field.id()?)),
                "registration" => details.registration = Some(RegistrationId(field.id()?)),
                "reason" => details.reason = Some(field.text()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok((RequestId(0), Some(details)))
    }

    /// After the last element that the layout has, nothing may follow.
    #[inline]
    fn end(&mut self) -> Result<(), ProtocolError> {
        if self.next()? {
            return Err(ProtocolError::new(format!("{}: too many elements", self.kind.name())));
        }
        Ok(self.reader.end()?)
    }

    #[inline]
    fn element(&mut self, name: &'static str) -> Result<(), ProtocolError> {
        if !self.next()? {
            return Err(self.missing(name));
        }
        Ok(())
    }

    #[cold]
    fn missing(&self, name: &'static str) -> ProtocolError {
        ProtocolError::new(format!("{}: too few elements, {name} is missing", self.kind.name()))
    }

    #[cold]
    fn complaint(&self, name: &str, what: &str) -> ProtocolError {
        ProtocolError::new(format!("{}.{name}: {what}", self.kind.name()))
    }

    #[cold]
    fn expected(&mut self, name: &str, expected: &str) -> ProtocolError {
        match self.reader.kind() {
            Ok(kind) => self.complaint(name, &format!("expected {expected}, found {}", kind.describe())),
            Err(fault) => fault.into(),
        }
    }

    #[inline]
    fn text(&mut self, name: &'static str) -> Result<Text<'a>, ProtocolError> {
        self.element(name)?;
        match self.reader.text()? {
            Some(text) => Ok(text),
            None => Err(self.expected(name, "a string")),
        }
    }

    #[inline]
    fn unsigned(&mut self, name: &'static str) -> Result<u64, ProtocolError> {
        self.element(name)?;
        match self.reader.unsigned()? {
            Some(value) => Ok(value),
            None => Err(self.expected(name, "an integer in 1..=2^53")),
        }
    }

    #[inline]
    fn id(&mut self, name: &'static str) -> Result<u64, ProtocolError> {
        let value = self.unsigned(name)?;
        self.in_range(name, value)
    }

    #[inline]
    fn in_range(&self, name: &'static str, value: u64) -> Result<u64, ProtocolError> {
        if (1..=ID_MAX).contains(&value) {
            return Ok(value);
        }
        Err(self.complaint(name, &format!("expected an integer in 1..=2^53, found {value}")))
    }

    #[inline]
    fn request(&mut self) -> Result<RequestId, ProtocolError> {
        self.id("Request").map(RequestId)
    }

    fn value(&mut self, name: &'static str) -> Result<Value<'a>, ProtocolError> {
        self.element(name)?;
        match self.reader.raw_map()? {
            Some(bytes) => Ok(Value { serializer: R::SERIALIZER, bytes }),
            None => Err(self.expected(name, "a map")),
        }
    }

    #[inline]
    fn payload(&mut self) -> Result<Payload<'a>, ProtocolError> {
        let (mut args, mut kwargs): (&[u8], &[u8]) = (&[], &[]);
        if self.next()? {
            args = match self.reader.raw_list()? {
                Some(bytes) => bytes,
                None => return Err(self.expected("Arguments", "a list")),
            };
            if self.next()? {
                kwargs = match self.reader.raw_map()? {
                    Some(bytes) => bytes,
                    None => return Err(self.expected("ArgumentsKw", "a map")),
                };
            }
        }
        if args.is_empty() && kwargs.is_empty() {
            return Ok(Payload::EMPTY);
        }
        Ok(Payload { serializer: R::SERIALIZER, args, kwargs })
    }

    /// Reads the dictionary that is the next element; `entry` reads, or skips, the value of each key.
    #[inline]
    fn dict(
        &mut self,
        name: &'static str,
        mut entry: impl FnMut(&str, &mut Field<'_, 'a, R>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        self.element(name)?;
        let Some(mut scope) = self.reader.map()? else {
            return Err(self.expected(name, "a map"));
        };
        while let Some(key) = self.reader.key(&mut scope)? {
            if self.reader.absent()? {
                continue;
            }
            let mut field = Field {
                reader: &mut self.reader,
                kind: self.kind,
                dict: name,
                key: &key,
                limits: self.limits,
                message: PhantomData,
            };
            entry(&key, &mut field)?;
        }
        Ok(())
    }

    fn hello_details(&mut self) -> Result<HelloDetails<'a>, ProtocolError> {
        let mut details = HelloDetails::default();
        self.dict("Details", |key, field| {
            match key {
                "roles" => details.features = ClientFeatures(field.roles(ClientFeatures::ALL)?),
                "agent" => details.agent = Some(field.text()?),
                "authmethods" => details.authmethods = Some(field.texts()?),
                "authid" => details.authid = Some(field.text()?),
                "authrole" => details.authrole = Some(field.text()?),
                "authextra" => details.authextra = Some(field.value()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        if details.features == ClientFeatures::default() {
            return Err(self.complaint(
                "Details.roles",
                "expected at least one of caller, callee, publisher and subscriber",
            ));
        }
        Ok(details)
    }

    fn welcome_details(&mut self) -> Result<WelcomeDetails<'a>, ProtocolError> {
        let mut details = WelcomeDetails::default();
        self.dict("Details", |key, field| {
            match key {
                "roles" => details.features = RouterFeatures(field.roles(RouterFeatures::ALL)?),
                "realm" => details.realm = Some(field.text()?),
                "authid" => details.authid = Some(field.text()?),
                "authrole" => details.authrole = Some(field.text()?),
                "authmethod" => details.authmethod = Some(field.text()?),
                "authprovider" => details.authprovider = Some(field.text()?),
                "authextra" => details.authextra = Some(field.value()?),
                "agent" => details.agent = Some(field.text()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        if details.features == RouterFeatures::default() {
            return Err(self.complaint("Details.roles", "expected at least one of broker and dealer"));
        }
        Ok(details)
    }

    fn close_details(&mut self) -> Result<CloseDetails<'a>, ProtocolError> {
        let mut details = CloseDetails::default();
        self.dict("Details", |key, field| {
            match key {
                "message" => details.message = Some(field.text()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(details)
    }

    #[inline]
    fn publish_options(&mut self) -> Result<PublishOptions<'a>, ProtocolError> {
        let mut options = PublishOptions::default();
        self.dict("Options", |key, field| {
            match key {
                "acknowledge" => options.acknowledge = field.boolean()?,
                "exclude_me" => options.exclude_me = field.boolean()?,
                "disclose_me" => options.disclose_me = field.boolean()?,
                "retain" => options.retain = field.boolean()?,
                "_ttl" => options.ttl_ms = Some(field.unsigned()?),
                "exclude" => audience(&mut options).exclude = field.sessions()?,
                "exclude_authid" => audience(&mut options).exclude_authid = field.texts()?,
                "exclude_authrole" => audience(&mut options).exclude_authrole = field.texts()?,
                "eligible" => audience(&mut options).eligible = Some(field.sessions()?),
                "eligible_authid" => audience(&mut options).eligible_authid = Some(field.texts()?),
                "eligible_authrole" => audience(&mut options).eligible_authrole = Some(field.texts()?),
                "rkey" => options.rkey = Some(field.text()?),
                _ => passthru_or_skip(&mut options.passthru, key, field)?,
            }
            Ok(())
        })?;
        Ok(options)
    }

    fn subscribe_options(&mut self) -> Result<SubscribeOptions<'a>, ProtocolError> {
        let mut options = SubscribeOptions::default();
        self.dict("Options", |key, field| {
            match key {
                "match" => options.match_policy = field.word(&MATCH_POLICIES)?,
                "get_retained" => options.get_retained = field.boolean()?,
                "nkey" => options.nkey = Some(field.text()?),
                "_after" => options.after = Some(field.unsigned()?),
                "_database" => options.database = Some(field.text()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(options)
    }

    #[inline]
    fn event_details(&mut self) -> Result<EventDetails<'a>, ProtocolError> {
        let mut details = EventDetails::default();
        self.dict("Details", |key, field| {
            match key {
                "topic" => details.topic = Some(field.text()?),
                "publisher" => details.publisher = Some(SessionId(field.id()?)),
                "publisher_authid" => details.publisher_authid = Some(field.text()?),
                "publisher_authrole" => details.publisher_authrole = Some(field.text()?),
                "trustlevel" => details.trustlevel = Some(field.unsigned()?),
                "retained" => details.retained = field.boolean()?,
                "_lost" => details.lost = u32::try_from(field.unsigned()?).unwrap_or(u32::MAX),
                "_event_id" => details.event_id = field.unsigned()?,
                "_depth" => details.depth = u32::try_from(field.unsigned()?).unwrap_or(u32::MAX),
                _ => passthru_or_skip(&mut details.passthru, key, field)?,
            }
            Ok(())
        })?;
        Ok(details)
    }

    #[inline]
    fn call_options(&mut self) -> Result<CallOptions<'a>, ProtocolError> {
        let mut options = CallOptions::default();
        self.dict("Options", |key, field| {
            match key {
                "timeout" => options.timeout_ms = field.unsigned()?,
                "receive_progress" => options.receive_progress = field.boolean()?,
                "progress" => options.progress = field.boolean()?,
                "disclose_me" => options.disclose_me = field.boolean()?,
                "rkey" => options.rkey = Some(field.text()?),
                "runmode" => options.runmode = Some(field.text()?),
                _ => passthru_or_skip(&mut options.passthru, key, field)?,
            }
            Ok(())
        })?;
        Ok(options)
    }

    fn cancel_options(&mut self) -> Result<CancelOptions, ProtocolError> {
        let mut options = CancelOptions::default();
        self.dict("Options", |key, field| {
            match key {
                "mode" => options.mode = Some(field.word(&CANCEL_MODES)?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(options)
    }

    #[inline]
    fn result_details(&mut self) -> Result<ResultDetails<'a>, ProtocolError> {
        let mut details = ResultDetails::default();
        self.dict("Details", |key, field| {
            match key {
                "progress" => details.progress = field.boolean()?,
                _ => passthru_or_skip(&mut details.passthru, key, field)?,
            }
            Ok(())
        })?;
        Ok(details)
    }

    fn register_options(&mut self) -> Result<RegisterOptions<'a>, ProtocolError> {
        let mut options = RegisterOptions::default();
        self.dict("Options", |key, field| {
            match key {
                "match" => options.match_policy = field.word(&MATCH_POLICIES)?,
                "invoke" => options.invoke = field.word(&INVOCATION_POLICIES)?,
                "concurrency" => options.concurrency = field.unsigned()?,
                "force_reregister" => options.force_reregister = field.boolean()?,
                "disclose_caller" => options.disclose_caller = field.boolean()?,
                "nkey" => options.nkey = Some(field.text()?),
                "_hash" => options.hash = Some(field.text()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(options)
    }

    #[inline]
    fn invocation_details(&mut self) -> Result<InvocationDetails<'a>, ProtocolError> {
        let mut details = InvocationDetails::default();
        self.dict("Details", |key, field| {
            match key {
                "procedure" => details.procedure = Some(field.text()?),
                "caller" => details.caller = Some(SessionId(field.id()?)),
                "caller_authid" => details.caller_authid = Some(field.text()?),
                "caller_authrole" => details.caller_authrole = Some(field.text()?),
                "trustlevel" => details.trustlevel = Some(field.unsigned()?),
                "timeout" => details.timeout_ms = field.unsigned()?,
                "receive_progress" => details.receive_progress = field.boolean()?,
                "progress" => details.progress = field.boolean()?,
                _ => passthru_or_skip(&mut details.passthru, key, field)?,
            }
            Ok(())
        })?;
        Ok(details)
    }

    fn interrupt_options(&mut self) -> Result<InterruptOptions<'a>, ProtocolError> {
        let mut options = InterruptOptions::default();
        self.dict("Options", |key, field| {
            match key {
                "mode" => options.mode = Some(field.word(&CANCEL_MODES)?),
                "reason" => options.reason = Some(field.text()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(options)
    }

    #[inline]
    fn yield_options(&mut self) -> Result<YieldOptions<'a>, ProtocolError> {
        let mut options = YieldOptions::default();
        self.dict("Options", |key, field| {
            match key {
                "progress" => options.progress = field.boolean()?,
                _ => passthru_or_skip(&mut options.passthru, key, field)?,
            }
            Ok(())
        })?;
        Ok(options)
    }
}

const MATCH_POLICIES: [(&str, MatchPolicy); 3] = [
    (MatchPolicy::Exact.as_str(), MatchPolicy::Exact),
    (MatchPolicy::Prefix.as_str(), MatchPolicy::Prefix),
    (MatchPolicy::Wildcard.as_str(), MatchPolicy::Wildcard),
];

const INVOCATION_POLICIES: [(&str, InvocationPolicy); 7] = [
    (InvocationPolicy::Single.as_str(), InvocationPolicy::Single),
    (InvocationPolicy::First.as_str(), InvocationPolicy::First),
    (InvocationPolicy::Last.as_str(), InvocationPolicy::Last),
    (InvocationPolicy::RoundRobin.as_str(), InvocationPolicy::RoundRobin),
    (InvocationPolicy::Random.as_str(), InvocationPolicy::Random),
    (InvocationPolicy::LeastBusy.as_str(), InvocationPolicy::LeastBusy),
    (InvocationPolicy::Hash.as_str(), InvocationPolicy::Hash),
];

const CANCEL_MODES: [(&str, CancelMode); 3] = [
    (CancelMode::Skip.as_str(), CancelMode::Skip),
    (CancelMode::Kill.as_str(), CancelMode::Kill),
    (CancelMode::KillNoWait.as_str(), CancelMode::KillNoWait),
];

fn audience<'o, 'a>(options: &'o mut PublishOptions<'a>) -> &'o mut AudienceOptions<'a> {
    options.audience.get_or_insert_default()
}

/// The keys that every message with a payload may have in common; others are none of ours.
#[inline]
fn passthru_or_skip<'a, R: Reader<'a>>(
    passthru: &mut Passthru<'a>,
    key: &str,
    field: &mut Field<'_, 'a, R>,
) -> Result<(), ProtocolError> {
    match key {
        "ppt_scheme" => passthru.texts_mut().scheme = Some(field.text()?),
        "ppt_serializer" => passthru.texts_mut().serializer = Some(field.text()?),
        "ppt_cipher" => passthru.texts_mut().cipher = Some(field.text()?),
        "ppt_keyid" => passthru.texts_mut().keyid = Some(field.text()?),
        _ => field.skip()?,
    }
    Ok(())
}

/// The value of one key of options or details.
struct Field<'f, 'a, R: Reader<'a>> {
    reader: &'f mut R,
    kind: MessageType,
    dict: &'static str,
    key: &'f str,
    limits: DecodeLimits,
    message: PhantomData<&'a ()>,
}

impl<'a, R: Reader<'a>> Field<'_, 'a, R> {
    #[cold]
    fn complaint(&self, what: &str) -> ProtocolError {
        ProtocolError::new(format!("{}.{}.{}: {what}", self.kind.name(), self.dict, self.key))
    }

    #[cold]
    fn expected(&mut self, expected: &str) -> ProtocolError {
        match self.reader.kind() {
            Ok(kind) => self.complaint(&format!("expected {expected}, found {}", kind.describe())),
            Err(fault) => fault.into(),
        }
    }

    #[inline]
    fn skip(&mut self) -> Result<(), ProtocolError> {
        Ok(self.reader.skip()?)
    }

    #[inline]
    fn boolean(&mut self) -> Result<bool, ProtocolError> {
        match self.reader.boolean()? {
            Some(value) => Ok(value),
            None => Err(self.expected("a boolean")),
        }
    }

    #[inline]
    fn text(&mut self) -> Result<Text<'a>, ProtocolError> {
        match self.reader.text()? {
            Some(text) => Ok(text),
            None => Err(self.expected("a string")),
        }
    }

    #[inline]
    fn unsigned(&mut self) -> Result<u64, ProtocolError> {
        match self.reader.unsigned()? {
            Some(value) => Ok(value),
            None => Err(self.expected("an integer of at least 0")),
        }
    }

    fn id(&mut self) -> Result<u64, ProtocolError> {
        let Some(value) = self.reader.unsigned()? else {
            return Err(self.expected("an integer in 1..=2^53"));
        };
        if !(1..=ID_MAX).contains(&value) {
            return Err(self.complaint(&format!("expected an integer in 1..=2^53, found {value}")));
        }
        Ok(value)
    }

    fn value(&mut self) -> Result<Value<'a>, ProtocolError> {
        match self.reader.raw_map()? {
            Some(bytes) => Ok(Value { serializer: R::SERIALIZER, bytes }),
            None => Err(self.expected("a map")),
        }
    }

    fn texts(&mut self) -> Result<Vec<Text<'a>>, ProtocolError> {
        self.entries("a list of strings", Self::text)
    }

    fn sessions(&mut self) -> Result<Vec<SessionId>, ProtocolError> {
        self.entries("a list of session ids", |field| field.id().map(SessionId))
    }

    fn entries<T>(
        &mut self,
        expected: &str,
        mut entry: impl FnMut(&mut Self) -> Result<T, ProtocolError>,
    ) -> Result<Vec<T>, ProtocolError> {
        let Some(mut scope) = self.reader.list()? else {
            return Err(self.expected(expected));
        };
        let mut entries = Vec::new();
        while self.reader.next(&mut scope)? {
            if entries.len() >= self.limits.list_max {
                return Err(self.complaint(&format!("at most {} entries are allowed", self.limits.list_max)));
            }
            entries.push(entry(self)?);
        }
        Ok(entries)
    }

    /// One of a few words.
    fn word<T: Copy>(&mut self, words: &[(&str, T)]) -> Result<T, ProtocolError> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let shown: String = text.chars().take(64).collect();
        Err(self.complaint(&format!("expected one of {}, found {shown:?}", allowed.join(", "))))
    }

    /// The bits of the roles, and of those of their features that are true.
    fn roles(&mut self, all: &[Feature]) -> Result<u32, ProtocolError> {
        let mut bits = 0;
        let Some(mut roles) = self.reader.map()? else {
            return Err(self.expected("a map"));
        };
        while let Some(role) = self.reader.key(&mut roles)? {
            let Some(of_role) = all.iter().find(|feature| feature.role == role && feature.key.is_empty())
            else {
                self.reader.skip()?;
                continue;
            };
            bits |= of_role.bit;
            let Some(mut entries) = self.reader.map()? else {
                return Err(self.expected_within(&role, "a map"));
            };
            while let Some(key) = self.reader.key(&mut entries)? {
                if key == "features" {
                    bits |= self.features(&role, all)?;
                } else {
                    self.reader.skip()?;
                }
            }
        }
        Ok(bits)
    }

    fn features(&mut self, role: &Text<'a>, all: &[Feature]) -> Result<u32, ProtocolError> {
        let mut bits = 0;
        let Some(mut scope) = self.reader.map()? else {
            return Err(self.expected_within(&format!("{role}.features"), "a map"));
        };
        while let Some(key) = self.reader.key(&mut scope)? {
            // The specification spells this feature in two ways.
            let key = if key == "call_cancelling" { Cow::Borrowed("call_canceling") } else { key };
            let known =
                all.iter().find(|feature| feature.role == *role && feature.key == key && !key.is_empty());
            let Some(feature) = known else {
                self.reader.skip()?;
                continue;
            };
            match self.reader.boolean()? {
                Some(true) => bits |= feature.bit,
                Some(false) => {}
                None => return Err(self.expected_within(&format!("{role}.features.{key}"), "a boolean")),
            }
        }
        Ok(bits)
    }

    #[cold]
    fn expected_within(&mut self, path: &str, expected: &str) -> ProtocolError {
        match self.reader.kind() {
            Ok(kind) => self.complaint(&format!("{path}: expected {expected}, found {}", kind.describe())),
            Err(fault) => fault.into(),
        }
    }
}
