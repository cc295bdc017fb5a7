//! Lived time: the time in which this shard could do something.
//!
//! Timeouts of connections run on it, so that a process that was stopped for a minute closes nobody: a turn claims
//! what it meant to sleep and at most 100 ms more; and 100 ms in all when it slept so much longer than it meant to that
//! it must have been stopped, because nobody knows how soon.

use std::time::Duration;

/// The unit in which timers of connections are kept.
pub(super) const TICK_US: u64 = 100_000;

/// A sleep that was so much longer than it was meant to be was not the shard's, in microseconds.
const OVERSLEPT_US: u64 = 1_000_000;

/// The clock of one shard's connections.
#[derive(Debug, Default)]
pub(super) struct LivedTime {
    last_us: u64,
    lived_us: u64,
    /// How long the wait that is about to begin is meant to last at most.
    planned_us: Option<u64>,
    /// The earliest tick at which a connection's timers want to be looked at.
    next_check: Option<u32>,
    started: bool,
}

impl LivedTime {
    /// A turn begins.
    pub(super) fn advance(&mut self, now_us: u64) {
        if !self.started {
            self.started = true;
            self.last_us = now_us;
        }
        let elapsed = now_us.saturating_sub(self.last_us);
        self.last_us = now_us;
        let planned = self.planned_us.take().unwrap_or(0);
        let was_stopped = elapsed > planned.saturating_add(OVERSLEPT_US);
        let claimed = if was_stopped { TICK_US } else { planned.saturating_add(TICK_US) };
        self.lived_us += elapsed.min(claimed);
    }

    /// The shard is about to wait, at most so long; `None` for as long as it takes.
    pub(super) fn plan_wait(&mut self, wait_us: Option<u64>) {
        self.planned_us = Some(wait_us.unwrap_or(u64::MAX / 2));
    }

    /// The present tick.
    pub(super) fn tick(&self) -> u32 {
        // 13 years of ticks fit.
        (self.lived_us / TICK_US) as u32
    }

    /// A duration in ticks, at least one.
    pub(super) fn ticks(&self, duration: Duration) -> u32 {
        u32::try_from(duration.as_micros() / u128::from(TICK_US)).unwrap_or(u32::MAX / 2).max(1)
    }

    /// Some connection's timers want to be looked at by then.
    pub(super) fn check_by(&mut self, tick: u32) {
        self.next_check = Some(self.next_check.map_or(tick, |next| next.min(tick)));
    }

    /// Whether it is time to look; the looker finds out when to come again.
    pub(super) fn is_due(&self) -> bool {
        self.next_check.is_some_and(|next| next <= self.tick())
    }

    /// The tick of the next look; `None` when nobody has a timer.
    pub(super) fn next_check(&self) -> Option<u32> {
        self.next_check
    }

    /// Nobody has a timer, as far as is known: the looker begins.
    pub(super) fn forget_check(&mut self) {
        self.next_check = None;
    }

    /// The monotonic time of the next look.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        let next = u64::from(self.next_check?) * TICK_US;
        Some(self.last_us + next.saturating_sub(self.lived_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_process_lives_a_tick() {
        let mut lived = LivedTime::default();
        lived.advance(1_000_000);
        assert_eq!(lived.tick(), 0);
        lived.plan_wait(Some(2_000_000));
        lived.advance(3_000_000);
        assert_eq!(lived.tick(), 20);
        // Stopped for a minute in a wait of two seconds.
        lived.plan_wait(Some(2_000_000));
        lived.advance(63_000_000);
        assert_eq!(lived.tick(), 21);
        // Stopped for a minute within a turn.
        lived.advance(123_000_000);
        assert_eq!(lived.tick(), 22);
        // Late, as on any busy machine.
        lived.plan_wait(Some(2_000_000));
        lived.advance(125_700_000);
        assert_eq!(lived.tick(), 43);
    }

    #[test]
    fn an_idle_wait_without_timers_is_lived() {
        let mut lived = LivedTime::default();
        lived.advance(0);
        lived.plan_wait(None);
        lived.advance(10_000_000);
        assert_eq!(lived.tick(), 100);
    }
}
