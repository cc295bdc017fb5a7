//! What every session did and got, and the promises that are held against it.
//!
//! O1 to O6 are those of ARCHITECTURE.md. What a client receives is judged at once; what it should have received, when all
//! is quiet.

#[path = "history/cookies.rs"]
pub mod cookies;
#[path = "history/databases.rs"]
pub mod databases;
#[path = "history/happened.rs"]
mod happened;
#[path = "history/kept.rs"]
pub mod kept;
#[path = "history/kills.rs"]
pub mod kills;
#[path = "history/meta.rs"]
mod meta;
#[path = "history/sealed.rs"]
mod sealed;
#[path = "history/shards.rs"]
pub mod shards;
#[path = "history/testaments.rs"]
pub mod testaments;
#[path = "history/watch.rs"]
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};

use crosspoint::wamp::MatchPolicy;
use crosspoint::wamp::error::uri;
use crosspoint::wamp::options::{CancelMode, EventDetails, InvocationDetails};

use self::databases::{Databases, OfDatabases};
pub use self::happened::Happened;
use self::kills::Kill;
pub use self::sealed::seal;
use self::testaments::Testament;
use self::watch::Watched;
use super::content::{CALL, Content, ERROR, EVENT, RESULT};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub promise: &'static str,
    pub text: String,
}

pub type Kept = Result<(), Violation>;

pub fn broken<T>(promise: &'static str, text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { promise, text: text.into() })
}

/// How a session ended, if it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It did not.
    Open,
    /// GOODBYE was sent, or FIN: what was sent before is handled.
    Leaving,
    /// As above, and the router has answered, so it was.
    Left,
    /// Whatever was not handled by then is lost.
    Lost,
}

#[derive(Debug)]
pub struct Publication {
    pub topic: &'static str,
    pub exclude_me: bool,
    pub exclude: Vec<u64>,
    pub is_retained: bool,
    pub is_disclosed: bool,
    /// The resource that it is of, where nodes share what they subscribe to.
    pub rkey: Option<&'static str>,
    /// Its payload is the clients' own affair.
    pub is_sealed: bool,
    pub sent_at: u64,
}

#[derive(Debug)]
pub struct Subscription {
    pub pattern: &'static str,
    pub policy: MatchPolicy,
    pub id: u64,
    pub wants_retained: bool,
    /// The node that it is of.
    pub nkey: Option<&'static str>,
    /// When it was asked for.
    pub asked_at: u64,
    /// When SUBSCRIBED came; `None` before.
    pub since: Option<u64>,
    pub is_ending: bool,
    pub is_over: bool,
    /// Numbers of the publications received, by publisher.
    pub events: BTreeMap<usize, Vec<u64>>,
    /// Sessions that the router said have come, and have gone.
    pub joined: BTreeSet<u64>,
    pub gone: BTreeSet<u64>,
    /// Numbers of the testaments received, by who left them.
    pub testaments: BTreeMap<usize, Vec<u64>>,
    /// What was heard of subscriptions or registrations.
    pub watched: Watched,
    pub of_databases: OfDatabases,
}

#[derive(Debug)]
pub struct Registration {
    pub pattern: &'static str,
    pub policy: MatchPolicy,
    /// Calls that it takes at a time; 0 is no limit.
    pub concurrency: u64,
    pub id: u64,
    /// When it was asked for.
    pub asked_at: u64,
    pub since: Option<u64>,
    pub is_ending: bool,
    pub is_over: bool,
    /// Somebody took it by force.
    pub is_revoked: bool,
    /// It wants to know who calls.
    pub disclose_caller: bool,
}

/// How a call is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    pub disclose_me: bool,
    pub receive_progress: bool,
    /// Its input comes in parts.
    pub in_parts: bool,
    /// Its payload is the clients' own affair.
    pub is_sealed: bool,
    /// In milliseconds; 0 is none.
    pub timeout_ms: u64,
}

