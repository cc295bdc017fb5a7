//! PostgreSQL, beside pgbench on the same server with the same function and the same statements.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crosspoint::database::postgres::wire::{Connection, Deadline, Parameter, Settings};

use super::{COUNTED, Folder, Listener, Rounds, STAMPED, calls, compare, load, median, ratio, stage};
use crate::arguments::{Database, Part};
use crate::clock::now_ns;
use crate::outcome::Outcome;
use crate::payload::{PAYLOAD_BYTES_MIN, Stamp};
use crate::process::Process;
use crate::server::{Pgbench, Server};
use crate::stage::{Show, Stage};

/// How long one statement may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the router sleeps soundly behind the last event.
const ASLEEP: Duration = Duration::from_millis(400);

const SET_UP: &str = "drop schema if exists loadtest cascade;
    create schema loadtest;
    create function loadtest.echo(text text) returns text language plpgsql stable as 'begin return text; end';
    create table loadtest.item (id bigint generated always as identity primary key, name text not null, price numeric not null);
    create table loadtest.other (like loadtest.item including all);
    select wamp.allow(session_user, 'publish', 'com.loadtest.', 'prefix')";

const INSERT: &str = "insert into loadtest.item (name, price) values ('a thing', 12.5);";

pub(super) fn run(arguments: &Database) -> Result<Outcome, String> {
    let server = match &arguments.database_url {
        Some(_) => None,
        None => Some(Server::start()?),
    };
    let url = match (&arguments.database_url, &server) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => server.url(),
        (None, None) => return Err("there is no database".to_owned()),
    };
    let folder = Folder::new()?;
    let mut database = Bench::connect(arguments, &url, server.as_ref().map(Server::pid))?;
    database.install(&url)?;
    let mut stage = stage(arguments, &folder.0, &configuration(&url, arguments.connections))?;
    stage.beside = database.server.map(|pid| Process { pid });
    database.wait_until_led()?;
    let title = format!(
        "PostgreSQL{}, {} connections with {} calls in flight each, {} rounds",
        if arguments.log { ", events through its log" } else { "" },
        arguments.connections,
        arguments.flight,
        arguments.rounds
    );
    let mut outcome = stage.outcome(&title);
    // The URL is in it, with what stands for the password.
    if arguments.database_url.is_some() {
        outcome.configuration = None;
    }
    for part in &arguments.parts {
        match part {
            Part::Calls => database.calls(&stage, &mut outcome)?,
            Part::Publishing => database.publishing(&stage, &mut outcome)?,
            Part::Latency => database.latency(&stage, &mut outcome)?,
            Part::Backlog => database.backlog(&stage, &mut outcome)?,
        }
    }
    load(&mut outcome);
    drop(stage);
    database.run("drop schema loadtest cascade")?;
    Ok(outcome)
}

fn configuration(url: &str, connections: usize) -> String {
    format!(
        "[[database]]\nname = \"loadtest\"\ntype = \"postgresql\"\nrealm = \"realm1\"\nurl = {}\nconnections = {connections}\n\
         publish = true\n[[database.expose]]\nschema = \"loadtest\"\nprefix = \"com.loadtest.\"\n",
        serde_json::Value::from(url)
    )
}

/// What is measured, and how.
struct Bench<'a> {
    arguments: &'a Database,
    url: String,
    wire: Connection,
    /// The server's first process, if it is known.
    server: Option<u32>,
    text: String,
    sequence: u64,
}

impl<'a> Bench<'a> {
    fn connect(arguments: &'a Database, url: &str, server: Option<u32>) -> Result<Self, String> {
        let environment: BTreeMap<String, String> = std::env::vars().collect();
        let settings = Settings::parse(url, &environment).map_err(|error| error.to_string())?;
        let wire =
            Connection::connect(&settings, Deadline::after(PATIENCE)).map_err(|error| error.to_string())?;
        let text = "x".repeat(arguments.common.payload.max(PAYLOAD_BYTES_MIN));
        Ok(Self { arguments, url: url.to_owned(), wire, server, text, sequence: 0 })
    }

    fn run(&mut self, sql: &str) -> Result<Option<String>, String> {
        self.wire.simple_value(sql, Deadline::after(PATIENCE)).map_err(|error| error.to_string())
    }

    fn install(&mut self, url: &str) -> Result<(), String> {
        let Some(binary) = &self.arguments.common.router else { return Ok(()) };
        let installed = Command::new(binary)
            .args(["db", "install", "--log", if self.arguments.log { "yes" } else { "no" }, "--url", url])
            .output()
            .map_err(|error| format!("{} does not run: {error}", binary.display()))?;
        if !installed.status.success() {
            return Err(String::from_utf8_lossy(&installed.stderr).into_owned());
        }
        self.run(SET_UP).map(drop)
    }

