//! What a process costs, from /proc.

use std::fs;
use std::path::PathBuf;

/// Processor time, descriptors and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessState {
    /// User and system time, in hundredths of a second.
    pub cpu_ticks: u64,
    pub descriptors: usize,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    pub threads: usize,
}

impl ProcessState {
    pub fn read(pid: i32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Self {
            cpu_ticks: cpu_ticks(&format!("/proc/{pid}/stat")),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            resident_bytes: number("VmRSS:") * 1024,
            threads: number("Threads:") as usize,
        }
    }

    /// The processor time of the thread with this name, in nanoseconds; `None` when there is no such thread.
    pub fn cpu_ns_of_thread(pid: i32, name: &str) -> Option<u64> {
        let statistics = fs::read_to_string(thread(pid, name)?.join("schedstat")).unwrap();
        statistics.split(' ').next()?.parse().ok()
    }

    /// The processors on which the thread with this name may run, such as `0` or `0-3`.
    pub fn processors_of_thread(pid: i32, name: &str) -> Option<String> {
        let status = fs::read_to_string(thread(pid, name)?.join("status")).unwrap();
        Some(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned())
    }
}

fn thread(pid: i32, name: &str) -> Option<PathBuf> {
    let mut threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path());
    threads.find(|thread| fs::read_to_string(thread.join("comm")).unwrap_or_default().trim_end() == name)
}

fn cpu_ticks(path: &str) -> u64 {
    let stat = fs::read_to_string(path).unwrap();
    // The name may hold spaces; the fields after it do not. utime and stime are fields 14 and 15 of proc_pid_stat(5).
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
