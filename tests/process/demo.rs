//! `crosspoint demo`: nothing to set up, a database that works, and nothing left behind.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::{Client, PATIENCE, Router, Start, WebSocketClient, wait_until};

/// The demo with these options, in a folder for temporary files of its own.
fn demo(options: &[&str], temporary: &Path) -> Router {
    let arguments: Vec<_> = ["demo"].iter().chain(options).copied().collect();
    Start::new("")
        .program(Path::new(env!("CARGO_BIN_EXE_crosspoint")), &arguments)
        .variable("TMPDIR", &temporary.display().to_string())
        .router()
}

/// What the log says about it: the page, and the file.
fn said(router: &Router) -> (String, PathBuf) {
    let line = router.wait_for_log("the demo is ready");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    (value["page"].as_str().unwrap().to_owned(), value["database"].as_str().unwrap().into())
}

fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Ends it as Ctrl-C does.
fn interrupt(mut router: Router) {
    router.signal(Signal::INT);
    let status = router.wait(PATIENCE).unwrap_or_else(|| panic!("it does not stop:\n{}", router.log()));
    assert_eq!(status.code(), Some(0), "{}", router.log());
}

/// A client, once the database is there.
fn client(router: &Router) -> Client {
    router.wait_for_log("the database is there");
    let mut client = Client::join(router.address(), "realm1");
    let mut number = 0;
    wait_until("the procedures", || {
        number += 1;
        let answer = client.ask(&format!(r#"[48,{number},{{}},"com.example.item.list"]"#));
        !answer.contains("no_such_procedure") && !answer.contains("unavailable")
    });
    // Requests are numbered from 1 in every session.
    Client::join(router.address(), "realm1")
}

#[test]
fn calls_rows_and_events() {
    let folder = crate::harness::Folder::new();
    let router = demo(&["--port", "0"], folder.path());
    let (page, database) = said(&router);
    assert_eq!(page, format!("http://{}/", router.address()));
    assert!(database.starts_with(folder.path()) && database.exists(), "{}", database.display());
    let answer = get(router.address());
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("<h1>Crosspoint demo</h1>"),
        "{answer}"
    );

    let mut caller = client(&router);
    let mut subscriber = Client::join(router.address(), "realm1");
    let subscribed = subscriber.ask(r#"[32,1,{"match":"prefix"},"com.example.item."]"#);
    assert!(subscribed.starts_with("[33,1,"), "{subscribed}");

    let who = caller.ask(r#"[48,1,{},"com.example.whoami"]"#);
    let answer: serde_json::Value = serde_json::from_str(&who).unwrap();
    let me = answer[3][0]["session"].as_u64().unwrap_or_else(|| panic!("{who}"));
    assert!(answer[3][0]["authid"].is_string() && answer[3][0]["authrole"] == "anonymous", "{who}");

    let added = caller.ask(r#"[48,2,{},"com.example.item.add",[],{"name":"milk","stock":1}]"#);
    assert_eq!(added, "[50,2,{},[4]]");
    let event = subscriber.receive().message();
    let row = format!(r#""new":{{"id":4,"name":"milk","stock":1,"changed_by":{me}}}"#);
    assert!(event.contains(r#""topic":"com.example.item.on_insert","_event_id":1"#), "{event}");
    assert!(event.contains(&row), "{event}");

    // Both events of one change, in order, and none of what is refused.
    let changed = caller.ask(r#"[48,3,{},"com.example.item.change",[],{"id":4,"by":-1}]"#);
    assert_eq!(changed, format!(r#"[50,3,{{}},[{{"id":4,"name":"milk","stock":0,"changed_by":{me}}}]]"#));
    let refused = caller.ask(r#"[48,4,{},"com.example.item.change",[],{"id":4,"by":-1}]"#);
    assert!(refused.starts_with(r#"[8,48,4,{},"wamp.error.invalid_argument""#), "{refused}");
    assert!(refused.contains("stock is a number from 0 to 1000"), "{refused}");
    assert_eq!(caller.ask(r#"[48,5,{},"com.example.item.delete",[4]]"#), "[50,5,{},[1]]");
    for (topic, number) in [("on_update", 2), ("sold_out", 3), ("on_delete", 4)] {
        let event = subscriber.receive().message();
        let details = format!(r#""topic":"com.example.item.{topic}","_event_id":{number}"#);
        assert!(event.contains(&details), "{event}");
    }

    // In parts for who takes them.
    caller.send(r#"[48,6,{"receive_progress":true},"com.example.primes",[10000]]"#);
    let parts: Vec<_> = (0..3).map(|_| caller.receive().message()).collect();
    for part in &parts[..2] {
        assert!(part.starts_with(r#"[50,6,{"progress":true},"#), "{parts:?}");
    }
    assert!(parts[0].contains(r#"[[{"prime":2},{"prime":3},{"prime":5},"#), "{parts:?}");
    assert!(parts[2].ends_with(r#"{"prime":9973}]],{"rows":1229}]"#), "{parts:?}");

    // There is room for twelve, and the trigger that says so is heard.
    for number in 7..=15 {
        let added = caller.ask(&format!(
            r#"[48,{number},{{}},"com.example.item.add",[],{{"name":"item {number}","stock":1}}]"#
        ));
        assert!(added.starts_with(&format!("[50,{number},")), "{added}");
    }
    let full = caller.ask(r#"[48,16,{},"com.example.item.add",[],{"name":"more","stock":1}]"#);
    assert!(full.contains("crosspoint.error.application") && full.contains("room for twelve"), "{full}");

    drop((caller, subscriber));
    interrupt(router);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "it cleans up");
}

#[test]
fn only_the_database_publishes_and_is_called() {
    let folder = crate::harness::Folder::new();
    let router = demo(&["--port", "0"], folder.path());
    let mut client = client(&router);
    for (request, message) in [
        (1, r#"[16,1,{"acknowledge":true},"com.example.item.on_insert"]"#),
        (2, r#"[64,2,{},"com.example.item.list"]"#),
        (3, r#"[48,3,{},"wamp.session.list"]"#),
    ] {
        let answer = client.ask(message);
        let kind = &message[1..3];
        let refusal = format!(r#"[8,{kind},{request},{{}},"wamp.error.not_authorized""#);
        assert!(answer.starts_with(&refusal), "{answer}");
    }
    // Pages of others stay out.
    let refused = WebSocketClient::connect(router.address(), &[("Origin", "https://elsewhere.example")]);
    assert!(refused.is_err(), "a page of another host may connect");
    drop(client);
    interrupt(router);
}

#[test]
fn a_port_that_is_taken_is_another_one_unless_it_was_asked_for() {
    let folder = crate::harness::Folder::new();
    // 8080 is taken while this is held. Somebody else who has it may give it back.
    let taken = TcpListener::bind(("127.0.0.1", 8080));
    let router = demo(&[], folder.path());
    assert!(taken.is_err() || router.address().port() != 8080);
    assert!(get(router.address()).contains("Crosspoint demo"));

    let port = router.address().port().to_string();
    let arguments = ["demo", "--port", &port];
    let (code, text) = Start::new("")
        .program(Path::new(env!("CARGO_BIN_EXE_crosspoint")), &arguments)
        .variable("TMPDIR", &folder.path().display().to_string())
        .refusal();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("listens there already"), "{text}");
    interrupt(router);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "both have cleaned up");
}

#[test]
fn a_database_that_is_named_is_kept() {
    let folder = crate::harness::Folder::new();
    let file = folder.path().join("my demo.sqlite3");
    let options = ["--port", "0", "--database", file.to_str().unwrap()];
    let router = demo(&options, folder.path());
    assert_eq!(said(&router).1, file);
    let mut first = client(&router);
    let added = first.ask(r#"[48,1,{},"com.example.item.add",["milk",2]]"#);
    assert_eq!(added, "[50,1,{},[4]]");
    drop(first);
    interrupt(router);
    assert!(file.exists());

    let router = demo(&options, folder.path());
    let mut second = client(&router);
    let listed = second.ask(r#"[48,1,{},"com.example.item.list"]"#);
    assert!(listed.contains(r#"{"id":4,"name":"milk","stock":2,"#), "{listed}");
    drop(second);
    interrupt(router);

    // And what is somebody else's is not touched.
    let text = folder.path().join("text");
    fs::write(&text, "not a database ".repeat(100)).unwrap();
    let arguments = ["demo", "--port", "0", "--database", text.to_str().unwrap()];
    let (code, said) =
        Start::new("").program(Path::new(env!("CARGO_BIN_EXE_crosspoint")), &arguments).refusal();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot be used for the demo"), "{said}");
    assert_eq!(fs::read_to_string(&text).unwrap(), "not a database ".repeat(100));
}
