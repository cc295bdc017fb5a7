//! Properties of the codec: every message through every serializer, payloads spliced and transcoded, bad bytes.
//!
//! The payloads are written by a second, simple encoder that stands in this file, in forms that the codec itself
//! does not choose: MessagePack with the longest lengths, CBOR with indefinite ones, JSON with white space.

use std::borrow::Cow;

use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, NotRepresentable, Serializer, decode};
use crosspoint::wamp::features::{ClientFeatures, Feature, RouterFeatures};
use crosspoint::wamp::id::ID_MAX;
use crosspoint::wamp::message::*;
use crosspoint::wamp::options::*;
use crosspoint::wamp::{Payload, PublicationId, RegistrationId, RequestId, SessionId, SubscriptionId};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// A value of an application.
#[derive(Clone, Debug)]
enum Sample {
    Null,
    Boolean(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Sample {
    fn write(&self, serializer: Serializer, out: &mut Vec<u8>) {
        match serializer {
            Serializer::Json => self.write_json(out),
            Serializer::MsgPack => self.write_msgpack(out),
            Serializer::Cbor => self.write_cbor(out),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b" null"),
            Self::Boolean(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Unsigned(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Negative(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Float(value) => out.extend_from_slice(format!("{value:e}").as_bytes()),
            Self::Text(text) => write_json_text(text, out),
            Self::Bytes(bytes) => {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                out.extend_from_slice(format!("\"\\u0000{text}\"").as_bytes());
            }
            Self::List(elements) => {
                out.push(b'[');
                for (at, element) in elements.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b" ,\n" } else { b"\t" });
                    element.write_json(out);
                }
                out.extend_from_slice(b" ]");
            }
            Self::Map(entries) => {
                out.push(b'{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b"\r, " } else { b" " });
                    write_json_text(key, out);
                    out.extend_from_slice(b" : ");
                    value.write_json(out);
                }
                out.push(b'}');
            }
        }
    }

    fn write_msgpack(&self, out: &mut Vec<u8>) {
        let mut long = |head: u8, length: usize| {
            out.push(head);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        };
        match self {
            Self::Null => out.push(0xc0),
            Self::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
            Self::Unsigned(value) => {
                out.push(0xcf);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Negative(value) => {
                out.push(0xd3);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Float(value) => {
                out.push(0xcb);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Text(text) => {
                long(0xdb, text.len());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Bytes(bytes) => {
                long(0xc6, bytes.len());
                out.extend_from_slice(bytes);
            }
            Self::List(elements) => {
                long(0xdd, elements.len());
                elements.iter().for_each(|element| element.write_msgpack(out));
            }
            Self::Map(entries) => {
                long(0xdf, entries.len());
                for (key, value) in entries {
                    Self::Text(key.clone()).write_msgpack(out);
                    value.write_msgpack(out);
                }
            }
        }
    }

    fn write_cbor(&self, out: &mut Vec<u8>) {
        let mut long = |major: u8, argument: u64| {
            out.push(major << 5 | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        };
        match self {
            Self::Null => out.push(0xf7),
            Self::Boolean(value) => out.push(0xf4 + u8::from(*value)),
            Self::Unsigned(value) => long(0, *value),
            Self::Negative(value) => long(1, (-1 - value) as u64),
            Self::Float(value) => {
                out.push(0xfb);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Text(text) => {
                out.push(0x7f);
                for character in text.chars() {
                    let mut bytes = [0; 4];
                    let chunk = character.encode_utf8(&mut bytes);
                    out.push(0x60 | chunk.len() as u8);
                    out.extend_from_slice(chunk.as_bytes());
                }
                out.push(0xff);
            }
            Self::Bytes(bytes) => {
                out.push(0x5f);
                for chunk in bytes.chunks(7) {
                    out.push(0x40 | chunk.len() as u8);
                    out.extend_from_slice(chunk);
                }
                out.push(0xff);
            }
            Self::List(elements) => {
                out.push(0x9f);
                elements.iter().for_each(|element| element.write_cbor(out));
                out.push(0xff);
            }
            Self::Map(entries) => {
                out.push(0xbf);
                for (key, value) in entries {
                    Self::Text(key.clone()).write_cbor(out);
                    // A tag without a meaning here.
                    out.extend_from_slice(&[0xd8, 0x2a]);
                    value.write_cbor(out);
                }
                out.push(0xff);
            }
        }
    }
}

fn write_json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ (b' '..=b'!' | b'#'..=b'[' | b']'..=b'~')) => out.push(byte),
            _ => out.extend_from_slice(format!("\\u{unit:04X}").as_bytes()),
        }
    }
    out.push(b'"');
}

/// Strings that no serializer takes for bytes.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        "[a-z]{0,12}",
        "[ -~]{0,40}",
        any::<String>().prop_map(|text| text.trim_start_matches('\0').to_owned()),
    ]
    .boxed()
}

fn sample() -> BoxedStrategy<Sample> {
    let leaf = prop_oneof![
        Just(Sample::Null),
        any::<bool>().prop_map(Sample::Boolean),
        (any::<u64>(), 0..64).prop_map(|(value, shift)| Sample::Unsigned(value >> shift)),
        (i64::MIN..0, 0..63).prop_map(|(value, shift)| Sample::Negative(value >> shift)),
        any::<f64>().prop_filter("JSON has no others", |value| value.is_finite()).prop_map(Sample::Float),
        text().prop_map(Sample::Text),
        vec(any::<u8>(), 0..40).prop_map(Sample::Bytes),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![vec(inner.clone(), 0..8).prop_map(Sample::List), map(inner)]
    })
    .boxed()
}

