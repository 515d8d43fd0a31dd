//! Control records about users and their keys, and records that are to be ignored.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::Principal;
use homewire_core::reactor::inbox::Entry;
use homewire_core::routing::subscription::{DeviceInHome, Subscription};

use crate::harness::{
    Node, PROJECT, Received, SHARDS, command, copy, device, event, homes, limits, user,
};
use crate::records::{
    DEVICE_DELETED, DEVICE_MOVED, HOME_DELETED, KEY_ENDED, MEMBER_ADDED, MEMBER_REMOVED,
    PROJECT_DELETED, PROJECT_DISABLED, USER_DELETED, device_event, device_in, entities,
    entity_event, events, everywhere, member, received_so_far, record, route_all,
};

#[test]
fn ids_up_to_the_number_of_shards_are_each_in_their_own() {
    let mut shards: Vec<_> = (1..=u64::from(SHARDS))
        .map(|id| shard_of(id, SHARDS))
        .collect();
    shards.sort_unstable();
    shards.dedup();
    assert_eq!(shards.len(), SHARDS as usize);
}

#[test]
fn who_becomes_a_member_hears_the_home_from_that_record_on() {
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
            // The user's own shard: it says nothing about the events of the home's.
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
fn being_added_twice_changes_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let added = member(MEMBER_ADDED, 1, 1, 2);
    route_all(&node, [copy(2, &added), copy(2, &added), event(2, "once")]);
    assert_eq!(received_so_far(&node, id, &mut client), events(&["once"]));
    assert_eq!(node.stat("subscription_changes"), 0);
    assert_eq!(node.stat("control_records"), 2);
}

#[test]
fn who_leaves_a_home_hears_what_came_before_the_record_and_nothing_after() {
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
    // Nothing is left of what these asked for.
    assert_eq!(
        only.receive_until(&Received::Close(Some(4500))),
        events(&["before", "between"])
    );
    assert_eq!(
        subscriber.receive_until(&Received::Close(Some(4500))),
        events(&["before"])
    );
    // Except for who would hear the next home that its user enters.
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
fn a_record_of_one_project_does_nothing_in_another() {
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
fn a_deleted_user_hears_each_shard_up_to_its_copy() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let (_, mut nothing) = node.connect_for(user(1), homes(&[]), true);
    let (other_id, mut other) = node.connect_for(user(2), homes(&[1, 2]), true);
    // A device of the same number is somebody else.
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
            // Not even a home that comes along now is heard.
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
fn a_key_that_ended_ends_the_connections_made_with_it() {
    let node = Node::start(limits());
    let with_key = |principal: Principal, key_tag| Principal {
        key_tag,
        ..principal
    };
    let (_, mut old) = node.connect_for(with_key(user(1), 7), homes(&[1]), true);
    let (new_id, mut new) = node.connect_for(with_key(user(1), 8), homes(&[1]), true);
    let (other_id, mut other) = node.connect_for(with_key(user(2), 7), homes(&[1]), true);
    let commands = Subscription::Commands(1);
    let (device_id, mut of_device) =
        node.connect_for(with_key(device(1), 7), commands.clone(), false);
    let (_, mut later) = node.connect_for(with_key(device(2), 7), Subscription::Commands(2), false);
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
fn an_older_record_about_the_same_subject_is_ignored_in_that_shard() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    route_all(
        &node,
        [
            copy(2, &member(MEMBER_ADDED, 5, 1, 2)),
            copy(2, &member(MEMBER_REMOVED, 4, 1, 2)),
            event(2, "still a member"),
            // About somebody else, and about another home: younger is what each has its own of.
            copy(1, &member(MEMBER_REMOVED, 3, 1, 1)),
            event(1, "no member"),
        ],
    );
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["still a member"])
    );
    assert_eq!(node.stat("control_records_older"), 1);
    // Within a millisecond the second number counts; an equal one is a repetition.
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
fn what_cannot_be_understood_is_counted_and_stops_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), device_in(1, 7), false);
    let moved = |body: &'static [u8]| ControlHeader {
        device: 7,
        home: 2,
        body,
        ..record(DEVICE_MOVED, 1)
    };
    let removed = copy(1, &member(MEMBER_REMOVED, 1, 1, 1));
    let cut_short = |length: usize| Entry {
        shard: removed.shard,
        envelope: removed.envelope[..length].to_vec(),
    };
    let lengths = removed.envelope.len();
    route_all(
        &node,
        [
            copy(1, &record(0, 1)),
            copy(1, &record(16, 1)),
            copy(1, &record(u64::MAX, 1)),
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
    assert_eq!(node.stat("control_records_unknown"), 3);
    assert_eq!(node.stat("malformed"), 5 + lengths as u64);
}

/// Who counts shards differently writes where the control records of a home are not: its events
/// would be heard by those who were removed.
#[test]
fn an_entry_in_a_wrong_shard_is_not_taken_for_one_in_its_own() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1]), false);
    let (commands_id, mut commands) = node.connect_for(device(1), Subscription::Commands(1), false);
    let misplaced = |entry: Entry| Entry {
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

/// Shards have no common order: the end, which has no copy in the new home's, may be read after all of that.
#[test]
fn who_enters_a_home_after_its_key_ended_never_hears_it() {
    for own_shard_first in [false, true] {
        let node = Node::start(limits());
        let (_, mut client) = node.connect_for(user(1), homes(&[3]), true);
        let ended = ControlHeader {
            user: 1,
            ..record(KEY_ENDED, 1)
        };
        let own = copy(1, &ended);
        let joined = ControlHeader {
            // Another key that ended lately, then this one.
            body: b"00000000000000ff0000000000000000",
            ..member(MEMBER_ADDED, 2, 1, 2)
        };
        let mut entries = vec![event(3, "before"), copy(2, &joined), event(2, "secret")];
        entries.insert(if own_shard_first { 0 } else { 3 }, own);
        entries.push(copy(3, &ended));
        for entry in entries {
            route_all(&node, [entry]);
        }
        // Without the home it entered too late, nothing keeps it.
        assert_eq!(
            client.receive_until(&Received::Close(Some(4502))),
            events(&["before"])
        );
    }
}

#[test]
fn who_entered_a_home_before_its_key_ended_hears_it_up_to_there() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect_for(user(1), homes(&[]), true);
    let ended = ControlHeader {
        user: 1,
        ..record(KEY_ENDED, 5)
    };
    route_all(
        &node,
        [
            copy(1, &ended),
            copy(2, &member(MEMBER_ADDED, 4, 1, 2)),
            event(2, "before"),
            copy(2, &ended),
            event(2, "secret"),
        ],
    );
    assert_eq!(
        client.receive_until(&Received::Close(Some(4502))),
        events(&["before"])
    );
}

