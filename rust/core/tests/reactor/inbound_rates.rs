//! Limits on what clients send.

use std::io::Write;

use homewire_core::connection::allowance::Rates;
use homewire_core::reactor::Limits;
use homewire_core::reactor::notifications::Notification;
use homewire_core::wire::frame::Opcode;

use crate::client::{Received, client_frame};
use crate::harness::{Node, event, homes, limits, user};

const PING: u8 = 0x80 | Opcode::Ping as u8;
const TEXT: u8 = 0x80 | Opcode::Text as u8;

/// The burst is five seconds of the rate. The clock stands, so the allowance does not grow again.
fn restrained() -> Limits {
    Limits {
        inbound: Rates {
            frames_per_s: 2,
            bytes_per_s: 0,
        },
        deliver_messages: false,
        ..limits()
    }
}

#[test]
fn client_over_rate_is_closed_with_1008_and_others_stay() {
    let fragments = [
        client_frame(Opcode::Text as u8, b""),
        client_frame(Opcode::Continuation as u8, b"").repeat(100),
    ]
    .concat();
    for flood in [
        client_frame(0x80 | Opcode::Pong as u8, b"").repeat(100),
        client_frame(TEXT, b"").repeat(100),
        fragments,
    ] {
        let mut node = Node::start(restrained());
        let (id, mut loud) = node.connect(homes(&[1]));
        let (_, mut quiet) = node.connect(homes(&[1]));
        loud.socket.write_all(&flood).unwrap();
        assert_eq!(loud.receive(), Received::Close(Some(1008)));
        assert_eq!(loud.receive(), Received::End);
        drop(loud);
        let exceeded = Notification::AllowanceExceeded {
            principal_id: user(1).identity(),
        };
        assert_eq!(node.notification_about(id), exceeded);
        assert_eq!(node.closed(id), 1008);
        assert_eq!(node.stat("inbound_exceeded"), 1);
        assert_eq!(node.stat("violations"), 0);
        quiet.send(Opcode::Ping, b"one");
        assert_eq!(quiet.receive(), Received::Pong(b"one".to_vec()));
        node.route(event(1, "stays"));
        assert_eq!(quiet.receive(), Received::event("stays"));
    }
}

#[test]
fn byte_rate_is_limited_and_longest_message_is_accepted() {
    let mut node = Node::start(Limits {
        inbound: Rates {
            frames_per_s: 0,
            bytes_per_s: 10,
        },
        ..limits()
    });
    let (id, mut client) = node.connect(homes(&[1]));
    let longest = vec![7; limits().message_bytes];
    client.send(Opcode::Binary, &longest);
    assert!(matches!(
        node.notification_about(id),
        Notification::Message { .. }
    ));
    // The minimum burst is two messages of the maximum length.
    client.send(Opcode::Binary, &longest);
    assert_eq!(client.receive(), Received::Close(Some(1008)));
}

/// Case 2.10 of the Autobahn suite counts ten answers to ten pings at once. Of many pings, some are
/// answered, and always the last.
#[test]
fn few_pings_at_once_are_all_answered_and_last_of_many() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect(homes(&[1]));
    let ten: Vec<u8> = (0..10).flat_map(|it| client_frame(PING, &[it])).collect();
    client.socket.write_all(&ten).unwrap();
    for number in 0..10 {
        assert_eq!(client.receive(), Received::Pong(vec![number]));
    }
    let mut many = client_frame(PING, b"").repeat(1000);
    many.extend(client_frame(PING, b"last"));
    client.socket.write_all(&many).unwrap();
    client.receive_until(&Received::Pong(b"last".to_vec()));
}
