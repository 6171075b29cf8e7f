//! Moments, as the callers of the loops count them.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment in milliseconds since an origin that all calls share; the operator counts from the Unix epoch,
/// since some moments must outlive it.
///
/// Clocks step. A moment later than `now` is taken for `now` wherever it would otherwise matter.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(transparent)]
pub struct Time(u64);

impl Time {
    /// A moment, in milliseconds since the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it was not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_never_wrap_around() {
        let early = Time::from_millis(5);
        assert_eq!(early - Duration::from_secs(1), Time::from_millis(0));
        assert_eq!(early + Duration::MAX, Time::from_millis(u64::MAX));
        assert_eq!(early.since(Time::from_millis(9)), Duration::ZERO);
    }
}
