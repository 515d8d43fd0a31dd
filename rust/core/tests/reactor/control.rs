//! Control records: who hears what, and how those end who may not any more.

use std::time::Duration;

use homewire_core::connection::{ConnectionId, Principal};
use homewire_core::envelope::{ControlHeader, EventHeader};
use homewire_core::frame::Opcode;
use homewire_core::inbox::{DeviceInHome, Entry, Subscription};
use homewire_core::reactor::Limits;
use homewire_core::shard::shard_of;

use crate::harness::{
    Client, Heard, Node, PROJECT, SHARDS, command, copy, device, entry, event, homes, limits, user,
};

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

/// A record of this type at this moment of the project's outbox.
pub fn record(record_type: u64, moment: u64) -> ControlHeader<'static> {
    ControlHeader {
        project: PROJECT,
        record_type,
        outbox_ms: moment,
        ..ControlHeader::default()
    }
}

fn member(record_type: u64, moment: u64, user: u64, home: u64) -> ControlHeader<'static> {
    ControlHeader {
        user,
        home,
        ..record(record_type, moment)
    }
}

fn entities(homes: &[u64], names: &[&str]) -> Subscription {
    Subscription::Entities {
        homes: homes.to_vec(),
        entities: names.iter().map(|&it| it.into()).collect(),
    }
}

fn device_in(home: u64, device: u64) -> Subscription {
    Subscription::Devices(vec![DeviceInHome { device, home }])
}

fn device_event(home: u64, device: u64, name: &str) -> Entry {
    entry(&EventHeader {
        project: PROJECT,
        home,
        device,
        event_type: name,
        ..EventHeader::default()
    })
}

fn entity_event(home: u64, entity: &str, name: &str) -> Entry {
    entry(&EventHeader {
        project: PROJECT,
        home,
        entity: Some(entity),
        event_type: name,
        ..EventHeader::default()
    })
}

/// Routes all of it in one batch.
fn route_all(node: &Node, entries: impl IntoIterator<Item = Entry>) {
    assert!(node.core.route(Vec::from_iter(entries)));
}

/// What a client hears until a message that is sent to it after everything that was routed.
fn heard_so_far(node: &Node, id: ConnectionId, client: &mut Client) -> Vec<Heard> {
    node.core.send(id, Opcode::Text, b"so far".to_vec());
    client.hear_until(&Heard::Text("so far".to_owned()))
}

fn events(names: &[&str]) -> Vec<Heard> {
    names.iter().map(|name| Heard::event(name)).collect()
}

/// The copies of one record in all shards.
fn everywhere(record: &ControlHeader<'_>) -> Vec<Entry> {
    (1..=u64::from(SHARDS))
        .map(|anchor| copy(anchor, record))
        .collect()
}

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
        heard_so_far(&node, id, &mut all),
        events(&["lamp", "door", "own"])
    );
    assert_eq!(
        heard_so_far(&node, lamps_id, &mut lamps),
        events(&["lamp", "door"])
    );
    assert_eq!(heard_so_far(&node, fixed_id, &mut fixed), events(&["own"]));
    assert_eq!(heard_so_far(&node, other_id, &mut other), events(&["own"]));
}

#[test]
fn being_added_twice_changes_nothing() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let added = member(MEMBER_ADDED, 1, 1, 2);
    route_all(&node, [copy(2, &added), copy(2, &added), event(2, "once")]);
    assert_eq!(heard_so_far(&node, id, &mut client), events(&["once"]));
    assert_eq!(node.stat("rescopes"), 0);
    assert_eq!(node.stat("control_records"), 2);
}

