//! A router and a database in a file, as clients see them.

use rustix::process::Signal;

use crate::harness::{Client, Start, wait_until};

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
type = "sqlite"
realm = "realm1"
path = "shop.sqlite3"
refresh_ms = 50
[[database.procedure]]
uri = "com.shop.create"
sql = "create table if not exists item (id integer primary key, name text not null, price real)"
result = "nothing"
[[database.procedure]]
uri = "com.shop.add"
sql = "insert into item (name, price) values (:name, :price) returning id"
result = "value"
[[database.procedure]]
uri = "com.shop.list"
sql = "select * from item order by id"
[[database.procedure]]
uri = "com.shop.count_to"
sql = "with recursive c(n) as (select 1 union all select n + 1 from c where n < :last) select n from c"
[[database.procedure]]
uri = "com.shop.wait"
sql = "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c"
timeout_ms = 60000
"#;

/// Calls until the procedure is there: those that need the table come when it does.
fn ask_until_offered(client: &mut Client, number: &mut u64, call: &str) -> String {
    let mut answer = String::new();
    wait_until("the procedure", || {
        *number += 1;
        answer = client.ask(&format!("[48,{number},{{}},{call}]"));
        !answer.contains("no_such_procedure") && !answer.contains("unavailable")
    });
    answer
}

