//! The broker's pressure reports, taken as the operator takes them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sluice::operator::scaling::{now, to_report};
use sluice::pb::control_client::ControlClient;
use sluice::pb::{Configuration, PressureReport, WatchPressureRequest};
use sluice::scaling::{Observed, ObservedBroker, Report};
use tonic::Streaming;
use tonic::transport::Channel;

/// A stream of reports, one a second.
pub(crate) struct Reports {
    client: ControlClient<Channel>,
    stream: Streaming<PressureReport>,
}

impl Reports {
    /// Connects as soon as the broker answers.
    pub(crate) async fn of(control: SocketAddr) -> Result<Self> {
        let started = Instant::now();
        let mut client = loop {
            match ControlClient::connect(format!("http://{control}")).await {
                Ok(client) => break client,
                Err(error) if started.elapsed() > Duration::from_secs(30) => {
                    return Err(error).context("the broker does not answer");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let request = WatchPressureRequest {
            interval: prost_types::Duration::try_from(Duration::from_secs(1)).ok(),
        };
        let stream = client.watch_pressure(request).await?.into_inner();
        Ok(Self { client, stream })
    }

    /// The next one, as it came and as the loops take it.
    pub(crate) async fn next(&mut self) -> Result<(PressureReport, Report)> {
        let report = self
            .stream
            .message()
            .await?
            .context("the broker ended the reports")?;
        let plain = to_report(&report, now());
        Ok((report, plain))
    }

    /// Gives the broker another configuration.
    pub(crate) async fn configure(&mut self, configuration: Configuration) -> Result<()> {
        let answer = self.client.configure(configuration).await?.into_inner();
        anyhow::ensure!(
            answer.problems.is_empty(),
            "the broker has problems: {:?}",
            answer.problems
        );
        Ok(())
    }
}

/// A cluster of this one broker.
pub(crate) fn observed(report: Report, channel_capacity: u32) -> Observed {
    Observed {
        spec_replicas: 1,
        current_replicas: 1,
        brokers: vec![ObservedBroker {
            name: "broker-0".to_owned(),
            ready: true,
            report: Some(report),
            hottest: None,
        }],
        start_time: Duration::from_secs(15),
        channel_capacity,
        ..Observed::default()
    }
}
