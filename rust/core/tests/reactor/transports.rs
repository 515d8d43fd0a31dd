//! The reactor with another transport than WebSocket: a byte stream, whose frames begin with their length.

use std::io::{self, Read, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use homewire_core::bus::envelope::{CommandHeader, ControlHeader, encode_command};
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::Principal;
use homewire_core::connection::allowance::Rates;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::reactor::Limits;
use homewire_core::reactor::inbox::ShardEntry;
use homewire_core::reactor::notifications::Notification;
use homewire_core::routing::subscription::Subscription;
use homewire_core::wire::encoding::Encoding;
use homewire_core::wire::transport::{MessageKind, Transport};

use crate::client::Received;
use crate::harness::{
    Node, PROJECT, SHARDS, TIMEOUT, commands_to, copy, device, event, event_with_body, homes,
    limits, user,
};
use crate::records::{USER_DELETED, record};

const STREAM: Encoding = Encoding::of(Transport::ByteStream);

/// What a client of a byte stream receives.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    /// An event or command, by its type or action.
    Message(String),
    Close(u16),
    /// The end of the stream, between two frames.
    End,
}

fn message(name: &str) -> Frame {
    Frame::Message(name.to_owned())
}

struct StreamClient(UnixStream);

impl StreamClient {
    fn send(&mut self, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        self.0.write_all(&[&length, payload].concat()).unwrap();
    }

    fn receive(&mut self) -> Frame {
        let Some(length) = self.take::<4>() else {
            return Frame::End;
        };
        match u32::from_be_bytes(length) {
            0 => Frame::Close(u16::from_be_bytes(self.take().unwrap())),
            length => {
                let mut payload = vec![0; length as usize];
                self.0.read_exact(&mut payload).unwrap();
                let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                let name = json.get("eventType").or_else(|| json.get("action"));
                message(name.unwrap().as_str().unwrap())
            }
        }
    }

    /// `None` at the end of the stream.
    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            // A unix socket reports so that the other end was closed with unread bytes.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn connect(
    node: &Node,
    principal: Principal,
    subscription: Subscription,
) -> (ConnectionId, StreamClient) {
    let id = node.reserve_encoded(STREAM, principal, subscription);
    (id, adopt(node, id))
}

fn adopt(node: &Node, id: ConnectionId) -> StreamClient {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(TIMEOUT)).unwrap();
    node.core
        .adopt(id, theirs.into_raw_fd(), STREAM.transport, Vec::new())
        .unwrap();
    node.core.wake();
    StreamClient(ours)
}

#[test]
fn event_is_framed_once_for_each_transport() {
    let node = Node::start(limits());
    let reserved = node.reserve_encoded(STREAM, user(1), homes(&[1]));
    let (_, mut second) = connect(&node, user(2), homes(&[1]));
    let (_, mut web_socket) = node.connect(homes(&[1]));
    node.route(event(1, "on"));
    // Queued for the reservation, and written to the others.
    assert_eq!(second.receive(), message("on"));
    assert_eq!(web_socket.receive(), Received::event("on"));
    assert_eq!(adopt(&node, reserved).receive(), message("on"));
}

#[test]
fn queued_command_is_framed_for_each_transport() {
    let mut node = Node::start(limits());
    let command = |sequence: u64| {
        encode_command(&CommandHeader {
            project: PROJECT,
            device: 2,
            action: &sequence.to_string(),
            sequence,
            expires_ms: u64::MAX,
            ..CommandHeader::default()
        })
    };
    let commands = || commands_to(2);
    let (_, mut web_socket) = node.connect_for(device(2), commands(), false);
    let id = node.reserve_encoded(STREAM, device(2), commands());
    node.core.deliver_first(id, 1, vec![command(1)]);
    let mut stream = adopt(&node, id);
    node.route(ShardEntry {
        shard: shard_of(2, SHARDS),
        envelope: command(2),
    });
    assert_eq!(stream.receive(), message("1"));
    assert_eq!(stream.receive(), message("2"));
    assert_eq!(web_socket.receive(), Received::event("2"));
    let adopted = Notification::Adopted { id };
    assert_eq!(node.notification_about(id), adopted);
    for sequence in [1, 2] {
        let written = Notification::Written { id, sequence };
        assert_eq!(node.notification_about(id), written);
    }
}

