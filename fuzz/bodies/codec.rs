//! Messages: read or refused, never more; and what was read can be written and read again.

use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};
use crosspoint::wamp::{Message, Payload};

pub(crate) fn decode_json(bytes: &[u8]) {
    read_and_splice(Serializer::Json, bytes);
}

pub(crate) fn decode_msgpack(bytes: &[u8]) {
    read_and_splice(Serializer::MsgPack, bytes);
}

pub(crate) fn decode_cbor(bytes: &[u8]) {
    read_and_splice(Serializer::Cbor, bytes);
}

/// A message that was read is written in its own serializer without fail, reads as the same message from there, and
/// carries the very bytes of its payload.
fn read_and_splice(serializer: Serializer, bytes: &[u8]) {
    let Some(message) = read(serializer, bytes) else { return };
    let mut out = Vec::new();
    Encoder::new().encode(&message, serializer, &mut out).expect("a splice is always representable");
    let again = read(serializer, &out).expect("what we wrote ourselves");
    assert_eq!(again, message);
    // Once more: what the encoder writes is a fixed point.
    let mut out_again = Vec::new();
    Encoder::new().encode(&again, serializer, &mut out_again).expect("a splice is always representable");
    assert_eq!(out_again, out);
}

/// The first byte chooses the serializer of the rest. What can be said in another serializer is read from there, and
/// goes on to the third one and back again without another change.
pub(crate) fn transcode(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let source = Serializer::ALL[usize::from(*choice) % Serializer::ALL.len()];
    let Some(message) = read(source, bytes) else { return };
    let mut encoder = Encoder::new();
    for target in Serializer::ALL.into_iter().filter(|target| *target != source) {
        let mut there = b"before".to_vec();
        if encoder.encode(&message, target, &mut there).is_err() {
            assert_eq!(there, b"before");
            continue;
        }
        let there = &there[b"before".len()..];
        let said = read(target, there).expect("what we wrote ourselves");
        assert_eq!(said.kind(), message.kind());
        assert_eq!(payload(&said).is_empty(), payload(&message).is_empty());
        for third in Serializer::ALL.into_iter().filter(|third| *third != target) {
            let mut further = Vec::new();
            // Only a key that JSON does not have can be in the way here, or NUL and base64 that JSON takes for bytes.
            if encoder.encode(&said, third, &mut further).is_ok() {
                read(third, &further).expect("what we wrote ourselves");
            } else {
                assert_eq!(third, Serializer::Json);
            }
        }
    }
}

fn read(serializer: Serializer, bytes: &[u8]) -> Option<Message<'_>> {
    decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).ok()
}

fn payload<'a>(message: &Message<'a>) -> Payload<'a> {
    match message {
        Message::Abort(abort) => abort.payload,
        Message::Error(error) => error.payload,
        Message::Publish(publish) => publish.payload,
        Message::Event(event) => event.payload,
        Message::Call(call) => call.payload,
        Message::Result(result) => result.payload,
        Message::Invocation(invocation) => invocation.payload,
        Message::Yield(answer) => answer.payload,
        _ => Payload::EMPTY,
    }
}
