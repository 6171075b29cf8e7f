//! Repeatable noise.

/// A value in 0..1 that depends on nothing but its arguments (SplitMix64's finalizer).
fn uniform(seed: u64, at: u64) -> f64 {
    let mut x = seed
        .wrapping_mul(0xD134_2543_DE82_EF95)
        .wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// A factor around 1 for each second: normally distributed with `deviation`, cut off at three deviations and at 0.
///
/// The sum of twelve uniform values less six is close enough to normal.
pub(super) fn factor(seed: u64, second: u64, deviation: f64) -> f64 {
    if deviation <= 0.0 {
        return 1.0;
    }
    let sum: f64 = (0..12)
        .map(|part| uniform(seed, second.wrapping_mul(12).wrapping_add(part)))
        .sum();
    (1.0 + deviation * (sum - 6.0).clamp(-3.0, 3.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_mean_and_deviation_that_it_says_and_repeats() {
        let values: Vec<f64> = (0..20_000).map(|second| factor(7, second, 0.1)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
        assert!((variance.sqrt() - 0.1).abs() < 0.005, "{}", variance.sqrt());
        assert!(values.iter().all(|value| (0.7..=1.3).contains(value)));
        assert_eq!(values[17], factor(7, 17, 0.1));
        assert_ne!(values[17], factor(8, 17, 0.1));
        assert_eq!(factor(7, 17, 0.0), 1.0);
    }
}
