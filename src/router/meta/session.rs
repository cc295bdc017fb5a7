//! Sessions of this core as the meta API tells of them, and how it ends them.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::gather::Findings;
use super::procedure::{self, Procedure};
use super::{NewsKind, Refusal};
use crate::router::Router;
use crate::router::cookies::{Login, LoginsOf, Place, first_place};
use crate::router::effects::Effects;
use crate::router::fault::Fault;
use crate::router::peer::{Body, CoreId, RealmIndex, SessionKey, Sitting};
use crate::router::realm::Realm;
use crate::router::session::{Session, State};
use crate::wamp::error::uri;
use crate::wamp::message::{Goodbye, Message};
use crate::wamp::options::{CloseDetails, Text};
use crate::wamp::{Arguments, CloseReason, SessionId};

/// How many sessions are ended in one go; the rest of them in the next turns.
const KILLS_A_TURN: usize = 512;

/// Whom to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) enum Whom {
    Session(SessionId),
    Authid(Box<str>),
    Authrole(Box<str>),
    All,
}

/// Sessions to end, and what they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) struct KillOrder {
    whom: Whom,
    /// The caller: it is never among them.
    except: SessionId,
    reason: Option<Box<str>>,
    message: Option<Box<str>>,
}

impl KillOrder {
    /// What it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let name = match &self.whom {
            Whom::Authid(name) | Whom::Authrole(name) => name.len(),
            Whom::Session(_) | Whom::All => 0,
        };
        let texts = [&self.reason, &self.message].into_iter().flatten();
        size_of::<Self>() + name + texts.map(|text| text.len()).sum::<usize>()
    }
}

/// An order that is being carried out.
#[derive(Debug)]
struct Sweep {
    realm: RealmIndex,
    order: KillOrder,
    /// Logins by cookie end first: who was ended would be back at once. This is where to go on among them.
    logins: Option<Place>,
    /// The place of the role that is meant.
    role: Option<u16>,
    /// Who were there when it came, and have not been looked at.
    victims: Vec<Sitting>,
    killed: Vec<u64>,
    /// Who waits for the count.
    from: CoreId,
    number: u64,
    since_us: u64,
}

impl Sweep {
    /// Whose logins end, if any do.
    fn logins_of(&self) -> Option<LoginsOf<'_>> {
        match &self.order.whom {
            Whom::Session(_) => None,
            Whom::Authid(authid) => Some(LoginsOf::Authid(authid)),
            Whom::Authrole(_) => self.role.map(LoginsOf::Role),
            Whom::All => Some(LoginsOf::All),
        }
    }
}

/// The orders that are being carried out on this core, in turn. Each ends with the last of its sessions.
#[derive(Debug, Default)]
pub(super) struct Sweeps(VecDeque<Sweep>);

impl Sweeps {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// At once: there is more to do.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.0.front().map(|sweep| sweep.since_us)
    }
}

/// What the meta API tells of a session.
fn details(session: &Session, realm: &Realm) -> Map<String, Value> {
    let role = &*realm.roles[usize::from(session.role)].name;
    let own = session.active.as_ref().and_then(|active| active.details.as_deref()).cloned();
    let identity = [
        ("session", Value::from(session.id.0)),
        ("authid", session.authid().into()),
        ("authrole", role.into()),
        ("authmethod", session.authmethod().into()),
        ("authprovider", session.authprovider().into()),
    ];
    let identity = identity.into_iter().map(|(key, value)| (key.to_owned(), value));
    identity.chain(own.into_iter().flatten()).collect()
}

/// What says who a session is, and is not to be changed.
const IDENTITY: [&str; 7] =
    ["session", "authid", "authrole", "authmethod", "authprovider", "authextra", "transport"];

/// The details that `wamp.session.modify_details` is to set, or with null to take away.
pub(super) fn modified(arguments: &Arguments) -> Result<Map<String, Value>, Refusal> {
    let Some(details) = arguments.args.get(1).and_then(Value::as_object) else {
        return Err((uri::INVALID_ARGUMENT, "the second argument must be a map of details"));
    };
    if IDENTITY.iter().any(|key| details.contains_key(*key)) {
        return Err((uri::INVALID_ARGUMENT, "who a session is cannot be modified"));
    }
    Ok(details.clone())
}

/// What details take, in bytes.
pub(super) fn bytes_of(details: &Map<String, Value>) -> usize {
    serde_json::to_string(details).map_or(usize::MAX, |text| text.len())
}

impl Router {
    /// Sets details of a session. The count is 1 if there was the session and no room.
    pub(super) fn modify_details(
        &mut self,
        realm: RealmIndex,
        id: SessionId,
        changes: &Map<String, Value>,
    ) -> Findings {
        let found = self.sessions.find(id).filter(|(_, session)| session.realm == realm);
        let Some((key, _)) = found else { return Findings::default() };
        let (hash_seed, bytes_max) = (self.hash_seed, self.limits.details_bytes_per_session_max);
        let active = self.sessions.at_mut(key.slot).active(hash_seed);
        let mut details = active.details.as_deref().cloned().unwrap_or_default();
        for (name, value) in changes {
            if value.is_null() {
                details.remove(name);
            } else {
                details.insert(name.clone(), value.clone());
            }
        }
        if bytes_of(&details) > bytes_max {
            return Findings { count: 1, ..Findings::default() };
        }
        active.details = (!details.is_empty()).then(|| Box::new(details));
        Findings { is_found: true, ..Findings::default() }
    }

