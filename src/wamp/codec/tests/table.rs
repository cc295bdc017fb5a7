//! The table of docs/serialization.md, row by row.

use super::*;

#[test]
fn row_strings_utf_8_in_every_one_keys_included() {
    assert_eq!(
        accepts(Serializer::Json, b"[36,1,2,{},[\"\xff\"]]").unwrap_err(),
        "JSON: not UTF-8, at byte 13"
    );
    argument(Serializer::Json, b"{\"\xc3\x28\":1}").unwrap_err();
    for (serializer, text) in [(Serializer::MsgPack, 0xa1), (Serializer::Cbor, 0x61)] {
        let map = if serializer == Serializer::MsgPack { 0x81 } else { 0xa1 };
        argument(serializer, &[text, b'a']).unwrap();
        assert!(argument(serializer, &[text, 0xff]).unwrap_err().contains("not UTF-8"));
        assert!(argument(serializer, &[map, text, 0xff, 1]).unwrap_err().contains("not UTF-8"));
        assert!(argument(serializer, &[map, text, b'a', text, 0xff]).unwrap_err().contains("not UTF-8"));
    }
    // A surrogate in UTF-8, a sequence that is longer than needed, and one cut by a chunk of CBOR.
    for bad in [&[0xed, 0xa0, 0x80][..], &[0xc0, 0xaf], &[0xf4, 0x90, 0x80, 0x80]] {
        argument(Serializer::Json, &[b"\"", bad, b"\""].concat()).unwrap_err();
        argument(Serializer::MsgPack, &[&[0xa0 | bad.len() as u8], bad].concat()).unwrap_err();
        argument(Serializer::Cbor, &[&[0x60 | bad.len() as u8], bad].concat()).unwrap_err();
    }
    argument(Serializer::Cbor, &[0x7f, 0x61, 0xc3, 0x61, 0xa4, 0xff]).unwrap_err();
    argument(Serializer::Cbor, &[0x7f, 0x62, 0xc3, 0xa4, 0xff]).unwrap();
}

#[test]
fn row_strings_raw_control_characters_are_refused_in_json() {
    for byte in 0..0x20u8 {
        let text = format!("\"a{}b\"", char::from(byte));
        let error = argument(Serializer::Json, text.as_bytes()).unwrap_err();
        assert!(error.contains("control character"), "{error}");
        argument(Serializer::Json, format!("{{{text}:1}}").as_bytes()).unwrap_err();
        json_error(&format!("[32,1,{{}},{text}]"));
    }
    argument(Serializer::Json, "\"\u{7f} \\u001e\"".as_bytes()).unwrap();
}

#[test]
fn row_grammar_of_json() {
    for good in [
        "0",
        "-0",
        "10",
        "-1.5",
        "1e5",
        "1E+5",
        "1.25e-5",
        "0.0",
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        " [ ] ",
        "\t\r\n{ \"a\" : [ 1 , 2 ] }",
        "{\"a\":{},\"b\":[[],{}]}",
        r#""\"\\\/\b\f\n\r\t\u00e4""#,
        r#"{"\u0061":1}"#,
    ] {
        argument(Serializer::Json, good.as_bytes()).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x1",
        "1_0",
        "NaN",
        "Infinity",
        "-Infinity",
        "tru",
        "True",
        "nul",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "'a'",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,,2]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{,}",
        "[}",
        "{]",
        "1]",
        "}",
        "]",
        ",",
        "/*c*/1",
        "1//",
        "\u{feff}1",
        "1\u{a0}",
        "\u{b}1",
        "1\0",
    ] {
        argument(Serializer::Json, bad.as_bytes()).expect_err(bad);
    }
}

