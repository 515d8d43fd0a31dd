//! Pending closes: delayed, of reservations, of many connections, and after a gap.

use std::time::Duration;

use homewire_core::bus::envelope::{ControlHeader, EventHeader};
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::Principal;
use homewire_core::reactor::Limits;
use homewire_core::wire::frame::Opcode;

use crate::client::Received;
use crate::harness::{
    Node, PROJECT, SHARDS, commands_to, copy, device, entry, event, homes, limits, user,
};
use crate::records::{
    MEMBER_ADDED, MEMBER_REMOVED, PROJECT_DISABLED, USER_DELETED, device_in, entities,
    entity_event, events, member, received_so_far, record, route_all,
};

const GRACE: Duration = Duration::from_secs(1);

#[test]
fn missing_copies_do_not_prevent_close_after_grace() {
    let mut node = Node::start(Limits {
        close_grace: GRACE,
        ..limits()
    });
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let (_, mut witness) = node.connect_for(user(2), homes(&[1]), true);
    let reserved = node.reserve_for(user(1), homes(&[1, 2]), true);
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 1)
    };
    node.route(copy(1, &deleted));
    node.advance(GRACE - Duration::from_millis(1));
    assert_eq!(node.stat("revoked"), 0, "too early");
    node.advance(Duration::from_millis(1));
    assert_eq!(client.receive(), Received::Close(Some(4501)));
    assert_eq!(
        node.adopt(reserved, b"").receive(),
        Received::Close(Some(4501)),
        "in time, but the key is dead"
    );
    route_all(&node, [event(1, "after"), event(2, "after")]);
    client.send_close(4501);
    assert_eq!(client.receive(), Received::End);
    drop(client);
    assert_eq!(node.closed(id), 4501);
    assert_eq!(witness.receive(), Received::event("after"));
}

#[test]
fn connection_in_grace_receives_shards_without_copy() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 1)
    };
    node.route(copy(1, &deleted));
    route_all(
        &node,
        [event(1, "unsubscribed"), event(2, "acknowledged before")],
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["acknowledged before"])
    );
    // The code of the pending close replaces the requested one.
    node.core.close(id, 1001, "going away".to_owned());
    assert_eq!(client.receive(), Received::Close(Some(4501)));
    assert_eq!(node.stat("revoked"), 1);
}

#[test]
fn record_closes_reservation_on_adoption() {
    let mut node = Node::start(limits());
    let added = node.reserve_for(user(1), homes(&[1]), true);
    let removed = node.reserve_for(user(2), homes(&[1, 2]), false);
    let nothing_left = node.reserve_for(user(2), homes(&[2]), false);
    let deleted = node.reserve_for(user(3), homes(&[2]), true);
    let never_adopted = node.reserve_for(user(3), homes(&[2]), true);
    route_all(
        &node,
        [
            event(2, "before"),
            copy(2, &member(MEMBER_ADDED, 1, 1, 2)),
            copy(2, &member(MEMBER_REMOVED, 1, 2, 2)),
            copy(
                2,
                &ControlHeader {
                    user: 3,
                    ..record(USER_DELETED, 1)
                },
            ),
            event(2, "after"),
            event(1, "other"),
        ],
    );
    let mut client = node.adopt(added, b"");
    assert_eq!(
        received_so_far(&node, added, &mut client),
        events(&["after", "other"])
    );
    let mut client = node.adopt(removed, b"");
    assert_eq!(
        received_so_far(&node, removed, &mut client),
        events(&["before", "other"])
    );
    for (id, code) in [(nothing_left, 4500), (deleted, 4501)] {
        // 101 was sent: routed events come first, then the close code.
        let mut client = node.adopt(id, b"");
        assert_eq!(
            client.receive_until(&Received::Close(Some(code))),
            events(&["before"])
        );
        client.send_close(code);
        assert_eq!(client.receive(), Received::End);
        drop(client);
        assert_eq!(node.closed(id), code);
    }
    node.core.abandon(never_adopted);
    assert_eq!(node.closed(never_adopted), 1006);
}

