//! The reactor: one thread that owns the index, audiences, send queues and all sockets.
//!
//! A *turn* reads a bounded amount from the sockets, takes commands from the inbox, writes once to each
//! socket and serves the timers. Sockets come first, while no block is open; so a pong never overtakes an
//! event.

mod access;
mod delivery;
pub mod inbox;
mod lifecycle;
pub mod notifications;
mod queued_commands;
mod slow_consumers;
mod sockets;
#[cfg(test)]
mod test_reactor;
mod timers;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::{Events, Poll};

use crate::bus::cache_versions::CacheVersions;
use crate::clock::Clock;
use crate::connection::allowance::Rates;
use crate::connection::ids::ConnectionId;
use crate::connection::ids::ConnectionIds;
use crate::connection::socket::SocketOptions;
use crate::connection::table::ConnectionTable;
use crate::reactor::inbox::{Inbox, ReactorCommand, ShardEntry};
use crate::reactor::notifications::Notifier;
use crate::routing::router::Router;
use crate::send_queue::WriteCounts;
use crate::send_queue::memory::MemoryAccount;
use crate::stats::Stats;
use crate::wire::encoding::Frames;
use crate::wire::transport::Replies;
use delivery::Routed;
use slow_consumers::Unsent;
use timers::Timers;

/// The token of the inbox's waker; no slot has this number.
pub(crate) const WAKER: mio::Token = mio::Token(usize::MAX);

const EVENTS_PER_TURN: usize = 1024;
const COMMANDS_PER_TURN: usize = 1024;
const ENVELOPES_PER_TURN: usize = 256;
/// A turn ends when a block reaches this size. Larger blocks leave the processor's cache between two
/// sockets, and one block must never exceed the send queue of a client that keeps up.
const BLOCK_BYTES: usize = 64 << 10;
const READ_BUFFER: usize = 64 << 10;
/// Limits on reading in one turn, in bytes and calls over all sockets: about 20,000 of the smallest frames,
/// or 128 reads with a reply. Each takes less than a millisecond. So events, control records and timers get
/// their share of every turn, whatever clients send.
const BYTES_READ_PER_TURN: usize = 128 << 10;
const READS_PER_TURN: usize = 128;
/// After a turn that reached a read limit, reading pauses three times as long as it took, but no longer
/// than this. So a flood takes at most a quarter of the processor, and the threads that bring events are
/// not starved. Flooding clients wait in their own sockets.
const MAX_READ_PAUSE: Duration = Duration::from_millis(5);

/// Intervals and limits of the reactor.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The number of shards.
    pub shards: u32,
    /// Interval between two pings of a connection.
    pub heartbeat: Duration,
    /// Timeout from `reserve` to `adopt`.
    pub reservation: Duration,
    /// Maximum time from the first copy of a revoking record to the close, if copies in other shards do not
    /// arrive.
    pub close_grace: Duration,
    /// Timeout from our close frame to the peer's, and from then to the end of its stream.
    pub close: Duration,
    /// Maximum memory of one send queue, in bytes.
    pub send_queue_bytes: usize,
    /// Maximum memory of all send queues together, in bytes.
    pub send_queues_bytes: usize,
    /// Maximum time that a byte may wait in a send queue.
    pub unsent_age: Duration,
    /// Maximum rates of what one client sends.
    pub inbound: Rates,
    /// Maximum memory of the topics of all connections of a principal, in bytes, when joined homes add
    /// topics. The handshake checks the topics of the subscription itself.
    pub principal_topic_bytes: u64,
    /// Maximum length of a client's message, in bytes.
    pub message_bytes: usize,
    /// Whether clients' messages are passed to Python; otherwise they are checked and dropped. Only tests
    /// set it: no subprotocol with client messages exists yet.
    pub deliver_messages: bool,
    /// Maximum memory of clients' messages that wait for Python, in bytes.
    pub messages_bytes: usize,
    /// Limits on what the kernel buffers for one socket.
    pub socket: SocketOptions,
}

