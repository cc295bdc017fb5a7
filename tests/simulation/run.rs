//! One run: shards, clients and chance, from the first connection to the last.

#[path = "run/databases.rs"]
mod databases;
#[path = "run/quiet.rs"]
mod quiet;

use std::cell::{Ref, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use crosspoint::config::{self, CookieConfig, Limits, SameSite, SlowPolicy};
use crosspoint::link::LinkConfig;
use crosspoint::metrics::Counters;
use crosspoint::router::fault::Fault as RouterFault;
use crosspoint::router::peer::CoreId;
use crosspoint::router::{Door, Router, RouterConfig, TableSizes};
use crosspoint::shard::control::{Control, Order};
use crosspoint::shard::mesh::{self, CoreWaker, Fault as MeshFault, SharedDoorbell};
use crosspoint::shard::{Held, MemoryLevel, Peaks, Shard, ShardParts, Turn};
use crosspoint::wamp::MatchPolicy;
use crosspoint::wamp::error::uri;

use super::advanced::{AUTHENTICATOR, Advanced};
use super::authorizer::{Authorizer, PROCEDURE};
use super::client::{Client, REALMS, Stage, State, Trace};
use super::database::{DatabasesOfCore, Seen, Shared, lock};
use super::history::{End, Happened, History, Kept, Violation, broken};
use super::profile::Profile;
use super::random::Random;
use super::world::{Kernel, KernelCounts, Net, Simulated};

/// What is broken on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wrong {
    pub router: RouterFault,
    pub mesh: MeshFault,
}

/// What a run that kept all promises came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub counters: Counters,
    pub kernel: KernelCounts,
    pub happened: Happened,
    pub databases: Seen,
    pub steps: u64,
    pub sessions: u64,
    pub closed_by_router: u64,
    pub events_missing: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.kernel.out_of_descriptors += other.kernel.out_of_descriptors;
        self.kernel.interrupted += other.kernel.interrupted;
        self.kernel.registrations_refused += other.kernel.registrations_refused;
        self.happened.add(&other.happened);
        self.databases.add(&other.databases);
        self.steps += other.steps;
        self.sessions += other.sessions;
        self.closed_by_router += other.closed_by_router;
        self.events_missing += other.events_missing;
    }
}

/// A shard and whether it sleeps.
pub struct Core {
    pub shard: Shard<Simulated>,
    pub control: Arc<Control>,
    waker: CoreWaker,
    pub is_asleep: bool,
    is_stopped: bool,
    /// Turns that began with outboxes over their bound, and still took something from other cores.
    took_first: u64,
}

impl Core {
    /// A shard falls asleep, or does one turn.
    pub fn turn(&mut self) {
        if !self.is_asleep && self.shard.fall_asleep() {
            self.is_asleep = true;
            return;
        }
        let (flushes_first, taken) = (self.shard.flushes_first(), self.shard.peer_messages_taken());
        let turn = self.shard.pass(self.is_asleep);
        self.is_asleep = false;
        self.is_stopped = turn == Turn::Stopped;
        if flushes_first {
            self.took_first += u64::from(self.shard.peer_messages_taken() > taken);
        }
    }
}

/// The shards. One is borrowed while it has a turn, so that others can have theirs within.
pub type Cores = Rc<Vec<RefCell<Core>>>;

/// Everything of one run.
pub struct Run {
    random: Random,
    kernel: Kernel,
    cores: Cores,
    clients: Vec<Client>,
    authorizers: Vec<Authorizer>,
    history: History,
    profile: Profile,
    step: u64,
    is_stopping: bool,
    /// For so long it is seen whether anything more happens.
    settle_us: u64,
    /// How likely each shard, and each client's delivery, reading and acting are next to each other.
    weights: Vec<usize>,
    pub trace: Trace,
}

/// One of the steps that are possible.
#[derive(Clone, Copy, Debug)]
enum Step {
    Turn(usize),
    Deliver(usize),
    Read(usize),
    Act(usize),
    Authorizer(usize),
    /// Which database, and whether things come over it.
    Database(usize, bool),
    Time,
}

