//! Slow consumers: limits on the memory and age of unsent frames.
//!
//! Connections that keep up are never scanned. A connection enters the list with the first byte that its
//! socket does not take. The next check after everything was written removes it.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::Reactor;
use crate::connection::ids::ConnectionId;
use crate::connection::{Connection, State};
use crate::send_queue::OfferResult;
use crate::stats::Stats;

/// Interval between two checks of the ages.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Unsent frames have the start time of their turn, and a turn may be delayed. So an age may be too high by
/// this much.
const AGE_TOLERANCE: Duration = Duration::from_millis(1_500);
/// Maximum number of evictions in one turn, so that other connections get their deliveries in between.
const EVICTIONS_PER_TURN: usize = 128;

/// Why a connection must be closed, found while it was written to.
#[derive(Clone, Copy, Debug)]
pub(super) enum SendFailure {
    SocketDead,
    SlowConsumer,
}

/// Connections whose sockets did not take everything.
pub(super) struct Unsent {
    /// Slow consumers. Until the next check the list may contain connections that were removed.
    ids: Vec<ConnectionId>,
    /// Connections to close. This waits until no block is open.
    pub(super) failed: Vec<(ConnectionId, SendFailure)>,
    next_check: Instant,
    over_limit: bool,
}

impl Unsent {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ids: Vec::new(),
            failed: Vec::new(),
            next_check: now + CHECK_INTERVAL,
            over_limit: false,
        }
    }

    /// Notes what the connection's send queue answered to an offer.
    #[inline]
    pub(super) fn settle(&mut self, result: OfferResult, connection: &mut Connection) {
        let failure = match result {
            OfferResult::Written => return,
            OfferResult::Queued => {
                if !std::mem::replace(&mut connection.in_slow_consumers, true) {
                    self.ids.push(connection.id);
                }
                return;
            }
            OfferResult::LimitExceeded => SendFailure::SlowConsumer,
            OfferResult::SocketDead => SendFailure::SocketDead,
        };
        self.failed.push((connection.id, failure));
    }

    /// The number of slow consumers.
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whether the last turn reached the maximum number of evictions and memory is still over the limit.
    pub(super) fn is_over_limit(&self) -> bool {
        self.over_limit
    }
}

impl Reactor {
    /// Evicts the slowest consumers while the memory of all send queues exceeds the limit.
    ///
    /// Evicting the longest queues first frees shared blocks: a shared block lives as long as the slowest
    /// consumer needs it.
    pub(super) fn evict_slow_consumers(&mut self) {
        self.unsent.over_limit = false;
        if self.memory_account.bytes() <= self.limits.send_queues_bytes {
            return;
        }
        let mut behind: Vec<(Reverse<usize>, ConnectionId)> = Vec::new();
        for &id in &self.unsent.ids {
            if let Some(connection) = self.connections.get(id)
                && matches!(connection.state, State::Open | State::Reserved)
                && !connection.send_queue.is_empty()
            {
                behind.push((Reverse(connection.send_queue.memory()), id));
            }
        }
        if behind.len() > EVICTIONS_PER_TURN {
            behind.select_nth_unstable_by_key(EVICTIONS_PER_TURN, |&(waiting, _)| waiting);
            behind.truncate(EVICTIONS_PER_TURN);
            self.unsent.over_limit = true;
        }
        behind.sort_unstable_by_key(|&(waiting, _)| waiting);
        for (_, id) in behind {
            if self.memory_account.bytes() <= self.limits.send_queues_bytes {
                self.unsent.over_limit = false;
                return;
            }
            self.evict(id);
            self.handle_failed_sends();
            Stats::add(&self.shared.stats.evicted_by_memory, 1);
        }
    }

