//! `[[realm]]`: who may do what.

use std::time::Duration;

use super::kinds::{
    Boolean, Bytes, Fault, Integer, Kind, List, NAME, Optional, Or, Text, Words, Wrong, milliseconds,
    milliseconds_or_off, put, several, single,
};
use super::node::CORE_MAX;
use super::section::{Fields, Keys, Reader, Section, required, section};
use super::tree::{Node, Path, Table, Value};
use super::{History, Permission, Realm, Role, SlowPolicy, authentication};
use crate::wamp::id::ID_MAX;
use crate::wamp::options::MatchPolicy;
use crate::wamp::uri::{self, UriError, UriLimits, UriRule};

/// How many realms there may be.
pub(super) const REALMS_MAX: usize = 10_000;
const ROLES_MAX: usize = 1_000;
const PERMISSIONS_MAX: usize = 10_000;
const HISTORIES_MAX: usize = 1_000;

/// The name of the realm that there is without any configuration.
const DEFAULT_NAME: &str = "realm1";
/// The role of sessions that did not say who they are.
pub(super) const ANONYMOUS: &str = "anonymous";

/// Shown where somebody has to write down who may do what.
pub(super) const EXAMPLE: &str = "\
[[realm.role]]
name = \"anonymous\"

[[realm.role.permission]]
uri = \"com.example.\"
match = \"prefix\"
allow = [\"subscribe\", \"call\"]";

const DISCLOSE_ME: &[(&str, bool)] = &[("allow", true), ("deny", false)];

const RULES: &[(&str, UriRule)] = &[("loose", UriRule::Loose), ("strict", UriRule::Strict)];

const SLOW_POLICIES: &[(&str, SlowPolicy)] = &[("close", SlowPolicy::Close), ("drop", SlowPolicy::Drop)];

pub(super) const MATCH_POLICIES: &[(&str, MatchPolicy)] =
    &[("exact", MatchPolicy::Exact), ("prefix", MatchPolicy::Prefix), ("wildcard", MatchPolicy::Wildcard)];

const REALM_NAME: Text<String> = Text { expects: "a URI", parse: parse_realm_name, print: String::clone };

pub(super) const URI: Text<String> =
    Text { expects: "a URI", parse: |text| Ok(text.to_owned()), print: String::clone };

pub(super) const PROCEDURE: Text<String> =
    Text { expects: "the URI of a procedure", parse: parse_procedure, print: String::clone };

section! {
    Realm {
        name: REALM_NAME, required();
        home: Or("auto", Integer(0..=CORE_MAX)), None;
        uri_rule: Words(RULES), UriRule::Loose;
        strict_request_ids: Boolean, true;
        authmethods: authentication::methods("auto"), None;
        users_file: Optional(authentication::FILE), None;
        authenticator: Optional(PROCEDURE), None;
        authenticator_realm: Optional(REALM_NAME), None;
        disclose_me: Words(DISCLOSE_ME), true;
        meta_api: Boolean, true;
        roles ["role"]: several(ROLES_MAX), Vec::new();
        histories ["history"]: several(HISTORIES_MAX), Vec::new();
        token: Optional(single()), None;
        users ["user"]: several(authentication::USERS_MAX), Vec::new();
    }
}

impl Section for Realm {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        if self.roles.is_empty() && fields.is_sound("role") {
            let hint = format!("add below it who may do what, as in\n\n{EXAMPLE}");
            fields.reader.problem(fields.path, "the realm has no role, so nobody can join it", Some(hint));
        }
        let names = self.roles.iter().map(|role| Some((&role.name, format!("the role `{}`", role.name))));
        fields.reader.refuse_duplicates(&fields.path.key("role"), &["name"], names);
        if self.authenticator.is_some() && self.authmethods.is_none() && fields.is_sound("authmethods") {
            let hint = "say which it is asked about, as in `authmethods = [\"ticket\", \"wampcra\"]`";
            fields.problem("authenticator", "there are no `authmethods`", hint);
        }
        if self.authenticator.is_none() && self.authenticator_realm.is_some() {
            let hint = "add the `authenticator` that is registered there, or leave this out";
            fields.problem("authenticator_realm", "there is no `authenticator`", hint);
        }
        let histories = self.histories.iter().map(|history| {
            let word = history.match_policy.as_str();
            Some(((&history.uri, word), format!("a history of `{}` ({word})", history.uri)))
        });
        fields.reader.refuse_duplicates(&fields.path.key("history"), &["uri", "match"], histories);
        authentication::check(self, fields);
    }
}

