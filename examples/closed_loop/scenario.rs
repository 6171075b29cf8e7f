//! What happens to the brokers: a load, and perhaps a fault while it runs.

use std::time::Duration;

use crate::stage::SMALL_PERCENT;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The consumers end.
    ConsumersStop,
    /// SIGKILL.
    BrokerKilled,
    /// Stopped for three quarters of each 200 ms, for half a minute.
    BrokerSlowed,
    /// Every pod of the operator is deleted without grace.
    OperatorKilled(Stage),
    /// The brokers' control port answers with a reset, for twenty seconds.
    MetricsCut,
}

/// When in a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The load has risen and nothing is decided.
    Rising,
    /// The StatefulSet is patched and no new broker is Ready.
    Patched,
    /// The new brokers are Ready and partitions move.
    Ready,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Messages a second, and for how many seconds.
    pub(crate) steps: Vec<(u64, u64)>,
    /// What goes wrong, and when.
    pub(crate) fault: Option<(Fault, Duration)>,
}

impl Scenario {
    /// All of them, for brokers that do so many messages a second.
    pub(crate) fn all(rate_per_broker: f64) -> Vec<Self> {
        let small = rate_per_broker as u64 * SMALL_PERCENT / 100;
        let large = 5 * small;
        let step = || vec![(small, 20), (large, 60), (small, 60)];
        let after = Duration::from_secs;
        let plain = |name, steps| Self {
            name,
            steps,
            fault: None,
        };
        let broken = |name, steps, fault, at| Self {
            name,
            steps,
            fault: Some((fault, at)),
        };
        let steady = || vec![(3 * small / 2, 90)];
        vec![
            plain("step", step()),
            plain(
                "ramp",
                [vec![(small, 20)], ramp(small, large), vec![(large, 30)]].concat(),
            ),
            plain("spike", vec![(small, 30), (large, 20), (small, 70)]),
            plain("noise", noise(small)),
            plain("sine", sine(small, large)),
            broken("consumers-stopped", steady(), Fault::ConsumersStop, after(20)),
            broken("broker-killed", steady(), Fault::BrokerKilled, after(30)),
            broken("broker-slowed", steady(), Fault::BrokerSlowed, after(30)),
            broken(
                "operator-killed-rising",
                step(),
                Fault::OperatorKilled(Stage::Rising),
                after(21),
            ),
            broken(
                "operator-killed-patched",
                step(),
                Fault::OperatorKilled(Stage::Patched),
                after(20),
            ),
            broken(
                "operator-killed-ready",
                step(),
                Fault::OperatorKilled(Stage::Ready),
                after(20),
            ),
            broken("metrics-cut", steady(), Fault::MetricsCut, after(30)),
        ]
    }

    /// As `sluice bench` takes it.
    pub(crate) fn schedule(&self) -> String {
        let steps: Vec<String> = self
            .steps
            .iter()
            .map(|(rate, seconds)| format!("{rate}:{seconds}s"))
            .collect();
        steps.join(",")
    }

    /// How long it takes.
    pub(crate) fn seconds(&self) -> u64 {
        self.steps.iter().map(|(_, seconds)| seconds).sum()
    }

    /// As `sluice simulate` takes it.
    pub(crate) fn trace(&self) -> String {
        let mut text = "second,messages_per_second\n".to_owned();
        let mut second = 0;
        for (rate, seconds) in &self.steps {
            for _ in 0..*seconds {
                text.push_str(&format!("{second},{rate}\n"));
                second += 1;
            }
        }
        text
    }

    /// When the load first asks for more than it did at the beginning, or the fault comes.
    pub(crate) fn changes_at(&self) -> Duration {
        let first = self.steps.first().map_or(0, |(rate, _)| *rate);
        let mut before = 0;
        for (rate, seconds) in &self.steps {
            if *rate > first {
                return Duration::from_secs(before);
            }
            before += seconds;
        }
        self.fault.map_or(Duration::ZERO, |(_, at)| at)
    }
}

fn ramp(small: u64, large: u64) -> Vec<(u64, u64)> {
    (0..20).map(|n| (small + (large - small) * n / 20, 4)).collect()
}

/// A tenth up and down from second to second, the same each time.
fn noise(small: u64) -> Vec<(u64, u64)> {
    let parts = [100, 93, 108, 99, 111, 88, 104, 97, 92, 109, 101, 86, 113, 95, 103];
    (0..90)
        .map(|n| (small * parts[n * 7 % parts.len()] / 100, 1))
        .collect()
}

/// Ninety seconds from trough to trough, twice.
fn sine(small: u64, large: u64) -> Vec<(u64, u64)> {
    let rate = |second: f64| {
        let middle = (small + large) as f64 / 2.0;
        middle - (large - small) as f64 / 2.0 * (second / 90.0 * std::f64::consts::TAU).cos()
    };
    (0..60).map(|n| (rate(f64::from(n) * 3.0) as u64, 3)).collect()
}
