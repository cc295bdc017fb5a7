//! Cancelling hits what runs, and never what comes next.

use std::sync::Arc;
use std::time::Duration;

use super::{connect, soon, try_connect, value};
use crate::database::server::{Certificates, Server, Setup};
use crosspoint::database::postgres::wire::{CancelHandle, Connection, Deadline, Error};

/// Cancels from another thread, again and again, until the statement is over: the first request may come before the
/// statement has begun.
fn cancelled(connection: &mut Connection) -> Error {
    let handle = connection.cancel_handle();
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let canceller = std::thread::spawn(move || {
        while is_over.recv_timeout(Duration::from_millis(50))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            handle.cancel(soon()).unwrap();
        }
    });
    let error = connection.simple_query("select pg_sleep(600)", soon(), |_| {}).unwrap_err();
    drop(over);
    canceller.join().unwrap();
    error
}

#[test]
fn what_runs_is_cancelled_over_every_way() {
    let certificates = Arc::new(Certificates::new());
    certificates.signed("good", "ca", "IP:127.0.0.1", 30);
    let server = Setup::default()
        .certificate(&certificates, "good")
        .access("local all all trust")
        .access("hostssl all all all trust")
        .access("hostnossl all postgres all trust")
        .start();
    let (directory, port) = (server.directory().display(), server.port());
    for text in [
        format!("host={directory} port={port} user=postgres"),
        format!("host=127.0.0.1 port={port} user=postgres sslmode=disable"),
        format!("host=127.0.0.1 port={port} user=postgres sslmode=require"),
    ] {
        let mut connection = try_connect(&text).unwrap();
        let error = cancelled(&mut connection);
        assert_eq!(error.sqlstate(), Some("57014"), "{text}: {error}");
        assert_eq!(value(&mut connection, "select 'fine'"), "fine", "the session lives");
    }
}

#[test]
fn handles_go_to_other_threads_and_connections_too() {
    fn may_be_shared<T: Send + Sync + Clone>() {}
    fn may_be_given<T: Send>() {}
    may_be_shared::<CancelHandle>();
    may_be_given::<Connection>();
}

/// Counts a statement that was cancelled.
fn hit(error: &Error, victims: &mut u32) {
    assert_eq!(error.sqlstate(), Some("57014"), "{error}");
    *victims += 1;
}

#[test]
fn late_cancels_hit_nobody() {
    let server = Server::start();
    let mut connection = connect(&server);
    let statement = connection.prepare("select pg_sleep(0.002)", &[], soon()).unwrap();
    let mut victims = 0;
    for _ in 0..200 {
        // Its statement is over before the cancel goes out, so everything that comes next is innocent.
        connection
            .execute(&statement, &[], soon(), |_| {})
            .map_or_else(|error| hit(&error, &mut victims), drop);
        let handle = connection.cancel_handle();
        std::thread::spawn(move || handle.cancel(soon())).join().unwrap().unwrap();
        connection
            .execute(&statement, &[], soon(), |_| {})
            .map_or_else(|error| hit(&error, &mut victims), drop);
    }
    assert_eq!(victims, 0);
}

#[test]
fn who_does_not_wait_hits_the_innocent() {
    // Why the end of the cancelling connection is waited for: without that some of these would be hit. The server is
    // slow on purpose, as a machine under load is: its first process is held while the request is on its way.
    let server = Server::start();
    let (mut connection, mut watcher) = (connect(&server), connect(&server));
    let handle = connection.cancel_handle();
    let sleep = connection.prepare("select pg_sleep(600)", &[], soon()).unwrap();
    server.pause_first();
    let error = handle.cancel(Deadline::after(Duration::from_millis(200))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "a cancel that is not through says so: {error}");
    // Whoever goes on now begins the statement that is hit.
    let innocent = std::thread::spawn(move || connection.execute(&sleep, &[], soon(), |_| {}).unwrap_err());
    let running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    while value(&mut watcher, running) == "0" {}
    server.resume();
    let error = innocent.join().unwrap();
    assert_eq!(error.sqlstate(), Some("57014"), "{error}");
}

#[test]
fn a_server_that_is_gone_cannot_cancel() {
    let mut server = Server::start();
    let connection = connect(&server);
    let handle = connection.cancel_handle();
    assert!(!format!("{handle:?}").contains("secret"));
    server.stop();
    assert!(handle.cancel(soon()).is_err());
}
