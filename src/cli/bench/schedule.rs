//! When each message of a load is to be sent: fixed before it starts, so that a slow broker cannot slow it down.

use std::str::FromStr;
use std::time::Duration;

use crate::cli::options::duration;

/// A rate, held for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Messages a second; 0: a pause.
    pub rate: u64,
    /// How long.
    pub duration: Duration,
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected RATE:DURATION, such as 5000:60s";
        let (rate, time) = text.split_once(':').ok_or(expected)?;
        let rate = rate.parse().map_err(|error| format!("{error}; {expected}"))?;
        Ok(Self {
            rate,
            duration: duration(time).map_err(|error| format!("{error}; {expected}"))?,
        })
    }
}

/// The intended send times of all messages, counted from the start.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Empty: as fast as it goes.
    steps: Vec<Placed>,
    duration: Duration,
    limit: u64,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    begins: Duration,
    rate: u64,
    first: u64,
    messages: u64,
}

impl Schedule {
    pub(super) fn of_steps(steps: &[Step], limit: u64) -> Result<Self, String> {
        let mut placed = Vec::with_capacity(steps.len());
        let (mut begins, mut first) = (Duration::ZERO, 0);
        for step in steps {
            let messages = u128::from(step.rate) * step.duration.as_nanos() / 1_000_000_000;
            let messages = u64::try_from(messages).map_err(|_| "the load has too many messages")?;
            placed.push(Placed {
                begins,
                rate: step.rate,
                first,
                messages,
            });
            begins += step.duration;
            first += messages;
        }
        Self {
            steps: placed,
            duration: begins,
            limit: limit.min(first),
        }
        .checked()
    }

    pub(super) fn unpaced(duration: Duration, limit: u64) -> Result<Self, String> {
        Self {
            steps: Vec::new(),
            duration,
            limit,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, String> {
        const LONGEST: Duration = Duration::from_secs(18 * 3600);
        match self.duration {
            time if time.is_zero() => Err("the load takes no time: give a duration".to_owned()),
            time if time > LONGEST => Err(format!("the load takes {time:?}, the most is {LONGEST:?}")),
            _ => Ok(self),
        }
    }

    pub(super) fn is_paced(&self) -> bool {
        !self.steps.is_empty()
    }

    pub(super) fn duration(&self) -> Duration {
        self.duration
    }

    /// The most messages that will be sent.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// When message `index` is to be sent; `None` after the last one, and always where the load is not paced.
    pub(super) fn time_of(&self, index: u64) -> Option<Duration> {
        if index >= self.limit {
            return None;
        }
        let step = self
            .steps
            .iter()
            .find(|step| index < step.first + step.messages)?;
        let nanos = u128::from(index - step.first) * 1_000_000_000 / u128::from(step.rate.max(1));
        Some(step.begins + Duration::from_nanos(nanos as u64))
    }

    /// Messages that are to be sent before `elapsed`; `None` where the load is not paced.
    pub(super) fn due(&self, elapsed: Duration) -> Option<u64> {
        let step = self.steps.iter().rev().find(|step| step.begins <= elapsed)?;
        let nanos = (elapsed - step.begins).as_nanos();
        let in_step = (u128::from(step.rate) * nanos).div_ceil(1_000_000_000) as u64;
        Some((step.first + in_step.min(step.messages)).min(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        text.split(',').map(|step| step.parse().unwrap()).collect()
    }

    #[test]
    fn messages_are_due_at_the_rate_of_their_step() {
        let schedule = Schedule::of_steps(&steps("10:1s,0:2s,1000:500ms"), u64::MAX).unwrap();
        assert_eq!(schedule.limit(), 510);
        assert_eq!(schedule.duration(), Duration::from_millis(3500));
        assert_eq!(schedule.time_of(0), Some(Duration::ZERO));
        assert_eq!(schedule.time_of(9), Some(Duration::from_millis(900)));
        assert_eq!(schedule.time_of(10), Some(Duration::from_secs(3)));
        assert_eq!(schedule.time_of(509), Some(Duration::from_millis(3499)));
        assert_eq!(schedule.time_of(510), None);
        for index in 0..510 {
            let time = schedule.time_of(index).unwrap();
            assert_eq!(schedule.due(time), Some(index), "just before {index}");
            assert!(
                schedule.due(time + Duration::from_nanos(1)) > Some(index),
                "just after {index}"
            );
        }
    }

    #[test]
    fn a_load_is_bounded_by_its_number_of_messages_too() {
        let schedule = Schedule::of_steps(&steps("100:1m"), 7).unwrap();
        assert_eq!(
            (
                schedule.limit(),
                schedule.time_of(6).is_some(),
                schedule.time_of(7)
            ),
            (7, true, None)
        );
        assert_eq!(schedule.due(Duration::from_secs(60)), Some(7));
    }

    #[test]
    fn steps_that_make_no_sense_are_refused() {
        for bad in ["", "5000", "x:1s", "10:1", "10:-1s"] {
            assert!(
                bad.parse::<Step>()
                    .is_err_and(|error| error.contains("expected RATE:DURATION")),
                "{bad}"
            );
        }
        assert!(Schedule::unpaced(Duration::ZERO, 1).is_err());
        assert!(Schedule::unpaced(Duration::from_secs(100_000), 1).is_err());
    }
}
