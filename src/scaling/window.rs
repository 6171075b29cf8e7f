//! What each broker did over the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counters::{BrokerCounters, BrokerGauges, Interval, Levels, difference};
use super::observed::{Observed, Report};
use super::time::Time;

/// Over what time the brokers are looked at.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Reports closer than this to the one before are left for the next one: a rate over an instant is noise.
const SHORTEST_NANOS: u64 = 250_000_000;

/// How far a clock must go wrong between two reports to have been set: reports may be a little late.
const CLOCK_STEP: Duration = Duration::from_secs(3);

/// For how many reports after a counter fell nothing is measured. Then it began again at a lower number for good, and was
/// not only misread.
const SETTLING: u32 = 3;

/// Use of the CPU quota from which a broker counts as bound by it.
const CPU_BOUND: f64 = 0.8;

/// An interval, when its end was received, and the gauges at its end.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When its end was received.
    pub end: Time,
    /// What happened in it.
    pub interval: Interval,
    /// The gauges of the report that ended it.
    pub gauges: BrokerGauges,
}

impl Sample {
    /// Whether the broker itself is what publishers wait for: its channel is full, or its CPU is used up. With an
    /// empty channel they wait for something else, such as a channel that is too small, or the network.
    pub fn is_at_its_limit(&self) -> bool {
        let gauges = &self.gauges;
        let full = gauges.channel_capacity > 0 && gauges.channel_messages >= gauges.channel_capacity / 2;
        let quota = gauges.cpu_quota_nanos as f64 / 1e9;
        full || (quota > 0.0 && self.interval.cores() >= CPU_BOUND * quota)
    }

    /// When it began, by the caller's clock.
    pub fn start(&self) -> Time {
        Time::from_millis(
            self.end
                .as_millis()
                .saturating_sub(self.interval.nanos / 1_000_000),
        )
    }
}

/// One broker's last minute.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct History {
    last: Option<BrokerCounters>,
    /// The highest of each counter in this boot.
    highest: Levels,
    /// How many reports are still to come until counters that fell count again.
    settling: u32,
    /// When `last` was received.
    received: Time,
    samples: VecDeque<Sample>,
}

impl History {
    /// Takes in a report; the same one again changes nothing. Returns the sample it completed.
    ///
    /// A report of another boot completes none, and neither does one after more than a window of silence; what was measured
    /// before stays true. Where a counter fell, it is not known whether it began again or was misread once: nothing is
    /// measured until all are back or some reports are in, nor over the time in which one came back.
    fn take(&mut self, report: &Report) -> Option<Sample> {
        let current = report.counters;
        let Some(last) = self.last.filter(|last| last.boot_id == current.boot_id) else {
            self.last = Some(current);
            self.highest = current.levels();
            self.settling = 0;
            self.received = report.received;
            return None;
        };
        let is_late = current.uptime_nanos < last.uptime_nanos.saturating_add(SHORTEST_NANOS);
        // Reports that are late for longer than a window are none: the one before was misread.
        if is_late && report.received.since(self.received) <= WINDOW {
            return None;
        }
        self.last = Some(current);
        let before = std::mem::replace(&mut self.received, report.received);
        let passed = Duration::from_nanos(current.uptime_nanos.saturating_sub(last.uptime_nanos));
        let is_known = !is_late && passed <= WINDOW;
        if is_known {
            self.follow_clock(before, report.received, passed);
        }
        let interval = difference(&last, &current);
        let sample = interval
            .filter(|_| self.is_consistent(&last, &current) && is_known)
            .map(|interval| Sample {
                end: report.received,
                interval,
                gauges: report.gauges,
            });
        self.settling = match interval {
            None => SETTLING,
            Some(_) if current.levels().reach(&self.highest) => 0,
            Some(_) => self.settling.saturating_sub(1),
        };
        self.highest = self.highest.max(&current.levels());
        self.samples.extend(sample);
        sample
    }

    /// Whether no counter came back to where it was before it fell, and none fell just now.
    fn is_consistent(&self, last: &BrokerCounters, current: &BrokerCounters) -> bool {
        self.settling == 0 && !self.highest.is_passed(&last.levels(), &current.levels())
    }

    /// The broker's clock is monotonic: where the caller's went on by much more or less between two reports, it was set. Then
    /// what is older moves along, or it would look as if the broker had been away, or had done it all at once.
    fn follow_clock(&mut self, before: Time, now: Time, passed: Duration) {
        let expected = before + passed;
        let (ahead, behind) = (now.since(expected), expected.since(now));
        if ahead.max(behind) < CLOCK_STEP {
            return;
        }
        for sample in &mut self.samples {
            sample.end = (sample.end + ahead) - behind;
        }
    }