#[derive(Debug)]
pub struct Call {
    pub procedure: &'static str,
    pub manner: Manner,
    pub sent_at: u64,
    pub cancelled: Option<CancelMode>,
    pub is_answered: bool,
    /// It was answered that it cannot be made now.
    pub is_refused: bool,
    /// Parts of its input that were sent, and whether more may be.
    pub parts: u64,
    pub has_more: bool,
    /// Parts of its result that came.
    pub progress: u64,
    /// The callee that got it, and the invocation there.
    pub invoked: Option<(usize, usize)>,
    /// Callees that had it before, and passed it on.
    pub refused_by: Vec<(usize, usize)>,
    /// Some callees of the procedure are limited in their concurrency.
    pub may_wait: bool,
}

#[derive(Debug)]
pub struct Invocation {
    pub caller: usize,
    pub number: u64,
    pub is_answered: bool,
    pub is_interrupted: bool,
    /// Parts of the input that came, and of the result that were sent.
    pub parts: u64,
    pub progress: u64,
    pub wants_progress: bool,
    /// The callee refused it so that another is tried.
    pub is_passed_on: bool,
    /// The result is the clients' own affair.
    pub is_sealed: bool,
    /// The place of the registration among those of the callee.
    pub held: usize,
}

/// One session from WELCOME to its end.
#[derive(Debug)]
pub struct Session {
    pub realm: usize,
    pub core: usize,
    pub id: u64,
    /// Who it is.
    pub authid: String,
    pub authrole: String,
    /// When its HELLO was sent, and its WELCOME came.
    pub hello_at: u64,
    pub welcomed_at: u64,
    /// The order that ended it.
    pub killed_by: Option<usize>,
    pub end: End,
    pub can_be_interrupted: bool,
    /// It understands payloads that the router does not read.
    pub can_seal: bool,
    pub publications: Vec<Publication>,
    pub testaments: Vec<Testament>,
    pub subscriptions: Vec<Subscription>,
    pub registrations: Vec<Registration>,
    pub calls: Vec<Call>,
    pub invocations: Vec<Invocation>,
    /// The last publication of each publisher that came, and by which subscriptions.
    last_events: BTreeMap<usize, (u64, BTreeSet<usize>)>,
    last_calls: BTreeMap<usize, u64>,
    /// Events that the router said it dropped.
    pub events_lost: u64,
}

impl Session {
    pub fn new(realm: usize, core: usize, id: u64, can_be_interrupted: bool) -> Self {
        Self {
            realm,
            core,
            id,
            authid: String::new(),
            authrole: String::new(),
            hello_at: 0,
            welcomed_at: 0,
            killed_by: None,
            end: End::Open,
            can_be_interrupted,
            can_seal: false,
            publications: Vec::new(),
            testaments: Vec::new(),
            subscriptions: Vec::new(),
            registrations: Vec::new(),
            calls: Vec::new(),
            invocations: Vec::new(),
            last_events: BTreeMap::new(),
            last_calls: BTreeMap::new(),
            events_lost: 0,
        }
    }

    /// UNREGISTERED came without having been asked for.
    pub fn lose_registration(&mut self, id: u64) -> Result<usize, Violation> {
        let place = self.registrations.iter().rposition(|held| held.id == id && !held.is_over);
        let Some(place) = place else {
            return broken("answer", format!("registration {id} was revoked, which is not held"));
        };
        let held = &mut self.registrations[place];
        (held.is_ending, held.is_over, held.is_revoked) = (true, true, true);
        Ok(place)
    }
}

/// All sessions of a run, in the order of their WELCOMEs. The index is what content names them by.
#[derive(Debug)]
pub struct History {
    pub sessions: Vec<Session>,
    /// Whether the role drops events for slow readers.
    pub may_drop: bool,
    /// Whether outboxes are so small that an ERROR may come without its arguments.
    pub may_refuse: bool,
    /// Whether calls may be re-routed, and so arrive late.
    pub reroutes: bool,
    /// Callees that calls did not find, and the place of what they had registered, unless it turns out that the router had
    /// closed them, or somebody had taken it.
    missed_callees: Vec<(usize, usize, String)>,
    /// Callees that had more calls than they said, by the callers of those calls, unless it turns out that callers were gone.
    crowded: Vec<(u64, Vec<usize>, String)>,
    /// Orders to end sessions.
    pub kills: Vec<Kill>,
    pub cookies: cookies::Cookies,
    pub databases: Databases,
    /// Events that were asked for, and what is known of their order.
    pub queries: Vec<kept::Query>,
    order: kept::Order,
    /// Whether who does not answer in time loses what it registered to its successor.
    pub may_take_over: bool,
    /// How many testaments a session may leave.
    pub testaments_max: usize,
    pub happened: Happened,
}

