//! Servers that end, are killed, are stopped and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{connect, settings, soon, try_connect, value};
use crate::database::server::{Certificates, Server, Setup};
use crosspoint::database::postgres::wire::{Connection, Deadline, Error, Event, ResultFormat};

#[test]
fn last_words_are_heard() {
    let server = Server::start();
    let mut busy = connect(&server);
    let local = format!("host={} port={} user=postgres", server.directory().display(), server.port());
    let mut idle: Vec<_> = (0..3).flat_map(|_| [connect(&server), try_connect(&local).unwrap()]).collect();
    let mut fine = connect(&server);
    let waiting = std::thread::spawn(move || {
        let error = busy.simple_query("select pg_sleep(600)", soon(), |_| {}).unwrap_err();
        (error, busy)
    });
    let begun = Instant::now();
    while value(&mut fine, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "0" {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    for connection in &mut idle {
        connection.hear().unwrap();
    }
    let others = "from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    value(&mut fine, &format!("select count(pg_terminate_backend(pid)) {others}"));
    let (error, mut busy) = waiting.join().unwrap();
    assert!(matches!(&error, Error::Closed { .. }) && error.ends_connection(), "{error:?}");
    assert_eq!(error.sqlstate(), Some("57P01"));
    assert!(busy.is_over());
    assert_eq!(busy.ping(soon()).unwrap_err().sqlstate(), Some("57P01"), "it goes on saying why");
    while value(&mut fine, &format!("select count(*) {others}")) != "0" {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    // Nothing was asked of these. Each hears it in its way, those that send something first as well.
    let ways: [fn(&mut Connection) -> Error; 3] = [
        |connection| connection.hear().unwrap_err(),
        |connection| connection.wait_notification(soon()).unwrap_err(),
        |connection| connection.simple_query("select 1", soon(), |_| {}).unwrap_err(),
    ];
    for (index, connection) in idle.iter_mut().enumerate() {
        let error = ways[index / 2](connection);
        assert_eq!(error.sqlstate(), Some("57P01"), "{index}: {error}");
    }
    fine.hear().unwrap();
    assert_eq!(value(&mut fine, "select 'fine'"), "fine");
}

#[test]
fn a_killed_server_is_noticed_in_the_middle() {
    let certificates = Arc::new(Certificates::new());
    certificates.signed("good", "ca", "IP:127.0.0.1", 30);
    let mut server = Setup::default().certificate(&certificates, "good").start();
    let text = |mode: &str| format!("{}?sslmode={mode}", server.url("postgres"));
    let texts = ["disable", "require"].map(text);
    let mut connections = texts.clone().map(|text| try_connect(&text).unwrap());
    for connection in &mut connections {
        let requests = connection.requests();
        requests.parse("", "select n, repeat('x', 100000) from generate_series(1, 100000) n", &[]).unwrap();
        requests.bind("", "", &[], ResultFormat::Text).unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
        connection.send().unwrap();
        while !matches!(connection.next(soon()).unwrap(), Event::Row(_)) {}
    }
    server.kill();
    for connection in &mut connections {
        let error = loop {
            match connection.next(soon()) {
                Ok(Event::Row(_)) => {}
                Ok(event) => panic!("{event:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Closed { .. }), "{error:?}");
        assert!(connection.is_over());
    }
    let error = try_connect(&texts[0]).unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error}");
    server.run();
    assert_eq!(value(&mut try_connect(&texts[0]).unwrap(), "select 'back'"), "back");
}

#[test]
fn a_server_that_is_stopped_is_noticed_by_the_deadline() {
    let server = Server::start();
    // The other one's statement is cancelled, if the request is taken when the server goes on.
    let (mut connection, other) = (connect(&server), connect(&server));
    let handle = other.cancel_handle();
    server.pause();
    let bound = Duration::from_millis(300);
    let begun = Instant::now();
    let error = connection.ping(Deadline::after(bound)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && begun.elapsed() >= bound, "{error}");
    assert!(handle.cancel(Deadline::after(bound)).is_err());
    let error = Connection::connect(&settings(&server.url("postgres")), Deadline::after(bound)).unwrap_err();
    let Error::Connect(attempts) = &error else { panic!("{error:?}") };
    assert!(matches!(attempts[0].error, Error::TimedOut { .. }), "{error}");
    // More than the socket takes: sending does not wait, and waiting has its deadline.
    let large = "x".repeat(10_000_000);
    connection.drain(Deadline::after(Duration::ZERO), 0).unwrap_err();
    connection.requests().parse("", "select length($1)", &[25]).unwrap();
    connection.requests().bind("", "", &[large.as_str().into()], ResultFormat::Text).unwrap();
    connection.requests().execute("", 0).unwrap();
    connection.requests().sync();
    connection.send().unwrap();
    assert!(matches!(connection.next(Deadline::after(bound)), Err(Error::TimedOut { .. })));
    // It goes on, and so does everything that was asked, in order.
    server.resume();
    let mut length = None;
    while connection.is_waiting() {
        match connection.next(soon()).unwrap() {
            Event::Row(row) => length = row.text(0).map(str::to_owned),
            Event::Error(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(length.as_deref(), Some("10000000"));
}

#[test]
fn a_session_comes_and_goes_without_leaving_anything() {
    let server = Server::start();
    let mut watcher = connect(&server);
    for _ in 0..20 {
        drop(connect(&server));
    }
    let begun = Instant::now();
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
    while value(&mut watcher, sql) != "1" {
        assert!(begun.elapsed() < Duration::from_secs(60), "sessions stay behind");
    }
    assert!(!server.log().contains("unexpected EOF"), "each said goodbye: {}", server.log());
}

#[test]
fn a_full_server_says_so() {
    let server = Setup::default()
        .setting("max_connections", "5")
        .setting("superuser_reserved_connections", "0")
        .setting("max_wal_senders", "0")
        .start();
    let held: Vec<_> = (0..5).map(|_| connect(&server)).collect();
    let error = try_connect(&server.url("postgres")).unwrap_err();
    assert_eq!(error.sqlstate(), Some("53300"), "{error}");
    drop(held);
}
