//! Control records about users and their keys, and records that must be ignored.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::Principal;
use homewire_core::reactor::inbox::ShardEntry;

use crate::client::Received;
use crate::harness::{
    Node, PROJECT, SHARDS, command, commands_to, copy, device, devices_in, event, homes, limits,
    user,
};
use crate::records::{
    DEVICE_DELETED, DEVICE_MOVED, HOME_DELETED, KEY_ENDED, MEMBER_ADDED, MEMBER_REMOVED,
    PROJECT_DELETED, PROJECT_DISABLED, USER_DELETED, device_event, device_in, entities,
    entity_event, events, everywhere, member, received_so_far, record, route_all,
};

#[test]
fn first_ids_are_each_in_own_shard() {
    let mut shards: Vec<_> = (1..=u64::from(SHARDS))
        .map(|id| shard_of(id, SHARDS))
        .collect();
    shards.sort_unstable();
    shards.dedup();
    assert_eq!(shards.len(), SHARDS as usize);
}

#[test]
fn new_member_receives_home_from_record_on() {
    let node = Node::start(limits());
    let (id, mut all) = node.connect_for(user(1), homes(&[1]), true);
    let (lamps_id, mut lamps) = node.connect_for(user(1), entities(&[], &["lamp", "door"]), true);
    let (fixed_id, mut fixed) = node.connect_for(user(1), homes(&[1]), false);
    let (other_id, mut other) = node.connect_for(user(2), homes(&[1]), true);
    let added = member(MEMBER_ADDED, 1, 1, 2);
    route_all(
        &node,
        [
            event(2, "before"),
            // The copy in the user's own shard does not concern the events of the home.
            copy(1, &added),
            event(2, "between"),
            copy(2, &added),
            entity_event(2, "lamp", "lamp"),
            entity_event(2, "door", "door"),
            event(1, "own"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut all),
        events(&["lamp", "door", "own"])
    );
    assert_eq!(
        received_so_far(&node, lamps_id, &mut lamps),
        events(&["lamp", "door"])
    );
    assert_eq!(
        received_so_far(&node, fixed_id, &mut fixed),
        events(&["own"])
    );
    assert_eq!(
        received_so_far(&node, other_id, &mut other),
        events(&["own"])
    );
}

#[test]
fn repeated_membership_changes_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let added = member(MEMBER_ADDED, 1, 1, 2);
    route_all(&node, [copy(2, &added), copy(2, &added), event(2, "once")]);
    assert_eq!(received_so_far(&node, id, &mut client), events(&["once"]));
    assert_eq!(node.stat("subscription_changes"), 0);
    assert_eq!(node.stat("control_records"), 2);
}

#[test]
fn removed_member_receives_events_before_record_only() {
    let mut node = Node::start(limits());
    let (id, mut both) = node.connect_for(user(1), homes(&[1, 2]), false);
    let (only_id, mut only) = node.connect_for(user(1), homes(&[2]), false);
    let (device_id, mut subscriber) = node.connect_for(user(1), device_in(2, 7), false);
    let (lamp_id, mut lamp) = node.connect_for(user(1), entities(&[2], &["lamp"]), true);
    let (others_id, mut others) = node.connect_for(user(2), homes(&[1, 2]), false);
    let removed = member(MEMBER_REMOVED, 1, 1, 2);
    node.occupy();
    route_all(
        &node,
        [
            device_event(2, 7, "before"),
            copy(1, &removed),
            event(2, "between"),
            copy(2, &removed),
            event(2, "after"),
            event(1, "other"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut both),
        events(&["before", "between", "other"])
    );
    assert_eq!(
        received_so_far(&node, others_id, &mut others),
        events(&["before", "between", "after", "other"])
    );
    // Nothing is left of these subscriptions.
    assert_eq!(
        only.receive_until(&Received::Close(Some(4500))),
        events(&["before", "between"])
    );
    assert_eq!(
        subscriber.receive_until(&Received::Close(Some(4500))),
        events(&["before"])
    );
    // This one follows homes and waits for the next one.
    assert_eq!(received_so_far(&node, lamp_id, &mut lamp), []);
    route_all(
        &node,
        [
            copy(2, &member(MEMBER_ADDED, 2, 1, 2)),
            entity_event(2, "lamp", "again"),
        ],
    );
    assert_eq!(
        received_so_far(&node, lamp_id, &mut lamp),
        events(&["again"])
    );
    drop((only, subscriber));
    assert_eq!(node.closed(only_id), 4500);
    assert_eq!(node.closed(device_id), 4500);
    assert_eq!(node.stat("revoked"), 2);
}

#[test]
fn record_has_no_effect_in_other_project() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), false);
    for record_type in MEMBER_REMOVED..=PROJECT_DELETED {
        route_all(
            &node,
            everywhere(&ControlHeader {
                project: PROJECT + 1,
                user: 1,
                home: 1,
                device: 1,
                body: b"1",
                ..record(record_type, record_type)
            }),
        );
    }
    node.route(event(1, "still there"));
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["still there"])
    );
}