/// Whether a topic or procedure is meant by a pattern.
pub fn matches(policy: MatchPolicy, pattern: &str, uri: &str) -> bool {
    match policy {
        MatchPolicy::Exact => pattern == uri,
        MatchPolicy::Prefix => uri.starts_with(pattern),
        MatchPolicy::Wildcard => {
            let (pattern, uri): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), uri.split('.').collect());
            pattern.len() == uri.len()
                && pattern.iter().zip(uri).all(|(pattern, part)| pattern.is_empty() || *pattern == part)
        }
    }
}

impl History {
    pub fn new(may_drop: bool, may_refuse: bool, reroutes: bool) -> Self {
        Self {
            sessions: Vec::new(),
            may_drop,
            may_refuse,
            reroutes,
            crowded: Vec::new(),
            missed_callees: Vec::new(),
            kills: Vec::new(),
            cookies: cookies::Cookies::default(),
            databases: Databases::default(),
            queries: Vec::new(),
            order: kept::Order::new(),
            may_take_over: false,
            testaments_max: usize::MAX,
            happened: Happened::default(),
        }
    }

    /// EVENT arrives at a subscriber.
    pub fn receive_event(
        &mut self,
        subscriber: usize,
        id: u64,
        content: Option<Content>,
        details: &EventDetails<'_>,
    ) -> Kept {
        let (topic, lost) = (details.topic.as_deref(), details.lost);
        let content = expect_content(content, EVENT)?;
        let (publisher, number) = (content.session as usize, content.number);
        let Some(publication) =
            self.sessions.get(publisher).and_then(|session| session.publications.get(number as usize))
        else {
            return broken("integrity", format!("an EVENT of publication {number} of session {publisher}"));
        };
        let (realm, sent_to) = (self.sessions[publisher].realm, publication.topic);
        let excluded = publication.exclude.contains(&self.sessions[subscriber].id)
            || (publication.exclude_me && publisher == subscriber);
        let is_retained = publication.is_retained;
        let disclosed = publication.is_disclosed.then_some(self.sessions[publisher].id);
        if details.publisher.map(|id| id.0) != disclosed
            || details.publisher_authid.is_some() != disclosed.is_some()
            || details.publisher_authrole.is_some() != disclosed.is_some()
        {
            let text = format!("publication {number} of session {publisher}: {details:?}, not {disclosed:?}");
            return broken("disclosure", text);
        }
        self.happened.publishers_disclosed += u64::from(disclosed.is_some());
        let is_sealed = publication.is_sealed;
        self.happened.sealed += u64::from(is_sealed);
        if details.passthru != seal(is_sealed, content) {
            return broken("passthru", format!("publication {number} of session {publisher}: {details:?}"));
        }
        let session = &mut self.sessions[subscriber];
        let what = format!("EVENT {number} of session {publisher} to session {subscriber}");
        if realm != session.realm || excluded {
            return broken("audience", format!("{what}: it is not for this session"));
        }
        // The last one: a topic that is subscribed again has the same id.
        let place = session.subscriptions.iter().rposition(|held| held.since.is_some() && held.id == id);
        let Some(place) = place else {
            return broken("O2", format!("{what}: subscription {id} was not confirmed"));
        };
        let held = &mut session.subscriptions[place];
        if held.is_over {
            return broken("O2", format!("{what}: after UNSUBSCRIBED"));
        }
        let named = if held.policy == MatchPolicy::Exact { topic.is_none() } else { topic == Some(sent_to) };
        if !matches(held.policy, held.pattern, sent_to) || !named {
            return broken("integrity", format!("{what}: topic {topic:?} by {:?}", held.pattern));
        }
        session.events_lost += u64::from(lost);
        self.happened.events_lost += u64::from(lost);
        if details.retained {
            if !is_retained || !held.wants_retained {
                return broken("retention", format!("{what}: it was not to be retained, or nobody asked"));
            }
            self.happened.retained += 1;
            return Ok(());
        }
        self.happened.events += 1;
        held.events.entry(publisher).or_default().push(number);
        let (last, places) = session.last_events.entry(publisher).or_default();
        if number < *last {
            return broken("O1", format!("{what}: after event {last}"));
        }
        if number > *last {
            (*last, *places) = (number, BTreeSet::new());
        }
        if !places.insert(place) {
            return broken("duplicate", format!("{what}: twice by one subscription"));
        }
        Ok(())
    }

