//! What people are told of connections: counts, at most once a second. No core ever writes a log line.

use tracing::{debug, info, warn};

use super::cores::Core;
use crate::metrics::Counters;
use crate::wamp::CloseReason;

/// The least time between two lines about the same thing, in microseconds.
const INTERVAL_US: u64 = 1_000_000;

/// Follows the counters of the cores, and asks for them only when something ended or was refused: an idle router
/// stays asleep.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// What was told already.
    told: Counters,
    /// What the cores had to tell of when they were last asked; see [`Counters::noteworthy`].
    seen: u64,
    /// The numbers of the snapshots that were asked for; empty when there are none.
    asked: Vec<u32>,
    /// When the next question may be asked.
    next_us: u64,
}

impl Notices {
    /// Looks, asks or tells; called every now and then.
    pub(super) fn watch(&mut self, cores: &[Core], now_us: u64) {
        if !self.asked.is_empty() {
            let is_complete =
                cores.iter().zip(&self.asked).all(|(core, number)| core.control.has_answered(*number));
            // A core that is stuck must not keep the others from being heard.
            if !is_complete && now_us < self.next_us {
                return;
            }
            self.asked.clear();
            self.tell(cores);
        }
        let noteworthy = cores.iter().map(|core| core.control.noteworthy()).sum();
        if noteworthy != self.seen && now_us >= self.next_us {
            self.seen = noteworthy;
            self.next_us = now_us + INTERVAL_US;
            self.asked = cores.iter().map(Core::want_counters).collect();
        }
    }

    fn tell(&mut self, cores: &[Core]) {
        let mut sum = Counters::default();
        for core in cores {
            sum.add(&core.control.counters());
        }
        let new = sum.since(&self.told);
        self.told = sum;
        if new.accept_paused > 0 {
            warn!(
                times = new.accept_paused,
                "accepting paused for want of descriptors; raise RLIMIT_NOFILE (`ulimit -n`, LimitNOFILE= in a \
                 systemd unit), or lower limits.connections"
            );
        }
        if new.connections_refused > 0 {
            warn!(
                connections = new.connections_refused,
                "connections were refused: there are as many as limits.connections, or too many from one address"
            );
        }
        let (by_router, by_clients) = (reasons(&new, false), reasons(&new, true));
        if !by_router.is_empty() {
            info!(reasons = by_router, "connections were closed by the router");
        }
        if !by_clients.is_empty() {
            debug!(reasons = by_clients, "connections ended");
        }
    }
}

/// Reasons and counts, such as `hello_timeout=3 slow_consumer=1`.
fn reasons(new: &Counters, ordinary: bool) -> String {
    let counted = CloseReason::ALL
        .iter()
        .filter(|reason| new.closed[**reason as usize] > 0 && is_ordinary(**reason) == ordinary);
    let texts = counted.map(|reason| format!("{}={}", reason.info().key, new.closed[*reason as usize]));
    texts.collect::<Vec<_>>().join(" ")
}

/// Whether connections end for this reason all the time without anything being wrong.
fn is_ordinary(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Goodbye
            | CloseReason::EndOfStream
            | CloseReason::Reset
            | CloseReason::HttpAnswered
            | CloseReason::ClientAbort
            | CloseReason::Killed
            | CloseReason::SystemShutdown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_people_should_know_stand_apart() {
        let mut counters = Counters::default();
        assert_eq!(reasons(&counters, false), "");
        counters.closed[CloseReason::SlowConsumer as usize] = 2;
        counters.closed[CloseReason::HelloTimeout as usize] = 1;
        counters.closed[CloseReason::EndOfStream as usize] = 100;
        assert_eq!(reasons(&counters, false), "hello_timeout=1 slow_consumer=2");
        assert_eq!(reasons(&counters, true), "end_of_stream=100");
    }
}
