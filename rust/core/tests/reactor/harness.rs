//! A running core.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{Client, Received};
use homewire_core::bus::envelope::{
    CommandHeader, ControlHeader, EventHeader, encode_command, encode_control, encode_event,
};
use homewire_core::bus::shard::shard_of;
use homewire_core::clock::Clock;
use homewire_core::connection::allowance::Rates;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::connection::socket::SocketOptions;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::core::Core;
use homewire_core::reactor::Limits;
use homewire_core::reactor::inbox::ShardEntry;
use homewire_core::reactor::notifications::Notification;
use homewire_core::routing::subscription::{Follows, Reservation, SubscribedTopic, Subscription};
use homewire_core::wire::encoding::Encoding;
use homewire_core::wire::transport::Transport;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use proptest::test_runner::Config as ProptestConfig;

/// When a test gives up; a passing test never comes near it.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Longer than a test waits: a test that depends on one of the deadlines of [`limits`] fails.
const TOO_LATE: Duration = Duration::from_secs(60);
/// How long a failing property is made smaller: each case that fails may take [`TIMEOUT`] itself.
const SHRINKING_MS: u32 = 20_000;
pub const PROJECT: u64 = 1;
/// The homes, users and devices 1, 2, 3 and 4 are each in a shard of their own.
pub const SHARDS: u32 = 4;
/// The home of the [`Node`]'s own witness connections.
const WITNESSED: u64 = 999;

/// So many cases; a property that fails reports within about a minute.
pub fn property(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        max_shrink_time: SHRINKING_MS,
        ..ProptestConfig::default()
    }
}

/// Heartbeats never come: only the test wakes the reactor.
pub fn limits() -> Limits {
    Limits {
        shards: SHARDS,
        heartbeat: Duration::from_secs(1_000_000),
        reservation: TOO_LATE,
        close_grace: Duration::from_secs(1_000_000),
        close: TOO_LATE,
        send_queue_bytes: 1 << 20,
        send_queues_bytes: usize::MAX,
        unsent_age: Duration::from_secs(1_000_000),
        inbound: Rates::default(),
        principal_topic_bytes: u64::MAX,
        message_bytes: 64 << 10,
        deliver_messages: true,
        messages_bytes: 4 << 20,
        socket: SocketOptions::default(),
    }
}

/// Homes, and those that the user joins.
pub fn homes(ids: &[u64]) -> Subscription {
    let topics = ids.iter().map(|&home| SubscribedTopic::Home { home });
    Subscription {
        follows: Some(Follows::Homes),
        ..Subscription::of(topics.collect())
    }
}

/// Devices, all in home 1.
pub fn devices(ids: &[u64]) -> Subscription {
    let pairs: Vec<_> = ids.iter().map(|&device| (1, device)).collect();
    devices_in(&pairs)
}

/// Devices, each in its home: home and device.
pub fn devices_in(pairs: &[(u64, u64)]) -> Subscription {
    let in_home = |&(home, device)| SubscribedTopic::Device { device, home };
    Subscription::of(pairs.iter().map(in_home).collect())
}

pub fn commands_to(device: u64) -> Subscription {
    Subscription::of(vec![SubscribedTopic::Command { device }])
}

/// An event of a home; `name` is its type, by which the test recognises it.
pub fn event(home: u64, name: &str) -> ShardEntry {
    event_with_body(home, name, "")
}

pub fn event_with_body(home: u64, name: &str, body: &str) -> ShardEntry {
    entry(&EventHeader {
        project: PROJECT,
        home,
        event_type: name,
        body,
        ..EventHeader::default()
    })
}

pub fn entry(event: &EventHeader<'_>) -> ShardEntry {
    ShardEntry {
        shard: shard_of(event.home, SHARDS),
        envelope: encode_event(event),
    }
}

/// A user, with key tag 0.
pub fn user(id: u64) -> Principal {
    Principal {
        kind: PrincipalKind::User,
        project: PROJECT,
        id,
        key_tag: 0,
    }
}

/// A device, with key tag 0.
pub fn device(id: u64) -> Principal {
    Principal {
        kind: PrincipalKind::Device,
        ..user(id)
    }
}

pub fn command(device: u64, name: &str) -> ShardEntry {
    command_of(PROJECT, device, name)
}

pub fn command_of(project: u64, device: u64, name: &str) -> ShardEntry {
    ShardEntry {
        shard: shard_of(device, SHARDS),
        envelope: encode_command(&CommandHeader {
            project,
            device,
            action: name,
            ..CommandHeader::default()
        }),
    }
}

/// The copy of a control record in the shard of this id.
pub fn copy(shard_key: u64, record: &ControlHeader<'_>) -> ShardEntry {
    ShardEntry {
        shard: shard_of(shard_key, SHARDS),
        envelope: encode_control(record),
    }
}

/// A running core.
pub struct Node {
    pub core: Arc<Core>,
    /// Stands until the test turns it by [`Node::advance`].
    pub clock: Clock,
    poll: Poll,
    notifications: VecDeque<Notification>,
}

impl Node {
    pub fn start(limits: Limits) -> Self {
        Self::with_inbox(limits, 16 << 20)
    }

