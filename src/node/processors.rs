//! Which processors this process may use: its affinity mask, and no more of them than its cgroup pays for.

use std::fs;
use std::path::Path;

use super::cgroup;

/// The processors to run on: those asked for, or those of the affinity mask, at most as many as the cgroup's quota.
///
/// # Errors
/// A text for people, when one that was asked for is not to be had.
pub(super) fn select(wanted: Option<&[usize]>) -> Result<Vec<usize>, String> {
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    if let Some(wanted) = wanted {
        return match wanted.iter().find(|processor| !allowed.contains(processor)) {
            None => Ok(wanted.to_vec()),
            Some(missing) => Err(format!(
                "node.cores names processor {missing}, but this process may only use {allowed:?}; \
                 change node.cores, or the affinity mask it is started with (taskset, CPUAffinity=)"
            )),
        };
    }
    if allowed.is_empty() {
        return Err(
            "the affinity mask of this process cannot be read; name the processors in node.cores".to_owned()
        );
    }
    let quotas = cgroup::own("cpu");
    let quota = quotas.iter().filter_map(|group| cgroup_quota(group)).min().unwrap_or(usize::MAX);
    Ok(allowed.into_iter().take(quota.max(1)).collect())
}

/// How many processors' time a group may use, rounded up; `None` for no limit.
fn cgroup_quota(group: &Path) -> Option<usize> {
    let quota = |text: &str| {
        let mut words = text.split_whitespace();
        let quota: u64 = words.next()?.parse().ok()?;
        let period: u64 = words.next()?.parse().ok()?;
        (period > 0 && quota > 0).then(|| quota.div_ceil(period) as usize)
    };
    if let Ok(text) = fs::read_to_string(group.join("cpu.max")) {
        return quota(&text);
    }
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let (used, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
    quota(&format!("{} {}", used.trim(), period.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_to_whole_processors() {
        let root = std::env::temp_dir().join(format!("crosspoint-quota-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        fs::write(root.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(cgroup_quota(&root), None);
        fs::write(root.join("cpu.cfs_quota_us"), "150000\n").unwrap();
        assert_eq!(cgroup_quota(&root), Some(2));
        fs::write(root.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(cgroup_quota(&root), None);
        fs::write(root.join("cpu.max"), "100000 100000\n").unwrap();
        assert_eq!(cgroup_quota(&root), Some(1));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_processor_that_is_not_there_is_named() {
        let error = select(Some(&[9999])).unwrap_err();
        assert!(error.contains("processor 9999") && error.contains("node.cores"), "{error}");
    }
}