/// Whether a core may read, and how much it did.
#[derive(Debug)]
struct Reading {
    is_full: bool,
    turns_of_others: u64,
    received: u64,
    accepted: u64,
}

/// How much time may pass until all is settled, in microseconds.
const SETTLE_US: u64 = 60_000_000;

/// A shard that could not read for a full ring looks again after so long at the latest, in microseconds.
const LOOK_AGAIN_US: u64 = 1000;

/// A run that takes more steps than this turns in circles.
const STEPS_MAX: u64 = 400_000;

impl Run {
    pub fn new(seed: u64, wrong: Wrong, advanced: Advanced) -> Self {
        let mut random = Random::new(seed, 0);
        let kernel = Net::new(Random::new(seed, 1));
        let mut profile = Profile::draw(&mut random);
        profile.have(advanced);
        let databases = databases::databases(&profile, seed, &kernel.borrow().traffic);
        let cores = build_cores(&profile, &kernel, wrong, random.seed(), &databases);
        let clients = (0..profile.clients)
            .map(|number| {
                let core = random.below(profile.cores);
                let realm = if profile.two_realms { random.below(2) } else { 0 };
                let actions = random.between(profile.actions / 2, profile.actions) as u32;
                Client::new(number, core, realm, actions, &mut random)
            })
            .collect();
        let mut authorizers = Vec::new();
        for realm in &REALMS[..if profile.two_realms { 2 } else { 1 }] {
            if profile.authorizer || profile.advanced.authenticator {
                let core = random.below(profile.cores);
                authorizers.push(Authorizer::new(core, realm, &mut kernel.borrow_mut()));
            }
        }
        let may_refuse = profile.may_close.contains(&uri::SLOW_CONSUMER);
        let mut history = History::new(profile.slow == SlowPolicy::Drop, may_refuse, profile.reroutes);
        history.cookies.age_us = profile.advanced.cookie_age * 1_000_000;
        history.databases.all = databases;
        history.may_take_over = profile.advanced.takes_over;
        history.testaments_max = profile.limits.testaments_per_session_max;
        let weights = Vec::new();
        let trace = Trace::default();
        Self {
            random,
            kernel,
            cores,
            clients,
            authorizers,
            history,
            profile,
            step: 0,
            is_stopping: false,
            settle_us: SETTLE_US,
            weights,
            trace,
        }
    }

    /// From the first connection to the last.
    pub fn play(&mut self) -> Result<Totals, Violation> {
        if !self.authorizers.is_empty() {
            // Whoever is asked has to be there first.
            self.settle()?;
            self.kernel.borrow_mut().unkind = true;
        }
        self.live()?;
        self.settle()?;
        self.check_quiet(false)?;
        self.try_shards()?;
        self.try_databases()?;
        self.ask_for_events()?;
        let missing = self.history.check_events()?;
        self.check_lost(missing)?;
        self.history.check_calls()?;
        self.history.check_missed_callees()?;
        self.history.check_crowded()?;
        self.answer_by_databases();
        // With every answer a call that waits may go on.
        loop {
            for client in 0..self.clients.len() {
                self.on_stage(client, |client, stage| {
                    client.answer_all(stage);
                    Ok(())
                })?;
            }
            self.settle()?;
            if !self.clients.iter().any(Client::owes_answers) {
                break;
            }
        }
        self.history.check_crowded()?;
        self.check_quiet(true)?;
        self.history.check_calls()?;
        self.end()?;
        self.check_empty()?;
        Ok(self.totals(missing))
    }

    /// Who shares what is tried while nothing else happens, and once more when somebody has left.
    fn try_shards(&mut self) -> Kept {
        if !self.profile.advanced.shards || self.history.may_drop || self.history.may_refuse {
            return Ok(());
        }
        let mut before = None;
        for _ in 0..2 {
            let mut published = Vec::new();
            for client in 0..self.clients.len() {
                self.on_stage(client, |client, stage| {
                    published.extend(client.publish_resources(stage));
                    Ok(())
                })?;
            }
            self.settle()?;
            let after = self.history.placed(&published)?;
            if let Some(before) = before.replace(after.clone()) {
                return self.history.check_moves(&before, &after);
            }
            let leaver = self.random.below(self.clients.len());
            self.on_stage(leaver, |client, stage| {
                client.leave_node(stage);
                Ok(())
            })?;
            self.settle()?;
        }
        Ok(())
    }

