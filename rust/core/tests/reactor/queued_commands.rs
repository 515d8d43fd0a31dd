//! Queued commands: their order, and the notifications about their delivery.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homewire_core::bus::envelope::{CommandHeader, encode_command};
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::reactor::Limits;
use homewire_core::reactor::inbox::ShardEntry;
use homewire_core::reactor::notifications::Notification;
use proptest::prelude::*;

use crate::client::{Client, Received};
use crate::harness::{
    Node, PROJECT, SHARDS, command, commands_to, device, homes, limits, property,
};

const DEVICE: u64 = 2;

fn in_a_minute() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (since + Duration::from_secs(60)).as_millis() as u64
}

/// A queued command with this `sequence`, which is also its action, and `length` bytes of parameters.
fn queued(sequence: u64, length: usize, expires_ms: u64) -> Vec<u8> {
    encode_command(&CommandHeader {
        project: PROJECT,
        device: DEVICE,
        action: &sequence.to_string(),
        sequence,
        expires_ms,
        body: &format!("\"{}\"", "x".repeat(length)),
        ..CommandHeader::default()
    })
}

fn live(sequence: u64, length: usize) -> ShardEntry {
    ShardEntry {
        shard: shard_of(DEVICE, SHARDS),
        envelope: queued(sequence, length, in_a_minute()),
    }
}

fn first(sequences: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
    let each = |sequence| queued(sequence, 10, in_a_minute());
    sequences.into_iter().map(each).collect()
}

fn reserve(node: &Node) -> ConnectionId {
    node.reserve_for(device(DEVICE), commands_to(DEVICE), false)
}

fn received(client: &mut Client, count: usize) -> Vec<String> {
    let one = |_| match client.receive() {
        Received::Text(name) => name,
        other => panic!("{other:?}"),
    };
    (0..count).map(one).collect()
}

