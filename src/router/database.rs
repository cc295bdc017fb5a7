//! Procedures of databases (R7): which there are, and the calls of them that are under way.
//!
//! Home is the sequencer: it decides which URIs belong to a database and tells all cores (`dealer/offered.rs`). A call runs
//! from its caller's core, without home; its database's threads answer that core.

mod publications;
mod resuming;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Router;
use super::effects::{CreditTime, Effects};
use super::fault::Fault;
use super::peer::{
    CallHead, Charge, CoreId, Letter, Outcome, Parcel, PeerMessage, RealmIndex, ReplyHead, SessionKey,
    Sitting,
};
use super::terms::Input;
use crate::wamp::codec::{OwnedPayload, Serializer};
use crate::wamp::error::uri;
use crate::wamp::options::{CancelMode, Passthru};
use crate::wamp::{Payload, RequestId, SessionId};

pub use self::publications::{
    DatabaseBatch, DatabasePublication, Receivers, batch_of_key, check_publication, key_of_batch,
};

pub use self::resuming::{NotReplayed, REPLAYS_UNDER_WAY_MAX, Replay, ReplayNumber, Replayed};
pub(super) use self::resuming::{Passage, Refused, Resumptions};

/// A database: its place in the configuration, the same on every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseIndex(pub u16);

/// A database whose events a realm gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// Which realm.
    pub realm: RealmIndex,
    /// Which database.
    pub database: DatabaseIndex,
    /// What it is called in the configuration.
    pub name: Box<str>,
}

/// A call that a database runs: a number of the core it was made on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryNumber(pub u64);

/// A procedure that a database offers.
#[derive(Clone)]
pub struct Procedure {
    /// Where it is called.
    pub uri: Box<str>,
    /// What its driver has to know of it.
    pub driver: Arc<dyn Any + Send + Sync>,
    /// How long a call of it may take unless the caller wants less, in milliseconds; 0 is no limit.
    pub timeout_ms: u64,
    /// How many calls of it run at a time, in the order in which they came; 0 is as many as there are connections.
    pub concurrency: u32,
}

impl fmt::Debug for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Procedure").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Who calls a procedure of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Caller {
    pub session: SessionId,
    pub authid: Box<str>,
    pub authrole: Box<str>,
    pub authmethod: &'static str,
    pub authprovider: &'static str,
    /// What vouches for it says beside, the claims of a token for one: a map in JSON, or empty.
    pub authextra: Box<str>,
}

impl Caller {
    /// How it logged in: a map in JSON.
    #[must_use]
    pub fn details(&self) -> String {
        let extra = if self.authextra.is_empty() { "{}" } else { &self.authextra };
        let (method, provider) = (self.authmethod, self.authprovider);
        // Both are words of our own, without anything to escape.
        format!(r#"{{"authmethod":"{method}","authprovider":"{provider}","authextra":{extra}}}"#)
    }
}

/// A call on its way to a database.
#[derive(Clone, Debug)]
pub struct Query {
    /// What its events bear.
    pub number: QueryNumber,
    /// Whose procedure it is.
    pub database: DatabaseIndex,
    /// What is called.
    pub procedure: Arc<Procedure>,
    /// Its arguments.
    pub payload: OwnedPayload,
    /// What its results are to be written in.
    pub serializer: Serializer,
    /// How long it may take, in milliseconds; 0 is no limit.
    pub timeout_ms: u64,
    /// The caller takes progressive results.
    pub receive_progress: bool,
    /// For whom it runs.
    pub caller: Caller,
}

/// What a database says to a core.
#[derive(Clone, Debug)]
pub enum DatabaseEvent {
    /// A part of a result. No other comes before [`Effects::query_more`].
    Part(QueryNumber, OwnedPayload),
    /// The result: the last that is heard of a query.
    Done(QueryNumber, OwnedPayload),
    /// An error: the last that is heard of a query.
    Failed(QueryNumber, Box<str>, OwnedPayload),
    /// What a database publishes. The next comes when the charges of this one have been given back.
    Publish(DatabaseBatch),
    /// What it published before; or that it cannot say. The one answer to [`Effects::replay`].
    Replayed(ReplayNumber, Result<Replayed, NotReplayed>),
    /// All procedures that a database offers a realm.
    Offer(RealmIndex, DatabaseIndex, Arc<[Arc<Procedure>]>),
}

/// The procedures of one database, as home tells all cores of them.
#[derive(Clone, Debug)]
pub struct Catalogue {
    pub(super) realm: RealmIndex,
    pub(super) database: DatabaseIndex,
    /// Counts the catalogues of this database.
    pub(super) version: u64,
    pub(super) procedures: Vec<Arc<Procedure>>,
}

impl Catalogue {
    /// What it holds of a ring, in bytes: its procedures are shared.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.procedures)
    }
}

