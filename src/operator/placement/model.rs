//! What placement is planned on.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::topic_status::PartitionStatus;

/// One entry of one partition's chain, by the topic's uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// The MessageTopic's uid.
    pub topic_uid: String,
    /// The partition's index.
    pub partition: u32,
    /// The entry's epoch.
    pub epoch: u64,
}

/// An entry on a broker's disk, as the broker says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The topic's name.
    pub topic: String,
    /// It takes no appends any more.
    pub sealed: bool,
    /// Positions in it so far.
    pub positions: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Positions before this one are gone by retention.
    pub start: u64,
}

/// One broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Broker {
    /// Its name.
    pub name: String,
    /// Its ordinal.
    pub ordinal: u32,
    /// It is ready, connected, and has taken the configuration of this term: it may be asked anything.
    pub serving: bool,
    /// It has taken the newest configuration.
    pub current: bool,
    /// It may get partitions: it is to stay.
    pub stays: bool,
    /// It is the one that is being emptied now.
    pub leaving: bool,
    /// What is on its disk; `None`: it did not say.
    pub held: Option<BTreeMap<EntryKey, Held>>,
    /// Partitions that should be open there and cannot take appends yet: topic name and index.
    pub problems: BTreeSet<(String, u32)>,
    /// Those of them that have lasted for so long that people should know.
    pub lasting_problems: BTreeSet<(String, u32)>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// How many partitions it should have.
    pub wanted: u32,
    /// Where its partitions live.
    pub partitions: Vec<PartitionStatus>,
}

/// Everything that placement looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Every broker that there is.
    pub brokers: Vec<Broker>,
    /// Every topic of the cluster that could be read, by uid.
    pub topics: Vec<Topic>,
    /// Uids of topics that exist and could not be read: nothing of theirs is touched.
    pub unreadable: BTreeSet<String>,
    /// Partitions without an owner wait until every broker that stays serves.
    pub patient: bool,
    /// Nothing may move; what a person paused stays where it is.
    pub frozen: bool,
    /// Publishers are not held back: data may be copied for evenness.
    pub quiet: bool,
}

impl Model {
    /// The broker of this name.
    pub fn broker(&self, name: &str) -> Option<&Broker> {
        self.brokers.iter().find(|broker| broker.name == name)
    }

    /// Whether this broker may be asked anything now.
    pub fn serves(&self, name: &str) -> bool {
        self.broker(name).is_some_and(|broker| broker.serving)
    }

    /// The topic of this uid.
    pub fn topic(&self, uid: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.uid == uid)
    }

    /// What the broker says of this entry.
    pub fn held(&self, broker: &str, key: &EntryKey) -> Option<&Held> {
        self.broker(broker)?.held.as_ref()?.get(key)
    }
}
