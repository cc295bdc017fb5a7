//! A realm on one core: its rules, this core's part of the broker, and the dealer where this core is its home.

use foldhash::fast::FixedState;
use std::hash::BuildHasher;

use super::Door;
use super::authenticate::{Accounts, Tokens};
use super::authenticator::Authenticator;
use super::authorize::Role;
use super::authorizer::Authorizer;
use super::broker::Broker;
use super::counts::Counts;
use super::database::Callable;
use super::dealer::Dealer;
use super::history::History;
use super::meta::news::Directory;
use super::peer::CoreId;
use super::retained::Retained;
use super::sharding::Sharding;
use crate::config::{self, AuthMethod};
use crate::wamp::uri::{UriError, UriLimits, UriRule, check, is_reserved};

/// One realm.
#[derive(Debug)]
pub(super) struct Realm {
    pub(super) name: Box<str>,
    /// The core that owns the dealer.
    pub(super) home: CoreId,
    pub(super) uri_rule: UriRule,
    pub(super) uri_limits: UriLimits,
    pub(super) strict_request_ids: bool,
    /// Whether callers and publishers may ask to be disclosed.
    pub(super) disclose_me: bool,
    pub(super) roles: Vec<RealmRole>,
    /// The role of anonymous sessions, by listener.
    pub(super) anonymous_role: Vec<Option<u16>>,
    /// How clients may log in, by listener.
    pub(super) methods: Vec<Vec<AuthMethod>>,
    pub(super) accounts: Accounts,
    /// Those who let others in.
    pub(super) tokens: Option<Tokens>,
    /// Knows those whom `accounts` does not.
    pub(super) authenticator: Option<Authenticator>,
    pub(super) counts: Counts,
    pub(super) broker: Broker,
    /// Alike on every core.
    pub(super) retained: Retained,
    /// On every core the nodes of all.
    pub(super) sharding: Sharding,
    /// On every core what databases offer.
    pub(super) callable: Callable,
    /// On every core what is kept, and at home the events.
    pub(super) history: Option<Box<History>>,
    /// What its home announces while callees want to know who calls: the same number on every core.
    pub(super) wants_callers: u64,
    /// On the home core only. Every decision about procedures is made there.
    pub(super) dealer: Option<Dealer>,
    /// Whether there are meta procedures and meta events.
    pub(super) meta_api: bool,
    /// On the home core only: which subscriptions there are, on all cores.
    pub(super) directory: Option<Directory>,
}

/// A role and what it may do.
#[derive(Debug)]
pub(super) struct RealmRole {
    pub(super) name: Box<str>,
    pub(super) slow: config::SlowPolicy,
    pub(super) trust_level: Option<u64>,
    pub(super) permissions: Role,
    /// Decides what they leave open.
    pub(super) authorizer: Option<Box<Authorizer>>,
    /// How many sessions of this core have it.
    pub(super) sessions: u32,
}

/// The core where a realm's dealer is, of so many.
#[must_use]
pub fn home_of(realm: &config::Realm, cores: u16) -> CoreId {
    // The same on every core and at every start: a fixed hash of the name.
    let by_name = FixedState::with_seed(0).hash_one(&realm.name) % u64::from(cores);
    CoreId(realm.home.map_or(by_name as u16, |home| home as u16 % cores))
}

impl Realm {
    pub(super) fn new(
        config: &config::Realm,
        limits: &config::Limits,
        doors: &[Door],
        core: CoreId,
        cores: u16,
        keys: RealmKeys,
    ) -> Self {
        let home = home_of(config, cores);
        let roles: Vec<_> = config
            .roles
            .iter()
            .map(|role| RealmRole {
                name: role.name.as_str().into(),
                slow: role.slow,
                trust_level: role.trust_level,
                permissions: Role::new(role),
                authorizer: Authorizer::new(role),
                sessions: 0,
            })
            .collect();
        let anonymous_role = doors
            .iter()
            .map(|door| roles.iter().position(|role| *role.name == *door.role).map(|index| index as u16))
            .collect();
        let methods = doors.iter().map(|door| methods_at(door, config)).collect();
        let broker = Broker::new(keys.map, keys.subscription);
        Self {
            name: config.name.as_str().into(),
            home,
            uri_rule: config.uri_rule,
            uri_limits: UriLimits {
                bytes_max: limits.uri_bytes_max,
                components_max: limits.uri_components_max,
            },
            strict_request_ids: config.strict_request_ids,
            disclose_me: config.disclose_me,
            roles,
            anonymous_role,
            methods,
            accounts: Accounts::new(config),
            tokens: config.token.as_ref().map(Tokens::new),
            authenticator: None,
            counts: Counts::default(),
            wants_callers: FixedState::with_seed(keys.subscription).hash_one(("callers", &config.name)),
            sharding: Sharding::new(keys.map),
            callable: Callable::new(keys.map),
            history: History::new(config, &broker, keys.map),
            broker,
            retained: Retained::new(limits),
            dealer: (home == core).then(|| Dealer::new(keys.map, FixedState::with_seed(keys.subscription))),
            meta_api: config.meta_api,
            directory: (home == core).then(|| Directory::new(keys.map)),
        }
    }

    /// The number of a role.
    pub(super) fn role_of_name(&self, name: &str) -> Option<u16> {
        self.roles.iter().position(|role| *role.name == *name).map(|index| index as u16)
    }

    /// Checks a URI to publish to, to call, or to register exactly: those below `wamp` belong to the protocol.
    pub(super) fn check_uri(&self, uri: &str) -> Result<(), &'static str> {
        if is_reserved(uri) {
            return Err("URIs that begin with `wamp` are reserved for the protocol");
        }
        check(uri, self.uri_rule, self.uri_limits).map_err(UriError::as_str)
    }
}

/// How clients of a realm may log in at a listener: what both allow, and what somebody can do.
fn methods_at(door: &Door, realm: &config::Realm) -> Vec<AuthMethod> {
    let is_possible = |method: &AuthMethod| {
        if *method == AuthMethod::Cookie {
            return door.cookie_age.is_some();
        }
        // Whoever is asked about the others has to know what they log in by.
        let is_for_tokens = matches!(method, AuthMethod::Jwt | AuthMethod::Ticket) && realm.token.is_some();
        *method == AuthMethod::Anonymous
            || is_for_tokens
            || realm.authenticator.is_some() && *method != AuthMethod::Jwt
            || realm.users.iter().any(|user| user.methods().any(|own| own == *method))
    };
    let is_in = |list: &Option<Vec<AuthMethod>>, method: &AuthMethod| {
        list.as_ref().is_none_or(|list| list.contains(method))
    };
    AuthMethod::ALL
        .iter()
        .copied()
        .filter(|method| is_in(&realm.authmethods, method) && is_in(&door.authmethods, method))
        .filter(is_possible)
        .collect()
}

/// Keys of hashes, drawn at start.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealmKeys {
    /// Of the tables; each core may have its own.
    pub(super) map: u64,
    /// Of subscription ids; the same on every core.
    pub(super) subscription: u64,
}
