//! What do a decoder and an encoder cost: bytes to a routing decision, a payload spliced, a payload transcoded?
//!
//! A routing decision is the type of a message, its request, its options, its URI and where its payload lies, and the
//! entry that the URI has among 1,000 others. Beside ours stand serde_json (elements as raw values, and whole values),
//! simd-json (a tape in reused buffers; it writes into its input, so the copy that keeps the payload counts) and
//! rmp-serde (whole values). None of them checks a message as strictly as `decode` does.

#[path = "setting/cpu_time.rs"]
mod cpu_time;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use crosspoint::router::uri_map::{EntryKey, UriMap};
use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};
use crosspoint::wamp::message::{Event, Message};
use crosspoint::wamp::options::EventDetails;
use crosspoint::wamp::{MatchPolicy, Payload, PublicationId, SubscriptionId};
use serde_json::Value;
use serde_json::value::RawValue;
use simd_json::{Buffers, Node, Tape};

use cpu_time::{CpuTime, by_cpu_time};

const URI: &str = "com.example.station.temperature";

/// The topics or procedures that the URI is looked up among.
const ENTRIES: usize = 1000;

/// A payload and its name, in JSON.
fn payloads() -> [(&'static str, String); 4] {
    let reading = |number: usize| {
        format!(
            "{{\"sensor\":{number},\"unit\":\"kelvin\",\"value\":{}.{},\"valid\":true,\"tags\":[\"a\",null,-{number}]}}",
            273 + number,
            number * 37 % 100
        )
    };
    let readings: Vec<_> = (0..12).map(reading).collect();
    [
        ("64 B string", format!("[\"{}\"]", "0123456789abcdef".repeat(4))),
        ("1 KB ascii", format!("[\"{}\"]", "The quick brown fox. ".repeat(48))),
        ("1 KB structured", format!("[],{{\"readings\":[{}]}}", readings.join(","))),
        ("1 KB non-ascii", format!("[\"{}\"]", "Съешь ещё этих мягких булок. ".repeat(20))),
    ]
}

const fn name(serializer: Serializer) -> &'static str {
    match serializer {
        Serializer::Json => "JSON",
        Serializer::MsgPack => "MessagePack",
        Serializer::Cbor => "CBOR",
    }
}

fn decoded(serializer: Serializer, bytes: &[u8]) -> Message<'_> {
    decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).expect("a message")
}

/// The message in another serializer.
fn rewritten(json: &str, serializer: Serializer) -> Vec<u8> {
    let mut out = Vec::new();
    let message = decoded(Serializer::Json, json.as_bytes());
    Encoder::new().encode(&message, serializer, &mut out).expect("a message in every serializer");
    out
}

fn entries() -> UriMap<u32> {
    let mut map = UriMap::new(1);
    for number in 1..ENTRIES as u32 {
        map.insert(MatchPolicy::Exact, &format!("com.example.station.{number}"), number);
    }
    map.insert(MatchPolicy::Exact, URI, 0);
    map
}

/// The entry that a message goes to.
fn route(map: &UriMap<u32>, message: &Message<'_>) -> Option<EntryKey> {
    match message {
        Message::Publish(publish) => map.best(&publish.topic),
        Message::Call(call) => map.best(&call.procedure),
        _ => None,
    }
}

fn decoding(criterion: &mut Criterion<CpuTime>) {
    let map = entries();
    for (kind, code) in [("PUBLISH", 16), ("CALL", 48)] {
        for (payload_name, payload) in payloads() {
            let json = format!("[{code},7814135,{{}},\"{URI}\",{payload}]");
            let mut group = criterion.benchmark_group(format!("codec/decode {kind}, {payload_name}"));
            group.throughput(Throughput::Bytes(json.len() as u64));
            for serializer in Serializer::ALL {
                let bytes = rewritten(&json, serializer);
                group.bench_function(name(serializer), |bencher| {
                    bencher.iter(|| {
                        let message = decoded(serializer, black_box(&bytes));
                        route(&map, &message).expect("an entry")
                    });
                });
            }
            // The others do not tell the two apart.
            if kind == "PUBLISH" {
                others(&mut group, &map, &json);
            }
            group.finish();
        }
    }
}

