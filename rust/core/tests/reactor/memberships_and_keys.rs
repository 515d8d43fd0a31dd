//! Memberships and ends of keys in every order in which their records may be read.

use homewire_core::bus::envelope::ControlHeader;

use crate::client::Received;
use crate::harness::{Node, copy, event, homes, limits, user};
use crate::records::{KEY_ENDED, MEMBER_ADDED, USER_DELETED, events, member, record, route_all};

/// Shards have no common order: the end of the key has no copy in the shard of the new home, and may be
/// read after all of that.
#[test]
fn home_joined_after_key_end_is_never_received() {
    for own_shard_first in [false, true] {
        let node = Node::start(limits());
        let (_, mut client) = node.connect_for(user(1), homes(&[3]), true);
        let ended = ControlHeader {
            user: 1,
            ..record(KEY_ENDED, 1)
        };
        let own = copy(1, &ended);
        let joined = ControlHeader {
            // Another key that ended recently, then this one.
            body: b"00000000000000ff0000000000000000",
            ..member(MEMBER_ADDED, 2, 1, 2)
        };
        let mut entries = vec![event(3, "before"), copy(2, &joined), event(2, "secret")];
        entries.insert(if own_shard_first { 0 } else { 3 }, own);
        entries.push(copy(3, &ended));
        for entry in entries {
            route_all(&node, [entry]);
        }
        // Without the home that was joined too late, no topic is left.
        assert_eq!(
            client.receive_until(&Received::Close(Some(4502))),
            events(&["before"])
        );
    }
}

#[test]
fn home_joined_before_key_end_is_received_up_to_end() {
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

/// The handshake read the membership from the store before the stream reader read its record. The end of
/// the key has no copy in the shard of that home.
#[test]
fn named_home_joined_after_key_end_is_removed() {
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

/// The result must be the same for each order in which the two records may be read.
#[test]
fn named_home_is_removed_at_later_of_membership_and_key_end() {
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
        // The membership, then the end of the key.
        vec![copy(2, &joined), event(2, "before"), copy(1, &ended)],
        // The end, which revokes this connection too, then the membership.
        vec![copy(1, &ended), event(2, "before"), copy(2, &joined)],
        // The membership with the ended key in its body; the end is read last.
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
