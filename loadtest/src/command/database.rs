//! Procedures and events of a database: what the router adds to what pgbench does alone.

mod postgres;
mod sqlite;

use std::time::Duration;

use crate::arguments::{Database, DatabaseKind};
use crate::crew::Crew;
use crate::outcome::Outcome;
use crate::placement::Cores;
use crate::plan::{Job, ListenJob, Order, Plan, RpcJob};
use crate::stage::{Measured, Stage};
use crate::tally::Tally;

/// Events that are only counted, and those that say when they were published.
const COUNTED: &str = "com.loadtest.counted";
const STAMPED: &str = "com.loadtest.stamped";

/// How long nothing may come until what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: &Database) -> Result<Outcome, String> {
    let counts = [arguments.connections, arguments.flight, arguments.rounds, arguments.backlog as usize];
    if counts.contains(&0) || arguments.parts.is_empty() || arguments.rate <= 0.0 {
        return Err("there is nothing to do without connections, calls in flight, rounds, events and parts"
            .to_owned());
    }
    if arguments.common.router.is_none() {
        return Err("the configuration of the router names the database, so it is started for the run: --router BINARY".to_owned());
    }
    match arguments.kind {
        DatabaseKind::Postgresql => postgres::run(arguments),
        DatabaseKind::Sqlite if arguments.database_url.is_some() || arguments.log => {
            Err("SQLite is a file of the run's own; --database-url and --log are for PostgreSQL".to_owned())
        }
        DatabaseKind::Sqlite => sqlite::run(arguments),
    }
}

/// Starts the router with a database, and waits until it has it. The folder holds its configuration.
fn stage(arguments: &Database, folder: &std::path::Path, database: &str) -> Result<Stage, String> {
    let given = match &arguments.common.router_config {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => String::new(),
    };
    let path = folder.join("database.toml");
    std::fs::write(&path, format!("{given}\n{database}"))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let mut common = arguments.common.clone();
    common.router_config = Some(path);
    let stage = Stage::set(&common)?;
    if let Some(router) = &stage.router {
        router.wait_for("the database is there")?;
    }
    Ok(stage)
}

/// Calls of one procedure of the database.
fn calls(stage: &Stage, procedure: &str, (callers, flight): (usize, usize), rate: Option<f64>) -> Plan {
    stage.plan(Job::Rpc(RpcJob {
        prefix: procedure.to_owned(),
        callers,
        callees: 0,
        flight,
        rate,
        callers_on: Cores::any(),
        callees_on: Cores::any(),
    }))
}

/// A session that hears what the database publishes.
struct Listener {
    crew: Crew,
    heard_before: u64,
}

impl Listener {
    fn new(stage: &Stage, topic: &str) -> Result<Self, String> {
        let is_stamped = topic == STAMPED;
        let job = ListenJob { topic: topic.to_owned(), is_stamped };
        let mut crew = Crew::start(&[stage.plan(Job::Listen(job))])?;
        crew.wait_until_ready(|_| {})?;
        crew.order(Order::Start)?;
        crew.order(Order::Measure)?;
        Ok(Self { crew, heard_before: 0 })
    }

    /// Waits for so many more events than before; how many came.
    fn wait_for(&mut self, events: u64) -> Result<u64, String> {
        let (mut heard, mut quiet) = (0, Duration::ZERO);
        let step = Duration::from_millis(50);
        while heard < events && quiet < PATIENCE {
            self.crew.wait(step, |_| {})?;
            let now = self.crew.progress().operations - self.heard_before;
            quiet = if now == heard { quiet + step } else { Duration::ZERO };
            heard = now;
        }
        self.heard_before += heard;
        Ok(heard)
    }

    fn finish(self) -> Result<Tally, String> {
        self.crew.finish()
    }
}

/// Says when other than what was published was received.
fn compare(published: u64, received: u64, outcome: &mut Outcome) {
    if published != received {
        outcome.problems.push(format!("{published} events were published, and {received} received"));
    }
}

/// What several rounds of one kind of call came to.
#[derive(Default)]
struct Rounds {
    operations: f64,
    seconds: f64,
    router_us: f64,
    beside_us: Option<f64>,
    per_second: Vec<f64>,
    tally: Tally,
}

impl Rounds {
    fn add(&mut self, measured: &Measured) {
        let (operations, seconds) = (measured.tally.operations as f64, measured.tally.wall_us as f64 / 1e6);
        self.operations += operations;
        self.seconds += seconds;
        self.router_us += measured.usage.map_or(0.0, |usage| usage.cpu_us() as f64);
        if let Some(usage) = measured.beside {
            *self.beside_us.get_or_insert(0.0) += usage.cpu_us() as f64;
        }
        self.per_second.push(operations / seconds.max(1e-6));
        self.tally.add(&measured.tally);
    }

    fn router_us_per_operation(&self) -> f64 {
        self.router_us / self.operations.max(1.0)
    }
}

/// The middle one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Each of these over that of the same round, and the middle one.
fn ratio(these: &[f64], those: &[f64]) -> f64 {
    let ratios: Vec<_> = these.iter().zip(those).map(|(this, that)| this / that.max(1e-9)).collect();
    median(&ratios)
}

/// A line that says how busy the machine was beside.
fn load(outcome: &mut Outcome) {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if let Some(load) = text.split(' ').next().and_then(|text| text.parse::<f64>().ok()) {
        outcome.figure("load_average", "load average of the last minute", load, "");
    }
}

/// A folder that goes with the run.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("crosspoint-loadtest-files-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A file that is still there is nobody's failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(ratio(&[50.0, 200.0, 9.0], &[100.0, 400.0, 10.0]), 0.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn what_did_not_come_is_a_problem() {
        let mut outcome = Outcome::new("database".to_owned());
        compare(5, 5, &mut outcome);
        assert!(outcome.problems.is_empty());
        compare(5, 4, &mut outcome);
        assert_eq!(outcome.problems, ["5 events were published, and 4 received"]);
    }
}
