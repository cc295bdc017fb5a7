//! What a PostgreSQL database does by itself, as clients of the router see it: it calls, it subscribes, it registers.

use std::process::Command;
use std::thread;

use crate::harness::{Client, Router, Start, wait_until};
use crate::server::{Server, Setup};

pub(super) const CONFIG: &str = r#"
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
allow = ["call", "subscribe"]
[[realm.role.permission]]
uri = "com.secret."
match = "prefix"
allow = []
[[database]]
name = "shop"
type = "postgresql"
realm = "realm1"
url_env = "SHOP_URL"
refresh_ms = 3600000
publish = true
[database.inside]
role = "database"
attempts = 2
[[database.expose]]
schema = "api"
prefix = "com.shop."
"#;

const API: &str = "
create schema api;
create table public.seen (number int generated always as identity, what text, args jsonb, kwargs jsonb, more jsonb);
create function public.on_event(args jsonb, kwargs jsonb, details jsonb) returns void language plpgsql as $$
begin
    if args -> 0 = '\"poison\"' then
        raise exception 'it is poisoned';
    end if;
    insert into public.seen (what, args, kwargs, more) values (details ->> 'topic', args, kwargs, details);
end $$;
create function public.on_echo(args jsonb) returns void language sql as
    'select wamp.publish(''com.echo'', args)';
create function public.on_result(id jsonb, args jsonb, kwargs jsonb, error jsonb) returns void language sql as
    'insert into public.seen (what, args, kwargs, more) values (''result'', args, kwargs, error)';
create function api.double(number int) returns int language sql immutable as 'select 2 * number';";

pub(super) struct Shop {
    pub(super) server: Server,
    url: String,
}

impl Shop {
    pub(super) fn new() -> Self {
        Self::on(Server::start(), "no")
    }

    /// Events go through the log of the server.
    fn through_the_log() -> Self {
        Self::on(Setup::default().setting("wal_level", "logical").start(), "yes")
    }

    fn on(server: Server, log: &str) -> Self {
        let url = server.url("postgres");
        let mut command = Command::new(env!("CARGO_BIN_EXE_crosspoint"));
        let words = ["db", "install", "--router", "postgres", "--everybody-publishes", "yes", "--url", &url];
        let output = command.args(words).args(["--log", log]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        server.psql(API);
        Self { server, url }
    }

    pub(super) fn router(&self, config: &str) -> Router {
        let router = Start::new(config).variable("SHOP_URL", &self.url).router();
        router.wait_for_log("the database is there");
        router.wait_for_log("its functions subscribe");
        router
    }

    pub(super) fn ask(&self, sql: &str) -> String {
        self.server.psql(sql).trim().to_owned()
    }

    pub(super) fn wait_for(&self, sql: &str, answer: &str) {
        wait_until(sql, || self.ask(sql) == answer);
    }

    /// What a program says that waits in the database, and what somebody does meanwhile.
    fn while_waiting(&self, sql: &str, work: impl FnOnce()) -> String {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut command = Command::new("psql");
                let output = command.args(["-XAtq", "-c", sql, &self.url]).output().unwrap();
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
            });
            work();
            waiting.join().unwrap()
        })
    }
}

/// The INVOCATION that comes next: its number, and what stands behind it.
fn invoked(callee: &mut Client) -> (u64, String) {
    let invocation = callee.receive().message();
    let rest = invocation.strip_prefix("[68,").unwrap_or_else(|| panic!("{invocation}"));
    let (number, rest) = rest.split_once(',').unwrap();
    (number.parse().unwrap(), rest.to_owned())
}