#[test]
fn row_grammar_of_messagepack() {
    for good in [
        "c0",
        "c2",
        "c3",
        "7f",
        "ff",
        "cc80",
        "cd8000",
        "ce80000000",
        "cf8000000000000000",
        "d080",
        "d18000",
        "d280000000",
        "d38000000000000000",
        "ca00000000",
        "cb0000000000000000",
        "a0",
        "d90161",
        "da000161",
        "db0000000161",
        "c400",
        "c5000100",
        "c60000000100",
        "90",
        "dc000101",
        "dd0000000101",
        "80",
        "de0001a16101",
        "df00000001a16101",
        "810101",
        "81900a",
        "d40100",
        "d5010000",
        "d60100000000",
        "c70001",
        "c8000101ff",
        "c90000000101ff",
    ] {
        argument(Serializer::MsgPack, &unhex(good)).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "",
        "c1",
        "a1",
        "d901",
        "da0001",
        "db00000001",
        "c401",
        "cc",
        "cd00",
        "ca0000",
        "91",
        "dc0001",
        "dd00000001",
        "81",
        "8101",
        "de0001",
        "d401",
        "c70101",
        "ddffffffff",
        "dfffffffff",
        "dbffffffff",
        "c6ffffffff",
        "c9ffffffff01",
        "91c1",
        "0001",
    ] {
        argument(Serializer::MsgPack, &unhex(bad)).expect_err(bad);
    }
}

#[test]
fn row_grammar_of_cbor() {
    for good in [
        "00",
        "17",
        "1818",
        "190100",
        "1a00010000",
        "1b0000000100000000",
        "20",
        "3bffffffffffffffff",
        "40",
        "4101",
        "60",
        "6161",
        "780161",
        "80",
        "8101",
        "980101",
        "9f01ff",
        "9fff",
        "a0",
        "a16101 01",
        "a10101",
        "bf616101ff",
        "bfff",
        "5f4101ff",
        "5fff",
        "7f6161ff",
        "7fff",
        "c000",
        "c24101",
        "d9d9f700",
        "f4",
        "f5",
        "f6",
        "f7",
        "f90000",
        "fa00000000",
        "fb0000000000000000",
        "e0",
        "f820",
        "a1800a",
        "1800",
    ] {
        argument(Serializer::Cbor, &unhex(good)).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "",
        "18",
        "19ff",
        "1c00",
        "1d00",
        "1e00",
        "1f",
        "3f",
        "41",
        "61",
        "81",
        "9f01",
        "9f",
        "a1",
        "a101",
        "bf01ff",
        "bf0101",
        "ff",
        "81ff",
        "a1ff00",
        "a100ff",
        "5f6161ff",
        "7f4101ff",
        "5f5f4101ffff",
        "5f4101",
        "df00",
        "c0",
        "f801",
        "f81f",
        "fc",
        "fd",
        "fe",
        "9bffffffffffffffff",
        "bbffffffffffffffff",
        "5bffffffffffffffff",
        "7bffffffffffffffff",
        "9affffffff",
        "0001",
    ] {
        argument(Serializer::Cbor, &unhex(bad)).expect_err(bad);
    }
}

#[test]
fn row_grammar_depth_at_most_64() {
    // The message is the first level, args the second.
    for (serializer, open, close) in [
        (Serializer::Json, &b"["[..], &b"]"[..]),
        (Serializer::MsgPack, &[0x91], &[]),
        (Serializer::Cbor, &[0x81], &[]),
    ] {
        let nested = |depth: usize| {
            let innermost: &[u8] = if serializer == Serializer::Json { b"0" } else { &[0] };
            [open.repeat(depth), innermost.to_vec(), close.repeat(depth)].concat()
        };
        argument(serializer, &nested(62)).unwrap();
        assert!(argument(serializer, &nested(63)).unwrap_err().contains("too deeply"));
    }
    let map = |depth| {
        argument(Serializer::Json, format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth)).as_bytes())
    };
    map(62).unwrap();
    map(63).unwrap_err();
}

#[test]
fn row_grammar_a_hundred_thousand_levels_are_an_error_everywhere() {
    let deep = DecodeLimits { depth_max: u32::MAX, list_max: usize::MAX };
    for limits in [DecodeLimits::default(), deep] {
        for (serializer, open) in [
            (Serializer::Json, &b"["[..]),
            (Serializer::Json, b"{\"a\":"),
            (Serializer::MsgPack, &[0x91]),
            (Serializer::MsgPack, &[0x81, 0xa1, b'a']),
            (Serializer::Cbor, &[0x81]),
            (Serializer::Cbor, &[0x9f]),
            (Serializer::Cbor, &[0xbf, 0x61, b'a']),
            (Serializer::Cbor, &[0xc1]),
            (Serializer::Cbor, &[0xc1, 0x81]),
        ] {
            let bomb = open.repeat(100_000);
            let heads = [
                Vec::new(),
                with_argument(serializer, &[]),
                match serializer {
                    Serializer::Json => b"[48,1,{\"unknown\":".to_vec(),
                    Serializer::MsgPack => vec![0x94, 48, 1, 0x81, 0xa1, b'u'],
                    Serializer::Cbor => vec![0x84, 0x18, 48, 1, 0xa1, 0x61, b'u'],
                },
            ];
            for mut bytes in heads {
                if serializer == Serializer::Json {
                    bytes.truncate(bytes.len().saturating_sub(2).max(bytes.len().min(17)));
                }
                bytes.extend_from_slice(&bomb);
                decode(serializer, Input::Bytes(&bytes), limits).expect_err("100,000 levels");
            }
        }
    }
}

