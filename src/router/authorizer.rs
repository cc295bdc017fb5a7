//! Dynamic authorization: a procedure decides what the permissions of a role leave open.
//!
//! The request that needs an answer waits, and all requests of its session behind it, while everything else of the session
//! passes (R2). The shard keeps them; when the answer is there they are handled again from the first, and find it.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashMap};
use serde_json::{Value, json};

use super::authorize::{Action, Decision};
use super::effects::Effects;
use super::history::GET_EVENTS;
use super::own_calls::{Answer, Purpose, is_unavailable};
use super::peer::{RealmIndex, SessionKey};
use super::testaments::ADD_TESTAMENT;
use super::{NOT_ALLOWED, Refusal, Router};
use crate::config;
use crate::wamp::error::uri;
use crate::wamp::message::{Call, Message, Publish, Register, Subscribe};
use crate::wamp::{Arguments, MatchPolicy, RequestId};

/// The authorizer of a role on one core.
#[derive(Debug)]
pub(super) struct Authorizer {
    procedure: Box<str>,
    /// How long an answer is kept that says it may be, in microseconds.
    cache_us: u64,
    /// Decisions under way.
    asked: usize,
    /// Sessions that wait until fewer are under way; those that are gone are passed over.
    waiting: VecDeque<SessionKey>,
}

impl Authorizer {
    pub(super) fn new(role: &config::Role) -> Option<Box<Self>> {
        let procedure = role.authorizer.as_deref()?.into();
        let cache_us = u64::try_from(role.authorizer_cache.as_micros()).unwrap_or(u64::MAX);
        Some(Box::new(Self { procedure, cache_us, asked: 0, waiting: VecDeque::new() }))
    }
}

/// A session may do what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permit {
    /// Whether it is disclosed to whoever gets what it sends, though it did not ask for that.
    pub(super) disclose: bool,
}

/// What was decided about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed {
        disclose: bool,
    },
    Denied,
    /// It could not be found out; the request is refused with another error, and nothing is kept.
    Failed(&'static str),
}

/// How far the decision about the first waiting request of a session is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// As many are asked about as may be.
    Waiting,
    /// It is its turn to ask, once its shard hands the request in again.
    Turn,
    Asked(Option<RequestId>),
    Made(Verdict),
}

/// Decisions about requests of this core's sessions: each ends when its request is handled, and with its session.
#[derive(Debug)]
pub(super) struct Decisions {
    pending: HashMap<SessionKey, Pending, FixedState>,
    cache: Cache,
}

#[derive(Debug)]
struct Pending {
    realm: RealmIndex,
    role: u16,
    stage: Stage,
    /// Of what is being decided.
    action: Action,
    /// What was decided about the call, where it is about something else besides.
    first: Option<Verdict>,
    /// While it is asked, and may be kept.
    question: Option<Box<OwnedQuestion>>,
}

impl Decisions {
    pub(super) fn new(seed: u64, cache_entries_max: usize) -> Self {
        let pending = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { pending, cache: Cache::new(seed, cache_entries_max) }
    }

    /// Forgets answers: those about a user of a realm or all of them, about a URI or all. How many. What is being asked
    /// may be answered by what was true before: it is not kept then.
    pub(super) fn purge(&mut self, realm: RealmIndex, authid: Option<&str>, uri: Option<&str>) -> u64 {
        let stays = |question: Question<'_>| {
            question.realm != realm
                || authid.is_some_and(|authid| authid != question.authid)
                || uri.is_some_and(|uri| uri != question.uri)
        };
        for pending in self.pending.values_mut() {
            pending.question.take_if(|question| !stays(question.as_question()));
        }
        let before = self.cache.len();
        self.cache.retain(stays);
        (before - self.cache.len()) as u64
    }

    /// What was decided about an action of a session's request: good for once.
    fn take(&mut self, key: SessionKey, action: Action) -> Option<Verdict> {
        let pending = self.pending.get_mut(&key)?;
        if pending.action != action {
            return pending.first.take();
        }
        match self.pending.remove(&key)?.stage {
            Stage::Made(verdict) => Some(verdict),
            Stage::Waiting | Stage::Turn | Stage::Asked(_) => None,
        }
    }

    /// How many are pending.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

/// What a decision is about. Two users never share one: the authid is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question<'a> {
    realm: RealmIndex,
    role: u16,
    action: Action,
    policy: MatchPolicy,
    wishes: Wishes,
    authid: &'a str,
    uri: &'a str,
}

