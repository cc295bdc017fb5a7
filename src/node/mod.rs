//! The process: start in order, watch, stop in reverse.

pub mod log;
mod memory;
mod preflight;
mod processors;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

use self::memory::MemoryWatcher;
use crate::config::{Config, ListenAddress, ListenerMode, Realm};
use crate::link::LinkConfig;
use crate::metrics::Counters;
use crate::router::peer::{CoreId, PeerMessage};
use crate::router::{Router, RouterConfig};
use crate::shard::control::{Control, Order};
use crate::shard::kernel::Kernel;
use crate::shard::listener::{self, Listening, TcpOptions, UnixPath};
use crate::shard::mesh::{self, CoreWaker, MeshEnd, SharedDoorbell};
use crate::shard::park::{self, Host};
use crate::shard::poller::{EventDoorbell, Poller};
use crate::shard::{MemoryLevel, Shard, ShardParts, clock};

/// How often the node looks at its cores and at the memory.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// A turn that lasts longer than this is reported, in microseconds.
const TURN_US_MAX: u64 = 1_000_000;

/// How long a snapshot of the counters is waited for.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// A shard has ended.
    Ended(usize, Result<(), String>),
}

/// One core, from outside.
struct Core {
    processor: usize,
    control: Arc<Control>,
    waker: CoreWaker,
    thread: Option<JoinHandle<()>>,
    /// The turn that was reported as too long.
    reported_turn_us: u64,
}

/// A running router.
pub struct Node {
    cores: Vec<Core>,
    events: Receiver<NodeEvent>,
    memory: MemoryWatcher,
    memory_level: MemoryLevel,
    shutdown_timeout: Duration,
    started: Started,
    signals: signal_hook::iterator::Handle,
    /// Removed when the node ends.
    _unix_paths: Vec<UnixPath>,
}

