//! What a peer can do wrong, and what it is told; and what options become.

use super::*;

#[test]
fn elements_of_the_wrong_type_or_number_are_named() {
    for (text, error) in [
        ("{}", "a message is a list, but this is a map"),
        ("\"x\"", "a message is a list, but this is a string"),
        ("", "JSON: the message ends where a value is expected, at byte 0"),
        ("[]", "an empty list is not a message"),
        ("[\"48\"]", "the type of a message is an integer, but the first element is a string"),
        (
            "[-1]",
            "the type of a message is an integer, but the first element is an integer that is negative or beyond 64 bits",
        ),
        ("[48.0]", "the type of a message is an integer, but the first element is a float"),
        ("[7]", "there is no message type 7"),
        ("[37,1]", "there is no message type 37"),
        ("[18446744073709551615]", "there is no message type 18446744073709551615"),
        ("[48]", "CALL: too few elements, Request is missing"),
        ("[48,1,{}]", "CALL: too few elements, Procedure is missing"),
        ("[48,1,{},\"p\",[],{},1]", "CALL: too many elements"),
        ("[17,1,2,{}]", "PUBLISHED: too many elements"),
        ("[35,1,{}]", "UNSUBSCRIBED: too many elements"),
        ("[35,0]", "UNSUBSCRIBED: too few elements, Details is missing"),
        ("[67,0,{},1]", "UNREGISTERED: too many elements"),
        ("[48,1,{},\"p\",{}]", "CALL.Arguments: expected a list, found a map"),
        ("[48,1,{},\"p\",null]", "CALL.Arguments: expected a list, found null"),
        ("[48,1,{},\"p\",[],[]]", "CALL.ArgumentsKw: expected a map, found a list"),
        ("[48,1,[],\"p\"]", "CALL.Options: expected a map, found a list"),
        ("[48,1,{},5]", "CALL.Procedure: expected a string, found an integer"),
        ("[8,7,1,{},\"e\"]", "ERROR.REQUEST.Type: there is no message type 7"),
        ("[5,\"s\",[]]", "AUTHENTICATE.Extra: expected a map, found a list"),
    ] {
        assert_eq!(json_error(text), error, "{text}");
    }
}

#[test]
fn ids_are_integers_from_1_to_2_to_the_53() {
    let call = |request: &str| accepts(Serializer::Json, format!("[48,{request},{{}},\"p\"]").as_bytes());
    call("1").unwrap();
    call("9007199254740992").unwrap();
    for (bad, found) in [
        ("0", "0"),
        ("9007199254740993", "9007199254740993"),
        ("-1", "an integer that is negative or beyond 64 bits"),
        ("-0", "an integer that is negative or beyond 64 bits"),
        ("99999999999999999999", "an integer that is negative or beyond 64 bits"),
        ("1.0", "a float"),
        ("1e3", "a float"),
        ("1E0", "a float"),
        ("\"1\"", "a string"),
        ("null", "null"),
        ("true", "a boolean"),
    ] {
        let error = call(bad).unwrap_err();
        assert_eq!(error, format!("CALL.Request: expected an integer in 1..=2^53, found {found}"));
    }
    // Every other place of an id, with 0 and with a float; and both binary serializers.
    for text in [
        "[2,0,{}]",
        "[17,1,0]",
        "[17,0,1]",
        "[33,1,1.0]",
        "[34,1,0]",
        "[36,0,1,{}]",
        "[36,1,0,{}]",
        "[65,1,0]",
        "[66,1,0]",
        "[68,1,0,{}]",
        "[69,0,{}]",
        "[70,0,{}]",
        "[49,0,{}]",
        "[50,0,{}]",
        "[8,48,0,{},\"e\"]",
        "[35,9007199254740993]",
        "[35,0,{\"subscription\":0}]",
        "[36,1,2,{\"publisher\":0}]",
        "[16,1,{\"exclude\":[0]},\"t\"]",
        "[16,1,{\"eligible\":[1.0]},\"t\"]",
        "[68,1,2,{\"caller\":-1}]",
    ] {
        assert!(json_error(text).contains("expected an integer in 1..=2^53"), "{text}");
    }
    for bytes in ["9311 00 01", "9311 ff 01", "9311 cb3ff8000000000000 01", "9311 cf0020000000000001 01"] {
        accepts(Serializer::MsgPack, &unhex(bytes)).unwrap_err();
    }
    accepts(Serializer::MsgPack, &unhex("9311 cf0020000000000000 01")).unwrap();
    for bytes in
        ["8311 00 01", "8311 20 01", "8311 f93e00 01", "8311 1b0020000000000001 01", "8311 c24101 01"]
    {
        accepts(Serializer::Cbor, &unhex(bytes)).unwrap_err();
    }
    accepts(Serializer::Cbor, &unhex("8311 1b0020000000000000 01")).unwrap();
}