fn map(inner: impl Strategy<Value = Sample> + 'static) -> BoxedStrategy<Sample> {
    proptest::collection::btree_map(text(), inner, 0..20)
        .prop_map(|entries| Sample::Map(entries.into_iter().collect()))
        .boxed()
}

fn list() -> BoxedStrategy<Sample> {
    vec(sample(), 0..6).prop_map(Sample::List).boxed()
}

fn kwargs() -> BoxedStrategy<Sample> {
    map(sample()).boxed()
}

fn word() -> BoxedStrategy<Text<'static>> {
    text().prop_map(Cow::Owned).boxed()
}

fn words() -> BoxedStrategy<Vec<Text<'static>>> {
    vec(word(), 0..4).boxed()
}

fn id() -> BoxedStrategy<u64> {
    prop_oneof![1..1000u64, 1..=ID_MAX, Just(ID_MAX)].boxed()
}

fn request() -> BoxedStrategy<RequestId> {
    id().prop_map(RequestId).boxed()
}

fn sessions() -> BoxedStrategy<Vec<SessionId>> {
    vec(id().prop_map(SessionId), 0..4).boxed()
}

fn passthru() -> BoxedStrategy<Passthru<'static>> {
    (of(word()), of(word()), of(word()), of(word()))
        .prop_map(|(scheme, serializer, cipher, keyid)| {
            Passthru::new(PassthruTexts { scheme, serializer, cipher, keyid })
        })
        .boxed()
}

/// Any features, each with its role, and at least one role.
fn features(all: &'static [Feature]) -> BoxedStrategy<u32> {
    vec(select(all), 1..10)
        .prop_map(move |chosen| {
            let of_roles = all.iter().filter(|role| role.key.is_empty());
            let roles = of_roles.filter(|role| chosen.iter().any(|feature| feature.role == role.role));
            roles.chain(&chosen).fold(0, |bits, feature| bits | feature.bit)
        })
        .boxed()
}

/// What a message carries besides its typed parts: where they go depends on its type.
#[derive(Clone, Debug)]
struct Content {
    args: Sample,
    kwargs: Sample,
}

/// Content in the bytes of one serializer.
#[derive(Debug)]
struct Bytes {
    serializer: Serializer,
    args: Vec<u8>,
    kwargs: Vec<u8>,
}

