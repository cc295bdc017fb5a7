//! Servers that are killed, stopped and started again under a router, each one of its own.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::{Postgres, Shared};
use super::client::{Answer, Event, Session};
use super::events::other_program_sql;
use super::stage::{Setup, Stage, a_moment};
use crate::database::server::Server;
use crate::harness::wait_until;

/// A server, a database on it, and a router in front of it.
struct Hurt {
    server: Server,
    database: Arc<Postgres>,
    stage: Stage,
}

fn hurt(connections: usize) -> Hurt {
    hurt_and_asked(connections, 50)
}

fn hurt_and_asked(connections: usize, refresh_ms: u64) -> Hurt {
    let server = Server::start();
    let database = Arc::new(Postgres::on(&server));
    let shared: Shared = database.clone();
    let say = super::backend::Backend::publish(&*database, ":topic", ":args", "null", "null");
    let stage = Setup::new(&shared)
        .script("create table t (n integer);")
        .connections(connections)
        .refresh_ms(refresh_ms)
        .publishing()
        .procedure("com.one", "value", "select 1")
        .procedure_with("com.short", "value", "select 2", "timeout_ms = 2000")
        .procedure("com.hang", "nothing", "select pg_sleep(1000)")
        .procedure("com.put", "rows", "insert into t values (:n)")
        .procedure("com.say", "value", &format!("select {say}"))
        .start();
    Hurt { server, database, stage }
}

/// What needs no database goes on: events, calls between clients, and what the router answers itself.
fn routing_goes_on(session: &mut Session) {
    session.publish("com.of.clients", json!(["on"]));
    assert_eq!(session.event().args, json!(["on"]));
    session.failure("com.nobody", json!([])).is("wamp.error.no_such_procedure");
    assert!(session.value("wamp.session.count", json!([])).as_u64().unwrap() >= 1);
}

fn subscriber(stage: &Stage) -> Session {
    let mut session = stage.session();
    session.subscribe("com.of.clients", json!({}));
    session
}

fn wait_until_back(session: &mut Session) {
    wait_until(
        "that it is back",
        || matches!(session.call("com.one", json!([])), Answer::Result(args, _) if args == json!([1])),
    );
}

pub(crate) fn a_server_that_is_killed_is_away_and_comes_back() {
    let Hurt { mut server, stage, .. } = hurt(3);
    let mut session = subscriber(&stage);
    for _ in 0..2 {
        let hanging: Vec<_> = (0..3).map(|_| session.start("com.hang", json!([]))).collect();
        a_moment();
        server.kill();
        for call in hanging {
            session.answer(call).failure().is("wamp.error.unavailable");
        }
        // At once, whatever is called.
        for _ in 0..20 {
            session.failure("com.one", json!([])).is("wamp.error.unavailable");
        }
        routing_goes_on(&mut session);
        server.run();
        wait_until_back(&mut session);
    }
    let log = stage.router.stop();
    assert!(log.contains("the database is away"), "{log}");
}

pub(crate) fn a_server_that_is_stopped_answers_late_and_nobody_waits_for_it() {
    let Hurt { server, stage, .. } = hurt(3);
    let mut session = subscriber(&stage);
    assert_eq!(session.value("com.one", json!([])), json!(1));
    let running = session.start("com.hang", json!([]));
    a_moment();
    server.pause();
    // Those that have a time are told when it is over; more of them than there are connections.
    let short: Vec<_> = (0..6).map(|_| session.start("com.short", json!([]))).collect();
    session.cancel(running, "kill");
    routing_goes_on(&mut session);
    for call in short {
        session.answer(call).failure().is("wamp.error.timeout");
        routing_goes_on(&mut session);
    }
    session.answer(running).failure().is("wamp.error.canceled");
    server.resume();
    wait_until_back(&mut session);
    for _ in 0..20 {
        assert_eq!(session.value("com.one", json!([])), json!(1));
    }
    stage.router.stop();
}

pub(crate) fn who_cancels_on_a_stopped_server_does_not_hold_others_up() {
    let Hurt { server, stage, .. } = hurt(2);
    let mut session = subscriber(&stage);
    let hanging: Vec<_> = (0..2).map(|_| session.start("com.hang", json!([]))).collect();
    a_moment();
    // New sessions are not served, which a cancel needs; those that there are go on.
    server.pause_first();
    session.cancel(hanging[0], "kill");
    session.cancel(hanging[1], "kill");
    let short = session.start("com.short", json!([]));
    session.answer(short).failure().is("wamp.error.timeout");
    routing_goes_on(&mut session);
    for call in hanging {
        session.answer(call).failure().is("wamp.error.canceled");
    }
    server.resume();
    wait_until_back(&mut session);
    stage.router.stop();
}

