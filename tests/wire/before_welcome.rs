//! What is said before a session is open: bytes that are no handshake, and messages that are no HELLO (reliability rows 1
//! and 14).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::bystanders::Bystanders;
use super::client::{Client, RawSocket, WebSocket, hello, upgrade};
use super::router::{Router, eventually};
use super::wamp_abuse::LAYOUTS;

/// HELLOs that are none, and messages that come too early.
fn violations() -> Vec<String> {
    let mut messages: Vec<String> = [
        "[1]",
        r#"[1,"realm1"]"#,
        r#"[1,"realm1",{"roles":{"caller":{}}},1]"#,
        r#"[1,{"roles":{"caller":{}}},"realm1"]"#,
        r#"[1,5,{"roles":{"caller":{}}}]"#,
        r#"[1,null,{"roles":{"caller":{}}}]"#,
        r#"[1,["realm1"],{"roles":{"caller":{}}}]"#,
        r#"[1,"realm1",[]]"#,
        r#"[1,"realm1",null]"#,
        r#"[1,"realm1","{}"]"#,
        r#"[1,"realm1",{"roles":5}]"#,
        r#"[1,"realm1",{"roles":{"caller":5}}]"#,
        r#"[1,"realm1",{"roles":{"caller":{}},"authmethods":"ticket"}]"#,
        r#"[1,"realm1",{"roles":{"caller":{}},"authid":5}]"#,
        r#"["1","realm1",{"roles":{"caller":{}}}]"#,
        r#"[1.5,"realm1",{"roles":{"caller":{}}}]"#,
        r#"{"1":"realm1"}"#,
    ]
    .map(str::to_owned)
    .into();
    let deep = "[".repeat(100) + &"]".repeat(100);
    messages.push(format!(r#"[1,"realm1",{{"roles":{{"caller":{{}}}},"x":{deep}}}]"#));
    // ABORT may come at any time.
    let early = |layout: &&str| !layout.starts_with("[1,") && !layout.starts_with("[3,");
    messages.extend(LAYOUTS.iter().copied().filter(|layout| early(layout)).map(str::to_owned));
    messages
}

#[test]
fn what_is_no_hello_opens_no_session() {
    let router = Router::start("");
    let bystanders = Bystanders::join(&router);
    let before = router.counters();
    let messages = violations();
    for message in &messages {
        for (at, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
            let mut client = Client::connect(at, framing);
            // The HELLO behind it must not be heard.
            let behind = client.frame(&hello("realm1"));
            client.send_raw(&[client.frame(message), behind].concat());
            let farewell = client.expect_violation(message);
            assert_eq!(farewell.messages.len(), 1, "{message}: {farewell:?}");
        }
    }
    // A message longer than a HELLO may be, by its length alone.
    for (at, framing) in [(&router.far, WebSocket), (&router.unix, RawSocket)] {
        let mut client = Client::connect(at, framing);
        let long =
            hello("realm1").replace(r#"{"roles""#, &format!(r#"{{"x":"{}","roles""#, "x".repeat(20_000)));
        let frame = client.frame(&long);
        client.send_raw(&frame[..20]);
        let farewell = client.farewell();
        assert!(farewell.messages.is_empty() && !farewell.reset, "{farewell:?}");
        assert_eq!(farewell.code, (framing == WebSocket).then_some(1009));
    }
    let closed = [("message_too_large", 2), ("protocol_violation", 2 * messages.len() as u64)];
    router.expect_closed(&before, closed);
    assert_eq!(router.counters().get("sessions_opened"), before.get("sessions_opened"));
    bystanders.leave();
    router.stop();
}

/// A file that the fuzzers began with, or that was once a finding, as bytes of a connection.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// It may be a whole conversation, which ends when its client does.
    is_conversation: bool,
}

fn corpus() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries(&root).flat_map(|folder| entries(&folder)).collect();
    files.sort();
    assert!(files.len() > 100, "{} files", files.len());
    let case = |file: PathBuf| {
        let bytes = fs::read(&file).unwrap();
        // The bodies of the link's targets take their first bytes for choices of their own (fuzz/bodies/link.rs).
        let (opening, choices) = match file.parent().and_then(Path::file_name).and_then(OsStr::to_str) {
            Some("link_first_bytes") => (Vec::new(), 2),
            Some("link_websocket") => (upgrade("wamp.2.json", "").into_bytes(), 3),
            Some("link_rawsocket") => (vec![0x7f, 0xf1, 0, 0], 2),
            _ => (Vec::new(), 0),
        };
        let name = file.display().to_string();
        let bytes = [&opening, bytes.get(choices..).unwrap_or_default()].concat();
        Case { name, bytes, is_conversation: choices > 0 }
    };
    files.into_iter().map(case).collect()
}

#[test]
fn the_corpus_of_the_fuzzers_leaves_nothing_behind_on_any_listener() {
    let router = Router::start("handshake_timeout_ms = 500\nhello_timeout_ms = 500");
    let mut bystanders = Bystanders::join(&router);
    let sockets = router.sockets();
    let cases = corpus();
    let mut memory = Vec::new();
    for _ in 0..9 {
        for at in [&router.near, &router.far, &router.unix, &router.ipv6] {
            let before = router.counters();
            let connect = |case: &Case| {
                let mut client = Client::socket(at);
                if client.try_send_raw(&case.bytes) && case.is_conversation {
                    // It may be closed, and reset, already.
                    let _ = client.try_shutdown_write();
                }
                client
            };
            let clients: Vec<_> = cases.iter().map(connect).collect();
            bystanders.check();
            for (case, mut client) in cases.iter().zip(clients) {
                // Each is closed by the router, whatever it was told.
                let (said, _) = client.read_to_end();
                assert!(said.len() < 64 << 10, "{}: {} bytes", case.name, said.len());
            }
            bystanders.check();
            eventually("sockets come back", || router.sockets() == sockets);
            let closed = router.counters().closed_since(&before);
            assert_eq!(closed.values().sum::<u64>(), cases.len() as u64, "{closed:?}");
            assert!(closed.len() > 3, "{closed:?}");
        }
        memory.push(router.memory_bytes());
    }
    // The first rounds are for what the process keeps for good; then less than 2 KiB for each of nine thousand connections.
    assert!(memory[8] < memory[2] + (16 << 20), "{memory:?}");
    bystanders.leave();
    router.stop();
}
