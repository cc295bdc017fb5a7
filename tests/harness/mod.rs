//! A router as a process of its own, and clients of a few lines for it; on loopback and free ports, in a folder that is
//! removed again. Shared by the tests that need a whole process.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test takes what it needs")]

mod client;
#[allow(clippy::duplicate_mod, reason = "servers of databases need it without a harness")]
mod ports;
mod process_state;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

pub use self::client::{Client, Received, WebSocketClient};
pub use self::ports::free_port;
pub use self::process_state::ProcessState;

/// How long a router may take to start or to end, and anything else that has no time of its own, on a slow machine that has
/// other things to do. Only what goes wrong takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The line of the log that says where the router listens.
pub const READY: &str = "Crosspoint is ready";

/// The file that `tests/run` shows at its end: what was not tested.
const NOT_TESTED: &str = "CROSSPOINT_NOT_TESTED";

/// Says that this test leaves something out on this machine, and why. The test harness keeps what tests print, so this
/// goes past it: to the file that is named for it, or to standard error itself.
pub fn not_tested(why: &str) {
    let thread = std::thread::current();
    let line = format!("NOT RUN {}: {why}\n", thread.name().unwrap_or("a test"));
    match std::env::var_os(NOT_TESTED) {
        Some(path) => {
            let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
            // In one piece: other tests write to it, too.
            file.write_all(line.as_bytes()).unwrap();
        }
        // Not by a macro, whose output would be kept.
        None => std::io::stderr().write_all(line.as_bytes()).unwrap(),
    }
}

/// The processors that this process may run on. By itself a router takes no more of them than its control group pays
/// for, so whoever counts on them names them in `node.cores`.
pub fn processors() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// A folder for one test, removed with it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one. Unix sockets fit in it: their paths may not be longer than 107 bytes.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("crosspoint-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Of a process of the same number that was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A file that is still there is no failure of the test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a router is started.
#[derive(Debug)]
pub struct Start {
    config: String,
    wrapper: Vec<String>,
    variables: Vec<(String, String)>,
    stdout: Option<Stdio>,
    binary: PathBuf,
    arguments: Option<Vec<String>>,
}

impl Start {
    /// With this configuration. If it has no listener, it gets one on a free port of loopback.
    pub fn new(config: &str) -> Self {
        let mut config = config.to_owned();
        if !config.contains("[[listener]]") {
            config.push_str("\n[[listener]]\nport = 0\n");
        }
        Self {
            config,
            wrapper: Vec::new(),
            variables: Vec::new(),
            stdout: None,
            binary: PathBuf::from(env!("CARGO_BIN_EXE_crosspoint")),
            arguments: None,
        }
    }

    /// Started by a program that ends in exec, such as `prlimit --memlock=65536`: the process stays the child.
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Standard output goes here instead of into the log file: [`Router::log`] has standard error alone then.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// Another program than the router, with these arguments; the path of the configuration is in `CONFIG`.
    pub fn program(mut self, binary: &Path, arguments: &[&str]) -> Self {
        self.binary = binary.to_owned();
        self.arguments = Some(arguments.iter().map(|argument| (*argument).to_owned()).collect());
        self
    }

