//! The operator's side of a broker.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::MissedTickBehavior;
use tonic::{Request, Response, Status};

use super::shared::Shared;
use crate::broker::pressure::Reporter;
use crate::broker::store::EntryId;
use crate::pb;
use crate::pb::control_server::Control;

/// Reports come no more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
/// The longest pause between two reports.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// Serves `sluice.v1.Control`.
pub struct ControlService {
    shared: Arc<Shared>,
}

impl ControlService {
    /// For this broker.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// An entry's id from the wire.
///
/// # Errors
/// There is none.
pub fn entry(entry: Option<pb::EntryId>) -> Result<EntryId, Status> {
    let entry = entry.ok_or_else(|| Status::invalid_argument("the request names no entry"))?;
    Ok(EntryId {
        topic: entry.topic,
        topic_uid: entry.topic_uid,
        partition: entry.partition,
        epoch: entry.epoch,
    })
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn configure(
        &self,
        request: Request<pb::Configuration>,
    ) -> Result<Response<pb::ConfigureResponse>, Status> {
        let configuration = request.into_inner();
        if configuration.broker != self.shared.name {
            return Err(Status::failed_precondition(format!(
                "this is {:?} and the configuration is for {:?}",
                self.shared.name, configuration.broker
            )));
        }
        if !self.shared.cluster.is_empty() && configuration.cluster != self.shared.cluster {
            return Err(Status::failed_precondition(format!(
                "this broker is of {:?} and the configuration of {:?}",
                self.shared.cluster, configuration.cluster
            )));
        }
        let generation = configuration.generation;
        let store = Arc::clone(&self.shared.store);
        // It writes to the disk what must survive.
        let problems = tokio::task::spawn_blocking(move || store.configure(&configuration))
            .await
            .map_err(|error| Status::internal(format!("the configuration was not applied: {error}")))?
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::ConfigureResponse { generation, problems }))
    }

    type WatchPressureStream = Pin<Box<dyn Stream<Item = Result<pb::PressureReport, Status>> + Send>>;

    async fn watch_pressure(
        &self,
        request: Request<pb::WatchPressureRequest>,
    ) -> Result<Response<Self::WatchPressureStream>, Status> {
        let interval = match request.into_inner().interval {
            None => Duration::from_secs(1),
            Some(interval) => Duration::try_from(interval)
                .map_err(|_| Status::invalid_argument("the interval is negative"))?
                .clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL),
        };
        let mut reporter = Reporter::new(Arc::clone(&self.shared));
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reports = tokio_stream::wrappers::IntervalStream::new(ticks).map(move |_| Ok(reporter.report()));
        Ok(Response::new(Box::pin(reports)))
    }

    async fn seal(&self, request: Request<pb::SealRequest>) -> Result<Response<pb::SealResponse>, Status> {
        let entry = entry(request.into_inner().entry)?;
        let store = Arc::clone(&self.shared.store);
        // A seal that has begun is finished, also when the caller goes away.
        let sealed_at = tokio::spawn(async move { store.seal(&entry).await })
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::SealResponse { sealed_at }))
    }

    async fn copy(&self, request: Request<pb::CopyRequest>) -> Result<Response<pb::CopyResponse>, Status> {
        let request = request.into_inner();
        entry(request.entry.clone())?;
        let response = self
            .shared
            .store
            .copy(&request)
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(response))
    }

    async fn drop(&self, request: Request<pb::DropRequest>) -> Result<Response<pb::DropResponse>, Status> {
        let entry = entry(request.into_inner().entry)?;
        self.shared
            .store
            .drop_entry(&entry)
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::DropResponse {}))
    }

    /// A broker places nothing itself, so the cordon is the operator's own affair; what is held is what it asks for.
    async fn drain(&self, request: Request<pb::DrainRequest>) -> Result<Response<pb::DrainResponse>, Status> {
        let cordon = request.into_inner().cordon;
        self.shared.set_cordoned(cordon);
        let held = self.shared.store.held().into_iter().map(|held| pb::HeldEntry {
            entry: Some(pb::EntryId {
                topic: held.entry.topic,
                partition: held.entry.partition,
                epoch: held.entry.epoch,
                topic_uid: held.entry.topic_uid,
            }),
            sealed: held.sealed,
            positions: held.positions,
            bytes: held.bytes,
            start: held.start,
        });
        Ok(Response::new(pb::DrainResponse { held: held.collect() }))
    }
}
