//! The process: start in order, watch, stop in reverse.

mod cgroup;
mod cores;
mod databases;
pub mod holder;
mod listeners;
mod liveness;
pub mod log;
mod memory;
mod notices;
mod panic;
mod preflight;
mod processors;
mod service_manager;
mod signing_keys;

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

use self::cores::{Core, NodeParts, start_cores};
use self::databases::Databases;
use self::listeners::open_listeners;
use self::memory::MemoryWatcher;
use self::notices::Notices;
use self::panic::install_panic_hook;
use self::service_manager::ServiceManager;
use self::signing_keys::SigningKeyFiles;
use crate::config::{Config, Realm};
use crate::metrics::{Counters, RealmCounters};
use crate::shard::control::{Order, Whereabouts};
use crate::shard::kernel::Kernel;
use crate::shard::listener::UnixPath;
use crate::shard::park::Host;
use crate::shard::world::World;
use crate::shard::{MemoryLevel, clock};

/// How often the node looks at its cores and at the memory.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// How often it looks whether everybody has gone.
const END_INTERVAL: Duration = Duration::from_millis(10);

/// A core that has been waiting for so long is rung, to see whether it comes back.
const RING_AFTER_MAX: Duration = Duration::from_secs(5);

/// How long a core has to begin: an executor has rings to set up.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a core that is told to end at once may be in one turn.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the cores have to end once they are told to end at once: so many connections are not closed in a moment.
const CUT_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// How long a snapshot of the counters is waited for.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// Realms that a report has a line for.
const REALMS_SHOWN_MAX: usize = 1_000;

/// Why the router did not start, or ended.
#[derive(Debug)]
pub enum NodeError {
    /// The machine does not allow what is configured: exit code 2.
    Preflight(String),
    /// It failed to start or to run: exit code 1.
    Failed(String),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preflight(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for NodeError {}

/// What a started router tells people.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where it listens, in the order of the configuration.
    pub listeners: Vec<String>,
    /// The realms.
    pub realms: Vec<String>,
    /// The processors.
    pub processors: Vec<usize>,
    /// What hosts the shards.
    pub host: Host,
}

/// What happens to a node.
enum NodeEvent {
    Signal(i32),
    /// A shard is about to take its first turn.
    Begun,
    /// A shard has ended.
    Ended(usize, Result<(), String>),
}

/// How far the end has come; times in monotonic microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Sessions without calls under way are told, and from the first time on the others; until the second.
    WaitsUntil(u64, u64),
    /// All sessions are told; until then.
    Until(u64),
    /// Nobody is told any more. A core that has been in one turn since the first time never will end, nor will one that
    /// still runs at the second.
    CutUntil(u64, u64),
}

/// A running router.
pub struct Node {
    cores: Vec<Core>,
    databases: Databases,
    events: Receiver<NodeEvent>,
    memory: MemoryWatcher,
    memory_level: MemoryLevel,
    notices: Notices,
    service_manager: ServiceManager,
    signing_keys: SigningKeyFiles,
    ending: Ending,
    shutdown_timeout: Duration,
    started: Started,
    signals: signal_hook::iterator::Handle,
    /// Removed when the node begins to end.
    unix_paths: Vec<UnixPath>,
}

impl Node {
    /// Starts the router: checks the machine, opens the sockets, starts a shard on each core.
    ///
    /// # Errors
    /// What is in the way, and what to do about it. Nothing runs then.
    pub fn start(config: &Config) -> Result<Self, NodeError> {
        Self::start_in(config, |kernel| kernel)
    }

