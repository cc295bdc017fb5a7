//! The codec as a whole: layouts, options, errors, and the table of docs/serialization.md row by row.

mod faults;
mod table;

use super::*;

fn json(text: &str) -> Result<Message<'_>, ProtocolError> {
    decode(Serializer::Json, Input::Text(text), DecodeLimits::default())
}

fn json_error(text: &str) -> String {
    json(text).expect_err(text).message
}

fn encoded(message: &Message<'_>, serializer: Serializer) -> Vec<u8> {
    let mut out = vec![7];
    Encoder::new().encode(message, serializer, &mut out).unwrap();
    out.remove(0);
    out
}

/// Messages of every type, written as the encoder writes them.
const CANONICAL: &[&str] = &[
    r#"[1,"realm1",{"roles":{"caller":{},"subscriber":{"features":{"subscription_revocation":true}}},"agent":"a/1","authmethods":["ticket","wampcra"],"authid":"joe","authrole":"user","authextra":{"x":[1,2]}}]"#,
    r#"[2,9007199254740992,{"roles":{"broker":{"features":{"publisher_exclusion":true}},"dealer":{"features":{"call_canceling":true}}},"realm":"r","authid":"joe","authrole":"user","authmethod":"ticket","authprovider":"static","agent":"Crosspoint","authextra":{"verifier":"v"}}]"#,
    r#"[3,{"message":"no"},"wamp.error.no_such_realm"]"#,
    r#"[3,{},"wamp.error.no_such_realm",["x"],{"y":1}]"#,
    r#"[4,"ticket",{}]"#,
    r#"[4,"wampcra",{"challenge":"{\"a\":1}","iterations":1000}]"#,
    r#"[5,"secret",{}]"#,
    r#"[5,"secret",{"nonce":"n"}]"#,
    r#"[6,{},"wamp.close.close_realm"]"#,
    r#"[6,{"message":"bye \"now\"\n"},"wamp.close.close_realm"]"#,
    r#"[8,48,7,{},"com.example.error"]"#,
    r#"[8,68,7,{"ppt_scheme":"x"},"com.example.error",[1],{"a":null}]"#,
    r#"[16,1,{},"com.example.topic"]"#,
    r#"[16,1,{"acknowledge":true,"exclude_me":false,"disclose_me":true,"retain":true,"_ttl":0,"exclude":[1,2],"exclude_authid":["a"],"exclude_authrole":["b"],"eligible":[],"eligible_authid":["c"],"eligible_authrole":["d"],"rkey":"k","ppt_scheme":"s","ppt_serializer":"cbor","ppt_cipher":"c","ppt_keyid":"i"},"com.example.topic",[],{"a":1}]"#,
    r"[17,1,2]",
    r#"[32,1,{},"com.example.topic"]"#,
    r#"[32,1,{"match":"wildcard","get_retained":true,"nkey":"n"},"com..topic"]"#,
    r"[33,1,2]",
    r"[34,1,2]",
    r"[35,1]",
    r#"[35,0,{"subscription":5,"reason":"r"}]"#,
    r#"[36,1,2,{},[1,2.5e3,"x",{"y":[true,false,null]}]]"#,
    r#"[36,1,2,{"topic":"t","publisher":3,"publisher_authid":"a","publisher_authrole":"r","trustlevel":0,"retained":true,"_lost":9,"ppt_scheme":"s"}]"#,
    r#"[48,1,{},"com.example.add",[1,2]]"#,
    r#"[48,1,{"timeout":1000,"receive_progress":true,"progress":true,"disclose_me":true,"rkey":"k","runmode":"partition","ppt_scheme":"s"},"com.example.add",[],{"a":1}]"#,
    r"[49,1,{}]",
    r#"[49,1,{"mode":"killnowait"}]"#,
    r#"[50,1,{"progress":true,"ppt_keyid":"k"},["r"]]"#,
    r#"[64,1,{},"com.example.add"]"#,
    r#"[64,1,{"match":"prefix","invoke":"roundrobin","concurrency":3,"force_reregister":true,"disclose_caller":true,"nkey":"n"},"com.example"]"#,
    r"[65,1,2]",
    r"[66,1,2]",
    r"[67,1]",
    r#"[67,0,{"registration":5}]"#,
    r#"[68,1,2,{"procedure":"p","caller":3,"caller_authid":"a","caller_authrole":"r","trustlevel":5,"timeout":100,"receive_progress":true,"progress":true},["x"]]"#,
    r"[69,1,{}]",
    r#"[69,1,{"mode":"skip","reason":"wamp.error.canceled"}]"#,
    r#"[70,1,{"progress":true},[1],{"b":2}]"#,
];

