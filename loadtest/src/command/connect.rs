//! Many sessions: what each costs, that they are held, and that each gets its event.

use std::time::{Duration, Instant};

use crate::arguments::Connect;
use crate::crew::Crew;
use crate::outcome::{Outcome, Series};
use crate::plan::Order;
use crate::process::{available_bytes, slab_bytes};
use crate::stage::{Show, Stage, reasons};

pub(crate) fn run(arguments: &Connect) -> Result<Outcome, String> {
    let sessions = arguments.idle.sessions;
    let stage = Stage::set(&arguments.common)?;
    let (plans, shares) = super::idle_plans(&stage, &arguments.idle, arguments.subscribe, None);
    let with = if arguments.subscribe { ", a subscription each" } else { "" };
    let mut outcome = stage.outcome(&format!("{sessions} sessions{with}"));
    let mut show = Show::new("sessions", sessions as u64, arguments.common.quiet);
    let mut crew = Crew::start(&plans)?;
    crew.wait_until_ready(|_| {})?;

    let slab_before = slab_bytes();
    let before = stage.usage();
    let mut memory = Vec::new();
    let first = arguments.slope_from.unwrap_or(sessions / 5).clamp(1, sessions);
    let mut at_first = None;
    let mut took = Duration::ZERO;
    for step in [first, sessions] {
        let begun = Instant::now();
        for (number, share) in shares.iter().enumerate() {
            crew.order_one(number, Order::Open(share * step / sessions))?;
        }
        crew.wait_until_ready(|progress| {
            show.set(progress.open as u64, &format!("{} open", progress.open));
            if let Some(usage) = stage.usage() {
                memory.push((progress.open as f64, usage.resident_bytes as f64 / 1e6));
            }
        })?;
        took += begun.elapsed();
        if step == first {
            // As in the end: what the router and its allocator put off has come by then.
            crew.wait(Duration::from_secs_f64(arguments.hold.clamp(0.3, 2.0)), |_| {})?;
            at_first = stage.usage().map(|usage| (crew.progress().open, usage.resident_bytes));
        }
    }
    let opened = stage.usage();
    show.done();
    let open = crew.progress().open;
    outcome.figure("sessions", "sessions open", open as f64, "");
    outcome.figure("sessions_per_second", "sessions opened a second", open as f64 / took.as_secs_f64(), "");
    if let Some((opened, before)) = opened.zip(before) {
        let us = opened.since(&before).cpu_us() as f64 / open.max(1) as f64;
        outcome.figure("router_cpu_us_per_session", "router CPU per session opened", us, "µs");
    }
    hold(arguments, &stage, &mut crew, &mut outcome)?;
    if let Some((usage, (open_before, resident_before))) = stage.usage().zip(at_first)
        && open > open_before
    {
        let slope = (usage.resident_bytes as f64 - resident_before as f64) / (open - open_before) as f64;
        let label = format!("router memory per session, from {open_before} to {open}");
        outcome.figure("router_bytes_per_session", &label, slope, "bytes");
        outcome.figure("router_resident_bytes", "router memory in all", usage.resident_bytes as f64, "bytes");
    }
    if let Some((after, before)) = slab_bytes().zip(slab_before) {
        let bytes = (after as f64 - before as f64) / open.max(1) as f64;
        outcome.figure(
            "slab_bytes_per_session",
            "kernel memory per session, all of this machine",
            bytes,
            "bytes",
        );
    }
    if let Some(available) = available_bytes() {
        outcome.figure("available_bytes", "memory still to be had", available as f64, "bytes");
    }
    if arguments.subscribe {
        let mut show = Show::new("events", open as u64, arguments.common.quiet);
        crew.order(Order::Deliver)?;
        crew.wait_until_ready(|progress| {
            show.set(progress.operations, &format!("{} received", progress.operations));
        })?;
        show.done();
    }
    let tally = crew.finish()?;
    if arguments.subscribe {
        outcome.figure("events", "events received, one for each session", tally.operations as f64, "");
        outcome.latency("event_latency", "event latency", &tally.latency_us);
    }
    outcome.latency("open", "time to open a session", &tally.open_us);
    outcome.problems.extend(tally.problems());
    if open < sessions {
        outcome.problems.push(format!("{} of {sessions} sessions are missing", sessions - open));
    }
    outcome.series.push(Series {
        title: "router memory over sessions".to_owned(),
        x_label: "sessions".to_owned(),
        y_label: "MB resident".to_owned(),
        points: memory,
    });
    Ok(outcome)
}

/// Nothing happens, and nobody goes.
fn hold(arguments: &Connect, stage: &Stage, crew: &mut Crew, outcome: &mut Outcome) -> Result<(), String> {
    let open = crew.progress().open;
    let before = stage.usage();
    let begun = Instant::now();
    crew.wait(Duration::from_secs_f64(arguments.hold), |_| {})?;
    if let Some((after, before)) = stage.usage().zip(before) {
        let percent =
            after.since(&before).cpu_us() as f64 / begun.elapsed().as_micros().max(1) as f64 * 100.0;
        outcome.figure("idle_busy", "router while they are held", percent, "% of a core");
    }
    let progress = crew.progress();
    if progress.open < open {
        outcome.problems.push(format!(
            "{} sessions ended while they were held: {}",
            open - progress.open,
            reasons(&progress.failed)
        ));
    }
    Ok(())
}