pub(crate) fn a_router_ends_although_its_server_says_nothing() {
    let Hurt { server, stage, .. } = hurt(3);
    let mut session = subscriber(&stage);
    session.start("com.hang", json!([]));
    a_moment();
    server.pause();
    let log = stage.router.stop();
    server.resume();
    assert!(log.contains("the database is there"), "{log}");
}

pub(crate) fn a_server_that_was_restarted_is_called_as_if_nothing_had_been() {
    // Nobody looks whether it is there but who calls.
    let Hurt { mut server, stage, .. } = hurt_and_asked(3, 3_600_000);
    let mut session = subscriber(&stage);
    for _ in 0..10 {
        assert_eq!(session.value("com.one", json!([])), json!(1));
    }
    server.stop();
    server.run();
    // A connection that was idle for so long is looked at before it is used.
    std::thread::sleep(Duration::from_millis(250));
    for _ in 0..10 {
        assert_eq!(session.value("com.one", json!([])), json!(1));
    }
}

/// A publication and what follows it, as any other program commits them.
fn say(database: &Shared, number: u64) {
    database.execute(&other_program_sql(database, "com.t", &format!("[{number}]")));
}

/// Takes all events up to this one: each in its order, and again only as it was.
fn take_up_to(listener: &mut Session, last: u64) {
    take_more(listener, &mut Vec::new(), last);
}

/// The same, behind these.
fn take_more(listener: &mut Session, events: &mut Vec<Event>, last: u64) {
    loop {
        let event = listener.event();
        match events.iter().find(|known| known.id == event.id) {
            Some(known) => assert_eq!(*known, event, "again, and not the same"),
            None => {
                assert_eq!(event.args, json!([events.len()]), "{events:?}");
                assert!(events.last().is_none_or(|before| before.id < event.id));
                events.push(event);
            }
        }
        if events.len() as u64 > last {
            return;
        }
    }
}

fn listener(stage: &Stage) -> Session {
    let mut session = stage.session();
    session.subscribe("com.t", json!({}));
    session
}

pub(crate) fn nothing_that_was_published_is_lost_when_a_server_is_killed() {
    let Hurt { mut server, database, stage } = hurt(3);
    let shared: Shared = database.clone();
    let mut listener = listener(&stage);
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..10 {
            say(&shared, number);
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(round * 3));
        server.kill();
        server.run();
        wait_until("the server", || database.try_execute("select 1"));
    }
    say(&shared, number);
    take_up_to(&mut listener, number);
}

pub(crate) fn nothing_that_was_published_is_lost_when_a_server_is_stopped() {
    let Hurt { server, database, stage } = hurt(3);
    let shared: Shared = database;
    let mut listener = listener(&stage);
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..10 {
            say(&shared, number);
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(round * 2));
        server.pause();
        a_moment();
        server.resume();
    }
    say(&shared, number);
    take_up_to(&mut listener, number);
    listener.expect_no_event();
}

/// One publishes; who resumes with the other is refused, for it would not hear of what the first one publishes, or misses
/// nothing.
pub(crate) fn of_two_routers_one_publishes_and_the_other_takes_over() {
    let shared: Shared = Arc::new(<Postgres as super::backend::Backend>::new());
    let mut first = super::events::speaker(&shared).start();
    say(&shared, 0);
    take_up_to(&mut resumed(&first, 0), 0);
    let second = first.another();
    second.wait_until_offered();
    let mut early = second.session();
    let answer = early.try_subscribe("com.t", json!({"_after": 0}));
    for number in 1..10 {
        say(&shared, number);
    }
    wait_until("that the first has published", || first.router.counters().of("database_publications") >= 10);
    a_moment();
    first.kill();
    for number in 10..15 {
        say(&shared, number);
    }
    if answer[0] == 33 {
        take_up_to(&mut early, 14);
    } else {
        assert_eq!(answer[4], "wamp.error.unavailable", "{answer}");
    }
    take_up_to(&mut resumed(&second, 0), 14);
}

