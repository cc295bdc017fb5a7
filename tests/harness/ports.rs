//! Ports that nobody else takes meanwhile.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;

/// Below it are the ports of services that everybody knows.
const FIRST: u16 = 20_000;

/// A port of loopback on which nobody listens, and which is this process's own until it ends: a test may close it and open it
/// again. It is below those that the kernel gives to clients and to `port = 0`, and other tests ask in the same way: who has
/// bound the name has the port. The name goes with the process, however that ends.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(32_768_u16);
    // A machine whose clients have nearly all ports leaves a few below.
    let first = if end > FIRST { FIRST } else { end.min(1024) };
    let count = u32::from(end - first);
    // Not all begin at the same place: a port that was just closed is taken again late.
    let begin = std::process::id().wrapping_mul(37);
    for port in (0..count).map(|number| first + (begin.wrapping_add(number) % count) as u16) {
        let name = SocketAddr::from_abstract_name(format!("crosspoint-port-{port}")).unwrap();
        let Ok(mark) = UnixDatagram::bind_addr(&name) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(mark);
            return port;
        }
    }
    panic!("no port is free");
}
