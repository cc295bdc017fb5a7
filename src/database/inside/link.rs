//! The sessions of a database: one that subscribes, and one for each database user who calls.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value, json};

use super::session::{Came, Session};
use super::{Answer, DatabaseCall, Event, LOOK, NEWS_EVERY, News, RETRY_FIRST, RETRY_MAX, Shared, Wanted};
use crate::router::AGENT;
use crate::wamp::codec::{DecodeLimits, Input, Serializer, decode};
use crate::wamp::error::uri;
use crate::wamp::message::{self, Message};
use crate::wamp::{MatchPolicy, Payload};

/// How many users call at a time; the one that was idle for longest makes room for another.
const CALLERS_MAX: usize = 32;
/// What waits to be written to one session before more calls are made by it, in bytes.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// The router keeps the time of calls; this long after it, a call is given up.
const GRACE: Duration = Duration::from_secs(5);
/// What is read of events is what the router takes of clients.
const LIMITS: DecodeLimits = DecodeLimits { depth_max: 256, list_max: 100_000 };
/// How long nobody answers who is to open a session.
const OPENING: Duration = Duration::from_secs(30);

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// HELLO is not answered.
    Opening(Instant),
    Open,
    /// It goes once what was to be said is said.
    Ending,
}

/// A call that was made.
struct Made {
    call: DatabaseCall,
    given_up_at: Instant,
}

/// What a request was about.
type Topic = (MatchPolicy, String);

/// One session.
struct Party {
    authid: String,
    session: Session,
    stage: Stage,
    last_request: u64,
    /// By their requests; each ends with its answer, its time, and with the session.
    calls: HashMap<u64, Made>,
    /// By their requests: subscriptions that are being made.
    asked: HashMap<u64, Topic>,
    /// By their ids.
    subscriptions: HashMap<u64, Topic>,
    /// Calls that wait until it is open.
    waiting: Vec<DatabaseCall>,
    used: Instant,
}

/// Why a session is over.
enum End {
    /// The router stops: what was called is called again by the next one.
    Shutdown,
    /// The session said so, once all was said.
    Left,
    Lost(String, String),
}

