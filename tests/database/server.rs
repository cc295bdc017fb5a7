//! A PostgreSQL server of a test's own: a fresh cluster in a folder that is removed again, on a free port of loopback and a
//! Unix socket, as a user without rights, ended by its process ids.
//!
//! The programs are those of Debian's package `postgresql`, which `tests/run` installs, or those in the folder that
//! `POSTGRES_BIN` names; certificates are made by `openssl`. The superuser is `postgres`, which the Unix socket lets in without
//! a password.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

pub use self::ports::free_port;

#[path = "../harness/ports.rs"]
#[allow(clippy::duplicate_mod, reason = "some tests have a harness beside it, and some have not")]
mod ports;

/// The folder of another version's programs. What is not in it, such as `psql`, is Debian's.
const POSTGRES_BIN: &str = "POSTGRES_BIN";

/// How long a server may take to start or to end on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `nobody` and `nogroup`, which every Debian has: initdb refuses to work as root.
const NOBODY: u32 = 65534;

/// A folder that a server's user may use, removed with it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one, with a short path: those of Unix sockets end at 107 bytes.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let path = loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("crosspoint-db-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // Of a process of the same number that was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        };
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        give(&path);
        Self(path)
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

/// Makes a file that of the servers' user.
fn give(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A program as the servers' user.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // Nothing of who runs the test reaches a server or its clients.
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("HOME", "/nonexistent");
    command.stdin(Stdio::null()).current_dir("/");
    command
}

/// A program of PostgreSQL: of the folder that is named, or of the newest version that Debian has installed.
pub fn program(name: &str) -> PathBuf {
    let named = std::env::var_os(POSTGRES_BIN).map(PathBuf::from);
    if let Some(path) = named.map(|folder| folder.join(name)).filter(|path| path.exists()) {
        return path;
    }
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest =
        versions.map(|entry| entry.path()).filter(|path| version(path).is_some()).max_by_key(version);
    let path = newest.map(|path| path.join("bin").join(name)).filter(|path| path.exists());
    path.unwrap_or_else(|| {
        panic!("PostgreSQL's {name} is missing: apt-get install postgresql (tests/run does)")
    })
}

/// Runs a program to its end, which must be a good one.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A fresh cluster, made once for as long as any test has a server: the others copy it.
fn cluster() -> Arc<Folder> {
    static MADE: Mutex<Weak<Folder>> = Mutex::new(Weak::new());
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(folder) = made.upgrade() {
        return folder;
    }
    let folder = Arc::new(Folder::new());
    let data = folder.path().join("data");
    let arguments =
        ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"];
    // Small segments of the log: the cluster is copied for every server.
    run(as_nobody(&program("initdb")).arg("-D").arg(&data).args(arguments).arg("--wal-segsize=1"));
    *made = Arc::downgrade(&folder);
    folder
}

/// Ends a program and removes its folder when this process has ended without having done so: then nothing comes by the pipe
/// any more. It does not wait for ever for one that nobody takes off the list of processes.
const KEEPER: &str = r#"read -r _ && exit; kill -CONT $1; kill -QUIT $1; n=0
while [ $n -lt 100 ] && kill -0 $1 2>/dev/null; do n=$((n + 1)); sleep 0.1; done; rm -rf "$2""#;

/// A program that runs as long as this does, or shorter.
#[derive(Debug)]
struct Kept {
    process: Child,
    keeper: Child,
}

impl Kept {
    fn new(process: Child, folder: &Path) -> Self {
        let mut command = as_nobody(Path::new("/bin/sh"));
        command.args(["-c", KEEPER, "keeper", &process.id().to_string()]).arg(folder);
        let keeper = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Self { process, keeper }
    }

    /// Ends it by a signal, and by force if that takes too long.
    fn end(mut self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.process), signal);
        let begun = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(mut pipe) = self.keeper.stdin.take() {
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.keeper.wait();
    }
}

/// How a server is set up.
#[derive(Debug, Default)]
pub struct Setup {
    settings: Vec<(String, String)>,
    access: Vec<String>,
    certificates: Option<Arc<Certificates>>,
    /// Where its data come from: the folder and port of another server.
    primary: Option<(PathBuf, u16)>,
}

impl Setup {
    /// A line of `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of `pg_hba.conf`. If there is none, everybody is let in; the superuser always is, by the Unix socket.
    pub fn access(mut self, line: &str) -> Self {
        self.access.push(line.to_owned());
        self
    }

    /// A standby that follows another server, which must let everybody in.
    pub fn standby_of(mut self, primary: &Server) -> Self {
        self.primary = Some((primary.directory().to_owned(), primary.port()));
        self
    }

    /// With TLS, by the certificate of that name.
    pub fn certificate(mut self, certificates: &Arc<Certificates>, name: &str) -> Self {
        self.certificates = Some(Arc::clone(certificates));
        let file = |ending: &str| certificates.path(&format!("{name}.{ending}")).display().to_string();
        self.setting("ssl", "on")
            .setting("ssl_cert_file", &file("crt"))
            .setting("ssl_key_file", &file("key"))
            .setting("ssl_ca_file", &certificates.path("ca.crt").display().to_string())
    }

