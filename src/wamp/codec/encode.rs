//! Every message into any writer: what is default is not written.

use crate::wamp::features::{ClientFeatures, Feature, RouterFeatures};
use crate::wamp::message::{Event, Message, MessageType, Value};
use crate::wamp::options::{
    AudienceOptions, CallOptions, EventDetails, HelloDetails, InterruptOptions, InvocationDetails,
    InvocationPolicy, MatchPolicy, Passthru, PublishOptions, RegisterOptions, RevocationDetails,
    SubscribeOptions, Text, WelcomeDetails,
};
use crate::wamp::payload::Payload;

use super::NotRepresentable;
use super::transcode::Transcoder;
use super::writer::{Mark, Writer};

/// Appends one message.
///
/// # Errors
/// Its payload came in another serializer and cannot be said in this one; `writer` then holds a part of it.
pub(super) fn encode<W: Writer>(
    message: &Message<'_>,
    writer: &mut W,
    transcoder: &mut Transcoder,
) -> Result<(), NotRepresentable> {
    Elements { writer, transcoder }.message(message)
}

/// Appends an EVENT with this payload instead of its own.
///
/// # Errors
/// As above.
pub(super) fn encode_event<W: Writer>(
    event: &Event<'_>,
    payload: &Payload<'_>,
    writer: &mut W,
    transcoder: &mut Transcoder,
) -> Result<(), NotRepresentable> {
    Elements { writer, transcoder }.event(event, payload)
}

struct Elements<'w, W> {
    writer: &'w mut W,
    transcoder: &'w mut Transcoder,
}

