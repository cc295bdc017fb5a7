//! How to reach a server and as whom: what libpq's URLs, `key=value` texts and environment variables say.
//!
//! Nothing is read here but the text and the map of variables that are handed in: no environment, no service file, no
//! password file, and certificates only when a connection is made.

#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use text::Values;

/// Everything a connection needs to know.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Where servers are, in the order in which they are tried.
    pub hosts: Vec<Host>,
    /// The user's name.
    pub user: String,
    /// The password, if there is one.
    pub password: Option<Password>,
    /// The database's name.
    pub database: String,
    /// What `pg_stat_activity` shows.
    pub application_name: Option<String>,
    /// Options of the session as for the server's command line, such as `-c search_path=api`.
    pub options: Option<String>,
    /// Settings of the session from its start: `TimeZone`, `IntervalStyle` and their like. No text sets them.
    pub parameters: BTreeMap<String, String>,
    /// Whether to encrypt, and whom to trust.
    pub tls: Tls,
    /// Whether the password's proof is bound to the TLS session.
    pub channel_binding: ChannelBinding,
    /// Which of several servers is wanted.
    pub target: TargetSession,
    /// How long one address may take, the deadline of the whole aside.
    pub connect_timeout: Option<Duration>,
    /// When the kernel asks a silent peer whether it is still there.
    pub keepalive: Option<Keepalive>,
    /// After how long the kernel gives up a peer that takes nothing of what was sent; zero leaves that to the deadlines of
    /// those who wait, and is the default: a server that is busy with one call takes no more of those behind it once its
    /// buffers are full, and would be given up as well.
    pub user_timeout: Duration,
    /// Whether the password may be sent as it is to a server that asks for it over an open network.
    pub cleartext_password: bool,
    /// Whether this is for replication: the simple protocol and `START_REPLICATION`.
    pub replication: bool,
    /// The largest message that is taken or sent.
    pub message_bytes_max: usize,
}

/// One place where a server may be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    /// A name, and what to connect to instead of asking for its addresses.
    Tcp {
        /// The name, by which certificates are checked.
        name: String,
        /// The address to connect to.
        address: Option<IpAddr>,
        /// The port.
        port: u16,
    },
    /// The folder of a Unix socket.
    Unix {
        /// The folder.
        directory: PathBuf,
        /// The port, which is part of the socket's name.
        port: u16,
    },
}

/// A password, which no output shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(String);

impl Password {
    /// A password.
    #[must_use]
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `sslmode` and what belongs to it. Unix sockets are never encrypted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// How much is asked of the connection.
    pub mode: TlsMode,
    /// Who may sign the server's certificate.
    pub roots: Option<Roots>,
    /// A certificate of our own, and what signed it (PEM).
    pub certificate: Option<PathBuf>,
    /// Its key (PEM, not encrypted).
    pub key: Option<PathBuf>,
    /// Whether the server is told by what name it is called.
    pub server_name: bool,
}

/// `sslmode`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Where the server has it; who it is stays unknown.
    Prefer,
    /// Always; who it is stays unknown, unless `sslrootcert` is given, which makes this `verify-ca`.
    Require,
    /// The certificate is signed by whom we trust.
    VerifyCa,
    /// As well, it is for the name of the host.
    VerifyFull,
}

/// `sslrootcert`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Roots {
    /// Those of the operating system.
    System,
    /// Those of a file (PEM).
    File(PathBuf),
}

/// `channel_binding`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelBinding {
    /// Not even where it is offered.
    Disable,
    /// Where it is offered.
    Prefer,
    /// Nobody else is given anything.
    Require,
}

/// `target_session_attrs`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TargetSession {
    /// The first that answers.
    Any,
    /// One whose transactions may write.
    ReadWrite,
    /// One whose transactions may not.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby; if there is none, any.
    PreferStandby,
}

/// When the kernel probes a silent connection: a peer that is gone is noticed after `idle + interval * count`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// After so long without a word.
    pub idle: Duration,
    /// And again after so long.
    pub interval: Duration,
    /// So often.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), interval: Duration::from_secs(10), count: 3 }
    }
}

