//! Events that others publish: counted, and checked where they say who sent them.

use std::collections::HashMap;

use crate::payload::Stamp;
use crate::plan::ListenJob;
use crate::pool::{Happening, Key, Pool, Work};
use crate::tally::Tally;
use crate::work::{Clocked, Course, Working};

/// One session that subscribes.
#[derive(Debug)]
pub(crate) struct Listen {
    job: ListenJob,
    course: Course,
    /// The number of the last event of each sender.
    last: HashMap<u32, u64>,
}

impl Listen {
    pub(crate) fn new(job: ListenJob) -> Self {
        Self { job, course: Course::new(1, 0, None), last: HashMap::new() }
    }

    fn receive(&mut self, pool: &Pool, payload: &[u8]) {
        if !self.job.is_stamped {
            self.course.clocked.count();
            return;
        }
        let Some(stamp) = Stamp::read(payload, pool.settings().payload_bytes) else {
            self.course.clocked.tally.wrong += 1;
            return;
        };
        let last = self.last.entry(stamp.sender).or_default();
        let tally = &mut self.course.clocked.tally;
        match stamp.sequence.checked_sub(*last) {
            Some(1) => {}
            // Where something is missing or comes again nothing is in order.
            Some(0) | None => tally.duplicated += 1,
            Some(gap) => tally.lost += gap - 1,
        }
        *last = stamp.sequence.max(*last);
        self.course.clocked.operation(stamp.sent_ns);
    }
}

impl Working for Listen {
    fn begin(&mut self, pool: &mut Pool) -> Result<(), String> {
        pool.open(0, None).map(drop).map_err(|error| error.to_string())
    }

    fn is_ready(&self) -> bool {
        self.course.is_ready()
    }

    fn start(&mut self, _pool: &mut Pool) {
        self.course.start();
    }

    fn stop(&mut self) {
        self.course.stop();
    }

    fn is_done(&self) -> bool {
        // What is still to come who publishes knows.
        true
    }

    fn clocked(&mut self) -> &mut Clocked {
        &mut self.course.clocked
    }

    fn failure(&self) -> Option<&str> {
        self.course.failure()
    }

    fn finish(&mut self) -> Tally {
        std::mem::take(&mut self.course.clocked.tally)
    }
}

impl Work for Listen {
    fn on(&mut self, pool: &mut Pool, key: Key, happening: Happening<'_>) {
        match happening {
            Happening::Open => pool.subscribe(key, &self.job.topic),
            Happening::Subscribed => self.course.session_is_ready(),
            Happening::Event { payload } => self.receive(pool, payload),
            Happening::Refused { reason } | Happening::Ended { reason } => self.course.fail(reason),
            Happening::Registered
            | Happening::Published { .. }
            | Happening::Result { .. }
            | Happening::Invocation { .. } => {}
        }
    }
}