impl<W: Writer> Elements<'_, W> {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), NotRepresentable> {
        let code = message.kind() as u64;
        match message {
            Message::Event(event) => return self.event(event, &event.payload),
            Message::Invocation(invocation) => {
                self.open(code, 4, &invocation.payload);
                self.writer.unsigned(invocation.request.0);
                self.writer.unsigned(invocation.registration.0);
                self.invocation_details(&invocation.details);
                self.payload(&invocation.payload)?;
            }
            Message::Result(result) => {
                self.open(code, 3, &result.payload);
                self.writer.unsigned(result.request.0);
                self.progress(result.details.progress, &result.details.passthru);
                self.payload(&result.payload)?;
            }
            Message::Error(error) => {
                self.open(code, 5, &error.payload);
                self.writer.unsigned(error.request_type as u64);
                self.writer.unsigned(error.request.0);
                self.dict(|dict| dict.passthru(&error.passthru));
                self.writer.text(&error.error);
                self.payload(&error.payload)?;
            }
            Message::Publish(publish) => {
                self.open(code, 4, &publish.payload);
                self.writer.unsigned(publish.request.0);
                self.publish_options(&publish.options);
                self.writer.text(&publish.topic);
                self.payload(&publish.payload)?;
            }
            Message::Call(call) => {
                self.open(code, 4, &call.payload);
                self.writer.unsigned(call.request.0);
                self.call_options(&call.options);
                self.writer.text(&call.procedure);
                self.payload(&call.payload)?;
            }
            Message::Yield(answer) => {
                self.open(code, 3, &answer.payload);
                self.writer.unsigned(answer.request.0);
                self.progress(answer.options.progress, &answer.options.passthru);
                self.payload(&answer.payload)?;
            }
            Message::Published(published) => self.ids(code, published.request.0, published.publication.0),
            Message::Subscribed(subscribed) => {
                self.ids(code, subscribed.request.0, subscribed.subscription.0)
            }
            Message::Unsubscribe(message) => self.ids(code, message.request.0, message.subscription.0),
            Message::Registered(registered) => {
                self.ids(code, registered.request.0, registered.registration.0)
            }
            Message::Unregister(message) => self.ids(code, message.request.0, message.registration.0),
            Message::Unsubscribed(message) => {
                self.revocable(code, message.request.0, message.details.as_ref())
            }
            Message::Unregistered(message) => {
                self.revocable(code, message.request.0, message.details.as_ref())
            }
            _ => return self.seldom(code, message),
        }
        self.writer.list_end();
        Ok(())
    }

    /// An event with a payload that may be another one than its own.
    #[inline]
    fn event(&mut self, event: &Event<'_>, payload: &Payload<'_>) -> Result<(), NotRepresentable> {
        self.open(MessageType::Event as u64, 4, payload);
        self.writer.unsigned(event.subscription.0);
        self.writer.unsigned(event.publication.0);
        self.event_details(&event.details);
        self.payload(payload)?;
        self.writer.list_end();
        Ok(())
    }

    /// The messages of which there are a few in a session, or a few among thousands.
    fn seldom(&mut self, code: u64, message: &Message<'_>) -> Result<(), NotRepresentable> {
        match message {
            Message::Hello(hello) => {
                self.open(code, 3, &Payload::EMPTY);
                self.writer.text(&hello.realm);
                self.hello_details(&hello.details)?;
            }
            Message::Welcome(welcome) => {
                self.open(code, 3, &Payload::EMPTY);
                self.writer.unsigned(welcome.session.0);
                self.welcome_details(&welcome.details)?;
            }
            Message::Abort(abort) => {
                self.open(code, 3, &abort.payload);
                self.dict(|dict| dict.optional_text("message", abort.details.message.as_ref()));
                self.writer.text(&abort.reason);
                self.payload(&abort.payload)?;
            }
            Message::Goodbye(goodbye) => {
                self.open(code, 3, &Payload::EMPTY);
                self.dict(|dict| dict.optional_text("message", goodbye.details.message.as_ref()));
                self.writer.text(&goodbye.reason);
            }
            Message::Challenge(challenge) => {
                self.open(code, 3, &Payload::EMPTY);
                self.writer.text(&challenge.method);
                self.value(challenge.extra)?;
            }
            Message::Authenticate(authenticate) => {
                self.open(code, 3, &Payload::EMPTY);
                self.writer.text(&authenticate.signature);
                self.value(authenticate.extra)?;
            }
            Message::Subscribe(subscribe) => {
                self.open(code, 4, &Payload::EMPTY);
                self.writer.unsigned(subscribe.request.0);
                self.subscribe_options(&subscribe.options);
                self.writer.text(&subscribe.topic);
            }
            Message::Register(register) => {
                self.open(code, 4, &Payload::EMPTY);
                self.writer.unsigned(register.request.0);
                self.register_options(&register.options);
                self.writer.text(&register.procedure);
            }
            Message::Cancel(cancel) => {
                self.open(code, 3, &Payload::EMPTY);
                self.writer.unsigned(cancel.request.0);
                self.dict(|dict| {
                    if let Some(mode) = cancel.options.mode {
                        dict.text("mode", mode.as_str());
                    }
                });
            }
            Message::Interrupt(interrupt) => {
                self.open(code, 3, &Payload::EMPTY);
                self.writer.unsigned(interrupt.request.0);
                self.interrupt_options(&interrupt.options);
            }
            // `message` writes all others.
            _ => return Err(NotRepresentable),
        }
        self.writer.list_end();
        Ok(())
    }

    /// Opens the message: `fixed` elements, the code among them, and those of the payload.
    #[inline]
    fn open(&mut self, code: u64, fixed: usize, payload: &Payload<'_>) {
        let of_payload = match (payload.args.is_empty(), payload.kwargs.is_empty()) {
            (true, true) => 0,
            (false, true) => 1,
            (_, false) => 2,
        };
        self.writer.list(fixed + of_payload);
        self.writer.unsigned(code);
    }

    fn ids(&mut self, code: u64, first: u64, second: u64) {
        self.writer.list(3);
        self.writer.unsigned(code);
        self.writer.unsigned(first);
        self.writer.unsigned(second);
    }

    fn revocable(&mut self, code: u64, request: u64, details: Option<&RevocationDetails<'_>>) {
        self.writer.list(2 + usize::from(details.is_some()));
        self.writer.unsigned(code);
        self.writer.unsigned(request);
        let Some(details) = details else { return };
        self.dict(|dict| {
            dict.optional_unsigned("subscription", details.subscription.map(|id| id.0));
            dict.optional_unsigned("registration", details.registration.map(|id| id.0));
            dict.optional_text("reason", details.reason.as_ref());
        });
    }

    /// Args and kwargs; an empty list where there are kwargs only.
    #[inline]
    fn payload(&mut self, payload: &Payload<'_>) -> Result<(), NotRepresentable> {
        if payload.is_empty() {
            return Ok(());
        }
        if payload.args.is_empty() {
            self.writer.list(0);
            self.writer.list_end();
        } else {
            self.splice(Value { serializer: payload.serializer, bytes: payload.args })?;
        }
        if !payload.kwargs.is_empty() {
            self.splice(Value { serializer: payload.serializer, bytes: payload.kwargs })?;
        }
        Ok(())
    }

    fn value(&mut self, value: Value<'_>) -> Result<(), NotRepresentable> {
        if value.bytes.is_empty() {
            self.writer.map(0);
            self.writer.map_end();
            return Ok(());
        }
        self.splice(value)
    }

    #[inline]
    fn splice(&mut self, value: Value<'_>) -> Result<(), NotRepresentable> {
        if value.serializer == W::SERIALIZER {
            self.writer.raw(value.bytes);
            return Ok(());
        }
        self.transcoder.transcode(value, self.writer)
    }

    #[inline]
    fn dict(&mut self, fill: impl FnOnce(&mut Dict<'_, W>)) {
        let mark = self.writer.dict();
        let mut dict = Dict { writer: self.writer, mark };
        fill(&mut dict);
        let mark = dict.mark;
        self.writer.dict_end(mark);
    }

    fn hello_details(&mut self, details: &HelloDetails<'_>) -> Result<(), NotRepresentable> {
        let mut dict = Dict { mark: self.writer.dict(), writer: self.writer };
        dict.roles(details.features.0, ClientFeatures::ALL);
        dict.optional_text("agent", details.agent.as_ref());
        if let Some(methods) = &details.authmethods {
            dict.texts("authmethods", methods);
        }
        dict.optional_text("authid", details.authid.as_ref());
        dict.optional_text("authrole", details.authrole.as_ref());
        let mark = dict.mark;
        self.value_and_end(mark, details.authextra)
    }

    fn welcome_details(&mut self, details: &WelcomeDetails<'_>) -> Result<(), NotRepresentable> {
        let mut dict = Dict { mark: self.writer.dict(), writer: self.writer };
        dict.roles(details.features.0, RouterFeatures::ALL);
        dict.optional_text("realm", details.realm.as_ref());
        dict.optional_text("authid", details.authid.as_ref());
        dict.optional_text("authrole", details.authrole.as_ref());
        dict.optional_text("authmethod", details.authmethod.as_ref());
        dict.optional_text("authprovider", details.authprovider.as_ref());
        dict.optional_text("agent", details.agent.as_ref());
        let mark = dict.mark;
        self.value_and_end(mark, details.authextra)
    }

    /// `authextra`, if there is one, as the last entry of the details.
    fn value_and_end(&mut self, mut mark: Mark, extra: Option<Value<'_>>) -> Result<(), NotRepresentable> {
        if let Some(extra) = extra {
            self.writer.key(&mut mark, "authextra");
            self.value(extra)?;
        }
        self.writer.dict_end(mark);
        Ok(())
    }

    #[inline]
    fn progress(&mut self, progress: bool, passthru: &Passthru<'_>) {
        self.dict(|dict| {
            dict.flag("progress", progress);
            dict.passthru(passthru);
        });
    }

    #[inline]
    fn publish_options(&mut self, options: &PublishOptions<'_>) {
        self.dict(|dict| {
            dict.flag("acknowledge", options.acknowledge);
            if !options.exclude_me {
                dict.boolean("exclude_me", false);
            }
            dict.flag("disclose_me", options.disclose_me);
            dict.flag("retain", options.retain);
            dict.optional_unsigned("_ttl", options.ttl_ms);
            if let Some(audience) = options.audience.as_deref() {
                dict.audience(audience);
            }
            dict.optional_text("rkey", options.rkey.as_ref());
            dict.passthru(&options.passthru);
        });
    }

    fn subscribe_options(&mut self, options: &SubscribeOptions<'_>) {
        self.dict(|dict| {
            if options.match_policy != MatchPolicy::default() {
                dict.text("match", options.match_policy.as_str());
            }
            dict.flag("get_retained", options.get_retained);
            dict.optional_text("nkey", options.nkey.as_ref());
            dict.optional_unsigned("_after", options.after);
            dict.optional_text("_database", options.database.as_ref());
        });
    }

    #[inline]
    fn event_details(&mut self, details: &EventDetails<'_>) {
        self.dict(|dict| {
            dict.optional_text("topic", details.topic.as_ref());
            dict.optional_unsigned("publisher", details.publisher.map(|id| id.0));
            dict.optional_text("publisher_authid", details.publisher_authid.as_ref());
            dict.optional_text("publisher_authrole", details.publisher_authrole.as_ref());
            dict.optional_unsigned("trustlevel", details.trustlevel);
            dict.flag("retained", details.retained);
            dict.optional_unsigned("_lost", Some(details.lost.into()).filter(|lost| *lost > 0));
            dict.optional_unsigned("_event_id", Some(details.event_id).filter(|id| *id > 0));
            dict.optional_unsigned("_depth", Some(details.depth.into()).filter(|depth| *depth > 0));
            dict.passthru(&details.passthru);
        });
    }

    #[inline]
    fn call_options(&mut self, options: &CallOptions<'_>) {
        self.dict(|dict| {
            dict.optional_unsigned("timeout", Some(options.timeout_ms).filter(|timeout| *timeout > 0));
            dict.flag("receive_progress", options.receive_progress);
            dict.flag("progress", options.progress);
            dict.flag("disclose_me", options.disclose_me);
            dict.optional_text("rkey", options.rkey.as_ref());
            dict.optional_text("runmode", options.runmode.as_ref());
            dict.passthru(&options.passthru);
        });
    }

    fn register_options(&mut self, options: &RegisterOptions<'_>) {
        self.dict(|dict| {
            if options.match_policy != MatchPolicy::default() {
                dict.text("match", options.match_policy.as_str());
            }
            if options.invoke != InvocationPolicy::default() {
                dict.text("invoke", options.invoke.as_str());
            }
            dict.optional_unsigned("concurrency", Some(options.concurrency).filter(|calls| *calls > 0));
            dict.flag("force_reregister", options.force_reregister);
            dict.flag("disclose_caller", options.disclose_caller);
            dict.optional_text("nkey", options.nkey.as_ref());
            dict.optional_text("_hash", options.hash.as_ref());
        });
    }

    #[inline]
    fn invocation_details(&mut self, details: &InvocationDetails<'_>) {
        self.dict(|dict| {
            dict.optional_text("procedure", details.procedure.as_ref());
            dict.optional_unsigned("caller", details.caller.map(|id| id.0));
            dict.optional_text("caller_authid", details.caller_authid.as_ref());
            dict.optional_text("caller_authrole", details.caller_authrole.as_ref());
            dict.optional_unsigned("trustlevel", details.trustlevel);
            dict.optional_unsigned("timeout", Some(details.timeout_ms).filter(|timeout| *timeout > 0));
            dict.flag("receive_progress", details.receive_progress);
            dict.flag("progress", details.progress);
            dict.passthru(&details.passthru);
        });
    }

    fn interrupt_options(&mut self, options: &InterruptOptions<'_>) {
        self.dict(|dict| {
            if let Some(mode) = options.mode {
                dict.text("mode", mode.as_str());
            }
            dict.optional_text("reason", options.reason.as_ref());
        });
    }
}

