//! Events that run what the configuration says: functions of PostgreSQL, statements of SQLite.

use super::database_inside::{CONFIG, Party, Shop};
use crate::harness::{Router, Start, wait_until};

const FILE: &str = r#"
[[realm]]
name = "realm1"
[[realm.role]]
name = "anonymous"
[[realm.role.permission]]
uri = ""
match = "prefix"
allow = "all"
[[realm.role]]
name = "database"
[[realm.role.permission]]
uri = "com."
match = "prefix"
allow = ["subscribe"]
[[database]]
name = "shop"
type = "sqlite"
realm = "realm1"
path = "shop.sqlite3"
refresh_ms = 50
publish = true
[database.inside]
role = "database"
own_events = true
depth_max = 2
[[database.procedure]]
uri = "com.shop.create"
sql = "create table seen (number integer primary key, topic text, args text, kwargs text, publication integer, depth integer)"
result = "nothing"
[[database.procedure]]
uri = "com.shop.seen"
sql = "select group_concat(topic || ' ' || args || ' ' || kwargs || ' ' || depth, ', ') from (select * from seen order by number)"
result = "value"
[[database.procedure]]
uri = "com.shop.known"
sql = "select count(*) from seen where publication between 1 and 9007199254740992"
result = "value"
[[database.procedure]]
uri = "com.shop.deep"
sql = "select group_concat(depth, ' ') from (select depth from wamp_outbox order by id)"
result = "value"
[[database.subscription]]
topic = "com.news."
match = "prefix"
sql = """
insert into seen (topic, args, kwargs, publication, depth) values (:topic, :args, :kwargs, :publication, :depth);
select wamp_error('com.error.poisoned', 'it is poisoned') where :args ->> 0 = 'poison'
"""
attempts = 2
[[database.subscription]]
topic = "com.echo"
sql = "select publish('com.echo', :args)"
[[database.subscription]]
topic = "com.long"
sql = "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c"
attempts = 1
timeout_ms = 20
[[database.subscription]]
topic = "com.work"
sql = """
insert into seen (topic, args) select 'com.work', max(n)
from (with recursive c(n) as (select 1 union all select n + 1 from c limit 300000) select n from c)
"""
[[database.procedure]]
uri = "com.shop.put"
sql = "insert into seen (topic) values ('put')"
result = "nothing"
[[database.procedure]]
uri = "com.shop.worked"
sql = "select count(*) from seen where topic = 'com.work'"
result = "value"
[[database.subscription]]
topic = "com.wrong"
sql = "select :price"
[[database.subscription]]
topic = "com.wrong.more"
sql = "select ?"
[[database.subscription]]
topic = "org.forbidden"
sql = "select 1"
"#;

/// A router, and a client that waits until the table is there and what needs it is subscribed.
fn start() -> (Router, Party) {
    let router = Start::new(FILE).router();
    router.wait_for_log("not subscribed, as the configuration says: com.news.: no such table: seen");
    router.wait_for_log("com.wrong: an event has no parameter :price: there are :topic, :args, ");
    router.wait_for_log("com.wrong.more: an event has no parameter ?");
    router.wait_for_log("org.forbidden cannot be subscribed inside: wamp.error.not_authorized");
    let mut client = Party::join(&router);
    wait_until("the table", || client.ask(48, "{},\"com.shop.create\"").starts_with("[50,"));
    client.wait_for_subscription("com.news.x", true);
    client.wait_for_subscription("com.echo", true);
    (router, client)
}

fn wait_for(client: &mut Party, procedure: &str, answer: &str) {
    let mut last = String::new();
    wait_until(answer, || {
        last = client.ask(48, &format!("{{}},\"{procedure}\""));
        last.ends_with(&format!(",[{answer}]]"))
    });
}

#[test]
fn events_run_statements_of_a_file_in_their_order() {
    let (router, mut client) = start();
    client.send(16, "{},\"com.news.a\",[1,\"grün\"],{\"n\":1.50}");
    client.send(16, "{},\"com.news.b\",[\"poison\"]");
    client.send(16, "{},\"com.news.c\"");
    let seen = r#""com.news.a [1,\"grün\"] {\"n\":1.50} 0, com.news.c [] {} 0""#;
    wait_for(&mut client, "com.shop.seen", seen);
    wait_for(&mut client, "com.shop.known", "2");
    let told =
        "the statement of com.news. failed 2 times with com.news.b: com.error.poisoned: it is poisoned";
    let log = router.wait_for_log(told);
    assert!(log.contains("not tried any more") && !log.contains("wamp.dead_letter"), "{log}");
    wait_until("the counts", || {
        router.signal(rustix::process::Signal::USR1);
        router.wait_for_log("of this database:");
        let log = router.log();
        log.contains("inside_events=3 inside_overflown=0 ")
            && log.contains("inside_dead_letters=1 inside_waiting=0")
    });
    router.stop();
}

