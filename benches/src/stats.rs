//! Medians and ranges.

use serde::Serialize;

/// The median of some runs, and the least and the most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) runs: usize,
}

impl Spread {
    /// `None` where nothing was measured.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            (values.get(middle - 1)? + values.get(middle)?) / 2.0
        };
        Some(Self {
            median,
            least,
            most,
            runs: values.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(Spread::of([]), None);
        let three = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (three.median, three.least, three.most, three.runs),
            (2.0, 1.0, 3.0, 3)
        );
        assert_eq!(Spread::of([1.0, 2.0, 10.0, 4.0]).unwrap().median, 3.0);
    }
}
