//! The life cycle of a connection: adoption, heartbeats, closing, and late commands.

use std::io::Write;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use homewire_core::reactor::Limits;
use homewire_core::reactor::notifications::Notification;
use homewire_core::wire::frame::Opcode;
use homewire_core::wire::transport::MessageKind;

use crate::client::{Received, client_frame};
use crate::harness::{Node, TIMEOUT, event, homes, limits};

#[test]
fn early_bytes_are_handled_after_routed_events() {
    let node = Node::start(limits());
    let id = node.reserve(homes(&[1]));
    node.route(event(1, "first"));
    let ping = client_frame(0x89, b"early");
    let mut client = node.adopt(id, &ping[..3]);
    client.socket.write_all(&ping[3..]).unwrap();
    assert_eq!(client.receive(), Received::event("first"));
    assert_eq!(client.receive(), Received::Pong(b"early".to_vec()));

    let id = node.reserve(homes(&[1]));
    node.occupy();
    node.route(event(1, "second"));
    let mut client = node.adopt(id, &ping);
    assert_eq!(client.receive(), Received::event("second"));
    assert_eq!(client.receive(), Received::Pong(b"early".to_vec()));
}

#[test]
fn reservation_without_adoption_expires() {
    let mut node = Node::start(limits());
    let id = node.reserve(homes(&[1]));
    node.advance(limits().reservation);
    assert_eq!(node.closed(id), 1006);
    let mut late = node.adopt(id, b"");
    assert_eq!(late.receive(), Received::Close(Some(1013)));
    assert_eq!(late.receive(), Received::End);
    assert_eq!(node.stat("reservations_expired"), 1);
}

#[test]
fn old_id_does_not_reach_next_connection_in_slot() {
    let mut node = Node::start(limits());
    let (old, client) = node.connect(homes(&[1]));
    drop(client);
    assert_eq!(node.closed(old), 1006);
    let new = node.reserve(homes(&[1]));
    assert_eq!(new.as_u64() as u32, old.as_u64() as u32, "the same slot");
    assert_ne!(new, old);
    node.core.abandon(old);
    node.core.close(old, 4000, String::new());
    let mut late = node.adopt(old, b"");
    assert_eq!(late.receive(), Received::Close(Some(1013)));
    let mut client = node.adopt(new, b"");
    node.core
        .send(old, MessageKind::Text, b"for another".to_vec());
    node.core.close(old, 4000, String::new());
    node.core.abandon(old);
    node.route(event(1, "first"));
    assert_eq!(client.receive(), Received::event("first"));
}

#[test]
fn server_close_handshake_completes() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    node.route(event(1, "before"));
    node.core.close(id, 4321, "because".to_owned());
    node.route(event(1, "after"));
    assert_eq!(client.receive(), Received::event("before"));
    assert_eq!(client.receive(), Received::Close(Some(4321)));
    client.send_close(4321);
    assert_eq!(client.receive(), Received::End);
    drop(client);
    assert_eq!(node.closed(id), 4321);
}

#[test]
fn client_close_handshake_completes() {
    let mut node = Node::start(limits());
    for (payload, answer, reported) in [
        (&b"\x03\xE8bye"[..], Some(1000), 1000),
        (&b""[..], None, 1005),
    ] {
        let (id, mut client) = node.connect(homes(&[1]));
        client.send(Opcode::Close, payload);
        assert_eq!(client.receive(), Received::Close(answer));
        assert_eq!(client.receive(), Received::End);
        drop(client);
        assert_eq!(node.closed(id), reported);
    }
}

#[test]
fn unanswered_close_is_cut_after_deadline() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    node.core.close(id, 4000, String::new());
    node.advance(limits().close);
    assert_eq!(node.closed(id), 4000);
    assert_eq!(client.receive(), Received::Close(Some(4000)));
    assert_eq!(client.receive(), Received::End);
}

