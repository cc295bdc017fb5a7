//! Logins by cookie: who is let in by one is who logged in on the connection that it was made for, until that is over.

use std::collections::BTreeMap;

use super::kills::Whom;
use super::{History, Kept, broken};

/// When something was: by the steps of clients, and by the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    pub step: u64,
    pub now_us: u64,
}

/// Word of a login, or of its end, may be on its way to another core for so many steps.
const ON_ITS_WAY: u64 = 2000;

/// Somebody who logged in on a connection with a new cookie.
#[derive(Clone, Debug)]
pub struct Login {
    pub realm: usize,
    pub core: usize,
    pub authid: &'static str,
    pub authrole: &'static str,
    /// When it showed its secret.
    shown: Moment,
    /// When it heard that it was let in.
    welcomed: Option<Moment>,
    /// Somebody else may have logged in with this cookie by then, and has.
    may_be_over: bool,
    is_over: bool,
}

/// All cookies that somebody logged in with.
#[derive(Debug, Default)]
pub struct Cookies {
    pub age_us: u64,
    logins: BTreeMap<String, Login>,
    /// By browser: the cookie that it has.
    pub jars: BTreeMap<usize, String>,
}

/// Who wants to be let in, and where.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    pub realm: usize,
    pub core: usize,
    pub authid: &'static str,
}

impl Cookies {
    /// Somebody shows its secret on a connection with a cookie.
    pub fn shows(&mut self, cookie: &str, who: Visitor, authrole: &'static str, shown: Moment) {
        if let Some(known) = self.logins.get_mut(cookie) {
            known.may_be_over |= known.realm == who.realm && known.authid != who.authid;
            return;
        }
        let Visitor { realm, core, authid } = who;
        let (welcomed, may_be_over, is_over) = (None, false, false);
        let login = Login { realm, core, authid, authrole, shown, welcomed, may_be_over, is_over };
        self.logins.insert(cookie.to_owned(), login);
    }

    /// Who logged in with it.
    pub fn of(&self, cookie: &str) -> Option<&'static str> {
        self.logins.get(cookie).map(|login| login.authid)
    }

    /// It was let in for that.
    pub fn is_let_in(&mut self, cookie: &str, who: Visitor, welcomed: Moment) {
        let Some(known) = self.logins.get_mut(cookie).filter(|known| known.realm == who.realm) else {
            return;
        };
        if known.authid == who.authid {
            known.welcomed.get_or_insert(welcomed);
        } else {
            known.is_over = true;
        }
    }
}

impl History {
    /// The orders that end the login of somebody.
    fn orders_against(&self, login: &Login) -> impl Iterator<Item = &super::kills::Kill> {
        self.kills.iter().filter(move |kill| {
            self.sessions[kill.killer].realm == login.realm
                && match &kill.whom {
                    Whom::Session(_) => false,
                    Whom::Authid(authid) => *authid == login.authid,
                    Whom::Authrole(role) => *role == login.authrole,
                    Whom::All => true,
                }
        })
    }

    /// Somebody was let in by a cookie, which it had shown at that moment.
    pub fn receive_welcome_by_cookie(&mut self, cookie: &str, who: Visitor, at: Moment) -> Kept {
        let Some(login) = self.cookies.logins.get(cookie) else {
            return broken("cookie", format!("{who:?} is let in by a cookie that nobody logged in with"));
        };
        if (login.realm, login.authid) != (who.realm, who.authid) {
            return broken("cookie", format!("{who:?} is let in by the cookie of {login:?}"));
        }
        let is_known = |earlier: &Moment, later: u64| {
            login.core == who.core || earlier.step.saturating_add(ON_ITS_WAY) < later
        };
        let past = login.welcomed.filter(|welcomed| welcomed.now_us + self.cookies.age_us <= at.now_us);
        if past.is_some() || login.is_over && login.core == who.core {
            return broken("cookie", format!("{who:?} is let in by {login:?}, which is over"));
        }
        let ended = self.orders_against(login).find(|kill| {
            login
                .welcomed
                .is_some_and(|welcomed| is_known(&welcomed, kill.sent_at) && welcomed.step < kill.sent_at)
                && kill.answered_at.is_some_and(|answered_at| answered_at < at.step)
        });
        if let Some(kill) = ended {
            return broken("cookie", format!("{who:?} is let in by {login:?}, which {kill:?} has ended"));
        }
        self.happened.cookies += 1;
        Ok(())
    }

    /// Somebody who showed a cookie at that moment is not let in by it.
    pub fn check_that_it_stands_for_nobody(
        &self,
        cookie: &str,
        who: Visitor,
        at: Moment,
        now_us: u64,
    ) -> Kept {
        let Some(login) = self.cookies.logins.get(cookie) else { return Ok(()) };
        let is_meant = (login.realm, login.authid, login.core) == (who.realm, who.authid, who.core);
        let is_sure = login.welcomed.is_some_and(|welcomed| welcomed.step < at.step) && !login.may_be_over;
        let is_young = now_us < login.shown.now_us + self.cookies.age_us;
        let may_be_ended =
            |kill: &super::kills::Kill| kill.answered_at.is_none_or(|at| at > login.shown.step);
        if is_meant && is_sure && is_young && !self.orders_against(login).any(may_be_ended) {
            return broken("cookie", format!("{who:?} is not let in by {login:?}"));
        }
        Ok(())
    }
}