    /// Starts it without waiting for anything.
    pub fn spawn(self) -> Router {
        raise_descriptors();
        let folder = Folder::new();
        let config_path = folder.path().join("config.toml");
        fs::write(&config_path, &self.config).unwrap();
        // A wrapper may make it another user, who has to read this whatever the umask is.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&config_path, Permissions::from_mode(0o644)).unwrap();
        let log_path = folder.path().join("log");
        let log = File::create(&log_path).unwrap();
        let mut words = self.wrapper;
        words.push(self.binary.display().to_string());
        words.extend(self.arguments.unwrap_or_else(|| {
            ["start", "--config"]
                .map(str::to_owned)
                .into_iter()
                .chain([config_path.display().to_string()])
                .collect()
        }));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("CONFIG", &config_path)
            .stdin(Stdio::null())
            .stdout(self.stdout.unwrap_or_else(|| log.try_clone().unwrap().into()))
            .stderr(log);
        for (name, value) in self.variables {
            command.env(name, value);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{words:?} does not start: {error}"));
        Router { child: Some(child), folder, log_path, addresses: Vec::new() }
    }

    /// Starts it and waits until it listens.
    pub fn router(self) -> Router {
        let mut router = self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while !router.log().contains(READY) {
            if let Some(status) = router.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("the router ended at once with {status}:\n{}", router.log());
            }
            assert!(Instant::now() < deadline, "the router is not ready:\n{}", router.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        router.addresses = addresses(&router.log());
        router
    }

    /// Runs it until it ends by itself, as it does when it cannot start; its exit code and all that it said.
    pub fn refusal(self) -> (Option<i32>, String) {
        let mut router = self.spawn();
        let status = router.wait(PATIENCE).unwrap_or_else(|| panic!("it runs:\n{}", router.log()));
        (status.code(), router.log())
    }
}

/// The TCP addresses in the line that says where the router listens, in the order of the listeners.
pub fn addresses(log: &str) -> Vec<SocketAddr> {
    let line = log.lines().find(|line| line.contains(READY)).unwrap_or_default();
    let mut found = Vec::new();
    for (at, _) in line.match_indices("s://") {
        let rest = &line[at + 4..];
        let end = rest.find(|c: char| !c.is_ascii_hexdigit() && !".:[]".contains(c)).unwrap_or(rest.len());
        if let Ok(address) = rest[..end].parse()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// A router that runs, killed at the latest when this is dropped.
#[derive(Debug)]
pub struct Router {
    child: Option<Child>,
    folder: Folder,
    log_path: PathBuf,
    /// Where it listens on TCP, in the order of the listeners.
    pub addresses: Vec<SocketAddr>,
}

impl Router {
    /// The address of its first TCP listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it was waited for already"))
    }

    /// What the process costs at this moment.
    pub fn state(&self) -> ProcessState {
        ProcessState::read(self.pid().as_raw_nonzero().get())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The end of its standard output that was asked for with [`Start::stdout`].
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.as_mut().unwrap().stdout.take().unwrap()
    }

    /// All that it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log, without those of flight recorders.
    fn end_of_log(&self) -> String {
        const LINES_MAX: usize = 20;
        let log = self.log();
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("recorder: ")).collect();
        format!("the router's log ends:\n{}", lines[lines.len().saturating_sub(LINES_MAX)..].join("\n"))
    }

    /// Waits until the log has this text, and returns the first line that has it.
    pub fn wait_for_log(&self, text: &str) -> String {
        let mut line = None;
        wait_until(text, || {
            // A whole one: it may be being written at this moment.
            let log = self.log();
            let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            line = lines.find(|line| line.contains(text)).map(|line| line.trim_end().to_owned());
            line.is_some()
        });
        line.unwrap()
    }

    /// The counters, by SIGUSR1.
    pub fn counters(&self) -> Counters {
        let before = self.log().matches("counters: ").count();
        self.signal(Signal::USR1);
        let mut line = String::new();
        wait_until("counters", || {
            let log = self.log();
            // Complete lines only: it is being written at this moment.
            let all: Vec<_> = log.split_inclusive('\n').filter(|line| line.contains("counters: ")).collect();
            let Some(last) = all.last().filter(|last| all.len() > before && last.ends_with('\n')) else {
                return false;
            };
            (*last).clone_into(&mut line);
            true
        });
        Counters(line)
    }

    /// Waits for its end; `None` when it goes on.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            let child = self.child.as_mut()?;
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end, and fails unless it does so with exit code 0.
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait(PATIENCE).unwrap_or_else(|| panic!("it does not stop:\n{}", self.log()));
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.log()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.end_of_log());
        }
        self.kill();
    }
}

/// The line with all counters.
#[derive(Debug)]
pub struct Counters(String);

impl Counters {
    /// One of them; the names are those of src/metrics.rs.
    pub fn of(&self, name: &str) -> u64 {
        let words = self.0.split([' ', '"']);
        let value = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next();
        let value = value.unwrap_or_else(|| panic!("there is no counter {name} in {}", self.0));
        value.trim_end().parse().unwrap()
    }
}

/// Waits until something is so, and fails when it takes too long.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// So many sockets for the clients of a test, or as many as the system gives, which is said.
pub fn sockets_for(wanted: usize) -> usize {
    // Those of the router's and of tests at the same time.
    const OTHERS: u64 = 1000;
    raise_descriptors();
    let given =
        getrlimit(Resource::Nofile).current.map_or(wanted, |limit| limit.saturating_sub(OTHERS) as usize);
    if given < wanted {
        not_tested(&format!("descriptors for {wanted} clients: there are {given}"));
    }
    wanted.min(given.max(100))
}

/// As many descriptors for the clients of a test as the system gives.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    }
}