    fn prune(&mut self, now: Time) {
        // By the order in which they came, which is by time unless the clock stepped back.
        if self.samples.back().is_some_and(|newest| newest.end > now) {
            for sample in &mut self.samples {
                sample.end = sample.end.min(now);
            }
        }
        while self
            .samples
            .front()
            .is_some_and(|oldest| now.since(oldest.end) >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// The sample that is `back` before the newest one.
    pub fn latest(&self, back: usize) -> Option<&Sample> {
        self.samples.iter().rev().nth(back)
    }

    /// The newest `count` samples.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &Sample> + Clone {
        self.samples.iter().rev().take(count)
    }

    /// The samples that lie wholly after `start`.
    pub fn since(&self, start: Time) -> impl Iterator<Item = &Sample> + Clone {
        self.samples.iter().filter(move |sample| sample.start() >= start)
    }

    /// How many samples lie wholly after `start`.
    pub fn count_since(&self, start: Time) -> usize {
        self.since(start).count()
    }
}

/// The last minute of all brokers, those included that were removed in it: their load has gone to others.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(transparent)]
pub struct Histories(BTreeMap<String, History>);

impl Histories {
    /// Takes in the reports and forgets brokers that left more than a window ago. Returns the brokers that
    /// completed a sample, which is then their newest.
    pub fn take(&mut self, observed: &Observed, now: Time) -> Vec<String> {
        let mut completed = Vec::new();
        for broker in &observed.brokers {
            if let Some(report) = &broker.report {
                let history = self.0.entry(broker.name.clone()).or_default();
                if history.take(report).is_some() {
                    completed.push(broker.name.clone());
                }
            }
        }
        for history in self.0.values_mut() {
            history.prune(now);
        }
        self.0.retain(|name, history| {
            !history.samples.is_empty() || observed.brokers.iter().any(|broker| broker.name == *name)
        });
        completed
    }

    /// One broker's history.
    pub fn of(&self, name: &str) -> Option<&History> {
        self.0.get(name)
    }

    /// The histories of all brokers.
    pub fn all(&self) -> Vec<&History> {
        self.0.values().collect()
    }

    /// From the start of the oldest to the end of the newest sample wholly after `start`.
    pub fn span_since(&self, start: Time) -> Duration {
        let samples = || self.0.values().flat_map(move |history| history.since(start));
        let newest = samples().map(|sample| sample.end).max();
        let oldest = samples().map(Sample::start).min();
        newest
            .zip(oldest)
            .map_or(Duration::ZERO, |(newest, oldest)| newest.since(oldest))
    }

