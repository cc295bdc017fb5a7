//! The router as a child process: start, counters, memory, descriptors, end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::Address;
use crate::harness::{self, Folder, PATIENCE, READY, Start};

pub(super) use crate::harness::wait_until as eventually;

/// How long the answer to one SIGUSR1 is waited for: the log loses lines rather than wait.
const COUNTERS_PATIENCE: Duration = Duration::from_secs(20);

/// Waits between two looks at counters.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a test sets.
#[derive(Clone, Copy, Default)]
pub(super) struct Settings<'a> {
    /// Lines of `[node]`.
    pub(super) node: &'a str,
    /// Lines of `[limits]`.
    pub(super) limits: &'a str,
    /// `[[realm]]` tables; without any there is `realm1`, where everybody may do everything.
    pub(super) realms: &'a str,
    /// Lines of every `[[listener]]`.
    pub(super) listener: &'a str,
}

/// A router with a listener on each of two cores, one on a Unix socket, and one on IPv6.
pub(super) struct Router {
    process: harness::Router,
    /// For the Unix socket.
    _folder: Folder,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    /// TCP, served by core 0 alone.
    pub(super) near: Address,
    /// TCP, served by core 1 alone (core 0 where there is only one).
    pub(super) far: Address,
    /// A Unix socket of all cores.
    pub(super) unix: Address,
    /// TCP on `[::1]`, all cores (127.0.0.1 where there is no IPv6).
    pub(super) ipv6: Address,
    sockets_at_start: usize,
}

/// What the router wrote to standard output, read as it comes: the lines of its flight recorder are too many to keep.
#[derive(Default)]
struct Log {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

/// Limits by which a test fills an outbox quickly; no pings, so that silence has no say. Further lines may follow.
pub(super) const SMALL_OUTBOX: &str = "message_bytes_max = \"64 KiB\"\noutbox_soft_bytes = \"256 KiB\"\n\
    outbox_hard_bytes = \"1 MiB\"\nlinger_timeout_ms = 500\nping_interval_ms = 0\n";

/// The counters of all cores at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counters(BTreeMap<String, u64>);

impl Counters {
    pub(super) fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("there is no counter {name}"))
    }

    /// Closed connections by reason, those that did not change since `before` left out.
    pub(super) fn closed_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let closed = self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("closed_")?, *value)));
        closed
            .map(|(reason, value)| (reason.to_owned(), value - before.get(&format!("closed_{reason}"))))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Reasons and how many connections ended for each.
