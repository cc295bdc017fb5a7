//! Calls, in a closed loop or at a pace.

use crate::arguments::Rpc;
use crate::outcome::Outcome;
use crate::plan::{Job, Plan, RpcJob};
use crate::stage::{Measured, Stage};

/// Callees and callers on core 0 or 1, as numbers of targets.
const PLACEMENTS: [(u8, u8); 4] = [(1, 1), (2, 2), (1, 2), (2, 1)];

pub(crate) fn run(arguments: &Rpc) -> Result<Outcome, String> {
    let counts = [arguments.callers, arguments.callees, arguments.flight];
    if counts.contains(&0) || arguments.rate.is_some_and(|rate| rate <= 0.0) {
        return Err("there is nothing to do without callers, callees and calls in flight".to_owned());
    }
    let stage = Stage::set(&arguments.common)?;
    let pace = super::pace(arguments.rate, arguments.flight);
    let title = format!("calls, {} callers x {} callees, {pace}", arguments.callers, arguments.callees);
    let mut outcome = stage.outcome(&title);
    if !arguments.placements {
        let plans: Vec<Plan> =
            (0..arguments.processes).map(|number| plan(&stage, arguments, number, (0, 0))).collect();
        stage.measure(&plans, "calls")?.tell("call", &mut outcome);
        return Ok(outcome);
    }
    let mut sum = 0.0;
    for (callee, caller) in PLACEMENTS {
        let label = format!("callees on core {}, callers on core {}", callee - 1, caller - 1);
        let plans: Vec<Plan> = (0..arguments.processes)
            .map(|number| plan(&stage, arguments, number, (callee, caller)))
            .collect();
        let measured = stage.measure(&plans, &label)?;
        let us = cpu_us_per_call(&measured);
        sum += us;
        let name = format!("router_cpu_us_per_call_callee{}_caller{}", callee - 1, caller - 1);
        outcome.figure(&name, &format!("router CPU per call, {label}"), us, "µs");
        outcome.latency(
            &format!("latency_callee{}_caller{}", callee - 1, caller - 1),
            &format!("latency, {label}"),
            &measured.tally.latency_us,
        );
        outcome.problems.extend(measured.tally.problems());
    }
    let mean = sum / PLACEMENTS.len() as f64;
    outcome.figure("router_cpu_us_per_call", "router CPU per call, mean of the four", mean, "µs");
    Ok(outcome)
}

pub(crate) fn cpu_us_per_call(measured: &Measured) -> f64 {
    let cpu_us = measured.usage.map_or(0, |usage| usage.cpu_us());
    cpu_us as f64 / measured.tally.operations.max(1) as f64
}

fn plan(stage: &Stage, arguments: &Rpc, number: usize, (callee, caller): (u8, u8)) -> Plan {
    stage.plan(Job::Rpc(RpcJob {
        prefix: format!("loadtest.rpc.{}.{number}", std::process::id()),
        callers: arguments.callers,
        callees: arguments.callees,
        flight: arguments.flight,
        rate: arguments.rate,
        caller_target: caller,
        callee_target: callee,
    }))
}
