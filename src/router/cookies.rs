//! Logins by cookie: who logged in by another method on a connection with a cookie is known again by it.
//!
//! A cookie is made when a handshake brings none that stands for a login, and stands for one only once somebody has logged in
//! on that very connection: one that a browser already had, from whomever, is never given a login. So nobody can hand
//! a cookie of his own to a browser and come in by it later. A cookie has one login, of one realm.
//!
//! Every core knows all logins: the core where one is made tells the others before WELCOME leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::effects::Effects;
use super::identity::Identity;
use super::peer::{CoreId, PeerMessage, RealmIndex, SessionKey};
use super::session::State;
use super::{Door, Now, Router};
use crate::config::{AuthMethod, Limits};
use crate::cookie::{Cookie, CookieDigest};
use crate::wamp::CloseReason;
use crate::wamp::error::uri;

/// A login is remembered if its authid and its authextra together are no longer than this, in bytes.
const LOGIN_BYTES_MAX: usize = 4096;

/// For so long a cookie that was logged out is remembered: word of its login may still be on its way from another core.
const LOGGED_OUT_US: u64 = 60_000_000;

/// What a cookie stands for.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) realm: RealmIndex,
    pub(super) role: u16,
    pub(super) authid: Box<str>,
    /// How it was made: where that method is not allowed the cookie is not either.
    pub(super) method: AuthMethod,
    /// For WELCOME: a map in JSON, or empty.
    pub(super) authextra: Box<str>,
    /// When sessions end by themselves that are opened with it.
    pub(super) session_expires_us: u64,
}

/// A cookie that somebody has logged in with.
#[derive(Debug)]
struct Entry {
    until_us: u64,
    /// `None` once it is logged out.
    login: Option<Box<Login>>,
}

/// The cookie of a connection.
#[derive(Clone, Copy, Debug)]
enum Jar {
    /// It was made for this connection, and stands for nothing yet.
    Fresh(CookieDigest),
    /// It stands, or stood, for a login.
    Taken(CookieDigest),
}

/// What one core tells the others of a cookie.
#[derive(Clone, Debug)]
pub enum CookieNews {
    /// Somebody has logged in.
    LoggedIn(LoggedIn),
    /// It stands for nothing any more.
    LoggedOut(LoggedOut),
    /// Nor do these, whose users were ended.
    Ended(Arc<[CookieDigest]>),
}

/// Whose logins end.
#[derive(Clone, Copy, Debug)]
pub(super) enum LoginsOf<'a> {
    Authid(&'a str),
    /// The place of a role among those of the realm.
    Role(u16),
    All,
}

/// See [`CookieNews`].
#[derive(Clone, Debug)]
pub struct LoggedIn {
    digest: CookieDigest,
    until_us: u64,
    login: Login,
}

/// See [`CookieNews`].
#[derive(Clone, Debug)]
pub struct LoggedOut {
    digest: CookieDigest,
    realm: RealmIndex,
    authid: Box<str>,
    /// The sessions of the user on connections with this cookie end as well.
    ends_sessions: bool,
}

impl CookieNews {
    /// What it holds beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let texts = match self {
            Self::LoggedIn(LoggedIn { login, .. }) => login.authid.len() + login.authextra.len(),
            Self::LoggedOut(LoggedOut { authid, .. }) => authid.len(),
            Self::Ended(digests) => size_of_val(&**digests),
        };
        size_of::<Self>() + texts
    }
}

/// The cookies that a core knows.
#[derive(Debug)]
pub(super) struct Cookies {
    /// By listener: how long a cookie is good, in microseconds, where there are any.
    ages_us: Vec<Option<u64>>,
    logins_max: usize,
    logins_per_user_max: usize,
    /// The same on every core but for what is on its way. Ends with its time, and a login also with a logout, with
    /// the procedures that end all sessions of users, and at the bounds.
    entries: HashMap<CookieDigest, Entry, FixedState>,
    /// `entries` by their time.
    by_time: BTreeSet<(u64, CookieDigest)>,
    /// Those with a login, by their users.
    by_user: BTreeSet<(RealmIndex, Box<str>, u64, CookieDigest)>,
    /// The cookies of the connections of this core. Ends with the connection.
    jars: HashMap<SessionKey, Jar, FixedState>,
    /// The connections that have a cookie which stands for something. Ends with the connection.
    bearers: BTreeSet<(CookieDigest, SessionKey)>,
}

