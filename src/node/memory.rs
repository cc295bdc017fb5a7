//! How much of the memory is used: of each control group with a limit that this process is in, and of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup;
use crate::shard::MemoryLevel;

/// Looks at the memory from time to time.
#[derive(Debug)]
pub(super) struct MemoryWatcher {
    /// The directories of the control groups, of the process's own and those above it.
    groups: Vec<PathBuf>,
    meminfo: PathBuf,
    high_percent: u64,
    critical_percent: u64,
}

impl MemoryWatcher {
    pub(super) fn new(high_percent: u8, critical_percent: u8) -> Self {
        Self {
            groups: cgroup::own("memory"),
            meminfo: PathBuf::from("/proc/meminfo"),
            high_percent: u64::from(high_percent),
            critical_percent: u64::from(critical_percent),
        }
    }

    /// The level now, and the percentage of memory in use; `None` when it cannot be read, for want of descriptors.
    pub(super) fn level(&self) -> Option<(MemoryLevel, u64)> {
        let groups = self.groups.iter().filter_map(|group| cgroup_use(group));
        let used = groups
            .chain(machine_use(&self.meminfo))
            .map(|(used, limit)| used.saturating_mul(100) / limit.max(1))
            .max()?;
        let level = if used >= self.critical_percent {
            MemoryLevel::Critical
        } else if used >= self.high_percent {
            MemoryLevel::High
        } else {
            MemoryLevel::Normal
        };
        Some((level, used))
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Used and allowed bytes of a group, version 2 or 1. File pages that can be dropped do not count.
fn cgroup_use(group: &Path) -> Option<(u64, u64)> {
    let (limit, used, inactive) = if group.join("memory.max").exists() {
        ("memory.max", "memory.current", "inactive_file")
    } else {
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    };
    // No limit is "max" in version 2 and a number near 2^63 in version 1.
    let limit = number(&group.join(limit)).filter(|limit| *limit < 1 << 60)?;
    let used = number(&group.join(used))?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
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
    fn the_tightest_of_groups_and_machine_counts() {
        let root = std::env::temp_dir().join(format!("crosspoint-memory-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let meminfo = root.join("meminfo");
        fs::write(&meminfo, "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\n").unwrap();
        let groups = vec![root.join("own"), root.clone()];
        let watcher = MemoryWatcher { groups, meminfo, high_percent: 80, critical_percent: 92 };
        assert_eq!(watcher.level(), Some((MemoryLevel::Normal, 50)));
        fs::write(root.join("memory.max"), "1000\n").unwrap();
        fs::write(root.join("memory.current"), "950\n").unwrap();
        fs::write(root.join("memory.stat"), "anon 1\ninactive_file 100\n").unwrap();
        assert_eq!(watcher.level(), Some((MemoryLevel::High, 85)));
        fs::write(root.join("memory.stat"), "anon 1\ninactive_file 10\n").unwrap();
        assert_eq!(watcher.level(), Some((MemoryLevel::Critical, 94)));
        fs::write(root.join("memory.max"), "max\n").unwrap();
        assert_eq!(watcher.level(), Some((MemoryLevel::Normal, 50)));
        // The group of the process itself, in the other version's words.
        fs::create_dir_all(root.join("own")).unwrap();
        fs::write(root.join("own/memory.limit_in_bytes"), "1000\n").unwrap();
        fs::write(root.join("own/memory.usage_in_bytes"), "900\n").unwrap();
        fs::write(root.join("own/memory.stat"), "total_inactive_file 50\n").unwrap();
        assert_eq!(watcher.level(), Some((MemoryLevel::High, 85)));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(watcher.level(), None);
    }
}
