//! Bringing a sealed entry from another broker's disk to this one's.

use std::sync::Arc;
use std::time::Duration;

use super::moving::handoff_change;
use super::{EntryId, Store};
use crate::broker::clock::now_millis;
use crate::broker::log::frame;
use crate::broker::partition::entry::{Entry, EntryState, Phase};
use crate::broker::partition::ops::{Change, EntryOp};
use crate::pb;

/// A copy that this process works on.
#[derive(Debug, Default)]
pub(super) struct Copying {
    from: String,
    running: bool,
    problem: String,
}

/// Bytes that are asked for at a time: all that a copy has in memory.
const CHUNK: u64 = 1 << 20;

impl Store {
    /// Starts copying a sealed entry from another broker, or says how far it is. One interrupted by a restart goes
    /// on where it was.
    ///
    /// # Errors
    /// The request contradicts what is here.
    pub async fn copy(&self, request: &pb::CopyRequest) -> Result<pb::CopyResponse, String> {
        let id = EntryId::from_wire(request.entry.as_ref().ok_or("the request names no entry")?);
        let sealed_at = request.sealed_at;
        let entry = self
            .registry
            .insert(&id, EntryState::new(Phase::Copying { sealed_at }, false));
        let (phase, next, start, bytes) = {
            let state = entry.state();
            (state.phase, state.committed, state.start, state.index.bytes())
        };
        let done = match phase {
            Phase::Sealed if next == sealed_at => true,
            Phase::Copying { sealed_at: known } if known == sealed_at => false,
            _ => {
                return Err(format!(
                    "epoch {} is here as {phase:?} with {next} positions; a copy of {sealed_at} contradicts that",
                    id.epoch
                ));
            }
        };
        let mut problem = String::new();
        if !done {
            let mut copies = self.copies.lock();
            let copying = copies.entry(id.clone()).or_default();
            copying.from.clone_from(&request.from_control_address);
            problem.clone_from(&copying.problem);
            if let (false, Ok(runtime)) = (copying.running, tokio::runtime::Handle::try_current()) {
                copying.running = true;
                let store = self.me.clone();
                runtime.spawn(async move { run(store, entry, sealed_at).await });
            }
        }
        Ok(pb::CopyResponse {
            done,
            copied_positions: next.saturating_sub(start),
            copied_bytes: bytes,
            problem,
        })
    }

    /// Nothing more is copied to this entry.
    pub(super) fn stop_copy(&self, id: &EntryId) {
        self.copies.lock().remove(id);
    }

    /// One step. True when the copy is whole.
    ///
    /// # Errors
    /// The source does not bring what it should, or the log failed.
    pub(crate) async fn copy_step(
        &self,
        entry: &Arc<Entry>,
        sealed_at: u64,
        from: &str,
    ) -> Result<bool, String> {
        let peers = self.peers()?;
        let (next, start, begun) = {
            let state = entry.state();
            (
                state.next,
                state.start,
                state.index.first().is_some() || state.next > 0,
            )
        };
        let request = pb::ReadRequest {
            entry: Some(entry.id.to_wire()),
            position: next,
            max_bytes: CHUNK,
            since: None,
        };
        let response = peers.read(from, request).await?;
        if !response.sealed || response.end_position != sealed_at {
            return Err(format!(
                "the source has {} positions, sealed: {}; {sealed_at} sealed ones are expected",
                response.end_position, response.sealed
            ));
        }
        if !begun && start == 0 {
            self.change(entry, Change::Copying(response.start_position))
                .await?;
        }
        if response.start_position > next {
            self.change(entry, Change::Trim(response.start_position)).await?;
        }
        let mut expected = next.max(response.start_position);
        let mut batches = Vec::new();
        for raw in &response.batches {
            let records = frame::split(raw).map_err(|_| "a batch came damaged".to_owned())?;
            for (header, payload) in records.into_iter().filter(|(h, _)| h.meta.kind.is_batch()) {
                let meta = header.meta;
                let end = meta.base + u64::from(meta.count);
                if meta.base > expected || end > sealed_at {
                    return Err(format!(
                        "positions {expected} to {} are missing at the source",
                        meta.base
                    ));
                }
                expected = expected.max(end);
                batches.push((meta.base, meta.count, meta.timestamp, payload));
            }
        }
        if !batches.is_empty() {
            self.change(entry, Change::Copied(batches)).await?;
        } else if expected < sealed_at {
            return Err(format!(
                "the source brings nothing at position {expected} of {sealed_at}"
            ));
        }
        if expected < sealed_at {
            return Ok(false);
        }
        let request = pb::HandoffRequest {
            entry: Some(entry.id.to_wire()),
        };
        let handoff = peers.handoff(from, request).await?;
        self.change(entry, handoff_change(handoff, now_millis())).await?;
        self.change(entry, Change::CopyDone).await?;
        Ok(true)
    }

    async fn change(&self, entry: &Arc<Entry>, change: Change) -> Result<u64, String> {
        let (op, answer) = EntryOp::new(entry, change);
        self.journal.submit(op);
        answer
            .await
            .map_err(|_| "the broker stopped".to_owned())?
            .map_err(|e| e.to_string())
    }
}

async fn run(store: std::sync::Weak<Store>, entry: Arc<Entry>, sealed_at: u64) {
    let mut wait = Duration::from_millis(50);
    loop {
        let Some(store) = store.upgrade() else { return };
        let from = store
            .copies
            .lock()
            .get(&entry.id)
            .map(|copying| copying.from.clone());
        let Some(from) = from.filter(|_| !store.is_closed()) else {
            return;
        };
        match store.copy_step(&entry, sealed_at, &from).await {
            Ok(true) => {
                store.copies.lock().remove(&entry.id);
                tracing::info!(id = ?entry.id, sealed_at, from, "copied an entry");
                return;
            }
            Ok(false) => wait = Duration::from_millis(50),
            Err(problem) => {
                tracing::warn!(id = ?entry.id, from, problem, "a copy does not go on");
                if let Some(copying) = store.copies.lock().get_mut(&entry.id) {
                    copying.problem = problem;
                }
                drop(store);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    }
}
