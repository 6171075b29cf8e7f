//! Events about the custom resources: the same one not twice in 30 minutes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use parking_lot::Mutex;

/// For how long an event is not repeated.
const QUIET: Duration = Duration::from_secs(30 * 60);
/// The API's limit on an event's text.
const NOTE_BYTES: usize = 1000;

type Key = (Option<String>, &'static str, String);

/// Tells people what happened. Shared by all loops, since what was said before is kept here.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    said: Arc<Mutex<HashMap<Key, Instant>>>,
}

impl Events {
    /// Events by this operator.
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter {
            controller: "sluice-operator".to_owned(),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            said: Arc::default(),
        }
    }

    /// Something went as it should.
    pub async fn normal(&self, about: &ObjectReference, reason: &'static str, note: &str) {
        self.publish(EventType::Normal, about, reason, note).await;
    }

    /// Something needs a person.
    pub async fn warning(&self, about: &ObjectReference, reason: &'static str, note: &str) {
        self.publish(EventType::Warning, about, reason, note).await;
    }

    async fn publish(&self, type_: EventType, about: &ObjectReference, reason: &'static str, note: &str) {
        if !self.is_new((about.uid.clone(), reason, note.to_owned()), Instant::now()) {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shorten(note)),
            action: reason.to_owned(),
            secondary: None,
        };
        let published =
            tokio::time::timeout(Duration::from_secs(5), self.recorder.publish(&event, about)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::warn!(reason, ?published, "an event was not published");
        }
    }

    fn is_new(&self, key: Key, now: Instant) -> bool {
        let mut said = self.said.lock();
        said.retain(|_, at| now.duration_since(*at) < QUIET);
        let new = !said.contains_key(&key);
        if new {
            said.insert(key, now);
        }
        new
    }
}

fn shorten(note: &str) -> String {
    let mut end = note.len().min(NOTE_BYTES);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}
