//! What the node says to a shard, and what a shard lets the node know. Looked at once a turn.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::core::MemoryLevel;
use crate::metrics::{Counters, RealmCounters};
use crate::router::peer::RealmIndex;
use crate::token::Keys;

/// What a shard shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Go on.
    Run,
    /// Accept nobody; tell those who have no call under way, and the others when they have none.
    Stop,
    /// Tell the others too, and end when all are gone.
    StopWaiting,
    /// End at once.
    StopNow,
}

/// What a shard last said of itself.
#[derive(Debug, Default)]
struct Snapshot {
    /// The number of the request that it answers.
    number: u32,
    counters: Counters,
    /// The flight recorder, a line a message, when it was asked for.
    recorder: String,
    /// What was counted of each realm, in the order of their numbers, when that was.
    realms: Vec<RealmCounters>,
}

/// One for each shard, shared with the node. Whoever changes it wakes the shard.
#[derive(Debug, Default)]
pub struct Control {
    order: AtomicU8,
    /// The shard stops, and nobody is left.
    is_vacated: AtomicBool,
    memory: AtomicU8,
    snapshot_wanted: AtomicU32,
    /// The last of the snapshots that shall have the flight recorder.
    recorder_wanted: AtomicU32,
    snapshot: Mutex<Snapshot>,
    /// See [`Counters::noteworthy`].
    noteworthy: AtomicU64,
    /// What tokens of realms are signed with since the start, where that has changed; and how often it has.
    signing_keys: Mutex<Vec<(RealmIndex, Arc<Keys>)>>,
    signing_keys_version: AtomicU32,
    /// When the last turn began, in monotonic microseconds: when the core last came back from waiting. 0 before the first.
    turn_began_us: AtomicU64,
    /// Between turns the core waits, or is about to.
    is_in_turn: AtomicBool,
}

/// Where a core was when it was looked at; times in monotonic microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a turn that began then.
    InTurn(u64),
    /// Waiting, after a turn that began then; 0 before the first.
    Waiting(u64),
}