/// All of them.
pub(super) struct Link {
    shared: Arc<Shared>,
    subscriber: Option<Party>,
    callers: Vec<Party>,
    wanted: Vec<Wanted>,
    /// How many of them people know of.
    told: Option<usize>,
    /// When the subscriber comes again, and how long that takes the next time.
    retry: (Instant, Duration),
    /// When it was last asked for what is missing: who was refused once may be let in later.
    asked: Instant,
    /// Events were lost so often, and when that was told.
    overflown: (u64, Option<Instant>),
    is_shut: bool,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            subscriber: None,
            callers: Vec::new(),
            wanted: Vec::new(),
            told: None,
            retry: (Instant::now(), RETRY_FIRST),
            asked: Instant::now(),
            overflown: (0, None),
            is_shut: false,
        }
    }

    pub(super) fn run(&mut self) {
        while !self.shared.is_stopping() {
            self.shared.calls.silence();
            self.take_wanted();
            self.begin_to_subscribe();
            self.make_calls();
            self.tell_overflown();
            self.write();
            self.wait();
            self.read();
            self.give_up();
        }
    }

    fn wait(&self) {
        let parties: Vec<_> = self.subscriber.iter().chain(&self.callers).collect();
        let bell = self.shared.calls.as_fd();
        let mut all = vec![PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        all.extend(parties.iter().map(|party| {
            let out = if party.session.unsent() > 0 { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::from_borrowed_fd(party.session.as_fd(), PollFlags::IN | out)
        }));
        let time = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
        // Interrupted: as if nothing had happened.
        let _ = poll(&mut all, Some(&time));
    }

    /// The subscriptions that there shall be, where they have changed.
    fn take_wanted(&mut self) {
        if self.asked.elapsed() >= RETRY_MAX {
            self.asked = Instant::now();
            if let Some(subscriber) = &mut self.subscriber {
                subscriber.subscribe(&self.wanted);
            }
        }
        let Some(wanted) = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        self.shared.queues().subscribe(&wanted);
        if self.told.replace(wanted.len()) != Some(wanted.len()) {
            (self.shared.tell)(&News::Subscribes(wanted.len()));
        }
        self.wanted = wanted;
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.subscribe(&self.wanted);
        }
    }

    fn begin_to_subscribe(&mut self) {
        if self.is_shut
            || self.subscriber.is_some()
            || self.wanted.is_empty()
            || self.retry.0 > Instant::now()
        {
            return;
        }
        match self.shared.entrance.enter() {
            Ok(stream) => self.subscriber = Some(Party::new(&self.shared.options.name, Session::new(stream))),
            Err(error) => self.retry_later(&format!("it cannot come in: {error}")),
        }
    }

    fn retry_later(&mut self, why: &str) {
        (self.shared.tell)(&News::Problem(format!("the session that subscribes inside is over: {why}")));
        let (at, wait) = &mut self.retry;
        *at = Instant::now() + *wait;
        *wait = (*wait * 2).min(RETRY_MAX);
    }

    /// Gives each call to the session of its user.
    fn make_calls(&mut self) {
        while let Some(call) = self.shared.calls.take() {
            if call.left.is_some_and(|left| left.is_zero()) {
                let text = "nobody made the call in its time";
                self.shared.answer(Answer::error(&call, uri::TIMEOUT, text));
                continue;
            }
            let known = self.callers.iter().position(|party| {
                party.authid == call.db_user && matches!(party.stage, Stage::Open | Stage::Opening(_))
            });
            let place = match known {
                Some(place) => place,
                None => match self.new_caller(&call.db_user) {
                    Some(place) => place,
                    // Its turn comes when some session has nothing to do, or the router has room.
                    None => return self.shared.calls.put_back(call),
                },
            };
            let caller = &mut self.callers[place];
            if matches!(caller.stage, Stage::Opening(_)) {
                caller.waiting.push(call);
            } else if caller.session.unsent() > UNSENT_BYTES_MAX {
                return self.shared.calls.put_back(call);
            } else {
                caller.call(call, &self.shared);
            }
        }
    }

    fn new_caller(&mut self, authid: &str) -> Option<usize> {
        if self.is_shut {
            return None;
        }
        if self.callers.len() >= CALLERS_MAX {
            let idle = self.callers.iter_mut().filter(|party| party.is_idle());
            idle.min_by_key(|party| party.used)?.leave();
            return None;
        }
        let stream = self.shared.entrance.enter().ok()?;
        self.callers.push(Party::new(authid, Session::new(stream)));
        Some(self.callers.len() - 1)
    }

    fn write(&mut self) {
        for party in self.subscriber.iter_mut().chain(&mut self.callers) {
            // That it is over is found when it is read.
            let _ = party.session.flush();
        }
    }

    fn read(&mut self) {
        if let Some(mut subscriber) = self.subscriber.take() {
            match subscriber.read(&self.shared, &self.wanted) {
                Ok(()) => {
                    if subscriber.stage == Stage::Open {
                        self.retry.1 = RETRY_FIRST;
                    }
                    self.subscriber = Some(subscriber);
                }
                Err(End::Shutdown) => self.is_shut = true,
                Err(End::Left) => {}
                Err(End::Lost(_, why)) => self.retry_later(&why),
            }
        }
        let mut place = 0;
        while let Some(caller) = self.callers.get_mut(place) {
            let Err(end) = caller.read(&self.shared, &[]) else {
                place += 1;
                continue;
            };
            let caller = self.callers.swap_remove(place);
            self.is_shut |= matches!(end, End::Shutdown);
            if let End::Lost(error, why) = end {
                let made = caller.calls.into_values().map(|made| made.call);
                for call in made.chain(caller.waiting) {
                    self.shared.answer(Answer::error(&call, &error, &why));
                }
            }
        }
    }

    /// The router keeps the time; a call whose answer did not come all the same is over.
    fn give_up(&mut self) {
        let now = Instant::now();
        for caller in &mut self.callers {
            let late: Vec<u64> =
                caller.calls.iter().filter(|(_, made)| made.given_up_at <= now).map(|(it, _)| *it).collect();
            for request in late {
                let Some(made) = caller.calls.remove(&request) else { continue };
                caller.session.send(&format!("[49,{request},{{\"mode\":\"killnowait\"}}]"));
                let text = "the router did not answer in time";
                self.shared.answer(Answer::error(&made.call, uri::TIMEOUT, text));
            }
        }
    }

    fn tell_overflown(&mut self) {
        let (count, told) = &mut self.overflown;
        *count += self.shared.queues().take_overflown();
        if *count > 0 && told.is_none_or(|told| told.elapsed() >= NEWS_EVERY) {
            (self.shared.tell)(&News::Overflow(*count));
            (*count, *told) = (0, Some(Instant::now()));
        }
    }
}

impl Party {
    fn new(authid: &str, session: Session) -> Self {
        let now = Instant::now();
        Self {
            authid: authid.to_owned(),
            session,
            stage: Stage::Opening(now + OPENING),
            last_request: 0,
            calls: HashMap::new(),
            asked: HashMap::new(),
            subscriptions: HashMap::new(),
            waiting: Vec::new(),
            used: now,
        }
    }

    fn is_idle(&self) -> bool {
        self.stage == Stage::Open && self.calls.is_empty() && self.waiting.is_empty()
    }

    fn leave(&mut self) {
        self.session.send("[6,{},\"wamp.close.close_realm\"]");
        self.stage = Stage::Ending;
    }

