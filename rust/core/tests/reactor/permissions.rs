//! Control records about permissions to read, and about entities that were bound to another home.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::reactor::inbox::ShardEntry;
use homewire_core::routing::subscription::Subscription;

use crate::client::Received;
use crate::harness::{Node, copy, event, homes, limits, user};
use crate::records::{
    ENTITY_MOVED, HOME_DELETED, PERMISSION_ENDED, device_event, device_in, entities, entity_event,
    entity_in, events, everywhere, received_so_far, record, route_all,
};

/// What may be read, each in a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    Home(u64),
    Device(u64, u64),
    Entity(u64, &'static str),
}

/// One of each kind in home 1, and others that differ in one member.
pub const PERMISSIONS: [Permission; 7] = [
    Permission::Home(1),
    Permission::Device(1, 7),
    Permission::Entity(1, "lamp"),
    Permission::Home(2),
    Permission::Device(2, 8),
    Permission::Device(1, 8),
    Permission::Entity(1, "door"),
];

impl Permission {
    pub fn home(self) -> u64 {
        match self {
            Self::Home(home) | Self::Device(home, _) | Self::Entity(home, _) => home,
        }
    }

    pub fn subscription(self) -> Subscription {
        match self {
            Self::Home(home) => homes(&[home]),
            Self::Device(home, device) => device_in(home, device),
            Self::Entity(home, entity) => bound(&[(home, entity)]),
        }
    }

    /// An event that matches this permission and the permission to read the home.
    pub fn event(self, name: &str) -> ShardEntry {
        match self {
            Self::Home(home) => event(home, name),
            Self::Device(home, device) => device_event(home, device, name),
            Self::Entity(home, entity) => entity_event(home, entity, name),
        }
    }

    /// The record of its end, without a body.
    pub fn ended(self, moment: u64) -> ControlHeader<'static> {
        ControlHeader {
            home: self.home(),
            device: match self {
                Self::Device(_, device) => device,
                Self::Home(_) | Self::Entity(..) => 0,
            },
            ..record(PERMISSION_ENDED, moment)
        }
    }

    pub fn body(self, users: &[u64]) -> String {
        match self {
            Self::Entity(_, entity) => format!(r#"{{"entity":"{entity}","users":{users:?}}}"#),
            Self::Home(_) | Self::Device(..) => format!(r#"{{"users":{users:?}}}"#),
        }
    }
}

pub fn bound(entities: &[(u64, &str)]) -> Subscription {
    let topics = entities
        .iter()
        .map(|&(home, entity)| entity_in(home, entity));
    Subscription::of(topics.collect())
}

#[test]
fn ended_permission_removes_only_its_topic_from_its_users() {
    for ended in PERMISSIONS {
        let node = Node::start(limits());
        let subscribers = |user_id| {
            PERMISSIONS
                .map(|permission| node.connect_for(user(user_id), permission.subscription(), false))
        };
        let (mut named, mut others) = (subscribers(1), subscribers(2));
        let body = ended.body(&[3, 1]);
        let record = ControlHeader {
            body: body.as_bytes(),
            ..ended.ended(1)
        };
        node.occupy();
        route_all(
            &node,
            PERMISSIONS.map(|permission| permission.event("before")),
        );
        route_all(&node, everywhere(&record));
        route_all(
            &node,
            PERMISSIONS.map(|permission| permission.event("after")),
        );
        for (permission, (id, client)) in PERMISSIONS.into_iter().zip(&mut others) {
            let received = received_so_far(&node, *id, client);
            let twice = received.len() / 2;
            let both = [vec!["before"; twice], vec!["after"; twice]].concat();
            assert_eq!(received, events(&both), "{permission:?} of another user");
            assert!(twice > 0);
        }
        for (permission, (id, client)) in PERMISSIONS.into_iter().zip(&mut named) {
            if permission == ended {
                let received = client.receive_until(&Received::Close(Some(4500)));
                assert!(!received.is_empty());
                assert_eq!(received, events(&vec!["before"; received.len()]));
            } else {
                let received = received_so_far(&node, *id, client);
                assert_eq!(
                    received.len() % 2,
                    0,
                    "{permission:?} at the end of {ended:?}"
                );
            }
        }
        assert_eq!(node.stat("revoked"), 1);
        assert_eq!(node.stat("malformed"), 0);
    }
}

#[test]
fn connection_with_other_topic_left_stays() {
    let node = Node::start(limits());
    let (id, mut both) = node.connect_for(user(1), homes(&[1, 2]), false);
    let (lamps_id, mut lamps) =
        node.connect_for(user(1), bound(&[(1, "lamp"), (2, "door")]), false);
    let end = |permission: Permission| ControlHeader {
        body: br#"{"users":[1],"entity":"lamp"}"#,
        ..permission.ended(1)
    };
    let home = ControlHeader {
        body: br#"{"users":[1]}"#,
        ..Permission::Home(1).ended(1)
    };
    route_all(
        &node,
        [
            event(1, "one"),
            // The user's own shard is that of home 1; it does not concern home 2.
            copy(2, &home),
            copy(2, &end(Permission::Entity(1, "lamp"))),
            entity_event(1, "lamp", "lit"),
            copy(1, &home),
            copy(1, &end(Permission::Entity(1, "lamp"))),
            entity_event(1, "lamp", "never"),
            // Each is received in the home that it is bound to, and not in the other.
            entity_event(1, "door", "never"),
            entity_event(2, "lamp", "elsewhere"),
            entity_event(2, "door", "open"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut both),
        events(&["one", "lit", "elsewhere", "open"])
    );
    assert_eq!(
        received_so_far(&node, lamps_id, &mut lamps),
        events(&["lit", "open"])
    );
}

#[test]
fn ended_write_permission_removes_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), false);
    let write = ControlHeader {
        body: br#"{"users":[1]}"#,
        ..record(PERMISSION_ENDED, 1)
    };
    let nowhere = ControlHeader {
        body: br#"{"users":[1]}"#,
        ..Permission::Device(0, 7).ended(1)
    };
    route_all(&node, everywhere(&write));
    route_all(&node, everywhere(&nowhere));
    node.route(event(1, "received"));
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["received"])
    );
    assert_eq!(node.stat("malformed"), 0);
}

