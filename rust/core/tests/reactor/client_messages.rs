//! Input from clients: pings, messages and violations, and backpressure while Python takes no messages.

use std::io::Write;

use homewire_core::reactor::Limits;
use homewire_core::reactor::notifications::Notification;
use homewire_core::wire::frame::Opcode;
use homewire_core::wire::transport::MessageKind;

use crate::client::{Received, client_frame};
use crate::harness::{Node, event, homes, limits};

const FIN: u8 = 0x80;
const TEXT: u8 = Opcode::Text as u8;
const BINARY: u8 = Opcode::Binary as u8;
const CONTINUATION: u8 = Opcode::Continuation as u8;

#[test]
fn pong_has_payload_of_ping() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect(homes(&[1]));
    for payload in [&b""[..], b"ping", &[0xFF; 125]] {
        client.send(Opcode::Pong, b"unasked");
        client.send(Opcode::Ping, payload);
        assert_eq!(client.receive(), Received::Pong(payload.to_vec()));
    }
}

#[test]
fn messages_are_reported_whole_and_in_order() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    for (first, payload) in [
        (TEXT, &b"in th"[..]),
        (FIN | Opcode::Ping as u8, b"between"),
        (CONTINUATION, b"ree "),
        (FIN | CONTINUATION, b"parts"),
        (FIN | BINARY, b"\x00\xFF"),
    ] {
        for byte in client_frame(first, payload) {
            client.socket.write_all(&[byte]).unwrap();
        }
    }
    assert_eq!(client.receive(), Received::Pong(b"between".to_vec()));
    for (kind, payload) in [
        (MessageKind::Text, &b"in three parts"[..]),
        (MessageKind::Binary, b"\x00\xFF"),
    ] {
        let payload = payload.to_vec();
        assert_eq!(
            node.notification(),
            Notification::Message { id, kind, payload }
        );
    }
}

#[test]
fn undelivered_messages_are_checked_and_dropped() {
    let mut node = Node::start(Limits {
        deliver_messages: false,
        ..limits()
    });
    let (id, mut client) = node.connect(homes(&[1]));
    client.send(Opcode::Text, b"hello");
    client.send(Opcode::Ping, b"");
    assert_eq!(client.receive(), Received::Pong(Vec::new()));
    client.send(Opcode::Text, b"\xFF");
    assert_eq!(client.receive(), Received::Close(Some(1007)));
    assert_eq!(client.receive(), Received::End);
    drop(client);
    assert_eq!(node.notification(), Notification::Closed { id, code: 1007 });
}

#[test]
fn violation_closes_after_routed_events() {
    let too_long = client_frame(FIN | BINARY, &vec![0; limits().message_bytes + 1]);
    let mut two_parts = client_frame(TEXT, &vec![b'x'; limits().message_bytes]);
    two_parts.extend(client_frame(FIN | CONTINUATION, b"x"));
    for (bytes, code) in [
        (too_long, 1009),
        (two_parts, 1009),
        (vec![0x81, 1, b'x'], 1002),
        (client_frame(FIN | 3, b""), 1002),
        (client_frame(FIN | TEXT, b"\xC0"), 1007),
    ] {
        let mut node = Node::start(limits());
        let id = node.reserve(homes(&[1]));
        node.route(event(1, "before"));
        let mut client = node.adopt(id, b"");
        client.socket.write_all(&bytes).unwrap();
        assert_eq!(client.receive(), Received::event("before"));
        assert_eq!(client.receive(), Received::Close(Some(code)));
        assert_eq!(client.receive(), Received::End);
        drop(client);
        assert_eq!(node.closed(id), code);
        assert_eq!(node.stat("violations"), 1);
    }
}

#[test]
fn longest_message_is_accepted() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    let payload = vec![7; limits().message_bytes];
    client.send(Opcode::Binary, &payload);
    let kind = MessageKind::Binary;
    assert_eq!(
        node.notification(),
        Notification::Message { id, kind, payload }
    );
}

/// Beyond four megabytes of untaken messages, further ones stay in the client's own socket.
#[test]
fn reading_pauses_while_messages_are_not_taken() {
    const BOUND: usize = 4 << 20;
    /// The buffer of a unix socket, and the reads of one turn.
    const ON_THE_WAY: usize = 1 << 20;
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    let payload = vec![b'x'; limits().message_bytes];
    let frame = client_frame(FIN | TEXT, &payload);
    let write_counts = node.send_until_paused(&mut client, &frame, BOUND + ON_THE_WAY);
    assert!(
        write_counts >= BOUND,
        "it waits too early, after {write_counts} bytes"
    );
    // Other connections receive events meanwhile.
    let (_, mut subscriber) = node.connect(homes(&[1]));
    node.route(event(1, "meanwhile"));
    assert_eq!(subscriber.receive(), Received::event("meanwhile"));

    let messages = write_counts.div_ceil(frame.len()) + 100;
    let all = frame.repeat(messages);
    std::thread::scope(|scope| {
        scope.spawn(|| client.socket.write_all(&all[write_counts..]).unwrap());
        for _ in 0..messages {
            let kind = MessageKind::Text;
            let payload = payload.clone();
            assert_eq!(
                node.notification_about(id),
                Notification::Message { id, kind, payload }
            );
        }
    });
}