/// What of its databases a realm can call, alike on every core.
#[derive(Debug)]
pub(super) struct Callable {
    /// Ends with the catalogue that it is no more in.
    by_uri: HashMap<Box<str>, (DatabaseIndex, Arc<Procedure>), FixedState>,
}

impl Callable {
    pub(super) fn new(seed: u64) -> Self {
        Self { by_uri: HashMap::with_hasher(FixedState::with_seed(seed)) }
    }

    /// Whose procedure a URI is. Realms without databases pay one look at a number.
    #[inline]
    pub(super) fn get(&self, procedure: &str) -> Option<&(DatabaseIndex, Arc<Procedure>)> {
        if self.by_uri.is_empty() {
            return None;
        }
        self.by_uri.get(procedure)
    }

    pub(super) fn len(&self) -> usize {
        self.by_uri.len()
    }

    fn replace(&mut self, catalogue: &Catalogue) {
        self.by_uri.retain(|_, (database, _)| *database != catalogue.database);
        for procedure in &catalogue.procedures {
            self.by_uri.insert(procedure.uri.clone(), (catalogue.database, Arc::clone(procedure)));
        }
        self.by_uri.shrink_to_fit();
    }
}

/// A query that has not ended.
#[derive(Debug)]
struct Running {
    database: DatabaseIndex,
    caller: Sitting,
    request: RequestId,
}

/// The queries of a core.
#[derive(Debug)]
pub(super) struct Queries {
    /// Ends with the one last event of each, whatever became of its call.
    running: HashMap<QueryNumber, Running, FixedState>,
    /// The same, by their callers' calls.
    by_call: BTreeMap<(Sitting, RequestId), QueryNumber>,
    last: QueryNumber,
    /// Those whose caller has no room for another part; looked at once a turn, and no more than databases have
    /// connections. Ends with the query.
    starved: Vec<QueryNumber>,
}

impl Queries {
    pub(super) fn new(seed: u64) -> Self {
        let running = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { running, by_call: BTreeMap::new(), last: QueryNumber::default(), starved: Vec::new() }
    }

    /// How many have not ended.
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.starved.len() <= self.running.len());
        debug_assert_eq!(self.by_call.len(), self.running.len());
        self.running.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    fn begin(&mut self, number: QueryNumber, running: Running) {
        self.by_call.insert((running.caller, running.request), number);
        self.running.insert(number, running);
    }

    fn end(&mut self, number: QueryNumber) -> Option<Running> {
        let running = self.running.remove(&number)?;
        self.by_call.remove(&(running.caller, running.request));
        self.starved.retain(|other| *other != number);
        Some(running)
    }
}

impl Router {
    /// The core where a realm's dealer is.
    #[must_use]
    pub fn home_of(&self, realm: RealmIndex) -> Option<CoreId> {
        self.realms.get(usize::from(realm.0)).map(|realm| realm.home)
    }