/// A router that stood still, and whose place another one took, publishes what that one did, too, once it has its place back.
pub(crate) fn a_router_that_lost_its_place_misses_nothing() {
    let shared: Shared = Arc::new(<Postgres as super::backend::Backend>::new());
    let first = super::events::speaker(&shared).start();
    let (mut listener, mut events) = (resumed(&first, 0), Vec::new());
    say(&shared, 0);
    take_more(&mut listener, &mut events, 0);
    let mut second = first.another();
    second.wait_until_offered();
    first.router.signal(rustix::process::Signal::STOP);
    shared.select(
        "select pg_terminate_backend(pid)::text as c from pg_locks where locktype = 'advisory'
            and database = (select oid from pg_database where datname = current_database())",
    );
    // The other one has the place when who resumes there is not refused.
    let mut meanwhile = resumed(&second, 0);
    for number in 1..30 {
        say(&shared, number);
    }
    take_up_to(&mut meanwhile, 29);
    wait_until("that it is marked", || shared.select("select sent as c from wamp.progress()") == ["30"]);
    second.kill();
    first.router.signal(rustix::process::Signal::CONT);
    say(&shared, 30);
    take_more(&mut listener, &mut events, 30);
}

/// Resumes as soon as it can.
fn resumed(stage: &Stage, after: u64) -> Session {
    let mut session = stage.session();
    wait_until("that it may resume", || {
        let answer = session.try_subscribe("com.t", json!({"_after": after}));
        assert!(answer[0] == 33 || answer[4] == "wamp.error.unavailable", "{answer}");
        answer[0] == 33
    });
    session
}

pub(crate) fn a_server_that_is_not_there_at_the_start_is_waited_for() {
    let mut server = Server::start();
    let database = Arc::new(Postgres::on(&server));
    let shared: Shared = database;
    server.stop();
    let stage = Setup::new(&shared).procedure("com.one", "value", "select 1").start_without_waiting();
    stage.router.wait_for_log("the database is away");
    let mut session = subscriber(&stage);
    session.failure("com.one", json!([])).is("wamp.error.no_such_procedure");
    routing_goes_on(&mut session);
    server.run();
    wait_until_back(&mut session);
}

pub(crate) fn functions_have_defaults_and_lists_of_arguments() {
    let shared: Shared = Arc::new(<Postgres as super::backend::Backend>::new());
    let stage = Setup::new(&shared)
        .script(
            "create schema api;
             create function api.sum(a int, b int default 10, c int default 100) returns int language sql as 'select a + b + c';
             create function api.total(variadic n int[]) returns bigint language sql as 'select sum(x) from unnest(n) x';",
        )
        .tables("[[database.expose]]\nschema = \"api\"\nprefix = \"com.api.\"\n")
        .procedure("com.one", "value", "select 1")
        .start();
    let mut session = stage.session();
    for (args, kwargs, sum) in [
        (json!([1]), json!({}), 111),
        (json!([1, 2]), json!({}), 103),
        (json!([1]), json!({"c": 3}), 14),
        (json!([]), json!({"c": 3, "a": 1}), 14),
    ] {
        assert_eq!(session.call_with("com.api.sum", json!({}), args, kwargs).value(), json!(sum));
    }
    session.failure("com.api.sum", json!([])).is("wamp.error.invalid_argument");
    assert_eq!(session.value("com.api.total", json!([1, 2, 3])), json!(6));
    assert_eq!(session.value("com.api.total", json!([])), Value::Null);
}

pub(crate) fn a_call_runs_with_the_rights_of_its_callers_role() {
    let shared: Shared = Arc::new(<Postgres as super::backend::Backend>::new());
    let name = shared.select("select current_database() as c").remove(0);
    let (web, staff) = (format!("{name}_web"), format!("{name}_staff"));
    let stage = Setup::new(&shared)
        .script(&format!(
            "create role {web} nologin; create role {staff} nologin;
             create table secret (n integer); insert into secret values (7); grant select on secret to {staff};"
        ))
        .user("ann")
        .connections(1)
        .procedure("com.secret", "value", "select n from secret")
        .procedure("com.who", "value", "select current_user::text")
        .tables(&format!(
            "[[database.role]]\nrole = \"anonymous\"\nruns_as = \"{web}\"\n[[database.role]]\nrole = \"user\"\nruns_as = \"{staff}\"\n"
        ))
        .start();
    let mut anonymous = stage.session();
    let login = super::client::Login { authid: Some("ann"), ..Default::default() };
    let mut ann = stage.session_as(login);
    for _ in 0..3 {
        // What is prepared for one role is not run by another.
        assert_eq!(ann.value("com.secret", json!([])), json!(7));
        anonymous.failure("com.secret", json!([])).is("wamp.error.not_authorized");
        assert_eq!(ann.value("com.who", json!([])), json!(staff));
        assert_eq!(anonymous.value("com.who", json!([])), json!(web));
    }
}