    /// Waits until the router reads what is published.
    fn wait_until_led(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while self.run("select leader from wamp.progress()")?.is_none() {
            if Instant::now() > end {
                return Err("the router does not read what the database publishes".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn pgbench(&self, script: &str, clients: usize) -> Result<Pgbench, String> {
        let script = script.replace("$TEXT", &self.text);
        Pgbench::run(&self.url, &script, clients, self.arguments.common.duration, self.server)
    }

    /// Through the router and by pgbench, in turn.
    fn calls(&mut self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        let all = (self.arguments.connections, self.arguments.flight);
        for (name, label, (callers, flight)) in [("", "", all), ("_single", ", one at a time", (1, 1))] {
            let (mut rounds, mut plain) = (Rounds::default(), Vec::new());
            for round in 0..self.arguments.rounds {
                // Whoever is first has the machine as the one before has left it.
                let is_first = round % 2 == 0;
                if is_first {
                    plain.push(self.pgbench("select loadtest.echo('$TEXT');", callers)?);
                }
                let plan = calls(stage, "com.loadtest.echo", (callers, flight), None);
                rounds.add(&stage.measure(&[plan], &format!("calls{label}, round {}", round + 1))?);
                if !is_first {
                    plain.push(self.pgbench("select loadtest.echo('$TEXT');", callers)?);
                }
            }
            let plain_per_second: Vec<_> = plain.iter().map(|it| it.per_second).collect();
            let mut figure = |part: &str, text: &str, value: f64, unit| {
                outcome.figure(&format!("{part}{name}"), &format!("{text}{label}"), value, unit);
            };
            figure("calls_per_second", "calls a second", median(&rounds.per_second), "");
            figure("pgbench_calls_per_second", "by pgbench", median(&plain_per_second), "");
            figure("pgbench_ratio", "pgbench / router", ratio(&plain_per_second, &rounds.per_second), "");
            figure("router_cpu_us_per_call", "router CPU per call", rounds.router_us_per_operation(), "µs");
            if let Some(beside) = rounds.beside_us {
                let value = beside / rounds.operations.max(1.0);
                figure("server_cpu_us_per_call", "server CPU per call", value, "µs");
            }
            if let Some(value) = server_us(&plain) {
                figure("pgbench_server_cpu_us_per_call", "server CPU per call of pgbench", value, "µs");
            }
            let own = plain.iter().map(|it| it.own_us).sum::<f64>() / plain.len().max(1) as f64;
            figure("pgbench_cpu_us_per_call", "pgbench's own CPU per call", own, "µs");
            outcome.latency(
                &format!("call_latency{name}"),
                &format!("latency of a call{label}"),
                &rounds.tally.latency_us,
            );
            outcome.problems.extend(rounds.tally.problems());
            if rounds.operations == 0.0 {
                outcome.problems.push("no call was answered".to_owned());
            }
        }
        Ok(())
    }

    /// Transactions that insert a row, and those that publish besides, in turn.
    fn publishing(&mut self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        let clients = self.arguments.connections;
        let insert = format!("begin;\n{INSERT}\nend;");
        // Whoever publishes without help writes a second row, too.
        let twice = format!("begin;\n{INSERT}\n{}\nend;", INSERT.replace("loadtest.item", "loadtest.other"));
        let publish =
            format!("begin;\n{INSERT}\nselect wamp.publish('{COUNTED}', jsonb_build_array('$TEXT'));\nend;");
        let mut listener = Listener::new(stage, COUNTED)?;
        let (mut once, mut two_rows, mut publishing) = (Vec::new(), Vec::new(), Vec::new());
        let (mut router_us, mut events) = (0.0, 0.0);
        let mut show = Show::new("transactions", self.arguments.rounds as u64, self.arguments.common.quiet);
        for round in 0..self.arguments.rounds {
            show.set(round as u64, "transactions that publish, and others");
            if round % 2 == 0 {
                once.push(self.pgbench(&insert, clients)?);
                two_rows.push(self.pgbench(&twice, clients)?);
            }
            let before = stage.usage();
            let one = self.pgbench(&publish, clients)?;
            let received = listener.wait_for(one.transactions as u64)?;
            if let Some(used) = stage.usage().zip(before).map(|(after, before)| after.since(&before)) {
                router_us += used.cpu_us() as f64;
            }
            compare(one.transactions as u64, received, outcome);
            events += one.transactions;
            publishing.push(one);
            if round % 2 == 1 {
                two_rows.push(self.pgbench(&twice, clients)?);
                once.push(self.pgbench(&insert, clients)?);
            }
        }
        show.done();
        outcome.problems.extend(listener.finish()?.problems());
        let rates = |all: &[Pgbench]| all.iter().map(|it| it.per_second).collect::<Vec<_>>();
        let [one_row, two, with] = [&once, &two_rows, &publishing].map(|all| rates(all));
        outcome.figure(
            "publishing_per_second",
            "transactions a second that insert and publish",
            median(&with),
            "",
        );
        outcome.figure("inserting_per_second", "those that only insert", median(&one_row), "");
        outcome.figure("inserting_twice_per_second", "those that insert two rows", median(&two), "");
        outcome.figure("publishing_ratio", "publishing / inserting", ratio(&with, &one_row), "");
        outcome.figure(
            "publishing_ratio_two_rows",
            "publishing / inserting two rows",
            ratio(&with, &two),
            "",
        );
        for (name, label, all) in [
            ("publishing", "server CPU for one that publishes, draining included", &publishing),
            ("insert", "server CPU for one that only inserts", &once),
            ("insert_twice", "server CPU for one that inserts two rows", &two_rows),
        ] {
            if let Some(value) = server_us(all) {
                outcome.figure(&format!("server_cpu_us_per_{name}"), label, value, "µs");
            }
        }
        outcome.figure(
            "router_cpu_us_per_database_event",
            "router CPU per event",
            router_us / events.max(1.0),
            "µs",
        );
        Ok(())
    }

    /// Publishes so many, at a pace. What the database takes to commit holds up who publishes, and counts once: each is as old
    /// as its own `publish()`.
    fn paced(&mut self, stage: &Stage, rate: f64, label: &str) -> Result<crate::tally::Tally, String> {
        let mut listener = Listener::new(stage, STAMPED)?;
        let count = (self.arguments.common.duration * rate).ceil().max(1.0) as u64;
        let sql = format!("select wamp.publish('{STAMPED}', jsonb_build_array($1::text))");
        let deadline = Deadline::after(PATIENCE);
        let statement = self.wire.prepare(&sql, &[], deadline).map_err(|error| error.to_string())?;
        let mut show = Show::new(label, count, self.arguments.common.quiet);
        let (begun, mut text) = (now_ns(), Vec::new());
        for number in 0..count {
            let due_ns = begun + (number as f64 / rate * 1e9) as u64;
            std::thread::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns())));
            self.sequence += 1;
            let stamp = Stamp { sender: 0, sequence: self.sequence, sent_ns: now_ns() };
            stamp.write(self.arguments.common.payload, &mut text);
            let deadline = Deadline::after(PATIENCE);
            self.wire
                .execute(&statement, &[Parameter::Text(&text)], deadline, |_| {})
                .map_err(|error| error.to_string())?;
            show.set(number, "events");
        }
        let received = listener.wait_for(count)?;
        show.done();
        let mut tally = listener.finish()?;
        tally.lost = count.saturating_sub(received);
        Ok(tally)
    }

    /// From `publish()` to receiving, commit included: while events come all the time, and while the router sleeps.
    fn latency(&mut self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        let paces =
            [("", "", self.arguments.rate), ("_asleep", ", router asleep", 1.0 / ASLEEP.as_secs_f64())];
        for (name, label, rate) in paces {
            let tally = self.paced(stage, rate, &format!("events{label}"))?;
            outcome.latency(
                &format!("event_latency{name}"),
                &format!("latency of an event{label}"),
                &tally.latency_us,
            );
            outcome.problems.extend(tally.problems());
            // Each begins its numbers anew for who listens next.
            self.sequence = 0;
        }
        Ok(())
    }

    /// All events of one transaction.
    fn backlog(&mut self, stage: &Stage, outcome: &mut Outcome) -> Result<(), String> {
        let mut listener = Listener::new(stage, STAMPED)?;
        let (count, padding) = (self.arguments.backlog, self.text.len() - PAYLOAD_BYTES_MIN);
        let begun_ns = now_ns();
        let sql = format!(
            "select count(wamp.publish('{STAMPED}', jsonb_build_array(
                 '00000000' || lpad(to_hex(number), 16, '0') || lpad(to_hex({begun_ns}), 16, '0') || repeat('x', {padding}))))
               from generate_series(1, {count}) as number"
        );
        self.run(&sql)?;
        let published_us = (now_ns() - begun_ns) as f64 / 1e3;
        let received = listener.wait_for(count.into())?;
        let tally = listener.finish()?;
        compare(count.into(), received, outcome);
        let drained_us = (tally.latency_us.max() as f64 - published_us).max(1.0);
        let count = f64::from(count);
        outcome.figure("backlog_events", "events of one transaction", count, "");
        outcome.figure("backlog_published_per_second", "published a second", count / published_us * 1e6, "");
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

/// CPU time of the server for one transaction of all of these, where it is known.
fn server_us(all: &[Pgbench]) -> Option<f64> {
    let transactions: f64 = all.iter().map(|it| it.transactions).sum();
    let used: Option<f64> = all.iter().map(|it| it.server_us.map(|us| us * it.transactions)).sum();
    used.map(|used| used / transactions.max(1.0))
}