#[test]
fn row_grammar_trailing_bytes_are_refused() {
    for (serializer, message, junk) in [
        (Serializer::Json, &b"[17,1,2]"[..], &b"x"[..]),
        (Serializer::Json, b"[17,1,2]", b"[17,1,2]"),
        (Serializer::Json, b"[17,1,2]", b"\0"),
        (Serializer::MsgPack, &[0x93, 17, 1, 2], &[0xc0]),
        (Serializer::Cbor, &[0x83, 17, 1, 2], &[0xf6]),
    ] {
        accepts(serializer, message).unwrap();
        let error = accepts(serializer, &[message, junk].concat()).unwrap_err();
        assert!(error.contains("after the end of the message"), "{error}");
    }
    accepts(Serializer::Json, b" [17,1,2] \n").unwrap();
}

#[test]
fn row_grammar_lengths_above_what_remains_allocate_nothing() {
    // 2^32 - 1 elements in ten bytes, wherever lists and maps of ours are read.
    for bytes in ["ddffffffff1001809061", "9410 01 81a765786 36c756465 ddffffffff", "9310ddffffffff"] {
        accepts(Serializer::MsgPack, &unhex(bytes)).unwrap_err();
    }
    for bytes in ["9bffffffffffffffff10", "841001a16765786 36c756465 9affffffff", "9affffffff1001"] {
        accepts(Serializer::Cbor, &unhex(bytes)).unwrap_err();
    }
}

#[test]
fn row_numbers_in_json_are_kept_as_text_in_a_splice() {
    let text = "[36,1,2,{},[1e400,123456789012345678901234567890,1.10,-0]]";
    assert_eq!(encoded(&json(text).unwrap(), Serializer::Json), text.as_bytes());
}

#[test]
fn row_numbers_in_json_in_a_transcode() {
    let text = "[0,-1,18446744073709551615,-9223372036854775808,1.5,1e3]";
    assert_eq!(
        from_json(text, Serializer::MsgPack).unwrap(),
        "9600ffcfffffffffffffffffd38000000000000000cb3ff8000000000000cb408f400000000000"
    );
    assert_eq!(
        from_json(text, Serializer::Cbor).unwrap(),
        "8600201bffffffffffffffff3b7ffffffffffffffffb3ff8000000000000fb408f400000000000"
    );
    // Beyond 64 bits: float64. 18446744073709551616 is 2^64.
    assert_eq!(from_json("[18446744073709551616]", Serializer::MsgPack).unwrap(), "91cb43f0000000000000");
    assert_eq!(from_json("[-9223372036854775809]", Serializer::Cbor).unwrap(), "81fbc3e0000000000000");
    // Beyond float64: not representable.
    for huge in ["[1e400]", "[-1e400]", &format!("[1{}]", "0".repeat(400))] {
        assert_eq!(from_json(huge, Serializer::MsgPack), Err(NotRepresentable), "{huge}");
        assert_eq!(from_json(huge, Serializer::Cbor), Err(NotRepresentable), "{huge}");
    }
    assert_eq!(from_json("[1e-400]", Serializer::Cbor).unwrap(), "81fb0000000000000000");
}