/// The permission may have been granted again before the reservation: the stream reader was behind.
#[test]
fn permission_end_before_reservation_requests_resubscribe() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect_for(user(1), homes(&[1, 2]), false);
    let stale = ControlHeader {
        outbox_ms: 1,
        body: br#"{"users":[1]}"#,
        ..Permission::Home(1).ended(1)
    };
    route_all(
        &node,
        [
            event(1, "before"),
            copy(1, &stale),
            event(1, "not received"),
            event(2, "read together with it"),
        ],
    );
    assert_eq!(
        client.receive_until(&Received::Close(Some(4004))),
        events(&["before", "read together with it"])
    );
}

#[test]
fn older_end_of_same_permission_is_ignored() {
    let node = Node::start(limits());
    let end = |permission: Permission, moment| ControlHeader {
        body: br#"{"users":[1]}"#,
        ..permission.ended(moment)
    };
    let of_lamp = ControlHeader {
        body: br#"{"entity":"lamp","users":[1]}"#,
        ..Permission::Home(1).ended(3)
    };
    let moved = ControlHeader {
        home: 1,
        body: b"lamp",
        ..record(ENTITY_MOVED, 9)
    };
    route_all(
        &node,
        [
            copy(1, &end(Permission::Home(1), 9)),
            copy(1, &end(Permission::Device(1, 7), 9)),
            copy(1, &moved),
            copy(
                1,
                &ControlHeader {
                    home: 1,
                    ..record(HOME_DELETED, 9)
                },
            ),
        ],
    );
    let (id, mut home) = node.connect_for(user(1), homes(&[1]), false);
    let (_, mut lamp) = node.connect_for(user(1), bound(&[(1, "lamp")]), false);
    let (_, mut device) = node.connect_for(user(1), device_in(1, 8), false);
    let (_, mut other) = node.connect_for(user(2), bound(&[(1, "lamp")]), false);
    let (door_id, mut door) = node.connect_for(user(2), bound(&[(1, "door")]), false);
    route_all(
        &node,
        [
            copy(1, &end(Permission::Home(1), 8)),
            copy(
                1,
                &ControlHeader {
                    outbox_seq: 0,
                    ..moved
                },
            ),
            copy(
                1,
                &ControlHeader {
                    outbox_ms: moved.outbox_ms - 1,
                    ..moved
                },
            ),
        ],
    );
    // An equal position is a repetition; an entity's move closes its subscribers.
    assert_eq!(lamp.receive(), Received::Close(Some(4004)));
    assert_eq!(other.receive(), Received::Close(Some(4004)));
    assert_eq!(received_so_far(&node, id, &mut home), []);
    assert_eq!(received_so_far(&node, door_id, &mut door), []);
    assert_eq!(node.stat("control_records_older"), 2);
    let (_, mut lamp) = node.connect_for(user(1), bound(&[(1, "lamp")]), false);
    route_all(
        &node,
        [
            copy(1, &end(Permission::Device(1, 8), 2)),
            copy(1, &of_lamp),
        ],
    );
    assert_eq!(device.receive(), Received::Close(Some(4500)));
    assert_eq!(lamp.receive(), Received::Close(Some(4500)));
    assert_eq!(node.stat("control_records_older"), 2);
}

