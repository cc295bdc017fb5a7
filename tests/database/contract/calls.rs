//! Transactions, cancelling, time, and many calls beside each other.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::Shared;
use super::client::{Answer, Session};
use super::stage::{Setup, Stage, a_moment};
use crate::harness::wait_until;

const TABLE: &str = "create table t (n integer primary key);";

pub(crate) fn a_call_is_done_whole_or_not_at_all(database: &Shared) {
    let stage = Setup::new(database)
        .script(TABLE)
        .procedure("com.two", "rows", "insert into t values (:n), (:m)")
        .start();
    let mut session = stage.session();
    assert_eq!(session.value("com.two", json!([1, 2])), json!(2));
    session.failure("com.two", json!([3, 2])).is(database.constraint_uris()[0]);
    assert_eq!(database.select("select n as c from t order by n"), ["1", "2"]);
}

pub(crate) fn what_others_commit_is_seen_and_nothing_before(database: &Shared) {
    let stage =
        Setup::new(database).script(TABLE).procedure("com.count", "value", "select count(*) from t").start();
    let mut session = stage.session();
    let held = database.hold("insert into t values (1)");
    assert_eq!(session.value("com.count", json!([])), json!(0));
    held.commit();
    assert_eq!(session.value("com.count", json!([])), json!(1));
    let held = database.hold("insert into t values (2)");
    held.roll_back();
    assert_eq!(session.value("com.count", json!([])), json!(1));
}

/// A row that another program is writing: writers wait for it, as long as their time; readers do not.
pub(crate) fn who_waits_for_a_lock_waits_no_longer_than_its_time(database: &Shared) {
    let stage = Setup::new(database)
        .script(TABLE)
        .procedure_with("com.put", "rows", "insert into t values (:n)", "timeout_ms = 300")
        .procedure("com.count", "value", "select count(*) from t")
        .start();
    let mut session = stage.session();
    let held = database.hold("insert into t values (1)");
    let writing: Vec<_> = (0..2).map(|_| session.start("com.put", json!([1]))).collect();
    for _ in 0..10 {
        assert_eq!(session.value("com.count", json!([])), json!(0));
    }
    for call in writing {
        session.answer(call).failure().is("wamp.error.timeout");
    }
    held.roll_back();
    wait_until("the writers", || {
        session.call("com.put", json!([1])) == Answer::Result(json!([1]), json!({}))
    });
}

/// Procedures that never end, and some that are over at once.
fn endless(database: &Shared, connections: usize, lines: &str) -> Stage {
    Setup::new(database)
        .script("create table t (n integer);")
        .connections(connections)
        .procedure_with("com.endless", "value", &database.endless(), lines)
        .procedure_with("com.write", "nothing", &database.endless_write("t"), lines)
        .procedure("com.count", "value", "select count(*) from t")
        .start()
}

fn stops(session: &mut Session, call: u64, uri: &str) {
    session.answer(call).failure().is(uri);
    // The connection is there for the next.
    assert_eq!(session.value("com.count", json!([])), json!(0));
}

pub(crate) fn a_call_that_is_killed_stops(database: &Shared) {
    let stage = endless(database, 1, "");
    let mut session = stage.session();
    for round in 0..8 {
        let call = session.start("com.endless", json!([]));
        std::thread::sleep(Duration::from_millis(round * 5));
        session.cancel(call, "kill");
        stops(&mut session, call, "wamp.error.canceled");
    }
}

pub(crate) fn a_write_that_is_killed_leaves_nothing(database: &Shared) {
    let stage = endless(database, 1, "");
    let mut session = stage.session();
    for round in 0..6 {
        let call = session.start("com.write", json!([]));
        std::thread::sleep(Duration::from_millis(round * 8));
        session.cancel(call, "kill");
        stops(&mut session, call, "wamp.error.canceled");
    }
    assert_eq!(database.select("select count(*) as c from t"), ["0"]);
}