    /// Somebody of each realm asks for what is kept, while nothing else happens.
    fn ask_for_events(&mut self) -> Kept {
        for realm in 0..REALMS.len() {
            let is_there = |client: &Client| {
                self.profile.advanced.histories && client.realm == realm && client.is_open()
            };
            let Some(client) = self.clients.iter().position(is_there) else { continue };
            self.on_stage(client, |client, stage| {
                client.ask_for_all_events(stage);
                Ok(())
            })?;
            self.settle()?;
        }
        Ok(())
    }

    /// The time of chance: everything may happen.
    fn live(&mut self) -> Kept {
        while self.clients.iter().any(|client| client.can_act() || client.stalled > 0) {
            if self.step > STEPS_MAX / 2 {
                break;
            }
            self.chance()?;
            let steps = self.steps(true);
            let weights: Vec<usize> = steps.iter().map(|step| self.weight(*step)).collect();
            let Some(chosen) = self.random.weighted(weights.iter().copied()) else { continue };
            self.take(steps[chosen])?;
        }
        Ok(())
    }

    /// What comes over everybody.
    fn chance(&mut self) -> Kept {
        if self.weights.is_empty() || self.step.is_multiple_of(200) {
            let count = self.cores.len() + 3 * self.clients.len() + 1;
            let random = &mut self.random;
            self.weights = (0..count).map(|_| *random.pick(&[1, 4, 4, 16, 40])).collect();
        }
        if self.profile.memory_runs_short && self.random.once_in(300) {
            let core = self.random.below(self.cores.len());
            let levels = [MemoryLevel::Normal, MemoryLevel::Normal, MemoryLevel::High, MemoryLevel::Critical];
            let level = *self.random.pick(&levels);
            self.set_memory(core, level);
        }
        for client in &mut self.clients {
            client.stalled = client.stalled.saturating_sub(1);
        }
        Ok(())
    }

    fn set_memory(&mut self, core: usize, level: MemoryLevel) {
        let core = self.core(core);
        core.control.set_memory(level);
        core.waker.wake();
    }

    fn weight(&self, step: Step) -> usize {
        let cores = self.cores.len();
        match step {
            Step::Turn(core) => self.weights[core],
            Step::Deliver(client) => self.weights[cores + 3 * client],
            Step::Read(client) => self.weights[cores + 3 * client + 1],
            Step::Act(client) => self.weights[cores + 3 * client + 2],
            Step::Authorizer(_) => 16,
            Step::Database(..) => 12,
            Step::Time => 1,
        }
    }

