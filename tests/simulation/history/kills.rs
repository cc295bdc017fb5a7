//! Sessions that end others: who is meant ends, nobody else does, and whoever did it hears how many they were.

use crosspoint::wamp::Arguments;
use crosspoint::wamp::error::uri;
use serde_json::Value;

use super::{End, History, Kept, Session, broken};

/// What reasons begin with; the number of the order follows.
pub const REASON: &str = "sim.killed.";

/// Whom to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    Session(u64),
    Authid(String),
    Authrole(String),
    All,
}

/// An order.
#[derive(Debug)]
pub struct Kill {
    pub(super) killer: usize,
    pub(super) whom: Whom,
    pub(super) sent_at: u64,
    /// When it was said to have been carried out, on all cores.
    pub(super) answered_at: Option<u64>,
    /// How many, and for an authid who. `None` while there is no answer, or none that says so.
    answer: Option<(u64, Option<Vec<u64>>)>,
    /// There was no such session.
    is_refused: bool,
}

impl Kill {
    pub fn new(killer: usize, whom: Whom, sent_at: u64) -> Self {
        Self { killer, whom, sent_at, answered_at: None, answer: None, is_refused: false }
    }

    fn is_meant(&self, place: usize, session: &Session) -> bool {
        place != self.killer
            && match &self.whom {
                Whom::Session(id) => session.id == *id,
                Whom::Authid(authid) => session.authid == *authid,
                Whom::Authrole(role) => session.authrole == *role,
                Whom::All => true,
            }
    }
}

impl History {
    /// GOODBYE arrives at a session that somebody ended.
    pub fn receive_kill(&mut self, victim: usize, reason: &str) -> Kept {
        let number = reason.strip_prefix(REASON).and_then(|number| number.parse::<usize>().ok());
        let Some((number, kill)) = number.and_then(|number| Some((number, self.kills.get(number)?))) else {
            return broken("kill", format!("session {victim} was ended for {reason}"));
        };
        let realm = self.sessions[kill.killer].realm;
        let session = &self.sessions[victim];
        if session.realm != realm || !kill.is_meant(victim, session) {
            return broken("kill", format!("session {victim}, {:?}, was ended by {kill:?}", session.authid));
        }
        if kill.whom == Whom::All {
            let of_realm = self.sessions.iter().filter(|other| other.realm == realm);
            let mut held = of_realm.flat_map(|other| &other.subscriptions);
            if held.any(|held| held.gone.contains(&session.id) || held.testaments.contains_key(&victim)) {
                return broken("kill", format!("somebody heard of session {victim}, ended by {kill:?}"));
            }
            let mut own = self.sessions[kill.killer].subscriptions.iter();
            let is_heard = own.any(|held| held.pattern == "wamp.session." && !held.is_ending);
            self.happened.silent_ends += u64::from(is_heard);
        }
        self.sessions[victim].killed_by = Some(number);
        self.happened.kills += 1;
        Ok(())
    }

    /// The answer to who wanted to end sessions.
    pub fn receive_count(&mut self, number: usize, answer: &Result<Arguments, &str>, step: u64) -> Kept {
        let kill = &mut self.kills[number];
        match (answer, &kill.whom) {
            (Err(uri::UNAVAILABLE), _) => return Ok(()),
            (Err(uri::NO_SUCH_SESSION), Whom::Session(_)) => kill.is_refused = true,
            (Ok(answer), Whom::Session(_)) if answer.args.is_empty() => kill.answer = Some((1, None)),
            (Ok(answer), Whom::Authid(_)) => {
                let ids = answer.args.first().and_then(Value::as_array);
                let ids = ids.and_then(|ids| ids.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>());
                let Some(ids) = ids else { return broken("kill", format!("{kill:?}: {answer:?}")) };
                kill.answer = Some((ids.len() as u64, Some(ids)));
            }
            (Ok(answer), Whom::Authrole(_) | Whom::All) => {
                let Some(count) = answer.args.first().and_then(Value::as_u64) else {
                    return broken("kill", format!("{kill:?}: {answer:?}"));
                };
                kill.answer = Some((count, None));
            }
            _ => return broken("kill", format!("{kill:?}: {answer:?}")),
        }
        let is_partial = answer.as_ref().is_ok_and(|answer| answer.kwargs.contains_key("_partial"));
        if is_partial {
            kill.answer = None;
            return Ok(());
        }
        kill.answered_at = Some(step);
        self.check_goings_before_the_answer(number)
    }

