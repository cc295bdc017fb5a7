//! What cores say to each other goes through here: a ring for each ordered pair, its overflow, and the doorbells.
//!
//! A ring has one producer and one consumer. Where it is full the sender keeps what follows in order and tries again
//! (R1 in ARCHITECTURE.md): nothing is dropped, nobody waits. The mesh counts bytes but bounds nothing: who has too much on
//! its way is not read any more (R8), and that is the shard's to decide by [`MeshEnd::bytes_queued`].

mod interest;
mod sleep;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use interest::Interest;
use sleep::Sleep;

/// Wakes the thread of a core.
pub trait Doorbell {
    /// Called from any thread. A ring while the core does not wait must end its next wait at once.
    fn ring(&self);
}

/// A doorbell that all cores may ring.
pub type SharedDoorbell = Arc<dyn Doorbell + Send + Sync>;

/// Breaks a promise of the mesh on purpose, so that the simulation can show that it would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The receiver takes neighbours in the wrong order.
    Reorder,
    /// The sender puts a message into the ring although older ones wait in the overflow.
    OvertakeOverflow,
}

/// What one end did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages given to [`MeshEnd::send`].
    pub sent: u64,
    /// Messages taken by [`MeshEnd::receive`].
    pub drained: u64,
    /// Messages that had to wait in an overflow.
    pub overflowed: u64,
    /// How often a push met a full ring.
    pub ring_full: u64,
    /// How often this end rang a doorbell.
    pub doorbells: u64,
}

/// Two cache lines, which processors fetch in pairs: keeps what one core writes away from what another does.
#[repr(align(128))]
struct Padded<T>(T);

/// What all cores know of one.
struct Core {
    sleep: Padded<Sleep>,
    doorbell: SharedDoorbell,
    interest: Interest,
}

impl Core {
    /// To be called after `Sleep::settle`. Whether it rang.
    fn wake(&self) -> bool {
        let claimed = self.sleep.0.claim();
        if claimed {
            self.doorbell.ring();
        }
        claimed
    }
}

/// What both ends of a ring know beside its messages.
struct Account {
    /// Bytes that ever left the ring: written by the receiver, read by the sender.
    drained_bytes: Padded<AtomicU64>,
    /// Whether the sender has more: written by the sender, read by the receiver.
    overflow_waits: Padded<AtomicBool>,
}

/// A message and what it counts.
struct Parcel<T> {
    message: T,
    bytes: u64,
}

/// The sender's end of a ring.
struct Outbound<T> {
    ring: Producer<Parcel<T>>,
    account: Arc<Account>,
}

/// The receiver's end of a ring.
struct Inbound<T> {
    ring: Consumer<Parcel<T>>,
    account: Arc<Account>,
}

/// One end's view of one peer.
struct Lane<T> {
    outbound: Outbound<T>,
    inbound: Inbound<T>,
    /// Behind the ring, oldest first. While it holds something nothing goes past it.
    overflow: VecDeque<Parcel<T>>,
    /// Bytes that were ever sent.
    sent_bytes: u64,
    /// Bytes that were ever received: what `inbound.drained_bytes` says.
    received_bytes: u64,
    /// Since doorbells were rung last: the peer got something.
    pushed: bool,
    /// Since doorbells were rung last: the peer got room.
    drained: bool,
    /// For [`Fault::Reorder`] alone.
    held_back: Option<Parcel<T>>,
}

/// One core's end of the mesh.
pub struct MeshEnd<T> {
    core: usize,
    cores: Arc<[Core]>,
    /// Of all cores together.
    connections: Arc<AtomicUsize>,
    /// By core; none to oneself.
    lanes: Vec<Option<Lane<T>>>,
    first_peer: usize,
    /// Some lane has `pushed` or `drained` set.
    doorbells_due: bool,
    fault: Fault,
    counters: Counters,
}