#[derive(Debug)]
struct OwnedQuestion {
    realm: RealmIndex,
    role: u16,
    action: Action,
    policy: MatchPolicy,
    wishes: Wishes,
    authid: Box<str>,
    uri: Box<str>,
}

/// What a request asks for beside itself: to be disclosed, and to be retained, to get what is retained, or to push the
/// holder out. A yes to one that does not is none to one that does.
pub(super) type Wishes = [bool; 2];

impl From<Question<'_>> for OwnedQuestion {
    fn from(question: Question<'_>) -> Self {
        let Question { realm, role, action, policy, wishes, authid, uri } = question;
        Self { realm, role, action, policy, wishes, authid: authid.into(), uri: uri.into() }
    }
}

impl OwnedQuestion {
    fn as_question(&self) -> Question<'_> {
        let Self { realm, role, action, policy, wishes, ref authid, ref uri } = *self;
        Question { realm, role, action, policy, wishes, authid, uri }
    }
}

impl PartialEq for OwnedQuestion {
    fn eq(&self, other: &Self) -> bool {
        self.as_question() == other.as_question()
    }
}

impl Eq for OwnedQuestion {}

impl Hash for OwnedQuestion {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_question().hash(state);
    }
}

impl Equivalent<OwnedQuestion> for Question<'_> {
    fn equivalent(&self, key: &OwnedQuestion) -> bool {
        *self == key.as_question()
    }
}

/// Answers that may be used again: two halves, of which the older goes when the younger is full.
#[derive(Debug)]
struct Cache {
    young: HashMap<OwnedQuestion, Cached, FixedState>,
    old: HashMap<OwnedQuestion, Cached, FixedState>,
    half_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    verdict: Verdict,
    expires_us: u64,
}

impl Cache {
    fn new(seed: u64, entries_max: usize) -> Self {
        let hasher = FixedState::with_seed(seed);
        let (young, old) = (HashMap::with_hasher(hasher.clone()), HashMap::with_hasher(hasher));
        Self { young, old, half_max: entries_max.div_ceil(2) }
    }

    fn get(&self, question: Question<'_>, now_us: u64) -> Option<Verdict> {
        let cached = self.young.get(&question).or_else(|| self.old.get(&question))?;
        (cached.expires_us > now_us).then_some(cached.verdict)
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn retain(&mut self, keeps: impl Fn(Question<'_>) -> bool) {
        for half in [&mut self.young, &mut self.old] {
            half.retain(|question, _| keeps(question.as_question()));
        }
    }

    fn insert(&mut self, question: OwnedQuestion, cached: Cached) {
        if self.half_max == 0 {
            return;
        }
        if self.young.len() >= self.half_max {
            self.old = std::mem::replace(&mut self.young, HashMap::with_hasher(self.old.hasher().clone()));
        }
        self.young.insert(question, cached);
    }
}

const UNREADABLE: &str = "who decides this answered with neither true, nor false, nor a map with `allow`";

/// Whether an answer may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    No,
    AsConfigured,
    /// In milliseconds, but not longer than is configured.
    For(u64),
}

/// `true`, `false`, or a map: `allow`, `disclose`, and `cache`, which is a boolean or milliseconds.
fn read_answer(arguments: &Arguments) -> (Verdict, Keep) {
    let (allow, disclose, cache) = match arguments.args.first() {
        Some(Value::Bool(allow)) => (*allow, None, None),
        Some(Value::Object(answer)) => match answer.get("allow") {
            Some(Value::Bool(allow)) => (*allow, answer.get("disclose"), answer.get("cache")),
            _ => return (Verdict::Failed(UNREADABLE), Keep::No),
        },
        _ => return (Verdict::Failed(UNREADABLE), Keep::No),
    };
    let keep = match cache {
        Some(Value::Bool(true)) => Keep::AsConfigured,
        Some(Value::Number(ms)) => ms.as_u64().map_or(Keep::No, Keep::For),
        _ => Keep::No,
    };
    let disclose = disclose.and_then(Value::as_bool).unwrap_or(false);
    (if allow { Verdict::Allowed { disclose } } else { Verdict::Denied }, keep)
}

/// The part of a request that is decided about.
struct Request<'a> {
    id: RequestId,
    action: Action,
    uri: &'a str,
    policy: MatchPolicy,
    wishes: Wishes,
    /// For the authorizer.
    options: Value,
}

/// What else a request is about than what it says.
pub(super) struct Another {
    pub(super) action: Action,
    pub(super) uri: Box<str>,
    pub(super) policy: MatchPolicy,
    pub(super) wishes: Wishes,
    /// For the authorizer.
    pub(super) options: Value,
}

