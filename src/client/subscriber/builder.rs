//! How a subscriber is configured and opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::inbox::Inbox;
use super::supervisor::{Opening, Supervisor};
use super::{Counters, Subscriber};
use crate::client::error::SubscribeError;
use crate::client::{Client, Start};

/// Configures a [`Subscriber`].
#[derive(Debug, Clone)]
pub struct SubscriberBuilder {
    client: Client,
    settings: Settings,
    open_timeout: Duration,
}

/// What every stream of a subscriber goes by.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) member: String,
    pub(super) start: Start,
    pub(super) ordered: bool,
    pub(super) credit: (u64, u64),
    pub(super) linger: Duration,
}

impl SubscriberBuilder {
    pub(crate) fn new(client: Client, topic: String, group: String) -> Self {
        Self {
            client,
            settings: Settings {
                topic,
                group,
                member: String::new(),
                start: Start::Earliest,
                ordered: false,
                credit: (1024, 16 << 20),
                linger: Duration::from_millis(5),
            },
            open_timeout: Duration::from_secs(60),
        }
    }

    /// Where the group starts in partitions in which it has no progress yet; otherwise it goes on from there.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.settings.start = start;
        self
    }

    /// Messages of one key in their order, one of them at a time: the next one comes when the one before is acked or
    /// given up. Messages without a key are free. All members of a group must say the same.
    #[must_use]
    pub fn ordered(mut self, ordered: bool) -> Self {
        self.settings.ordered = ordered;
        self
    }

    /// The most messages and bytes that are delivered by each broker and not settled yet.
    #[must_use]
    pub fn credit(mut self, messages: u64, bytes: u64) -> Self {
        self.settings.credit = (messages.max(1), bytes.max(1));
        self
    }

    /// Shown in the brokers' logs and metrics.
    #[must_use]
    pub fn member(mut self, member: impl Into<String>) -> Self {
        self.settings.member = member.into();
        self
    }

    /// How long answers may wait to be sent together; 5 ms by default.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// How long [`SubscriberBuilder::open`] waits; 60 s by default.
    #[must_use]
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Joins the group at every broker that owns partitions of the topic, and waits until all have let it in.
    ///
    /// # Errors
    /// A broker refused, or not all of them answered in time: the topic does not exist, or a broker is away.
    pub async fn open(self) -> Result<Subscriber, SubscribeError> {
        let inbox = Arc::new(Inbox::default());
        let stats = Arc::new(Counters::default());
        let stop = CancellationToken::new();
        let (opening, mut opened) = watch::channel(Opening::default());
        let supervisor = Supervisor {
            client: self.client,
            settings: Arc::new(self.settings),
            inbox: inbox.clone(),
            counters: stats.clone(),
            stop: stop.clone(),
            opening: Arc::new(opening),
        };
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run()));
        let subscriber = Subscriber {
            inbox,
            stats,
            stop,
            supervisor,
        };
        let wait = async {
            opened
                .wait_for(Opening::is_over)
                .await
                .map(|opening| opening.refused.clone())
        };
        match tokio::time::timeout(self.open_timeout, wait).await {
            Ok(Ok(None)) => Ok(subscriber),
            Ok(Ok(Some(refused))) => Err(refused),
            Ok(Err(_)) => Err(SubscribeError::Closed),
            Err(_) => {
                let last = opened.borrow().problem.clone();
                Err(SubscribeError::TimedOut {
                    waited: self.open_timeout,
                    last,
                })
            }
        }
    }
}
