//! What of the advanced profile a run has beside the rest: drawn by itself, so that seeds without it stay what they were.

use std::time::Duration;

use crosspoint::config::authentication::{Secret, User};
use crosspoint::config::{AuthMethod, History, Limits, Realm};

use super::history::kept::RECORDS;
use super::random::Random;

/// Which of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Advanced {
    /// Clients say who they are, and not always rightly.
    pub logins: bool,
    /// Somebody is asked about those whom the configuration does not name.
    pub authenticator: bool,
    /// Who does not answer in time may lose what it registered to its successor.
    pub takes_over: bool,
    /// Sessions end others.
    pub kills: bool,
    /// Those may end everybody else, or a whole role.
    pub kills_all: bool,
    /// Sessions leave testaments, at most so many; 0 is none.
    pub testaments_max: usize,
    /// Somebody listens to what happens to subscriptions and registrations.
    pub watches: bool,
    /// Some subscribe as nodes, and some of what is published is of a resource.
    pub shards: bool,
    /// Some payloads are not the router's affair.
    pub seals: bool,
    /// Events are kept, and asked for.
    pub histories: bool,
    /// How long a login is good by its cookie, in seconds; 0 is where there are no cookies.
    pub cookie_age: u64,
    /// How many databases a realm has.
    pub databases: usize,
    /// Above twice of it who resumes, or takes results in parts, has to read first, in bytes.
    pub room: usize,
    /// How many may resume at a time.
    pub resumptions_max: usize,
}

impl Advanced {
    pub fn draw(seed: u64) -> Self {
        let random = &mut Random::new(seed, 2);
        Self {
            logins: random.once_in(2),
            authenticator: !random.once_in(4),
            takes_over: random.once_in(2),
            kills: random.once_in(3),
            kills_all: random.once_in(2),
            shards: random.once_in(3),
            histories: random.once_in(3),
            seals: random.once_in(3),
            watches: random.once_in(3),
            testaments_max: *random.pick(&[0, 0, 2, 10]),
            cookie_age: *random.pick(&[0, 1, 20, 3600]),
            databases: *random.pick(&[0, 0, 0, 0, 0, 1, 2]),
            room: random.between(512, 8192),
            resumptions_max: *random.pick(&[1, 2, 100, 100]),
        }
    }

    /// Whether browsers are known again.
    pub fn has_cookies(&self) -> bool {
        self.logins && self.cookie_age > 0
    }

    /// Whether clients do any of it.
    pub fn any(&self) -> bool {
        self.logins || self.kills || self.testaments_max > 0 || self.watches || self.histories
    }

    /// Whether some time has to pass for it.
    pub fn leaps(&self) -> bool {
        self.logins && self.takes_over
    }

    pub fn set_limits(&self, limits: &mut Limits) {
        if self.databases > 0 {
            limits.outbox_soft_bytes = limits.outbox_soft_bytes.min(2 * self.room);
            limits.resumptions_per_core_max = self.resumptions_max;
        }
        if self.testaments_max > 0 {
            limits.testaments_per_session_max = self.testaments_max;
        }
        if self.logins {
            // Nobody is that slow: whoever loses something then was wrongly taken for gone.
            let millis = if self.takes_over { 100 } else { 3_600_000 };
            limits.takeover_timeout = Duration::from_millis(millis);
            limits.authenticator_timeout = Duration::from_secs(3600);
            limits.cookie_logins_per_user_max = 10_000;
        }
    }

    /// What is kept of a realm.
    pub fn set_histories(&self, realm: &mut Realm) {
        let records = RECORDS.iter().filter(|_| self.histories);
        realm.histories.extend(records.map(|(match_policy, uri, limit)| History {
            uri: (*uri).to_owned(),
            match_policy: *match_policy,
            limit: *limit,
            bytes_max: 1 << 20,
            age_max: Duration::ZERO,
        }));
    }

    /// The roles and users of a realm; all roles may do what the anonymous one may.
    pub fn set_users(&self, realm: &mut Realm) {
        if !self.logins {
            return;
        }
        for name in ["member", "guest"] {
            let mut role = realm.roles[0].clone();
            role.name = name.to_owned();
            realm.roles.push(role);
        }
        realm.authmethods = Some(vec![AuthMethod::Anonymous, AuthMethod::Ticket, AuthMethod::WampCra]);
        if self.has_cookies() {
            realm.authmethods.iter_mut().for_each(|methods| methods.push(AuthMethod::Cookie));
        }
        if self.authenticator {
            realm.authenticator = Some(AUTHENTICATOR.to_owned());
        }
        for person in PEOPLE.iter().filter(|person| !person.is_dynamic) {
            let mut user = User::nobody(person.authid, person.role);
            user.ticket = Some(Secret::given(&person.ticket()));
            user.secret = Some(Secret::given(&person.secret()));
            realm.users.push(user);
        }
    }
}

/// The procedure that knows more users.
pub const AUTHENTICATOR: &str = "sim.authenticate";

/// Somebody who may log in.
#[derive(Debug)]
pub struct Person {
    pub authid: &'static str,
    pub role: &'static str,
    /// The authenticator knows it, and not the configuration.
    pub is_dynamic: bool,
}

/// Few, so that several sessions have the same authid.
pub const PEOPLE: [Person; 4] = [
    Person { authid: "ada", role: "member", is_dynamic: false },
    Person { authid: "bo", role: "guest", is_dynamic: false },
    Person { authid: "cy", role: "member", is_dynamic: true },
    Person { authid: "di", role: "guest", is_dynamic: true },
];

impl Person {
    pub fn ticket(&self) -> String {
        format!("the ticket of {}", self.authid)
    }

    pub fn secret(&self) -> String {
        format!("the secret of {}", self.authid)
    }
}