section! {
    History {
        uri: URI, required();
        match_policy ["match"]: Words(MATCH_POLICIES), MatchPolicy::Exact;
        limit: Integer(1..=100_000), 1_000;
        bytes_max: Bytes(1 << 10..=1 << 40), 16 << 20;
        age_max ["age_max_ms"]: milliseconds_or_off(1..=31_536_000_000), Duration::ZERO;
    }
}

impl Section for History {}

section! {
    Role {
        name: NAME, required();
        slow: Words(SLOW_POLICIES), SlowPolicy::Close;
        authorizer: Optional(PROCEDURE), None;
        authorizer_cache ["authorizer_cache_ms"]: milliseconds(0..=86_400_000), Duration::from_secs(60);
        trust_level: Or("none", Integer(0..=ID_MAX)), None;
        permissions ["permission"]: several(PERMISSIONS_MAX), Vec::new();
    }
}

impl Section for Role {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        let permissions = self.permissions.iter().map(|permission| {
            let word = permission.match_policy.as_str();
            Some(((&permission.uri, word), format!("a permission for `{}` ({word})", permission.uri)))
        });
        fields.reader.refuse_duplicates(&fields.path.key("permission"), &["uri", "match"], permissions);
    }
}

impl Keys for Permission {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        let uri = fields.read("uri", &URI, required());
        let match_policy = fields.read("match", &Words(MATCH_POLICIES), MatchPolicy::Exact);
        let actions = fields.read("allow", &Allow, required());
        let [publish, subscribe, call, register] = ACTIONS.map(|action| actions.contains(&action));
        let disclosed = fields.read("disclose", &DISCLOSE, Vec::new());
        let [disclose_caller, disclose_publisher] = DISCLOSED.map(|party| disclosed.contains(&party));
        Self { uri, match_policy, publish, subscribe, call, register, disclose_caller, disclose_publisher }
    }

    fn write(&self, table: &mut Table) {
        let allowed = [self.publish, self.subscribe, self.call, self.register];
        let actions =
            ACTIONS.into_iter().zip(allowed).filter_map(|(action, allowed)| allowed.then_some(action));
        put(table, "uri", &URI, &self.uri);
        put(table, "match", &Words(MATCH_POLICIES), &self.match_policy);
        put(table, "allow", &Allow, &actions.collect());
        let disclosed = DISCLOSED.into_iter().zip([self.disclose_caller, self.disclose_publisher]);
        let disclosed = disclosed.filter_map(|(party, is_disclosed)| is_disclosed.then_some(party));
        put(table, "disclose", &DISCLOSE, &disclosed.collect());
    }
}

impl Section for Permission {}

/// What a permission can allow, in the order of the fields of [`Permission`].
const ACTIONS: [&str; 4] = ["publish", "subscribe", "call", "register"];

const ALL_OR_LIST: Or<List<Words<&str>>> = Or(
    "all",
    List {
        name: "actions",
        of: Words(&[
            (ACTIONS[0], ACTIONS[0]),
            (ACTIONS[1], ACTIONS[1]),
            (ACTIONS[2], ACTIONS[2]),
            (ACTIONS[3], ACTIONS[3]),
        ]),
        // None at all takes away what a wider permission gives.
        count: 0..=ACTIONS.len(),
    },
);

/// Whom a permission can disclose.
const DISCLOSED: [&str; 2] = ["caller", "publisher"];

const DISCLOSE: List<Words<&str>> = List {
    name: "parties",
    of: Words(&[(DISCLOSED[0], DISCLOSED[0]), (DISCLOSED[1], DISCLOSED[1])]),
    count: 0..=DISCLOSED.len(),
};

/// "all", or a list of actions.
struct Allow;

impl Kind for Allow {
    type Value = Vec<&'static str>;

    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<Self::Value, Fault> {
        Ok(ALL_OR_LIST.read(reader, path, node)?.unwrap_or_else(|| ACTIONS.to_vec()))
    }