pub(crate) fn who_does_not_wait_for_the_end_is_answered_at_once(database: &Shared) {
    let stage = endless(database, 1, "");
    let mut session = stage.session();
    let call = session.start("com.endless", json!([]));
    a_moment();
    session.cancel(call, "killnowait");
    // And it stops as well: there is but one connection.
    stops(&mut session, call, "wamp.error.canceled");
}

pub(crate) fn what_is_skipped_goes_on(database: &Shared) {
    let numbers = database.numbers("100000");
    let stage = Setup::new(database)
        .script("create table t (n integer);")
        .procedure("com.work", "nothing", &format!("insert into t select count(*) from ({numbers}) as r"))
        .start();
    let mut session = stage.session();
    let call = session.start("com.work", json!([]));
    session.cancel(call, "skip");
    session.answer(call).failure().is("wamp.error.canceled");
    wait_until("its end", || database.select("select n as c from t") == ["100000"]);
}

pub(crate) fn a_late_cancel_stops_no_other(database: &Shared) {
    let numbers = database.numbers("2000");
    let stage = Setup::new(database)
        .connections(1)
        .procedure("com.short", "value", &format!("select count(*) from ({numbers}) as r"))
        .start();
    let (mut session, mut ended, mut cancelled) = (stage.session(), 0, 0);
    for round in 0..150_u64 {
        let first = session.start("com.short", json!([]));
        std::thread::sleep(Duration::from_micros(round % 15 * 200));
        session.cancel(first, "kill");
        let second = session.start("com.short", json!([]));
        match session.answer(first) {
            Answer::Error(failure) => {
                failure.is("wamp.error.canceled");
                cancelled += 1;
            }
            answer => {
                assert_eq!(answer.value(), json!(2000));
                ended += 1;
            }
        }
        assert_eq!(session.answer(second).value(), json!(2000), "it was never cancelled");
    }
    assert_eq!(ended + cancelled, 150);
}

pub(crate) fn a_call_that_waits_is_cancelled_without_having_begun(database: &Shared) {
    let stage = endless(database, 1, "");
    let mut session = stage.session();
    let first = session.start("com.endless", json!([]));
    a_moment();
    let second = session.start("com.endless", json!([]));
    stage.wait_until_taken(2, 1);
    session.cancel(second, "kill");
    session.cancel(first, "kill");
    session.answer(first).failure().is("wamp.error.canceled");
    stops(&mut session, second, "wamp.error.canceled");
}

pub(crate) fn who_leaves_takes_its_calls_along(database: &Shared) {
    let stage = endless(database, 2, "");
    let mut session = stage.session();
    for uri in ["com.endless", "com.write"] {
        let mut leaver = stage.session();
        for _ in 0..4 {
            leaver.start(uri, json!([]));
        }
        a_moment();
        drop(leaver);
        assert_eq!(session.value("com.count", json!([])), json!(0));
    }
    wait_until("all to be cancelled", || stage.router.counters().of("queries_cancelled") == 8);
}

pub(crate) fn a_procedure_has_its_time(database: &Shared) {
    let stage = endless(database, 1, "timeout_ms = 100");
    let mut session = stage.session();
    for uri in ["com.endless", "com.write"] {
        let call = session.start(uri, json!([]));
        stops(&mut session, call, "wamp.error.timeout");
    }
}

pub(crate) fn a_caller_has_its_time(database: &Shared) {
    let stage = endless(database, 1, "");
    let mut session = stage.session();
    for uri in ["com.endless", "com.write"] {
        let call = session.begin(uri, json!({"timeout": 100}), json!([]), json!({}));
        stops(&mut session, call, "wamp.error.timeout");
    }
}

pub(crate) fn a_database_has_its_time(database: &Shared) {
    let stage = Setup::new(database)
        .script("create table t (n integer);")
        .line("timeout_ms = 100")
        .connections(1)
        .procedure("com.endless", "value", &database.endless())
        .procedure_with("com.count", "value", "select count(*) from t", "timeout_ms = 60000")
        .start();
    let mut session = stage.session();
    // A caller that has more time has no more of it.
    let call = session.begin("com.endless", json!({"timeout": 600_000}), json!([]), json!({}));
    stops(&mut session, call, "wamp.error.timeout");
}

