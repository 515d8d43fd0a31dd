//! For unit tests: a reactor whose turns and time the test controls.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Waker};

use super::{Limits, Reactor, Shared, WAKER};
use crate::bus::cache_versions::CacheVersions;
use crate::clock::Clock;
use crate::connection::allowance::Rates;
use crate::connection::counts::ConnectionCounts;
use crate::connection::ids::ConnectionId;
use crate::connection::socket::{Socket, SocketOptions};
use crate::connection::{Connection, Principal, PrincipalKind, State};
use crate::reactor::inbox::Inbox;
use crate::reactor::notifications::Notifier;
use crate::routing::subscription::{Follows, Reservation, SubscribedTopic, Subscription};
use crate::wire::transport::Transport;

/// Limits under which nothing is ever due.
pub(super) fn limits() -> Limits {
    Limits {
        shards: 1,
        heartbeat: Duration::from_secs(1_000_000),
        reservation: Duration::from_secs(1_000_000),
        close_grace: Duration::from_secs(1_000_000),
        close: Duration::from_secs(1_000_000),
        send_queue_bytes: 1 << 20,
        send_queues_bytes: usize::MAX,
        unsent_age: Duration::from_secs(1_000_000),
        inbound: Rates::default(),
        principal_topic_bytes: u64::MAX,
        message_bytes: 1 << 10,
        deliver_messages: false,
        messages_bytes: usize::MAX,
        socket: SocketOptions::default(),
    }
}

pub(super) fn reactor(limits: Limits) -> Reactor {
    let poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), WAKER).unwrap();
    let (inbox, commands) = Inbox::new(waker, usize::MAX, Arc::default());
    let shared = Shared {
        clock: Clock::machine(),
        inbox: Arc::new(inbox),
        connection_ids: Arc::default(),
        notifier: Arc::new(Notifier::new(usize::MAX, Arc::default()).unwrap()),
        cache_versions: Arc::new(CacheVersions::new(1)),
        stats: Arc::default(),
    };
    Reactor::new(poll, shared, commands, limits)
}

/// A reservation for home 1 of this project.
pub(super) fn reserve(reactor: &mut Reactor, project: u64, user: u64) -> ConnectionId {
    let id = reactor.shared.connection_ids.allocate();
    let principal = Principal {
        kind: PrincipalKind::User,
        project,
        id: user,
        key_tag: 0,
    };
    let reservation = Reservation {
        id,
        principal,
        subscription: Subscription {
            follows: Some(Follows::Homes),
            ..Subscription::of(vec![SubscribedTopic::Home { home: 1 }])
        },
        address: None,
    };
    let held = Arc::<ConnectionCounts>::default().add(principal, None, 0);
    reactor.reserve(reservation, held, 0);
    id
}

/// An open connection without a socket: everything sent to it is queued.
pub(super) fn open(reactor: &mut Reactor, project: u64, user: u64) -> ConnectionId {
    let id = reserve(reactor, project, user);
    connection(reactor, id).state = State::Open;
    id
}

/// Adopts a reservation; returns the client's end.
pub(super) fn adopt(reactor: &mut Reactor, id: ConnectionId) -> UnixStream {
    let (client, ours) = UnixStream::pair().unwrap();
    let socket = Socket::new(OwnedFd::from(ours), &SocketOptions::default()).unwrap();
    reactor.adopt(id, socket, Transport::WebSocket, Vec::new());
    client
}

pub(super) fn connection(reactor: &mut Reactor, id: ConnectionId) -> &mut Connection {
    reactor.connections.get(id).unwrap()
}

/// Waits for at least one socket event.
pub(super) fn next_events(reactor: &mut Reactor) -> Events {
    let mut events = Events::with_capacity(8);
    while events.is_empty() {
        match reactor.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => outcome.unwrap(),
        }
    }
    events
}

pub(super) fn no_events() -> Events {
    Events::with_capacity(1)
}

pub(super) fn count(reactor: &Reactor, name: &str) -> u64 {
    let stats = reactor.shared.stats.snapshot();
    stats.iter().find(|(it, _)| *it == name).unwrap().1
}