#[test]
fn row_kwargs_keys_are_strings_only() {
    accepts(Serializer::MsgPack, &unhex("9624 01 02 80 90 81 a161 01")).unwrap();
    accepts(Serializer::Cbor, &unhex("861824 01 02 a0 80 a1 6161 01")).unwrap();
    for key in ["01", "c0", "c3", "c40161", "90", "80"] {
        let error =
            accepts(Serializer::MsgPack, &unhex(&format!("9624 01 02 80 90 81 {key} 01"))).unwrap_err();
        assert!(error.contains("a key that is not a string"), "{error}");
        // Options as well, and every dictionary in them.
        accepts(Serializer::MsgPack, &unhex(&format!("9424 01 02 81 {key} 01"))).unwrap_err();
    }
    for key in ["01", "f6", "f5", "4161", "80", "a0", "c16161", "5f4161ff"] {
        let error =
            accepts(Serializer::Cbor, &unhex(&format!("861824 01 02 a0 80 a1 {key} 01"))).unwrap_err();
        assert!(error.contains("a key that is not a string"), "{error}");
        accepts(Serializer::Cbor, &unhex(&format!("841824 01 02 a1 {key} 01"))).unwrap_err();
    }
    accepts(Serializer::Cbor, &unhex("861824 01 02 a0 80 a1 7f6161ff 01")).unwrap();
}