/// Connects cores, one for each doorbell, with rings of `ring_entries` messages (at least 1). One end for each core.
#[must_use]
pub fn connect<T: Send>(ring_entries: usize, doorbells: Vec<SharedDoorbell>) -> Vec<MeshEnd<T>> {
    let cores: Arc<[Core]> = doorbells
        .into_iter()
        .map(|doorbell| Core { sleep: Padded(Sleep::new()), doorbell, interest: Interest::new() })
        .collect();
    let count = cores.len();
    let connections = Arc::new(AtomicUsize::new(0));
    // outbound[from][to], and inbound[to][from]; the diagonal stays unused and small.
    let mut inbound: Vec<Vec<Inbound<T>>> = (0..count).map(|_| Vec::with_capacity(count)).collect();
    let mut outbound: Vec<Vec<Outbound<T>>> = (0..count).map(|_| Vec::with_capacity(count)).collect();
    for (from, outbound) in outbound.iter_mut().enumerate() {
        for (to, inbound) in inbound.iter_mut().enumerate() {
            let (sender, receiver) = ring(if from == to { 1 } else { ring_entries });
            outbound.push(sender);
            inbound.push(receiver);
        }
    }
    (0..count)
        .zip(outbound.into_iter().zip(inbound))
        .map(|(core, (outbound, inbound))| MeshEnd {
            core,
            cores: Arc::clone(&cores),
            connections: Arc::clone(&connections),
            lanes: (outbound.into_iter().zip(inbound).enumerate())
                .map(|(peer, (outbound, inbound))| (peer != core).then(|| Lane::new(outbound, inbound)))
                .collect(),
            first_peer: 0,
            doorbells_due: false,
            fault: Fault::None,
            counters: Counters::default(),
        })
        .collect()
}

impl<T> MeshEnd<T> {
    /// Which core this is the end of.
    #[must_use]
    pub const fn core(&self) -> usize {
        self.core
    }

    /// How many cores there are, this one included.
    #[must_use]
    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Sends a message that counts as `bytes`. Messages for one core arrive in this order. The core is not told before
    /// [`Self::ring_doorbells`].
    ///
    /// # Panics
    /// If `to` is this core or none: what a core says to itself is a call.
    pub fn send(&mut self, to: usize, message: T, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(to).and_then(Option::as_mut) else {
            panic!("core {} has no ring to core {to}", self.core);
        };
        let parcel = Parcel { message, bytes: bytes as u64 };
        lane.sent_bytes += parcel.bytes;
        lane.pushed = true;
        self.doorbells_due = true;
        self.counters.sent += 1;
        if self.fault != Fault::OvertakeOverflow {
            lane.retry_overflow();
            if !lane.overflow.is_empty() {
                self.counters.overflowed += 1;
                return lane.overflow.push_back(parcel);
            }
        }
        if let Err(PushError::Full(parcel)) = lane.outbound.ring.push(parcel) {
            self.counters.ring_full += 1;
            self.counters.overflowed += 1;
            lane.outbound.account.overflow_waits.0.store(true, Ordering::Relaxed);
            lane.overflow.push_back(parcel);
        }
    }

    /// Moves what waits in the overflows into the rings as far as there is room. For the start of a turn.
    pub fn retry_overflow(&mut self) {
        for lane in self.lanes.iter_mut().flatten() {
            if lane.retry_overflow() {
                lane.pushed = true;
                self.doorbells_due = true;
            }
        }
    }

    /// Begins to take what the peers sent, at most `messages_max` from each. Every round begins with the next peer.
    pub fn start_round(&mut self, messages_max: usize) -> Round {
        let peer = self.first_peer;
        self.first_peer = (peer + 1) % self.lanes.len();
        Round { peer, peers_left: self.lanes.len(), messages_left: messages_max, messages_max }
    }

    /// The next message of a round and the core that sent it; `None` ends the round.
    ///
    /// One message at a time, so that its handling can send.
    pub fn receive(&mut self, round: &mut Round) -> Option<(usize, T)> {
        while round.peers_left > 0 {
            if round.messages_left > 0
                && let Some(message) = self.pop(round.peer)
            {
                round.messages_left -= 1;
                return Some((round.peer, message));
            }
            round.peer = (round.peer + 1) % self.lanes.len();
            round.peers_left -= 1;
            round.messages_left = round.messages_max;
        }
        None
    }

    /// Wakes the cores that sleep and got something, or room in the ring that their overflow waits for. Once a turn.
    pub fn ring_doorbells(&mut self) {
        if !self.doorbells_due {
            return;
        }
        self.doorbells_due = false;
        Sleep::settle();
        for (lane, core) in self.lanes.iter_mut().zip(self.cores.iter()) {
            let Some(lane) = lane else { continue };
            let pushed = std::mem::take(&mut lane.pushed);
            // Read behind the fence: the peer sets it before it looks, for the last time, whether its ring is full.
            let drained = std::mem::take(&mut lane.drained);
            let gave = pushed || drained && lane.inbound.account.overflow_waits.0.load(Ordering::Relaxed);
            if gave && core.wake() {
                self.counters.doorbells += 1;
            }
        }
    }

