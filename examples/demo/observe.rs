//! What is seen each second: the load's own line, and what the operator says.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::stage::Stage;

/// Looks at the cluster, once for each line of the load.
pub(crate) struct Observer<'a> {
    stage: &'a Stage,
    started: Instant,
    acked: BTreeMap<String, u64>,
}

/// One second.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// Since the load began.
    pub(crate) at: Duration,
    pub(crate) offered: u64,
    pub(crate) acked: u64,
    pub(crate) p99: Option<Duration>,
    pub(crate) pressure: String,
    pub(crate) capacity: u32,
    pub(crate) ready: u32,
    pub(crate) desired: u32,
    pub(crate) reason: String,
    /// What each broker acknowledged in this second.
    pub(crate) shares: BTreeMap<String, u64>,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        Self {
            stage,
            started: Instant::now(),
            acked: BTreeMap::new(),
        }
    }

    /// Puts a line of the load beside what the cluster says now.
    pub(crate) async fn moment(&mut self, line: &Value) -> Result<Moment> {
        let (broker, acked) = tokio::join!(self.stage.broker(), self.stage.acked_by_broker());
        let acked: BTreeMap<String, u64> = acked?.into_iter().collect();
        let since = |(name, count): (&String, &u64)| {
            let before = self.acked.get(name).copied().unwrap_or(0);
            (name.clone(), count.saturating_sub(before))
        };
        let shares = acked.iter().map(since).collect();
        self.acked = acked;
        let status = broker?.status.unwrap_or_default();
        let summary = status.summary.unwrap_or_default();
        let autoscaling = status.autoscaling.unwrap_or_default();
        let number = |name: &str| line[name].as_f64().unwrap_or(0.0) as u64;
        Ok(Moment {
            at: line["seconds"]
                .as_f64()
                .map_or(self.started.elapsed(), Duration::from_secs_f64),
            offered: number("offeredRate"),
            acked: number("acknowledgedRate"),
            p99: line["publish"]["p99"].as_u64().map(Duration::from_micros),
            pressure: summary.pressure,
            capacity: status.channel_capacity.unwrap_or(0),
            ready: status.ready_replicas,
            desired: autoscaling.desired_replicas.unwrap_or(status.replicas),
            reason: autoscaling
                .decisions
                .last()
                .map_or(summary.scaling, |decision| decision.reason.clone()),
            shares,
        })
    }
}

impl Moment {
    pub(crate) const HEADER: &str = "    at  offered/s   acked/s  p99 ms  pressure  channel  brokers  last reason      each broker's acked/s";
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p99 = self
            .p99
            .map_or_else(|| "-".to_owned(), |p99| format!("{:.0}", p99.as_secs_f64() * 1e3));
        let brokers = format!("{}/{}", self.ready, self.desired);
        write!(
            f,
            "{:5.0}s  {:9}  {:8}  {p99:>6}  ",
            self.at.as_secs_f64(),
            self.offered,
            self.acked
        )?;
        write!(
            f,
            "{:>8}  {:>7}  {brokers:>7}  {:<16}",
            self.pressure, self.capacity, self.reason
        )?;
        let shares: Vec<String> = self.shares.values().map(u64::to_string).collect();
        write!(f, " {}", shares.join(" "))
    }
}