/// What is wrong with the settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError {
    /// Where it is.
    pub place: Place,
    /// What is wrong. It never has a password, nor any other value that may have one.
    pub problem: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Where a setting came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// The text, and the character in it, from 1.
    Text(usize),
    /// A variable.
    Variable(&'static str),
    /// Nowhere: it is missing.
    Missing,
    /// A file that a setting names.
    File(PathBuf),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Text(character) => write!(f, "database settings, character {character}: ")?,
            Place::Variable(name) => write!(f, "variable {name}: ")?,
            Place::Missing => write!(f, "database settings: ")?,
            Place::File(path) => write!(f, "{}: ", path.display())?,
        }
        f.write_str(&self.problem)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for SettingsError {}

/// Where Debian's servers have their socket, which is where its clients look first.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";
const PORT: u16 = 5432;
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Below this not even the start of a session would fit.
const MESSAGE_BYTES_LEAST: usize = 16 << 10;
const MESSAGE_BYTES_MOST: usize = 1 << 30;
const HOSTS_MAX: usize = 32;

impl Settings {
    /// Reads a URL (`postgres://user:password@host:port,host2/database?key=value`) or `key=value` pairs. What the text
    /// leaves open, `PGHOST` and its like of `environment` say.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn parse(text: &str, environment: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        Self::from_values(&Values::read(text, environment)?, environment)
    }

    fn from_values(values: &Values, environment: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let user = match values.text("user") {
            Some(user) => user,
            None => ["USER", "LOGNAME"]
                .iter()
                .find_map(|name| environment.get(*name))
                .filter(|name| !name.is_empty())
                .cloned()
                .ok_or_else(|| missing("there is no user", "add user=NAME, or set PGUSER"))?,
        };
        let tls = tls(values)?;
        let channel_binding = values.word(
            "channel_binding",
            &[
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ],
            ChannelBinding::Prefer,
        )?;
        let target = values.word(
            "target_session_attrs",
            &[
                ("any", TargetSession::Any),
                ("read-write", TargetSession::ReadWrite),
                ("read-only", TargetSession::ReadOnly),
                ("primary", TargetSession::Primary),
                ("standby", TargetSession::Standby),
                ("prefer-standby", TargetSession::PreferStandby),
            ],
            TargetSession::Any,
        )?;
        let usual = Keepalive::default();
        let keepalive = Keepalive {
            idle: values.seconds("keepalives_idle", usual.idle)?,
            interval: values.seconds("keepalives_interval", usual.interval)?,
            count: u32::try_from(values.number("keepalives_count", u64::from(usual.count), 1, 127)?)
                .unwrap_or(usual.count),
        };
        let seconds = values.number("connect_timeout", 0, 0, 86_400)?;
        let user_timeout = values.number("tcp_user_timeout", 0, 0, 86_400_000)?;
        let bytes = values.number(
            "message_bytes_max",
            MESSAGE_BYTES_MAX as u64,
            MESSAGE_BYTES_LEAST as u64,
            MESSAGE_BYTES_MOST as u64,
        )?;
        Ok(Self {
            hosts: hosts(values)?,
            password: values.text("password").map(Password),
            database: values.text("dbname").unwrap_or_else(|| user.clone()),
            user,
            application_name: values
                .text("application_name")
                .or_else(|| values.text("fallback_application_name")),
            options: values.text("options"),
            parameters: BTreeMap::new(),
            tls,
            channel_binding,
            target,
            connect_timeout: (seconds > 0).then(|| Duration::from_secs(seconds)),
            keepalive: values.flag("keepalives", true)?.then_some(keepalive),
            user_timeout: Duration::from_millis(user_timeout),
            cleartext_password: values.word(
                "cleartext_password",
                &[("refuse", false), ("allow", true)],
                false,
            )?,
            replication: values.word(
                "replication",
                &[("database", true), ("false", false), ("off", false), ("no", false), ("0", false)],
                false,
            )?,
            message_bytes_max: usize::try_from(bytes).unwrap_or(MESSAGE_BYTES_MAX),
        })
    }
}

