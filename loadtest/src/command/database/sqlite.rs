//! SQLite: a file of the run's own, which the router alone writes.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{Folder, Listener, PATIENCE, Rounds, STAMPED, calls, compare, load, median, ratio, stage};
use crate::arguments::{Database, Part};
use crate::clock::now_ns;
use crate::outcome::Outcome;
use crate::payload::PAYLOAD_BYTES_MIN;
use crate::stage::Stage;

const TABLES: &str = "pragma journal_mode = wal;
    create table plain (id integer primary key, text text not null);
    create table news (id integer primary key, text text not null);";

pub(super) fn run(arguments: &Database) -> Result<Outcome, String> {
    let folder = Folder::new()?;
    let path = folder.0.join("loadtest.sqlite3");
    let file = Connection::open(&path).map_err(|error| error.to_string())?;
    file.execute_batch(TABLES).map_err(|error| error.to_string())?;
    let procedure = |name: &str, sql: &str| {
        format!(
            "[[database.procedure]]\nuri = \"com.loadtest.{name}\"\nsql = \"{sql}\"\nresult = \"value\"\n"
        )
    };
    let configuration = format!(
        "[[database]]\nname = \"loadtest\"\ntype = \"sqlite\"\nrealm = \"realm1\"\npath = {}\nreaders = {}\npublish = true\n{}{}{}",
        serde_json::Value::from(path.display().to_string()),
        arguments.connections,
        procedure("echo", "select :text"),
        procedure("insert", "insert into plain (text) values (:text) returning text"),
        procedure("publish", "insert into news (text) values (:text) returning text"),
    );
    let stage = stage(arguments, &folder.0, &configuration)?;
    // `publish()` is the router's; the trigger is made when nothing prepares it any more without that.
    let trigger = format!(
        "create trigger told after insert on news begin
             select publish('{STAMPED}', json_array(new.text)); end"
    );
    file.execute_batch(&trigger).map_err(|error| error.to_string())?;
    let title = format!(
        "SQLite, {} readers with {} calls in flight each, {} rounds",
        arguments.connections, arguments.flight, arguments.rounds
    );
    let mut outcome = stage.outcome(&title);
    let bench = Bench { arguments, file };
    for part in &arguments.parts {
        match part {
            Part::Calls => bench.calls(&stage, &mut outcome)?,
            Part::Publishing => bench.publishing(&stage, &mut outcome)?,
            Part::Latency => bench.latency(&stage, &mut outcome)?,
            Part::Backlog => bench.backlog(&stage, &mut outcome)?,
        }
    }
    load(&mut outcome);
    Ok(outcome)
}

struct Bench<'a> {
    arguments: &'a Database,
    file: Connection,
}

impl Bench<'_> {
    fn calls(&self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        let all = (self.arguments.connections, self.arguments.flight);
        for (name, label, callers) in [("", "", all), ("_single", ", one at a time", (1, 1))] {
            let mut rounds = Rounds::default();
            for round in 0..self.arguments.rounds {
                let plan = calls(stage, "com.loadtest.echo", callers, None);
                rounds.add(&stage.measure(&[plan], &format!("calls{label}, round {}", round + 1))?);
            }
            tell(&rounds, "call", name, &format!("calls a second{label}"), outcome);
        }
        Ok(())
    }

    fn publishing(&self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        let all = (self.arguments.connections, self.arguments.flight);
        let (mut plain, mut publishing) = (Rounds::default(), Rounds::default());
        for round in 0..self.arguments.rounds {
            for (procedure, rounds) in [("insert", &mut plain), ("publish", &mut publishing)] {
                let plan = calls(stage, &format!("com.loadtest.{procedure}"), all, None);
                rounds.add(&stage.measure(&[plan], &format!("{procedure}, round {}", round + 1))?);
            }
        }
        tell(&publishing, "publishing", "", "calls a second that insert and publish", outcome);
        tell(&plain, "insert", "", "calls a second that insert", outcome);
        let ratio = ratio(&publishing.per_second, &plain.per_second);
        outcome.figure("publishing_ratio", "publishing / inserting", ratio, "");
        Ok(())
    }

    /// Waits until nothing is left of what earlier parts have published.
    fn wait_until_published(&self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        let sql = "select exists (select 1 from wamp_outbox where sent = 0)";
        while self.file.query_row(sql, [], |row| row.get(0)).map_err(|error| error.to_string())? {
            if Instant::now() > end {
                return Err("the router does not publish what is in the outbox".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn latency(&self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        self.wait_until_published()?;
        let mut listener = Listener::new(stage, STAMPED)?;
        let plan = calls(stage, "com.loadtest.publish", (1, 1), Some(self.arguments.rate));
        let measured = stage.measure(&[plan], "events")?;
        // Those of the time before it was measured are events, too.
        listener.wait_for(measured.tally.operations)?;
        let tally = listener.finish()?;
        outcome.latency("event_latency", "latency of an event", &tally.latency_us);
        outcome.problems.extend(measured.tally.problems());
        outcome.problems.extend(tally.problems());
        Ok(())
    }

    fn backlog(&self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        self.wait_until_published()?;
        let mut listener = Listener::new(stage, STAMPED)?;
        let count = self.arguments.backlog;
        let padding = "x".repeat(self.arguments.common.payload.max(PAYLOAD_BYTES_MIN) - PAYLOAD_BYTES_MIN);
        let begun_ns = now_ns();
        let sql = format!(
            "begin immediate;
             with recursive series (number) as (select 1 union all select number + 1 from series where number < {count})
             insert into wamp_outbox (topic, args)
             select '{STAMPED}', json_array(printf('%08x%016x%016x{padding}', 0, number, {begun_ns})) from series;
             commit;"
        );
        self.file.execute_batch(&sql).map_err(|error| error.to_string())?;
        let published_us = (now_ns() - begun_ns) as f64 / 1e3;
        let received = listener.wait_for(count.into())?;
        let tally = listener.finish()?;
        compare(count.into(), received, outcome);
        let drained_us = (tally.latency_us.max() as f64 - published_us).max(1.0);
        let count = f64::from(count);
        outcome.figure("backlog_events", "events of one transaction", count, "");
        outcome.figure("backlog_published_per_second", "written a second", count / published_us * 1e6, "");
        outcome.figure(
            "backlog_drained_per_second",
            "received a second, from its commit on",
            count / drained_us * 1e6,
            "",
        );
        outcome.problems.extend(tally.problems());
        Ok(())
    }
}

fn tell(rounds: &Rounds, what: &str, suffix: &str, label: &str, outcome: &mut Outcome) {
    outcome.figure(&format!("{what}s_per_second{suffix}"), label, median(&rounds.per_second), "");
    let cpu = format!("router_cpu_us_per_{what}{suffix}");
    outcome.figure(&cpu, "  router CPU for each, SQLite's included", rounds.router_us_per_operation(), "µs");
    outcome.latency(&format!("{what}_latency{suffix}"), "  latency", &rounds.tally.latency_us);
    outcome.problems.extend(rounds.tally.problems());
    if rounds.operations == 0.0 {
        outcome.problems.push("no call was answered".to_owned());
    }
}