impl Control {
    /// Tells the shard what to do.
    pub fn give_order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::SeqCst);
    }

    /// Tells the shard how much memory there is.
    pub fn set_memory(&self, level: MemoryLevel) {
        self.memory.store(level as u8, Ordering::SeqCst);
    }

    /// Tells the shard what tokens of a realm are signed with from now on.
    pub fn set_signing_keys(&self, realm: RealmIndex, keys: Arc<Keys>) {
        if let Ok(mut all) = self.signing_keys.lock() {
            all.retain(|(other, _)| *other != realm);
            all.push((realm, keys));
        }
        self.signing_keys_version.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn signing_keys_version(&self) -> u32 {
        self.signing_keys_version.load(Ordering::SeqCst)
    }

    /// `None` while the node changes them: then the next turn is to try again.
    pub(super) fn signing_keys(&self) -> Option<Vec<(RealmIndex, Arc<Keys>)>> {
        self.signing_keys.try_lock().ok().map(|all| all.clone())
    }

    /// Asks for the counters; returns the number of the answer. One thread asks, the node's.
    pub fn want_counters(&self) -> u32 {
        self.snapshot_wanted.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Asks for the counters and the flight recorder; returns the number of the answer.
    pub fn want_recorder(&self) -> u32 {
        let number = self.snapshot_wanted.load(Ordering::SeqCst) + 1;
        self.recorder_wanted.store(number, Ordering::SeqCst);
        self.want_counters()
    }

    /// Whether this answer has come, or a later one.
    #[must_use]
    pub fn has_answered(&self, number: u32) -> bool {
        self.snapshot.lock().is_ok_and(|snapshot| snapshot.number >= number)
    }

    /// The counters of the last answer.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.snapshot.lock().map(|snapshot| snapshot.counters.clone()).unwrap_or_default()
    }

    /// The flight recorder, once for each time that it was asked for.
    #[must_use]
    pub fn take_recorder(&self) -> String {
        self.snapshot.lock().map(|mut snapshot| std::mem::take(&mut snapshot.recorder)).unwrap_or_default()
    }

    /// What was counted of each realm, once for each time that the flight recorder was asked for.
    #[must_use]
    pub fn take_realms(&self) -> Vec<RealmCounters> {
        self.snapshot.lock().map(|mut snapshot| std::mem::take(&mut snapshot.realms)).unwrap_or_default()
    }

    /// Grows when there is something to tell people; see [`Counters::noteworthy`].
    #[must_use]
    pub fn noteworthy(&self) -> u64 {
        self.noteworthy.load(Ordering::Relaxed)
    }

    /// Where the core is.
    #[must_use]
    pub fn whereabouts(&self) -> Whereabouts {
        // A core that goes on between the two is taken for one that just began, never for one that is stuck.
        let is_in_turn = self.is_in_turn.load(Ordering::Acquire);
        let began_us = self.turn_began_us.load(Ordering::Relaxed);
        if is_in_turn { Whereabouts::InTurn(began_us) } else { Whereabouts::Waiting(began_us) }
    }

    /// Whether the shard stops and has no connection left. Others may still have calls that pass through it.
    #[must_use]
    pub fn is_vacated(&self) -> bool {
        self.is_vacated.load(Ordering::Relaxed)
    }

    pub(super) fn set_vacated(&self) {
        self.is_vacated.store(true, Ordering::Relaxed);
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            0 => Order::Run,
            1 => Order::Stop,
            2 => Order::StopWaiting,
            _ => Order::StopNow,
        }
    }

    pub(super) fn memory(&self) -> MemoryLevel {
        match self.memory.load(Ordering::Relaxed) {
            0 => MemoryLevel::Normal,
            1 => MemoryLevel::High,
            _ => MemoryLevel::Critical,
        }
    }

    pub(super) fn snapshot_wanted(&self) -> u32 {
        self.snapshot_wanted.load(Ordering::Relaxed)
    }

    /// Whether there is nothing to obey that the shard has not obeyed: asked after it has announced its sleep.
    pub(super) fn is_quiet(&self, obeyed: Order, snapshot: u32, memory: MemoryLevel) -> bool {
        self.order.load(Ordering::SeqCst) == obeyed as u8
            && self.snapshot_wanted.load(Ordering::SeqCst) == snapshot
            && self.memory() == memory
    }

    /// Whether somebody asked for the flight recorder after this answer.
    pub(super) fn recorder_wanted_after(&self, number: u32) -> bool {
        self.recorder_wanted.load(Ordering::SeqCst) > number
    }

    /// Answers with what `make` gives: counters, and with the flight recorder, if it was asked for, those of realms. Whether it did: while the
    /// node reads an earlier answer a turn does not wait for it, and the next one is to try again.
    pub(super) fn publish(
        &self,
        number: u32,
        make: impl FnOnce() -> (Counters, Option<(String, Vec<RealmCounters>)>),
    ) -> bool {
        let Ok(mut snapshot) = self.snapshot.try_lock() else { return false };
        let (counters, recorder) = make();
        snapshot.number = number;
        snapshot.counters = counters;
        if let Some((recorder, realms)) = recorder {
            snapshot.recorder = recorder;
            snapshot.realms = realms;
        }
        true
    }

    pub(super) fn note(&self, noteworthy: u64) {
        self.noteworthy.store(noteworthy, Ordering::Relaxed);
    }

    pub(super) fn turn_began(&self, now_us: u64) {
        self.turn_began_us.store(now_us.max(1), Ordering::Relaxed);
        self.is_in_turn.store(true, Ordering::Release);
    }

    pub(super) fn turn_ended(&self) {
        self.is_in_turn.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_does_not_wait_for_a_reader_of_the_last_answer() {
        let control = Control::default();
        let number = control.want_recorder();
        let answer =
            || (Counters { turns: 7, ..Counters::default() }, Some(("a line".to_owned(), Vec::new())));
        let reader = control.snapshot.lock().unwrap();
        assert!(!control.publish(number, answer));
        drop(reader);
        assert!(!control.has_answered(number));
        assert!(control.publish(number, answer));
        assert!(control.has_answered(number));
        assert_eq!((control.counters().turns, control.take_recorder()), (7, "a line".to_owned()));
    }
}
