//! Builders of control records, and of the events around them.

use homewire_core::bus::envelope::{ControlHeader, EventHeader};
use homewire_core::connection::ids::ConnectionId;
use homewire_core::reactor::inbox::ShardEntry;
use homewire_core::routing::subscription::{
    FollowedEntities, Follows, SubscribedTopic, Subscription,
};
use homewire_core::wire::transport::MessageKind;

use crate::client::{Client, Received};
use crate::harness::{Node, PROJECT, SHARDS, copy, devices_in, entry};

pub const MEMBER_ADDED: u64 = 1;
pub const MEMBER_REMOVED: u64 = 2;
pub const USER_DELETED: u64 = 3;
pub const KEY_ENDED: u64 = 4;
pub const DEVICE_DELETED: u64 = 5;
pub const DEVICE_MOVED: u64 = 6;
pub const HOME_DELETED: u64 = 7;
pub const PROJECT_DISABLED: u64 = 8;
pub const PROJECT_DELETED: u64 = 9;
pub const PROJECT_ENABLED: u64 = 10;
pub const PERMISSION_ENDED: u64 = 11;
pub const ENTITY_MOVED: u64 = 12;
pub const HOME_DEACTIVATED: u64 = 13;
pub const HOME_ACTIVATED: u64 = 14;
pub const MEMBER_WAITS: u64 = 15;

/// Outbox positions count from here, in milliseconds since 1970: later than any connection of a test.
pub const LATER: u64 = 1 << 50;

/// A record of this type at this moment in the project's outbox.
pub fn record(record_type: u64, moment: u64) -> ControlHeader<'static> {
    ControlHeader {
        project: PROJECT,
        record_type,
        outbox_ms: LATER + moment,
        ..ControlHeader::default()
    }
}

pub fn member(record_type: u64, moment: u64, user: u64, home: u64) -> ControlHeader<'static> {
    ControlHeader {
        user,
        home,
        ..record(record_type, moment)
    }
}

/// A record about a home.
pub fn of_home(record_type: u64, moment: u64, home: u64) -> ControlHeader<'static> {
    member(record_type, moment, 0, home)
}

pub fn entity_in(home: u64, entity: &str) -> SubscribedTopic {
    SubscribedTopic::Entity {
        entity: entity.into(),
        home,
    }
}

/// Entities in each of these homes, and in those that the user joins.
pub fn entities(homes: &[u64], names: &[&str]) -> Subscription {
    let each_home = |&home: &u64| names.iter().map(move |&entity| entity_in(home, entity));
    let names = names.iter().map(|&it| it.into()).collect();
    Subscription {
        follows: Some(Follows::Entities(Box::new(FollowedEntities(names)))),
        ..Subscription::of(homes.iter().flat_map(each_home).collect())
    }
}

pub fn device_in(home: u64, device: u64) -> Subscription {
    devices_in(&[(home, device)])
}

pub fn device_event(home: u64, device: u64, name: &str) -> ShardEntry {
    entry(&EventHeader {
        project: PROJECT,
        home,
        device,
        event_type: name,
        ..EventHeader::default()
    })
}

pub fn entity_event(home: u64, entity: &str, name: &str) -> ShardEntry {
    entry(&EventHeader {
        project: PROJECT,
        home,
        entity: Some(entity),
        event_type: name,
        ..EventHeader::default()
    })
}

/// Routes all entries in one batch.
pub fn route_all(node: &Node, entries: impl IntoIterator<Item = ShardEntry>) {
    assert!(node.core.route(Vec::from_iter(entries)));
}

/// What a client receives before a message that is sent to it now.
pub fn received_so_far(node: &Node, id: ConnectionId, client: &mut Client) -> Vec<Received> {
    node.core.send(id, MessageKind::Text, b"so far".to_vec());
    client.receive_until(&Received::Text("so far".to_owned()))
}

pub fn events(names: &[&str]) -> Vec<Received> {
    names.iter().map(|name| Received::event(name)).collect()
}

/// The copies of a record in all shards.
pub fn everywhere(record: &ControlHeader<'_>) -> Vec<ShardEntry> {
    (1..=u64::from(SHARDS))
        .map(|shard_key| copy(shard_key, record))
        .collect()
}
