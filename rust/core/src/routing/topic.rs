//! Topics: what an envelope is matched by.

use std::hash::Hash;

/// A borrowed topic. An event makes its topics without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicRef<'a> {
    /// All events of one home.
    Home { project: u64, home: u64 },
    /// The events of one device in one home. A device that moves has another topic, so old subscribers no
    /// longer match.
    Device {
        project: u64,
        home: u64,
        device: u64,
    },
    /// The commands to one device.
    Command { project: u64, device: u64 },
    /// The events of one entity in one home.
    Entity {
        project: u64,
        home: u64,
        entity: &'a str,
    },
    /// A deactivated home. No event has this topic; on activation it finds the connections to subscribe
    /// again.
    DeactivatedHome { project: u64, home: u64 },
}

/// The approximate memory of a topic with a subscriber: its record, its place in the tables and the links
/// to an audience.
const TOPIC_BYTES: usize = 200;
/// The additional memory of an entity name beside its bytes. A connection stores the name once more for
/// future homes.
const NAME_BYTES: usize = 100;

/// The approximate memory of a topic, with a name of this length or without one.
pub fn topic_bytes(name: Option<usize>) -> usize {
    TOPIC_BYTES + name.map_or(0, |length| NAME_BYTES + 2 * length)
}

/// An owned topic. It has 32 bytes: entity names are boxed, because most topics are two or three integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    Home {
        project: u64,
        home: u64,
    },
    Device {
        project: u64,
        home: u64,
        device: u64,
    },
    Command {
        project: u64,
        device: u64,
    },
    Entity(Box<EntityTopic>),
    DeactivatedHome {
        project: u64,
        home: u64,
    },
}

/// The owned form of [`TopicRef::Entity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTopic {
    pub project: u64,
    pub home: u64,
    pub entity: Box<str>,
}

impl Topic {
    /// The project of the topic.
    pub fn project(&self) -> u64 {
        match *self {
            Self::Home { project, .. }
            | Self::Device { project, .. }
            | Self::Command { project, .. }
            | Self::DeactivatedHome { project, .. } => project,
            Self::Entity(ref topic) => topic.project,
        }
    }

    /// The home of the topic; commands have none.
    pub fn home(&self) -> Option<u64> {
        match *self {
            Self::Home { home, .. }
            | Self::Device { home, .. }
            | Self::DeactivatedHome { home, .. } => Some(home),
            Self::Command { .. } => None,
            Self::Entity(ref topic) => Some(topic.home),
        }
    }

    /// The id that selects the shard of the topic's events: a home, or the device of a command.
    pub fn shard_key(&self) -> u64 {
        match *self {
            Self::Home { home, .. }
            | Self::Device { home, .. }
            | Self::DeactivatedHome { home, .. } => home,
            Self::Command { device, .. } => device,
            Self::Entity(ref topic) => topic.home,
        }
    }

    /// The approximate memory of the topic.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Entity(topic) => topic_bytes(Some(topic.entity.len())),
            _ => topic_bytes(None),
        }
    }

    /// The borrowed form, by which topics are hashed and compared.
    pub fn as_ref(&self) -> TopicRef<'_> {
        match *self {
            Self::Home { project, home } => TopicRef::Home { project, home },
            Self::Device {
                project,
                home,
                device,
            } => TopicRef::Device {
                project,
                home,
                device,
            },
            Self::Command { project, device } => TopicRef::Command { project, device },
            Self::Entity(ref topic) => TopicRef::Entity {
                project: topic.project,
                home: topic.home,
                entity: &topic.entity,
            },
            Self::DeactivatedHome { project, home } => TopicRef::DeactivatedHome { project, home },
        }
    }
}

impl From<TopicRef<'_>> for Topic {
    fn from(topic: TopicRef<'_>) -> Self {
        match topic {
            TopicRef::Home { project, home } => Self::Home { project, home },
            TopicRef::Device {
                project,
                home,
                device,
            } => Self::Device {
                project,
                home,
                device,
            },
            TopicRef::Command { project, device } => Self::Command { project, device },
            TopicRef::Entity {
                project,
                home,
                entity,
            } => Self::Entity(Box::new(EntityTopic {
                project,
                home,
                entity: entity.into(),
            })),
            TopicRef::DeactivatedHome { project, home } => Self::DeactivatedHome { project, home },
        }
    }
}
