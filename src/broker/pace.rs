//! Spreads the CPU time that a quota allows evenly, so that the kernel need not stop the broker.
//!
//! A container with a CPU limit of 200m may use 20 ms in each 100 ms. A broker that answers whatever comes as soon as it comes has
//! used that up before their end, by small requests, and is then stopped for the rest: whatever comes meanwhile waits.
//! So before an event loop goes to sleep it looks at how much CPU time the process has used, and where that is ahead of the quota
//! it waits until it is not. What comes in the meantime is served in one go, which costs less (`docs/decisions/0028`).

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cpu;

/// The part of the quota that is used; the rest is for what other threads do in the meantime.
const PART: f64 = 0.95;
/// After a quiet time, as much may be used at once as the quota allows in this time.
const BURST: Duration = Duration::from_millis(50);
/// Shorter waits are not worth the two changes of threads; they add up.
const SHORTEST: Duration = Duration::from_micros(500);
/// The longest wait. What is still ahead then, as after much work at once, is left to the kernel.
const LONGEST: Duration = Duration::from_millis(40);
/// How often it is looked what the quota is now.
const LOOK: Duration = Duration::from_secs(1);

/// The pace of this process, once it is known whether it has a quota.
static PACE: OnceLock<Option<Mutex<Pace>>> = OnceLock::new();

/// Waits until the process is no further ahead of its CPU quota; without one it does nothing. For event loops that are about to sleep.
pub fn before_sleep() {
    let used = || Duration::from_nanos(cpu::used_nanos());
    let begin = || limit().map(|quota| Mutex::new(Pace::new(quota, Instant::now(), used())));
    let Some(pace) = PACE.get_or_init(begin) else {
        return;
    };
    let used = used();
    let wait = pace.lock().wait(Instant::now(), used, limit);
    if let Some(wait) = wait {
        std::thread::sleep(wait);
    }
}

/// The quota in cores, where there is one.
fn limit() -> Option<f64> {
    cpu::limit_nanos().map(|quota| quota as f64 / 1e9)
}

/// How far the process is.
#[derive(Debug)]
struct Pace {
    /// Cores; `None`: as many as there are.
    quota: Option<f64>,
    /// CPU time that it may have used by now.
    allowed: Duration,
    /// When that was reckoned, and when the quota was last looked up.
    at: Instant,
    looked: Instant,
}

impl Pace {
    /// What was used before is not counted: a start is work that is not done faster by waiting.
    fn new(quota: f64, now: Instant, used: Duration) -> Self {
        Self {
            quota: Some(quota),
            allowed: used,
            at: now,
            looked: now,
        }
    }

    /// How long to wait, if it has used this much CPU time by now.
    fn wait(
        &mut self,
        now: Instant,
        used: Duration,
        quota: impl FnOnce() -> Option<f64>,
    ) -> Option<Duration> {
        if now.saturating_duration_since(self.looked) >= LOOK {
            self.looked = now;
            self.quota = quota();
        }
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        let rate = PART * self.quota.filter(|quota| *quota > 0.0)?;
        let most = used + BURST.mul_f64(rate);
        let least = used.saturating_sub(LONGEST.mul_f64(rate));
        self.allowed = (self.allowed + passed.mul_f64(rate)).clamp(least, most);
        let ahead = used.saturating_sub(self.allowed).div_f64(rate);
        (ahead >= SHORTEST).then(|| ahead.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fifth of a core.
    const QUOTA: f64 = 0.2;

    fn millis(count: f64) -> Duration {
        Duration::from_secs_f64(count / 1e3)
    }

    /// Works off `turns` of so many milliseconds of CPU each, with `pause` between them, and waits as it is told. Returns how long
    /// that took and the longest wait.
    fn work(pace: &mut Pace, turns: u32, turn: f64, pause: f64) -> (Duration, Duration) {
        let begun = pace.at;
        let (mut now, mut longest) = (begun, Duration::ZERO);
        let mut used = pace.allowed;
        for _ in 0..turns {
            now += millis(turn);
            used += millis(turn);
            let wait = pace.wait(now, used, || Some(QUOTA)).unwrap_or_default();
            longest = longest.max(wait);
            now += wait.max(millis(pause));
        }
        (now - begun, longest)
    }

    #[test]
    fn work_without_end_uses_a_little_less_than_the_quota() {
        let mut pace = Pace::new(QUOTA, Instant::now(), Duration::ZERO);
        let (took, longest) = work(&mut pace, 1_000, 0.5, 0.0);
        let share = 0.5 / took.as_secs_f64();
        assert!((0.9..1.0).contains(&(share / QUOTA)), "{share}");
        assert!(longest < millis(4.0), "{longest:?}");
    }

    #[test]
    fn a_load_far_below_the_quota_never_waits() {
        let mut pace = Pace::new(QUOTA, Instant::now(), Duration::ZERO);
        let (_, longest) = work(&mut pace, 1_000, 0.1, 1.0);
        assert_eq!(longest, Duration::ZERO);
    }

    #[test]
    fn a_quiet_hour_allows_no_more_than_a_short_burst() {
        let mut pace = Pace::new(QUOTA, Instant::now(), Duration::ZERO);
        let used = millis(10.0);
        let now = pace.at + Duration::from_secs(3_600);
        assert_eq!(pace.wait(now, used, || Some(QUOTA)), None);
        let burst = BURST.mul_f64(PART * QUOTA);
        assert_eq!(pace.wait(now, used + burst, || Some(QUOTA)), None);
        assert!(
            pace.wait(now, used + burst + millis(1.0), || Some(QUOTA))
                .is_some()
        );
    }

    #[test]
    fn much_work_at_once_is_waited_for_once_and_not_for_its_whole_length() {
        let mut pace = Pace::new(QUOTA, Instant::now(), Duration::ZERO);
        let (now, used) = (pace.at + millis(100.0), millis(100.0));
        assert_eq!(pace.wait(now, used, || Some(QUOTA)), Some(LONGEST));
        assert_eq!(pace.wait(now + LONGEST, used, || Some(QUOTA)), None);
    }

    #[test]
    fn another_quota_counts_within_a_second() {
        let mut pace = Pace::new(QUOTA, Instant::now(), Duration::ZERO);
        let begun = pace.at;
        assert!(
            pace.wait(begun, millis(50.0), || None).is_some(),
            "not looked up yet"
        );
        assert_eq!(pace.wait(begun + LOOK, millis(500.0), || None), None);
    }
}