    /// The same, with something of the caller's between each shard and its kernel: how tests make a core fail.
    ///
    /// # Errors
    /// As above.
    pub fn start_in<W: World + Send + 'static>(
        config: &Config,
        world: impl Fn(Kernel) -> W,
    ) -> Result<Self, NodeError> {
        let processors = processors::select(config.node.cores.as_deref()).map_err(NodeError::Preflight)?;
        check_cores(config, processors.len()).map_err(NodeError::Preflight)?;
        let (host, warning) = preflight::choose_host(config.node.runtime).map_err(NodeError::Preflight)?;
        let connections_max =
            preflight::connections(&config.limits, processors.len(), config.listeners.len())
                .map_err(NodeError::Preflight)?;
        if let Some(warning) = warning {
            warn!("{warning}");
        }
        install_panic_hook();
        let mut limits = config.limits.clone();
        limits.connections_max = Some(connections_max);
        let sockets = open_listeners(config, processors.len()).map_err(NodeError::Failed)?;
        let (sender, events) = channel();
        // Before any other thread, so that none of them can be hit by a signal that has no handler yet.
        let signals = watch_signals(sender.clone())
            .map_err(|error| NodeError::Failed(format!("signals cannot be handled: {error}")))?;
        let parts = NodeParts { config, limits, host, processors: &processors };
        let (cores, databases) =
            start_cores(parts, sockets.by_core, &sender, world).map_err(NodeError::Failed)?;
        wait_for_cores(&cores, &events, &sender).map_err(NodeError::Failed)?;
        let started = Started {
            listeners: sockets.names,
            realms: config.realms.iter().map(|realm: &Realm| realm.name.clone()).collect(),
            processors,
            host,
        };
        let memory =
            MemoryWatcher::new(config.limits.memory_high_percent, config.limits.memory_critical_percent);
        Ok(Self {
            cores,
            databases,
            events,
            memory,
            memory_level: MemoryLevel::Normal,
            notices: Notices::default(),
            service_manager: ServiceManager::of_environment(),
            signing_keys: SigningKeyFiles::new(config),
            ending: Ending::No,
            shutdown_timeout: config.node.shutdown_timeout,
            started,
            signals,
            unix_paths: sockets.unix_paths,
        })
    }

    /// What was started.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Runs until all cores have ended: after the first SIGTERM or SIGINT in the time that the configuration gives
    /// them, after the second one at once.
    ///
    /// # Errors
    /// A core that could not start, ended by itself, or does not end.
    pub fn run(mut self) -> Result<(), NodeError> {
        let mut left = self.cores.len();
        let mut failure = None;
        let interval = self.service_manager.interval().clamp(END_INTERVAL, WATCH_INTERVAL);
        self.service_manager.ready();
        while left > 0 {
            let is_ending = matches!(self.ending, Ending::WaitsUntil(..));
            match self.events.recv_timeout(if is_ending { END_INTERVAL } else { interval }) {
                Ok(NodeEvent::Signal(SIGUSR1)) => self.report(),
                Ok(NodeEvent::Signal(_)) => self.stop(),
                Ok(NodeEvent::Begun) => {}
                Ok(NodeEvent::Ended(core, result)) => {
                    left -= 1;
                    if let Some(thread) = self.cores[core].thread.take() {
                        let _ = thread.join();
                    }
                    if let Err(error) = result {
                        failure.get_or_insert(error);
                        self.cut();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now_us = clock::now().monotonic_us;
            self.service_manager.remind();
            // A stuck core ends only with the process: the manager hears nothing, and restarts it.
            if self.watch_cores(now_us) {
                self.service_manager.alive(now_us);
            }
            self.watch_memory();
            self.signing_keys.watch(now_us, &self.cores);
            self.notices.watch(&self.cores, now_us);
            if let Err(stuck) = self.watch_end() {
                failure.get_or_insert(stuck);
                break;
            }
        }
        self.databases.stop();
        self.signals.close();
        match failure {
            Some(error) => Err(NodeError::Failed(error)),
            None => Ok(()),
        }
    }

    /// A signal to end: the first one is polite.
    fn stop(&mut self) {
        if self.ending != Ending::No {
            self.cut();
            return;
        }
        info!("stopping: sessions are told, and calls under way may finish");
        self.service_manager.stopping();
        // The second half of the time is for the farewell of those whose calls did not end in the first.
        let until_us = after(self.shutdown_timeout);
        self.ending = Ending::WaitsUntil(after(self.shutdown_timeout / 2), until_us);
        // Before the cores close their listeners: from then on another router may have sockets of its own there.
        self.unix_paths.clear();
        self.order(Order::Stop);
    }

    /// Ends all cores at once.
    fn cut(&mut self) {
        if !matches!(self.ending, Ending::CutUntil(..)) {
            self.service_manager.stopping();
            self.ending = Ending::CutUntil(after(CUT_TIMEOUT), after(CUT_TIMEOUT_MAX));
            self.order(Order::StopNow);
        }
    }

    fn order(&self, order: Order) {
        for core in &self.cores {
            core.control.give_order(order);
            core.waker.wake();
        }
    }

    /// Holds the end to its time; an error names the cores that do not obey.
    fn watch_end(&mut self) -> Result<(), String> {
        let now_us = clock::now().monotonic_us;
        match self.ending {
            Ending::WaitsUntil(waits_until_us, until_us)
                if waits_until_us <= now_us || self.cores.iter().all(|core| core.control.is_vacated()) =>
            {
                self.ending = Ending::Until(until_us);
                self.order(Order::StopWaiting);
                Ok(())
            }
            Ending::Until(until_us) if until_us <= now_us => {
                warn!("the time to stop in is over; the connections that are left are closed");
                self.cut();
                Ok(())
            }
            Ending::CutUntil(until_us, last_us) if until_us <= now_us => {
                let is_stuck = self.cores.iter().filter(|core| core.thread.is_some()).any(|core| {
                    matches!(core.control.whereabouts(), Whereabouts::InTurn(began_us)
                        if now_us.saturating_sub(began_us) >= CUT_TIMEOUT.as_micros() as u64)
                });
                if !is_stuck && now_us < last_us {
                    return Ok(());
                }
                let running = self.cores.iter().enumerate().filter(|(_, core)| core.thread.is_some());
                let names: Vec<_> = running.map(|(number, _)| format!("core {number}")).collect();
                let why = if is_stuck { "stuck in a turn" } else { "its time is over" };
                Err(format!("{} did not end: {why}", names.join(" and ")))
            }
            _ => Ok(()),
        }
    }

    /// Names a core that is stuck: in a turn, where nothing may block, or in its wait, where the doorbell must end it. Whether
    /// all of them go on.
    fn watch_cores(&mut self, now_us: u64) -> bool {
        // The manager hears that the router lives of cores that showed it since the last time.
        let ring_after =
            self.service_manager.interval().saturating_mul(2).clamp(WATCH_INTERVAL, RING_AFTER_MAX);
        let ring_after_us = ring_after.as_micros() as u64;
        let mut goes_on = true;
        let running = self.cores.iter_mut().enumerate().filter(|(_, core)| core.thread.is_some());
        for (number, core) in running {
            let look = core.liveness.look(now_us, core.control.whereabouts(), ring_after_us);
            if look.ring {
                core.waker.wake();
            }
            let Some(stuck) = look.stuck else { continue };
            goes_on = false;
            if stuck.is_new {
                let (processor, lasts_ms) = (core.processor, stuck.lasts_us / 1000);
                if stuck.is_in_turn {
                    error!(core = number, processor, lasts_ms, "the core is stuck in a turn");
                } else {
                    error!(core = number, processor, lasts_ms, "the core is stuck in its wait: it was rung");
                }
            }
        }
        goes_on
    }

    fn watch_memory(&mut self) {
        // While it cannot be read it is what it was.
        let Some((level, percent)) = self.memory.level() else { return };
        if level == self.memory_level {
            return;
        }
        self.memory_level = level;
        match level {
            MemoryLevel::Normal => info!(percent, "memory is no longer short"),
            MemoryLevel::High => {
                warn!(percent, "memory is short: publishers wait, and no connections are accepted");
            }
            MemoryLevel::Critical => warn!(percent, "memory is very short: the largest outboxes are closed"),
        }
        for core in &self.cores {
            core.control.set_memory(level);
            core.waker.wake();
        }
    }

    /// SIGUSR1: the counters, and what each core did last.
    fn report(&self) {
        let wanted: Vec<_> = self.cores.iter().map(Core::want_recorder).collect();
        let asked = self.databases.ask();
        let deadline_us = after(SNAPSHOT_TIMEOUT);
        let mut sum = Counters::default();
        let mut realms = vec![RealmCounters::default(); self.started.realms.len()];
        for (index, (core, number)) in self.cores.iter().zip(wanted).enumerate() {
            while !core.control.has_answered(number) && clock::now().monotonic_us < deadline_us {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            if !core.control.has_answered(number) {
                warn!(core = index, "the core did not answer; its last counters count");
            }
            sum.add(&core.control.counters());
            for (sum, counted) in realms.iter_mut().zip(core.control.take_realms()) {
                sum.add(&counted);
            }
        }
        // First, because the lines of the recorders may be more than a slow reader of the log takes.
        let counters: Vec<_> =
            sum.named().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        info!("counters: {}", counters.join(" "));
        self.report_realms(&realms);
        self.databases.report(&asked, deadline_us);
        for (index, core) in self.cores.iter().enumerate() {
            for line in core.control.take_recorder().lines() {
                info!(core = index, "recorder: {line}");
            }
        }
    }
}

impl Node {
    /// A line for each realm that has had a session, as many as a log takes.
    fn report_realms(&self, counted: &[RealmCounters]) {
        let mut used = self.started.realms.iter().zip(counted).filter(|(_, realm)| realm.sessions_opened > 0);
        for (name, realm) in used.by_ref().take(REALMS_SHOWN_MAX) {
            let counts: Vec<_> =
                realm.named().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            info!(realm = name, "of this realm: {}", counts.join(" "));
        }
        let left_out = used.count();
        if left_out > 0 {
            info!(realms = left_out, "of these realms nothing is shown: there are too many");
        }
    }
}

/// Waits until all cores run; an error when one of them does not, and then the others are told to end.
fn wait_for_cores(
    cores: &[Core],
    events: &Receiver<NodeEvent>,
    sender: &Sender<NodeEvent>,
) -> Result<(), String> {
    let mut signals = Vec::new();
    let mut begun = 0;
    let result = loop {
        if begun == cores.len() {
            break Ok(());
        }
        match events.recv_timeout(BEGIN_TIMEOUT) {
            Ok(NodeEvent::Begun) => begun += 1,
            Ok(NodeEvent::Signal(signal)) => signals.push(signal),
            Ok(NodeEvent::Ended(_, Err(error))) => break Err(error),
            Ok(NodeEvent::Ended(core, Ok(()))) => break Err(format!("core {core} ended before it began")),
            Err(_) => break Err(format!("{} of {} cores did not begin", cores.len() - begun, cores.len())),
        }
    };
    // They are obeyed once it runs.
    for signal in signals {
        let _ = sender.send(NodeEvent::Signal(signal));
    }
    if result.is_err() {
        for core in cores {
            core.control.give_order(Order::StopNow);
            core.waker.wake();
        }
    }
    result
}

/// The monotonic time in so long, in microseconds.
fn after(time: Duration) -> u64 {
    clock::now().monotonic_us + time.as_micros() as u64
}

/// Cores that the configuration names must be there.
fn check_cores(config: &Config, cores: usize) -> Result<(), String> {
    let check = |what: String, core: usize| {
        if core < cores {
            return Ok(());
        }
        Err(format!("{what} names core {core}, but {cores} run: they count from 0 to {}", cores - 1))
    };
    for (index, listener) in config.listeners.iter().enumerate() {
        for core in listener.cores.iter().flatten() {
            check(format!("listener[{index}].cores"), *core)?;
        }
    }
    for (index, realm) in config.realms.iter().enumerate() {
        if let Some(home) = realm.home {
            check(format!("realm[{index}].home"), home)?;
        }
    }
    Ok(())
}

/// A thread that turns signals into events.
fn watch_signals(events: Sender<NodeEvent>) -> io::Result<signal_hook::iterator::Handle> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
    let handle = signals.handle();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if events.send(NodeEvent::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(handle)
}