impl Node {
    /// Starts the router: checks the machine, opens the sockets, starts a shard on each core.
    ///
    /// # Errors
    /// What is in the way, and what to do about it. Nothing runs then.
    pub fn start(config: &Config) -> Result<Self, NodeError> {
        let processors = processors::select(config.node.cores.as_deref()).map_err(NodeError::Preflight)?;
        check_cores(config, processors.len()).map_err(NodeError::Preflight)?;
        let (host, warning) = preflight::choose_host(config.node.runtime).map_err(NodeError::Preflight)?;
        let connections_max = preflight::connections(&config.limits).map_err(NodeError::Preflight)?;
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
        let cores = start_cores(parts, sockets.by_core, &sender).map_err(NodeError::Failed)?;
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
            events,
            memory,
            memory_level: MemoryLevel::Normal,
            shutdown_timeout: config.node.shutdown_timeout,
            started,
            signals,
            _unix_paths: sockets.unix_paths,
        })
    }

    /// What was started.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Runs until the first SIGTERM or SIGINT and all cores have ended, or the second one.
    ///
    /// # Errors
    /// A core that could not start or ended by itself.
    pub fn run(mut self) -> Result<(), NodeError> {
        let mut stop_at_us: Option<u64> = None;
        let mut left = self.cores.len();
        let mut failure = None;
        while left > 0 {
            match self.events.recv_timeout(WATCH_INTERVAL) {
                Ok(NodeEvent::Signal(SIGUSR1)) => self.report(),
                Ok(NodeEvent::Signal(_)) if stop_at_us.is_some() => self.order(Order::StopNow),
                Ok(NodeEvent::Signal(_)) => {
                    info!("stopping: sessions are told, and calls under way may finish");
                    stop_at_us = Some(clock::now().monotonic_us + self.shutdown_timeout.as_micros() as u64);
                    self.order(Order::Stop);
                }
                Ok(NodeEvent::Ended(core, result)) => {
                    left -= 1;
                    if let Some(thread) = self.cores[core].thread.take() {
                        let _ = thread.join();
                    }
                    if let Err(error) = result {
                        failure.get_or_insert(error);
                        self.order(Order::StopNow);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.watch_turns();
            self.watch_memory();
            if stop_at_us.is_some_and(|at_us| at_us <= clock::now().monotonic_us) {
                warn!("the time to stop in is over; the connections that are left are closed");
                self.order(Order::StopNow);
                stop_at_us = Some(u64::MAX);
            }
        }
        self.signals.close();
        match failure {
            Some(error) => Err(NodeError::Failed(error)),
            None => Ok(()),
        }
    }

    fn order(&self, order: Order) {
        for core in &self.cores {
            core.control.give_order(order);
            core.waker.wake();
        }
    }

    /// Names a core whose turn lasts too long: nothing in a turn may block.
    fn watch_turns(&mut self) {
        let now_us = clock::now().monotonic_us;
        for (number, core) in self.cores.iter_mut().enumerate() {
            let Some(began_us) = core.control.turn_began_us() else { continue };
            let lasts_us = now_us.saturating_sub(began_us);
            if lasts_us > TURN_US_MAX && core.reported_turn_us != began_us {
                core.reported_turn_us = began_us;
                let processor = core.processor;
                error!(core = number, processor, lasts_ms = lasts_us / 1000, "the core is stuck in a turn");
            }
        }
    }

    fn watch_memory(&mut self) {
        let (level, percent) = self.memory.level();
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
        let wanted: Vec<_> = self
            .cores
            .iter()
            .map(|core| {
                let number = core.control.want_snapshot();
                core.waker.wake();
                number
            })
            .collect();
        let deadline_us = clock::now().monotonic_us + SNAPSHOT_TIMEOUT.as_micros() as u64;
        let mut sum = Counters::default();
        for (index, (core, number)) in self.cores.iter().zip(wanted).enumerate() {
            let mut snapshot = core.control.snapshot();
            while snapshot.number < number && clock::now().monotonic_us < deadline_us {
                std::thread::park_timeout(Duration::from_millis(1));
                snapshot = core.control.snapshot();
            }
            if snapshot.number < number {
                warn!(core = index, "the core did not answer; its last counters count");
            }
            sum.add(&snapshot.counters);
            for line in snapshot.recorder.lines() {
                info!(core = index, "recorder: {line}");
            }
        }
        let counters: Vec<_> =
            sum.named().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        info!("counters: {}", counters.join(" "));
    }
}

/// What all cores are made of.
struct NodeParts<'a> {
    config: &'a Config,
    limits: crate::config::Limits,
    host: Host,
    processors: &'a [usize],
}

fn start_cores(
    parts: NodeParts<'_>,
    sockets: Vec<Vec<Option<Listening>>>,
    events: &Sender<NodeEvent>,
) -> Result<Vec<Core>, String> {
    let count = parts.processors.len();
    let failed = |error: io::Error| format!("a core cannot be set up: {error}");
    let mut doorbells = Vec::with_capacity(count);
    for _ in 0..count {
        doorbells.push(EventDoorbell::new().map_err(failed)?);
    }
    let shared = doorbells.iter().map(|doorbell| Arc::clone(doorbell) as SharedDoorbell).collect();
    let ends = mesh::connect::<PeerMessage>(parts.limits.ring_entries, shared);
    let mut seed = [0; 32];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| format!("the kernel gives no random numbers: {error}"))?;
    let limits = Arc::new(parts.limits.clone());
    let links: Vec<_> = parts
        .config
        .listeners
        .iter()
        .map(|listener| LinkConfig { listener: listener.clone(), limits: parts.limits.clone() })
        .collect();
    let router_config = RouterConfig {
        realms: parts.config.realms.clone(),
        limits: parts.limits,
        listener_roles: parts.config.listeners.iter().map(|listener| listener.role.clone()).collect(),
    };
    let mut cores = Vec::with_capacity(count);
    for (number, ((end, doorbell), sockets)) in ends.into_iter().zip(doorbells).zip(sockets).enumerate() {
        let kernel = Poller::new(doorbell).and_then(|poller| Kernel::new(poller, sockets)).map_err(failed)?;
        let control = Arc::new(Control::default());
        let processor = parts.processors[number];
        let waker = end.waker(number);
        let core = CoreStart {
            number,
            processor,
            host: parts.host,
            limits: Arc::clone(&limits),
            links: links.clone(),
            router_config: router_config.clone(),
            cores: count as u16,
            seed,
            kernel,
            end,
            control: Arc::clone(&control),
            events: events.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || core.run())
            .map_err(failed)?;
        cores.push(Core { processor, control, waker, thread: Some(thread), reported_turn_us: 0 });
    }
    Ok(cores)
}

/// Everything that the thread of a core takes with it.
struct CoreStart {
    number: usize,
    processor: usize,
    host: Host,
    limits: Arc<crate::config::Limits>,
    links: Vec<LinkConfig>,
    router_config: RouterConfig,
    cores: u16,
    seed: [u8; 32],
    kernel: Kernel,
    end: MeshEnd<PeerMessage>,
    control: Arc<Control>,
    events: Sender<NodeEvent>,
}