#[test]
fn row_duplicate_keys_untouched_in_a_splice_and_the_last_wins_in_a_transcode() {
    let text = r#"[36,1,2,{},[{"a":1,"b":2,"a":3}]]"#;
    assert_eq!(encoded(&json(text).unwrap(), Serializer::Json), text.as_bytes());
    assert_eq!(from_json(r#"[{"a":1,"b":2,"a":3}]"#, Serializer::MsgPack).unwrap(), "9182a16202a16103");
    assert_eq!(
        from_json(r#"[{"a":[{"c":1}],"a":{"b":1,"b":2}}]"#, Serializer::Cbor).unwrap(),
        "81a16161a1616202"
    );
    assert_eq!(to_json("9183a16101a16102a16103", Serializer::MsgPack).unwrap(), r#"[{"a":3}]"#);
    // The integer 1 and the string "1" are one key in JSON only.
    assert_eq!(to_json("9182 01 05 a131 06", Serializer::MsgPack).unwrap(), r#"[{"1":6}]"#);
    assert_eq!(
        hex(&args("9182 01 05 a131 06", Serializer::MsgPack, Serializer::Cbor).unwrap()),
        "81a20105613106"
    );
    // Among many keys, where another way is taken to find them.
    let entries: Vec<String> = (0..100).map(|at| format!("\"k{}\":{at}", at % 40)).collect();
    let packed = from_json(&format!("[{{{}}}]", entries.join(",")), Serializer::MsgPack).unwrap();
    let expected: Vec<String> = (60..100).map(|at| format!("\"k{}\":{at}", at % 40)).collect();
    assert_eq!(to_json(&packed, Serializer::MsgPack).unwrap(), format!("[{{{}}}]", expected.join(",")));
    // In options too.
    let Message::Call(call) = json(r#"[48,1,{"timeout":1,"timeout":2},"p"]"#).unwrap() else { panic!() };
    assert_eq!(call.options.timeout_ms, 2);
}

#[test]
fn row_lone_surrogate_escapes_pass_in_a_splice_and_are_replaced_in_a_transcode() {
    let text = r#"[36,1,2,{},["\ud800","\udfff x","\ud83d\ude00",{"\uDBFF":1}]]"#;
    assert_eq!(encoded(&json(text).unwrap(), Serializer::Json), text.as_bytes());
    assert_eq!(
        from_json(r#"["\ud800","\udfff x","\ud83d\ude00",{"\uDBFF":1}]"#, Serializer::MsgPack).unwrap(),
        "94a3efbfbda5efbfbd2078a4f09f988081a3efbfbd01"
    );
    // Where the codec itself reads a string: U+FFFD as well.
    let Message::Goodbye(goodbye) = json(r#"[6,{},"a\ud800\ud83d\ude00"]"#).unwrap() else { panic!() };
    assert_eq!(goodbye.reason, "a\u{fffd}\u{1f600}");
}

#[test]
fn row_nan_and_infinities_become_null_in_json() {
    let packed = "94 cb7ff8000000000000 cb7ff0000000000000 cbfff0000000000000 ca7f800000";
    assert_eq!(to_json(packed, Serializer::MsgPack).unwrap(), "[null,null,null,null]");
    assert_eq!(to_json("83 f97e00 f97c00 fbfff0000000000000", Serializer::Cbor).unwrap(), "[null,null,null]");
    // Between the binary ones they stay.
    assert_eq!(
        hex(&args("81f97c00", Serializer::Cbor, Serializer::MsgPack).unwrap()),
        "91cb7ff0000000000000"
    );
}

#[test]
fn row_binary_is_nul_and_base64_in_json() {
    assert_eq!(
        to_json("93c400c40100c403ffeefd", Serializer::MsgPack).unwrap(),
        r#"["\u0000","\u0000AA==","\u0000/+79"]"#
    );
    assert_eq!(to_json("82404100", Serializer::Cbor).unwrap(), r#"["\u0000","\u0000AA=="]"#);
    let text = r#"["\u0000","\u0000AA==","\u0000/+79"]"#;
    assert_eq!(from_json(text, Serializer::MsgPack).unwrap(), "93c400c40100c403ffeefd");
    assert_eq!(from_json(text, Serializer::Cbor).unwrap(), "8340410043ffeefd");
    // Not base64 as the specification means it: stays a string.
    assert_eq!(from_json(r#"["\u0000!"]"#, Serializer::MsgPack).unwrap(), "91a20021");
    assert_eq!(from_json(r#"["\u0000AA"]"#, Serializer::MsgPack).unwrap(), "91a3004141");
    // A string of MessagePack that begins with NUL is ambiguous from then on.
    assert_eq!(to_json("91a5 00 41413d3d", Serializer::MsgPack).unwrap(), r#"["\u0000AA=="]"#);
    // A key is never binary.
    assert_eq!(from_json(r#"[{"\u0000AA==":1}]"#, Serializer::MsgPack).unwrap(), "9181a50041413d3d01");
}

#[test]
fn row_binary_payloads_are_identical_through_all_serializers() {
    let bytes: Vec<u8> = (0..=255).collect();
    let packed = hex(&[&[0x91, 0xc5, 1, 0][..], &bytes].concat());
    let text = to_json(&packed, Serializer::MsgPack).unwrap();
    let cbor = from_json(&text, Serializer::Cbor).unwrap();
    let again = to_json(&cbor, Serializer::Cbor).unwrap();
    assert_eq!(again, text);
    assert_eq!(from_json(&again, Serializer::MsgPack).unwrap(), packed);
}

#[test]
fn row_map_keys_that_are_not_strings_to_json() {
    assert_eq!(
        to_json("9184 01a161 ffa162 c3a163 c2a164", Serializer::MsgPack).unwrap(),
        r#"[{"1":"a","-1":"b","true":"c","false":"d"}]"#
    );
    assert_eq!(
        to_json("81a2 20 01 1bffffffffffffffff 02", Serializer::Cbor).unwrap(),
        r#"[{"-1":1,"18446744073709551615":2}]"#
    );
    for key in ["c0", "c40161", "cb3ff0000000000000", "90", "80"] {
        assert_eq!(to_json(&format!("9181 {key} 01"), Serializer::MsgPack), Err(NotRepresentable), "{key}");
    }
    assert_eq!(hex(&args("9181 9101 80", Serializer::MsgPack, Serializer::Cbor).unwrap()), "81a18101a0");
}

#[test]
fn row_cbor_tags() {
    // 55799 is stripped, before the message too.
    accepts(Serializer::Cbor, &unhex("d9d9f7 83 11 01 02")).unwrap();
    assert_eq!(to_json("81 d9d9f7 6161", Serializer::Cbor).unwrap(), r#"["a"]"#);
    // 2 and 3 as integers where they fit, the nearest double where not.
    assert_eq!(
        to_json("83 c2420100 c3420100 c249010000000000000000", Serializer::Cbor).unwrap(),
        "[256,-257,1.8446744073709552e19]"
    );
    assert_eq!(to_json("81 3bffffffffffffffff", Serializer::Cbor).unwrap(), "[-1.8446744073709552e19]");
    // 0, 1 and all others as their content.
    assert_eq!(to_json("83 c06161 c105 d8206162", Serializer::Cbor).unwrap(), r#"["a",5,"b"]"#);
    assert_eq!(
        to_json("82 c4821bffffffffffffffff01 c24161", Serializer::Cbor).unwrap(),
        "[[18446744073709551615,1],97]"
    );
    // Those that refer to other places are refused.
    for tag in ["d819", "d81c", "d81d", "d90100", "da00000019", "db0000000000000100"] {
        let error = argument(Serializer::Cbor, &unhex(&format!("{tag}00"))).unwrap_err();
        assert!(error.contains("a tag that refers to other values"), "{error}");
        argument(Serializer::Cbor, &unhex(&format!("a1{tag}0000"))).unwrap_err();
        accepts(Serializer::Cbor, &unhex(&format!("{tag}83 11 01 02"))).unwrap_err();
        accepts(Serializer::Cbor, &unhex(&format!("83 11 {tag}01 02"))).unwrap_err();
    }
    // Within a splice a tag stays; args that are tagged as a whole lose it.
    let bytes = unhex("851824 01 02 a0 c1 81c105");
    let message = decode(Serializer::Cbor, Input::Bytes(&bytes), DecodeLimits::default()).unwrap();
    assert_eq!(hex(&encoded(&message, Serializer::Cbor)), "8518240102a081c105");
}

#[test]
fn row_cbor_undefined_and_indefinite_lengths() {
    assert_eq!(
        to_json("9f f7 7f6161616260ff 5f4100ff bf6161 9fff ff ff", Serializer::Cbor).unwrap(),
        r#"[null,"ab","\u0000AA==",{"a":[]}]"#
    );
    assert_eq!(
        hex(&args("9f f7 7f616160ff bf616101ff ff", Serializer::Cbor, Serializer::MsgPack).unwrap()),
        "93c0a16181a16101"
    );
    // A message of indefinite lengths.
    let bytes = unhex("9f 1824 01 02 bf 7f64726574616461696e6564ff f5 ff 9fff bfff ff");
    accepts(Serializer::Cbor, &bytes).unwrap_err();
    let bytes = unhex("9f 1824 01 02 bf 7f647265746164696e6564ff f5 ff 9fff bfff ff");
    let Message::Event(event) =
        decode(Serializer::Cbor, Input::Bytes(&bytes), DecodeLimits::default()).unwrap()
    else {
        panic!("not an EVENT")
    };
    assert!(event.details.retained && event.payload == Payload::EMPTY);
}

#[test]
fn row_cbor_simple_values_without_a_meaning_are_not_representable() {
    argument(Serializer::Cbor, &unhex("e0")).unwrap();
    assert_eq!(to_json("81e0", Serializer::Cbor), Err(NotRepresentable));
    assert_eq!(args("81f8ff", Serializer::Cbor, Serializer::MsgPack), Err(NotRepresentable));
}

#[test]
fn row_messagepack_extensions() {
    assert_eq!(to_json("91 d6ff00000000", Serializer::MsgPack).unwrap(), r#"["1970-01-01T00:00:00Z"]"#);
    assert_eq!(
        hex(&args("91 d6ff00000000", Serializer::MsgPack, Serializer::Cbor).unwrap()),
        format!("8174{}", hex(b"1970-01-01T00:00:00Z"))
    );
    for other in ["91d40500", "91c70005", "91d4ff00", "91c70cff3b9aca000000000000000000"] {
        accepts(Serializer::MsgPack, &[&unhex("9524010280")[..], &unhex(other)].concat()).unwrap();
        assert_eq!(to_json(other, Serializer::MsgPack), Err(NotRepresentable), "{other}");
        assert_eq!(args(other, Serializer::MsgPack, Serializer::Cbor), Err(NotRepresentable), "{other}");
    }
}

#[test]
fn row_not_representable_leaves_the_output_as_it_was() {
    let bytes = unhex("9524010280 92 01 d40500");
    let message = decode(Serializer::MsgPack, Input::Bytes(&bytes), DecodeLimits::default()).unwrap();
    let mut encoder = Encoder::new();
    for serializer in [Serializer::Json, Serializer::Cbor] {
        let mut out = b"before".to_vec();
        assert_eq!(encoder.encode(&message, serializer, &mut out), Err(NotRepresentable));
        assert_eq!(out, b"before");
    }
    // The encoder goes on as if nothing had been.
    let mut out = Vec::new();
    encoder.encode(&json("[36,1,2,{},[1]]").unwrap(), Serializer::MsgPack, &mut out).unwrap();
    assert_eq!(hex(&out), "95240102809101");
    // To MessagePack itself it is a splice.
    assert_eq!(encoded(&message, Serializer::MsgPack), bytes);
}

#[test]
fn what_javascript_clients_write_for_options_that_are_not_set_is_no_option() {
    let absent: [(Serializer, &[u8]); 4] = [
        (Serializer::Json, b"[32,1,{\"match\":null,\"get_retained\":null},\"t\"]"),
        // The options are one pair: "match" and fixext 1 of type 0, `undefined` of JavaScript's libraries.
        (Serializer::MsgPack, b"\x94\x20\x01\x81\xa5match\xd4\x00\x00\xa1t"),
        (Serializer::MsgPack, b"\x94\x20\x01\x81\xa5match\xc0\xa1t"),
        (Serializer::Cbor, b"\x84\x18\x20\x01\xa1\x65match\xf7\x61t"),
    ];
    for (serializer, bytes) in absent {
        let message = decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).unwrap();
        let Message::Subscribe(subscribe) = message else { panic!("{message:?}") };
        assert_eq!(subscribe.options, crate::wamp::options::SubscribeOptions::default());
    }
}

#[test]
fn ids_that_javascript_clients_write_as_floats_are_integers_in_binary_serializers() {
    let id = 2f64.powi(40) + 1.0;
    let mut msgpack = b"\x93\x22\x01\xcb".to_vec();
    msgpack.extend_from_slice(&id.to_be_bytes());
    let mut cbor = b"\x83\x18\x22\x01\xfb".to_vec();
    cbor.extend_from_slice(&id.to_be_bytes());
    for (serializer, bytes) in [(Serializer::MsgPack, &mut msgpack), (Serializer::Cbor, &mut cbor)] {
        let message = decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).unwrap();
        let Message::Unsubscribe(unsubscribe) = message else { panic!("{message:?}") };
        assert_eq!(unsubscribe.subscription.0, (1 << 40) + 1);
        let end = bytes.len();
        for wrong in [1.5, -1.0, 0.0, 2f64.powi(53) + 2.0, f64::NAN, f64::INFINITY] {
            bytes[end - 8..].copy_from_slice(&wrong.to_be_bytes());
            assert!(decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).is_err(), "{wrong}");
        }
    }
}

#[test]
fn undefined_of_javascript_libraries_becomes_null() {
    let args = b"\x92\xd4\x00\x00\x01";
    let payload = Payload { serializer: Serializer::MsgPack, args, kwargs: &[] };
    let message = Message::Yield(crate::wamp::message::Yield {
        request: crate::wamp::RequestId(1),
        options: crate::wamp::options::YieldOptions::default(),
        payload,
    });
    let mut out = Vec::new();
    Encoder::new().encode(&message, Serializer::Json, &mut out).unwrap();
    assert_eq!(out, b"[70,1,{},[null,1]]");
}

#[test]
fn row_tags_and_lists_of_cbor_nest_together() {
    // [70, 1, {}, [ tag(list of one(tag(list of one … 0)))]]: two levels for each pair.
    let nested = |pairs: usize| {
        let mut bytes = b"\x84\x18\x46\x01\xa0\x81".to_vec();
        for _ in 0..pairs {
            bytes.extend_from_slice(b"\xd8\x64\x81");
        }
        bytes.push(0);
        bytes
    };
    // The message and its args are two levels of the 64.
    for (pairs, fits) in [(1, true), (31, true), (32, false), (60, false)] {
        let bytes = nested(pairs);
        let decoded = decode(Serializer::Cbor, Input::Bytes(&bytes), DecodeLimits::default());
        assert_eq!(decoded.is_ok(), fits, "{pairs} pairs: {:?}", decoded.err());
    }
    // What comes behind a nested value has all its levels again.
    let mut bytes = b"\x84\x18\x46\x01\xa0\x82".to_vec();
    for _ in 0..2 {
        for _ in 0..31 {
            bytes.extend_from_slice(b"\xd8\x64\x81");
        }
        bytes.push(0);
    }
    decode(Serializer::Cbor, Input::Bytes(&bytes), DecodeLimits::default()).unwrap();
}
