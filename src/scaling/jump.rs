//! After a jump: wait for the new brokers, then let them work off what has piled up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// The least and the most time that brokers get to become Ready before the wait is given up.
const LEAST_PATIENCE: Duration = Duration::from_secs(120);
const MOST_PATIENCE: Duration = Duration::from_secs(900);
/// Reports that every ready broker must have sent since the new ones were Ready.
pub(super) const REPORTS: usize = 2;
/// Hidden demand below which nothing is being caught up with any more.
const RELIEVED: f64 = 0.05;
/// How far above the demand that the jump was decided on brokers accept messages only to work off old ones.
const ABOVE: f64 = 1.1;

/// A jump of the number of brokers, and how far its brokers are.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Jump {
    /// When it was decided.
    pub at: Time,
    /// The number of brokers decided on.
    pub to: u32,
    /// The number before.
    #[serde(default)]
    pub from: u32,
    /// Messages acknowledged a second before.
    #[serde(default)]
    pub acked: u64,
    /// The demand that it was decided on, messages a second. While old debt is worked off, publishers are blocked
    /// by that; so the demand counts as no more than this.
    pub demand: u64,
    /// The demand was only known to be large: publishers were blocked all the time. Then nothing is concluded from more
    /// of the same before there was time to catch up.
    pub censored: bool,
    /// When as many brokers as decided on were first Ready.
    pub ready_since: Option<Time>,
}

/// How far a jump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its brokers are not Ready, or have not sent two reports since.
    Starting,
    /// They work off what has piled up.
    CatchingUp,
    /// Publishers are no longer blocked and send no more than before, or the time is over.
    Over,
}

/// What a jump's progress is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The number of brokers decided on.
    pub current: u32,
    /// How many are Ready.
    pub ready: u32,
    /// What a broker takes from decision to Ready.
    pub start_time: Duration,
    /// Time to work off what has piled up.
    pub catch_up: Duration,
    /// The hidden demand in the last two readings, the larger one.
    pub hidden: f64,
    /// Messages accepted a second in the last two readings, the larger one.
    pub accepted: f64,
}

impl Jump {
    /// Goes on with the jump. `reports_since` tells how many reports every ready broker has sent since a moment.
    pub fn advance(
        &mut self,
        progress: &Progress,
        reports_since: impl FnOnce(Time) -> usize,
        now: Time,
    ) -> Phase {
        self.at = self.at.min(now);
        if progress.current != self.to {
            // Somebody else decided, or the decision was never acted on.
            return Phase::Over;
        }
        if self.ready_since.is_none() && progress.ready >= self.to {
            self.ready_since = Some(now);
        }
        let Some(ready_since) = self.ready_since else {
            let patience = progress
                .start_time
                .saturating_mul(4)
                .clamp(LEAST_PATIENCE, MOST_PATIENCE);
            return if now.since(self.at) < patience {
                Phase::Starting
            } else {
                Phase::Over
            };
        };
        if now.since(ready_since) >= progress.catch_up {
            Phase::Over
        } else if reports_since(ready_since) < REPORTS {
            Phase::Starting
        } else if progress.hidden < RELIEVED && progress.accepted <= ABOVE * self.demand as f64 {
            Phase::Over
        } else {
            Phase::CatchingUp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUMP: Jump = Jump {
        at: Time::from_millis(0),
        to: 5,
        from: 1,
        acked: 1_000,
        demand: 7_000,
        censored: false,
        ready_since: None,
    };

    fn progress(ready: u32, hidden: f64) -> Progress {
        Progress {
            current: 5,
            ready,
            start_time: Duration::from_secs(15),
            catch_up: Duration::from_secs(60),
            hidden,
            accepted: 7_000.0,
        }
    }

    fn at(second: u64) -> Time {
        Time::from_millis(second * 1_000)
    }

    #[test]
    fn it_waits_for_the_brokers_then_for_two_reports_then_for_relief() {
        let mut jump = JUMP;
        assert_eq!(jump.advance(&progress(1, 0.9), |_| 9, at(10)), Phase::Starting);
        assert_eq!(jump.advance(&progress(5, 0.9), |_| 0, at(15)), Phase::Starting);
        assert_eq!(jump.advance(&progress(5, 0.9), |_| 1, at(16)), Phase::Starting);
        assert_eq!(jump.advance(&progress(5, 0.9), |_| 2, at(17)), Phase::CatchingUp);
        assert_eq!(jump.ready_since, Some(at(15)));
        assert_eq!(jump.advance(&progress(5, 0.0), |_| 9, at(30)), Phase::Over);
        assert_eq!(jump.advance(&progress(5, 0.9), |_| 9, at(75)), Phase::Over);
    }

    #[test]
    fn while_more_comes_in_than_was_asked_for_old_messages_are_being_worked_off() {
        let mut jump = JUMP;
        jump.advance(&progress(5, 0.9), |_| 0, at(15));
        let catching_up = Progress {
            accepted: 9_000.0,
            ..progress(5, 0.0)
        };
        assert_eq!(jump.advance(&catching_up, |_| 9, at(30)), Phase::CatchingUp);
        assert_eq!(jump.advance(&progress(5, 0.0), |_| 9, at(31)), Phase::Over);
    }

    #[test]
    fn brokers_that_never_start_are_not_waited_for_for_ever() {
        let mut jump = JUMP;
        assert_eq!(jump.advance(&progress(1, 0.9), |_| 9, at(119)), Phase::Starting);
        assert_eq!(jump.advance(&progress(1, 0.9), |_| 9, at(120)), Phase::Over);
    }

    #[test]
    fn a_decision_of_somebody_else_ends_it() {
        let mut jump = JUMP;
        let other = Progress {
            current: 2,
            ..progress(2, 0.9)
        };
        assert_eq!(jump.advance(&other, |_| 9, at(5)), Phase::Over);
    }
}