    /// Announces sleep. If it returns `true`, the core may wait for its doorbell, and has to call [`Self::awake`] after every
    /// return from waiting. `is_idle` says whether all else that a [`CoreWaker`] is used for is empty (completions,
    /// commands); it is asked after the announcement.
    ///
    /// An overflow behind a full ring does not keep its core awake: the peer that makes room will ring.
    #[must_use]
    pub fn may_sleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        !self.doorbells_due
            && self.cores[self.core].sleep.0.announce(|| {
                let mut lanes = self.lanes.iter().flatten();
                lanes.all(Lane::is_idle) && is_idle()
            })
    }

    /// Takes the announcement back: after every return from waiting.
    pub fn awake(&self) {
        self.cores[self.core].sleep.0.awake();
    }

    /// Bytes on their way to a core: sent, and not taken out of the ring yet. 0 for oneself.
    #[must_use]
    pub fn bytes_queued(&self, to: usize) -> u64 {
        let lane = self.lanes.get(to).and_then(Option::as_ref);
        lane.map_or(0, |lane| {
            lane.sent_bytes.saturating_sub(lane.outbound.account.drained_bytes.0.load(Ordering::Relaxed))
        })
    }

    /// Takes a place for a connection, of `connections_max` of all cores together; whether there was one. How the kernel
    /// spreads connections over cores is its own affair, so no core has a share of its own.
    #[must_use]
    pub fn take_place(&self, connections_max: usize) -> bool {
        let more = |count| (count < connections_max).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives the place of a connection back.
    pub fn free_place(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells all cores that this one wants a topic, by a number that is the same on all of them, or no longer. Once for
    /// every topic that it has subscribers of; the era of its interest (`mesh/interest.rs`).
    pub fn announce_interest(&self, topic: u64, wanted: bool) -> u32 {
        self.cores[self.core].interest.set(topic, wanted)
    }

    /// Whether a core may want a topic, and the era. It may turn out not to; what it announced is never missed.
    #[must_use]
    pub fn interest(&self, core: usize, topic: u64) -> (bool, u32) {
        self.cores.get(core).map_or((false, 0), |core| core.interest.get(topic))
    }

    /// How much this core wants, for tests: nothing when nobody subscribes.
    #[doc(hidden)]
    #[must_use]
    pub fn interest_count(&self) -> usize {
        self.cores[self.core].interest.len()
    }

    /// What wakes a core from other threads.
    ///
    /// # Panics
    /// If there is no such core.
    #[must_use]
    pub fn waker(&self, core: usize) -> CoreWaker {
        assert!(core < self.cores.len(), "there is no core {core}");
        CoreWaker { cores: Arc::clone(&self.cores), core }
    }

    /// See [`Fault`].
    #[doc(hidden)]
    pub fn break_promise(&mut self, fault: Fault) {
        self.fault = fault;
    }

    fn pop(&mut self, peer: usize) -> Option<T> {
        let lane = self.lanes[peer].as_mut()?;
        let parcel = if self.fault == Fault::Reorder {
            lane.pop_in_wrong_order()?
        } else {
            lane.inbound.ring.pop().ok()?
        };
        lane.received_bytes += parcel.bytes;
        // One writer, and the reader wants no more than a number that is not older than a moment.
        lane.inbound.account.drained_bytes.0.store(lane.received_bytes, Ordering::Relaxed);
        lane.drained = true;
        self.doorbells_due = true;
        self.counters.drained += 1;
        Some(parcel.message)
    }
}

impl<T> fmt::Debug for MeshEnd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshEnd")
            .field("core", &self.core)
            .field("cores", &self.cores.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Both ends of a ring.
fn ring<T>(entries: usize) -> (Outbound<T>, Inbound<T>) {
    let (producer, consumer) = RingBuffer::new(entries.max(1));
    let account = Arc::new(Account {
        drained_bytes: Padded(AtomicU64::new(0)),
        overflow_waits: Padded(AtomicBool::new(false)),
    });
    (Outbound { ring: producer, account: Arc::clone(&account) }, Inbound { ring: consumer, account })
}

impl<T> Lane<T> {
    fn new(outbound: Outbound<T>, inbound: Inbound<T>) -> Self {
        Self {
            outbound,
            inbound,
            overflow: VecDeque::new(),
            sent_bytes: 0,
            received_bytes: 0,
            pushed: false,
            drained: false,
            held_back: None,
        }
    }

    /// Whether something moved.
    fn retry_overflow(&mut self) -> bool {
        let mut moved = false;
        while let Some(parcel) = self.overflow.pop_front() {
            if let Err(PushError::Full(parcel)) = self.outbound.ring.push(parcel) {
                self.overflow.push_front(parcel);
                return moved;
            }
            moved = true;
        }
        if moved {
            self.outbound.account.overflow_waits.0.store(false, Ordering::Relaxed);
            // A burst is over: its memory goes.
            self.overflow = VecDeque::new();
        }
        moved
    }

    fn is_idle(&self) -> bool {
        self.inbound.ring.is_empty()
            && self.held_back.is_none()
            && (self.overflow.is_empty() || self.outbound.ring.is_full())
    }

    fn pop_in_wrong_order(&mut self) -> Option<Parcel<T>> {
        if let Some(older) = self.held_back.take() {
            return Some(older);
        }
        let older = self.inbound.ring.pop().ok()?;
        let Ok(younger) = self.inbound.ring.pop() else {
            return Some(older);
        };
        self.held_back = Some(older);
        Some(younger)
    }
}

/// A round of taking messages: [`MeshEnd::start_round`].
#[derive(Debug)]
pub struct Round {
    peer: usize,
    peers_left: usize,
    messages_left: usize,
    messages_max: usize,
}

/// Wakes a core from a thread that is none: a database worker, a signal, the start and the end.
#[derive(Clone)]
pub struct CoreWaker {
    cores: Arc<[Core]>,
    core: usize,
}

impl CoreWaker {
    /// To be called after the work was put where the core looks before it sleeps: `is_idle` of [`MeshEnd::may_sleep`].
    /// Returns whether the doorbell had to ring.
    pub fn wake(&self) -> bool {
        Sleep::settle();
        self.cores[self.core].wake()
    }
}

impl fmt::Debug for CoreWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreWaker").field("core", &self.core).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Counts, as the simulation does.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Doorbell for Count {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ends(ring_entries: usize, cores: usize) -> (Vec<MeshEnd<u32>>, Vec<Arc<Count>>) {
        let counts: Vec<Arc<Count>> = (0..cores).map(|_| Arc::default()).collect();
        let doorbells = counts.iter().map(|count| Arc::clone(count) as SharedDoorbell).collect();
        (connect(ring_entries, doorbells), counts)
    }

    fn take(end: &mut MeshEnd<u32>, messages_max: usize) -> Vec<(usize, u32)> {
        let mut round = end.start_round(messages_max);
        std::iter::from_fn(|| end.receive(&mut round)).collect()
    }

    #[test]
    fn a_full_ring_overflows_in_order_and_bytes_are_counted() {
        let (mut ends, _) = ends(2, 2);
        for message in 0..5 {
            ends[0].send(1, message, 10);
        }
        assert_eq!((ends[0].bytes_queued(1), ends[1].bytes_queued(0), ends[0].bytes_queued(0)), (50, 0, 0));
        assert_eq!(take(&mut ends[1], 100), [(0, 0), (0, 1)]);
        assert_eq!(ends[0].bytes_queued(1), 30);
        ends[0].send(1, 5, 10);
        assert_eq!(take(&mut ends[1], 1), [(0, 2)]);
        ends[0].retry_overflow();
        assert_eq!(take(&mut ends[1], 100), [(0, 3), (0, 4)]);
        ends[0].retry_overflow();
        assert_eq!(take(&mut ends[1], 100), [(0, 5)]);
        assert_eq!(ends[0].bytes_queued(1), 0);
        let counters = ends[0].counters();
        assert_eq!((counters.sent, counters.overflowed, counters.ring_full), (6, 4, 1));
        assert_eq!(ends[1].counters().drained, 6);
    }

    #[test]
    fn the_first_peer_rotates_and_each_has_its_share() {
        let (mut ends, _) = ends(8, 3);
        for message in 0..6 {
            ends[0].send(2, message, 1);
            ends[1].send(2, 10 + message, 1);
        }
        assert_eq!(take(&mut ends[2], 2), [(0, 0), (0, 1), (1, 10), (1, 11)]);
        assert_eq!(take(&mut ends[2], 2), [(1, 12), (1, 13), (0, 2), (0, 3)]);
        assert_eq!(take(&mut ends[2], 0), []);
        assert_eq!(take(&mut ends[2], 9), [(0, 4), (0, 5), (1, 14), (1, 15)]);
    }

    #[test]
    fn only_sleepers_are_rung_and_once() {
        let (mut ends, rung) = ends(4, 2);
        ends[0].send(1, 1, 1);
        assert!(!ends[0].may_sleep(|| true), "it has not told its peer yet");
        ends[0].ring_doorbells();
        assert_eq!(rung[1].0.load(Ordering::Relaxed), 0, "the peer is awake");
        assert!(!ends[1].may_sleep(|| true), "a message waits");
        take(&mut ends[1], 9);
        ends[1].ring_doorbells();
        assert!(!ends[1].may_sleep(|| false), "something else waits");
        assert!(ends[1].may_sleep(|| true));
        for message in 0..3 {
            ends[0].send(1, message, 1);
            ends[0].ring_doorbells();
        }
        assert!(!ends[0].waker(1).wake(), "it is being woken already");
        assert_eq!((rung[1].0.load(Ordering::Relaxed), ends[0].counters().doorbells), (1, 1));
        ends[1].awake();
        take(&mut ends[1], 9);
        ends[1].ring_doorbells();
        assert!(ends[1].may_sleep(|| true));
        assert!(ends[0].waker(1).wake() && rung[1].0.load(Ordering::Relaxed) == 2);
        assert_eq!(rung[0].0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn whoever_makes_room_rings_the_sender_whose_overflow_waits() {
        let (mut ends, rung) = ends(1, 2);
        ends[0].send(1, 1, 1);
        ends[0].send(1, 2, 1);
        ends[0].ring_doorbells();
        assert!(ends[0].may_sleep(|| true), "there is no room, so nothing to do");
        take(&mut ends[1], 9);
        ends[1].ring_doorbells();
        assert_eq!(rung[0].0.load(Ordering::Relaxed), 1);
        assert!(!ends[0].may_sleep(|| true), "there is room now");
        ends[0].retry_overflow();
        ends[0].ring_doorbells();
        assert!(ends[0].may_sleep(|| true));
        assert_eq!(take(&mut ends[1], 9), [(0, 2)]);
        ends[1].ring_doorbells();
        assert_eq!(rung[0].0.load(Ordering::Relaxed), 1, "nothing waits any more");
    }

    #[test]
    #[should_panic(expected = "core 1 has no ring to core 1")]
    fn nobody_sends_to_itself() {
        ends(1, 2).0[1].send(1, 0, 0);
    }

    #[test]
    fn the_faults_break_the_order() {
        for (fault, expected) in [
            (Fault::None, [0, 1, 2, 3]),
            (Fault::Reorder, [1, 0, 3, 2]),
            (Fault::OvertakeOverflow, [0, 1, 3, 2]),
        ] {
            let (mut ends, _) = ends(2, 2);
            for end in &mut ends {
                end.break_promise(fault);
            }
            for message in 0..3 {
                ends[0].send(1, message, 1);
            }
            let mut received = take(&mut ends[1], 9);
            ends[0].send(1, 3, 1);
            for _ in 0..2 {
                received.extend(take(&mut ends[1], 9));
                ends[0].retry_overflow();
            }
            assert_eq!(received.iter().map(|(_, message)| *message).collect::<Vec<_>>(), expected);
            assert_eq!(ends[0].bytes_queued(1), 0);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Send(usize, usize, usize),
        Retry(usize),
        Take(usize, usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3usize, 1..3usize, 0..1000usize).prop_map(|(from, distance, bytes)| {
                Step::Send(from, (from + distance) % 3, bytes)
            }),
            1 => (0..3usize).prop_map(Step::Retry),
            1 => (0..3usize, 0..6usize).prop_map(|(core, messages_max)| Step::Take(core, messages_max)),
        ]
    }

    proptest! {
        #[test]
        fn every_pair_is_a_queue(ring_entries in 1..5usize, steps in prop::collection::vec(any_step(), 1..200)) {
            let (mut ends, _) = ends(ring_entries, 3);
            let mut queued: [[VecDeque<(u32, u64)>; 3]; 3] = Default::default();
            let take_all = |ends: &mut Vec<MeshEnd<u32>>,
                                queued: &mut [[VecDeque<(u32, u64)>; 3]; 3],
                                core: usize,
                                messages_max: usize| {
                for (from, message) in take(&mut ends[core], messages_max) {
                    let expected = queued[from][core].pop_front().map(|(message, _)| message);
                    prop_assert_eq!(Some(message), expected);
                }
                Ok(())
            };
            for (number, step) in (0u32..).zip(steps) {
                match step {
                    Step::Send(from, to, bytes) => {
                        ends[from].send(to, number, bytes);
                        queued[from][to].push_back((number, bytes as u64));
                    }
                    Step::Retry(core) => ends[core].retry_overflow(),
                    Step::Take(core, messages_max) => take_all(&mut ends, &mut queued, core, messages_max)?,
                }
                for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                    let bytes: u64 = queued[from][to].iter().map(|(_, bytes)| bytes).sum();
                    prop_assert_eq!(ends[from].bytes_queued(to), bytes);
                }
            }
            while queued.iter().flatten().any(|queue| !queue.is_empty()) {
                for core in 0..3 {
                    ends[core].retry_overflow();
                    take_all(&mut ends, &mut queued, core, 100)?;
                }
            }
            for end in &mut ends {
                end.retry_overflow();
                end.ring_doorbells();
                prop_assert!(end.may_sleep(|| true));
            }
        }
    }

    /// A doorbell of real threads. Ten seconds without a ring while everybody waits is a lost wake-up.
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        fn wait(&self) {
            let rung = self.rung.lock().unwrap();
            let (mut rung, timeout) =
                self.changed.wait_timeout_while(rung, Duration::from_secs(10), |rung| !*rung).unwrap();
            assert!(!timeout.timed_out(), "a wake-up was lost");
            *rung = false;
        }
    }

    impl Doorbell for Bell {
        fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.changed.notify_one();
        }
    }

    #[test]
    fn threads_lose_no_message_and_no_wake_up() {
        const CORES: usize = 3;
        const MESSAGES: u32 = 3_000;
        let bells: Vec<Arc<Bell>> = (0..CORES).map(|_| Arc::default()).collect();
        let doorbells = bells.iter().map(|bell| Arc::clone(bell) as SharedDoorbell).collect();
        let commands: Arc<Vec<AtomicUsize>> = Arc::new((0..CORES).map(|_| AtomicUsize::new(0)).collect());
        let ends = connect::<u32>(8, doorbells);
        let wakers: Vec<CoreWaker> = (0..CORES).map(|core| ends[0].waker(core)).collect();
        std::thread::scope(|scope| {
            for mut end in ends {
                let (bell, commands) = (Arc::clone(&bells[end.core()]), Arc::clone(&commands));
                scope.spawn(move || {
                    let me = end.core();
                    let (mut sent, mut next, mut commands_seen) = (0, [0; CORES], 0);
                    let peers: Vec<usize> = (0..CORES).filter(|&peer| peer != me).collect();
                    // Everything received, everything handed over, and the outside thread heard.
                    while peers.iter().any(|&peer| next[peer] < MESSAGES || end.bytes_queued(peer) > 0)
                        || commands_seen < 100
                    {
                        end.retry_overflow();
                        let mut round = end.start_round(5);
                        while let Some((from, message)) = end.receive(&mut round) {
                            assert_eq!(message, next[from]);
                            next[from] += 1;
                        }
                        commands_seen = commands[me].load(Ordering::Relaxed);
                        let burst_end = MESSAGES.min(sent + 1 + sent % 13);
                        for message in sent..burst_end {
                            peers.iter().for_each(|&peer| end.send(peer, message, 1));
                        }
                        sent = burst_end;
                        end.ring_doorbells();
                        let heard_all = || commands[me].load(Ordering::Relaxed) == commands_seen;
                        if sent == MESSAGES && end.may_sleep(heard_all) {
                            // All it waits for is that peers empty their rings: nobody rings for that.
                            if peers.iter().all(|&peer| next[peer] == MESSAGES) && commands_seen >= 100 {
                                end.awake();
                                std::thread::yield_now();
                                continue;
                            }
                            bell.wait();
                            end.awake();
                        }
                    }
                });
            }
            for _ in 0..100 {
                for core in 0..CORES {
                    commands[core].fetch_add(1, Ordering::Relaxed);
                    wakers[core].wake();
                }
                std::thread::yield_now();
            }
        });
    }
}
