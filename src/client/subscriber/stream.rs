//! One broker's stream, opened again for as long as it is wanted.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::builder::Settings;
use super::inbox::Inbox;
use super::session::{End, Session};
use super::supervisor::{Opening, refuse};
use super::{Counters, add};
use crate::client::Client;
use crate::client::backoff::Backoff;
use crate::client::error::SubscribeError;

pub(super) struct Stream {
    pub(super) client: Client,
    pub(super) settings: Arc<Settings>,
    /// The address that the supervisor knows it by.
    pub(super) key: Arc<str>,
    /// Tried in turn; more than one only where brokers forward.
    pub(super) addresses: Vec<Arc<str>>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: CancellationToken,
    pub(super) opening: Arc<watch::Sender<Opening>>,
}

impl Stream {
    pub(super) async fn run(self) {
        let mut backoff = Backoff::of_stream();
        let mut turn = 0;
        while !self.stop.is_cancelled() {
            let address = &self.addresses[turn % self.addresses.len()];
            let mut session = Session::new(&self, address.clone());
            let end = session.run().await;
            if session.was_welcomed() {
                backoff.reset();
            }
            session.close();
            match end {
                End::Stopped => return,
                End::Refused(status) => {
                    let text = status.message().to_owned();
                    let error = SubscribeError::Refused {
                        code: status.code(),
                        text,
                    };
                    return refuse(&self.opening, &self.inbox, error);
                }
                End::Lost(problem) => {
                    tracing::debug!(%address, %problem, "a subscribe stream ended");
                    add(&self.counters.reconnects, 1);
                    self.opening
                        .send_modify(|opening| opening.problem = format!("{address}: {problem}"));
                }
            }
            turn += 1;
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}
