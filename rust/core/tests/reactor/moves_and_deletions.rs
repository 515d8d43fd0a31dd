//! Control records about devices, homes and projects that moved or were deleted.

use homewire_core::bus::envelope::ControlHeader;

use crate::client::Received;
use crate::harness::{
    Node, SHARDS, command, commands_to, copy, device, devices_in, event, homes, limits, user,
};
use crate::records::{
    DEVICE_DELETED, DEVICE_MOVED, HOME_DELETED, PROJECT_DELETED, PROJECT_DISABLED, PROJECT_ENABLED,
    device_event, device_in, entities, events, everywhere, received_so_far, record, route_all,
};

#[test]
fn deleted_device_closes_its_commands_and_sole_subscribers() {
    let node = Node::start(limits());
    let (_, mut commands) = node.connect_for(device(1), commands_to(1), false);
    let (_, mut alone) = node.connect_for(user(1), device_in(2, 1), false);
    let two = devices_in(&[(2, 1), (2, 2)]);
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
        commands.receive_until(&Received::Close(Some(4501))),
        events(&["on"])
    );
    assert_eq!(
        alone.receive_until(&Received::Close(Some(4500))),
        events(&["last"])
    );
    assert_eq!(
        received_so_far(&node, two_id, &mut two),
        events(&["last", "other"])
    );
    assert_eq!(
        received_so_far(&node, home_id, &mut home),
        events(&["last", "ghost", "other"])
    );
}

#[test]
fn moved_device_is_not_received_in_old_home() {
    let node = Node::start(limits());
    let (_, mut subscriber) = node.connect_for(user(1), device_in(1, 7), false);
    let (there_id, mut there) = node.connect_for(user(2), device_in(2, 7), false);
    let (home_id, mut home) = node.connect_for(user(1), homes(&[1]), false);
    let (commands_id, mut commands) = node.connect_for(device(7), commands_to(7), false);
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
            // It had no home before, or its home is unchanged: no subscription changes.
            copy(2, &moved("0", 2, 2)),
            copy(2, &moved("2", 2, 3)),
            device_event(2, 7, "stays"),
        ],
    );
    assert_eq!(
        subscriber.receive_until(&Received::Close(Some(4004))),
        events(&["here", "still here"])
    );
    assert_eq!(
        received_so_far(&node, there_id, &mut there),
        events(&["there", "stays"])
    );
    assert_eq!(
        received_so_far(&node, home_id, &mut home),
        events(&["here", "still here", "ghost"])
    );
    assert_eq!(
        received_so_far(&node, commands_id, &mut commands),
        events(&["on"])
    );
    assert_eq!(node.stat("malformed"), 0);
}

/// A move that the relay repeats after the device moved back has no effect on subscribers there.
#[test]
fn older_move_of_device_is_ignored() {
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
    route_all(&node, [copy(1, &away), device_event(1, 7, "received")]);
    assert_eq!(
        received_so_far(&node, id, &mut client),
        events(&["received"])
    );
    assert_eq!(node.stat("control_records_older"), 1);
}

#[test]
fn deleted_home_is_received_by_no_connection() {
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
        home.receive_until(&Received::Close(Some(4500))),
        events(&["last"])
    );
    assert_eq!(lamp.receive(), Received::Close(Some(4500)));
    assert_eq!(thing.receive(), Received::Close(Some(4500)));
    assert_eq!(
        received_so_far(&node, both_id, &mut both),
        events(&["last", "other"])
    );
    assert_eq!(received_so_far(&node, all_id, &mut all), events(&["last"]));
}

#[test]
fn ended_project_is_received_in_each_shard_up_to_copy() {
    for record_type in [PROJECT_DISABLED, PROJECT_DELETED] {
        let node = Node::start(limits());
        let (_, mut client) = node.connect_for(user(1), homes(&[1, 2]), true);
        let (_, mut nothing) = node.connect_for(user(2), homes(&[]), true);
        let (_, mut commands) = node.connect_for(device(3), commands_to(3), false);
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
        let end = Received::Close(Some(4503));
        assert_eq!(client.receive_until(&end), events(&["in time"]));
        assert_eq!(nothing.receive(), end);
        assert_eq!(commands.receive_until(&end), events(&["in time"]));
        let (id, mut next) = node.connect_for(user(1), homes(&[1]), true);
        route_all(&node, everywhere(&record(PROJECT_ENABLED, 2)));
        // The relay may repeat records; but a project that was enabled since is not disabled again.
        route_all(&node, everywhere(&ended));
        node.route(event(1, "again"));
        assert_eq!(received_so_far(&node, id, &mut next), events(&["again"]));
        assert_eq!(node.stat("control_records_older"), u64::from(SHARDS));
    }
}
