//! A router and a PostgreSQL server, as clients see them.

use crate::harness::{Client, Start, wait_until};
use crate::server::Server;

const SHOP: &str = r#"
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
