//! One core: sockets, rings and clock around its router.
//!
//! A shard's life is one loop and one pass of it is a *turn*: rings, ready sockets, deadlines, doorbells, flush. One
//! input, then its effects, before the next input; nothing in a turn awaits or blocks.

mod accept;
mod addresses;
pub mod checks;
pub mod clock;
mod connection;
pub mod control;
mod core;
mod credit;
pub mod entrance;
mod input;
pub mod kernel;
pub mod listener;
mod lived;
pub mod mesh;
pub mod outbox;
mod output;
pub mod park;
pub mod poller;
mod probes;
pub mod queries;
pub mod recorder;
#[cfg(test)]
mod tests;
mod timers;
pub mod world;

use std::sync::Arc;

pub use self::core::MemoryLevel;
#[doc(hidden)]
pub use self::core::Tuning;

use self::checks::{Checked, CheckersEnd, Checks};
use self::connection::{Paused, Phase};
use self::control::{Control, Order};
use self::core::{Core, CoreParts};
use self::mesh::MeshEnd;
use self::queries::{Databases, Queries};
use self::world::{Ready, Token, World};
use crate::config::Limits;
use crate::link::{Inflater, LinkConfig};
use crate::metrics::Counters;
use crate::router::peer::{CoreId, NEWS_KEY, PeerMessage, SessionKey, SessionRef};
use crate::router::{Router, TableSizes};
use crate::wamp::CloseReason;

/// How many messages of each other core one turn takes.
const PEER_MESSAGES_A_TURN: usize = 4096;

/// How many events of other cores' publications one turn queues; the publication that passes it is delivered whole.
const PEER_DELIVERIES_A_TURN: usize = 65_536;

/// How many connections one turn ends for the same cause: the stop, a timer, a bound of the core. The others are ended in
/// the next turns.
const CLOSES_A_TURN: usize = 512;

/// Results of databases that a turn handles at most: those may come as fast as ten thousands a second, and some are long.
const DATABASE_EVENTS_A_TURN: usize = 256;

/// How many connections one turn of a shard that stops at once closes.
const CUT_OFF_A_TURN: usize = 4096;

/// While another core is far behind, this one looks again after this time, in microseconds.
const MESH_FULL_RETRY_US: u64 = 1000;

/// An echo link takes messages as long as the conformance suites send them, in bytes.
const ECHO_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go on.
    Continue,
    /// The shard was told to stop, and has.
    Stopped,
}

/// What a shard is made of.
pub struct ShardParts<W: World> {
    /// Which of the cores it is.
    pub core: CoreId,
    /// The bounds.
    pub limits: Arc<Limits>,
    /// What the links of each listener have in common, by the number of the listener.
    pub links: Vec<LinkConfig>,
    /// The router of this core.
    pub router: Router,
    /// Sockets, clock and waiting.
    pub world: W,
    /// This core's end of the rings.
    pub mesh: MeshEnd<PeerMessage>,
    /// Orders from the node, and what it may know.
    pub control: Arc<Control>,
}

/// One core.
pub struct Shard<W: World> {
    router: Router,
    core: Core<W>,
    control: Arc<Control>,
    /// The one buffer that everything is received into.
    scratch: Vec<u8>,
    /// What compressed messages are inflated in.
    inflater: Inflater,
    ready: Vec<Ready>,
    /// Connections that are still to be told that the router stops.
    goodbyes: Vec<SessionKey>,
    /// Those of them whose calls are under way; every turn looks at them again.
    goodbyes_later: Vec<SessionKey>,
    obeyed: Order,
    snapshot: u32,
    signing_keys_version: u32,
}

impl<W: World> Shard<W> {
    /// A shard without connections.
    #[must_use]
    pub fn new(parts: ShardParts<W>) -> Self {
        let ShardParts { core, limits, links, router, world, mesh, control } = parts;
        // Twice what one recv takes: what a pause left is in front of it.
        let scratch = vec![0; limits.turn_bytes_per_session.max(4096) * 2];
        let cores = mesh.core_count() as u16;
        let hash_seed = router.hash_seed();
        Self {
            router,
            core: Core::new(CoreParts { id: core, cores, limits, links, world, mesh, hash_seed }),
            control,
            scratch,
            inflater: Inflater::new(),
            ready: Vec::new(),
            goodbyes: Vec::new(),
            goodbyes_later: Vec::new(),
            obeyed: Order::Run,
            snapshot: 0,
            signing_keys_version: 0,
        }
    }