    /// All that could happen next.
    fn steps(&self, may_act: bool) -> Vec<Step> {
        let net = self.kernel.borrow();
        let mut steps = Vec::new();
        for (number, core) in self.cores.iter().map(RefCell::borrow).enumerate() {
            if !core.is_stopped && (!core.is_asleep || net.wakes(number)) {
                steps.push(Step::Turn(number));
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if client.can_deliver(&net) {
                steps.push(Step::Deliver(number));
            }
            if client.stalled == 0 && client.can_read(&net) {
                steps.push(Step::Read(number));
            }
            if may_act && client.can_act() {
                steps.push(Step::Act(number));
            }
        }
        for (number, authorizer) in self.authorizers.iter().enumerate() {
            if authorizer.can_act(&net) {
                steps.push(Step::Authorizer(number));
            }
        }
        for (number, database) in self.history.databases.all.iter().enumerate() {
            if lock(database).can_act(may_act) {
                steps.push(Step::Database(number, may_act));
            }
        }
        if may_act {
            steps.push(Step::Time);
        }
        steps
    }

    fn take(&mut self, step: Step) -> Kept {
        self.step += 1;
        let number = self.step;
        self.trace.note(|| format!("{number:>6} {step:?}"));
        self.kernel.borrow_mut().now_us += self.random.between(1, 200) as u64;
        self.tell_databases();
        self.perform(step)?;
        self.judge_databases()
    }

    fn perform(&mut self, step: Step) -> Kept {
        match step {
            Step::Turn(core) => self.turn(core),
            Step::Deliver(client) => self.on_stage(client, |client, stage| {
                client.deliver(stage);
                Ok(())
            }),
            Step::Read(client) => {
                self.on_stage(client, Client::read)?;
                self.judge_reading(client);
                Ok(())
            }
            Step::Act(client) => self.on_stage(client, |client, stage| {
                client.act(stage);
                Ok(())
            }),
            Step::Authorizer(number) => {
                let net = &mut self.kernel.borrow_mut();
                self.authorizers[number].act(net, &mut self.random)
            }
            Step::Database(number, may_begin) => self.act_of_database(number, may_begin),
            Step::Time => {
                let longest_us = match () {
                    () if self.profile.impatient => 3_000_000,
                    // Who has to answer in time is counted in tenths of a second.
                    () if self.profile.advanced.leaps() => 500_000,
                    () => 20_000,
                };
                self.kernel.borrow_mut().now_us += self.random.between(1, longest_us) as u64;
                Ok(())
            }
        }
    }

    fn turn(&mut self, number: usize) -> Kept {
        let before = self.reading(number);
        self.cores[number].borrow_mut().turn();
        let after = self.reading(number);
        // No other core has made room within the turn, so it was full for all of it (R8).
        let was_full = before.is_full && before.turns_of_others == after.turns_of_others;
        if was_full && (before.received, before.accepted) != (after.received, after.accepted) {
            return broken(
                "bound",
                format!("core {number} takes more for a full ring: {before:?} {after:?}"),
            );
        }
        if self.core(number).took_first > 0 {
            return broken("bound", format!("core {number} takes from its rings before it has flushed"));
        }
        self.check_parts()?;
        (0..self.cores.len()).try_for_each(|core| self.check_bounds(core))
    }

    fn reading(&self, number: usize) -> Reading {
        let others = self.cores.iter().enumerate().filter(|(other, _)| *other != number);
        let turns = others.map(|(_, core)| core.borrow().shard.counters().turns);
        let (turns_of_others, core) = (turns.sum(), self.core(number));
        let counters = core.shard.counters();
        Reading {
            is_full: core.shard.peaks().queued_bytes > self.profile.limits.ring_bytes_max,
            turns_of_others,
            received: counters.bytes_received,
            accepted: counters.connections_accepted,
        }
    }

    fn core(&self, number: usize) -> Ref<'_, Core> {
        self.cores[number].borrow()
    }