impl Cookies {
    pub(super) fn new(doors: &[Door], limits: &Limits, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            ages_us: doors.iter().map(|door| door.cookie_age.map(|age| age.as_micros() as u64)).collect(),
            logins_max: limits.cookie_logins_max,
            logins_per_user_max: limits.cookie_logins_per_user_max,
            entries: HashMap::with_hasher(hasher.clone()),
            by_time: BTreeSet::new(),
            by_user: BTreeSet::new(),
            jars: HashMap::with_hasher(hasher),
            bearers: BTreeSet::new(),
        }
    }

    /// The cookies of connections: none when nobody is connected.
    pub(super) fn jars(&self) -> usize {
        self.jars.len() + self.bearers.len()
    }

    /// What cookies stand for, or stood for a moment ago.
    pub(super) fn logins(&self) -> usize {
        self.entries.len().max(self.by_time.len()).max(self.by_user.len())
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.by_time.first().map(|(until_us, _)| *until_us)
    }

    fn login(&self, digest: CookieDigest, now: Now) -> Option<&Login> {
        let entry = self.entries.get(&digest).filter(|entry| now.monotonic_us < entry.until_us)?;
        entry.login.as_deref()
    }

    /// What the cookie of a connection stands for.
    pub(super) fn login_at(&self, key: SessionKey, now: Now) -> Option<&Login> {
        match self.jars.get(&key)? {
            Jar::Fresh(_) => None,
            Jar::Taken(digest) => self.login(*digest, now),
        }
    }

    fn take(&mut self, key: SessionKey, digest: CookieDigest) {
        self.jars.insert(key, Jar::Taken(digest));
        self.bearers.insert((digest, key));
    }

    /// A connection ends.
    pub(super) fn leave(&mut self, key: SessionKey) {
        if let Some(Jar::Taken(digest)) = self.jars.remove(&key) {
            self.bearers.remove(&(digest, key));
        }
    }

    /// Somebody logged in with a cookie; how many logins had to be forgotten for that.
    fn insert(&mut self, logged_in: LoggedIn) -> u64 {
        let LoggedIn { digest, until_us, login } = logged_in;
        // One that was logged out stays so, whichever of the two is heard of first.
        if self.entries.contains_key(&digest) {
            return 0;
        }
        let (realm, authid) = (login.realm, login.authid.clone());
        self.by_time.insert((until_us, digest));
        self.by_user.insert((realm, authid.clone(), until_us, digest));
        self.entries.insert(digest, Entry { until_us, login: Some(Box::new(login)) });
        let mut forgotten = 0;
        // Every core forgets the same ones: those that end first.
        while let own = self.of_user(realm, &authid)
            && own.len() > self.logins_per_user_max
            && let Some(first) = own.first()
        {
            self.remove(*first);
            forgotten += 1;
        }
        while self.entries.len() > self.logins_max
            && let Some((_, first)) = self.by_time.first().copied()
        {
            forgotten += u64::from(self.remove(first).is_some());
        }
        forgotten
    }

    /// The cookies of a user, the one that ends first at the beginning.
    fn of_user(&self, realm: RealmIndex, authid: &str) -> Vec<CookieDigest> {
        let from = (realm, Box::from(authid), 0, CookieDigest::MIN);
        let own = self.by_user.range(from..).take_while(|(of, name, ..)| *of == realm && **name == *authid);
        own.map(|(.., digest)| *digest).collect()
    }

    /// The cookies of a realm that are meant, and how many had to be looked at.
    fn of(&self, realm: RealmIndex, whose: LoginsOf<'_>) -> (Vec<CookieDigest>, usize) {
        if let LoginsOf::Authid(authid) = whose {
            let own = self.of_user(realm, authid);
            let seen = own.len();
            return (own, seen);
        }
        let from = (realm, Box::default(), 0, CookieDigest::MIN);
        let all = self.by_user.range(from..).take_while(|(of, ..)| *of == realm).map(|(.., digest)| *digest);
        let mut seen = 0;
        let is_meant = |digest: &CookieDigest| {
            seen += 1;
            let login = self.entries.get(digest).and_then(|entry| entry.login.as_deref());
            match whose {
                LoginsOf::Role(role) => login.is_some_and(|login| login.role == role),
                LoginsOf::Authid(_) | LoginsOf::All => true,
            }
        };
        let meant = all.filter(is_meant).collect();
        (meant, seen)
    }

    fn remove(&mut self, digest: CookieDigest) -> Option<Box<Login>> {
        let Entry { until_us, login } = self.entries.remove(&digest)?;
        self.by_time.remove(&(until_us, digest));
        if let Some(login) = &login {
            self.by_user.remove(&(login.realm, login.authid.clone(), until_us, digest));
        }
        login
    }

    fn log_out(&mut self, digest: CookieDigest, now: Now) {
        self.remove(digest);
        let until_us = now.monotonic_us.saturating_add(LOGGED_OUT_US);
        self.by_time.insert((until_us, digest));
        self.entries.insert(digest, Entry { until_us, login: None });
    }

    /// Forgets what has passed its time.
    pub(super) fn expire(&mut self, now_us: u64) {
        while let Some((until_us, digest)) = self.by_time.first().copied()
            && until_us <= now_us
        {
            self.remove(digest);
        }
    }
}

