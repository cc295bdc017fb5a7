//! The stream of the log, as WAL mode reads it.

use std::time::{Duration, Instant};

use super::{connect, settings, soon, value};
use crate::database::server::Setup;
use crosspoint::database::postgres::wire::{Connection, Error, Replicated, Replication};

const START: &str = "START_REPLICATION SLOT events LOGICAL 0/0 (proto_version '1', publication_names 'none', messages 'true')";

/// The contents of the next logical message with the prefix `wamp`, and where it is.
fn message(replication: &mut Replication) -> (u64, String) {
    loop {
        match replication.next(soon()).unwrap() {
            // Flags, position, prefix with a zero, length, content.
            Replicated::Data { start, data: [b'M', _, rest @ ..], .. }
                if rest[8..].starts_with(b"wamp\0") =>
            {
                return (start, String::from_utf8(rest[17..].to_vec()).unwrap());
            }
            Replicated::Ended => panic!("it ended"),
            _ => {}
        }
    }
}

#[test]
fn committed_messages_are_streamed_and_confirmed() {
    let server = Setup::default().setting("wal_level", "logical").start();
    let mut writer = connect(&server);
    writer.simple_query("create publication none", soon(), |_| {}).unwrap();
    let stream = settings(&format!("{}?replication=database", server.url("postgres")));
    let mut connection = Connection::connect(&stream, soon()).unwrap();
    let mut system = String::new();
    connection
        .simple_query("IDENTIFY_SYSTEM", soon(), |row| system = row.text(3).unwrap().to_owned())
        .unwrap();
    assert_eq!(system, "postgres");
    let create = "CREATE_REPLICATION_SLOT events LOGICAL pgoutput NOEXPORT_SNAPSHOT";
    connection.simple_query(create, soon(), |_| {}).unwrap();
    let mut replication = connection.into_replication(START, soon()).unwrap();

    let emit = |writer: &mut Connection, text: &str| {
        value(writer, &format!("select pg_logical_emit_message(true, 'wamp', '{text}')"))
    };
    emit(&mut writer, "eins");
    writer.simple_query("begin", soon(), |_| {}).unwrap();
    emit(&mut writer, "never");
    writer.simple_query("rollback", soon(), |_| {}).unwrap();
    emit(&mut writer, "zwei");
    let (first, text) = message(&mut replication);
    assert_eq!(text, "eins");
    let (second, text) = message(&mut replication);
    assert_eq!(text, "zwei");
    assert!(second > first);

    // Up to behind the commit, or the transaction comes again.
    let behind = loop {
        if let Replicated::Data { end, data: [b'C', ..], .. } = replication.next(soon()).unwrap() {
            break end;
        }
    };
    // The server moves its slot by what it is told, and answers when it is asked to.
    replication.send_status(behind, behind, behind, 1_000_000, true).unwrap();
    while !matches!(replication.next(soon()).unwrap(), Replicated::KeepAlive { end, .. } if end >= behind) {}
    let sql =
        format!("select count(*) from pg_replication_slots where confirmed_flush_lsn - '0/0' = {behind}");
    let begun = Instant::now();
    while value(&mut writer, &sql) != "1" {
        assert!(begun.elapsed() < Duration::from_secs(60), "the slot does not move");
    }

    // And the session goes on as one that can be asked something.
    let mut connection = replication.finish(soon()).unwrap();
    assert_eq!(value(&mut connection, "select 'fine'"), "fine");
    drop(connection);
    let connection = Connection::connect(&stream, soon()).unwrap();
    let mut replication = connection.into_replication(START, soon()).unwrap();
    emit(&mut writer, "drei");
    assert_eq!(message(&mut replication).1, "drei", "from where it was confirmed");
}

#[test]
fn streams_end_with_a_reason() {
    let mut server = Setup::default().setting("wal_level", "logical").start();
    server.psql("create publication none; select pg_create_logical_replication_slot('events', 'pgoutput')");
    let stream =
        settings(&format!("{}?replication=database&message_bytes_max=100000", server.url("postgres")));
    let begin = || Connection::connect(&stream, soon()).unwrap();
    let error = begin().into_replication(&START.replace("events", "nobody"), soon()).unwrap_err();
    assert_eq!(error.sqlstate(), Some("42704"), "{error}");
    let error = begin().into_replication("select 1", soon()).unwrap_err();
    assert!(matches!(&error, Error::Protocol(problem) if problem.contains("START_REPLICATION")), "{error}");

    let mut replication = begin().into_replication(START, soon()).unwrap();
    let large = "select pg_logical_emit_message(true, 'wamp', repeat('x', 200000))";
    server.psql(&format!("{large}; select pg_logical_emit_message(true, 'wamp', 'small')"));
    let mut too_large = 0;
    let small = loop {
        match replication.next(soon()).unwrap() {
            Replicated::TooLarge { bytes } => too_large += usize::from(bytes > 200_000),
            Replicated::Data { data, .. } if data.ends_with(b"small") => break true,
            Replicated::Ended => break false,
            _ => {}
        }
    };
    assert!(small && too_large == 1, "it is passed over, and the stream goes on");

    server.kill();
    let error = loop {
        match replication.next(soon()) {
            Ok(Replicated::Ended) => panic!("a stream that broke has not ended"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}