#[test]
fn who_leaves_a_home_hears_what_came_before_the_record_and_nothing_after() {
    let mut node = Node::start(limits());
    let (id, mut both) = node.connect_for(user(1), homes(&[1, 2]), false);
    let (only_id, mut only) = node.connect_for(user(1), homes(&[2]), false);
    let (device_id, mut listener) = node.connect_for(user(1), device_in(2, 7), false);
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
        heard_so_far(&node, id, &mut both),
        events(&["before", "between", "other"])
    );
    assert_eq!(
        heard_so_far(&node, others_id, &mut others),
        events(&["before", "between", "after", "other"])
    );
    // Nothing is left of what these asked for.
    assert_eq!(
        only.hear_until(&Heard::Close(Some(4500))),
        events(&["before", "between"])
    );
    assert_eq!(
        listener.hear_until(&Heard::Close(Some(4500))),
        events(&["before"])
    );
    // Except for who would hear the next home that its user enters.
    assert_eq!(heard_so_far(&node, lamp_id, &mut lamp), []);
    route_all(
        &node,
        [
            copy(2, &member(MEMBER_ADDED, 2, 1, 2)),
            entity_event(2, "lamp", "again"),
        ],
    );
    assert_eq!(heard_so_far(&node, lamp_id, &mut lamp), events(&["again"]));
    drop((only, listener));
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
        heard_so_far(&node, id, &mut client),
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
        client.hear_until(&Heard::Close(Some(4501))),
        events(&["one", "two"])
    );
    assert_eq!(nothing.hear(), Heard::Close(Some(4501)));
    assert_eq!(
        heard_so_far(&node, other_id, &mut other),
        events(&["one", "too late", "two", "too late too"])
    );
    assert_eq!(
        heard_so_far(&node, device_id, &mut of_device),
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
    assert_eq!(old.hear(), Heard::Close(Some(4502)));
    assert_eq!(later.hear(), Heard::Close(Some(4502)));
    assert_eq!(heard_so_far(&node, new_id, &mut new), events(&["after"]));
    assert_eq!(
        heard_so_far(&node, other_id, &mut other),
        events(&["after"])
    );
    assert_eq!(
        heard_so_far(&node, device_id, &mut of_device),
        events(&["on"])
    );
}

#[test]
fn a_deleted_device_ends_its_commands_and_who_listened_to_it_alone() {
    let node = Node::start(limits());
    let (_, mut commands) = node.connect_for(device(1), Subscription::Commands(1), false);
    let (_, mut alone) = node.connect_for(user(1), device_in(2, 1), false);
    let two = Subscription::Devices(vec![
        DeviceInHome { device: 1, home: 2 },
        DeviceInHome { device: 2, home: 2 },
    ]);
    let (two_id, mut two) = node.connect_for(user(1), two, false);
    let (home_id, mut home) = node.connect_for(user(1), homes(&[2]), false);
    let deleted = ControlHeader {
        device: 1,
        home: 2,
        ..record(DEVICE_DELETED, 1)
    };
    route_all(
        &node,
        [
            command(1, "on"),
            copy(1, &deleted),
            command(1, "off"),
            device_event(2, 1, "last"),
            copy(2, &deleted),
            device_event(2, 1, "ghost"),
            device_event(2, 2, "other"),
        ],
    );
    assert_eq!(
        commands.hear_until(&Heard::Close(Some(4501))),
        events(&["on"])
    );
    assert_eq!(
        alone.hear_until(&Heard::Close(Some(4500))),
        events(&["last"])
    );
    assert_eq!(
        heard_so_far(&node, two_id, &mut two),
        events(&["last", "other"])
    );
    assert_eq!(
        heard_so_far(&node, home_id, &mut home),
        events(&["last", "ghost", "other"])
    );
}

#[test]
fn a_moved_device_is_not_heard_by_those_who_may_not_follow_it() {
    let node = Node::start(limits());
    let (_, mut listener) = node.connect_for(user(1), device_in(1, 7), false);
    let (there_id, mut there) = node.connect_for(user(2), device_in(2, 7), false);
    let (home_id, mut home) = node.connect_for(user(1), homes(&[1]), false);
    let (commands_id, mut commands) = node.connect_for(device(7), Subscription::Commands(7), false);
    let moved = |from: &'static str, to, moment| ControlHeader {
        device: 7,
        home: to,
        body: from.as_bytes(),
        ..record(DEVICE_MOVED, moment)
    };
    route_all(
        &node,
        [
            device_event(1, 7, "here"),
            copy(7, &moved("1", 2, 1)),
            copy(2, &moved("1", 2, 1)),
            device_event(2, 7, "there"),
            device_event(1, 7, "still here"),
            copy(1, &moved("1", 2, 1)),
            device_event(1, 7, "ghost"),
            command(7, "on"),
            // It was in no home before, or is where it was: nobody's listening changes.
            copy(2, &moved("0", 2, 2)),
            copy(2, &moved("2", 2, 3)),
            device_event(2, 7, "stays"),
        ],
    );
    assert_eq!(
        listener.hear_until(&Heard::Close(Some(4004))),
        events(&["here", "still here"])
    );
    assert_eq!(
        heard_so_far(&node, there_id, &mut there),
        events(&["there", "stays"])
    );
    assert_eq!(
        heard_so_far(&node, home_id, &mut home),
        events(&["here", "still here", "ghost"])
    );
    assert_eq!(
        heard_so_far(&node, commands_id, &mut commands),
        events(&["on"])
    );
    assert_eq!(node.stat("malformed"), 0);
}

