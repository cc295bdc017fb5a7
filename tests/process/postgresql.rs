//! A router and a PostgreSQL server, as clients see them.

use std::process::Command;

use crate::harness::{Client, Start, wait_until};
use crate::server::{Server, Setup};

pub(super) const SHOP: &str = r#"
[[realm]]
name = "realm1"
[[realm.role]]
name = "anonymous"
[[realm.role.permission]]
uri = ""
match = "prefix"
allow = "all"
[[database]]
name = "shop"
type = "postgresql"
realm = "realm1"
url_env = "SHOP_URL"
refresh_ms = 100
[[database.expose]]
schema = "api"
prefix = "com.shop."
deny = ["secret_*"]
[[database.role]]
role = "anonymous"
runs_as = "web"
[[database.procedure]]
uri = "com.shop.version"
sql = "select current_setting('server_version_num')::int / 10000"
result = "value"
"#;

const API: &str = "
create role web nologin; create schema api; grant usage on schema api to web;
create table api.item (id int generated always as identity primary key, name text not null, price numeric(10, 2));
grant select, insert on api.item to web;
create function api.add(name text, price numeric default 9.90) returns int language sql as
    'insert into api.item (name, price) values ($1, $2) returning id';
create function api.list() returns setof api.item language sql stable as 'select * from api.item order by id';
create function api.secret_one() returns int language sql as 'select 1';
create function api.hang() returns void language sql as 'select pg_sleep(1000)';";

