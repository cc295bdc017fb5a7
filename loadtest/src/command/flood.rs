//! What a flood leaves behind: the router's memory before one, at its height, after it, and after another one.

use std::time::{Duration, Instant};

use crate::arguments::Flood;
use crate::crew::Crew;
use crate::outcome::{Outcome, Series};
use crate::placement::Cores;
use crate::plan::{Job, Order, Plan, PubSubJob, RpcJob};
use crate::stage::{Stage, reasons};

/// A router that takes no more CPU time than this in a second does nothing any more, in microseconds: two ticks of its clock.
const IDLE_US_MAX: u64 = 20_000;

pub(crate) fn run(arguments: &Flood) -> Result<Outcome, String> {
    check(arguments)?;
    let sessions = arguments.idle.sessions;
    let stage = Stage::set(&arguments.common)?;
    if stage.usage().is_none() {
        return Err(
            "a flood is about the memory of the router, and its process is not known; --pid names it"
                .to_owned(),
        );
    }
    let (mut plans, shares) = super::idle_plans(&stage, &arguments.idle, true, None);
    plans.extend(floods(&stage, arguments));
    let mut outcome = stage.outcome(&format!(
        "two floods beside {sessions} sessions with a subscription each: {} publishers, {} subscribers, {} topics, \
         {} callers",
        arguments.publishers, arguments.subscribers, arguments.topics, arguments.callers
    ));
    let mut crew = Crew::start(&plans)?;
    crew.wait_until_ready(|_| {})?;
    for (number, share) in shares.iter().enumerate() {
        crew.order_one(number, Order::Open(*share))?;
    }
    crew.wait_until_ready(|_| {})?;
    let mut memory = Memory::new(&stage);
    let before = memory.settle(&mut crew, arguments.settle)?;
    let mut after = Vec::new();
    for flood in ["first", "second"] {
        let earlier = crew.progress().operations;
        for order in [Order::Start, Order::Measure] {
            (shares.len()..plans.len()).try_for_each(|number| crew.order_one(number, order))?;
        }
        crew.wait(Duration::from_secs_f64(arguments.common.duration), |_| memory.sample())?;
        (shares.len()..plans.len()).try_for_each(|number| crew.order_one(number, Order::Pause))?;
        crew.wait_until_ready(|_| memory.sample())?;
        let operations = crew.progress().operations - earlier;
        let label = format!("calls and events, {flood} flood");
        outcome.figure(&format!("operations_{flood}"), &label, operations as f64, "");
        if operations == 0 {
            outcome.problems.push(format!("the {flood} flood was none: nothing was answered or received"));
        }
        after.push(memory.settle(&mut crew, arguments.settle)?);
    }
    let progress = crew.progress();
    if progress.open < sessions {
        outcome.problems.push(format!(
            "{} of {sessions} sessions are missing: {}",
            sessions - progress.open,
            reasons(&progress.failed)
        ));
    }
    let tally = crew.finish()?;
    outcome.problems.extend(tally.problems());
    memory.tell(before, [after[0], after[1]], arguments, &mut outcome);
    Ok(outcome)
}

fn check(arguments: &Flood) -> Result<(), String> {
    let counts = [
        arguments.publishers,
        arguments.subscribers,
        arguments.topics,
        arguments.flight,
        arguments.callers,
        arguments.callees,
    ];
    if counts.contains(&0) {
        return Err(
            "a flood needs publishers, subscribers, topics, callers, callees and something in flight"
                .to_owned(),
        );
    }
    if arguments.topics > arguments.subscribers {
        return Err("every topic needs a subscriber".to_owned());
    }
    Ok(())
}

