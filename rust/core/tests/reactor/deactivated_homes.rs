//! Homes that are deactivated: who follows homes waits for them, the others lose them.

use homewire_core::bus::envelope::ControlHeader;

use crate::harness::{Node, Received, copy, event, homes, limits, user};
use crate::records::{
    HOME_ACTIVATED, HOME_DEACTIVATED, HOME_DELETED, MEMBER_ADDED, MEMBER_REMOVED, MEMBER_WAITS,
    device_event, device_in, entities, entity_event, events, member, of_home, received_so_far,
    route_all,
};

#[test]
fn who_names_a_deactivated_home_loses_it_for_good() {
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
fn who_follows_homes_hears_it_again_from_its_activation_on() {
    let node = Node::start(limits());
    let (all_id, mut all) = node.connect_for(user(1), homes(&[2]), true);
    let (lamp_id, mut lamp) = node.connect_for(user(1), entities(&[2], &["lamp"]), true);
    // Of a node that came when it was deactivated already.
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
                // A relay says again what it said, and what is not so any more.
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
fn who_becomes_a_member_meanwhile_waits_like_all_others() {
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

/// A node that is behind its store had authorised it for the home as it is now.
#[test]
fn who_heard_it_before_the_record_of_waiting_is_read_waits_too() {
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
fn a_key_that_had_ended_when_its_user_came_to_wait_hears_nothing() {
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
fn who_leaves_a_deactivated_home_or_sees_it_deleted_waits_no_more() {
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

#[test]
fn a_membership_that_is_repeated_behind_the_deactivation_opens_nothing() {
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
fn a_deactivation_from_before_a_connection_sends_it_away_only_to_come_again() {
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
fn another_shards_copy_and_another_projects_home_change_nothing() {
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
