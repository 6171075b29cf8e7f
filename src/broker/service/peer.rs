//! What a broker answers other brokers.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::control::entry;
use super::shared::Shared;
use crate::pb;
use crate::pb::peer_server::Peer;

/// One answer holds no more than this, and at least one batch.
const MOST_READ_BYTES: u64 = 4 << 20;

/// Serves `sluice.v1.Peer`.
pub struct PeerService {
    shared: Arc<Shared>,
}

impl PeerService {
    /// For this broker.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<pb::ReadResponse>, Status> {
        let mut request = request.into_inner();
        entry(request.entry.clone())?;
        request.max_bytes = match request.max_bytes {
            0 => MOST_READ_BYTES,
            bytes => bytes.min(MOST_READ_BYTES),
        };
        let response = self
            .shared
            .store
            .answer_read(request)
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(response))
    }

    async fn handoff(
        &self,
        request: Request<pb::HandoffRequest>,
    ) -> Result<Response<pb::HandoffResponse>, Status> {
        let entry = entry(request.into_inner().entry)?;
        let response = self
            .shared
            .store
            .handoff(&entry)
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(response))
    }
}
