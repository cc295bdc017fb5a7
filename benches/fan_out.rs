//! What does a delivery cost when one publication goes to 1,000 and to 10,000 outboxes: pushing it, and flushing it?
//!
//! A whole shard whose sockets take everything gets one PUBLISH of 64 bytes in JSON. The first turn pushes to all
//! outboxes and flushes some, each turn after it only flushes; so what a flush costs is known, and pushing is the rest.
//! Beside it stands `Outbox::push_shared` alone. All times are for one delivery.

#[path = "setting/cpu_time.rs"]
mod cpu_time;
#[path = "setting/stand.rs"]
mod stand;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use crosspoint::shard::outbox::{Levels, Outbox, Pool, Push};

use cpu_time::{CpuTime, by_cpu_time, thread_cpu_ns};
use stand::{Stand, append_frame};

const PAYLOAD: &str = "[\"0123456789012345678901234567890123456789012345678901234567890123\"]";

/// One publisher and its subscribers.
struct FanOut {
    stand: Stand,
    publisher: usize,
    subscribers: usize,
    requests: u64,
}

/// What one publication took.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    /// The turn that pushed.
    first_ns: u64,
    /// How many sockets it wrote to as well.
    first_sends: usize,
    /// All turns after it, and how many sockets they wrote to.
    later_ns: u64,
    later_sends: usize,
}

impl Spent {
    fn flush_ns(&self) -> f64 {
        self.later_ns as f64 / self.later_sends as f64
    }

    fn push_ns(&self) -> f64 {
        let deliveries = (self.first_sends + self.later_sends) as f64;
        (self.first_ns as f64 - self.first_sends as f64 * self.flush_ns()) / deliveries
    }
}

impl FanOut {
    fn new(subscribers: usize) -> Self {
        let mut stand = Stand::new();
        for _ in 0..subscribers {
            let subscriber = stand.connect();
            let subscribed = stand.ask(subscriber, "[32,1,{},\"com.example.topic\"]");
            assert!(subscribed.contains("[33,1,"), "{subscribed}");
        }
        let publisher = stand.connect();
        Self { stand, publisher, subscribers, requests: 0 }
    }

    fn publish(&mut self) -> Spent {
        self.requests += 1;
        let mut frame = Vec::new();
        append_frame(&format!("[16,{},{{}},\"com.example.topic\",{PAYLOAD}]", self.requests), &mut frame);
        let length = frame.len();
        self.stand.prepare(self.publisher, frame);
        self.stand.arrive(self.publisher, length);
        let sends = self.stand.sends();
        let begun_ns = thread_cpu_ns();
        self.stand.turn();
        let turned_ns = thread_cpu_ns();
        let first_sends = self.stand.sends() - sends;
        while self.stand.sends() - sends < self.subscribers {
            self.stand.turn();
        }
        Spent {
            first_ns: turned_ns - begun_ns,
            first_sends,
            later_ns: thread_cpu_ns() - turned_ns,
            later_sends: self.stand.sends() - sends - first_sends,
        }
    }
}

fn fan_out(criterion: &mut Criterion<CpuTime>, subscribers: usize) {
    let mut group = criterion.benchmark_group(format!("fan_out/one delivery of {subscribers}"));
    let mut work = FanOut::new(subscribers);
    let mut all = Vec::new();
    group.bench_function("pushed and flushed", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent_ns = 0;
            for _ in 0..times {
                let spent = work.publish();
                spent_ns += spent.first_ns + spent.later_ns;
                all.push(spent);
            }
            spent_ns / subscribers as u64
        });
    });
    let mut outboxes: Vec<Outbox> = Vec::new();
    outboxes.resize_with(subscribers, Outbox::default);
    let (frame, mut pool) = (Bytes::from(vec![0; 128]), Pool::default());
    group.bench_function("Outbox::push_shared alone", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent_ns = 0;
            for _ in 0..times {
                let begun_ns = thread_cpu_ns();
                for outbox in &mut outboxes {
                    let push = outbox.push_shared(black_box(&frame), Levels::NONE, &mut pool);
                    assert_eq!(push, Push::Accepted);
                }
                spent_ns += thread_cpu_ns() - begun_ns;
                outboxes.iter_mut().for_each(|outbox| outbox.clear(&mut pool));
            }
            spent_ns / subscribers as u64
        });
    });
    group.finish();
    if !all.is_empty() {
        let median = |measure: fn(&Spent) -> f64| {
            let mut values: Vec<_> = all.iter().map(measure).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "fan_out/one delivery of {subscribers}: {:.0} ns to push it, {:.0} ns to flush it (medians)",
            median(Spent::push_ns),
            median(Spent::flush_ns)
        );
    }
}

fn main() {
    let mut criterion = by_cpu_time(Duration::from_secs(2));
    for subscribers in [1000, 10_000] {
        fan_out(&mut criterion, subscribers);
    }
    criterion.final_summary();
}
