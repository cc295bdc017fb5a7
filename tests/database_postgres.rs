//! What is particular to PostgreSQL, by its threads, on a server of their own. What all databases have in common is in
//! `tests/database_contract.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests wait")]

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crosspoint::database::pool::Notice;
use crosspoint::database::postgres::install::{Options, Plan};
use crosspoint::database::postgres::wire::{Connection, Deadline, Settings};
use crosspoint::database::postgres::{Exposed, Postgres};
use crosspoint::database::{Backlog, Declared, Numbers, PublicationLimits, Shape};
use crosspoint::wamp::codec::{DecodeLimits, Serializer};
use crosspoint::wamp::uri::UriLimits;
use serde_json::{Value, json};

#[path = "database/server.rs"]
mod server;
#[path = "database/stand.rs"]
mod stand;
#[path = "database/together.rs"]
mod together;

use server::Server;
use stand::{End, Heard, How, Stand};

/// One server for all tests that do not hurt it.
fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

/// A database of its own, with a schema `api`.
pub(crate) struct Database {
    settings: Settings,
    name: String,
}

impl Database {
    fn new(sql: &str) -> Self {
        Self::on(shared(), sql)
    }

    fn on(server: &Server, sql: &str) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("calls{}", LAST.fetch_add(1, Ordering::Relaxed));
        server.psql(&format!("create database {name}"));
        let mut settings = Settings::parse(&server.url("postgres"), &BTreeMap::new()).unwrap();
        settings.database.clone_from(&name);
        let database = Self { settings, name };
        database.execute(&format!("create schema api; {sql}"));
        database
    }

    fn execute(&self, sql: &str) {
        let deadline = Deadline::after(Duration::from_secs(30));
        let mut connection = Connection::connect(&self.settings, deadline).unwrap();
        connection.simple_query(sql, deadline, |_| {}).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn driver(&self) -> Postgres {
        let mut driver = Postgres::new(self.settings.clone(), "realm1");
        driver.connections = 3;
        let exposed = Exposed {
            schema: "api".to_owned(),
            prefix: "com.".to_owned(),
            allow: Vec::new(),
            deny: vec!["hidden*".to_owned()],
        };
        driver.exposed.push(exposed);
        driver
    }

    fn stand(&self) -> Stand {
        Stand::new(self.driver())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.name.is_empty());
        }
    }
}

#[test]
fn values_both_ways_in_every_serializer() {
    let types = [
        ("bool", json!(true), json!(true)),
        ("int2", json!(-5), json!(-5)),
        ("int4", json!(3.0), json!(3)),
        ("int8", json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_993_i64)),
        ("float8", json!(1.5), json!(1.5)),
        ("numeric", json!("12345678901234567890.10"), json!("12345678901234567890.10")),
        ("text", json!("grün \"x\" \\ '"), json!("grün \"x\" \\ '")),
        (
            "uuid",
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("bytea", json!("\0AP8="), json!("\0AP8=")),
        ("jsonb", json!({"a": [1, null, {"b": true}]}), json!({"a": [1, null, {"b": true}]})),
        ("json", json!("a text"), json!("a text")),
        ("timestamptz", json!("2024-02-29T09:00:00.5+01:00"), json!("2024-02-29T08:00:00.5Z")),
        ("timestamp", json!("2024-02-29T08:00:00"), json!("2024-02-29T08:00:00")),
        ("date", json!("2024-02-29"), json!("2024-02-29")),
        ("interval", json!("P1DT2H"), json!("P1DT2H")),
        ("int4range", json!("[1,5)"), json!("[1,5)")),
        ("int4[]", json!([1, null, 3]), json!([1, null, 3])),
        ("text[]", json!(["a,b", "c\"d", "", "NULL"]), json!(["a,b", "c\"d", "", "NULL"])),
        ("int4[]", json!([[1, 2], [3, 4]]), json!([[1, 2], [3, 4]])),
        ("api.mood", json!("happy"), json!("happy")),
        ("api.small", json!(7), json!(7)),
        ("api.item", json!({"id": 1, "name": "tea"}), json!({"id": 1, "name": "tea"})),
        ("api.item[]", json!([{"id": 1, "name": "tea"}]), json!([{"id": 1, "name": "tea"}])),
    ];
    let mut sql = String::from(
        "create type api.mood as enum ('sad', 'happy'); create domain api.small as int check (value < 10);
         create type api.item as (id int, name text);",
    );
    for (number, (name, ..)) in types.iter().enumerate() {
        sql.push_str(&format!(
            "create function api.echo{number}(v {name}) returns table (v {name}) language sql as 'select $1';"
        ));
    }
    let database = Database::new(&sql);
    let mut stand = database.stand();
    for serializer in Serializer::ALL {
        stand.serializer = serializer;
        for (number, (name, value, back)) in types.iter().enumerate() {
            let uri = format!("com.echo{number}");
            let args = stand.result(&uri, json!([value]));
            // A list of one value is not wrapped in an object.
            let got = if args[0][0].is_object() && args[0][0].get("v").is_some() {
                &args[0][0]["v"]
            } else {
                &args[0][0]
            };
            assert_eq!(got, back, "{name} in {serializer:?}: {args}");
            assert_eq!(stand.result(&uri, json!([null]))[0].as_array().unwrap().len(), 1);
        }
    }
}