/// What the reactor shares with other threads.
#[derive(Clone)]
pub struct Shared {
    pub clock: Clock,
    pub inbox: Arc<Inbox>,
    pub connection_ids: Arc<ConnectionIds>,
    pub notifier: Arc<Notifier>,
    pub cache_versions: Arc<CacheVersions>,
    pub stats: Arc<Stats>,
}

pub(crate) struct Reactor {
    poll: Poll,
    shared: Shared,
    commands: Receiver<ReactorCommand>,
    limits: Limits,
    connections: ConnectionTable,
    router: Router,
    timers: Timers,
    /// Envelopes of a batch that the last turn did not handle.
    backlog: std::vec::IntoIter<ShardEntry>,
    /// Sockets to read, in order; each at most once.
    unread: VecDeque<ConnectionId>,
    /// No socket is read before this time.
    next_read: Instant,
    /// Sockets that are not read until Python takes its notifications.
    read_paused: Vec<ConnectionId>,
    unsent: Unsent,
    /// Unsubscribed connections that still have to be closed; each at most once.
    close_queue: VecDeque<ConnectionId>,
    memory_account: MemoryAccount,
    frames: Frames,
    buffer: Vec<u8>,
    replies: Replies,
    write_counts: WriteCounts,
    /// When the reactor started.
    began: Instant,
    /// When this turn started.
    now: Instant,
    open: u64,
    reserved: u64,
    stopping: bool,
}

impl Drop for Reactor {
    /// However the reactor ends, also by a panic: blocked senders must be woken.
    fn drop(&mut self) {
        self.shared.inbox.stop();
    }
}

impl Reactor {
    pub(crate) fn new(
        poll: Poll,
        shared: Shared,
        commands: Receiver<ReactorCommand>,
        limits: Limits,
    ) -> Self {
        let now = shared.clock.now();
        Self {
            poll,
            router: Router::new(limits.shards, limits.close_grace, now),
            timers: Timers::new(limits.heartbeat, now),
            shared,
            commands,
            limits,
            connections: ConnectionTable::default(),
            backlog: Vec::new().into_iter(),
            unread: VecDeque::new(),
            next_read: now,
            read_paused: Vec::new(),
            unsent: Unsent::new(now),
            close_queue: VecDeque::new(),
            memory_account: MemoryAccount::new(now),
            frames: Frames::default(),
            buffer: vec![0; READ_BUFFER],
            replies: Replies::default(),
            write_counts: WriteCounts::default(),
            began: now,
            now,
            open: 0,
            reserved: 0,
            stopping: false,
        }
    }

