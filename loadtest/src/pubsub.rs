//! Events: publishers that wait until all subscribers have received, or that keep a pace.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::clock::now_ns;
use crate::payload::Stamp;
use crate::plan::PubSubJob;
use crate::pool::{Happening, Key, Pool, Work};
use crate::tally::Tally;
use crate::work::{Clocked, Course, Working};

/// A stalled subscriber that reads again has received what there is once nothing came for so long, in nanoseconds.
const QUIET_NS: u64 = 2_000_000_000;

/// The state of the work. Keys: subscribers, then stalled subscribers, then publishers.
#[derive(Debug)]
pub(crate) struct PubSub {
    job: PubSubJob,
    course: Course,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    measuring: bool,
    has_started: bool,
    stalled_open: usize,
    stalled_last_ns: u64,
}

#[derive(Debug)]
struct Publisher {
    topic: String,
    /// Who has to receive each of its publications.
    receivers: u32,
    sent: u64,
    /// Publications that are not complete yet.
    open: usize,
    /// What is missing of each publication from `first` on: receivers, and the acknowledgement.
    missing: VecDeque<u32>,
    first: u64,
}

#[derive(Debug, Default)]
struct Subscriber {
    /// The highest number that came from each publisher.
    last: HashMap<u32, u64>,
    /// Numbers below it that did not come.
    absent: BTreeSet<(u32, u64)>,
    last_event_ns: u64,
}

impl Publisher {
    /// One thing less is missing of a publication.
    fn received(&mut self, sequence: u64) {
        let Some(missing) =
            sequence.checked_sub(self.first).and_then(|index| self.missing.get_mut(index as usize))
        else {
            return;
        };
        *missing = missing.saturating_sub(1);
        if *missing == 0 {
            self.open = self.open.saturating_sub(1);
        }
        while self.missing.front() == Some(&0) {
            self.missing.pop_front();
            self.first += 1;
        }
    }
}

impl PubSub {
    pub(crate) fn new(job: PubSubJob) -> Self {
        let publishers = (0..job.publishers)
            .map(|number| {
                let topic = number % job.topics;
                let receivers = (0..job.subscribers).filter(|other| other % job.topics == topic).count();
                Publisher {
                    topic: format!("{}.topic{topic}", job.prefix),
                    receivers: receivers as u32,
                    sent: 0,
                    open: 0,
                    missing: VecDeque::new(),
                    first: 1,
                }
            })
            .collect();
        Self {
            course: Course::new(job.subscribers + job.stalled + job.publishers, job.publishers, job.rate),
            publishers,
            subscribers: (0..job.subscribers).map(|_| Subscriber::default()).collect(),
            stalled_open: job.stalled,
            job,
            measuring: false,
            has_started: false,
            stalled_last_ns: 0,
        }
    }

    fn first_publisher(&self) -> usize {
        self.job.subscribers + self.job.stalled
    }

    fn publish(&mut self, pool: &mut Pool, number: usize, sent_ns: u64) {
        let key = self.first_publisher() + number;
        let acknowledge = self.job.acknowledge;
        let publisher = &mut self.publishers[number];
        publisher.sent += 1;
        publisher.open += 1;
        publisher.missing.push_back(publisher.receivers + u32::from(acknowledge));
        let stamp = Stamp { sender: number as u32, sequence: publisher.sent, sent_ns };
        let text = self.course.text(stamp, pool.settings().payload_bytes);
        pool.publish(key, &publisher.topic, text, acknowledge);
        self.course.clocked.tally.publications += 1;
    }

    /// Publishes what the closed loop permits.
    fn refill(&mut self, pool: &mut Pool, number: usize) {
        while self.course.is_closed_loop() && self.publishers[number].open < self.job.flight {
            self.publish(pool, number, now_ns());
        }
    }

    fn receive(&mut self, pool: &mut Pool, key: Key, payload: &[u8]) {
        let now_ns = now_ns();
        let Some(stamp) = Stamp::read(payload, pool.settings().payload_bytes) else {
            self.course.clocked.tally.wrong += 1;
            return;
        };
        let number = stamp.sender as usize;
        if number >= self.publishers.len() || number % self.job.topics != key % self.job.topics {
            self.course.clocked.tally.wrong += 1;
            return;
        }
        let subscriber = &mut self.subscribers[key];
        if self.measuring {
            let gap_us = now_ns.saturating_sub(subscriber.last_event_ns) / 1000;
            self.course.clocked.tally.longest_gap_us = self.course.clocked.tally.longest_gap_us.max(gap_us);
        }
        subscriber.last_event_ns = now_ns;
        let last = subscriber.last.entry(stamp.sender).or_default();
        if stamp.sequence <= *last {
            if subscriber.absent.remove(&(stamp.sender, stamp.sequence)) {
                self.course.clocked.tally.lost -= 1;
                self.course.clocked.tally.reordered += 1;
                self.course.clocked.operation(stamp.sent_ns);
            } else {
                self.course.clocked.tally.duplicated += 1;
            }
            return;
        }
        // A router that loses events must not stop the loop: what was overtaken is given up, until it comes after all.
        for sequence in *last + 1..stamp.sequence {
            subscriber.absent.insert((stamp.sender, sequence));
            self.course.clocked.tally.lost += 1;
            self.publishers[number].received(sequence);
        }
        *last = stamp.sequence;
        self.course.clocked.operation(stamp.sent_ns);
        self.publishers[number].received(stamp.sequence);
        self.refill(pool, number);
    }