#[test]
fn deleted_user_receives_each_shard_up_to_copy() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let (_, mut nothing) = node.connect_for(user(1), homes(&[]), true);
    let (other_id, mut other) = node.connect_for(user(2), homes(&[1, 2]), true);
    // A device with the same number is another principal.
    let (device_id, mut of_device) = node.connect_for(device(1), homes(&[1]), false);
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 1)
    };
    route_all(
        &node,
        [
            event(1, "one"),
            copy(1, &deleted),
            event(1, "too late"),
            event(2, "two"),
            // A home that is added now is not subscribed to either.
            copy(3, &member(MEMBER_ADDED, 2, 1, 3)),
            event(3, "never"),
            copy(2, &deleted),
            event(2, "too late too"),
        ],
    );
    assert_eq!(
        client.receive_until(&Received::Close(Some(4501))),
        events(&["one", "two"])
    );
    assert_eq!(nothing.receive(), Received::Close(Some(4501)));
    assert_eq!(
        received_so_far(&node, other_id, &mut other),
        events(&["one", "too late", "two", "too late too"])
    );
    assert_eq!(
        received_so_far(&node, device_id, &mut of_device),
        events(&["one", "too late"])
    );
    drop(client);
    assert_eq!(node.closed(id), 4501);
}

#[test]
fn ended_key_closes_its_connections() {
    let node = Node::start(limits());
    let with_key = |principal: Principal, key_tag| Principal {
        key_tag,
        ..principal
    };
    let (_, mut old) = node.connect_for(with_key(user(1), 7), homes(&[1]), true);
    let (new_id, mut new) = node.connect_for(with_key(user(1), 8), homes(&[1]), true);
    let (other_id, mut other) = node.connect_for(with_key(user(2), 7), homes(&[1]), true);
    let commands = commands_to(1);
    let (device_id, mut of_device) =
        node.connect_for(with_key(device(1), 7), commands.clone(), false);
    let (_, mut later) = node.connect_for(with_key(device(2), 7), commands_to(2), false);
    let of_user = ControlHeader {
        user: 1,
        key_tag: 7,
        ..record(KEY_ENDED, 1)
    };
    let of_other_device = ControlHeader {
        device: 2,
        key_tag: 7,
        ..record(KEY_ENDED, 2)
    };
    let of_project = ControlHeader {
        key_tag: 7,
        ..record(KEY_ENDED, 3)
    };
    route_all(
        &node,
        [
            copy(1, &of_user),
            copy(2, &of_other_device),
            copy(1, &of_project),
            event(1, "after"),
            command(1, "on"),
            command(2, "off"),
        ],
    );
    assert_eq!(old.receive(), Received::Close(Some(4502)));
    assert_eq!(later.receive(), Received::Close(Some(4502)));
    assert_eq!(received_so_far(&node, new_id, &mut new), events(&["after"]));
    assert_eq!(
        received_so_far(&node, other_id, &mut other),
        events(&["after"])
    );
    assert_eq!(
        received_so_far(&node, device_id, &mut of_device),
        events(&["on"])
    );
}

#[test]
fn older_record_with_same_key_is_ignored_in_shard() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    route_all(
        &node,
        [
            copy(2, &member(MEMBER_ADDED, 5, 1, 2)),
            copy(2, &member(MEMBER_REMOVED, 4, 1, 2)),
            event(2, "still a member"),
            // Records about another user and another home have other keys.
            copy(1, &member(MEMBER_REMOVED, 3, 1, 1)),
            event(1, "no member"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["still a member"])
    );
    assert_eq!(node.stat("control_records_older"), 1);
    // Within a millisecond the second number counts; an equal position is a repetition.
    let removed = ControlHeader {
        outbox_seq: 1,
        ..member(MEMBER_REMOVED, 5, 1, 2)
    };
    route_all(
        &node,
        [
            copy(2, &removed),
            copy(2, &removed),
            event(2, "no member any more"),
        ],
    );
    assert_eq!(received_so_far(&node, id, &mut client), []);
    assert_eq!(node.stat("control_records_older"), 1);
}