pub(super) fn reasons<const N: usize>(list: [(&str, u64); N]) -> BTreeMap<String, u64> {
    list.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

impl Router {
    /// With these lines in `[limits]`.
    pub(super) fn start(limits: &str) -> Self {
        Self::start_with(Settings { limits, ..Settings::default() })
    }

    pub(super) fn start_with(settings: Settings<'_>) -> Self {
        let folder = Folder::new();
        let socket = folder.path().join("socket");
        let config = config_text(settings, &socket.display().to_string());
        let mut process = Start::new(&config).stdout(Stdio::piped()).spawn();
        let log = Arc::new(Log::default());
        let reader = read_lines(process.stdout(), Arc::clone(&log));
        let written = log.wait(PATIENCE, |written| written.ended || written.line(0, READY).is_some());
        let Some(ready) = written.line(0, READY) else {
            panic!("the router did not start: {:?} {}", written.lines, process.log());
        };
        let addresses = harness::addresses(ready);
        drop(written);
        let [near, far, ipv6] = addresses[..] else { panic!("unexpected listeners: {addresses:?}") };
        let mut router = Self {
            process,
            _folder: folder,
            log,
            reader: Some(reader),
            near: Address::Tcp(near),
            far: Address::Tcp(far),
            unix: Address::Unix(socket),
            ipv6: Address::Tcp(ipv6),
            sockets_at_start: 0,
        };
        router.sockets_at_start = router.sockets();
        router
    }

    /// Stops it where it stands, and lets it go on.
    pub(super) fn freeze(&self, time: Duration) {
        self.process.signal(Signal::STOP);
        std::thread::sleep(time);
        self.process.signal(Signal::CONT);
    }

    /// Asks for the counters.
    pub(super) fn counters(&self) -> Counters {
        for _ in 0..6 {
            let known = self.log.lock().lines.len();
            self.process.signal(Signal::USR1);
            if let Some(counters) = self.log.counters_after(known) {
                return counters;
            }
        }
        panic!("the router does not say its counters");
    }

    /// Waits until a counter has at least this value; returns all of them.
    pub(super) fn wait_for(&self, name: &str, value: u64) -> Counters {
        let started = Instant::now();
        loop {
            let counters = self.counters();
            if counters.get(name) >= value {
                return counters;
            }
            assert!(started.elapsed() < PATIENCE, "{name} is {}, not {value}", counters.get(name));
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until exactly these connections ended since `before`.
    pub(super) fn expect_closed<const N: usize>(&self, before: &Counters, expected: [(&str, u64); N]) {
        let expected = reasons(expected);
        let total: u64 = expected.values().sum();
        let started = Instant::now();
        loop {
            let closed = self.counters().closed_since(before);
            if closed.values().sum::<u64>() >= total || started.elapsed() > PATIENCE {
                assert_eq!(closed, expected);
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Resident memory, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.process.state().resident_bytes
    }

    /// Its memory is what it was, or not so much more that something without a bound were in it.
    pub(super) fn expect_memory_near(&self, before: u64) {
        let now = self.memory_bytes();
        assert!(now < before + (24 << 20), "{before} became {now}");
    }

    /// Open sockets, those that listen included.
    pub(super) fn sockets(&self) -> usize {
        let pid = self.process.pid().as_raw_nonzero();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        // A descriptor may be gone again before it is looked at.
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// Waits until the router has no connection left.
    pub(super) fn expect_no_connections(&self) {
        eventually("every connection is closed", || self.sockets() == self.sockets_at_start);
    }

    /// All clients are gone: it must hold nothing of them, and end well.
    pub(super) fn stop(self) {
        self.expect_no_connections();
        let counters = self.counters();
        assert_eq!(counters.get("sessions_opened"), counters.get("sessions_ended"));
        self.stop_with_clients();
    }

    /// Ends it whoever is connected.
    pub(super) fn stop_with_clients(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(PATIENCE).expect("the router does not end after SIGTERM");
        self.reader.take().unwrap().join().unwrap();
        let error = self.process.log();
        assert!(status.success(), "the router ended with {status}: {error}");
        assert_eq!(error, "", "a router that ends well says nothing on standard error");
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let written = self.log.lock();
            let last = written.lines.len().saturating_sub(20);
            eprintln!("the router wrote last:\n{}\n{}", written.lines[last..].join("\n"), self.process.log());
        }
    }
}

impl Written {
    /// The first line behind the first `known` that has this text.
    fn line(&self, known: usize, text: &str) -> Option<&String> {
        self.lines[known..].iter().find(|line| line.contains(text))
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap()
    }

    fn wait(&self, time: Duration, condition: impl Fn(&Written) -> bool) -> MutexGuard<'_, Written> {
        self.changed.wait_timeout_while(self.lock(), time, |written| !condition(written)).unwrap().0
    }

    /// The counters in the first line that has some behind the first `known`.
    fn counters_after(&self, known: usize) -> Option<Counters> {
        const COUNTERS: &str = "counters: ";
        let written =
            self.wait(COUNTERS_PATIENCE, |written| written.ended || written.line(known, COUNTERS).is_some());
        let (_, rest) = written.line(known, COUNTERS)?.split_once(COUNTERS)?;
        let pairs = rest.split('"').next()?.split(' ').map(|pair| pair.split_once('=').unwrap());
        Some(Counters(pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()))
    }
}

/// A `[[realm]]` where everybody may do everything, with these lines of its own and of its role.
pub(super) fn open_realm(name: &str, lines: &str, role_lines: &str) -> String {
    format!(
        "[[realm]]\nname = \"{name}\"\n{lines}\n[[realm.role]]\nname = \"anonymous\"\n{role_lines}\n\
         [[realm.role.permission]]\nuri = \"\"\nmatch = \"prefix\"\nallow = \"all\"\n"
    )
}

fn read_lines(stream: impl Read + Send + 'static, log: Arc<Log>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if !line.contains("recorder: ") {
                log.lock().lines.push(line);
                log.changed.notify_all();
            }
        }
        log.lock().ended = true;
        log.changed.notify_all();
    })
}

fn config_text(settings: Settings<'_>, socket: &str) -> String {
    let Settings { node, limits, realms, listener } = settings;
    let cores: Vec<_> = harness::processors().into_iter().take(2).collect();
    let far = cores.len().saturating_sub(1);
    format!(
        "[node]\ncores = {cores:?}\n{node}\n[node.log]\nformat = \"json\"\n[limits]\n{limits}\n\
         [[listener]]\nport = 0\ncores = [0]\n{listener}\n\
         [[listener]]\nport = 0\ncores = [{far}]\n{listener}\n\
         [[listener]]\nunix = \"{socket}\"\n{listener}\n\
         [[listener]]\nhost = \"{}\"\nport = 0\n{listener}\n{realms}\n",
        loopback_of_ipv6()
    )
}

/// Where the listener for IPv6 listens; said once where that is not IPv6.
fn loopback_of_ipv6() -> &'static str {
    static LOOPBACK: OnceLock<&str> = OnceLock::new();
    LOOPBACK.get_or_init(|| match TcpListener::bind(("::1", 0)) {
        Ok(_) => "::1",
        Err(error) => {
            harness::not_tested(&format!(
                "[::1] cannot be bound ({error}): 127.0.0.1 stands in for IPv6 in all tests"
            ));
            "127.0.0.1"
        }
    })
}