#[test]
fn functions_are_called_like_any_callee() {
    let mut server = Server::start();
    server.psql(API);
    // A password that must not be seen anywhere.
    let url = server.url("postgres").replace("postgres@", "postgres:verysecret@");
    let router = Start::new(SHOP).variable("SHOP_URL", &url).router();
    router.wait_for_log("the database is there");
    let mut client = Client::join(router.address(), "realm1");
    let mut number = 0;
    let mut ask = |call: &str| {
        number += 1;
        (number, client.ask(&format!("[48,{number},{{}},{call}]")))
    };
    wait_until("the procedure", || !ask("\"com.shop.list\"").1.contains("no_such_procedure"));
    let (number, answer) = ask(r#""com.shop.add",["tea"],{"price":1.50}"#);
    assert_eq!(answer, format!("[50,{number},{{}},[1]]"));
    let (number, answer) = ask(r#""com.shop.add",[],{"name":"cup"}"#);
    assert_eq!(answer, format!("[50,{number},{{}},[2]]"));
    let (number, answer) = ask("\"com.shop.list\"");
    let rows = r#"[[{"id":1,"name":"tea","price":"1.50"},{"id":2,"name":"cup","price":"9.90"}]]"#;
    assert_eq!(answer, format!("[50,{number},{{}},{rows}]"));
    let (number, answer) = ask("\"com.shop.version\"");
    assert!(answer.starts_with(&format!("[50,{number},{{}},[1")), "{answer}");
    assert!(ask("\"com.shop.secret_one\"").1.contains("no_such_procedure"));
    assert!(ask(r#""com.shop.add",[null]"#).1.contains("wamp.error.invalid_argument"));

    // Who leaves takes what it called along.
    let mut leaver = Client::join(router.address(), "realm1");
    leaver.send(r#"[48,1,{},"com.shop.hang"]"#);
    let hanging = "select count(*) from pg_stat_activity where state = 'active' and query like '%hang%' and pid <> pg_backend_pid()";
    wait_until("the call", || server.psql(hanging).trim() == "1");
    drop(leaver);
    wait_until("its end", || server.psql(hanging).trim() == "0");

    // Made while the router runs.
    server.psql("create function api.later() returns text language sql as $$ select 'now' $$");
    wait_until("the function", || ask("\"com.shop.later\"").1.ends_with("[\"now\"]]"));

    // The server goes, and comes back.
    server.kill();
    wait_until("that it is missed", || ask("\"com.shop.list\"").1.contains("wamp.error.unavailable"));
    router.wait_for_log("the database is away");
    server.run();
    wait_until("that it is back", || ask("\"com.shop.list\"").1.contains("\"tea\""));
    let log = router.stop();
    assert!(!log.contains("verysecret"), "{log}");
}

/// `crosspoint db` with these words; whether it went well, and all that it said.
pub(super) fn db(url: &str, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosspoint"));
    let output = command.arg("db").args(words).args(["--url", url]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_schema_is_installed_and_triggers_publish_to_browsers() {
    let server = Server::start();
    server.psql(API);
    let url = server.url("postgres");
    let (ok, said) = db(&url, &["status"]);
    assert!(ok && said.contains("is not installed"), "{said}");
    let (ok, script) = db(&url, &["install", "--dry-run"]);
    assert!(ok && script.contains("CREATE") && script.ends_with("COMMIT;\n"), "{script}");
    let (_, said) = db(&url, &["upgrade"]);
    assert!(said.contains("crosspoint db install"), "{said}");
    let (ok, said) = db(&url, &["install", "--router", "postgres", "--everybody-publishes", "yes"]);
    assert!(ok && said.contains("version 1 now"), "{said}");
    let (ok, said) = db(&url, &["install"]);
    assert!(ok && said.contains("already"), "{said}");

    let config = SHOP.replace("refresh_ms = 100", "refresh_ms = 100\npublish = true");
    let router = Start::new(&config).variable("SHOP_URL", &url).router();
    router.wait_for_log("the database is there");
    let mut subscribers: Vec<_> = (0..4).map(|_| Client::join(router.address(), "realm1")).collect();
    for subscriber in &mut subscribers {
        assert!(subscriber.ask(r#"[32,1,{"match":"prefix"},"com.shop.item."]"#).starts_with("[33,1,"));
    }
    server.psql("select wamp.watch('api.item', 'com.shop.item')");
    let mut client = Client::join(router.address(), "realm1");
    let mut number = 0;
    wait_until("the procedure", || {
        number += 1;
        let call = format!(r#"[48,{number},{{}},"com.shop.add",["tea"]]"#);
        !client.ask(&call).contains("no_such_procedure")
    });
    for subscriber in &mut subscribers {
        let event = subscriber.receive().message();
        assert!(event.contains(r#"{"topic":"com.shop.item.on_insert","_event_id":1}"#), "{event}");
        assert!(event.contains("\"name\"") && event.contains("\"tea\""), "{event}");
    }
    let (ok, said) = db(&url, &["status"]);
    assert!(ok && said.contains("version 1") && said.contains("events sent   1 of 1"), "{said}");
    router.stop();
    let (ok, said) = db(&url, &["uninstall"]);
    assert!(ok && said.contains("removed"), "{said}");
    let (ok, said) = db(&url, &["nonsense"]);
    assert!(!ok && said.contains("there is no command `db nonsense`"), "{said}");
}

#[test]
fn events_go_through_the_log_of_the_server() {
    let server = Setup::default().setting("wal_level", "logical").start();
    server.psql(API);
    server.psql("create role ann login");
    let url = server.url("postgres");
    let config = SHOP.replace("refresh_ms = 100", "refresh_ms = 100\npublish = true");
    let start = || Start::new(&config).variable("SHOP_URL", &url).router();
    let mut router = start();
    router.wait_for_log("run `crosspoint db install`");
    let (ok, said) =
        db(&url, &["install", "--router", "postgres", "--everybody-publishes", "yes", "--log", "yes"]);
    assert!(ok, "{said}");
    router.wait_for_log("what the database publishes is read");
    let mut subscriber = Client::join(router.address(), "realm1");
    assert!(subscriber.ask(r#"[32,1,{"match":"prefix"},"com.shop."]"#).starts_with("[33,1,"));
    let expect = |subscriber: &mut Client, position: u64, args: &str| {
        let event = subscriber.receive().message();
        let place = format!(r#""_event_id":{position}}},{args}"#);
        assert!(event.contains(&place), "{event} instead of {place}");
    };
    let rows = "select count(*) from wamp.outbox where position is null";

    // With the transaction, without what was rolled back, exactly as it was written, and without a row of the publisher's.
    server.psql(
        "begin; select wamp.publish('com.shop.a', '[1.50]'); savepoint s; select wamp.publish('com.shop.b');
         rollback to s; select wamp.publish('com.shop.c', '[\"grün \\u0041\"]', '{\"n\": 12345678901234567890}'); commit;
         begin; select wamp.publish('com.shop.d'); rollback;",
    );
    expect(&mut subscriber, 1, "[1.50]]");
    expect(&mut subscriber, 2, r#"["grün A"],{"n": 12345678901234567890}]"#);
    // Who may not publish cannot do it by the log either, and what was refused is refused as ever.
    server.psql(
        "do $$ begin perform wamp.publish('com.shop.a', '{}'); raise 'it was taken';
         exception when invalid_parameter_value then null; end $$",
    );
    server.psql("set role ann; select pg_logical_emit_message(true, 'wamp', '{\"kind\":\"event\",\"uri\":\"com.shop.forged\"}')");
    server.psql("select wamp.publish('com.shop.a', '[3]')");
    expect(&mut subscriber, 3, "[3]]");
    assert_eq!(server.psql(rows).trim(), "0");

    // The router dies, and what is in the log waits for the next one: each once.
    router.kill();
    server.psql("select count(wamp.publish('com.shop.many', jsonb_build_array(n))) from generate_series(4, 3000) as n");
    assert_eq!(server.psql("select count(*) from wamp.outbox where position > 3").trim(), "0");
    let mut router = start();
    let mut subscriber = Client::join(router.address(), "realm1");
    let mut request = 0;
    wait_until("the database", || {
        request += 1;
        let answer =
            subscriber.ask(&format!(r#"[32,{request},{{"match":"prefix","_after":3}},"com.shop."]"#));
        answer.starts_with("[33")
    });
    for number in 4..=3000 {
        expect(&mut subscriber, number, &format!("[{number}]]"));
    }
    // The server dies as well.
    router.kill();
    server.psql("select count(wamp.publish('com.shop.many', jsonb_build_array(n))) from generate_series(3001, 3500) as n");
    let router = start();
    router.wait_for_log("what the database publishes is read");
    let mut server = server;
    server.kill();
    server.run();
    let mut subscriber = Client::join(router.address(), "realm1");
    let mut request = 0;
    wait_until("the database", || {
        request += 1;
        let answer =
            subscriber.ask(&format!(r#"[32,{request},{{"match":"prefix","_after":3000}},"com.shop."]"#));
        answer.starts_with("[33")
    });
    let mut last = 3000;
    while last < 3500 {
        let event = subscriber.receive().message();
        let next = format!(r#""_event_id":{},"#, last + 1).replace(',', "},");
        assert!(event.contains(&next) && event.contains(&format!("[{}]]", last + 1)), "{event} after {last}");
        last += 1;
    }

    // Rows again: what is in the log comes first, and nothing of it is lost.
    let (ok, said) = db(&url, &["uninstall"]);
    assert!(!ok && said.contains("--log no"), "{said}");
    server.psql("select count(wamp.publish('com.shop.many', jsonb_build_array(n))) from generate_series(3501, 3600) as n");
    let (ok, said) = db(&url, &["install", "--log", "no"]);
    assert!(ok, "{said}");
    server.psql("select wamp.publish('com.shop.row', '[3601]')");
    for number in 3501..=3601 {
        let event = subscriber.receive().message();
        assert!(event.contains(&format!("[{number}]]")), "{event} instead of {number}");
    }
    wait_until("the end of the slot", || {
        server.psql("select count(*) from pg_replication_slots").trim() == "0"
    });
    wait_until("all to be sent", || db(&url, &["uninstall"]).0);
}