/// Whether a request is about something else besides: who asks for the events of a topic, or leaves a testament, does what
/// subscribers or publishers do.
fn is_about_another(message: &Message<'_>) -> bool {
    let Message::Call(Call { procedure, .. }) = message else { return false };
    procedure.starts_with("wamp.") && (procedure == GET_EVENTS || procedure == ADD_TESTAMENT)
}

impl<'a> Request<'a> {
    fn of(message: &'a Message<'_>) -> Option<Self> {
        let exact = MatchPolicy::Exact;
        Some(match message {
            Message::Publish(Publish { request, options, topic, .. }) => {
                let wishes = [options.disclose_me, options.retain];
                let options = json!({
                    "acknowledge": options.acknowledge,
                    "disclose_me": options.disclose_me,
                    "retain": options.retain,
                });
                Self { id: *request, action: Action::Publish, uri: topic, policy: exact, wishes, options }
            }
            Message::Call(Call { request, options, procedure, .. }) => {
                let wishes = [options.disclose_me, false];
                let options = json!({ "disclose_me": options.disclose_me, "timeout": options.timeout_ms });
                Self { id: *request, action: Action::Call, uri: procedure, policy: exact, wishes, options }
            }
            Message::Subscribe(Subscribe { request, options, topic }) => {
                let (policy, wishes) = (options.match_policy, [false, options.get_retained]);
                let options = json!({ "match": policy.as_str(), "get_retained": options.get_retained });
                Self { id: *request, action: Action::Subscribe, uri: topic, policy, wishes, options }
            }
            Message::Register(Register { request, options, procedure }) => {
                let (policy, wishes) = (options.match_policy, [false, options.force_reregister]);
                let options =
                    json!({ "match": policy.as_str(), "force_reregister": options.force_reregister });
                Self { id: *request, action: Action::Register, uri: procedure, policy, wishes, options }
            }
            _ => return None,
        })
    }
}

impl Router {
    /// Whether the session may do this, by its role, or by the decision that its request waited for.
    pub(super) fn permits(
        &mut self,
        key: SessionKey,
        action: Action,
        uri: &str,
        policy: MatchPolicy,
    ) -> Result<Permit, Refusal> {
        let session = self.sessions.at(key.slot);
        let role = &self.realms[usize::from(session.realm.0)].roles[usize::from(session.role)];
        match role.permissions.decide(action, uri, policy) {
            Decision::Allowed => return Ok(Permit { disclose: role.permissions.discloses(action, uri) }),
            Decision::Open if role.authorizer.is_some() => {}
            Decision::Open | Decision::Denied => return Err(NOT_ALLOWED),
        }
        match self.decisions.take(key, action) {
            Some(Verdict::Allowed { disclose }) => Ok(Permit { disclose }),
            Some(Verdict::Failed(text)) => Err(Refusal { error: uri::AUTHORIZATION_FAILED, text }),
            // Only what is wrong in itself is not asked about.
            Some(Verdict::Denied) | None => Err(NOT_ALLOWED),
        }
    }

    /// Whether a message has to wait until its authorizer has decided. Asks it, where it was not asked yet.
    pub(super) fn waits_for_decision(
        &mut self,
        key: SessionKey,
        message: &Message<'_>,
        effects: &mut impl Effects,
    ) -> bool {
        let (realm, session) = self.realm_and_session(key);
        let role = &realm.roles[usize::from(session.role)];
        if role.authorizer.is_none() {
            return false;
        }
        let Some(request) = Request::of(message) else { return false };
        let decision = role.permissions.decide(request.action, request.uri, request.policy);
        let is_about_another = decision != Decision::Denied && is_about_another(message);
        if decision != Decision::Open && !is_about_another {
            return false;
        }
        // What is refused or ends the session anyway is nobody's business.
        let is_next = request.id == session.last_request.next() || !realm.strict_request_ids;
        let checked =
            crate::wamp::uri::check_pattern(request.uri, request.policy, realm.uri_rule, realm.uri_limits);
        // More input of a call was decided about with the first.
        let is_more = matches!(message, Message::Call(_)) && self.call_is_open(key, request.id);
        if !is_next || is_more || checked.is_err() {
            return false;
        }
        if decision == Decision::Open {
            match self.decide(key, request, effects) {
                None => return true,
                Some(Verdict::Allowed { .. }) => {}
                Some(Verdict::Denied | Verdict::Failed(_)) => return false,
            }
        }
        is_about_another && self.waits_for_another(key, message, effects)
    }

