//! Databases: each call is answered once, by what the database said or for a reason that is allowed; procedures are where they
//! are offered (R7); events come in the order of their positions, and to who resumes without a gap.

use std::collections::{BTreeMap, BTreeSet};

use crosspoint::wamp::MatchPolicy;
use crosspoint::wamp::error::uri;
use crosspoint::wamp::message::Event;
use crosspoint::wamp::options::CancelMode;

use super::{Content, End, History, Kept, Registration, Subscription, broken};
use crate::content::{DATABASE, ERROR, RESULT};
use crate::database::{
    CallKey, Database, Dispatched, Ended, OWN, Published, Record, Report, Shared, Started, lock,
};

/// What a subscription has to do with databases.
#[derive(Debug, Default)]
pub struct OfDatabases {
    /// It resumes: the database, and the position.
    pub after: Option<(usize, u64)>,
    /// What came of each.
    pub heard: BTreeMap<usize, Heard>,
    /// The router took it back, for what it had not read is kept no more.
    pub is_revoked: bool,
}

/// Events of one database that came by one subscription.
#[derive(Debug, Default)]
pub struct Heard {
    last: u64,
    positions: BTreeSet<u64>,
    /// Batches that came once more, by number.
    again: BTreeSet<usize>,
}

/// What the databases of a run have to do with its sessions.
#[derive(Debug, Default)]
pub struct Databases {
    pub all: Vec<Shared>,
    /// Who had to have had something by the time that it had read so much: a subscriber, the place of its subscription, its
    /// wire, how much, the database and the position.
    due: Vec<Due>,
    /// What seems wrong, unless it turns out that a session was gone.
    suspects: Vec<Suspect>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    subscriber: usize,
    place: usize,
    wire: usize,
    bytes: u64,
    database: usize,
    position: u64,
}

#[derive(Debug)]
struct Suspect {
    promise: &'static str,
    session: usize,
    /// A registration that must not have been taken from it.
    registration: Option<usize>,
    text: String,
}

impl Heard {
    /// The position of the last one.
    pub fn last(&self) -> u64 {
        self.last
    }
}

impl OfDatabases {
    /// The position behind which the next is due, for one that resumes or has begun.
    fn due_behind(&self, database: usize) -> Option<u64> {
        let resumed = self.after.filter(|(of, _)| *of == database).map(|(_, after)| after);
        self.heard.get(&database).map(|heard| heard.last).or(resumed)
    }
}

impl Databases {
    /// What became of a call that some database was given.
    fn with_record<T>(&self, call: CallKey, read: impl FnOnce(&Record) -> T) -> Option<T> {
        let database = self.all.iter().find(|database| lock(database).records.contains_key(&call))?;
        lock(database).records.get(&call).map(read)
    }

    /// Whether a call waits or runs there.
    pub fn runs(&self, call: CallKey) -> bool {
        self.with_record(call, |record| record.ended.is_none()).unwrap_or(false)
    }

    /// How many calls of a session that are not answered run there; of one that is cancelled nobody hears any more.
    pub fn running_for(&self, session: usize, is_open: impl Fn(u64) -> bool) -> usize {
        let of_session = |database: &Shared| {
            lock(database).calls().filter(|call| call.0 == session && is_open(call.1)).count()
        };
        self.all.iter().map(of_session).sum()
    }

    /// Whether it was given to one.
    pub fn has(&self, call: CallKey) -> bool {
        self.with_record(call, |_| ()).is_some()
    }
}