    /// A session was welcomed.
    pub(in crate::router) fn session_joined(&mut self, key: SessionKey, effects: &mut impl Effects) {
        const TOPIC: &str = "wamp.session.on_join";
        let session = self.sessions.at(key.slot);
        let (realm_index, role, id) = (session.realm, session.role, session.id);
        self.sessions.list(id, key.slot);
        let realm = &mut self.realms[usize::from(realm_index.0)];
        realm.roles[usize::from(role)].sessions += 1;
        if !realm.meta_api || !self.is_wanted(realm_index, TOPIC, effects) {
            return;
        }
        let (realm, session) = self.realm_and_session(key);
        let written = Arguments::from(vec![details(session, realm).into()]).write();
        let event = NewsKind::Event(Body::new(TOPIC, written.as_payload()));
        self.tell_home(realm_index, (key, id), event, effects);
    }

    /// A session has ended; what it was is still there.
    pub(in crate::router) fn session_left(&mut self, key: SessionKey, effects: &mut impl Effects) {
        const TOPIC: &str = "wamp.session.on_leave";
        let session = self.sessions.at(key.slot);
        let (realm_index, role, id) = (session.realm, session.role, session.id);
        self.sessions.unlist(id);
        let realm = &mut self.realms[usize::from(realm_index.0)];
        realm.roles[usize::from(role)].sessions -= 1;
        if !realm.meta_api || self.meta.is_silent || !self.is_wanted(realm_index, TOPIC, effects) {
            return;
        }
        let (realm, session) = self.realm_and_session(key);
        let role = &*realm.roles[usize::from(role)].name;
        let written = Arguments::from(vec![id.0.into(), session.authid().into(), role.into()]).write();
        let event = NewsKind::Event(Body::new(TOPIC, written.as_payload()));
        self.tell_home(realm_index, (key, id), event, effects);
    }

    pub(super) fn count_sessions(&self, realm: RealmIndex, roles: Option<&[Box<str>]>) -> Findings {
        let counted = self.realms[usize::from(realm.0)].roles.iter().filter(|role| admits(roles, &role.name));
        let count = counted.map(|role| u64::from(role.sessions)).sum();
        Findings { count, ..Findings::default() }
    }

    pub(super) fn list_sessions(
        &self,
        realm: RealmIndex,
        roles: Option<&[Box<str>]>,
        effects: &mut impl Effects,
    ) -> Findings {
        let names = &self.realms[usize::from(realm.0)].roles;
        let admitted: Vec<bool> = names.iter().map(|role| admits(roles, &role.name)).collect();
        let listed = self
            .sessions_of(realm, effects)
            .filter(|(_, session)| admitted.get(usize::from(session.role)).copied().unwrap_or_default());
        let ids = listed.map(|(_, session)| session.id.0).collect();
        Findings { ids: [ids, Vec::new(), Vec::new()], ..Findings::default() }
    }

    pub(super) fn find_session(&self, realm: RealmIndex, id: SessionId) -> Findings {
        let Some((_, session)) = self.sessions.find(id).filter(|(_, session)| session.realm == realm) else {
            return Findings::default();
        };
        let details = details(session, &self.realms[usize::from(realm.0)]);
        Findings { is_found: true, details, ..Findings::default() }
    }

    /// The open sessions of a realm on this core. To look at all of them is work that counts.
    fn sessions_of(
        &self,
        realm: RealmIndex,
        effects: &mut impl Effects,
    ) -> impl Iterator<Item = (SessionKey, &Session)> {
        effects.searched(self.sessions.slot_count());
        self.sessions.open_ones().filter(move |(_, session)| session.realm == realm)
    }

    /// What a call of one of the procedures that end sessions orders.
    pub(super) fn kill_order(
        &self,
        key: SessionKey,
        procedure: Procedure,
        arguments: &Arguments,
    ) -> Result<KillOrder, Refusal> {
        let (realm, session) = self.realm_and_session(key);
        let name = || {
            let name = arguments.args.first().and_then(Value::as_str).map(Box::from);
            name.ok_or((uri::INVALID_ARGUMENT, "the first argument must be a string"))
        };
        let whom = match procedure {
            Procedure::SessionKill => Whom::Session(procedure::session(arguments, 0)?),
            Procedure::SessionKillByAuthid => Whom::Authid(name()?),
            Procedure::SessionKillByAuthrole => Whom::Authrole(name()?),
            _ => Whom::All,
        };
        let reason = procedure::text(&arguments.kwargs, "reason")
            .map_err(|()| (uri::INVALID_URI, "the reason must be a URI"))?;
        if let Some(reason) = &reason {
            crate::wamp::uri::check(reason, realm.uri_rule, realm.uri_limits)
                .map_err(|error| (uri::INVALID_URI, error.as_str()))?;
        }
        let message = procedure::text(&arguments.kwargs, "message")
            .map_err(|()| (uri::INVALID_ARGUMENT, "the message must be a string"))?;
        Ok(KillOrder { whom, except: session.id, reason, message })
    }