    /// Runs turns until it is stopped and the last connection is removed.
    ///
    /// # Errors
    /// The kernel's, if polling fails.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !(self.stopping && self.open + self.reserved == 0) {
            self.wait(&mut events)?;
            self.turn(&events, self.shared.clock.now());
        }
        Ok(())
    }

    /// One turn, which starts at `now`.
    fn turn(&mut self, events: &Events, now: Instant) {
        self.now = now;
        self.memory_account.set_now(now);
        self.serve_sockets(events);
        self.take_commands();
        self.seal_all();
        self.evict_slow_consumers();
        self.serve_timers();
        self.serve_close_queue();
        self.publish();
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let poll_timeout = if self.shared.inbox.prepare_sleep(&self.commands) && self.is_idle() {
            self.poll_timeout(self.shared.clock.now())
        } else {
            Duration::ZERO
        };
        let outcome = self.poll.poll(events, Some(poll_timeout));
        self.shared.inbox.end_sleep();
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The time until the next deadline.
    fn poll_timeout(&self, now: Instant) -> Duration {
        let mut timers = self.timers.poll_timeout(now);
        if let Some(expiry) = self.router.next_expiry() {
            timers = timers.min(expiry.saturating_duration_since(now));
        }
        if self.unread.is_empty() {
            return timers;
        }
        timers.min(self.next_read.saturating_duration_since(now))
    }

    /// Whether nothing but socket reads is left over from the last turn.
    fn is_idle(&self) -> bool {
        self.backlog.len() == 0 && self.close_queue.is_empty() && !self.unsent.is_over_limit()
    }

    /// Takes commands in order until the turn is full. Remaining envelopes come first in the next turn,
    /// before any later command.
    fn take_commands(&mut self) {
        let mut envelopes = 0;
        let mut released = 0;
        for _ in 0..COMMANDS_PER_TURN {
            while let Some(entry) = self.backlog.next() {
                released += entry.envelope.len();
                envelopes += 1;
                let routed = delivery::route(
                    &entry,
                    &mut self.router,
                    &mut self.frames,
                    &self.shared.stats,
                );
                let is_enough = match routed {
                    Routed::Delivered { longest_block } => longest_block >= BLOCK_BYTES,
                    Routed::QueuedCommand {
                        sequence,
                        expires_ms,
                    } => {
                        self.deliver_queued_command(sequence, expires_ms);
                        self.handle_failed_sends();
                        false
                    }
                    Routed::Control(record) => {
                        let queued_before = self.close_queue.len();
                        self.apply(entry.shard, &record);
                        self.handle_failed_sends();
                        self.closes_fill_turn(queued_before)
                    }
                };
                if is_enough {
                    envelopes = ENVELOPES_PER_TURN;
                }
                if envelopes >= ENVELOPES_PER_TURN {
                    break;
                }
            }
            if self.backlog.len() == 0 && self.end_batch() {
                break;
            }
            if envelopes >= ENVELOPES_PER_TURN {
                break;
            }
            match self.commands.try_recv() {
                Ok(command) => {
                    let queued_before = self.close_queue.len();
                    self.handle_command(command);
                    if self.closes_fill_turn(queued_before) {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        if envelopes > 0 {
            Stats::add(&self.shared.stats.turns, 1);
            self.shared.inbox.release(released);
        }
    }

    /// Whether closing the connections added since `queued_before` fills a turn.
    fn closes_fill_turn(&self, queued_before: usize) -> bool {
        self.close_queue.len() > queued_before + access::CLOSES_PER_TURN
    }

    fn handle_command(&mut self, command: ReactorCommand) {
        match command {
            ReactorCommand::Route(entries) => self.backlog = entries.into_iter(),
            ReactorCommand::Reserve(reservation, count_guard, at_ms) => {
                self.reserve(*reservation, count_guard, at_ms)
            }
            ReactorCommand::Adopt {
                id,
                socket,
                transport,
                early,
            } => self.adopt(id, socket, transport, early),
            ReactorCommand::Gap { shard } => self.resync(shard),
            ReactorCommand::Abandon(id) => self.abandon(id),
            ReactorCommand::DeliverFirst {
                id,
                seen,
                envelopes,
            } => self.deliver_first(id, seen, &envelopes),
            ReactorCommand::Send { id, kind, payload } => self.send(id, kind, &payload),
            ReactorCommand::Close { id, code, reason } => self.close(id, code, &reason),
            ReactorCommand::ActiveKeys { cursor, limit } => self.report_active_keys(cursor, limit),
            ReactorCommand::EndKey {
                principal_id,
                key_tag,
            } => self.end_key(principal_id, key_tag),
            ReactorCommand::ResumeReads => self.unread.extend(self.read_paused.drain(..)),
            ReactorCommand::Stop {
                code,
                reason,
                timeout,
            } => self.stop(code, &reason, timeout),
        }
        self.handle_failed_sends();
    }

    fn publish(&mut self) {
        let stats = &self.shared.stats;
        let write_counts = std::mem::take(&mut self.write_counts);
        Stats::add(&stats.deliveries, write_counts.frames);
        Stats::add(&stats.writes, write_counts.writes);
        Stats::add(&stats.blocked_writes, write_counts.blocked);
        Stats::add(&stats.bytes_written, write_counts.bytes);
        Stats::set(&stats.connections, self.open);
        Stats::set(&stats.reservations, self.reserved);
        Stats::set(&stats.audiences, self.router.audience_count() as u64);
        Stats::set(&stats.send_queues_bytes, self.memory_account.bytes() as u64);
        Stats::set(&stats.slow_consumers, self.unsent.count() as u64);
        Stats::set(&stats.topics, self.router.topic_count() as u64);
    }
}
