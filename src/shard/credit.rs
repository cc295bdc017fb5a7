//! Credit: what a session sends is charged to it until it has left this process, or was refused by the kernel (R8).
//!
//! A session over its share is not read. Credit never waits for a client, so no cycle of sessions, cores or callees
//! can hold it: a call is given back where it leaves the ring, a publication once every frame of it was offered to
//! the kernel. The one exception has a bound of its own: a publication that met a reader that is slow, and yet
//! reads, is held for at most `publisher_hold_ms`.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::connection::{Paused, Phase};
use super::core::Core;
use super::world::World;
use crate::router::database::batch_of_key;
use crate::router::effects::CreditTime;
use crate::router::peer::{Charge, CoreId, NEWS_KEY, PeerMessage, SessionKey, SessionRef};

/// A charge that goes back once the flush has come so far.
#[derive(Debug)]
struct Due {
    /// How many connections of the bulk list must have been offered their frames.
    bulk_position: u64,
    session: SessionRef,
    charge: Charge,
}

/// A charge of a publication that met a slow reader.
#[derive(Debug)]
struct Held {
    deadline_us: u64,
    session: SessionRef,
    charge: Charge,
}

/// What this core owes the sessions of one other core.
#[derive(Debug)]
struct Debts {
    /// Bytes by session; ends when they are sent.
    by_session: HashMap<SessionKey, u32, FixedState>,
    total: usize,
    /// A paused session waits for some of it.
    urgent: bool,
}

/// All charges that are to go back from this core.
#[derive(Debug)]
pub(super) struct Credits {
    due: VecDeque<Due>,
    held: VecDeque<Held>,
    debts: Vec<Debts>,
    /// How much may be owed to the sessions of one core before it is sent without being asked for.
    debt_max: usize,
}

impl Credits {
    pub(super) fn new(cores: u16, share: usize) -> Self {
        let debts =
            || Debts { by_session: HashMap::with_hasher(FixedState::with_seed(0)), total: 0, urgent: false };
        Self {
            due: VecDeque::new(),
            held: VecDeque::new(),
            debts: (0..cores).map(|_| debts()).collect(),
            // All other cores together stay below a quarter of a share, so that none is paused by what rests here.
            debt_max: share / 4 / usize::from(cores.max(2) - 1),
        }
    }

    /// Whether nothing waits for a flush or a deadline. Debts below their bound may rest for ever.
    pub(super) fn is_settled(&self) -> bool {
        self.due.is_empty() && self.held.is_empty()
    }

    /// What rests here below the bound of a debt, by session.
    pub(super) fn resting(&self) -> Vec<(SessionRef, u32)> {
        let by_core = (0..).map(CoreId).zip(&self.debts);
        by_core
            .flat_map(|(core, debts)| {
                debts.by_session.iter().map(move |(key, bytes)| (SessionRef { core, key: *key }, *bytes))
            })
            .collect()
    }

    /// When the first and the last publication go on that are held.
    pub(super) fn holds_until_us(&self) -> Option<(u64, u64)> {
        let deadlines = || self.held.iter().map(|held| held.deadline_us);
        Some((deadlines().min()?, deadlines().max()?))
    }

    /// How many publications are held although their time is over.
    pub(super) fn overdue_holds(&self, now_us: u64) -> usize {
        self.held.iter().filter(|held| held.deadline_us <= now_us).count()
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.held.front().map(|held| held.deadline_us)
    }
}

impl<W: World> Core<W> {
    /// Performs [`crate::router::effects::Effects::credit`].
    pub(super) fn return_credit(&mut self, session: SessionRef, charge: Charge, when: CreditTime) {
        if when == CreditTime::Now {
            self.give_back(session, charge);
            return;
        }
        if std::mem::take(&mut self.met_slow_reader) {
            let deadline_us = self.now.monotonic_us + self.limits.publisher_hold.as_micros() as u64;
            self.credits.held.push_back(Held { deadline_us, session, charge });
            self.hold(session, true);
            return;
        }
        let bulk_position = self.bulk_pushed;
        if let Some(last) = self.credits.due.back_mut()
            && last.bulk_position == bulk_position
            && last.session == session
        {
            last.charge.bytes = last.charge.bytes.saturating_add(charge.bytes);
            last.charge.paused |= charge.paused;
            return;
        }
        self.credits.due.push_back(Due { bulk_position, session, charge });
    }

    /// Stops or resumes reading the publisher, wherever it is.
    fn hold(&mut self, session: SessionRef, begin: bool) {
        if session.core == self.id {
            self.handle_hold(session.key, begin);
        } else {
            self.send_to_peer(session.core, PeerMessage::Hold { session: session.key, begin });
        }
    }

