//! Who holds a port or a socket that this router should listen on: a name for the message, from /proc.

use std::fs;
use std::path::Path;

/// The state of a listening socket in /proc/net/tcp (proc_net_tcp: TCP_LISTEN).
const LISTENING: &str = "0A";

/// The program that listens on a TCP port, such as `nginx (process 812)`; `None` when this process may not see it.
pub(super) fn of_port(port: u16) -> Option<String> {
    process_of_port(port).map(named)
}

/// The process that listens on a TCP port; `None` when this process may not see it.
#[must_use]
pub fn process_of_port(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| inodes_of_port(table, port)).find_map(|inode| process(&inode))
}

/// The program that listens on a Unix socket.
pub(super) fn of_unix(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    inodes_of_path(&table, path.to_str()?).into_iter().find_map(|inode| process(&inode)).map(named)
}

fn inodes_of_port(table: &str, port: u16) -> Vec<String> {
    let of_line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let is_it = *fields.get(3)? == LISTENING && u16::from_str_radix(local_port, 16).ok()? == port;
        is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().filter_map(of_line).collect()
}

fn inodes_of_path(table: &str, path: &str) -> Vec<String> {
    // Num RefCount Protocol Flags Type St Inode Path
    let of_line = |line: &str| {
        let is_it = line.strip_suffix(path).is_some_and(|before| before.ends_with(' '));
        is_it.then(|| line.split_whitespace().nth(6).map(str::to_owned)).flatten()
    };
    table.lines().filter_map(of_line).collect()
}

/// The first process that has this socket open.
fn process(inode: &str) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Descriptors of other users' processes are not shown.
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let mut links = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        if links.any(|link| link.as_os_str() == wanted.as_str()) {
            return Some(pid);
        }
    }
    None
}

fn named(pid: u32) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} (process {pid})", command.trim_end().escape_debug())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn whoever_listens_is_named() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let this = format!("(process {})", std::process::id());
        assert!(of_port(port).unwrap().ends_with(&this));
        // Without IPv6 there is nothing that could be asked; the suite on real sockets says so.
        if let Ok(listener6) = TcpListener::bind(("::1", 0)) {
            assert!(of_port(listener6.local_addr().unwrap().port()).unwrap().ends_with(&this));
        }
        let path = std::env::temp_dir().join(format!("crosspoint-holder-{}", std::process::id()));
        let _socket = UnixListener::bind(&path).unwrap();
        assert!(of_unix(&path).unwrap().ends_with(&this));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn only_listening_sockets_of_that_port_count() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
";
        assert_eq!(inodes_of_port(table, 8080), ["4711"]);
    }
}