fn missing(problem: &str, hint: &str) -> SettingsError {
    SettingsError { place: Place::Missing, problem: problem.to_owned(), hint: Some(hint.to_owned()) }
}

fn tls(values: &Values) -> Result<Tls, SettingsError> {
    let roots = values.text("sslrootcert").map(|root| match root.as_str() {
        "system" => Roots::System,
        path => Roots::File(path.into()),
    });
    let system = roots == Some(Roots::System);
    let usual = if system { TlsMode::VerifyFull } else { TlsMode::Prefer };
    let modes = [
        ("disable", TlsMode::Disable),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];
    let mut mode = values.word("sslmode", &modes, usual)?;
    // Anybody can have a certificate that some authority of the system signed: only the name tells.
    if system && mode != TlsMode::VerifyFull {
        return Err(values.wrong("sslmode", "sslrootcert=system asks for sslmode=verify-full", None));
    }
    if mode >= TlsMode::VerifyCa && roots.is_none() {
        return Err(values.wrong(
            "sslmode",
            "there is nobody to trust",
            Some("add sslrootcert=FILE with the certificate that signed the server's, or sslrootcert=system"),
        ));
    }
    if mode == TlsMode::Require && roots.is_some() {
        mode = TlsMode::VerifyCa;
    }
    let certificate = values.text("sslcert").map(PathBuf::from);
    let key = values.text("sslkey").map(PathBuf::from);
    match (&certificate, &key) {
        (Some(_), None) => {
            return Err(values.wrong("sslcert", "a certificate needs its key", Some("add sslkey")));
        }
        (None, Some(_)) => {
            return Err(values.wrong("sslkey", "a key needs its certificate", Some("add sslcert")));
        }
        _ => {}
    }
    Ok(Tls { mode, roots, certificate, key, server_name: values.flag("sslsni", true)? })
}

/// The lists of hosts, addresses and ports go together, entry by entry; one port may stand for all.
fn hosts(values: &Values) -> Result<Vec<Host>, SettingsError> {
    let names = values.list("host");
    let addresses = values.list("hostaddr");
    let ports = values.list("port");
    if !addresses.is_empty() && !names.is_empty() && addresses.len() != names.len() {
        let problem = format!("{} addresses for {} hosts", addresses.len(), names.len());
        return Err(values.wrong("hostaddr", &problem, None));
    }
    let count = names.len().max(addresses.len()).max(1);
    if count > HOSTS_MAX {
        return Err(values.wrong("host", &format!("more than {HOSTS_MAX} hosts"), None));
    }
    if ports.len() > 1 && ports.len() != count {
        let problem = format!("{} ports for {count} hosts", ports.len());
        return Err(values.wrong("port", &problem, Some("give one for all, or one for each")));
    }
    let mut hosts = Vec::with_capacity(count);
    for index in 0..count {
        let port = match ports.get(if ports.len() == 1 { 0 } else { index }) {
            Some(port) if !port.is_empty() => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| values.wrong("port", "a port is a number from 1 to 65535", None))?,
            _ => PORT,
        };
        let name = names.get(index).map_or("", String::as_str);
        let address = match addresses.get(index).map_or("", String::as_str) {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| {
                values.wrong("hostaddr", "this is no IP address", Some("names go into host"))
            })?),
        };
        hosts.push(match (name, address) {
            ("", Some(address)) => Host::Tcp { name: address.to_string(), address: Some(address), port },
            ("", None) => Host::Unix { directory: SOCKET_DIRECTORY.into(), port },
            (name, None) if name.starts_with('/') => Host::Unix { directory: name.into(), port },
            (name, None) if name.starts_with('@') => {
                return Err(values.wrong("host", "abstract Unix sockets cannot be used", None));
            }
            (name, address) => Host::Tcp { name: name.to_owned(), address, port },
        });
    }
    Ok(hosts)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}