    /// A publisher of this core is held, or no longer.
    pub(super) fn handle_hold(&mut self, session: SessionKey, begin: bool) {
        let Some(connection) = self.connections.get_mut(session) else { return };
        if begin {
            connection.holds = connection.holds.saturating_add(1);
            let says_no_more = matches!(connection.phase, Phase::Closing | Phase::Lingering);
            // What a connection that ends still sends is thrown away, and not put off.
            if !says_no_more && connection.paused.insert(Paused::HOLD) {
                self.counters.paused_hold += 1;
            }
        } else {
            connection.holds = connection.holds.saturating_sub(1);
            if connection.holds == 0 {
                self.resume(session, Paused::HOLD);
            }
        }
    }

    /// Gives back what the flush has offered, and what was held long enough.
    pub(super) fn settle_credit(&mut self) {
        // One send takes so many pieces, and the rest is for the next turn: a database is told when that is done. What is behind
        // waits too, so that there is an end to it.
        let is_cut = !self.dirty.is_empty();
        while let Some(due) = self.credits.due.front()
            && due.bulk_position <= self.bulk_flushed
            && !(is_cut && batch_of_key(due.session.key).is_some())
        {
            if let Some(due) = self.credits.due.pop_front() {
                self.give_back(due.session, due.charge);
            }
        }
        while let Some(held) = self.credits.held.front()
            && (held.deadline_us <= self.now.monotonic_us || self.over_half == 0)
        {
            if let Some(held) = self.credits.held.pop_front() {
                self.give_back(held.session, Charge { paused: true, ..held.charge });
                self.hold(held.session, false);
            }
        }
        self.send_credit();
    }

    fn give_back(&mut self, session: SessionRef, charge: Charge) {
        if session.core == self.id {
            self.handle_credit(session.key, charge.bytes);
            return;
        }
        // Calls of the router itself are charged to nobody.
        if charge.bytes == 0 && !charge.paused {
            return;
        }
        let debts = &mut self.credits.debts[session.core.0 as usize];
        *debts.by_session.entry(session.key).or_insert(0) += charge.bytes;
        debts.total += charge.bytes as usize;
        debts.urgent |= charge.paused;
    }

    /// Credit for a session of this core. That of a session that is gone is dropped.
    pub(super) fn handle_credit(&mut self, session: SessionKey, bytes: u32) {
        let share = self.limits.credit_bytes_per_session;
        let Some(connection) = self.connections.get_mut(session) else {
            return self.credit_nobody(session, bytes);
        };
        connection.owed = connection.owed.saturating_sub(bytes);
        if connection.owed as usize <= share / 2 {
            self.resume(session, Paused::CREDIT);
        }
    }

    /// Who has no connection may be this core itself, or a batch of a database.
    #[cold]
    fn credit_nobody(&mut self, session: SessionKey, bytes: u32) {
        if session == NEWS_KEY {
            self.news_owed = self.news_owed.saturating_sub(bytes);
        } else if let Some((database, batch)) = batch_of_key(session) {
            self.queries.credit(database, batch, bytes);
        }
    }

    /// Sends what is owed to the sessions of each other core, if somebody waits for it or it has become much.
    fn send_credit(&mut self) {
        for core in 0..self.cores {
            let debts = &mut self.credits.debts[core as usize];
            if !debts.urgent && debts.total <= self.credits.debt_max {
                continue;
            }
            debts.urgent = false;
            debts.total = 0;
            let mut owed =
                std::mem::replace(&mut debts.by_session, HashMap::with_hasher(FixedState::with_seed(0)));
            for (session, bytes) in owed.drain() {
                self.send_to_peer(CoreId(core), PeerMessage::Credit { session, bytes });
            }
            // The table is kept for its memory.
            self.credits.debts[core as usize].by_session = owed;
        }
    }

    /// Tells all cores when the outboxes of this one come over their bound, or back under.
    pub(super) fn update_pressure(&mut self) {
        let bound = self.limits.outbox_bytes_per_core_max;
        let was = self.pressed[self.id.0 as usize];
        let is = if was { self.outbox_bytes > bound / 4 * 3 } else { self.outbox_bytes > bound };
        if was == is {
            return;
        }
        self.pressed[self.id.0 as usize] = is;
        if is {
            let tick = self.lived.tick();
            let patience = self.lived.ticks(self.limits.slow_consumer_timeout);
            self.pressed_until = tick.saturating_add(patience);
            self.lived.check_by(self.pressed_until);
        }
        for core in (0..self.cores).map(CoreId) {
            if core != self.id {
                self.send_to_peer(core, PeerMessage::Pressure { on: is });
            }
        }
        if !is {
            self.resume_publishers();
        }
    }

    /// Publishers that waited for memory are read again, if nothing else is short.
    pub(super) fn resume_publishers(&mut self) {
        if self.publishers_wait() {
            return;
        }
        for key in std::mem::take(&mut self.memory_waiting) {
            self.resume(key, Paused::MEMORY);
        }
    }

    pub(super) fn send_to_peer(&mut self, to: CoreId, message: PeerMessage) {
        self.counters.peer_messages += 1;
        let bytes = message.bytes();
        self.mesh.send(to.0 as usize, message, bytes);
    }
}
