//! How long to wait before a failed object is tried again: per object, doubling, jittered, with a cap.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

/// The first wait.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
const CAP: Duration = Duration::from_secs(60);

/// How often each object failed in a row.
#[derive(Debug, Default)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K: Hash + Eq> Backoff<K> {
    /// None failed yet.
    pub fn new() -> Self {
        Self {
            failures: Mutex::new(HashMap::new()),
        }
    }

    /// It failed once more: how long to wait. `random` is from 0 to 1.
    pub fn failed(&self, key: K, random: f64) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(key).or_insert(0);
        *count = count.saturating_add(1);
        delay(*count, random)
    }

    /// It succeeded, or is gone.
    pub fn succeeded(&self, key: &K) {
        self.failures.lock().remove(key);
    }
}

/// The wait after so many failures in a row: between half and the whole of the doubled time.
pub fn delay(failures: u32, random: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(CAP).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_again_after_a_success() {
        let backoff = Backoff::new();
        let waits: Vec<_> = (0..40).map(|_| backoff.failed("a", 1.0)).collect();
        assert_eq!(waits[0], Duration::from_millis(250));
        assert_eq!(waits[1], Duration::from_millis(500));
        assert_eq!(waits[39], CAP);
        assert_eq!(
            backoff.failed("b", 1.0),
            FIRST,
            "one object's failures are its own"
        );
        backoff.succeeded(&"a");
        assert_eq!(backoff.failed("a", 0.0), FIRST / 2);
    }
}