impl History {
    /// A core has given a query to a database.
    pub fn receive_query(&mut self, database: usize, started: &Started) -> Kept {
        let (caller, number) = started.call;
        let what =
            format!("database {database} runs {} for call {number} of session {caller}", started.procedure);
        let session = self.sessions.get(caller).filter(|session| session.realm == 0);
        let call = session.and_then(|session| Some((session, session.calls.get(number as usize)?)));
        let Some((session, call)) = call else { return broken("integrity", what) };
        let (wanted_ms, procedure_ms) = (call.manner.timeout_ms, started.procedure_timeout_ms);
        let timeout_ms = match (wanted_ms, procedure_ms) {
            (0, other) | (other, 0) => other,
            (one, other) => one.min(other),
        };
        let is_right = *call.procedure == *started.procedure
            && session.id == started.session
            && call.manner.receive_progress == started.receive_progress
            && timeout_ms == started.timeout_ms
            && !call.manner.in_parts
            && !call.manner.is_sealed;
        if !is_right {
            return broken("integrity", format!("{what}: {call:?} became {started:?}"));
        }
        let was_passed_on = |(callee, at): (usize, usize)| self.sessions[callee].invocations[at].is_passed_on;
        if call.is_answered || call.invoked.is_some_and(|it| !was_passed_on(it)) {
            return broken("duplicate", format!("{what}: {call:?}"));
        }
        let mut elsewhere = self.databases.all.iter().enumerate().filter(|(other, _)| *other != database);
        if elsewhere.any(|(_, other)| lock(other).records.contains_key(&started.call)) {
            return broken("duplicate", format!("{what}, and so does another"));
        }
        // A client's own registration stands above it, for calls that were made behind REGISTERED.
        let sent_at = call.sent_at;
        for (place, callee) in self.sessions.iter().enumerate().filter(|(_, it)| it.realm == 0) {
            let is_it = |held: &Registration| {
                (held.policy, held.pattern) == (MatchPolicy::Exact, &*started.procedure)
                    && held.since.is_some_and(|since| since < sent_at)
                    && !held.is_ending
                    && !held.is_over
            };
            if let Some(held) =
                callee.registrations.iter().position(is_it).filter(|_| callee.end == End::Open)
            {
                let text = format!("{what}: session {place} had registered it");
                let suspect = Suspect { promise: "R7", session: place, registration: Some(held), text };
                self.databases.suspects.push(suspect);
            }
        }
        self.happened.queries += 1;
        Ok(())
    }

    /// R7: what only a database offers, and did all the while since a call was made, is found there.
    pub(super) fn check_precedence(&self, caller: usize, number: u64, what: &str) -> Kept {
        let session = &self.sessions[caller];
        let call = &session.calls[number as usize];
        if session.realm != 0 || !OWN.contains(&call.procedure) {
            return Ok(());
        }
        let since =
            self.databases.all.iter().find_map(|database| lock(database).offered_since(call.procedure));
        match since {
            Some(since) if since < call.sent_at => {
                broken("R7", format!("{what}: a database offers {} since {since}", call.procedure))
            }
            _ => Ok(()),
        }
    }

    /// RESULT or ERROR arrives at the caller of a procedure of a database. `None` where it was not given to one.
    pub(super) fn receive_database_answer(
        &mut self,
        (caller, number): CallKey,
        error: Option<&str>,
        content: Option<Content>,
        what: &str,
    ) -> Option<Kept> {
        let said = self.databases.with_record((caller, number), |record| (record.ended, record.parts.len()));
        let (ended, parts) = said?;
        let call = &self.sessions[caller].calls[number as usize];
        let is_cancelled = call.cancelled.is_some();
        let is_as_said = |kind: u64| {
            let is_whole = content.is_some_and(|content| {
                content.base_kind() == kind
                    && (content.session as usize, content.number) == (caller, number)
                    && content.part() == parts as u64
            });
            // What does not fit is left out of an ERROR.
            (is_whole || kind == ERROR && content.is_none() && self.may_refuse)
                && (call.progress == parts as u64 || is_cancelled)
        };
        let is_right = match error {
            None => ended == Some(Ended::Result) && is_as_said(RESULT),
            Some("app.error.refused") => ended == Some(Ended::Error) && is_as_said(ERROR),
            Some(uri::CANCELED) => is_cancelled,
            Some(uri::TIMEOUT) => call.manner.timeout_ms > 0 || ended == Some(Ended::TimedOut),
            Some(uri::UNAVAILABLE) => ended == Some(Ended::Unavailable) || self.may_refuse,
            Some(_) => false,
        };
        self.happened.query_answers += 1;
        Some(if is_right {
            Ok(())
        } else {
            broken(
                "answer",
                format!("{what}: {content:?}, and the database said {ended:?} after {parts} parts: {call:?}"),
            )
        })
    }

    /// A part of a result that a database has said.
    pub(super) fn check_database_part(&self, call: CallKey, content: Content, what: &str) -> Kept {
        let length =
            self.databases.with_record(call, |record| record.parts.get(content.part() as usize).copied());
        match length {
            Some(length) if length != Some(content.padding) => {
                broken("integrity", format!("{what}: the database did not say that"))
            }
            _ => Ok(()),
        }
    }

