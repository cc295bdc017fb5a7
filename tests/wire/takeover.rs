//! A client that comes back and registers what its last session still seems to hold: the link is pinged for that.

use super::client::{Address, Client, Framing, RawSocket, Received, WebSocket};
use super::router::{Router, Settings, open_realm};

const USER: &str = "[[realm.user]]\nauthid = \"joe\"\nrole = \"anonymous\"\nticket = \"secret\"";

fn start() -> Router {
    let realms = format!("{}{USER}", open_realm("realm1", "authmethods = [\"ticket\"]", ""));
    Router::start_with(Settings {
        limits: "takeover_timeout_ms = 500",
        realms: &realms,
        ..Settings::default()
    })
}

fn log_in(at: &Address, framing: Framing) -> Client {
    let mut client = Client::connect(at, framing);
    client
        .send(r#"[1,"realm1",{"roles":{"caller":{},"callee":{}},"authmethods":["ticket"],"authid":"joe"}]"#);
    assert_eq!(client.message()[0], 4);
    client.send(r#"[5,"secret",{}]"#);
    assert_eq!(client.message()[0], 2);
    client
}

fn register(client: &mut Client) {
    let request = client.request();
    client.send(&format!(r#"[64,{request},{{}},"a.procedure"]"#));
}

#[test]
fn who_does_not_answer_the_ping_loses_its_procedure() {
    let router = start();
    let mut old = log_in(&router.near, WebSocket);
    old.register("a.procedure");
    let mut new = log_in(&router.far, WebSocket);
    register(&mut new);
    // Whatever it says besides, and another pong as well, is not the answer.
    let Received::Ping(number) = old.receive() else { panic!("it was not pinged") };
    assert_eq!(number.len(), 8);
    old.pong(b"8 others");
    old.pong(b"");
    old.send(r#"[48,2,{},"a.procedure"]"#);
    assert_eq!(old.message()[0], 68);
    assert_eq!(new.message()[0], 65);
    router.wait_for("takeovers", 1);
    old.pong(&number);
    new.send(r#"[48,2,{},"a.procedure"]"#);
    assert_eq!(new.message()[0], 68);
    router.stop_with_clients();
}

#[test]
fn who_answers_the_ping_keeps_its_procedure() {
    let router = start();
    let mut old = log_in(&router.near, WebSocket);
    old.register("a.procedure");
    let mut new = log_in(&router.far, WebSocket);
    register(&mut new);
    let Received::Ping(number) = old.receive() else { panic!("it was not pinged") };
    old.pong(&number);
    let answer = new.message();
    assert_eq!((&answer[0], &answer[4]), (&8.into(), &"wamp.error.procedure_already_exists".into()));
    // It is asked anew every time.
    register(&mut new);
    assert!(matches!(old.receive(), Received::Ping(other) if other != number));
    assert_eq!(new.message()[0], 65);
    router.stop_with_clients();
}

#[test]
fn a_session_on_rawsocket_is_not_pinged_and_counts_as_there() {
    let router = start();
    let mut old = log_in(&router.near, RawSocket);
    old.register("a.procedure");
    let mut new = log_in(&router.far, WebSocket);
    register(&mut new);
    assert_eq!(new.message()[4], "wamp.error.procedure_already_exists");
    old.leave();
    register(&mut new);
    assert_eq!(new.message()[0], 65);
    router.stop_with_clients();
}