    /// Starts it.
    pub fn start(self) -> Server {
        Server::new(self)
    }
}

/// A server that runs, or was stopped and may be started again in the same place.
#[derive(Debug)]
pub struct Server {
    folder: Folder,
    port: u16,
    process: Option<Kept>,
    /// They must outlive it.
    _certificates: Option<Arc<Certificates>>,
}

impl Server {
    /// One as most tests want it: everybody is let in.
    pub fn start() -> Self {
        Setup::default().start()
    }

    fn new(setup: Setup) -> Self {
        let folder = Folder::new();
        let data = folder.path().join("data");
        if let Some((directory, port)) = &setup.primary {
            copy_of_running(directory, *port, &data);
        } else {
            run(as_nobody(Path::new("cp")).arg("-a").arg(cluster().path().join("data")).arg(&data));
        }
        let port = free_port();
        let mut server = Self { folder, port, process: None, _certificates: setup.certificates };
        let socket = server.directory().display().to_string();
        let mut config = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{socket}'\n\
             fsync = off\nfull_page_writes = off\nshared_buffers = 16MB\nmax_connections = 60\n\
             timezone = 'UTC'\nlog_timezone = 'UTC'\nlog_line_prefix = '%p '\n"
        );
        for (name, value) in &setup.settings {
            config.push_str(&format!("{name} = '{value}'\n"));
        }
        append(&data.join("postgresql.conf"), &config);
        let mut access = "local all postgres trust\n".to_owned();
        if setup.access.is_empty() {
            access.push_str("local all all trust\nhost all all 127.0.0.1/32 trust\n");
            access.push_str("local replication all trust\nhost replication all 127.0.0.1/32 trust\n");
        }
        for line in &setup.access {
            access.push_str(&format!("{line}\n"));
        }
        fs::write(data.join("pg_hba.conf"), access).unwrap();
        server.run();
        server
    }

    /// Starts it again, on the same port with the same data.
    pub fn run(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let data = self.folder.path().join("data");
        let log_path = self.folder.path().join("log");
        let log = File::options().append(true).create(true).open(&log_path).unwrap();
        let mut command = as_nobody(&program("postgres"));
        command.arg("-D").arg(&data).stdout(log.try_clone().unwrap()).stderr(log);
        let begun = Instant::now();
        let mut process = command.spawn().unwrap();
        loop {
            let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            // A server that was killed has left its file: the first line tells whose it is.
            let mut lines = state.lines();
            if lines.next() == Some(&process.id().to_string()) && lines.any(|line| line.trim() == "ready") {
                break;
            }
            if process.try_wait().unwrap().is_some() || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                // After kill -9 the old server's processes may hold its memory, its file or its port for a moment.
                let held =
                    ["is still in use", "old server processes", "already exists", "wait a few seconds"];
                if held.iter().any(|sign| log.contains(sign)) {
                    assert!(begun.elapsed() < PATIENCE, "{log}");
                    File::options().write(true).truncate(true).open(&log_path).unwrap();
                    std::thread::sleep(Duration::from_millis(100));
                    process = command.spawn().unwrap();
                    continue;
                }
                let _ = process.kill();
                panic!("the server does not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(Kept::new(process, self.folder.path()));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its Unix socket.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// Its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A URL of the database `postgres` by loopback; `user` may have a password.
    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs a script as the superuser, one statement after the other, and what it printed, without decoration.
    pub fn psql(&self, sql: &str) -> String {
        psql(self.directory(), self.port, sql).trim_end().to_owned()
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its processes, the first one first.
    fn processes(&self) -> Vec<Pid> {
        let Some(process) = &self.process else { return Vec::new() };
        let first = Pid::from_child(&process.process);
        let mut processes = vec![first];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name in parentheses may have anything in it.
            let parent =
                stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<i32>().ok());
            if parent == Some(first.as_raw_nonzero().get()) {
                processes.extend(Pid::from_raw(id));
            }
        }
        processes
    }

    fn signal(&self, signal: Signal) {
        for process in self.processes() {
            // It may have ended by itself.
            let _ = kill_process(process, signal);
        }
    }

    /// Stops it in the orderly way: transactions are rolled back, sessions are told.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Kills all its processes at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.end(Signal::KILL);
    }

    /// Stops the time for it: its sockets stay open and take what fits.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Stops its first process alone, which takes connections: sessions go on, and nobody new is served.
    pub fn pause_first(&self) {
        kill_process(self.processes()[0], Signal::STOP).unwrap();
    }

    /// And goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(process) = self.process.take() {
            process.end(signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.resume();
        self.end(Signal::QUIT);
    }
}

