//! A shard on an executor of glommio: while glommio has something to do both go on, and while it has not the shard sleeps in its
//! own epoll.
//!
//! Nothing is measured here. What has to last lasts until the test ends it; where a thread sleeps is read from /proc.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "a test waits in real time")]

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crosspoint::config;
use crosspoint::link::LinkConfig;
use crosspoint::router::peer::CoreId;
use crosspoint::router::{Door, Now, Router, RouterConfig};
use crosspoint::shard::control::{Control, Order};
use crosspoint::shard::kernel::Kernel;
use crosspoint::shard::listener::{TcpOptions, listen_tcp};
use crosspoint::shard::mesh::{self, CoreWaker, Doorbell, SharedDoorbell};
use crosspoint::shard::park::{self, Host, while_pending};
use crosspoint::shard::poller::{EventDoorbell, Poller};
use crosspoint::shard::world::{Accepted, Ready, World};
use crosspoint::shard::{Shard, ShardParts};
use glommio::io::BufferedFile;
use glommio::{LocalExecutorBuilder, Placement};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same number on every architecture.
const IO_URING_ENTER: i64 = 426;

/// epoll_wait and epoll_pwait of x86-64, epoll_pwait of others, epoll_pwait2.
const EPOLL_WAITS: [i64; 4] = [232, 281, 22, 441];

/// A request that is answered at once.
const REQUEST: &[u8] = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Something to be done within a turn.
type Job = Box<dyn FnOnce() + Send>;

/// What the test sees of a shard's turns, and what it does to them.
#[derive(Default)]
struct Turns {
    count: AtomicU64,
    /// No send is taken and each is to be tried again, so that the shard has something to do in every turn.
    busy: AtomicBool,
}

/// The kernel, and jobs of the test.
struct Watched {
    kernel: Kernel,
    turns: Arc<Turns>,
    jobs: Receiver<Job>,
}

impl World for Watched {
    type Socket = OwnedFd;

    fn now(&mut self) -> Now {
        self.turns.count.fetch_add(1, Ordering::Relaxed);
        while let Ok(job) = self.jobs.try_recv() {
            job();
        }
        self.kernel.now()
    }

    fn wait(&mut self, block: bool, ready: &mut Vec<Ready>) {
        self.kernel.wait(block, ready);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.descriptor()
    }

    fn set_deadline(&mut self, deadline_us: Option<u64>) {
        self.kernel.set_deadline(deadline_us);
    }

    fn accept(&mut self, listener: u16) -> io::Result<Accepted<OwnedFd>> {
        self.kernel.accept(listener)
    }

    fn listen(&mut self, listener: u16, on: bool) {
        self.kernel.listen(listener, on);
    }

    fn close_listener(&mut self, listener: u16) {
        self.kernel.close_listener(listener);
    }

    fn register(&mut self, socket: &OwnedFd, slot: u32, generation: u32) -> io::Result<()> {
        self.kernel.register(socket, slot, generation)
    }

    fn recv(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
        self.kernel.recv(socket, buffer)
    }

    fn send(&mut self, socket: &OwnedFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.turns.busy.load(Ordering::Relaxed) {
            return Err(ErrorKind::Interrupted.into());
        }
        self.kernel.send(socket, slices)
    }

    fn shutdown_write(&mut self, socket: &OwnedFd) {
        self.kernel.shutdown_write(socket);
    }
}

/// A shard on a thread of its own.
struct Core {
    address: SocketAddr,
    control: Arc<Control>,
    doorbell: Arc<EventDoorbell>,
    waker: CoreWaker,
    turns: Arc<Turns>,
    jobs: Sender<Job>,
    thread_id: i32,
    thread: Option<JoinHandle<()>>,
}

impl Core {
    /// `None` where there is no io_uring.
    fn start() -> Option<Self> {
        let executor = || LocalExecutorBuilder::new(Placement::Unbound).make().map(drop);
        if !matches!(std::thread::spawn(executor).join(), Ok(Ok(()))) {
            eprintln!("not tested: there is no io_uring");
            return None;
        }
        let text =
            "[[listener]]\nport = 1\n[limits]\nhandshake_timeout_ms = 700\nlinger_timeout_ms = 60000\n";
        let config = config::parse("", text, &[]).unwrap();
        let second = Duration::from_secs(1);
        let options = TcpOptions::new(16, second, second, second);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (mut sockets, address) = listen_tcp(any, &options, 1).unwrap();
        let doorbell = EventDoorbell::new().unwrap();
        let mesh = mesh::connect(16, vec![Arc::clone(&doorbell) as SharedDoorbell]).pop().unwrap();
        let kernel = Kernel::new(Poller::new(Arc::clone(&doorbell)).unwrap(), vec![sockets.pop()]).unwrap();
        let listener = config.listeners[0].clone();
        let router = RouterConfig {
            realms: config.realms,
            limits: config.limits.clone(),
            doors: vec![Door::from(&listener)],
            publishers: Vec::new(),
        };
        let (turns, control) = (Arc::<Turns>::default(), Arc::<Control>::default());
        let (jobs, jobs_of_shard) = channel();
        let waker = mesh.waker(0);
        let world = Watched { kernel, turns: Arc::clone(&turns), jobs: jobs_of_shard };
        let control_of_shard = Arc::clone(&control);
        let processor = core_affinity::get_core_ids().unwrap()[0].id;
        let (started, start) = channel();
        let thread = std::thread::spawn(move || {
            let make = || {
                started.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                Shard::new(ShardParts {
                    core: CoreId(0),
                    limits: Arc::new(config.limits.clone()),
                    links: vec![LinkConfig { listener, limits: config.limits }],
                    router: Router::new(&router, CoreId(0), 1, [7; 32]),
                    world,
                    mesh,
                    control: control_of_shard,
                })
            };
            park::run(Host::Glommio, processor, make).unwrap();
        });
        let thread_id = start.recv().unwrap();
        Some(Self { address, control, doorbell, waker, turns, jobs, thread_id, thread: Some(thread) })
    }

