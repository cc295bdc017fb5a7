//! Calls, in a closed loop or at a pace.

use crate::arguments::Rpc;
use crate::outcome::Outcome;
use crate::placement::Cores;
use crate::plan::{Job, Plan, RpcJob};
use crate::stage::{CpuOfOperation, Stage};

/// Cores of callees and of callers.
const PLACEMENTS: [(u8, u8); 4] = [(0, 0), (1, 1), (0, 1), (1, 0)];

pub(crate) fn run(arguments: &Rpc) -> Result<Outcome, String> {
    let counts = [arguments.callers, arguments.callees, arguments.flight];
    if counts.contains(&0) || arguments.rate.is_some_and(|rate| rate <= 0.0) {
        return Err("there is nothing to do without callers, callees and calls in flight".to_owned());
    }
    let stage = Stage::set(&arguments.common)?;
    let pace = super::pace(arguments.rate, arguments.flight);
    let title = format!("calls, {} callers x {} callees, {pace}", arguments.callers, arguments.callees);
    if !arguments.placements {
        let (callees, callers) = (&arguments.callees_on, &arguments.callers_on);
        let mut outcome = stage.outcome(&format!("{title}, callees on {callees}, callers on {callers}"));
        let plans: Vec<Plan> = (0..arguments.processes)
            .map(|number| plan(&stage, arguments, number, (callees.clone(), callers.clone())))
            .collect();
        stage.measure(&plans, "calls")?.tell("call", &mut outcome);
        return Ok(outcome);
    }
    let mut outcome = stage.outcome(&title);
    let mut placements = Vec::new();
    for (callee, caller) in PLACEMENTS {
        let label = format!("callees on core {callee}, callers on core {caller}");
        let plans: Vec<Plan> = (0..arguments.processes)
            .map(|number| plan(&stage, arguments, number, (Cores::one(callee), Cores::one(caller))))
            .collect();
        let measured = stage.measure(&plans, &label)?;
        let suffix = format!("_callee{callee}_caller{caller}");
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

fn plan(stage: &Stage, arguments: &Rpc, number: usize, (callees_on, callers_on): (Cores, Cores)) -> Plan {
    stage.plan(Job::Rpc(RpcJob {
        prefix: format!("loadtest.rpc.{}.{number}", std::process::id()),
        callers: arguments.callers,
        callees: arguments.callees,
        flight: arguments.flight,
        rate: arguments.rate,
        callers_on,
        callees_on,
    }))
}
