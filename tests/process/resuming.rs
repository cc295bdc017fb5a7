//! Subscribers that were away get what a database has published meanwhile, and go on without a gap.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::harness::{Client, Folder, Start, wait_until};
use crate::server::Server;

const REALM: &str = r#"
[[realm]]
name = "realm1"
[[realm.role]]
name = "anonymous"
[[realm.role.permission]]
uri = ""
match = "prefix"
allow = "all"
"#;

/// Events of these tests say their number: what is written before somebody resumes, and while many do.
const BEFORE: u64 = 1_200;
const ALL: u64 = 2_400;

/// Runs SQL against a file, as another process would.
fn write_file(path: &Path, sql: &str) {
    let script =
        "import sqlite3,sys; c=sqlite3.connect(sys.argv[1],timeout=60); c.executescript(sys.stdin.read())";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(path).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), sql.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{sql}");
}

/// SUBSCRIBED, however often the database has to be asked until it is there.
fn resume(client: &mut Client, topic: &str, after: u64) -> Vec<Value> {
    let mut request = 0;
    let mut answer = String::new();
    wait_until("the database", || {
        request += 1;
        answer = client.ask(&format!(r#"[32,{request},{{"_after":{after}}},"{topic}"]"#));
        !answer.contains("wamp.error.unavailable")
    });
    let answer: Vec<Value> = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer[0], 33, "{answer:?}");
    answer
}

/// Receives events until the one with this number; each must come once and in order.
fn expect_all(client: &mut Client, after: u64, upto: u64) {
    let mut last = after;
    while last < upto {
        let event = client.receive().message();
        let event: Vec<Value> = serde_json::from_str(&event).unwrap();
        assert_eq!(event[0], 36, "{event:?}");
        let (position, number) = (event[3]["_event_id"].as_u64(), event[4][0].as_u64());
        assert_eq!((position, number), (Some(last + 1), Some(last + 1)), "{event:?}");
        last += 1;
    }
}

/// Many resume at different places, in turns, while somebody goes on writing.
fn many_resume(address: SocketAddr, write: impl Fn(u64) + Send) {
    thread::scope(|scope| {
        scope.spawn(move || (BEFORE + 1..=ALL).for_each(write));
        for number in 0..24 {
            scope.spawn(move || {
                let after = number * 50;
                let mut client = Client::join(address, "realm1");
                resume(&mut client, "com.shop.said", after);
                expect_all(&mut client, after, ALL);
            });
        }
    });
}

#[test]
fn of_a_file() {
    let folder = Folder::new();
    let file = folder.path().join("shop.sqlite3");
    let config = format!(
        "{REALM}[[database]]\nname = \"shop\"\ntype = \"sqlite\"\nrealm = \"realm1\"\npublish = true\npath = {:?}\n\
         [[database.procedure]]\nuri = \"com.shop.say\"\nsql = \"select publish('com.shop.said', json_array(:number))\"\nresult = \"nothing\"\n",
        file.display().to_string()
    );
    let mut router = Start::new(&config).router();
    let mut client = Client::join(router.address(), "realm1");
    assert!(client.ask(r#"[32,1,{},"com.shop.said"]"#).starts_with("[33,1,"));
    let mut listener = client;
    let mut caller = Client::join(router.address(), "realm1");
    let mut request = 0;
    wait_until("the procedure", || {
        request += 1;
        caller.ask(&format!(r#"[48,{request},{{}},"com.shop.say",[1]]"#)).starts_with("[50,")
    });
    expect_all(&mut listener, 0, 1);
    router.kill();
    // It is gone, and somebody else writes.
    let say = |number: u64| {
        format!("insert into wamp_outbox (topic, args) values ('com.shop.said', json_array({number}));")
    };
    write_file(&file, &format!("begin; {} commit;", (2..=BEFORE).map(say).collect::<String>()));
    let router = Start::new(&config).router();
    let mut client = Client::join(router.address(), "realm1");
    resume(&mut client, "com.shop.said", 1);
    expect_all(&mut client, 1, BEFORE);
    many_resume(router.address(), |number| {
        if number % 100 == 0 {
            write_file(&file, &(number - 99..=number).map(say).collect::<String>());
        }
    });
    // A position that nobody has seen: the file is another one.
    let mut late = Client::join(router.address(), "realm1");
    let refused = late.ask(&format!(r#"[32,1,{{"_after":{}}},"com.shop.said"]"#, ALL + 1));
    assert!(refused.starts_with(r#"[8,32,1,{},"crosspoint.error.events_not_kept""#), "{refused}");
}

/// A server with the schema, where it is, and what a router has to know.
fn installed() -> (Server, String, String) {
    let server = Server::start();
    let url = server.url("postgres");
    let install = ["db", "install", "--router", "postgres", "--everybody-publishes", "yes", "--url", &url];
    let installed = Command::new(env!("CARGO_BIN_EXE_crosspoint")).args(install).output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let config = format!(
        "{REALM}[[database]]\nname = \"shop\"\ntype = \"postgresql\"\nrealm = \"realm1\"\nurl_env = \"SHOP_URL\"\npublish = true\n"
    );
    (server, url, config)
}

#[test]
fn of_a_server_that_says_nothing() {
    let (server, url, config) = installed();
    // Nobody else finds out that it does not.
    let config = format!("{config}refresh_ms = 3600000\nreplay_timeout_ms = 300\n");
    let router = Start::new(&config).variable("SHOP_URL", &url).router();
    server.psql("select wamp.publish('com.shop.said', '[1]')");
    let join = || Client::join(router.address(), "realm1");
    let mut client = join();
    resume(&mut client, "com.shop.said", 0);
    expect_all(&mut client, 0, 1);
    server.pause();
    let mut clients: Vec<_> = (0..3).map(|_| join()).collect();
    for client in &mut clients {
        client.send(r#"[32,1,{"_after":0},"com.shop.said"]"#);
    }
    for client in &mut clients {
        let refused = client.receive().message();
        let is_unavailable = refused.starts_with(r#"[8,32,1,{},"wamp.error.unavailable""#);
        assert!(is_unavailable && refused.contains("within its replay_timeout_ms"), "{refused}");
    }
    server.resume();
    let mut client = join();
    resume(&mut client, "com.shop.said", 0);
    expect_all(&mut client, 0, 1);
    router.stop();
}

#[test]
fn of_a_server() {
    let (server, url, config) = installed();
    let start = || Start::new(&config).variable("SHOP_URL", &url).router();
    let mut router = start();
    let mut listener = Client::join(router.address(), "realm1");
    assert!(listener.ask(r#"[32,1,{},"com.shop.said"]"#).starts_with("[33,1,"));
    let say = |first: u64, last: u64| {
        server.psql(&format!(
            "select count(wamp.publish('com.shop.said', jsonb_build_array(n))) from generate_series({first}, {last}) as n"
        ));
    };
    say(1, 1);
    expect_all(&mut listener, 0, 1);
    router.kill();
    say(2, BEFORE);
    let router = start();
    let mut client = Client::join(router.address(), "realm1");
    resume(&mut client, "com.shop.said", 1);
    expect_all(&mut client, 1, BEFORE);
    many_resume(router.address(), |number| {
        if number % 100 == 0 {
            say(number - 99, number);
        }
    });
    assert_eq!(server.psql("select wamp.position()").trim(), ALL.to_string());
    // What is not kept is not resumed.
    server.psql("update wamp.drain set pruned = 5");
    let mut late = Client::join(router.address(), "realm1");
    let refused = late.ask(r#"[32,1,{"_after":4},"com.shop.said"]"#);
    assert!(refused.starts_with(r#"[8,32,1,{},"crosspoint.error.events_not_kept""#), "{refused}");
    let refused = late.ask(&format!(r#"[32,2,{{"_after":{}}},"com.shop.said"]"#, ALL + 1));
    assert!(refused.starts_with(r#"[8,32,2,{},"crosspoint.error.events_not_kept""#), "{refused}");
}
