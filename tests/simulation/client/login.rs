//! How a client says who it is, rightly or wrongly.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crosspoint::password::hmac;
use crosspoint::wamp::codec::{Encoder, Serializer};
use crosspoint::wamp::error::uri;
use crosspoint::wamp::message::{Authenticate, Challenge, Message, Value as WireValue, Welcome};
use crosspoint::wamp::options::{HelloDetails, Text};

use super::{Client, Stage};
use crate::advanced::{Advanced, PEOPLE, Person};
use crate::history::cookies::{Moment, Visitor};
use crate::history::{Kept, broken};
use crate::random::Random;
use crate::transport::Framing;

/// Who somebody says it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    person: &'static Person,
    method: &'static str,
    /// It knows the secret.
    is_right: bool,
    /// It has shown something.
    is_shown: bool,
}

impl Login {
    /// `None` for somebody who does not say.
    pub(super) fn any(advanced: Advanced, random: &mut Random) -> Option<Self> {
        let with_dynamic = advanced.authenticator;
        let known = if with_dynamic { PEOPLE.len() } else { PEOPLE.len() / 2 };
        // Some more often than others, so that they are there twice.
        let place = random.below(known + 1).min(random.below(known + 1));
        let place = if advanced.takes_over && random.once_in(2) { 0 } else { place };
        let person = PEOPLE[..known].get(place)?;
        let method = if random.once_in(2) { "ticket" } else { "wampcra" };
        Some(Self { person, method, is_right: !random.once_in(6), is_shown: false })
    }

    pub(super) fn announce(&self, details: &mut HelloDetails<'_>) {
        details.authid = Some(self.person.authid.into());
        details.authmethods = Some(vec![self.method.into()]);
    }
}

impl Client {
    pub(super) fn receive_challenge(&mut self, challenge: &Challenge<'_>, stage: &mut Stage<'_>) -> Kept {
        let Some(login) = self.login.as_mut().filter(|login| !login.is_shown) else {
            return broken("login", format!("client {} gets {challenge:?}", self.number));
        };
        login.is_shown = true;
        let login = *login;
        self.is_passed_over(stage)?;
        let login = &login;
        if challenge.method != login.method {
            return broken("login", format!("{login:?} gets {challenge:?}"));
        }
        let signature = if login.method == "ticket" {
            let ticket = login.person.ticket();
            if login.is_right { ticket } else { format!("{ticket}?") }
        } else {
            let secret = login.person.secret();
            let key = if login.is_right { secret } else { login.person.ticket() };
            STANDARD.encode(hmac(key.as_bytes(), text_to_sign(&challenge.extra)?.as_bytes()))
        };
        if let (Some(cookie), true) = (&self.cookie, login.is_right) {
            let (who, now) = (self.visitor(login.person), moment(stage));
            stage.history.cookies.shows(cookie, who, login.person.role, now);
        }
        let serializer = self.transport.serializer;
        let extra = WireValue { serializer, bytes: &[] };
        let signature = Text::Owned(signature);
        self.send(&Message::Authenticate(Authenticate { signature, extra }), stage);
        Ok(())
    }

    /// WELCOME tells somebody who it is: that is who it said, and it has shown so.
    pub(super) fn check_welcome(&self, welcome: &Welcome<'_>, stage: &mut Stage<'_>) -> Kept {
        let details = &welcome.details;
        if let Some(login) = &self.login
            && let Some(cookie) = &self.cookie
        {
            let who = self.visitor(login.person);
            if details.authmethod.as_deref() == Some("cookie") {
                let is_so = details.authid.as_deref() == Some(login.person.authid)
                    && details.authrole.as_deref() == Some(login.person.role)
                    && !login.is_shown;
                return match self.cookie_shown {
                    Some(shown) if is_so => stage.history.receive_welcome_by_cookie(cookie, who, shown),
                    _ => broken("cookie", format!("{login:?} is let in by a cookie as {details:?}")),
                };
            }
            let now = moment(stage);
            stage.history.cookies.is_let_in(cookie, who, now);
        }
        let is_so = match &self.login {
            Some(Login { person, is_right, is_shown, .. }) => {
                *is_right
                    && *is_shown
                    && details.authid.as_deref() == Some(person.authid)
                    && details.authrole.as_deref() == Some(person.role)
            }
            None => {
                details.authrole.as_deref() == Some("anonymous")
                    && details.authid.as_deref().is_some_and(|authid| authid.starts_with("anonymous-"))
            }
        };
        if is_so { Ok(()) } else { broken("login", format!("{:?} is let in as {details:?}", self.login)) }
    }