pub(crate) fn who_waits_for_a_connection_waits_no_longer_than_its_time(database: &Shared) {
    let stage = endless(database, 1, "");
    let mut session = stage.session();
    let endless = session.start("com.endless", json!([]));
    stage.wait_until_taken(1, 0);
    let late = session.begin("com.count", json!({"timeout": 100}), json!([]), json!({}));
    // While the one before it runs on.
    session.answer(late).failure().is("wamp.error.timeout");
    session.cancel(endless, "kill");
    stops(&mut session, endless, "wamp.error.canceled");
}

pub(crate) fn a_full_queue_is_an_answer_at_once(database: &Shared) {
    let stage = Setup::new(database)
        .line("queue_max = 2")
        .connections(1)
        .procedure("com.endless", "value", &database.endless())
        .procedure("com.one", "value", "select 1")
        .start();
    let mut session = stage.session();
    let first = session.start("com.endless", json!([]));
    stage.wait_until_taken(1, 0);
    let waiting: Vec<_> = (0..2).map(|_| session.start("com.one", json!([]))).collect();
    let text = session.failure("com.one", json!([])).is("wamp.error.unavailable");
    assert!(text.contains("as many calls wait"), "{text}");
    // Whatever is published meanwhile, the database does not matter to it.
    session.subscribe("com.topic", json!({}));
    session.publish("com.topic", json!(["on"]));
    assert_eq!(session.event().args, json!(["on"]));
    session.cancel(first, "kill");
    for call in waiting {
        assert_eq!(session.answer(call).value(), json!(1));
    }
    assert_eq!(session.value("com.one", json!([])), json!(1));
    assert!(stage.router.counters().of("queries_refused") >= 1);
}

pub(crate) fn what_waits_is_bounded_in_bytes(database: &Shared) {
    let stage = Setup::new(database)
        .script("create table kept (t text);")
        .line("queue_bytes_max = \"1 MiB\"")
        .connections(1)
        .procedure("com.endless", "value", &database.endless())
        .procedure("com.write", "nothing", &database.endless_write("t"))
        .procedure("com.put", "nothing", "insert into kept values (:t)")
        .script("create table t (n integer);")
        .start();
    let mut session = stage.session();
    // One of each kind of work: some databases have one that writes.
    let holding: Vec<_> = ["com.write", "com.endless"].map(|uri| session.start(uri, json!([]))).into();
    stage.wait_until_taken(2, 1);
    let text = "x".repeat(300_000);
    let calls: Vec<_> = (0..5).map(|_| session.start("com.put", json!([text]))).collect();
    // Those that came too late are answered now.
    for call in &calls[3..] {
        session.answer(*call).failure().is("wamp.error.unavailable");
    }
    holding.iter().for_each(|call| session.cancel(*call, "kill"));
    for call in &calls[..3] {
        assert_eq!(session.answer(*call), Answer::Result(json!([]), json!({})));
    }
}

pub(crate) fn slow_procedures_with_a_bound_leave_connections_to_others(database: &Shared) {
    let stage = endless(database, 2, "concurrency = 1");
    let mut session = stage.session();
    let slow: Vec<_> = (0..4).map(|_| session.start("com.endless", json!([]))).collect();
    for _ in 0..20 {
        assert_eq!(session.value("com.count", json!([])), json!(0));
    }
    // One that waits for its turn is answered before that, and the others as theirs comes.
    for call in [slow[2], slow[0], slow[1], slow[3]] {
        session.cancel(call, "kill");
        stops(&mut session, call, "wamp.error.canceled");
    }
}

pub(crate) fn one_at_a_time_is_in_order(database: &Shared) {
    let stage = Setup::new(database)
        .script("create table t (n integer);")
        .procedure_with("com.put", "value", "insert into t values (:n) returning n", "concurrency = 1")
        .start();
    let mut session = stage.session();
    let calls: Vec<_> = (0..100).map(|number| (number, session.start("com.put", json!([number])))).collect();
    for (number, call) in calls {
        assert_eq!(session.any_answer(), (call, Answer::Result(json!([number]), json!({}))));
    }
}

