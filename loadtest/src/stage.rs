//! What every command begins with: where to, which process to watch, what to show while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::Common;
use crate::crew::Crew;
use crate::outcome::{Outcome, Series};
use crate::plan::{Job, Order, Plan, Settings};
use crate::process::{Process, Usage};
use crate::router::Router;
use crate::tally::{RATE_SLOT_MS, Tally};
use crate::target::{Target, Transport};

/// Where the load goes.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) common: Common,
    /// All cores, core 0, core 1; the same three where the cores cannot be chosen.
    pub(crate) targets: [Target; 3],
    pub(crate) router: Option<Router>,
    process: Option<Process>,
    /// Another process whose use is measured: what the router asks.
    pub(crate) beside: Option<Process>,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    /// What the router used meanwhile.
    pub(crate) usage: Option<Usage>,
    /// What the process beside it used.
    pub(crate) beside: Option<Usage>,
    /// CPU time of each of its cores, in microseconds; of other routers nothing.
    pub(crate) core_us: BTreeMap<u32, u64>,
    /// What its counters grew by, where that is asked for.
    counters: BTreeMap<String, u64>,
    pub(crate) resident: Vec<(f64, f64)>,
    pub(crate) resident_before: u64,
    pub(crate) resident_peak: u64,
}

impl Stage {
    /// Starts the router if that is wanted, and finds its process.
    pub(crate) fn set(common: &Common) -> Result<Self, String> {
        let router = match &common.router {
            Some(binary) => Some(Router::start(binary, common.router_config.as_deref())?),
            None => None,
        };
        let targets = match &router {
            Some(router) => {
                let scheme = if common.rawsocket { "rs" } else { "ws" };
                let path = if common.rawsocket { "" } else { "/ws" };
                let target = |place: usize| format!("{scheme}://{}{path}", router.addresses[place]).parse();
                [target(0)?, target(1)?, target(2)?]
            }
            None => {
                let target: Target = common.url.parse()?;
                [target.clone(), target.clone(), target]
            }
        };
        if common.protocol == crate::plan::Protocol::Nats && targets[0].transport == Transport::RawSocket {
            return Err("NATS is spoken over nats:// or ws://".to_owned());
        }
        let process = match (&router, common.pid) {
            (Some(router), _) => router.pid().map(|pid| Process { pid }),
            (None, Some(pid)) => Some(Process { pid }),
            (None, None) => targets[0].address().and_then(Process::listening_at),
        };
        Ok(Self { common: common.clone(), targets, router, process, beside: None })
    }