impl Content {
    /// As the decoder leaves it: nothing at all for an empty list or map.
    fn bytes(&self, serializer: Serializer) -> Bytes {
        let (mut args, mut kwargs) = (Vec::new(), Vec::new());
        if !matches!(&self.args, Sample::List(elements) if elements.is_empty()) {
            self.args.write(serializer, &mut args);
        }
        if !matches!(&self.kwargs, Sample::Map(entries) if entries.is_empty()) {
            self.kwargs.write(serializer, &mut kwargs);
        }
        Bytes { serializer, args, kwargs }
    }
}

impl Bytes {
    fn payload(&self) -> Payload<'_> {
        if self.args.is_empty() && self.kwargs.is_empty() {
            return Payload::EMPTY;
        }
        Payload { serializer: self.serializer, args: &self.args, kwargs: &self.kwargs }
    }

    fn extra(&self) -> Value<'_> {
        Value { serializer: self.serializer, bytes: &self.kwargs }
    }
}

/// `message` with this content in the place where its type has one.
fn with_content<'a>(message: &Message<'a>, bytes: &'a Bytes) -> Message<'a> {
    let mut message = message.clone();
    match &mut message {
        Message::Hello(Hello { details: HelloDetails { authextra: Some(extra), .. }, .. })
        | Message::Welcome(Welcome { details: WelcomeDetails { authextra: Some(extra), .. }, .. })
        | Message::Challenge(Challenge { extra, .. })
        | Message::Authenticate(Authenticate { extra, .. }) => *extra = bytes.extra(),
        Message::Abort(Abort { payload, .. })
        | Message::Error(Error { payload, .. })
        | Message::Publish(Publish { payload, .. })
        | Message::Event(Event { payload, .. })
        | Message::Call(Call { payload, .. })
        | Message::Result(CallResult { payload, .. })
        | Message::Invocation(Invocation { payload, .. })
        | Message::Yield(Yield { payload, .. }) => *payload = bytes.payload(),
        _ => {}
    }
    message
}

const NO_EXTRA: Value<'static> = Value { serializer: Serializer::Json, bytes: &[] };

fn extra() -> BoxedStrategy<Option<Value<'static>>> {
    of(Just(NO_EXTRA)).boxed()
}

fn session_message() -> BoxedStrategy<Message<'static>> {
    let hello =
        (word(), features(ClientFeatures::ALL), of(word()), of(words()), of(word()), of(word()), extra());
    let hello = hello.prop_map(|(realm, bits, agent, authmethods, authid, authrole, authextra)| {
        let features = ClientFeatures(bits);
        let details = HelloDetails { features, agent, authmethods, authid, authrole, authextra };
        Message::Hello(Hello { realm, details })
    });
    let optional = (of(word()), of(word()), of(word()), of(word()), of(word()), of(word()));
    let welcome = (id(), features(RouterFeatures::ALL), optional, extra());
    let welcome = welcome.prop_map(
        |(session, bits, (realm, authid, authrole, authmethod, authprovider, agent), authextra)| {
            let features = RouterFeatures(bits);
            let details = WelcomeDetails {
                realm,
                authid,
                authrole,
                authmethod,
                authprovider,
                authextra,
                agent,
                features,
            };
            Message::Welcome(Welcome { session: SessionId(session), details })
        },
    );
    prop_oneof![
        hello,
        welcome,
        (of(word()), word()).prop_map(|(message, reason)| Message::Abort(Abort {
            details: CloseDetails { message },
            reason,
            payload: Payload::EMPTY
        })),
        (of(word()), word()).prop_map(|(message, reason)| Message::Goodbye(Goodbye {
            details: CloseDetails { message },
            reason
        })),
        word().prop_map(|method| Message::Challenge(Challenge { method, extra: NO_EXTRA })),
        word().prop_map(|signature| Message::Authenticate(Authenticate { signature, extra: NO_EXTRA })),
        (select(&MessageType::ALL[..]), request(), word(), passthru()).prop_map(
            |(request_type, request, error, passthru)| Message::Error(Error {
                request_type,
                request,
                error,
                passthru,
                payload: Payload::EMPTY
            })
        ),
    ]
    .boxed()
}

