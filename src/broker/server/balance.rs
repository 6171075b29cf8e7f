//! When one thread is enough for all connections, and when it is not.

/// Of one thread's time. Above it connections are spread: what waits behind so much would soon wait long.
const SPREAD_ABOVE: f64 = 0.75;
/// Of one thread's time, by all threads together. Below it connections are gathered; far enough below the other that
/// they are not spread again by the same load, the more so as one thread does it with less.
const GATHER_BELOW: f64 = 0.55;
/// Looks, one after the other, at which little was to be done before connections are gathered.
const QUIET_LOOKS: u32 = 8;

/// Decides from how much is to be done.
#[derive(Debug, Default)]
pub(super) struct Balance {
    spread: bool,
    quiet: u32,
}

impl Balance {
    /// Whether connections are to be spread, now that the threads together were busy for `share` of one thread's time
    /// since the last call.
    pub(super) fn is_spread(&mut self, share: f64) -> bool {
        if !self.spread {
            self.spread = share > SPREAD_ABOVE;
            self.quiet = 0;
        } else if share < GATHER_BELOW {
            self.quiet += 1;
            self.spread = self.quiet < QUIET_LOOKS;
        } else {
            self.quiet = 0;
        }
        self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_at_once_and_gathered_after_a_while_with_little_to_do() {
        let mut balance = Balance::default();
        assert!(!balance.is_spread(0.7));
        assert!(balance.is_spread(0.8));
        for _ in 0..7 {
            assert!(balance.is_spread(0.3));
        }
        assert!(balance.is_spread(0.6), "it begins anew");
        for _ in 0..7 {
            assert!(balance.is_spread(0.3));
        }
        assert!(!balance.is_spread(0.3));
        assert!(!balance.is_spread(0.7));
    }
}