    /// A callee lost a registration: to somebody of the same name who wanted the same, if that is why.
    pub fn receive_revocation(&mut self, callee: usize, id: u64, reason: Option<&str>) -> Kept {
        let place = self.sessions[callee].lose_registration(id)?;
        if reason != Some("crosspoint.reason.taken_over") {
            return Ok(());
        }
        self.happened.takeovers += 1;
        let (realm, authid) = (self.sessions[callee].realm, &self.sessions[callee].authid);
        let lost = &self.sessions[callee].registrations[place];
        let is_successor = |(place, other): (usize, &Session)| {
            let wants = |held: &Registration| (held.policy, held.pattern) == (lost.policy, lost.pattern);
            place != callee
                && (other.realm, &other.authid) == (realm, authid)
                && other.registrations.iter().any(wants)
        };
        if !self.may_take_over || !self.sessions.iter().enumerate().any(is_successor) {
            return broken("takeover", format!("session {callee}, {authid:?}, lost {lost:?}"));
        }
        Ok(())
    }

    /// INVOCATION arrives at a callee.
    pub fn receive_invocation(
        &mut self,
        callee: usize,
        request: u64,
        registration: u64,
        details: &InvocationDetails<'_>,
        content: Option<Content>,
    ) -> Result<Option<usize>, Violation> {
        let procedure = details.procedure.as_deref();
        if let Some(content) = content
            && content.part() > 0
        {
            self.receive_part(callee, request, details, content)?;
            return Ok(None);
        }
        let content = expect_content(content, CALL)?;
        let (caller, number) = (content.session as usize, content.number);
        let what = format!("INVOCATION {request} to session {callee}: call {number} of session {caller}");
        let session = &mut self.sessions[callee];
        if request != session.invocations.len() as u64 + 1 {
            return broken("ids", format!("{what}: after {}", session.invocations.len()));
        }
        let index = session.invocations.len();
        session.invocations.push(Invocation {
            caller,
            number,
            is_answered: false,
            is_interrupted: false,
            parts: 1,
            progress: 0,
            wants_progress: details.receive_progress,
            is_passed_on: false,
            is_sealed: false,
            held: 0,
        });
        // A shared one may be held once more under the same id.
        let of_this = |held: &Registration| held.since.is_some() && held.id == registration;
        let place = session.registrations.iter().rposition(of_this).unwrap_or_default();
        session.invocations[index].held = place;
        let held = session.registrations.get(place).filter(|held| of_this(held));
        let Some(held) = held else {
            return broken("O4", format!("{what}: registration {registration} was not confirmed"));
        };
        if held.is_over {
            return broken("O4", format!("{what}: after UNREGISTERED"));
        }
        let (policy, pattern, concurrency) = (held.policy, held.pattern, held.concurrency);
        let (wants_caller, since) = (held.disclose_caller, held.since);
        let (realm, can_seal) = (session.realm, session.can_seal);
        if details.passthru.is_used() && !can_seal {
            return broken(
                "passthru",
                format!("{what}: it did not announce that it understands {details:?}"),
            );
        }
        self.check_crowd(callee, place, concurrency, &what);
        // Calls that wait or are re-routed keep no order (R10).
        let may_stray = self.reroutes || self.call(caller, number).is_some_and(|call| call.may_wait);
        if !may_stray {
            let last = self.sessions[callee].last_calls.insert(caller, number);
            if last.is_some_and(|last| last > number) {
                return broken("O3", format!("{what}: after call {last:?}"));
            }
        }
        let Some(session) = self.sessions.get_mut(caller) else {
            return broken("integrity", format!("{what}: there is no such session"));
        };
        let other_realm = session.realm != realm;
        let Some(call) = session.calls.get_mut(number as usize).filter(|_| !other_realm) else {
            return broken("integrity", format!("{what}: there is no such call"));
        };
        let named = if policy == MatchPolicy::Exact {
            procedure.is_none()
        } else {
            procedure == Some(call.procedure)
        };
        if !matches(policy, pattern, call.procedure) || !named {
            return broken("integrity", format!("{what}: procedure {procedure:?} by {pattern:?}"));
        }
        let manner = call.manner;
        if details.receive_progress != manner.receive_progress || details.progress != manner.in_parts {
            return broken("integrity", format!("{what}: {manner:?} became {details:?}"));
        }
        // Who is to be disclosed is; where the callee alone wants it, from the first call on that was made after REGISTERED.
        if details.passthru != seal(manner.is_sealed, content) {
            return broken("passthru", format!("{what}: {manner:?} became {details:?}"));
        }
        self.happened.sealed += u64::from(manner.is_sealed);
        let disclosed = details.caller.map(|caller| caller.0);
        let may_be = manner.disclose_me || wants_caller;
        let is_due = manner.disclose_me || wants_caller && since.is_some_and(|since| since < call.sent_at);
        if disclosed.is_some_and(|id| id != session.id || !may_be) || disclosed.is_none() && is_due {
            return broken("disclosure", format!("{what}: {manner:?} became {details:?}"));
        }
        self.happened.disclosed += u64::from(disclosed.is_some());
        if self.databases.has((caller, number)) {
            return broken("duplicate", format!("{what}: a database has it"));
        }
        self.check_precedence(caller, number, &what)?;
        let call = &mut self.sessions[caller].calls[number as usize];
        let before = call.invoked.replace((callee, index));
        if let Some((other, at)) = before {
            // Who registers once more offers once more.
            let Invocation { held, is_passed_on, .. } = self.sessions[other].invocations[at];
            let refused_by = &mut self.sessions[caller].calls[number as usize].refused_by;
            refused_by.push((other, held));
            if refused_by.contains(&(callee, place)) || !is_passed_on {
                return broken("duplicate", format!("{what}: it was invoked before, at {before:?}"));
            }
            self.happened.rerouted += 1;
        }
        self.happened.invocations += 1;
        Ok(Some(index))
    }