/// What a script prints, run by the superuser by way of a server's Unix socket.
fn psql(directory: &Path, port: u16, script: &str) -> String {
    let mut command = as_nobody(&program("psql"));
    command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"]);
    command.arg(directory).args(["-p", &port.to_string(), "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Copies the data of a server that runs, for one that will follow it. `pg_basebackup` does the same, but of no version newer than
/// itself.
fn copy_of_running(directory: &Path, port: u16, data: &Path) {
    let (from, to) = (directory.join("data"), data.display());
    // The session that begins a backup has to end it.
    let label = psql(
        directory,
        port,
        &format!(
            "select from pg_backup_start('standby', true);\n\\! cp -a '{}' '{to}'\n\
             select labelfile from pg_backup_stop(false);\n",
            from.display()
        ),
    );
    let write = |file: &str, text: &str| {
        fs::write(data.join(file), text).unwrap();
        give(&data.join(file));
    };
    write("backup_label", &format!("{}\n", label.trim()));
    write("standby.signal", "");
    fs::remove_file(data.join("postmaster.pid")).unwrap();
    let socket = directory.display();
    let primary = format!("primary_conninfo = 'host={socket} port={port} user=postgres'\n");
    append(&data.join("postgresql.conf"), &primary);
}

fn append(path: &Path, text: &str) {
    File::options().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// PgBouncer of Debian's package `pgbouncer`, in front of a server, with any number of clients and a pool of five.
#[derive(Debug)]
pub struct Bouncer {
    process: Option<Kept>,
    port: u16,
    _folder: Folder,
}

impl Bouncer {
    pub fn start(server: &Server, pool_mode: &str) -> Self {
        let folder = Folder::new();
        let port = free_port();
        let users = folder.path().join("users");
        fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        let config = folder.path().join("config.ini");
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {pool_mode}\ndefault_pool_size = 5\n\
             ignore_startup_parameters = options,extra_float_digits\n",
            server.directory().display(),
            server.port(),
            users.display(),
        );
        fs::write(&config, text).unwrap();
        for file in [&users, &config] {
            fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        let log_path = folder.path().join("log");
        let log = File::create(&log_path).unwrap();
        let mut command = as_nobody(Path::new("/usr/sbin/pgbouncer"));
        command.arg(&config).stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("pgbouncer: {error}: apt-get install pgbouncer (tests/run does)"));
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = process.try_wait().unwrap();
            let log = || fs::read_to_string(&log_path).unwrap_or_default();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "pgbouncer does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process: Some(Kept::new(process, folder.path())), port, _folder: folder }
    }

    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(Signal::KILL);
        }
    }
}

/// Keys on it are made in no time.
const CURVE: &str = "ec_paramgen_curve:prime256v1";

/// An authority and what it signed, made by `openssl`: NAME.crt and NAME.key, readable by the servers' user alone.
#[derive(Debug)]
pub struct Certificates(Folder);

impl Certificates {
    /// `ca` signs; `other` is an authority that nobody trusts.
    pub fn new() -> Self {
        let certificates = Self(Folder::new());
        for authority in ["ca", "other"] {
            certificates.self_signed(authority, None, &["ec", "-pkeyopt", CURVE]);
        }
        certificates
    }

    /// A file of them.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn file(&self, name: &str, ending: &str) -> String {
        self.path(&format!("{name}.{ending}")).display().to_string()
    }

    /// One that signs itself, marked as an authority.
    pub fn self_signed(&self, name: &str, host: Option<&str>, algorithm: &[&str]) {
        let (key, certificate) = (self.file(name, "key"), self.file(name, "crt"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-newkey"]).args(algorithm);
        command.args(["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate]);
        if let Some(host) = host {
            command.args(["-addext", &format!("subjectAltName={host}")]);
        }
        run(&mut command);
        self.finish(name);
    }

    /// One that `authority` signed, for such hosts (`DNS:localhost,IP:127.0.0.1`), as of now for so many days.
    pub fn signed(&self, name: &str, authority: &str, hosts: &str, days: i32) {
        self.signed_with(name, authority, hosts, days, &["ec", "-pkeyopt", CURVE], "-sha256");
    }

    /// As well with a key of that algorithm, signed with that hash. The subject is the name, which is a user for clients.
    pub fn signed_with(
        &self,
        name: &str,
        authority: &str,
        hosts: &str,
        days: i32,
        algorithm: &[&str],
        hash: &str,
    ) {
        let (key, request, extensions) =
            (self.file(name, "key"), self.file(name, "csr"), self.file(name, "ext"));
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-nodes", "-newkey"]).args(algorithm);
        run(command.args(["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &request]));
        fs::write(&extensions, format!("subjectAltName={hosts}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-in", &request, "-CA", &self.file(authority, "crt")]);
        command.args(["-CAkey", &self.file(authority, "key"), "-CAcreateserial", "-days", &days.to_string()]);
        command.args(["-extfile", &extensions, "-out", &self.file(name, "crt")]);
        run(command.arg(hash));
        self.finish(name);
    }

    fn finish(&self, name: &str) {
        let key = self.path(&format!("{name}.key"));
        // PostgreSQL refuses a key that others can read.
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        give(&key);
    }
}
