//! What the process uses and what its container may use, as the kernel says it. Never fails: what cannot be read
//! is answered with the next best source.

use std::fs;
use std::path::{Path, PathBuf};

/// CPU nanoseconds that all threads of this process have used.
pub fn used_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Bytes of memory that are resident.
pub fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// CPU nanoseconds a second that the container may use: the tightest quota of its cgroup and those above it
/// (v2 `cpu.max`, v1 `cpu.cfs_quota_us`), else the cores it may run on.
pub fn quota_nanos() -> u64 {
    limit_nanos().unwrap_or_else(cores_nanos)
}

/// The same, where that is less than the cores it may run on; `None`: nothing but those limits it.
pub fn limit_nanos() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    quota(Path::new("/sys/fs/cgroup"), &membership).filter(|&quota| quota < cores_nanos())
}

fn cores_nanos() -> u64 {
    std::thread::available_parallelism().map_or(1, usize::from) as u64 * 1_000_000_000
}

/// Threads that are worth having under the quota: as many as it has whole or part cores, at least one.
pub fn worker_threads() -> usize {
    usize::try_from(quota_nanos().div_ceil(1_000_000_000)).map_or(1, |threads| threads.max(1))
}

/// `membership` is what `/proc/self/cgroup` says: `hierarchy:controllers:path` a line. Inside a container the path
/// may be one of the host that is not visible here; then the mount's own root is the container's group.
fn quota(root: &Path, membership: &str) -> Option<u64> {
    let mut tightest: Option<u64> = None;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let mounts: Vec<PathBuf> = if controllers.is_empty() {
            vec![root.to_path_buf(), root.join("unified")]
        } else if controllers.split(',').any(|name| name == "cpu") {
            vec![root.join("cpu"), root.join(controllers), root.join("cpu,cpuacct")]
        } else {
            continue;
        };
        for mount in mounts {
            let relative = Path::new(path.trim_start_matches('/'));
            for group in relative.ancestors() {
                if let Some(found) = quota_of(&mount.join(group)) {
                    tightest = Some(tightest.map_or(found, |other| other.min(found)));
                }
            }
        }
    }
    tightest
}

fn quota_of(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
        }
        None => (
            // -1 where there is none, which does not parse as a number without a sign.
            read("cpu.cfs_quota_us")?.trim().parse::<u64>().ok()?,
            read("cpu.cfs_period_us")?.trim().parse::<u64>().ok()?,
        ),
    };
    (quota.saturating_mul(1_000_000_000)).checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let directory = root.join(path);
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_quota_above_counts_in_version_two() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "pods", &[("cpu.max", "50000 100000\n")]);
        group(root.path(), "pods/one", &[("cpu.max", "max 100000\n")]);
        assert_eq!(quota(root.path(), "0::/pods/one\n"), Some(500_000_000));
    }

    #[test]
    fn version_one_is_read_and_minus_one_is_no_quota() {
        let root = tempfile::tempdir().unwrap();
        group(
            root.path(),
            "cpu,cpuacct/pod",
            &[("cpu.cfs_quota_us", "20000\n"), ("cpu.cfs_period_us", "100000\n")],
        );
        group(
            root.path(),
            "cpu,cpuacct",
            &[("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")],
        );
        assert_eq!(
            quota(root.path(), "4:cpu,cpuacct:/pod\n2:memory:/pod\n"),
            Some(200_000_000)
        );
        assert_eq!(quota(root.path(), "4:cpu,cpuacct:/\n"), None);
    }

    #[test]
    fn a_group_of_the_host_falls_back_to_the_mount() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "", &[("cpu.max", "20000 100000\n")]);
        assert_eq!(
            quota(root.path(), "0::/kubepods/burstable/x\n"),
            Some(200_000_000)
        );
    }

    #[test]
    fn the_clock_and_memory_of_this_process_are_not_zero() {
        assert!(used_nanos() > 0 && resident_bytes() > 0 && worker_threads() >= 1);
    }
}