    fn write(&self, actions: &Self::Value) -> Option<Value> {
        ALL_OR_LIST.write(&(actions.len() < ACTIONS.len()).then(|| actions.clone()))
    }

    fn expects(&self) -> String {
        ALL_OR_LIST.expects()
    }
}

/// The realm that stands where none is configured: everybody may do everything, on loopback.
pub(super) fn default_realm() -> Realm {
    let everything = Permission {
        uri: String::new(),
        match_policy: MatchPolicy::Prefix,
        publish: true,
        subscribe: true,
        call: true,
        register: true,
        disclose_caller: false,
        disclose_publisher: false,
    };
    let role = Role { name: ANONYMOUS.to_owned(), permissions: vec![everything], ..Role::defaults() };
    Realm { name: DEFAULT_NAME.to_owned(), roles: vec![role], ..Realm::defaults() }
}

/// What depends on the rest of the configuration: URIs by the limits, and which cores there are.
pub(super) fn check(realm: &Realm, limits: UriLimits, reader: &mut Reader<'_>, path: &Path) {
    let permissions = realm.roles.iter().enumerate().flat_map(|(role_index, role)| {
        let list = path.key("role").index(role_index).key("permission");
        let of = role.permissions.iter().enumerate();
        of.map(move |(index, permission)| {
            (list.index(index), permission.uri.as_str(), permission.match_policy)
        })
    });
    let list = path.key("history");
    let histories = realm
        .histories
        .iter()
        .enumerate()
        .map(|(index, history)| (list.index(index), history.uri.as_str(), history.match_policy));
    for (path, uri, match_policy) in permissions.chain(histories) {
        // Whatever else is wrong, the URI is judged by these alone.
        if ["uri", "match"].iter().any(|key| !reader.is_sound(&path.key(key))) {
            continue;
        }
        if let Err((problem, hint)) = check_uri(uri, match_policy, realm.uri_rule, limits) {
            reader.problem(&path.key("uri"), problem, hint);
        }
    }
}

fn check_uri(uri: &str, match_policy: MatchPolicy, rule: UriRule, limits: UriLimits) -> Result<(), Wrong> {
    let stars = uri.contains('*');
    match uri::check_pattern(uri, match_policy, rule, limits) {
        // Legal in a loose URI, but other routers take it for a pattern: silently matching nothing would be worse.
        Ok(()) if stars => Err(("`*` is no pattern here".to_owned(), Some(star_hint(uri)))),
        Ok(()) => Ok(()),
        Err(UriError::Character) if stars => Err(("`*` is no pattern here".to_owned(), Some(star_hint(uri)))),
        Err(error @ (UriError::Empty | UriError::EmptyComponent)) => {
            let hint = "patterns need `match = \"prefix\"` or `match = \"wildcard\"`";
            Err((error.as_str().to_owned(), Some(hint.to_owned())))
        }
        Err(error) => Err((error.as_str().to_owned(), None)),
    }
}

/// What to write for a pattern with stars.
fn star_hint(uri: &str) -> String {
    match uri.strip_suffix('*') {
        Some(prefix) if !prefix.contains('*') => {
            format!("write `uri = \"{}\"` and `match = \"prefix\"`", prefix.escape_debug())
        }
        _ => {
            let pattern: Vec<&str> =
                uri.split('.').map(|part| if part.contains('*') { "" } else { part }).collect();
            format!("write `uri = \"{}\"` and `match = \"wildcard\"`", pattern.join(".").escape_debug())
        }
    }
}

fn parse_procedure(text: &str) -> Result<String, Wrong> {
    if uri::is_reserved(text) {
        let hint = "name a procedure that one of your own services registers";
        let problem = "procedures that begin with `wamp` are the router's own";
        return Err((problem.to_owned(), Some(hint.to_owned())));
    }
    match uri::check(text, UriRule::Loose, UriLimits::default()) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err((error.as_str().to_owned(), None)),
    }
}

fn parse_realm_name(text: &str) -> Result<String, Wrong> {
    match uri::check(text, UriRule::Loose, UriLimits::default()) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err((error.as_str().to_owned(), None)),
    }
}
