//! What is asked: many groups in one write, their errors, transactions, procedures, COPY, and wrong use.

use super::{connect, soon, value};
use crate::database::server::Server;
use crosspoint::database::postgres::wire::{
    Connection, Error, Event, Parameter, ResultFormat, TransactionStatus,
};

/// Everything that one group is answered with, in words.
fn group(connection: &mut Connection) -> Vec<String> {
    let mut words = Vec::new();
    loop {
        let word = match connection.next(soon()).unwrap() {
            Event::Row(row) => format!("row {}", row.text(0).unwrap_or("null")),
            Event::Complete(tag) => tag.to_owned(),
            Event::Error(error) => format!("error {}", error.sqlstate),
            Event::Ready(status) => {
                words.push(format!("{status:?}"));
                return words;
            }
            Event::Columns(columns) => format!("columns {}", columns.len()),
            Event::ParameterTypes(types) => format!("types {:?}", types.iter().collect::<Vec<_>>()),
            other => format!("{other:?}"),
        };
        words.push(word);
    }
}

#[test]
fn groups_in_one_write_fail_each_for_itself() {
    let server = Server::start();
    let mut connection = connect(&server);
    // Random, so that it is not calculated before it is run.
    let divide = "select 10 / ($1::int4 + (random() * 0)::int4), pg_backend_pid()";
    let divide = connection.prepare(divide, &[], soon()).unwrap();
    assert_eq!(divide.parameters, [23]);
    assert_eq!(divide.columns.iter().map(|column| column.type_oid).collect::<Vec<_>>(), [23, 23]);
    for by in ["1", "0", "5", "x", "10"] {
        let requests = connection.requests();
        requests.bind("", &divide.name, &[by.into()], ResultFormat::Text).unwrap();
        requests.describe_portal("").unwrap();
        requests.execute("", 0).unwrap();
        requests.close_portal("").unwrap();
        requests.sync();
    }
    connection.send().unwrap();
    let good = |row: &str| {
        let words = ["BindComplete", "columns 2", row, "SELECT 1", "CloseComplete", "Idle"];
        words.map(str::to_owned).to_vec()
    };
    assert_eq!(group(&mut connection), good("row 10"));
    assert_eq!(group(&mut connection), ["BindComplete", "columns 2", "error 22012", "Idle"]);
    assert_eq!(group(&mut connection), good("row 2"));
    assert_eq!(group(&mut connection), ["error 22P02", "Idle"]);
    assert_eq!(group(&mut connection), good("row 1"));
    assert!(!connection.is_waiting());
    assert!(matches!(connection.next(soon()), Err(Error::Misuse(_))));
    assert_eq!(value(&mut connection, "select 'fine'"), "fine");
}

#[test]
fn a_group_is_one_transaction_and_leaves_no_identity() {
    let server = Server::start();
    server
        .psql("create role web; create table item (id int primary key); grant insert, select on item to web");
    let mut connection = connect(&server);
    let identity = connection
        .prepare(
            "select set_config('role', $1, true), set_config('wamp.authid', $2, true)",
            &[25, 25],
            soon(),
        )
        .unwrap();
    let insert = connection
        .prepare(
            "insert into item values ($1) returning current_user || current_setting('wamp.authid')",
            &[],
            soon(),
        )
        .unwrap();
    for (authid, id) in [("anna", "1"), ("bert", "1"), ("carl", "2")] {
        let requests = connection.requests();
        requests.bind("", &identity.name, &["web".into(), authid.into()], ResultFormat::Text).unwrap();
        requests.execute("", 0).unwrap();
        requests.bind("", &insert.name, &[id.into()], ResultFormat::Text).unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
    }
    connection.send().unwrap();
    assert_eq!(group(&mut connection)[4], "row webanna");
    assert_eq!(group(&mut connection)[4..], ["error 23505", "Idle"]);
    assert_eq!(group(&mut connection)[4], "row webcarl");
    assert_eq!(value(&mut connection, "select current_user || count(*) from item"), "postgres2");
    assert_eq!(
        value(&mut connection, "select coalesce(nullif(current_setting('wamp.authid', true), ''), 'none')"),
        "none"
    );
}

#[test]
fn settings_of_a_group_hold_for_its_call_alone() {
    let server = Server::start();
    server.psql("create table item (id int)");
    let mut connection = connect(&server);
    let mut prepare = |sql: &str| connection.prepare(sql, &[], soon()).unwrap().name;
    let timeout = prepare("select set_config('statement_timeout', '100', true)");
    let read_only = prepare("select set_config('transaction_read_only', 'on', true)");
    let sleep = prepare("select pg_sleep(600)");
    let insert = prepare("insert into item values (1)");
    for (first, second) in [(&timeout, &sleep), (&read_only, &insert), (&timeout, &insert)] {
        let requests = connection.requests();
        for name in [first, second] {
            requests.bind("", name, &[], ResultFormat::Text).unwrap();
            requests.execute("", 0).unwrap();
        }
        requests.sync();
    }
    connection.send().unwrap();
    let ends = |words: Vec<String>| words[words.len() - 2..].join(", ");
    assert_eq!(ends(group(&mut connection)), "error 57014, Idle", "it took longer than it may");
    assert_eq!(ends(group(&mut connection)), "error 25006, Idle", "it wrote where it may only read");
    assert_eq!(group(&mut connection)[4..], ["INSERT 0 1", "Idle"]);
    assert_eq!(value(&mut connection, "show statement_timeout"), "0");
    assert_eq!(value(&mut connection, "show transaction_read_only"), "off");
}

