//! The keys of open connections, and the end of a key that only this node noticed.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::connection::{Principal, PrincipalId};
use homewire_core::reactor::notifications::Notification;

use crate::client::Received;
use crate::harness::{Node, PROJECT, commands_to, device, event, homes, limits, user};
use crate::records::{KEY_ENDED, events, everywhere, received_so_far, record, route_all};

fn with_key(principal: Principal, key_tag: u64) -> Principal {
    Principal {
        key_tag,
        ..principal
    }
}

fn part(node: &mut Node, cursor: u32, limit: u32) -> (u32, Vec<(u64, u64, u64)>) {
    node.core.active_keys(cursor, limit);
    loop {
        if let Notification::ActiveKeys { next, keys } = node.notification() {
            return (next, keys);
        }
    }
}

/// All parts of a result, each of `limit` slots, and the number of parts.
fn active_keys(node: &mut Node, limit: u32) -> (Vec<(u64, u64, u64)>, u32) {
    let (mut all, mut cursor, mut parts) = (Vec::new(), 0, 0);
    loop {
        let (next, keys) = part(node, cursor, limit);
        assert!(keys.len() <= limit.max(1) as usize);
        all.extend(keys);
        parts += 1;
        if next == 0 {
            all.sort_unstable();
            all.dedup();
            return (all, parts);
        }
        assert!(next > cursor);
        cursor = next;
    }
}

#[test]
fn keys_of_open_user_connections_are_reported_in_parts() {
    let mut node = Node::start(limits());
    assert_eq!(active_keys(&mut node, 10), (vec![], 1));
    let mut clients = Vec::new();
    for number in 0..20 {
        let principal = with_key(user(1 + number % 3), 70 + number % 5);
        clients.push(node.connect_for(principal, homes(&[1]), false));
    }
    let _commands = node.connect_for(with_key(device(1), 99), commands_to(1), false);
    node.reserve_for(with_key(user(9), 99), homes(&[1]), false);
    let expected: Vec<_> = (1..=3)
        .flat_map(|user| (70..75).map(move |tag| (PROJECT, user, tag)))
        .collect();
    assert_eq!(active_keys(&mut node, 100), (expected.clone(), 1));
    assert_eq!(active_keys(&mut node, 7), (expected.clone(), 4));
    assert_eq!(active_keys(&mut node, 1).0, expected);
    // A closed connection does not use its key any more, nor does one whose key ended.
    let (id, first) = clients.remove(0);
    drop(first);
    node.closed(id);
    node.core.end_key(of_user(2), 71);
    let left = Vec::from_iter(expected.into_iter().filter(|&it| it != (PROJECT, 2, 71)));
    assert_eq!(active_keys(&mut node, 7).0, left);
    assert_eq!(active_keys(&mut node, 0).0, left, "no limit is one of one");
    assert_eq!(part(&mut node, u32::MAX, u32::MAX), (0, vec![]));
}

fn of_user(id: u64) -> PrincipalId {
    user(id).identity()
}

#[test]
fn end_key_closes_all_its_connections() {
    let node = Node::start(limits());
    let (_, mut one) = node.connect_for(with_key(user(1), 7), homes(&[1]), true);
    let (_, mut two) = node.connect_for(with_key(user(1), 7), homes(&[2]), false);
    let reserved = node.reserve_for(with_key(user(1), 7), homes(&[1]), true);
    let (other_id, mut other) = node.connect_for(with_key(user(1), 8), homes(&[1]), true);
    let (user_id, mut of_other) = node.connect_for(with_key(user(2), 7), homes(&[1]), true);
    let commands = commands_to(1);
    let (device_id, mut of_device) = node.connect_for(with_key(device(1), 7), commands, false);
    route_all(&node, [event(1, "before"), event(2, "before")]);
    node.core.end_key(of_user(1), 7);
    route_all(&node, [event(1, "after"), event(2, "after")]);
    let end = Received::Close(Some(4502));
    assert_eq!(one.receive_until(&end), events(&["before"]));
    assert_eq!(two.receive_until(&end), events(&["before"]));
    assert_eq!(
        node.adopt(reserved, b"").receive_until(&end),
        events(&["before"])
    );
    for (id, client) in [(other_id, &mut other), (user_id, &mut of_other)] {
        assert_eq!(
            received_so_far(&node, id, client),
            events(&["before", "after"])
        );
    }
    assert_eq!(received_so_far(&node, device_id, &mut of_device), []);
    node.core.end_key(of_user(1), 7);
    node.core.end_key(of_user(12345), 7);
    assert_eq!(node.stat("revoked"), 3);
}

/// The record comes later and has no further effect.
#[test]
fn record_of_key_that_ended_before_changes_nothing() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect_for(with_key(user(1), 7), homes(&[1]), true);
    node.core.end_key(of_user(1), 7);
    let ended = ControlHeader {
        user: 1,
        key_tag: 7,
        ..record(KEY_ENDED, 1)
    };
    route_all(&node, everywhere(&ended));
    assert_eq!(client.receive(), Received::Close(Some(4502)));
    client.send_close(4502);
    assert_eq!(client.receive(), Received::End);
    assert_eq!(node.stat("revoked"), 1);
}
