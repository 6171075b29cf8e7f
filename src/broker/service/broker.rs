//! The service that everybody uses; each call has its own file.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::outbox::OutboxStream;
use super::publish_out::PublishOut;
use super::shared::Shared;
use super::subscribe_out::SubscribeOut;
use super::{publish, send, subscribe, topology};
use crate::pb;
use crate::pb::broker_server::Broker;

/// Serves `sluice.v1.Broker`.
pub struct BrokerService {
    shared: Arc<Shared>,
}

impl BrokerService {
    /// For this broker.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Broker for BrokerService {
    type PublishStream = OutboxStream<PublishOut>;

    async fn publish(
        &self,
        request: Request<Streaming<pb::PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        Ok(publish::serve(&self.shared, request.into_inner()))
    }

    async fn send(&self, request: Request<pb::SendRequest>) -> Result<Response<pb::SendResponse>, Status> {
        send::send(&self.shared, request).await.map(Response::new)
    }

    type SubscribeStream = OutboxStream<SubscribeOut>;

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Ok(subscribe::serve(&self.shared, request.into_inner()))
    }

    type WatchTopologyStream = Pin<Box<dyn Stream<Item = Result<pb::Topology, Status>> + Send>>;

    async fn watch_topology(
        &self,
        request: Request<pb::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        Ok(Response::new(Box::pin(topology::watch(
            &self.shared,
            request.into_inner(),
        ))))
    }
}
