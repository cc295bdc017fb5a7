//! Events of PostgreSQL that go through the log of the server, where that log, its slot or its readers are not as usual.

use std::collections::BTreeMap;
use std::time::Duration;

use crosspoint::database::postgres::wire::{Connection, Deadline, Settings};

use super::postgresql::{SHOP, db};
use crate::harness::{Client, Router, Start, wait_until};
use crate::server::{Server, Setup};

const INSTALL: [&str; 5] = ["install", "--router", "postgres", "--everybody-publishes", "yes"];

fn server() -> Server {
    let server = Setup::default().setting("wal_level", "logical").start();
    server.psql("create schema api; create role web");
    installed(&server, "postgres", &[&INSTALL[..], &["--log", "yes"]].concat());
    server
}

fn installed(server: &Server, database: &str, words: &[&str]) {
    let url = server.url("postgres");
    let url = url.strip_suffix("/postgres").unwrap();
    let (ok, said) = db(&format!("{url}/{database}"), words);
    assert!(ok, "{said}");
}

fn start(server: &Server) -> Router {
    let config = SHOP.replace("refresh_ms = 100", "refresh_ms = 100\npublish = true");
    Start::new(&config).variable("SHOP_URL", &server.url("postgres")).router()
}

/// A subscriber, once the router reads what is published.
fn subscriber(router: &Router) -> Client {
    router.wait_for_log("what the database publishes is read");
    let mut subscriber = Client::join(router.address(), "realm1");
    assert!(subscriber.ask(r#"[32,1,{"match":"prefix"},"com.shop."]"#).starts_with("[33,1,"));
    subscriber
}

fn expect(subscriber: &mut Client, args: &str) {
    let event = subscriber.receive().message();
    assert!(event.ends_with(args), "{event} instead of {args}");
}

/// The slot is gone, as after the restore of a backup or the change to a standby.
fn drop_slot(server: &Server) {
    wait_until("nobody to read the slot", || {
        server.psql("select count(*) from pg_replication_slots where active") == "0"
    });
    server.psql("select pg_drop_replication_slot(slot_name) from pg_replication_slots");
}

#[test]
fn a_slot_that_is_made_anew_is_read_from_its_beginning() {
    let server = server();
    // The log of another server was longer.
    server.psql("update wamp.drain set log_commit = 'FFFF/0'");
    drop_slot(&server);
    let router = start(&server);
    router.wait_for_log("run `crosspoint db install --log yes` again");
    installed(&server, "postgres", &["install", "--log", "yes"]);
    let mut subscriber = subscriber(&router);
    server.psql("select wamp.publish('com.shop.a', '[1]')");
    expect(&mut subscriber, "[1]]");
}

#[test]
fn events_are_rows_again_where_the_slot_is_gone() {
    let server = server();
    drop_slot(&server);
    installed(&server, "postgres", &["install", "--log", "no"]);
    let router = start(&server);
    let mut subscriber = subscriber(&router);
    server.psql("select wamp.publish('com.shop.a', '[1]')");
    expect(&mut subscriber, "[1]]");
}

#[test]
fn a_slot_that_the_server_gave_up_is_made_anew() {
    let server = Setup::default().setting("wal_level", "logical").setting("max_slot_wal_keep_size", "2MB");
    let server = server.setting("max_wal_size", "2MB").start();
    server.psql("create schema api; create role web");
    installed(&server, "postgres", &[&INSTALL[..], &["--log", "yes"]].concat());
    wait_until("the server to give it up", || {
        server.psql("select pg_switch_wal(); create table t (); drop table t; checkpoint");
        server.psql("select wal_status from pg_replication_slots") == "lost"
    });
    let router = start(&server);
    router.wait_for_log("run `crosspoint db install --log yes` again");
    installed(&server, "postgres", &["install", "--log", "yes"]);
    let mut subscriber = subscriber(&router);
    server.psql("select wamp.publish('com.shop.a', '[1]')");
    expect(&mut subscriber, "[1]]");
}

#[test]
fn what_is_refused_is_refused_whatever_its_publisher_has_set() {
    let server = server();
    server.psql(
        "set wamp.logged = '5';
         do $$ begin perform wamp.publish('com.shop.a', '{}'); raise 'it was taken';
         exception when invalid_parameter_value then null; end $$;
         select wamp.disallow('public', 'publish', '', 'prefix'); create role ann login;
         set session authorization ann;
         do $$ begin perform wamp.publish('com.shop.a'); raise 'it was taken';
         exception when insufficient_privilege then null; end $$",
    );
}

#[test]
fn events_of_databases_that_are_not_in_utf8_are_written_as_they_are_read() {
    let server = server();
    server.psql("create database old encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0");
    installed(&server, "old", &[&INSTALL[..], &["--log", "yes"]].concat());
    let read = "\\connect old
        set client_encoding = 'UTF8';
        select wamp.publish('com.shop.a', '[\"grün\"]') > 0;
        select count(*) from pg_logical_slot_peek_binary_changes(
            (select slot_name from pg_replication_slots where database = 'old'), null, null,
            'proto_version', '1', 'publication_names', 'wamp', 'messages', 'true')
         where position('\\x6772c3bc6e'::bytea in data) > 0";
    assert_eq!(server.psql(read), "t\n1");
}

#[test]
fn a_publication_that_somebody_else_has_made_is_left() {
    let server = Server::start();
    server.psql("create table item (); create publication wamp for table item");
    installed(&server, "postgres", &INSTALL);
    installed(&server, "postgres", &["uninstall"]);
    assert_eq!(server.psql("select count(*) from pg_publication"), "1");
}

/// A session that goes on.
struct Session(Connection);

impl Session {
    fn new(server: &Server) -> Self {
        let settings = Settings::parse(&server.url("postgres"), &BTreeMap::new()).unwrap();
        Self(Connection::connect(&settings, Self::deadline()).unwrap())
    }

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    fn run(&mut self, sql: &str) {
        self.0.simple_query(sql, Self::deadline(), |_| {}).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// What has a position, in that order.
const IN_ORDER: &str =
    "select string_agg(args ->> 0, ' ' order by position) from wamp.outbox where position is not null";

#[test]
fn rows_wait_for_what_is_left_in_the_log() {
    let server = server();
    // More than are read, and than get positions, at a time; nobody has read any when they are rows again.
    server.psql("select wamp.publish('com.shop.a', jsonb_build_array(n)) from generate_series(1, 2500) n");
    installed(&server, "postgres", &["install", "--log", "no"]);
    server.psql("select wamp.publish('com.shop.a', jsonb_build_array(n)) from generate_series(2501, 4000) n");
    assert_eq!(server.psql("select count(*) from wamp.outbox"), "1500", "the others are in the log");
    let url = server.url("postgres");
    let (ok, said) = db(&url, &["install", "--log", "yes"]);
    assert!(!ok && said.contains("until the router has read what is left in the log"), "{said}");
    let router = start(&server);
    router.wait_for_log("its events are rows again");
    wait_until("all of it", || server.psql("select sent from wamp.progress()") == "4000");
    let all: Vec<_> = (1..=4000).map(|number: u32| number.to_string()).collect();
    assert_eq!(server.psql(IN_ORDER), all.join(" "));
    wait_until("no slot", || server.psql("select count(*) from pg_replication_slots") == "0");
    router.stop();
}

#[test]
fn rows_are_published_where_the_slot_is_gone_behind_what_was_read_of_it() {
    let server = server();
    // A router has read it and has died before it gave positions.
    server.psql(
        "select set_config('wamp.feeding', 'on', false);
         insert into wamp.outbox (logged, kind, uri, args, bytes, depth, db_user, published_at)
         select null, 'event', 'com.shop.a', json_build_array(n), 20, 0, 'postgres', now() from generate_series(1, 2) n;
         update wamp.outbox set id = default, logged = true where args ->> 0 = '1'",
    );
    drop_slot(&server);
    installed(&server, "postgres", &["install", "--log", "no"]);
    let router = start(&server);
    wait_until("both", || server.psql("select sent from wamp.progress()") == "2");
    // The one that was read comes first, although its number is higher.
    assert_eq!(server.psql(IN_ORDER), "1 2");
    router.stop();
}

#[test]
fn a_transaction_that_sees_the_database_as_it_was_long_ago_loses_nothing() {
    let server = server();
    let router = start(&server);
    let mut subscriber = subscriber(&router);
    let mut sessions = [Session::new(&server), Session::new(&server)];
    for session in &mut sessions {
        session.run("begin isolation level repeatable read; select count(*) from pg_class");
    }
    // Events are rows, and again in the log, each as soon as that can be.
    installed(&server, "postgres", &["install", "--log", "no"]);
    router.wait_for_log("its events are rows again");
    sessions[0].run("select wamp.publish('com.shop.a', '[1]'); commit");
    expect(&mut subscriber, "[1]]");
    wait_until("no slot", || server.psql("select count(*) from pg_replication_slots") == "0");
    installed(&server, "postgres", &["install", "--log", "yes"]);
    router.wait_for_log("its events are written into the log of the server from now on");
    sessions[1].run("select wamp.publish('com.shop.a', '[2]'); commit");
    expect(&mut subscriber, "[2]]");
    router.stop();
}

#[test]
fn whoever_changes_where_events_go_waits_for_those_who_publish() {
    let server = server();
    let router = start(&server);
    let mut subscriber = subscriber(&router);
    let mut session = Session::new(&server);
    session.run("begin; select wamp.publish('com.shop.a', '[1]')");
    std::thread::scope(|scope| {
        let change = scope.spawn(|| installed(&server, "postgres", &["install", "--log", "no"]));
        wait_until("it to wait", || {
            let waits = "select count(*) > 0 from pg_locks where not granted and mode = 'AccessExclusiveLock'
                and relation = 'wamp.outbox'::regclass";
            server.psql(waits) == "t"
        });
        session.run("select wamp.publish('com.shop.a', '[2]'); commit");
        change.join().unwrap();
    });
    server.psql("select wamp.publish('com.shop.a', '[3]')");
    for number in 1..=3 {
        expect(&mut subscriber, &format!("[{number}]]"));
    }
    router.stop();
}

#[test]
fn nothing_has_a_position_that_others_do_not_see() {
    let setup =
        Setup::default().setting("wal_level", "logical").setting("synchronous_standby_names", "nobody");
    // Commits wait for a standby that never comes, unless they do not want to.
    let server = setup.setting("synchronous_commit", "local").start();
    server.psql("create schema api; create role web; create table item (n int)");
    installed(&server, "postgres", &[&INSTALL[..], &["--log", "yes"]].concat());
    let router = start(&server);
    let mut subscriber = subscriber(&router);
    let seen = std::thread::scope(|scope| {
        let publish = "set synchronous_commit = on; begin; insert into item values (1);
                       select wamp.publish('com.shop.a', '[1]'); commit";
        let waiting = scope.spawn(|| server.psql(publish));
        wait_until("the commit to wait", || {
            server.psql("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "1"
        });
        server.psql("select wamp.publish('com.shop.a', '[2]')");
        let written = server.psql("select pg_current_wal_lsn()");
        wait_until("it to be sent", || {
            server.psql(&format!("select bool_and(sent_lsn >= '{written}') from pg_stat_replication")) == "t"
        });
        // The router has looked at rows since, too: this one it answers.
        server.psql("select wamp.call_async('com.nobody')");
        wait_until("a call", || {
            server.psql("select count(*) from wamp.call where finished_at is null") == "0"
        });
        let seen =
            "select (select count(*) from item), (select count(*) from wamp.outbox where kind = 'event')";
        let seen = server.psql(seen);
        server.psql("alter system set synchronous_standby_names = ''");
        server.psql("select pg_reload_conf()");
        waiting.join().unwrap();
        seen
    });
    assert_eq!(seen, "0|0");
    expect(&mut subscriber, "[1]]");
    expect(&mut subscriber, "[2]]");
    router.stop();
}

#[test]
fn a_router_hears_at_once_that_events_go_into_the_log() {
    let server = Setup::default().setting("wal_level", "logical").start();
    server.psql("create schema api; create role web");
    installed(&server, "postgres", &INSTALL);
    let mut session = Session::new(&server);
    session.run("listen wamp");
    for log in ["yes", "no"] {
        installed(&server, "postgres", &["install", "--log", log]);
        let told = session.0.wait_notification(Session::deadline()).unwrap();
        assert_eq!(told.map(|told| told.payload).as_deref(), Some("log"), "{log}");
        if log == "yes" {
            let router = start(&server);
            let mut subscriber = subscriber(&router);
            server.psql("select wamp.publish('com.shop.a', '[1]')");
            expect(&mut subscriber, "[1]]");
            router.stop();
        }
    }
}