    /// Once a second: evicts connections whose oldest unsent byte is too old.
    pub(super) fn evict_by_age(&mut self) {
        let now = self.now;
        if now < self.unsent.next_check {
            return;
        }
        self.unsent.next_check = now + CHECK_INTERVAL;
        let timeout = self.limits.unsent_age.saturating_add(AGE_TOLERANCE);
        let mut overdue = Vec::new();
        let connections = &mut self.connections;
        self.unsent.ids.retain(|&id| {
            let Some(connection) = connections.get(id) else {
                return false;
            };
            let Some(since) = connection.send_queue.oldest_since() else {
                connection.in_slow_consumers = false;
                return false;
            };
            // Reservations and closing connections have deadlines of their own.
            if connection.state == State::Open && now.duration_since(since) >= timeout {
                overdue.push(id);
            }
            true
        });
        for id in overdue {
            self.evict(id);
            Stats::add(&self.shared.stats.evicted_by_age, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::reactor::Limits;
    use crate::reactor::inbox::ReactorCommand;
    use crate::reactor::test_reactor::{
        adopt, connection, count, limits, no_events, open, reactor, reserve,
    };
    use crate::wire::transport::MessageKind;

    const AGE: Duration = Duration::from_secs(2);

    fn reactor_with_age_limit() -> Reactor {
        reactor(Limits {
            unsent_age: AGE,
            send_queue_bytes: 16 << 20,
            ..limits()
        })
    }

    fn send(reactor: &Reactor, id: ConnectionId, bytes: usize) {
        reactor.shared.inbox.send(ReactorCommand::Send {
            id,
            kind: MessageKind::Binary,
            payload: vec![0; bytes],
        });
    }

    /// The age counts from the turn of the frame, even if the turn before was long ago.
    #[test]
    fn unsent_frame_is_not_older_than_its_turn() {
        let mut reactor = reactor_with_age_limit();
        let id = open(&mut reactor, 1, 1);
        let mut now = Instant::now() + Duration::from_secs(60);
        send(&reactor, id, 10);
        reactor.turn(&no_events(), now);
        now += AGE;
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "evicted_by_age"), 0);
        now += AGE_TOLERANCE;
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "evicted_by_age"), 1);
    }

    /// Has the client not read until a frame is unsent, then read everything.
    fn fall_behind_and_catch_up(
        reactor: &mut Reactor,
        id: ConnectionId,
        client: &mut UnixStream,
        mut now: Instant,
    ) -> Instant {
        send(reactor, id, 1 << 20);
        now += CHECK_INTERVAL;
        reactor.turn(&no_events(), now);
        assert_eq!(reactor.unsent.count(), 1);
        let mut buffer = vec![0; 1 << 16];
        while !connection(reactor, id).send_queue.is_empty() {
            match client.read(&mut buffer) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("{error}"),
                _ => reactor.flush(id),
            }
        }
        now += CHECK_INTERVAL;
        reactor.turn(&no_events(), now);
        assert_eq!(reactor.unsent.count(), 0);
        now
    }

    #[test]
    fn connection_that_falls_behind_again_is_evicted_by_age() {
        let mut reactor = reactor_with_age_limit();
        let id = reserve(&mut reactor, 1, 1);
        let mut client = adopt(&mut reactor, id);
        client.set_nonblocking(true).unwrap();
        let mut now = Instant::now();
        for _ in 0..2 {
            now = fall_behind_and_catch_up(&mut reactor, id, &mut client, now);
        }
        send(&reactor, id, 1 << 20);
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "evicted_by_age"), 0);
        reactor.turn(&no_events(), now + AGE + AGE_TOLERANCE);
        assert_eq!(count(&reactor, "evicted_by_age"), 1);
    }

    #[test]
    fn connection_that_falls_behind_again_is_evicted_by_memory() {
        let mut reactor = reactor(Limits {
            send_queue_bytes: 16 << 20,
            send_queues_bytes: 2 << 20,
            ..limits()
        });
        let id = reserve(&mut reactor, 1, 1);
        let mut client = adopt(&mut reactor, id);
        client.set_nonblocking(true).unwrap();
        let now = fall_behind_and_catch_up(&mut reactor, id, &mut client, Instant::now());
        send(&reactor, id, 4 << 20);
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "evicted_by_memory"), 1);
    }

    /// A client that reads slowly but steadily always has unsent frames, but no old ones.
    #[test]
    fn slow_but_steady_reader_is_not_evicted() {
        const A_SECOND: usize = 600_000;
        let mut reactor = reactor_with_age_limit();
        let id = reserve(&mut reactor, 1, 1);
        let mut client = adopt(&mut reactor, id);
        client.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; A_SECOND];
        let began = Instant::now();
        // More than the kernel buffers, and less than is read in two seconds.
        send(&reactor, id, A_SECOND);
        for second in 1..20 {
            send(&reactor, id, A_SECOND);
            reactor.turn(&no_events(), began + Duration::from_secs(second));
            assert_eq!(count(&reactor, "evicted"), 0, "in second {second}");
            let mut rest = buffer.as_mut_slice();
            while !rest.is_empty() {
                match client.read(rest) {
                    Ok(count) => rest = &mut rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => reactor.flush(id),
                    Err(error) => panic!("{error}"),
                }
            }
            let send_queue = &connection(&mut reactor, id).send_queue;
            assert!(!send_queue.is_empty(), "nothing waits");
        }
    }
}