    /// How much of results in parts a database has said that a session has not read, in bytes, and how long the longest of
    /// these parts are, one of each call and one more.
    pub fn unread_parts(&self, session: usize) -> (usize, usize) {
        let (mut bytes, mut longest, mut all) = (0, 0, 0);
        for database in &self.databases.all {
            let database = lock(database);
            for (caller, number) in database.calls_in_parts().filter(|call| call.0 == session) {
                let call = &self.sessions[caller].calls[number as usize];
                if call.cancelled.is_none() && !call.is_answered {
                    let parts = &database.records[&(caller, number)].parts[call.progress as usize..];
                    bytes += parts.iter().sum::<usize>();
                    let of_call = parts.iter().max().copied().unwrap_or_default();
                    (longest, all) = (longest.max(of_call), all + of_call);
                }
            }
        }
        (bytes, all + longest)
    }

    /// EVENT arrives that a database published.
    pub fn receive_database_event(&mut self, subscriber: usize, event: &Event<'_>, content: Content) -> Kept {
        let (index, position) = (content.session as usize, content.number);
        let what = format!("event {position} of database {index} to session {subscriber}");
        let Some(shared) = self.databases.all.get(index).cloned() else { return broken("integrity", what) };
        let database = lock(&shared);
        let session = &mut self.sessions[subscriber];
        let details = &event.details;
        let is_bare = details.publisher.is_none() && !details.passthru.is_used();
        let published = database.at(position);
        let Some(published) = published.filter(|it| it.padding == content.padding && is_bare) else {
            return broken("integrity", format!("{what}: {details:?}"));
        };
        if details.event_id != position {
            return broken("integrity", format!("{what}: {details:?}"));
        }
        let id = event.subscription.0;
        let place = session.subscriptions.iter().rposition(|held| held.since.is_some() && held.id == id);
        let Some(place) = place.filter(|place| !session.subscriptions[*place].is_over) else {
            return broken("O2", format!("{what}: without a subscription"));
        };
        let held = &mut session.subscriptions[place];
        let named = if held.policy == MatchPolicy::Exact { None } else { Some(published.topic) };
        let is_for = published.is_for(session.id, held.policy, held.pattern) && session.realm == 0;
        if !is_for || details.topic.as_deref() != named {
            return broken("audience", format!("{what}: {published:?} by {:?}", held.pattern));
        }
        session.events_lost += u64::from(details.lost);
        self.happened.events_lost += u64::from(details.lost);
        if details.retained {
            if !published.is_retained || !held.wants_retained {
                return broken("retention", format!("{what}: it was not to be retained, or nobody asked"));
            }
            self.happened.retained += 1;
            return Ok(());
        }
        let problem = held.hear((&*database, index), session.id, position, self.may_drop);
        self.happened.database_events += 1;
        let resumes = held.of_databases.after.is_some_and(|(of, _)| of == index);
        self.happened.resumed_events += u64::from(resumes);
        match problem {
            Some((promise, why)) => {
                let after = held.of_databases.after;
                broken(if resumes { "resume" } else { promise }, format!("{what}: {why}; after {after:?}"))
            }
            None => Ok(()),
        }
    }

    /// UNSUBSCRIBED arrives without having been asked for: what a subscriber had not read is kept no more.
    pub fn receive_subscription_loss(&mut self, subscriber: usize, id: u64, reason: Option<&str>) -> Kept {
        let session = &mut self.sessions[subscriber];
        let held = session.subscriptions.iter_mut().rfind(|held| held.id == id && !held.is_over);
        let Some(held) = held.filter(|held| held.since.is_some() && reason == Some(uri::EVENTS_NOT_KEPT))
        else {
            return broken(
                "answer",
                format!("subscription {id} of session {subscriber} was revoked: {reason:?}"),
            );
        };
        (held.is_ending, held.is_over, held.of_databases.is_revoked) = (true, true, true);
        self.happened.resumptions_lost += 1;
        if !is_behind(&self.databases.all, held) {
            return broken("resume", format!("session {subscriber} lost what is kept: {held:?}"));
        }
        Ok(())
    }

    /// Whether a session may be closed because what it had not read is kept no more.
    pub fn may_be_behind(&self, subscriber: usize) -> bool {
        let mut held = self.sessions[subscriber].subscriptions.iter().filter(|held| held.since.is_some());
        held.any(|held| is_behind(&self.databases.all, held))
    }