    /// Who calls some procedures of the router does something else by that, which has to be decided, too.
    fn waits_for_another(
        &mut self,
        key: SessionKey,
        message: &Message<'_>,
        effects: &mut impl Effects,
    ) -> bool {
        let Message::Call(Call { request, procedure, payload, .. }) = message else { return false };
        let another = if procedure == GET_EVENTS {
            self.events_to_authorize(key, payload)
        } else {
            self.testament_to_authorize(key, payload)
        };
        // What is wrong in itself is refused without.
        let Some(Another { action, uri, policy, wishes, options }) = another else { return false };
        let (realm, session) = self.realm_and_session(key);
        let permissions = &realm.roles[usize::from(session.role)].permissions;
        let request = Request { id: *request, action, uri: &uri, policy, wishes, options };
        permissions.decide(action, &uri, policy) == Decision::Open
            && self.decide(key, request, effects).is_none()
    }

    /// What was decided about a request. Asks where that is not known; `None`: the answer is not there yet.
    fn decide(
        &mut self,
        key: SessionKey,
        request: Request<'_>,
        effects: &mut impl Effects,
    ) -> Option<Verdict> {
        let (realm, session) = self.realm_and_session(key);
        let (realm_index, role_index) = (session.realm, session.role);
        let role = &realm.roles[usize::from(role_index)];
        let authorizer = role.authorizer.as_deref()?;
        let mut first = None;
        match self.decisions.pending.get(&key) {
            Some(pending) if pending.action == request.action => {
                first = pending.first;
                match pending.stage {
                    Stage::Made(verdict) => return Some(verdict),
                    Stage::Asked(_) => return None,
                    Stage::Waiting | Stage::Turn => {}
                }
            }
            Some(Pending { first: Some(verdict), .. }) => return Some(*verdict),
            Some(Pending { stage: Stage::Made(verdict), .. }) => first = Some(*verdict),
            Some(_) | None => {}
        }
        let authid = session.authid();
        let question = Question {
            realm: realm_index,
            role: role_index,
            action: request.action,
            policy: request.policy,
            wishes: request.wishes,
            authid: &authid,
            uri: request.uri,
        };
        let action = request.action;
        let pending =
            |stage| Pending { realm: realm_index, role: role_index, stage, action, first, question: None };
        if let Some(verdict) = self.decisions.cache.get(question, self.now.monotonic_us) {
            effects.counters().decisions_cached += 1;
            let before = self.decisions.pending.insert(key, pending(Stage::Made(verdict)));
            if before.is_some_and(|before| matches!(before.stage, Stage::Waiting | Stage::Turn)) {
                // It was its turn to ask, and it did not.
                self.let_next_ask(realm_index, role_index, effects);
            }
            return Some(verdict);
        }
        if authorizer.asked >= self.limits.authorizer_calls_max {
            self.decisions.pending.insert(key, pending(Stage::Waiting));
            self.authorizer(realm_index, role_index, |authorizer| authorizer.waiting.push_back(key));
            return None;
        }
        let details = json!({
            "session": session.id.0,
            "authid": authid,
            "authrole": role.name,
            "authmethod": session.authmethod(),
            "authprovider": session.authprovider(),
            "realm": realm.name,
        });
        let arguments = Arguments::from(vec![
            details,
            Value::from(request.uri),
            Value::from(request.action.as_str()),
            request.options,
        ]);
        let procedure = authorizer.procedure.clone();
        effects.counters().decisions_asked += 1;
        let question = Some(Box::new(OwnedQuestion::from(question)));
        self.decisions.pending.insert(key, Pending { question, ..pending(Stage::Asked(None)) });
        self.authorizer(realm_index, role_index, |authorizer| authorizer.asked += 1);
        let deadline_us =
            self.now.monotonic_us.saturating_add(self.limits.authorizer_timeout.as_micros() as u64);
        let purpose = Purpose::Authorize(key);
        let call = self.call_by_router(realm_index, &procedure, &arguments, deadline_us, purpose, effects);
        match self.decisions.pending.get_mut(&key).map(|pending| &mut pending.stage) {
            Some(Stage::Asked(asked)) => {
                *asked = Some(call);
                None
            }
            // It was answered at once.
            Some(Stage::Made(verdict)) => Some(*verdict),
            Some(Stage::Waiting | Stage::Turn) | None => Some(Verdict::Denied),
        }
    }

    fn authorizer(&mut self, realm: RealmIndex, role: u16, change: impl FnOnce(&mut Authorizer)) {
        let role = &mut self.realms[usize::from(realm.0)].roles[usize::from(role)];
        if let Some(authorizer) = role.authorizer.as_deref_mut() {
            change(authorizer);
        }
    }