    /// Hands an open call to a database, or tells its caller that there is no place for it.
    pub(super) fn start_query(
        &mut self,
        key: SessionKey,
        request: RequestId,
        (database, procedure): (DatabaseIndex, Arc<Procedure>),
        payload: Payload<'_>,
        (timeout_ms, receive_progress): (u64, bool),
        effects: &mut impl Effects,
    ) {
        let timeout_of_procedure_ms = procedure.timeout_ms;
        let number = QueryNumber(self.queries.last.0 + 1);
        self.queries.last = number;
        let disclosed = self.disclosed(key);
        let (_, session) = self.realm_and_session(key);
        let caller = Caller {
            session: disclosed.session,
            authid: disclosed.authid,
            authrole: disclosed.authrole,
            authmethod: session.authmethod(),
            authprovider: session.authprovider(),
            authextra: session.authextra().unwrap_or_default().into(),
        };
        let query = Query {
            number,
            database,
            procedure,
            payload: OwnedPayload::new(payload.serializer, payload.args.into(), payload.kwargs.into()),
            serializer: effects.serializer(key),
            timeout_ms: shorter(timeout_ms, timeout_of_procedure_ms),
            receive_progress,
            caller,
        };
        if !effects.query(query) {
            effects.counters().queries_refused += 1;
            self.take_call(key, request);
            let text = "the database is away, or as many calls wait for it as may wait";
            self.refuse_call(key, request, uri::UNAVAILABLE, text, effects);
            return;
        }
        effects.counters().queries += 1;
        let caller = self.sitting(key);
        self.queries.begin(number, Running { database, caller, request });
    }

    /// A call that home found to be of a database: the entry is on its way here, or has come (R7).
    pub(super) fn run_here(&mut self, letter: &Letter<CallHead>, effects: &mut impl Effects) {
        let &CallHead { realm, caller, request, ref terms, .. } = &letter.head;
        let terms = terms.as_deref();
        if self.sessions.sitting(caller).is_none() || !self.call_is_open(caller.key, request) {
            return;
        }
        if self.call_is_killed(caller.key, request) {
            // The CANCEL went to home, and there is nothing there that it could stop.
            self.take_call(caller.key, request);
            self.refuse_call(caller.key, request, uri::CANCELED, "the call was cancelled", effects);
            return;
        }
        let callable = &self.realms[usize::from(realm.0)].callable;
        let Some(procedure) = callable.get(letter.body.uri()).cloned() else {
            // It went in the meantime.
            self.take_call(caller.key, request);
            let text = "the database does not offer the procedure any more";
            self.refuse_call(caller.key, request, uri::NO_SUCH_PROCEDURE, text, effects);
            return;
        };
        if terms.is_some_and(|terms| terms.input != Input::Whole || terms.passthru.is_used()) {
            self.take_call(caller.key, request);
            let text = "a procedure of a database takes neither input in parts nor payload passthru mode";
            self.refuse_call(caller.key, request, uri::FEATURE_NOT_SUPPORTED, text, effects);
            return;
        }
        let timing = terms.map_or((0, false), |terms| (terms.timeout_ms, terms.receive_progress));
        self.start_query(caller.key, request, procedure, letter.body.payload(), timing, effects);
    }

    /// The threads of a database say something.
    pub fn handle_database(&mut self, now: super::Now, event: DatabaseEvent, effects: &mut impl Effects) {
        self.now = now;
        match event {
            DatabaseEvent::Part(number, payload) => self.handle_part(number, &payload, effects),
            DatabaseEvent::Done(number, payload) => {
                let end = (Outcome::Result, "");
                self.finish_query(number, end, &payload, effects);
            }
            DatabaseEvent::Failed(number, error, payload) => {
                self.finish_query(number, (Outcome::Error, &error), &payload, effects);
            }
            DatabaseEvent::Publish(batch) => self.publish_batch(&batch, effects),
            DatabaseEvent::Replayed(number, result) => self.handle_replayed(number, result, effects),
            DatabaseEvent::Offer(realm, database, procedures) => {
                self.handle_offer(realm, database, procedures, effects);
                self.database_is_back(database, effects);
            }
        }
        self.close_doomed(effects);
    }

    fn finish_query(
        &mut self,
        number: QueryNumber,
        (outcome, error): (Outcome, &str),
        payload: &OwnedPayload,
        effects: &mut impl Effects,
    ) {
        let running = self.queries.running.get(&number);
        if self.is_broken(Fault::KeepQueries)
            && running.is_some_and(|running| self.sessions.sitting(running.caller).is_none())
        {
            return;
        }
        let Some(running) = self.queries.end(number) else { return };
        let head = reply_to(&running, outcome);
        let reply = Parcel::Borrowed { head, uri: error, payload: payload.as_payload() };
        if self.is_broken(Fault::AnswerTwice) {
            self.answer_twice(&reply, effects);
        }
        self.finish_call(&reply, effects);
    }