    /// What all connections have in common.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            targets: self.targets.to_vec(),
            protocol: self.common.protocol,
            serializer: self.common.serializer,
            realm: self.common.realm.clone(),
            payload_bytes: self.common.payload,
        }
    }

    pub(crate) fn plan(&self, job: Job) -> Plan {
        Plan { settings: self.settings(), job }
    }

    /// The process that is watched is another one from now on.
    pub(crate) fn watch(&mut self, pid: Option<u32>) {
        self.process = pid.map(|pid| Process { pid });
    }

    /// What the router used so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.process.and_then(Process::usage)
    }

    fn core_us(&self) -> BTreeMap<u32, u64> {
        self.process.filter(|_| self.router.is_some()).map(Process::pinned_us).unwrap_or_default()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let router = self.router.as_ref().filter(|_| self.common.counters);
        router.and_then(Router::counters).unwrap_or_default()
    }

    /// How it is spoken to, for titles.
    pub(crate) fn manner(&self) -> String {
        let transport = match &self.targets[0].transport {
            Transport::WebSocket { .. } => "WebSocket",
            Transport::RawSocket => "RawSocket",
            Transport::Plain => "TCP",
        };
        let spoken = match self.common.protocol {
            crate::plan::Protocol::Nats => "NATS".to_owned(),
            crate::plan::Protocol::Wamp => format!("{:?}", self.common.serializer).to_lowercase(),
        };
        format!("{spoken} over {transport}, {}-byte payload", self.common.payload)
    }

    /// An outcome that says what is known from the beginning.
    pub(crate) fn outcome(&self, title: &str) -> Outcome {
        let mut outcome = Outcome::new(format!("{title}; {}", self.manner()));
        outcome.configuration = self.router.as_ref().map(|router| router.configuration.clone());
        if self.process.is_none() {
            outcome.notes.push(
                "the router's process is not known (another machine, or another user's): no CPU time, no memory; --pid names it"
                    .to_owned(),
            );
        }
        outcome
    }

    /// Runs work in a closed loop: sets it up, lets it warm up, measures.
    pub(crate) fn measure(&self, plans: &[Plan], label: &str) -> Result<Measured, String> {
        let warmup = Duration::from_secs_f64(self.common.warmup);
        let duration = Duration::from_secs_f64(self.common.duration);
        let mut show = Show::new(label, duration.as_millis() as u64, self.common.quiet);
        let mut crew = Crew::start(plans)?;
        crew.wait_until_ready(|_| {})?;
        let resident_before = self.usage().map_or(0, |usage| usage.resident_bytes);
        crew.order(Order::Start)?;
        crew.wait(warmup, |_| {})?;
        // Not between the beginning and the end: to tell counters costs the router time, and to look at threads the load.
        let (counters_before, cores_before) = (self.counters(), self.core_us());
        crew.order(Order::Measure)?;
        let begun = Instant::now();
        let (before, beside_before) = (self.usage(), self.beside.and_then(Process::usage));
        let mut resident = Vec::new();
        let mut resident_peak = resident_before;
        crew.wait(duration, |progress| {
            let elapsed = begun.elapsed();
            if let Some(usage) = self.usage() {
                resident.push((elapsed.as_secs_f64(), usage.resident_bytes as f64 / 1e6));
                resident_peak = resident_peak.max(usage.resident_bytes);
            }
            show.set(elapsed.as_millis() as u64, &format!("{} operations", progress.operations));
        })?;
        let (after, beside_after) = (self.usage(), self.beside.and_then(Process::usage));
        let tally = crew.finish()?;
        show.done();
        let core_us = grown(&cores_before, self.core_us());
        let counters = grown(&counters_before, self.counters());
        let usage = after.zip(before).map(|(after, before)| after.since(&before));
        let beside = beside_after.zip(beside_before).map(|(after, before)| after.since(&before));
        Ok(Measured { tally, usage, beside, core_us, counters, resident, resident_before, resident_peak })
    }
}

/// How much each of these counts has grown.
fn grown<Name: Ord>(before: &BTreeMap<Name, u64>, mut after: BTreeMap<Name, u64>) -> BTreeMap<Name, u64> {
    for (name, count) in &mut after {
        *count = count.saturating_sub(before.get(name).copied().unwrap_or(0));
    }
    after
}

/// CPU time of the router for one operation, in microseconds; 0 where its process is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuOfOperation {
    pub(crate) all_us: f64,
    user_us: f64,
    system_us: f64,
}

impl CpuOfOperation {
    /// The mean of several measurements, each of which counts alike.
    pub(crate) fn mean(measurements: &[Self]) -> Self {
        let count = measurements.len().max(1) as f64;
        let mean = |part: fn(&Self) -> f64| measurements.iter().map(part).sum::<f64>() / count;
        Self {
            all_us: mean(|it| it.all_us),
            user_us: mean(|it| it.user_us),
            system_us: mean(|it| it.system_us),
        }
    }

    /// Says it, and what of it was spent where. `suffix` and `label` tell it from others of the same run.
    pub(crate) fn tell(self, operation: &str, suffix: &str, label: &str, outcome: &mut Outcome) {
        let name = |part: &str| format!("router_{part}_us_per_{operation}{suffix}");
        outcome.figure(&name("cpu"), &format!("router CPU per {operation}{label}"), self.all_us, "µs");
        outcome.figure(&name("user"), "  of it in user space", self.user_us, "µs");
        outcome.figure(&name("system"), "  of it in the kernel", self.system_us, "µs");
    }
}

impl Measured {
    pub(crate) fn cpu_of_operation(&self) -> CpuOfOperation {
        let operations = self.tally.operations.max(1) as f64;
        let usage = self.usage.unwrap_or_default();
        CpuOfOperation {
            all_us: usage.cpu_us() as f64 / operations,
            user_us: usage.user_us as f64 / operations,
            system_us: usage.system_us as f64 / operations,
        }
    }

