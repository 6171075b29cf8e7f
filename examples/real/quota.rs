//! A cgroup with a CPU quota, v1 or v2. It needs root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

const PERIOD_MICROS: u64 = 100_000;

/// A cgroup of our own; removed when this is dropped, by when its processes must be gone.
pub(crate) struct Quota {
    directory: PathBuf,
}

impl Quota {
    /// A cgroup whose processes together get so many thousandths of a core.
    pub(crate) fn of_millicores(millicores: u64) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("sluice-example-{}", std::process::id());
        let quota = PERIOD_MICROS * millicores / 1_000;
        let write = |directory: &Path, file: &str, text: String| {
            let path = directory.join(file);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        if root.join("cgroup.controllers").exists() {
            // Already there, or refused where it matters: then cpu.max is missing below.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu");
            let made = Self::make(root.join(name))?;
            write(&made.directory, "cpu.max", format!("{quota} {PERIOD_MICROS}"))?;
            // Whatever else runs must not take from what is measured.
            write(&made.directory, "cpu.weight", "10000".to_owned())?;
            return Ok(made);
        }
        for mount in ["cpu", "cpu,cpuacct"] {
            if root.join(mount).join("cpu.cfs_quota_us").exists() {
                let made = Self::make(root.join(mount).join(name))?;
                write(&made.directory, "cpu.cfs_period_us", PERIOD_MICROS.to_string())?;
                write(&made.directory, "cpu.cfs_quota_us", quota.to_string())?;
                write(&made.directory, "cpu.shares", "262144".to_owned())?;
                return Ok(made);
            }
        }
        bail!(
            "no cgroup hierarchy with the cpu controller under {}",
            root.display()
        )
    }

    fn make(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {} (this needs root)", directory.display()))?;
        Ok(Self { directory })
    }

    /// How many periods there were with anything to do, and in how many of them the kernel stopped its processes.
    pub(crate) fn periods(&self) -> Result<(u64, u64)> {
        let path = self.directory.join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        value("nr_periods")
            .zip(value("nr_throttled"))
            .with_context(|| format!("{} has no nr_periods or nr_throttled", path.display()))
    }

    /// Starts an executable that is in it from the beginning, before it looks what its quota is.
    pub(crate) fn command(&self, executable: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh"])
            .arg(self.directory.join("cgroup.procs"))
            .arg(executable);
        command
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
    }
}