#[test]
fn statements_of_an_event_take_no_longer_than_they_may() {
    let (router, mut client) = start();
    client.send(16, "{},\"com.long\"");
    router.wait_for_log("the statement of com.long failed 1 times with com.long: it took longer than 20 ms");
    // What comes behind it runs.
    client.send(16, "{},\"com.news.a\"");
    wait_for(&mut client, "com.shop.known", "1");
    router.stop();
}

#[test]
fn statements_of_events_leave_others_their_turn_to_write() {
    let (router, mut client) = start();
    client.wait_for_subscription("com.work", true);
    for _ in 0..100 {
        client.send(16, "{},\"com.work\"");
    }
    // Each of them waits for some events, and not for all of them: that would be longer than a file waits for its lock.
    for _ in 0..20 {
        let answer = client.ask(48, "{},\"com.shop.put\"");
        assert!(answer.starts_with("[50,"), "{answer}");
    }
    wait_for(&mut client, "com.shop.worked", "100");
    router.stop();
}

#[test]
fn a_circle_of_statements_ends() {
    let (router, mut client) = start();
    client.send(16, "{},\"com.echo\",[7]");
    router.wait_for_log("the statement of com.echo does not get com.echo: 2 events led to this one");
    wait_for(&mut client, "com.shop.deep", "\"1 2\"");
    router.stop();
}

#[test]
fn functions_are_subscribed_by_the_configuration_when_they_are_there() {
    let shop = Shop::new();
    let more = r#"
[[database.subscription]]
topic = "com.news."
match = "prefix"
function = "public.on_event"
attempts = 1
[[database.subscription]]
topic = "com.late"
function = "public.late(jsonb)"
timeout_ms = 1000
[[database.subscription]]
topic = "com.wrong"
function = "api.double"
[[database.subscription]]
topic = "com.no.name"
function = "on..event"
"#;
    let router = shop.router(&format!("{CONFIG}{more}"));
    for problem in [
        "com.late: there is no function public.late(jsonb)",
        "com.wrong: api.double(integer) does not take 1 to 3 parameters of type jsonb",
        "com.no.name: ",
    ] {
        router.wait_for_log(&format!("not subscribed, as the configuration says: {problem}"));
    }
    let mut client = Party::join(&router);
    client.wait_for_subscription("com.news.x", true);
    client.send(16, "{},\"com.news.a\",[\"poison\"]");
    client.send(16, "{},\"com.news.b\",[1]");
    shop.wait_for("select what, args from public.seen", "com.news.b|[1]");
    let dead = "select function, topic, attempts from wamp.dead_letter";
    assert_eq!(shop.ask(dead), "public.on_event(jsonb,jsonb,jsonb)|com.news.a|1");
    // By the database as well: both call it.
    shop.ask("select wamp.subscribe('com.news.both', 'public.on_event(jsonb,jsonb,jsonb)')");
    wait_until("both", || {
        client.send(16, "{},\"com.news.both\"");
        shop.ask(
            "select count(*) from public.seen where what = 'com.news.both' group by more ->> 'publication'",
        )
        .contains('2')
    });
    // As soon as it is there; and for as long as it may take.
    shop.ask(
        "create function public.late(args jsonb) returns void language plpgsql as
         $$ begin perform pg_sleep((args ->> 0)::float); insert into public.seen (what) values ('late'); end $$",
    );
    client.wait_for_subscription("com.late", true);
    client.send(16, "{},\"com.late\",[60]");
    client.send(16, "{},\"com.late\",[0]");
    shop.wait_for("select count(*) from public.seen where what = 'late'", "1");
    let why = shop.ask("select error from wamp.dead_letter where topic = 'com.late'");
    assert!(why.contains("57014"), "{why}");
    shop.ask("drop function public.late(jsonb)");
    client.wait_for_subscription("com.late", false);
    router.stop();
}
