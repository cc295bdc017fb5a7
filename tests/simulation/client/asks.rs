//! What a client asks of the router itself, by the meta API.

use crosspoint::wamp::error::uri;
use crosspoint::wamp::message::{Call as CallMessage, Message};
use crosspoint::wamp::options::CallOptions;
use crosspoint::wamp::{Arguments, MatchPolicy};
use serde_json::{Value, json};

use super::{Client, Pending, SESSIONS, Stage, URIS};
use crate::advanced::PEOPLE;
use crate::content::{Content, TESTAMENT};
use crate::history::kept::{Query, RECORDS};
use crate::history::kills::{Kill, REASON, Whom};
use crate::history::testaments::{Flushed, Testament};
use crate::history::watch::{REGISTRATIONS, SUBSCRIPTIONS};
use crate::history::{End, Kept, Violation, broken};

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To end sessions, by the number of the order.
    Kill(usize),
    /// For events, by the number of the query.
    Events(usize),
    /// To publish something when the session ends, by its number.
    AddTestament(usize),
    /// To publish nothing of a scope of the first so many.
    Flush(bool, usize),
}

/// What is answered: arguments, or an error.
pub(super) type Answer<'a> = Result<Arguments, &'a str>;

impl Client {
    /// One thing of the advanced profile.
    pub(super) fn act_advanced(&mut self, session: usize, stage: &mut Stage<'_>) {
        let advanced = stage.advanced;
        if advanced.kills && stage.random.once_in(6) {
            self.kill(session, stage);
        } else if advanced.histories && stage.random.once_in(4) {
            let (record, limit) = (stage.random.below(RECORDS.len()), stage.random.between(1, 4));
            let is_reversed = stage.random.once_in(2);
            self.ask_for_events(Query::new(session, record, limit, is_reversed, false), stage);
        } else if advanced.watches && stage.random.once_in(4) {
            let what = *stage.random.pick(&[SUBSCRIPTIONS, REGISTRATIONS]);
            self.subscribe_to(session, MatchPolicy::Prefix, what, stage);
        } else if advanced.testaments_max > 0 && stage.random.once_in(4) {
            if stage.random.once_in(6) {
                self.flush_testaments(session, stage);
            } else {
                self.add_testament(session, stage);
            }
        } else if advanced.leaps() && stage.random.once_in(3) {
            self.register(session, stage);
        }
    }

    /// Calls a procedure of the router.
    fn ask(&mut self, procedure: &'static str, arguments: &Arguments, asked: Asked, stage: &mut Stage<'_>) {
        let request = self.next_request(Some(Pending::Asked(asked)));
        let written = arguments.write();
        let (options, payload) = (CallOptions::default(), written.as_payload());
        let message = CallMessage { request, options, procedure: procedure.into(), payload };
        self.send(&Message::Call(message), stage);
    }

    fn kill(&mut self, session: usize, stage: &mut Stage<'_>) {
        let whom = match stage.random.below(6) {
            4 if stage.advanced.kills_all => Whom::All,
            3 if stage.advanced.kills_all => {
                Whom::Authrole((*stage.random.pick(&["anonymous", "member", "guest"])).to_owned())
            }
            2 => Whom::Authid(stage.random.pick(&PEOPLE).authid.to_owned()),
            _ => {
                let sessions = &stage.history.sessions;
                let other = &sessions[stage.random.below(sessions.len())];
                // As a rule somebody who may be there.
                if other.end != End::Open && !stage.random.once_in(4) {
                    return;
                }
                match stage.random.below(3) {
                    0 => Whom::Authid(other.authid.clone()),
                    _ => Whom::Session(other.id),
                }
            }
        };
        if whom == Whom::All {
            // Nobody else is left to be told of it.
            self.subscribe_to(session, MatchPolicy::Prefix, SESSIONS, stage);
        }
        let (procedure, args) = match &whom {
            Whom::Session(id) => ("wamp.session.kill", vec![json!(id)]),
            Whom::Authid(authid) => ("wamp.session.kill_by_authid", vec![json!(authid)]),
            Whom::Authrole(role) => ("wamp.session.kill_by_authrole", vec![json!(role)]),
            Whom::All => ("wamp.session.kill_all", Vec::new()),
        };
        let number = stage.history.kills.len();
        let mut arguments = Arguments::from(args);
        arguments.kwargs.insert("reason".to_owned(), Value::from(format!("{REASON}{number}")));
        stage.history.kills.push(Kill::new(session, whom, stage.step));
        self.ask(procedure, &arguments, Asked::Kill(number), stage);
    }

