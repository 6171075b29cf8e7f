//! For tests: the operator ends, as by kill -9, right after something that it did for others succeeded, and before it
//! could make anything of the answer.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to end after, and after how many of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitAfter {
    /// `Write` for a write to the Kubernetes API (the Lease and events aside), else a method of
    /// `sluice.v1.Control`.
    pub what: String,
    /// How many times it is done.
    pub times: u64,
}

/// What can be ended after.
const KINDS: [&str; 4] = ["Write", "Seal", "Copy", "Drop"];

impl FromStr for ExitAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, times) = text.split_once('=').unwrap_or((text, "1"));
        let times = times.parse().ok().filter(|&times| times > 0);
        match times {
            Some(times) if KINDS.contains(&what) => Ok(Self {
                what: what.to_owned(),
                times,
            }),
            _ => Err(format!(
                "{text:?} is not WHAT=N with WHAT one of {} and N at least 1",
                KINDS.join(", ")
            )),
        }
    }
}

static ARMED: OnceLock<Vec<(ExitAfter, AtomicU64)>> = OnceLock::new();

/// From now on, the process ends after whichever of these comes first. Only the first call counts.
pub fn arm(exit_after: &[ExitAfter]) {
    ARMED.get_or_init(|| {
        exit_after
            .iter()
            .map(|one| (one.clone(), AtomicU64::new(0)))
            .collect()
    });
}

/// This was done.
pub fn done(what: &str) {
    for (exit_after, count) in ARMED.get().into_iter().flatten() {
        if exit_after.what == what && count.fetch_add(1, Ordering::SeqCst) + 1 >= exit_after.times {
            tracing::warn!(what, "ending, as --exit-after says");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let seal = ExitAfter {
            what: "Seal".to_owned(),
            times: 2,
        };
        assert_eq!("Seal=2".parse(), Ok(seal));
        assert_eq!(
            "Write".parse(),
            Ok(ExitAfter {
                what: "Write".to_owned(),
                times: 1
            })
        );
        for wrong in ["", "Read=1", "Seal=0", "Seal=x"] {
            let error = wrong.parse::<ExitAfter>().expect_err("not a fault");
            assert!(error.contains("Write, Seal, Copy, Drop"), "{error}");
        }
    }
}