    fn handle_part(&mut self, number: QueryNumber, payload: &OwnedPayload, effects: &mut impl Effects) {
        let Some(running) = self.queries.running.get(&number) else { return };
        let (key, head) = (running.caller.key, reply_to(running, Outcome::Progress));
        self.finish_call(&Parcel::Borrowed { head, uri: "", payload: payload.as_payload() }, effects);
        // What nobody wants any more was cancelled, and goes on to its end by itself.
        let Some(running) = self.queries.running.get(&number) else { return };
        if effects.has_room(key) || self.is_broken(Fault::IgnoreRoom) {
            effects.query_more(running.database, number);
        } else {
            self.queries.starved.push(number);
        }
    }

    /// After a flush: those go on whose caller has room again.
    pub fn handle_flushed(&mut self, effects: &mut impl Effects) {
        if self.has_starved() {
            self.look_at_starved(effects);
        }
        if self.queries.starved.is_empty() {
            return;
        }
        let Queries { running, starved, .. } = &mut self.queries;
        starved.retain(|number| {
            let Some(query) = running.get(number) else { return false };
            let waits = !effects.has_room(query.caller.key);
            if !waits {
                effects.query_more(query.database, *number);
            }
            waits
        });
    }

    /// A call is cancelled, or its caller was answered without it. Whether a database runs it: it is told unless the mode says
    /// that it goes on, and it answers once more in any case.
    pub(super) fn cancel_query(
        &mut self,
        caller: Sitting,
        request: RequestId,
        mode: CancelMode,
        effects: &mut impl Effects,
    ) -> bool {
        let Some(&number) = self.queries.by_call.get(&(caller, request)) else { return false };
        if mode != CancelMode::Skip {
            self.tell_cancelled(number, effects);
        }
        true
    }

    /// A caller is gone: its queries are cancelled.
    pub(super) fn cancel_queries(&mut self, caller: Sitting, effects: &mut impl Effects) {
        if self.queries.is_empty() || self.is_broken(Fault::LeaveQueries) {
            return;
        }
        let all = (caller, RequestId(0))..=(caller, RequestId(u64::MAX));
        let numbers: Vec<_> = self.queries.by_call.range(all).map(|(_, number)| *number).collect();
        for number in numbers {
            self.tell_cancelled(number, effects);
        }
    }

    fn tell_cancelled(&mut self, number: QueryNumber, effects: &mut impl Effects) {
        if let Some(running) = self.queries.running.get(&number) {
            effects.counters().queries_cancelled += 1;
            effects.query_cancel(running.database, number);
        }
    }

    /// A catalogue from home.
    pub(super) fn take_catalogue(&mut self, catalogue: &Catalogue, effects: &mut impl Effects) {
        let &Catalogue { realm, database, version, .. } = catalogue;
        let loses = self.is_broken(Fault::LoseCatalogues) && self.core.0 == 1 && version.is_multiple_of(2);
        let of_realm = &mut self.realms[usize::from(realm.0)];
        if !loses {
            of_realm.callable.replace(catalogue);
        }
        let home = of_realm.home;
        if home == self.core {
            self.catalogue_taken(self.core, realm, database, version);
        } else {
            effects.peer(home, PeerMessage::CatalogueTaken { realm, database, version });
        }
    }
}

/// The shorter of two times, where 0 is none.
fn shorter(one_ms: u64, other_ms: u64) -> u64 {
    if one_ms == 0 || other_ms == 0 { one_ms.max(other_ms) } else { one_ms.min(other_ms) }
}

fn reply_to(running: &Running, outcome: Outcome) -> ReplyHead {
    let &Running { caller, request, .. } = running;
    let (charge, passthru) = (Charge::default(), Passthru::default());
    ReplyHead { caller, request, outcome, callee: None, charge, passthru }
}

/// At home a call of a database is not handed on but back.
pub(super) fn give_back(call: Parcel<'_, CallHead>, effects: &mut impl Effects) -> Box<Letter<CallHead>> {
    let head = call.head();
    effects.credit(head.caller.session(), head.charge, CreditTime::Now);
    call.into_letter()
}