/// Who came when the store knew of its entry and the tail did not: the end's copies are not in that home's shard.
#[test]
fn who_named_a_home_that_it_entered_after_its_end_hears_it_no_more() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect_for(user(1), homes(&[2]), false);
    let ended = record(USER_DELETED, 1);
    let ended = ControlHeader { user: 1, ..ended };
    for entry in [
        copy(2, &member(MEMBER_ADDED, 2, 1, 2)),
        event(2, "before"),
        copy(1, &ended),
        event(2, "secret"),
    ] {
        route_all(&node, [entry]);
    }
    assert_eq!(
        client.receive_until(&Received::Close(Some(4501))),
        events(&["before"])
    );
}

/// The same in every order in which the two may be read.
#[test]
fn who_named_a_home_loses_it_at_the_later_of_its_entry_and_its_end() {
    let ended = ControlHeader {
        user: 1,
        ..record(KEY_ENDED, 1)
    };
    let joined = member(MEMBER_ADDED, 2, 1, 2);
    let entered_without_its_key = ControlHeader {
        body: b"0000000000000000",
        ..joined
    };
    let orders = [
        // The entry, then the end.
        vec![copy(2, &joined), event(2, "before"), copy(1, &ended)],
        // The end, which ends this connection too, then the entry.
        vec![copy(1, &ended), event(2, "before"), copy(2, &joined)],
        // The entry, which knows of the end; that is read last.
        vec![event(2, "before"), copy(2, &entered_without_its_key)],
    ];
    for entries in orders {
        let node = Node::start(limits());
        let (_, mut client) = node.connect_for(user(1), homes(&[2]), false);
        for entry in entries
            .into_iter()
            .chain([event(2, "secret"), copy(1, &ended)])
        {
            route_all(&node, [entry]);
        }
        assert_eq!(
            client.receive_until(&Received::Close(Some(4502))),
            events(&["before"])
        );
    }
}

#[test]
fn whoever_listens_to_a_device_that_moved_hears_the_others_as_far_as_was_read() {
    let node = Node::start(limits());
    let both = Subscription::Devices(vec![
        DeviceInHome { device: 8, home: 1 },
        DeviceInHome { device: 9, home: 2 },
    ]);
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
fn a_record_from_before_a_connection_sends_it_away_only_to_come_again() {
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
