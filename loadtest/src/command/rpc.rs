//! Calls, in a closed loop or at a pace.

use crate::arguments::Rpc;
use crate::outcome::Outcome;
use crate::plan::{Job, Plan, RpcJob};
use crate::stage::{CpuOfOperation, Stage};

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
    let mut placements = Vec::new();
    for (callee, caller) in PLACEMENTS {
        let label = format!("callees on core {}, callers on core {}", callee - 1, caller - 1);
        let plans: Vec<Plan> = (0..arguments.processes)
            .map(|number| plan(&stage, arguments, number, (callee, caller)))
            .collect();
        let measured = stage.measure(&plans, &label)?;
        let suffix = format!("_callee{}_caller{}", callee - 1, caller - 1);
        let cpu = measured.cpu_of_operation();
        cpu.tell("call", &suffix, &format!(", {label}"), &mut outcome);
        placements.push(cpu);
        outcome.latency(
            &format!("latency{suffix}"),
            &format!("latency, {label}"),
            &measured.tally.latency_us,
        );
        outcome.problems.extend(measured.tally.problems());
    }
    CpuOfOperation::mean(&placements).tell("call", "", ", mean of the four", &mut outcome);
    Ok(outcome)
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
