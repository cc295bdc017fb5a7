//! From settings to a session: hosts, addresses, TLS, the greeting, and which of several servers is wanted.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::cancel::Target;
use super::connection::Connection;
use super::deadline::Deadline;
use super::error::{Attempt, Error};
use super::message::Message;
use super::settings::{Host, Settings, TargetSession, TlsMode};
use super::stream::Stream;
use super::{authenticate, tls};

/// A name has no more addresses than this that are worth trying.
const ADDRESSES_MAX: usize = 16;
/// So many messages about itself a server sends at the start, at most.
const GREETINGS_MAX: usize = 1000;

/// Where a server is, for the connection and for those that cancel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How a connection is encrypted, and for whom the certificate must be.
#[derive(Clone, Debug)]
pub(super) struct Encryption {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Connection {
    /// Connects to the first server that answers and is of the wanted kind.
    ///
    /// # Errors
    /// Every address that was tried, and why it was none; or at once, that nobody is let in, that TLS is not good, or that
    /// files of the settings are not.
    pub fn connect(settings: &Settings, deadline: Deadline) -> Result<Self, Error> {
        let config = match settings.tls.mode {
            TlsMode::Disable => None,
            _ if settings.hosts.iter().all(|host| matches!(host, Host::Unix { .. })) => None,
            _ => Some(tls::config(&settings.tls)?),
        };
        let (mut candidates, mut attempts) = candidates(settings, deadline);
        let targets: &[TargetSession] = match settings.target {
            TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
            TargetSession::Any => &[TargetSession::Any],
            TargetSession::ReadWrite => &[TargetSession::ReadWrite],
            TargetSession::ReadOnly => &[TargetSession::ReadOnly],
            TargetSession::Primary => &[TargetSession::Primary],
            TargetSession::Standby => &[TargetSession::Standby],
        };
        for target in targets {
            let count = candidates.len();
            for (index, (host, address)) in candidates.iter_mut().enumerate() {
                let own = own_deadline(settings, deadline, count - index);
                let opened = open(settings, host, address, config.as_ref(), own)
                    .and_then(|connection| check_target(connection, *target, own));
                match opened {
                    Ok(connection) => return Ok(connection),
                    // Another server would say the same, or would be told a secret for nothing.
                    Err(
                        error @ (Error::Authentication { .. }
                        | Error::Settings(_)
                        | Error::Tls(_)
                        | Error::Misuse(_)),
                    ) => return Err(error),
                    Err(error) => attempts.push(Attempt {
                        host: host.to_string(),
                        address: Some(address.to_string()),
                        error,
                    }),
                }
            }
        }
        Err(Error::Connect(attempts))
    }
}

/// An equal share of what is left, so that one address that swallows everything leaves time for the others.
fn own_deadline(settings: &Settings, deadline: Deadline, left: usize) -> Deadline {
    let share = deadline.remaining().unwrap_or_default() / u32::try_from(left.max(1)).unwrap_or(1);
    deadline.within(settings.connect_timeout.map_or(share, |timeout| timeout.min(share)))
}

/// All addresses of all hosts in their order, and the hosts that have none.
fn candidates(settings: &Settings, deadline: Deadline) -> (Vec<(Host, Address)>, Vec<Attempt>) {
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for (index, host) in settings.hosts.iter().enumerate() {
        let (name, address, port) = match host {
            Host::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                found.push((host.clone(), Address::Unix(path)));
                continue;
            }
            Host::Tcp { name, address, port } => (name, *address, *port),
        };
        let address = address.or_else(|| name.parse::<IpAddr>().ok());
        if let Some(address) = address {
            found.push((host.clone(), Address::Tcp(SocketAddr::new(address, port))));
            continue;
        }
        let own = own_deadline(settings, deadline, settings.hosts.len() - index);
        match resolve(name, port, own) {
            Ok(addresses) => {
                found.extend(addresses.into_iter().map(|address| (host.clone(), Address::Tcp(address))));
            }
            Err(error) => failed.push(Attempt { host: host.to_string(), address: None, error }),
        }
    }
    (found, failed)
}

/// Asks for the addresses of a name, on a thread of its own: the system's resolver has no deadline. A thread that comes too
/// late ends with the resolver's own timeout.
fn resolve(name: &str, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>, Error> {
    let (answer, answered) = mpsc::sync_channel(1);
    let host = name.to_owned();
    let asked = std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        let addresses =
            (host.as_str(), port).to_socket_addrs().map(|all| all.take(ADDRESSES_MAX).collect::<Vec<_>>());
        let _ = answer.send(addresses);
    });
    if let Err(error) = asked {
        return Err(Error::closed(format!("no thread to ask for its addresses: {error}")));
    }
    match answered.recv_timeout(deadline.remaining().unwrap_or_default()) {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(Error::closed("the name has no address")),
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(Error::closed(format!("the name has no address: {error}"))),
        Err(_) => Err(Error::TimedOut { waiting_for: "asking for the addresses of the name" }),
    }
}