#[test]
fn statements_call_procedures_of_clients_and_of_the_database() {
    let shop = Shop::new();
    let router = shop.router(CONFIG);
    // Connections fall on all cores; so do callees.
    let mut callees: Vec<_> = (0..4).map(|_| Client::join(router.address(), "realm1")).collect();
    for (number, callee) in callees.iter_mut().enumerate() {
        let uri = format!("com.add{number}");
        assert!(callee.ask(&format!("[64,1,{{}},\"{uri}\"]")).starts_with("[65,1,"));
        let call = format!("call wamp.call_wait('{uri}', '[1, 2.50]', '{{\"k\": [1]}}', null, 60000)");
        let answer = shop.while_waiting(&call, || {
            let (request, rest) = invoked(callee);
            assert!(rest.ends_with(",[1, 2.50],{\"k\": [1]}]"), "{rest}");
            callee.send(&format!("[70,{request},{{}},[12345678901234567890.50],{{\"b\":null}}]"));
        });
        assert_eq!(answer.trim(), r#"{"args": [12345678901234567890.50], "kwargs": {"b": null}}"#);
    }
    let answer = shop.while_waiting("call wamp.call_wait('com.add0', '[]', null, null, 60000)", || {
        let (request, _) = invoked(&mut callees[0]);
        callees[0].send(&format!("[8,68,{request},{{}},\"com.error.sold_out\",[7]]"));
    });
    assert!(answer.contains("com.error.sold_out"), "{answer}");

    // Of the database itself, once it is offered.
    wait_until("the procedure", || {
        let call = "call wamp.call_wait('com.shop.double', '[21]', null, null, 60000)";
        shop.while_waiting(call, || {}).contains("{\"args\": [42], \"kwargs\": {}}")
    });
    // What the role may not, and what nobody has registered.
    for (uri, error) in
        [("com.secret.x", "wamp.error.not_authorized"), ("com.nobody", "wamp.error.no_such_procedure")]
    {
        let answer = shop.while_waiting(&format!("call wamp.call_wait('{uri}', null, null)"), || {});
        assert!(answer.contains(error), "{answer}");
    }
    // Nobody answers: the callee is interrupted, and the caller told. The time is for the way to the callee, too.
    let answer = shop.while_waiting("call wamp.call_wait('com.add1', null, null, null, 5000)", || {
        invoked(&mut callees[1]);
    });
    assert!(answer.contains("wamp.error.timeout"), "{answer}");

    // A function gets the answer, in the transaction that notes it; and who asks gets it, too.
    let call =
        "select wamp.call_async('com.add2', '[\"a\"]', null, 'public.on_result(jsonb,jsonb,jsonb,jsonb)')";
    let id = shop.ask(call);
    let (request, rest) = invoked(&mut callees[2]);
    assert!(rest.ends_with(",[\"a\"]]"), "{rest}");
    callees[2].send(&format!("[70,{request},{{}},[\"b\"]]"));
    shop.wait_for("select args, kwargs, more from public.seen where what = 'result'", "[\"b\"]|{}|null");
    assert_eq!(shop.ask(&format!("select wamp.call_result({id}) -> 'args'")), "[\"b\"]");
    // With its transaction, or not at all.
    shop.ask("begin; select wamp.call_async('com.add3', '[1]'); rollback");
    shop.ask("select wamp.call_async('com.add3', '[2]')");
    assert!(invoked(&mut callees[3]).1.ends_with(",[2]]"));
    router.stop();
}

#[test]
fn who_calls_is_the_database_user() {
    let shop = Shop::new();
    shop.ask("create role ann login; select wamp.allow('ann', 'call', 'com.', 'prefix')");
    let router = shop.router(CONFIG);
    let mut callee = Client::join(router.address(), "realm1");
    assert!(callee.ask(r#"[64,1,{"disclose_caller":true},"com.who"]"#).starts_with("[65,1,"));
    let by_ann = shop.url.replace("postgres@", "ann@");
    for (url, user) in [(&by_ann, "ann"), (&shop.url, "postgres"), (&by_ann, "ann")] {
        let output =
            Command::new("psql").args(["-XAtq", "-c", "select wamp.call_async('com.who')", url]).output();
        assert!(output.unwrap().status.success());
        let (request, rest) = invoked(&mut callee);
        let authid = format!("\"caller_authid\":\"{user}\"");
        assert!(rest.contains(&authid) && rest.contains("\"caller_authrole\":\"database\""), "{rest}");
        callee.send(&format!("[70,{request},{{}}]"));
    }
    shop.wait_for("select count(*) from wamp.call where finished_at is null", "0");
    router.stop();
}

#[test]
fn calls_are_made_again_by_the_next_router_until_they_are_answered() {
    let shop = Shop::new();
    // Nobody is there: one waits, the other one does not wait for so long.
    shop.ask("select wamp.call_async('com.work', '[1]')");
    shop.ask("select wamp.call_async('com.work', '[2]', timeout_ms => 1)");
    let mut router = shop.router(CONFIG);
    // No callee is there either: that is an answer.
    shop.wait_for(
        "select outcome ->> 'error' from wamp.call order by id limit 1",
        "wamp.error.no_such_procedure",
    );
    shop.wait_for("select outcome ->> 'error' from wamp.call order by id desc limit 1", "wamp.error.timeout");
    let mut callee = Client::join(router.address(), "realm1");
    assert!(callee.ask(r#"[64,1,{},"com.work"]"#).starts_with("[65,1,"));
    shop.ask("select wamp.call_async('com.work', '[3]')");
    assert!(invoked(&mut callee).1.ends_with(",[3]]"));
    router.kill();
    let router = shop.router(&CONFIG.replace("[database.inside]", "[database.inside]\ncalls_max = 1"));
    // It is made once more, and nobody is there: that is an answer.
    shop.wait_for("select count(*) from wamp.call where finished_at is null", "0");
    shop.wait_for(
        "select outcome ->> 'error' from wamp.call order by id desc limit 1",
        "wamp.error.no_such_procedure",
    );
    let mut callee = Client::join(router.address(), "realm1");
    assert!(callee.ask(r#"[64,1,{},"com.work"]"#).starts_with("[65,1,"));
    shop.ask("select wamp.call_async('com.work', jsonb_build_array(n)) from generate_series(10, 12) n");
    // One at a time.
    for number in 10..=12 {
        let (request, rest) = invoked(&mut callee);
        assert!(rest.ends_with(&format!(",[{number}]]")), "{rest}");
        callee.send(&format!("[70,{request},{{}},[{number}]]"));
    }
    shop.wait_for("select count(*) from wamp.call where finished_at is null", "0");
    router.stop();
}

/// A client that counts its requests.
pub(super) struct Party {
    pub(super) client: Client,
    request: u64,
}

impl Party {
    pub(super) fn join(router: &Router) -> Self {
        Self { client: Client::join(router.address(), "realm1"), request: 0 }
    }

    /// Sends `[KIND, request, REST]`.
    pub(super) fn send(&mut self, kind: u64, rest: &str) {
        self.request += 1;
        self.client.send(&format!("[{kind},{},{rest}]", self.request));
    }

    /// The same, and what comes next.
    pub(super) fn ask(&mut self, kind: u64, rest: &str) -> String {
        self.send(kind, rest);
        self.client.receive().message()
    }

    /// Waits until a topic is subscribed, or is no more.
    pub(super) fn wait_for_subscription(&mut self, topic: &str, is_there: bool) {
        wait_until(topic, || {
            let found = self.ask(48, &format!("{{}},\"wamp.subscription.match\",[\"{topic}\"]"));
            found.ends_with("[null]]") != is_there
        });
    }
}

#[test]
fn events_call_functions_in_their_order_and_failing_ones_are_put_aside() {
    let shop = Shop::new();
    let router = shop.router(CONFIG);
    let mut clients: Vec<_> = (0..4).map(|_| Party::join(&router)).collect();
    // While the router runs.
    shop.ask("select wamp.subscribe('com.news.', 'public.on_event(jsonb,jsonb,jsonb)', 'prefix')");
    clients[0].wait_for_subscription("com.news.x", true);
    // By clients of all cores, each in its order, and among them one that the function does not take.
    for (number, party) in clients.iter_mut().enumerate() {
        for round in 0..300 {
            let args = if number == 3 && round == 100 { "\"poison\"".to_owned() } else { round.to_string() };
            party.send(16, &format!("{{}},\"com.news.{number}\",[{args}],{{\"n\":1.50}}"));
        }
    }
    shop.wait_for("select count(*) from public.seen", "1199");
    let order =
        "select string_agg(args ->> 0, ' ' order by number) from public.seen where what = 'com.news.3'";
    let all: Vec<_> = (0..300).filter(|round| *round != 100).map(|round: u64| round.to_string()).collect();
    assert_eq!(shop.ask(order), all.join(" "));
    assert_eq!(shop.ask("select distinct kwargs from public.seen"), "{\"n\": 1.50}");
    let dead = "select function, topic, args, attempts, error from wamp.dead_letter";
    let letter = "public.on_event(jsonb,jsonb,jsonb)|com.news.3|[\"poison\"]|2|it is poisoned (P0001)";
    assert_eq!(shop.ask(dead), letter);
    router.wait_for_log("in wamp.dead_letter");

    // The session is one like others: the meta API tells of it, and it comes again when it was ended.
    let sessions = "{},\"wamp.session.list\",[[\"database\"]]";
    let listed = clients[0].ask(48, sessions);
    let id = listed.rsplit_once("[[").unwrap().1.split(']').next().unwrap().to_owned();
    let told = clients[0].ask(48, &format!("{{}},\"wamp.session.get\",[{id}]"));
    assert!(told.contains("\"authid\":\"shop\"") && told.contains("\"authprovider\":\"database\""), "{told}");
    clients[0].ask(48, &format!("{{}},\"wamp.session.kill\",[{id}]"));
    wait_until("another session", || {
        let listed = clients[0].ask(48, sessions);
        !listed.contains(&id) && !listed.ends_with("[[]]]")
    });
    clients[0].wait_for_subscription("com.news.x", true);
    clients[0].send(16, "{},\"com.news.again\"");
    shop.wait_for("select args, kwargs from public.seen where what = 'com.news.again'", "[]|{}");

    shop.ask("select wamp.unsubscribe('com.news.', 'public.on_event(jsonb,jsonb,jsonb)', 'prefix')");
    clients[0].wait_for_subscription("com.news.x", false);
    router.stop();
}

#[test]
fn what_a_database_publishes_itself_calls_its_functions_only_where_that_is_wanted() {
    let shop = Shop::new();
    shop.ask("select wamp.subscribe('com.said', 'public.on_echo(jsonb)')");
    shop.ask("select wamp.subscribe('com.echo', 'public.on_event(jsonb,jsonb,jsonb)')");
    for own_events in [false, true] {
        let router = shop.router(&CONFIG.replace("attempts = 2", &format!("own_events = {own_events}")));
        let mut client = Party::join(&router);
        client.wait_for_subscription("com.said", true);
        client.wait_for_subscription("com.echo", true);
        assert!(client.ask(32, "{},\"com.echo\"").starts_with("[33,"));
        client.send(16, "{},\"com.said\",[1]");
        // A client hears what the function has published.
        let event = client.client.receive().message();
        assert!(event.ends_with(",[1]]") && event.contains("_event_id"), "{event}");
        client.send(16, "{\"exclude_me\":true},\"com.echo\",[2]");
        shop.wait_for("select count(*) from public.seen where args = '[2]'", "1");
        let count = if own_events { "1" } else { "0" };
        shop.wait_for("select count(*) from public.seen where args = '[1]'", count);
        shop.ask("truncate public.seen");
        // What came of an event says so.
        assert_eq!(shop.ask("select distinct depth from wamp.outbox"), "1");
        router.stop();
    }
}

#[test]
fn a_circle_of_events_and_functions_ends() {
    let shop = Shop::new();
    shop.ask("select wamp.subscribe('com.echo', 'public.on_echo(jsonb)')");
    shop.ask("select wamp.subscribe('com.said', 'public.on_echo(jsonb)')");
    let config = CONFIG.replace("attempts = 2", "own_events = true\ndepth_max = 3");
    let router = shop.router(&config);
    let mut client = Party::join(&router);
    client.wait_for_subscription("com.echo", true);
    client.wait_for_subscription("com.said", true);
    client.send(16, "{},\"com.said\",[1]");
    let dead = "select function, topic, args, details ->> '_depth', attempts from wamp.dead_letter";
    shop.wait_for(dead, "public.on_echo(jsonb)|com.echo|[1]|3|0");
    let why = shop.ask("select error from wamp.dead_letter");
    assert!(why.starts_with("3 events led to this one") && why.contains("depth_max"), "{why}");
    router.wait_for_log("public.on_echo(jsonb) does not get com.echo");
    // Clients see how deep it is, and what comes of nothing begins anew.
    let depths = "select string_agg(depth::text, ' ' order by position) from wamp.outbox";
    assert_eq!(shop.ask(depths), "1 2 3");
    assert!(client.ask(32, "{},\"com.echo\"").starts_with("[33,"));
    shop.ask("select wamp.publish('com.echo', '[2]')");
    for depth in ["", "\"_depth\":1", "\"_depth\":2", "\"_depth\":3"] {
        let event = client.client.receive().message();
        assert!(event.contains(depth) && event.contains("_depth") != depth.is_empty(), "{event}");
    }
    shop.wait_for("select count(*) from wamp.dead_letter", "2");
    assert_eq!(shop.ask(depths), "1 2 3 0 1 2 3");
    router.stop();
}

#[test]
fn what_an_answer_brings_about_is_as_deep_as_its_call() {
    let shop = Shop::new();
    shop.ask(
        "create function public.on_answer(id jsonb) returns void language sql as
             $$ select wamp.publish('com.answer', jsonb_build_array(id)) $$;
         create function public.on_news(args jsonb) returns void language sql as
             $$ select wamp.call_async('com.nobody', args, on_result => 'public.on_answer(jsonb)') $$;
         select wamp.subscribe('com.news', 'public.on_news(jsonb)')",
    );
    let router = shop.router(CONFIG);
    let mut client = Party::join(&router);
    client.wait_for_subscription("com.news", true);
    client.send(16, "{},\"com.news\",[1]");
    shop.wait_for("select depth from wamp.outbox where uri = 'com.answer'", "1");
    assert_eq!(shop.ask("select depth from wamp.call"), "1");
    router.stop();
}

#[test]
fn what_happens_inside_is_counted() {
    let shop = Shop::new();
    shop.ask("select wamp.subscribe('com.news', 'public.on_event(jsonb,jsonb,jsonb)')");
    let router = shop.router(CONFIG);
    let mut client = Party::join(&router);
    client.wait_for_subscription("com.news", true);
    for args in ["1", "\"poison\"", "2"] {
        client.send(16, &format!("{{}},\"com.news\",[{args}]"));
        // One after the other, so that none is run together with another one.
        let seen = "select (select count(*) from public.seen) + (select count(*) from wamp.dead_letter)";
        let count = if args == "1" {
            "1"
        } else if args == "2" {
            "3"
        } else {
            "2"
        };
        shop.wait_for(seen, count);
    }
    shop.ask("select wamp.call_async('com.nobody')");
    shop.wait_for("select count(*) from wamp.call where finished_at is null", "0");
    let counts = "inside_calls=1 inside_calls_under_way=0 inside_events=3 inside_overflown=0 inside_failures=2 \
                  inside_retries=1 inside_dead_letters=1 inside_waiting=0";
    // What is noted in the database is forgotten by the router a moment later.
    wait_until("the counts", || {
        router.signal(rustix::process::Signal::USR1);
        router.wait_for_log("of this database:");
        router.log().contains(counts)
    });
    router.stop();
}

#[test]
fn through_the_log_of_the_server_all_of_it_works_too() {
    let shop = Shop::through_the_log();
    let mut router = shop.router(&CONFIG.replace("attempts = 2", "attempts = 2\nown_events = true"));
    let mut party = Party::join(&router);
    // Statements call, and get the answer, in all three ways.
    assert!(party.ask(64, "{},\"com.add\"").starts_with("[65,"));
    let answer = shop.while_waiting("call wamp.call_wait('com.add', '[1, 2]', null, null, 60000)", || {
        let (request, rest) = invoked(&mut party.client);
        assert!(rest.ends_with(",[1, 2]]"), "{rest}");
        party.client.send(&format!("[70,{request},{{}},[3]]"));
    });
    assert_eq!(answer.trim(), r#"{"args": [3], "kwargs": {}}"#);
    let id = shop.ask(
        "select wamp.call_async('com.add', '[\"a\"]', null, 'public.on_result(jsonb,jsonb,jsonb,jsonb)')",
    );
    let (request, _) = invoked(&mut party.client);
    party.client.send(&format!("[70,{request},{{}},[\"b\"]]"));
    shop.wait_for("select args, more from public.seen where what = 'result'", "[\"b\"]|null");
    assert_eq!(shop.ask(&format!("select wamp.call_result({id}) -> 'args'")), "[\"b\"]");
    // With its transaction, or not at all.
    shop.ask(
        "begin; select wamp.call_async('com.add', '[1]'); rollback; select wamp.call_async('com.add', '[2]')",
    );
    assert!(invoked(&mut party.client).1.ends_with(",[2]]"));

    // Functions are registered.
    shop.ask("select wamp.register('com.twice', 'api.double')");
    wait_until("the procedure", || party.ask(48, "{},\"com.twice\",[21]").ends_with(",[42]]"));

    // Events call functions: those of clients, and those of the log; what came of one, through the log again, is deeper.
    shop.ask("select wamp.subscribe('com.said', 'public.on_echo(jsonb)')");
    shop.ask("select wamp.subscribe('com.echo', 'public.on_event(jsonb,jsonb,jsonb)')");
    party.wait_for_subscription("com.said", true);
    party.wait_for_subscription("com.echo", true);
    party.send(16, "{},\"com.said\",[1]");
    let seen = "select string_agg(concat_ws(' ', args, more ->> '_depth'), ', ' order by number) from public.seen where what = 'com.echo'";
    shop.wait_for(seen, "[1] 1");
    shop.ask("select wamp.publish('com.said', '[2]')");
    shop.wait_for(seen, "[1] 1, [2] 1");
    shop.ask("select wamp.publish('com.echo', '[\"poison\"]')");
    shop.wait_for("select topic, attempts from wamp.dead_letter", "com.echo|2");
    assert_eq!(shop.ask("select bool_and(logged) from wamp.outbox where kind = 'event'"), "t");

    // What nobody had answered when the router died is called by the next one, once more.
    shop.ask("select wamp.call_async('com.work', '[3]', timeout_ms => 600000)");
    assert!(party.ask(64, "{},\"com.work.more\"").starts_with("[65,"));
    shop.ask("select wamp.call_async('com.work.more', '[4]')");
    assert!(invoked(&mut party.client).1.ends_with(",[4]]"));
    router.kill();
    shop.ask("select wamp.publish('com.said', '[5]')");
    let router = shop.router(CONFIG);
    shop.wait_for("select count(*) from wamp.call where finished_at is null", "0");
    // What was published meanwhile is published now.
    shop.wait_for("select count(*) from wamp.outbox where uri = 'com.said' and position is not null", "2");
    router.stop();
}

#[test]
fn events_wait_while_the_database_is_away() {
    let mut shop = Shop::new();
    shop.ask("select wamp.subscribe('com.news', 'public.on_event(jsonb,jsonb,jsonb)')");
    let router = shop.router(&CONFIG.replace("attempts = 2", "queue_max = 5").replace("3600000", "100"));
    let mut client = Party::join(&router);
    client.wait_for_subscription("com.news", true);
    shop.server.kill();
    router.wait_for_log("the database is away");
    for number in 0..8 {
        client.send(16, &format!("{{}},\"com.news\",[{number}]"));
    }
    router.wait_for_log("events were not given to functions");
    shop.server.run();
    let seen = "select string_agg(args ->> 0, ' ' order by number) from public.seen";
    shop.wait_for(seen, "0 1 2 3 4");
    client.send(16, "{},\"com.news\",[9]");
    shop.wait_for(seen, "0 1 2 3 4 9");
    router.stop();
}

#[test]
fn functions_are_registered_by_statements_and_found_at_once() {
    let shop = Shop::new();
    let router = shop.router(CONFIG);
    let mut client = Party::join(&router);
    let mut is_there = |call: &str, is_there: bool| {
        wait_until(call, || {
            client.ask(48, &format!("{{}},{call}")).contains("no_such_procedure") != is_there
        });
    };
    // It is not looked again for an hour: somebody says so.
    shop.ask("create function public.\"Twice\"(a int) returns int language sql as 'select 2 * a'");
    is_there("\"com.twice\",[1]", false);
    shop.ask("select wamp.register('com.twice', 'public.\"Twice\"', '{\"timeout_ms\": 5000}')");
    is_there("\"com.twice\",[1]", true);
    shop.ask("create function public.\"Twice\"(a text) returns text language sql as 'select a || a'");
    shop.ask("select wamp.register('com.text', 'public.\"Twice\"(text)')");
    is_there("\"com.text\",[\"a\"]", true);
    let mut other = Party::join(&router);
    assert!(other.ask(48, "{},\"com.twice\",[21]").ends_with(",[42]]"));
    assert!(other.ask(48, "{},\"com.twice\",[\"ab\"]").ends_with(",[\"abab\"]]"));
    assert!(other.ask(48, "{},\"com.text\",[7]").ends_with(",[\"77\"]]"));
    // A superuser has installed the schema: changes of functions tell of themselves.
    shop.ask("create function api.late() returns int language sql as 'select 1'");
    is_there("\"com.shop.late\"", true);
    shop.ask("drop function api.late()");
    is_there("\"com.shop.late\"", false);
    shop.ask("select wamp.unregister('com.twice')");
    is_there("\"com.twice\",[1]", false);
    // Taken by what the configuration exposes already.
    shop.ask("select wamp.register('com.shop.double', 'public.\"Twice\"')");
    router.wait_for_log("com.shop.double is offered by something else already");
    router.stop();
}

#[test]
fn rows_of_the_outbox_tell_that_they_were_sent_and_to_how_many() {
    let shop = Shop::new();
    let router = shop.router(&CONFIG.replace("publish = true", "publish = true\nfeedback = true"));
    // Connections fall on all cores.
    let mut subscribers: Vec<_> = (0..6).map(|_| Party::join(&router)).collect();
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        assert!(subscriber.ask(32, "{\"match\":\"prefix\"},\"com.\"").starts_with("[33,"));
        if number < 4 {
            assert!(subscriber.ask(32, "{},\"com.news\"").starts_with("[33,"));
        }
    }
    shop.ask(
        "select wamp.publish('com.news', jsonb_build_array(n)) from generate_series(1, 1500) n;
         select wamp.publish('com.other'); select wamp.publish('org.nobody');
         select wamp.publish('com.news', options => '{\"exclude_authrole\": [\"anonymous\"]}')",
    );
    let sent = "select string_agg(concat(n, ' of ', receivers), ', ' order by receivers) from
        (select receivers, count(*) as n from wamp.publication where sent_at is not null and error is null group by receivers) r";
    shop.wait_for(sent, "2 of 0, 1501 of 6");
    // One less.
    subscribers.pop();
    let mut other = Party::join(&router);
    wait_until("its end", || other.ask(48, "{},\"wamp.session.count\"").ends_with(",[6]]"));
    let last = shop.ask("select wamp.publish('com.news')");
    shop.wait_for(&format!("select receivers from wamp.publication where id = {last}"), "5");
    router.stop();
}

#[test]
fn nobody_counts_where_nobody_asked() {
    let shop = Shop::new();
    let router = shop.router(CONFIG);
    let mut subscriber = Party::join(&router);
    assert!(subscriber.ask(32, "{},\"com.news\"").starts_with("[33,"));
    shop.ask("select wamp.publish('com.news')");
    assert!(subscriber.client.receive().message().contains("_event_id"));
    shop.wait_for("select sent from wamp.progress()", "1");
    assert_eq!(shop.ask("select sent_at is null, receivers is null from wamp.publication"), "t|t");
    router.stop();
}
