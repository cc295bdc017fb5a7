//! Very many sessions that are asked about at once.

use serde_json::Value;

use crate::harness::{Client, Received, Start, sockets_for};

const CONFIG: &str = r#"
[limits]
authorizer_timeout_ms = 600000
handshake_timeout_ms = 600000
hello_timeout_ms = 600000
ping_interval_ms = 0
[[listener]]
port = 0
[[listener]]
port = 0
role = "staff"
[[realm]]
name = "realm1"
[[realm.role]]
name = "anonymous"
authorizer = "com.authorize"
[[realm.role]]
name = "staff"
[[realm.role.permission]]
uri = ""
match = "prefix"
allow = "all"
"#;

/// How many.
const SESSIONS: usize = 10_000;

/// Answers each question: who subscribes may if the number in its topic is even, and its own.
fn authorize(mut authorizer: Client, session_of: impl Fn(u64) -> Option<usize>) -> usize {
    let mut answered = 0;
    while answered < SESSIONS {
        let Received::Message(text) = authorizer.receive() else { break };
        let invocation: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(invocation[0], 68, "{text}");
        let args = &invocation[4];
        let session = args[0]["session"].as_u64().unwrap();
        let number = args[1].as_str().and_then(|uri| uri.rsplit('.').next()).and_then(|it| it.parse().ok());
        // A question about one session with the topic of another would be a mixed-up one.
        let is_allowed =
            number.is_some_and(|number: usize| number.is_multiple_of(2)) && session_of(session) == number;
        authorizer.send(&format!("[70,{},{{}},[{is_allowed}]]", invocation[1]));
        answered += 1;
    }
    answered
}

#[test]
fn ten_thousand_sessions_that_subscribe_at_once_each_get_their_answer() {
    if sockets_for(SESSIONS) < SESSIONS {
        // Which it has said.
        return;
    }
    let router = Start::new(CONFIG).router();
    let mut authorizer = Client::join(router.addresses[1], "realm1");
    assert!(authorizer.ask(r#"[64,1,{},"com.authorize"]"#).starts_with("[65,1,"));
    let address = router.address();
    let mut clients: Vec<(Client, u64)> =
        (0..SESSIONS).map(|_| Client::join_and_tell(address, "realm1")).collect();
    let numbers: std::collections::HashMap<u64, usize> =
        clients.iter().enumerate().map(|(number, (_, session))| (*session, number)).collect();
    assert_eq!(numbers.len(), SESSIONS);
    let answers = std::thread::spawn(move || authorize(authorizer, |session| numbers.get(&session).copied()));
    for (number, (client, _)) in clients.iter_mut().enumerate() {
        client.send(&format!(r#"[32,1,{{}},"com.topic.{number}"]"#));
    }
    for (number, (client, _)) in clients.iter_mut().enumerate() {
        let answer = client.receive().message();
        let expected =
            if number.is_multiple_of(2) { "[33,1," } else { r#"[8,32,1,{},"wamp.error.not_authorized""# };
        assert!(answer.starts_with(expected), "{number}: {answer}");
    }
    assert_eq!(answers.join().unwrap(), SESSIONS);
    drop(clients);
    router.stop();
}