fn publish() -> BoxedStrategy<Message<'static>> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let lists = (sessions(), words(), words(), of(sessions()), of(words()), of(words()));
    (request(), word(), flags, of(any::<u64>()), lists, of(word()), passthru())
        .prop_map(|(request, topic, flags, ttl_ms, lists, rkey, passthru)| {
            let audience = AudienceOptions {
                exclude: lists.0,
                exclude_authid: lists.1,
                exclude_authrole: lists.2,
                eligible: lists.3,
                eligible_authid: lists.4,
                eligible_authrole: lists.5,
            };
            let is_everybody = audience == AudienceOptions::default();
            let options = PublishOptions {
                acknowledge: flags.0,
                exclude_me: flags.1,
                disclose_me: flags.2,
                retain: flags.3,
                ttl_ms,
                audience: (!is_everybody).then(|| Box::new(audience)),
                rkey,
                passthru,
            };
            Message::Publish(Publish { request, options, topic, payload: Payload::EMPTY })
        })
        .boxed()
}

fn revocation() -> BoxedStrategy<(RequestId, Option<RevocationDetails<'static>>)> {
    let details =
        (of(id()), of(id()), of(word())).prop_map(|(subscription, registration, reason)| RevocationDetails {
            subscription: subscription.map(SubscriptionId),
            registration: registration.map(RegistrationId),
            reason,
        });
    prop_oneof![
        request().prop_map(|request| (request, None)),
        details.prop_map(|details| (RequestId(0), Some(details)))
    ]
    .boxed()
}

fn broker_message() -> BoxedStrategy<Message<'static>> {
    let policy = select(&[MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard][..]);
    let event = (
        of(word()),
        of(id()),
        of(word()),
        of(word()),
        of(any::<u64>()),
        any::<bool>(),
        (any::<u32>(), any::<u64>(), any::<u32>()),
        passthru(),
    );
    let event = (id(), id(), event).prop_map(|(subscription, publication, details)| {
        let (topic, publisher, publisher_authid, publisher_authrole, trustlevel, retained, own, passthru) =
            details;
        let (lost, event_id, depth) = own;
        let publisher = publisher.map(SessionId);
        let details = EventDetails {
            topic,
            publisher,
            publisher_authid,
            publisher_authrole,
            trustlevel,
            retained,
            lost,
            event_id,
            depth,
            passthru,
        };
        let (subscription, publication) = (SubscriptionId(subscription), PublicationId(publication));
        Message::Event(Event { subscription, publication, details, payload: Payload::EMPTY })
    });
    prop_oneof![
        4 => publish(),
        4 => event,
        1 => (request(), id()).prop_map(|(request, publication)| Message::Published(Published {
            request,
            publication: PublicationId(publication)
        })),
        2 => (request(), word(), policy, any::<bool>(), of(word()), of(id()), of(word())).prop_map(
            |(request, topic, match_policy, get_retained, nkey, after, database)| Message::Subscribe(Subscribe {
                request,
                options: SubscribeOptions { match_policy, get_retained, nkey, after, database },
                topic
            })
        ),
        1 => (request(), id()).prop_map(|(request, subscription)| Message::Subscribed(Subscribed {
            request,
            subscription: SubscriptionId(subscription)
        })),
        1 => (request(), id()).prop_map(|(request, subscription)| Message::Unsubscribe(Unsubscribe {
            request,
            subscription: SubscriptionId(subscription)
        })),
        1 => revocation().prop_map(|(request, details)| Message::Unsubscribed(Unsubscribed { request, details })),
    ]
    .boxed()
}

fn cancel_mode() -> BoxedStrategy<Option<CancelMode>> {
    of(select(&[CancelMode::Skip, CancelMode::Kill, CancelMode::KillNoWait][..])).boxed()
}