    /// More input of a call arrives at its callee.
    fn receive_part(
        &mut self,
        callee: usize,
        request: u64,
        details: &InvocationDetails<'_>,
        content: Content,
    ) -> Kept {
        let what = format!("INVOCATION {request} to session {callee}: {content:?}");
        let invocation = request.checked_sub(1);
        let invocations = &mut self.sessions[callee].invocations;
        let Some(invocation) = invocation.and_then(|at| invocations.get_mut(at as usize)) else {
            return broken("ids", format!("{what}: never invoked"));
        };
        let (caller, number) = (content.session as usize, content.number);
        if (caller, number) != (invocation.caller, invocation.number) || content.base_kind() != CALL {
            return broken("integrity", format!("{what}: to {invocation:?}"));
        }
        if content.part() != invocation.parts {
            return broken("O3", format!("{what}: after part {} of its call", invocation.parts - 1));
        }
        invocation.parts += 1;
        let is_last = content.part() + 1 == self.sessions[caller].calls[number as usize].parts
            && !self.sessions[caller].calls[number as usize].has_more;
        if is_last && details.progress {
            return broken("integrity", format!("{what}: the last part announces more"));
        }
        self.happened.parts += 1;
        Ok(())
    }

    /// RESULT with progress arrives at a caller.
    pub fn receive_progress(&mut self, caller: usize, number: u64, content: Option<Content>) -> Kept {
        let call = &mut self.sessions[caller].calls[number as usize];
        let what = format!("a part of the result ({content:?}) of call {number} of session {caller}");
        let Some(content) = content.filter(|content| content.base_kind() == RESULT) else {
            return broken("integrity", what);
        };
        if (content.session as usize, content.number) != (caller, number) || call.is_answered {
            return broken("integrity", format!("{what}: {call:?}"));
        }
        if !call.manner.receive_progress || content.part() != call.progress {
            return broken("progress", format!("{what}: {call:?}"));
        }
        call.progress += 1;
        self.happened.progress += 1;
        self.check_database_part((caller, number), content, &what)
    }

