//! What the machine must allow, checked before the first executor: cause and remedy instead of a panic later.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Limits, Runtime};
use crate::shard::park::Host;

/// Descriptors that are not connections, at least: standard streams, logs, and connections that are told that there is no
/// room.
const DESCRIPTORS_RESERVED_MIN: u64 = 256;

/// Of these, what does not depend on cores, and what each core has: rings, epoll sets, doorbells; and its listeners.
const DESCRIPTORS_OF_PROCESS: u64 = 160;
const DESCRIPTORS_OF_CORE: u64 = 12;

/// How many descriptors are kept from connections.
fn reserved(cores: usize, listeners: usize) -> u64 {
    let of_cores = cores as u64 * (DESCRIPTORS_OF_CORE + listeners as u64);
    DESCRIPTORS_RESERVED_MIN.max(DESCRIPTORS_OF_PROCESS + of_cores)
}

/// The first kernel that has every operation which glommio asks for: where one is missing it ends the process itself.
/// Asking the kernel for the operations one by one would take another unsafe call.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// What glommio's rings must be able to lock, in bytes.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// Chooses what hosts the shards. The text, if there is one, is a warning for people.
///
/// # Errors
/// A text for people: cause and remedy.
pub(super) fn choose_host(runtime: Runtime) -> Result<(Host, Option<String>), String> {
    if runtime == Runtime::Thread {
        return Ok((Host::Thread, None));
    }
    match (io_uring(), runtime) {
        (Ok(()), _) => {
            memlock(getrlimit(Resource::Memlock).current)?;
            Ok((Host::Glommio, None))
        }
        (Err(cause), Runtime::Glommio) => Err(format!(
            "node.runtime is \"glommio\", but {cause}; allow it, or set node.runtime to \"auto\""
        )),
        (Err(cause), _) => Ok((
            Host::Thread,
            Some(format!(
                "{cause}; the cores run on plain pinned threads instead of glommio executors. \
                 Set node.runtime to \"thread\" to keep it so without this warning"
            )),
        )),
    }
}

/// Whether io_uring may be used; if not, why.
fn io_uring() -> Result<(), String> {
    match uring::probe() {
        Ok(()) => recent_enough(&rustix::system::uname().release().to_string_lossy()),
        Err(Errno::NOSYS) => {
            Err("io_uring is not there: the kernel is older than 5.1 or built without it".to_owned())
        }
        Err(Errno::PERM) => {
            let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            Err(if matches!(disabled.trim(), "1" | "2") {
                format!("io_uring is switched off by sysctl kernel.io_uring_disabled = {}", disabled.trim())
            } else {
                "io_uring is denied, most likely by the seccomp profile of a container engine".to_owned()
            })
        }
        Err(error) => Err(format!("io_uring does not work here: {error}")),
    }
}

/// Whether this kernel has every operation that glommio asks for; if not, why. Threads are there on any.
fn recent_enough(release: &str) -> Result<(), String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => Ok(()),
        _ => Err(format!(
            "io_uring of Linux {release} lacks operations that glommio needs, which {}.{} has",
            KERNEL_MIN.0, KERNEL_MIN.1
        )),
    }
}

#[allow(unsafe_code)]
mod uring {
    //! The one system call that `rustix` calls unsafe here.

    use rustix::io::Errno;
    use rustix::io_uring::{io_uring_params, io_uring_setup};

    /// Makes a ring of one entry and closes it again.
    pub(super) fn probe() -> Result<(), Errno> {
        let mut parameters = io_uring_params::default();
        // SAFETY: no flag is set that names memory of ours; the kernel writes to `parameters` alone, which outlives
        // the call, and the ring is never entered.
        unsafe { io_uring_setup(1, &mut parameters) }.map(drop)
    }
}

fn memlock(limit: Option<u64>) -> Result<(), String> {
    match limit {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => Err(format!(
            "RLIMIT_MEMLOCK is {bytes} bytes, but the rings of io_uring need {MEMLOCK_BYTES_MIN}; raise it \
             (`ulimit -l 1024`, LimitMEMLOCK=8M in a systemd unit), or set node.runtime to \"thread\""
        )),
        _ => Ok(()),
    }
}

/// Raises the soft limit on descriptors to the hard one and returns how many connections there may be.
///
/// # Errors
/// A text for people, when more are configured than the limit allows.
pub(super) fn connections(limits: &Limits, cores: usize, listeners: usize) -> Result<usize, String> {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        // If it fails the lower limit holds, and is what is compared with.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    }
    let reserved = reserved(cores, listeners);
    connections_within(limits.connections_max, getrlimit(Resource::Nofile).current, reserved)
}

fn connections_within(
    wanted: Option<usize>,
    descriptors: Option<u64>,
    reserved: u64,
) -> Result<usize, String> {
    let possible = descriptors
        .map_or(usize::MAX, |limit| usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX));
    match wanted {
        Some(wanted) if wanted > possible => Err(format!(
            "limits.connections is {wanted}, but RLIMIT_NOFILE allows {possible} ({} less {reserved} for \
             the router itself); raise it (`ulimit -Hn`, LimitNOFILE= in a systemd unit), or lower limits.connections",
            descriptors.unwrap_or(u64::MAX)
        )),
        Some(wanted) => Ok(wanted),
        None if possible == 0 => Err(format!(
            "RLIMIT_NOFILE is {}, which leaves no descriptor for connections; raise it (`ulimit -n`)",
            descriptors.unwrap_or(0)
        )),
        None => Ok(possible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_to_lock_is_said_with_the_remedy() {
        assert_eq!(memlock(None), Ok(()));
        assert_eq!(memlock(Some(8 << 20)), Ok(()));
        let error = memlock(Some(65536)).unwrap_err();
        assert!(error.contains("65536") && error.contains("ulimit -l"), "{error}");
    }

    #[test]
    fn an_old_kernel_is_named() {
        for release in ["5.8.0", "5.10.0-8-amd64", "6.1.55", "10.0", "6.18-custom"] {
            assert_eq!(recent_enough(release), Ok(()), "{release}");
        }
        for release in ["5.7.19", "5.4.0-150-generic", "4.18.0-553.el8_10.x86_64", "2.6.32", "mine"] {
            let error = recent_enough(release).unwrap_err();
            assert!(error.contains(release) && error.contains("5.8"), "{error}");
        }
    }

    #[test]
    fn the_settings_of_a_machine_reserve_as_many_descriptors_as_the_router() {
        let tuning = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/targets.sh");
        for (cores, listeners) in [(1, 1), (2, 3), (7, 1), (8, 1), (64, 1), (64, 5), (256, 256)] {
            let output = std::process::Command::new("sh")
                .args(["-c", ". \"$0\"; reserved_descriptors \"$1\" \"$2\"", tuning])
                .args([cores.to_string(), listeners.to_string()])
                .output()
                .unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(
                said.trim().parse(),
                Ok(reserved(cores, listeners)),
                "{cores} cores, {listeners} listeners"
            );
        }
    }

    #[test]
    fn connections_follow_the_limit_on_descriptors() {
        assert_eq!(connections_within(None, Some(20_000), 256), Ok(19_744));
        assert_eq!(connections_within(Some(1000), Some(20_000), 256), Ok(1000));
        assert_eq!(connections_within(None, None, 256), Ok(usize::MAX));
        let error = connections_within(Some(180_000), Some(20_000), 256).unwrap_err();
        assert!(error.contains("180000") && error.contains("19744"), "{error}");
        assert!(connections_within(None, Some(100), 256).is_err());
    }
}
