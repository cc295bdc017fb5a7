//! `[database.inside]`: what a database does in its realm by itself.

use std::time::Duration;

use super::Config;
use super::database::Database;
use super::kinds::{Boolean, Bytes, Integer, NAME, did_you_mean, milliseconds};
use super::listener::LISTENERS_MAX;
use super::section::{Fields, Section, section};
use super::tree::Path;
use super::{Listener, ListenerMode, Realm};
use crate::wamp::codec::Serializer;

/// `[database.inside]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseInside {
    /// `role` of the realm: what its sessions may do.
    pub role: String,
    /// `own_events`: whether its functions get what it publishes itself.
    pub own_events: bool,
    /// `connections` that run functions which subscribe, or wait for answers.
    pub connections: usize,
    /// `attempts`: how often a function is tried until its event is put aside.
    pub attempts: u32,
    /// `timeout_ms`: how long a function may take.
    pub timeout: Duration,
    /// `queue_max`: events that wait for one function.
    pub queue_max: usize,
    /// `queue_bytes_max`: what all that wait may hold.
    pub queue_bytes_max: usize,
    /// `calls_max`: calls that are under way.
    pub calls_max: usize,
    /// `call_timeout_ms`: how long a call may take.
    pub call_timeout: Duration,
}

section! {
    DatabaseInside {
        role: NAME, required();
        own_events: Boolean, false;
        connections: Integer(1..=64), 2;
        attempts: Integer(1..=1_000), 5;
        timeout ["timeout_ms"]: milliseconds(1..=3_600_000), Duration::from_secs(30);
        queue_max: Integer(1..=1_000_000), 10_000;
        queue_bytes_max: Bytes(1 << 16..=1 << 34), 64 << 20;
        calls_max: Integer(1..=100_000), 1_000;
        call_timeout ["call_timeout_ms"]: milliseconds(1..=3_600_000), Duration::from_secs(60);
    }
}

impl Section for DatabaseInside {}

use super::section::required;

/// Its role is one of the realm, which is known to be there.
pub(super) fn check_role(database: &Database, realms: &[Realm], fields: &mut Fields<'_, '_>, path: &Path) {
    let Some(inside) = &database.inside else { return };
    let path = path.key("inside").key("role");
    let Some(realm) = realms.iter().find(|realm| realm.name == database.realm) else { return };
    if fields.reader.is_sound(&path) && !realm.roles.iter().any(|role| role.name == inside.role) {
        let hint = did_you_mean(&inside.role, realm.roles.iter().map(|role| role.name.as_str()));
        let problem = format!("the realm `{}` has no role `{}`", realm.name, inside.role);
        fields.reader.problem(&path, problem, hint);
    }
}

/// Each has a way in of its own, and there are numbers for so many.
pub(super) fn check_doors(config: &Config, fields: &mut Fields<'_, '_>) {
    let doors = config.listeners.len() + config.databases.iter().filter(|it| it.inside.is_some()).count();
    if doors > LISTENERS_MAX && fields.is_sound("database") {
        let problem = format!("{doors} listeners and databases with `inside` are more than {LISTENERS_MAX}");
        fields.problem("database", problem, "leave out some listeners");
    }
}

impl Listener {
    /// The way in of a database: it speaks RawSocket with JSON.
    #[must_use]
    pub fn of_database() -> Self {
        Self {
            mode: ListenerMode::Wamp,
            websocket: false,
            rawsocket: true,
            serializers: vec![Serializer::Json],
            batched: false,
            compression: false,
            cookie: None,
            ..Self::defaults()
        }
    }
}
