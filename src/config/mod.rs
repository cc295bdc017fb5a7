//! The configuration as values: every field parsed into its type once. Text in, [`Config`] out; no I/O.
//!
//! A new key is a field of a struct below and a line in the `section!` of that struct, which says how it is read, its
//! range and its default. From that one line come parsing, messages, overrides by the environment and printing.

pub mod authentication;
mod cookie;
pub mod database;
mod database_inside;
mod environment;
mod errors;
mod kinds;
mod limits;
mod listener;
mod node;
mod parse;
mod print;
mod realm;
mod section;
mod tree;

pub use authentication::{AuthMethod, Secret, TokenConfig, User};
pub use cookie::{CookieConfig, SameSite};
pub use database::{
    Database, DatabaseKind, DatabaseProcedure, DatabaseRole, DatabaseSchema, DatabaseUrl, DatabaseWatch,
};
pub use database_inside::{DatabaseInside, DatabaseSubscription};
pub use environment::PREFIX;
pub use errors::{ConfigError, ConfigErrors};
pub use parse::parse;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::wamp::codec::Serializer;
use crate::wamp::options::MatchPolicy;
use crate::wamp::uri::UriRule;

/// Everything that the operator decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[limits]`
    pub limits: Limits,
    /// `[[realm]]`, at least one.
    pub realms: Vec<Realm>,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[[database]]`
    pub databases: Vec<Database>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// `cores`: the cores that run a shard each; `None` ("auto") takes those that the process may use.
    pub cores: Option<Vec<usize>>,
    /// `runtime`: what hosts the shards.
    pub runtime: Runtime,
    /// `shutdown_timeout_ms`: how long the end may take after the first signal.
    pub shutdown_timeout: Duration,
    /// `log.level`, `log.format`
    pub log: Log,
}

/// What hosts a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// glommio where io_uring is allowed, plain threads with a warning where it is not.
    #[default]
    Auto,
    /// glommio, or an error.
    Glommio,
    /// A plain pinned thread for each core.
    Thread,
}

/// `[node.log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `level`: the least severe level that is written.
    pub level: LogLevel,
    /// `format`
    pub format: LogFormat,
}

/// Severity of log lines.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[limits]`: every bound, with what happens there in docs/limits.md. Sizes are bytes.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Limits {
    pub connections_max: Option<usize>,
    pub connections_per_address_max: usize,
    pub connects_per_address_per_second: u32,
    pub connects_per_address_burst: u32,
    pub login_failures_per_address_max: u32,
    pub login_failures_forgiven_per_minute: u32,
    pub check_threads: usize,
    pub checks_waiting_max: usize,
    pub handshake_timeout: Duration,
    pub hello_timeout: Duration,
    pub http_head_bytes_max: usize,
    pub hello_bytes_max: usize,
    pub message_bytes_max: usize,
    pub frames_per_message_max: u32,
    pub compression_bytes_min: usize,
    pub compression_level: u8,
    pub compression_window_bits: u8,
    pub inflate_ratio_max: u32,
    pub depth_max: u32,
    pub uri_bytes_max: usize,
    pub uri_components_max: usize,
    pub option_list_max: usize,
    pub subscriptions_per_session_max: usize,
    pub registrations_per_session_max: usize,
    pub uri_bytes_per_session_max: usize,
    pub wildcard_shapes_max: usize,
    pub nodes_per_subscription_max: usize,
    pub nodes_per_registration_max: usize,
    pub retained_events_per_realm_max: usize,
    pub retained_bytes_per_realm_max: usize,
    pub retained_per_subscribe_max: usize,
    /// Subscriptions of one core that are being resumed (`_after`) and have not caught up.
    pub resumptions_per_core_max: usize,
    pub retained_bytes_per_subscribe_max: usize,
    pub calls_per_session_max: usize,
    pub call_all_timeout: Duration,
    pub call_all_bytes_per_realm_max: usize,
    pub invocations_per_session_max: usize,
    pub queued_calls_per_registration_max: usize,
    pub queued_bytes_per_registration_max: usize,
    pub queued_bytes_per_realm_max: usize,
    pub queue_timeout: Duration,
    pub reroutes_per_call_max: usize,
    pub reroute_bytes_per_registration_max: usize,
    pub takeover_timeout: Duration,
    pub outbox_soft_bytes: usize,
    pub outbox_hard_bytes: usize,
    pub outbox_bytes_per_core_max: usize,
    pub partial_bytes_per_core_max: usize,
    pub paused_bytes_per_core_max: usize,
    pub slow_consumer_timeout: Duration,
    pub publisher_hold: Duration,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    pub turn_bytes_per_session: usize,
    pub turn_deliveries_per_session: usize,
    pub turn_flush_bulk_max: usize,
    pub credit_bytes_per_session: usize,
    pub ring_entries: usize,
    pub ring_bytes_max: usize,
    pub linger_timeout: Duration,
    pub linger_bytes_max: usize,
    pub lingering_per_core_max: usize,
    pub kill_timeout: Duration,
    pub authenticator_timeout: Duration,
    pub authenticator_calls_max: usize,
    pub cookie_logins_max: usize,
    pub cookie_logins_per_user_max: usize,
    pub call_timeout: Duration,
    pub call_timeout_max: Duration,
    pub authorizer_timeout: Duration,
    pub authorizer_calls_max: usize,
    pub authorizer_cache_max: usize,
    /// `testaments_per_session_max`: what a session may leave to be published when it ends.
    pub testaments_per_session_max: usize,
    /// `testament_bytes_per_session_max`: and how long all of it may be.
    pub testament_bytes_per_session_max: usize,
    /// `details_bytes_per_session_max`: what `wamp.session.modify_details` may say of a session.
    pub details_bytes_per_session_max: usize,
    /// `gathers_per_core_max`: meta procedures that wait for the answers of other cores.
    pub gathers_per_core_max: usize,
    /// `gather_timeout_ms`: how long they wait.
    pub gather_timeout: Duration,
    pub memory_high_percent: u8,
    pub memory_critical_percent: u8,
}

