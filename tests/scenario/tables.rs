//! What is better said as a table: every message type in every state, with every number of elements, and bounds that
//! take many requests to reach.

use crosspoint::router::fault::Fault;
use crosspoint::router::{RouterConfig, TableSizes};
use crosspoint::wamp::codec::{Input, Serializer};
use crosspoint::wamp::{CloseReason, MessageType};
use serde_json::{Value, json};

use super::script::Script;
use super::world::{Received, Setup, World};
use super::{PLAIN_ROLES, config_of, roles_with};

/// What a client that sends a message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A message of this type.
    Answer(MessageType),
    /// Nothing.
    Silence,
    /// ABORT `wamp.error.protocol_violation`, and the connection ends.
    Violation,
    /// The connection ends without a word.
    End,
}

use MessageType as Type;
use Outcome::{Answer, End, Silence, Violation};

/// A row for each message type: its fewest elements, the most, and what comes of it without a session and with one.
///
/// The session that has one is a callee with invocation 1 open; it subscribes to nothing and its next request is 2.
const TABLE: [(Type, &str, usize, Outcome, Outcome); 24] = [
    (Type::Hello, r#"[1, "realm1", {"roles": {"caller": {}}}]"#, 3, Answer(Type::Welcome), Violation),
    (Type::Welcome, r#"[2, 1, {"roles": {"broker": {}}}]"#, 3, Violation, Violation),
    (Type::Abort, r#"[3, {}, "com.why"]"#, 5, End, End),
    (Type::Challenge, r#"[4, "ticket", {}]"#, 3, Violation, Violation),
    (Type::Authenticate, r#"[5, "secret", {}]"#, 3, Violation, Violation),
    (Type::Goodbye, r#"[6, {}, "com.why"]"#, 3, Violation, Answer(Type::Goodbye)),
    (Type::Error, r#"[8, 68, 1, {}, "com.error"]"#, 7, Violation, Answer(Type::Error)),
    (Type::Publish, r#"[16, 2, {}, "com.a"]"#, 6, Violation, Silence),
    (Type::Published, "[17, 2, 1]", 3, Violation, Violation),
    (Type::Subscribe, r#"[32, 2, {}, "com.a"]"#, 4, Violation, Answer(Type::Subscribed)),
    (Type::Subscribed, "[33, 2, 1]", 3, Violation, Violation),
    (Type::Unsubscribe, "[34, 2, 1]", 3, Violation, Answer(Type::Error)),
    (Type::Unsubscribed, "[35, 2]", 2, Violation, Violation),
    (Type::Event, "[36, 1, 1, {}]", 6, Violation, Violation),
    (Type::Call, r#"[48, 2, {}, "com.nobody"]"#, 6, Violation, Answer(Type::Error)),
    (Type::Cancel, "[49, 2, {}]", 3, Violation, Silence),
    (Type::Result, "[50, 2, {}]", 5, Violation, Violation),
    (Type::Register, r#"[64, 2, {}, "com.p"]"#, 4, Violation, Answer(Type::Registered)),
    (Type::Registered, "[65, 2, 1]", 3, Violation, Violation),
    (Type::Unregister, "[66, 2, 9]", 3, Violation, Answer(Type::Error)),
    (Type::Unregistered, "[67, 2]", 2, Violation, Violation),
    (Type::Invocation, "[68, 1, 1, {}]", 6, Violation, Violation),
    (Type::Interrupt, "[69, 1, {}]", 3, Violation, Violation),
    (Type::Yield, "[70, 1, {}]", 5, Violation, Answer(Type::Result)),
];

fn default_config() -> RouterConfig {
    config_of(&Script::parse("no scenario", ""))
}

/// One party on each of so many cores.
fn world(cores: u16) -> World {
    let setup = Setup {
        cores,
        home: cores - 1,
        placement: (0..cores).collect(),
        backwards: false,
        fault: Fault::None,
    };
    World::new(&default_config(), setup)
}

fn send(world: &mut World, message: &str) {
    world.send(0, Input::Text(message));
}

fn received(world: &mut World) -> Vec<Received> {
    world.take_received().into_iter().filter(|(party, _)| *party == 0).map(|(_, received)| received).collect()
}

/// The one message that party 0 got.
fn answer(world: &mut World) -> Value {
    let got = received(world);
    let [Received::Message(bytes)] = got.as_slice() else { panic!("{got:?}") };
    serde_json::from_slice(bytes).unwrap()
}

fn outcome(world: &mut World) -> Outcome {
    let got = received(world);
    let messages: Vec<Value> = got
        .iter()
        .filter_map(|received| match received {
            Received::Message(bytes) => Some(serde_json::from_slice(bytes).unwrap()),
            Received::Closed(_) | Received::Pinged | Received::Cookie => None,
        })
        .collect();
    let closed = matches!(got.last(), Some(Received::Closed(_)));
    match (messages.as_slice(), closed) {
        ([], false) => Silence,
        ([], true) => End,
        ([abort], true) if abort[0] == 3 && abort[2] == "wamp.error.protocol_violation" => Violation,
        ([message], false) => Answer(MessageType::of_code(message[0].as_u64().unwrap()).unwrap()),
        other => panic!("{other:?}"),
    }
}

/// A world whose party 0 has no session, one, or one no longer.
fn in_state(cores: u16, state: &str) -> World {
    let mut world = world(cores);
    world.open(0, Serializer::Json, 0);
    if state != "connected" {
        send(&mut world, &format!("[1, \"realm1\", {PLAIN_ROLES}]"));
    }
    match state {
        // Calls itself: invocation 1 is open, and so is call 2.
        "open" => {
            send(&mut world, r#"[64, 1, {}, "com.self"]"#);
            send(&mut world, r#"[48, 2, {}, "com.self"]"#);
        }
        "left" => send(&mut world, r#"[6, {}, "wamp.close.close_realm"]"#),
        _ => {}
    }
    let _ = world.take_received();
    world
}

fn close(mut world: World) {
    if world.is_connected(0) {
        world.close(0, CloseReason::EndOfStream);
    }
    let _ = world.take_received();
    world.assert_empty();
}

/// The request of the row, where 2 is taken by the open call.
fn in_session(sample: &str) -> String {
    let mut message: Value = serde_json::from_str(sample).unwrap();
    let code = message[0].as_u64().unwrap();
    if matches!(code, 16 | 32 | 34 | 48 | 64 | 66) {
        message[1] = json!(3);
    }
    if code == 49 {
        // There is no call 7: of CANCEL for the open one advanced_call_canceling.txt has more.
        message[1] = json!(7);
    }
    message.to_string()
}

/// A realm without the meta API announces nothing of it, and all the rest.
#[test]
fn what_a_realm_without_the_meta_api_announces() {
    let features = |meta_api| {
        let mut config = default_config();
        config.realms[0].meta_api = meta_api;
        let setup = Setup { cores: 1, home: 0, placement: vec![0], backwards: false, fault: Fault::None };
        let mut world = World::new(&config, setup);
        world.open(0, Serializer::Json, 0);
        send(&mut world, &format!("[1, \"realm1\", {PLAIN_ROLES}]"));
        answer(&mut world)[2]["roles"].clone()
    };
    let mut with = features(true);
    let keys = ["session_meta_api", "subscription_meta_api", "registration_meta_api", "testament_meta_api"];
    let mut announced = Vec::new();
    for role in ["broker", "dealer"] {
        let of_role = with[role]["features"].as_object_mut().unwrap();
        announced.extend(keys.iter().filter(|key| of_role.remove(**key).is_some()));
    }
    assert!(keys.iter().all(|key| announced.contains(&key)));
    assert_eq!(features(false), with);
}

/// As many sessions as one turn may not end: nobody is forgotten, nobody who came later is among them.
#[test]
fn more_sessions_are_killed_than_in_one_turn() {
    for cores in 1..=2 {
        let placement = (0..1500).map(|party| party % cores).collect();
        let setup = Setup { cores, home: 0, placement, backwards: false, fault: Fault::None };
        let mut world = World::new(&default_config(), setup);
        let join = |world: &mut World, party| {
            world.open(party, Serializer::Json, 0);
            world.send(party, Input::Text(&format!("[1, \"realm1\", {PLAIN_ROLES}]")));
        };
        for party in 0..1400 {
            join(&mut world, party);
        }
        let _ = world.take_received();
        send(&mut world, r#"[48, 1, {}, "wamp.session.kill_by_authrole", ["anonymous"]]"#);
        for party in 1400..1500 {
            join(&mut world, party);
        }
        let closed = |received: &[(usize, Received)]| {
            received.iter().filter(|(_, one)| matches!(one, Received::Closed(CloseReason::Killed))).count()
        };
        let at_once = world.take_received();
        assert_eq!(closed(&at_once), 512 * usize::from(cores));
        assert!(at_once.iter().all(|(party, _)| *party != 0), "it is answered once it is done");
        world.wait(1);
        let later = world.take_received();
        assert_eq!(closed(&at_once) + closed(&later), 1399);
        let answers: Vec<_> = later.iter().filter(|(party, _)| *party == 0).collect();
        let [(_, Received::Message(answer))] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!(serde_json::from_slice::<Value>(answer).unwrap(), json!([50, 1, {}, [1399]]));
        for party in (0..1).chain(1400..1500) {
            assert!(world.is_connected(party), "{party}");
            world.close(party, CloseReason::EndOfStream);
        }
        let _ = world.take_received();
        world.assert_empty();
    }
}

/// Two listeners: who comes in by the first is asked about.
const ASKED: &str = "[[listener]]\n[[listener]]\nport = 9000\nrole = \"staff\"\n\
                     [[realm]]\nname = \"realm1\"\n[[realm.role]]\nname = \"anonymous\"\n\
                     authorizer = \"com.authorize\"\n[[realm.role]]\nname = \"staff\"\n\
                     [[realm.role.permission]]\nuri = \"\"\nmatch = \"prefix\"\nallow = \"all\"\n";

#[test]
fn many_sessions_that_subscribe_at_once_are_each_decided_about() {
    const SESSIONS: usize = 2_000;
    for cores in 1..=2_u16 {
        let placement = (0..=SESSIONS).map(|party| (party % usize::from(cores)) as u16).collect();
        let setup = Setup { cores, home: cores - 1, placement, backwards: false, fault: Fault::None };
        let config = format!("| {}", ASKED.trim_end().replace('\n', "\n| "));
        let mut world = World::new(&config_of(&Script::parse("asked", &config)), setup);
        let authorizer = SESSIONS;
        for party in 0..=SESSIONS {
            world.open(party, Serializer::Json, u16::from(party == authorizer));
            world.send(party, Input::Text(&format!("[1, \"realm1\", {PLAIN_ROLES}]")));
        }
        world.send(authorizer, Input::Text(r#"[64, 1, {}, "com.authorize"]"#));
        let read = |received: Vec<(usize, Received)>| -> Vec<(usize, Value)> {
            let messages = received.into_iter().map(|(party, one)| match one {
                Received::Message(message) => (party, serde_json::from_slice(&message).unwrap()),
                other => panic!("{party} gets {other:?}"),
            });
            messages.collect()
        };
        let welcomed = read(world.take_received());
        let ids: std::collections::HashMap<u64, usize> = welcomed
            .iter()
            .filter(|(_, message)| message[0] == 2)
            .map(|(party, message)| (message[1].as_u64().unwrap(), *party))
            .collect();
        assert_eq!(ids.len(), SESSIONS + 1);
        // All ask before anybody is decided about; few have topics of their own.
        for party in 0..SESSIONS {
            let topic = format!("com.topic{}", party % 7);
            world.send(party, Input::Text(&format!("[32, 1, {{}}, \"{topic}\"]")));
        }
        let is_allowed = |party: usize| !(party / 7).is_multiple_of(3);
        let (mut asked, mut answers, mut most) = (0, vec![Vec::new(); SESSIONS], 0);
        loop {
            let (questions, others): (Vec<_>, Vec<_>) =
                read(world.take_received()).into_iter().partition(|(party, _)| *party == authorizer);
            for (party, message) in others {
                answers[party].push(message);
            }
            if questions.is_empty() {
                break;
            }
            most = most.max(questions.len());
            // The last one first.
            for (_, question) in questions.iter().rev() {
                assert_eq!(question[0], 68, "{question}");
                let party = ids[&question[4][0]["session"].as_u64().unwrap()];
                assert_eq!(question[4][1], format!("com.topic{}", party % 7));
                let (request, verdict) = (&question[1], is_allowed(party));
                let answer = json!([70, request, {}, [{"allow": verdict, "cache": true}]]);
                world.send(authorizer, Input::Text(&answer.to_string()));
                asked += 1;
            }
        }
        assert_eq!(asked, SESSIONS, "nobody has the answer of somebody else");
        assert_eq!(most, 256 * usize::from(cores), "so many at a time, on each core");
        for (party, answer) in answers.iter().enumerate() {
            let [answer] = answer.as_slice() else { panic!("{party} gets {answer:?}") };
            let is_right = match answer[0].as_u64() {
                Some(33) => is_allowed(party),
                Some(8) => !is_allowed(party) && answer[4] == "wamp.error.not_authorized",
                _ => false,
            };
            assert!(is_right, "{party} gets {answer}");
        }
        for party in 0..=SESSIONS {
            world.close(party, CloseReason::EndOfStream);
        }
    }
}

/// A realm whose user may have any number of logins by cookie.
const COOKIES: &str = "[limits]\ncookie_logins_per_user_max = 10000\n\
                       [[listener]]\n[listener.cookie]\n\
                       [[realm]]\nname = \"realm1\"\n[[realm.role]]\nname = \"anonymous\"\n\
                       [[realm.role.permission]]\nuri = \"\"\nmatch = \"prefix\"\nallow = [\"call\"]\n\
                       [[realm.user]]\nauthid = \"joe\"\nrole = \"anonymous\"\nticket = \"secret!!!\"\n";

#[test]
fn more_logins_end_than_in_one_turn() {
    const LOGINS: usize = 10_000;
    for (cores, kill) in [
        (1, r#""wamp.session.kill_all""#),
        (2, r#""wamp.session.kill_by_authrole", ["anonymous"]"#),
        (3, r#""wamp.session.kill_by_authid", ["joe"]"#),
    ] {
        let (who, late) = (LOGINS, LOGINS + 1);
        let placement = (0..=late).map(|party| (party % usize::from(cores)) as u16).collect();
        let setup = Setup { cores, home: 0, placement, backwards: false, fault: Fault::None };
        let config = format!("| {}", COOKIES.trim_end().replace('\n', "\n| "));
        let mut world = World::new(&config_of(&Script::parse("cookies", &config)), setup);
        let hello = |method: &str| {
            let details =
                format!(r#"{{"roles": {{"caller": {{}}}}, "authmethods": ["{method}"], "authid": "joe"}}"#);
            format!(r#"[1, "realm1", {details}]"#)
        };
        for party in 0..LOGINS {
            world.open(party, Serializer::Json, 0);
            world.bring_cookie(party, None);
            world.send(party, Input::Text(&hello("ticket")));
            world.send(party, Input::Text(r#"[5, "secret!!!", {}]"#));
            world.close(party, CloseReason::EndOfStream);
        }
        assert!(world.table_sizes().all(|tables| tables.cookie_logins == LOGINS));
        world.open(who, Serializer::Json, 0);
        world.send(who, Input::Text(&format!("[1, \"realm1\", {PLAIN_ROLES}]")));
        let _ = world.take_received();
        world.send(who, Input::Text(&format!("[48, 1, {{}}, {kill}]")));
        // Who comes while they end is not let in by one of the last.
        world.open(late, Serializer::Json, 0);
        world.bring_cookie(late, Some(LOGINS - 1));
        world.send(late, Input::Text(&hello("cookie")));
        let mut turns = vec![vec![0; usize::from(cores)], world.cookie_logins_ended()];
        let is_done = |received: &[(usize, Received)]| received.iter().any(|(party, _)| *party == who);
        let mut received = world.take_received();
        assert!(!is_done(&received), "it is answered once they are ended");
        while !is_done(&received) {
            world.turn();
            turns.push(world.cookie_logins_ended());
            received.extend(world.take_received());
            assert!(turns.len() < 100, "{turns:?}");
        }
        for (before, after) in turns.iter().zip(&turns[1..]) {
            let most = before.iter().zip(after).map(|(before, after)| after - before).max();
            assert!(most <= Some(512), "{turns:?}");
        }
        assert!(turns[turns.len() - 1].iter().sum::<u64>() >= LOGINS as u64);
        let refused = |(party, one): &(usize, Received)| {
            *party == late && matches!(one, Received::Message(message) if message.starts_with(b"[3,"))
        };
        assert!(received.iter().any(refused), "{received:?}");
        world.close(who, CloseReason::EndOfStream);
        // What was ended is remembered for a minute, and forgotten as turns permit.
        world.wait(60_000);
        assert!(world.table_sizes().all(|tables| tables.cookie_logins == 0));
        let _ = world.take_received();
        world.assert_empty();
    }
}

/// The list of codes is complete, and so is the table.
#[test]
fn every_message_type_in_every_state() {
    assert_eq!(TABLE.map(|row| row.0), MessageType::ALL);
    for cores in 1..=3 {
        for (kind, sample, _, without, with) in TABLE {
            for state in ["connected", "left"] {
                let mut world = in_state(cores, state);
                send(&mut world, sample);
                assert_eq!(outcome(&mut world), without, "{} when {state}", kind.name());
                close(world);
            }
            let mut world = in_state(cores, "open");
            send(&mut world, &in_session(sample));
            assert_eq!(outcome(&mut world), with, "{} in a session", kind.name());
            close(world);
        }
    }
}

/// One element less than the fewest, or more than the most, is a violation, whoever may send the message.
#[test]
fn every_message_type_with_every_number_of_elements() {
    for (kind, sample, most, _, with) in TABLE {
        let full: Value = serde_json::from_str(&in_session(sample)).unwrap();
        let elements = full.as_array().unwrap();
        for count in 1..=most + 2 {
            let mut message = elements[..count.min(elements.len())].to_vec();
            // Behind the fewest come args, kwargs, and what no message has.
            for extra in elements.len()..count {
                message.push(if extra == elements.len() + 1 { json!({"k": 1}) } else { json!([1]) });
            }
            let expected = if (elements.len()..=most).contains(&count) { with } else { Violation };
            let mut world = in_state(2, "open");
            send(&mut world, &Value::from(message).to_string());
            assert_eq!(outcome(&mut world), expected, "{} with {count} elements", kind.name());
            close(world);
        }
    }
}

/// Wherever an id or a code stands, nothing else may.
#[test]
fn every_id_of_every_message_type() {
    let no_ids = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_993_u64),
        json!(u64::MAX),
        json!("1"),
        json!(null),
        json!(true),
        json!([1]),
        json!({}),
    ];
    for (kind, sample, ..) in TABLE {
        let full: Value = serde_json::from_str(&in_session(sample)).unwrap();
        for index in 1..full.as_array().unwrap().len() {
            if !full[index].is_number() {
                continue;
            }
            for wrong in &no_ids {
                // A revocation has 0 in place of the request, and details.
                let mut message = full.clone();
                message[index] = wrong.clone();
                let mut world = in_state(2, "open");
                send(&mut world, &message.to_string());
                assert_eq!(outcome(&mut world), Violation, "{} {message}", kind.name());
                close(world);
            }
        }
    }
}

/// Where a URI, options or details stand, another type is a violation too.
#[test]
fn every_element_of_another_type() {
    for (kind, sample, ..) in TABLE {
        let full: Value = serde_json::from_str(&in_session(sample)).unwrap();
        for (index, element) in full.as_array().unwrap().iter().enumerate() {
            for wrong in [json!(null), json!(1), json!("a"), json!([]), json!({}), json!(1.5)] {
                let alike = (wrong.is_number() && element.is_number())
                    || (wrong.is_string() && element.is_string())
                    || (wrong.is_object() && element.is_object());
                if alike {
                    continue;
                }
                let mut message = full.clone();
                message[index] = wrong;
                let mut world = in_state(1, "open");
                send(&mut world, &message.to_string());
                assert_eq!(outcome(&mut world), Violation, "{} {message}", kind.name());
                close(world);
            }
        }
    }
}

/// What comes behind a violation in the same packet is not looked at.
#[test]
fn nothing_is_processed_behind_a_violation() {
    let mut world = in_state(2, "joined");
    world.open(1, Serializer::Json, 0);
    world.send(1, Input::Text(&format!("[1, \"realm1\", {PLAIN_ROLES}]")));
    world.send(1, Input::Text(r#"[32, 1, {}, "com.a"]"#));
    let _ = world.take_received();
    send(&mut world, "[70, 1, {}]");
    send(&mut world, r#"[16, 1, {"acknowledge": true}, "com.a"]"#);
    send(&mut world, &format!("[1, \"realm1\", {PLAIN_ROLES}]"));
    let got = world.take_received();
    assert!(got.iter().all(|(party, _)| *party == 0), "{got:?}");
    assert_eq!(got.len(), 2, "ABORT and the end: {got:?}");
    world.close(1, CloseReason::EndOfStream);
    world.assert_empty();
}

/// A session asks for more than it may have, for a long time: what it holds stays at the default bounds.
#[test]
fn distinct_uris_without_end() {
    for (cores, code, held, refused) in
        [(1, 32, 33, "crosspoint.error.limit_reached"), (2, 64, 65, "crosspoint.error.limit_reached")]
    {
        let mut world = in_state(cores, "joined");
        for request in 1..=3000 {
            send(&mut world, &format!("[{code}, {request}, {{}}, \"com.n{request}\"]"));
            let answer = answer(&mut world);
            if request <= 1000 {
                assert_eq!(answer[0], held);
            } else {
                assert_eq!((&answer[0], &answer[4]), (&json!(8), &json!(refused)));
            }
        }
        let entries: usize = world.table_sizes().map(|sizes| sizes.subscriptions + sizes.registrations).sum();
        assert_eq!(entries, 1000);
        close(world);
    }
}

/// A question of sixty bytes makes home write a message as long as there may be: that counts in the turn of who asked, whether
/// it was for nothing or not.
#[test]
fn what_a_history_tells_counts_as_work() {
    let config = "| [limits]\n| message_bytes_max = \"20 KiB\"\n\
                  | [[realm]]\n| name = \"realm1\"\n| [[realm.role]]\n| name = \"anonymous\"\n\
                  | [[realm.role.permission]]\n| uri = \"\"\n| match = \"prefix\"\n| allow = \"all\"\n\
                  | [[realm.history]]\n| uri = \"com.a\"\n";
    for cores in 1..=2 {
        let setup =
            Setup { cores, home: cores - 1, placement: vec![0], backwards: false, fault: Fault::None };
        let mut world = World::new(&config_of(&Script::parse("history", config)), setup);
        world.open(0, Serializer::Json, 0);
        send(&mut world, &format!("[1, \"realm1\", {PLAIN_ROLES}]"));
        send(&mut world, r#"[32, 1, {}, "com.a"]"#);
        let answers = received(&mut world);
        let Some(Received::Message(subscribed)) = answers.last() else { panic!("{answers:?}") };
        let subscription = serde_json::from_slice::<Value>(subscribed).unwrap()[2].clone();
        let mut ask = |request: u32, expected: u64| {
            send(&mut world, &format!("[16, {request}, {{}}, \"com.a\", [\"{}\"]]", "x".repeat(8_000)));
            let before = world.searched();
            let call =
                format!("[48, {}, {{}}, \"wamp.subscription.get_events\", [{subscription}]]", request + 1);
            send(&mut world, &call);
            assert_eq!(answer(&mut world)[0], expected);
            world.searched() - before
        };
        let (one, two, too_many) = (ask(2, 50), ask(4, 50), ask(6, 8));
        assert!(one >= 250 && two >= 500 && too_many >= 750, "{one}, {two}, {too_many}");
        close(world);
    }
}

/// URIs that are far too long are refused like any other, by every request that has one.
#[test]
fn long_uris() {
    let long = "a".repeat(100 * 1024);
    let mut world = in_state(2, "joined");
    for (request, message) in (1..).zip([
        format!(r#"[32, 1, {{}}, "{long}"]"#),
        format!(r#"[64, 2, {{"match": "prefix"}}, "{long}"]"#),
        format!(r#"[48, 3, {{}}, "{long}"]"#),
        format!(r#"[16, 4, {{"acknowledge": true}}, "{long}"]"#),
        format!(r#"[32, 5, {{"match": "wildcard"}}, "{}"]"#, ".".repeat(100 * 1024)),
    ]) {
        send(&mut world, &message);
        let answer = answer(&mut world);
        assert_eq!((&answer[2], &answer[4]), (&json!(request), &json!("wamp.error.invalid_uri")));
    }
    close(world);
}

/// A thousand calls that are never answered: the next one is refused, by the bound of the caller and of the callee,
/// and all of them end with the caller.
#[test]
fn calls_that_are_never_answered() {
    let mut world = in_state(2, "joined");
    world.open(1, Serializer::Json, 0);
    world.send(1, Input::Text(&format!("[1, \"realm1\", {PLAIN_ROLES}]")));
    world.send(1, Input::Text(r#"[64, 1, {}, "com.p"]"#));
    for request in 1..=1500 {
        send(&mut world, &format!(r#"[48, {request}, {{}}, "com.p"]"#));
    }
    let refused = received(&mut world).len();
    assert_eq!(refused, 500);
    world.send(1, Input::Text(r#"[48, 2, {}, "com.p"]"#));
    let answers = world.take_received();
    let [(1, Received::Message(answer))] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(String::from_utf8_lossy(answer).contains("wamp.error.unavailable"));
    assert_eq!(world.table_sizes().map(|sizes| sizes.invocations).sum::<usize>(), 1000);
    world.close(0, CloseReason::EndOfStream);
    assert_eq!(world.table_sizes().map(|sizes| sizes.invocations).sum::<usize>(), 0);
    world.close(1, CloseReason::EndOfStream);
    world.assert_empty();
}

/// A callee that never answers, and callers that give up: their calls run out of time, they cancel, they leave in the
/// middle. Its INTERRUPT comes each time, and nothing stays behind, however often (reliability row 19).
#[test]
fn calls_that_are_given_up_leave_nothing() {
    const CALLS: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let mut world = world(3);
    let roles = roles_with(|_| true);
    let join = |world: &mut World, party| {
        world.open(party, Serializer::Json, 0);
        world.send(party, Input::Text(&format!("[1, \"realm1\", {roles}]")));
    };
    join(&mut world, 1);
    world.send(1, Input::Text(r#"[64, 1, {}, "com.p"]"#));
    let (mut sizes, mut calls, mut interrupts) = (Vec::new(), 0, 0);
    while calls < CALLS {
        join(&mut world, 0);
        for request in 1..=200 {
            let options = match request % 4 {
                0 => r#"{"timeout": 10}"#,
                1 => r#"{"timeout": 10, "receive_progress": true}"#,
                2 => r#"{"progress": true}"#,
                _ => r#"{"timeout": 10, "progress": true, "receive_progress": true}"#,
            };
            send(&mut world, &format!(r#"[48, {request}, {options}, "com.p"]"#));
            if request % 4 == 2 {
                send(&mut world, &format!(r#"[49, {request}, {{"mode": "killnowait"}}]"#));
            }
            calls += 1;
        }
        // Half of the rest run out of time, the others end with their caller.
        if calls / 200 % 2 == 0 {
            world.wait(10);
        }
        world.close(0, CloseReason::Reset);
        let is_interrupt = |received: &Received| match received {
            Received::Message(bytes) => bytes.starts_with(b"[69,"),
            _ => false,
        };
        interrupts += world
            .take_received()
            .iter()
            .filter(|(party, received)| *party == 1 && is_interrupt(received))
            .count();
        sizes = world.table_sizes().collect();
        let left = |size: fn(&TableSizes) -> usize| sizes.iter().map(size).sum::<usize>();
        assert_eq!(left(|sizes| sizes.invocations + sizes.call_deadlines + sizes.inputs), 0, "{sizes:?}");
    }
    assert_eq!(interrupts, calls);
    assert_eq!(sizes.iter().map(|sizes| sizes.registrations).sum::<usize>(), 1);
    world.close(1, CloseReason::EndOfStream);
    let _ = world.take_received();
    world.assert_empty();
}