    fn is_stalled(&self, key: Key) -> bool {
        (self.job.subscribers..self.first_publisher()).contains(&key)
    }
}

impl Working for PubSub {
    fn begin(&mut self, pool: &mut Pool) -> Result<(), String> {
        for key in 0..self.first_publisher() + self.job.publishers {
            let target = match key.checked_sub(self.first_publisher()) {
                None => self.job.subscribers_on.target(key),
                Some(publisher) => self.job.publishers_on.target(publisher),
            };
            pool.open(target, None).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.course.is_ready()
    }

    fn start(&mut self, pool: &mut Pool) {
        self.course.start();
        self.has_started = true;
        for key in self.job.subscribers..self.first_publisher() {
            pool.pause(key, true);
        }
        for number in 0..self.publishers.len() {
            self.refill(pool, number);
        }
    }

    fn stop(&mut self) {
        self.measuring = false;
        let now_ns = now_ns();
        for subscriber in &self.subscribers {
            let gap_us = now_ns.saturating_sub(subscriber.last_event_ns) / 1000;
            self.course.clocked.tally.longest_gap_us = self.course.clocked.tally.longest_gap_us.max(gap_us);
        }
        self.stalled_last_ns = now_ns;
        self.course.stop();
    }

    fn is_done(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.open == 0)
            && (self.stalled_open == 0 || now_ns().saturating_sub(self.stalled_last_ns) > QUIET_NS)
    }

    fn clocked(&mut self) -> &mut Clocked {
        &mut self.course.clocked
    }

    fn failure(&self) -> Option<&str> {
        self.course.failure()
    }

    fn finish(&mut self) -> Tally {
        let missing: u64 = self
            .publishers
            .iter()
            .flat_map(|publisher| &publisher.missing)
            .map(|count| u64::from(*count))
            .sum();
        self.course.clocked.tally.lost += missing;
        if self.stalled_open > 0 {
            *self.course.clocked.tally.stalled_ended.entry("still open".to_owned()).or_default() +=
                self.stalled_open as u64;
        }
        std::mem::take(&mut self.course.clocked.tally)
    }

    fn measure(&mut self) {
        self.course.clocked.measure();
        self.measuring = true;
        let now_ns = now_ns();
        for subscriber in &mut self.subscribers {
            subscriber.last_event_ns = now_ns;
        }
    }

    fn tick(&mut self, pool: &mut Pool) -> Option<u64> {
        if !self.course.is_running {
            if self.stalled_open > 0 && self.stalled_last_ns > 0 {
                for key in self.job.subscribers..self.first_publisher() {
                    if pool.is_open(key) {
                        pool.pause(key, false);
                    }
                }
            }
            return None;
        }
        let now_ns = now_ns();
        while let Some((number, due_ns)) = self.course.take_due(now_ns) {
            self.publish(pool, number, due_ns);
        }
        self.course.wait_ns(now_ns)
    }
}

impl Work for PubSub {
    fn on(&mut self, pool: &mut Pool, key: Key, happening: Happening<'_>) {
        match happening {
            Happening::Open if key < self.first_publisher() => {
                let topic = if self.is_stalled(key) { 0 } else { key % self.job.topics };
                let topic = format!("{}.topic{topic}", self.job.prefix);
                pool.subscribe(key, &topic);
            }
            Happening::Open | Happening::Subscribed => self.course.session_is_ready(),
            Happening::Event { .. } if self.is_stalled(key) => {
                self.course.clocked.tally.stalled_received += 1;
                self.stalled_last_ns = now_ns();
            }
            Happening::Event { payload } => self.receive(pool, key, payload),
            Happening::Published { request } => {
                let number = key - self.first_publisher();
                // A publisher makes no other requests, so they count alike.
                self.publishers[number].received(request);
                self.refill(pool, number);
            }
            Happening::Refused { reason } => {
                *self.course.clocked.tally.refused.entry(reason.to_owned()).or_default() += 1;
                self.course.fail(reason);
            }
            Happening::Ended { reason } if self.is_stalled(key) && self.has_started => {
                self.stalled_open -= 1;
                *self.course.clocked.tally.stalled_ended.entry(reason.to_owned()).or_default() += 1;
            }
            Happening::Ended { reason } => self.course.fail(reason),
            Happening::Registered | Happening::Result { .. } | Happening::Invocation { .. } => {}
        }
    }
}
