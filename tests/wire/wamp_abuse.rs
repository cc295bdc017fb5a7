//! Messages against the rules of WAMP and of its serializers (reliability rows 10 to 12, 14 to 16, 18, 21).

use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};

use super::bystanders::Bystanders;
use super::client::{Client, Framing, RawSocket, WebSocket, hello, rawsocket_frame, websocket_frame};
use super::router::{Router, Settings, open_realm};

/// One session for each message; each must end by ABORT `protocol_violation`, and nobody else.
fn expect_violations(router: &Router, bystanders: &mut Bystanders, messages: &[String]) {
    let before = router.counters();
    for (index, message) in messages.iter().enumerate() {
        let (at, framing) = match index % 4 {
            0 => (&router.near, WebSocket),
            1 => (&router.far, RawSocket),
            2 => (&router.unix, WebSocket),
            _ => (&router.ipv6, RawSocket),
        };
        let mut client = Client::join(at, framing);
        // The message behind it must not be handled: it would be answered.
        let behind = client.frame(r#"[32,1,{},"behind.it"]"#);
        client.send_raw(&[client.frame(message), behind].concat());
        let what: String = message.chars().take(200).collect();
        let farewell = client.expect_violation(&what);
        assert_eq!(farewell.messages.len(), 1, "{what}: {farewell:?}");
        assert!(farewell.messages[0][1].to_string().len() > 10, "{what}: says nothing to people");
    }
    bystanders.check();
    router.expect_closed(&before, [("protocol_violation", messages.len() as u64)]);
}

/// A valid message of each type as its layout says; the ids are where `9` stands.
pub(super) const LAYOUTS: &[&str] = &[
    r#"[1,"realm1",{"roles":{"caller":{}}}]"#,
    r#"[2,9,{"roles":{"broker":{}}}]"#,
    r#"[3,{},"a.reason"]"#,
    r#"[4,"ticket",{}]"#,
    r#"[5,"signature",{}]"#,
    r#"[6,{},"a.reason"]"#,
    r#"[8,68,9,{},"an.error"]"#,
    r#"[16,9,{},"a.topic"]"#,
    r#"[17,9,9]"#,
    r#"[32,9,{},"a.topic"]"#,
    r#"[33,9,9]"#,
    r#"[34,9,9]"#,
    r#"[35,9]"#,
    r#"[36,9,9,{}]"#,
    r#"[48,9,{},"a.procedure"]"#,
    r#"[49,9,{}]"#,
    r#"[50,9,{}]"#,
    r#"[64,9,{},"a.procedure"]"#,
    r#"[65,9,9]"#,
    r#"[66,9,9]"#,
    r#"[67,9]"#,
    r#"[68,9,9,{}]"#,
    r#"[69,9,{}]"#,
    r#"[70,9,{}]"#,
];

#[test]
fn every_message_type_with_every_element_wrong() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let mut messages = Vec::new();
    for layout in LAYOUTS {
        // Too short by one, two, …; the bare type.
        let elements: Vec<&str> = split(layout);
        for count in 1..elements.len() {
            messages.push(format!("[{}]", elements[..count].join(",")));
        }
        // Each element in turn replaced by what no element of that place may be.
        for at in 1..elements.len() {
            let wrong: &[&str] = match elements[at] {
                "9" => &["-1", "1.5", "9007199254740993", "0", "\"9\"", "null", "1e400"],
                "68" => &["7", "\"68\"", "-1"],
                element if element.starts_with('{') => &["[]", "null", "\"{}\""],
                _ => &["5", "null", "{}"],
            };
            for replacement in wrong {
                let mut elements = elements.clone();
                elements[at] = replacement;
                messages.push(format!("[{}]", elements.join(",")));
            }
        }
    }
    // 0 as the id of a revocation is a router's to send, and a violation too, as all of these are.
    assert!(messages.len() > 200, "{}", messages.len());
    expect_violations(&router, &mut bystanders, &messages);
    bystanders.leave();
    router.stop();
}

