//! Sessions that are there: opened in steps, held, sent one event each, opened again when the router was gone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::clock::now_ns;
use crate::payload::Stamp;
use crate::plan::{IdleJob, Order, Progress};
use crate::pool::{Happening, Key, Pool, Work};
use crate::tally::Tally;
use crate::work::{Clocked, Working};

/// How many events are on their way at once.
const DELIVERIES_OPEN_MAX: usize = 256;

/// Failures after which a connection waits no longer than this many times the first wait.
const BACKOFF_MAX: u32 = 3;

/// The state of the work. Keys: sessions in order, then one publisher.
#[derive(Debug)]
pub(crate) struct Idle {
    job: IdleJob,
    sessions: Vec<Session>,
    wanted: usize,
    opening: usize,
    open: usize,
    failed: BTreeMap<String, u64>,
    publisher: Option<Key>,
    delivery: Delivery,
    /// Connections to be made again, by when.
    again: Vec<(u64, Key)>,
    random: u64,
    clocked: Clocked,
    text: Vec<u8>,
    failure: Option<String>,
}

#[derive(Debug, Default)]
struct Session {
    began_ns: u64,
    is_open: bool,
    failures: u32,
    received: u32,
}

/// How far the events are.
#[derive(Debug, Default)]
struct Delivery {
    wanted: bool,
    running: bool,
    next: usize,
    open: usize,
    last_ns: u64,
    done: bool,
}

impl Idle {
    pub(crate) fn new(job: IdleJob) -> Self {
        Self {
            random: (u64::from(job.first) * 2 + now_ns()) | 1,
            job,
            sessions: Vec::new(),
            wanted: 0,
            opening: 0,
            open: 0,
            failed: BTreeMap::new(),
            publisher: None,
            delivery: Delivery::default(),
            again: Vec::new(),
            clocked: Clocked::default(),
            text: Vec::new(),
            failure: None,
        }
    }

    fn source(&self, key: Key) -> Option<IpAddr> {
        (!self.job.sources.is_empty()).then(|| self.job.sources[key % self.job.sources.len()])
    }

    fn topic(&self, key: Key) -> String {
        format!("loadtest.session.{}", self.job.first as usize + key)
    }

    fn opened(&mut self, key: Key) {
        let session = &mut self.sessions[key];
        session.is_open = true;
        session.failures = 0;
        let took_ns = now_ns().saturating_sub(session.began_ns);
        self.clocked.tally.open_us.record_ns(took_ns);
        self.opening -= 1;
        self.open += 1;
    }

    /// Opens what is missing, as far as the window permits.
    fn open_more(&mut self, pool: &mut Pool) {
        while self.publisher.is_none() && self.sessions.len() < self.wanted && self.opening < self.job.window
        {
            let key = self.sessions.len();
            match pool.open(0, self.source(key)) {
                Ok(_) => {
                    self.sessions.push(Session { began_ns: now_ns(), ..Session::default() });
                    self.opening += 1;
                }
                Err(error) => {
                    self.failure = Some(format!("session {key} cannot be opened: {error}"));
                    return;
                }
            }
        }
    }

    fn failed(&mut self, key: Key, reason: &str) {
        *self.failed.entry(reason.to_owned()).or_default() += 1;
        let Some(within_ms) = self.job.reconnect_within_ms else { return };
        let session = &mut self.sessions[key];
        let factor = 1 << session.failures.min(BACKOFF_MAX);
        session.failures += 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let wait_ns = self.random % (within_ms.max(1) * 1_000_000 * factor);
        self.again.push((now_ns() + wait_ns, key));
    }

    fn reopen(&mut self, pool: &mut Pool) {
        let now_ns = now_ns();
        let mut due = Vec::new();
        self.again.retain(|(at_ns, key)| {
            let is_due = *at_ns <= now_ns;
            if is_due {
                due.push(*key);
            }
            !is_due
        });
        for key in due {
            self.sessions[key].began_ns = now_ns;
            self.opening += 1;
            if let Err(error) = pool.reopen(key, self.source(key)) {
                self.opening -= 1;
                self.failed(key, &error.to_string());
            }
        }
    }