pub(crate) fn a_slow_call_leaves_the_other_connection(database: &Shared) {
    let stage = endless(database, 2, "");
    let mut session = stage.session();
    let slow = session.start("com.endless", json!([]));
    a_moment();
    for _ in 0..20 {
        assert_eq!(session.value("com.count", json!([])), json!(0));
    }
    session.cancel(slow, "kill");
    stops(&mut session, slow, "wamp.error.canceled");
}

/// Rows that are more than all buffers between a database and a caller take.
fn large(database: &Shared, lines: &str) -> Stage {
    let numbers = database.numbers("3000000");
    let rows = format!("select n, 'a row of some length, so that it counts' as t from ({numbers}) as r");
    Setup::new(database)
        .connections(3)
        .procedure_with("com.large", "rows", &rows, lines)
        .procedure("com.one", "value", "select 1")
        .start()
}

/// Who reads nothing of a large set, once its first part has come.
fn stalled(stage: &Stage, count: usize) -> Vec<Session> {
    let login = super::client::Login { has_small_buffer: true, ..Default::default() };
    let sessions: Vec<_> = (0..count)
        .map(|_| {
            let mut session = stage.session_as(login);
            session.begin("com.large", json!({"receive_progress": true}), json!([]), json!({}));
            session
        })
        .collect();
    a_moment();
    sessions
}

pub(crate) fn stalled_readers_of_large_sets_leave_connections_to_others(database: &Shared) {
    let stage = large(database, "concurrency = 2");
    let stalled = stalled(&stage, 5);
    let mut session = stage.session();
    for _ in 0..20 {
        assert_eq!(session.value("com.one", json!([])), json!(1));
    }
    drop(stalled);
    assert_eq!(session.value("com.one", json!([])), json!(1));
}

pub(crate) fn stalled_readers_that_fill_the_pool_give_it_back_with_their_time(database: &Shared) {
    let stage = large(database, "timeout_ms = 1500");
    let mut stalled = stalled(&stage, 4);
    let mut session = stage.session();
    // It waits until one of them is over, and the cores do not.
    let waiting = session.start("com.one", json!([]));
    session.subscribe("com.topic", json!({}));
    session.publish("com.topic", json!(["on"]));
    assert_eq!(session.event().args, json!(["on"]));
    assert_eq!(session.answer(waiting).value(), json!(1));
    // Who reads in the end is told: parts, in order, and then that the time is over.
    for one in &mut stalled[..3] {
        let mut next = 1;
        let end = loop {
            match one.any_answer().1 {
                Answer::Part(args) => {
                    for row in args[0].as_array().unwrap() {
                        assert_eq!(row["n"], next);
                        next += 1;
                    }
                }
                end => break end,
            }
        };
        end.failure().is("wamp.error.timeout");
    }
}

pub(crate) fn every_call_of_many_callers_is_answered_once(database: &Shared) {
    let stage = Setup::new(database)
        .script(TABLE)
        .procedure("com.put", "value", "insert into t values (:n) returning n")
        .procedure("com.one", "value", "select :n + 1 as n")
        .start();
    let (mut sessions, mut asked) = (Vec::new(), 0_u64);
    for _ in 0..6 {
        let mut session = stage.session();
        let mut calls = Vec::new();
        for number in 0..50 {
            asked += 1;
            let (uri, back) = if number % 10 == 0 { ("com.put", asked) } else { ("com.one", asked + 1) };
            calls.push((session.start(uri, json!([asked])), back));
        }
        sessions.push((session, calls));
    }
    let mut put = BTreeSet::new();
    for (mut session, calls) in sessions {
        for (call, back) in calls {
            assert_eq!(session.answer(call).value(), json!(back));
            put.insert(back);
        }
        session.failure("com.nobody", json!([])).is("wamp.error.no_such_procedure");
    }
    assert_eq!(database.select("select count(*) as c from t"), ["30"]);
    let counters = stage.router.counters();
    assert_eq!((counters.of("queries"), counters.of("queries_refused")), (300, 0));
}

