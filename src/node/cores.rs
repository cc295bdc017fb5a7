//! The cores of a node: what each is made of, and the threads they run on.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use super::NodeEvent;
use super::databases::{Databases, Entrances};
use super::liveness::Liveness;
use crate::config::{Config, Limits, Listener};
use crate::database::DatabaseEnd;
use crate::link::LinkConfig;
use crate::router::peer::{CoreId, PeerMessage};
use crate::router::{Router, RouterConfig, doors, home_of};
use crate::shard::checks::{Checkers, CheckersEnd};
use crate::shard::control::Control;
use crate::shard::entrance::Entrance;
use crate::shard::kernel::Kernel;
use crate::shard::listener::Listening;
use crate::shard::mesh::{self, CoreWaker, MeshEnd, SharedDoorbell};
use crate::shard::park::{self, Host};
use crate::shard::poller::{EventDoorbell, Poller};
use crate::shard::world::World;
use crate::shard::{Shard, ShardParts};

/// One core, from outside.
pub(super) struct Core {
    pub(super) processor: usize,
    pub(super) control: Arc<Control>,
    pub(super) waker: CoreWaker,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) liveness: Liveness,
}

impl Core {
    /// Asks for its counters; returns the number of the answer.
    pub(super) fn want_counters(&self) -> u32 {
        let number = self.control.want_counters();
        self.waker.wake();
        number
    }

    /// Asks for its counters and its flight recorder; returns the number of the answer.
    pub(super) fn want_recorder(&self) -> u32 {
        let number = self.control.want_recorder();
        self.waker.wake();
        number
    }
}

/// What all cores are made of.
pub(super) struct NodeParts<'a> {
    pub(super) config: &'a Config,
    pub(super) limits: Limits,
    pub(super) host: Host,
    pub(super) processors: &'a [usize],
}

/// `world` makes of the kernel what a shard stands in.
pub(super) fn start_cores<W: World + Send + 'static>(
    parts: NodeParts<'_>,
    mut sockets: Vec<Vec<Option<Listening>>>,
    events: &Sender<NodeEvent>,
    world: impl Fn(Kernel) -> W,
) -> Result<(Vec<Core>, Databases), String> {
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
    let wakers: Vec<_> = (0..count).filter_map(|core| Some(ends.first()?.waker(core))).collect();
    let entrances = enter_databases(parts.config, &mut sockets).map_err(failed)?;
    let databases = Databases::start(parts.config, &wakers, &entrances).map_err(failed)?;
    let checkers =
        Checkers::start(limits.check_threads, limits.checks_waiting_max, wakers).map_err(failed)?;
    let links: Vec<_> = parts
        .config
        .listeners
        .iter()
        .cloned()
        .chain(entrances.iter().map(|_| Listener::of_database()))
        .map(|listener| LinkConfig { listener, limits: parts.limits.clone() })
        .collect();
    let router_config = RouterConfig {
        realms: parts.config.realms.clone(),
        limits: parts.limits,
        doors: doors(parts.config),
        publishers: super::databases::publishers(parts.config),
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
            world: world(kernel),
            end,
            control: Arc::clone(&control),
            checkers: checkers.end(number),
            databases: databases.end(number),
            events: events.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || core.run())
            .map_err(failed)?;
        cores.push(Core { processor, control, waker, thread: Some(thread), liveness: Liveness::default() });
    }
    Ok((cores, databases))
}

/// A way in for each database that calls and subscribes, behind the listeners of the configuration: to the core where calls of
/// its realm are routed.
fn enter_databases(config: &Config, sockets: &mut [Vec<Option<Listening>>]) -> io::Result<Entrances> {
    let mut entrances = Vec::new();
    for database in config.databases.iter().filter(|database| database.inside.is_some()) {
        let entrance = Entrance::new()?;
        let realm = config.realms.iter().find(|realm| realm.name == database.realm);
        let home = realm.map_or(0, |realm| usize::from(home_of(realm, sockets.len() as u16).0));
        for (core, of_core) in sockets.iter_mut().enumerate() {
            of_core.push((core == home).then(|| Arc::clone(&entrance).into()));
        }
        entrances.push(entrance);
    }
    Ok(entrances)
}

/// Everything that the thread of a core takes with it.
struct CoreStart<W> {
    number: usize,
    processor: usize,
    host: Host,
    limits: Arc<Limits>,
    links: Vec<LinkConfig>,
    router_config: RouterConfig,
    cores: u16,
    seed: [u8; 32],
    world: W,
    end: MeshEnd<PeerMessage>,
    control: Arc<Control>,
    checkers: CheckersEnd,
    databases: Option<DatabaseEnd>,
    events: Sender<NodeEvent>,
}

impl<W: World> CoreStart<W> {
    fn run(self) {
        let core = CoreId(self.number as u16);
        let (number, events) = (self.number, self.events);
        let ended = park::run(self.host, self.processor, || {
            let _ = events.send(NodeEvent::Begun);
            let mut shard = Shard::new(ShardParts {
                core,
                limits: self.limits,
                links: self.links,
                router: Router::new(&self.router_config, core, self.cores, self.seed),
                world: self.world,
                mesh: self.end,
                control: self.control,
            });
            shard.check_by(self.checkers);
            if let Some(databases) = self.databases {
                shard.query_by(Box::new(databases));
            }
            shard
        });
        // The node is gone only when the process ends.
        let _ = events.send(NodeEvent::Ended(number, ended.map_err(|error| error.to_string())));
    }
}
