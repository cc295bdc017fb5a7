//! What systemd, or another manager of services that speaks sd_notify(3), is told: ready, alive, stopping.
//!
//! By hand, because the node must not wait for its manager: the crates for this block when the manager does not read.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// The manager that started this process; without one nothing is sent.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the process is alive: half of the time after which it acts.
    alive_interval_us: Option<u64>,
    alive_due_us: u64,
    /// The manager waits for this one, so it is said again if it was not taken.
    is_ready_untold: bool,
    has_told_stopping: bool,
    has_failed: bool,
}

impl ServiceManager {
    /// Who is named by NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. They stay in the environment: to take them out is
    /// unsafe once there are threads, and no other program is started that could inherit them.
    pub(super) fn of_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let socket = match open(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!("the service manager cannot be told: NOTIFY_SOCKET is {name:?}: {error}");
                None
            }
        };
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let timeout_us = number("WATCHDOG_USEC").filter(|timeout_us| is_ours && *timeout_us > 0);
        Self { socket, alive_interval_us: timeout_us.map(|timeout_us| timeout_us / 2), ..Self::default() }
    }

    /// How long [`Self::alive`] may not be called: twice in its interval, so that a call that comes just before the time
    /// does not put the message off for a whole one.
    pub(super) fn interval(&self) -> Duration {
        self.alive_interval_us.map_or(Duration::MAX, |interval_us| Duration::from_micros(interval_us / 2))
    }

    /// The router listens.
    pub(super) fn ready(&mut self) {
        self.is_ready_untold = !self.tell("READY=1");
    }

    /// Says again what has to be heard and was not taken. Called now and then.
    pub(super) fn remind(&mut self) {
        if self.is_ready_untold {
            self.ready();
        }
    }

    /// The router goes on. A manager that does not hear this in time kills and restarts it.
    pub(super) fn alive(&mut self, now_us: u64) {
        let Some(interval_us) = self.alive_interval_us else { return };
        if now_us >= self.alive_due_us {
            self.alive_due_us = now_us.saturating_add(interval_us);
            self.tell("WATCHDOG=1");
        }
    }

    /// The router ends; said once.
    pub(super) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.has_told_stopping, true) {
            self.tell("STOPPING=1");
        }
    }

    /// Whether it was taken, or there is nobody to take it.
    fn tell(&mut self, what: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let Err(error) = socket.send_to_addr(what.as_bytes(), address) else { return true };
        // Once: a manager that is gone, or reads nothing, is so for all that follows.
        if !std::mem::replace(&mut self.has_failed, true) {
            warn!("the service manager cannot be told {what}: {error}");
        }
        false
    }
}

/// A path, or a name in the kernel after an @.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither a path nor a name after an @")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
