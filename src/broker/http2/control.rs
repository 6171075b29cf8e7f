//! Pings, settings and frames without content: each asks for an answer or for a look, and nobody needs many of them.

use std::time::{Duration, Instant};

use super::fault::Fault;
use super::frame::Frame;

/// So many frames that only keep the connection busy, with nothing else between them and within [`CONTROL_TIME`],
/// close it.
const MOST_CONTROL: u32 = 1000;
const CONTROL_TIME: Duration = Duration::from_secs(10);

/// Counts them on one connection.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// In a row.
    count: u32,
    since: Option<Instant>,
}

impl Control {
    /// Counts a frame.
    ///
    /// # Errors
    /// That was one too many.
    pub(super) fn count(&mut self, frame: &Frame) -> Result<(), Fault> {
        let is_control = match frame {
            Frame::Data { flow: 0, is_last, .. } => !is_last,
            Frame::Continuation { block, .. } => block.is_empty(),
            Frame::Ping(_) | Frame::Settings { .. } | Frame::Other => true,
            Frame::Pong(_) | Frame::SettingsAck => return Ok(()),
            _ => false,
        };
        if !is_control {
            self.count = 0;
            return Ok(());
        }
        if self.count == 0 {
            self.since = None;
        }
        self.count += 1;
        if self.count < MOST_CONTROL {
            return Ok(());
        }
        // Only whoever sends that many is worth a look at the clock.
        let now = Instant::now();
        match self.since {
            Some(since) if now.duration_since(since) < CONTROL_TIME => Err(Fault::Flood),
            _ => {
                self.since = Some(now);
                self.count = 1;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn is_a_flood(frames: &[Frame]) -> bool {
        let mut control = Control::default();
        let mut many = frames.iter().cycle().take(3 * MOST_CONTROL as usize);
        many.any(|frame| control.count(frame).is_err())
    }

    #[test]
    fn frames_that_carry_nothing_are_a_flood_and_beside_messages_they_are_none() {
        let data = |size: usize, is_last| Frame::Data {
            stream: 1,
            data: Bytes::from(vec![0; size]),
            flow: size as u32,
            is_last,
        };
        let empty = Frame::Continuation {
            stream: 1,
            block: Bytes::new(),
            is_whole: false,
        };
        let settings = Frame::Settings { initial_window: None };
        let ping = Frame::Ping([0; 8]);
        for flood in [&ping, &settings, &Frame::Other, &empty, &data(0, false)] {
            assert!(is_a_flood(std::slice::from_ref(flood)), "{flood:?}");
            assert!(!is_a_flood(&[flood.clone(), data(1, false)]), "{flood:?}");
        }
        assert!(!is_a_flood(&[Frame::Pong([0; 8])]));
        assert!(!is_a_flood(&[data(0, true)]));
        let window = Frame::Window { stream: 0, by: 1 };
        assert!(!is_a_flood(&[ping, window]), "who reads much pings much");
    }
}