/// `[[realm]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Realm {
    /// `name`, a URI.
    pub name: String,
    /// `home`: the core that owns the dealer, an index into the running cores; `None` takes it from the name.
    pub home: Option<usize>,
    /// `uri_rule`
    pub uri_rule: UriRule,
    /// `strict_request_ids`: whether request ids must count 1, 2, 3, …
    pub strict_request_ids: bool,
    /// `authmethods`: how clients may log in; `None` ("auto") is `anonymous` and what the users have.
    pub authmethods: Option<Vec<AuthMethod>>,
    /// `users_file`: a file with more users; see [`Realm::add_users`].
    pub users_file: Option<PathBuf>,
    /// `authenticator`: the procedure that knows users whom `users` does not name.
    pub authenticator: Option<String>,
    /// `authenticator_realm`: where it is registered; `None` is here.
    pub authenticator_realm: Option<String>,
    /// `disclose_me`: whether callers and publishers may ask to be disclosed.
    pub disclose_me: bool,
    /// `meta_api`: whether there are meta procedures and meta events.
    pub meta_api: bool,
    /// `[[realm.role]]`, at least one.
    pub roles: Vec<Role>,
    /// `[[realm.history]]`
    pub histories: Vec<History>,
    /// `[realm.token]`
    pub token: Option<TokenConfig>,
    /// `[[realm.user]]`
    pub users: Vec<User>,
}

/// `[[realm.history]]`: events that are kept for `wamp.subscription.get_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// `uri`: of the topic, or the pattern.
    pub uri: String,
    /// `match`
    pub match_policy: MatchPolicy,
    /// `limit`: how many events are kept.
    pub limit: usize,
    /// `bytes_max`: what they may hold together.
    pub bytes_max: usize,
    /// `age_max_ms`: for how long they are kept; zero is for ever.
    pub age_max: Duration,
}

/// `[[realm.role]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// `name`
    pub name: String,
    /// `slow`: what happens to a session of this role that does not read its events.
    pub slow: SlowPolicy,
    /// `authorizer`: the procedure that decides what the permissions leave open.
    pub authorizer: Option<String>,
    /// `authorizer_cache_ms`: how long its answers may be used again, where it says that they may.
    pub authorizer_cache: Duration,
    /// `trust_level` of the calls and events of this role, at most 2^53.
    pub trust_level: Option<u64>,
    /// `[[realm.role.permission]]`, in order.
    pub permissions: Vec<Permission>,
}

/// What happens to events for an outbox at its hard bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// The session is closed with `crosspoint.error.slow_consumer`.
    #[default]
    Close,
    /// The event is dropped; the next one says how many were (`_lost`).
    Drop,
}

/// `[[realm.role.permission]]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Permission {
    pub uri: String,
    pub match_policy: MatchPolicy,
    pub publish: bool,
    pub subscribe: bool,
    pub call: bool,
    pub register: bool,
    /// `disclose`: who calls or publishes by this permission is disclosed, asked or not.
    pub disclose_caller: bool,
    pub disclose_publisher: bool,
}

/// `[[listener]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: ListenAddress,
    /// `mode`
    pub mode: ListenerMode,
    /// `websocket`, `rawsocket`: which of the two are spoken, at least one.
    pub websocket: bool,
    /// See `websocket`.
    pub rawsocket: bool,
    /// `path` of the WebSocket endpoint.
    pub path: String,
    /// `serializers`, in no order: the client chooses.
    pub serializers: Vec<Serializer>,
    /// `batched`: whether the `.batched` subprotocols are offered too.
    pub batched: bool,
    /// `compression`: whether permessage-deflate is agreed on with clients that offer it.
    pub compression: bool,
    /// `page`: what a browser sees at `/`.
    pub page: ListenerPage,
    /// `origins`
    pub origins: Origins,
    /// `role`: the role of anonymous sessions that come in here.
    pub role: String,
    /// `authmethods`: how those who come in here may log in; `None` ("all") is whatever the realm offers.
    pub authmethods: Option<Vec<AuthMethod>>,
    /// `cores`: indices into the running cores; `None` is all of them.
    pub cores: Option<Vec<usize>>,
    /// `backlog` of the kernel.
    pub backlog: i32,
    /// `[listener.cookie]`: what browsers get, so that they need not log in again; `None` is nothing.
    pub cookie: Option<CookieConfig>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host` (an address, not a name) and `port`; port 0 takes a free one.
    Tcp(IpAddr, u16),
    /// `unix`: the path of the socket.
    Unix(PathBuf),
}

/// What is behind a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerMode {
    /// WAMP.
    #[default]
    Wamp,
    /// Every WebSocket message comes back; for conformance suites.
    Echo,
}

/// What a browser sees at `/` of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerPage {
    /// What this is, and how to connect.
    #[default]
    Welcome,
    /// The page of `crosspoint demo`, with a script that connects.
    Demo,
}

/// Which web pages may connect, by the Origin header of their handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// None given, the same host as the request's, and localhost.
    #[default]
    SameHost,
    /// Any.
    Any,
    /// None given, and these: `scheme://host[:port]`, `*.host` for the hosts below one, or `null`.
    List(Vec<String>),
}

#[cfg(test)]
pub(crate) mod tests;