/// The next `count` sequences that are reported as written to this connection.
fn written(node: &mut Node, id: ConnectionId, count: usize) -> Vec<u64> {
    let mut sequences = Vec::new();
    while sequences.len() < count {
        match node.notification_about(id) {
            Notification::Written { sequence, .. } => sequences.push(sequence),
            Notification::Adopted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    sequences
}

fn is_written(notification: &Notification) -> bool {
    matches!(notification, Notification::Written { .. })
}

/// All notifications about this connection so far.
fn notifications(node: &mut Node, id: ConnectionId) -> Vec<Notification> {
    node.fence();
    let about = |it: &Notification| match it {
        Notification::Written { id: of, .. }
        | Notification::Adopted { id: of, .. }
        | Notification::Closed { id: of, .. } => *of == id,
        _ => false,
    };
    node.core.notifications().filter(about).collect()
}

#[test]
fn queued_commands_come_before_live_ones() {
    let mut node = Node::start(limits());
    let id = reserve(&node);
    node.route(command(DEVICE, "live"));
    // Routed late, but queued before the queue was read: it is among the first.
    node.route(live(2, 10));
    node.route(live(4, 10));
    node.core.deliver_first(id, 3, first([1, 2, 3]));
    node.route(live(3, 10));
    node.route(live(5, 10));
    let mut client = node.adopt(id, b"");
    node.route(live(6, 10));
    node.route(live(5, 10));
    node.route(command(DEVICE, "last"));
    assert_eq!(
        received(&mut client, 8),
        ["1", "2", "3", "live", "4", "5", "6", "last"]
    );
    assert_eq!(written(&mut node, id, 6), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn empty_queue_still_sets_last_sequence() {
    let node = Node::start(limits());
    let id = reserve(&node);
    node.core.deliver_first(id, 7, Vec::new());
    node.route(live(7, 10));
    node.route(live(8, 10));
    assert_eq!(received(&mut node.adopt(id, b""), 1), ["8"]);
}

#[test]
fn expired_command_is_not_delivered() {
    let mut node = Node::start(limits());
    let id = reserve(&node);
    let queued = vec![queued(1, 10, 1), queued(2, 10, in_a_minute())];
    node.core.deliver_first(id, 2, queued);
    let mut client = node.adopt(id, b"");
    let expired = ShardEntry {
        envelope: self::queued(3, 10, 1),
        ..live(3, 10)
    };
    node.route(expired);
    node.route(live(4, 10));
    assert_eq!(received(&mut client, 2), ["2", "4"]);
    assert_eq!(written(&mut node, id, 2), [2, 4]);
}

#[test]
fn invalid_queued_command_is_counted_and_skipped() {
    let node = Node::start(limits());
    let id = reserve(&node);
    let without_ticket = command(DEVICE, "no sequence").envelope;
    let envelopes = vec![b"nonsense".to_vec(), without_ticket, first([1]).remove(0)];
    node.core.deliver_first(id, 1, envelopes);
    assert_eq!(received(&mut node.adopt(id, b""), 1), ["1"]);
    assert_eq!(node.stat("malformed"), 2);
}

#[test]
fn command_is_reported_once_kernel_has_whole_frame() {
    const COUNT: u64 = 40;
    let mut node = Node::start(Limits {
        send_queue_bytes: 16 << 20,
        ..limits()
    });
    let id = reserve(&node);
    let mut client = node.adopt(id, b"");
    for sequence in 1..=COUNT {
        node.route(live(sequence, 50_000));
    }
    let early = notifications(&mut node, id)
        .iter()
        .filter(|it| is_written(it))
        .count();
    assert!((1..COUNT as usize).contains(&early), "{early}");
    let blocked = received(&mut client, COUNT as usize);
    let late = written(&mut node, id, COUNT as usize - early);
    assert_eq!(blocked.last().unwrap(), "40");
    assert_eq!(late, Vec::from_iter(early as u64 + 1..=COUNT));
}

#[test]
fn unsent_command_of_slow_client_is_not_reported() {
    let mut node = Node::start(limits());
    let id = reserve(&node);
    let mut client = node.adopt(id, b"");
    let mut routed = 0;
    while node.stat("evicted") == 0 {
        routed += 1;
        assert!(routed < 1_000, "no eviction");
        node.route(live(routed, 50_000));
        node.fence();
    }
    let got = client.receive_until(&Received::Close(Some(4001))).len();
    client.send_close(4001);
    assert_eq!(client.receive(), Received::End);
    drop(client);
    let notifications: Vec<_> = std::iter::from_fn(|| match node.notification_about(id) {
        Notification::Closed { .. } => None,
        other => Some(other),
    })
    .collect();
    // Delivered commands are reported, and the one whose frame was partly written; no others.
    assert_eq!(
        notifications.iter().filter(|it| is_written(it)).count(),
        got
    );
    assert!((got as u64) < routed);
}

#[test]
fn each_socket_of_device_receives_and_reports() {
    let node = Node::start(limits());
    let ids = [reserve(&node), reserve(&node)];
    let mut clients = ids.map(|id| node.adopt(id, b""));
    node.route(live(1, 10));
    for client in &mut clients {
        assert_eq!(received(client, 1), ["1"]);
    }
    node.fence();
    let write_counts = node.core.notifications().filter(is_written);
    let sequence = 1;
    assert_eq!(
        Vec::from_iter(write_counts),
        ids.map(|id| Notification::Written { id, sequence })
    );
}

#[test]
fn only_device_connections_are_reported() {
    let mut node = Node::start(limits());
    let id = reserve(&node);
    assert_eq!(notifications(&mut node, id), []);
    let _client = node.adopt(id, b"");
    assert_eq!(notifications(&mut node, id), [Notification::Adopted { id }]);
    let (id, _user) = node.connect(homes(&[1]));
    assert_eq!(notifications(&mut node, id), []);
    // Never adopted: no notification between its start and its end.
    let id = reserve(&node);
    node.core.abandon(id);
    assert_eq!(
        notifications(&mut node, id),
        [Notification::Closed { id, code: 1006 }]
    );
}

#[test]
fn deliver_first_has_no_effect_on_open_connection() {
    let node = Node::start(limits());
    let id = reserve(&node);
    let mut client = node.adopt(id, b"");
    node.core.deliver_first(id, 9, first([9]));
    node.route(live(1, 10));
    assert_eq!(received(&mut client, 1), ["1"]);
}

#[derive(Clone, Debug)]
enum Step {
    /// Without a sequence.
    Plain,
    /// The next sequence is assigned, and its copy is routed now.
    Queued,
    /// The same, but its copy is routed only after the next fetch.
    QueuedLate,
    /// A copy of an earlier sequence is routed again.
    Again(prop::sample::Index),
    Adopt,
}

proptest! {
    #![proptest_config(property(ProptestConfig::default().cases))]

    /// Whatever is routed before and after the fetch and the adoption: every sequence is delivered once and
    /// reported once, the fetched ones first, and otherwise in order.
    #[test]
    fn every_sequence_is_delivered_once(
        before in prop::collection::vec(step(), 0..10),
        after in prop::collection::vec(step(), 0..10),
        fetched_from in 0_u64..5,
    ) {
        let mut node = Node::start(limits());
        let id = reserve(&node);
        // Sequences up to this one were assigned before the reservation.
        let (mut last, mut late) = (fetched_from, Vec::new());
        let (mut plain, mut expected) = (0, Vec::new());
        let mut client = None;
        for (steps, is_fetched) in [(before, false), (after, true)] {
            for step in steps {
                match step {
                    Step::Plain => {
                        plain += 1;
                        let name = format!("plain {plain}");
                        node.route(command(DEVICE, &name));
                        expected.push(name);
                    }
                    Step::Queued => {
                        last += 1;
                        node.route(live(last, 10));
                        if is_fetched {
                            expected.push(last.to_string());
                        }
                    }
                    Step::QueuedLate if !is_fetched => {
                        last += 1;
                        late.push(last);
                    }
                    Step::Again(index) if last > 0 => {
                        node.route(live(1 + index.index(last as usize) as u64, 10));
                    }
                    Step::Adopt if is_fetched && client.is_none() => client = Some(node.adopt(id, b"")),
                    _ => {}
                }
            }
            if !is_fetched {
                node.core.deliver_first(id, last, first(1..=last));
                let fetched = (1..=last).map(|it| it.to_string());
                expected.splice(0..0, fetched);
                for sequence in late.drain(..) {
                    node.route(live(sequence, 10));
                }
            }
        }
        let mut client = client.unwrap_or_else(|| node.adopt(id, b""));
        node.route(command(DEVICE, "end"));
        expected.push("end".to_owned());
        prop_assert_eq!(received(&mut client, expected.len()), expected);
        prop_assert_eq!(written(&mut node, id, last as usize), Vec::from_iter(1..=last));
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Plain),
        Just(Step::Queued),
        Just(Step::QueuedLate),
        any::<prop::sample::Index>().prop_map(Step::Again),
        Just(Step::Adopt),
    ]
}