/// A move that a relay repeats after the device moved back ends nobody who listens to it there.
#[test]
fn an_older_move_of_the_same_device_is_ignored() {
    let node = Node::start(limits());
    let away = ControlHeader {
        device: 7,
        home: 2,
        body: b"1",
        ..record(DEVICE_MOVED, 1)
    };
    let back = ControlHeader {
        device: 7,
        home: 1,
        body: b"2",
        ..record(DEVICE_MOVED, 2)
    };
    route_all(&node, [copy(1, &away), copy(1, &back)]);
    let (id, mut client) = node.connect_for(user(1), device_in(1, 7), false);
    route_all(&node, [copy(1, &away), device_event(1, 7, "heard")]);
    assert_eq!(heard_so_far(&node, id, &mut client), events(&["heard"]));
    assert_eq!(node.stat("control_records_older"), 1);
}

#[test]
fn a_deleted_home_is_heard_by_nobody() {
    let node = Node::start(limits());
    let (_, mut home) = node.connect_for(user(1), homes(&[2]), false);
    let (_, mut lamp) = node.connect_for(user(2), entities(&[2], &["lamp"]), false);
    let (_, mut thing) = node.connect_for(user(3), device_in(2, 7), false);
    let (both_id, mut both) = node.connect_for(user(4), homes(&[1, 2]), false);
    let (all_id, mut all) = node.connect_for(user(5), homes(&[2]), true);
    let deleted = ControlHeader {
        home: 2,
        ..record(HOME_DELETED, 1)
    };
    route_all(
        &node,
        [
            copy(1, &deleted),
            copy(3, &deleted),
            event(2, "last"),
            copy(2, &deleted),
            event(2, "ghost"),
            copy(4, &deleted),
            event(1, "other"),
        ],
    );
    assert_eq!(
        home.hear_until(&Heard::Close(Some(4500))),
        events(&["last"])
    );
    assert_eq!(lamp.hear(), Heard::Close(Some(4500)));
    assert_eq!(thing.hear(), Heard::Close(Some(4500)));
    assert_eq!(
        heard_so_far(&node, both_id, &mut both),
        events(&["last", "other"])
    );
    assert_eq!(heard_so_far(&node, all_id, &mut all), events(&["last"]));
}

#[test]
fn an_ended_project_is_heard_in_each_shard_up_to_its_copy() {
    for record_type in [PROJECT_DISABLED, PROJECT_DELETED] {
        let node = Node::start(limits());
        let (_, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
        let (_, mut nothing) = node.connect_for(user(2), homes(&[]), true);
        let (_, mut commands) = node.connect_for(device(3), Subscription::Commands(3), false);
        let ended = record(record_type, 1);
        route_all(
            &node,
            [
                copy(2, &ended),
                event(2, "too late"),
                event(1, "in time"),
                command(3, "in time"),
                copy(1, &ended),
                copy(3, &ended),
                copy(4, &ended),
                event(1, "too late"),
                command(3, "too late"),
            ],
        );
        let end = Heard::Close(Some(4503));
        assert_eq!(client.hear_until(&end), events(&["in time"]));
        assert_eq!(nothing.hear(), end);
        assert_eq!(commands.hear_until(&end), events(&["in time"]));
        let (id, mut next) = node.connect_for(user(1), homes(&[1]), true);
        route_all(&node, everywhere(&record(PROJECT_ENABLED, 2)));
        // Relays may repeat; but what was enabled since is not disabled again.
        route_all(&node, everywhere(&ended));
        node.route(event(1, "again"));
        assert_eq!(heard_so_far(&node, id, &mut next), events(&["again"]));
        assert_eq!(node.stat("control_records_older"), u64::from(SHARDS));
    }
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
        heard_so_far(&node, id, &mut client),
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
    assert_eq!(heard_so_far(&node, id, &mut client), []);
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
            copy(1, &record(11, 1)),
            copy(1, &record(u64::MAX, 1)),
            copy(1, &moved(b"")),
            copy(1, &moved(b"-1")),
            copy(1, &moved(b"one")),
            copy(1, &moved(b"\xff")),
            copy(1, &moved(b"99999999999999999999")),
        ]
        .into_iter()
        .chain((0..lengths).map(cut_short))
        .chain([device_event(1, 7, "heard")]),
    );
    assert_eq!(heard_so_far(&node, id, &mut client), events(&["heard"]));
    assert_eq!(node.stat("control_records_unknown"), 3);
    assert_eq!(node.stat("malformed"), 5 + lengths as u64);
    assert_eq!(node.stat("connections"), 1);
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
    assert_eq!(heard_so_far(&node, id, &mut client), in_place);
    assert_eq!(heard_so_far(&node, commands_id, &mut commands), in_place);
    assert_eq!(node.stat("malformed"), 2);
    assert_eq!(node.stat("matched"), 2);
}