    /// Whether an ERROR may be the answer to who resumes.
    pub fn may_not_resume(&self, subscriber: usize, place: usize, error: &str) -> bool {
        let held = &self.sessions[subscriber].subscriptions[place];
        let Some((database, after)) = held.of_databases.after else { return false };
        let database = lock(&self.databases.all[database]);
        match error {
            uri::EVENTS_NOT_KEPT => after < database.forgotten(),
            uri::UNAVAILABLE => database.has_refused_replays(),
            uri::LIMIT_REACHED => true,
            _ => false,
        }
    }

    /// A batch was said to have been offered to everybody: `wires` are those of sessions.
    pub fn receive_report(&mut self, index: usize, report: &Report, wires: &[(usize, usize)]) {
        let shared = self.databases.all[index].clone();
        let database = lock(&shared);
        let batch = &database.batches()[report.batch];
        let Some(taken_at) = batch.taken_at.filter(|_| !batch.is_again && !self.may_drop) else { return };
        let events = database.of_batch(batch);
        for &(subscriber, wire) in wires {
            let session = &self.sessions[subscriber];
            let Some(sent) = report.sent.get(wire).filter(|sent| !sent.is_refused) else { continue };
            if session.end != End::Open || session.realm != 0 {
                continue;
            }
            for (place, held) in session.subscriptions.iter().enumerate() {
                let is_there = held.since.is_some_and(|since| since < taken_at)
                    && !held.is_ending
                    && !held.is_over
                    && held.of_databases.after.is_none();
                let is_for = |it: &&Published| it.is_for(session.id, held.policy, held.pattern);
                if let Some(last) = events.iter().rev().find(is_for).filter(|_| is_there) {
                    let (bytes, position) = (sent.bytes, last.position);
                    let due = Due { subscriber, place, wire, bytes, database: index, position };
                    self.databases.due.push(due);
                }
            }
        }
    }

    /// A session has read so much of a wire: what was offered to it by then has come (R8).
    pub fn check_offered(&mut self, wire: usize, read_bytes: u64) {
        let Databases { due, suspects, .. } = &mut self.databases;
        let sessions = &self.sessions;
        due.retain(|due| {
            if due.wire != wire || due.bytes > read_bytes {
                return true;
            }
            let session = &sessions[due.subscriber];
            let heard = session.subscriptions[due.place].of_databases.heard.get(&due.database);
            if session.end != End::Lost && !heard.is_some_and(|heard| heard.positions.contains(&due.position))
            {
                let text = format!("it was not offered what a database was told was: {due:?}");
                suspects.push(Suspect { promise: "R8", session: due.subscriber, registration: None, text });
            }
            false
        });
    }

