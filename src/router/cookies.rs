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
use super::fault::Fault;
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

/// So many cookies are looked at, or forgotten, in one go; the rest of them in the next turns.
const COOKIES_A_TURN: usize = 512;

/// A place among the logins of a realm.
pub(super) type Place = (Box<str>, u64, CookieDigest);

/// Before all logins of a realm.
pub(super) fn first_place(whose: LoginsOf<'_>) -> Place {
    let authid = if let LoginsOf::Authid(authid) = whose { authid.into() } else { Box::default() };
    (authid, 0, CookieDigest::MIN)
}

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
    /// How many each user has in `by_user`; ends with the last of them.
    counts: HashMap<(RealmIndex, Box<str>), usize, FixedState>,
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
            counts: HashMap::with_hasher(hasher.clone()),
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
        self.entries.len().max(self.by_time.len()).max(self.by_user.len()).max(self.counts.len())
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.by_time.first().map(|(until_us, _)| *until_us)
    }

    fn login(&self, digest: CookieDigest, now: Now) -> Option<&Login> {
        let entry = self.entries.get(&digest).filter(|entry| now.monotonic_us < entry.until_us)?;
        entry.login.as_deref()
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
        let user = (realm, authid);
        *self.counts.entry(user.clone()).or_default() += 1;
        self.entries.insert(digest, Entry { until_us, login: Some(Box::new(login)) });
        let mut forgotten = 0;
        // Every core forgets the same ones: those that end first.
        while self.counts.get(&user).is_some_and(|count| *count > self.logins_per_user_max)
            && let Some(first) = self.first_of_user(realm, &user.1)
        {
            self.remove(first);
            forgotten += 1;
        }
        while self.entries.len() > self.logins_max
            && let Some((_, first)) = self.by_time.first().copied()
        {
            forgotten += u64::from(self.remove(first).is_some());
        }
        forgotten
    }

    /// The cookie of a user that ends first.
    fn first_of_user(&self, realm: RealmIndex, authid: &str) -> Option<CookieDigest> {
        let mut own = self.by_user.range((realm, Box::from(authid), 0, CookieDigest::MIN)..);
        let (of, name, _, digest) = own.next()?;
        (*of == realm && **name == *authid).then_some(*digest)
    }

    /// Some of the cookies of a realm that are meant, from a place on; how many were looked at, and where the next are.
    fn some_of(
        &self,
        realm: RealmIndex,
        whose: LoginsOf<'_>,
        place: Place,
    ) -> (Vec<CookieDigest>, usize, Option<Place>) {
        let (authid, until_us, digest) = place;
        let rest = self.by_user.range((realm, authid, until_us, digest)..);
        let is_meant = |authid: &str, digest: &CookieDigest| match whose {
            LoginsOf::Authid(wanted) => wanted == authid,
            LoginsOf::Role(role) => {
                let login = self.entries.get(digest).and_then(|entry| entry.login.as_deref());
                login.is_some_and(|login| login.role == role)
            }
            LoginsOf::All => true,
        };
        let (mut meant, mut seen) = (Vec::new(), 0);
        for (of, authid, until_us, digest) in rest {
            let is_past = matches!(whose, LoginsOf::Authid(wanted) if *wanted != **authid);
            if *of != realm || is_past {
                break;
            }
            if seen == COOKIES_A_TURN {
                return (meant, seen, Some((authid.clone(), *until_us, *digest)));
            }
            seen += 1;
            if is_meant(authid, digest) {
                meant.push(*digest);
            }
        }
        (meant, seen, None)
    }

    fn remove(&mut self, digest: CookieDigest) -> Option<Box<Login>> {
        let Entry { until_us, login } = self.entries.remove(&digest)?;
        self.by_time.remove(&(until_us, digest));
        if let Some(login) = &login {
            self.by_user.remove(&(login.realm, login.authid.clone(), until_us, digest));
            let user = (login.realm, login.authid.clone());
            if let Some(count) = self.counts.get_mut(&user) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&user);
                }
            }
        }
        login
    }

    fn log_out(&mut self, digest: CookieDigest, now: Now) {
        self.remove(digest);
        let until_us = now.monotonic_us.saturating_add(LOGGED_OUT_US);
        self.by_time.insert((until_us, digest));
        self.entries.insert(digest, Entry { until_us, login: None });
    }

    /// Forgets what has passed its time, as much as a turn may.
    pub(super) fn expire(&mut self, now_us: u64) {
        for _ in 0..COOKIES_A_TURN {
            let Some((until_us, digest)) = self.by_time.first().copied() else { return };
            if until_us > now_us {
                return;
            }
            self.remove(digest);
        }
    }
}

impl Router {
    /// What a cookie stands for; nothing any more while those are being ended that it is one of.
    fn login_of(&self, digest: CookieDigest) -> Option<&Login> {
        self.cookies.login(digest, self.now).filter(|login| !self.is_ending(login))
    }

    /// What the cookie of a connection stands for.
    pub(super) fn login_at(&self, key: SessionKey) -> Option<&Login> {
        match self.cookies.jars.get(&key)? {
            Jar::Fresh(_) => None,
            Jar::Taken(digest) => self.login_of(*digest),
        }
    }

    /// The handshake of a connection brought a cookie, or none, to a listener that may have some: the one that it gets.
    /// Comes behind [`Self::handle_open`].
    pub fn handle_cookie(
        &mut self,
        now: Now,
        key: SessionKey,
        presented: Option<CookieDigest>,
    ) -> Option<Cookie> {
        self.now = now;
        let listener = usize::from(self.sessions.get(key)?.listener);
        self.cookies.ages_us.get(listener).copied().flatten()?;
        if let Some(digest) = presented.filter(|digest| self.login_of(*digest).is_some()) {
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

    /// Ends some logins of these users, from a place on: nobody comes in by them any more. Where to go on in the next turn; one
    /// message a core and turn, however many they are.
    pub(super) fn end_logins_of(
        &mut self,
        realm: RealmIndex,
        whose: LoginsOf<'_>,
        place: Place,
        effects: &mut impl Effects,
    ) -> Option<Place> {
        if self.is_broken(Fault::KeepLogins) {
            return None;
        }
        let (digests, seen, next) = self.cookies.some_of(realm, whose, place);
        effects.searched(seen);
        if !digests.is_empty() {
            effects.counters().cookie_logins_ended += digests.len() as u64;
            let ended = CookieNews::Ended(digests.into());
            self.tell_of_cookie(&ended, effects);
            self.handle_cookie_news(ended);
        }
        next
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
                    // All cores end the same ones, and tell each other.
                    let is_over = self.cookies.entries.get(digest).is_some_and(|entry| entry.login.is_none());
                    if !is_over {
                        self.cookies.log_out(*digest, self.now);
                    }
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
        assert_eq!(cookies.first_of_user(RealmIndex(0), "joe"), None);
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