/// Events from one process, calls from another.
fn floods(stage: &Stage, arguments: &Flood) -> [Plan; 2] {
    let prefix = format!("loadtest.flood.{}", std::process::id());
    let events = PubSubJob {
        prefix: prefix.clone(),
        publishers: arguments.publishers,
        subscribers: arguments.subscribers,
        topics: arguments.topics,
        flight: arguments.flight,
        acknowledge: false,
        rate: None,
        stalled: 0,
        publishers_on: Cores::any(),
        subscribers_on: Cores::any(),
    };
    let calls = RpcJob {
        prefix,
        callers: arguments.callers,
        callees: arguments.callees,
        flight: arguments.flight,
        rate: None,
        callers_on: Cores::any(),
        callees_on: Cores::any(),
    };
    [stage.plan(Job::PubSub(events)), stage.plan(Job::Rpc(calls))]
}

/// The router's memory, followed.
struct Memory<'a> {
    stage: &'a Stage,
    begun: Instant,
    /// Seconds, and megabytes.
    points: Vec<(f64, f64)>,
    peak_bytes: u64,
    is_restless: bool,
}

impl<'a> Memory<'a> {
    fn new(stage: &'a Stage) -> Self {
        Self { stage, begun: Instant::now(), points: Vec::new(), peak_bytes: 0, is_restless: false }
    }

    fn sample(&mut self) {
        if let Some(usage) = self.stage.usage() {
            self.points.push((self.begun.elapsed().as_secs_f64(), usage.resident_bytes as f64 / 1e6));
            self.peak_bytes = self.peak_bytes.max(usage.resident_bytes);
        }
    }

    /// Waits until the router does nothing, so many seconds at most; what it holds then.
    fn settle(&mut self, crew: &mut Crew, seconds_max: u32) -> Result<u64, String> {
        let gone = || "the router is gone".to_owned();
        let mut earlier = self.stage.usage().ok_or_else(gone)?;
        for second in 1.. {
            crew.wait(Duration::from_secs(1), |_| self.sample())?;
            let usage = self.stage.usage().ok_or_else(gone)?;
            self.peak_bytes = self.peak_bytes.max(usage.resident_bytes);
            let is_idle = usage.since(&earlier).cpu_us() <= IDLE_US_MAX;
            if is_idle || second >= seconds_max {
                self.is_restless |= !is_idle;
                return Ok(usage.resident_bytes);
            }
            earlier = usage;
        }
        Err(gone())
    }

    fn tell(self, before: u64, [first, second]: [u64; 2], arguments: &Flood, outcome: &mut Outcome) {
        for (name, label, bytes) in [
            ("before", "before", before),
            ("peak", "at its height", self.peak_bytes),
            ("after_first", "after the first flood", first),
            ("after_second", "after the second flood", second),
        ] {
            let name = format!("router_resident_{name}_bytes");
            outcome.figure(&name, &format!("router memory {label}"), bytes as f64, "bytes");
        }
        let growth = growth_percent(first, second);
        outcome.figure("growth_percent", "the second flood left more than the first by", growth, "%");
        outcome.problems.extend(leak(growth, arguments.growth_max));
        if self.is_restless {
            outcome.notes.push(format!(
                "the router was still busy after {} s, so its memory may not be what it comes to; --settle waits longer",
                arguments.settle
            ));
        }
        outcome.series.push(Series {
            title: "router memory over time".to_owned(),
            x_label: "seconds".to_owned(),
            y_label: "MB resident".to_owned(),
            points: self.points,
        });
    }
}

fn growth_percent(first: u64, second: u64) -> f64 {
    (second as f64 - first as f64) / first.max(1) as f64 * 100.0
}

/// What buffers and the allocator keep is kept once; what is left behind by every flood is a leak.
fn leak(growth: f64, growth_max: f64) -> Option<String> {
    (growth > growth_max).then(|| {
        format!("the second flood left {growth:.1} % more memory than the first, and {growth_max} % is allowed: a leak")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_above_the_share_is_a_leak() {
        assert_eq!(growth_percent(200, 230), 15.0);
        assert_eq!(growth_percent(200, 100), -50.0);
        assert_eq!(leak(10.0, 10.0), None);
        assert_eq!(leak(-50.0, 10.0), None);
        assert!(leak(15.0, 10.0).unwrap().contains("15.0 % more"));
    }
}