    /// Has something done within a turn.
    fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.send(Box::new(job)).unwrap();
        // Whether it sleeps or not: it does not look for jobs before it does.
        self.doorbell.ring();
    }

    /// Begins an operation of glommio within a turn; what it comes to.
    fn begin<F: Future<Output: Send + 'static> + 'static>(
        &self,
        operation: impl FnOnce() -> F + Send + 'static,
    ) -> Receiver<F::Output> {
        let (sender, receiver) = channel();
        self.run(move || {
            let operation = while_pending(operation());
            glommio::spawn_local(async move { sender.send(operation.await).unwrap() }).detach();
        });
        receiver
    }

    /// A blocking call, which lasts until the sender says so or is dropped.
    fn begin_blocking(&self) -> (Sender<()>, Receiver<()>) {
        let (end, ended) = channel::<()>();
        let done = self.begin(|| async move {
            let wait = move || ended.recv().unwrap_or_default();
            glommio::executor().spawn_blocking(wait).await;
        });
        (end, done)
    }

    /// Asks for the counters: something that the shard cannot overlook before it sleeps.
    fn ask(&self) -> u32 {
        let number = self.control.want_counters();
        self.waker.wake();
        number
    }

    /// Blocking calls; an executor has one thread for them, which a call that lasts keeps from others.
    fn call_blocking(&self) {
        for number in 0..3 {
            let blocking = self.begin(move || glommio::executor().spawn_blocking(move || number));
            assert_eq!(blocking.recv_timeout(PATIENCE).expect("a blocking call"), number);
        }
    }

    /// Timers and files.
    fn use_services(&self) {
        let timer = self.begin(|| glommio::timer::sleep(Duration::from_millis(1)));
        timer.recv_timeout(PATIENCE).expect("a timer");
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/park.rs"));
        let file = self.begin(|| async move {
            let file = BufferedFile::open(path).await.unwrap();
            let text = file.read_at(0, 11).await.unwrap().to_vec();
            file.close().await.unwrap();
            text
        });
        assert_eq!(file.recv_timeout(PATIENCE).expect("a file"), b"//! A shard");
        let several: Vec<_> = (0..50)
            .map(|number| self.begin(move || glommio::timer::sleep(Duration::from_micros(number * 100))))
            .collect();
        for timer in several {
            timer.recv_timeout(PATIENCE).expect("a timer among others");
        }
    }

    /// The system call in which its thread sleeps; `None` while it runs.
    fn sleeps_in(&self) -> Option<i64> {
        let path = format!("/proc/self/task/{}/syscall", self.thread_id);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().next()?.parse().ok().filter(|number| *number >= 0)
    }

    fn wait_until_it_sleeps(&self, through_glommio: bool) {
        if !std::path::Path::new("/proc/self/syscall").exists() {
            eprintln!("not tested: /proc does not tell where a thread sleeps");
            return;
        }
        wait_until("the shard sleeps", || {
            self.sleeps_in().is_some_and(|number| {
                if through_glommio { number == IO_URING_ENTER } else { EPOLL_WAITS.contains(&number) }
            })
        });
    }

    fn turn_count(&self) -> u64 {
        self.turns.count.load(Ordering::Relaxed)
    }

    /// Whatever wakes a shard wakes this one.
    fn require_awake(&self) {
        let number = self.ask();
        wait_until("the doorbell is heard", || self.control.has_answered(number));
        let mut client = connect(self.address);
        client.write_all(REQUEST).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        // A handshake that does not come ends by a timer of the shard.
        let mut silent = connect(self.address);
        let _ = silent.read_to_end(&mut Vec::new());
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.control.give_order(Order::StopNow);
        self.waker.wake();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the shard panicked");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_idle_shard_waits_through_glommio_while_that_has_something_to_do() {
    let Some(core) = Core::start() else { return };
    core.use_services();
    core.call_blocking();
    let (end, done) = core.begin_blocking();
    for _ in 0..3 {
        core.wait_until_it_sleeps(true);
        core.require_awake();
        core.use_services();
    }
    drop(end);
    done.recv_timeout(PATIENCE).unwrap();
    // The end of the operation is what wakes it.
    core.wait_until_it_sleeps(false);
    core.require_awake();
}

#[test]
fn a_busy_shard_lets_glommio_run_and_takes_its_turns() {
    let Some(core) = Core::start() else { return };
    core.turns.busy.store(true, Ordering::Relaxed);
    let mut client = connect(core.address);
    client.write_all(REQUEST).unwrap();
    let grows = || {
        let count = core.turn_count();
        wait_until("a thousand turns are taken", || core.turn_count() > count + 1000);
    };
    grows();
    core.use_services();
    core.call_blocking();
    let (end, done) = core.begin_blocking();
    grows();
    core.use_services();
    grows();
    drop(end);
    done.recv_timeout(PATIENCE).unwrap();
    grows();
    core.turns.busy.store(false, Ordering::Relaxed);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    core.wait_until_it_sleeps(false);
}

#[test]
fn a_shard_beside_which_glommio_has_nothing_to_do_sleeps_in_its_own_epoll() {
    let Some(core) = Core::start() else { return };
    for _ in 0..3 {
        for _ in 0..20 {
            core.wait_until_it_sleeps(false);
            let number = core.ask();
            wait_until("the doorbell is heard", || core.control.has_answered(number));
            assert_ne!(core.sleeps_in(), Some(IO_URING_ENTER));
        }
        core.require_awake();
        core.use_services();
        core.call_blocking();
    }
}
