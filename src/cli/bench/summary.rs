//! The end: what was offered, what became of it, and whether anything is wrong.

use serde::Serialize;

use super::latency::Percentiles;
use super::report::{Trouble, millis, offered, round};
use super::run::Run;
use crate::cli::{Failure, Output};
use crate::client::SubscriberStats;

/// Lost messages that are named.
const NAMED: usize = 10;

/// Counts are messages, latencies microseconds. What cannot be known in this mode is absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    r#type: &'static str,
    run_id: u64,
    seconds: f64,
    /// To be sent by the schedule, or sent where there is none.
    offered: u64,
    /// Handed over to the publishers.
    published: u64,
    acknowledged: u64,
    rejected: u64,
    /// Published, and neither acknowledged nor rejected.
    unknown: u64,
    /// Different messages.
    delivered: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    /// Some of the lost ones, as producer and number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost_examples: Vec<(u32, u64)>,
    duplicated: u64,
    redelivered: u64,
    reordered: u64,
    damaged: u64,
    /// Messages of others in the topic.
    foreign: u64,
    nacked: u64,
    acknowledged_rate: f64,
    publish_latency: Option<Percentiles>,
    delivery_latency: Option<Percentiles>,
    /// Latencies count from the intended send time. False where there was none: as fast as credit allows.
    corrected: bool,
    producer_ids: bool,
    moves: u64,
    throttles: u64,
    reconnects: u64,
    resent: u64,
    deduplicated: u64,
    subscriber_reconnects: u64,
    stale_acks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_rejection: Option<String>,
}

impl Summary {
    pub(super) fn of(run: &Run, seconds: f64, trouble: &Trouble, subscribers: &[SubscriberStats]) -> Self {
        let counts = &run.counts;
        let published = counts.published.get();
        let (acknowledged, rejected) = (counts.acknowledged.get(), counts.rejected.get());
        let is_checked = run.arguments.publishes() && run.arguments.subscribes();
        let lost = is_checked.then(|| run.undelivered());
        let lost_examples = if lost > Some(0) {
            run.first_undelivered(NAMED)
        } else {
            Vec::new()
        };
        let ledger = run.ledger.lock();
        Self {
            r#type: "summary",
            run_id: run.id,
            seconds: round(seconds),
            offered: offered(run),
            published,
            acknowledged,
            rejected,
            unknown: published.saturating_sub(acknowledged + rejected),
            delivered: ledger.delivered,
            lost,
            lost_examples,
            duplicated: ledger.duplicated,
            redelivered: ledger.redelivered,
            reordered: ledger.reordered,
            damaged: counts.damaged.get(),
            foreign: counts.foreign.get(),
            nacked: counts.nacked.get(),
            acknowledged_rate: round(acknowledged as f64 / seconds.max(1e-9)),
            publish_latency: run.publish_latency.lock().total(),
            delivery_latency: run.deliver_latency.lock().total(),
            corrected: run.schedule.is_paced(),
            producer_ids: run.arguments.producer_id.is_some(),
            moves: trouble.moves,
            throttles: trouble.throttles,
            reconnects: trouble.reconnects,
            resent: trouble.resent,
            deduplicated: trouble.duplicates,
            subscriber_reconnects: subscribers.iter().map(|stats| stats.reconnects).sum(),
            stale_acks: subscribers.iter().map(|stats| stats.stale).sum(),
            first_rejection: run.first_rejection.lock().clone(),
        }
    }

    pub(super) fn print(&self, output: Output) {
        match output {
            Output::Json => println!("{}", serde_json::json!(self)),
            Output::Text => println!("{}", self.text()),
        }
    }

    fn text(&self) -> String {
        let latency = |percentiles: &Option<Percentiles>| match percentiles {
            Some(p) => format!(
                "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                millis(p.p50),
                millis(p.p90),
                millis(p.p99),
                millis(p.p999),
                millis(p.max)
            ),
            None => "-".to_owned(),
        };
        let lost = self
            .lost
            .map_or_else(|| "not checked".to_owned(), |lost| lost.to_string());
        let corrected = if self.corrected {
            "from the intended send time"
        } else {
            "not corrected for coordinated omission: there was no schedule"
        };
        let mut text = format!(
            "\nrun {}: {} s, {} acknowledged/s\n\
             offered {}  published {}  acknowledged {}  rejected {}  unknown {}\n\
             delivered {}  lost {lost}  duplicated {}  reordered {}  damaged {}  redelivered {}\n\
             moves {}  throttles {}  reconnects {}  resent {}\n\
             latency ({corrected})\n  publish   {}\n  delivery  {}",
            self.run_id,
            self.seconds,
            self.acknowledged_rate,
            self.offered,
            self.published,
            self.acknowledged,
            self.rejected,
            self.unknown,
            self.delivered,
            self.duplicated,
            self.reordered,
            self.damaged,
            self.redelivered,
            self.moves,
            self.throttles,
            self.reconnects,
            self.resent,
            latency(&self.publish_latency),
            latency(&self.delivery_latency),
        );
        if let Some(rejection) = &self.first_rejection {
            text.push_str(&format!("\nfirst rejection: {rejection}"));
        }
        for (producer, number) in &self.lost_examples {
            text.push_str(&format!("\nlost: producer {producer}, number {number}"));
        }
        text
    }

    /// Whether what must not happen did not happen.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        let mut check = |count: u64, what: &str| {
            if count > 0 {
                wrong.push(format!("{count} messages were {what}"));
            }
        };
        check(
            self.lost.unwrap_or(0),
            "acknowledged and not delivered within --drain-timeout",
        );
        check(self.damaged, "damaged");
        if self.producer_ids {
            check(self.duplicated, "stored more than once");
            check(self.reordered, "stored out of order");
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Failure::Failed(wrong.join("; ")))
        }
    }
}
