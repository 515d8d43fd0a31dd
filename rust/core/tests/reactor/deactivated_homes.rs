//! Deactivated homes: connections that follow homes wait for the activation, others lose the topics.

use homewire_core::bus::envelope::ControlHeader;

use crate::client::Received;
use crate::harness::{Node, copy, event, homes, limits, user};
use crate::records::{
    HOME_ACTIVATED, HOME_DEACTIVATED, HOME_DELETED, MEMBER_ADDED, MEMBER_REMOVED, MEMBER_WAITS,
    USER_DELETED, device_event, device_in, entities, entity_event, events, member, of_home,
    received_so_far, record, route_all,
};

#[test]
fn named_deactivated_home_is_removed() {
    let node = Node::start(limits());
    let (_, mut home) = node.connect_for(user(1), homes(&[2]), false);
    let (_, mut subscriber) = node.connect_for(user(1), device_in(2, 7), false);
    let (both_id, mut both) = node.connect_for(user(1), homes(&[1, 2]), false);
    route_all(
        &node,
        [
            device_event(2, 7, "before"),
            copy(2, &of_home(HOME_DEACTIVATED, 1, 2)),
            device_event(2, 7, "meanwhile"),
            copy(2, &of_home(HOME_ACTIVATED, 2, 2)),
            device_event(2, 7, "after"),
            event(1, "other"),
        ],
    );
    for client in [&mut home, &mut subscriber] {
        let received = client.receive_until(&Received::Close(Some(4500)));
        assert_eq!(received, events(&["before"]));
    }
    assert_eq!(
        received_so_far(&node, both_id, &mut both),
        events(&["before", "other"])
    );
}

#[test]
fn followed_home_is_received_again_after_activation() {
    let node = Node::start(limits());
    let (all_id, mut all) = node.connect_for(user(1), homes(&[2]), true);
    let (lamp_id, mut lamp) = node.connect_for(user(1), entities(&[2], &["lamp"]), true);
    // A connection that was reserved after the deactivation.
    let late_id = node.reserve_with_deactivated(user(3), homes(&[1]), true, &[2]);
    let mut late = node.adopt(late_id, b"");
    let lit = |name| entity_event(2, "lamp", name);
    for round in 0..3 {
        let moment = 10 * round;
        route_all(
            &node,
            [
                copy(2, &of_home(HOME_DEACTIVATED, moment + 1, 2)),
                lit("meanwhile"),
                copy(2, &of_home(HOME_ACTIVATED, moment + 2, 2)),
                lit("after"),
                event(2, "for all"),
                // The relay repeats records, among them one that no longer applies.
                copy(2, &of_home(HOME_ACTIVATED, moment + 2, 2)),
                copy(2, &of_home(HOME_DEACTIVATED, moment + 1, 2)),
                lit("still"),
            ],
        );
        let each = events(&["after", "for all", "still"]);
        assert_eq!(received_so_far(&node, all_id, &mut all), each);
        assert_eq!(received_so_far(&node, late_id, &mut late), each);
        assert_eq!(
            received_so_far(&node, lamp_id, &mut lamp),
            events(&["after", "still"])
        );
    }
}

#[test]
fn member_added_while_deactivated_waits() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), true);
    let (ended_id, mut ended) = node.connect_for(user(1), homes(&[1]), true);
    route_all(
        &node,
        [
            copy(2, &of_home(HOME_DEACTIVATED, 1, 2)),
            copy(2, &member(MEMBER_WAITS, 2, 1, 2)),
            event(2, "meanwhile"),
            copy(2, &of_home(HOME_ACTIVATED, 3, 2)),
            event(2, "after"),
        ],
    );
    assert_eq!(received_so_far(&node, id, &mut client), events(&["after"]));
    assert_eq!(
        received_so_far(&node, ended_id, &mut ended),
        events(&["after"])
    );
}

/// The handshake authorised it for the current state; the stream reader was behind.
#[test]
fn subscriber_before_waiting_record_waits_too() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[2]), true);
    route_all(
        &node,
        [
            copy(2, &member(MEMBER_WAITS, 1, 1, 2)),
            event(2, "meanwhile"),
            copy(2, &of_home(HOME_ACTIVATED, 2, 2)),
            event(2, "after"),
        ],
    );
    assert_eq!(received_so_far(&node, id, &mut client), events(&["after"]));
}

#[test]
fn key_ended_before_waiting_receives_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), true);
    let waits = ControlHeader {
        body: b"0000000000000000",
        ..member(MEMBER_WAITS, 2, 1, 2)
    };
    route_all(
        &node,
        [
            copy(2, &waits),
            copy(2, &of_home(HOME_ACTIVATED, 3, 2)),
            event(2, "not for this key"),
        ],
    );
    assert_eq!(received_so_far(&node, id, &mut client), []);
}

#[test]
fn left_or_deleted_home_is_not_waited_for() {
    for ends in [member(MEMBER_REMOVED, 2, 1, 2), of_home(HOME_DELETED, 2, 2)] {
        let node = Node::start(limits());
        let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
        route_all(
            &node,
            [
                copy(2, &of_home(HOME_DEACTIVATED, 1, 2)),
                copy(2, &ends),
                copy(2, &of_home(HOME_ACTIVATED, 3, 2)),
                event(2, "not received"),
                event(1, "own"),
            ],
        );
        assert_eq!(received_so_far(&node, id, &mut client), events(&["own"]));
    }
}

/// In its grace a connection receives what was acknowledged before its revocation, and nothing later. This
/// must not depend on the order in which the relay copies records to shards.
#[test]
fn revoked_connection_subscribes_only_to_homes_activated_before() {
    let node = Node::start(limits());
    let id = node.reserve_with_deactivated(user(1), homes(&[1]), true, &[2, 3]);
    let mut client = node.adopt(id, b"");
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 2)
    };
    route_all(
        &node,
        [
            copy(1, &deleted),
            copy(2, &of_home(HOME_ACTIVATED, 1, 2)),
            copy(3, &of_home(HOME_ACTIVATED, 3, 3)),
            event(2, "acknowledged before"),
            event(3, "accepted after"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["acknowledged before"])
    );
}

#[test]
fn membership_repeated_after_deactivation_is_ignored() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), true);
    let added = member(MEMBER_ADDED, 1, 1, 2);
    route_all(
        &node,
        [
            copy(2, &added),
            copy(2, &of_home(HOME_DEACTIVATED, 2, 2)),
            copy(2, &added),
            event(2, "not received"),
            copy(2, &of_home(HOME_ACTIVATED, 3, 2)),
            event(2, "received"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["received"])
    );
    assert_eq!(node.stat("control_records_older"), 1);
}

#[test]
fn deactivation_before_reservation_requests_resubscribe() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect_for(user(1), homes(&[2]), false);
    let stale = ControlHeader {
        outbox_ms: 1,
        ..of_home(HOME_DEACTIVATED, 0, 2)
    };
    route_all(&node, [copy(2, &stale), event(2, "not received")]);
    assert_eq!(client.receive_until(&Received::Close(Some(4004))), []);
}

#[test]
fn copy_in_other_shard_or_project_changes_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[2]), true);
    let elsewhere = ControlHeader {
        project: 99,
        ..of_home(HOME_DEACTIVATED, 1, 2)
    };
    route_all(
        &node,
        [
            copy(1, &of_home(HOME_DEACTIVATED, 1, 2)),
            copy(2, &elsewhere),
            event(2, "received"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["received"])
    );
}
