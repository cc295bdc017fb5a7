//! From HELLO to WELCOME: the realm, the method, the challenge, and the one place where a session begins.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::SlowCheck;
use super::authenticate::{
    Answered, Bearer, Facts, Principal, Proof, Refusal, Verdict, announced_key, verify_with,
};
use super::authenticator::Newcomer;
use super::effects::Effects;
use super::fault::Fault;
use super::identity::{Identity, NEVER};
use super::peer::{RealmIndex, SessionKey};
use super::realm::Realm;
use super::session::State;
use super::{AGENT, FEATURES, Now, Router};
use crate::config::AuthMethod;
use crate::token::{Keys, SlowSignature, Token};
use crate::wamp::arguments::Arguments;
use crate::wamp::codec::Serializer;
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{Authenticate, Challenge, Hello, Message, Value, Welcome};
use crate::wamp::options::{Text, WelcomeDetails};
use crate::wamp::uri::{UriRule, check};
use crate::wamp::{CloseReason, Payload, ProtocolError, RequestId, SessionId};

/// What is remembered between CHALLENGE and WELCOME. Ends with the answer, and with the connection.
#[derive(Debug)]
pub(super) struct Challenged {
    pub(super) newcomer: Newcomer,
    pub(super) who: Who,
    pub(super) proof: Proof,
}

