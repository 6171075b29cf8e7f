//! The way to the other brokers: one connection for calls to each, made when it is first needed.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::pb;
use crate::pb::broker_client::BrokerClient;
use crate::pb::peer_client::PeerClient;

/// So many long streams share a connection; the next one gets a new connection, so that none waits for a stream's
/// end at the peer's limit of streams.
const STREAMS_PER_CONNECTION: u32 = 64;

/// Connections to control ports that are kept.
const MOST_CONTROLS: usize = 64;

/// Larger answers of a peer are refused: a read of batches, or the deliveries of a subscription.
const MOST_ANSWER_BYTES: usize = 64 << 20;

/// The other brokers, by name, as the operator said last.
#[derive(Debug, Default)]
pub struct Peers {
    known: Mutex<HashMap<String, Known>>,
    /// For the control port, by address: entries are read from brokers that own nothing any more as well.
    controls: Mutex<HashMap<String, Channel>>,
}

#[derive(Debug)]
struct Known {
    endpoint: pb::PeerEndpoint,
    calls: Option<Channel>,
    streams: Option<Channel>,
    streams_left: u32,
}

impl Peers {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the newest addresses. Connections to addresses that stay are kept.
    pub fn configure(&self, brokers: &[pb::PeerEndpoint]) {
        let mut known = self.known.lock();
        known.retain(|name, peer| {
            brokers
                .iter()
                .any(|broker| broker.name == *name && broker == &peer.endpoint)
        });
        for broker in brokers {
            known.entry(broker.name.clone()).or_insert_with(|| Known {
                endpoint: broker.clone(),
                calls: None,
                streams: None,
                streams_left: 0,
            });
        }
    }

    /// The address for clients of a broker; empty where it is not known.
    pub fn address(&self, name: &str) -> String {
        self.known
            .lock()
            .get(name)
            .map(|peer| peer.endpoint.address.clone())
            .unwrap_or_default()
    }

    /// For single calls.
    ///
    /// # Errors
    /// The broker is not known, or its address is none.
    pub fn calls(&self, name: &str) -> Result<BrokerClient<Channel>, Status> {
        let mut known = self.known.lock();
        let peer = known.get_mut(name).ok_or_else(|| unknown(name))?;
        let channel = cached(&mut peer.calls, &peer.endpoint.address)?;
        Ok(BrokerClient::new(channel).max_decoding_message_size(MOST_ANSWER_BYTES))
    }

    /// For a stream that lives long.
    ///
    /// # Errors
    /// As [`Peers::calls`].
    pub fn stream(&self, name: &str) -> Result<BrokerClient<Channel>, Status> {
        let mut known = self.known.lock();
        let peer = known.get_mut(name).ok_or_else(|| unknown(name))?;
        if peer.streams_left == 0 {
            peer.streams = None;
            peer.streams_left = STREAMS_PER_CONNECTION;
        }
        peer.streams_left -= 1;
        let channel = cached(&mut peer.streams, &peer.endpoint.address)?;
        Ok(BrokerClient::new(channel).max_decoding_message_size(MOST_ANSWER_BYTES))
    }

    /// For reads of entries at a control address.
    ///
    /// # Errors
    /// The address is none.
    pub fn control(&self, address: &str) -> Result<PeerClient<Channel>, Status> {
        let mut controls = self.controls.lock();
        let channel = match controls.get(address) {
            Some(channel) => channel.clone(),
            None => {
                if controls.len() >= MOST_CONTROLS {
                    controls.clear();
                }
                let channel = connect(address)?;
                controls.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        drop(controls);
        Ok(PeerClient::new(channel).max_decoding_message_size(MOST_ANSWER_BYTES))
    }
}

fn unknown(name: &str) -> Status {
    Status::unavailable(format!("broker {name:?} is not known here yet"))
}

fn cached(slot: &mut Option<Channel>, address: &str) -> Result<Channel, Status> {
    if let Some(channel) = slot {
        return Ok(channel.clone());
    }
    let channel = connect(address)?;
    *slot = Some(channel.clone());
    Ok(channel)
}

/// Connects when it is first used, and again whenever the connection broke.
fn connect(address: &str) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::unavailable(format!("{address:?} is no address of a broker: {error}")))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect_lazy())
}
