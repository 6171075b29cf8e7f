//! What the core asks of other brokers, without saying how it gets there.

use std::future::Future;
use std::pin::Pin;

use crate::pb;

use super::store::NewMessage;

/// A future behind a trait object.
pub type PeerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// Reads entries on other brokers' disks.
pub trait PeerReader: Send + Sync + std::fmt::Debug {
    /// `Peer.Read` at a broker's control address.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses; the text says why.
    fn read<'a>(
        &'a self,
        control_address: &'a str,
        request: pb::ReadRequest,
    ) -> PeerFuture<'a, pb::ReadResponse>;

    /// `Peer.Handoff` at a broker's control address.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses; the text says why.
    fn handoff<'a>(
        &'a self,
        control_address: &'a str,
        request: pb::HandoffRequest,
    ) -> PeerFuture<'a, pb::HandoffResponse>;
}

/// Takes dead letters for topics of which no partition is open on this broker.
pub trait DeadLetters: Send + Sync + std::fmt::Debug {
    /// Publishes the message to the topic, wherever it is, as this idempotent producer, to the same partition each
    /// time. Returns when it is as durable there as that broker's durability says. It may be called again for a
    /// message that was stored already.
    ///
    /// # Errors
    /// It was not stored; it is tried again later.
    fn publish<'a>(&'a self, topic: &'a str, producer: &'a str, message: NewMessage) -> PeerFuture<'a, ()>;
}