/// Whom a proof is checked with.
#[derive(Debug)]
pub(super) enum Who {
    /// A user of the configuration, or one who stands in.
    Configured(Principal),
    /// An authenticator knows the user.
    Answered { answered: Box<Answered>, role: u16 },
    /// A token says who it is, and what becomes of it, if the realm has the role; before it was shown nobody knows.
    Bearer(Option<(Box<Bearer>, Option<u16>)>),
    /// An authenticator will be asked, once there is something to show it.
    Unknown,
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
        if self.open_for_database(key, realm, hello, effects) {
            return;
        }
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
            if !effects.may_log_in(key) {
                let text = "too many logins from this address have failed; try again in a few minutes";
                self.abort(key, uri::LIMIT_REACHED, text, effects);
                return;
            }
            if method == AuthMethod::Cookie {
                if self.open_by_cookie(key, realm, hello, effects) {
                    return;
                }
                continue;
            }
            match self.begin_login(now, key, realm, method, &extra, hello, effects) {
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
            // Nobody begins with a cookie.
            .filter(|method| *method != AuthMethod::Cookie && self.is_allowed(key, realm, *method))
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

    /// Opens a session for whom the cookie of the connection stands for; `false` where it stands for nobody, or for somebody
    /// else than HELLO names.
    fn open_by_cookie(
        &mut self,
        key: SessionKey,
        realm: RealmIndex,
        hello: &Hello<'_>,
        effects: &mut impl Effects,
    ) -> bool {
        let Some(login) = self.login_at(key) else { return false };
        let details = &hello.details;
        let role = login.role;
        let is_wanted =
            |wanted: &Option<Text<'_>>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let names = &self.realms[usize::from(realm.0)];
        if login.realm != realm
            || !self.is_allowed(key, realm, login.method)
            || (!is_wanted(&details.authid, &login.authid) && !self.is_broken(Fault::TrustCookies))
            || !is_wanted(&details.authrole, &names.roles[usize::from(role)].name)
        {
            return false;
        }
        let identity = Identity {
            authid: login.authid.clone(),
            authmethod: AuthMethod::Cookie,
            authprovider: "cookie",
            authextra: login.authextra.clone(),
            expires_us: login.session_expires_us,
        };
        effects.counters().cookie_sessions += 1;
        let id = self.random.session_id();
        let identity = Some(Box::new(identity));
        self.open_session(key, Admission { id, realm, role, features: details.features, identity }, effects);
        true
    }

    /// As [`Self::challenge`], also for those whom a token may let in.
    #[allow(clippy::too_many_arguments, reason = "all that a challenge is made of")]
    fn begin_login(
        &mut self,
        now: Now,
        key: SessionKey,
        realm: RealmIndex,
        method: AuthMethod,
        extra: &Map<String, Json>,
        hello: &Hello<'_>,
        effects: &mut impl Effects,
    ) -> Option<Result<(), Refusal>> {
        if method != AuthMethod::Jwt {
            let begun = self.challenge(now, key, realm, method, extra, hello, effects);
            let takes_tokens =
                method == AuthMethod::Ticket && self.realms[usize::from(realm.0)].tokens.is_some();
            if begun.is_some() || !takes_tokens {
                return begun;
            }
        }
        let newcomer = Newcomer::of(hello, realm, method, self.random.session_id());
        let challenged = Challenged { newcomer, who: Who::Bearer(None), proof: Proof::Token };
        self.send_challenge(key, challenged, "{}", effects);
        Some(Ok(()))
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
        let newcomer = Newcomer::of(hello, realm, method, id);
        if self.realms[usize::from(realm.0)].authenticator.is_some()
            && !accounts.names(authid, announced_key(extra).as_ref())
        {
            if method == AuthMethod::Ticket {
                self.challenge_for_ticket(key, newcomer, effects);
            } else {
                self.ask_authenticator(key, newcomer, extra.clone(), None, effects);
            }
            return Some(Ok(()));
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
        let challenged = Challenged { newcomer, who: Who::Configured(principal), proof };
        self.send_challenge(key, challenged, &challenge, effects);
        Some(Ok(()))
    }

    /// Sends CHALLENGE, with this map in JSON.
    pub(super) fn send_challenge(
        &mut self,
        key: SessionKey,
        challenged: Challenged,
        challenge: &str,
        effects: &mut impl Effects,
    ) {
        let method = challenged.newcomer.method;
        self.sessions.at_mut(key.slot).state = State::Challenging;
        self.challenges.insert(key, Box::new(challenged));
        let extra = Value { serializer: Serializer::Json, bytes: challenge.as_bytes() };
        let message = Challenge { method: Text::Borrowed(method.as_str()), extra };
        let _ = effects.reply(key, &Message::Challenge(message));
    }

    /// Between CHALLENGE and WELCOME: anything but AUTHENTICATE and ABORT fails the session.
    pub(super) fn handle_in_challenge(
        &mut self,
        key: SessionKey,
        message: &Message<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        match message {
            Message::Authenticate(message) if self.challenges.contains_key(&key) => {
                self.handle_authenticate(key, message, effects)
            }
            Message::Authenticate(_) => {
                let text = "AUTHENTICATE: nothing was challenged, or it was answered already";
                Err(ProtocolError::new(text))
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
    ) -> Result<(), ProtocolError> {
        let Some(challenged) = self.challenges.remove(&key) else { return Ok(()) };
        let Challenged { newcomer, who, proof } = *challenged;
        if matches!(proof, Proof::Checking) {
            return Err(ProtocolError::new("AUTHENTICATE: the one before it is being checked"));
        }
        if let Proof::Token | Proof::Ticket = proof
            && self.realms[usize::from(newcomer.realm.0)].tokens.is_some()
            && let Some(token) = Token::read(&message.signature)
        {
            self.verify_token(key, newcomer, token, effects);
            return Ok(());
        }
        let extra = values_of(Some(message.extra));
        let verdict = match &who {
            Who::Bearer(_) => Verdict::Wrong,
            Who::Configured(principal) => {
                let accounts = &self.realms[usize::from(newcomer.realm.0)].accounts;
                accounts.verify(*principal, &proof, &message.signature, &extra)
            }
            Who::Answered { answered, .. } => {
                match verify_with(&answered.user, &proof, &message.signature, &extra) {
                    Verdict::Right { authextra } if authextra.is_empty() => {
                        Verdict::Right { authextra: answered.authextra.clone() }
                    }
                    verdict => verdict,
                }
            }
            Who::Unknown => {
                self.ask_authenticator(key, newcomer, extra, Some(&message.signature), effects);
                return Ok(());
            }
        };
        match verdict {
            Verdict::Right { authextra } => self.let_in(key, newcomer, &who, authextra, effects),
            Verdict::Wrong => self.deny_authentication(key, effects),
            Verdict::Pending(check) => self.check_slowly(key, newcomer, who, check, effects),
        }
        Ok(())
    }

    fn check_slowly(
        &mut self,
        key: SessionKey,
        newcomer: Newcomer,
        who: Who,
        check: SlowCheck,
        effects: &mut impl Effects,
    ) {
        if effects.check(key, check) {
            // The session stays where it is, and so does its deadline; `handle_checked` goes on.
            let challenged = Challenged { newcomer, who, proof: Proof::Checking };
            self.challenges.insert(key, Box::new(challenged));
        } else {
            let text = "too many clients log in at once; try again in a moment";
            self.abort(key, uri::UNAVAILABLE, text, effects);
        }
    }

    fn verify_token(
        &mut self,
        key: SessionKey,
        newcomer: Newcomer,
        token: Token,
        effects: &mut impl Effects,
    ) {
        let Realm { tokens: Some(tokens), roles, .. } = &self.realms[usize::from(newcomer.realm.0)] else {
            return;
        };
        let Some(bearer) = tokens.bearer(self.now, &token, newcomer.authid.as_deref()) else {
            return self.deny_authentication(key, effects);
        };
        let role = roles.iter().position(|role| role.name == bearer.role).map(|role| role as u16);
        let keys = Arc::clone(&tokens.keys);
        let authextra = bearer.authextra.clone().unwrap_or_default();
        let who = Who::Bearer(Some((Box::new(bearer), role)));
        if token.is_slow() {
            let signature = SlowSignature { token: Box::new(token), keys };
            self.check_slowly(key, newcomer, who, SlowCheck::Signature(signature), effects);
        } else if token.is_signed(&keys) {
            self.let_in(key, newcomer, &who, authextra, effects);
        } else {
            self.deny_authentication(key, effects);
        }
    }

    /// What tokens of a realm are signed with from now on.
    pub fn set_signing_keys(&mut self, realm: RealmIndex, keys: &Arc<Keys>) {
        if let Some(tokens) =
            self.realms.get_mut(usize::from(realm.0)).and_then(|realm| realm.tokens.as_mut())
        {
            tokens.keys = Arc::clone(keys);
        }
    }

    /// Ends the sessions whose tokens have expired.
    pub(super) fn end_expired(&mut self, effects: &mut impl Effects) {
        while let Some((at_us, key)) = self.expiries.first().copied()
            && at_us <= self.now.monotonic_us
        {
            self.expiries.pop_first();
            self.close(key, CloseReason::TokenExpired, effects);
        }
    }

    /// What a slow check of [`Effects::check`] came to. Whoever has gone in the meantime is not there any more.
    pub fn handle_checked(&mut self, now: Now, key: SessionKey, is_right: bool, effects: &mut impl Effects) {
        self.now = now;
        if !self.challenges.get(&key).is_some_and(|challenged| matches!(challenged.proof, Proof::Checking)) {
            return;
        }
        let Some(challenged) = self.challenges.remove(&key) else { return };
        let Challenged { newcomer, who, .. } = *challenged;
        let (is_real, authextra) = match &who {
            Who::Configured(principal) => (principal.is_real(), Box::default()),
            Who::Answered { answered, .. } => (true, answered.authextra.clone()),
            Who::Bearer(bearer) => {
                let authextra = bearer.as_ref().and_then(|(bearer, _)| bearer.authextra.clone().ok());
                (true, authextra.unwrap_or_default())
            }
            Who::Unknown => (false, Box::default()),
        };
        // Only now: a stand-in must cost what a user does.
        if is_right & is_real {
            self.let_in(key, newcomer, &who, authextra, effects);
        } else {
            self.deny_authentication(key, effects);
        }
        self.close_doomed(effects);
    }

    pub(super) fn deny_authentication(&mut self, key: SessionKey, effects: &mut impl Effects) {
        effects.login_failed(key);
        let text = "the authentication was denied: there is no such user, or the secret is another one";
        self.abort(key, uri::AUTHENTICATION_DENIED, text, effects);
    }

    /// Somebody has shown who it is.
    pub(super) fn let_in(
        &mut self,
        key: SessionKey,
        newcomer: Newcomer,
        who: &Who,
        authextra: Box<str>,
        effects: &mut impl Effects,
    ) {
        let realm = &self.realms[usize::from(newcomer.realm.0)];
        let mut expires_us = NEVER;
        let (role, authid, authprovider) = match who {
            Who::Configured(principal) => {
                let account = realm.accounts.account(*principal);
                (account.role, account.user.authid.as_str(), "static")
            }
            Who::Answered { answered, role } => (*role, answered.user.authid.as_str(), "dynamic"),
            Who::Bearer(Some((bearer, role))) => {
                // What is amiss with a token is told to nobody but who has a signed one.
                let Some(role) = *role else {
                    let text = "the realm does not have the role that the token names";
                    return self.abort(key, uri::NO_SUCH_ROLE, text, effects);
                };
                if let Err(problem) = bearer.authextra {
                    return self.abort(key, uri::AUTHENTICATION_FAILED, problem, effects);
                }
                expires_us = bearer.expires_us;
                (role, &*bearer.authid, "token")
            }
            Who::Bearer(None) | Who::Unknown => return,
        };
        let is_wanted = |wanted: &str| *realm.roles[usize::from(role)].name == *wanted;
        if !newcomer.authrole.as_deref().is_none_or(is_wanted) {
            let text = "the user has another role than HELLO.Details.authrole";
            self.abort(key, uri::NO_SUCH_ROLE, text, effects);
            return;
        }
        // What belongs to this one proof does not.
        let remembered_extra = match who {
            Who::Answered { answered, .. } => answered.authextra.clone(),
            Who::Bearer(_) => authextra.clone(),
            Who::Configured(_) | Who::Unknown => Box::default(),
        };
        let identity = Identity {
            authid: authid.into(),
            authmethod: newcomer.method,
            authprovider,
            authextra,
            expires_us,
        };
        let admission = Admission {
            id: newcomer.id,
            realm: newcomer.realm,
            role,
            features: newcomer.features,
            identity: Some(Box::new(identity)),
        };
        self.open_session(key, admission, effects);
        self.remember_login(key, remembered_extra, effects);
    }

    /// The one place where a session begins: WELCOME.
    pub(super) fn open_session(&mut self, key: SessionKey, admission: Admission, effects: &mut impl Effects) {
        let Admission { id, realm: realm_index, role, features, identity } = admission;
        if let Some(identity) = &identity
            && identity.expires_us != NEVER
        {
            self.expiries.insert((identity.expires_us, key));
        }
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
        realm.counts.sessions_opened.add(1);
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
pub(super) struct Admission {
    pub(super) id: SessionId,
    pub(super) realm: RealmIndex,
    pub(super) role: u16,
    pub(super) features: ClientFeatures,
    /// `None` for an anonymous session.
    pub(super) identity: Option<Box<Identity>>,
}
