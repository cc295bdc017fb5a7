//! A subscriber that stops reading beside one that does not: what it costs the router, and the other one.

use crate::arguments::Stall;
use crate::outcome::Outcome;
use crate::placement::Cores;
use crate::plan::{Job, Plan, PubSubJob};
use crate::stage::{Stage, reasons};

pub(crate) fn run(arguments: &Stall) -> Result<Outcome, String> {
    let stage = Stage::set(&arguments.common)?;
    let mut outcome = stage.outcome(&format!(
        "one publisher, one subscriber, {} in flight; then beside {} that stopped reading",
        arguments.flight, arguments.stalled
    ));
    let without = stage.measure(&[plan(&stage, arguments, 0)], "without")?;
    let with = stage.measure(&[plan(&stage, arguments, arguments.stalled)], "beside stalled ones")?;
    for (name, label, measured) in [("without", "without", &without), ("with", "beside them", &with)] {
        let seconds = measured.tally.wall_us.max(1) as f64 / 1e6;
        let rate = measured.tally.operations as f64 / seconds;
        outcome.figure(&format!("events_per_second_{name}"), &format!("events a second, {label}"), rate, "");
        outcome.figure(
            &format!("longest_gap_{name}_us"),
            &format!("longest time without an event, {label}"),
            measured.tally.longest_gap_us as f64,
            "µs",
        );
        outcome.latency(&format!("latency_{name}"), &format!("latency, {label}"), &measured.tally.latency_us);
        outcome.problems.extend(measured.tally.problems());
    }
    let ratio = with.tally.longest_gap_us as f64 / without.tally.longest_gap_us.max(1) as f64;
    outcome.figure("longest_gap_ratio", "longest time without an event, beside to without", ratio, "");
    let grown = with.resident_peak.saturating_sub(with.resident_before);
    outcome.figure("router_grown_bytes", "router memory grew by at most", grown as f64, "bytes");
    outcome.figure(
        "stalled_events",
        "events that the stalled ones got in the end",
        with.tally.stalled_received as f64,
        "",
    );
    outcome.notes.push(format!("the stalled ones: {}", reasons(&with.tally.stalled_ended)));
    if let Some(closed) = stage.router.as_ref().and_then(|router| router.counter("closed_slow_consumer")) {
        outcome.figure(
            "closed_slow_consumer",
            "closed as slow consumers, by the router's counter",
            closed as f64,
            "",
        );
    }
    Ok(outcome)
}

fn plan(stage: &Stage, arguments: &Stall, stalled: usize) -> Plan {
    stage.plan(Job::PubSub(PubSubJob {
        prefix: format!("loadtest.stall.{}", std::process::id()),
        publishers: 1,
        subscribers: 1,
        topics: 1,
        flight: arguments.flight,
        acknowledge: false,
        rate: None,
        stalled,
        publishers_on: Cores::any(),
        subscribers_on: Cores::any(),
    }))
}
