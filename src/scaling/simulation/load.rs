//! What comes in, and what happens to the brokers meanwhile.

use std::f64::consts::PI;

use super::trace::Trace;

/// A load of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// One that is built in, in multiples of what a broker can do (messages a second).
    Builtin(Builtin, f64),
    /// One that was recorded.
    Trace(Trace),
}

/// Something that happens to brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Event {
    /// The broker with this ordinal is gone; when it is back, its counters begin again.
    pub lost: Option<usize>,
    /// The broker with this ordinal takes so many seconds for a commit.
    pub slow_commit: Option<(usize, f64)>,
    /// What every broker can do, as a part of what it could at the start.
    pub health: f64,
    /// The part of the load that is in one partition, which broker 0 owns.
    pub hot: f64,
    /// What consumers take, as a part of what comes in.
    pub consumed: f64,
}

/// A built-in load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// 1.4 brokers' worth, and five times that from second 300 on.
    Step,
    /// From 1 to 10 brokers' worth in 600 s, and on at that.
    Ramp,
    /// 5 ± 3.6 brokers' worth, every 600 s.
    Sine,
    /// 1.4 brokers' worth, for 20 s five times that.
    Spike,
    /// 5 brokers' worth.
    Flat,
    /// A day: 3 ± 2.4 brokers' worth, and a peak of 2 more at noon.
    Diurnal,
    /// From 1 to 7 brokers' worth in 300 s, again and again.
    Sawtooth,
    /// 1.4 and 7 brokers' worth in turns of 300 s.
    OnOff,
    /// 3.5 brokers' worth, while every broker becomes slower, down to half in an hour.
    SlowLeak,
    /// 3.5 brokers' worth; one broker is gone for two minutes.
    BrokerLost,
    /// 3.5 brokers' worth; a commit of one broker takes 300 ms for five minutes.
    SlowDisk,
    /// 2 brokers' worth and from second 300 on 4, 40 % of it in one partition.
    HotPartition,
    /// 3.5 brokers' worth, of which consumers take four fifths for ten minutes.
    SlowConsumers,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Step,
        Self::Ramp,
        Self::Sine,
        Self::Spike,
        Self::Flat,
        Self::Diurnal,
        Self::Sawtooth,
        Self::OnOff,
        Self::SlowLeak,
        Self::BrokerLost,
        Self::SlowDisk,
        Self::HotPartition,
        Self::SlowConsumers,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Ramp => "ramp",
            Self::Sine => "sine",
            Self::Spike => "spike",
            Self::Flat => "flat",
            Self::Diurnal => "diurnal",
            Self::Sawtooth => "sawtooth",
            Self::OnOff => "on-off",
            Self::SlowLeak => "slow-leak",
            Self::BrokerLost => "broker-lost",
            Self::SlowDisk => "slow-disk",
            Self::HotPartition => "hot-partition",
            Self::SlowConsumers => "slow-consumers",
        }
    }

    /// How long it lasts, in seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Spike | Self::Ramp | Self::BrokerLost => 900,
            Self::Step | Self::Sine | Self::Flat | Self::Sawtooth => 1_800,
            Self::SlowDisk | Self::HotPartition | Self::SlowConsumers => 1_200,
            Self::OnOff => 2_400,
            Self::SlowLeak => 3_600,
            Self::Diurnal => 86_400,
        }
    }

    /// The load at a second, in brokers' worth.
    fn at(self, second: f64) -> f64 {
        match self {
            Self::Step if second < 300.0 => 1.4,
            Self::Step => 7.0,
            Self::Ramp => (1.0 + second * 0.015).min(10.0),
            Self::Sine => 5.0 + 3.6 * (2.0 * PI * second / 600.0).sin(),
            Self::Spike if (300.0..320.0).contains(&second) => 7.0,
            Self::Spike => 1.4,
            Self::Flat => 5.0,
            Self::Diurnal => {
                let day = 2.0 * PI * (second / 86_400.0);
                let noon = (second - 43_200.0) / 3_600.0;
                3.0 - 2.4 * day.cos() + 2.0 * (-noon * noon).exp()
            }
            Self::Sawtooth => 1.0 + (second % 300.0) * 0.02,
            Self::OnOff if ((second / 300.0) as u64).is_multiple_of(2) => 1.4,
            Self::OnOff => 7.0,
            Self::SlowLeak | Self::BrokerLost | Self::SlowDisk | Self::SlowConsumers => 3.5,
            Self::HotPartition if second < 300.0 => 2.0,
            Self::HotPartition => 4.0,
        }
    }

    fn event(self, second: f64) -> Event {
        let calm = Event {
            health: 1.0,
            consumed: 1.0,
            ..Event::default()
        };
        match self {
            Self::BrokerLost if (300.0..420.0).contains(&second) => Event {
                lost: Some(1),
                ..calm
            },
            Self::SlowDisk if (300.0..600.0).contains(&second) => Event {
                slow_commit: Some((1, 0.3)),
                ..calm
            },
            Self::SlowLeak => Event {
                health: 1.0 - 0.5 * (second / 3_600.0).min(1.0),
                ..calm
            },
            Self::HotPartition => Event { hot: 0.4, ..calm },
            Self::SlowConsumers if (300.0..900.0).contains(&second) => Event {
                consumed: 0.8,
                ..calm
            },
            _ => calm,
        }
    }
}

impl Load {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Builtin(load, _) => load.name(),
            Self::Trace(_) => "trace",
        }
    }

    /// How long it lasts, in seconds.
    pub fn seconds(&self) -> u64 {
        match self {
            Self::Builtin(load, _) => load.seconds(),
            Self::Trace(trace) => trace.seconds(),
        }
    }

    /// Messages a second at a second, without noise.
    pub fn at(&self, second: f64) -> f64 {
        match self {
            Self::Builtin(load, unit) => load.at(second) * unit,
            Self::Trace(trace) => trace.at(second),
        }
    }

    /// What happens to the brokers at a second.
    pub fn event(&self, second: f64) -> Event {
        match self {
            Self::Builtin(load, _) => load.event(second),
            Self::Trace(_) => Builtin::Flat.event(second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_finite_and_positive_all_along() {
        for load in Builtin::ALL {
            for second in 0..load.seconds() {
                let rate = load.at(second as f64);
                assert!(
                    (0.0..=20.0).contains(&rate),
                    "{} at {second}: {rate}",
                    load.name()
                );
            }
        }
    }

    #[test]
    fn the_step_is_five_fold() {
        let step = Load::Builtin(Builtin::Step, 1_000.0);
        assert_eq!((step.at(299.9), step.at(300.0)), (1_400.0, 7_000.0));
    }
}