    /// One pass of the loop. With `block` it waits for something to do when there is nothing.
    pub fn turn(&mut self, block: bool) -> Turn {
        let sleeps = block && self.fall_asleep();
        self.pass(sleeps)
    }

    /// The rest of a turn. `sleeps`: [`Self::fall_asleep`] has just said so. The two halves are apart so that the simulation,
    /// which has one thread for all shards, can let others run in between.
    #[doc(hidden)]
    pub fn pass(&mut self, sleeps: bool) -> Turn {
        self.wait(sleeps);
        self.core.counters.turns += 1;
        self.core.deliveries = 0;
        self.obey();
        self.core.mesh.retry_overflow();
        self.handle_peers();
        self.handle_checked();
        self.handle_databases();
        self.tell_news();
        self.handle_ready();
        self.handle_still_readable();
        self.handle_deadlines();
        for key in std::mem::take(&mut self.core.held_back) {
            self.router.pass_turn_on(key, &mut self.core);
        }
        self.say_goodbyes();
        // The other cores begin while this one is still writing; unless there is much to write, when waking them
        // first would only make two cores contend.
        if self.core.bulk.is_empty() {
            self.core.mesh.ring_doorbells();
        }
        self.core.flush();
        self.router.handle_flushed(&mut self.core);
        self.close_broken();
        self.core.settle_credit();
        self.watch_bounds();
        self.core.mesh.ring_doorbells();
        self.report();
        self.control.turn_ended();
        if !self.core.stopping || self.core.connections.len() > 0 {
            return Turn::Continue;
        }
        self.control.set_vacated();
        // Calls of other cores may still pass through this one.
        if self.obeyed == Order::Stop { Turn::Continue } else { Turn::Stopped }
    }

    /// Announces sleep if there is nothing to do. Whether it did: from then on the other cores ring.
    #[doc(hidden)]
    pub fn fall_asleep(&mut self) -> bool {
        let sleep = self.is_idle() && {
            let control = &self.control;
            let snapshot = self.snapshot;
            let (obeyed, memory) = (self.obeyed, self.core.memory);
            let (checks, queries) = (&self.core.checks, &self.core.queries);
            let version = self.signing_keys_version;
            let is_quiet = || {
                control.is_quiet(obeyed, snapshot, memory)
                    && checks.is_empty()
                    && queries.is_empty()
                    && control.signing_keys_version() == version
            };
            self.core.mesh.may_sleep(is_quiet)
        };
        if sleep {
            let deadline_us = self.next_deadline_us();
            self.core.world.set_deadline(deadline_us);
            let wait_us = deadline_us.map(|at| at.saturating_sub(self.core.now.monotonic_us));
            self.core.lived.plan_wait(wait_us);
            self.core.counters.sleeps += 1;
        }
        sleep
    }

    /// Waits if the shard sleeps, and finds out what became ready.
    fn wait(&mut self, sleep: bool) {
        self.core.world.wait(sleep, &mut self.ready);
        if sleep {
            self.wake_up();
        }
        self.core.now = self.core.world.now();
        self.core.lived.advance(self.core.now.monotonic_us);
        self.control.turn_began(self.core.now.monotonic_us);
    }

    /// Takes the announcement of sleep back: after every return from waiting.
    fn wake_up(&self) {
        self.core.mesh.awake();
    }

    /// Whether nothing is left that no event will announce.
    fn is_idle(&self) -> bool {
        let core = &self.core;
        if self.obeyed == Order::StopNow && core.connections.len() > 0 {
            return false;
        }
        let reading_stopped = core.readable.is_empty() || core.mesh_is_full();
        core.queries.is_empty()
            && core.dirty.is_empty()
            && core.bulk.is_empty()
            && reading_stopped
            && core.broken.is_empty()
            && core.doomed.is_empty()
            && self.goodbyes.is_empty()
            && !self.may_tell_more()
            && !core.closes_are_left
            && !core.lived.is_due()
    }