#[test]
fn known_options_of_the_wrong_type_are_named() {
    for (text, error) in [
        (
            r#"[16,1,{"exclude_me":"no"},"t"]"#,
            "PUBLISH.Options.exclude_me: expected a boolean, found a string",
        ),
        (
            r#"[16,1,{"exclude":5},"t"]"#,
            "PUBLISH.Options.exclude: expected a list of session ids, found an integer",
        ),
        (
            r#"[16,1,{"exclude":["a"]},"t"]"#,
            "PUBLISH.Options.exclude: expected an integer in 1..=2^53, found a string",
        ),
        (
            r#"[16,1,{"eligible_authid":[1]},"t"]"#,
            "PUBLISH.Options.eligible_authid: expected a string, found an integer",
        ),
        (r#"[16,1,{"ppt_scheme":1},"t"]"#, "PUBLISH.Options.ppt_scheme: expected a string, found an integer"),
        (
            r#"[48,1,{"timeout":1.5},"p"]"#,
            "CALL.Options.timeout: expected an integer of at least 0, found a float",
        ),
        (
            r#"[48,1,{"timeout":-1},"p"]"#,
            "CALL.Options.timeout: expected an integer of at least 0, found an integer that is negative or beyond 64 bits",
        ),
        (
            r#"[32,1,{"match":"suffix"},"t"]"#,
            "SUBSCRIBE.Options.match: expected one of exact, prefix, wildcard, found \"suffix\"",
        ),
        (
            r#"[64,1,{"invoke":"any"},"p"]"#,
            "REGISTER.Options.invoke: expected one of single, first, last, roundrobin, random, least_busy, hash, found \"any\"",
        ),
        (
            r#"[49,1,{"mode":"hard"}]"#,
            "CANCEL.Options.mode: expected one of skip, kill, killnowait, found \"hard\"",
        ),
        (r#"[70,1,{"progress":1}]"#, "YIELD.Options.progress: expected a boolean, found an integer"),
        (
            r#"[1,"r",{}]"#,
            "HELLO.Details.roles: expected at least one of caller, callee, publisher and subscriber",
        ),
        (
            r#"[1,"r",{"roles":{}}]"#,
            "HELLO.Details.roles: expected at least one of caller, callee, publisher and subscriber",
        ),
        (r#"[1,"r",{"roles":[]}]"#, "HELLO.Details.roles: expected a map, found a list"),
        (
            r#"[1,"r",{"roles":{"caller":true}}]"#,
            "HELLO.Details.roles: caller: expected a map, found a boolean",
        ),
        (
            r#"[1,"r",{"roles":{"caller":{"features":[]}}}]"#,
            "HELLO.Details.roles: caller.features: expected a map, found a list",
        ),
        (
            r#"[1,"r",{"roles":{"caller":{"features":{"call_timeout":1}}}}]"#,
            "HELLO.Details.roles: caller.features.call_timeout: expected a boolean, found an integer",
        ),
        (
            r#"[1,"r",{"roles":{"caller":{}},"authextra":1}]"#,
            "HELLO.Details.authextra: expected a map, found an integer",
        ),
        (
            r#"[2,1,{"roles":{"caller":{}}}]"#,
            "WELCOME.Details.roles: expected at least one of broker and dealer",
        ),
    ] {
        assert_eq!(json_error(text), error, "{text}");
    }
}

#[test]
fn unknown_options_are_passed_but_validated() {
    let text = r#"[48,1,{"x":[1,{"y":null}],"_own":"z","timeout":7,"":1},"p"]"#;
    let Message::Call(call) = json(text).unwrap() else { panic!() };
    assert_eq!(call.options.timeout_ms, 7);
    json_error(r#"[48,1,{"x":[1,},"p"]"#);
    json_error("[48,1,{\"x\":\"\u{1}\"},\"p\"]");
    accepts(Serializer::MsgPack, &unhex("943001 81a178a1ff a170")).unwrap_err();
}

#[test]
fn the_bound_on_lists_in_options_holds() {
    let list = |length: usize| format!("[16,1,{{\"exclude\":[{}]}},\"t\"]", vec!["1"; length].join(","));
    json(&list(1000)).unwrap();
    assert_eq!(json_error(&list(1001)), "PUBLISH.Options.exclude: at most 1000 entries are allowed");
}

#[test]
fn roles_and_features() {
    use crate::wamp::features::ClientFeatures as Has;
    let text = r#"[1,"r",{"roles":{"caller":{"features":{"call_canceling":true,"call_timeout":false,"other":5}},
        "callee":{"features":{"call_cancelling":true},"more":1},"wizard":{"features":7}}}]"#;
    let Message::Hello(hello) = json(text).unwrap() else { panic!() };
    let expected =
        Has::CALLER.with(Has::CALLER_CALL_CANCELING).with(Has::CALLEE).with(Has::CALLEE_CALL_CANCELING);
    assert_eq!(hello.details.features, expected);
}

#[test]
fn every_feature_is_announced_as_it_is_read() {
    use crate::wamp::features::{ClientFeatures, RouterFeatures};
    let client = ClientFeatures::ALL.iter().fold(0, |bits, feature| bits | feature.bit);
    let router = RouterFeatures::ALL.iter().fold(0, |bits, feature| bits | feature.bit);
    for serializer in Serializer::ALL {
        let details =
            crate::wamp::options::HelloDetails { features: ClientFeatures(client), ..Default::default() };
        let hello = Message::Hello(crate::wamp::message::Hello { realm: "r".into(), details });
        let details =
            crate::wamp::options::WelcomeDetails { features: RouterFeatures(router), ..Default::default() };
        let session = crate::wamp::SessionId(1);
        let welcome = Message::Welcome(crate::wamp::message::Welcome { session, details });
        for message in [hello, welcome] {
            let bytes = encoded(&message, serializer);
            assert_eq!(decode(serializer, Input::Bytes(&bytes), DecodeLimits::default()).unwrap(), message);
            assert!(!String::from_utf8_lossy(&bytes).contains("cancelling"));
        }
    }
}

#[test]
fn empty_payloads_are_absent() {
    for text in [r#"[50,1,{}]"#, r#"[50,1,{},[]]"#, r#"[50,1,{},[ ],{ }]"#] {
        let message = json(text).unwrap();
        let Message::Result(result) = &message else { panic!() };
        assert_eq!(result.payload, Payload::EMPTY);
        assert_eq!(encoded(&message, Serializer::Json), b"[50,1,{}]");
    }
    let message = json(r#"[50,1,{},[],{"a":1}]"#).unwrap();
    assert_eq!(encoded(&message, Serializer::Json), br#"[50,1,{},[],{"a":1}]"#);
    let message = json(r#"[50,1,{},[ 1 ],{}]"#).unwrap();
    assert_eq!(encoded(&message, Serializer::Json), b"[50,1,{},[ 1 ]]");
}

#[test]
fn dictionaries_of_many_entries_have_the_right_count() {
    use super::writer::Writer;
    fn written<W: Writer>(mut writer: W, count: usize) {
        writer.list(4);
        writer.unsigned(48);
        writer.unsigned(1);
        let mut mark = writer.dict();
        (0..count).for_each(|at| {
            writer.key(&mut mark, &format!("key{at}"));
            writer.unsigned(1);
        });
        writer.dict_end(mark);
        writer.text("p");
        writer.list_end();
    }
    for count in [0, 1, 14, 15, 16, 23, 24, 255, 256, 70_000] {
        let (mut packed, mut cbor) = (vec![], vec![]);
        written(msgpack::MsgPackWriter::new(&mut packed), count);
        written(cbor::CborWriter::new(&mut cbor), count);
        accepts(Serializer::MsgPack, &packed).unwrap();
        accepts(Serializer::Cbor, &cbor).unwrap();
    }
}

#[test]
fn strings_with_escapes_are_unescaped_and_escaped_again() {
    let text = r#"[6,{},"\"\\/\b\f\n\r\t\u0001\u001fä\u00e4\ud83d\ude00"]"#;
    let Message::Goodbye(goodbye) = json(text).unwrap() else { panic!() };
    assert_eq!(goodbye.reason, "\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}ää\u{1f600}");
    let again = encoded(&json(text).unwrap(), Serializer::Json);
    assert_eq!(String::from_utf8(again).unwrap(), r#"[6,{},"\"\\/\b\f\n\r\t\u0001\u001fää😀"]"#);
}

#[test]
fn strings_without_escapes_are_borrowed() {
    let text = r#"[48,1,{"rkey":"key"},"com.example"]"#;
    let Message::Call(call) = json(text).unwrap() else { panic!() };
    assert!(matches!(call.procedure, std::borrow::Cow::Borrowed(_)));
    assert!(matches!(call.options.rkey, Some(std::borrow::Cow::Borrowed(_))));
}