fn register() -> BoxedStrategy<Message<'static>> {
    let policy = select(&[MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard][..]);
    let invoke = select(
        &[
            InvocationPolicy::Single,
            InvocationPolicy::First,
            InvocationPolicy::Last,
            InvocationPolicy::RoundRobin,
            InvocationPolicy::Random,
            InvocationPolicy::LeastBusy,
            InvocationPolicy::Hash,
        ][..],
    );
    let flags = (any::<bool>(), any::<bool>());
    (request(), word(), policy, invoke, any::<u64>(), flags, of(word()), of(word()))
        .prop_map(
            |(
                request,
                procedure,
                match_policy,
                invoke,
                concurrency,
                (force_reregister, disclose_caller),
                nkey,
                hash,
            )| {
                let options = RegisterOptions {
                    match_policy,
                    invoke,
                    concurrency,
                    force_reregister,
                    disclose_caller,
                    nkey,
                    hash,
                };
                Message::Register(Register { request, options, procedure })
            },
        )
        .boxed()
}

fn call() -> BoxedStrategy<Message<'static>> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (request(), word(), any::<u64>(), flags, of(word()), of(word()), passthru())
        .prop_map(
            |(
                request,
                procedure,
                timeout_ms,
                (receive_progress, progress, disclose_me),
                rkey,
                runmode,
                passthru,
            )| {
                let options = CallOptions {
                    timeout_ms,
                    receive_progress,
                    progress,
                    disclose_me,
                    rkey,
                    runmode,
                    passthru,
                };
                Message::Call(Call { request, options, procedure, payload: Payload::EMPTY })
            },
        )
        .boxed()
}

fn invocation() -> BoxedStrategy<Message<'static>> {
    let caller = (of(id()), of(word()), of(word()), of(any::<u64>()));
    (request(), id(), of(word()), caller, any::<u64>(), any::<bool>(), any::<bool>(), passthru())
        .prop_map(
            |(request, registration, procedure, caller, timeout_ms, receive_progress, progress, passthru)| {
                let details = InvocationDetails {
                    procedure,
                    caller: caller.0.map(SessionId),
                    caller_authid: caller.1,
                    caller_authrole: caller.2,
                    trustlevel: caller.3,
                    timeout_ms,
                    receive_progress,
                    progress,
                    passthru,
                };
                let registration = RegistrationId(registration);
                Message::Invocation(Invocation { request, registration, details, payload: Payload::EMPTY })
            },
        )
        .boxed()
}

fn dealer_message() -> BoxedStrategy<Message<'static>> {
    prop_oneof![
        3 => call(),
        3 => invocation(),
        2 => register(),
        1 => (request(), cancel_mode())
            .prop_map(|(request, mode)| Message::Cancel(Cancel { request, options: CancelOptions { mode } })),
        1 => (request(), cancel_mode(), of(word())).prop_map(|(request, mode, reason)| Message::Interrupt(Interrupt {
            request,
            options: InterruptOptions { mode, reason }
        })),
        2 => (request(), any::<bool>(), passthru()).prop_map(|(request, progress, passthru)| Message::Result(CallResult {
            request,
            details: ResultDetails { progress, passthru },
            payload: Payload::EMPTY
        })),
        2 => (request(), any::<bool>(), passthru()).prop_map(|(request, progress, passthru)| Message::Yield(Yield {
            request,
            options: YieldOptions { progress, passthru },
            payload: Payload::EMPTY
        })),
        1 => (request(), id()).prop_map(|(request, registration)| Message::Registered(Registered {
            request,
            registration: RegistrationId(registration)
        })),
        1 => (request(), id()).prop_map(|(request, registration)| Message::Unregister(Unregister {
            request,
            registration: RegistrationId(registration)
        })),
        1 => revocation().prop_map(|(request, details)| Message::Unregistered(Unregistered { request, details })),
    ]
    .boxed()
}

fn message() -> BoxedStrategy<Message<'static>> {
    prop_oneof![session_message(), broker_message(), dealer_message()].boxed()
}

