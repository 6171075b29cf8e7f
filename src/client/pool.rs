//! One HTTP/2 connection for each broker, shared by all streams to it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};

use super::error::ConnectError;
use crate::pb::broker_client::BrokerClient;

/// HTTP/2 windows of a stream and of a connection, in bytes. Credit is what bounds; these only keep out of its way.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The largest response taken from a broker, in bytes.
const MAX_RESPONSE: usize = 64 << 20;

/// How connections are made and watched.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionOptions {
    pub(crate) connect_timeout: Duration,
    /// A ping is sent so often ...
    pub(crate) keepalive_interval: Duration,
    /// ... and the connection is given up when it is not answered in this time.
    pub(crate) keepalive_timeout: Duration,
}

/// The connections, by address. They connect when first used, and again after they broke.
#[derive(Debug)]
pub(crate) struct Pool {
    options: ConnectionOptions,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Pool {
    pub(crate) fn new(options: ConnectionOptions) -> Self {
        Self {
            options,
            channels: Mutex::default(),
        }
    }

    /// A client of the broker at `address`, over the one connection to it.
    pub(crate) fn broker(&self, address: &str) -> Result<BrokerClient<Channel>, ConnectError> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.endpoint(address)?.connect_lazy();
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(BrokerClient::new(channel).max_decoding_message_size(MAX_RESPONSE))
    }

    /// Whether `address` can be one at all.
    pub(crate) fn check(&self, address: &str) -> Result<(), ConnectError> {
        self.endpoint(address).map(drop)
    }

    /// Forgets the connections to all others; they close when their last stream ends.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.channels.lock().retain(|address, _| keep(address));
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, ConnectError> {
        let bad = |reason: String| ConnectError::BadAddress {
            address: address.to_owned(),
            reason,
        };
        let has_port = address
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port {
            return Err(bad("no port".to_owned()));
        }
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|error| bad(error.to_string()))?;
        Ok(endpoint
            .connect_timeout(self.options.connect_timeout)
            .http2_keep_alive_interval(self.options.keepalive_interval)
            .keep_alive_timeout(self.options.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .tcp_nodelay(true))
    }
}
