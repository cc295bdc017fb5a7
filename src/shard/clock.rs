//! The only reader of clocks.

use rustix::time::{ClockId, clock_gettime};

use crate::router::Now;

/// The time now.
#[must_use]
pub fn now() -> Now {
    Now { monotonic_us: read(ClockId::Monotonic), wall_us: read(ClockId::Realtime) }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Both are far from negative: since boot, and since 1970.
    (time.tv_sec.max(0) as u64) * 1_000_000 + (time.tv_nsec.max(0) as u64) / 1000
}
