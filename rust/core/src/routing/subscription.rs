//! What a connection subscribes to, after precedence and authorisation.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::topic::{TopicRef, topic_bytes};
use crate::connection::Principal;
use crate::connection::ids::ConnectionId;
use crate::wire::encoding::Encoding;

/// What a connection receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// All events of these homes.
    Homes(Vec<u64>),
    /// The events of these devices, each in its current home.
    Devices(Vec<DeviceInHome>),
    /// The events of these entities, in each of these homes.
    Entities {
        homes: Vec<u64>,
        entities: Vec<Box<str>>,
    },
    /// The events of these entities, each in the home that it is bound to.
    Bound(Vec<BoundEntity>),
    /// The commands to this device.
    Commands(u64),
}

/// A device, and its home when the connection was authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInHome {
    pub device: u64,
    pub home: u64,
}

/// An entity, and the home that it was bound to when the connection was authorised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundEntity {
    pub entity: Box<str>,
    pub home: u64,
}

/// A connection that has no socket yet.
#[derive(Debug)]
pub struct Reservation {
    pub id: ConnectionId,
    pub principal: Principal,
    pub subscription: Subscription,
    /// Whether the subscription changes with the homes that the user joins or leaves.
    pub follow: bool,
    /// Deactivated homes of the user. The connection receives their events once they are activated.
    pub deactivated_homes: Vec<u64>,
    pub encoding: Encoding,
    /// The client's address, for the limit on connections of one address.
    pub address: Option<IpAddr>,
}

impl Reservation {
    /// The approximate memory of the topics in bytes, as if no other connection shared them.
    pub fn topic_bytes(&self) -> usize {
        let named = |name: &str| topic_bytes(Some(name.len()));
        let asked = match &self.subscription {
            Subscription::Homes(homes) => homes.len() * topic_bytes(None),
            Subscription::Devices(devices) => devices.len() * topic_bytes(None),
            Subscription::Commands(_) => topic_bytes(None),
            Subscription::Bound(bound) => bound.iter().map(|it| named(&it.entity)).sum(),
            // Without a home, only the names are counted.
            Subscription::Entities { homes, entities } => {
                homes.len().max(1) * entities.iter().map(|it| named(it)).sum::<usize>()
            }
        };
        asked + self.deactivated_homes.len() * topic_bytes(None)
    }
}

/// The entities whose events a connection receives in every home of its user.
#[derive(Debug)]
pub struct FollowedEntities(pub Vec<Box<str>>);

/// Whether further homes can change the subscription, and the entities to receive in them (`None`: all
/// events).
pub fn followed(subscription: Subscription) -> (bool, Option<Box<FollowedEntities>>) {
    match subscription {
        Subscription::Homes(_) => (true, None),
        Subscription::Entities { entities, .. } => {
            (true, Some(Box::new(FollowedEntities(entities))))
        }
        Subscription::Devices(_) | Subscription::Bound(_) | Subscription::Commands(_) => {
            (false, None)
        }
    }
}

/// The topics of a subscription, in its project.
pub fn subscription_topics(
    project: u64,
    subscription: &Subscription,
) -> SmallVec<[TopicRef<'_>; 4]> {
    match subscription {
        Subscription::Homes(homes) => homes
            .iter()
            .map(|&home| TopicRef::Home { project, home })
            .collect(),
        Subscription::Devices(devices) => devices
            .iter()
            .map(|&DeviceInHome { device, home }| TopicRef::Device {
                project,
                home,
                device,
            })
            .collect(),
        Subscription::Bound(entities) => entities
            .iter()
            .map(|BoundEntity { entity, home }| TopicRef::Entity {
                project,
                home: *home,
                entity,
            })
            .collect(),
        Subscription::Commands(device) => SmallVec::from_iter([TopicRef::Command {
            project,
            device: *device,
        }]),
        Subscription::Entities { homes, entities } => homes
            .iter()
            .flat_map(|&home| {
                entities.iter().map(move |entity| TopicRef::Entity {
                    project,
                    home,
                    entity,
                })
            })
            .collect(),
    }
}