#[test]
fn errors_have_all_their_fields() {
    let server = Server::start();
    server.psql("create schema api; create table api.item (id int, constraint positive check (id > 0))");
    let mut connection = connect(&server);
    let error = connection.simple_query("insert into api.item values (-1)", soon(), |_| {}).unwrap_err();
    let server_error = error.server().unwrap();
    assert_eq!(server_error.severity, "ERROR");
    assert_eq!(error.sqlstate(), Some("23514"));
    assert_eq!(server_error.schema.as_deref(), Some("api"));
    assert_eq!(server_error.table.as_deref(), Some("item"));
    assert_eq!(server_error.constraint.as_deref(), Some("positive"));
    assert!(server_error.detail.as_ref().unwrap().contains("-1"));
    let raise = "do $$ begin raise exception 'no' using errcode = 'WA000', hint = 'com.shop.no', detail = '[1]'; end $$";
    let error = connection.simple_query(raise, soon(), |_| {}).unwrap_err();
    let server_error = error.server().unwrap();
    assert_eq!((server_error.sqlstate.as_str(), server_error.message.as_str()), ("WA000", "no"));
    assert_eq!(
        (server_error.hint.as_deref(), server_error.detail.as_deref()),
        (Some("com.shop.no"), Some("[1]"))
    );
    assert!(server_error.context.as_ref().unwrap().contains("PL/pgSQL"));
    let error = connection.prepare("select nothing", &[], soon()).unwrap_err();
    assert_eq!(error.server().unwrap().position.as_deref(), Some("8"));
    assert!(!error.ends_connection());
    // What is found at the end of a transaction is an error of its group all the same.
    let deferred =
        "create table pair (id int unique deferrable initially deferred); insert into pair values (1)";
    connection.simple_query(deferred, soon(), |_| {}).unwrap();
    let insert = connection.prepare("insert into pair values (1)", &[], soon()).unwrap();
    let error = connection.execute(&insert, &[], soon(), |_| {}).unwrap_err();
    assert_eq!(error.sqlstate(), Some("23505"));
    connection.ping(soon()).unwrap();
}

