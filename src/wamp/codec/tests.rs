//! The codec as a whole: layouts, options, errors, and the table of docs/serialization.md row by row.

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
    r#"[16,1,{"acknowledge":true,"exclude_me":false,"disclose_me":true,"retain":true,"exclude":[1,2],"exclude_authid":["a"],"exclude_authrole":["b"],"eligible":[],"eligible_authid":["c"],"eligible_authrole":["d"],"rkey":"k","ppt_scheme":"s","ppt_serializer":"cbor","ppt_cipher":"c","ppt_keyid":"i"},"com.example.topic",[],{"a":1}]"#,
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