fn who(database: &Shared, connections: usize) -> Setup {
    let parts = ["session", "authid", "authrole", "authmethod"].map(|what| database.who(what));
    let sql = format!("select {}", parts.join(" || ' ' || "));
    Setup::new(database).connections(connections).procedure("com.who", "value", &sql)
}

pub(crate) fn who_calls_is_known_inside(database: &Shared) {
    let stage = who(database, 1).user("ann").user("bob").start();
    let login = |authid| super::client::Login { authid: Some(authid), ..Default::default() };
    let (mut ann, mut bob) = (stage.session_as(login("ann")), stage.session_as(login("bob")));
    for _ in 0..5 {
        // By the same connection, one after the other.
        assert_eq!(ann.value("com.who", json!([])), json!(format!("{} ann user ticket", ann.id)));
        assert_eq!(bob.value("com.who", json!([])), json!(format!("{} bob user ticket", bob.id)));
    }
}

pub(crate) fn who_says_nothing_is_known_as_anonymous(database: &Shared) {
    let stage = who(database, 2).start();
    let mut session = stage.session();
    let said = session.value("com.who", json!([]));
    let words: Vec<_> = said.as_str().unwrap().split(' ').collect();
    assert_eq!(words[0], session.id.to_string());
    assert_eq!(words[2..], ["anonymous", "anonymous"], "{said}");
}

pub(crate) fn who_calls_cannot_be_said_by_the_caller(database: &Shared) {
    let stage = who(database, 1).user("ann").start();
    let mut session = stage.session();
    let options =
        json!({"caller": 1, "caller_authid": "ann", "caller_authrole": "user", "disclose_me": true});
    let said = session.call_with("com.who", options, json!([]), json!({})).value();
    assert!(said.as_str().unwrap().starts_with(&session.id.to_string()), "{said}");
    assert!(!said.as_str().unwrap().contains("ann "), "{said}");
}

pub(crate) fn a_role_calls_what_it_may(database: &Shared) {
    let permission = |uri: &str| format!("[[realm.role.permission]]\nuri = \"{uri}\"\nallow = [\"call\"]\n");
    let (may, find) = (permission("com.one"), permission("wamp.registration.match"));
    let stage = Setup::new(database)
        .permissions(&format!("{may}{find}"))
        .user("ann")
        .procedure("com.one", "value", "select 1")
        .procedure("com.two", "value", "select 2")
        .start();
    let mut anonymous = stage.session();
    assert_eq!(anonymous.value("com.one", json!([])), json!(1));
    anonymous.failure("com.two", json!([])).is("wamp.error.not_authorized");
    let mut ann = stage.session_as(super::client::Login { authid: Some("ann"), ..Default::default() });
    assert_eq!(ann.value("com.two", json!([])), json!(2));
}

pub(crate) fn calls_go_on_beside_a_call_that_fails_again_and_again(database: &Shared) {
    let stage = Setup::new(database)
        .script(TABLE)
        .connections(2)
        .procedure("com.put", "rows", "insert into t values (:n)")
        .procedure("com.count", "value", "select count(*) from t")
        .start();
    let mut session = stage.session();
    session.value("com.put", json!([1]));
    let failing: Vec<_> = (0..50).map(|_| session.start("com.put", json!([1]))).collect();
    for _ in 0..10 {
        assert_eq!(session.value("com.count", json!([])), json!(1));
    }
    for call in failing {
        session.answer(call).failure().is(database.constraint_uris()[0]);
    }
    assert_eq!(session.value("com.put", json!([2])), json!(1));
}

pub(crate) fn what_cannot_be_had_of_a_database_is_said(database: &Shared) {
    let stage = Setup::new(database).procedure("com.one", "value", "select 1").start();
    let mut session = stage.session();
    let parts = session.call_with("com.one", json!({"progress": true}), json!([]), json!({}));
    let uri = parts.failure().uri;
    assert!(["wamp.error.feature_not_supported", "wamp.error.invalid_argument"].contains(&&*uri), "{uri}");
    assert_eq!(session.value("com.one", json!([])), Value::from(1));
}
