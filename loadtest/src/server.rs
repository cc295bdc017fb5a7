//! A PostgreSQL server of the load test's own, which waits for its disk as others do, and pgbench.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::ports::free_port;
use crate::process::{Process, ended_cpu_us};

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// `nobody`, which every system has: the server refuses to run as root.
const NOBODY: u32 = 65534;

/// A running server, ended and removed with this.
#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
    process: Child,
    port: u16,
}

impl Server {
    /// Makes a cluster in a temporary folder, and starts it with the settings that PostgreSQL comes with, but for the memory and
    /// for what events through its log need.
    pub(crate) fn start() -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("crosspoint-loadtest-db-{}", std::process::id()));
        // Of a process of the same number that was killed.
        let _ = fs::remove_dir_all(&folder);
        let made = fs::create_dir_all(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)))
            .and_then(
                |()| if geteuid().is_root() { chown(&folder, Some(NOBODY), Some(NOBODY)) } else { Ok(()) },
            );
        made.map_err(|error| format!("{}: {error}", folder.display()))?;
        let data = folder.join("data");
        let initialized = own(&program("initdb")?)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output()
            .map_err(|error| format!("initdb does not run: {error}"))?;
        if !initialized.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&initialized.stderr)));
        }
        let port = free_port()?;
        let log = File::create(folder.join("log")).map_err(|error| error.to_string())?;
        let process = own(&program("postgres")?)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "shared_buffers=256MB",
                "-c",
                "wal_level=logical",
                "-c",
            ])
            .args([
                format!("port={port}"),
                "-c".to_owned(),
                format!("unix_socket_directories={}", folder.display()),
            ])
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("postgres does not run: {error}"))?;
        let mut server = Self { folder, process, port };
        let end = Instant::now() + PATIENCE;
        loop {
            let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if state.lines().any(|line| line.trim() == "ready") {
                return Ok(server);
            }
            let ended = server.process.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                return Err(format!("the PostgreSQL server did not start:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::INT);
        let end = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // A file that is still there is nobody's failure.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program of PostgreSQL as the user that servers run as.
fn own(program: &Path) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// A program of PostgreSQL: the newest of Debian's, or whatever is found by its name.
fn program(name: &str) -> Result<PathBuf, String> {
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest =
        versions.map(|entry| entry.path()).filter(|path| version(path).is_some()).max_by_key(version);
    if let Some(path) = newest.map(|path| path.join("bin").join(name)).filter(|path| path.exists()) {
        return Ok(path);
    }
    let found = Command::new(name).arg("--version").output().is_ok();
    if found {
        Ok(name.into())
    } else {
        Err(format!("PostgreSQL's {name} is missing: install its package `postgresql`"))
    }
}

/// What pgbench did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pgbench {
    pub(crate) transactions: f64,
    pub(crate) per_second: f64,
    /// CPU time of pgbench itself, and of the server where its process is known, for one transaction, in microseconds.
    pub(crate) own_us: f64,
    pub(crate) server_us: Option<f64>,
}

impl Pgbench {
    /// Runs a script of prepared statements over and over.
    pub(crate) fn run(
        url: &str,
        script: &str,
        clients: usize,
        seconds: f64,
        server: Option<u32>,
    ) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("crosspoint-loadtest-{}.sql", std::process::id()));
        fs::write(&path, script).map_err(|error| format!("{}: {error}", path.display()))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let of_server = || server.and_then(all_cpu_us);
        let (own_before, server_before) = (ended_cpu_us(std::process::id()), of_server());
        let output = Command::new(program("pgbench")?)
            .args(["--no-vacuum", "--protocol=prepared", "--file"])
            .arg(&path)
            .args(["--client", &clients.to_string(), "--jobs", &clients.min(cores).to_string()])
            .args(["--time", &seconds.ceil().max(1.0).to_string(), url])
            .output()
            .map_err(|error| format!("pgbench does not run: {error}"))?;
        let _ = fs::remove_file(&path);
        let said = String::from_utf8_lossy(&output.stdout);
        let number = |before: &str| -> Option<f64> {
            let rest = said.split_once(before)?.1;
            rest.split([' ', '\n', '(']).next()?.parse().ok()
        };
        let failed = || format!("pgbench: {said}{}", String::from_utf8_lossy(&output.stderr));
        let transactions =
            number("transactions actually processed: ").filter(|count| *count > 0.0).ok_or_else(failed)?;
        let per_second = number("tps = ").ok_or_else(failed)?;
        if !output.status.success() {
            return Err(failed());
        }
        let per_transaction = |before: Option<u64>, after: Option<u64>| {
            Some(after?.saturating_sub(before?) as f64 / transactions)
        };
        Ok(Self {
            transactions,
            per_second,
            own_us: per_transaction(own_before, ended_cpu_us(std::process::id())).unwrap_or_default(),
            server_us: per_transaction(server_before, of_server()),
        })
    }
}

/// CPU time of a server, of those of its processes that have ended as well.
fn all_cpu_us(pid: u32) -> Option<u64> {
    Some(Process { pid }.usage()?.cpu_us() + ended_cpu_us(pid)?)
}
