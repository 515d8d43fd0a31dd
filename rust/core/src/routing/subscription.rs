//! What a connection subscribes to, after precedence and authorisation.

use std::net::IpAddr;

use super::topic::{TopicRef, topic_bytes};
use crate::connection::Principal;
use crate::connection::ids::ConnectionId;
use crate::wire::encoding::Encoding;

/// What a connection receives, in the project of its principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub topics: Vec<SubscribedTopic>,
    /// What the connection also receives in homes that the user joins later.
    pub follows: Option<Follows>,
    /// Deactivated homes of the user. The connection receives their events once they are activated.
    pub deactivated_homes: Vec<u64>,
    pub encoding: Encoding,
}

/// A topic of the principal's project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscribedTopic {
    /// All events of a home.
    Home { home: u64 },
    /// The events of a device in the home where it was when the connection was authorised.
    Device { device: u64, home: u64 },
    /// The events of an entity in a home.
    Entity { entity: Box<str>, home: u64 },
    /// The commands to a device.
    Command { device: u64 },
}

/// What changes with the memberships of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follows {
    /// All events of each home of the user.
    Homes,
    /// The events of these entities in each home of the user.
    Entities(Box<FollowedEntities>),
}

/// Names of entities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedEntities(pub Vec<Box<str>>);

/// A connection that has no socket yet.
#[derive(Debug)]
pub struct Reservation {
    pub id: ConnectionId,
    pub principal: Principal,
    pub subscription: Subscription,
    /// The client's address, for the limit on connections of one address.
    pub address: Option<IpAddr>,
}

impl Subscription {
    /// These topics as messages of a WebSocket, whatever memberships change.
    pub fn of(topics: Vec<SubscribedTopic>) -> Self {
        Self {
            topics,
            follows: None,
            deactivated_homes: Vec::new(),
            encoding: Encoding::WEB_SOCKET,
        }
    }

    /// The topics, those of deactivated homes included.
    pub fn topics(&self, project: u64) -> impl Iterator<Item = TopicRef<'_>> {
        let waiting = self
            .deactivated_homes
            .iter()
            .map(move |&home| TopicRef::DeactivatedHome { project, home });
        let topics = self.topics.iter().map(move |it| it.in_project(project));
        topics.chain(waiting)
    }

    /// The approximate memory of the topics in bytes, as if no other connection shared them.
    pub fn topic_bytes(&self) -> usize {
        let waiting = self.deactivated_homes.len() * topic_bytes(None);
        let topics: usize = match &self.follows {
            // Without a home, only the names are counted.
            Some(Follows::Entities(entities)) if self.topics.is_empty() => entities
                .0
                .iter()
                .map(|it| topic_bytes(Some(it.len())))
                .sum(),
            _ => self.topics.iter().map(SubscribedTopic::bytes).sum(),
        };
        topics + waiting
    }
}

impl SubscribedTopic {
    fn in_project(&self, project: u64) -> TopicRef<'_> {
        match *self {
            Self::Home { home } => TopicRef::Home { project, home },
            Self::Device { device, home } => TopicRef::Device {
                project,
                home,
                device,
            },
            Self::Entity { ref entity, home } => TopicRef::Entity {
                project,
                home,
                entity,
            },
            Self::Command { device } => TopicRef::Command { project, device },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Entity { entity, .. } => topic_bytes(Some(entity.len())),
            Self::Home { .. } | Self::Device { .. } | Self::Command { .. } => topic_bytes(None),
        }
    }
}
