//! What does a message from core to core cost on both sides, by how many there are a turn, and what does waking a core cost?
//!
//! Two threads take turns: one sends 2,048 messages, so many between two calls of `ring_doorbells`, and stands by while the
//! other takes as many, so many a round. Each side's CPU time for one message is measured apart, with the cache lines that
//! move between the cores in it and without the waiting.
//!
//! For a wake-up both threads sleep in epoll as shards do, and one message goes to and fro: wall time for a round trip,
//! CPU time of one side for it (one send, one ring of the doorbell, one sleep, one receive).

#[path = "setting/cpu_time.rs"]
mod cpu_time;

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use crosspoint::router::peer::{PeerMessage, SessionKey};
use crosspoint::shard::mesh::{Doorbell, MeshEnd, SharedDoorbell, connect};
use crosspoint::shard::poller::{EventDoorbell, Poller};
use rustix::time::{ClockId, clock_gettime};

use cpu_time::{CpuTime, by_cpu_time, thread_cpu_ns};

/// Sent, then received.
const MESSAGES: usize = 2048;

/// As the default configuration has it (`limits.ring_entries`), and enough for all of them.
const RING_ENTRIES: usize = 4096;

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

/// What a message is does not matter to the mesh, its size does.
fn message() -> PeerMessage {
    PeerMessage::Credit { session: SessionKey { slot: 1, generation: 2 }, bytes: 3 }
}

fn pin(processor: usize) {
    // On a machine with one processor the two share it.
    let _ = core_affinity::set_for_current(core_affinity::CoreId { id: processor });
}

/// Waits for a number to be what it should.
fn await_number(number: &AtomicU64, expected: u64) {
    while number.load(Ordering::Acquire) != expected {
        spin_loop();
        // Others want this processor too.
        thread::yield_now();
    }
}

fn send_all(end: &mut MeshEnd<PeerMessage>, batch: usize) {
    for _ in 0..MESSAGES / batch {
        for _ in 0..batch {
            end.send(1, black_box(message()), 160);
        }
        end.ring_doorbells();
    }
}

fn receive_all(end: &mut MeshEnd<PeerMessage>, batch: usize) {
    for _ in 0..MESSAGES / batch {
        let mut round = end.start_round(batch);
        let mut count = 0;
        while let Some(message) = end.receive(&mut round) {
            black_box(message);
            count += 1;
        }
        assert_eq!(count, batch);
        end.ring_doorbells();
    }
}

/// The other thread receives what this one sends.
struct Pair {
    sender: MeshEnd<PeerMessage>,
    /// Sent for the last time, received for the last time: rounds, counted.
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    batch: Arc<AtomicU64>,
    receiving_ns: Arc<AtomicU64>,
    rounds: u64,
}

impl Pair {
    fn new() -> Self {
        let doorbells = vec![Arc::new(Silent) as SharedDoorbell, Arc::new(Silent)];
        let mut ends = connect(RING_ENTRIES, doorbells);
        let mut receiver = ends.pop().expect("two ends");
        let pair = Self {
            sender: ends.pop().expect("two ends"),
            sent: Arc::default(),
            received: Arc::default(),
            batch: Arc::default(),
            receiving_ns: Arc::default(),
            rounds: 0,
        };
        let (sent, received) = (Arc::clone(&pair.sent), Arc::clone(&pair.received));
        let (batch, receiving_ns) = (Arc::clone(&pair.batch), Arc::clone(&pair.receiving_ns));
        thread::spawn(move || {
            pin(1);
            for round in 1.. {
                await_number(&sent, round);
                let batch = batch.load(Ordering::Relaxed) as usize;
                let begun_ns = thread_cpu_ns();
                receive_all(&mut receiver, batch);
                receiving_ns.fetch_add(thread_cpu_ns() - begun_ns, Ordering::Relaxed);
                received.store(round, Ordering::Release);
            }
        });
        pair
    }

    /// All messages once to the other side; what that took there and here.
    fn round(&mut self, batch: usize) -> (u64, u64) {
        self.batch.store(batch as u64, Ordering::Relaxed);
        let received_ns = self.receiving_ns.load(Ordering::Relaxed);
        let begun_ns = thread_cpu_ns();
        send_all(&mut self.sender, batch);
        let sending_ns = thread_cpu_ns() - begun_ns;
        self.rounds += 1;
        self.sent.store(self.rounds, Ordering::Release);
        await_number(&self.received, self.rounds);
        (sending_ns, self.receiving_ns.load(Ordering::Relaxed) - received_ns)
    }
}

fn messages(criterion: &mut Criterion<CpuTime>) {
    let mut pair = Pair::new();
    for side in ["sending", "receiving"] {
        let mut group = criterion.benchmark_group(format!("mesh/{side} one message"));
        for batch in [1, 16, 256, 2048] {
            group.bench_function(BenchmarkId::new("messages a turn", batch), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut spent_ns = 0;
                    for _ in 0..rounds {
                        let (sending_ns, receiving_ns) = pair.round(batch);
                        spent_ns += if side == "sending" { sending_ns } else { receiving_ns };
                    }
                    spent_ns / MESSAGES as u64
                });
            });
        }
        group.finish();
    }
}

/// One end of the mesh and what its thread waits on.
struct Sleeper {
    end: MeshEnd<PeerMessage>,
    poller: Poller,
}

impl Sleeper {
    fn pair() -> [Self; 2] {
        let doorbell = || EventDoorbell::new().expect("an eventfd");
        let doorbells = [doorbell(), doorbell()];
        let shared = doorbells.iter().map(|doorbell| Arc::clone(doorbell) as SharedDoorbell).collect();
        let mut ends = connect(RING_ENTRIES, shared).into_iter();
        doorbells.map(|doorbell| Self {
            end: ends.next().expect("an end for each"),
            poller: Poller::new(doorbell).expect("an epoll set"),
        })
    }

    fn send(&mut self) {
        self.end.send(1 - self.end.core(), message(), 160);
        self.end.ring_doorbells();
    }

    /// Sleeps until a message comes.
    fn receive(&mut self) {
        let mut ready = Vec::new();
        loop {
            let sleeps = self.end.may_sleep(|| true);
            self.poller.wait(sleeps, &mut ready);
            self.end.awake();
            let mut round = self.end.start_round(1);
            if let Some(message) = self.end.receive(&mut round) {
                black_box(message);
                return;
            }
        }
    }
}

fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn waking(criterion: &mut Criterion<CpuTime>) {
    let [mut here, mut there] = Sleeper::pair();
    thread::spawn(move || {
        pin(1);
        loop {
            there.receive();
            there.send();
        }
    });
    let mut group = criterion.benchmark_group("mesh/a message wakes the other core, which answers");
    for (name, clock) in [("wall time", monotonic_ns as fn() -> u64), ("CPU time of one side", thread_cpu_ns)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let begun_ns = clock();
                for _ in 0..times {
                    here.send();
                    here.receive();
                }
                clock() - begun_ns
            });
        });
    }
    group.finish();
}

fn main() {
    pin(0);
    let mut criterion = by_cpu_time(Duration::from_secs(2));
    messages(&mut criterion);
    waking(&mut criterion);
    criterion.final_summary();
}
