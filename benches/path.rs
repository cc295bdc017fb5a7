//! What does a message cost in user space, from the bytes of a socket to the bytes for another: link, decoder, router,
//! encoder, outbox and the turn around them?
//!
//! A PUBLISH that becomes one EVENT, and a CALL with its RESULT (four messages), in JSON over WebSocket with 64-byte
//! payloads, on one core and from one to another, without a kernel. One message a turn is what a lone client pays; 16 a
//! turn, a busy one.
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

    fn cores(&self) -> &Cores;

    /// How many messages the shard queues for one operation.
    const MESSAGES: u64;
}

/// Who gets a message, seen from who sends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Across {
    SameCore,
    OtherCore,
}

/// The core of who sends, and that of who gets it if it is another one.
struct Cores {
    here: Stand,
    there: Option<Stand>,
}

impl Cores {
    fn new(across: Across) -> Self {
        let mut cores = Stand::cores(if across == Across::OtherCore { 2 } else { 1 });
        let here = cores.remove(0);
        Self { here, there: cores.pop() }
    }

    fn there(&mut self) -> &mut Stand {
        self.there.as_mut().unwrap_or(&mut self.here)
    }

    /// A connection of who gets messages, and its first request.
    fn connect_there(&mut self, request: &str) -> usize {
        let Some(there) = &mut self.there else {
            let socket = self.here.connect();
            let answer = self.here.ask(socket, request);
            assert!(answer.contains(",1,"), "{answer}");
            return socket;
        };
        let socket = there.connect();
        let answer = there.ask_across(socket, request, || self.here.turn());
        assert!(answer.contains(",1,"), "{answer}");
        socket
    }

    /// Turns until what came in here has left there, or the other way.
    fn turns(&mut self, begins_there: bool) {
        match &mut self.there {
            None => self.here.turn(),
            Some(there) if begins_there => {
                there.turn();
                self.here.turn();
            }
            Some(there) => {
                self.here.turn();
                there.turn();
            }
        }
    }

    fn messages_sent(&self) -> u64 {
        self.here.messages_sent() + self.there.as_ref().map_or(0, Stand::messages_sent)
    }
}

/// PUBLISH to EVENT.
struct Publishing {
    cores: Cores,
    publisher: usize,
    requests: u64,
    lengths: Vec<usize>,
}

impl Publishing {
    fn new(across: Across) -> Self {
        let mut cores = Cores::new(across);
        cores.connect_there("[32,1,{},\"com.example.topic\"]");
        let publisher = cores.here.connect();
        Self { cores, publisher, requests: 0, lengths: Vec::new() }
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
        self.cores.here.prepare(self.publisher, frames.bytes);
    }

    #[inline(never)]
    fn run(&mut self, messages_a_turn: usize) {
        for lengths in self.lengths.chunks(messages_a_turn) {
            self.cores.here.arrive(self.publisher, lengths.iter().sum());
            self.cores.turns(false);
        }
    }

    fn cores(&self) -> &Cores {
        &self.cores
    }
}

/// CALL to INVOCATION, YIELD to RESULT.
struct Calling {
    cores: Cores,
    caller: usize,
    callee: usize,
    requests: u64,
    calls: Vec<usize>,
    yields: Vec<usize>,
}

impl Calling {
    fn new(across: Across) -> Self {
        let mut cores = Cores::new(across);
        let callee = cores.connect_there("[64,1,{},\"com.example.procedure\"]");
        let caller = cores.here.connect();
        Self { cores, caller, callee, requests: 0, calls: Vec::new(), yields: Vec::new() }
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
        self.cores.here.prepare(self.caller, calls.bytes);
        self.cores.there().prepare(self.callee, yields.bytes);
    }

    #[inline(never)]
    fn run(&mut self, messages_a_turn: usize) {
        for (calls, yields) in self.calls.chunks(messages_a_turn).zip(self.yields.chunks(messages_a_turn)) {
            self.cores.here.arrive(self.caller, calls.iter().sum());
            self.cores.turns(false);
            self.cores.there().arrive(self.callee, yields.iter().sum());
            self.cores.turns(true);
        }
    }

    fn cores(&self) -> &Cores {
        &self.cores
    }
}

/// Does so many operations. `around` is given those parts that are to be measured.
fn operate<W: Work>(
    work: &mut W,
    count: u64,
    messages_a_turn: usize,
    mut around: impl FnMut(&mut dyn FnMut()),
) {
    let sent = work.cores().messages_sent();
    let mut done = 0;
    while done < count {
        let prepared = (count - done).min(PREPARED_MAX);
        work.prepare(prepared);
        around(&mut || work.run(black_box(messages_a_turn)));
        done += prepared;
    }
    assert_eq!(work.cores().messages_sent() - sent, count * W::MESSAGES, "some were not answered");
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
            "publish" => operate(&mut Publishing::new(Across::SameCore), count, messages_a_turn, |run| run()),
            "publish-across" => {
                operate(&mut Publishing::new(Across::OtherCore), count, messages_a_turn, |run| run())
            }
            "call" => operate(&mut Calling::new(Across::SameCore), count, messages_a_turn, |run| run()),
            "call-across" => {
                operate(&mut Calling::new(Across::OtherCore), count, messages_a_turn, |run| run())
            }
            other => panic!("{other} is not publish, call, publish-across or call-across"),
        }
        return;
    }
    let mut criterion = Criterion::default().with_measurement(CpuTime).configure_from_args();
    for (across, name) in [(Across::SameCore, ""), (Across::OtherCore, ", across cores")] {
        let mut publishing = Publishing::new(across);
        measure(&mut criterion, &format!("path/PUBLISH to EVENT{name}"), &mut publishing);
        measure(&mut criterion, &format!("path/CALL to RESULT{name}"), &mut Calling::new(across));
    }
    criterion.final_summary();
}
