//! A core that fails: the process says where, and is never half dead.
//!
//! The faults come from a world that stands between the shards and the kernel, in a router that this test program runs
//! as a child: the router that people run has no such switch.

use std::io::{self, IoSlice, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crosspoint::config;
use crosspoint::node::{Node, log};
use crosspoint::router::Now;
use crosspoint::shard::kernel::Kernel;
use crosspoint::shard::world::{Accepted, Ready, World};
use rustix::process::Signal;

use crate::harness::{Client, PATIENCE, Received, Router, Start, not_tested, processors, wait_until};

/// Says that this process is the child.
const CHILD: &str = "CROSSPOINT_TEST_FAULTY_ROUTER";

/// How long a core is stuck that goes on by itself: the node looks every second.
const STUCK: Duration = Duration::from_millis(2500);

/// Lets the core go on that is stuck until another one gets this word.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// The kernel, until somebody sends one of the words below.
struct Faulty {
    kernel: Kernel,
    /// Its next wait for something to do hears no doorbell.
    is_deaf: bool,
}

/// Stays here until another core is told to release this one.
fn until_released() {
    // It ends when its test has failed, too.
    let until = Instant::now() + PATIENCE * 2;
    while !RELEASED.load(Ordering::Relaxed) && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

impl World for Faulty {
    type Socket = OwnedFd;

    fn now(&mut self) -> Now {
        self.kernel.now()
    }

    fn wait(&mut self, block: bool, ready: &mut Vec<Ready>) {
        if block && std::mem::take(&mut self.is_deaf) {
            until_released();
        }
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
        let count = self.kernel.recv(socket, buffer)?;
        let has = |word: &str| buffer[..count].windows(word.len()).any(|window| window == word.as_bytes());
        if has("com.fault.panic") {
            panic!("a fault that the test asked for");
        }
        if has("com.fault.stuck") {
            let until = Instant::now() + STUCK;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        RELEASED.fetch_or(has("com.fault.release"), Ordering::Relaxed);
        if has("com.fault.until_released") {
            until_released();
        }
        self.is_deaf |= has("com.fault.deaf_until_released");
        while has("com.fault.forever") {
            std::thread::park_timeout(STUCK);
        }
        Ok(count)
    }

    fn send(&mut self, socket: &OwnedFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.kernel.send(socket, slices)
    }

    fn shutdown_write(&mut self, socket: &OwnedFd) {
        self.kernel.shutdown_write(socket);
    }
}

/// The child of the tests below; by itself it has nothing to do.
#[test]
fn faulty_router() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let text = std::fs::read_to_string(std::env::var("CONFIG").unwrap()).unwrap();
    let config = config::parse("", &text, &[]).unwrap();
    let guard = log::start(&config.node.log).unwrap();
    let node = Node::start_in(&config, |kernel| Faulty { kernel, is_deaf: false }).unwrap();
    // Whatever standard output is, it is not the log's alone here.
    let ready = format!("Crosspoint is ready {:?}\n", node.started().listeners);
    io::stdout().write_all(ready.as_bytes()).unwrap();
    let result = node.run();
    drop(guard);
    if let Err(error) = result {
        eprintln!("crosspoint: {error}");
        std::process::exit(1);
    }
}

/// A router whose cores fail when they are told to.
pub(super) fn start(config: &str) -> Start {
    Start::new(config)
        .program(
            &std::env::current_exe().unwrap(),
            &["--exact", "process::faults::faulty_router", "--nocapture", "--test-threads=1"],
        )
        .variable(CHILD, "1")
}

/// The whole lines of the log that say this of core 0. Of other cores it may be said as well, where a busy machine leaves one aside
/// for so long.
fn told_of_core_0(router: &Router, said: &str) -> Vec<String> {
    let log = router.log();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter(|line| line.contains(said) && line.contains("\"core\":0")).map(str::to_owned).collect()
}

pub(super) fn wait_for_core_0(router: &Router, said: &str) {
    wait_until(said, || !told_of_core_0(router, said).is_empty());
}

#[test]
fn a_core_that_panics_takes_the_process_with_it_and_says_what_it_did() {
    for runtime in ["auto", "thread"] {
        let mut router = start(&format!("[node]\nruntime = \"{runtime}\"\n")).router();
        let mut others: Vec<_> = (0..8).map(|_| Client::join(router.address(), "realm1")).collect();
        let mut client = Client::join(router.address(), "realm1");
        client.send(r#"[48,1,{},"com.fault.panic"]"#);
        let status = router.wait(PATIENCE).unwrap_or_else(|| panic!("it goes on:\n{}", router.log()));
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}: {}", router.log());
        for other in &mut others {
            assert!(matches!(other.receive(), Received::Closed(_) | Received::Reset));
        }
        let log = router.log();
        for piece in
            ["shard-", "panicked", "a fault that the test asked for", "HELLO", "This is a bug of Crosspoint"]
        {
            assert!(log.contains(piece), "{piece} is missing in:\n{log}");
        }
    }
}

#[test]
fn a_core_that_is_stuck_is_named_once_and_the_others_go_on() {
    let processors = processors();
    let cores = processors.len();
    let other_core = cores - 1;
    let mut router = start(&format!(
        "[node]\ncores = {processors:?}\n[[listener]]\nport = 0\ncores = [0]\n[[listener]]\nport = 0\ncores = [{other_core}]\n\
         [[realm]]\nname = \"r\"\nhome = {other_core}\n[[realm.role]]\nname = \"anonymous\"\n\
         [[realm.role.permission]]\nuri = \"\"\nmatch = \"prefix\"\nallow = \"all\"\n"
    ))
    .router();
    let mut client = Client::join(router.addresses[0], "r");
    let mut other = Client::join(router.addresses[1], "r");
    let fault = if cores > 1 { "com.fault.until_released" } else { "com.fault.stuck" };
    client.send(&format!(r#"[48,1,{{}},"{fault}"]"#));
    wait_for_core_0(&router, "the core is stuck in a turn");
    let line = told_of_core_0(&router, "the core is stuck in a turn").remove(0);
    for piece in ["\"ERROR\"", "\"lasts_ms\":"] {
        assert!(line.contains(piece), "{piece} is missing in {line}");
    }
    if cores > 1 {
        // Nobody has released the first one yet.
        assert!(other.ask(r#"[48,1,{},"com.nowhere"]"#).contains("no_such_procedure"));
        assert!(other.ask(r#"[48,2,{},"com.fault.release"]"#).contains("no_such_procedure"));
    } else {
        not_tested("there is one processor only, and no other core that could go on");
    }
    assert!(client.receive().message().contains("no_such_procedure"));
    assert_eq!(told_of_core_0(&router, "the core is stuck in a turn").len(), 1, "{}", router.log());
    drop((client, other));
    router.signal(Signal::TERM);
    assert_eq!(router.wait(PATIENCE).unwrap().code(), Some(0), "{}", router.log());
}

#[test]
fn a_core_that_is_stuck_for_ever_does_not_prevent_the_end() {
    let mut router =
        start("[node]\nshutdown_timeout_ms = 200\n[[listener]]\nport = 0\ncores = [0]\n").router();
    let mut client = Client::join(router.address(), "realm1");
    client.send(r#"[48,1,{},"com.fault.forever"]"#);
    wait_for_core_0(&router, "the core is stuck in a turn");
    router.signal(Signal::TERM);
    let status = router.wait(PATIENCE).unwrap_or_else(|| panic!("it goes on:\n{}", router.log()));
    assert_eq!(status.code(), Some(1), "{}", router.log());
    assert!(router.log().contains("core 0 did not end: stuck in a turn"), "{}", router.log());
}
