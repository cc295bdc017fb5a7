//! From HELLO to WELCOME: the realm, the method, the challenge, and the one place where a session begins.

use serde_json::{Map, Value as Json};

use super::authenticate::{Facts, Principal, Proof, Refusal, Verdict};
use super::effects::Effects;
use super::identity::Identity;
use super::peer::{RealmIndex, SessionKey};
use super::realm::Realm;
use super::session::State;
use super::{AGENT, FEATURES, Now, Router};
use crate::config::AuthMethod;
use crate::wamp::arguments::Arguments;
use crate::wamp::codec::Serializer;
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{Authenticate, Challenge, Hello, Message, Value, Welcome};
use crate::wamp::options::{Text, WelcomeDetails};
use crate::wamp::uri::{UriRule, check};
use crate::wamp::{Payload, ProtocolError, RequestId, SessionId};

/// What is remembered between CHALLENGE and WELCOME. Ends with the answer, and with the connection.
#[derive(Debug)]
pub(super) struct Challenged {
    realm: RealmIndex,
    features: ClientFeatures,
    method: AuthMethod,
    /// The id that the session will have.
    id: SessionId,
    /// The role that the client asked for.
    authrole: Option<Box<str>>,
    principal: Principal,
    proof: Proof,
}

impl Router {
    pub(super) fn handle_hello(
        &mut self,
        now: Now,
        key: SessionKey,
        hello: &Hello<'_>,
        effects: &mut impl Effects,
    ) {
        let realm = self.realms.iter().position(|realm| *realm.name == *hello.realm);
        let Some(realm) = realm.map(|index| RealmIndex(index as u16)) else {
            let limits = self.limits.uri_limits();
            if let Err(error) = check(&hello.realm, UriRule::Loose, limits) {
                self.abort(key, uri::INVALID_URI, error.as_str(), effects);
                return;
            }
            self.abort(key, uri::NO_SUCH_REALM, "no such realm on this router", effects);
            return;
        };
        // A client that says nothing has nothing to show (advanced profile, "Authentication Methods").
        let offered = hello.details.authmethods.as_deref().filter(|offered| !offered.is_empty());
        let offered = offered.unwrap_or(&[Text::Borrowed("anonymous")]);
        let extra = values_of(hello.details.authextra);
        let mut refusal = None;
        for method in offered.iter().filter_map(|word| AuthMethod::of_word(word)) {
            if !self.is_allowed(key, realm, method) {
                continue;
            }
            if method == AuthMethod::Anonymous {
                self.open_anonymous(key, realm, hello.details.features, effects);
                return;
            }
            match self.challenge(now, key, realm, method, &extra, hello, effects) {
                Some(Ok(())) => return,
                Some(Err(problem)) => refusal = refusal.or(Some(problem)),
                None => {}
            }
        }
        if let Some(problem) = refusal {
            self.abort(key, uri::AUTHENTICATION_FAILED, problem, effects);
            return;
        }
        let words: Vec<_> = AuthMethod::ALL
            .iter()
            .copied()
            .filter(|method| self.is_allowed(key, realm, *method))
            .map(|method| format!("`{}`", method.as_str()))
            .collect();
        let text = match words.is_empty() {
            true => "nobody can log in to this realm by this listener".to_owned(),
            false => format!("who comes in here has to log in by {}", words.join(" or ")),
        };
        let says_nothing = offered.iter().all(|word| word == AuthMethod::Anonymous.as_str());
        let error = if says_nothing { uri::AUTHENTICATION_REQUIRED } else { uri::NO_MATCHING_AUTH_METHOD };
        self.abort(key, error, &text, effects);
    }

    /// Whether the realm and the listener both let clients log in so.
    fn is_allowed(&self, key: SessionKey, realm: RealmIndex, method: AuthMethod) -> bool {
        let listener = usize::from(self.sessions.at(key.slot).listener);
        self.realms[usize::from(realm.0)]
            .methods
            .get(listener)
            .is_some_and(|methods| methods.contains(&method))
    }

    fn open_anonymous(
        &mut self,
        key: SessionKey,
        realm: RealmIndex,
        features: ClientFeatures,
        effects: &mut impl Effects,
    ) {
        let listener = usize::from(self.sessions.at(key.slot).listener);
        let role = self.realms[usize::from(realm.0)].anonymous_role.get(listener).copied().flatten();
        let Some(role) = role else {
            let text = "the realm has no role for anonymous sessions that come in here";
            self.abort(key, uri::NO_SUCH_ROLE, text, effects);
            return;
        };
        let id = self.random.session_id();
        self.open_session(key, Admission { id, realm, role, features, identity: None }, effects);
    }

