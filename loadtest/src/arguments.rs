//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::placement::Cores;
use crate::plan::Protocol;
use crate::wamp::Serializer;

/// Loads a WAMP router (or NATS) with sessions, calls and events, and says what that costs it.
///
/// The router is either running already (--url) or started for the run (--router); then two listeners more let sessions
/// choose their core. CPU time is that of all threads of the router's process and its descendants.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Opens many sessions, holds them, and sends an event to each
    Connect(Connect),
    /// Calls, in a closed loop or at a pace
    Rpc(Rpc),
    /// Events, in a closed loop or at a pace
    Pubsub(PubSub),
    /// A working pair beside idle sessions, and without them
    Mixed(Mixed),
    /// A subscriber that stops reading beside one that does not
    Stall(Stall),
    /// What two floods of large events and calls leave behind in the router's memory
    Flood(Flood),
    /// Procedures and events of a database, beside pgbench; needs --router
    Database(Database),
    /// All sessions come back after the router was killed; needs --router
    Storm(Storm),
    /// A server that does nothing but send: what the kernel alone costs (WAMP over WebSocket, JSON)
    Bare(Bare),
    /// One process of a run; reads its plan from standard input
    #[command(hide = true)]
    Worker,
}

/// What all commands take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Where the router listens: ws://, rs://, nats://, ws+unix:///SOCKET, rs+unix:///SOCKET
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    pub(crate) url: String,
    /// Start this router for the run, on free ports
    #[arg(long, value_name = "BINARY")]
    pub(crate) router: Option<PathBuf>,
    /// The configuration of the router that is started, without listeners
    #[arg(long, value_name = "FILE", requires = "router")]
    pub(crate) router_config: Option<PathBuf>,
    /// With --router: speak RawSocket to it
    #[arg(long, requires = "router")]
    pub(crate) rawsocket: bool,
    /// The process to watch; by default the one that listens at the URL
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    #[arg(long, value_enum, default_value = "wamp")]
    pub(crate) protocol: Protocol,
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) serializer: Serializer,
    #[arg(long, default_value = "realm1")]
    pub(crate) realm: String,
    /// The length of the text that is called with or published, in bytes; at least 40
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub(crate) payload: usize,
    /// How long is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub(crate) duration: f64,
    /// How long work runs before it is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// Write what came of it as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a report with plots, one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// With --router: what it did for each call or event, by its own counters: turns, sleeps, system calls for messages
    #[arg(long, requires = "router")]
    pub(crate) counters: bool,
    /// No progress, and no configuration
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) idle: IdleArguments,
    /// Each session subscribes to a topic of its own, and gets an event in the end
    #[arg(long)]
    pub(crate) subscribe: bool,
    /// How long the sessions are held, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub(crate) hold: f64,
    /// Memory per session is the slope from so many sessions on; by default a fifth
    #[arg(long, value_name = "SESSIONS")]
    pub(crate) slope_from: Option<usize>,
}

/// How sessions are opened.
#[derive(Clone, Debug, Args)]
pub(crate) struct IdleArguments {
    #[arg(long, default_value_t = 10_000)]
    pub(crate) sessions: usize,
    /// Connections that are being made at once, by all processes together
    #[arg(long, default_value_t = 256)]
    pub(crate) window: usize,
    /// Sessions of one process: descriptors are limited
    #[arg(long, value_name = "SESSIONS", default_value_t = 15_000)]
    pub(crate) per_process: usize,
    /// Where connections come from; by default 127.0.0.2, .3 and so on, one for each process, where the router is at 127.0.0.1
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) sources: Vec<IpAddr>,
    /// How long nothing may arrive until events are lost, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub(crate) patience: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Rpc {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 4)]
    pub(crate) callers: usize,
    #[arg(long, default_value_t = 4)]
    pub(crate) callees: usize,
    /// Open calls of each caller
    #[arg(long, default_value_t = 8)]
    pub(crate) flight: usize,
    /// Calls of each caller a second, instead of as fast as they are answered
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
    /// With --router: the core of each caller, in turn: any, 0, 1, or a list such as 0,1
    #[arg(long, value_name = "CORES", default_value = "any", requires = "router")]
    pub(crate) callers_on: Cores,
    /// The same for callees. Caller number n calls callee number n modulo their count: 0,0,1,1 beside callers on 0,1 has all
    /// four placements of a caller and its callee at once
    #[arg(long, value_name = "CORES", default_value = "any", requires = "router")]
    pub(crate) callees_on: Cores,
    /// With --router: all four placements of callers and callees on two cores, one after the other, and their mean
    #[arg(long, requires = "router", conflicts_with_all = ["callers_on", "callees_on"])]
    pub(crate) placements: bool,
    /// Processes that do the same work side by side
    #[arg(long, default_value_t = 1)]
    pub(crate) processes: usize,
}