/// A dictionary that is being written.
struct Dict<'w, W> {
    writer: &'w mut W,
    mark: Mark,
}

impl<W: Writer> Dict<'_, W> {
    fn boolean(&mut self, key: &str, value: bool) {
        self.writer.key(&mut self.mark, key);
        self.writer.boolean(value);
    }

    /// Written where it is true.
    #[inline]
    fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.boolean(key, true);
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        self.writer.key(&mut self.mark, key);
        self.writer.text(text);
    }

    #[inline]
    fn optional_text(&mut self, key: &str, text: Option<&Text<'_>>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    #[inline]
    fn optional_unsigned(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.writer.key(&mut self.mark, key);
            self.writer.unsigned(value);
        }
    }

    fn texts(&mut self, key: &str, texts: &[Text<'_>]) {
        self.writer.key(&mut self.mark, key);
        self.writer.list(texts.len());
        texts.iter().for_each(|text| self.writer.text(text));
        self.writer.list_end();
    }

    fn unsigneds(&mut self, key: &str, values: impl ExactSizeIterator<Item = u64>) {
        self.writer.key(&mut self.mark, key);
        self.writer.list(values.len());
        values.for_each(|value| self.writer.unsigned(value));
        self.writer.list_end();
    }

    #[inline]
    fn passthru(&mut self, passthru: &Passthru<'_>) {
        if let Some(texts) = passthru.texts() {
            self.optional_text("ppt_scheme", texts.scheme.as_ref());
            self.optional_text("ppt_serializer", texts.serializer.as_ref());
            self.optional_text("ppt_cipher", texts.cipher.as_ref());
            self.optional_text("ppt_keyid", texts.keyid.as_ref());
        }
    }

    fn audience(&mut self, audience: &AudienceOptions<'_>) {
        if !audience.exclude.is_empty() {
            self.unsigneds("exclude", audience.exclude.iter().map(|id| id.0));
        }
        if !audience.exclude_authid.is_empty() {
            self.texts("exclude_authid", &audience.exclude_authid);
        }
        if !audience.exclude_authrole.is_empty() {
            self.texts("exclude_authrole", &audience.exclude_authrole);
        }
        if let Some(eligible) = &audience.eligible {
            self.unsigneds("eligible", eligible.iter().map(|id| id.0));
        }
        if let Some(eligible) = &audience.eligible_authid {
            self.texts("eligible_authid", eligible);
        }
        if let Some(eligible) = &audience.eligible_authrole {
            self.texts("eligible_authrole", eligible);
        }
    }

    /// `roles`: each role that is in the set, with those of its features that are. The table has the features of one
    /// role together, the role itself first.
    fn roles(&mut self, bits: u32, all: &[Feature]) {
        self.writer.key(&mut self.mark, "roles");
        let mut roles = Dict { mark: self.writer.dict(), writer: &mut *self.writer };
        for of_role in all.chunk_by(|one, other| one.role == other.role) {
            if of_role.iter().all(|feature| bits & feature.bit == 0) {
                continue;
            }
            roles.role(bits, of_role);
        }
        let mark = roles.mark;
        self.writer.dict_end(mark);
    }

    fn role(&mut self, bits: u32, of_role: &[Feature]) {
        let Some(role) = of_role.first() else { return };
        self.writer.key(&mut self.mark, role.role);
        let mut entries = self.writer.dict();
        let wanted = |feature: &&Feature| bits & feature.bit != 0 && !feature.key.is_empty();
        if of_role.iter().any(|feature| wanted(&feature)) {
            self.writer.key(&mut entries, "features");
            let mut features = self.writer.dict();
            for feature in of_role.iter().filter(wanted) {
                self.writer.key(&mut features, feature.key);
                self.writer.boolean(true);
            }
            self.writer.dict_end(features);
        }
        self.writer.dict_end(entries);
    }
}
