//! Which processors a server and its load generator have, each its own, as if they were on machines of their own.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A share of the processors of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// The last one.
    Load,
    /// All others.
    Server,
}

/// Has `start` start a process that runs on this share only. With one processor there is nothing to share.
///
/// # Errors
/// The kernel refuses that, or what `start` says.
pub(crate) fn on<T>(share: Share, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let all = sched_getaffinity(None)?;
    let Some(ours) = of(share, &all) else {
        return start();
    };
    // A process inherits what the thread has that starts it.
    sched_setaffinity(None, &ours)?;
    let started = start();
    sched_setaffinity(None, &all)?;
    started
}

fn of(share: Share, all: &CpuSet) -> Option<CpuSet> {
    let mut numbers: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|number| all.is_set(*number))
        .collect();
    let last = numbers.pop().filter(|_| !numbers.is_empty())?;
    let mut set = CpuSet::new();
    match share {
        Share::Load => set.set(last),
        Share::Server => numbers.into_iter().for_each(|number| set.set(number)),
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_has_the_last_processor_and_the_server_the_others() {
        let mut all = CpuSet::new();
        all.set(3);
        assert!(of(Share::Load, &all).is_none());
        all.set(0);
        all.set(5);
        let numbers = |share| -> Vec<usize> {
            let set = of(share, &all).unwrap();
            (0..8).filter(|number| set.is_set(*number)).collect()
        };
        assert_eq!(
            (numbers(Share::Server), numbers(Share::Load)),
            (vec![0, 3], vec![5])
        );
    }
}
