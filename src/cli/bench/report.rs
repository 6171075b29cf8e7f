//! One line a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::latency::Percentiles;
use super::run::Run;
use crate::cli::Output;
use crate::client::Publisher;

pub(super) struct Reporter {
    run: Arc<Run>,
    publishers: Arc<Vec<Publisher>>,
    last: Totals,
    last_at: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    offered: u64,
    acknowledged: u64,
    received: u64,
}

/// What happened since the last line; rates in messages a second, latencies in microseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    r#type: &'static str,
    seconds: f64,
    offered_rate: f64,
    acknowledged_rate: f64,
    delivered_rate: f64,
    publish: Option<Percentiles>,
    delivery: Option<Percentiles>,
    /// Messages that are due and not acknowledged.
    unacknowledged: u64,
    moves: u64,
    throttles: u64,
    reconnects: u64,
}

/// What the publishers' streams went through so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trouble {
    pub(super) moves: u64,
    pub(super) throttles: u64,
    pub(super) reconnects: u64,
    pub(super) resent: u64,
    pub(super) duplicates: u64,
}

impl Trouble {
    pub(super) fn of(publishers: &[Publisher]) -> Self {
        publishers
            .iter()
            .map(Publisher::stats)
            .fold(Self::default(), |sum, stats| Self {
                moves: sum.moves + stats.moves,
                throttles: sum.throttles + stats.throttles,
                reconnects: sum.reconnects + stats.reconnects,
                resent: sum.resent + stats.resent,
                duplicates: sum.duplicates + stats.duplicates,
            })
    }
}

impl Reporter {
    pub(super) fn new(run: Arc<Run>, publishers: Arc<Vec<Publisher>>) -> Self {
        Self {
            run,
            publishers,
            last: Totals::default(),
            last_at: Instant::now(),
        }
    }

    /// Waits for `work`, and prints lines meanwhile.
    pub(super) async fn until<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let every = self.run.arguments.report_every.max(Duration::from_millis(10));
        loop {
            let next = self.last_at + every;
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep_until(next.into()) => self.print(),
            }
        }
    }

    fn print(&mut self) {
        let line = self.line();
        if let Some(record) = &self.run.record {
            record.lock().flush();
        }
        match self.run.arguments.output {
            Output::Json => println!("{}", serde_json::json!(line)),
            Output::Text => println!("{}", line.text()),
        }
    }

    fn line(&mut self) -> Line {
        let run = &self.run;
        let now = Totals {
            offered: offered(run),
            acknowledged: run.counts.acknowledged.get(),
            received: run.counts.received.get(),
        };
        let last = std::mem::replace(&mut self.last, now);
        let seconds = self.last_at.elapsed().as_secs_f64();
        self.last_at = Instant::now();
        let trouble = Trouble::of(&self.publishers);
        Line {
            r#type: "interval",
            seconds: round(run.clock.elapsed().as_secs_f64()),
            offered_rate: round((now.offered - last.offered) as f64 / seconds),
            acknowledged_rate: round((now.acknowledged - last.acknowledged) as f64 / seconds),
            delivered_rate: round((now.received - last.received) as f64 / seconds),
            publish: run.publish_latency.lock().take_interval(),
            delivery: run.deliver_latency.lock().take_interval(),
            unacknowledged: now
                .offered
                .saturating_sub(now.acknowledged + run.counts.rejected.get()),
            moves: trouble.moves,
            throttles: trouble.throttles,
            reconnects: trouble.reconnects,
        }
    }
}

impl Line {
    fn text(&self) -> String {
        let latency = |name: &str, percentiles: &Option<Percentiles>| match percentiles {
            Some(p) => format!("{name} p50 {} p99 {}", millis(p.p50), millis(p.p99)),
            None => format!("{name} -"),
        };
        format!(
            "{:>7.1}s  offered {:>7.0}/s  acked {:>7.0}/s  delivered {:>7.0}/s  {}  {}  unacked {}",
            self.seconds,
            self.offered_rate,
            self.acknowledged_rate,
            self.delivered_rate,
            latency("publish", &self.publish),
            latency("delivery", &self.delivery),
            self.unacknowledged,
        )
    }
}

/// Messages that were to be sent so far: by the schedule, or all that were sent where there is none.
pub(super) fn offered(run: &Run) -> u64 {
    if !run.arguments.publishes() {
        return 0;
    }
    let due = run.schedule.due(run.clock.elapsed().min(run.schedule.duration()));
    due.unwrap_or(0).max(run.counts.published.get())
}

/// Microseconds as milliseconds.
pub(super) fn millis(micros: u64) -> String {
    format!("{:.2}ms", micros as f64 / 1000.0)
}

pub(super) fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
