//! What a process, and those that it started, cost: CPU time and memory from /proc (proc(5)).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;

use crosspoint::node::holder::process_of_port;
use serde::Serialize;

/// The length of a tick in /proc/PID/stat, in microseconds: Linux has 100 a second for user space.
const TICK_US: u64 = 10_000;

/// What was used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// CPU time in user space, in microseconds.
    pub(crate) user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub(crate) system_us: u64,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
}

impl Usage {
    /// CPU time in all.
    pub(crate) fn cpu_us(&self) -> u64 {
        self.user_us + self.system_us
    }

    /// CPU time since then, with the memory of now.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(earlier.user_us),
            system_us: self.system_us.saturating_sub(earlier.system_us),
            resident_bytes: self.resident_bytes,
        }
    }
}

/// A process and its descendants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
}

impl Process {
    /// The process that listens at an address of this machine, if it may be seen.
    pub(crate) fn listening_at(address: SocketAddr) -> Option<Self> {
        process_of_port(address.port()).map(|pid| Self { pid })
    }

    /// What it and its descendants used so far; `None` if it is gone.
    pub(crate) fn usage(self) -> Option<Usage> {
        let parents: HashMap<u32, u32> =
            processes().into_iter().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
        let mut usage = usage_of(self.pid)?;
        for pid in parents.keys().copied().filter(|pid| *pid != self.pid) {
            let mut ancestor = pid;
            while let Some(parent) = parents.get(&ancestor) {
                if *parent == self.pid {
                    let more = usage_of(pid).unwrap_or_default();
                    usage.user_us += more.user_us;
                    usage.system_us += more.system_us;
                    usage.resident_bytes += more.resident_bytes;
                    break;
                }
                ancestor = *parent;
            }
        }
        Some(usage)
    }

    /// CPU time of its own threads that are pinned to one processor, by processor, in microseconds: what each core of
    /// Crosspoint used.
    pub(crate) fn pinned_us(self) -> BTreeMap<u32, u64> {
        let mut pinned = BTreeMap::new();
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return pinned };
        for thread in threads.flatten() {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let status = read("status");
            let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            // A list or a range is no number.
            let Some(processor) = allowed.and_then(|list| list.trim().parse().ok()) else { continue };
            let ran_ns = read("schedstat").split(' ').next().and_then(|ran| ran.parse::<u64>().ok());
            *pinned.entry(processor).or_default() += ran_ns.unwrap_or(0) / 1000;
        }
        pinned
    }
}

/// CPU time of those that a process has started and that have ended, in microseconds.
pub(crate) fn ended_cpu_us(pid: u32) -> Option<u64> {
    let stat = stat_of(pid)?;
    let ticks = |field: usize| stat.get(field)?.parse::<u64>().ok();
    Some((ticks(13)? + ticks(14)?) * TICK_US)
}

/// Kernel memory of the whole machine that sockets take, in bytes: the slab, which is exact enough for thousands.
pub(crate) fn slab_bytes() -> Option<u64> {
    meminfo("Slab:")
}

/// Memory of the whole machine that is still to be had, in bytes.
pub(crate) fn available_bytes() -> Option<u64> {
    meminfo("MemAvailable:")
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fields of /proc/PID/stat behind the name, which may hold anything.
fn stat_of(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_of(pid)?.get(1)?.parse().ok()
}

fn usage_of(pid: u32) -> Option<Usage> {
    let stat = stat_of(pid)?;
    let ticks = |field: usize| stat.get(field)?.parse::<u64>().ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident_kib = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Some(Usage {
        user_us: ticks(11)? * TICK_US,
        system_us: ticks(12)? * TICK_US,
        resident_bytes: resident_kib.unwrap_or(0) * 1024,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn this_process_is_found_by_its_port_and_uses_something() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::listening_at(listener.local_addr().unwrap()).unwrap();
        assert_eq!(process.pid, std::process::id());
        let usage = process.usage().unwrap();
        assert!(usage.resident_bytes > 100_000);
        assert!(Process { pid: u32::MAX }.usage().is_none());
        assert!(Process { pid: u32::MAX }.pinned_us().is_empty());
    }
}