#[test]
fn who_waits_for_copies_that_do_not_come_is_closed_all_the_same() {
    let mut node = Node::start(Limits {
        revocation: Duration::from_millis(300),
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
    // Nobody else's doing wakes the reactor for this.
    assert_eq!(client.hear(), Heard::Close(Some(4501)));
    assert_eq!(
        node.adopt(reserved, b"").hear(),
        Heard::Close(Some(4501)),
        "in time, but the key is dead"
    );
    route_all(&node, [event(1, "after"), event(2, "after")]);
    client.say_close(4501);
    assert_eq!(client.hear(), Heard::End);
    drop(client);
    assert_eq!(node.closed(id), 4501);
    assert_eq!(witness.hear(), Heard::event("after"));
}

#[test]
fn a_connection_that_waits_for_other_copies_hears_their_shards() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 1)
    };
    node.route(copy(1, &deleted));
    route_all(&node, [event(1, "deaf"), event(2, "acknowledged before")]);
    assert_eq!(
        heard_so_far(&node, id, &mut client),
        events(&["acknowledged before"])
    );
    // Whoever closes it: it hears why it must not come back.
    node.core.close(id, 1001, "going away".to_owned());
    assert_eq!(client.hear(), Heard::Close(Some(4501)));
    assert_eq!(node.stat("revoked"), 1);
}

#[test]
fn a_reservation_hears_of_records_too() {
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
        heard_so_far(&node, added, &mut client),
        events(&["after", "other"])
    );
    let mut client = node.adopt(removed, b"");
    assert_eq!(
        heard_so_far(&node, removed, &mut client),
        events(&["before", "other"])
    );
    for (id, code) in [(nothing_left, 4500), (deleted, 4501)] {
        // 101 was said: what it may hear comes first, then why there is no more.
        let mut client = node.adopt(id, b"");
        assert_eq!(
            client.hear_until(&Heard::Close(Some(code))),
            events(&["before"])
        );
        client.say_close(code);
        assert_eq!(client.hear(), Heard::End);
        drop(client);
        assert_eq!(node.closed(id), code);
    }
    node.core.abandon(never_adopted);
    assert_eq!(node.closed(never_adopted), 1006);
}

#[test]
fn what_a_condemned_client_says_is_nobodys_business() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 1)
    };
    node.route(copy(1, &deleted));
    node.fence();
    client.say(Opcode::Text, b"let me in");
    client.say(Opcode::Ping, b"there?");
    assert_eq!(client.hear(), Heard::Pong(b"there?".to_vec()));
    node.core.close(id, 1000, String::new());
    assert_eq!(client.hear(), Heard::Close(Some(4501)));
    drop(client);
    assert_eq!(node.closed(id), 4501);
}

#[test]
fn a_gap_ends_those_who_may_have_missed_something() {
    let mut node = Node::start(limits());
    let (id, mut home) = node.connect_for(user(1), homes(&[2, 3]), true);
    // What became of this key would have been said in the shard of its user.
    let (_, mut owner) = node.connect_for(user(2), homes(&[1]), true);
    let (_, mut commands) = node.connect_for(device(2), Subscription::Commands(2), false);
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
    let end = Heard::Close(Some(4002));
    assert_eq!(home.hear_until(&end), events(&["before", "lamp", "third"]));
    assert_eq!(owner.hear(), end);
    assert_eq!(commands.hear(), end);
    assert_eq!(lamp.hear_until(&end), events(&["lamp"]));
    assert_eq!(node.adopt(reserved, b"").hear(), end);
    assert_eq!(
        heard_so_far(&node, other_id, &mut other),
        events(&["third", "next"])
    );
    // Who came after it missed nothing.
    let mut client = node.adopt(later, b"");
    assert_eq!(
        heard_so_far(&node, later, &mut client),
        events(&["behind the gap"])
    );
    drop(home);
    assert_eq!(node.closed(id), 4002);
    assert_eq!(node.stat("gaps"), 1);
    assert_eq!(node.stat("resynced"), 5);
    assert_eq!(node.stat("revoked"), 0);
}

/// More than one turn closes, and what another project hears goes on meanwhile. (That it goes on in
/// between is tested turn by turn, in the reactor itself.)
#[test]
fn the_end_of_a_large_project_holds_up_nobody() {
    const MANY: u64 = 400;
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
        assert_eq!(witness.hear(), Heard::event(&number.to_string()));
    }
    for client in &mut clients {
        assert_eq!(
            client.hear_until(&Heard::Close(Some(4503))),
            events(&["last", "last"])
        );
    }
    assert_eq!(node.stat("revoked"), MANY);
}
