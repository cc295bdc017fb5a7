//! Cookies, as a browser has them: got on one core, good on another, and never for the page of a stranger.

use simd_json::prelude::*;

use super::client::{Client, WebSocket, upgrade};
use super::router::{Router, Settings};

const REALMS: &str = r#"
[[realm]]
name = "realm1"
[[realm.role]]
name = "anonymous"
[[realm.role.permission]]
uri = ""
match = "prefix"
allow = "all"
[[realm.user]]
authid = "joe"
role = "anonymous"
ticket = "secret!!!"
"#;

fn start(listener: &str) -> Router {
    Router::start_with(Settings { realms: REALMS, listener, ..Settings::default() })
}

const HELLO: &str =
    r#"[1,"realm1",{"roles":{"caller":{}},"authmethods":["cookie","ticket"],"authid":"joe"}]"#;

/// A handshake with these headers; its answer.
fn shake_hands(at: &super::client::Address, headers: &str) -> (Client, String) {
    let mut client = Client::socket(at);
    client.speak(WebSocket);
    client.send_raw(upgrade("wamp.2.json", headers).as_bytes());
    let head = client.read_head();
    (client, head)
}

/// The cookie that an answer sets, without its attributes.
fn cookie_of(head: &str) -> Option<&str> {
    Some(head.split_once("\r\nSet-Cookie: ")?.1.split_once(';')?.0)
}

#[test]
fn a_cookie_of_one_core_is_good_on_another() {
    let router = start(r#"cookie = { name = "id", max_age_ms = 60000, same_site = "strict" }"#);
    let before = router.counters();
    let (mut first, head) = shake_hands(&router.near, "");
    assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains("; Path=/; Max-Age=60; SameSite=Strict; HttpOnly\r\n"), "{head}");
    let cookie = cookie_of(&head).unwrap().to_owned();
    assert_eq!((&cookie[..3], cookie.len()), ("id=", 46));
    first.send(HELLO);
    assert_eq!(first.message()[0], 4);
    first.send(r#"[5,"secret!!!",{}]"#);
    assert_eq!(first.message()[0], 2);
    // Known at once, without a challenge, and nothing new is set.
    for at in [&router.far, &router.near, &router.unix] {
        let (mut again, head) = shake_hands(at, &format!("Cookie: theme=dark; {cookie}\r\n"));
        assert_eq!(cookie_of(&head), None, "{head}");
        again.send(HELLO);
        let welcome = again.message();
        assert_eq!((&welcome[0], welcome[2]["authid"].as_str()), (&2.into(), Some("joe")));
        assert_eq!(welcome[2]["authmethod"].as_str(), Some("cookie"));
        again.leave();
    }
    // Another one is worth nothing, and is replaced.
    let wrong = format!("id={}", "A".repeat(43));
    let (mut other, head) = shake_hands(&router.far, &format!("Cookie: {wrong}\r\n"));
    assert!(cookie_of(&head).is_some_and(|new| new != wrong && new != cookie), "{head}");
    other.send(HELLO);
    assert_eq!(other.message()[0], 4);
    drop(other);
    // Nor are two.
    let (_, head) = shake_hands(&router.near, &format!("Cookie: {cookie}; {wrong}\r\n"));
    assert!(cookie_of(&head).is_some(), "{head}");
    // A logout on one core ends it on the other, and the session that is there.
    let (mut last, _) = shake_hands(&router.far, &format!("Cookie: {cookie}\r\n"));
    last.send(HELLO);
    assert_eq!(last.message()[0], 2);
    last.send(r#"[6,{},"wamp.close.logout"]"#);
    assert_eq!(last.message()[2].as_str(), Some("wamp.close.goodbye_and_out"));
    assert_eq!(first.farewell().goodbye.as_deref(), Some("wamp.close.logout"));
    let (_, head) = shake_hands(&router.near, &format!("Cookie: {cookie}\r\n"));
    assert!(cookie_of(&head).is_some(), "{head}");
    let counters = router.counters();
    let grown = |name: &str| counters.get(name) - before.get(name);
    assert_eq!((grown("cookies_set"), grown("cookie_sessions")), (4, 4));
    assert_eq!(grown("closed_logged_out"), 1);
    router.stop();
}

/// The page is judged before its cookie is looked at.
#[test]
fn a_page_of_another_origin_gets_nothing_by_a_cookie() {
    let router = start(
        r#"origins = ["https://example.com"]
cookie = {}"#,
    );
    let own = "Origin: https://example.com\r\n";
    let (mut first, head) = shake_hands(&router.near, own);
    let cookie = cookie_of(&head).unwrap();
    first.send(HELLO);
    assert_eq!(first.message()[0], 4);
    first.send(r#"[5,"secret!!!",{}]"#);
    assert_eq!(first.message()[0], 2);
    for origin in ["https://evil.example", "https://other.example.com", "http://example.com", "null"] {
        let (_, head) = shake_hands(&router.near, &format!("Origin: {origin}\r\nCookie: {cookie}\r\n"));
        assert!(head.starts_with("HTTP/1.1 403 ") && cookie_of(&head).is_none(), "{origin}: {head}");
    }
    let (mut again, head) = shake_hands(&router.near, &format!("{own}Cookie: {cookie}\r\n"));
    assert_eq!(cookie_of(&head), None);
    again.send(HELLO);
    assert_eq!(again.message()[0], 2);
    again.leave();
    first.leave();
    router.stop();
}

#[test]
fn nobody_gets_a_cookie_who_did_not_ask_for_it() {
    let router = start("");
    let (_, head) = shake_hands(&router.near, "");
    assert!(head.starts_with("HTTP/1.1 101 ") && cookie_of(&head).is_none(), "{head}");
    router.stop();
}