    /// When all is quiet: what seemed wrong was, if who was concerned was there.
    pub fn check_databases(&self) -> Kept {
        for Suspect { promise, session, registration, text } in &self.databases.suspects {
            let session = &self.sessions[*session];
            let is_revoked = registration.is_some_and(|place| session.registrations[place].is_revoked);
            if session.end != End::Lost && !is_revoked {
                return broken(promise, text.clone());
            }
        }
        for (index, shared) in self.databases.all.iter().enumerate() {
            let database = lock(shared);
            self.check_runs(index, &database)?;
            if self.may_drop {
                continue;
            }
            for (subscriber, session) in self.sessions.iter().enumerate() {
                if session.end != End::Open || session.realm != 0 {
                    continue;
                }
                for held in session.subscriptions.iter().filter(|held| !held.is_ending && !held.is_over) {
                    if let Some((promise, text)) = held.misses((&*database, index), session.id) {
                        return broken(
                            promise,
                            format!("session {subscriber} by {:?}: {text}", held.pattern),
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// R4: what runs is waited for, or its caller has said that it does not matter.
    fn check_runs(&self, index: usize, database: &Database) -> Kept {
        for call in database.calls() {
            let (caller, number) = call;
            let session = &self.sessions[caller];
            let it = &session.calls[number as usize];
            let is_wanted = session.end == End::Open && !it.is_answered;
            // In mode skip it goes on by itself, and whether its caller is still there does not matter to it.
            let goes_on = it.cancelled == Some(CancelMode::Skip);
            if !is_wanted && !goes_on && !database.is_cancelled(call) {
                let end = session.end;
                let text =
                    format!("database {index} runs call {number} of session {caller}, {end:?}: {it:?}");
                return broken("interrupt", text);
            }
        }
        Ok(())
    }

    /// What clients have registered as it is: databases that offer it do not have it.
    pub fn shadows(&self) -> BTreeSet<&'static str> {
        let open = self.sessions.iter().filter(|session| session.end == End::Open && session.realm == 0);
        let held = open.flat_map(|session| &session.registrations);
        let exact = held.filter(|held| !held.is_over && held.policy == MatchPolicy::Exact);
        exact.map(|held| held.pattern).collect()
    }
}

/// Whether what a subscriber that resumes has not had is kept no more.
fn is_behind(all: &[Shared], held: &Subscription) -> bool {
    let Some((database, _)) = held.of_databases.after else { return false };
    let from = held.of_databases.due_behind(database);
    from.is_some_and(|from| from < lock(&all[database]).forgotten())
}

impl Subscription {
    /// An event comes; what is wrong with that.
    fn hear(
        &mut self,
        (database, index): (&Database, usize),
        session: u64,
        position: u64,
        may_drop: bool,
    ) -> Option<(&'static str, String)> {
        let (policy, pattern, since) = (self.policy, self.pattern, self.since.unwrap_or_default());
        let from = self.of_databases.due_behind(index);
        let heard = self.of_databases.heard.entry(index).or_default();
        heard.positions.insert(position);
        heard.last = position;
        let Some(from) = from else {
            // From the first one on that was dispatched behind SUBSCRIBED.
            let (at, due) = first_due(database, session, since, (policy, pattern))?;
            let earlier = &database.batches()[..at];
            let was_before = earlier.iter().any(|batch| contains(database, batch, position));
            let is_late = position > due && !was_before && !may_drop;
            return is_late.then(|| ("loss", format!("the first that was due is {due}")));
        };
        let expected = database.next_for(from, session, policy, pattern);
        if expected == Some(position) || position > from && may_drop {
            return None;
        }
        if position > from {
            return Some(("loss", format!("{expected:?} was to come behind {from}")));
        }
        // A database that was lost before it was told that a batch was offered has it offered once more.
        let again = database.batches().iter().enumerate().find(|(number, batch)| {
            let events = database.of_batch(batch);
            let mut meant = events.iter().filter(|it| it.is_for(session, policy, pattern));
            let is_first = if may_drop {
                meant.any(|it| it.position == position)
            } else {
                meant.next().is_some_and(|it| it.position == position)
            };
            batch.is_again && batch.taken_at.is_some() && is_first && !heard.again.contains(number)
        });
        match again {
            Some((number, _)) => {
                heard.again.insert(number);
                None
            }
            None => Some(("duplicate", format!("{expected:?} was to come behind {from}"))),
        }
    }

    /// What it has not had although all is quiet.
    fn misses(&self, (database, index): (&Database, usize), session: u64) -> Option<(&'static str, String)> {
        let (since, of) = (self.since?, (self.policy, self.pattern));
        let resumes = self.of_databases.after.is_some_and(|(of, _)| of == index);
        let next = match self.of_databases.due_behind(index) {
            Some(from) => database.next_for(from, session, of.0, of.1),
            None => first_due(database, session, since, of).map(|(_, due)| due),
        };
        let promise = if resumes { "resume" } else { "loss" };
        next.map(|next| {
            (promise, format!("event {next} of database {index} never came: {:?}", self.of_databases))
        })
    }
}

fn contains(database: &Database, batch: &Dispatched, position: u64) -> bool {
    database.of_batch(batch).iter().any(|it| it.position == position)
}

/// The first event for a subscriber that was dispatched behind its SUBSCRIBED, and the number of its batch.
fn first_due(
    database: &Database,
    session: u64,
    since: u64,
    (policy, pattern): (MatchPolicy, &str),
) -> Option<(usize, u64)> {
    let behind = database.batches().iter().enumerate();
    behind.filter(|(_, batch)| batch.taken_at.is_some_and(|at| at > since)).find_map(|(number, batch)| {
        let events = database.of_batch(batch);
        let first = events.iter().find(|it| it.is_for(session, policy, pattern));
        first.map(|first| (number, first.position))
    })
}

/// What databases publish is of this kind.
pub fn is_of_database(content: Option<Content>) -> Option<Content> {
    content.filter(|content| content.kind == DATABASE)
}
