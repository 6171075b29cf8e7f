//! The article's handler in stock tonic, with tonic's defaults: a task a stream, a channel of 128.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::article::handler_server::{Handler, HandlerServer};
use crate::article::{Ack, Payload};

/// The article's buffer between reading and acknowledging.
const BUFFER: usize = 128;

struct Acknowledging;

#[tonic::async_trait]
impl Handler for Acknowledging {
    type HandleStream = ReceiverStream<Result<Ack, Status>>;

    async fn handle(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::HandleStream>, Status> {
        let mut payloads = request.into_inner();
        let (acks, answers) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            loop {
                let ack = match payloads.message().await {
                    Ok(Some(payload)) => Ok(Ack {
                        sequence: payload.sequence,
                    }),
                    Ok(None) => break,
                    Err(status) => Err(status),
                };
                let is_last = ack.is_err();
                // The client is gone when nobody takes the answers.
                if acks.send(ack).await.is_err() || is_last {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Serves until it is ended.
///
/// # Errors
/// It cannot listen there.
pub(crate) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    Server::builder()
        .add_service(HandlerServer::new(Acknowledging))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