    fn visitor(&self, person: &'static Person) -> Visitor {
        Visitor { realm: self.realm, core: self.core, authid: person.authid }
    }

    /// Two clients are one browser.
    fn browser(&self) -> usize {
        self.number / 2
    }

    /// The cookie that the handshake brings, if there is any.
    pub(super) fn cookie_to_bring(&self, stage: &mut Stage<'_>) -> Option<String> {
        if !stage.advanced.has_cookies() || self.transport.framing == Framing::RawSocket {
            return None;
        }
        let cookie = stage.history.cookies.jars.get(&self.browser())?;
        (!stage.random.once_in(6)).then(|| cookie.clone())
    }

    /// The handshake was answered, perhaps with a cookie.
    pub(super) fn take_cookie(&mut self, given: Option<String>, stage: &mut Stage<'_>) {
        if let Some(given) = given {
            stage.history.cookies.jars.insert(self.browser(), given.clone());
            self.cookie = Some(given);
        }
    }

    /// HELLO offers the cookie of the connection, before all else.
    pub(super) fn offer_cookie(&mut self, details: &mut HelloDetails<'_>, stage: &mut Stage<'_>) {
        self.cookie_shown = None;
        // Mostly whose browser it is.
        let known = self.cookie.as_deref().and_then(|cookie| stage.history.cookies.of(cookie));
        if let (Some(login), Some(authid)) = (&mut self.login, known)
            && stage.advanced.has_cookies()
            && !stage.random.once_in(4)
            && let Some(person) = PEOPLE.iter().find(|person| person.authid == authid)
        {
            login.person = person;
            details.authid = Some(person.authid.into());
        }
        if stage.advanced.has_cookies()
            && self.login.is_some()
            && self.cookie.is_some()
            && !stage.random.once_in(4)
            && let Some(methods) = &mut details.authmethods
        {
            methods.insert(0, "cookie".into());
            self.cookie_shown = Some(moment(stage));
        }
    }

    /// The cookie stands for nobody, or for somebody else.
    fn is_passed_over(&self, stage: &Stage<'_>) -> Kept {
        let (Some(cookie), Some(shown), Some(login)) = (&self.cookie, self.cookie_shown, &self.login) else {
            return Ok(());
        };
        let who = self.visitor(login.person);
        stage.history.check_that_it_stands_for_nobody(cookie, who, shown, stage.net.now_us)
    }

    /// Whether it is refused for this reason as it should be.
    pub(super) fn is_denied(&self, reason: &str) -> bool {
        reason == uri::AUTHENTICATION_DENIED
            && self.login.is_some_and(|login| !login.is_right && login.is_shown)
    }
}

fn moment(stage: &Stage<'_>) -> Moment {
    Moment { step: stage.step, now_us: stage.net.now_us }
}

/// What is to be signed with the secret.
fn text_to_sign(extra: &WireValue<'_>) -> Result<String, crate::history::Violation> {
    let mut list = Vec::new();
    // As a list of one, so that what transcodes payloads reads it.
    match extra.serializer {
        Serializer::Json => list.extend([b"[", extra.bytes, b"]"].concat()),
        Serializer::MsgPack => list.extend([&[0x91], extra.bytes].concat()),
        Serializer::Cbor => list.extend([&[0x81], extra.bytes].concat()),
    }
    let payload = crosspoint::wamp::Payload { serializer: extra.serializer, args: &list, kwargs: &[] };
    let read = Encoder::new().transcode(&payload, Serializer::Json).ok();
    let arguments = read.and_then(|read| crosspoint::wamp::Arguments::read(&read.as_payload()).ok());
    let text = arguments.as_ref().and_then(|read| read.args.first()?["challenge"].as_str());
    match text {
        Some(text) => Ok(text.to_owned()),
        None => broken("login", format!("CHALLENGE has nothing to sign: {extra:?}")),
    }
}