    fn call(&self, caller: usize, number: u64) -> Option<&Call> {
        self.sessions.get(caller)?.calls.get(number as usize)
    }

    /// R10: never more calls at a callee than it said. One that is cancelled, or whose caller left, counts no longer.
    fn check_crowd(&mut self, callee: usize, place: usize, concurrency: u64, what: &str) {
        if concurrency == 0 {
            return;
        }
        let is_running = |invocation: &&Invocation| {
            invocation.held == place
                && !invocation.is_answered
                && !invocation.is_interrupted
                && self.sessions.get(invocation.caller).is_some_and(|caller| {
                    let call = caller.calls.get(invocation.number as usize);
                    caller.end == End::Open
                        && call.is_some_and(|call| !call.is_answered && call.cancelled.is_none())
                })
        };
        let running = self.sessions[callee].invocations.iter().filter(is_running);
        let callers: Vec<usize> = running.map(|invocation| invocation.caller).collect();
        if callers.len() as u64 > concurrency {
            let text = format!("{what}: {} calls run there, and it takes {concurrency}", callers.len());
            self.crowded.push((concurrency, callers, text));
        }
    }

    /// When all is quiet: who had more calls than it said had some of callers that the router had closed.
    pub fn check_crowded(&self) -> Kept {
        let is_there = |caller: &&usize| self.sessions[**caller].end != End::Lost;
        let broke = |(concurrency, callers, _): &&(u64, Vec<usize>, String)| {
            callers.iter().filter(is_there).count() as u64 > *concurrency
        };
        match self.crowded.iter().find(broke) {
            Some((_, _, text)) => broken("R10", text.clone()),
            None => Ok(()),
        }
    }

    /// Whether a call that is not answered waits for a callee, as far as anybody knows.
    pub fn waits(&self, call: &Call) -> bool {
        let runs = call.invoked.is_some_and(|(callee, index)| {
            let callee = &self.sessions[callee];
            callee.end == End::Open && !callee.invocations[index].is_answered
        });
        call.may_wait && !runs && call.cancelled.is_none()
    }

    /// INTERRUPT arrives at a callee.
    pub fn receive_interrupt(&mut self, callee: usize, request: u64) -> Result<bool, Violation> {
        let session = &mut self.sessions[callee];
        let invocation = request.checked_sub(1).and_then(|at| session.invocations.get_mut(at as usize));
        let Some(invocation) = invocation else {
            return broken("ids", format!("INTERRUPT {request} to session {callee}: never invoked"));
        };
        if !session.can_be_interrupted || std::mem::replace(&mut invocation.is_interrupted, true) {
            return broken(
                "duplicate",
                format!("INTERRUPT {request} to session {callee}: twice, or not wanted"),
            );
        }
        self.happened.interrupts += 1;
        Ok(!invocation.is_answered)
    }

