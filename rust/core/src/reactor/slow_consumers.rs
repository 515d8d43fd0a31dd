//! Connections that something waits for: what all of them take together, and how old it is.
//!
//! Nobody is looked at who keeps up. A connection comes on the list with the first byte that its
//! socket does not take, and the next look after everything was written takes it off.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::Reactor;
use crate::connection::State;
use crate::connection::ids::ConnectionId;
use crate::stats::Stats;

/// Between two looks at how old things are.
const LOOK: Duration = Duration::from_secs(1);
/// What waits is stamped with the beginning of its turn, and a turn may be held up: that much may be
/// missing from an age that seems to be reached.
const UNCERTAINTY: Duration = Duration::from_millis(1_500);
/// So many are closed in one turn: between two turns the others get what is theirs.
const CLOSED_PER_TURN: usize = 128;

/// The list. It may name connections that ended meanwhile, until the next look.
pub(super) struct Lagging {
    ids: Vec<ConnectionId>,
    next_look: Instant,
    unrelieved: bool,
}

impl Lagging {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ids: Vec::new(),
            next_look: now + LOOK,
            unrelieved: false,
        }
    }

    /// Something waits for this connection; `listed` is its own note of being on the list.
    pub(super) fn note(&mut self, id: ConnectionId, listed: &mut bool) {
        if !std::mem::replace(listed, true) {
            self.ids.push(id);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whether the last turn closed as many as it may, and that was not enough.
    pub(super) fn is_unrelieved(&self) -> bool {
        self.unrelieved
    }
}

impl Reactor {
    /// While all outboxes together take more than they may: closes who is furthest behind.
    ///
    /// What is shared is freed with the last who holds it, and who holds the oldest is furthest behind.
    pub(super) fn relieve(&mut self) {
        self.lagging.unrelieved = false;
        if self.ledger.bytes() <= self.limits.outboxes_bytes {
            return;
        }
        let mut behind: Vec<(Reverse<usize>, ConnectionId)> = Vec::new();
        for &id in &self.lagging.ids {
            if let Some(connection) = self.connections.get(id)
                && matches!(connection.state, State::Open | State::Reserved)
                && !connection.outbox.is_empty()
            {
                behind.push((Reverse(connection.outbox.memory()), id));
            }
        }
        if behind.len() > CLOSED_PER_TURN {
            behind.select_nth_unstable_by_key(CLOSED_PER_TURN, |&(waiting, _)| waiting);
            behind.truncate(CLOSED_PER_TURN);
            self.lagging.unrelieved = true;
        }
        behind.sort_unstable_by_key(|&(waiting, _)| waiting);
        for (_, id) in behind {
            if self.ledger.bytes() <= self.limits.outboxes_bytes {
                self.lagging.unrelieved = false;
                return;
            }
            self.give_up_on(id);
            self.settle_doomed();
            Stats::add(&self.shared.stats.too_slow_in_sum, 1);
        }
    }

    /// Once a second: closes those whose oldest waiting byte is too old.
    pub(super) fn look_at_ages(&mut self, now: Instant) {
        if now < self.lagging.next_look {
            return;
        }
        self.lagging.next_look = now + LOOK;
        let patience = self.limits.unsent_age.saturating_add(UNCERTAINTY);
        let mut overdue = Vec::new();
        let connections = &mut self.connections;
        self.lagging.ids.retain(|&id| {
            let Some(connection) = connections.get(id) else {
                return false;
            };
            let Some(since) = connection.outbox.waiting_since() else {
                connection.lags = false;
                return false;
            };
            // A reservation and a connection that closes have deadlines of their own.
            if connection.state == State::Open && now.duration_since(since) >= patience {
                overdue.push(id);
            }
            true
        });
        for id in overdue {
            self.give_up_on(id);
            Stats::add(&self.shared.stats.too_slow_by_age, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;
    use crate::reactor::Limits;
    use crate::reactor::fixture::{
        adopt, connection, count, limits, no_events, open, reactor, reserve,
    };
    use crate::reactor::inbox::Command;
    use crate::wire::frame::Opcode;

    const AGE: Duration = Duration::from_secs(2);

    fn impatient() -> Reactor {
        reactor(Limits {
            unsent_age: AGE,
            outbox_bytes: 16 << 20,
            ..limits()
        })
    }

    fn send(reactor: &Reactor, id: ConnectionId, bytes: usize) {
        reactor.shared.inbox.send(Command::Send {
            id,
            opcode: Opcode::Binary,
            payload: vec![0; bytes],
        });
    }

    /// However long ago the turn before was: the process may have been held up.
    #[test]
    fn what_waits_is_no_older_than_its_turn() {
        let mut reactor = impatient();
        let id = open(&mut reactor, 1, 1);
        let mut now = Instant::now() + Duration::from_secs(60);
        send(&reactor, id, 10);
        reactor.turn(&no_events(), now);
        now += AGE;
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "too_slow_by_age"), 0);
        now += UNCERTAINTY;
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "too_slow_by_age"), 1);
    }

    /// Who always has something waiting, but nothing old, keeps up slowly and stays.
    #[test]
    fn who_reads_slowly_but_steadily_stays() {
        const A_SECOND: usize = 600_000;
        let mut reactor = impatient();
        let id = reserve(&mut reactor, 1, 1);
        let mut client = adopt(&mut reactor, id);
        client.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; A_SECOND];
        let began = Instant::now();
        // More than the kernel holds, and less than two seconds of it.
        send(&reactor, id, A_SECOND);
        for second in 1..20 {
            send(&reactor, id, A_SECOND);
            reactor.turn(&no_events(), began + Duration::from_secs(second));
            assert_eq!(count(&reactor, "too_slow"), 0, "in second {second}");
            let mut rest = buffer.as_mut_slice();
            while !rest.is_empty() {
                match client.read(rest) {
                    Ok(count) => rest = &mut rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => reactor.flush(id),
                    Err(error) => panic!("{error}"),
                }
            }
            let outbox = &connection(&mut reactor, id).outbox;
            assert!(!outbox.is_empty(), "nothing waits");
        }
    }
}
