//! Dynamic authentication: a procedure of a realm knows users that the configuration does not.
//!
//! It is asked when somebody says HELLO whom no `[[realm.user]]` names; where the client is to show a ticket, once it has shown
//! it. Until the answer is there the client has nothing to say.

use serde_json::{Map, Value as Json, json};

use super::Router;
use super::authenticate::{Answered, Facts, Proof, Refused, announced_key, begin_with, read_answer};
use super::effects::Effects;
use super::joining::{Challenged, Who};
use super::own_calls::{Answer, Purpose};
use super::peer::{RealmIndex, SessionKey};
use super::session::State;
use crate::config::AuthMethod;
use crate::config::authentication::PublicKey;
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::Hello;
use crate::wamp::{Arguments, RequestId, SessionId};

/// The procedure that knows the users of a realm.
#[derive(Clone, Debug)]
pub(super) struct Authenticator {
    pub(super) procedure: Box<str>,
    /// Where it is registered.
    pub(super) realm: RealmIndex,
}

/// Somebody who wants in and is asked about. Ends with the answer, and with the connection.
#[derive(Debug)]
pub(super) struct Asked {
    call: Option<RequestId>,
    newcomer: Newcomer,
    /// HELLO.Details.authextra
    extra: Map<String, Json>,
    announced_key: Option<PublicKey>,
}

/// What HELLO said.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) realm: RealmIndex,
    pub(super) features: ClientFeatures,
    pub(super) method: AuthMethod,
    /// The id that the session will have.
    pub(super) id: SessionId,
    pub(super) authid: Option<Box<str>>,
    /// The role that the client asked for.
    pub(super) authrole: Option<Box<str>>,
}

impl Newcomer {
    /// Somebody who wants to log in like this, and will have this id.
    pub(super) fn of(hello: &Hello<'_>, realm: RealmIndex, method: AuthMethod, id: SessionId) -> Self {
        let details = &hello.details;
        Self {
            realm,
            features: details.features,
            method,
            id,
            authid: details.authid.as_deref().map(Box::from),
            authrole: details.authrole.as_deref().map(Box::from),
        }
    }
}

impl Router {
    /// Asks about somebody; `ticket` is what was shown.
    pub(super) fn ask_authenticator(
        &mut self,
        key: SessionKey,
        newcomer: Newcomer,
        extra: Map<String, Json>,
        ticket: Option<&str>,
        effects: &mut impl Effects,
    ) {
        let realm = &self.realms[usize::from(newcomer.realm.0)];
        let Some(authenticator) = realm.authenticator.clone() else { return };
        if self.asked.len() >= self.limits.authenticator_calls_max {
            effects.counters().authentications_refused += 1;
            let text = "too many log in at this moment; come back in a few seconds";
            self.abort(key, uri::UNAVAILABLE, text, effects);
            return;
        }
        let mut details = json!({
            "authmethod": newcomer.method.as_str(),
            "authrole": newcomer.authrole,
            "authextra": extra,
            "session": newcomer.id.0,
        });
        if let Some(ticket) = ticket {
            details["ticket"] = ticket.into();
        }
        let arguments = Arguments::from(vec![json!(*realm.name), json!(newcomer.authid), details]);
        let announced_key =
            if newcomer.method == AuthMethod::Cryptosign { announced_key(&extra) } else { None };
        let timeout_us = self.limits.authenticator_timeout.as_micros() as u64;
        let deadline_us = self.now.monotonic_us.saturating_add(timeout_us);
        self.sessions.at_mut(key.slot).state = State::Challenging;
        self.asked.insert(key, Box::new(Asked { call: None, newcomer, extra, announced_key }));
        effects.counters().authentications_asked += 1;
        let (procedure, purpose) = (&authenticator.procedure, Purpose::Authenticate(key));
        let call =
            self.call_by_router(authenticator.realm, procedure, &arguments, deadline_us, purpose, effects);
        if let Some(asked) = self.asked.get_mut(&key) {
            asked.call = Some(call);
        }
    }

    /// The authenticator has answered, or will not.
    pub(super) fn handle_authenticator_answer(
        &mut self,
        key: SessionKey,
        answer: &Answer<'_>,
        effects: &mut impl Effects,
    ) {
        let Some(asked) = self.asked.remove(&key) else { return };
        let Asked { newcomer, extra, announced_key, .. } = *asked;
        let realm = &self.realms[usize::from(newcomer.realm.0)];
        let read =
            read_answer(answer, newcomer.method, &realm.name, newcomer.authid.as_deref(), announced_key);
        let answered = match read {
            Ok(answered) => Box::new(answered),
            Err(Refused::Denied) => {
                self.deny_authentication(key, effects);
                return;
            }
            Err(Refused::Failed(text)) => {
                self.abort(key, uri::AUTHENTICATION_FAILED, text, effects);
                return;
            }
        };
        let Some(role) = realm.role_of_name(&answered.user.role) else {
            let text = "who knows the users answered with a role that the realm does not have";
            self.abort(key, uri::AUTHENTICATION_FAILED, text, effects);
            return;
        };
        if newcomer.method == AuthMethod::Ticket {
            let authextra = answered.authextra.clone();
            let who = Who::Answered { answered, role };
            self.let_in(key, newcomer, &who, authextra, effects);
            return;
        }
        self.challenge_answered(key, newcomer, &extra, answered, role, effects);
    }

    /// Sends CHALLENGE to somebody whom the authenticator knows.
    fn challenge_answered(
        &mut self,
        key: SessionKey,
        newcomer: Newcomer,
        extra: &Map<String, Json>,
        answered: Box<Answered>,
        role: u16,
        effects: &mut impl Effects,
    ) {
        let nonce = self.random.nonce();
        // With SCRAM the client signs the name that it gave, of which the authenticator may have made another.
        let is_scram = matches!(newcomer.method, AuthMethod::WampScram | AuthMethod::Scram);
        let said = newcomer.authid.as_deref().filter(|_| is_scram);
        let facts = Facts {
            now: self.now,
            nonce: &nonce,
            session: newcomer.id,
            authid: said.unwrap_or(&answered.user.authid),
            role: &self.realms[usize::from(newcomer.realm.0)].roles[usize::from(role)].name,
            extra,
        };
        match begin_with(&answered.user, newcomer.method, &facts) {
            Some(Ok((challenge, proof))) => {
                let who = Who::Answered { answered, role };
                self.send_challenge(key, Challenged { newcomer, who, proof }, &challenge, effects);
            }
            Some(Err(refusal)) => self.abort(key, uri::AUTHENTICATION_FAILED, refusal, effects),
            None => self.deny_authentication(key, effects),
        }
    }

    /// Sends the CHALLENGE of `ticket` to somebody whom the configuration does not name.
    pub(super) fn challenge_for_ticket(
        &mut self,
        key: SessionKey,
        newcomer: Newcomer,
        effects: &mut impl Effects,
    ) {
        let challenged = Challenged { newcomer, who: Who::Unknown, proof: Proof::Ticket };
        self.send_challenge(key, challenged, "{}", effects);
    }

    /// The connection ends.
    pub(super) fn forget_question(&mut self, key: SessionKey, effects: &mut impl Effects) {
        if let Some(asked) = self.asked.remove(&key)
            && let Some(call) = asked.call
        {
            self.give_up_own_call(call, effects);
        }
    }
}
