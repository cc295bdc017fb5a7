//! Writers and drainer go on after the server was killed, again and again: what was committed comes, in order, once or
//! repeated as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use postgres::{Client, Error};

use super::schema::Database;
use super::server::{PATIENCE, Server};

const WRITERS: i32 = 4;
const LIVES: i32 = 4;
/// Committed in each life before the server is killed.
const EVENTS: usize = 60;

/// The life, the writer, and its count.
type Event = (i32, i32, i32);
/// What was dispatched, by position.
type Dispatched = (i64, i64, Event);

/// Until the server is gone. Whether the last COMMIT was done then is not known.
fn write(
    client: &mut Client,
    life: i32,
    writer: i32,
    committed: &Mutex<BTreeSet<Event>>,
    unknown: &Mutex<BTreeSet<Event>>,
) {
    for count in 0.. {
        let event = (life, writer, count);
        let mut publish = || -> Result<(), Error> {
            let mut transaction = client.transaction()?;
            let sql = "SELECT wamp.publish('com.shop.n', jsonb_build_array($1::int, $2::int, $3::int))";
            transaction.execute(sql, &[&life, &writer, &count])?;
            unknown.lock().unwrap().insert(event);
            transaction.commit()
        };
        if let Err(error) = publish() {
            assert!(
                error.as_db_error().is_none_or(|error| error.code().code().starts_with("57P")),
                "{error:?}"
            );
            return;
        }
        unknown.lock().unwrap().remove(&event);
        committed.lock().unwrap().insert(event);
    }
}

fn rows(client: &mut Client, function: &str) -> Result<Vec<Dispatched>, Error> {
    let sql = format!(
        "SELECT position, id, (args ->> 0)::int, (args ->> 1)::int, (args ->> 2)::int FROM {function} ORDER BY position"
    );
    let rows = client.query(&sql, &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), (row.get(2), row.get(3), row.get(4)))).collect())
}

/// One life of a drainer: until the server is gone, or `idle` says that it may end when nothing comes.
fn drain(client: &mut Client, idle: bool, dispatched: &mut Vec<Dispatched>) -> Result<(), Error> {
    let begun = Instant::now();
    let epoch: i64 = loop {
        if let Some(row) = client.query_opt("SELECT epoch FROM wamp.lead('test')", &[])? {
            break row.get(0);
        }
        assert!(begun.elapsed() < PATIENCE, "nobody can lead");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut found = rows(client, &format!("wamp.unsent({epoch}, 0, 100000, 100000000)"))?;
    loop {
        dispatched.extend(&found);
        if let Some((last, ..)) = found.last() {
            client.execute("SELECT wamp.mark($1, $2)", &[&epoch, last])?;
        }
        found = rows(client, &format!("wamp.claim({epoch}, 7, 1000000, 1000000)"))?;
        if found.is_empty() && idle {
            return Ok(());
        }
    }
}

#[test]
fn a_server_that_is_killed_loses_nothing_and_changes_nothing() {
    let mut server = Server::start();
    let database = Database::installed_on(&server);
    // Somebody means well: positions are on disk all the same before they are used.
    let hasty = format!("ALTER ROLE {} SET synchronous_commit = off", database.role("router"));
    database.superuser().batch_execute(&hasty).unwrap();
    let (committed, unknown) = (Mutex::default(), Mutex::default());
    let mut runs: Vec<Vec<Dispatched>> = Vec::new();
    for life in 0..LIVES {
        let mut dispatched = Vec::new();
        let mut client = database.connect("router");
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let mut client = database.connect("ann");
                let (committed, unknown) = (&committed, &unknown);
                scope.spawn(move || write(&mut client, life, writer, committed, unknown));
            }
            let drainer = scope.spawn(|| drain(&mut client, false, &mut dispatched));
            let wanted = committed.lock().unwrap().len() + EVENTS;
            let begun = Instant::now();
            while committed.lock().unwrap().len() < wanted {
                assert!(begun.elapsed() < PATIENCE, "writers do not get on");
                std::thread::sleep(Duration::from_millis(1));
            }
            server.kill();
            assert!(drainer.join().unwrap().is_err());
        });
        server.run();
        let sql = "SELECT last FROM wamp.progress()";
        let durable: i64 = database.connect("router").query_one(sql, &[]).unwrap().get(0);
        let used = dispatched.last().map_or(0, |row| row.0);
        assert!(used <= durable, "{used} was dispatched, and the server knows of {durable}");
        runs.push(dispatched);
    }
    let mut last = Vec::new();
    drain(&mut database.connect("router"), true, &mut last).unwrap();
    runs.push(last);

    let (committed, unknown) = (committed.into_inner().unwrap(), unknown.into_inner().unwrap());
    let mut by_position: BTreeMap<i64, Dispatched> = BTreeMap::new();
    for run in &runs {
        for (before, after) in run.iter().zip(run.iter().skip(1)) {
            assert_eq!(before.0 + 1, after.0, "in order, without a gap");
        }
        for row in run {
            assert_eq!(by_position.entry(row.0).or_insert(*row), row, "repeated as something else");
        }
    }
    assert_eq!(
        by_position.keys().copied().collect::<Vec<_>>(),
        (1..=by_position.len() as i64).collect::<Vec<_>>()
    );
    let seen: BTreeSet<Event> = by_position.values().map(|row| row.2).collect();
    assert_eq!(seen.len(), by_position.len(), "every event has one position");
    let lost: Vec<_> = committed.difference(&seen).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let invented: Vec<_> = seen.difference(&committed).filter(|event| !unknown.contains(event)).collect();
    assert!(invented.is_empty(), "{invented:?}");
    assert!(committed.len() >= EVENTS * LIVES as usize);
}
