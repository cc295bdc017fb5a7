//! How much of the memory is used: of the cgroup where it has a limit, of the machine otherwise.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shard::MemoryLevel;

/// Looks at the memory from time to time.
#[derive(Debug)]
pub(super) struct MemoryWatcher {
    cgroup: PathBuf,
    meminfo: PathBuf,
    high_percent: u64,
    critical_percent: u64,
}

impl MemoryWatcher {
    pub(super) fn new(high_percent: u8, critical_percent: u8) -> Self {
        Self {
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            meminfo: PathBuf::from("/proc/meminfo"),
            high_percent: u64::from(high_percent),
            critical_percent: u64::from(critical_percent),
        }
    }

    /// The level now, and the percentage of memory in use.
    pub(super) fn level(&self) -> (MemoryLevel, u64) {
        let used = [cgroup_use(&self.cgroup), machine_use(&self.meminfo)]
            .into_iter()
            .flatten()
            .map(|(used, limit)| used.saturating_mul(100) / limit.max(1))
            .max()
            .unwrap_or(0);
        let level = if used >= self.critical_percent {
            MemoryLevel::Critical
        } else if used >= self.high_percent {
            MemoryLevel::High
        } else {
            MemoryLevel::Normal
        };
        (level, used)
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Used and allowed bytes of the cgroup, version 2 or 1. File pages that can be dropped do not count.
fn cgroup_use(root: &Path) -> Option<(u64, u64)> {
    let (directory, limit, used, inactive) = if root.join("memory.max").exists() {
        (root.to_owned(), "memory.max", "memory.current", "inactive_file")
    } else {
        (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    };
    // No limit is "max" in version 2 and a number near 2^63 in version 1.
    let limit = number(&directory.join(limit)).filter(|limit| *limit < 1 << 60)?;
    let used = number(&directory.join(used))?;
    let statistics = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let inactive = statistics
        .lines()
        .find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Some((used.saturating_sub(inactive), limit))
}

/// Used and present bytes of the machine.
fn machine_use(meminfo: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(meminfo).ok()?;
    let kilobytes = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
    };
    let (total, available) = (kilobytes("MemTotal:")?, kilobytes("MemAvailable:")?);
    Some((total.saturating_sub(available) * 1024, total * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_of_cgroup_and_machine_counts() {
        let root = std::env::temp_dir().join(format!("crosspoint-memory-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let meminfo = root.join("meminfo");
        fs::write(&meminfo, "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\n").unwrap();
        let watcher = MemoryWatcher { cgroup: root.clone(), meminfo, high_percent: 80, critical_percent: 92 };
        assert_eq!(watcher.level(), (MemoryLevel::Normal, 50));
        fs::write(root.join("memory.max"), "1000\n").unwrap();
        fs::write(root.join("memory.current"), "950\n").unwrap();
        fs::write(root.join("memory.stat"), "anon 1\ninactive_file 100\n").unwrap();
        assert_eq!(watcher.level(), (MemoryLevel::High, 85));
        fs::write(root.join("memory.stat"), "anon 1\ninactive_file 10\n").unwrap();
        assert_eq!(watcher.level(), (MemoryLevel::Critical, 94));
        fs::write(root.join("memory.max"), "max\n").unwrap();
        assert_eq!(watcher.level(), (MemoryLevel::Normal, 50));
        fs::remove_dir_all(&root).unwrap();
    }
}
