//! What comes back: portals that are read in pieces and left, large rows, notices and notifications.

use std::sync::Arc;
use std::time::Duration;

use super::{connect, settings, soon, try_connect, value};
use crate::database::server::{Certificates, Server, Setup};
use crosspoint::database::postgres::wire::{
    Connection, Deadline, Error, Event, ResultFormat, TransactionStatus,
};

/// Reads on until the portal is suspended or done; the rows, and whether there are more.
fn page(connection: &mut Connection) -> (usize, bool) {
    let mut rows = 0;
    loop {
        match connection.next(soon()).unwrap() {
            Event::Row(_) => rows += 1,
            Event::Suspended => return (rows, true),
            Event::Complete(_) => return (rows, false),
            Event::BindComplete => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn portals_are_read_as_far_as_wanted() {
    let server = Server::start();
    let mut connection = connect(&server);
    let series = connection.prepare("select generate_series(1, 2500)", &[], soon()).unwrap();
    let requests = connection.requests();
    requests.bind("p", &series.name, &[], ResultFormat::Text).unwrap();
    requests.execute("p", 1000).unwrap();
    requests.flush();
    let mut pages = Vec::new();
    loop {
        let (rows, more) = page(&mut connection);
        pages.push(rows);
        if !more {
            break;
        }
        connection.requests().execute("p", 1000).unwrap();
        connection.requests().flush();
    }
    assert_eq!(pages, [1000, 1000, 500]);
    connection.requests().sync();
    assert!(matches!(connection.next(soon()).unwrap(), Event::Ready(TransactionStatus::Idle)));

    // Left after its first page: what it would still have had is never made.
    let endless = "select generate_series(1, 1000000000), repeat('x', 1000)";
    let endless = connection.prepare(endless, &[], soon()).unwrap();
    let requests = connection.requests();
    requests.bind("p", &endless.name, &[], ResultFormat::Text).unwrap();
    requests.execute("p", 10).unwrap();
    requests.flush();
    assert_eq!(page(&mut connection), (10, true));
    assert_eq!(connection.abandon_portal("p", soon(), 1000).unwrap(), TransactionStatus::Idle);
    assert_eq!(value(&mut connection, "select count(*) from pg_cursors"), "0");

    // Left in the middle of a page that was asked for: what is under way is more than is worth reading.
    let requests = connection.requests();
    requests.bind("p", &endless.name, &[], ResultFormat::Text).unwrap();
    requests.execute("p", 0).unwrap();
    requests.sync();
    connection.send().unwrap();
    while !matches!(connection.next(soon()).unwrap(), Event::Row(_)) {}
    let error = connection.drain(soon(), 5_000_000).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }) && !error.ends_connection(), "{error}");
    connection.cancel_handle().cancel(soon()).unwrap();
    assert_eq!(connection.drain(soon(), usize::MAX).unwrap(), TransactionStatus::Idle);
    assert_eq!(value(&mut connection, "select 'fine'"), "fine");
}

