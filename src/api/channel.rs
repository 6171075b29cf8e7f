//! The bounded channel between the network and the log.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationString, InvalidField, schema};

/// The channel of each broker, and how its capacity follows the load.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule_at(
        "min",
        "self.min <= self.max",
        "channel.min must not exceed channel.max; lower min or raise max"
    ),
    schema::rule_at(
        "capacity",
        "self.mode == 'Fixed' || self.min > self.max || self.capacity >= self.min && self.capacity <= self.max",
        "channel.capacity must lie within channel.min and channel.max while channel.mode is Auto"
    ),
]))]
pub struct Channel {
    /// Whether the operator changes the capacity.
    pub mode: ChannelMode,
    /// Messages that fit: at the start, or always if `mode` is `Fixed`.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub capacity: u32,
    /// The smallest capacity that `Auto` chooses.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub min: u32,
    /// The largest capacity that `Auto` chooses.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max: u32,
    /// How long a message may wait in the channel.
    #[schemars(extend("x-kubernetes-validations" = schema::duration_between("channel.targetQueueDelay", "1ms", "1m")))]
    pub target_queue_delay: DurationString,
    /// How long a burst is that the channel should take without holding publishers back.
    #[schemars(extend("x-kubernetes-validations" = schema::duration_between("channel.burstWindow", "10ms", "5m")))]
    pub burst_window: DurationString,
    /// How far one step may change the capacity, in percent of what it is.
    #[schemars(range(min = 1, max = 100))]
    pub max_change_percent: u32,
}

impl Channel {
    /// `targetQueueDelay`.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn target_queue_delay(&self) -> Result<Duration, InvalidField> {
        self.target_queue_delay.parse("spec.channel.targetQueueDelay")
    }

    /// `burstWindow`.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn burst_window(&self) -> Result<Duration, InvalidField> {
        self.burst_window.parse("spec.channel.burstWindow")
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            mode: ChannelMode::default(),
            capacity: 128,
            min: 64,
            max: 65_536,
            target_queue_delay: "100ms".into(),
            burst_window: "2s".into(),
            max_change_percent: 50,
        }
    }
}

/// Whether the operator changes the capacity of the channel.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelMode {
    /// It follows the load, live.
    #[default]
    Auto,
    /// It stays at `capacity`.
    Fixed,
}
