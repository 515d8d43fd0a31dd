//! Limits on the memory and age of all send queues, and on what the kernel buffers for one socket.

use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::time::{Duration, Instant};

use homewire_core::connection::ids::ConnectionId;
use homewire_core::connection::socket::SocketOptions;
use homewire_core::reactor::Limits;
use homewire_core::reactor::notifications::Notification;
use homewire_core::wire::transport::Transport;

use crate::client::{Client, Received, client_frame};
use crate::harness::{Node, TIMEOUT, event, event_with_body, homes, limits};

/// More than the kernel buffers for a unix socket.
const KERNEL_BYTES: usize = 512 << 10;

fn body(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length - 2))
}

/// Routes that many bytes of events more than the kernel buffers for a socket whose client does not read.
fn fall_behind(node: &Node, home: u64, bytes: usize) {
    let body = body(50_000);
    for _ in 0..(KERNEL_BYTES + bytes) / body.len() {
        node.route(event_with_body(home, "behind", &body));
    }
    node.fence();
}

/// Waits until a metric, which is published at the end of a turn, has this value.
fn wait_until(node: &Node, name: &str, value: u64) {
    let deadline = Instant::now() + TIMEOUT;
    while node.stat(name) != value {
        assert!(Instant::now() < deadline, "{name}: {}", node.stat(name));
        std::thread::yield_now();
    }
}