fn content() -> BoxedStrategy<Content> {
    (list(), kwargs()).prop_map(|(args, kwargs)| Content { args, kwargs }).boxed()
}

fn written(message: &Message<'_>, serializer: Serializer) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new().encode(message, serializer, &mut out).expect("representable");
    out
}

fn read(serializer: Serializer, bytes: &[u8]) -> Message<'_> {
    decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).expect("what we wrote ourselves")
}

/// Few cases, for every day; PROPTEST_CASES asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 64 };
    ProptestConfig { failure_persistence: None, cases, ..default }
}

proptest! {
    #![proptest_config(config())]

    /// What is written is read as it was, and its payload is the very bytes that were put in.
    #[test]
    fn a_message_is_read_as_it_was_written(message in message(), content in content()) {
        for serializer in Serializer::ALL {
            let bytes = content.bytes(serializer);
            let mut message = with_content(&message, &bytes);
            let wire = written(&message, serializer);
            if let Message::Challenge(Challenge { extra, .. }) | Message::Authenticate(Authenticate { extra, .. }) = &mut message {
                extra.serializer = serializer;
            }
            prop_assert_eq!(read(serializer, &wire), message);
        }
    }

    /// Whatever the serializer that the content came in, the same comes out; and it stays the same from there on.
    #[test]
    fn transcoding_depends_on_the_values_alone(message in message(), content in content()) {
        let mut encoder = Encoder::new();
        for target in Serializer::ALL {
            let mut first: Option<Vec<u8>> = None;
            for source in Serializer::ALL.into_iter().filter(|source| *source != target) {
                let bytes = content.bytes(source);
                let message = with_content(&message, &bytes);
                let mut wire = Vec::new();
                encoder.encode(&message, target, &mut wire).expect("representable");
                let there = read(target, &wire);
                prop_assert_eq!(message.kind(), there.kind());
                let back = written(&there, source);
                let there_again = written(&read(source, &back), target);
                prop_assert_eq!(&there_again, &wire);
                if let Some(first) = &first {
                    prop_assert_eq!(&wire, first);
                }
                first = Some(wire);
            }
        }
    }

    /// A payload that is transcoded by itself gives the message that a payload transcoded on its way gives.
    #[test]
    fn a_payload_is_transcoded_alike_alone_and_within_a_message(content in content()) {
        let mut encoder = Encoder::new();
        let message = Message::Event(Event {
            subscription: SubscriptionId(1),
            publication: PublicationId(2),
            details: EventDetails::default(),
            payload: Payload::EMPTY,
        });
        for source in Serializer::ALL {
            let bytes = content.bytes(source);
            let whole = with_content(&message, &bytes);
            let Message::Event(event) = &whole else { unreachable!() };
            for target in Serializer::ALL.into_iter().filter(|target| *target != source) {
                let alone = encoder.transcode(&event.payload, target).expect("representable");
                let spliced = Message::Event(Event { payload: alone.as_payload(), ..event.clone() });
                prop_assert_eq!(written(&spliced, target), written(&whole, target));
            }
        }
    }

    /// Bytes come through every chain of serializers as they were.
    #[test]
    fn binary_payloads_are_identical_everywhere(bytes in vec(any::<u8>(), 0..200)) {
        let content = Content { args: Sample::List(vec![Sample::Bytes(bytes)]), kwargs: Sample::Map(vec![]) };
        let result = Message::Result(CallResult {
            request: RequestId(1), details: ResultDetails::default(), payload: Payload::EMPTY,
        });
        let start = content.bytes(Serializer::MsgPack);
        let expected = written(&with_content(&result, &content.bytes(Serializer::Json)), Serializer::MsgPack);
        let json = written(&with_content(&result, &start), Serializer::Json);
        let cbor = written(&read(Serializer::Json, &json), Serializer::Cbor);
        let json_again = written(&read(Serializer::Cbor, &cbor), Serializer::Json);
        prop_assert_eq!(&json_again, &json);
        prop_assert_eq!(written(&read(Serializer::Json, &json_again), Serializer::MsgPack), expected);
    }

    /// A message with some bytes changed, removed or put in is read or refused, and never more.
    #[test]
    fn damaged_messages_are_read_or_refused(
        message in message(), content in content(), changes in vec((any::<u16>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        for serializer in Serializer::ALL {
            let bytes = content.bytes(serializer);
            let mut wire = written(&with_content(&message, &bytes), serializer);
            for &(place, byte, change) in &changes {
                let at = usize::from(place) % wire.len().max(1);
                match change {
                    0 if at < wire.len() => wire[at] = byte,
                    1 if at < wire.len() => { wire.remove(at); }
                    2 => wire.insert(at, byte),
                    _ => wire.truncate(at),
                }
            }
            read_or_refused(serializer, &wire);
        }
    }

    /// Bytes of any kind are read or refused.
    #[test]
    fn random_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        for serializer in Serializer::ALL {
            read_or_refused(serializer, &bytes);
        }
    }

    /// Random bytes where a payload stands, which most damage does not reach.
    #[test]
    fn random_arguments_are_read_or_refused(bytes in vec(any::<u8>(), 0..100)) {
        for (serializer, head, tail) in [
            (Serializer::Json, &b"[70,1,{},["[..], &b"]]"[..]),
            (Serializer::MsgPack, &[0x94, 70, 1, 0x80, 0x91], &[]),
            (Serializer::Cbor, &[0x84, 0x18, 70, 1, 0xa0, 0x9f], &[0xff]),
        ] {
            read_or_refused(serializer, &[head, &bytes, tail].concat());
        }
    }
}

/// Reads; what was read is written in every serializer in which it can be, and read again from there. Allocation is
/// bounded by what the bytes can justify.
fn read_or_refused(serializer: Serializer, bytes: &[u8]) {
    let allocated = allocation_counter::measure(|| {
        let _ = decode(serializer, Input::Bytes(bytes), DecodeLimits::default());
    });
    assert!(
        allocated.bytes_max as usize <= 4096 + bytes.len() * 64,
        "{allocated:?} for {} bytes",
        bytes.len()
    );
    let Ok(message) = decode(serializer, Input::Bytes(bytes), DecodeLimits::default()) else { return };
    for target in Serializer::ALL {
        let mut out = vec![1, 2, 3];
        match Encoder::new().encode(&message, target, &mut out) {
            Ok(()) => assert_eq!(read(target, &out[3..]).kind(), message.kind()),
            Err(NotRepresentable) => assert_eq!(out, [1, 2, 3]),
        }
    }
}

/// The path of every message: nothing is allocated to read or to splice it.
#[test]
fn ordinary_messages_allocate_nothing() {
    let texts = [
        r#"[16,7,{"acknowledge":true,"exclude_me":false},"com.example.topic",["x",1,2.5],{"a":null}]"#,
        r#"[48,7,{"timeout":1000},"com.example.procedure",[{"deep":[[["x"]]]}]]"#,
        r#"[70,7,{},["result"]]"#,
        r#"[8,68,7,{},"com.example.error",["why"]]"#,
        r#"[36,1,2,{"publisher":3,"topic":"com.example.topic"},["x"]]"#,
        r#"[50,7,{},["result"]]"#,
        r#"[68,1,2,{"caller":5},["x"]]"#,
    ];
    for text in texts {
        for serializer in Serializer::ALL {
            let wire = written(&read(Serializer::Json, text.as_bytes()), serializer);
            let mut encoder = Encoder::new();
            let mut out = Vec::with_capacity(wire.len());
            let allocated = allocation_counter::measure(|| {
                let message = decode(serializer, Input::Bytes(&wire), DecodeLimits::default()).unwrap();
                encoder.encode(&message, serializer, &mut out).unwrap();
            });
            assert_eq!(allocated.count_total, 0, "{text} in {serializer:?}");
            assert_eq!(out, wire);
        }
    }
}

/// A claim of four billion elements in a few bytes costs nothing.
#[test]
fn claims_of_many_elements_allocate_nothing_but_the_error() {
    let claims: [(Serializer, &[u8]); 8] = [
        (Serializer::MsgPack, &[0xdd, 0xff, 0xff, 0xff, 0xff, 16]),
        (Serializer::MsgPack, &[0x94, 16, 1, 0xdf, 0xff, 0xff, 0xff, 0xff]),
        (Serializer::MsgPack, b"\x94\x10\x01\x81\xa7exclude\xdd\xff\xff\xff\xff\x01"),
        (Serializer::MsgPack, &[0x94, 70, 1, 0x80, 0x91, 0xdb, 0xff, 0xff, 0xff, 0xff]),
        (Serializer::Cbor, &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 16]),
        (Serializer::Cbor, &[0x84, 16, 1, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (Serializer::Cbor, b"\x84\x10\x01\xa1\x67exclude\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (
            Serializer::Cbor,
            &[0x84, 0x18, 70, 1, 0xa0, 0x81, 0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
    ];
    for (serializer, bytes) in claims {
        let allocated = allocation_counter::measure(|| {
            decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).unwrap_err();
        });
        assert!(allocated.bytes_max < 1024, "{allocated:?}");
    }
}

/// What changing serializers takes is bounded, whatever the payload: beyond a million values it is not done.
#[test]
fn payloads_of_too_many_values_are_not_transcoded() {
    let values = |serializer: Serializer, count: usize| match serializer {
        Serializer::Json => format!("[{}1]", "1,".repeat(count - 1)).into_bytes(),
        Serializer::MsgPack => [&[0xdd][..], &(count as u32).to_be_bytes(), &vec![1; count]].concat(),
        Serializer::Cbor => [&[0x9a][..], &(count as u32).to_be_bytes(), &vec![1; count]].concat(),
    };
    // The list is a value as well.
    let most = (1 << 20) - 1;
    for source in Serializer::ALL {
        for target in Serializer::ALL.into_iter().filter(|target| *target != source) {
            let transcode = |count: usize| {
                let args = values(source, count);
                let payload = Payload { serializer: source, args: &args, kwargs: &[] };
                Encoder::new().transcode(&payload, target)
            };
            assert!(transcode(most).is_ok(), "{source:?} to {target:?}");
            let mut refused = None;
            let allocated = allocation_counter::measure(|| refused = Some(transcode(2 * most)));
            assert_eq!(refused, Some(Err(NotRepresentable)), "{source:?} to {target:?}");
            assert!(allocated.bytes_max < 100 << 20, "{source:?} to {target:?}: {allocated:?}");
        }
    }
    // Commas within a string are none.
    let args = format!("[\"{}\"]", ",".repeat(4 << 20));
    let payload = Payload { serializer: Serializer::Json, args: args.as_bytes(), kwargs: &[] };
    assert!(Encoder::new().transcode(&payload, Serializer::Cbor).is_ok());
}

/// A megabyte of one number, and a megabyte of the same key, are linear.
#[test]
fn large_oddities_are_defined() {
    let digits = "9".repeat(1 << 20);
    let number = format!("[70,1,{{}},[{digits}]]");
    let message = read(Serializer::Json, number.as_bytes());
    assert_eq!(written(&message, Serializer::Json), number.as_bytes());
    let mut out = Vec::new();
    assert_eq!(Encoder::new().encode(&message, Serializer::Cbor, &mut out), Err(NotRepresentable));
    decode(Serializer::Json, Input::Text(&format!("[70,{digits},{{}}]")), DecodeLimits::default())
        .unwrap_err();

    let keys = vec!["\"k\":1"; 200_000].join(",");
    let text = format!("[70,1,{{}},[],{{{keys}}}]");
    let message = read(Serializer::Json, text.as_bytes());
    assert_eq!(written(&message, Serializer::MsgPack), [0x95, 70, 1, 0x80, 0x90, 0x81, 0xa1, b'k', 1]);
}