    fn ask_for_events(&mut self, query: Query, stage: &mut Stage<'_>) {
        let Some(id) = stage.history.record_id(self.realm, query.record) else { return };
        let number = stage.history.queries.len();
        let mut arguments = Arguments::from(vec![json!(id)]);
        arguments.kwargs.insert("limit".to_owned(), json!(query.limit));
        arguments.kwargs.insert("reverse".to_owned(), json!(query.is_reversed));
        stage.history.queries.push(query);
        self.ask("wamp.subscription.get_events", &arguments, Asked::Events(number), stage);
    }

    /// The last events of everything that is kept, and all of it, if that is not too long.
    pub fn ask_for_all_events(&mut self, stage: &mut Stage<'_>) {
        let Some(session) = self.session else { return };
        for record in 0..RECORDS.len() {
            for limit in [1, 4, 1000] {
                self.ask_for_events(Query::new(session, record, limit, true, true), stage);
            }
        }
    }

    fn add_testament(&mut self, session: usize, stage: &mut Stage<'_>) {
        let topic = *stage.random.pick(&URIS);
        let is_detached = stage.random.once_in(2);
        let is_retained = stage.random.once_in(5);
        let number = stage.history.sessions[session].testaments.len();
        let padding = stage.random.below(40);
        let content = Content { kind: TESTAMENT, session: session as u64, number: number as u64, padding };
        let mut arguments = Arguments::from(vec![json!(topic), content.to_value(), json!({})]);
        // Without a scope it is the other one.
        if is_detached {
            arguments.kwargs.insert("scope".to_owned(), json!("detached"));
        }
        arguments.kwargs.insert("publish_options".to_owned(), json!({ "retain": is_retained }));
        stage.history.sessions[session].testaments.push(Testament {
            topic,
            is_detached,
            sent_at: stage.step,
            is_added: None,
            flushed: Flushed::No,
            is_retained,
        });
        self.ask("wamp.session.add_testament", &arguments, Asked::AddTestament(number), stage);
    }

    fn flush_testaments(&mut self, session: usize, stage: &mut Stage<'_>) {
        let is_detached = stage.random.once_in(2);
        let count = stage.history.sessions[session].testaments.len();
        stage.history.flush(session, is_detached, Flushed::Asked, count);
        let scope = if is_detached { "detached" } else { "destroyed" };
        let arguments = Arguments::from(vec![json!(scope)]);
        self.ask("wamp.session.flush_testaments", &arguments, Asked::Flush(is_detached, count), stage);
    }

    /// The router has answered.
    pub(super) fn receive_word(
        &mut self,
        session: usize,
        asked: Asked,
        answer: &Answer<'_>,
        stage: &mut Stage<'_>,
    ) -> Kept {
        debug_assert!(self.session == Some(session));
        match asked {
            Asked::Kill(number) => stage.history.receive_count(number, answer, stage.step),
            Asked::Events(number) => stage.history.receive_events(number, answer),
            Asked::AddTestament(number) => {
                let error = answer.as_ref().err().copied();
                stage.history.receive_testament_answer(session, number, error)
            }
            Asked::Flush(is_detached, count) => {
                match answer {
                    Ok(_) => stage.history.flush(session, is_detached, Flushed::Done, count),
                    Err(uri::UNAVAILABLE) => {}
                    Err(other) => return broken("testament", format!("a flush was answered {other}")),
                }
                Ok(())
            }
        }
    }

    /// What was asked with a request, if it was something of the router.
    pub(super) fn asked_with(&mut self, request: u64) -> Option<Asked> {
        let Some(Pending::Asked(asked)) = self.pending.get(&request) else { return None };
        let asked = *asked;
        self.pending.remove(&request);
        Some(asked)
    }

    /// The arguments of an answer.
    pub(super) fn arguments_of(payload: &crosspoint::wamp::Payload<'_>) -> Result<Arguments, Violation> {
        Arguments::read(payload).or_else(|_| broken("integrity", "the router answered what cannot be read"))
    }
}
