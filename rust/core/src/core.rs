//! The core as a whole: starts the threads, and is the handle that Python holds.

use std::any::Any;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Waker};

use crate::bus::cache_versions::CacheVersions;
use crate::bus::tail::connector::Address;
use crate::bus::tail::{Tail, TailContext, TailError};
use crate::clock::Clock;
use crate::connection::counts::{ConnectionCounts, CountKey, Counts, Thresholds};
use crate::connection::ids::ConnectionId;
use crate::connection::socket::{Socket, SocketOptions, own_descriptor};
use crate::connection::{Principal, PrincipalId};
use crate::reactor::inbox::{Inbox, ReactorCommand, ShardEntry};
use crate::reactor::notifications::{Notification, Notifier};
use crate::reactor::{Limits, Reactor, Shared, WAKER};
use crate::routing::subscription::Reservation;
use crate::stats::Stats;
use crate::wire::transport::{MessageKind, Transport};

/// The reactor and the stream reader. Every call only queues a command.
pub struct Core {
    shared: Shared,
    reactor: Mutex<Option<JoinHandle<()>>>,
    tail: Mutex<Option<Tail>>,
    shards: u32,
    counts: Arc<ConnectionCounts>,
    socket: SocketOptions,
}

impl Core {
    /// Starts the reactor. `inbox_bytes` bounds the envelopes that the stream reader has read ahead.
    ///
    /// # Errors
    /// The kernel's, if no descriptors or threads are left.
    pub fn start(limits: Limits, inbox_bytes: usize, clock: Clock) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let stats = Arc::new(Stats::default());
        let (inbox, commands) = Inbox::new(waker, inbox_bytes, Arc::clone(&stats));
        let cache_versions = Arc::new(CacheVersions::new(limits.shards));
        let shared = Shared {
            clock,
            cache_versions,
            inbox: Arc::new(inbox),
            connection_ids: Arc::default(),
            notifier: Arc::new(Notifier::new(limits.messages_bytes, Arc::clone(&stats))?),
            stats,
        };
        let notifier = Arc::clone(&shared.notifier);
        let with_reactor = shared.clone();
        let (shards, socket) = (limits.shards, limits.socket);
        let thread = guarded("reactor", notifier, move || {
            Reactor::new(poll, with_reactor, commands, limits)
                .run()
                .map_err(|error| error.to_string())
        })?;
        Ok(Self {
            shared,
            reactor: Mutex::new(Some(thread)),
            tail: Mutex::default(),
            shards,
            counts: Arc::default(),
            socket,
        })
    }

    /// Starts to read every shard from its current end. The positions are known on return.
    ///
    /// # Errors
    /// If Redis does not answer, or answers with something unexpected.
    pub fn start_tail(&self, address: Address) -> Result<(), TailError> {
        let context = TailContext {
            clock: self.shared.clock.clone(),
            inbox: Arc::clone(&self.shared.inbox),
            stats: Arc::clone(&self.shared.stats),
            notifier: Arc::clone(&self.shared.notifier),
            cache_versions: Arc::clone(&self.shared.cache_versions),
        };
        let tail = Tail::start(address, self.shards, &context)?;
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(tail);
        Ok(())
    }

    /// The time since Redis last answered the stream reader; the maximum if it was not started.
    pub fn silence(&self) -> Duration {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.as_ref().map_or(Duration::MAX, Tail::silence)
    }

    /// A new connection id, which is never used twice.
    pub fn next_id(&self) -> ConnectionId {
        self.shared.connection_ids.allocate()
    }

    /// Puts a connection into the index before it is authorised and before it has a socket. It is counted
    /// from now on, until it is removed.
    pub fn reserve(&self, reservation: Reservation) {
        let held = self.counts.add(
            reservation.principal,
            reservation.address,
            reservation.subscription.topic_bytes(),
        );
        self.shared.inbox.send_without_wake(ReactorCommand::Reserve(
            Box::new(reservation),
            held,
            self.shared.clock.unix_ms(),
        ));
    }

    /// The numbers of connections, including reservations, of a principal, its project and an address.
    pub fn connection_counts(&self, principal: Principal, address: Option<IpAddr>) -> Counts {
        self.counts.held(principal, address)
    }

    /// The principals, projects and addresses with more connections than their threshold.
    pub fn connections_above(&self, more: Thresholds) -> Vec<(CountKey, u32)> {
        self.counts.above(more)
    }

    /// The cache version of these shards: see [`CacheVersions`].
    pub fn cache_version(&self, shards: impl IntoIterator<Item = u32>) -> u64 {
        self.shared.cache_versions.sum(shards)
    }

    /// The cache version of all shards.
    pub fn cache_version_of_all(&self) -> u64 {
        self.shared.cache_versions.total()
    }

    /// Adopts the socket of an upgraded connection. `descriptor` is a duplicate made for this call; the
    /// core owns it from now on, also on failure. `transport` is that of the reservation. `early` has the
    /// bytes that the client sent right after its request.
    ///
    /// The reactor handles the adoption when it is next awake, at the latest after [`Core::wake`]. So the
    /// adoptions of one turn of the caller's loop take one thread switch together.
    ///
    /// # Errors
    /// The kernel's, if the descriptor is not an open socket.
    pub fn adopt(
        &self,
        id: ConnectionId,
        descriptor: i32,
        transport: Transport,
        early: Vec<u8>,
    ) -> io::Result<()> {
        let socket = Socket::new(own_descriptor(descriptor)?, &self.socket)?;
        self.shared.inbox.send_without_wake(ReactorCommand::Adopt {
            id,
            socket,
            transport,
            early,
        });
        Ok(())
    }

    /// Wakes the reactor if commands wait for it.
    pub fn wake(&self) {
        self.shared.inbox.wake_for_waiting();
    }

    /// Delivers queued commands to a reservation of their device, in the order of their sequences and
    /// before everything that is routed. `seen` is the last sequence that was assigned when they were read.
    /// A routed command with a sequence up to `seen` is not delivered again.
    pub fn deliver_first(&self, id: ConnectionId, seen: u64, envelopes: Vec<Vec<u8>>) {
        self.shared
            .inbox
            .send_without_wake(ReactorCommand::DeliverFirst {
                id,
                seen,
                envelopes,
            });
    }

    /// Removes a reservation.
    pub fn abandon(&self, id: ConnectionId) {
        self.shared.inbox.send(ReactorCommand::Abandon(id));
    }

    /// Sends a message to one connection, after all events that were routed to it.
    pub fn send(&self, id: ConnectionId, kind: MessageKind, payload: Vec<u8>) {
        self.shared
            .inbox
            .send(ReactorCommand::Send { id, kind, payload });
    }

    /// Starts the close handshake of one connection.
    pub fn close(&self, id: ConnectionId, code: u16, reason: String) {
        self.shared
            .inbox
            .send(ReactorCommand::Close { id, code, reason });
    }

    /// Requests the keys of users of open connections, from `cursor` on (0: the start). At most `limit`
    /// slots are scanned; [`Notification::ActiveKeys`] has the result.
    pub fn active_keys(&self, cursor: u32, limit: u32) {
        self.shared
            .inbox
            .send(ReactorCommand::ActiveKeys { cursor, limit });
    }

    /// Closes every connection made with this key, as a control record would.
    pub fn end_key(&self, principal_id: PrincipalId, key_tag: u64) {
        self.shared.inbox.send(ReactorCommand::EndKey {
            principal_id,
            key_tag,
        });
    }

    /// Routes envelopes like the stream reader; for benchmarks and tests of the core alone.
    pub fn route(&self, entries: Vec<ShardEntry>) -> bool {
        self.shared.inbox.route(entries)
    }

    /// Reports a gap in this shard, like the stream reader.
    pub fn gap(&self, shard: u32) -> bool {
        self.shared.inbox.send(ReactorCommand::Gap { shard })
    }

    /// All notifications since the last call.
    pub fn notifications(&self) -> impl Iterator<Item = Notification> + use<> {
        let (items, was_full) = self.shared.notifier.take();
        if was_full {
            self.shared.inbox.send(ReactorCommand::ResumeReads);
        }
        items.into_iter()
    }

    /// Readable while there are notifications.
    pub fn notify_descriptor(&self) -> i32 {
        self.shared.notifier.descriptor()
    }

    /// Counters by name.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        self.shared.stats.snapshot()
    }

    /// Closes every connection with this code, waits at most `timeout` for the clients, and stops the
    /// threads.
    pub fn stop(&self, code: u16, reason: String, timeout: Duration) {
        if let Some(tail) = self
            .tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            tail.stop();
        }
        self.shared.inbox.send(ReactorCommand::Stop {
            code,
            reason,
            timeout,
        });
        let thread = self
            .reactor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            // The panic was caught and reported as a notification where it happened.
        }
    }
}

/// Runs a thread and reports its failure to Python: the core never stops silently.
pub(crate) fn guarded(
    name: &'static str,
    notifier: Arc<Notifier>,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(body));
            let reason = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(reason)) => reason,
                Err(panic) => panic_text(panic.as_ref()),
            };
            notifier.push(Notification::Failed {
                reason: format!("the {name} thread stopped: {reason}"),
            });
        })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