#[test]
fn every_message_is_written_as_it_was_read() {
    for text in CANONICAL {
        let message = json(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(String::from_utf8(encoded(&message, Serializer::Json)).unwrap(), *text);
    }
}

#[test]
fn every_type_is_among_the_canonical_messages() {
    for kind in crate::wamp::MessageType::ALL {
        assert!(CANONICAL.iter().any(|text| json(text).unwrap().kind() == kind), "{}", kind.name());
    }
}

#[test]
fn every_truncation_of_a_message_is_an_error() {
    for text in CANONICAL {
        for end in 0..text.len() {
            json_error(&text[..end]);
        }
    }
}

/// The message in another serializer, read back from there.
fn transcoded(bytes: &[u8], from: Serializer, to: Serializer) -> Result<Vec<u8>, NotRepresentable> {
    let message = decode(from, Input::Bytes(bytes), DecodeLimits::default()).unwrap();
    let mut out = Vec::new();
    Encoder::new().encode(&message, to, &mut out)?;
    decode(to, Input::Bytes(&out), DecodeLimits::default()).unwrap();
    Ok(out)
}

/// Says `args`, in hexadecimal, in another serializer; what comes out without the message around it.
fn args(hexadecimal: &str, from: Serializer, to: Serializer) -> Result<Vec<u8>, NotRepresentable> {
    let bytes = unhex(hexadecimal);
    let event = Message::Event(Event {
        subscription: crate::wamp::SubscriptionId(1),
        publication: crate::wamp::PublicationId(2),
        details: crate::wamp::options::EventDetails::default(),
        payload: Payload { serializer: from, args: &bytes, kwargs: &[] },
    });
    let mut source = Vec::new();
    Encoder::new().encode(&event, from, &mut source).unwrap();
    let out = transcoded(&source, from, to)?;
    let Ok(Message::Event(event)) = decode(to, Input::Bytes(&out), DecodeLimits::default()) else {
        panic!("not an EVENT")
    };
    Ok(event.payload.args.to_vec())
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to_json(hexadecimal: &str, from: Serializer) -> Result<String, NotRepresentable> {
    args(hexadecimal, from, Serializer::Json).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn from_json(args_text: &str, to: Serializer) -> Result<String, NotRepresentable> {
    args(&hex(args_text.as_bytes()), Serializer::Json, to).map(|bytes| hex(&bytes))
}

fn accepts(serializer: Serializer, bytes: &[u8]) -> Result<(), String> {
    decode(serializer, Input::Bytes(bytes), DecodeLimits::default())
        .map(|_| ())
        .map_err(|error| error.message)
}

/// An EVENT with these bytes as its only argument.
fn with_argument(serializer: Serializer, argument: &[u8]) -> Vec<u8> {
    let (head, tail): (&[u8], &[u8]) = match serializer {
        Serializer::Json => (b"[36,1,2,{},[", b"]]"),
        Serializer::MsgPack => (&[0x95, 36, 1, 2, 0x80, 0x91], &[]),
        Serializer::Cbor => (&[0x85, 0x18, 36, 1, 2, 0xa0, 0x81], &[]),
    };
    [head, argument, tail].concat()
}

fn argument(serializer: Serializer, argument: &[u8]) -> Result<(), String> {
    accepts(serializer, &with_argument(serializer, argument))
}

#[test]
fn every_message_goes_through_every_serializer_and_back() {
    for text in CANONICAL {
        for through in [Serializer::MsgPack, Serializer::Cbor] {
            let there = transcoded(text.as_bytes(), Serializer::Json, through).unwrap();
            let other = if through == Serializer::Cbor { Serializer::MsgPack } else { Serializer::Cbor };
            let further = transcoded(&there, through, other).unwrap();
            let back = transcoded(&further, other, Serializer::Json).unwrap();
            assert_eq!(String::from_utf8(back).unwrap(), text.replace("2.5e3", "2500.0"));
            for end in 0..there.len() {
                accepts(through, &there[..end]).expect_err("a truncated message");
            }
        }
    }
}