#[test]
fn client_with_pending_close_cannot_send_messages() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 1)
    };
    node.route(copy(1, &deleted));
    node.fence();
    client.send(Opcode::Text, b"let me in");
    client.send(Opcode::Ping, b"there?");
    assert_eq!(client.receive(), Received::Pong(b"there?".to_vec()));
    node.core.close(id, 1000, String::new());
    assert_eq!(client.receive(), Received::Close(Some(4501)));
    drop(client);
    assert_eq!(node.closed(id), 4501);
}

#[test]
fn gap_closes_connections_that_may_miss_entries() {
    let mut node = Node::start(limits());
    let (id, mut home) = node.connect_for(user(1), homes(&[2, 3]), true);
    // The end of this key would be announced in the shard of its user.
    let (_, mut owner) = node.connect_for(user(2), homes(&[1]), true);
    let (_, mut commands) = node.connect_for(device(2), commands_to(2), false);
    let (_, mut lamp) = node.connect_for(user(1), entities(&[2], &["lamp"]), false);
    let (other_id, mut other) = node.connect_for(user(1), homes(&[1, 3]), true);
    let reserved = node.reserve_for(user(1), device_in(2, 7), false);
    route_all(
        &node,
        [
            event(2, "before"),
            entity_event(2, "lamp", "lamp"),
            event(3, "third"),
        ],
    );
    assert!(node.core.gap(shard_of(2, SHARDS)));
    let later = node.reserve_for(user(2), homes(&[2]), true);
    route_all(&node, [event(2, "behind the gap"), event(3, "next")]);
    let end = Received::Close(Some(4002));
    assert_eq!(
        home.receive_until(&end),
        events(&["before", "lamp", "third"])
    );
    assert_eq!(owner.receive(), end);
    assert_eq!(commands.receive(), end);
    assert_eq!(lamp.receive_until(&end), events(&["lamp"]));
    assert_eq!(node.adopt(reserved, b"").receive(), end);
    assert_eq!(
        received_so_far(&node, other_id, &mut other),
        events(&["third", "next"])
    );
    // A connection from after the gap missed nothing.
    let mut client = node.adopt(later, b"");
    assert_eq!(
        received_so_far(&node, later, &mut client),
        events(&["behind the gap"])
    );
    drop(home);
    assert_eq!(node.closed(id), 4002);
    assert_eq!(node.stat("gaps"), 1);
    assert_eq!(node.stat("resynced"), 5);
    assert_eq!(node.stat("revoked"), 0);
}

/// More than one turn closes, while events of another project are delivered. (A unit test of the reactor
/// checks the turns one by one.)
#[test]
fn end_of_large_project_does_not_delay_others() {
    // Two descriptors each; many systems give a process no more than 1024 for all tests.
    const MANY: u64 = 260;
    let node = Node::start(limits());
    let elsewhere = |name: String| {
        entry(&EventHeader {
            project: PROJECT + 1,
            home: 1,
            event_type: &name,
            ..EventHeader::default()
        })
    };
    let of_other_project = Principal {
        project: PROJECT + 1,
        ..user(1)
    };
    let (_, mut witness) = node.connect_for(of_other_project, homes(&[1]), false);
    let mut clients: Vec<_> = (0..MANY)
        .map(|number| node.connect_for(user(number), homes(&[1, 2]), true).1)
        .collect();
    let ended = record(PROJECT_DISABLED, 1);
    route_all(&node, [event(1, "last"), copy(1, &ended), event(2, "last")]);
    route_all(&node, [copy(2, &ended), copy(3, &ended), copy(4, &ended)]);
    for number in 0..100 {
        node.route(elsewhere(number.to_string()));
    }
    for number in 0..100 {
        assert_eq!(witness.receive(), Received::event(&number.to_string()));
    }
    for client in &mut clients {
        assert_eq!(
            client.receive_until(&Received::Close(Some(4503))),
            events(&["last", "last"])
        );
    }
    assert_eq!(node.stat("revoked"), MANY);
}
