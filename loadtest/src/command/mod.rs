//! One file for each command.

pub(crate) mod connect;
pub(crate) mod database;
pub(crate) mod flood;
pub(crate) mod mixed;
pub(crate) mod pubsub;
pub(crate) mod rpc;
pub(crate) mod stall;
pub(crate) mod storm;

use std::net::{IpAddr, Ipv4Addr};

use crate::arguments::IdleArguments;
use crate::plan::{IdleJob, Job, Plan};
use crate::stage::Stage;

/// How fast work is, for titles.
fn pace(rate: Option<f64>, flight: usize) -> String {
    match rate {
        Some(rate) => format!("{rate} a second each"),
        None => format!("{flight} in flight"),
    }
}

/// Plans for as many processes as the sessions need, and how many sessions each has.
fn idle_plans(
    stage: &Stage,
    arguments: &IdleArguments,
    subscribe: bool,
    reconnect_within_ms: Option<u64>,
) -> (Vec<Plan>, Vec<usize>) {
    let processes = arguments.sessions.div_ceil(arguments.per_process.max(1)).max(1);
    let (mut first, mut addresses) = (0, 0);
    let mut plans = Vec::new();
    let mut shares = Vec::new();
    for number in 0..processes {
        let share = arguments.sessions * (number + 1) / processes - arguments.sessions * number / processes;
        let job = IdleJob {
            first: first as u32,
            subscribe,
            window: arguments.window.div_ceil(processes),
            sources: sources(stage, arguments, &mut addresses, share),
            reconnect_within_ms,
            patience_ms: (arguments.patience * 1000.0) as u64,
        };
        plans.push(stage.plan(Job::Idle(job)));
        shares.push(share);
        first += share;
    }
    (plans, shares)
}

/// How many sessions come from one address of loopback: half of the ports of a default system, from which the kernel gives
/// them out quickly; for the other half it looks through all of them.
const SESSIONS_OF_ADDRESS: usize = 14_000;

/// Where the sessions of a process come from: addresses of its own, as many as they need.
fn sources(stage: &Stage, arguments: &IdleArguments, used: &mut u16, share: usize) -> Vec<IpAddr> {
    if !arguments.sources.is_empty() {
        return arguments.sources.clone();
    }
    let is_loopback =
        stage.targets[0].address().is_some_and(|address| address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST));
    if is_loopback {
        let address = |_| {
            *used += 1;
            // 127.0.0.1 is left to others.
            let [high, low] = (*used + 1).to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(127, 0, high, low))
        };
        (0..share.div_ceil(SESSIONS_OF_ADDRESS).max(1)).map(address).collect()
    } else {
        Vec::new()
    }
}
