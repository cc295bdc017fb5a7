//! Ports that nobody else takes while a router or a server is killed and started again.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

/// Below it are the ports of services that everybody knows.
const FIRST: u16 = 20_000;

/// A port of loopback on which nobody listens, and which is this process's own until it ends. It is below those that the kernel
/// gives to clients, sessions of the load among them; and whoever asks in the same way has bound the name before it takes the
/// port, as the tests do.
pub(crate) fn free_port() -> Result<u16, String> {
    static TAKEN: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(32_768_u16);
    // A machine whose clients have nearly all ports leaves a few below.
    let first = if end > FIRST { FIRST } else { end.min(1024) };
    let count = u32::from(end - first);
    let begin = std::process::id().wrapping_mul(37);
    for number in 0..count {
        let port = first + (begin.wrapping_add(number) % count) as u16;
        let name = SocketAddr::from_abstract_name(format!("crosspoint-port-{port}"));
        let Ok(mark) = name.and_then(|name| UnixDatagram::bind_addr(&name)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
            return Ok(port);
        }
    }
    Err("no free port: another process listens on each, or has marked it as its own".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let ports: Vec<_> = (0..20).map(|_| free_port().unwrap()).collect();
        let mut different = ports.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), ports.len(), "{ports:?}");
        assert!(ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()));
    }
}
