//! A PostgreSQL server of one's own: in a folder that goes with it, on a Unix socket and a free port of loopback, run by a
//! user that is not root, ended by its number.
//!
//! A shell keeps it, and ends it when the test process has ended in whatever way: the other end of the shell's standard
//! input is ours.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{PATIENCE, not_tested};

/// The superuser. On the socket everybody is let in as whom they say; over TCP by SCRAM.
pub const SUPERUSER: &str = "boss";

/// Runs the server until a line or the end comes, then stops it. The folder goes too, unless the line is `keep`.
const KEEPER: &str = r#"folder=$1; shift; "$@" & server=$!; read -r word; kill -INT $server; wait $server; [ "$word" = keep ] || rm -rf "$folder""#;

/// A server, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    programs: PathBuf,
    keeper: Option<Child>,
}

impl Server {
    /// Starts one with further lines of `postgresql.conf`; `None`, said loudly, where PostgreSQL is not installed.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            not_tested(
                "a PostgreSQL server: no /usr/lib/postgresql/*/bin/initdb and none in PATH; install postgresql",
            );
            return None;
        };
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("crosspoint-pg-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Below the folder for temporary files: the path of a socket is at most 107 bytes.
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        // initdb refuses to work for root.
        let user = rustix::process::geteuid().is_root().then(unprivileged_user);
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let mut server = Self { folder, port: 0, user, programs, keeper: None };
        let mut initdb = server.command("initdb");
        initdb.args([
            "--no-sync",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        let output = initdb.args(["-U", SUPERUSER, "-D"]).arg(server.data()).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        // It does not have to outlive the machine, but itself: what the kernel has is kept when it is killed.
        let mut lines = String::from("fsync = off\nlisten_addresses = '127.0.0.1'\nmax_connections = 60\n");
        lines.extend(settings.iter().flat_map(|line| [line, "\n"]));
        let path = server.data().join("postgresql.conf");
        let file = fs::read_to_string(&path).unwrap();
        fs::write(&path, file + &lines).unwrap();
        server.resume();
        Some(server)
    }

    /// One for all tests of a process, which take a database each.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[])).as_ref()
    }

    /// Starts the server again after [`Server::kill`] or [`Server::stop`], on the same port if it had one.
    pub fn resume(&mut self) {
        assert!(self.keeper.is_none(), "it runs");
        if self.port == 0 {
            self.port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        }
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]).arg("-k").arg(&self.folder);
        let mut words: Vec<OsString> = vec![command.get_program().to_owned()];
        words.extend(command.get_args().map(ToOwned::to_owned));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut keeper = self.as_user(Command::new("/bin/sh"));
        keeper.args(["-c", KEEPER, "keeper"]).arg(&self.folder).args(words);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.keeper = Some(keeper.spawn().unwrap());
        let begun = Instant::now();
        while let Err(error) = self.try_connect(SUPERUSER, "postgres") {
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(begun.elapsed() < 3 * PATIENCE, "the server does not answer: {error}\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Stops the server in the orderly way; open connections are cut.
    pub fn stop(&mut self) {
        self.end("keep\n");
    }

    /// Kills all of it, as a machine does that loses its power but for what the kernel has already.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.end("keep\n");
    }

    /// Sends a signal to the server's first process.
    pub fn signal(&self, signal: Signal) {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let number: i32 = text.lines().next().unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(number).unwrap(), signal).unwrap();
    }

    /// Connects over the socket.
    pub fn connect(&self, user: &str, database: &str) -> Client {
        self.try_connect(user, database).unwrap()
    }

    /// As [`Server::connect`], when it may fail.
    pub fn try_connect(&self, user: &str, database: &str) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(&self.folder).port(self.port).user(user).dbname(database);
        config.connect_timeout(PATIENCE).connect(NoTls)
    }

    /// Where its socket is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Of the socket, and of TCP on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its configuration and its data are.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it has said.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// One of its programs, run as its user.
    pub fn command(&self, program: &str) -> Command {
        self.as_user(Command::new(self.programs.join(program)))
    }

    fn as_user(&self, mut command: Command) -> Command {
        command.current_dir(&self.folder).env("LC_ALL", "C").env_remove("PGDATA");
        if let Some((uid, gid)) = self.user {
            // Further groups of root go with it.
            command.uid(uid).gid(gid);
        }
        command
    }

    fn end(&mut self, word: &str) {
        let Some(mut keeper) = self.keeper.take() else { return };
        // A keeper whose server has died by itself may be gone.
        let _ = keeper.stdin.take().unwrap().write_all(word.as_bytes());
        keeper.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("end\n");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where the newest installed server's programs are.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .filter(|(_, path)| path.join("initdb").exists())
        .collect();
    found.sort();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    found
        .pop()
        .map(|(_, path)| path)
        .or_else(|| std::env::split_paths(&paths).find(|path| path.join("initdb").exists()))
}

/// `postgres` where there is such a user, else `nobody`: user and group.
fn unprivileged_user() -> (u32, u32) {
    let text = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut words = line.split(':').skip(2).map(|word| word.parse().ok());
        Some((words.next()??, words.next()??))
    };
    of("postgres").or_else(|| of("nobody")).expect("a user that is not root")
}