/// A socket that is connected.
pub(super) fn dial(
    address: &Address,
    keepalive: Option<super::settings::Keepalive>,
    user_timeout: Duration,
    deadline: Deadline,
) -> Result<Stream, Error> {
    let waiting_for = "connecting";
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::TimedOut { waiting_for },
        _ => Error::closed(error.to_string()),
    };
    let remaining = deadline.remaining().ok_or(Error::TimedOut { waiting_for })?;
    let socket = match address {
        Address::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).map_err(failed)?;
            socket.connect_timeout(&SockAddr::from(*address), remaining).map_err(failed)?;
            socket.set_tcp_nodelay(true).map_err(failed)?;
            if let Some(keepalive) = keepalive {
                let times = TcpKeepalive::new()
                    .with_time(keepalive.idle)
                    .with_interval(keepalive.interval)
                    .with_retries(keepalive.count);
                socket.set_tcp_keepalive(&times).map_err(failed)?;
            }
            if !user_timeout.is_zero() {
                socket.set_tcp_user_timeout(Some(user_timeout)).map_err(failed)?;
            }
            socket
        }
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
            // As long as a server that is stopped has room in its queue this does not wait at all.
            socket.set_write_timeout(Some(remaining)).map_err(failed)?;
            socket.connect(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
            socket
        }
    };
    Ok(Stream::new(socket))
}

/// Asks for TLS, and agrees on it if the server has it. Whether it has.
pub(super) fn encrypt(
    stream: &mut Stream,
    encryption: &Encryption,
    deadline: Deadline,
) -> Result<bool, Error> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.send_all(&mut request, deadline)?;
    // One byte and no more: what somebody slipped in behind it would otherwise pass as encrypted.
    let mut answer = [0];
    match stream.receive(&mut request, &mut answer, deadline, "the answer whether there is TLS")? {
        0 => Err(Error::closed("the server closed it when it was asked for TLS")),
        _ if answer == *b"S" => {
            stream.start_tls(&encryption.config, encryption.name.clone(), deadline)?;
            Ok(true)
        }
        _ if answer == *b"N" => Ok(false),
        // Its text is not encrypted and anybody's, so it is not shown.
        _ if answer == *b"E" => {
            Err(Error::closed("the server answered with an error when it was asked for TLS"))
        }
        _ => Err(Error::protocol("this is no answer to whether there is TLS: is it a PostgreSQL server?")),
    }
}

fn open(
    settings: &Settings,
    host: &Host,
    address: &Address,
    config: Option<&Arc<ClientConfig>>,
    deadline: Deadline,
) -> Result<Connection, Error> {
    let encryption = match (host, config) {
        (Host::Tcp { name, .. }, Some(config)) => {
            Some(Encryption { config: Arc::clone(config), name: tls::server_name(name)? })
        }
        _ => None,
    };
    if encryption.is_some() && settings.tls.mode == TlsMode::Prefer {
        let mut agreed = false;
        let opened = greet(settings, address, encryption, &mut agreed, deadline);
        // As libpq: where TLS does not work, or is not for this client, it goes on without.
        let refused = match &opened {
            Err(Error::Tls(_)) => true,
            Err(Error::Authentication { .. }) => {
                opened.as_ref().err().and_then(Error::sqlstate) == Some(NO_ENTRY)
            }
            _ => false,
        };
        if !refused || (!agreed && !matches!(opened, Err(Error::Tls(_)))) {
            return opened;
        }
        return greet(settings, address, None, &mut agreed, deadline).map_err(|error| match opened {
            // Both failed: the reason of the better way is told, unless the other one knows more.
            Err(first) if matches!(error, Error::Authentication { .. }) && matches!(first, Error::Tls(_)) => {
                error
            }
            Err(first) => first,
            Ok(_) => error,
        });
    }
    greet(settings, address, encryption, &mut false, deadline)
}

/// `pg_hba.conf` has no entry for such a connection.
const NO_ENTRY: &str = "28000";