    /// Ends sessions of this core: those that are there now, as many as a turn may, and the rest in the next turns.
    pub(super) fn begin_sweep(
        &mut self,
        realm: RealmIndex,
        order: KillOrder,
        from: CoreId,
        number: u64,
        effects: &mut impl Effects,
    ) {
        let is_meant = |session: &Session, names: &Realm| {
            session.id != order.except
                && match &order.whom {
                    Whom::Session(id) => session.id == *id,
                    Whom::Authid(authid) => *session.authid() == **authid,
                    Whom::Authrole(role) => names.roles[usize::from(session.role)].name == *role,
                    Whom::All => true,
                }
        };
        let names = &self.realms[usize::from(realm.0)];
        let keys: Vec<SessionKey> = if let Whom::Session(id) = order.whom {
            let found = self.sessions.find(id).filter(|(_, session)| session.realm == realm);
            found.filter(|(_, session)| is_meant(session, names)).map(|(key, _)| key).into_iter().collect()
        } else {
            let all = self.sessions_of(realm, effects);
            all.filter(|(_, session)| is_meant(session, names)).map(|(key, _)| key).collect()
        };
        // The last of the list is the next.
        let victims = keys.into_iter().rev().map(|key| self.sitting(key)).collect();
        let since_us = self.now.monotonic_us;
        let role = match &order.whom {
            Whom::Authrole(name) => {
                let place = names.roles.iter().position(|role| *role.name == **name);
                place.map(|place| place as u16)
            }
            _ => None,
        };
        let mut sweep =
            Sweep { realm, order, logins: None, role, victims, killed: Vec::new(), from, number, since_us };
        sweep.logins = sweep.logins_of().map(first_place);
        self.meta.sweeps.0.push_back(sweep);
        // Behind one that is under way it waits for its turn.
        if self.meta.sweeps.len() == 1 {
            self.continue_sweep(effects);
        }
    }

    /// Ends some more sessions of the order whose turn it is.
    pub(super) fn continue_sweep(&mut self, effects: &mut impl Effects) {
        let Some(mut sweep) = self.meta.sweeps.0.pop_front() else { return };
        if let Some(place) = sweep.logins.take()
            && let Some(whose) = sweep.logins_of()
        {
            sweep.logins = self.end_logins_of(sweep.realm, whose, place, effects);
            if sweep.logins.is_some() {
                self.meta.sweeps.0.push_front(sweep);
                return;
            }
        }
        for _ in 0..KILLS_A_TURN {
            let Some(victim) = sweep.victims.pop() else { break };
            let Some(session) = self.sessions.sitting(victim) else { continue };
            sweep.killed.push(session.id.0);
            self.meta.is_silent = sweep.order.whom == Whom::All && !self.is_broken(Fault::TellOfAll);
            self.kill(victim.key, &sweep.order, effects);
            self.meta.is_silent = false;
        }
        if !sweep.victims.is_empty() {
            self.meta.sweeps.0.push_front(sweep);
            return;
        }
        let count = sweep.killed.len() as u64;
        let ids = if matches!(sweep.order.whom, Whom::Authid(_)) { sweep.killed } else { Vec::new() };
        let ids = [ids, Vec::new(), Vec::new()];
        let findings = Findings { is_found: count > 0, count, ids, ..Findings::default() };
        self.answer_by_home(sweep.realm, sweep.from, sweep.number, findings, effects);
    }

    /// Whether a login by cookie is one of those that are being ended.
    pub(in crate::router) fn is_ending(&self, login: &Login) -> bool {
        let sweeps = self.meta.sweeps.0.iter();
        let mut ending = sweeps.filter(|sweep| sweep.logins.is_some() && sweep.realm == login.realm);
        ending.any(|sweep| match sweep.logins_of() {
            Some(LoginsOf::Authid(authid)) => *authid == *login.authid,
            Some(LoginsOf::Role(role)) => role == login.role,
            Some(LoginsOf::All) => true,
            None => false,
        })
    }

    fn kill(&mut self, key: SessionKey, order: &KillOrder, effects: &mut impl Effects) {
        debug_assert_eq!(self.sessions.at(key.slot).state, State::Open);
        self.forget(key, effects);
        let message = order.message.as_deref().map(Text::Borrowed);
        let reason = Text::Borrowed(order.reason.as_deref().unwrap_or(uri::KILLED));
        let goodbye = Message::Goodbye(Goodbye { details: CloseDetails { message }, reason });
        effects.close(key, CloseReason::Killed, Some(&goodbye));
    }
}

fn admits(roles: Option<&[Box<str>]>, name: &str) -> bool {
    roles.is_none_or(|roles| roles.iter().any(|role| **role == *name))
}