#[test]
fn rows_above_the_bound_end_a_call_and_no_session() {
    let certificates = Arc::new(Certificates::new());
    certificates.signed("good", "ca", "IP:127.0.0.1", 30);
    let server = Setup::default().certificate(&certificates, "good").start();
    for mode in ["disable", "require"] {
        let text = format!("{}?sslmode={mode}&message_bytes_max=1000000", server.url("postgres"));
        let mut connection = try_connect(&text).unwrap();
        let repeat = connection.prepare("select repeat('x', $1)", &[], soon()).unwrap();
        for bytes in [999_000, 1_100_000, 100, 30_000_000, 999_900] {
            let requests = connection.requests();
            requests
                .bind("", &repeat.name, &[bytes.to_string().as_str().into()], ResultFormat::Text)
                .unwrap();
            requests.execute("", 0).unwrap();
            requests.sync();
        }
        connection.send().unwrap();
        let mut found = Vec::new();
        while connection.is_waiting() {
            match connection.next(soon()).unwrap() {
                Event::Row(row) => found.push(row.value(0).unwrap().len()),
                Event::RowTooLarge { .. } => found.push(0),
                Event::Error(error) => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!(found, [999_000, 0, 100, 0, 999_900]);
        let error = connection.execute(&repeat, &["2000000".into()], soon(), |_| {}).unwrap_err();
        let what = "a row has 2000006 bytes, more than message_bytes_max=1000000";
        assert!(error.to_string().starts_with(what) && !error.ends_connection(), "{error}");
        let large = "x".repeat(1_000_001);
        let error = connection.execute(&repeat, &[large.as_str().into()], soon(), |_| {}).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert_eq!(value(&mut connection, "select 'fine'"), "fine");
    }
}

#[test]
fn large_messages_come_whole() {
    let server = Server::start();
    let mut connection = connect(&server);
    let echo = connection.prepare("select md5($1), $1", &[25], soon()).unwrap();
    let large: String = (0..20_000_000u32).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let mut same = false;
    connection
        .execute(&echo, &[large.as_str().into()], soon(), |row| same = row.text(1) == Some(&large))
        .unwrap();
    assert!(same);
}

#[test]
fn notices_and_notifications_come_at_any_moment() {
    let server = Server::start();
    let mut connection = connect(&server);
    let mut other = connect(&server);
    connection.simple_query("listen wamp", soon(), |_| {}).unwrap();
    assert_eq!(connection.wait_notification(Deadline::after(Duration::ZERO)).unwrap(), None);
    assert_eq!(connection.wait_notification(Deadline::after(Duration::from_millis(50))).unwrap(), None);
    other
        .simple_query("select pg_notify('wamp', 'eins'), pg_notify('wamp', 'zwei')", soon(), |_| {})
        .unwrap();
    for payload in ["eins", "zwei"] {
        let notification = connection.wait_notification(soon()).unwrap().unwrap();
        assert_eq!((notification.channel.as_str(), notification.payload.as_str()), ("wamp", payload));
        assert_eq!(notification.process_id, other.process_id());
    }
    // From a thread that notifies while this one waits.
    let waiting =
        std::thread::spawn(move || (connection.wait_notification(soon()).unwrap().unwrap(), connection));
    other.simple_query("notify wamp, 'drei'", soon(), |_| {}).unwrap();
    let (notification, mut connection) = waiting.join().unwrap();
    assert_eq!(notification.payload, "drei");
    // Together with answers: they wait.
    for _ in 0..20 {
        other.simple_query("notify wamp, 'vier'", soon(), |_| {}).unwrap();
        assert_eq!(value(&mut connection, "select 1"), "1");
    }
    let mut count = 0;
    while let Some(notification) =
        connection.wait_notification(Deadline::after(Duration::from_secs(1))).unwrap()
    {
        assert_eq!(notification.payload, "vier");
        count += 1;
    }
    assert_eq!((count, connection.notifications_lost()), (20, 0));
    // More than anybody takes: counted, not kept.
    let many = "select pg_notify('wamp', n::text) from generate_series(1, 3000) n";
    connection.simple_query(many, soon(), |_| {}).unwrap();
    connection.ping(soon()).unwrap();
    let mut kept = 0;
    while connection.take_notification().is_some() {
        kept += 1;
    }
    assert_eq!((kept, connection.notifications_lost()), (1024, 3000 - 1024));

    let raise =
        "do $$ begin for n in 1..70 loop raise notice 'number %', n using hint = 'h'; end loop; end $$";
    connection.simple_query(raise, soon(), |_| {}).unwrap();
    let notice = connection.take_notice().unwrap();
    assert_eq!((notice.severity.as_str(), notice.message.as_str()), ("NOTICE", "number 1"));
    assert_eq!(notice.hint.as_deref(), Some("h"));
    assert_eq!(connection.notices_lost(), 6);
}

#[test]
fn a_deadline_leaves_the_answer_to_be_waited_for() {
    let server = Server::start();
    let mut connection = connect(&server);
    let sleep = connection.prepare("select pg_sleep(1), 'slept'", &[], soon()).unwrap();
    let short = || Deadline::after(Duration::from_millis(50));
    let error = connection.execute(&sleep, &[], short(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && !error.ends_connection(), "{error}");
    assert!(connection.is_waiting());
    let mut slept = None;
    loop {
        match connection.next(short()) {
            Err(Error::TimedOut { .. }) => {}
            Ok(Event::Row(row)) => slept = row.text(1).map(str::to_owned),
            Ok(Event::Ready(_)) => break,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(slept.as_deref(), Some("slept"));
    let settings = settings(&server.url("postgres"));
    assert!(Connection::connect(&settings, Deadline::after(Duration::ZERO)).is_err());
}

#[test]
fn reading_rows_allocates_nothing() {
    let server = Server::start();
    let mut connection = connect(&server);
    let series =
        connection.prepare("select generate_series(1, $1::int4), 'text', null", &[], soon()).unwrap();
    let mut call = |rows: &str| {
        let requests = connection.requests();
        requests.bind("", &series.name, &[rows.into()], ResultFormat::Text).unwrap();
        requests.describe_portal("").unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
        connection.send().unwrap();
        let mut bytes = 0;
        while connection.is_waiting() {
            if let Event::Row(row) = connection.next(soon()).unwrap() {
                bytes += row.values().flatten().map(<[u8]>::len).sum::<usize>();
            }
        }
        bytes
    };
    // The buffers take their size.
    call("5000");
    let measured = allocation_counter::measure(|| assert!(call("5000") > 5000 * 4));
    assert_eq!(measured.count_total, 0, "{measured:?}");
}
