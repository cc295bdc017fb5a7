//! A working pair beside idle sessions, and without them, in turn.

use crate::arguments::Mixed;
use crate::crew::Crew;
use crate::outcome::Outcome;
use crate::placement::Cores;
use crate::plan::{Job, Order, RpcJob};
use crate::stage::Stage;

pub(crate) fn run(arguments: &Mixed) -> Result<Outcome, String> {
    let stage = Stage::set(&arguments.common)?;
    let (plans, shares) = super::idle_plans(&stage, &arguments.idle, false, None);
    let mut outcome = stage.outcome(&format!(
        "a caller and a callee, 8 in flight, beside {} idle sessions",
        arguments.idle.sessions
    ));
    let mut crew = Crew::start(&plans)?;
    crew.wait_until_ready(|_| {})?;
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    for pair in 0..arguments.pairs {
        // Whoever comes first has the other order next time.
        for idle in if pair % 2 == 0 { [true, false] } else { [false, true] } {
            if idle {
                for (number, share) in shares.iter().enumerate() {
                    crew.order_one(number, Order::Open(*share))?;
                }
                crew.wait_until_ready(|_| {})?;
                let open = crew.progress().open;
                if open < arguments.idle.sessions {
                    outcome.problems.push(format!("only {open} idle sessions came about"));
                }
            }
            let job = RpcJob {
                prefix: format!("loadtest.mixed.{}", std::process::id()),
                callers: 1,
                callees: 1,
                flight: 8,
                rate: None,
                // On two cores, where they can be chosen: another placement would be another cost.
                callers_on: Cores::one(0),
                callees_on: Cores::one(1),
            };
            let label = format!(
                "pair {} of {}, {}",
                pair + 1,
                arguments.pairs,
                if idle { "beside" } else { "alone" }
            );
            let measured = stage.measure(&[stage.plan(Job::Rpc(job))], &label)?;
            outcome.problems.extend(measured.tally.problems());
            let us = measured.cpu_of_operation().all_us;
            if idle {
                beside.push(us)
            } else {
                alone.push(us)
            }
            if idle {
                crew.order(Order::Close)?;
                crew.wait_until_ready(|_| {})?;
            }
        }
    }
    let ratios: Vec<f64> = beside.iter().zip(&alone).map(|(beside, alone)| beside / alone).collect();
    outcome.figure("router_cpu_us_per_call_alone", "router CPU per call, alone", median(&alone), "µs");
    outcome.figure("router_cpu_us_per_call_beside", "router CPU per call, beside", median(&beside), "µs");
    outcome.figure("ratio", "beside to alone, median of the pairs", median(&ratios), "");
    outcome.figure("ratio_lowest", "  the lowest", ratios.iter().copied().fold(f64::INFINITY, f64::min), "");
    outcome.figure("ratio_highest", "  the highest", ratios.iter().copied().fold(0.0, f64::max), "");
    Ok(outcome)
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
