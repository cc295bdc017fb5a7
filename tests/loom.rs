//! The handshake of sleep and doorbell (`src/shard/mesh/sleep.rs`) through every interleaving and every reordering that the
//! memory model allows; and three ways to get it wrong, each of which must be caught.
//!
//! The file is compiled here once more, over loom's atomics.

#![allow(clippy::unwrap_used)]

use loom::sync::atomic::{self, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
// Not loom's: it panics again when the panic of an expected failure drops it.
use std::sync::Arc;

#[path = "../src/shard/mesh/sleep.rs"]
mod sleep;

use sleep::Sleep;

/// An eventfd in an epoll set: a ring before the wait ends the wait. Waiting for ever is a deadlock, which loom reports.
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self { rung: Mutex::new(false), changed: Condvar::new() }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// How the two sides do it.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Right,
    /// The sleeper looks at its queues, then announces.
    LookThenAnnounce,
    /// The giver looks at the announcement, then queues.
    ClaimThenQueue,
    /// The giver leaves out the fence.
    NoFence,
}

/// A core and two queues into it, each with one giver. A queue is a count with the weakest order that a queue can have.
struct Core {
    sleep: Sleep,
    bell: Bell,
    queues: [AtomicUsize; 2],
}

impl Core {
    fn new() -> Arc<Self> {
        let queues = [AtomicUsize::new(0), AtomicUsize::new(0)];
        Arc::new(Self { sleep: Sleep::new(), bell: Bell::new(), queues })
    }

    fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.load(Ordering::Relaxed)).sum()
    }

    fn give(&self, queue: usize, order: Order) {
        let queue = &self.queues[queue];
        let queue_one = || queue.store(queue.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if order != Order::ClaimThenQueue {
            queue_one();
        }
        if order != Order::NoFence {
            Sleep::settle();
        }
        let claimed = self.sleep.claim();
        if order == Order::ClaimThenQueue {
            queue_one();
        }
        if claimed {
            self.bell.ring();
        }
    }

    /// Turns until `wanted` were given in all.
    fn run(&self, wanted: usize, order: Order) {
        let mut taken = 0;
        loop {
            taken = self.queued().max(taken);
            if taken == wanted {
                return;
            }
            let is_idle = || self.queued() == taken;
            let may_sleep = if order == Order::LookThenAnnounce {
                let idle = is_idle();
                self.sleep.announce(|| idle)
            } else {
                self.sleep.announce(is_idle)
            };
            if may_sleep {
                self.bell.wait();
                self.sleep.awake();
            } else {
                // The rest of a turn.
                thread::yield_now();
            }
        }
    }
}

fn check(givers: usize, order: Order) {
    let mut model = loom::model::Builder::new();
    // With three threads: all interleavings with at most three preemptions, of which a lost wake-up needs one.
    model.preemption_bound = Some(3);
    model.check(move || {
        let core = Core::new();
        let threads: Vec<_> = (0..givers)
            .map(|giver| {
                let core = Arc::clone(&core);
                thread::spawn(move || core.give(giver, order))
            })
            .collect();
        core.run(givers, order);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn no_wake_up_is_lost() {
    check(1, Order::Right);
}

#[test]
fn no_wake_up_is_lost_between_a_core_and_another_thread() {
    check(2, Order::Right);
}

#[test]
#[should_panic(expected = "deadlock")]
fn looking_before_announcing_is_caught() {
    check(1, Order::LookThenAnnounce);
}

#[test]
#[should_panic(expected = "deadlock")]
fn claiming_before_queueing_is_caught() {
    check(1, Order::ClaimThenQueue);
}

#[test]
#[should_panic(expected = "deadlock")]
fn leaving_out_the_fence_is_caught() {
    check(1, Order::NoFence);
}

/// A core whose overflow waits behind a full ring sleeps; the receiver that makes room rings it.
#[test]
fn a_sender_with_an_overflow_is_woken_by_whoever_makes_room() {
    loom::model(|| {
        let sender = Core::new();
        let (ring, overflow_waits) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
        let receiver = {
            let (sender, ring, overflow_waits) =
                (Arc::clone(&sender), Arc::clone(&ring), Arc::clone(&overflow_waits));
            thread::spawn(move || {
                ring.store(0, Ordering::Relaxed);
                Sleep::settle();
                if overflow_waits.load(Ordering::Relaxed) == 1 && sender.sleep.claim() {
                    sender.bell.ring();
                }
            })
        };
        overflow_waits.store(1, Ordering::Relaxed);
        while ring.load(Ordering::Relaxed) == 1 {
            if sender.sleep.announce(|| ring.load(Ordering::Relaxed) == 1) {
                sender.bell.wait();
                sender.sleep.awake();
            } else {
                thread::yield_now();
            }
        }
        receiver.join().unwrap();
    });
}
