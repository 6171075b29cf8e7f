//! What the cluster looks like, four times a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::Api;
use parking_lot::Mutex;

use crate::stage::{BROKER, NAMESPACE, Stage};

const EVERY: Duration = Duration::from_millis(250);

/// One look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    /// `spec.replicas` of the StatefulSet.
    pub(crate) replicas: u32,
    /// Its Ready pods.
    pub(crate) ready: u32,
    /// What the operator has decided on.
    pub(crate) desired: u32,
}

/// Looks until it is dropped.
pub(crate) struct Watch {
    looks: Arc<Mutex<Vec<Look>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(stage: &Arc<Stage>) -> Self {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let (seen, stage) = (Arc::clone(&looks), Arc::clone(stage));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match look(&stage).await {
                    Ok(look) => seen.lock().push(look),
                    Err(error) => eprintln!("cannot look at the cluster: {error:#}"),
                }
            }
        });
        Self { looks, task }
    }

    pub(crate) fn looks(&self) -> Vec<Look> {
        self.looks.lock().clone()
    }

    /// Waits for a look of which this is true.
    pub(crate) async fn until(&self, is_so: impl Fn(&Look) -> bool) {
        while !self.looks.lock().last().is_some_and(&is_so) {
            tokio::time::sleep(EVERY / 5).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(stage: &Stage) -> Result<Look> {
    let sets: Api<StatefulSet> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let (set, broker) = tokio::join!(sets.get(BROKER), stage.broker());
    let (set, broker) = (set?, broker?);
    let number = |count: Option<i32>| count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let replicas = number(set.spec.and_then(|spec| spec.replicas));
    let decided = broker
        .status
        .and_then(|status| status.autoscaling)
        .and_then(|it| it.desired_replicas);
    Ok(Look {
        at: Instant::now(),
        replicas,
        ready: number(set.status.and_then(|status| status.ready_replicas)),
        desired: decided.unwrap_or(replicas),
    })
}
