//! What brokers said is on their disks, and when to ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::execute;
use super::model::{EntryKey, Held};
use crate::operator::metrics::Metrics;
use crate::operator::pressure::LinkState;

/// How often a broker that is being emptied is asked.
const OFTEN: Duration = Duration::from_millis(400);
/// How often a broker with sealed entries is asked, since retention empties them.
const SELDOM: Duration = Duration::from_secs(20);

/// One broker's answer.
#[derive(Clone, Debug)]
struct Disk {
    connection: u64,
    cordoned: bool,
    held: BTreeMap<EntryKey, Held>,
    at: Instant,
    stale: bool,
}

/// What brokers said is on their disks.
#[derive(Debug, Default)]
pub struct Disks(BTreeMap<String, Disk>);

impl Disks {
    /// What this broker said in this connection; `None`: nothing yet.
    pub fn held(&self, broker: &str, connection: u64) -> Option<&BTreeMap<EntryKey, Held>> {
        let disk = self.0.get(broker)?;
        (disk.connection == connection).then_some(&disk.held)
    }

    /// Something changed there: ask again.
    pub fn stale(&mut self, broker: &str) {
        if let Some(disk) = self.0.get_mut(broker) {
            disk.stale = true;
        }
    }

    /// Something changed everywhere: ask all again.
    pub fn all_stale(&mut self) {
        for disk in self.0.values_mut() {
            disk.stale = true;
        }
    }

    /// Asks the brokers whose answer is missing, stale or too old. `sealed`: those with sealed entries.
    pub async fn refresh(
        &mut self,
        links: &BTreeMap<String, LinkState>,
        leaving: Option<&str>,
        sealed: &BTreeSet<String>,
        metrics: &Metrics,
    ) {
        self.0.retain(|name, _| links.contains_key(name));
        let now = Instant::now();
        let due = |name: &str, state: &LinkState| {
            let cordon = leaving == Some(name);
            let Some(disk) = self.0.get(name) else { return true };
            let age = now.duration_since(disk.at);
            disk.connection != state.connection
                || disk.cordoned != cordon
                || disk.stale
                || (cordon && age >= OFTEN)
                || (sealed.contains(name) && age >= SELDOM)
        };
        let calls = links
            .iter()
            .filter(|(name, state)| state.connected() && due(name, state))
            .filter_map(|(name, state)| Some((name.clone(), state.connection, state.client.clone()?)))
            .map(|(name, connection, mut client)| async move {
                let cordoned = leaving == Some(name.as_str());
                let answer = execute::drain(&mut client, cordoned, metrics).await;
                (name, connection, cordoned, answer)
            });
        for (name, connection, cordoned, answer) in join_all(calls).await {
            match answer {
                Ok(held) => {
                    let disk = Disk {
                        connection,
                        cordoned,
                        held,
                        at: now,
                        stale: false,
                    };
                    self.0.insert(name, disk);
                }
                Err(error) => {
                    tracing::warn!(broker = name, error, "the broker did not say what it holds");
                    self.0.remove(&name);
                }
            }
        }
    }
}