    /// Publishes to the next sessions.
    fn deliver(&mut self, pool: &mut Pool) {
        let Some(publisher) = self.publisher else { return };
        while self.delivery.running
            && self.delivery.open < DELIVERIES_OPEN_MAX
            && self.delivery.next < self.sessions.len()
        {
            let key = self.delivery.next;
            self.delivery.next += 1;
            if !self.sessions[key].is_open {
                continue;
            }
            self.delivery.open += 1;
            let sender = self.job.first + key as u32;
            let stamp = Stamp { sender, sequence: key as u64 + 1, sent_ns: now_ns() };
            stamp.write(pool.settings().payload_bytes, &mut self.text);
            let topic = self.topic(key);
            pool.publish(publisher, &topic, &self.text, false);
            self.clocked.tally.publications += 1;
        }
        let all = self.delivery.next >= self.sessions.len() && self.delivery.open == 0;
        let patience_ns = self.job.patience_ms * 1_000_000;
        let too_late = now_ns().saturating_sub(self.delivery.last_ns) > patience_ns;
        if self.delivery.running && (all || too_late) {
            self.delivery.running = false;
            self.delivery.done = true;
            self.clocked.stop();
        }
    }

    fn receive(&mut self, pool: &Pool, key: Key, payload: &[u8]) {
        let stamp = Stamp::read(payload, pool.settings().payload_bytes);
        let Some(stamp) = stamp.filter(|stamp| stamp.sender == self.job.first + key as u32) else {
            self.clocked.tally.wrong += 1;
            return;
        };
        self.delivery.last_ns = now_ns();
        let session = &mut self.sessions[key];
        session.received += 1;
        if session.received > 1 {
            self.clocked.tally.duplicated += 1;
            return;
        }
        self.delivery.open = self.delivery.open.saturating_sub(1);
        self.clocked.operation(stamp.sent_ns);
    }
}

impl Working for Idle {
    fn begin(&mut self, _pool: &mut Pool) -> Result<(), String> {
        Ok(())
    }

    fn is_ready(&self) -> bool {
        if self.delivery.wanted {
            return self.delivery.done;
        }
        if self.job.reconnect_within_ms.is_some() {
            return self.open == self.wanted;
        }
        self.opening == 0 && self.sessions.len() >= self.wanted
    }

    fn start(&mut self, _pool: &mut Pool) {}

    fn stop(&mut self) {}

    fn is_done(&self) -> bool {
        true
    }

    fn clocked(&mut self) -> &mut Clocked {
        &mut self.clocked
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn finish(&mut self) -> Tally {
        if self.delivery.wanted {
            let received = self.sessions.iter().filter(|session| session.received > 0).count();
            self.clocked.tally.lost = (self.sessions.len() - received) as u64;
        }
        self.clocked.tally.ended = self.failed.clone();
        std::mem::take(&mut self.clocked.tally)
    }

    fn order(&mut self, pool: &mut Pool, order: Order) {
        match order {
            Order::Open(sessions) => self.wanted = sessions,
            Order::Deliver => {
                self.delivery = Delivery { wanted: true, last_ns: now_ns(), ..Delivery::default() };
                match pool.open(0, None) {
                    Ok(key) => self.publisher = Some(key),
                    Err(error) => self.failure = Some(format!("the publisher cannot connect: {error}")),
                }
            }
            Order::Close => {
                for key in 0..self.sessions.len() {
                    pool.close(key);
                }
                self.sessions.clear();
                self.wanted = 0;
                self.open = 0;
                self.opening = 0;
                pool.forget();
            }
            Order::Start | Order::Measure | Order::Pause | Order::Stop => {}
        }
    }

    fn tick(&mut self, pool: &mut Pool) -> Option<u64> {
        self.open_more(pool);
        self.reopen(pool);
        self.deliver(pool);
        let next_ns = self.again.iter().map(|(at_ns, _)| *at_ns).min();
        next_ns.map(|at_ns| at_ns.saturating_sub(now_ns()))
    }

    fn progress(&self) -> Progress {
        Progress { open: self.open, failed: self.failed.clone(), operations: self.clocked.operations }
    }
}

impl Work for Idle {
    fn on(&mut self, pool: &mut Pool, key: Key, happening: Happening<'_>) {
        let is_publisher = Some(key) == self.publisher;
        match happening {
            Happening::Open if is_publisher => {
                self.delivery.running = true;
                self.delivery.last_ns = now_ns();
            }
            Happening::Ended { reason } if is_publisher => {
                self.failure = Some(format!("the publisher was closed: {reason}"));
            }
            Happening::Open if self.job.subscribe => {
                let topic = self.topic(key);
                pool.subscribe(key, &topic);
            }
            Happening::Open | Happening::Subscribed => self.opened(key),
            Happening::Event { payload } => self.receive(pool, key, payload),
            Happening::Ended { reason } => {
                if std::mem::take(&mut self.sessions[key].is_open) {
                    self.open -= 1;
                } else {
                    self.opening -= 1;
                }
                self.failed(key, reason);
            }
            Happening::Refused { reason } => self.failure = Some(reason.to_owned()),
            Happening::Registered
            | Happening::Published { .. }
            | Happening::Result { .. }
            | Happening::Invocation { .. } => {}
        }
    }
}