/// Connects to one address in one way and says who we are.
fn greet(
    settings: &Settings,
    address: &Address,
    encryption: Option<Encryption>,
    agreed: &mut bool,
    deadline: Deadline,
) -> Result<Connection, Error> {
    let mut stream = dial(address, settings.keepalive, settings.user_timeout, deadline)?;
    let mut encryption = encryption;
    if let Some(wanted) = &encryption {
        *agreed = encrypt(&mut stream, wanted, deadline)?;
        if !*agreed {
            if settings.tls.mode != TlsMode::Prefer {
                return Err(Error::Tls(
                    "the server has none: set ssl=on there, or sslmode=disable here".to_owned(),
                ));
            }
            encryption = None;
        }
    }
    let target = Target::new(address.clone(), encryption, settings.user_timeout);
    let mut connection = Connection::new(stream, target, settings.message_bytes_max);
    let mut parameters: Vec<(&str, &str)> =
        vec![("user", &settings.user), ("database", &settings.database), ("client_encoding", "UTF8")];
    let application = settings.application_name.as_deref();
    parameters.extend(application.map(|name| ("application_name", name)));
    parameters.extend(settings.options.as_deref().map(|options| ("options", options)));
    parameters.extend(settings.replication.then_some(("replication", "database")));
    parameters.extend(settings.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    frontend::startup_message(parameters, &mut connection.requests.bytes)
        .map_err(|_| Error::Misuse("a name in the settings has a zero byte"))?;
    authenticate::run(&mut connection, settings, deadline)?;
    settle(&mut connection, deadline)?;
    connection.inbox.set_message_bytes_max(settings.message_bytes_max);
    Ok(connection)
}

/// Hears what the server says of itself, until it is ready.
fn settle(connection: &mut Connection, deadline: Deadline) -> Result<(), Error> {
    for _ in 0..GREETINGS_MAX {
        let frame = connection.frame(deadline, "the server to be ready")?;
        match connection.message(&frame)? {
            Message::BackendKey { process_id, secret } => {
                let secret = secret.to_vec();
                connection.process_id = process_id;
                // Nobody else has the target yet.
                if let Some(target) = Arc::get_mut(&mut connection.target) {
                    target.set_key(process_id, secret);
                }
            }
            Message::Ready(status) => {
                connection.status = status;
                return Ok(());
            }
            // Refused after the password was found right: no such database, too many connections.
            Message::Error(error) => return Err(Error::Server(error)),
            Message::NegotiateProtocolVersion => {
                return Err(Error::protocol("the server does not speak version 3.0"));
            }
            _ => {
                connection.handle(&frame)?;
            }
        }
    }
    Err(Error::protocol("the server says no end of things about itself"))
}

/// Whether this is the kind of server that is wanted.
fn check_target(
    mut connection: Connection,
    target: TargetSession,
    deadline: Deadline,
) -> Result<Connection, Error> {
    let (reported, statement, wanted, problem) = match target {
        TargetSession::Any | TargetSession::PreferStandby => return Ok(connection),
        TargetSession::ReadWrite => ("default_transaction_read_only", READ_ONLY, "off", "it is read-only"),
        TargetSession::ReadOnly => ("default_transaction_read_only", READ_ONLY, "on", "it is not read-only"),
        TargetSession::Primary => ("in_hot_standby", STANDBY, "off", "it is a standby"),
        TargetSession::Standby => ("in_hot_standby", STANDBY, "on", "it is no standby"),
    };
    // From version 14 on both are reported; a standby is read-only whatever its default says.
    let reported = match (connection.parameter(reported), connection.parameter("in_hot_standby")) {
        (Some(_), Some("on")) => Some("on".to_owned()),
        (Some(value), Some(_)) => Some(value.to_owned()),
        _ => None,
    };
    let value = match reported {
        Some(value) => value,
        None => connection.simple_value(statement, deadline)?.unwrap_or_default(),
    };
    if value == wanted {
        Ok(connection)
    } else {
        Err(Error::closed(format!("{problem}, and was left again")))
    }
}

const READ_ONLY: &str = "show transaction_read_only";
const STANDBY: &str = "select case when pg_catalog.pg_is_in_recovery() then 'on' else 'off' end";

#[cfg(test)]
mod tests {
    use super::super::settings::Keepalive;
    use super::*;

    #[test]
    fn sockets_notice_who_is_gone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let deadline = Deadline::after(Duration::from_secs(60));
        let keepalive =
            Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(5), count: 4 };
        let stream = dial(&address, Some(keepalive), Duration::from_secs(9), deadline).unwrap();
        let socket = stream.socket();
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), keepalive.count);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
        let stream = dial(&address, None, Duration::ZERO, deadline).unwrap();
        assert!(!stream.socket().keepalive().unwrap());
        assert_eq!(stream.socket().tcp_user_timeout().unwrap(), None, "a busy server is not given up");
    }

    #[test]
    fn time_is_shared_between_addresses() {
        let settings = |text: &str| Settings::parse(text, &std::collections::BTreeMap::new()).unwrap();
        let own = |text: &str, left| {
            let deadline = Deadline::after(Duration::from_secs(60));
            own_deadline(&settings(text), deadline, left).remaining().unwrap().as_secs_f64()
        };
        // A machine that stands still for ten seconds takes nothing from what these tell.
        assert!((10.0..=20.0).contains(&own("user=u", 3)));
        assert!((50.0..=60.0).contains(&own("user=u", 1)));
        assert!(own("user=u connect_timeout=5", 3) <= 5.0);
        assert!((10.0..=20.0).contains(&own("user=u connect_timeout=50", 3)));
    }

    #[test]
    fn the_resolver_has_a_deadline() {
        let late = resolve("localhost", 5432, Deadline::after(Duration::ZERO));
        assert!(matches!(late, Ok(_) | Err(Error::TimedOut { .. })), "{late:?}");
        let found = resolve("localhost", 5432, Deadline::after(Duration::from_secs(60))).unwrap();
        assert!(found.iter().all(|address| address.port() == 5432 && address.ip().is_loopback()));
        assert!(matches!(
            dial(&Address::Unix("/x".into()), None, Duration::ZERO, Deadline::after(Duration::ZERO)),
            Err(Error::TimedOut { .. })
        ));
    }
}
