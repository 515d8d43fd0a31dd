//! Connection counts: incremented by the reservation, decremented however the connection ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use homewire_core::connection::counts::{CountKey, Counts, Thresholds};
use homewire_core::connection::ids::ConnectionId;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::routing::subscription::Reservation;

use crate::harness::{Node, PROJECT, TIMEOUT, homes, limits};

const DEVICE: Principal = Principal {
    kind: PrincipalKind::Device,
    project: PROJECT,
    id: 7,
    key_tag: 1,
};

fn here() -> Option<IpAddr> {
    Some(IpAddr::from([192, 0, 2, 1]))
}

/// The memory of one home's topic.
const ONE_HOME: u64 = 200;

fn reserve(node: &Node) -> ConnectionId {
    let id = node.core.next_id();
    node.core.reserve(Reservation {
        id,
        principal: DEVICE,
        subscription: homes(&[1]),
        address: here(),
    });
    id
}

/// Waits until each of the three counts is `count`.
fn settles(node: &Node, count: u32) {
    let wanted = Counts {
        principal: count,
        project: count,
        address: count,
        principal_topic_bytes: u64::from(count) * ONE_HOME,
        project_topic_bytes: u64::from(count) * ONE_HOME,
    };
    let deadline = Instant::now() + TIMEOUT;
    while node.core.connection_counts(DEVICE, here()) != wanted {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            node.core.connection_counts(DEVICE, here())
        );
        std::thread::yield_now();
    }
}

#[test]
fn burst_is_counted_before_reactor_handles_it() {
    let node = Node::start(limits());
    node.occupy();
    for _ in 0..50 {
        reserve(&node);
    }
    assert_eq!(node.core.connection_counts(DEVICE, here()).principal, 50);
    let more = Thresholds {
        user: 0,
        device: 49,
        project: 1000,
        address: 50,
    };
    let device = CountKey::Device {
        project: PROJECT,
        id: 7,
    };
    assert!(node.core.connections_above(more).contains(&(device, 50)));
}

#[test]
fn abandoned_reservation_is_not_counted() {
    let node = Node::start(limits());
    let first = reserve(&node);
    let second = reserve(&node);
    node.core.abandon(first);
    settles(&node, 1);
    node.core.abandon(first);
    node.core.abandon(second);
    settles(&node, 0);
}

#[test]
fn expired_reservation_is_not_counted() {
    let node = Node::start(limits());
    reserve(&node);
    node.advance(limits().reservation);
    node.wait_for("reservations_expired");
    settles(&node, 0);
}

#[test]
fn disconnected_client_is_not_counted() {
    let node = Node::start(limits());
    let stays = reserve(&node);
    let goes = reserve(&node);
    let _staying = node.adopt(stays, b"");
    let going = node.adopt(goes, b"");
    node.fence();
    assert_eq!(node.core.connection_counts(DEVICE, here()).principal, 2);
    drop(going);
    settles(&node, 1);
}

#[test]
fn closed_connection_is_not_counted() {
    let node = Node::start(limits());
    let id = reserve(&node);
    let _silent_client = node.adopt(id, b"");
    node.core.close(id, 1000, String::new());
    node.advance(limits().close);
    settles(&node, 0);
}

#[test]
fn stopped_core_counts_nothing() {
    let node = Node::start(limits());
    let open = reserve(&node);
    let _client = node.adopt(open, b"");
    reserve(&node);
    node.core.stop(1001, String::new(), Duration::ZERO);
    reserve(&node);
    settles(&node, 0);
}