    fn next_deadline_us(&self) -> Option<u64> {
        let core = &self.core;
        // Asked of what was left undone, not of the rings: they may have got room since.
        let was_full = !core.readable.is_empty() || core.mesh_is_full();
        let retry = was_full.then(|| core.now.monotonic_us + MESH_FULL_RETRY_US);
        [
            self.router.next_deadline(),
            core.credits.next_deadline_us(),
            core.lived.next_deadline_us(),
            core.accept_paused_until_us,
            retry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Orders of the node.
    fn obey(&mut self) {
        let order = self.control.order();
        if order > self.obeyed {
            if self.obeyed == Order::Run {
                self.core.stopping = true;
                self.core.close_listeners();
                self.goodbyes = self.core.connections.keys().collect();
            }
            self.obeyed = order;
            if order == Order::StopNow {
                self.goodbyes.clear();
                self.goodbyes_later.clear();
            }
        }
        if self.obeyed == Order::StopNow {
            // In pieces, so that the node sees that this core goes on.
            let some: Vec<_> = self.core.connections.keys().take(CUT_OFF_A_TURN).collect();
            for key in some {
                self.core.free(key);
            }
        }
        let version = self.control.signing_keys_version();
        if version != self.signing_keys_version
            && let Some(all) = self.control.signing_keys()
        {
            self.signing_keys_version = version;
            for (realm, keys) in &all {
                self.router.set_signing_keys(*realm, keys);
            }
        }
        let memory = self.control.memory();
        if memory != self.core.memory {
            self.core.memory = memory;
            if memory == MemoryLevel::Critical {
                let half = self.core.outbox_bytes / 2;
                self.core.shed_outboxes(half);
            }
            self.core.resume_publishers();
        }
        self.core.update_accepting();
    }

    /// Whether publications of other cores may still be delivered in this turn: a flush has to come between many of
    /// them, and while outboxes are over their bound the flush goes first. Its list shrinks without anybody's help.
    fn may_deliver(&self) -> bool {
        let core = &self.core;
        let is_pressed = core.pressed[usize::from(core.id.0)];
        core.deliveries < PEER_DELIVERIES_A_TURN && (!is_pressed || core.bulk.is_empty())
    }

    fn handle_peers(&mut self) {
        let mut round = self.core.mesh.start_round(PEER_MESSAGES_A_TURN);
        // What is left stays in its ring, which keeps this core awake.
        while self.may_deliver()
            && let Some((from, message)) = self.core.mesh.receive(&mut round)
        {
            self.core.deliveries_of_input = 0;
            self.core.met_slow_reader = false;
            match message {
                PeerMessage::Credit { session, bytes } => self.core.handle_credit(session, bytes),
                PeerMessage::Hold { session, begin } => self.core.handle_hold(session, begin),
                PeerMessage::Pressure { on } => {
                    self.core.pressed[from] = on;
                    self.core.resume_publishers();
                }
                message => {
                    let from = CoreId(from as u16);
                    self.router.handle_peer(self.core.now, from, message, &mut self.core);
                }
            }
            if !self.core.doomed.is_empty() || !self.core.broken.is_empty() {
                self.close_broken();
            }
        }
    }

    /// What became of slow checks.
    fn handle_checked(&mut self) {
        while let Some(Checked { session, is_right }) = self.core.checks.take() {
            self.router.handle_checked(self.core.now, session, is_right, &mut self.core);
            self.close_broken();
        }
    }

    /// What databases say.
    fn handle_databases(&mut self) {
        for _ in 0..DATABASE_EVENTS_A_TURN {
            let Some(event) = self.core.queries.take() else { break };
            self.router.handle_database(self.core.now, event, &mut self.core);
            self.close_broken();
        }
    }

    /// Meta events that had to wait, as far as this turn permits.
    fn tell_news(&mut self) {
        if self.may_tell_more() {
            self.router.tell_waiting(self.core.now, &mut self.core);
            self.close_broken();
        }
        self.core.is_behind_with_news = self.router.news_waiting_bytes() > self.core.limits.ring_bytes_max;
    }

    /// Whether meta events wait, and the account of this core lets them go.
    fn may_tell_more(&self) -> bool {
        self.router.news_waiting_bytes() > 0 && self.core.may_tell_news()
    }

    fn handle_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        let reading = !self.core.mesh_is_full();
        self.core.counters.paused_mesh += u64::from(!reading);
        for event in ready.drain(..) {
            match event.token {
                Token::Listener(listener) => self.core.accept(listener),
                Token::Connection { slot, generation } => {
                    let key = SessionKey { slot, generation };
                    if event.writable {
                        self.core.handle_writable(key);
                    }
                    self.handle_readable(key, event, reading);
                }
            }
        }
        self.ready = ready;
    }

    fn handle_readable(&mut self, key: SessionKey, event: Ready, reading: bool) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        if !event.readable && !event.hangup {
            return;
        }
        connection.readable |= event.readable;
        connection.hangup |= event.hangup;
        if connection.paused.reading() {
            // What is not read does not say that it is reset, and there is no second event for it (R9).
            let says_no_more = matches!(connection.phase, Phase::Closing | Phase::Lingering);
            if event.hangup && !says_no_more && self.core.is_reset(key) {
                self.close(key, CloseReason::Reset);
            }
            return;
        }
        if connection.listed {
            return;
        }
        if reading {
            self.read(key);
        } else {
            self.core.list_readable(key);
        }
    }

