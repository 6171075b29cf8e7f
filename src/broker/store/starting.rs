//! Where a group starts that has no progress in a partition.

use std::time::SystemTime;

use super::{EntryId, Offset, Store};
use crate::broker::group::Start;
use crate::broker::partition::entry::Phase;
use crate::broker::partition::index::Part;
use crate::broker::partition::{Link, Partition, Span};
use crate::pb;

/// What an entry has of a time and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since {
    /// The first position appended then or later; `None`: there is none.
    position: Option<u64>,
    /// Something in it is older.
    has_older: bool,
}

/// Milliseconds since 1970, as the journal keeps them: whole ones, rounded down.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Store {
    /// Where a group starts, as far as this broker knows it; `None` for a time that another broker has to be asked
    /// for, by [`Store::find_start`]. Never behind the end.
    pub(crate) fn start_offset(&self, partition: &Partition, start: Start) -> Option<Offset> {
        let spans = partition.spans(&self.registry);
        let end = spans.last().map_or(0, |span| span.end);
        match start {
            Start::Earliest => Some(Offset(spans.first().map_or(0, |span| span.start))),
            Start::Latest => Some(Offset(end)),
            Start::Offset(offset) => Some(Offset(offset.0.min(end))),
            Start::Time(time) => {
                let mut search = Search::new(end);
                for span in spans.iter().rev() {
                    let since = self.since(&partition.entry_id(Offset(span.start).epoch()), millis(time))?;
                    if search.look(*span, since) {
                        break;
                    }
                }
                Some(search.found)
            }
        }
    }

    /// The first offset appended at this time or later, in whatever broker's entry it is; the end where there is none.
    ///
    /// # Errors
    /// A broker that holds an entry cannot be asked now.
    pub(crate) async fn find_start(&self, partition: &Partition, time: SystemTime) -> Result<Offset, String> {
        let spans = partition.spans(&self.registry);
        let mut search = Search::new(spans.last().map_or(0, |span| span.end));
        for span in spans.into_iter().rev().filter(|span| span.start < span.end) {
            let id = partition.entry_id(Offset(span.start).epoch());
            let since = match self.since(&id, millis(time)) {
                Some(since) => since,
                None => self.since_elsewhere(partition, &id, time).await?,
            };
            if search.look(span, since) {
                break;
            }
        }
        Ok(search.found)
    }

    /// What an entry on this disk has of a time and later; `None` if it is not (wholly) here.
    fn since(&self, id: &EntryId, millis: u64) -> Option<Since> {
        let entry = self.registry.get(id)?;
        let (part, start, has_older) = {
            let state = entry.state();
            if matches!(state.phase, Phase::Copying { .. }) {
                return None;
            }
            let first = state.index.first();
            let has_older = first.is_some_and(|first| first.first() < millis);
            (state.index.since(millis), state.start, has_older)
        };
        let position = part.map(|part| self.since_in(entry.number, &part, millis).max(start));
        Some(Since { position, has_older })
    }

    /// The first position of a part whose record has this time or a later one: exact to the batch. A part of a finished
    /// segment is looked up in that segment's index, a small read.
    fn since_in(&self, entry: u32, part: &Part, millis: u64) -> u64 {
        match part {
            Part::Run(run) if run.first < millis => match self.journal.pieces(entry, run) {
                Ok(pieces) => {
                    let index = pieces.partition_point(|piece| piece.timestamp < millis);
                    pieces.get(index).map_or(run.base, |piece| piece.base)
                }
                Err(error) => {
                    tracing::warn!(%error, "an index cannot be read: a start by time begins too early");
                    run.base
                }
            },
            part => part.base(),
        }
    }

    async fn since_elsewhere(
        &self,
        partition: &Partition,
        id: &EntryId,
        time: SystemTime,
    ) -> Result<Since, String> {
        let link: Option<Link> = partition
            .view()
            .sealed
            .iter()
            .find(|link| link.epoch == id.epoch)
            .cloned();
        let peers = self.peers()?;
        let mut problem = format!("no broker holds epoch {}", id.epoch);
        for broker in link.iter().flat_map(|link| &link.brokers) {
            let request = pb::ReadRequest {
                entry: Some(id.to_wire()),
                since: Some(time.into()),
                ..pb::ReadRequest::default()
            };
            let answer = match self.control_address(broker) {
                Ok(address) => peers.read(&address, request).await,
                Err(why) => Err(why),
            };
            match answer {
                Ok(answer) => {
                    return Ok(Since {
                        position: (answer.next_position < answer.end_position)
                            .then_some(answer.next_position),
                        has_older: answer.next_position > answer.start_position,
                    });
                }
                Err(why) => problem = format!("broker {broker}, which holds epoch {}: {why}", id.epoch),
            }
        }
        Err(problem)
    }

    /// Answers another broker: batches from a position on, or where a time begins.
    ///
    /// # Errors
    /// The entry is not here, or cannot be read; the time is none.
    pub async fn answer_read(&self, request: pb::ReadRequest) -> Result<pb::ReadResponse, String> {
        let id = EntryId::from_wire(&request.entry.ok_or("the entry is missing")?);
        let Some(since) = request.since else {
            return self.read_batches(&id, request.position, request.max_bytes).await;
        };
        let time = SystemTime::try_from(since).map_err(|_| "since is no time")?;
        let entry = self.entry(&id)?;
        let since = self
            .since(&id, millis(time))
            .ok_or("the entry is not here as a whole")?;
        let state = entry.state();
        Ok(pb::ReadResponse {
            batches: Vec::new(),
            next_position: since.position.unwrap_or(state.committed),
            end_position: state.committed,
            sealed: state.is_sealed(),
            start_position: state.start,
        })
    }
}

/// Backwards through a partition's entries, up to the first one that has something older.
struct Search {
    found: Offset,
}

impl Search {
    fn new(end: u64) -> Self {
        Self { found: Offset(end) }
    }

    /// Takes an entry in. Returns whether those before it need not be looked at.
    fn look(&mut self, span: Span, since: Since) -> bool {
        if let Some(position) = since.position {
            let offset = Offset::new(Offset(span.start).epoch(), position);
            self.found = Offset(offset.0.clamp(span.start, span.end));
        }
        since.has_older
    }
}