impl CoreStart {
    fn run(self) {
        let core = CoreId(self.number as u16);
        let (number, events) = (self.number, self.events);
        let ended = park::run(self.host, self.processor, || {
            Shard::new(ShardParts {
                core,
                limits: self.limits,
                links: self.links,
                router: Router::new(&self.router_config, core, self.cores, self.seed),
                world: self.kernel,
                mesh: self.end,
                control: self.control,
            })
        });
        // The node is gone only when the process ends.
        let _ = events.send(NodeEvent::Ended(number, ended.map_err(|error| error.to_string())));
    }
}

/// The sockets of all listeners.
struct Sockets {
    /// For each core, by listener.
    by_core: Vec<Vec<Option<Listening>>>,
    unix_paths: Vec<UnixPath>,
    names: Vec<String>,
}

fn open_listeners(config: &Config, cores: usize) -> Result<Sockets, String> {
    let mut by_core = vec![Vec::new(); cores];
    let mut unix_paths = Vec::new();
    let mut names = Vec::new();
    for listener in &config.listeners {
        let on_core = |core: usize| listener.cores.as_ref().is_none_or(|cores| cores.contains(&core));
        let served: Vec<_> = (0..cores).filter(|core| on_core(*core)).collect();
        let (mut sockets, address) = match &listener.address {
            ListenAddress::Tcp(host, port) => {
                let address = SocketAddr::new(*host, *port);
                let limits = &config.limits;
                let options = TcpOptions::new(listener.backlog, limits.ping_interval, limits.ping_timeout);
                let (sockets, address) = listener::listen_tcp(address, &options, served.len())
                    .map_err(|error| tcp_error(address, &error))?;
                (sockets, address.to_string())
            }
            ListenAddress::Unix(path) => {
                let (socket, guard) = listener::listen_unix(path, listener.backlog)
                    .map_err(|error| unix_error(path, &error))?;
                unix_paths.push(guard);
                (vec![socket; served.len()], path.display().to_string())
            }
        };
        for core in (0..cores).rev() {
            by_core[core].push(if on_core(core) { sockets.pop() } else { None });
        }
        names.push(listener_name(listener, &address));
    }
    Ok(Sockets { by_core, unix_paths, names })
}

/// How people reach a listener.
fn listener_name(listener: &crate::config::Listener, address: &str) -> String {
    let is_unix = matches!(listener.address, ListenAddress::Unix(_));
    let mut ways = Vec::new();
    if listener.websocket {
        let path = &listener.path;
        ways.push(if is_unix {
            format!("WebSocket ({path}) on {address}")
        } else {
            format!("ws://{address}{path}")
        });
    }
    if listener.rawsocket {
        ways.push(if is_unix { format!("RawSocket on {address}") } else { format!("rs://{address}") });
    }
    let echo = if listener.mode == ListenerMode::Echo { " (echo)" } else { "" };
    format!("{}{echo}", ways.join(" and "))
}

fn tcp_error(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!(
                "somebody listens there already; `ss -ltnp 'sport = :{port}'` says who. \
                 End that program, or set another `port` in [[listener]]"
            )
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; set another `port` in [[listener]], or give the capability"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; `ip address` lists those it has. Set another `host` in [[listener]]"
                .to_owned()
        }
        _ => "check `host` and `port` in [[listener]]".to_owned(),
    };
    format!("cannot listen on {address}: {error}; {advice}")
}

fn unix_error(path: &std::path::Path, error: &io::Error) -> String {
    format!("cannot listen on {}: {error}; check `unix` in [[listener]]", path.display())
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

/// A panic ends the process (a corrupt table is worse than a restart), and says what its core did last.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread").to_owned();
        let text = format!(
            "{}{name} panicked: {panic}\nThis is a bug of Crosspoint. The lines above say what the core did last.\n",
            crate::shard::recorder::dump()
        );
        // Standard error may be a pipe that nobody reads: the process ends all the same.
        let (written, done) = channel();
        let writer = std::thread::Builder::new().spawn(move || {
            use std::io::Write as _;
            let _ = io::stderr().write_all(text.as_bytes());
            let _ = written.send(());
        });
        if writer.is_ok() {
            let _ = done.recv_timeout(Duration::from_secs(1));
        }
        std::process::abort();
    }));
}

/// Where a file of the configuration is looked for when none is named.
#[must_use]
pub fn default_config_path() -> PathBuf {
    PathBuf::from("config.toml")
}
