//! What a broker's CPU does for a load.

use super::broker::{BrokerModel, STREAMS};
use crate::scaling::processor::{
    BYTE, COMMIT, DELIVERED_BYTE, DELIVERY, MESSAGE, PRIOR, REQUEST, REQUEST_BYTES, REQUEST_MESSAGES, WAKE,
    WAKES_PER_SECOND,
};

/// Commits to a request of a publisher, as was seen with real brokers at any load.
const COMMITS: f64 = 0.7;
/// Requests to one of a publisher: with those of the consumers, who acknowledge as much at a time.
const WITH_CONSUMERS: f64 = 2.0;
/// Requests a second that a stream sends at most: what is due in a millisecond goes in one.
const REQUESTS: f64 = 1_000.0;
/// The part of its CPU that a broker uses up with small requests before they become larger.
const BUSY: f64 = 0.85;

/// What a broker's CPU time goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// By messages, whatever they come in.
    #[default]
    Messages,
    /// By frames that the broker does not count, of which a small load has as many as messages.
    Frames,
    /// By requests, commits, messages, their deliveries and bytes, in the proportions that the operator begins with. A request
    /// holds no more than half of its stream's credit, so that a broker with a small channel does less than it can.
    Requests,
}

/// What a load took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// Cores.
    pub(super) cores: f64,
    /// Requests a second of publishers and consumers; 0 where they are not counted.
    pub(super) requests: f64,
    /// The most commits a second.
    pub(super) commits: f64,
}

impl BrokerModel {
    /// The same broker, if `rate` is what it does with a channel of `capacity` messages and its CPU time goes by requests.
    pub fn by_requests(self, capacity: u32) -> Self {
        let with_this = self.per_message(self.largest_request(f64::from(capacity)));
        Self {
            work: Work::Requests,
            rate: self.rate * with_this / self.per_message(self.full_request()),
            ..self
        }
    }

    /// Messages a second that the CPU allows with a channel of `capacity` messages.
    pub(super) fn by_cpu(&self, capacity: f64) -> f64 {
        match self.work {
            Work::Messages | Work::Frames => self.rate,
            Work::Requests => {
                self.rate * self.per_message(self.full_request())
                    / self.per_message(self.largest_request(capacity))
            }
        }
    }

    /// What `acked` messages a second take of a broker that is at a part of its health. `is_short`: publishers wait for credit.
    pub(super) fn used(&self, acked: f64, (capacity, health): (f64, f64), is_short: bool) -> Used {
        if acked <= 0.0 {
            return Used {
                cores: self.idle_cores,
                ..Used::default()
            };
        }
        let load = acked / (self.rate * health).max(f64::MIN_POSITIVE);
        let part = match self.work {
            Work::Messages => load,
            // As was seen with a real broker of 0.2 cores: as many frames as messages up to a fifth of the most, and from there on
            // fewer, each with more messages in it; a fifth of the load costs 90 % of the CPU.
            Work::Frames => 0.46 * load + 4.04 * (load.min(0.2) - (load - 0.2).max(0.0) / 12.0),
            Work::Requests => return self.used_by_requests(acked, (capacity, health), is_short),
        };
        Used {
            cores: self.idle_cores + part * (self.cores - self.idle_cores),
            requests: 0.0,
            commits: f64::INFINITY,
        }
    }

    fn used_by_requests(&self, acked: f64, (capacity, health): (f64, f64), is_short: bool) -> Used {
        // Cores for a message without bytes, a second.
        let unit = self.cores / (self.rate * health * self.per_message(self.full_request()));
        let fewest = acked / self.largest_request(capacity);
        let messages = acked * self.of_a_message() * unit;
        let affordable = (BUSY * self.cores - messages) / (of_a_request() * unit);
        let requests = if is_short {
            fewest
        } else {
            acked.min(STREAMS * REQUESTS).min(affordable).max(fewest)
        };
        let busy = messages + requests * of_a_request() * unit;
        let wakes = (requests * WITH_CONSUMERS).min(WAKES_PER_SECOND) * (1.0 - busy / self.cores).max(0.0);
        let cores = busy + wakes * PRIOR[WAKE] * unit;
        Used {
            cores: self.idle_cores + cores.min(self.cores - self.idle_cores),
            requests: requests * WITH_CONSUMERS,
            commits: requests * COMMITS,
        }
    }

    fn full_request(&self) -> f64 {
        REQUEST_MESSAGES.min(REQUEST_BYTES / (self.message_bytes as f64).max(1.0))
    }

    /// Messages of a request where each stream has its part of the channel.
    fn largest_request(&self, capacity: f64) -> f64 {
        (capacity / STREAMS / 2.0).min(self.full_request()).max(1.0)
    }

    /// What a message that is stored and delivered costs without its requests, in messages without bytes.
    fn of_a_message(&self) -> f64 {
        let bytes = self.message_bytes as f64 * (1.0 + DELIVERED_BYTE);
        PRIOR[MESSAGE] + PRIOR[DELIVERY] + PRIOR[BYTE] * bytes
    }

    /// What a message costs with its part of a request of so many.
    fn per_message(&self, messages: f64) -> f64 {
        of_a_request() / messages + self.of_a_message()
    }
}

fn of_a_request() -> f64 {
    PRIOR[REQUEST] * WITH_CONSUMERS + PRIOR[COMMIT] * COMMITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cost_most_of_the_cpu_of_a_small_load() {
        let model = BrokerModel {
            work: Work::Frames,
            ..BrokerModel::new(7_500.0)
        };
        for (load, cores) in [(0.2, 0.18), (1.0, 0.2)] {
            let used = model.used(7_500.0 * load, (128.0, 1.0), false).cores;
            assert!((used - cores).abs() < 1e-3, "{used}");
        }
    }

    #[test]
    fn a_broker_does_more_with_a_larger_channel_and_uses_all_of_its_cpu_for_either() {
        let model = BrokerModel::new(50_000.0).by_requests(512);
        assert!((model.by_cpu(512.0) - 50_000.0).abs() < 1e-6);
        assert!(model.by_cpu(8_192.0) > 2.0 * model.by_cpu(512.0), "{model:?}");
        assert!(model.by_cpu(128.0) < 0.5 * model.by_cpu(512.0), "{model:?}");
        for capacity in [128.0, 512.0, 8_192.0, 65_536.0] {
            let used = model.used(model.by_cpu(capacity), (capacity, 1.0), true);
            assert!((used.cores - model.cores).abs() < 1e-9, "{used:?}");
        }
    }

    #[test]
    fn small_requests_use_up_the_cpu_of_a_part_of_the_load() {
        let model = BrokerModel::new(50_000.0).by_requests(512);
        let (little, half) = (20.0, 25_000.0);
        let [little, half] = [little, half].map(|acked| model.used(acked, (512.0, 1.0), false));
        assert_eq!(little.requests, 40.0);
        assert!(little.cores < 0.1 * model.cores, "{little:?}");
        assert!((0.8..0.9).contains(&(half.cores / model.cores)), "{half:?}");
        assert!((2.0..32.0).contains(&(25_000.0 / half.requests)), "{half:?}");
    }
}