#[test]
fn message_of_client_is_passed_and_close_is_answered() {
    let mut node = Node::start(limits());
    let (id, mut client) = connect(&node, user(1), homes(&[1]));
    client.send(b"hello");
    client.send(b"");
    let passed = Notification::Message {
        id,
        kind: MessageKind::Binary,
        payload: b"hello".to_vec(),
    };
    assert_eq!(node.notification_about(id), passed);
    assert_eq!(client.receive(), Frame::Close(1000));
    assert_eq!(client.receive(), Frame::End);
    drop(client);
    assert_eq!(node.closed(id), 1005);
}

#[test]
fn end_of_stream_is_normal_closure() {
    let mut node = Node::start(limits());
    let (id, client) = connect(&node, user(1), homes(&[1]));
    drop(client);
    assert_eq!(node.closed(id), 1000);
}

#[test]
fn client_over_limit_is_closed_with_code() {
    let node = Node::start(Limits {
        inbound: Rates {
            frames_per_s: 2,
            bytes_per_s: 0,
        },
        ..limits()
    });
    let (_, mut loud) = connect(&node, user(1), homes(&[1]));
    (0..11).for_each(|_| loud.send(b"x"));
    assert_eq!(loud.receive(), Frame::Close(1008));
    let mut node = Node::start(limits());
    let (id, mut too_long) = connect(&node, user(1), homes(&[1]));
    too_long.send(&vec![0; limits().message_bytes + 1]);
    assert_eq!(too_long.receive(), Frame::Close(1009));
    drop(too_long);
    assert_eq!(node.closed(id), 1009);
}

/// The partly written frame is completed, so that the last frame is found.
#[test]
fn slow_consumer_is_closed_after_whole_frames() {
    let mut node = Node::start(Limits {
        send_queue_bytes: 200_000,
        ..limits()
    });
    let (id, mut client) = connect(&node, user(1), homes(&[1]));
    let body = format!("\"{}\"", "x".repeat(50_000));
    while node.stat("evicted") == 0 {
        node.route(event_with_body(1, "behind", &body));
        node.fence();
    }
    let mut last = client.receive();
    while last == message("behind") {
        last = client.receive();
    }
    assert_eq!(last, Frame::Close(4001));
    assert_eq!(client.receive(), Frame::End);
    drop(client);
    assert_eq!(node.closed(id), 4001);
}

/// The client does not answer: our side is shut right behind the last frame.
#[test]
fn revoked_connection_is_closed_with_code_and_shut() {
    let mut node = Node::start(limits());
    let (id, mut client) = connect(&node, user(1), homes(&[1]));
    let deleted = ControlHeader {
        user: 1,
        ..record(USER_DELETED, 1)
    };
    node.route(event(1, "before"));
    node.route(copy(1, &deleted));
    node.route(event(1, "after"));
    assert_eq!(client.receive(), message("before"));
    assert_eq!(client.receive(), Frame::Close(4501));
    assert_eq!(client.receive(), Frame::End);
    drop(client);
    assert_eq!(node.closed(id), 4501);
}

#[test]
fn transport_without_ping_has_no_heartbeat() {
    let heartbeat = Duration::from_secs(50);
    let node = Node::start(Limits {
        heartbeat,
        ..limits()
    });
    let (_, mut client) = connect(&node, user(1), homes(&[1]));
    let (_, mut web_socket) = node.connect(homes(&[1]));
    (0..100).for_each(|_| node.advance(heartbeat / 50));
    assert_eq!(web_socket.receive(), Received::Ping(Vec::new()));
    assert_eq!(web_socket.receive(), Received::Close(Some(4003)));
    node.route(event(1, "still"));
    assert_eq!(client.receive(), message("still"));
}

#[test]
fn late_adoption_is_refused_in_transport() {
    let mut node = Node::start(limits());
    let id = node.reserve_encoded(STREAM, user(1), homes(&[1]));
    node.advance(limits().reservation);
    assert_eq!(node.closed(id), 1006);
    let mut late = adopt(&node, id);
    assert_eq!(late.receive(), Frame::Close(1013));
    assert_eq!(late.receive(), Frame::End);
}

#[test]
fn stop_closes_and_ends_with_clients() {
    let node = Node::start(limits());
    let (_, mut client) = connect(&node, user(1), homes(&[1]));
    node.route(event(1, "the last"));
    thread::scope(|scope| {
        let stopping = scope.spawn(|| node.core.stop(1001, "going away".to_owned(), TIMEOUT));
        assert_eq!(client.receive(), message("the last"));
        assert_eq!(client.receive(), Frame::Close(1001));
        assert_eq!(client.receive(), Frame::End);
        assert!(!stopping.is_finished());
        drop(client);
        // Before the timeout: the clock stands.
        stopping.join().unwrap();
    });
}