fn code_at_end(client: &mut Client) -> u16 {
    loop {
        match client.receive() {
            Received::Text(_) | Received::Ping(_) => {}
            Received::Close(Some(code)) => return code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn longest_queue_is_evicted_first_over_memory_limit() {
    const BOUND: usize = 4 << 20;
    let mut node = Node::start(Limits {
        send_queue_bytes: 8 << 20,
        send_queues_bytes: BOUND,
        ..limits()
    });
    let (less, mut a_little_behind) = node.connect(homes(&[1]));
    let (more, mut far_behind) = node.connect(homes(&[2]));
    let (_, mut keeps_up) = node.connect(homes(&[3]));
    fall_behind(&node, 1, 500 << 10);
    fall_behind(&node, 2, 2 << 20);
    assert_eq!(node.stat("evicted"), 0, "the bound is not reached");
    // The event that exceeds the limit belongs to another connection than the evicted one.
    let body = body(50_000);
    let deadline = Instant::now() + TIMEOUT;
    while node.stat("evicted_by_memory") == 0 {
        assert!(Instant::now() < deadline, "no eviction");
        node.route(event_with_body(1, "behind", &body));
        node.fence();
    }
    assert_eq!(node.stat("evicted_by_memory"), 1);
    assert_eq!(node.stat("evicted"), 1);
    assert!((node.stat("send_queues_bytes") as usize) < BOUND);
    assert_eq!(code_at_end(&mut far_behind), 4001);
    drop(far_behind);
    assert_eq!(node.closed(more), 4001);
    for (home, client) in [(1, &mut a_little_behind), (3, &mut keeps_up)] {
        node.route(event(home, "stays"));
        let received = client.receive_until(&Received::event("stays"));
        assert!(received.iter().all(|it| *it == Received::event("behind")));
    }
    wait_until(&node, "send_queues_bytes", 0);
    node.core.close(less, 4000, String::new());
    assert_eq!(a_little_behind.receive(), Received::Close(Some(4000)));
}

/// Twenty connections that share unsent frames use little more memory than one.
#[test]
fn shared_frames_count_once() {
    const CLIENTS: usize = 20;
    let node = Node::start(Limits {
        send_queues_bytes: 2 << 20,
        ..limits()
    });
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| node.connect(homes(&[1])).1).collect();
    fall_behind(&node, 1, 200 << 10);
    wait_until(&node, "slow_consumers", CLIENTS as u64);
    assert!((200 << 10..2 << 20).contains(&(node.stat("send_queues_bytes") as usize)));
    node.route(event(1, "last"));
    for client in &mut clients {
        client.receive_until(&Received::event("last"));
    }
    wait_until(&node, "send_queues_bytes", 0);
    assert_eq!(node.stat("evicted"), 0);
}

/// However a connection ends, its memory is subtracted.
#[test]
fn ended_connections_release_their_memory() {
    let node = Node::start(limits());
    let reserved = node.reserve(homes(&[1]));
    let (closed, client) = node.connect(homes(&[1]));
    let (_, lost) = node.connect(homes(&[1]));
    fall_behind(&node, 1, 100 << 10);
    assert!(node.stat("send_queues_bytes") > 0);
    node.core.abandon(reserved);
    node.core.close(closed, 4000, String::new());
    drop((client, lost));
    wait_until(&node, "connections", 0);
    wait_until(&node, "send_queues_bytes", 0);
}

#[test]
fn consumer_with_old_frames_is_evicted() {
    let unsent_age = Duration::from_secs(20);
    let mut node = Node::start(Limits {
        unsent_age,
        ..limits()
    });
    let (id, mut stalled) = node.connect(homes(&[1]));
    let (_, mut keeps_up) = node.connect(homes(&[2]));
    fall_behind(&node, 1, 100 << 10);
    node.advance(unsent_age);
    node.fence();
    assert_eq!(node.stat("evicted_by_age"), 0, "too early");
    // An age may be too high by a second and a half.
    node.advance(Duration::from_secs(2));
    node.wait_for("evicted_by_age");
    assert_eq!(node.stat("evicted"), 1);
    assert_eq!(code_at_end(&mut stalled), 4001);
    drop(stalled);
    assert_eq!(node.closed(id), 4001);
    node.route(event(2, "stays"));
    assert_eq!(keeps_up.receive(), Received::event("stays"));
}

/// Empty messages take memory, too, while they are not taken.
#[test]
fn empty_messages_are_limited() {
    let mut node = Node::start(Limits {
        messages_bytes: 10_000,
        ..limits()
    });
    let (id, mut client) = node.connect(homes(&[1]));
    let many = client_frame(0x81, b"").repeat(100);
    node.send_until_paused(&mut client, &many, 8 << 20);
    assert!(node.stat("messages_bytes") > 10_000);
    // One read was taken, and hardly more than the limit.
    assert!(node.stat("messages") < 50_000);
    drop(client);
    while !matches!(node.notification_about(id), Notification::Closed { .. }) {}
    assert_eq!(node.stat("messages_bytes"), 0);
}

/// A TCP connection with these options whose client has the smallest receive buffer and does not read. The
/// node has routed much more than both kernels may buffer.
fn stalled_tcp(socket: SocketOptions) -> (Node, ConnectionId, socket2::Socket) {
    let node = Node::start(Limits {
        socket,
        send_queue_bytes: 32 << 20,
        ..limits()
    });
    let subscriber = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    client
        .connect(&subscriber.local_addr().unwrap().into())
        .unwrap();
    let (server, _) = subscriber.accept().unwrap();
    let id = node.reserve(homes(&[1]));
    node.core
        .adopt(id, server.into_raw_fd(), Transport::WebSocket, Vec::new())
        .unwrap();
    node.core.wake();
    let body = body(60_000);
    for _ in 0..150 {
        node.route(event_with_body(1, "", &body));
    }
    node.fence();
    node.fence();
    (node, id, client)
}

#[test]
fn kernel_buffers_stay_within_socket_options() {
    const BOUND: u64 = 128 << 10;
    let unbounded = SocketOptions::default();
    let (node, _, _client) = stalled_tcp(unbounded);
    let usual = node.stat("bytes_written");
    assert!(usual > 4 * BOUND, "{usual}: there is nothing to bound here");
    for options in [
        SocketOptions {
            unsent_bytes: BOUND as u32,
            ..unbounded
        },
        SocketOptions {
            // The kernel doubles it for its own bookkeeping.
            send_buffer_bytes: BOUND as usize / 2,
            ..unbounded
        },
    ] {
        let (node, _, _client) = stalled_tcp(options);
        let taken = node.stat("bytes_written");
        // Plus one segment of loopback, and what the client's kernel took.
        assert!(taken < 2 * BOUND, "{taken} with {options:?}");
        assert_eq!(node.stat("evicted"), 0);
    }
}

#[test]
fn tcp_user_timeout_ends_stalled_peer() {
    let (mut node, id, _client) = stalled_tcp(SocketOptions {
        timeout: Duration::from_secs(1),
        ..SocketOptions::default()
    });
    assert_eq!(node.closed(id), 1006);
}