    fn next_request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// Asks for what is wanted and not there, and gives back what is not wanted any more.
    fn subscribe(&mut self, wanted: &[Wanted]) {
        if self.stage != Stage::Open {
            return;
        }
        let is_wanted = |topic: &Topic| wanted.iter().any(|it| it.policy == topic.0 && it.topic == topic.1);
        let gone: Vec<u64> =
            self.subscriptions.iter().filter(|(_, topic)| !is_wanted(topic)).map(|(id, _)| *id).collect();
        for id in gone {
            self.subscriptions.remove(&id);
            let request = self.next_request();
            self.session.send(&format!("[34,{request},{id}]"));
        }
        for Wanted { topic, policy, .. } in wanted {
            let topic = (*policy, topic.clone());
            if self.subscriptions.values().chain(self.asked.values()).any(|other| *other == topic) {
                continue;
            }
            let request = self.next_request();
            let uri = json!(topic.1);
            self.session.send(&format!("[32,{request},{{\"match\":\"{}\"}},{uri}]", policy.as_str()));
            self.asked.insert(request, topic);
        }
    }

    fn call(&mut self, call: DatabaseCall, shared: &Shared) {
        self.used = Instant::now();
        let request = self.next_request();
        let time =
            call.left.map_or(shared.options.call_timeout, |left| left.min(shared.options.call_timeout));
        let (procedure, timeout) = (json!(call.procedure), time.as_millis().max(1));
        let mut message = format!("[48,{request},{{\"timeout\":{timeout}}},{procedure}");
        if call.args.is_some() || call.kwargs.is_some() {
            message.push(',');
            message.push_str(call.args.as_deref().unwrap_or("[]"));
        }
        if let Some(kwargs) = &call.kwargs {
            message.push(',');
            message.push_str(kwargs);
        }
        message.push(']');
        if self.session.send(&message) {
            let given_up_at = Instant::now() + time + GRACE;
            shared.calls.made();
            self.calls.insert(request, Made { call, given_up_at });
        } else {
            self.last_request -= 1;
            let text = "the arguments are longer than the router takes";
            shared.answer(Answer::error(&call, uri::PAYLOAD_SIZE_EXCEEDED, text));
        }
    }

    /// Takes all that has come.
    fn read(&mut self, shared: &Shared, wanted: &[Wanted]) -> Result<(), End> {
        let lost = |why: String| End::Lost(uri::CANCELED.to_owned(), why);
        if self.stage == Stage::Ending && self.session.unsent() == 0 {
            return Err(End::Left);
        }
        if matches!(self.stage, Stage::Opening(until) if until <= Instant::now()) {
            let text = "the router does not open a session; there may be as many connections as there may be";
            return Err(End::Lost(uri::UNAVAILABLE.to_owned(), text.to_owned()));
        }
        let is_there = self.session.receive().map_err(|error| lost(error.to_string()))?;
        loop {
            let text = match self.session.next().map_err(lost)? {
                Came::Nothing => break,
                Came::Ready => {
                    let hello = hello(&shared.options.realm, &self.authid);
                    self.session.send(&hello);
                    continue;
                }
                Came::Message(text) => text,
            };
            match decode(Serializer::Json, Input::Text(&text), LIMITS) {
                Ok(message) => self.handle(&message, shared, wanted)?,
                Err(error) => return Err(lost(error.message)),
            }
        }
        // What answers it leaves at once.
        let _ = self.session.flush();
        if is_there { Ok(()) } else { Err(lost("the router has closed the connection".to_owned())) }
    }