/// The elements of a list that has no commas within them but in maps.
fn split(layout: &str) -> Vec<&str> {
    let inner = &layout[1..layout.len() - 1];
    let (mut elements, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                elements.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    elements.push(&inner[start..]);
    elements
}

#[test]
fn what_is_no_message_or_comes_at_the_wrong_time() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let mut messages: Vec<String> = [
        "",
        " ",
        "[]",
        "{}",
        "null",
        "16",
        "\"text\"",
        "[\"16\"]",
        "[16.5]",
        "[-16]",
        "[0]",
        "[7]",
        "[15]",
        "[71]",
        "[99999999999999999999]",
        "[16,1,{},\"a\",[]]]",
        "[16,1,{},\"a\"",
        "[16,1,{},\"a\",]",
        "[16 1]",
        "[16,1,{},\"a\",{}]",
        "[16,1,{},\"a\",[],[]]",
        "[16,1,{},\"a\",[],{},1]",
        "[16,1,{\"a\"},\"a\"]",
        "[16,1,{\"acknowledge\":1},\"a\"]",
        "[16,1,{\"exclude\":[0]},\"a\"]",
        "[32,1,{\"match\":\"none\"},\"a\"]",
        "[16,01,{},\"a\"]",
        "[16,+1,{},\"a\"]",
        "[16,1,{},'a']",
        "[16,1,{},\"\\x\"]",
        "[16,1,{},\"a\",[NaN]]",
        "[16,1,{},\"a\",[Infinity]]",
        "[16,1,{},\"a\",[1.]]",
        "[16,1,{},\"a\",[.5]]",
        "[16,1,{},\"a\",[01]]",
        "[16,1,{},\"a\",[\"\u{1}\"]]",
        "[16,1,{},\"a\",[tru]]",
        "[16,1,{},\"a\",[\"\\u12\"]]",
        "[16,1,{},\"a\",[1,]]",
        "\u{feff}[16,1,{},\"a\"]",
        "[16,1,{},\"a\"]x",
        "[16,1,{},\"a\"][16,2,{},\"a\"]",
        "[16,1,{},\"a\",[1e]]",
    ]
    .map(str::to_owned)
    .into();
    // Messages that are right but for who sends them, or when.
    messages.extend(
        [
            r#"[1,"realm1",{"roles":{"caller":{}}}]"#,
            r#"[2,9,{"roles":{"broker":{}}}]"#,
            r#"[4,"ticket",{}]"#,
            r#"[5,"signature",{}]"#,
            r#"[17,1,9]"#,
            r#"[33,1,9]"#,
            r#"[35,1]"#,
            r#"[36,9,9,{}]"#,
            r#"[50,1,{}]"#,
            r#"[65,1,9]"#,
            r#"[67,1]"#,
            r#"[68,1,9,{}]"#,
            r#"[69,1,{}]"#,
            r#"[8,48,1,{},"an.error"]"#,
            r#"[8,16,1,{},"an.error"]"#,
            r#"[70,1,{}]"#,
            r#"[8,68,1,{},"an.error"]"#,
            r#"[16,2,{},"skips.one"]"#,
            r#"[48,9007199254740992,{},"the.last"]"#,
        ]
        .map(str::to_owned),
    );
    expect_violations(&router, &mut bystanders, &messages);

    // Before the session there is HELLO, and ABORT.
    let before = router.counters();
    let early = [
        r#"[16,1,{},"a"]"#,
        r#"[48,1,{},"a"]"#,
        r#"[70,1,{}]"#,
        r#"[6,{},"a.reason"]"#,
        "[2,9,{}]",
        "rubbish",
    ];
    for (index, message) in early.iter().enumerate() {
        let mut client = Client::connect(&router.near, if index % 2 == 0 { WebSocket } else { RawSocket });
        let behind = client.frame(&hello("realm1"));
        client.send_raw(&[client.frame(message), behind].concat());
        client.expect_violation(message);
    }
    let mut client = Client::connect(&router.near, WebSocket);
    client.send(r#"[3,{},"i.changed.my.mind"]"#);
    let farewell = client.farewell();
    assert!(farewell.messages.is_empty() && farewell.code == Some(1000), "{farewell:?}");
    let mut client = Client::join(&router.near, WebSocket);
    client.send(r#"[3,{},"i.give.up"]"#);
    assert_eq!(client.farewell().code, Some(1000));
    router.expect_closed(&before, [("protocol_violation", 6), ("client_abort", 2)]);
    bystanders.leave();
    drop(client);
    router.stop();
}

#[test]
fn batches_that_cannot_be_taken_apart_end_like_messages_that_cannot_be_decoded() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let subscribe = r#"[32,1,{},"a.topic"]"#;
    let hello = hello("realm1");
    for (batches, answers) in [
        // Before HELLO as well.
        (vec![String::new()], vec![]),
        (vec![hello.clone()], vec![]),
        (vec![format!("{hello}\x1e"), String::new()], vec!["[2,"]),
        (vec![format!("{hello}\x1e"), format!("{subscribe}\x1e{subscribe}")], vec!["[2,", "[33,1,"]),
    ] {
        let mut client = Client::connect_as(&router.near, WebSocket, "wamp.2.json.batched", 1);
        for batch in &batches {
            client.send_raw(&websocket_frame(0x81, batch.as_bytes()));
        }
        // What is behind it must not be handled: it would be answered.
        client.send_raw(&websocket_frame(0x81, format!("{hello}\x1e").as_bytes()));
        let (said, ended) = client.read_to_end();
        let close = said.windows(4).rposition(|four| four[0] == 0x88 && four[2..] == 1002_u16.to_be_bytes());
        let said = String::from_utf8_lossy(&said[..close.expect("a Close frame")]).into_owned();
        assert_eq!(said.matches('\x1e').count(), answers.len() + 1, "{said:?}");
        assert!(answers.iter().all(|answer| said.contains(answer)), "{said:?}");
        let abort = said.rsplit("[3,").next().unwrap();
        assert!(abort.contains("batch") && abort.contains("wamp.error.protocol_violation"), "{said:?}");
        assert!(ended, "{said:?}");
    }
    bystanders.check();
    router.expect_closed(&before, [("protocol_violation", 4)]);
    bystanders.leave();
    router.stop();
}

#[test]
fn nesting_and_numbers_without_end() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let deep = |open: &str, count: usize| format!("[16,1,{{}},\"a\",[{}", open.repeat(count));
    let closed = |count: usize| deep("[", count) + &"]".repeat(count) + "]]";
    expect_violations(
        &router,
        &mut bystanders,
        &[deep("[", 100_000), deep(r#"{"a":"#, 100_000), "[".repeat(500_000), closed(200), closed(63)],
    );
    let mut client = Client::join(&router.near, WebSocket);
    // 62 and the two lists around it are as deep as is allowed.
    for args in [
        "[".repeat(62) + &"]".repeat(62),
        "9".repeat(500_000),
        format!("1.{}e-5", "0".repeat(500_000)),
        "1e400, -1e400, 1e-400, -0, 18446744073709551616".to_owned(),
        r#"{"a":1,"a":2,"":3}, "\ud800", "\udc00\ud800", "\u0000""#.to_owned(),
    ] {
        client.publish_acknowledged("a.topic", &args);
    }
    // Before HELLO.
    for framing in [WebSocket, RawSocket] {
        let mut early = Client::connect(&router.far, framing);
        early.send(&"[".repeat(16_000));
        early.expect_violation("deep before HELLO");
    }
    client.leave();
    bystanders.leave();
    router.stop();
}

fn encoded(json: &str, serializer: Serializer) -> Vec<u8> {
    let message = decode(Serializer::Json, Input::Text(json), DecodeLimits::default()).unwrap();
    let mut bytes = Vec::new();
    Encoder::new().encode(&message, serializer, &mut bytes).unwrap();
    bytes
}

/// Frames of a serializer of bytes.
fn binary_frame(framing: Framing, bytes: &[u8]) -> Vec<u8> {
    match framing {
        WebSocket => websocket_frame(0x82, bytes),
        RawSocket => rawsocket_frame(0, bytes),
    }
}

/// The payload of the next data frame.
fn binary_payload(client: &mut Client, framing: Framing) -> Vec<u8> {
    match framing {
        WebSocket => {
            let head = client.read_exactly(2);
            assert_eq!(head[0], 0x82);
            let length = match head[1] {
                126 => u16::from_be_bytes(client.read_exactly(2).try_into().unwrap()) as usize,
                length => usize::from(length),
            };
            client.read_exactly(length)
        }
        RawSocket => {
            let head = client.read_exactly(4);
            let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
            client.read_exactly(length)
        }
    }
}

#[test]
fn claims_of_four_billion_elements_cost_nothing() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let memory = router.memory_bytes();
    // A PUBLISH as far as its payload, then the claim.
    let begin = |serializer| {
        let mut bytes = encoded(r#"[16,1,{},"a.topic",[1]]"#, serializer);
        bytes.truncate(bytes.len() - 2);
        bytes
    };
    let table: [(&str, u8, Serializer, &[&[u8]]); 2] = [
        (
            "wamp.2.msgpack",
            2,
            Serializer::MsgPack,
            &[
                b"\xdd\xff\xff\xff\xff",
                b"\xdc\xff\xff",
                b"\x91\xdf\xff\xff\xff\xff",
                b"\x91\xdb\xff\xff\xff\xff",
                b"\x91\xc6\xff\xff\xff\xff",
                b"\x91\xc9\xff\xff\xff\xff\x01",
                b"\x91\xc1",
                b"\x91",
            ],
        ),
        (
            "wamp.2.cbor",
            3,
            Serializer::Cbor,
            &[
                b"\x9a\xff\xff\xff\xff",
                b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x81\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x81\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x81\x5b\x00\x00\x00\x01\x00\x00\x00\x00",
                b"\x81\x1c",
                b"\x81\xff",
                b"\x81",
            ],
        ),
    ];
    let mut count = 0;
    for (subprotocol, number, serializer, claims) in table {
        for claim in claims {
            for framing in [WebSocket, RawSocket] {
                let mut client = Client::connect_as(&router.near, framing, subprotocol, number);
                client.send_raw(&binary_frame(framing, &encoded(&hello("realm1"), serializer)));
                let welcome = binary_payload(&mut client, framing);
                let decoded = decode(serializer, Input::Bytes(&welcome), DecodeLimits::default());
                assert!(matches!(decoded, Ok(crosspoint::wamp::Message::Welcome(_))), "{decoded:?}");
                client.send_raw(&binary_frame(framing, &[begin(serializer), claim.to_vec()].concat()));
                let (said, fin) = client.read_to_end();
                let uri = b"wamp.error.protocol_violation";
                assert!(said.windows(uri.len()).any(|window| window == uri), "{claim:x?}: {said:x?}");
                assert!(fin, "{claim:x?}");
                count += 1;
            }
        }
    }
    bystanders.check();
    router.expect_closed(&before, [("protocol_violation", count)]);
    assert!(router.memory_bytes() < memory + (16 << 20), "{memory} became {}", router.memory_bytes());
    bystanders.leave();
    router.stop();
}

#[test]
fn uris_that_are_none_are_refused_and_the_session_goes_on() {
    let realms = open_realm("realm1", "", "") + &open_realm("strict", "uri_rule = \"strict\"", "");
    let router = Router::start_with(Settings { realms: &realms, ..Settings::default() });
    let long = "a".repeat(100 << 10);
    let many = "a.".repeat(64) + "a";
    let loose = ["", ".", "a.", ".a", "a..b", "a b", "a\\tb", "a#b", "a.\u{a0}b", &long, &many];
    let strict = ["A", "a-b", "\u{fc}", "a/b", "a:b"];
    let mut client = Client::join(&router.near, WebSocket);
    let mut strict_client = Client::join_realm(&router.far, RawSocket, "strict");
    for (client, uris, is_strict) in
        [(&mut client, &loose[..], false), (&mut strict_client, &strict[..], true)]
    {
        for uri in uris {
            let what: String = uri.chars().take(20).collect();
            for (kind, options) in [(16, r#""acknowledge":true"#), (32, ""), (48, ""), (64, "")] {
                let answer = client.ask(|request| format!(r#"[{kind},{request},{{{options}}},"{uri}"]"#));
                assert_eq!((&answer[0], &answer[1]), (&8.into(), &kind.into()), "{what}: {answer:?}");
                assert_eq!(answer[4], "wamp.error.invalid_uri", "{what} in {kind}: {answer:?}");
            }
        }
        // Nobody is told of a PUBLISH that was not to be acknowledged.
        client.publish(uris[0], "");
        // What is not ASCII, and not in a normal form, is a URI by the loose rule: bytes are compared.
        let accent = client.ask(|request| format!("[32,{request},{{}},\"a.e\u{301}\"]"));
        assert_eq!(accent[0], if is_strict { 8 } else { 33 }, "{accent:?}");
    }
    // What is the protocol's own is nobody's to take or to say.
    for (kind, options) in [(16, r#""acknowledge":true"#), (64, "")] {
        for uri in ["wamp.session.on_join", "wamp.a", "wamp"] {
            let answer = client.ask(|request| format!(r#"[{kind},{request},{{{options}}},"{uri}"]"#));
            assert_eq!(answer[4], "wamp.error.invalid_uri", "{uri} in {kind}: {answer:?}");
        }
    }
    client.leave();
    strict_client.leave();
    router.stop();
}

#[test]
fn one_session_holds_so_many_subscriptions_and_registrations() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let memory = router.memory_bytes();
    let mut client = Client::join(&router.near, RawSocket);
    for (kind, answered) in [(32, 33), (64, 65)] {
        let mut answers = [0, 0];
        // Many at a time: a session that asks for a million does not wait for each.
        for batch in 0..30 {
            let mut frames = Vec::new();
            for index in 0..100 {
                let request = client.request();
                frames.extend(client.frame(&format!(r#"[{kind},{request},{{}},"flood.n{batch}.n{index}"]"#)));
            }
            client.send_raw(&frames);
            for _ in 0..100 {
                let answer = client.message();
                if answer[0] == answered {
                    answers[0] += 1;
                } else {
                    assert_eq!(answer[4], "crosspoint.error.limit_reached", "{answer:?}");
                    answers[1] += 1;
                }
            }
        }
        assert_eq!(answers, [1000, 2000]);
        bystanders.check();
    }
    // At the limit what is held already may be asked for again, and what is given back makes room.
    let held = client.subscribe("flood.n0.n0");
    let answer = client.ask(|request| format!("[34,{request},{held}]"));
    assert_eq!(answer[0], 35);
    client.subscribe("flood.new");
    assert_eq!(router.counters().get("limit_reached"), 4000);
    router.expect_memory_near(memory);
    client.leave();
    // All of it is free again.
    let mut other = Client::join(&router.far, WebSocket);
    for index in 0..100 {
        other.register(&format!("flood.n0.n{index}"));
    }
    other.leave();
    bystanders.leave();
    router.stop();
}

#[test]
fn answers_to_what_was_never_asked_or_is_over() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let mut callee = Client::join(&router.far, WebSocket);
    callee.register("a.procedure");
    let mut caller = Client::join(&router.near, WebSocket);
    // The second answer, and answers to what is over, are passed over.
    for round in 1..=3 {
        let request = caller.call("a.procedure", &round.to_string());
        let invocation = callee.echo_invocation();
        let id = &invocation[1];
        callee.send(&format!("[70,{id},{{}},[\"again\"]]"));
        callee.send(&format!("[8,68,{id},{{}},\"an.error\"]"));
        let result = caller.message();
        assert_eq!((&result[1], &result[3][0]), (&request.into(), &round.into()), "{result:?}");
    }
    // A call that was cancelled: what the callee says of it later is passed over too.
    let request = caller.call("a.procedure", "4");
    let invocation = callee.message();
    caller.send(&format!(r#"[49,{request},{{"mode":"skip"}}]"#));
    assert_eq!(caller.message()[4], "wamp.error.canceled");
    callee.send(&format!("[70,{},{{}},[\"late\"]]", invocation[1]));
    // A call whose caller is gone.
    let mut gone = Client::join(&router.near, RawSocket);
    gone.call("a.procedure", "5");
    let invocation = callee.message();
    gone.leave();
    callee.send(&format!("[70,{},{{}},[\"nobody\"]]", invocation[1]));
    // An id that is somebody else's: INVOCATION ids count by session, and this one has seen none yet.
    let mut thief = Client::join(&router.far, WebSocket);
    thief.register("another.procedure");
    let request = caller.call("a.procedure", "6");
    let invocation = callee.message();
    thief.send(&format!("[70,{},{{}},[\"stolen\"]]", invocation[1]));
    thief.expect_violation("YIELD for an invocation of somebody else");
    callee.send(&format!("[70,{},{{}},[\"mine\"]]", invocation[1]));
    let result = caller.message();
    assert_eq!((&result[1], &result[3][0]), (&request.into(), &"mine".into()));
    // CANCEL for calls that are over, never were, or are somebody else's.
    for request in [1, request, request + 100] {
        caller.send(&format!("[49,{request},{{}}]"));
    }
    caller.subscribe("still.here");
    // An invocation that was never made.
    callee.send(&format!("[70,{},{{}}]", 1_000_000));
    callee.expect_violation("YIELD for an invocation that never was");
    bystanders.check();
    router.expect_closed(&before, [("end_of_stream", 1), ("protocol_violation", 2)]);
    caller.leave();
    drop((thief, callee));
    bystanders.leave();
    router.stop();
}

#[test]
fn request_ids_count() {
    let realms = open_realm("realm1", "", "") + &open_realm("lax", "strict_request_ids = false", "");
    let router = Router::start_with(Settings { realms: &realms, ..Settings::default() });
    for (first, second) in [(1, 1), (1, 3), (2, 3), (1, 9_007_199_254_740_992_u64)] {
        let mut client = Client::join(&router.near, WebSocket);
        client.send(&format!(r#"[16,{first},{{}},"a"]"#));
        client.try_send_raw(&client.frame(&format!(r#"[16,{second},{{}},"a"]"#)));
        client.expect_violation(&format!("{first}, {second}"));
    }
    // Where ids need not count they may be anything, but not one of a call that is open.
    let mut callee = Client::join_realm(&router.far, WebSocket, "lax");
    callee.register("a.procedure");
    let mut client = Client::join_realm(&router.near, WebSocket, "lax");
    for request in [500_u64, 7, 9_007_199_254_740_992, 1] {
        client.send(&format!(r#"[48,{request},{{}},"a.procedure",[{request}]]"#));
        callee.echo_invocation();
        let result = client.message();
        assert_eq!((&result[1], &result[3][0]), (&request.into(), &request.into()));
    }
    client.send(r#"[48,7,{},"a.procedure"]"#);
    callee.message();
    client.send(r#"[48,7,{},"a.procedure"]"#);
    client.expect_violation("two calls with one id");
    callee.leave();
    drop(client);
    router.stop();
}
