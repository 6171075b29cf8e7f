//! How a publisher is configured and opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::driver::Driver;
use super::{Buffer, Counters, OnSettled, Publisher};
use crate::client::Client;

/// Commands that may wait for the driver; the messages in them are bounded by the buffer.
const COMMANDS: usize = 64;

/// Configures a [`Publisher`].
pub struct PublisherBuilder {
    client: Client,
    on_settled: Option<OnSettled>,
    buffer_messages: u32,
    buffer_bytes: u64,
    settings: Settings,
}

/// What the driver goes by.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) topic: String,
    pub(super) producer_id: String,
    pub(super) first_sequence: u64,
    pub(super) batch_messages: usize,
    pub(super) batch_bytes: u64,
    pub(super) linger: Duration,
    pub(super) delivery_timeout: Option<Duration>,
}

impl std::fmt::Debug for PublisherBuilder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PublisherBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl PublisherBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        Self {
            client,
            on_settled: None,
            buffer_messages: 16_384,
            buffer_bytes: 64 << 20,
            settings: Settings {
                topic,
                producer_id: String::new(),
                first_sequence: 1,
                batch_messages: 512,
                batch_bytes: 512 << 10,
                linger: Duration::ZERO,
                delivery_timeout: Some(Duration::from_secs(120)),
            },
        }
    }

    /// Names this producer across reconnections and restarts, at most 128 bytes: a message that is sent twice is
    /// stored once. Without it, a message may be stored twice when a connection breaks.
    #[must_use]
    pub fn producer_id(mut self, id: impl Into<String>) -> Self {
        self.settings.producer_id = id.into();
        self
    }

    /// The sequence of the first message (at least 1). A producer that comes back with its id goes on after its
    /// last one, or repeats the ones it is not sure of.
    #[must_use]
    pub fn first_sequence(mut self, sequence: u64) -> Self {
        self.settings.first_sequence = sequence.max(1);
        self
    }

    /// The most messages and bytes of one batch on the wire.
    #[must_use]
    pub fn batch(mut self, messages: usize, bytes: u64) -> Self {
        self.settings.batch_messages = messages.max(1);
        self.settings.batch_bytes = bytes.max(1);
        self
    }

    /// How long a message may wait for others to share its batch; zero: what has come meanwhile goes together.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// The most messages and bytes that are handed over and not yet settled; then the caller waits.
    #[must_use]
    pub fn buffer(mut self, messages: u32, bytes: u64) -> Self {
        self.buffer_messages = messages;
        self.buffer_bytes = bytes;
        self
    }

    /// A message that is not acknowledged in this time fails; `None`: it is tried for ever. 120 s by default.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// Is told what became of messages that were handed over with [`Publisher::enqueue`].
    #[must_use]
    pub fn on_settled(mut self, callback: OnSettled) -> Self {
        self.on_settled = Some(callback);
        self
    }

    /// Starts the publisher. It does not wait for a connection: messages are buffered until there is one.
    pub fn open(self) -> Publisher {
        let buffer = Arc::new(Buffer::new(self.buffer_messages, self.buffer_bytes));
        let stats = Arc::new(Counters::default());
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let driver = Driver::new(
            self.client,
            self.settings,
            self.on_settled,
            buffer.clone(),
            stats.clone(),
        );
        let driver = AbortOnDropHandle::new(tokio::spawn(driver.run(inbox)));
        Publisher {
            commands,
            buffer,
            stats,
            driver,
        }
    }
}