impl Router {
    /// The handshake of a connection brought a cookie, or none, to a listener that may have some: the one that it gets.
    /// Comes behind [`Self::handle_open`].
    pub fn handle_cookie(
        &mut self,
        now: Now,
        key: SessionKey,
        presented: Option<CookieDigest>,
    ) -> Option<Cookie> {
        let listener = usize::from(self.sessions.get(key)?.listener);
        self.cookies.ages_us.get(listener).copied().flatten()?;
        if let Some(digest) = presented.filter(|digest| self.cookies.login(*digest, now).is_some()) {
            self.cookies.take(key, digest);
            return None;
        }
        let cookie = Cookie::new(self.random.nonce());
        self.cookies.jars.insert(key, Jar::Fresh(cookie.digest()));
        Some(cookie)
    }

    /// Somebody has logged in on a connection: its cookie stands for that from now on, if it is a new one. If it stands for
    /// another user of the realm it does so no longer: two people use that browser.
    pub(super) fn remember_login(
        &mut self,
        key: SessionKey,
        authextra: Box<str>,
        effects: &mut impl Effects,
    ) {
        let Some(jar) = self.cookies.jars.get(&key).copied() else { return };
        let session = self.sessions.at(key.slot);
        let Some(Identity { authid, authmethod, expires_us, .. }) = session.identity.as_deref() else {
            return;
        };
        let (realm, role, method) = (session.realm, session.role, *authmethod);
        let digest = match jar {
            Jar::Fresh(digest) => digest,
            Jar::Taken(digest) => {
                let other = self.cookies.login(digest, self.now);
                if other.is_some_and(|login| login.realm == realm && *login.authid != **authid) {
                    self.end_login(digest, false, effects);
                }
                return;
            }
        };
        let age_us = self.cookies.ages_us.get(usize::from(session.listener)).copied().flatten();
        let until_us = self.now.monotonic_us.saturating_add(age_us.unwrap_or_default()).min(*expires_us);
        let login =
            Login { realm, role, authid: authid.clone(), method, authextra, session_expires_us: *expires_us };
        if login.authid.len() + login.authextra.len() > LOGIN_BYTES_MAX {
            effects.counters().cookie_logins_forgotten += 1;
            return;
        }
        self.cookies.take(key, digest);
        let logged_in = LoggedIn { digest, until_us, login };
        self.tell_of_cookie(&CookieNews::LoggedIn(logged_in.clone()), effects);
        effects.counters().cookie_logins_forgotten += self.cookies.insert(logged_in);
    }

    /// GOODBYE with this reason: a logout ends what the cookie stands for, and the user's other sessions that have it.
    pub(super) fn end_login_at(&mut self, key: SessionKey, reason: &str, effects: &mut impl Effects) {
        if reason != uri::LOGOUT {
            return;
        }
        if let Some(Jar::Taken(digest)) = self.cookies.jars.get(&key).copied() {
            self.end_login(digest, true, effects);
        }
    }

    /// Nobody comes in by a cookie of these users any more. One message a core, however many they are.
    pub(super) fn end_logins_of(
        &mut self,
        realm: RealmIndex,
        whose: LoginsOf<'_>,
        effects: &mut impl Effects,
    ) {
        let (digests, seen) = self.cookies.of(realm, whose);
        effects.searched(seen);
        if digests.is_empty() {
            return;
        }
        let ended = CookieNews::Ended(digests.into());
        self.tell_of_cookie(&ended, effects);
        self.handle_cookie_news(ended);
    }

    fn end_login(&mut self, digest: CookieDigest, ends_sessions: bool, effects: &mut impl Effects) {
        let Some(login) = self.cookies.login(digest, self.now) else { return };
        let (realm, authid) = (login.realm, login.authid.clone());
        let logged_out = LoggedOut { digest, realm, authid, ends_sessions };
        self.tell_of_cookie(&CookieNews::LoggedOut(logged_out.clone()), effects);
        self.handle_cookie_news(CookieNews::LoggedOut(logged_out));
    }

