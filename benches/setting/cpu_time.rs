//! CPU time of the thread that measures, for criterion: on a machine that is shared, wall time is other people's too.

#![allow(dead_code, unreachable_pub, reason = "each bench takes what it needs")]

use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// CPU time that this thread has had, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Criterion by this clock, as the command line wants it: each bench for so long, and a quarter of that before.
pub fn by_cpu_time(each: Duration) -> Criterion<CpuTime> {
    Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(each / 4)
        .measurement_time(each)
        .configure_from_args()
}

/// Measures [`thread_cpu_ns`], in nanoseconds.
pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        thread_cpu_ns()
    }

    fn end(&self, begun: u64) -> u64 {
        thread_cpu_ns() - begun
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        // Nanoseconds as well.
        WallTime.formatter()
    }
}
