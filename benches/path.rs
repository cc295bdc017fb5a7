//! What does a message cost in user space, from the bytes of a socket to the bytes for another: link, decoder, router,
//! encoder, outbox and the turn around them?
//!
//! A PUBLISH that becomes one EVENT, and a CALL with its RESULT (four messages), in JSON over WebSocket with 64-byte
//! payloads, on one core, without a kernel. One message a turn is what a lone client pays; 16 a turn, a busy one.
//!
//! `cargo bench --bench path -- --count publish 20000` does so many operations and nothing else, for a profiler.

#[path = "setting/cpu_time.rs"]
mod cpu_time;
#[path = "setting/stand.rs"]
mod stand;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};

use cpu_time::{CpuTime, thread_cpu_ns};
use stand::{Stand, append_frame};

const PAYLOAD: &str = "[\"0123456789012345678901234567890123456789012345678901234567890123\"]";

/// So many operations are prepared at a time.
const PREPARED_MAX: u64 = 1024;

/// Frames of one client, and where each ends.
#[derive(Default)]
struct Frames {
    lengths: Vec<usize>,
    bytes: Vec<u8>,
}

impl Frames {
    fn push(&mut self, text: &str) {
        let before = self.bytes.len();
        append_frame(text, &mut self.bytes);
        self.lengths.push(self.bytes.len() - before);
    }
}

/// Something that is done over and over.
trait Work {
    /// Makes the frames of so many operations.
    fn prepare(&mut self, count: u64);

    /// Does what was prepared, so many messages a turn.
    fn run(&mut self, messages_a_turn: usize);

    fn stand(&self) -> &Stand;

    /// How many messages the shard queues for one operation.
    const MESSAGES: u64;
}

/// PUBLISH to EVENT.
struct Publishing {
    stand: Stand,
    publisher: usize,
    requests: u64,
    lengths: Vec<usize>,
}

impl Publishing {
    fn new() -> Self {
        let mut stand = Stand::new();
        let subscriber = stand.connect();
        let subscribed = stand.ask(subscriber, "[32,1,{},\"com.example.topic\"]");
        assert!(subscribed.contains("[33,1,"), "{subscribed}");
        let publisher = stand.connect();
        Self { stand, publisher, requests: 0, lengths: Vec::new() }
    }
}

impl Work for Publishing {
    const MESSAGES: u64 = 1;

    fn prepare(&mut self, count: u64) {
        let mut frames = Frames::default();
        for _ in 0..count {
            self.requests += 1;
            frames.push(&format!("[16,{},{{}},\"com.example.topic\",{PAYLOAD}]", self.requests));
        }
        self.lengths = frames.lengths;
        self.stand.prepare(self.publisher, frames.bytes);
    }

    #[inline(never)]
    fn run(&mut self, messages_a_turn: usize) {
        for lengths in self.lengths.chunks(messages_a_turn) {
            self.stand.arrive(self.publisher, lengths.iter().sum());
            self.stand.turn();
        }
    }

    fn stand(&self) -> &Stand {
        &self.stand
    }
}

/// CALL to INVOCATION, YIELD to RESULT.
struct Calling {
    stand: Stand,
    caller: usize,
    callee: usize,
    requests: u64,
    calls: Vec<usize>,
    yields: Vec<usize>,
}

impl Calling {
    fn new() -> Self {
        let mut stand = Stand::new();
        let callee = stand.connect();
        let registered = stand.ask(callee, "[64,1,{},\"com.example.procedure\"]");
        assert!(registered.contains("[65,1,"), "{registered}");
        let caller = stand.connect();
        Self { stand, caller, callee, requests: 0, calls: Vec::new(), yields: Vec::new() }
    }
}

impl Work for Calling {
    const MESSAGES: u64 = 2;

    fn prepare(&mut self, count: u64) {
        let (mut calls, mut yields) = (Frames::default(), Frames::default());
        for _ in 0..count {
            self.requests += 1;
            let request = self.requests;
            calls.push(&format!("[48,{request},{{}},\"com.example.procedure\",{PAYLOAD}]"));
            yields.push(&format!("[70,{request},{{}},{PAYLOAD}]"));
        }
        (self.calls, self.yields) = (calls.lengths, yields.lengths);
        self.stand.prepare(self.caller, calls.bytes);
        self.stand.prepare(self.callee, yields.bytes);
    }

    #[inline(never)]
    fn run(&mut self, messages_a_turn: usize) {
        for (calls, yields) in self.calls.chunks(messages_a_turn).zip(self.yields.chunks(messages_a_turn)) {
            self.stand.arrive(self.caller, calls.iter().sum());
            self.stand.turn();
            self.stand.arrive(self.callee, yields.iter().sum());
            self.stand.turn();
        }
    }

    fn stand(&self) -> &Stand {
        &self.stand
    }
}

/// Does so many operations. `around` is given those parts that are to be measured.
fn operate<W: Work>(
    work: &mut W,
    count: u64,
    messages_a_turn: usize,
    mut around: impl FnMut(&mut dyn FnMut()),
) {
    let sent = work.stand().messages_sent();
    let mut done = 0;
    while done < count {
        let prepared = (count - done).min(PREPARED_MAX);
        work.prepare(prepared);
        around(&mut || work.run(black_box(messages_a_turn)));
        done += prepared;
    }
    assert_eq!(work.stand().messages_sent() - sent, count * W::MESSAGES, "some were not answered");
}

fn measure<W: Work>(criterion: &mut Criterion<CpuTime>, name: &str, work: &mut W) {
    let mut group = criterion.benchmark_group(name);
    for messages_a_turn in [1, 16] {
        group.bench_function(BenchmarkId::new("messages a turn", messages_a_turn), |bencher| {
            bencher.iter_custom(|count| {
                let mut spent_ns = 0;
                operate(work, count, messages_a_turn, |run| {
                    let begun_ns = thread_cpu_ns();
                    run();
                    spent_ns += thread_cpu_ns() - begun_ns;
                });
                spent_ns
            });
        });
    }
    group.finish();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--count") {
        let count = arguments.get(place + 2).and_then(|count| count.parse().ok()).expect("a number");
        let messages_a_turn =
            arguments.get(place + 3).and_then(|messages| messages.parse().ok()).unwrap_or(1);
        match arguments[place + 1].as_str() {
            // No clock is read here: rustix finds none under Valgrind, and does not survive that.
            "publish" => operate(&mut Publishing::new(), count, messages_a_turn, |run| run()),
            "call" => operate(&mut Calling::new(), count, messages_a_turn, |run| run()),
            other => panic!("{other} is neither publish nor call"),
        }
        return;
    }
    let mut criterion = Criterion::default().with_measurement(CpuTime).configure_from_args();
    measure(&mut criterion, "path/PUBLISH to EVENT", &mut Publishing::new());
    measure(&mut criterion, "path/CALL to RESULT", &mut Calling::new());
    criterion.final_summary();
}