    /// The histories of the ready brokers whose last report is fresh and that have any sample, in the order of
    /// the brokers.
    pub fn measured<'a>(
        &'a self,
        observed: &'a Observed,
        staleness: Duration,
        now: Time,
    ) -> Vec<&'a History> {
        observed
            .ready()
            .filter(|broker| broker.report.is_some_and(|r| r.is_fresh(staleness, now)))
            .filter_map(|broker| self.0.get(&broker.name))
            .filter(|history| !history.samples.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::observed::ObservedBroker;

    const SECOND: u64 = 1_000_000_000;

    fn report(at: u64, boot_id: u64, uptime_nanos: u64, acked: u64) -> Report {
        Report {
            received: Time::from_millis(at * 1_000),
            counters: BrokerCounters {
                boot_id,
                uptime_nanos,
                acked_messages: acked,
                ..BrokerCounters::default()
            },
            gauges: BrokerGauges::default(),
        }
    }

    fn observed(report: Report) -> Observed {
        Observed {
            brokers: vec![ObservedBroker {
                name: "orders-0".into(),
                ready: true,
                report: Some(report),
                ..ObservedBroker::default()
            }],
            ..Observed::default()
        }
    }

    #[test]
    fn nothing_is_measured_across_a_restart_of_the_broker() {
        let mut history = History::default();
        assert_eq!(history.take(&report(1, 1, SECOND, 100)), None);
        assert!(history.take(&report(2, 1, 2 * SECOND, 200)).is_some());
        assert_eq!(history.take(&report(3, 2, SECOND, 10)), None);
        assert_eq!(
            history
                .take(&report(4, 2, 2 * SECOND, 30))
                .unwrap()
                .interval
                .acked,
            20
        );
        assert_eq!(history.latest(1).unwrap().interval.acked, 100);
    }

    /// Messages acknowledged in the sample that each of these reports, a second apart, completed.
    fn measured(acked: &[u64]) -> Vec<Option<u64>> {
        let mut history = History::default();
        let taken = acked.iter().zip(1..).map(|(acked, second)| {
            let sample = history.take(&report(second, 1, second * SECOND, *acked));
            sample.map(|sample| sample.interval.acked)
        });
        taken.collect()
    }

    #[test]
    fn a_counter_that_fell_and_came_back_is_measured_neither_down_nor_up() {
        assert_eq!(
            measured(&[1_000, 1_100, 300, 1_300, 1_400]),
            [None, Some(100), None, None, Some(100)]
        );
        for low in [vec![0, 1_000], vec![1_000, 0, 1_000], vec![900, 500, 900]] {
            let reports = [vec![1_000, 1_100], low, vec![1_500, 1_600]].concat();
            let most = measured(&reports).into_iter().flatten().max();
            assert_eq!(most, Some(100), "{reports:?}");
            assert_eq!(measured(&reports).pop(), Some(Some(100)), "{reports:?}");
        }
    }

    #[test]
    fn a_counter_that_began_again_is_measured_after_a_few_reports_and_as_it_passes_where_it_was() {
        let reports = [1_000, 1_100, 0, 100, 200, 300, 400, 1_000, 1_200, 1_300];
        let expected = [
            None,
            Some(100),
            None,
            None,
            None,
            None,
            Some(100),
            Some(600),
            None,
            Some(100),
        ];
        assert_eq!(measured(&reports), expected);
    }

    #[test]
    fn a_clock_that_was_misread_silences_no_broker_for_longer_than_a_window() {
        let mut history = History::default();
        for second in 1..100 {
            let uptime = if second == 10 { u64::MAX } else { second * SECOND };
            history.take(&report(second, 1, uptime, 100 * second));
        }
        assert_eq!(history.latest(0).unwrap().end, Time::from_millis(99_000));
        assert!(history.samples.iter().all(|sample| sample.interval.acked == 100));
    }

    #[test]
    fn what_was_measured_moves_along_when_the_clock_is_set() {
        for step in [-600_i64, -30, 30, 600] {
            let mut histories = Histories::default();
            let mut now = Time::default();
            for second in 1..=40_i64 {
                let clock = 1_000 + second + if second > 30 { step } else { 0 };
                now = Time::from_millis(clock as u64 * 1_000);
                let report = report(clock as u64, 1, second as u64 * SECOND, 100 * second as u64);
                histories.take(&observed(report), now);
            }
            assert_eq!(histories.of("orders-0").unwrap().samples.len(), 39, "{step}");
            assert_eq!(
                histories.span_since(Time::default()),
                Duration::from_secs(39),
                "{step}"
            );
            assert_eq!(histories.of("orders-0").unwrap().latest(0).unwrap().end, now);
        }
    }

    #[test]
    fn duplicates_and_late_reports_change_nothing() {
        let mut history = History::default();
        history.take(&report(1, 1, SECOND, 100));
        history.take(&report(2, 1, 2 * SECOND, 200));
        let before = history.clone();
        history.take(&report(3, 1, 2 * SECOND, 200));
        history.take(&report(3, 1, SECOND, 100));
        history.take(&report(3, 1, 2 * SECOND + SECOND / 100, 210));
        assert_eq!(history, before);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_and_a_long_silence_is_no_interval() {
        let mut histories = Histories::default();
        for second in 1..=100 {
            let now = Time::from_millis(second * 1_000);
            histories.take(&observed(report(second, 1, second * SECOND, second)), now);
        }
        assert_eq!(histories.0["orders-0"].samples.len(), 60);
        let now = Time::from_millis(900_000);
        assert!(
            histories
                .take(&observed(report(900, 1, 900 * SECOND, 900)), now)
                .is_empty()
        );
        assert_eq!(histories.0["orders-0"].samples.len(), 0);
    }

    #[test]
    fn a_broker_that_left_counts_for_as_long_as_its_samples_do() {
        let mut histories = Histories::default();
        for second in 1..=10 {
            let now = Time::from_millis(second * 1_000);
            histories.take(&observed(report(second, 1, second * SECOND, second)), now);
        }
        let nobody = Observed::default();
        histories.take(&nobody, Time::from_millis(60_000));
        assert_eq!(histories.all().len(), 1);
        histories.take(&nobody, Time::from_millis(70_000));
        assert_eq!(histories.all().len(), 0);
    }

    #[test]
    fn a_stale_report_and_one_from_the_future_do_not_count() {
        let staleness = Duration::from_secs(15);
        let at = |second: u64| Time::from_millis(second * 1_000);
        let received = report(100, 1, SECOND, 1);
        assert!(received.is_fresh(staleness, at(115)));
        assert!(!received.is_fresh(staleness, at(116)));
        assert!(!received.is_fresh(staleness, at(50)));
    }
}