#[test]
fn subscriber_of_rebound_entity_resubscribes() {
    let node = Node::start(limits());
    let (_, mut subscriber) = node.connect_for(user(1), bound(&[(1, "lamp"), (2, "door")]), false);
    let (_, mut member) = node.connect_for(user(2), entities(&[1], &["lamp"]), true);
    let (there_id, mut there) = node.connect_for(user(1), bound(&[(2, "lamp")]), false);
    let (door_id, mut door) = node.connect_for(user(1), bound(&[(1, "door")]), false);
    let (home_id, mut home) = node.connect_for(user(1), homes(&[1]), false);
    let moved = ControlHeader {
        home: 1,
        body: b"lamp",
        ..record(ENTITY_MOVED, 1)
    };
    route_all(
        &node,
        [
            entity_event(1, "lamp", "here"),
            copy(2, &moved),
            entity_event(1, "lamp", "still here"),
            copy(1, &moved),
            entity_event(1, "lamp", "ghost"),
            entity_event(2, "door", "read together with it"),
            entity_event(2, "lamp", "there"),
            entity_event(1, "door", "door"),
        ],
    );
    let end = Received::Close(Some(4004));
    assert_eq!(
        subscriber.receive_until(&end),
        events(&["here", "still here", "read together with it"])
    );
    assert_eq!(member.receive_until(&end), events(&["here", "still here"]));
    assert_eq!(
        received_so_far(&node, there_id, &mut there),
        events(&["there"])
    );
    assert_eq!(
        received_so_far(&node, door_id, &mut door),
        events(&["door"])
    );
    assert_eq!(
        received_so_far(&node, home_id, &mut home),
        events(&["here", "still here", "ghost", "door"])
    );
}

#[test]
fn malformed_body_is_counted_and_changes_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), false);
    let (lamp_id, mut lamp) = node.connect_for(user(1), bound(&[(1, "lamp")]), false);
    let of_rights: [&[u8]; 12] = [
        b"",
        b"{}",
        b"[1]",
        b"null",
        b"{\"users\":1}",
        b"{\"users\":[-1]}",
        b"{\"users\":[\"1\"]}",
        b"{\"users\":[1]",
        b"{\"users\":[1]}}",
        b"{\"users\":[18446744073709551616]}",
        b"{\"users\":[1],\"entity\":1}",
        b"{\"users\":[1],\"entity\":\"\xff\"}",
    ];
    let of_entities: [&[u8]; 2] = [b"", b"\xff"];
    for body in of_rights {
        let ended = ControlHeader {
            body,
            ..Permission::Home(1).ended(1)
        };
        node.route(copy(1, &ended));
    }
    for body in of_entities {
        let moved = ControlHeader {
            home: 1,
            body,
            ..record(ENTITY_MOVED, 1)
        };
        node.route(copy(1, &moved));
    }
    route_all(
        &node,
        [event(1, "received"), entity_event(1, "lamp", "lit")],
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["received", "lit"])
    );
    assert_eq!(received_so_far(&node, lamp_id, &mut lamp), events(&["lit"]));
    assert_eq!(
        node.stat("malformed"),
        (of_rights.len() + of_entities.len()) as u64
    );
}