#[derive(Debug, Args)]
pub(crate) struct PubSub {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 1)]
    pub(crate) publishers: usize,
    #[arg(long, default_value_t = 1)]
    pub(crate) subscribers: usize,
    /// Publisher (subscriber) number n publishes (subscribes) to topic number n modulo this
    #[arg(long, default_value_t = 1)]
    pub(crate) topics: usize,
    /// Publications of each publisher that not all have received
    #[arg(long, default_value_t = 16)]
    pub(crate) flight: usize,
    /// Publications are acknowledged
    #[arg(long)]
    pub(crate) acknowledge: bool,
    /// With --router: the core of each publisher, in turn: any, 0, 1, or a list such as 0,1
    #[arg(long, value_name = "CORES", default_value = "any", requires = "router")]
    pub(crate) publishers_on: Cores,
    /// The same for subscribers
    #[arg(long, value_name = "CORES", default_value = "any", requires = "router")]
    pub(crate) subscribers_on: Cores,
    /// Publications of each publisher a second, instead of as fast as they are received
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
    /// Processes that do the same work side by side
    #[arg(long, default_value_t = 1)]
    pub(crate) processes: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Mixed {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) idle: IdleArguments,
    /// How often it is measured with and without
    #[arg(long, default_value_t = 10)]
    pub(crate) pairs: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Stall {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Publications that the healthy subscriber has not received
    #[arg(long, default_value_t = 16)]
    pub(crate) flight: usize,
    /// Subscribers that stop reading
    #[arg(long, default_value_t = 1)]
    pub(crate) stalled: usize,
}

#[derive(Debug, Args)]
#[command(mut_arg("payload", |payload| payload.default_value("65536")))]
pub(crate) struct Flood {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) idle: IdleArguments,
    #[arg(long, default_value_t = 32)]
    pub(crate) publishers: usize,
    #[arg(long, default_value_t = 64)]
    pub(crate) subscribers: usize,
    /// Publisher (subscriber) number n publishes (subscribes) to topic number n modulo this
    #[arg(long, default_value_t = 8)]
    pub(crate) topics: usize,
    #[arg(long, default_value_t = 16)]
    pub(crate) callers: usize,
    #[arg(long, default_value_t = 4)]
    pub(crate) callees: usize,
    /// Publications of each publisher that not all have received, and open calls of each caller
    #[arg(long, default_value_t = 8)]
    pub(crate) flight: usize,
    /// How many percent more memory the second flood may leave than the first: more is a leak. What buffers and the allocator
    /// keep differs by some megabytes from flood to flood; a leak grows with --duration
    #[arg(long, value_name = "PERCENT", default_value_t = 35.0, allow_negative_numbers = true)]
    pub(crate) growth_max: f64,
    /// How long the router may take to become idle before each look at its memory, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) settle: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Database {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which kind of database
    #[arg(long, value_enum, default_value = "postgresql")]
    pub(crate) kind: DatabaseKind,
    /// A PostgreSQL database that is there, as a role that may make schemas and `pgbench` understands, instead of a server of
    /// this run's own; what the run makes is dropped again, but for the schema `wamp`
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Events of PostgreSQL go through the log of the server
    #[arg(long)]
    pub(crate) log: bool,
    /// Connections of the router to the database, and clients of pgbench
    #[arg(long, default_value_t = 8)]
    pub(crate) connections: usize,
    /// Open calls for each connection
    #[arg(long, default_value_t = 4)]
    pub(crate) flight: usize,
    /// How often each is measured, in turn with what it is compared with
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Publications a second whose latency is measured
    #[arg(long, value_name = "PER_SECOND", default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// Events of one transaction, for how fast a backlog drains
    #[arg(long, value_name = "EVENTS", default_value_t = 100_000)]
    pub(crate) backlog: u32,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Calls, Part::Publishing, Part::Latency, Part::Backlog])]
    pub(crate) parts: Vec<Part>,
}

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DatabaseKind {
    Postgresql,
    Sqlite,
}

/// A part of what is measured of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Calls a second, and what they cost
    Calls,
    /// Transactions that publish against those that do not
    Publishing,
    /// From publish() to receiving
    Latency,
    /// Events of one large transaction
    Backlog,
}

#[derive(Debug, Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) idle: IdleArguments,
    /// Clients wait a random part of this before they come back, and up to eight times as long after failures
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) reconnect_within: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Bare {
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: std::net::SocketAddr,
}
