//! Event history: what is kept of topics and patterns that the configuration names, for `wamp.subscription.get_events`
//! (advanced profile, "Event History").
//!
//! It lives at the realm's home, where publications of those topics go whoever subscribes there; so there is one order of
//! them. Every core knows what is kept, and so which publications to send, and who may ask.

mod query;

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use self::query::{Query, Recorded};
use super::authorize::Action;
use super::authorizer::Another;
use super::broker::Broker;
use super::effects::Effects;
use super::peer::{
    Attributes, Audience, Charge, Letter, MESSAGE_OVERHEAD_BYTES, Outcome, Parcel, PeerMessage,
    PublicationHead, RealmIndex, ReplyHead, SessionKey, Sitting,
};
use super::uri_map::UriMap;
use super::{NOT_ALLOWED, Router};
use crate::config;
use crate::wamp::codec::{Encoder, Serializer, rfc_3339};
use crate::wamp::error::uri;
use crate::wamp::options::Passthru;
use crate::wamp::{Arguments, MatchPolicy, Payload, PublicationId, RequestId, SubscriptionId};

/// The procedure that tells what is kept.
pub(super) const GET_EVENTS: &str = "wamp.subscription.get_events";

/// What an event costs beside what it holds.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// So many bytes of an answer are as much work as a look at an event: one as long as a message may be is one session's work of a
/// turn.
const BYTES_A_LOOK: usize = 32;

/// An event that is kept.
#[derive(Debug)]
struct Kept {
    /// Milliseconds since 1970, as clients are told, and for people only: what is over goes by the other clock.
    wall_ms: u64,
    monotonic_us: u64,
    publication: Arc<Letter<PublicationHead>>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.publication.body.len() + self.publication.head.bytes() + EVENT_OVERHEAD_BYTES
    }
}

impl Recorded for Kept {
    fn time_us(&self) -> i64 {
        i64::try_from(self.wall_ms * 1000).unwrap_or(i64::MAX)
    }

    fn topic(&self) -> &str {
        self.publication.body.uri()
    }

    fn publication(&self) -> PublicationId {
        self.publication.head.publication
    }
}

/// A topic or pattern whose events are kept.
#[derive(Debug)]
struct Record {
    id: SubscriptionId,
    uri: Box<str>,
    policy: MatchPolicy,
    limit: usize,
    bytes_max: usize,
    /// 0 is for ever.
    age_max_us: u64,
    /// The oldest first; on other cores than the realm's home always empty. An event ends when there are too many behind it,
    /// and when it is too old.
    events: VecDeque<Kept>,
    bytes: usize,
}