/// The end of a stream that arrives with its last bytes causes no event of its own.
#[test]
fn close_frame_with_end_of_stream_is_handled() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    node.fence();
    node.occupy();
    client.send(Opcode::Text, b"last words");
    drop(client);
    assert_eq!(
        node.notification_about(id),
        Notification::Message {
            id,
            kind: MessageKind::Text,
            payload: b"last words".to_vec()
        }
    );
    assert_eq!(node.closed(id), 1006);
}

#[test]
fn disconnected_client_removes_its_audience() {
    let mut node = Node::start(limits());
    let (id, client) = node.connect(homes(&[1, 2]));
    drop(client);
    assert_eq!(node.closed(id), 1006);
    node.core.stop(1001, String::new(), Duration::ZERO);
    assert_eq!((node.stat("audiences"), node.stat("topics")), (0, 0));
}

#[test]
fn silent_client_is_pinged_then_closed() {
    let heartbeat = Duration::from_secs(50);
    let mut node = Node::start(Limits {
        heartbeat,
        ..limits()
    });
    let (id, mut client) = node.connect(homes(&[1]));
    let pass_interval = || (0..50).for_each(|_| node.advance(heartbeat / 50));
    pass_interval();
    assert_eq!(client.receive(), Received::Ping(Vec::new()));
    pass_interval();
    assert_eq!(client.receive(), Received::Close(Some(4003)));
    client.send_close(4003);
    assert_eq!(client.receive(), Received::End);
    drop(client);
    assert_eq!(node.closed(id), 4003);
    assert_eq!(node.stat("heartbeats_missed"), 1);
}

#[test]
fn stop_closes_all_and_waits_for_answers() {
    let node = Node::start(limits());
    let (_, mut client) = node.connect(homes(&[1]));
    node.reserve(homes(&[1]));
    node.fence();
    node.route(event(1, "the last"));
    thread::scope(|scope| {
        let stopping = scope.spawn(|| node.core.stop(1001, "going away".to_owned(), TIMEOUT));
        assert_eq!(client.receive(), Received::event("the last"));
        assert_eq!(client.receive(), Received::Close(Some(1001)));
        assert!(!stopping.is_finished());
        client.send_close(1001);
        assert_eq!(client.receive(), Received::End);
        drop(client);
        // Before the timeout: the clock stands.
        stopping.join().unwrap();
    });
    assert!(!node.core.route(vec![event(1, "too late")]));
}

#[test]
fn stop_ends_after_timeout() {
    let mut node = Node::start(limits());
    let (id, mut client) = node.connect(homes(&[1]));
    node.fence();
    // Earlier than the deadline of each close.
    let timeout = limits().close / 2;
    thread::scope(|scope| {
        let stopping = scope.spawn(|| node.core.stop(1001, String::new(), timeout));
        assert_eq!(client.receive(), Received::Close(Some(1001)));
        assert!(!stopping.is_finished());
        node.clock.advance(timeout);
        stopping.join().unwrap();
    });
    assert_eq!(node.closed(id), 1001);
    assert_eq!(client.receive(), Received::End);
}

/// A deadline beyond the range of `Instant` makes the reactor panic: here after many full turns, in a turn
/// that started with more envelopes than the inbox may hold.
#[test]
fn panic_is_reported_and_unblocks_senders() {
    let endless_deadline = Limits {
        reservation: Duration::MAX,
        ..limits()
    };
    let mut node = Node::with_inbox(endless_deadline, 1_000);
    const FULL_TURNS: usize = 40 * 256;
    let long = event(1, &"x".repeat(100));
    assert!(node.core.route(vec![long.clone(); FULL_TURNS + 44]));
    node.reserve(homes(&[1]));
    match node.notification() {
        Notification::Failed { reason } => {
            assert!(reason.starts_with("the reactor thread"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let (sender, answer) = mpsc::channel();
    let core = Arc::clone(&node.core);
    thread::spawn(move || sender.send(core.route(vec![long])));
    assert_eq!(answer.recv_timeout(TIMEOUT), Ok(false));
}