#[test]
fn shapes_of_results() {
    let database = Database::new(
        "create function api.nothing() returns void language sql as '';
         create function api.one(a int, b int default 10) returns int language sql as 'select a + b';
         create function api.two(a int, out b int, out c text) language sql as $$ select a + 1, 'x' $$;
         create function api.many(n int) returns setof int language sql as 'select generate_series(1, n)';
         create function api.rows(n int) returns table (i int, t text) language sql as $$ select i, 'r' || i from generate_series(1, n) i $$;
         create function api.sum(variadic n int[]) returns bigint language sql as 'select sum(x) from unnest(n) x';
         create function api.hidden_one() returns int language sql as 'select 1';
         create function api.renamed() returns int language sql as 'select 1';
         comment on function api.renamed() is 'Text. @wamp uri=com.other.name timeout_ms=5000';
         create function api.ignored() returns int language sql as 'select 1';
         comment on function api.ignored() is '@wamp ignore';
         create table api.t (n int);
         create procedure api.fill(n int, inout m int default 5) language plpgsql as
             $$ begin insert into api.t values (n); commit; m := m + n; end $$;
         create function api.over(a int) returns text language sql as $$ select 'int' $$;
         create function api.over(a text) returns text language sql as $$ select 'text' $$;
         create function api.over(a int, b int) returns text language sql as $$ select 'two' $$;",
    );
    let mut driver = database.driver();
    driver.procedures = [
        ("com.sql.rows", "select n from api.t where n > :least order by n", Shape::Rows),
        ("com.sql.row", "select n, ':x' as x from api.t where n = :n", Shape::Row),
        ("com.sql.value", "select :a::int + :b::int", Shape::Value),
        ("com.sql.put", "insert into api.t select generate_series(:from::int, :to::int)", Shape::Rows),
    ]
    .map(|(uri, sql, shape)| Declared {
        uri: uri.to_owned(),
        sql: sql.to_owned(),
        shape,
        timeout_ms: 0,
        concurrency: 0,
    })
    .to_vec();
    let mut stand = Stand::new(driver);
    let mut offered: Vec<_> = stand.offered.iter().map(|procedure| procedure.uri.to_string()).collect();
    offered.sort();
    let own = [
        "fill",
        "many",
        "nothing",
        "one",
        "other.name",
        "over",
        "rows",
        "sql.put",
        "sql.row",
        "sql.rows",
        "sql.value",
        "sum",
        "two",
    ];
    assert_eq!(offered, own.map(|name| format!("com.{name}")));
    for _ in 0..2 {
        assert_eq!(stand.result("com.nothing", json!([])), Value::Null);
        assert_eq!(stand.result("com.one", json!([1])), json!([11]));
        assert_eq!(stand.result("com.one", json!([1, 2])), json!([3]));
        assert_eq!(
            stand.call("com.one", json!([]), json!({"b": 5, "a": 1})),
            End::Result(json!([6]), Value::Null)
        );
        assert_eq!(
            stand.call("com.two", json!([1]), json!({})),
            End::Result(Value::Null, json!({"b": 2, "c": "x"}))
        );
        assert_eq!(stand.result("com.many", json!([3])), json!([[1, 2, 3]]));
        assert_eq!(stand.result("com.many", json!([0])), json!([[]]));
        assert_eq!(stand.result("com.rows", json!([2])), json!([[{"i": 1, "t": "r1"}, {"i": 2, "t": "r2"}]]));
        assert_eq!(stand.result("com.sum", json!([1, 2, 3])), json!([6]));
        assert_eq!(stand.result("com.sum", json!([])), json!([null]));
        assert_eq!(stand.result("com.over", json!([1])), json!(["int"]));
        assert_eq!(stand.result("com.over", json!(["1"])), json!(["text"]));
        assert_eq!(stand.result("com.over", json!([1, 2])), json!(["two"]));
        assert_eq!(stand.call("com.fill", json!([1]), json!({})), End::Result(Value::Null, json!({"m": 6})));
        assert_eq!(stand.result("com.sql.value", json!([1, 2])), json!([3]));
        assert_eq!(stand.result("com.sql.row", json!([1])), json!([{"n": 1, "x": ":x"}]));
        assert_eq!(stand.result("com.sql.row", json!([99])), json!([null]));
    }
    assert_eq!(stand.result("com.sql.put", json!([5, 7])), json!([3]));
    assert_eq!(
        stand.call("com.sql.rows", json!([]), json!({"least": 5})),
        End::Result(json!([[{"n": 6}, {"n": 7}]]), Value::Null)
    );
    for (uri, args, kwargs, text) in [
        ("com.one", json!([]), json!({}), "the argument `a` is missing"),
        ("com.one", json!([1, 2, 3]), json!({}), "argument 3: there are 2 parameters"),
        ("com.one", json!([1]), json!({"c": 1}), "there is no parameter `c`"),
        ("com.one", json!([[1]]), json!({}), "the argument `a`: a list does not fit its type"),
        (
            "com.over",
            json!([]),
            json!({}),
            "none of these fits: api.over(integer); api.over(integer, integer); api.over(text)",
        ),
        ("com.over", json!([null]), json!({}), "it could be any of these: api.over(integer); api.over(text)"),
        ("com.sql.value", json!([1]), json!({}), "the argument `b` is missing"),
    ] {
        let error = stand.error(uri, args, kwargs);
        assert_eq!(error.0, "wamp.error.invalid_argument");
        if uri == "com.over" && error.1.starts_with("none") {
            assert!(error.1.contains("api.over(integer, integer)"), "{}", error.1);
        } else {
            assert_eq!(error.1, text);
        }
    }
    assert_eq!(stand.error("com.one", json!(["x"]), json!({})).0, "wamp.error.invalid_argument");
}

