//! Deadlines and heartbeats without a timer per connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Reactor;
use super::lifecycle::Ending;
use crate::close;
use crate::connection::{ConnectionId, Deadline, State};
use crate::frame::{self, Opcode};
use crate::stats::Stats;

/// An interval of heartbeats is cut into this many parts; a connection's slot says which is its own,
/// so that pings are spread over the interval.
const PARTS: u32 = 50;

/// The longest the reactor sleeps: a command without hurry waits no longer than this.
const LONGEST_NAP: Duration = Duration::from_millis(500);

/// All waits of one kind are equally long, so a queue keeps them sorted.
pub(super) struct Timers {
    reservations: VecDeque<Deadline>,
    revocations: VecDeque<Deadline>,
    endings: VecDeque<Deadline>,
    step: Duration,
    next_step: Instant,
    part: u32,
    /// When a stopping reactor ends whatever is still open.
    pub(super) last_call: Option<Instant>,
}

impl Timers {
    pub(super) fn new(heartbeat: Duration, now: Instant) -> Self {
        let step = (heartbeat / PARTS).max(Duration::from_millis(1));
        Self {
            reservations: VecDeque::new(),
            revocations: VecDeque::new(),
            endings: VecDeque::new(),
            step,
            next_step: now + step,
            part: 0,
            last_call: None,
        }
    }

    pub(super) fn expect_adoption(&mut self, id: ConnectionId, at: Instant) {
        self.reservations.push_back(Deadline { at, id });
    }

    pub(super) fn expect_revocation(&mut self, id: ConnectionId, at: Instant) {
        self.revocations.push_back(Deadline { at, id });
    }

    pub(super) fn expect_end(&mut self, id: ConnectionId, at: Instant) {
        self.endings.push_back(Deadline { at, id });
    }

    /// How long nothing is due.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        [
            Some(self.next_step),
            self.last_call,
            self.reservations.front().map(|deadline| deadline.at),
            self.revocations.front().map(|deadline| deadline.at),
            self.endings.front().map(|deadline| deadline.at),
        ]
        .into_iter()
        .flatten()
        .min()
        .map_or(LONGEST_NAP, |due| due.saturating_duration_since(now))
        .min(LONGEST_NAP)
    }
}

fn due(queue: &mut VecDeque<Deadline>, now: Instant) -> Option<ConnectionId> {
    if queue.front()?.at > now {
        return None;
    }
    queue.pop_front().map(|deadline| deadline.id)
}

impl Reactor {
    /// Ends what is overdue and sends the pings of this step.
    pub(super) fn serve_timers(&mut self, now: Instant) {
        while let Some(id) = due(&mut self.timers.reservations, now) {
            if self
                .connections
                .get(id)
                .is_some_and(|it| it.state == State::Reserved)
            {
                Stats::add(&self.shared.stats.reservations_expired, 1);
                self.end(id, Ending::ABNORMAL);
            }
        }
        while let Some(id) = due(&mut self.timers.revocations, now) {
            self.finish_overdue(id);
        }
        while let Some(id) = due(&mut self.timers.endings, now) {
            if self.connections.get(id).is_some_and(|it| it.is_closing()) {
                self.end(id, Ending::KEEP);
            }
        }
        self.look_at_ages(now);
        if self.timers.last_call.is_some_and(|at| at <= now) {
            self.end_all();
        }
        while self.timers.next_step <= now {
            self.timers.next_step += self.timers.step;
            self.timers.part = (self.timers.part + 1) % PARTS;
            self.beat(self.timers.part);
            if self.timers.next_step + self.timers.step * PARTS < now {
                // The process slept (a suspended machine): one round of pings is enough.
                self.timers.next_step = now + self.timers.step;
            }
        }
        self.settle_doomed();
    }

    fn beat(&mut self, part: u32) {
        let mut ping = Vec::with_capacity(2);
        frame::append_frame(&mut ping, Opcode::Ping, &[]);
        for slot in (part..self.connections.slots()).step_by(PARTS as usize) {
            let Some(connection) = self.connections.at(slot) else {
                continue;
            };
            if connection.state != State::Open {
                continue;
            }
            let id = connection.id;
            if !std::mem::take(&mut connection.heard) {
                Stats::add(&self.shared.stats.heartbeats_missed, 1);
                self.close_with(id, close::HEARTBEAT_MISSED);
            } else {
                // Also behind a backlog: who is not asked now would be missed at the next beat.
                self.offer_frame(id, &ping, usize::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reactor does not wake up for would be done half a second late.
    #[test]
    fn nothing_that_is_due_is_slept_through() {
        let now = Instant::now();
        let soon = Duration::from_millis(10);
        let expectations: [fn(&mut Timers, Instant); 4] = [
            |timers, at| timers.expect_adoption(ConnectionId::from(1), at),
            |timers, at| timers.expect_revocation(ConnectionId::from(1), at),
            |timers, at| timers.expect_end(ConnectionId::from(1), at),
            |timers, at| timers.last_call = Some(at),
        ];
        for expect in expectations {
            let mut timers = Timers::new(Duration::from_secs(1_000_000), now);
            assert_eq!(timers.patience(now), LONGEST_NAP);
            expect(&mut timers, now + soon);
            assert_eq!(timers.patience(now), soon);
            assert_eq!(timers.patience(now + soon * 2), Duration::ZERO);
        }
    }
}
