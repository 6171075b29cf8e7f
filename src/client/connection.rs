//! The way in: a connection to a cluster, from any of its brokers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::error::ConnectError;
use super::pool::{ConnectionOptions, Pool};
use super::publisher::PublisherBuilder;
use super::subscriber::SubscriberBuilder;
use super::topology::{ClusterView, Watcher};

/// How a [`Client`] connects.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How long one connection may take to be made.
    pub connect_timeout: Duration,
    /// How often a connection is pinged; with `keepalive_timeout`, this is how soon a broker that was cut off is
    /// noticed.
    pub keepalive_interval: Duration,
    /// How long a ping may go unanswered.
    pub keepalive_timeout: Duration,
    /// How long [`Client::connect`] waits for the first topology.
    pub topology_timeout: Duration,
    /// Send everything through the given addresses and have the brokers forward it, instead of going to the
    /// owners: for where the brokers' own addresses cannot be reached, as through a port-forward.
    pub forward: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(4),
            topology_timeout: Duration::from_secs(15),
            forward: false,
        }
    }
}

/// A connection to a cluster. Clones share it; it ends when the last clone, publisher and subscriber is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) pool: Arc<Pool>,
    pub(super) bootstrap: Vec<String>,
    pub(super) view: watch::Receiver<Arc<ClusterView>>,
    pub(super) refresh: Arc<Notify>,
    pub(super) forward: bool,
    _watcher: AbortOnDropHandle<()>,
}

impl Client {
    /// Connects to a cluster through any of `addresses` (host:port), with the default options, and waits for its
    /// topology.
    ///
    /// # Errors
    /// No address, one that is none, or no broker that answers in time.
    pub async fn connect<A: Into<String>>(
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, ConnectError> {
        Self::connect_with(addresses, ClientOptions::default()).await
    }

    /// As [`Client::connect`], with these options.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with<A: Into<String>>(
        addresses: impl IntoIterator<Item = A>,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        let bootstrap: Vec<String> = addresses.into_iter().map(Into::into).collect();
        if bootstrap.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        let pool = Arc::new(Pool::new(ConnectionOptions {
            connect_timeout: options.connect_timeout,
            keepalive_interval: options.keepalive_interval,
            keepalive_timeout: options.keepalive_timeout,
        }));
        for address in &bootstrap {
            pool.check(address)?;
        }
        let (sender, mut view) = watch::channel(Arc::new(ClusterView::default()));
        let (problem, last) = watch::channel("nothing was tried yet".to_owned());
        let refresh = Arc::new(Notify::new());
        let watcher = Watcher {
            pool: pool.clone(),
            bootstrap: bootstrap.clone(),
            view: sender,
            refresh: refresh.clone(),
            problem,
        };
        let watcher = AbortOnDropHandle::new(tokio::spawn(watcher.run()));
        let first = view.wait_for(|view| **view != ClusterView::default());
        if !matches!(
            tokio::time::timeout(options.topology_timeout, first).await,
            Ok(Ok(_))
        ) {
            let last = last.borrow().clone();
            return Err(ConnectError::Unreachable {
                waited: options.topology_timeout,
                last,
            });
        }
        let forward = options.forward;
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                bootstrap,
                view,
                refresh,
                forward,
                _watcher: watcher,
            }),
        })
    }

    /// The newest topology.
    pub fn topology(&self) -> Arc<ClusterView> {
        self.inner.view.borrow().clone()
    }

    /// A publisher to `topic`, to be configured and opened.
    pub fn publisher(&self, topic: impl Into<String>) -> PublisherBuilder {
        PublisherBuilder::new(self.clone(), topic.into())
    }

    /// A member of `group` on `topic`, to be configured and opened.
    pub fn subscriber(&self, topic: impl Into<String>, group: impl Into<String>) -> SubscriberBuilder {
        SubscriberBuilder::new(self.clone(), topic.into(), group.into())
    }

    /// All addresses that may be asked: the known brokers, then where we started.
    pub(super) fn addresses(&self) -> Vec<Arc<str>> {
        let bootstrap = self
            .inner
            .bootstrap
            .iter()
            .map(|address| Arc::from(address.as_str()));
        if self.inner.forward {
            return bootstrap.collect();
        }
        let known: Vec<Arc<str>> = self.topology().brokers.values().cloned().collect();
        if known.is_empty() {
            bootstrap.collect()
        } else {
            known
        }
    }
}