    /// RESULT or ERROR arrives at a caller.
    pub fn receive_answer(
        &mut self,
        caller: usize,
        number: u64,
        error: Option<&str>,
        content: Option<Content>,
    ) -> Kept {
        let what = format!("the answer ({error:?}) to call {number} of session {caller}");
        let call = &mut self.sessions[caller].calls[number as usize];
        if std::mem::replace(&mut call.is_answered, true) {
            return broken("answer", format!("{what}: the second one"));
        }
        call.is_refused = error == Some(uri::UNAVAILABLE);
        if let Some(kept) = self.receive_database_answer((caller, number), error, content, &what) {
            return kept;
        }
        let call = &self.sessions[caller].calls[number as usize];
        let by_callee = match error {
            None => Some(RESULT),
            Some("app.error.refused") => Some(ERROR),
            Some(_) => None,
        };
        if let Some(kind) = by_callee {
            self.happened.results += 1;
            if kind == ERROR && content.is_none() && self.may_refuse {
                return Ok(());
            }
            let Some(content) = content.filter(|content| content.base_kind() == kind) else {
                return broken("integrity", format!("{what}: {content:?}"));
            };
            // A callee that is interrupted in mode kill has the last word only.
            if content.part() != call.progress && call.cancelled.is_none() {
                return broken("progress", format!("{what}: {content:?} after {} parts", call.progress));
            }
            if (content.session as usize, content.number) != (caller, number) || call.invoked.is_none() {
                return broken("integrity", format!("{what}: {content:?}"));
            }
            return Ok(());
        }
        self.happened.errors += 1;
        // Its callee may have sealed what it cannot open.
        let call = &self.sessions[caller].calls[number as usize];
        let cannot_open = !self.sessions[caller].can_seal
            && call.invoked.is_some_and(|(callee, index)| self.sessions[callee].invocations[index].is_sealed);
        match error {
            Some(uri::CANCELED | uri::NO_AVAILABLE_CALLEE | uri::UNAVAILABLE) => Ok(()),
            Some(uri::TIMEOUT) if call.manner.timeout_ms > 0 => {
                self.happened.timeouts += 1;
                Ok(())
            }
            Some(uri::FEATURE_NOT_SUPPORTED)
                if call.manner.in_parts || call.manner.is_sealed || cannot_open =>
            {
                Ok(())
            }
            Some(uri::NO_SUCH_PROCEDURE) => {
                self.note_missed_callees(caller, number, &what);
                self.check_precedence(caller, number, &what)
            }
            _ => broken("answer", what),
        }
    }

    /// O6: a call that was made after REGISTERED finds the procedure, as long as it is registered.
    fn note_missed_callees(&mut self, caller: usize, number: u64, what: &str) {
        let call = &self.sessions[caller].calls[number as usize];
        let realm = self.sessions[caller].realm;
        let serves = |held: &Registration| {
            held.since.is_some_and(|since| since < call.sent_at)
                && !held.is_ending
                && matches(held.policy, held.pattern, call.procedure)
        };
        let missed = self.sessions.iter().enumerate().filter_map(|(callee, session)| {
            let is_here = session.end == End::Open && session.realm == realm;
            Some((callee, session.registrations.iter().position(serves).filter(|_| is_here)?))
        });
        let noted = missed.map(|(callee, place)| {
            (callee, place, format!("{what}: session {callee} had registered {}", call.procedure))
        });
        self.missed_callees.extend(noted.collect::<Vec<_>>());
    }

    /// When all is quiet: whoever was not found was not there.
    pub fn check_missed_callees(&self) -> Kept {
        let was_there = |(callee, place, _): &&(usize, usize, String)| {
            let session = &self.sessions[*callee];
            session.end != End::Lost && !session.registrations[*place].is_revoked
        };
        match self.missed_callees.iter().find(was_there) {
            Some((callee, _, text)) => broken("O6", format!("{text} ({:?})", self.sessions[*callee].end)),
            None => Ok(()),
        }
    }

    /// When all is quiet: every subscription got what it should, no more and no less (O1, O5).
    pub fn check_events(&mut self) -> Result<u64, Violation> {
        self.check_meta_events()?;
        self.check_kills()?;
        self.check_testaments()?;
        self.check_watchers()?;
        self.check_kept()?;
        self.check_databases()?;
        let mut missing = 0;
        for subscriber in 0..self.sessions.len() {
            for place in 0..self.sessions[subscriber].subscriptions.len() {
                for publisher in 0..self.sessions.len() {
                    missing += self.check_pair(subscriber, place, publisher)?;
                }
            }
        }
        Ok(missing)
    }