    fn handle_still_readable(&mut self) {
        if self.core.readable.is_empty() || self.core.mesh_is_full() {
            return;
        }
        // Whatever is listed from here on is for the next turn.
        for key in std::mem::take(&mut self.core.readable) {
            let Some(connection) = self.core.connections.get_mut(key) else { continue };
            connection.listed = false;
            self.read(key);
        }
    }

    fn handle_deadlines(&mut self) {
        if self.router.next_deadline().is_some_and(|at| at <= self.core.now.monotonic_us) {
            self.router.handle_timeout(self.core.now, &mut self.core);
        }
        self.check_timers();
        self.close_broken();
    }

    fn say_goodbyes(&mut self) {
        let waits = self.obeyed == Order::Stop;
        // An answer is a turn, so those who wait for one are told in the turn that brings it.
        for key in std::mem::take(&mut self.goodbyes_later) {
            let later = waits && self.router.has_calls_under_way(key);
            if later { self.goodbyes_later.push(key) } else { self.goodbyes.push(key) }
        }
        for _ in 0..CLOSES_A_TURN.min(self.goodbyes.len()) {
            let Some(key) = self.goodbyes.pop() else { return };
            if waits && self.router.has_calls_under_way(key) {
                self.goodbyes_later.push(key);
            } else {
                self.close(key, CloseReason::SystemShutdown);
            }
        }
    }

    fn watch_bounds(&mut self) {
        self.core.update_pressure();
        self.core.feed_starved();
        let bound = self.core.limits.outbox_bytes_per_core_max;
        if self.core.outbox_bytes > bound / 4 * 5 {
            self.core.shed_outboxes(bound);
        }
        // Readers that take just enough to stay must not stop all publishers for good.
        if self.core.pressed[usize::from(self.core.id.0)] && self.core.pressed_until <= self.core.lived.tick()
        {
            self.core.shed_outboxes(bound / 4 * 3);
        }
        self.close_largest_outboxes();
        self.close_largest_inputs();
    }

    /// Writes what the node asked for, if it asked.
    fn report(&mut self) {
        self.control.note(self.core.counters.noteworthy());
        let wanted = self.control.snapshot_wanted();
        let answer = || {
            let wants_all = self.control.recorder_wanted_after(self.snapshot);
            let all = wants_all.then(|| (recorder::dump(), self.router.realm_counters().collect()));
            (self.counters(), all)
        };
        // One that is not answered keeps the shard awake.
        if wanted != self.snapshot && self.control.publish(wanted, answer) {
            self.snapshot = wanted;
        }
    }