#[test]
fn parameters_of_every_form() {
    let server = Server::start();
    let mut connection = connect(&server);
    let statement =
        connection.prepare("select $1::int8 + $2::int4, $3::text is null, $4::bytea", &[], soon()).unwrap();
    let (large, bytes) = (5_000_000_000i64.to_be_bytes(), [0, 1, 255]);
    let parameters = [Parameter::Binary(&large), "7".into(), Parameter::Null, Parameter::Binary(&bytes)];
    let requests = connection.requests();
    requests.bind("", &statement.name, &parameters, ResultFormat::Each(&[true, false, true])).unwrap();
    requests.describe_portal("").unwrap();
    requests.execute("", 0).unwrap();
    requests.sync();
    connection.send().unwrap();
    let mut seen = false;
    while connection.is_waiting() {
        match connection.next(soon()).unwrap() {
            Event::Columns(columns) => {
                assert_eq!(
                    columns.iter().map(|column| column.binary).collect::<Vec<_>>(),
                    [true, false, true]
                );
            }
            Event::Row(row) => {
                seen = true;
                let all: Vec<_> = row.values().collect();
                assert_eq!(all, [Some(&5_000_000_007i64.to_be_bytes()[..]), Some(b"t"), Some(&bytes[..])]);
            }
            Event::Error(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert!(seen);
    let nothing = connection.prepare("set application_name = 'x'", &[], soon()).unwrap();
    assert!(nothing.columns.is_empty() && nothing.parameters.is_empty());
    assert_eq!(connection.execute(&nothing, &[], soon(), |_| {}).unwrap(), "SET");
    connection.close_statement(nothing.clone(), soon()).unwrap();
    let error = connection.execute(&nothing, &[], soon(), |_| {}).unwrap_err();
    assert_eq!(error.sqlstate(), Some("26000"), "it is forgotten");
    let wrong = connection.prepare("select $1::int4", &[], soon()).unwrap();
    let error = connection.execute(&wrong, &[], soon(), |_| {}).unwrap_err();
    assert_eq!(error.sqlstate(), Some("08P01"), "{error}");
    assert_eq!(connection.simple_query("", soon(), |_| {}).unwrap(), "");
    assert_eq!(Event::rows("INSERT 0 5"), Some(5));
    assert_eq!(Event::rows("BEGIN"), None);
}

#[test]
fn procedures_may_commit() {
    let server = Server::start();
    server.psql(
        "create table step (n int);
         create procedure walk(n int, inout done text) language plpgsql as $$ begin
             insert into step values (n); commit; insert into step values (n + 1); rollback; done := 'done';
         end $$",
    );
    let mut connection = connect(&server);
    let call = connection.prepare("call walk($1, null)", &[], soon()).unwrap();
    let mut answer = String::new();
    connection.execute(&call, &["1".into()], soon(), |row| answer = row.text(0).unwrap().to_owned()).unwrap();
    assert_eq!(answer, "done");
    assert_eq!(value(&mut connection, "select string_agg(n::text, ',') from step"), "1");
    connection.simple_query("begin", soon(), |_| {}).unwrap();
    assert_eq!(connection.transaction_status(), TransactionStatus::Open);
    let error = connection.execute(&call, &["5".into()], soon(), |_| {}).unwrap_err();
    assert_eq!(error.sqlstate(), Some("2D000"), "not inside a transaction block: {error}");
    assert_eq!(connection.transaction_status(), TransactionStatus::Failed);
    connection.simple_query("rollback", soon(), |_| {}).unwrap();
    assert_eq!(connection.transaction_status(), TransactionStatus::Idle);
}

#[test]
fn copy_confuses_nothing() {
    let server = Server::start();
    server.psql("create table item (id int)");
    let mut connection = connect(&server);
    // By the simple protocol.
    let error = connection.simple_query("copy item from stdin", soon(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot be used here"), "{error}");
    assert_eq!(connection.simple_query("copy (select 1) to stdout", soon(), |_| {}).unwrap(), "COPY 1");
    // As a group: its Sync is lost, and made good.
    let into = connection.prepare("copy item from stdin", &[], soon()).unwrap();
    let error = connection.execute(&into, &[], soon(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot be used here"), "{error}");
    assert_eq!(value(&mut connection, "select 'still in step'"), "still in step");
    let out = connection.prepare("copy (select generate_series(1, 3)) to stdout", &[], soon()).unwrap();
    for _ in 0..2 {
        let requests = connection.requests();
        requests.bind("", &out.name, &[], ResultFormat::Text).unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
    }
    connection.send().unwrap();
    for _ in 0..2 {
        assert_eq!(group(&mut connection), ["BindComplete", "CopyOut", "COPY 3", "Idle"]);
    }
    // With more behind it nobody knows whose answers come: the connection ends, and says why.
    for statement in [&into, &out] {
        let requests = connection.requests();
        requests.bind("", &statement.name, &[], ResultFormat::Text).unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
    }
    connection.send().unwrap();
    let error = loop {
        match connection.next(soon()) {
            Ok(Event::BindComplete) => {}
            Ok(event) => panic!("{event:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Protocol(problem) if problem.contains("COPY FROM STDIN")), "{error}");
    assert!(connection.is_over());
    assert!(
        matches!(connection.ping(soon()), Err(Error::Closed { problem, .. }) if problem.contains("COPY"))
    );
}

#[test]
fn wrong_use_changes_nothing() {
    let server = Server::start();
    let mut connection = connect(&server);
    connection.requests().query("select 1").unwrap();
    connection.send().unwrap();
    assert!(matches!(connection.prepare("select 1", &[], soon()), Err(Error::Misuse(_))));
    assert!(matches!(connection.simple_query("select 1", soon(), |_| {}), Err(Error::Misuse(_))));
    assert!(matches!(connection.wait_notification(soon()), Err(Error::Misuse(_))));
    assert!(matches!(connection.ping(soon()), Err(Error::Misuse(_))));
    assert!(matches!(connection.requests().query("select '\0'"), Err(Error::Misuse(_))));
    assert_eq!(group(&mut connection), ["columns 1", "row 1", "SELECT 1", "Idle"]);
    connection.ping(soon()).unwrap();
    // A group that was given up in the middle gets its end.
    let requests = connection.requests();
    requests.parse("", "select 1/0", &[]).unwrap();
    requests.bind("", "", &[], ResultFormat::Text).unwrap();
    requests.flush();
    connection.drain(soon(), 1000).unwrap();
    assert_eq!(value(&mut connection, "select 2"), "2");
}

#[test]
fn more_than_sockets_hold_goes_both_ways_at_once() {
    let server = Server::start();
    let mut connection = connect(&server);
    let echo = connection.prepare("select $1::text || $1::text", &[25], soon()).unwrap();
    let large = "x".repeat(300_000);
    // 40 times 300 kB to it and 600 kB back: whoever only writes, or only reads, waits for ever.
    for _ in 0..40 {
        let requests = connection.requests();
        requests.bind("", &echo.name, &[large.as_str().into()], ResultFormat::Text).unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
    }
    connection.send().unwrap();
    let mut bytes = 0;
    while connection.is_waiting() {
        match connection.next(soon()).unwrap() {
            Event::Row(row) => bytes += row.value(0).unwrap().len(),
            Event::Error(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(bytes, 40 * 600_000);
}
