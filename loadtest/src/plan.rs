//! What a worker process is told to do, and what it says: lines of JSON on its standard input and output.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::placement::Cores;
use crate::tally::Tally;
use crate::target::Target;
use crate::wamp::Serializer;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// WAMP
    Wamp,
    /// Core NATS
    Nats,
}

/// What all connections of a worker have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Where to; jobs name them by number.
    pub(crate) targets: Vec<Target>,
    pub(crate) protocol: Protocol,
    pub(crate) serializer: Serializer,
    pub(crate) realm: String,
    pub(crate) payload_bytes: usize,
}

/// The whole of what a worker does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) job: Job,
}

/// The work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Idle(IdleJob),
    Rpc(RpcJob),
    PubSub(PubSubJob),
    Listen(ListenJob),
}

/// Sessions that are there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IdleJob {
    /// The number of its first session among those of all workers.
    pub(crate) first: u32,
    /// Each session subscribes to a topic of its own.
    pub(crate) subscribe: bool,
    /// How many connections are being made at once.
    pub(crate) window: usize,
    /// Where connections come from, in turn; none leaves it to the kernel.
    pub(crate) sources: Vec<IpAddr>,
    /// A connection that ends is made again, after a random part of this time, twice as long after each failure.
    pub(crate) reconnect_within_ms: Option<u64>,
    /// How long without an event until those that are missing are lost.
    pub(crate) patience_ms: u64,
}

/// Calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RpcJob {
    /// What its procedures begin with; without callees the one procedure, which somebody else has and which answers with what it
    /// is called with.
    pub(crate) prefix: String,
    pub(crate) callers: usize,
    /// Caller number n calls callee number n modulo this.
    pub(crate) callees: usize,
    /// Open calls of each caller.
    pub(crate) flight: usize,
    /// Calls a second of each caller; none is as fast as `flight` permits.
    pub(crate) rate: Option<f64>,
    pub(crate) callers_on: Cores,
    pub(crate) callees_on: Cores,
}

/// Events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PubSubJob {
    /// What its topics begin with.
    pub(crate) prefix: String,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Publisher (subscriber) number n publishes (subscribes) to topic number n modulo this.
    pub(crate) topics: usize,
    /// Publications of each publisher that not everybody has received.
    pub(crate) flight: usize,
    pub(crate) acknowledge: bool,
    /// Publications a second of each publisher; none is as fast as `flight` permits.
    pub(crate) rate: Option<f64>,
    /// Further subscribers of the first topic, which stop reading when the work starts.
    pub(crate) stalled: usize,
    pub(crate) publishers_on: Cores,
    /// The stalled ones, too.
    pub(crate) subscribers_on: Cores,
}

/// Events that others publish.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ListenJob {
    pub(crate) topic: String,
    /// They say who sent them, their number and when, and are checked; or they are only counted.
    pub(crate) is_stamped: bool,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Idle: so many sessions are to be open.
    Open(usize),
    /// Idle: an event to each session.
    Deliver,
    /// Idle: all sessions end.
    Close,
    /// Work begins.
    Start,
    /// What came before does not count.
    Measure,
    /// No new work; it is done when nothing is on its way any more, and may begin again.
    Pause,
    /// No new work; then the tally.
    Stop,
}

/// What a worker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// How it stands, now and then.
    Progress(Progress),
    /// What was ordered is done.
    Ready,
    /// What came of it.
    Done(Box<Tally>),
    /// It cannot go on.
    Failed(String),
}

/// How a worker stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Sessions that are open and have what they were to have.
    pub(crate) open: usize,
    /// Sessions that did not come about, by reason.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Operations since the start.
    pub(crate) operations: u64,
}