    /// Sends CHALLENGE. `None` where the principal does not have the method, an error where HELLO lacks what it needs.
    #[allow(clippy::too_many_arguments, reason = "all that a challenge is made of")]
    fn challenge(
        &mut self,
        now: Now,
        key: SessionKey,
        realm: RealmIndex,
        method: AuthMethod,
        extra: &Map<String, Json>,
        hello: &Hello<'_>,
        effects: &mut impl Effects,
    ) -> Option<Result<(), Refusal>> {
        let (nonce, id) = (self.random.nonce(), self.random.session_id());
        let Realm { accounts, roles, .. } = &self.realms[usize::from(realm.0)];
        let authid = hello.details.authid.as_deref();
        if authid.is_none() && (method != AuthMethod::Cryptosign || !extra.contains_key("pubkey")) {
            return Some(Err("HELLO.Details.authid is missing: it says who wants to log in"));
        }
        let principal = accounts.find(method, authid, extra)?;
        let account = accounts.account(principal);
        let facts = Facts {
            now,
            nonce: &nonce,
            session: id,
            authid: authid.unwrap_or(&account.user.authid),
            role: &roles[usize::from(account.role)].name,
            extra,
        };
        let (challenge, proof) = match accounts.begin(method, principal, &facts)? {
            Ok(begun) => begun,
            Err(refusal) => return Some(Err(refusal)),
        };
        let challenged = Challenged {
            realm,
            features: hello.details.features,
            method,
            id,
            authrole: hello.details.authrole.as_deref().map(Box::from),
            principal,
            proof,
        };
        self.sessions.at_mut(key.slot).state = State::Challenging;
        self.challenges.insert(key, Box::new(challenged));
        let extra = Value { serializer: Serializer::Json, bytes: challenge.as_bytes() };
        let message = Challenge { method: Text::Borrowed(method.as_str()), extra };
        let _ = effects.reply(key, &Message::Challenge(message));
        Some(Ok(()))
    }

    /// Between CHALLENGE and WELCOME: anything but AUTHENTICATE and ABORT fails the session.
    pub(super) fn handle_in_challenge(
        &mut self,
        key: SessionKey,
        message: &Message<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        match message {
            Message::Authenticate(message) => {
                self.handle_authenticate(key, message, effects);
                Ok(())
            }
            Message::Abort(_) => {
                self.handle_client_abort(key, effects);
                Ok(())
            }
            other => {
                let name = other.kind().name();
                Err(ProtocolError::new(format!("{name}: the router waits for AUTHENTICATE")))
            }
        }
    }

    fn handle_authenticate(
        &mut self,
        key: SessionKey,
        message: &Authenticate<'_>,
        effects: &mut impl Effects,
    ) {
        let Some(challenged) = self.challenges.remove(&key) else { return };
        let accounts = &self.realms[usize::from(challenged.realm.0)].accounts;
        let extra = values_of(Some(message.extra));
        let verdict = accounts.verify(challenged.principal, &challenged.proof, &message.signature, &extra);
        self.finish_authentication(key, *challenged, verdict, effects);
    }

    fn finish_authentication(
        &mut self,
        key: SessionKey,
        challenged: Challenged,
        verdict: Verdict,
        effects: &mut impl Effects,
    ) {
        let Verdict::Right { authextra } = verdict else {
            let text = "the authentication was denied: there is no such user, or the secret is another one";
            self.abort(key, uri::AUTHENTICATION_DENIED, text, effects);
            return;
        };
        let realm = &self.realms[usize::from(challenged.realm.0)];
        let account = realm.accounts.account(challenged.principal);
        let role = account.role;
        let is_wanted = |wanted: &str| *realm.roles[usize::from(role)].name == *wanted;
        if !challenged.authrole.as_deref().is_none_or(is_wanted) {
            let text = "the user has another role than HELLO.Details.authrole";
            self.abort(key, uri::NO_SUCH_ROLE, text, effects);
            return;
        }
        let identity = Identity {
            authid: account.user.authid.as_str().into(),
            authmethod: challenged.method,
            authprovider: "static",
            authextra,
        };
        let admission = Admission {
            id: challenged.id,
            realm: challenged.realm,
            role,
            features: challenged.features,
            identity: Some(Box::new(identity)),
        };
        self.open_session(key, admission, effects);
    }

    /// The one place where a session begins: WELCOME.
    fn open_session(&mut self, key: SessionKey, admission: Admission, effects: &mut impl Effects) {
        let Admission { id, realm: realm_index, role, features, identity } = admission;
        let session = self.sessions.at_mut(key.slot);
        session.state = State::Open;
        session.realm = realm_index;
        session.role = role;
        session.features = features;
        session.id = id;
        session.last_request = RequestId(0);
        session.identity = identity;
        effects.counters().sessions_opened += 1;
        effects.opened(key, id);
        let realm = &self.realms[usize::from(realm_index.0)];
        let session = self.sessions.at(key.slot);
        let authextra = session.authextra();
        let welcome = Message::Welcome(Welcome {
            session: id,
            details: WelcomeDetails {
                realm: Some(Text::Borrowed(&realm.name)),
                authid: Some(Text::Owned(session.authid())),
                authrole: Some(Text::Borrowed(&realm.roles[role as usize].name)),
                authmethod: Some(Text::Borrowed(session.authmethod())),
                authprovider: Some(Text::Borrowed(session.authprovider())),
                authextra: authextra
                    .map(|extra| Value { serializer: Serializer::Json, bytes: extra.as_bytes() }),
                agent: Some(Text::Borrowed(AGENT)),
                features: if realm.meta_api { FEATURES } else { FEATURES.without(super::meta::FEATURES) },
            },
        });
        let _ = effects.reply(key, &welcome);
        self.session_joined(key, effects);
    }
}

/// The values of `authextra`, or of AUTHENTICATE.Extra. What has no place in JSON is nothing to any method.
fn values_of(extra: Option<Value<'_>>) -> Map<String, Json> {
    let Some(Value { serializer, bytes }) = extra else { return Map::new() };
    Arguments::read(&Payload { serializer, args: &[], kwargs: bytes }).unwrap_or_default().kwargs
}

/// Who is let in, and as what.
struct Admission {
    id: SessionId,
    realm: RealmIndex,
    role: u16,
    features: ClientFeatures,
    /// `None` for an anonymous session.
    identity: Option<Box<Identity>>,
}
