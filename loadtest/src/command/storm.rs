//! The router is killed and started again, and everybody comes back.

use std::time::Instant;

use crate::arguments::Storm;
use crate::crew::Crew;
use crate::outcome::{Outcome, Series};
use crate::plan::Order;
use crate::stage::{Show, Stage, reasons};

pub(crate) fn run(arguments: &Storm) -> Result<Outcome, String> {
    let sessions = arguments.idle.sessions;
    let mut stage = Stage::set(&arguments.common)?;
    if stage.router.is_none() {
        return Err("a storm needs a router that can be killed: --router BINARY".to_owned());
    }
    let within_ms = (arguments.reconnect_within * 1000.0) as u64;
    let (plans, shares) = super::idle_plans(&stage, &arguments.idle, false, Some(within_ms));
    let mut outcome = stage.outcome(&format!("{sessions} sessions come back after the router was killed"));
    let mut crew = Crew::start(&plans)?;
    crew.wait_until_ready(|_| {})?;
    for (number, share) in shares.iter().enumerate() {
        crew.order_one(number, Order::Open(*share))?;
    }
    let mut show = Show::new("sessions", sessions as u64, arguments.common.quiet);
    crew.wait_until_ready(|progress| show.set(progress.open as u64, &format!("{} open", progress.open)))?;
    show.done();

    let Some(router) = stage.router.as_mut() else { return Err("the router is gone".to_owned()) };
    let killed = Instant::now();
    router.kill();
    router.run()?;
    let pid = router.pid();
    let started = Instant::now();
    stage.watch(pid);
    // All of them hear of it before anybody counts who is back.
    let mut back = Vec::new();
    let mut show = Show::new("sessions", sessions as u64, arguments.common.quiet);
    for (number, share) in shares.iter().enumerate() {
        crew.order_one(number, Order::Open(*share))?;
    }
    crew.wait_until_ready(|progress| {
        back.push((killed.elapsed().as_secs_f64(), progress.open as f64));
        show.set(progress.open as u64, &format!("{} are back", progress.open));
    })?;
    show.done();
    let progress = crew.progress();
    outcome.figure("sessions", "sessions that are back", progress.open as f64, "");
    outcome.figure("seconds_since_kill", "since the router was killed", killed.elapsed().as_secs_f64(), "s");
    outcome.figure("seconds_since_start", "since it listened again", started.elapsed().as_secs_f64(), "s");
    let failed: u64 = progress.failed.values().sum();
    outcome.figure("failures", "connections that ended or were refused meanwhile", failed as f64, "");
    outcome.notes.push(reasons(&progress.failed));
    if let Some(usage) = stage.usage() {
        let us = usage.cpu_us() as f64 / progress.open.max(1) as f64;
        outcome.figure("router_cpu_us_per_session", "router CPU per session that came back", us, "µs");
        outcome.figure("router_resident_bytes", "router memory", usage.resident_bytes as f64, "bytes");
    }
    if progress.open < sessions {
        outcome.problems.push(format!("{} sessions are missing", sessions - progress.open));
    }
    outcome.series.push(Series {
        title: "sessions after the kill".to_owned(),
        x_label: "seconds".to_owned(),
        y_label: "sessions".to_owned(),
        points: back,
    });
    Ok(outcome)
}