    /// The counters of this core, those of its rings included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.core.counters.clone();
        let mesh = self.core.mesh.counters();
        counters.ring_full = mesh.ring_full;
        counters.doorbells = mesh.doorbells;
        counters
    }

    /// What this core told the others that it wants, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn interest_count(&self) -> usize {
        self.core.mesh.interest_count()
    }

    /// From now on slow checks are made by the threads behind this; without one, on the spot.
    pub fn check_by(&mut self, end: CheckersEnd) {
        self.core.checks = Checks::Elsewhere(end);
    }

    /// From now on calls of databases go by this; without one, there are none.
    pub fn query_by(&mut self, databases: Box<dyn Databases>) {
        self.core.queries = Queries::of(databases);
    }

    /// The sizes of the router's tables, for tests.
    #[must_use]
    pub fn table_sizes(&self) -> TableSizes {
        self.router.table_sizes()
    }

    /// What the router retains, for tests: the same on every core.
    #[doc(hidden)]
    pub fn retained(
        &self,
    ) -> impl Iterator<Item = (&str, crate::router::peer::Stamp, crate::wamp::PublicationId)> {
        self.router.retained()
    }

    /// What this shard keeps, for tests: all zero when nothing is connected.
    #[must_use]
    pub fn held(&self) -> Held {
        let core = &self.core;
        Held {
            connections: core.connections.len(),
            outbox_bytes: core.outbox_bytes,
            partial_bytes: core.partial_bytes,
            paused_bytes: core.paused_bytes,
            over_half: core.over_half as usize,
            lingering: core.lingering,
            credit_unsettled: usize::from(!core.credits.is_settled()),
        }
    }

    /// The world, for tests.
    pub fn world(&mut self) -> &mut W {
        &mut self.core.world
    }

    /// What the connections and rings of this shard hold at this moment; for tests, which hold it against the bounds.
    #[must_use]
    pub fn peaks(&self) -> Peaks {
        let core = &self.core;
        let mut peaks = Peaks::default();
        for connection in core.connections.keys().filter_map(|key| core.connections.get(key)) {
            let backlog = connection.backlog.as_deref();
            let unread = backlog.map_or(0, |backlog| backlog.unread.len());
            let waiting = backlog.map_or(0, |backlog| backlog.waiting_bytes);
            peaks.outbox_bytes = peaks.outbox_bytes.max(connection.outbox.bytes());
            peaks.unread_bytes = peaks.unread_bytes.max(unread);
            peaks.waiting_bytes = peaks.waiting_bytes.max(waiting);
            peaks.owed_bytes = peaks.owed_bytes.max(connection.owed as usize);
            if matches!(connection.phase, Phase::Closing | Phase::Lingering) {
                continue;
            }
            peaks.stuck_bytes += unread + waiting;
            peaks.paused += usize::from(connection.paused != Paused::default());
        }
        let next_check = core.lived.next_check().unwrap_or(u32::MAX);
        peaks.forgotten_timers = core.connections.check_at.iter().filter(|at| **at < next_check).count();
        let queued = (0..usize::from(core.cores)).map(|core| self.core.mesh.bytes_queued(core));
        peaks.queued_bytes = queued.max().unwrap_or(0) as usize;
        peaks.holds_until_us = core.credits.holds_until_us();
        peaks.overdue_holds = core.credits.overdue_holds(core.now.monotonic_us);
        peaks
    }

    /// Whether the outboxes are over their bound and a large fan-out is still to be flushed; for tests.
    #[must_use]
    pub fn flushes_first(&self) -> bool {
        self.core.pressed[usize::from(self.core.id.0)] && !self.core.bulk.is_empty()
    }

    /// How many messages of other cores were taken so far; for tests.
    #[must_use]
    pub fn peer_messages_taken(&self) -> u64 {
        self.core.mesh.counters().drained
    }

    /// Credit that sessions of this shard, and the shard itself, have not got back, and credit that rests here for those of others; for tests.
    #[must_use]
    pub fn credit(&self) -> (Charged<SessionKey>, Charged<SessionRef>) {
        let core = &self.core;
        let owed = core.connections.keys().filter_map(|key| {
            let connection = core.connections.get(key)?;
            (connection.owed > 0).then_some((key, connection.owed))
        });
        let own = (core.news_owed > 0).then_some((NEWS_KEY, core.news_owed));
        (owed.chain(own).collect(), core.credits.resting())
    }

    /// Changes bounds that are no configuration; for tests.
    #[doc(hidden)]
    pub fn tune(&mut self, tuning: Tuning) {
        self.core.tuning = tuning;
    }
}

/// Sessions, and the bytes that each is charged for.
pub type Charged<Session> = Vec<(Session, u32)>;

/// What connections and rings hold; see [`Shard::peaks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// The largest outbox.
    pub outbox_bytes: usize,
    /// The most that one connection has received and not consumed.
    pub unread_bytes: usize,
    /// The most that waits in requests of one connection.
    pub waiting_bytes: usize,
    /// The most that one connection is charged.
    pub owed_bytes: usize,
    /// The most that is on its way to one other core.
    pub queued_bytes: usize,
    /// All that waits to be handled, of connections that are not closing.
    pub stuck_bytes: usize,
    /// How many of those connections are paused for any reason.
    pub paused: usize,
    /// Timers of connections that are due before anybody looks.
    pub forgotten_timers: usize,
    /// When the first and when the last of the publications go on that are held for a slow reader.
    pub holds_until_us: Option<(u64, u64)>,
    /// How many of them should have gone on before the last turn ended.
    pub overdue_holds: usize,
}

/// What a shard keeps beside its router's tables; see [`Shard::held`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Held {
    pub connections: usize,
    pub outbox_bytes: usize,
    pub partial_bytes: usize,
    pub paused_bytes: usize,
    pub over_half: usize,
    pub lingering: usize,
    pub credit_unsettled: usize,
}
