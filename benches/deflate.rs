//! What does a compressed message cost, by its length, its level and its window: for who sends it, and for who reads it?
//!
//! The messages are EVENTs of JSON with readings of sensors, 1 KB and 16 KB of them, as frames of WebSocket. Sending is paid
//! once for all who get the event; reading is paid for every message of a client that compresses.

#[path = "setting/cpu_time.rs"]
mod cpu_time;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use crosspoint::config::{Limits, Listener};
use crosspoint::link::{
    Deflater, Encoding, Framing, Inflater, Link, LinkConfig, Step, WindowBits, frame, frame_deflated,
};
use crosspoint::wamp::codec::Serializer;

use cpu_time::{CpuTime, by_cpu_time};

const ENCODING: Encoding = Encoding { serializer: Serializer::Json, framing: Framing::WebSocket };

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: wamp.2.json\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

/// An EVENT with about so many bytes of payload.
fn message(bytes: usize) -> String {
    let reading = |number: usize| {
        let value = number * 7919 % 1000;
        format!(
            "{{\"sensor\":{},\"unit\":\"kelvin\",\"value\":{}.{value:03},\"valid\":{},\"tags\":[\"a\",null,-{number}]}}",
            number * 31 % 97,
            273 + value % 40,
            !value.is_multiple_of(7)
        )
    };
    let mut readings = String::new();
    for number in 0.. {
        readings.push_str(&reading(number));
        if readings.len() > bytes {
            break;
        }
        readings.push(',');
    }
    format!("[36,5512315355113908,4429313566752301,{{}},[{readings}]]")
}

fn sending(criterion: &mut Criterion<CpuTime>) {
    for (name, bytes) in [("1 KB", 1000), ("16 KB", 16_000)] {
        let message = message(bytes);
        let mut group = criterion.benchmark_group(format!("deflate/sending {name}"));
        group.throughput(Throughput::Bytes(message.len() as u64));
        let mut out = Vec::new();
        group.bench_function("plain", |bencher| {
            bencher.iter(|| {
                out.clear();
                frame(ENCODING, black_box(message.as_bytes()), &mut out);
                out.len()
            });
        });
        for (level, bits) in [(1, 15), (2, 15), (3, 15), (6, 15), (9, 15), (3, 9), (3, 12)] {
            let window = WindowBits::new(bits).expect("within the range");
            let mut deflater = Deflater::new(level);
            let length = {
                out.clear();
                assert!(frame_deflated(ENCODING, window, message.as_bytes(), &mut deflater, &mut out));
                out.len()
            };
            let name = format!("level {level}, {bits} bits, {} to {length} bytes", message.len());
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let message = black_box(message.as_bytes());
                    frame_deflated(ENCODING, window, message, &mut deflater, &mut out)
                });
            });
        }
        group.finish();
    }
}

fn reading(criterion: &mut Criterion<CpuTime>) {
    let listener = Listener { compression: true, ..Listener::default() };
    let config = LinkConfig { listener, limits: Limits::default() };
    let mut inflater = Inflater::new();
    let mut link = Link::new();
    let mut request = REQUEST.to_vec();
    let (_, step) = link.next(&config, 1 << 20, &mut inflater, &mut request);
    assert!(matches!(step, Step::Opened { opened, .. } if opened.deflate.is_some()));
    for (name, bytes) in [("1 KB", 1000), ("16 KB", 16_000)] {
        let message = message(bytes);
        let window = WindowBits::new(15).expect("within the range");
        let (mut plain, mut compressed) = (Vec::new(), Vec::new());
        frame(ENCODING, message.as_bytes(), &mut plain);
        assert!(frame_deflated(ENCODING, window, message.as_bytes(), &mut Deflater::new(6), &mut compressed));
        let mut group = criterion.benchmark_group(format!("deflate/reading {name}"));
        group.throughput(Throughput::Bytes(message.len() as u64));
        for (name, frame) in [("plain", masked(&plain)), ("compressed", masked(&compressed))] {
            let mut input = frame.clone();
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    // It is unmasked in place; with a mask of zeros it stays as it is.
                    let (_, step) = link.next(&config, 1 << 20, &mut inflater, black_box(&mut input));
                    let Step::Message(message) = step else { panic!("no message") };
                    message.as_bytes().len()
                });
            });
        }
        group.finish();
    }
}

/// A frame of the router as one of a client, with a mask of zeros.
fn masked(frame: &[u8]) -> Vec<u8> {
    let head = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    let mut masked = frame[..head].to_vec();
    masked[1] |= 0x80;
    masked.extend([0; 4]);
    masked.extend_from_slice(&frame[head..]);
    masked
}

fn main() {
    let mut criterion = by_cpu_time(Duration::from_secs(1));
    sending(&mut criterion);
    reading(&mut criterion);
    criterion.final_summary();
}