    /// The authorizer has answered, or will not.
    pub(super) fn handle_authorizer_answer(
        &mut self,
        key: SessionKey,
        answer: &Answer<'_>,
        effects: &mut impl Effects,
    ) {
        let Some(pending) = self.decisions.pending.get_mut(&key) else { return };
        let (verdict, keep) = match answer {
            Answer::Result(Some(arguments)) => read_answer(arguments),
            Answer::Result(None) => (Verdict::Failed(UNREADABLE), Keep::No),
            Answer::Error(error) if is_unavailable(error) => {
                (Verdict::Failed("nobody who decides this can be asked now; try again later"), Keep::No)
            }
            Answer::Error(_) => (Verdict::Failed("who decides this answered with an error"), Keep::No),
            Answer::Timeout => (Verdict::Failed("who decides this did not answer in time"), Keep::No),
        };
        // A request that was let through at once, because it was answered at once, waits for nothing.
        let waits = matches!(pending.stage, Stage::Asked(Some(_)));
        pending.stage = Stage::Made(verdict);
        let (realm, role, question) = (pending.realm, pending.role, pending.question.take());
        let mut cache_us = 0;
        self.authorizer(realm, role, |authorizer| {
            cache_us = match keep {
                Keep::No => 0,
                Keep::AsConfigured => authorizer.cache_us,
                Keep::For(ms) => authorizer.cache_us.min(ms.saturating_mul(1000)),
            };
        });
        if let Some(question) = question
            && cache_us > 0
        {
            let expires_us = self.now.monotonic_us.saturating_add(cache_us);
            self.decisions.cache.insert(*question, Cached { verdict, expires_us });
        }
        self.decision_ended(realm, role, effects);
        if waits {
            let _ = effects.resume_requests(key);
        }
    }

    /// One less is under way: the next session that waits asks again.
    fn decision_ended(&mut self, realm: RealmIndex, role: u16, effects: &mut impl Effects) {
        self.authorizer(realm, role, |authorizer| authorizer.asked -= 1);
        self.let_next_ask(realm, role, effects);
    }

    fn let_next_ask(&mut self, realm: RealmIndex, role: u16, effects: &mut impl Effects) {
        loop {
            let mut next = None;
            self.authorizer(realm, role, |authorizer| next = authorizer.waiting.pop_front());
            let Some(key) = next else { return };
            let Some(pending) = self.decisions.pending.get_mut(&key) else { continue };
            if !matches!(pending.stage, Stage::Waiting) {
                continue;
            }
            pending.stage = Stage::Turn;
            if effects.resume_requests(key) {
                return;
            }
            // It does not read what it is sent: it asks once it does, and nobody waits for that.
            pending.stage = Stage::Waiting;
        }
    }

    /// The requests of a session are held back because it does not read: if it is its turn to ask, it is somebody else's.
    pub(crate) fn pass_turn_on(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let Some(pending) = self.decisions.pending.get_mut(&key) else { return };
        if matches!(pending.stage, Stage::Turn) {
            pending.stage = Stage::Waiting;
            let (realm, role) = (pending.realm, pending.role);
            self.let_next_ask(realm, role, effects);
        }
    }

    /// A request was handled: what was decided about it is nobody else's, whether it came to that or not.
    pub(super) fn end_decision(&mut self, key: SessionKey, message: &Message<'_>) {
        if matches!(
            message,
            Message::Publish(_) | Message::Call(_) | Message::Subscribe(_) | Message::Register(_)
        ) && let Some(Pending { stage: Stage::Made(_), .. }) = self.decisions.pending.get(&key)
        {
            self.decisions.pending.remove(&key);
        }
    }

    /// The session ends.
    pub(super) fn forget_decision(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let Some(pending) = self.decisions.pending.remove(&key) else { return };
        match pending.stage {
            Stage::Asked(call) => {
                if let Some(call) = call {
                    self.give_up_own_call(call, effects);
                }
                self.decision_ended(pending.realm, pending.role, effects);
            }
            Stage::Waiting | Stage::Turn => {
                let decisions = &self.decisions.pending;
                let role = &mut self.realms[usize::from(pending.realm.0)].roles[usize::from(pending.role)];
                // Most of them are gone: rarely, so that many may leave at once.
                if let Some(authorizer) = role.authorizer.as_deref_mut()
                    && authorizer.waiting.len() > 2 * decisions.len() + 64
                {
                    authorizer.waiting.retain(|waiting| decisions.contains_key(waiting));
                }
                // It may have been its turn.
                self.let_next_ask(pending.realm, pending.role, effects);
            }
            Stage::Made(_) => {}
        }
    }
}
