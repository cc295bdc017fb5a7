//! `[database.inside]` and `[[database.subscription]]`: what a database does in its realm by itself.

use std::time::Duration;

use super::Config;
use super::database::{Database, DatabaseKind, IDENTIFIER, SQL};
use super::kinds::{Boolean, Bytes, Integer, NAME, Optional, Words, did_you_mean, milliseconds};
use super::listener::LISTENERS_MAX;
use super::realm::{MATCH_POLICIES, URI};
use super::section::{Fields, Section, required, section};
use super::tree::Path;
use super::{Listener, ListenerMode, Realm};
use crate::wamp::MatchPolicy;
use crate::wamp::codec::Serializer;
use crate::wamp::uri::{UriError, check_pattern};

/// How many subscriptions a database may have by the configuration.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1_000;

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
    /// `depth_max`: functions get no event that so many events led to, one behind the other.
    pub depth_max: u32,
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
        depth_max: Integer(1..=1_000), 16;
        timeout ["timeout_ms"]: milliseconds(1..=3_600_000), Duration::from_secs(30);
        queue_max: Integer(1..=1_000_000), 10_000;
        queue_bytes_max: Bytes(1 << 16..=1 << 34), 64 << 20;
        calls_max: Integer(1..=100_000), 1_000;
        call_timeout ["call_timeout_ms"]: milliseconds(1..=3_600_000), Duration::from_secs(60);
    }
}

impl Section for DatabaseInside {}

/// `[[database.subscription]]`: events of a topic or pattern run something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSubscription {
    /// `topic`
    pub topic: String,
    /// `match`
    pub match_policy: MatchPolicy,
    /// `function` that is called, of PostgreSQL and Oracle.
    pub function: Option<String>,
    /// `sql` that is run, of SQLite.
    pub sql: Option<String>,
    /// `attempts`: how often an event is tried; `None` is as often as `[database.inside]` says.
    pub attempts: Option<u32>,
    /// `timeout_ms`: how long a run may take; `None` is as long as `[database.inside]` says.
    pub timeout: Option<Duration>,
}

section! {
    DatabaseSubscription {
        topic: URI, required();
        match_policy ["match"]: Words(MATCH_POLICIES), MatchPolicy::Exact;
        function: Optional(IDENTIFIER), None;
        sql: Optional(SQL), None;
        attempts: Optional(Integer(1..=1_000)), None;
        timeout ["timeout_ms"]: Optional(milliseconds(1..=3_600_000)), None;
    }
}

impl Section for DatabaseSubscription {}

impl Database {
    /// What is subscribed is run by something of this kind of database, in the role of `[database.inside]`.
    pub(super) fn check_subscriptions(&self, fields: &mut Fields<'_, '_>) {
        if self.subscriptions.is_empty() || !fields.has("type") {
            return;
        }
        if self.inside.is_none() && fields.is_sound("inside") {
            let hint = "add `[database.inside]` with the `role` of the realm in which it subscribes";
            fields.problem("subscription", "the database has no place in the realm", hint);
        }
        let list = fields.path.key("subscription");
        let is_sqlite = self.kind == DatabaseKind::Sqlite;
        for (index, subscription) in self.subscriptions.iter().enumerate() {
            let path = list.index(index);
            let (wanted, other) = if is_sqlite { ("sql", "function") } else { ("function", "sql") };
            let is_there = |key: &str| match key {
                "sql" => subscription.sql.is_some(),
                _ => subscription.function.is_some(),
            };
            if is_there(other) && fields.reader.is_sound(&path.key(other)) {
                let function = "write `function`, which is called with args, kwargs and details";
                let (kind, hint) = match self.kind {
                    DatabaseKind::Sqlite => ("sqlite", "write `sql`, the statements that an event runs"),
                    DatabaseKind::Postgresql => ("postgresql", function),
                    DatabaseKind::Oracle => ("oracle", function),
                };
                let problem = format!("databases of type \"{kind}\" do not have it");
                fields.reader.key_problem(&path.key(other), problem, Some(hint.to_owned()));
            } else if !is_there(wanted) && fields.reader.is_sound(&path.key(wanted)) {
                let problem = format!("`{wanted}` is missing: what an event runs");
                fields.reader.problem(&path, problem, None);
            }
        }
        let all = self.subscriptions.iter().map(|it| {
            let word = it.match_policy.as_str();
            let runs = it.function.as_ref().or(it.sql.as_ref());
            Some((
                (&it.topic, word, runs),
                format!("a subscription of `{}` ({word}) that runs the same", it.topic),
            ))
        });
        fields.reader.refuse_duplicates(&list, &["topic", "match", "function", "sql"], all);
    }
}

/// Topics are such as the realm has.
pub(super) fn check_topics(config: &Config, database: &Database, fields: &mut Fields<'_, '_>, path: &Path) {
    let Some(realm) = config.realms.iter().find(|realm| realm.name == database.realm) else { return };
    for (index, subscription) in database.subscriptions.iter().enumerate() {
        let path = path.key("subscription").index(index);
        if ["topic", "match"].iter().any(|key| !fields.reader.is_sound(&path.key(key))) {
            continue;
        }
        let DatabaseSubscription { topic, match_policy, .. } = subscription;
        if let Err(error) = check_pattern(topic, *match_policy, realm.uri_rule, config.limits.uri_limits()) {
            let needs_pattern = matches!(error, UriError::Empty | UriError::EmptyComponent);
            let hint = "patterns need `match = \"prefix\"` or `match = \"wildcard\"`";
            let hint = needs_pattern.then(|| hint.to_owned());
            fields.reader.problem(&path.key("topic"), error.as_str(), hint);
        }
    }
}

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
