//! Clients that do not read, and what they cost the others.

use std::io::Write;

use homewire_core::reactor::Limits;
use homewire_core::wire::frame::Opcode;

use crate::harness::{Client, Node, Received, client_frame, event, event_with_body, homes, limits};

/// A body of `length` bytes of JSON.
fn body(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length - 2))
}

/// Reads up to the close frame: the numbers of the events, which must be without a gap.
fn numbers_until_closed(client: &mut Client, code: u16) -> usize {
    let received = client.receive_until(&Received::Close(Some(code)));
    for (number, received) in received.iter().enumerate() {
        assert_eq!(*received, Received::event(&number.to_string()));
    }
    received.len()
}

#[test]
fn who_does_not_read_is_closed_and_slows_nobody() {
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
            assert!(routed * length < 64 << 20, "nobody is too slow");
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
fn who_reads_late_but_within_the_bound_misses_nothing() {
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
fn an_event_longer_than_any_buffer_arrives() {
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
fn a_reservation_has_the_same_bound() {
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
fn messages_of_its_own_have_the_same_bound() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    // One that is longer than the bound passes it by itself alone; the next is too much.
    let long = "x".repeat(2 << 20);
    for _ in 0..3 {
        node.core.send(id, Opcode::Text, long.clone().into_bytes());
    }
    node.route(event(1, "too late"));
    node.wait_for("evicted");
    let received = client.receive_until(&Received::Close(Some(4001)));
    assert_eq!(received, [Received::Text(long)]);
    drop(client);
    assert_eq!(node.closed(id), 4001);
}

/// Too slow twice in one turn is too slow once: the close frame is still said.
#[test]
fn falling_behind_twice_in_a_turn_ends_with_a_close_frame() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    let long = vec![b'x'; 2 << 20];
    node.core.send(id, Opcode::Text, long.clone());
    node.fence();
    node.occupy();
    node.route(event(1, "lost"));
    node.core.send(id, Opcode::Text, long);
    node.wait_for("evicted");
    assert_eq!(client.receive_until(&Received::Close(Some(4001))).len(), 1);
    drop(client);
    assert_eq!(node.closed(id), 4001);
}

/// Whoever pings and reads no answer costs one place for a pong: it is not closed for what waits, and once it
/// reads, the last ping is answered behind what the kernel took.
#[test]
fn pings_cost_no_memory_while_no_answer_is_read() {
    let node = Node::start(Limits {
        send_queue_bytes: 10_000,
        ..limits()
    });
    let (_, mut client) = node.connect(homes(&[1]));
    let many = client_frame(0x89, &[b'?'; 125]).repeat(400);
    while node.stat("slow_consumers") == 0 {
        client.socket.write_all(&many).unwrap();
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
