//! Events of PostgreSQL that go through the log of the server, where that log, its slot or its readers are not as usual.

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
