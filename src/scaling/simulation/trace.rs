//! A load that was recorded: CSV with the columns `second` and `messages_per_second`.

use thiserror::Error;

/// The most seconds that a trace may span: a week.
const LONGEST: u64 = 7 * 86_400;
/// The highest rate that a trace may have, messages a second.
const HIGHEST: f64 = 1e12;
const HEADER: &str = "second,messages_per_second";

/// A load in messages a second, by the second; a rate holds until the next one.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    rates: Vec<f64>,
}

/// Why a trace cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TraceError {
    /// It has no rows.
    #[error("no rows; expected the columns {HEADER}")]
    Empty,
    /// A line is not as it must be.
    #[error("line {line}: {problem}")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// What is wrong, and what is expected.
        problem: String,
    },
}

impl Trace {
    /// Reads a trace. Empty lines and lines that begin with `#` are skipped; the header may be left out.
    ///
    /// # Errors
    /// A line that is not two numbers, a negative or absurd rate, seconds that do not ascend, more than a week, or no
    /// rows at all.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut rates: Vec<f64> = Vec::new();
        let mut first = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || (rates.is_empty() && line == HEADER) {
                continue;
            }
            let wrong = |problem: String| TraceError::Line {
                line: index + 1,
                problem,
            };
            let (second, rate) = line
                .split_once(',')
                .ok_or_else(|| wrong(format!("expected {HEADER}, found {line:?}")))?;
            let second: u64 = second.trim().parse().map_err(|_| {
                wrong(format!(
                    "second must be a whole number, found {:?}",
                    second.trim()
                ))
            })?;
            let value: f64 = rate.trim().parse().map_err(|_| {
                wrong(format!(
                    "messages_per_second must be a number, found {:?}",
                    rate.trim()
                ))
            })?;
            if !(0.0..=HIGHEST).contains(&value) {
                return Err(wrong(format!(
                    "messages_per_second must be between 0 and {HIGHEST:e}, found {:?}",
                    rate.trim()
                )));
            }
            let start = *first.get_or_insert(second);
            let at = second
                .checked_sub(start)
                .filter(|at| *at >= rates.len() as u64)
                .ok_or_else(|| {
                    wrong(format!(
                        "second must be greater than in the line before, found {second}"
                    ))
                })?;
            if at >= LONGEST {
                return Err(wrong(format!(
                    "second must be less than a week ({LONGEST}) after the first, found {second}"
                )));
            }
            let held = rates.last().copied().unwrap_or(value);
            rates.resize(at as usize, held);
            rates.push(value);
        }
        if rates.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(Self { rates })
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> u64 {
        self.rates.len() as u64
    }

    /// Messages a second at `second` after its start; at its end the last one goes on.
    pub fn at(&self, second: f64) -> f64 {
        let index = (second.max(0.0) as usize).min(self.rates.len().saturating_sub(1));
        self.rates.get(index).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_until_the_next_one() {
        let trace = Trace::parse("second,messages_per_second\n# noon\n10,100\n\n13, 250.5\n").unwrap();
        assert_eq!(trace.seconds(), 4);
        assert_eq!(
            [0.0, 2.9, 3.0, 99.0].map(|at| trace.at(at)),
            [100.0, 100.0, 250.5, 250.5]
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_line() {
        for (text, error) in [
            ("", "no rows; expected the columns second,messages_per_second"),
            (
                "second,messages_per_second\n",
                "no rows; expected the columns second,messages_per_second",
            ),
            (
                "0,1\nhello\n",
                "line 2: expected second,messages_per_second, found \"hello\"",
            ),
            (
                "0,1\n1.5,2\n",
                "line 2: second must be a whole number, found \"1.5\"",
            ),
            (
                "0,1\n1,many\n",
                "line 2: messages_per_second must be a number, found \"many\"",
            ),
            (
                "0,1\n1,-2\n",
                "line 2: messages_per_second must be between 0 and 1e12, found \"-2\"",
            ),
            (
                "0,NaN\n",
                "line 1: messages_per_second must be between 0 and 1e12, found \"NaN\"",
            ),
            (
                "5,1\n5,2\n",
                "line 2: second must be greater than in the line before, found 5",
            ),
            (
                "5,1\n4,2\n",
                "line 2: second must be greater than in the line before, found 4",
            ),
            (
                "0,1\n604800,2\n",
                "line 2: second must be less than a week (604800) after the first, found 604800",
            ),
        ] {
            assert_eq!(Trace::parse(text).unwrap_err().to_string(), error, "{text:?}");
        }
    }
}