    fn tell_of_cookie(&self, news: &CookieNews, effects: &mut impl Effects) {
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            effects.peer(core, PeerMessage::CookieNews(Box::new(news.clone())));
        }
    }

    /// A cookie stands for a login, or no longer, on this core or on another.
    pub(super) fn handle_cookie_news(&mut self, news: CookieNews) {
        match news {
            CookieNews::LoggedIn(logged_in) => {
                // Counted where it was made.
                self.cookies.insert(logged_in);
            }
            CookieNews::Ended(digests) => {
                for digest in &*digests {
                    self.cookies.log_out(*digest, self.now);
                }
            }
            CookieNews::LoggedOut(LoggedOut { digest, realm, authid, ends_sessions }) => {
                self.cookies.log_out(digest, self.now);
                if !ends_sessions {
                    return;
                }
                let first = SessionKey { slot: 0, generation: 0 };
                let bearers = self.cookies.bearers.range((digest, first)..);
                for (_, key) in bearers.take_while(|(other, _)| *other == digest) {
                    let session = self.sessions.at(key.slot);
                    let is_user =
                        session.identity.as_deref().is_some_and(|identity| identity.authid == authid);
                    if session.state == State::Open && session.realm == realm && is_user {
                        self.doomed.push((*key, CloseReason::LoggedOut));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: u64 = 60_000_000;

    fn cookies(logins_max: usize, logins_per_user_max: usize) -> Cookies {
        let limits = Limits {
            cookie_logins_max: logins_max,
            cookie_logins_per_user_max: logins_per_user_max,
            ..Limits::default()
        };
        Cookies::new(&[], &limits, 7)
    }

    fn digest(number: u8) -> CookieDigest {
        Cookie::new([number; 32]).digest()
    }

    fn at(monotonic_us: u64) -> Now {
        Now { monotonic_us, wall_us: 0 }
    }

    fn logged_in(number: u8, authid: &str, until_us: u64) -> LoggedIn {
        let login = Login {
            realm: RealmIndex(0),
            role: 0,
            authid: authid.into(),
            method: AuthMethod::Ticket,
            authextra: Box::default(),
            session_expires_us: u64::MAX,
        };
        LoggedIn { digest: digest(number), until_us, login }
    }

    #[test]
    fn those_that_end_first_are_forgotten() {
        let mut cookies = cookies(4, 2);
        let known = |cookies: &Cookies| -> Vec<u8> {
            (0..9).filter(|number| cookies.login(digest(*number), at(0)).is_some()).collect()
        };
        for (number, authid, until_us) in [(0, "joe", 30), (1, "joe", 10), (2, "mary", 5)] {
            assert_eq!(cookies.insert(logged_in(number, authid, until_us)), 0);
        }
        assert_eq!(cookies.insert(logged_in(3, "joe", 20)), 1);
        assert_eq!(known(&cookies), [0, 2, 3], "joe has as many as he may");
        assert_eq!(cookies.insert(logged_in(4, "jo", 40)), 0);
        assert_eq!(cookies.insert(logged_in(5, "eve", 50)), 1);
        assert_eq!(known(&cookies), [0, 3, 4, 5], "mary's ended first of all");
        // One that ends before all others does not stay itself.
        assert_eq!(cookies.insert(logged_in(6, "bob", 1)), 1);
        assert_eq!(known(&cookies), [0, 3, 4, 5]);
        cookies.expire(30);
        assert_eq!((known(&cookies), cookies.next_deadline_us()), (vec![4, 5], Some(40)));
        cookies.expire(50);
        assert_eq!((cookies.logins(), cookies.next_deadline_us()), (0, None));
    }

    #[test]
    fn what_was_logged_out_stays_so() {
        let mut cookies = cookies(9, 9);
        let now = at(100);
        cookies.insert(logged_in(0, "joe", 100 * MINUTE_US));
        cookies.log_out(digest(0), now);
        cookies.log_out(digest(1), now);
        for number in [0, 1] {
            // Word of the login comes late, or twice.
            cookies.insert(logged_in(number, "joe", 100 * MINUTE_US));
            assert!(cookies.login(digest(number), now).is_none());
        }
        // A logout has no place among the user's logins, and is forgotten in the end.
        assert_eq!(cookies.of_user(RealmIndex(0), "joe"), []);
        cookies.expire(100 + LOGGED_OUT_US);
        assert_eq!(cookies.logins(), 0);
    }

    #[test]
    fn a_login_that_is_over_is_none() {
        let mut cookies = cookies(9, 9);
        cookies.insert(logged_in(0, "joe", 10));
        assert!(cookies.login(digest(0), at(9)).is_some() && cookies.login(digest(0), at(10)).is_none());
    }
}