impl Record {
    fn push(&mut self, kept: Kept) {
        // Everything else would have to go for it, and then it as well.
        if kept.bytes() > self.bytes_max {
            return;
        }
        self.bytes += kept.bytes();
        self.events.push_back(kept);
        while self.events.len() > self.limit || self.bytes > self.bytes_max {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.bytes -= oldest.bytes();
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    fn next_deadline_us(&self) -> Option<u64> {
        let oldest = self.events.front().filter(|_| self.age_max_us > 0)?;
        Some(oldest.monotonic_us.saturating_add(self.age_max_us))
    }
}

/// What a realm keeps.
#[derive(Debug)]
pub(super) struct History {
    /// Into `records`.
    patterns: UriMap<usize>,
    records: Vec<Record>,
}

impl History {
    /// `None` for a realm that keeps nothing.
    pub(super) fn new(config: &config::Realm, broker: &Broker, map_seed: u64) -> Option<Box<Self>> {
        let mut history = Self { patterns: UriMap::new(map_seed), records: Vec::new() };
        for kept in &config.histories {
            history.patterns.insert(kept.match_policy, &kept.uri, history.records.len());
            history.records.push(Record {
                id: broker.subscription_id(&kept.uri, kept.match_policy),
                uri: kept.uri.as_str().into(),
                policy: kept.match_policy,
                limit: kept.limit,
                bytes_max: kept.bytes_max,
                age_max_us: kept.age_max.as_micros() as u64,
                events: VecDeque::new(),
                bytes: 0,
            });
        }
        (!history.records.is_empty()).then(|| Box::new(history))
    }

    /// Whether a publication is to be kept. What has lists of sessions is not: sessions end, and the lists would let in or
    /// keep out whoever comes after them.
    pub(super) fn wants(&self, topic: &str, audience: Option<&Audience>) -> bool {
        audience.is_none_or(|audience| audience.exclude.is_empty() && audience.eligible.is_none())
            && self.patterns.matching(topic).next().is_some()
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> usize {
        self.records.iter().map(|record| record.events.len()).sum()
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.records.iter().filter_map(Record::next_deadline_us).min()
    }

    /// Forgets what is too old.
    fn forget(&mut self, now_us: u64) {
        for record in &mut self.records {
            while record.next_deadline_us().is_some_and(|at_us| at_us <= now_us) {
                record.forget_oldest();
            }
        }
    }
}

/// What a client wants to know of a history, on its way home.
#[derive(Debug)]
pub struct HistoryAsk {
    realm: RealmIndex,
    caller: Sitting,
    request: RequestId,
    /// Which of the realm's records.
    record: usize,
    query: Query,
    /// Who asks: others than these may have been meant.
    authid: Box<str>,
    role: u16,
    /// What the caller was charged (R8): the answer may be as long as a message.
    charge: Charge,
}

/// Of one session so many questions may wait before it is not read.
const ASKS_PER_SESSION: usize = 4;

impl HistoryAsk {
    /// What it holds of a ring beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.query.bytes() + self.authid.len()
    }
}

/// Why there is no answer: an error URI, and a text for people.
type Refusal = (&'static str, &'static str);

impl Router {
    /// Keeps a publication, at home.
    pub(super) fn record(&mut self, publication: &Arc<Letter<PublicationHead>>) {
        let (wall_ms, monotonic_us) = (self.for_people_us() / 1000, self.now.monotonic_us);
        let realm = &mut self.realms[usize::from(publication.head.realm.0)];
        let Some(History { patterns, records }) = realm.history.as_deref_mut() else { return };
        for entry in patterns.matching(publication.body.uri()) {
            let Some(record) = patterns.get(entry).and_then(|index| records.get_mut(*index)) else {
                continue;
            };
            let publication = Arc::clone(publication);
            record.push(Kept { wall_ms, monotonic_us, publication });
        }
    }

    /// Forgets what is too old.
    pub(super) fn forget_history(&mut self, now_us: u64) {
        for realm in &self.recording {
            if let Some(history) = self.realms[usize::from(realm.0)].history.as_deref_mut() {
                history.forget(now_us);
            }
        }
    }

    /// When [`Self::forget_history`] is due.
    pub(super) fn history_deadline_us(&self) -> Option<u64> {
        let histories =
            self.recording.iter().filter_map(|realm| self.realms[usize::from(realm.0)].history.as_deref());
        histories.filter_map(History::next_deadline_us).min()
    }

    /// A session asks for events: home answers.
    pub(super) fn handle_get_events(
        &mut self,
        key: SessionKey,
        request: RequestId,
        payload: &Payload<'_>,
        effects: &mut impl Effects,
    ) {
        let caller = self.sitting(key);
        let home = self.realm_and_session(key).0.home;
        match self.history_ask(key, request, payload) {
            Ok(mut ask) => {
                let bytes = (self.limits.credit_bytes_per_session / ASKS_PER_SESSION)
                    .max(ask.bytes() + MESSAGE_OVERHEAD_BYTES as usize) as u32;
                ask.charge = Charge { bytes, paused: effects.charge(key, bytes) };
                if home == self.core {
                    self.answer_history(&ask, effects);
                } else {
                    effects.peer(home, PeerMessage::AskHistory(Box::new(ask)));
                }
            }
            Err((error, text)) => self.answer_call(caller, request, error, text, effects),
        }
    }

    /// What is asked for, if the session may.
    fn history_ask(
        &mut self,
        key: SessionKey,
        request: RequestId,
        payload: &Payload<'_>,
    ) -> Result<HistoryAsk, Refusal> {
        const NO_SUBSCRIBER: Refusal =
            (uri::NOT_AUTHORIZED, "the role of the session may not subscribe to this");
        let (record, query) = self.read_query(key, payload)?;
        if let Some((uri, policy)) = self.to_authorize(key, record) {
            self.permits(key, Action::Subscribe, &uri, policy).map_err(|refusal| {
                if refusal == NOT_ALLOWED { NO_SUBSCRIBER } else { (refusal.error, refusal.text) }
            })?;
        }
        let session = self.sessions.at(key.slot);
        Ok(HistoryAsk {
            realm: session.realm,
            caller: self.sitting(key),
            request,
            record,
            query,
            authid: session.authid().into(),
            role: session.role,
            charge: Charge::default(),
        })
    }

    /// What `get_events` needs a permission for beside the call itself, if its arguments are right.
    pub(super) fn events_to_authorize(&self, key: SessionKey, payload: &Payload<'_>) -> Option<Another> {
        let (record, _) = self.read_query(key, payload).ok()?;
        let (uri, policy) = self.to_authorize(key, record)?;
        // It is what was published before that is asked for.
        let options = json!({ "match": policy.as_str(), "get_retained": true });
        Some(Another { action: Action::Subscribe, uri, policy, wishes: [false, true], options })
    }

    /// What a session has to be allowed to subscribe to, to hear what was recorded; `None`: it subscribes to it, so it is.
    fn to_authorize(&self, key: SessionKey, record: usize) -> Option<(Box<str>, MatchPolicy)> {
        let Record { uri, policy, .. } =
            self.realm_and_session(key).0.history.as_deref()?.records.get(record)?;
        (!self.holds_subscription(key, *policy, uri)).then(|| (uri.clone(), *policy))
    }

    /// Of which record, and what.
    fn read_query(&self, key: SessionKey, payload: &Payload<'_>) -> Result<(usize, Query), Refusal> {
        const UNREADABLE: Refusal = (uri::INVALID_ARGUMENT, "the arguments cannot be read");
        const NOT_KEPT: Refusal = (
            uri::NO_SUCH_SUBSCRIPTION,
            "no history is kept of this subscription; the configuration says of which",
        );
        let arguments = Arguments::read(payload).map_err(|_| UNREADABLE)?;
        let (subscription, query) = Query::read(&arguments).map_err(|text| (uri::INVALID_ARGUMENT, text))?;
        let history = self.realm_and_session(key).0.history.as_deref();
        let records = history.map_or(&[][..], |history| &history.records);
        let record = records.iter().position(|record| record.id == subscription).ok_or(NOT_KEPT)?;
        Ok((record, query))
    }

    /// At home.
    pub(super) fn answer_history(&mut self, ask: &HistoryAsk, effects: &mut impl Effects) {
        let &HistoryAsk { caller, request, charge, .. } = ask;
        // Who asked is charged until the answer is there, whatever it is.
        let callee = Some(caller.session());
        let head = |outcome| {
            let passthru = Passthru::default();
            ReplyHead { caller, request, outcome, callee, charge, passthru }
        };
        let mut work = 0;
        let found = self.found_events(ask, &mut work, effects);
        effects.searched(work);
        match found {
            Err((error, text)) => {
                let args = super::text_args(text);
                let payload = Payload { args: &args, ..Payload::EMPTY };
                let reply = Parcel::Borrowed { head: head(Outcome::Error), uri: error, payload };
                self.send_reply(reply, effects);
            }
            Ok((args, is_limit_reached)) => {
                let kwargs = format!("{{\"is_limit_reached\":{is_limit_reached}}}");
                let payload =
                    Payload { serializer: Serializer::Json, args: &args, kwargs: kwargs.as_bytes() };
                self.send_reply(Parcel::Borrowed { head: head(Outcome::Result), uri: "", payload }, effects);
            }
        }
    }

    /// The events that were asked for, as a list in JSON or nothing, and whether there are more than the limit. `work` is
    /// what it took, also where it comes to nothing.
    fn found_events(
        &self,
        ask: &HistoryAsk,
        work: &mut usize,
        effects: &mut impl Effects,
    ) -> Result<(Vec<u8>, bool), Refusal> {
        const FORGOTTEN: Refusal =
            (uri::INVALID_ARGUMENT, "a publication that is named is not in the history, or not any more");
        const TOO_LONG: Refusal = (
            uri::PAYLOAD_SIZE_EXCEEDED,
            "the events are longer than a message may be; ask for fewer with `limit`",
        );
        let realm = &self.realms[usize::from(ask.realm.0)];
        let Some(record) = realm.history.as_deref().and_then(|history| history.records.get(ask.record))
        else {
            return Ok((Vec::new(), false));
        };
        let role = &realm.roles[usize::from(ask.role)].name;
        *work += record.events.len();
        let chosen = ask.query.select(record.events.iter()).map_err(|_| FORGOTTEN)?;
        let mut left = ask.query.limit.unwrap_or(u64::MAX);
        let mut encoder = Encoder::new();
        let mut list = vec![b'['];
        let mut count = 0;
        let mut is_limit_reached = false;
        for kept in chosen {
            let audience = kept.publication.head.audience.as_deref();
            if audience.is_some_and(|audience| !audience.admits_user(&ask.authid, role)) {
                continue;
            }
            if left == 0 {
                is_limit_reached = true;
                break;
            }
            // As with live events: who cannot be told is not.
            let Some(event) = event_in_json(kept, record, &mut encoder) else {
                effects.counters().events_not_representable += 1;
                continue;
            };
            *work += 1 + event.len() / BYTES_A_LOOK;
            if list.len() + event.len() > self.limits.message_bytes_max {
                return Err(TOO_LONG);
            }
            if list.len() > 1 {
                list.push(b',');
            }
            list.extend_from_slice(&event);
            left -= 1;
            count += 1;
        }
        list.push(b']');
        Ok((if count == 0 { Vec::new() } else { list }, is_limit_reached))
    }
}

/// An event as `get_events` tells it. The payload comes in the bytes that it would have in JSON.
fn event_in_json(kept: &Kept, record: &Record, encoder: &mut Encoder) -> Option<Vec<u8>> {
    let body = &kept.publication.body;
    let attributes = kept.publication.head.attributes.as_deref();
    let topic = (record.policy != MatchPolicy::Exact).then(|| body.uri());
    let event = json!({
        "timestamp": timestamp(kept.wall_ms),
        "subscription": record.id.0,
        "publication": kept.publication.head.publication.0,
        "details": details(topic, attributes),
    });
    let mut json = serde_json::to_vec(&event).ok()?;
    json.pop();
    let transcoded;
    let mut payload = body.payload();
    if payload.serializer != Serializer::Json {
        transcoded = encoder.transcode(&payload, Serializer::Json).ok()?;
        payload = transcoded.as_payload();
    }
    for (key, value) in [(&b",\"args\":"[..], payload.args), (b",\"kwargs\":", payload.kwargs)] {
        if !value.is_empty() {
            json.extend_from_slice(key);
            json.extend_from_slice(value);
        }
    }
    json.push(b'}');
    Some(json)
}

fn timestamp(wall_ms: u64) -> String {
    // Always with three digits, so that times are in order as texts, too.
    let whole = rfc_3339((wall_ms / 1000) as i64, 0).unwrap_or_default();
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), wall_ms % 1000)
}

/// EVENT.Details as they were.
fn details(topic: Option<&str>, attributes: Option<&Attributes>) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    };
    let details = attributes.map(Attributes::event_details).unwrap_or_default();
    put("topic", topic.map(Value::from));
    put("publisher", details.publisher.map(|id| id.0.into()));
    put("publisher_authid", details.publisher_authid.as_deref().map(Value::from));
    put("publisher_authrole", details.publisher_authrole.as_deref().map(Value::from));
    put("_event_id", Some(details.event_id).filter(|id| *id > 0).map(Value::from));
    put("_depth", Some(details.depth).filter(|depth| *depth > 0).map(Value::from));
    put("trustlevel", details.trustlevel.map(Value::from));
    if let Some(texts) = details.passthru.texts() {
        put("ppt_scheme", texts.scheme.as_deref().map(Value::from));
        put("ppt_serializer", texts.serializer.as_deref().map(Value::from));
        put("ppt_cipher", texts.cipher.as_deref().map(Value::from));
        put("ppt_keyid", texts.keyid.as_deref().map(Value::from));
    }
    map
}