    pub fn with_inbox(limits: Limits, bytes: usize) -> Self {
        let clock = Clock::manual();
        let core = Arc::new(Core::start(limits, bytes, clock.clone()).unwrap());
        let poll = Poll::new().unwrap();
        let descriptor = core.notify_descriptor();
        poll.registry()
            .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)
            .unwrap();
        Self {
            core,
            clock,
            poll,
            notifications: VecDeque::new(),
        }
    }

    pub fn reserve(&self, subscription: Subscription) -> ConnectionId {
        self.reserve_for(user(1), subscription, false)
    }

    pub fn reserve_for(
        &self,
        principal: Principal,
        subscription: Subscription,
        follow: bool,
    ) -> ConnectionId {
        self.reserve_with_deactivated(principal, subscription, follow, &[])
    }

    /// The same for a user with these deactivated homes.
    pub fn reserve_with_deactivated(
        &self,
        principal: Principal,
        subscription: Subscription,
        follow: bool,
        deactivated_homes: &[u64],
    ) -> ConnectionId {
        let subscription = Subscription {
            follows: subscription.follows.filter(|_| follow),
            deactivated_homes: deactivated_homes.to_vec(),
            ..subscription
        };
        self.reserve_as(principal, subscription)
    }

    /// The same with this encoding.
    pub fn reserve_encoded(
        &self,
        encoding: Encoding,
        principal: Principal,
        subscription: Subscription,
    ) -> ConnectionId {
        let subscription = Subscription {
            follows: None,
            encoding,
            ..subscription
        };
        self.reserve_as(principal, subscription)
    }

    /// The same, exactly this.
    pub fn reserve_as(&self, principal: Principal, subscription: Subscription) -> ConnectionId {
        let id = self.core.next_id();
        self.core.reserve(Reservation {
            id,
            principal,
            subscription,
            address: None,
        });
        id
    }

    pub fn adopt(&self, id: ConnectionId, early: &[u8]) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.core
            .adopt(
                id,
                theirs.into_raw_fd(),
                Transport::WebSocket,
                early.to_vec(),
            )
            .unwrap();
        self.core.wake();
        Client::new(ours)
    }

    pub fn connect_for(
        &self,
        principal: Principal,
        subscription: Subscription,
        follow: bool,
    ) -> (ConnectionId, Client) {
        let id = self.reserve_for(principal, subscription, follow);
        (id, self.adopt(id, b""))
    }

    pub fn connect(&self, subscription: Subscription) -> (ConnectionId, Client) {
        let id = self.reserve(subscription);
        (id, self.adopt(id, b""))
    }

    pub fn route(&self, entry: ShardEntry) {
        assert!(self.core.route(vec![entry]));
    }

    /// Returns after the turn that handled everything queued before.
    pub fn fence(&self) {
        let (id, mut witness) = self.connect_for(user(WITNESSED), homes(&[WITNESSED]), false);
        self.route(event(WITNESSED, "fence"));
        // A turned clock may have it pinged.
        witness.receive_until(&Received::event("fence"));
        self.core.close(id, 1000, String::new());
    }

    /// Keeps the reactor busy long enough that the commands queued next are in one turn.
    pub fn occupy(&self) {
        let id = self.reserve(devices(&Vec::from_iter(1000..4000)));
        self.core.abandon(id);
    }

    /// Turns the clock after everything queued before was handled. Returns in or after a turn of the reactor
    /// at the new time.
    pub fn advance(&self, by: Duration) {
        self.fence();
        self.clock.advance(by);
        // The first may end in a turn that started before.
        self.fence();
        self.fence();
    }

    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.core.stats();
        stats.iter().find(|(it, _)| *it == name).unwrap().1
    }

    /// Waits until this counter is not 0; nothing else reports it.
    pub fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while self.stat(name) == 0 {
            assert!(Instant::now() < deadline, "no {name}");
            std::thread::yield_now();
        }
    }

    /// Sends the frames again and again until the core stops reading and the kernel's buffer is full.
    /// Returns how many bytes were taken, at most `most`.
    pub fn send_until_paused(&self, client: &mut Client, frames: &[u8], most: usize) -> usize {
        let deadline = Instant::now() + TIMEOUT;
        let mut written = 0;
        client.socket.set_nonblocking(true).unwrap();
        loop {
            let is_paused = self.stat("reads_paused") > 0;
            match client.socket.write(&frames[written % frames.len()..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_paused {
                        break;
                    }
                    assert!(Instant::now() < deadline, "neither read nor held");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
            assert!(written <= most, "reading never pauses");
        }
        client.socket.set_nonblocking(false).unwrap();
        written
    }

    /// The next notification.
    pub fn notification(&mut self) -> Notification {
        let deadline = Instant::now() + TIMEOUT;
        let mut events = Events::with_capacity(1);
        loop {
            if let Some(notification) = self.notifications.pop_front() {
                return notification;
            }
            self.notifications.extend(self.core.notifications());
            if self.notifications.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(!left.is_zero(), "the core has nothing to say");
                match self.poll.poll(&mut events, Some(left)) {
                    // A signal that stops and continues the process interrupts system calls.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    outcome => outcome.unwrap(),
                }
            }
        }
    }

    /// The next notification about this connection.
    pub fn notification_about(&mut self, wanted: ConnectionId) -> Notification {
        loop {
            match self.notification() {
                Notification::Closed { id, .. }
                | Notification::Message { id, .. }
                | Notification::Adopted { id }
                | Notification::Written { id, .. }
                    if id != wanted => {}
                notification => return notification,
            }
        }
    }

    /// Waits for the end of this connection; returns its close code.
    pub fn closed(&mut self, id: ConnectionId) -> u16 {
        loop {
            match self.notification_about(id) {
                Notification::Closed { code, .. } => return code,
                Notification::Adopted { .. } | Notification::Written { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.core.stop(1001, String::new(), Duration::ZERO);
    }
}
