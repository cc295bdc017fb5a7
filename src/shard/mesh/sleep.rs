//! The handshake between a core that goes to sleep and those that give it work.
//!
//! The sleeper announces, then looks at its queues; the giver queues, then looks at the announcement. Each has a
//! sequentially consistent fence between the two steps, so at least one of them sees the other: work is found or the
//! doorbell rings. `tests/loom.rs` runs this file under loom through every interleaving, which is why the atomics come
//! from the parent module.

use super::atomic::{AtomicBool, Ordering, fence};

/// Whether one core sleeps, or is about to.
#[derive(Debug)]
pub(super) struct Sleep {
    sleeping: AtomicBool,
}

impl Sleep {
    pub(super) fn new() -> Self {
        Self { sleeping: AtomicBool::new(false) }
    }

    /// The sleeper's side: announces sleep, and only then asks whether there is nothing to do. Whether it may sleep.
    pub(super) fn announce(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let may_sleep = is_idle();
        if !may_sleep {
            self.awake();
        }
        may_sleep
    }

    /// The sleeper's side, after every return from waiting: nobody needs to ring.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The giver's side, between queueing and `claim`; once for all the cores that it gave work to.
    pub(super) fn settle() {
        fence(Ordering::SeqCst);
    }

    /// The giver's side: whether it is to ring the doorbell. Of several givers one is told so.
    pub(super) fn claim(&self) -> bool {
        // Looking first: most of the time nobody sleeps, and an exchange would take the line from its owner. Not a swap:
        // one that fails would write, and loom, which lets that write stand behind a newer announcement, then loses a
        // wake-up.
        self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
