//! Routers and databases that are killed again and again, while others commit: a subscriber that resumes behind what it has
//! seen ends with every committed event and none other.
//!
//! Every decision is drawn from a seed, which is printed and taken from `DATABASE_CRASH_SEED`; what the machine makes of it is
//! another matter, so a seed makes the same choices and not the same run. `DATABASE_CRASH_SECONDS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::backend::{Postgres, Shared, Writer};
use super::client::{Answer, Event, PATIENCE, Session};
use super::stage::{Setup, Stage};
use crate::database::server::{Server, Setup as ServerSetup};

const SEED: &str = "DATABASE_CRASH_SEED";
const SECONDS: &str = "DATABASE_CRASH_SECONDS";
const SECONDS_USUALLY: u64 = 10;
const WRITERS: u64 = 3;
/// Transactions of a run, at the least.
const ENOUGH: u64 = 20;
/// What calls of the router have as their writer.
const CALLER: u64 = 100;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pause(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(self.below(milliseconds)));
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// What all threads of a run share.
struct World {
    /// Where the router of the moment is.
    address: Mutex<SocketAddr>,
    is_over: AtomicBool,
    /// Of all writers, committed or not.
    transactions: AtomicU64,
    /// How often something was killed or stopped.
    hurt: AtomicU64,
}

impl World {
    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// Commits, rolls back, and takes parts back. Each event is also a row of `log`, by the same transaction: what is there in the
/// end was committed, whoever was told so.
fn write(database: &Shared, world: &World, writer: u64, mut random: Random) {
    let mut number = 0;
    while !world.is_over() {
        let Some(mut connection) = database.writer() else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        while !world.is_over() {
            if transaction(database, &mut *connection, writer, &mut number, &mut random).is_none() {
                break;
            }
            world.transactions.fetch_add(1, Ordering::SeqCst);
            random.pause(25);
        }
    }
}

/// `None`: the connection is lost.
fn transaction(
    database: &Shared,
    connection: &mut dyn Writer,
    writer: u64,
    number: &mut u64,
    random: &mut Random,
) -> Option<()> {
    let mut say = |sql: &mut String, kind: &str| {
        *number += 1;
        let event =
            super::events::other_program_sql(database, "com.t", &format!("[{writer}, {number}, \"{kind}\"]"));
        sql.push_str(&format!("insert into log values ({writer}, {number}); {event};"));
    };
    let mut sql = database.begin().to_owned();
    say(&mut sql, "first");
    let is_committed = random.below(4) > 0;
    match random.below(4) {
        0 => {
            sql.push_str("savepoint s;");
            say(&mut sql, "undone");
            sql.push_str("rollback to savepoint s;");
        }
        1 => {
            sql.push_str("savepoint s;");
            say(&mut sql, "kept");
            sql.push_str("release savepoint s;");
        }
        2 => (0..random.below(4)).for_each(|_| say(&mut sql, "more")),
        _ => {}
    }
    connection.run(&sql)?;
    // While it is open, others commit, and what runs is killed.
    random.pause(10);
    connection.run(if is_committed { "commit" } else { "rollback" })
}

/// The same by calls of the router, which goes away.
fn call(world: &World, mut random: Random) {
    let mut number = 0;
    while !world.is_over() {
        let Ok(mut session) = Session::try_join(world.address()) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        while !world.is_over() {
            number += 1;
            let is_bad = random.below(4) == 0;
            let uri = if is_bad { "com.put_and_fail" } else { "com.put" };
            match session.try_call(uri, json!([CALLER, number])) {
                Ok(Answer::Result(..)) => assert!(!is_bad, "it fails behind what it publishes"),
                // Away, or not offered yet; or what was to fail.
                Ok(_) => random.pause(20),
                Err(_) => break,
            }
            random.pause(15);
        }
    }
}

/// Subscribes behind what it has seen, until it is told to end at a number of events.
fn subscribe(world: &World, expected: &Mutex<Option<usize>>, mut random: Random) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut by_id: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut since, mut hurt) = (Instant::now(), 0);
    loop {
        // However long it takes to come back: it is only late when it was left alone.
        let now = world.hurt.load(Ordering::SeqCst);
        if std::mem::replace(&mut hurt, now) != now {
            since = Instant::now();
        }
        assert!(since.elapsed() < PATIENCE, "nothing comes any more, behind {:?}", events.last());
        let Ok(mut session) = Session::try_join(world.address()) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let after = events.last().and_then(|event| event.id).unwrap_or_default();
        match session.ask_to_subscribe("com.t", json!({"_after": after})) {
            Ok(answer) if answer[0] == 33 => {}
            // The database is away, or not there yet.
            Ok(answer) => {
                assert_eq!(answer[4], "wamp.error.unavailable", "{answer}");
                random.pause(50);
                continue;
            }
            Err(_) => continue,
        }
        // Leaves by itself as well.
        let leaves = Instant::now() + Duration::from_millis(200 + random.below(3_000));
        while Instant::now() < leaves {
            if expected.lock().unwrap().is_some_and(|count| events.len() >= count) {
                return events;
            }
            match session.try_event_within(Duration::from_millis(50)) {
                Ok(Some(event)) => {
                    since = Instant::now();
                    let id = event.id.expect("an event of a database has its id");
                    match by_id.get(&id) {
                        Some(at) => assert_eq!(events[*at], event, "again, and not the same"),
                        None => {
                            let before = events.last().and_then(|event| event.id);
                            assert!(before < Some(id), "{id} behind {before:?}");
                            by_id.insert(id, events.len());
                            events.push(event);
                        }
                    }
                }
                Ok(None) => {}
                Err(_) => break,
            }
        }
    }
}