    fn check_pair(&self, subscriber: usize, place: usize, publisher: usize) -> Result<u64, Violation> {
        let (to, from) = (&self.sessions[subscriber], &self.sessions[publisher]);
        let held = &to.subscriptions[place];
        let Some(since) = held.since else { return Ok(0) };
        if to.realm != from.realm {
            return Ok(0);
        }
        // Which node gets it is another matter.
        let is_shared = |publication: &Publication| held.nkey.is_some() && publication.rkey.is_some();
        let meant = |(_, publication): &(usize, &Publication)| {
            matches(held.policy, held.pattern, publication.topic)
                && !publication.exclude.contains(&to.id)
                && !(publication.exclude_me && publisher == subscriber)
        };
        let meant: Vec<(usize, &Publication)> =
            from.publications.iter().enumerate().filter(meant).filter(|(_, it)| !is_shared(it)).collect();
        let mut got = held.events.get(&publisher).cloned().unwrap_or_default();
        got.retain(|number| !is_shared(&from.publications[*number as usize]));
        // O5: from the first one on that was sent after SUBSCRIBED had come.
        let due = meant.iter().position(|(_, publication)| publication.sent_at > since);
        let (first, last) = match (got.first(), got.last()) {
            (Some(first), Some(last)) => (*first as usize, *last as usize),
            _ => (usize::MAX, 0),
        };
        let is_settled = matches!(from.end, End::Open | End::Left);
        let stays = to.end == End::Open && !held.is_ending && !held.is_over;
        let place_of = |number: usize| meant.iter().position(|(at, _)| *at == number);
        let begin = match (place_of(first), due) {
            (Some(begin), due) => due.map_or(begin, |due| begin.min(due)),
            (None, Some(due)) if stays && is_settled => due,
            (None, _) => return Ok(0),
        };
        let end =
            if stays && is_settled { meant.len() } else { place_of(last).map_or(begin, |last| last + 1) };
        let expected: Vec<u64> = meant[begin..end].iter().map(|(at, _)| *at as u64).collect();
        if expected == got {
            return Ok(0);
        }
        if self.may_drop {
            return Ok((expected.len() - got.len()) as u64);
        }
        let missing: Vec<_> = expected.iter().filter(|number| !got.contains(number)).collect();
        broken(
            "loss",
            format!(
                "session {subscriber} misses events {missing:?} of session {publisher} by {:?} {:?}: it got {got:?} \
                 of {meant:?}; they are {:?} and {:?}",
                held.policy, held.pattern, to.end, from.end
            ),
        )
    }

    /// When all is quiet: each call that is not answered runs somewhere, and nothing runs that nobody waits for (R4).
    pub fn check_calls(&self) -> Kept {
        for (number, session) in self.sessions.iter().enumerate() {
            if session.end != End::Open {
                continue;
            }
            self.check_calls_of(number, session)?;
            self.check_invocations_of(number, session)?;
        }
        Ok(())
    }

    fn check_calls_of(&self, caller: usize, session: &Session) -> Kept {
        for (number, call) in session.calls.iter().enumerate().filter(|(_, call)| !call.is_answered) {
            let runs = call.invoked.is_some_and(|(callee, index)| {
                let callee = &self.sessions[callee];
                callee.end == End::Open && !callee.invocations[index].is_answered
            });
            let runs = runs || self.databases.runs((caller, number as u64));
            let missing = call
                .invoked
                .map_or(0, |(callee, index)| call.parts - self.sessions[callee].invocations[index].parts);
            let unheard = call.invoked.map_or(0, |(callee, index)| {
                self.sessions[callee].invocations[index].progress - call.progress
            });
            if runs && missing + unheard > 0 {
                let text = format!("call {number} of session {caller}: {missing} parts were lost: {call:?}");
                return broken("loss", text);
            }
            if (!runs || call.cancelled.is_some()) && !self.waits(call) {
                let text = format!("call {number} of session {caller} will never be answered: {call:?}");
                return broken("answer", text);
            }
        }
        Ok(())
    }

    fn check_invocations_of(&self, callee: usize, session: &Session) -> Kept {
        for (index, invocation) in session.invocations.iter().enumerate() {
            if invocation.is_answered || invocation.is_interrupted || !session.can_be_interrupted {
                continue;
            }
            let caller = &self.sessions[invocation.caller];
            let call = &caller.calls[invocation.number as usize];
            let is_wanted = caller.end == End::Open && !call.is_answered;
            if !is_wanted && call.cancelled != Some(CancelMode::Skip) {
                let text = format!(
                    "invocation {} of session {callee} was never interrupted, and session {} no longer waits: {call:?}",
                    index + 1,
                    invocation.caller
                );
                return broken("interrupt", text);
            }
        }
        Ok(())
    }
}

fn expect_content(content: Option<Content>, kind: u64) -> Result<Content, Violation> {
    match content {
        Some(content) if content.kind == kind => Ok(content),
        other => broken("integrity", format!("a payload of kind {kind} came out as {other:?}")),
    }
}
