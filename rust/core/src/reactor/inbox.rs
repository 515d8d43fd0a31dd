//! The inbox of the reactor: one FIFO for reservations, adoptions, control records and events.
//!
//! They have a common order only because they share this queue: an event that is appended after a client
//! received 101 is read after its reservation was queued.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use crate::connection::PrincipalId;
use crate::connection::counts::CountGuard;
use crate::connection::ids::ConnectionId;
use crate::connection::socket::Socket;
use crate::routing::subscription::Reservation;
use crate::stats::Stats;
use crate::wire::transport::{MessageKind, Transport};

/// An entry of a shard, as it was read.
#[derive(Debug, Clone)]
pub struct ShardEntry {
    pub shard: u32,
    pub envelope: Vec<u8>,
}

/// A command to the reactor.
pub enum ReactorCommand {
    /// The reservation, its share of the counts, and when it was made (milliseconds since 1970, UTC). It
    /// may stay in the queue for a while.
    Reserve(Box<Reservation>, CountGuard, u64),
    Adopt {
        id: ConnectionId,
        socket: Socket,
        /// For our last frame, if the reservation has expired.
        transport: Transport,
        early: Vec<u8>,
    },
    Abandon(ConnectionId),
    /// Delivers queued commands to a reservation, before all live ones.
    DeliverFirst {
        id: ConnectionId,
        /// The last sequence that was assigned when the commands were read.
        seen: u64,
        envelopes: Vec<Vec<u8>>,
    },
    Send {
        id: ConnectionId,
        kind: MessageKind,
        payload: Vec<u8>,
    },
    Close {
        id: ConnectionId,
        code: u16,
        reason: String,
    },
    Route(Vec<ShardEntry>),
    /// Entries of this shard may be missing between earlier and later ones.
    Gap {
        shard: u32,
    },
    /// Report the keys of users of open connections: see [`crate::core::Core::active_keys`].
    ActiveKeys {
        cursor: u32,
        limit: u32,
    },
    /// Closes every connection that was made with this key of the principal.
    EndKey {
        principal_id: PrincipalId,
        key_tag: u64,
    },
    /// Python took its notifications: paused sockets may be read again.
    ResumeReads,
    Stop {
        code: u16,
        reason: String,
        timeout: Duration,
    },
}

/// The sending side, shared by the threads of Python and the stream reader.
pub struct Inbox {
    sender: Sender<ReactorCommand>,
    waker: Waker,
    asleep: AtomicBool,
    stopped: AtomicBool,
    stats: Arc<Stats>,
    limit: usize,
    has_room: Mutex<()>,
    room: Condvar,
}

impl Inbox {
    /// `limit` is in bytes of envelopes.
    pub fn new(waker: Waker, limit: usize, stats: Arc<Stats>) -> (Self, Receiver<ReactorCommand>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let inbox = Self {
            sender,
            waker,
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stats,
            limit,
            has_room: Mutex::new(()),
            room: Condvar::new(),
        };
        (inbox, receiver)
    }

    /// Queues a command that needs its place in the order but no immediate handling. The next other command
    /// or timer wakes the reactor. This saves a handshake one thread switch.
    pub fn send_without_wake(&self, command: ReactorCommand) -> bool {
        self.sender.send(command).is_ok()
    }

    /// Queues a command and wakes the reactor. Returns whether the reactor still runs.
    pub fn send(&self, command: ReactorCommand) -> bool {
        if self.sender.send(command).is_err() {
            return false;
        }
        self.wake_if_asleep()
    }

    /// Wakes the reactor if commands were queued without waking it. Returns whether it still runs.
    pub fn wake_for_waiting(&self) -> bool {
        self.sender.is_empty() || self.wake_if_asleep()
    }

    /// Queues envelopes. Blocks while too many bytes are queued; the events stay in Redis meanwhile.
    pub fn route(&self, entries: Vec<ShardEntry>) -> bool {
        let bytes: usize = entries.iter().map(|entry| entry.envelope.len()).sum();
        let mut guard = self.has_room.lock().unwrap_or_else(PoisonError::into_inner);
        while self.stats.inbox_bytes.load(Ordering::Relaxed) as usize >= self.limit {
            if self.stopped.load(Ordering::Relaxed) {
                return false;
            }
            guard = self
                .room
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.stats
            .inbox_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        drop(guard);
        self.send(ReactorCommand::Route(entries))
    }

    /// The reactor has handled this many bytes of envelopes.
    pub(crate) fn release(&self, bytes: usize) {
        let before = self
            .stats
            .inbox_bytes
            .fetch_sub(bytes as u64, Ordering::Relaxed) as usize;
        if before >= self.limit {
            let _guard = self.has_room.lock().unwrap_or_else(PoisonError::into_inner);
            self.room.notify_all();
        }
    }

    /// The reactor has stopped; wakes all blocked senders.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _guard = self.has_room.lock().unwrap_or_else(PoisonError::into_inner);
        self.room.notify_all();
    }

    /// The reactor is about to sleep; every command from now on wakes it. Returns whether it may sleep,
    /// because no command came before.
    pub(crate) fn prepare_sleep(&self, commands: &Receiver<ReactorCommand>) -> bool {
        // In this order: a command between the two steps is either seen here or wakes the reactor.
        self.asleep.store(true, Ordering::SeqCst);
        commands.is_empty()
    }

    pub(crate) fn end_sleep(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn wake_if_asleep(&self) -> bool {
        !self.asleep.swap(false, Ordering::SeqCst) || self.waker.wake().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use mio::{Events, Poll, Token};

    use super::*;

    fn pause(turns: u64) {
        for _ in 0..turns {
            std::hint::spin_loop();
        }
    }

    /// For a second, commands arrive at every moment of going to sleep; a sleep ends only by a wake-up.
    #[test]
    fn no_wake_up_is_lost() {
        const FOR_EVER: Duration = Duration::from_secs(20);
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (inbox, commands) = Inbox::new(waker, usize::MAX, Arc::default());
        let received = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let began = Instant::now();
                let mut sent = 0;
                while began.elapsed() < Duration::from_secs(1) {
                    sent += 1;
                    inbox.send(ReactorCommand::ResumeReads);
                    while received.load(Ordering::Relaxed) < sent {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        std::hint::spin_loop();
                    }
                    pause(sent % 31);
                }
                over.store(true, Ordering::Relaxed);
                inbox.send(ReactorCommand::ResumeReads);
            });
            let mut events = Events::with_capacity(1);
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                if inbox.prepare_sleep(&commands) {
                    let slept = poll.poll(&mut events, Some(FOR_EVER));
                    // A signal that stops and continues the process interrupts system calls.
                    let was_stopped =
                        slept.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
                    if events.is_empty() && !was_stopped {
                        over.store(true, Ordering::Relaxed);
                        panic!("sent {count} was not received");
                    }
                }
                inbox.end_sleep();
                count += commands.try_iter().count() as u64;
                received.store(count, Ordering::Relaxed);
                pause(count % 29);
            }
        });
    }
}