#[test]
fn a_file_is_called_like_any_callee() {
    let mut router = Start::new(SHOP).router();
    let mut client = Client::join(router.address(), "realm1");
    let mut number = 0;
    let created = ask_until_offered(&mut client, &mut number, "\"com.shop.create\"");
    assert_eq!(created, format!("[50,{number},{{}}]"));
    let added =
        ask_until_offered(&mut client, &mut number, r#""com.shop.add",[],{"name":"tea","price":1.5}"#);
    assert_eq!(added, format!("[50,{number},{{}},[1]]"));
    number += 1;
    let wrong = client.ask(&format!(r#"[48,{number},{{}},"com.shop.add",["tea"]]"#));
    assert_eq!(
        wrong,
        format!(r#"[8,48,{number},{{}},"wamp.error.invalid_argument",["the argument `price` is missing"]]"#)
    );

    router.signal(Signal::USR1);
    let expected = "of this database: calls=3 failed=1 cancelled=0 timed_out=0 together=0 waiting=0 ";
    router.wait_for_log(expected);

    // In parts, one after the other.
    number += 1;
    client.send(&format!(r#"[48,{number},{{"receive_progress":true}},"com.shop.count_to",[1200]]"#));
    let parts: Vec<_> = (0..3).map(|_| client.receive().message()).collect();
    assert!(parts[0].starts_with(&format!(r#"[50,{number},{{"progress":true}},[[{{"n":1}},"#)), "{parts:?}");
    assert!(
        parts[1].starts_with(&format!(r#"[50,{number},{{"progress":true}},[[{{"n":501}},"#)),
        "{parts:?}"
    );
    assert!(parts[2].ends_with(r#"{"n":1200}]],{"rows":1200}]"#), "{parts:?}");

    // Cancelled, and the readers are free again.
    for _ in 0..8 {
        number += 1;
        client.send(&format!(r#"[48,{number},{{}},"com.shop.wait"]"#));
        let cancelled = client.ask(&format!(r#"[49,{number},{{"mode":"kill"}}]"#));
        assert!(
            cancelled.starts_with(&format!(r#"[8,48,{number},{{}},"wamp.error.canceled""#)),
            "{cancelled}"
        );
    }
    // Those of a client that leaves, as well.
    let mut leaver = Client::join(router.address(), "realm1");
    for request in 1..=8 {
        leaver.send(&format!(r#"[48,{request},{{}},"com.shop.wait"]"#));
    }
    drop(leaver);
    number += 1;
    let listed = client.ask(&format!(r#"[48,{number},{{}},"com.shop.list"]"#));
    assert_eq!(listed, format!(r#"[50,{number},{{}},[[{{"id":1,"name":"tea","price":1.5}}]]]"#));

    // Nothing that was committed is lost with the process.
    let folder = router.folder().to_owned();
    let kept = std::fs::read(folder.join("shop.sqlite3")).is_ok();
    assert!(kept, "the file is beside the configuration");
    router.kill();
    let database = folder.join("shop.sqlite3");
    let rows = std::process::Command::new("python3")
        .args(["-c", "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute('select name from item').fetchall())"])
        .arg(&database)
        .output()
        .expect("python3 has sqlite3");
    assert_eq!(String::from_utf8_lossy(&rows.stdout).trim(), "[('tea',)]");
}

/// A table that is watched, and a procedure that publishes by itself.
const EVENTS: &str = r#"
[[database.procedure]]
uri = "com.shop.say"
sql = "select publish('com.shop.said', json_array(:text))"
result = "nothing"
[[database.watch]]
table = "item"
topic = "com.shop.item"
"#;

#[test]
fn what_a_table_publishes_reaches_subscribers_of_every_core() {
    let config = SHOP.replace("refresh_ms = 50", "refresh_ms = 50\npublish = true") + EVENTS;
    let mut router = Start::new(&config).router();
    let mut client = Client::join(router.address(), "realm1");
    let mut number = 0;
    ask_until_offered(&mut client, &mut number, "\"com.shop.create\"");
    // The connections fall on all cores.
    let mut subscribers: Vec<_> = (0..6).map(|_| Client::join(router.address(), "realm1")).collect();
    for subscriber in &mut subscribers {
        assert!(subscriber.ask(r#"[32,1,{"match":"prefix"},"com.shop."]"#).starts_with("[33,1,"));
    }
    // The table is watched as soon as it is seen.
    wait_until("the watch", || router.log().matches("the database is there").count() >= 2);
    let added = ask_until_offered(&mut client, &mut number, r#""com.shop.add",["tea",1.5]"#);
    assert_eq!(added, format!("[50,{number},{{}},[1]]"));
    ask_until_offered(&mut client, &mut number, r#""com.shop.say",["grüße"]"#);
    for subscriber in &mut subscribers {
        let event = subscriber.receive().message();
        let details = r#"{"topic":"com.shop.item.on_insert","_event_id":1},[]"#;
        assert!(event.contains(details), "{event}");
        let row = r#"{"op":"insert","table":"item","new":{"id":1,"name":"tea","price":1.5}}]"#;
        assert!(event.ends_with(row), "{event}");
        let event = subscriber.receive().message();
        assert!(event.ends_with(r#"{"topic":"com.shop.said","_event_id":2},["grüße"]]"#), "{event}");
    }
    // Another program writes while the router is gone, and the next one publishes that.
    let folder = router.folder().to_owned();
    router.kill();
    let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(\"update item set price = 2\"); c.commit()";
    let done =
        std::process::Command::new("python3").args(["-c", script]).arg(folder.join("shop.sqlite3")).status();
    assert!(done.expect("python3").success());
    let database = folder.join("shop.sqlite3");
    let again =
        Start::new(&config.replace("\"shop.sqlite3\"", &format!("{:?}", database.display().to_string())));
    let again = again.router();
    let mut late = Client::join(again.address(), "realm1");
    // At most once for who was not there: what it missed it can read in the table.
    assert!(late.ask(r#"[32,1,{"match":"prefix"},"com.shop."]"#).starts_with("[33,1,"));
    wait_until("what was left", || again.counters().of("database_publications") >= 1);
    again.stop();
}

#[test]
fn calls_of_a_database_end_with_the_router() {
    let router = Start::new(SHOP).router();
    let mut client = Client::join(router.address(), "realm1");
    let mut number = 0;
    ask_until_offered(&mut client, &mut number, "\"com.shop.count_to\",[1]");
    number += 1;
    client.send(&format!(r#"[48,{number},{{}},"com.shop.wait"]"#));
    let log = router.stop();
    assert!(log.contains("the database is there"), "{log}");
}

#[test]
fn a_file_that_cannot_be_opened_is_said_and_tried_again() {
    let config = SHOP.replace("shop.sqlite3", "missing/shop.sqlite3");
    let router = Start::new(&config).router();
    router.wait_for_log("the database is away");
    std::fs::create_dir(router.folder().join("missing")).unwrap();
    let mut client = Client::join(router.address(), "realm1");
    let mut number = 0;
    ask_until_offered(&mut client, &mut number, "\"com.shop.create\"");
    router.stop();
}
