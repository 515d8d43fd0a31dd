//! A running core and its clients.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use homewire_core::bus::envelope::{
    CommandHeader, ControlHeader, EventHeader, encode_command, encode_control, encode_event,
};
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::allowance::Rates;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::connection::socket::SocketOptions;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::core::Core;
use homewire_core::reactor::Limits;
use homewire_core::reactor::inbox::Entry;
use homewire_core::reactor::notifications::Notification;
use homewire_core::routing::subscription::{DeviceInHome, Reservation, Subscription};
use homewire_core::wire::encoding::Encoding;
use homewire_core::wire::frame::{Opcode, append_header};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// When a test gives up; nothing that works comes near it.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// What is left to one of the deadlines of [`limits`] comes too late for that.
const TOO_LATE: Duration = Duration::from_secs(60);
pub const PROJECT: u64 = 1;
/// The homes, users and devices 1, 2, 3 and 4 are each in a shard of their own.
pub const SHARDS: u32 = 4;
/// The home whose events only a [`Node`]'s own witness hears.
const WITNESSED: u64 = 999;

/// Heartbeats never come: nothing but what a test does wakes the reactor.
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

pub fn homes(ids: &[u64]) -> Subscription {
    Subscription::Homes(ids.to_vec())
}

/// Devices, all in home 1.
pub fn devices(ids: &[u64]) -> Subscription {
    let in_home = |&device| DeviceInHome { device, home: 1 };
    Subscription::Devices(ids.iter().map(in_home).collect())
}

/// An event of a home; `name` is its type, by which a test knows it again.
pub fn event(home: u64, name: &str) -> Entry {
    event_with_body(home, name, "")
}

pub fn event_with_body(home: u64, name: &str, body: &str) -> Entry {
    entry(&EventHeader {
        project: PROJECT,
        home,
        event_type: name,
        body,
        ..EventHeader::default()
    })
}

pub fn entry(event: &EventHeader<'_>) -> Entry {
    Entry {
        shard: shard_of(event.home, SHARDS),
        envelope: encode_event(event),
    }
}

/// A user, with its key number 0.
pub fn user(id: u64) -> Principal {
    Principal {
        kind: PrincipalKind::User,
        project: PROJECT,
        id,
        key_tag: 0,
    }
}

/// A device, with its key number 0.
pub fn device(id: u64) -> Principal {
    Principal {
        kind: PrincipalKind::Device,
        ..user(id)
    }
}

pub fn command(device: u64, name: &str) -> Entry {
    command_of(PROJECT, device, name)
}

