//! Where the control groups of this process are, in both versions of the kernel's interface.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The directories of this process's groups for a controller; see [`directories`].
pub(super) fn own(controller: &str) -> Vec<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    directories(Path::new(MOUNT), &membership, controller)
}

/// From the group of the process up to the root: a limit of any of them holds. `membership` is /proc/self/cgroup
/// (cgroups(7)). In a container the root is the container's own group, and the rest of the path may not be there.
pub(super) fn directories(mount: &Path, membership: &str, controller: &str) -> Vec<PathBuf> {
    let lines = || membership.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    // Where both versions are mounted a controller is in one of them, and version 1 names it.
    let of_version_1 = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == controller));
    let of_version_2 = lines().find(|(controllers, _)| controllers.is_empty());
    let (root, path) = match (of_version_1, of_version_2) {
        (Some((_, path)), _) => (mount.join(controller), path),
        (None, Some((_, path))) => (mount.to_owned(), path),
        (None, None) if mount.join(controller).is_dir() => (mount.join(controller), "/"),
        (None, None) => (mount.to_owned(), "/"),
    };
    // Seen from inside of another namespace the path may lead out of what is mounted.
    let is_inside = !Path::new(path).components().any(|component| component == Component::ParentDir);
    let path = Path::new(if is_inside { path.trim_start_matches('/') } else { "" });
    path.ancestors().map(|group| root.join(group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(membership: &str, controller: &str) -> Vec<String> {
        let directories = directories(Path::new("/groups"), membership, controller);
        directories.into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn all_groups_up_to_the_root_count() {
        let version_2 = "0::/system.slice/crosspoint.service\n";
        let expected = ["/groups/system.slice/crosspoint.service", "/groups/system.slice", "/groups/"];
        assert_eq!(found(version_2, "memory"), expected);
        let version_1 = "9:name=systemd:/\n4:memory:/a\n1:cpu,cpuacct:/b\n0::/c\n";
        assert_eq!(found(version_1, "memory"), ["/groups/memory/a", "/groups/memory/"]);
        assert_eq!(found(version_1, "cpu"), ["/groups/cpu/b", "/groups/cpu/"]);
    }

    #[test]
    fn a_path_that_leads_out_is_the_root() {
        assert_eq!(found("0::/../../init.scope\n", "memory"), ["/groups/"]);
        assert_eq!(found("", "memory"), ["/groups/"]);
    }
}