#[test]
fn functions_with_a_bound_run_only_so_many_at_a_time() {
    // Whether it is alone: the lock is held until the end of the transaction.
    let alone = "language sql as 'select pg_try_advisory_xact_lock(7) from pg_sleep(0.02)'";
    let database = Database::new(&format!(
        "create function api.alone() returns bool {alone};
         comment on function api.alone() is 'Slow. @wamp concurrency=1';
         create function api.wrong() returns bool {alone};
         comment on function api.wrong() is '@wamp concurrency=some';"
    ));
    let mut stand = database.stand();
    let mut problems = stand.notices().into_iter().filter_map(|notice| match notice {
        Notice::Offers(_, problems) => Some(problems),
        _ => None,
    });
    assert_eq!(problems.next_back().unwrap(), ["api.wrong(): its concurrency is no number"]);
    let begun: Vec<_> =
        (0..20).map(|_| stand.begin("com.alone", &json!([]), &json!({}), How::default()).unwrap()).collect();
    for number in begun {
        let (of, heard) = stand.next();
        assert_eq!(of, number, "they end in the order in which they came");
        assert!(matches!(&heard, Heard::End(End::Result(args, _)) if *args == json!([true])), "{heard:?}");
    }
}

#[test]
fn who_calls_is_known_inside_and_as_whom_it_runs() {
    let database = Database::new(
        "create role web_user nologin; create role web_admin nologin;
         create table api.secret (v text); insert into api.secret values ('s');
         grant usage on schema api to web_user, web_admin; grant select on api.secret to web_admin;
         create function api.who() returns text language sql stable as $$
             select concat_ws(' ', current_setting('wamp.realm'), current_setting('wamp.session'),
                              current_setting('wamp.authid'), current_setting('wamp.authrole'), current_user) $$;
         create function api.how() returns jsonb language sql stable as $$ select current_setting('wamp.details')::jsonb $$;
         create procedure api.how_too(inout how jsonb default null) language plpgsql as
             $$ begin how := current_setting('wamp.details'); commit; end $$;
         create function api.peek() returns text language sql stable as 'select v from api.secret';
         create function api.only_admin() returns int language sql immutable as 'select 42';
         revoke execute on function api.only_admin() from public; grant execute on function api.only_admin() to web_admin;
         create function api.hidden_write() returns void language sql as $$ insert into api.secret values ('x') $$;
         create function api.writes() returns void language sql stable as 'select api.hidden_write()';
         create procedure api.proc(inout who text default '') language plpgsql as
             $$ begin who := current_setting('wamp.authid') || ' ' || current_user; commit; end $$;",
    );
    let mut driver = database.driver();
    // One connection, so that what one role did is there for the next.
    driver.connections = 1;
    let roles = [("user", "web_user"), ("admin", "web_admin")];
    driver.roles = Some(HashMap::from(roles.map(|(one, other)| (one.to_owned(), other.to_owned()))));
    let mut stand = Stand::new(driver);
    let admin = How { authid: "ann", authrole: "admin", ..How::default() };
    let stranger = How { authrole: "stranger", ..How::default() };
    for _ in 0..3 {
        assert_eq!(stand.result("com.who", json!([])), json!(["realm1 4711 joe user web_user"]));
        let end = stand.call_as("com.who", &json!([]), &json!({}), admin);
        assert_eq!(end, End::Result(json!(["realm1 4711 ann admin web_admin"]), Value::Null));
        // What is prepared for one role is not run by another.
        let end = stand.call_as("com.only_admin", &json!([]), &json!({}), admin);
        assert_eq!(end, End::Result(json!([42]), Value::Null));
        assert_eq!(stand.error("com.only_admin", json!([]), json!({})).0, "wamp.error.not_authorized");
        assert_eq!(stand.error("com.peek", json!([]), json!({})).0, "wamp.error.not_authorized");
        let end = stand.call_as("com.proc", &json!([]), &json!({}), admin);
        assert_eq!(end, End::Result(Value::Null, json!({"who": "ann web_admin"})));
        let claims = How { authextra: r#"{"team":"ü"}"#, ..admin };
        for (how, extra) in [(claims, json!({"team": "ü"})), (admin, json!({}))] {
            let details = json!({"authmethod": "jwt", "authprovider": "dynamic", "authextra": extra});
            let end = stand.call_as("com.how", &json!([]), &json!({}), how);
            assert_eq!(end, End::Result(json!([details]), Value::Null));
            let end = stand.call_as("com.how_too", &json!([]), &json!({}), how);
            assert_eq!(end, End::Result(Value::Null, json!({"how": details})));
        }
        let end = stand.call_as("com.who", &json!([]), &json!({}), stranger);
        assert!(matches!(end, End::Error(ref uri, ..) if uri == "wamp.error.not_authorized"), "{end:?}");
        // What promises to write nothing is held to it.
        let (uri, text) = stand.error("com.writes", json!([]), json!({}));
        assert_eq!(uri, "wamp.error.not_authorized", "{text}");
    }
}

#[test]
fn errors_have_their_uris() {
    let database = Database::new(
        "create table api.t (n int primary key, m int not null check (m < 10));
         create function api.put(n int, m int) returns void language sql as 'insert into api.t values (n, m)';
         create function api.divide(a int, b int) returns int language sql as 'select a / b';
         create function api.raise(t text) returns void language plpgsql as $$ begin raise exception '%', t using detail = 'd', hint = 'h'; end $$;
         create function api.own(u text) returns void language plpgsql as
             $$ begin raise exception 'sold out' using errcode = 'WA000', hint = u, detail = '{\"args\": [1.50], \"kwargs\": {\"k\": 1}}'; end $$;
         create function api.hang() returns void language sql as 'select pg_sleep(1000)';",
    );
    let mut stand = database.stand();
    stand.result("com.put", json!([1, 1]));
    assert_eq!(stand.error("com.put", json!([1, 1]), json!({})).0, "crosspoint.error.sql.23505");
    assert_eq!(stand.error("com.put", json!([2, null]), json!({})).0, "wamp.error.invalid_argument");
    assert_eq!(stand.error("com.put", json!([2, 10]), json!({})).0, "wamp.error.invalid_argument");
    assert_eq!(stand.error("com.divide", json!([1, 0]), json!({})).0, "wamp.error.invalid_argument");
    let end = stand.call("com.raise", json!(["why"]), json!({}));
    let kwargs = json!({"sqlstate": "P0001", "message": "why", "detail": "d", "hint": "h"});
    assert_eq!(end, End::Error("crosspoint.error.application".to_owned(), json!(["why"]), kwargs));
    let end = stand.call("com.own", json!(["com.shop.sold_out"]), json!({}));
    assert_eq!(end, End::Error("com.shop.sold_out".to_owned(), json!([1.5]), json!({"k": 1})));
    assert_eq!(stand.error("com.own", json!(["no uri"]), json!({})).0, "crosspoint.error.application");
    // After all of these the connections are what they were.
    assert_eq!(stand.result("com.divide", json!([6, 3])), json!([2]));
    let how = How { timeout_ms: 100, ..How::default() };
    let end = stand.call_as("com.hang", &json!([]), &json!({}), how);
    assert!(matches!(end, End::Error(ref uri, ..) if uri == "wamp.error.timeout"), "{end:?}");
}

#[test]
fn what_is_made_changed_and_dropped_is_noticed() {
    let database = Database::new("create function api.one() returns int language sql as 'select 1';");
    let mut stand = database.stand();
    assert_eq!(stand.result("com.one", json!([])), json!([1]));
    database.execute("create function api.two() returns int language sql as 'select 2'");
    while stand.offered.len() < 2 {
        stand.next_offer();
    }
    assert_eq!(stand.result("com.two", json!([])), json!([2]));
    // Another type of result than the one that was prepared.
    database.execute(
        "drop function api.one(); create function api.one() returns text language sql as $$ select 'one' $$",
    );
    let begin = std::time::Instant::now();
    while stand.call("com.one", json!([]), json!({})) != End::Result(json!(["one"]), Value::Null) {
        assert!(begin.elapsed() < stand::PATIENCE);
    }
    database.execute("comment on function api.two() is '@wamp ignore'");
    while stand.offered.len() > 1 {
        stand.next_offer();
    }
}

/// The schema `wamp`, a role that publishes, and a router's role that is trusted.
fn publishing(database: &Database) -> Stand {
    let options = Options {
        router: Some("postgres".to_owned()),
        everybody_publishes: Some(true),
        ..Options::default()
    };
    let plan = Plan::upgrade(None, &options).unwrap();
    database.execute_each(plan.statements().iter().map(|statement| statement.sql.as_str()));
    database.stand_that_publishes()
}

impl Database {
    fn execute_each<'s>(&self, statements: impl Iterator<Item = &'s str>) {
        let deadline = Deadline::after(Duration::from_secs(60));
        let mut connection = Connection::connect(&self.settings, deadline).unwrap();
        for sql in statements {
            connection.simple_query(sql, deadline, |_| {}).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    fn stand_that_publishes(&self) -> Stand {
        let mut driver = self.driver();
        driver.publishing = Some(PublicationLimits {
            uri: UriLimits { bytes_max: 256, components_max: 32 },
            decode: DecodeLimits::default(),
        });
        Stand::new(driver)
    }
}

const SAY: &str = "
create function api.say(topic text, args jsonb, fail boolean default false) returns bigint language plpgsql as $$
declare n bigint;
begin
    n := wamp.publish(topic, args);
    if fail then raise exception 'no'; end if;
    return n;
end $$;";

#[test]
fn nobody_notifies_for_a_router_that_has_ended() {
    let database = Database::new(SAY);
    let stand = publishing(&database);
    let deadline = Deadline::after(Duration::from_secs(60));
    let mut connection = Connection::connect(&database.settings, deadline).unwrap();
    let mut wait_for = |expected: &str| {
        let state = "select last_value || ' ' || (leader is null) from wamp.asleep, wamp.progress()";
        while connection.simple_value(state, deadline).unwrap().as_deref() != Some(expected) {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for("1 false");
    drop(stand);
    wait_for("0 true");
}

#[test]
fn what_was_not_offered_is_offered_again_the_same() {
    let database = Database::new(SAY);
    let mut first = publishing(&database);
    first.result("com.say", json!(["com.t", [1]]));
    assert_eq!(first.publications(1).len(), 1);
    first.is_deaf = true;
    first.result("com.say", json!(["com.t", [2]]));
    first.result("com.say", json!(["com.t", [3]]));
    let again = first.publications(1);
    let counted = first.counted_with_backlog(2);
    assert_eq!((counted.calls, counted.failed, counted.publications), (3, 0, 1), "{counted:?}");
    let age = counted.backlog.map(|backlog| backlog.oldest_ms);
    std::thread::sleep(Duration::from_millis(5));
    assert!(first.counted_with_backlog(2).backlog.map(|backlog| backlog.oldest_ms) > age);
    drop(first);
    let mut second = database.stand_that_publishes();
    let published = second.publications(2);
    assert_eq!(published[..again.len()], again[..]);
    assert!(published[1].1.contains("[3]"), "{published:?}");
    assert_eq!(second.counted_with_backlog(0).backlog, Some(Backlog::default()));
}

#[test]
fn calls_are_answered_that_they_cannot_be_made_and_events_go_on() {
    let database = Database::new(SAY);
    let mut stand = publishing(&database);
    database.execute("select wamp.call_async('com.p', '[]', '{}')");
    database.execute("select wamp.publish('com.t')");
    assert_eq!(stand.publications(1).len(), 1);
    let error = "select (wamp.call_result(id))::text like '%feature_not_supported%' from wamp.call";
    let deadline = Deadline::after(Duration::from_secs(30));
    let mut connection = Connection::connect(&database.settings, deadline).unwrap();
    assert_eq!(connection.simple_value(error, deadline).unwrap().as_deref(), Some("t"));
}

#[test]
fn many_writers_and_a_sleeper_lose_nothing() {
    let database = Database::new(SAY);
    let mut stand = publishing(&database);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let settings = database.settings.clone();
            std::thread::spawn(move || {
                let deadline = Deadline::after(Duration::from_secs(120));
                let mut connection = Connection::connect(&settings, deadline).unwrap();
                for number in 0..60 {
                    let isolation = ["read committed", "repeatable read"][number % 2];
                    let sql = format!(
                        "begin isolation level {isolation}; select wamp.publish('com.t', '[{writer}, {number}]');
                         select pg_sleep({}); commit",
                        (number % 7) as f64 * 0.003,
                    );
                    connection.simple_query(&sql, deadline, |_| {}).unwrap();
                    if number % 10 == 0 {
                        // Long enough for the drainer to fall asleep.
                        std::thread::sleep(Duration::from_millis(150));
                    }
                }
            })
        })
        .collect();
    let published = stand.publications(240);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(published.iter().map(|(position, _)| *position).eq(1..=240));
    let mut next = [0_u64; 4];
    for (_, publish) in &published {
        let message: Value = serde_json::from_str(publish).unwrap();
        let writer = message[4][0].as_u64().unwrap() as usize;
        assert_eq!(message[4][1], next[writer]);
        next[writer] += 1;
    }
}

#[test]
fn without_its_schema_it_publishes_nothing_and_calls_go_on() {
    let database = Database::new("create function api.one() returns int language sql as 'select 1';");
    let mut stand = database.stand_that_publishes();
    assert_eq!(stand.result("com.one", json!([])), json!([1]));
    // It is installed while the router runs.
    let plan =
        Plan::upgrade(None, &Options { router: Some("postgres".to_owned()), ..Options::default() }).unwrap();
    database.execute_each(plan.statements().iter().map(|statement| statement.sql.as_str()));
    database.execute("select wamp.publish('com.t')");
    assert_eq!(stand.publications(1).len(), 1);
}

fn kwargs_of(stand: &mut Stand, uri: &str) -> Value {
    match stand.call(uri, json!([]), json!({})) {
        End::Result(_, kwargs) => kwargs,
        error => panic!("{uri}: {error:?}"),
    }
}

#[test]
fn large_integers_and_exact_numbers_are_told_as_the_database_says() {
    let database = Database::new(
        "create type api.pair as (large int8, exact numeric);
         create domain api.wide as int8;
         create function api.numbers(out large int8, out lowest int8, out safe int8, out wide api.wide,
             out list int8[], out exact numeric, out exacts numeric[], out nothing numeric, out pair api.pair)
         language sql as $$select 9007199254740992, '-9223372036854775808'::int8, -9007199254740991, 9007199254740993::api.wide,
             array[1, null, 9007199254740993], 12345678901234567890.10, array[0.5, 'NaN'], null::numeric,
             row(9007199254740993, 0.10)::api.pair$$;",
    );
    let mut driver = database.driver();
    driver.numbers = Numbers { large_as_text: true, exact_as_float: true };
    let mut stand = Stand::new(driver);
    let as_json = json!({
        "large": "9007199254740992", "lowest": "-9223372036854775808", "safe": -9_007_199_254_740_991_i64,
        "wide": "9007199254740993", "list": [1, null, "9007199254740993"],
        "exact": 12_345_678_901_234_567_000.0, "exacts": [0.5, null], "nothing": null,
        "pair": {"large": 9_007_199_254_740_993_i64, "exact": 0.10},
    });
    assert_eq!(kwargs_of(&mut stand, "com.numbers"), as_json);
    for serializer in [Serializer::MsgPack, Serializer::Cbor] {
        stand.serializer = serializer;
        let kwargs = kwargs_of(&mut stand, "com.numbers");
        assert_eq!(kwargs["large"], json!(9_007_199_254_740_992_i64), "{serializer:?}");
        assert_eq!(kwargs["lowest"], json!(i64::MIN), "{serializer:?}");
        assert_eq!(kwargs["exact"], json!(12_345_678_901_234_567_000.0), "{serializer:?}");
    }
}

#[test]
fn the_rows_of_a_cursor_are_the_result() {
    let database = Database::new(
        "create table api.item as select n as id, 'item ' || n as name from generate_series(1, 1203) n;
         create function api.items(until int) returns refcursor language plpgsql as $$
         declare it cursor for select * from api.item where id <= until order by id; begin open it; return it; end $$;
         create function api.named(inout it refcursor) language plpgsql as $$
         begin open it for select 1 as one, null as nothing; end $$;
         create function api.none() returns refcursor language sql as 'select null::refcursor';
         create function api.gone() returns refcursor language plpgsql as $$
         declare it refcursor; begin open it for select 1; close it; return it; end $$;
         create function api.fails() returns refcursor language plpgsql as $$
         declare it refcursor; begin open it for select 1 / (3 - n) as n from generate_series(1, 5) n; return it; end $$;
         create function api.before() returns refcursor language plpgsql as $$ begin raise exception 'no'; end $$;
         create function api.changes() returns refcursor language plpgsql as $$
         declare it refcursor; begin delete from api.item where id = 1203; open it for select count(*) as left from api.item;
         return it; end $$;",
    );
    let mut stand = database.stand();
    assert_eq!(
        stand.result("com.items", json!([2])),
        json!([[{"id": 1, "name": "item 1"}, {"id": 2, "name": "item 2"}]])
    );
    assert_eq!(stand.result("com.items", json!([0])), json!([[]]));
    assert_eq!(stand.result("com.named", json!(["a \"name\""])), json!([[{"one": 1, "nothing": null}]]));
    assert_eq!(stand.result("com.none", json!([])), json!([null]));
    assert_eq!(stand.error("com.gone", json!([]), json!({})).0, "crosspoint.error.sql.34000");
    assert_eq!(stand.error("com.fails", json!([]), json!({})).0, "wamp.error.invalid_argument");
    assert_eq!(stand.error("com.before", json!([]), json!({})).0, "crosspoint.error.application");
    // Within one transaction, which is committed behind the last row.
    assert_eq!(stand.result("com.changes", json!([])), json!([[{"left": 1202}]]));
    assert_eq!(stand.result("com.items", json!([1203]))[0].as_array().unwrap().len(), 1202);
    // In parts, for who takes them.
    let how = How { receive_progress: true, ..How::default() };
    let number = stand.begin("com.items", &json!([1202]), &json!({}), how).unwrap();
    let (mut parts, mut ids) = (Vec::new(), Vec::new());
    let kwargs = loop {
        let (of, heard) = stand.next();
        assert_eq!(of, number);
        let (rows, end) = match heard {
            Heard::Part(args) => (args, None),
            Heard::End(End::Result(args, kwargs)) => (args, Some(kwargs)),
            Heard::End(error) => panic!("{error:?}"),
        };
        let rows = rows[0].as_array().unwrap().clone();
        parts.push(rows.len());
        ids.extend(rows.iter().map(|row| row["id"].as_u64().unwrap()));
        if let Some(kwargs) = end {
            break kwargs;
        }
    };
    assert_eq!((parts, kwargs), (vec![500, 500, 202], json!({"rows": 1202})));
    assert_eq!(ids, (1..=1202).collect::<Vec<_>>());
    // One that is cancelled between two parts leaves nothing behind.
    let number = stand.begin("com.items", &json!([1202]), &json!({}), how).unwrap();
    assert!(matches!(stand.next(), (of, Heard::Part(_)) if of == number));
    stand.cancel(number);
    let end = loop {
        if let (_, Heard::End(end)) = stand.next() {
            break end;
        }
    };
    assert!(
        matches!(&end, End::Error(uri, ..) if uri == "wamp.error.canceled") || matches!(end, End::Result(..))
    );
    assert_eq!(stand.result("com.items", json!([1])), json!([[{"id": 1, "name": "item 1"}]]));
}
