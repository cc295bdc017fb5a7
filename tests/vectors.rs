//! Messages of our own in the format of the specification's test suite (its `testsuite/SCHEMA.json`, level 1), with
//! bytes that other implementations of MessagePack and CBOR made.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;

use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};
use simd_json::OwnedValue;
use simd_json::prelude::*;

/// The attributes of each message in the order of its elements, as the format names them.
fn layout(message_type: &str) -> &'static [&'static str] {
    match message_type {
        "HELLO" => &["realm", "details"],
        "WELCOME" => &["session", "details"],
        "CHALLENGE" => &["authmethod", "extra"],
        "ERROR" => &["request_type", "request", "details", "error", "args", "kwargs"],
        "PUBLISH" => &["request", "options", "topic", "args", "kwargs"],
        "SUBSCRIBE" => &["request", "options", "topic"],
        "UNSUBSCRIBED" => &["request", "details"],
        "EVENT" => &["subscription", "publication", "details", "args", "kwargs"],
        "CALL" => &["request", "options", "procedure", "args", "kwargs"],
        "RESULT" => &["request", "details", "args", "kwargs"],
        "REGISTER" => &["request", "options", "procedure"],
        "INVOCATION" => &["request", "registration", "details", "args", "kwargs"],
        "INTERRUPT" => &["request", "options"],
        other => panic!("no layout for {other}"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn json(mut bytes: Vec<u8>) -> OwnedValue {
    simd_json::to_owned_value(&mut bytes).unwrap()
}

/// The message that the attributes describe, in JSON's values.
fn described(message_type: &str, attributes: &OwnedValue) -> OwnedValue {
    let mut elements = vec![attributes["message_type"].clone()];
    elements.extend(layout(message_type).iter().map_while(|name| attributes.get(*name).cloned()));
    OwnedValue::from(elements)
}

fn check(message_type: &str, sample: &OwnedValue) {
    let description = &sample["description"];
    let wires = [("json", Serializer::Json), ("msgpack", Serializer::MsgPack), ("cbor", Serializer::Cbor)]
        .map(|(name, serializer)| {
            (serializer, unhex(sample["serializers"][name][0]["bytes_hex"].as_str().unwrap()))
        });
    assert_eq!(sample["serializers"]["json"][0]["bytes"].as_str().unwrap().as_bytes(), wires[0].1);
    let mut encoder = Encoder::new();
    for (source, wire) in &wires {
        let message = decode(*source, Input::Bytes(wire), DecodeLimits::default())
            .unwrap_or_else(|error| panic!("{message_type}, {description}, {source:?}: {error}"));
        assert_eq!(message.kind().name(), message_type);
        for (target, expected) in &wires {
            let mut out = Vec::new();
            encoder.encode(&message, *target, &mut out).unwrap();
            if *target == Serializer::Json {
                let attributes = described(message_type, &sample["expected_attributes"]);
                assert_eq!(json(out.clone()), attributes, "{message_type}, {description}, from {source:?}");
            }
            // The order of options is ours to choose, so a message of several may stand in other bytes.
            let again = decode(*target, Input::Bytes(expected), DecodeLimits::default()).unwrap();
            let mut canonical = Vec::new();
            encoder.encode(&again, *target, &mut canonical).unwrap();
            assert_eq!(out, canonical, "{message_type}, {description}, {source:?} to {target:?}");
            assert_eq!(out.len(), expected.len(), "{message_type}, {description}, {source:?} to {target:?}");
        }
    }
}

#[test]
fn every_vector_is_read_and_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut samples = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let vector = json(fs::read(entry.unwrap().path()).unwrap());
        let message_type = vector["wamp_message_type"].as_str().unwrap().to_owned();
        for sample in vector["samples"].as_array().unwrap() {
            assert_eq!(sample["expected_attributes"]["message_type"], vector["wamp_message_code"]);
            check(&message_type, sample);
            samples += 1;
        }
    }
    assert!(samples >= 18, "{samples} samples");
}
