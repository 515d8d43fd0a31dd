//! Clients that do not read, and their effect on others.

use std::io::Write;

use homewire_core::reactor::Limits;
use homewire_core::wire::frame::Opcode;
use homewire_core::wire::transport::MessageKind;

use crate::client::{Client, Received, client_frame};
use crate::harness::{Node, event, event_with_body, homes, limits};

/// A body of `length` bytes of JSON.
fn body(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length - 2))
}

/// Reads up to the close frame. Returns the number of events, whose numbers must have no gap.
fn numbers_until_closed(client: &mut Client, code: u16) -> usize {
    let received = client.receive_until(&Received::Close(Some(code)));
    for (number, received) in received.iter().enumerate() {
        assert_eq!(*received, Received::event(&number.to_string()));
    }
    received.len()
}

#[test]
fn slow_consumer_is_evicted_and_delays_no_other() {
    const OTHERS: usize = 20;
    for length in [1_000, 100_000] {
        let mut node = Node::start(limits());
        let (id, mut slow) = node.connect(homes(&[1]));
        let mut others: Vec<_> = (0..OTHERS).map(|_| node.connect(homes(&[1])).1).collect();
        let body = body(length);
        let mut routed = 0;
        while node.stat("evicted") == 0 {
            for _ in 0..10 {
                node.route(event_with_body(1, &routed.to_string(), &body));
                for other in &mut others {
                    assert_eq!(other.receive(), Received::event(&routed.to_string()));
                }
                routed += 1;
            }
            assert!(routed * length < 64 << 20, "no eviction");
        }
        let received = numbers_until_closed(&mut slow, 4001);
        assert!(0 < received && received < routed);
        slow.send_close(4001);
        assert_eq!(slow.receive(), Received::End);
        drop(slow);
        assert_eq!(node.closed(id), 4001);
        assert_eq!(node.stat("evicted"), 1);
        node.route(event(1, "the others stay"));
        for mut other in others {
            assert_eq!(other.receive(), Received::event("the others stay"));
        }
    }
}

#[test]
fn late_reader_within_limit_receives_everything() {
    let node = Node::start(limits());
    let (id, mut late) = node.connect(homes(&[1]));
    let body = body(10_000);
    for number in 0..90 {
        node.route(event_with_body(1, &number.to_string(), &body));
    }
    node.fence();
    assert!(
        node.stat("blocked_writes") > 0,
        "the kernel took everything"
    );
    node.core.close(id, 4000, String::new());
    assert_eq!(numbers_until_closed(&mut late, 4000), 90);
}

#[test]
fn event_longer_than_any_buffer_arrives() {
    let node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    let body = body(900_000);
    node.route(event(1, "0"));
    node.route(event_with_body(1, "1", &body));
    node.route(event(1, "2"));
    node.core.close(id, 4000, String::new());
    assert_eq!(numbers_until_closed(&mut client, 4000), 3);
}

#[test]
fn reservation_has_same_limit() {
    let mut node = Node::start(limits());
    let id = node.reserve(homes(&[1]));
    let body = body(100_000);
    for number in 0..11 {
        node.route(event_with_body(1, &number.to_string(), &body));
    }
    assert_eq!(node.closed(id), 1006);
    assert_eq!(node.adopt(id, b"").receive(), Received::Close(Some(1013)));
}

#[test]
fn sent_messages_have_same_limit() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    // One message may exceed the limit on its own; the next one is too much.
    let long = "x".repeat(2 << 20);
    for _ in 0..3 {
        node.core
            .send(id, MessageKind::Text, long.clone().into_bytes());
    }
    node.route(event(1, "too late"));
    node.wait_for("evicted");
    let received = client.receive_until(&Received::Close(Some(4001)));
    assert_eq!(received, [Received::Text(long)]);
    drop(client);
    assert_eq!(node.closed(id), 4001);
}

/// Exceeding the limit twice in one turn evicts once: the close frame is still sent.
#[test]
fn exceeding_limit_twice_in_turn_sends_one_close_frame() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    let long = vec![b'x'; 2 << 20];
    node.core.send(id, MessageKind::Text, long.clone());
    node.fence();
    node.occupy();
    node.route(event(1, "lost"));
    node.core.send(id, MessageKind::Text, long);
    node.wait_for("evicted");
    assert_eq!(client.receive_until(&Received::Close(Some(4001))).len(), 1);
    drop(client);
    assert_eq!(node.closed(id), 4001);
}

/// A client that pings and reads no answers costs one queued pong. It is not evicted, and once it reads,
/// its last ping is answered after what the kernel had taken.
#[test]
fn pings_cost_no_memory_while_no_answer_is_read() {
    let node = Node::start(Limits {
        send_queue_bytes: 10_000,
        ..limits()
    });
    let (_, mut client) = node.connect(homes(&[1]));
    let many = client_frame(0x89, &[b'?'; 125]).repeat(400);
    let mut written = 0;
    while node.stat("slow_consumers") == 0 {
        client.socket.write_all(&many).unwrap();
        written += many.len();
        assert!(written < 64 << 20, "every pong is taken");
    }
    for _ in 0..50 {
        client.socket.write_all(&many).unwrap();
    }
    client.send(Opcode::Ping, b"last");
    node.fence();
    assert!((1..10_000).contains(&node.stat("send_queues_bytes")));
    for pong in client.receive_until(&Received::Pong(b"last".to_vec())) {
        assert_eq!(pong, Received::Pong(vec![b'?'; 125]));
    }
    assert_eq!(node.stat("evicted"), 0);
    node.route(event(1, "it is served"));
    assert_eq!(client.receive(), Received::event("it is served"));
}