#[test]
fn malformed_entry_is_counted_and_skipped() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), device_in(1, 7), false);
    let moved = |body: &'static [u8]| ControlHeader {
        device: 7,
        home: 2,
        body,
        ..record(DEVICE_MOVED, 1)
    };
    let removed = copy(1, &member(MEMBER_REMOVED, 1, 1, 1));
    let cut_short = |length: usize| ShardEntry {
        shard: removed.shard,
        envelope: removed.envelope[..length].to_vec(),
    };
    let lengths = removed.envelope.len();
    route_all(
        &node,
        [
            copy(1, &moved(b"")),
            copy(1, &moved(b"-1")),
            copy(1, &moved(b"one")),
            copy(1, &moved(b"\xff")),
            copy(1, &moved(b"99999999999999999999")),
        ]
        .into_iter()
        .chain((0..lengths).map(cut_short))
        .chain([device_event(1, 7, "received")]),
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["received"])
    );
    assert_eq!(node.stat("malformed"), 5 + lengths as u64);
}

/// A later version wrote it. It may have ended the access of a subscriber.
#[test]
fn record_of_an_unknown_type_closes_the_subscribers_of_its_shard() {
    for unknown in [0, 16, u64::MAX] {
        let node = Node::start(limits());
        let (_, mut client) = node.connect_for(user(1), device_in(1, 7), false);
        route_all(
            &node,
            [
                device_event(1, 7, "before"),
                copy(1, &record(unknown, 1)),
                device_event(1, 7, "after"),
            ],
        );
        assert_eq!(
            client.receive_until(&Received::Close(Some(4002))),
            events(&["before"])
        );
        assert_eq!(node.stat("control_records_unknown"), 1);
    }
}

/// A writer with another number of shards uses a shard without the control records of the home. Removed
/// members would receive its events.
#[test]
fn entry_in_wrong_shard_is_skipped() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), false);
    let (commands_id, mut commands) = node.connect_for(device(1), commands_to(1), false);
    let misplaced = |entry: ShardEntry| ShardEntry {
        shard: shard_of(2, SHARDS),
        ..entry
    };
    route_all(
        &node,
        [
            misplaced(event(1, "misplaced")),
            misplaced(command(1, "misplaced")),
            misplaced(copy(1, &member(MEMBER_REMOVED, 9, 1, 1))),
            misplaced(copy(
                1,
                &ControlHeader {
                    home: 1,
                    ..record(HOME_DELETED, 9)
                },
            )),
            misplaced(copy(
                1,
                &ControlHeader {
                    device: 1,
                    ..record(DEVICE_DELETED, 9)
                },
            )),
            event(1, "in place"),
            command(1, "in place"),
        ],
    );
    let in_place = events(&["in place"]);
    assert_eq!(received_so_far(&node, id, &mut client), in_place);
    assert_eq!(received_so_far(&node, commands_id, &mut commands), in_place);
    assert_eq!(node.stat("malformed"), 2);
    assert_eq!(node.stat("matched"), 2);
}

#[test]
fn subscriber_of_moved_device_receives_rest_of_batch() {
    let node = Node::start(limits());
    let both = devices_in(&[(1, 8), (2, 9)]);
    let (_, mut client) = node.connect_for(user(1), both, false);
    let moved = ControlHeader {
        device: 8,
        home: 3,
        body: b"1",
        ..record(DEVICE_MOVED, 1)
    };
    route_all(
        &node,
        [
            copy(1, &moved),
            device_event(1, 8, "stale"),
            device_event(2, 9, "the other"),
        ],
    );
    assert_eq!(
        client.receive_until(&Received::Close(Some(4004))),
        events(&["the other"])
    );
}

#[test]
fn record_before_reservation_requests_resubscribe() {
    let disabled = ControlHeader {
        record_type: PROJECT_DISABLED,
        outbox_ms: 1,
        ..record(0, 0)
    };
    let removed = ControlHeader {
        outbox_ms: 1,
        ..member(MEMBER_REMOVED, 0, 1, 1)
    };
    for (stale, follow) in [(disabled, true), (removed, false)] {
        let node = Node::start(limits());
        let (_, mut client) = node.connect_for(user(1), homes(&[1, 2]), follow);
        let mut batch = vec![event(2, "received")];
        batch.extend(everywhere(&stale));
        batch.push(event(1, "not received"));
        route_all(&node, batch);
        assert_eq!(
            client.receive_until(&Received::Close(Some(4004))),
            events(&["received"])
        );
    }
}