/// The same decision with what there is elsewhere.
fn others(group: &mut criterion::BenchmarkGroup<'_, CpuTime>, map: &UriMap<u32>, json: &str) {
    group.bench_function("JSON: serde_json, Vec<&RawValue>", |bencher| {
        bencher.iter(|| {
            let elements: Vec<&RawValue> = serde_json::from_str(black_box(json)).expect("a list");
            let code: u64 = serde_json::from_str(elements[0].get()).expect("a code");
            let request: u64 = serde_json::from_str(elements[1].get()).expect("a request");
            let uri: &str = serde_json::from_str(elements[3].get()).expect("a URI");
            (code, request, map.best(uri).expect("an entry"), elements[4].get().len())
        });
    });
    group.bench_function("JSON: serde_json, Value", |bencher| {
        bencher.iter(|| {
            let value: Value = serde_json::from_str(black_box(json)).expect("a list");
            route_value(map, &value)
        });
    });
    group.bench_function("JSON: simd-json, tape", |bencher| {
        let (mut copy, mut buffers) = (Vec::new(), Buffers::default());
        let mut tape = Some(Tape::null());
        bencher.iter(|| {
            copy.clear();
            copy.extend_from_slice(black_box(json.as_bytes()));
            let mut reused = tape.take().expect("a tape").reset();
            simd_json::fill_tape(&mut copy, &mut buffers, &mut reused).expect("a list");
            let Node::String(uri) = reused.0[4] else { panic!("no URI: {:?}", reused.0[4]) };
            let entry = map.best(uri).expect("an entry");
            tape = Some(reused.reset());
            entry
        });
    });
    let bytes = rewritten(json, Serializer::MsgPack);
    group.bench_function("MessagePack: rmp-serde, Value", |bencher| {
        bencher.iter(|| {
            let value: Value = rmp_serde::from_slice(black_box(&bytes)).expect("a list");
            route_value(map, &value)
        });
    });
}

fn route_value(map: &UriMap<u32>, value: &Value) -> (u64, u64, EntryKey) {
    let code = value[0].as_u64().expect("a code");
    let request = value[1].as_u64().expect("a request");
    (code, request, map.best(value[3].as_str().expect("a URI")).expect("an entry"))
}

/// The EVENT that a PUBLISH becomes.
fn event(payload: Payload<'_>) -> Message<'_> {
    Message::Event(Event {
        // Both are any numbers up to 2^53: most have 16 digits.
        subscription: SubscriptionId(5_512_315_355_113_908),
        publication: PublicationId(4_429_313_566_752_301),
        details: EventDetails::default(),
        payload,
    })
}

fn encoding(criterion: &mut Criterion<CpuTime>) {
    for (payload_name, payload) in payloads() {
        let json = format!("[16,7814135,{{}},\"{URI}\",{payload}]");
        for from in Serializer::ALL {
            let bytes = rewritten(&json, from);
            let Message::Publish(publish) = decoded(from, &bytes) else { panic!("no PUBLISH") };
            let event = event(publish.payload);
            for to in Serializer::ALL {
                let step = if from == to { "splice" } else { "transcode" };
                let mut group = criterion.benchmark_group(format!("codec/{step}, {payload_name}"));
                group.throughput(Throughput::Bytes(publish.payload.len() as u64));
                let (mut encoder, mut out) = (Encoder::new(), Vec::new());
                group.bench_function(format!("{} to {}", name(from), name(to)), |bencher| {
                    bencher.iter(|| {
                        out.clear();
                        encoder.encode(black_box(&event), to, &mut out).expect("a payload for all");
                        out.len()
                    });
                });
                group.finish();
            }
        }
    }
}

fn main() {
    let mut criterion = by_cpu_time(Duration::from_secs(1));
    decoding(&mut criterion);
    encoding(&mut criterion);
    criterion.final_summary();
}
