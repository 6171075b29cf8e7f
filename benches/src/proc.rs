//! What the kernel says about a process and a disk.

use std::path::Path;

use anyhow::{Context as _, bail};

/// Clock ticks a second in /proc: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// Seconds of processor time that a process has used so far, in user and kernel mode.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let fields = stat(&format!("/proc/{pid}/stat"))?;
    Ok((field(&fields, 11)? + field(&fields, 12)?) / TICKS)
}

/// Seconds of processor time of all children of this process that have ended.
pub(crate) fn ended_children_cpu_seconds() -> anyhow::Result<f64> {
    let fields = stat("/proc/self/stat")?;
    Ok((field(&fields, 13)? + field(&fields, 14)?) / TICKS)
}

/// The fields after the command's name, which may hold anything.
fn stat(path: &str) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let (_, rest) = text
        .rsplit_once(')')
        .with_context(|| format!("{path} has no name in it"))?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn field(fields: &[String], index: usize) -> anyhow::Result<f64> {
    let field = fields
        .get(index)
        .context("a field is missing in /proc/PID/stat")?;
    Ok(field.parse()?)
}

/// Bytes of memory that a process has resident now.
pub(crate) fn rss(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmRSS:")
}

/// The most bytes of memory that a process has had resident.
pub(crate) fn peak_rss(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: u64 = kilobytes
        .with_context(|| format!("{path} has no {name}"))?
        .parse()?;
    Ok(kilobytes << 10)
}

/// Flushes that the disk under a folder has completed since the machine started: what an fdatasync costs. `None`
/// where the kernel does not count them for that disk.
pub(crate) fn flushes(folder: &Path) -> anyhow::Result<Option<u64>> {
    use std::os::unix::fs::MetadataExt as _;
    let device = std::fs::metadata(folder)?.dev();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let Ok(text) = std::fs::read_to_string(path) else {
        return Ok(None);
    };
    // The sixteenth figure: Documentation/block/stat.rst.
    text.split_whitespace()
        .nth(15)
        .map(str::parse)
        .transpose()
        .map_err(Into::into)
}

/// Files that a process of this machine may have open.
pub(crate) fn most_open_files() -> anyhow::Result<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    match line.and_then(|line| line.split_whitespace().nth(3)) {
        Some("unlimited") => Ok(u64::MAX),
        Some(soft) => Ok(soft.parse()?),
        None => bail!("/proc/self/limits names no limit of open files"),
    }
}