    /// The result comes behind every `on_leave`.
    fn check_goings_before_the_answer(&self, number: usize) -> Kept {
        let kill = &self.kills[number];
        let Some((_, Some(ids))) = &kill.answer else { return Ok(()) };
        if self.may_drop || self.may_refuse {
            return Ok(());
        }
        let watching = self.sessions[kill.killer].subscriptions.iter().filter(|held| {
            held.pattern == "wamp.session."
                && !held.is_ending
                && held.since.is_some_and(|since| since < kill.sent_at)
        });
        for held in watching {
            if let Some(id) = ids.iter().find(|id| !held.gone.contains(id)) {
                return broken(
                    "kill",
                    format!("{kill:?}: the answer came before {id} was said to have gone"),
                );
            }
        }
        Ok(())
    }

    /// When all is quiet: who was meant is gone, and was counted.
    pub(super) fn check_kills(&self) -> Kept {
        for (number, kill) in self.kills.iter().enumerate() {
            let realm = self.sessions[kill.killer].realm;
            let others = || {
                let all = self.sessions.iter().enumerate();
                all.filter(|(place, session)| session.realm == realm && kill.is_meant(*place, session))
            };
            let was_there = |session: &Session| session.welcomed_at < kill.sent_at;
            let stays = |session: &Session| session.end == End::Open && was_there(session);
            if (kill.answer.is_some() || kill.is_refused) && others().any(|(_, session)| stays(session)) {
                return broken("kill", format!("somebody outlived {kill:?}"));
            }
            let mut ended = others().filter(|(_, session)| session.killed_by == Some(number));
            let Some((count, ids)) = &kill.answer else {
                if kill.is_refused && ended.next().is_some() {
                    return broken("kill", format!("{kill:?} was refused, and carried out"));
                }
                continue;
            };
            let ended: Vec<u64> = ended.map(|(_, session)| session.id).collect();
            let is_told = |id: &u64| ids.as_ref().is_none_or(|ids| ids.contains(id));
            if ended.len() as u64 > *count || !ended.iter().all(is_told) {
                return broken("kill", format!("{ended:?} were ended by {kill:?}"));
            }
            // Nobody is said to have been ended who is not meant.
            let is_meant = |id: &u64| {
                // Somebody who did not hear its WELCOME may be.
                let known = self.sessions.iter().position(|session| session.id == *id);
                known.is_none_or(|place| kill.is_meant(place, &self.sessions[place]))
            };
            if !ids.iter().flatten().all(is_meant) {
                return broken("kill", format!("{kill:?} ended somebody else"));
            }
        }
        Ok(())
    }

    /// Whether that may be so, although it did not hear of it.
    pub(super) fn may_have_gone_silently(&self, session: &Session) -> bool {
        let by_all =
            |kill: &Kill| kill.whom == Whom::All && self.sessions[kill.killer].realm == session.realm;
        match session.killed_by {
            Some(number) => self.kills[number].whom == Whom::All,
            None => session.end == End::Lost && self.kills.iter().any(by_all),
        }
    }

    /// Whether somebody was ended together with everybody else, which nobody is told.
    pub(super) fn went_silently(&self, session: &Session) -> bool {
        session.killed_by.is_some_and(|number| self.kills[number].whom == Whom::All)
    }
}