fn stage(database: &Shared) -> Stage {
    let [good, bad] = database.put_and_publish("com.t");
    Setup::new(database)
        .script("create table log (writer integer, number integer);")
        .publishing()
        .procedure("com.put", "nothing", &good)
        .procedure("com.put_and_fail", "nothing", &bad)
        .start()
}

fn crash(database: &Shared, mut server: Option<Server>) {
    let seed = number_of(SEED).unwrap_or_else(|| RandomState::new().hash_one(0_u8));
    let seconds = number_of(SECONDS).unwrap_or(SECONDS_USUALLY);
    eprintln!("{SEED}={seed} {SECONDS}={seconds}");
    let mut random = Random(seed);
    let mut stage = stage(database);
    let world = Arc::new(World {
        address: Mutex::new(stage.address()),
        is_over: AtomicBool::new(false),
        transactions: AtomicU64::new(0),
        hurt: AtomicU64::new(0),
    });
    let expected = Arc::new(Mutex::new(None));
    let (of_subscriber, until, own) = (Arc::clone(&world), Arc::clone(&expected), Random(random.next()));
    let subscriber = std::thread::spawn(move || subscribe(&of_subscriber, &until, own));
    let mut threads: Vec<JoinHandle<()>> = (0..WRITERS)
        .map(|writer| {
            let (database, world, own) = (database.clone(), Arc::clone(&world), Random(random.next()));
            std::thread::spawn(move || write(&database, &world, writer, own))
        })
        .collect();
    let (of_caller, own) = (Arc::clone(&world), Random(random.next()));
    threads.push(std::thread::spawn(move || call(&of_caller, own)));

    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut routers, mut servers, mut pauses) = (0, 0, 0);
    // On a slow machine until something has happened.
    let mut has_happened = false;
    while Instant::now() < end || (!has_happened && Instant::now() < end + PATIENCE) {
        std::thread::sleep(Duration::from_millis(200 + random.below(1_200)));
        match (random.below(4), &mut server) {
            (0, Some(server)) => {
                server.kill();
                random.pause(300);
                server.run();
                servers += 1;
            }
            (1, Some(server)) => {
                server.pause();
                random.pause(500);
                server.resume();
                pauses += 1;
            }
            _ => {
                stage.kill();
                random.pause(300);
                stage.start_again();
                *world.address.lock().unwrap() = stage.address();
                routers += 1;
            }
        }
        world.hurt.fetch_add(1, Ordering::SeqCst);
        let is_hurt = routers > 0 && (servers > 0 || server.is_none());
        has_happened = is_hurt && world.transactions.load(Ordering::SeqCst) > ENOUGH;
    }
    world.is_over.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
    let committed: Vec<(u64, u64)> = database
        .select("select writer || ' ' || number as c from log order by writer, number")
        .iter()
        .map(|row| {
            row.split_once(' ').map(|(one, two)| (one.parse().unwrap(), two.parse().unwrap())).unwrap()
        })
        .collect();
    *expected.lock().unwrap() = Some(committed.len());
    let events = subscriber.join().unwrap();
    let told = |event: &Event| (event.args[0].as_u64().unwrap(), event.args[1].as_u64().unwrap());
    let got: BTreeSet<_> = events.iter().map(told).collect();
    let all: BTreeSet<_> = committed.iter().copied().collect();
    let lost: Vec<_> = all.difference(&got).collect();
    let made_up: Vec<_> = got.difference(&all).collect();
    assert!(lost.is_empty() && made_up.is_empty(), "lost {lost:?}, never committed {made_up:?}");
    assert_eq!(events.len(), committed.len(), "each once");
    assert!(events.iter().all(|event| event.args[2] != "undone"));
    let mut last = BTreeMap::new();
    for event in &events {
        let (writer, number) = told(event);
        let before = last.insert(writer, number).unwrap_or_default();
        assert!(number > before, "{number} of {writer} behind {before}");
    }
    eprintln!(
        "{} events of {} transactions; {routers} routers and {servers} servers killed, {pauses} stopped",
        events.len(),
        world.transactions.load(Ordering::SeqCst)
    );
    assert!(routers > 0 && events.len() as u64 > WRITERS, "nothing happened");
}

pub(crate) fn every_committed_event_comes_however_often_the_router_is_killed(database: &Shared) {
    crash(database, None);
}

pub(crate) fn every_committed_event_comes_however_often_router_and_server_are_killed() {
    let server = Server::start();
    let database: Shared = Arc::new(Postgres::on(&server));
    crash(&database, Some(server));
}

pub(crate) fn every_committed_event_comes_through_the_log_of_the_server() {
    let server = ServerSetup::default().setting("wal_level", "logical").start();
    let database: Shared = Arc::new(Postgres::through_the_log(&server));
    crash(&database, Some(server));
}
