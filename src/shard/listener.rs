//! Listening sockets: one for each core on TCP (SO_REUSEPORT), one for all cores on a Unix socket.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::entrance::Entrance;
use super::world::Accepted;

/// How much the kernel may hold of what a reader does not take, in bytes.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// How many probes of the kernel's keepalive go unanswered before it gives up.
const KEEPALIVE_PROBES: u32 = 3;

/// After this long without an acknowledgement, or longer, the kernel gives a connection up.
const USER_TIMEOUT_MIN: Duration = Duration::from_secs(30);

/// What all sockets of a TCP listener have in common.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Connections that wait to be accepted.
    pub backlog: i32,
    /// The kernel's keepalive, for links whose peers need not answer pings.
    pub keepalive: Option<TcpKeepalive>,
    /// How long the kernel waits for an acknowledgement before it gives a connection up.
    pub user_timeout: Duration,
}

impl TcpOptions {
    /// Probes begin after `interval` of silence, and go unanswered for `timeout`; an interval of zero is none. A reader
    /// that takes nothing for `slow_consumer` is closed by us, not by the kernel.
    #[must_use]
    pub fn new(backlog: i32, interval: Duration, timeout: Duration, slow_consumer: Duration) -> Self {
        // The kernel counts in whole seconds.
        let second = Duration::from_secs(1);
        let keepalive = (!interval.is_zero()).then(|| {
            TcpKeepalive::new()
                .with_time(interval.max(second))
                .with_interval((timeout / KEEPALIVE_PROBES).max(second))
                .with_retries(KEEPALIVE_PROBES)
        });
        // The kernel's patience also ends keepalive and a window that stays shut: it must be longer than ours.
        let user_timeout = USER_TIMEOUT_MIN.max(interval + timeout + second).max(slow_consumer + second);
        Self { backlog, keepalive, user_timeout }
    }
}

/// One core's view of a listener.
#[derive(Clone, Debug)]
pub struct Listening {
    socket: Place,
    is_unix: bool,
}

/// Where connections come from.
#[derive(Clone, Debug)]
enum Place {
    Socket(Arc<OwnedFd>),
    /// Threads of this process.
    Entrance(Arc<Entrance>),
}

impl From<Arc<Entrance>> for Listening {
    fn from(entrance: Arc<Entrance>) -> Self {
        Self { socket: Place::Entrance(entrance), is_unix: false }
    }
}

impl Listening {
    /// Whether several cores watch the same socket.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_unix
    }

    /// The next connection; see [`super::world::World::accept`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn accept(&self) -> io::Result<Accepted<OwnedFd>> {
        let listening = match &self.socket {
            Place::Socket(socket) => socket,
            Place::Entrance(entrance) => return Ok(Accepted { socket: entrance.take()?, address: None }),
        };
        let (socket, peer) = acceptfrom_with(&**listening, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        if self.is_unix {
            // The side that accepts does not inherit it.
            SockRef::from(&socket).set_send_buffer_size(UNSENT_BYTES_MAX as usize)?;
            return Ok(Accepted { socket, address: None });
        }
        let address = peer.and_then(remote_address).filter(|address| !address.is_loopback());
        Ok(Accepted { socket, address })
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Place::Socket(socket) => socket.as_fd(),
            Place::Entrance(entrance) => entrance.as_fd(),
        }
    }
}

fn remote_address(peer: SocketAddrAny) -> Option<IpAddr> {
    SocketAddr::try_from(peer).ok().map(|address| address.ip().to_canonical())
}

/// Sockets for `count` cores on one TCP address, and the address they got (port 0 takes a free one).
///
/// # Errors
/// `AddrInUse` when somebody listens there already, this program included; `PermissionDenied` for a port below 1024.
pub fn listen_tcp(
    address: SocketAddr,
    options: &TcpOptions,
    count: usize,
) -> io::Result<(Vec<Listening>, SocketAddr)> {
    // SO_REUSEPORT would let a second router take half of the connections of the first.
    probe(address)?;
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Accepted sockets inherit these.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.set_tcp_user_timeout(Some(options.user_timeout))?;
        socket.bind(&SockAddr::from(address))?;
        if let Some(keepalive) = &options.keepalive {
            socket.set_tcp_keepalive(keepalive)?;
        }
        socket.listen(options.backlog)?;
        address = socket.local_addr()?.as_socket().unwrap_or(address);
        sockets.push(Listening { socket: Place::Socket(Arc::new(socket.into())), is_unix: false });
    }
    Ok((sockets, address))
}

fn probe(address: SocketAddr) -> io::Result<()> {
    // The standard library sets SO_REUSEADDR and not SO_REUSEPORT: this fails if anybody listens.
    TcpListener::bind(address).map(drop)
}

/// A Unix socket that is removed again when the router stops, unless somebody has put another one in its place.
#[derive(Debug)]
pub struct UnixPath {
    path: PathBuf,
    /// The device and the inode of ours.
    identity: Option<(u64, u64)>,
}

impl UnixPath {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        if identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether nobody listens at a socket: only a refusal says so. Somebody may be busy, or not be for us to ask.
fn is_left_behind(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let answer = socket.connect(&SockAddr::unix(path)?);
    Ok(answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// A listening Unix socket for all cores. What a router that was killed left behind is removed.
///
/// # Errors
/// `AddrInUse` when somebody listens there, or the file is no socket; the kernel's.
pub fn listen_unix(path: &Path, backlog: i32) -> io::Result<(Listening, UnixPath)> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        let is_socket = metadata.file_type().is_socket();
        if !is_socket || !is_left_behind(path)? {
            let what = if is_socket { "somebody listens there" } else { "the file exists and is no socket" };
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let guard = UnixPath::new(path);
    socket.listen(backlog)?;
    Ok((Listening { socket: Place::Socket(Arc::new(socket.into())), is_unix: true }, guard))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_second_listener_is_refused_and_accepted_sockets_inherit_options() {
        let options =
            TcpOptions::new(16, Duration::from_secs(30), Duration::from_secs(10), Duration::from_secs(60));
        let (sockets, address) = listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), &options, 1).unwrap();
        assert_eq!(listen_tcp(address, &options, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let _client = TcpStream::connect(address).unwrap();
        let accepted = loop {
            match sockets[0].accept() {
                Ok(accepted) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(accepted.address, None, "loopback has no limits by address");
        let socket = SockRef::from(&accepted.socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(61)));
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    }

    #[test]
    fn a_unix_socket_left_behind_is_taken_over_and_a_live_one_is_not() {
        let directory = std::env::temp_dir().join(format!("crosspoint-listener-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let (listening, guard) = listen_unix(&path, 16).unwrap();
        assert_eq!(listen_unix(&path, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        std::mem::forget(guard);
        drop(listening);
        let (_listening, guard) = listen_unix(&path, 16).unwrap();
        drop(guard);
        assert!(!path.exists());
        let (_listening, guard) = listen_unix(&path, 16).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        drop(guard);
        assert_eq!(listen_unix(&path, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
