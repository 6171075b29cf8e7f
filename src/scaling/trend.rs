//! Where a demand is heading that rises steadily: brokers take time to start, and a mean over a minute is half a minute old.

use super::time::Time;
use super::window::History;

/// The window is looked at in so many blocks of so many seconds.
const BLOCKS: usize = 6;
const BLOCK_SECONDS: f64 = 10.0;
const BLOCK_MILLIS: u64 = 10_000;
/// How many times its own standard error a slope must be to count: noise then hardly ever looks like one.
const SIGNIFICANT: f64 = 4.0;
/// The least rise over the window, in parts of the mean.
const LEAST_RISE: f64 = 0.05;
/// The most of the rise that may lie between two blocks: more is a step, which does not go on.
const MOST_AT_ONCE: f64 = 0.45;
/// A block in which publishers were held back for more than this part of the time says too little about the demand.
const HELD_BACK: f64 = 0.5;

/// What happened in a block, at all brokers.
#[derive(Clone, Copy, Default)]
struct Block {
    accepted: f64,
    blocked: f64,
    active: f64,
}

/// A demand that rises, as a straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// Messages a second at the end of the window.
    now: f64,
    /// Messages a second more with every second.
    slope: f64,
}

impl Trend {
    /// Messages a second in some seconds, if it goes on so.
    pub(super) fn in_seconds(&self, seconds: f64) -> f64 {
        self.now + self.slope * seconds.clamp(0.0, BLOCKS as f64 * BLOCK_SECONDS)
    }

    /// The rise over the last minute by least squares, if it is one: full blocks since `from`, a slope that stands out of its
    /// own error, and that matters.
    pub(super) fn of(histories: &[&History], from: Time) -> Option<Self> {
        let newest = histories
            .iter()
            .filter_map(|history| history.latest(0))
            .map(|sample| sample.end)
            .max()?;
        let mut blocks = [Block::default(); BLOCKS];
        let mut whole = [false; BLOCKS];
        for history in histories {
            for sample in history.since(from) {
                let since = |time: Time| newest.as_millis().saturating_sub(time.as_millis());
                let block = (since(sample.end) / BLOCK_MILLIS) as usize;
                if let Some(sum) = blocks.get_mut(block) {
                    sum.accepted += sample.interval.accepted as f64;
                    sum.blocked += sample.interval.blocked_nanos as f64;
                    sum.active += sample.interval.active_nanos as f64;
                    // Of the oldest block, the last sample but one is enough: reports are not on the second.
                    whole[block] |=
                        since(sample.start()) >= (block as u64) * BLOCK_MILLIS + BLOCK_MILLIS / 10 * 8;
                }
            }
        }
        if !whole.iter().all(|whole| *whole) {
            return None;
        }
        let mut rates = [0.0; BLOCKS];
        for (rate, sum) in rates.iter_mut().zip(&blocks) {
            let blocked = if sum.active > 0.0 {
                sum.blocked / sum.active
            } else {
                0.0
            };
            if blocked > HELD_BACK {
                return None;
            }
            *rate = sum.accepted / BLOCK_SECONDS / (1.0 - blocked);
        }
        Self::fit(&rates)
    }

    /// `rates` by block, the newest first.
    fn fit(rates: &[f64; BLOCKS]) -> Option<Self> {
        let count = BLOCKS as f64;
        let mean = rates.iter().sum::<f64>() / count;
        let middle = -count * BLOCK_SECONDS / 2.0;
        let at = |block: usize| -(block as f64 + 0.5) * BLOCK_SECONDS - middle;
        let spread: f64 = (0..BLOCKS).map(|block| at(block).powi(2)).sum();
        let slope = rates
            .iter()
            .enumerate()
            .map(|(block, rate)| at(block) * rate)
            .sum::<f64>()
            / spread;
        let residual: f64 = rates
            .iter()
            .enumerate()
            .map(|(block, rate)| (rate - mean - slope * at(block)).powi(2))
            .sum();
        let error = (residual / (count - 2.0) / spread).sqrt();
        let rise = slope * count * BLOCK_SECONDS;
        let steps = rates.windows(2).map(|pair| pair[0] - pair[1]);
        let largest = steps.fold(0.0, f64::max);
        let steady = largest <= MOST_AT_ONCE * (rates[0] - rates[BLOCKS - 1]);
        let rises = steady && slope > 0.0 && slope >= SIGNIFICANT * error && rise >= LEAST_RISE * mean;
        rises.then_some(Self {
            now: mean - slope * middle,
            slope,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_rise_is_carried_on() {
        // 1000, 1100, ... 1500, the newest first: 10/s more each second, 1550 at the end of the window.
        let trend = Trend::fit(&[1_500.0, 1_400.0, 1_300.0, 1_200.0, 1_100.0, 1_000.0]).unwrap();
        assert!((trend.in_seconds(0.0) - 1_550.0).abs() < 1e-6, "{trend:?}");
        assert!((trend.in_seconds(15.0) - 1_700.0).abs() < 1e-6);
        assert_eq!(trend.in_seconds(1e9), trend.in_seconds(60.0));
    }

    #[test]
    fn noise_falls_steps_and_small_rises_are_none() {
        for rates in [
            [1_000.0; 6],
            [1_030.0, 970.0, 1_040.0, 960.0, 1_010.0, 990.0],
            [1_000.0, 1_100.0, 1_200.0, 1_300.0, 1_400.0, 1_500.0],
            [1_040.0, 1_032.0, 1_024.0, 1_016.0, 1_008.0, 1_000.0],
            [7_000.0, 7_000.0, 7_000.0, 4_200.0, 1_400.0, 1_400.0],
            [0.0; 6],
        ] {
            assert_eq!(Trend::fit(&rates), None, "{rates:?}");
        }
    }
}
