//! The listeners of a node: sockets for each core, how people reach them, and what to do when one is not to be had.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::holder;
use crate::config::{Config, ListenAddress, Listener, ListenerMode};
use crate::shard::listener::{self, Listening, TcpOptions, UnixPath};

/// The sockets of all listeners.
pub(super) struct Sockets {
    /// For each core, by listener.
    pub(super) by_core: Vec<Vec<Option<Listening>>>,
    pub(super) unix_paths: Vec<UnixPath>,
    pub(super) names: Vec<String>,
}

pub(super) fn open_listeners(config: &Config, cores: usize) -> Result<Sockets, String> {
    let mut by_core = vec![Vec::new(); cores];
    let mut unix_paths = Vec::new();
    let mut names = Vec::new();
    for listener in &config.listeners {
        let on_core = |core: usize| listener.cores.as_ref().is_none_or(|cores| cores.contains(&core));
        let served: Vec<_> = (0..cores).filter(|core| on_core(*core)).collect();
        let (mut sockets, address) = match &listener.address {
            ListenAddress::Tcp(host, port) => {
                let address = SocketAddr::new(*host, *port);
                let limits = &config.limits;
                let options = TcpOptions::new(
                    listener.backlog,
                    limits.ping_interval,
                    limits.ping_timeout,
                    limits.slow_consumer_timeout,
                );
                let (sockets, address) = listener::listen_tcp(address, &options, served.len())
                    .map_err(|error| tcp_error(address, &error))?;
                (sockets, address.to_string())
            }
            ListenAddress::Unix(path) => {
                let (socket, guard) = listener::listen_unix(path, listener.backlog)
                    .map_err(|error| unix_error(path, &error))?;
                unix_paths.push(guard);
                (vec![socket; served.len()], path.display().to_string())
            }
        };
        for core in (0..cores).rev() {
            by_core[core].push(if on_core(core) { sockets.pop() } else { None });
        }
        names.push(listener_name(listener, &address));
    }
    Ok(Sockets { by_core, unix_paths, names })
}

/// How people reach a listener.
fn listener_name(listener: &Listener, address: &str) -> String {
    let is_unix = matches!(listener.address, ListenAddress::Unix(_));
    let mut ways = Vec::new();
    if listener.websocket {
        let path = &listener.path;
        ways.push(if is_unix {
            format!("WebSocket ({path}) on {address}")
        } else {
            format!("ws://{address}{path}")
        });
    }
    if listener.rawsocket {
        ways.push(if is_unix { format!("RawSocket on {address}") } else { format!("rs://{address}") });
    }
    let echo = if listener.mode == ListenerMode::Echo { " (echo)" } else { "" };
    format!("{}{echo}", ways.join(" and "))
}

fn tcp_error(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            let holder = holder::of_port(port).map_or_else(
                || format!("somebody listens there already; `sudo ss -ltnp 'sport = :{port}'` says who"),
                |holder| format!("{holder} listens there already"),
            );
            format!("{holder}. End that program, or set another `port` in [[listener]]")
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; set another `port` in [[listener]], or give the capability"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; `ip address` lists those it has. Set another `host` in [[listener]]"
                .to_owned()
        }
        _ => "check `host` and `port` in [[listener]]".to_owned(),
    };
    format!("cannot listen on {address}: {error}; {advice}")
}

fn unix_error(path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => match holder::of_unix(path) {
            Some(holder) => format!("{holder} listens there. End it, or set another `unix` in [[listener]]"),
            None => "set another `unix` in [[listener]], or remove what is there".to_owned(),
        },
        io::ErrorKind::NotFound => {
            "make its directory first, or set another `unix` in [[listener]]".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not write to its directory; change that, or set another `unix` in [[listener]]"
                .to_owned()
        }
        _ => "check `unix` in [[listener]]".to_owned(),
    };
    format!("cannot listen on {}: {error}; {advice}", path.display())
}
