//! A router that the load test starts itself, with listeners by which a session can choose its core.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::ports::free_port;

/// How long a router may take to start or to end; inside an emulated machine both are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The line of the log that says that it listens.
const READY: &str = "Crosspoint is ready";

/// A running router, ended with this.
#[derive(Debug)]
pub(crate) struct Router {
    binary: PathBuf,
    folder: PathBuf,
    process: Option<Child>,
    /// All cores, core 0, core 1.
    pub(crate) addresses: [SocketAddr; 3],
    /// What is in effect, as `crosspoint check` prints it.
    pub(crate) configuration: String,
}

impl Router {
    /// Starts it with the configuration of a file, if there is one, and listeners of ours.
    pub(crate) fn start(binary: &Path, configuration: Option<&Path>) -> Result<Self, String> {
        let given = match configuration {
            Some(path) => fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
            None => String::new(),
        };
        if given.contains("[[listener]]") {
            return Err("the configuration of a router that is started must not have listeners".to_owned());
        }
        let folder = std::env::temp_dir().join(format!("crosspoint-loadtest-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let addresses = [own_address()?, own_address()?, own_address()?];
        let mut text = given;
        // One processor is core 0 alone.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for (address, cores) in
            addresses.iter().zip(["\"all\"", "[0]", if cores > 1 { "[1]" } else { "[0]" }])
        {
            text.push_str(&format!("\n[[listener]]\nport = {}\ncores = {cores}\n", address.port()));
        }
        let path = folder.join("config.toml");
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        let check = Command::new(binary)
            .args(["check", "--config"])
            .arg(&path)
            .output()
            .map_err(|error| format!("{} does not run: {error}", binary.display()))?;
        if !check.status.success() {
            return Err(String::from_utf8_lossy(&check.stderr).into_owned());
        }
        let mut router = Self {
            binary: binary.to_owned(),
            folder,
            process: None,
            addresses,
            configuration: String::from_utf8_lossy(&check.stdout).into_owned(),
        };
        router.run()?;
        Ok(router)
    }

    /// Starts the process, and waits until it listens.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let log = File::create(self.folder.join("log")).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let process = Command::new(&self.binary)
            .args(["start", "--config"])
            .arg(self.folder.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{} does not run: {error}", self.binary.display()))?;
        let process = self.process.insert(process);
        let end = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.contains(READY) {
                return Ok(());
            }
            let ended = process.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > end {
                return Err(format!("the router did not start:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Waits until its log has this.
    pub(crate) fn wait_for(&self, text: &str) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.contains(text) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the router does not say `{text}`:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it without a warning, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// One of [`Self::counters`].
    pub(crate) fn counter(&self, name: &str) -> Option<u64> {
        self.counters()?.get(name).copied()
    }

    /// The counters by name, as it writes them when asked.
    pub(crate) fn counters(&self) -> Option<BTreeMap<String, u64>> {
        let path = self.folder.join("log");
        let before = counters(&path).len();
        let pid = Pid::from_raw(i32::try_from(self.pid()?).ok()?)?;
        kill_process(pid, Signal::USR1).ok()?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let lines = counters(&path);
            if lines.len() > before {
                let pairs = lines.last()?.split([' ', '"']).filter_map(|word| word.split_once('='));
                return Some(
                    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect(),
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.kill();
        // A file that is still there is nobody's failure.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn counters(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.contains("counters: ")).map(str::to_owned).collect()
}

fn own_address() -> Result<SocketAddr, String> {
    Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)))
}