pub fn command_of(project: u64, device: u64, name: &str) -> Entry {
    Entry {
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
pub fn copy(shard_key: u64, record: &ControlHeader<'_>) -> Entry {
    Entry {
        shard: shard_of(shard_key, SHARDS),
        envelope: encode_control(record),
    }
}

/// A running core.
pub struct Node {
    pub core: Arc<Core>,
    poll: Poll,
    notifications: VecDeque<Notification>,
}

impl Node {
    pub fn start(limits: Limits) -> Self {
        Self::with_inbox(limits, 16 << 20)
    }

    pub fn with_inbox(limits: Limits, bytes: usize) -> Self {
        let core = Arc::new(Core::start(limits, bytes).unwrap());
        let poll = Poll::new().unwrap();
        let descriptor = core.notify_descriptor();
        poll.registry()
            .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)
            .unwrap();
        Self {
            core,
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

    /// The same for a user who is also in these homes, which are deactivated.
    pub fn reserve_with_deactivated(
        &self,
        principal: Principal,
        subscription: Subscription,
        follow: bool,
        deactivated_homes: &[u64],
    ) -> ConnectionId {
        let id = self.core.next_id();
        self.core.reserve(Reservation {
            id,
            principal,
            subscription,
            follow,
            deactivated_homes: deactivated_homes.to_vec(),
            encoding: Encoding::Plain,
            address: None,
        });
        id
    }

    pub fn adopt(&self, id: ConnectionId, early: &[u8]) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.core
            .adopt(id, theirs.into_raw_fd(), early.to_vec())
            .unwrap();
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

    pub fn route(&self, entry: Entry) {
        assert!(self.core.route(vec![entry]));
    }

    /// Returns after the turn in which everything that was queued before was obeyed.
    pub fn fence(&self) {
        let (id, mut witness) = self.connect_for(user(WITNESSED), homes(&[WITNESSED]), false);
        self.route(event(WITNESSED, "fence"));
        assert_eq!(witness.receive(), Received::event("fence"));
        self.core.close(id, 1000, String::new());
    }

    /// Keeps the reactor busy for long enough that what is queued next makes one turn.
    pub fn occupy(&self) {
        let id = self.reserve(devices(&Vec::from_iter(1000..4000)));
        self.core.abandon(id);
    }

    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.core.stats();
        stats.iter().find(|(it, _)| *it == name).unwrap().1
    }

    /// Waits until this was counted, which nothing else tells.
    pub fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while self.stat(name) == 0 {
            assert!(Instant::now() < deadline, "no {name}");
            std::thread::yield_now();
        }
    }

    /// Says this over and over, until the core reads no more of it and the kernel has no more room: how
    /// many bytes they took, `most` at the most.
    pub fn send_until_paused(&self, client: &mut Client, frames: &[u8], most: usize) -> usize {
        let deadline = Instant::now() + TIMEOUT;
        let mut write_counts = 0;
        client.socket.set_nonblocking(true).unwrap();
        loop {
            let is_paused = self.stat("reads_paused") > 0;
            match client.socket.write(&frames[write_counts % frames.len()..]) {
                Ok(count) => write_counts += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_paused {
                        break;
                    }
                    assert!(Instant::now() < deadline, "neither read nor held");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
            assert!(write_counts <= most, "nobody waits");
        }
        client.socket.set_nonblocking(false).unwrap();
        write_counts
    }

    /// The next thing that the core tells Python.
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
                    // Whoever stops the process and lets it go on ends its system calls.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    outcome => outcome.unwrap(),
                }
            }
        }
    }

    /// The next thing that the core tells Python about this connection.
    pub fn notification_about(&mut self, wanted: ConnectionId) -> Notification {
        loop {
            match self.notification() {
                Notification::Closed { id, .. }
                | Notification::Message { id, .. }
                | Notification::Reserved { id, .. }
                | Notification::Adopted { id }
                | Notification::Written { id, .. }
                    if id != wanted => {}
                notification => return notification,
            }
        }
    }

    /// Waits for the end of this connection; the code that the core gives for it.
    pub fn closed(&mut self, id: ConnectionId) -> u16 {
        loop {
            match self.notification_about(id) {
                Notification::Closed { code, .. } => return code,
                Notification::Reserved { .. }
                | Notification::Adopted { .. }
                | Notification::Written { .. } => {}
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

/// What a client gets to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An event or command, by its type or action; or any other text.
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The end of the stream, between two frames.
    End,
}

impl Received {
    pub fn event(name: &str) -> Self {
        Self::Text(name.to_owned())
    }
}

/// A client: writes frames as clients do, and reads the server's, whole and unmasked.
pub struct Client {
    pub socket: UnixStream,
    received: Vec<u8>,
}

impl Client {
    pub fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self {
            socket,
            received: Vec::new(),
        }
    }

    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.socket
            .write_all(&client_frame(0x80 | opcode as u8, payload))
            .unwrap();
    }

    pub fn send_close(&mut self, code: u16) {
        self.send(Opcode::Close, &code.to_be_bytes());
    }

    /// The next frame.
    pub fn receive(&mut self) -> Received {
        let Some((first, payload)) = self.frame() else {
            return Received::End;
        };
        match first {
            0x81 => Received::Text(name_of(&payload)),
            0x88 => Received::Close(
                payload
                    .get(..2)
                    .map(|code| u16::from_be_bytes(code.try_into().unwrap())),
            ),
            0x89 => Received::Ping(payload),
            0x8A => Received::Pong(payload),
            other => panic!("a frame that begins with {other:#x}"),
        }
    }

    /// Everything up to and without `last`.
    pub fn receive_until(&mut self, last: &Received) -> Vec<Received> {
        self.receive_until_one_of(std::slice::from_ref(last))
    }

    pub fn receive_until_one_of(&mut self, last: &[Received]) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let received = self.receive();
            if last.contains(&received) {
                return all;
            }
            assert_ne!(received, Received::End, "after {all:?}");
            all.push(received);
        }
    }

    /// First byte and payload of the next frame; `None` at the end of the stream.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        if !self.fill(2) {
            assert!(self.received.is_empty(), "a frame is cut short");
            return None;
        }
        let header = match self.received[1] {
            126 => 4,
            127 => 10,
            short => {
                assert!(short < 126, "a masked frame");
                2
            }
        };
        assert!(self.fill(header), "a frame is cut short");
        let length = match header {
            4 => u64::from(u16::from_be_bytes(self.received[2..4].try_into().unwrap())),
            10 => u64::from_be_bytes(self.received[2..10].try_into().unwrap()),
            _ => u64::from(self.received[1]),
        };
        let end = header + length as usize;
        assert!(self.fill(end), "a frame is cut short");
        let first = self.received[0];
        let payload = self.received[header..end].to_vec();
        self.received.drain(..end);
        Some((first, payload))
    }

    /// Reads until there are so many bytes; `false` when the stream ends before.
    fn fill(&mut self, bytes: usize) -> bool {
        let mut buffer = [0; 4096];
        while self.received.len() < bytes {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                // How a unix socket says that the other end was closed with our bytes unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return false,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error} after {} bytes", self.received.len()),
            }
        }
        true
    }
}

/// A masked frame, from the first byte (FIN, reserved bits, opcode) on.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = Vec::new();
    append_header(&mut frame, Opcode::Text, payload.len());
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

fn name_of(payload: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(payload) {
        Ok(json) => {
            let name = json.get("eventType").or_else(|| json.get("action"));
            name.and_then(|it| it.as_str()).unwrap().to_owned()
        }
        Err(_) => String::from_utf8(payload.to_vec()).unwrap(),
    }
}