    fn handle(&mut self, message: &Message<'_>, shared: &Shared, wanted: &[Wanted]) -> Result<(), End> {
        match message {
            Message::Welcome(_) => {
                self.stage = Stage::Open;
                self.subscribe(wanted);
                for call in std::mem::take(&mut self.waiting) {
                    self.call(call, shared);
                }
            }
            Message::Abort(abort) if *abort.reason == *uri::SYSTEM_SHUTDOWN => return Err(End::Shutdown),
            Message::Abort(abort) => {
                let text = format!("the router says {}", &*abort.reason);
                return Err(End::Lost(abort.reason.to_string(), text));
            }
            Message::Goodbye(goodbye) if *goodbye.reason == *uri::SYSTEM_SHUTDOWN => {
                self.session.send("[6,{},\"wamp.close.goodbye_and_out\"]");
                let _ = self.session.flush();
                return Err(End::Shutdown);
            }
            Message::Goodbye(goodbye) => {
                let text = format!("the session was ended by the router: {}", &*goodbye.reason);
                self.session.send("[6,{},\"wamp.close.goodbye_and_out\"]");
                let _ = self.session.flush();
                return Err(End::Lost(uri::CANCELED.to_owned(), text));
            }
            Message::Subscribed(subscribed) => {
                if let Some(topic) = self.asked.remove(&subscribed.request.0) {
                    self.subscriptions.insert(subscribed.subscription.0, topic);
                    // It may have been given back in the meantime.
                    self.subscribe(wanted);
                }
            }
            Message::Event(event) => self.handle_event(event, shared, wanted),
            Message::Result(result) => {
                if let Some(made) = self.calls.remove(&result.request.0) {
                    shared.answer(answer(made.call, result.payload, None, shared.options.answer_bytes_max));
                }
            }
            Message::Error(error) => self.handle_error(error, shared),
            // A subscription may be taken from it (UNSUBSCRIBED without a request).
            Message::Unsubscribed(unsubscribed) if unsubscribed.request.0 == 0 => {
                if let Some(details) = &unsubscribed.details
                    && let Some(id) = details.subscription
                    && let Some((_, uri)) = self.subscriptions.remove(&id.0)
                {
                    let text = format!("the subscription of {uri} was taken from it");
                    (shared.tell)(&News::Problem(text));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_error(&mut self, error: &message::Error<'_>, shared: &Shared) {
        if let Some(made) = self.calls.remove(&error.request.0) {
            let bytes_max = shared.options.answer_bytes_max;
            shared.answer(answer(made.call, error.payload, Some(&error.error), bytes_max));
        } else if let Some((_, uri)) = self.asked.remove(&error.request.0) {
            let text = format!("{uri} cannot be subscribed inside: {}", &*error.error);
            (shared.tell)(&News::Problem(text));
        }
    }

    fn handle_event(&self, event: &message::Event<'_>, shared: &Shared, wanted: &[Wanted]) {
        let Some((policy, uri)) = self.subscriptions.get(&event.subscription.0) else { return };
        let topic = event.details.topic.as_deref().unwrap_or(uri);
        let (args, kwargs) = texts(event.payload);
        let details = details_of(event, topic).to_string().into();
        let (topic, args, kwargs) = (topic.into(), args.into(), kwargs.into());
        let given = Arc::new(Event { topic, args, kwargs, details, depth: event.details.depth });
        let mut queues = shared.queues();
        for wanted in wanted.iter().filter(|it| it.policy == *policy && it.topic == *uri) {
            queues.push(wanted.id, &given);
        }
        drop(queues);
        shared.work.notify_one();
    }
}

fn hello(realm: &str, authid: &str) -> String {
    let details = json!({
        "authid": authid,
        "agent": AGENT,
        "roles": {
            "subscriber": {"features": {
                "pattern_based_subscription": true, "publisher_identification": true,
                "publication_trustlevels": true, "subscription_revocation": true,
            }},
            "caller": {"features": {"call_timeout": true, "call_canceling": true, "caller_identification": true}},
        },
    });
    json!([1, realm, details]).to_string()
}

/// Args and kwargs in JSON, empty ones where there are none.
fn texts<'a>(payload: Payload<'a>) -> (&'a str, &'a str) {
    let text = |bytes: &'a [u8], none: &'static str| -> &'a str {
        std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).unwrap_or(none)
    };
    (text(payload.args, "[]"), text(payload.kwargs, "{}"))
}

fn answer(call: DatabaseCall, payload: Payload<'_>, error: Option<&str>, bytes_max: usize) -> Answer {
    if payload.len() > bytes_max {
        let text = "the answer is longer than the database takes";
        return Answer::error(&call, uri::PAYLOAD_SIZE_EXCEEDED, text);
    }
    let (args, kwargs) = texts(payload);
    Answer {
        id: call.id,
        procedure: call.procedure.into(),
        args: args.into(),
        kwargs: kwargs.into(),
        error: error.map(Into::into),
        has_function: call.has_function,
        depth: call.depth,
    }
}

/// What a function is told of an event beside its arguments.
fn details_of(event: &message::Event<'_>, topic: &str) -> Value {
    let details = &event.details;
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| {
        all.insert(name.to_owned(), value);
    };
    put("topic", json!(topic));
    put("publication", json!(event.publication.0));
    if let Some(publisher) = details.publisher {
        put("publisher", json!(publisher.0));
    }
    for (name, text) in
        [("publisher_authid", &details.publisher_authid), ("publisher_authrole", &details.publisher_authrole)]
    {
        if let Some(text) = text {
            put(name, json!(&**text));
        }
    }
    if let Some(level) = details.trustlevel {
        put("trustlevel", json!(level));
    }
    if details.retained {
        put("retained", json!(true));
    }
    if details.lost > 0 {
        put("_lost", json!(details.lost));
    }
    if details.event_id > 0 {
        put("_event_id", json!(details.event_id));
    }
    if details.depth > 0 {
        put("_depth", json!(details.depth));
    }
    Value::Object(all)
}