    fn on_stage(&mut self, client: usize, play: impl FnOnce(&mut Client, &mut Stage<'_>) -> Kept) -> Kept {
        let mut may_close = self.profile.may_close.clone();
        if self.is_stopping {
            may_close.push(uri::SYSTEM_SHUTDOWN);
        }
        let mut stage = Stage {
            net: &mut self.kernel.borrow_mut(),
            history: &mut self.history,
            random: &mut self.random,
            step: self.step,
            padding_max: self.profile.limits.message_bytes_max - 256,
            long_once_in: self.profile.long_once_in,
            may_close: &may_close,
            is_impatient: self.profile.impatient,
            shares: self.profile.shares,
            reroutes: self.profile.reroutes,
            advanced: self.profile.advanced,
            trace: &mut self.trace,
        };
        play(&mut self.clients[client], &mut stage)
    }

    /// Bounds hold after every turn.
    fn check_bounds(&self, core: usize) -> Kept {
        let (peaks, held) = (self.core(core).shard.peaks(), self.core(core).shard.held());
        let (limits, tuning) = (&self.profile.limits, self.profile.tuning);
        let cores = self.cores.len();
        // Strings keep their length in every serializer, numbers and heads do not.
        let message_bytes = limits.message_bytes_max + 256;
        let charge = (limits.message_bytes_max + 512) * cores;
        let farewell = 1024;
        // Who asks the router for something is charged a share of what it may owe.
        let session = limits.credit_bytes_per_session + charge.max(limits.credit_bytes_per_session / 4);
        let sessions = self.clients.iter().filter(|client| client.core == core).count();
        let unread = 2 * limits.turn_bytes_per_session.max(4096);
        let waiting = tuning.waiting_bytes_max + limits.message_bytes_max;
        if peaks.forgotten_timers > 0 {
            return broken("stuck", format!("core {core}: {peaks:?}"));
        }
        self.check_holds(core, &peaks)?;
        for (what, held, bound) in [
            (
                "outbox",
                peaks.outbox_bytes,
                (limits.outbox_hard_bytes + tuning.reply_reserve_bytes).max(message_bytes) + farewell,
            ),
            ("unread input", peaks.unread_bytes, unread),
            ("waiting requests", peaks.waiting_bytes, waiting),
            ("credit", peaks.owed_bytes, session),
            // Interrupts and the like are not charged: there are at most as many as calls.
            (
                "ring",
                peaks.queued_bytes,
                limits.ring_bytes_max
                    + (self.clients.len() + self.profile.advanced.databases) * session * 2
                    + 64 * 1024,
            ),
            // What is above is closed before the turn ends, what is half sent included.
            (
                "all outboxes",
                held.outbox_bytes,
                limits.outbox_bytes_per_core_max / 4 * 5 + sessions * farewell,
            ),
            ("partial input", held.partial_bytes, limits.partial_bytes_per_core_max),
            // The last that was received from may have been paused by that, and whatever was partial until then.
            (
                "paused input",
                held.paused_bytes,
                limits.paused_bytes_per_core_max + sessions * (unread + waiting + limits.message_bytes_max),
            ),
        ] {
            if held > bound {
                return broken(
                    "bound",
                    format!("core {core}: {what} holds {held} bytes, the bound is {bound}"),
                );
            }
        }
        Ok(())
    }

    /// A publication is held for so long and no longer, and whoever holds one wakes up in time.
    fn check_holds(&self, core: usize, peaks: &Peaks) -> Kept {
        let Some((first_us, last_us)) = peaks.holds_until_us else { return Ok(()) };
        let net = self.kernel.borrow();
        let oversleeps = self.core(core).is_asleep
            && net.deadline_us(core).is_none_or(|deadline_us| deadline_us > first_us);
        let hold_us = self.profile.limits.publisher_hold.as_micros() as u64;
        if peaks.overdue_holds > 0 || oversleeps || last_us > net.now_us + hold_us {
            return broken("hold", format!("core {core} at {} us: {peaks:?}", net.now_us));
        }
        Ok(())
    }

    /// Everybody reads, nobody begins anything, until nothing happens any more, and a while longer.
    fn settle(&mut self) -> Kept {
        self.kernel.borrow_mut().unkind = false;
        for client in &mut self.clients {
            client.stalled = 0;
        }
        for core in 0..self.cores.len() {
            self.set_memory(core, MemoryLevel::Normal);
        }
        let end_us = self.kernel.borrow().now_us + self.settle_us;
        loop {
            if self.step > STEPS_MAX {
                return broken("stuck", "it goes on for ever");
            }
            let steps = self.steps(false);
            if !steps.is_empty() {
                let chosen = self.random.below(steps.len());
                self.take(steps[chosen])?;
                continue;
            }
            self.check_waiting()?;
            let deadlines = (0..self.cores.len()).filter(|core| !self.core(*core).is_stopped);
            let next_us = deadlines.filter_map(|core| self.kernel.borrow().deadline_us(core));
            let databases = self.history.databases.all.iter();
            let next_us = next_us.chain(databases.filter_map(|it| lock(it).next_deadline_us())).min();
            match next_us {
                Some(next_us) if next_us <= end_us => {
                    self.kernel.borrow_mut().now_us = next_us;
                    self.tell_databases();
                }
                _ => return Ok(()),
            }
        }
    }

    /// Nothing can happen but that time passes: then all that could be done without is done (no wake-up was lost).
    fn check_waiting(&self) -> Kept {
        self.check_heard()?;
        for (number, core) in self.cores.iter().map(RefCell::borrow).enumerate() {
            let peaks = core.shard.peaks();
            // Nobody takes what is sent to a shard that has stopped.
            if peaks.queued_bytes > 0 && !self.cores.iter().any(|core| core.borrow().is_stopped) {
                return broken(
                    "stuck",
                    format!("core {number} sleeps, and so does who should take what it sent"),
                );
            }
            let net = self.kernel.borrow();
            let unread = net.has_unread(number);
            // Who waits for room in a ring looks again by itself, although there may be room since.
            let looks_again = net.deadline_us(number).is_some_and(|at| at <= net.now_us + LOOK_AGAIN_US);
            if peaks.paused == 0 && !looks_again && (unread.is_some() || peaks.stuck_bytes > 0) {
                return broken(
                    "stuck",
                    format!("core {number} sleeps and has not read wire {unread:?}: {peaks:?}"),
                );
            }
        }
        Ok(())
    }

    /// Everybody leaves, or is sent away.
    fn end(&mut self) -> Kept {
        self.end_databases()?;
        if self.profile.ends_by_order {
            self.is_stopping = true;
            // Calls under way may finish; then those that did not are ended.
            for order in [Order::Stop, Order::StopWaiting] {
                for core in self.cores.iter().map(RefCell::borrow) {
                    core.control.give_order(order);
                    core.waker.wake();
                }
                self.settle()?;
            }
            return Ok(());
        }
        // A session, its connection, and once more for who was still connecting.
        for _ in 0..4 {
            for client in 0..self.clients.len() {
                self.on_stage(client, |client, stage| {
                    client.depart(stage);
                    Ok(())
                })?;
            }
            self.settle()?;
        }
        for authorizer in &mut self.authorizers {
            authorizer.depart(&mut self.kernel.borrow_mut());
        }
        // What cookies stand for outlives those who logged in, until its time is over.
        self.settle_us += (self.profile.advanced.cookie_age + 60) * 1_000_000;
        self.settle()
    }

    fn check_empty(&self) -> Kept {
        for (number, core) in self.cores.iter().map(RefCell::borrow).enumerate() {
            let (held, mut tables) = (core.shard.held(), core.shard.table_sizes());
            // What is retained outlives those who published it.
            tables.retained = 0;
            tables.history = 0;
            if self.is_stopping {
                // The first to stop does not hear the last words of the others.
                tables = TableSizes {
                    cookie_logins: 0,
                    registrations: 0,
                    invocations: 0,
                    call_deadlines: 0,
                    inputs: 0,
                    remembered_calls: 0,
                    ..tables
                };
            }
            if held != Held::default() || tables != TableSizes::default() {
                return broken("held", format!("core {number}, which nobody is at: {held:?} {tables:?}"));
            }
            if core.shard.interest_count() > 0 {
                return broken("held", format!("core {number} still wants what nobody subscribes to"));
            }
            if core.is_stopped != self.is_stopping {
                return broken("stuck", format!("core {number} did not stop"));
            }
        }
        if !self.authorizers.iter().all(Authorizer::is_away) {
            return broken("stuck", "an authorizer is still connected");
        }
        match self.clients.iter().find(|client| client.state != State::Away) {
            Some(client) => broken("stuck", format!("client {} is still {:?}", client.number, client.state)),
            None => Ok(()),
        }
    }

    fn totals(&self, events_missing: u64) -> Totals {
        let mut counters = Counters::default();
        for core in self.cores.iter().map(RefCell::borrow) {
            counters.add(&core.shard.counters());
        }
        let mut databases = Seen::default();
        self.history.databases.all.iter().for_each(|database| databases.add(&lock(database).seen));
        Totals {
            counters,
            databases,
            kernel: self.kernel.borrow().counts,
            happened: self.history.happened,
            steps: self.step,
            sessions: self.history.sessions.len() as u64,
            closed_by_router: self.clients.iter().map(|client| client.closed_by_router.len() as u64).sum(),
            events_missing,
        }
    }

    /// What kind of run it is, for the report.
    pub fn describe(&self) -> String {
        let clients: Vec<_> =
            self.clients.iter().map(|client| (client.core, client.realm, client.describe())).collect();
        format!("{:?}\nclients (core, realm, transport): {clients:?}", self.profile)
    }
}

pub fn build_cores(
    profile: &Profile,
    kernel: &Kernel,
    wrong: Wrong,
    seed: [u8; 32],
    databases: &[Shared],
) -> Cores {
    let limits: &Limits = &profile.limits;
    let mut config = config::parse("simulation", "", &[]).expect("the empty configuration is sound");
    let mut listener = config.listeners.remove(0);
    listener.compression = true;
    if profile.advanced.has_cookies() {
        let max_age = Duration::from_secs(profile.advanced.cookie_age);
        let (name, same_site) = ("crosspoint".to_owned(), SameSite::Lax);
        listener.cookie = Some(CookieConfig { name, max_age, same_site, http_only: true, secure: false });
    }
    let realms = REALMS.iter().enumerate().map(|(number, name)| {
        let mut realm = config.realms[0].clone();
        realm.name = (*name).to_owned();
        realm.home = Some((profile.home + number) % profile.cores);
        realm.roles[0].slow = profile.slow;
        if profile.authorizer {
            let role = &mut realm.roles[0];
            role.authorizer = Some(PROCEDURE.to_owned());
            role.permissions[0].uri = PROCEDURE.to_owned();
            role.permissions[0].match_policy = MatchPolicy::Exact;
            let mut permission = role.permissions[0].clone();
            permission.uri = AUTHENTICATOR.to_owned();
            role.permissions.push(permission);
        }
        profile.advanced.set_users(&mut realm);
        profile.advanced.set_histories(&mut realm);
        realm
    });
    let router_config = RouterConfig {
        realms: realms.collect(),
        limits: limits.clone(),
        doors: vec![Door::from(&listener)],
        publishers: databases::publishers(databases.len()),
    };
    let doorbells: Vec<SharedDoorbell> =
        (0..profile.cores).map(|_| kernel.borrow_mut().add_port() as SharedDoorbell).collect();
    let ends = mesh::connect(limits.ring_entries, doorbells);
    let build = |(core, mut mesh): (usize, mesh::MeshEnd<_>)| {
        mesh.break_promise(wrong.mesh);
        let waker = mesh.waker(core);
        let control = Arc::<Control>::default();
        let id = CoreId(core as u16);
        let mut router = Router::new(&router_config, id, profile.cores as u16, seed);
        router.break_promise(wrong.router);
        let mut shard = Shard::new(ShardParts {
            core: id,
            limits: Arc::new(limits.clone()),
            links: vec![LinkConfig { listener: listener.clone(), limits: limits.clone() }],
            router,
            world: Simulated { kernel: Rc::clone(kernel), core },
            mesh,
            control: Arc::clone(&control),
        });
        shard.tune(profile.tuning);
        databases.iter().for_each(|database| lock(database).add_waker(waker.clone()));
        if !databases.is_empty() {
            shard.query_by(Box::new(DatabasesOfCore::new(databases, core)));
        }
        Core { shard, control, waker, is_asleep: false, is_stopped: false, took_first: 0 }
    };
    let cores: Cores = Rc::new(ends.into_iter().enumerate().map(build).map(RefCell::new).collect());
    let (others, of_kernel) = (Rc::downgrade(&cores), Rc::downgrade(kernel));
    kernel.borrow_mut().meanwhile = Some(Rc::new(move |core| {
        if let (Some(cores), Some(kernel)) = (Weak::upgrade(&others), Weak::upgrade(&of_kernel)) {
            let Ok(mut core_of_turn) = cores[core].try_borrow_mut() else { return };
            let can_turn = !core_of_turn.is_asleep || kernel.borrow().wakes(core);
            if can_turn && !core_of_turn.is_stopped {
                core_of_turn.turn();
            }
        }
    }));
    cores
}