    /// What every closed loop has to say.
    pub(crate) fn tell(&self, operation: &str, outcome: &mut Outcome) {
        let operations = self.tally.operations.max(1) as f64;
        if let Some(usage) = self.usage {
            self.cpu_of_operation().tell(operation, "", "", outcome);
            for (core, us) in &self.core_us {
                let name = format!("router_core{core}_us_per_{operation}");
                outcome.figure(&name, &format!("  of it on core {core}"), *us as f64 / operations, "µs");
            }
            let busy = usage.cpu_us() as f64 / self.tally.wall_us.max(1) as f64 * 100.0;
            outcome.figure("router_busy", "router, all cores", busy, "% of a core");
            outcome.figure("router_resident_bytes", "router memory", usage.resident_bytes as f64, "bytes");
        }
        self.tell_counters(operation, outcome);
        let seconds = self.tally.wall_us.max(1) as f64 / 1e6;
        outcome.figure(
            &format!("{operation}s_per_second"),
            &format!("{operation}s a second"),
            operations / seconds,
            "",
        );
        outcome.figure(&format!("{operation}s"), &format!("{operation}s"), self.tally.operations as f64, "");
        outcome.latency("latency", "latency", &self.tally.latency_us);
        outcome.generator(self.tally.generator_busy);
        outcome.problems.extend(self.tally.problems());
        if self.tally.operations == 0 {
            outcome.problems.push("nothing was measured".to_owned());
        }
        let slot = RATE_SLOT_MS as f64 / 1000.0;
        outcome.series.push(Series {
            title: format!("{operation}s a second over time"),
            x_label: "seconds".to_owned(),
            y_label: format!("{operation}s a second"),
            // The last slot is not a whole one.
            points: self.tally.rate[..self.tally.rate.len().saturating_sub(1)]
                .iter()
                .enumerate()
                .map(|(place, count)| (place as f64 * slot, *count as f64 / slot))
                .collect(),
        });
        outcome.series.push(Series {
            title: "router memory over time".to_owned(),
            x_label: "seconds".to_owned(),
            y_label: "MB resident".to_owned(),
            points: self.resident.clone(),
        });
    }
}

impl Measured {
    /// What the router did for each operation, which it counts itself: the time is not quite that of the tally.
    fn tell_counters(&self, operation: &str, outcome: &mut Outcome) {
        let count = |name: &str| self.counters.get(name).copied().unwrap_or(0) as f64;
        let operations = count(if operation == "call" { "results" } else { "events" });
        if operations == 0.0 {
            return;
        }
        for (name, label) in [
            ("turns", "turns"),
            ("sleeps", "sleeps"),
            ("receives", "calls of recv"),
            ("sends", "calls of send"),
            ("doorbells", "doorbells, each a write"),
            ("peer_messages", "messages from core to core"),
        ] {
            let label = format!("{label} per {operation}");
            outcome.figure(&format!("router_{name}_per_{operation}"), &label, count(name) / operations, "");
        }
    }
}

/// How far it is: a bar on a terminal, a line a second elsewhere.
#[derive(Debug)]
pub(crate) struct Show {
    label: String,
    bar: Option<ProgressBar>,
    quiet: bool,
    total: u64,
    said: Option<Instant>,
}

impl Show {
    pub(crate) fn new(label: &str, total: u64, quiet: bool) -> Self {
        use std::io::IsTerminal;
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:40}] {percent:>3} %  {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        Self { label: label.to_owned(), bar, quiet, total, said: None }
    }

    pub(crate) fn set(&mut self, position: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position.min(self.total));
            bar.set_message(message.to_owned());
            return;
        }
        if !self.quiet && self.said.is_none_or(|said| said.elapsed() >= Duration::from_secs(1)) {
            self.said = Some(Instant::now());
            let percent = position.min(self.total) * 100 / self.total.max(1);
            eprintln!("{}: {percent} %, {message}", self.label);
        }
    }

    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Counts by reason, for people.
pub(crate) fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let all: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} times {reason}")).collect();
    all.join("; ")
}

/// Where a file is written that the user names; `-` is standard output.
pub(crate) fn write_to(path: &PathBuf, text: &str) -> Result<(), String> {
    if path.as_os_str() == "-" {
        println!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_measurements_is_that_of_each_part() {
        let of = |all_us, user_us, system_us| CpuOfOperation { all_us, user_us, system_us };
        let mean = CpuOfOperation::mean(&[of(4.0, 1.0, 3.0), of(8.0, 6.0, 2.0)]);
        assert_eq!(mean, of(6.0, 3.5, 2.5));
        let mut outcome = Outcome::new("rpc".to_owned());
        mean.tell("call", "", ", mean", &mut outcome);
        let figures = &outcome.json()["figures"];
        assert_eq!(figures["router_cpu_us_per_call"], 6.0);
        assert_eq!(figures["router_user_us_per_call"], 3.5);
        assert_eq!(figures["router_system_us_per_call"], 2.5);
    }
}
