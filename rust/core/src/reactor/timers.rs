//! Deadlines and heartbeats without a timer for each connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Reactor;
use super::lifecycle::EndCode;
use crate::connection::State;
use crate::connection::ids::ConnectionId;
use crate::stats::Stats;
use crate::wire::close;

/// A heartbeat interval is divided into this many parts. The slot of a connection selects its part, so that
/// pings are spread over the interval.
const PARTS: u32 = 50;
/// Maximum delay of pings, in parts. A longer delay postpones all following pings.
const MAX_PARTS_LATE: u32 = PARTS / 4;

/// The maximum sleep of the reactor, and so the maximum delay of a command that does not wake it.
const MAX_POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// A deadline of one connection. Outdated ones are recognised by id and state.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    id: ConnectionId,
}

/// All timeouts of one kind are equal, so each queue is sorted.
pub(super) struct Timers {
    reservations: VecDeque<Deadline>,
    closes: VecDeque<Deadline>,
    step: Duration,
    next_step: Instant,
    part: u32,
    /// When a stopping reactor removes all remaining connections.
    pub(super) stop_deadline: Option<Instant>,
}

impl Timers {
    pub(super) fn new(heartbeat: Duration, now: Instant) -> Self {
        let step = (heartbeat / PARTS).max(Duration::from_millis(1));
        Self {
            reservations: VecDeque::new(),
            closes: VecDeque::new(),
            step,
            next_step: now + step,
            part: 0,
            stop_deadline: None,
        }
    }

    pub(super) fn add_reservation_deadline(&mut self, id: ConnectionId, at: Instant) {
        self.reservations.push_back(Deadline { at, id });
    }

    pub(super) fn add_close_deadline(&mut self, id: ConnectionId, at: Instant) {
        self.closes.push_back(Deadline { at, id });
    }

    /// The time until the next deadline.
    pub(super) fn poll_timeout(&self, now: Instant) -> Duration {
        [
            Some(self.next_step),
            self.stop_deadline,
            self.reservations.front().map(|deadline| deadline.at),
            self.closes.front().map(|deadline| deadline.at),
        ]
        .into_iter()
        .flatten()
        .min()
        .map_or(MAX_POLL_TIMEOUT, |due| due.saturating_duration_since(now))
        .min(MAX_POLL_TIMEOUT)
    }
}

fn due(queue: &mut VecDeque<Deadline>, now: Instant) -> Option<ConnectionId> {
    if queue.front()?.at > now {
        return None;
    }
    queue.pop_front().map(|deadline| deadline.id)
}

impl Reactor {
    /// Handles all deadlines that passed, and sends the pings of this part.
    pub(super) fn serve_timers(&mut self) {
        let now = self.now;
        while let Some(id) = due(&mut self.timers.reservations, now) {
            if self
                .connections
                .get(id)
                .is_some_and(|it| it.state == State::Reserved)
            {
                Stats::add(&self.shared.stats.reservations_expired, 1);
                self.remove(id, EndCode::ABNORMAL);
            }
        }
        let effects = self.router.expire(now);
        self.execute(effects);
        while let Some(id) = due(&mut self.timers.closes, now) {
            if self.connections.get(id).is_some_and(|it| it.is_closing()) {
                self.remove(id, EndCode::KEEP);
            }
        }
        self.evict_by_age();
        if self.timers.stop_deadline.is_some_and(|at| at <= now) {
            self.remove_all();
        }
        while self.timers.next_step <= now {
            self.timers.next_step += self.timers.step;
            self.timers.part = (self.timers.part + 1) % PARTS;
            self.send_heartbeats(self.timers.part);
            if self.timers.next_step + self.timers.step * MAX_PARTS_LATE < now {
                // The process was stalled. If all late pings were sent now, their clients would have little
                // time to answer before their next turn.
                self.timers.next_step = now + self.timers.step;
            }
        }
        self.handle_failed_sends();
    }

    fn send_heartbeats(&mut self, part: u32) {
        for slot in (part..self.connections.slots()).step_by(PARTS as usize) {
            let Some(connection) = self.connections.at(slot) else {
                continue;
            };
            if connection.state != State::Open {
                continue;
            }
            let Some(ping) = connection.transport().ping() else {
                continue;
            };
            let id = connection.id;
            if !std::mem::take(&mut connection.active_since_ping) {
                Stats::add(&self.shared.stats.heartbeats_missed, 1);
                self.close_with(id, close::HEARTBEAT_MISSED);
            } else {
                // Even if frames are queued: without a ping the client would be closed at the next
                // heartbeat.
                self.offer_frame(id, ping, usize::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::reactor::Limits;
    use crate::reactor::test_reactor::{
        adopt, connection, count, limits, next_events, open, reactor, reserve,
    };
    use crate::send_queue::memory;
    use crate::wire::transport::MessageKind;

    const INTERVAL: Duration = Duration::from_secs(50);

    fn beating() -> Reactor {
        reactor(Limits {
            heartbeat: INTERVAL,
            ..limits()
        })
    }

    fn serve_timers_at(reactor: &mut Reactor, now: Instant) {
        reactor.now = now;
        reactor.serve_timers();
    }

    /// Lets that many parts of an interval pass, without a delay.
    fn pass(reactor: &mut Reactor, parts: u32) {
        for _ in 0..parts {
            let due = reactor.timers.next_step;
            serve_timers_at(reactor, due);
        }
    }

    /// A deadline that the poll timeout misses would be handled half a second late.
    #[test]
    fn poll_timeout_ends_at_each_deadline() {
        let now = Instant::now();
        let soon = Duration::from_millis(10);
        let expectations: [fn(&mut Timers, Instant); 3] = [
            |timers, at| timers.add_reservation_deadline(ConnectionId::from(1), at),
            |timers, at| timers.add_close_deadline(ConnectionId::from(1), at),
            |timers, at| timers.stop_deadline = Some(at),
        ];
        for expect in expectations {
            let mut timers = Timers::new(Duration::from_secs(1_000_000), now);
            assert_eq!(timers.poll_timeout(now), MAX_POLL_TIMEOUT);
            expect(&mut timers, now + soon);
            assert_eq!(timers.poll_timeout(now), soon);
            assert_eq!(timers.poll_timeout(now + soon * 2), Duration::ZERO);
        }
    }

    #[test]
    fn heartbeats_are_spread_over_interval() {
        let mut reactor = beating();
        let ids: Vec<_> = (0..2 * u64::from(PARTS))
            .map(|user| open(&mut reactor, 1, user))
            .collect();
        let began = reactor.timers.next_step - reactor.timers.step;
        for part in 1..=PARTS {
            let due = reactor.timers.next_step;
            assert_eq!(due - began, INTERVAL * part / PARTS);
            let nearly = due - Duration::from_millis(1);
            assert_eq!(reactor.timers.poll_timeout(nearly), due - nearly);
            serve_timers_at(&mut reactor, nearly);
            serve_timers_at(&mut reactor, due);
            let asked = ids
                .iter()
                .filter(|&&id| connection(&mut reactor, id).send_queue.memory() > 0);
            assert_eq!(asked.count(), 2 * part as usize);
        }
    }

    #[test]
    fn any_byte_answers_heartbeat() {
        const PONG: [u8; 6] = [0x8A, 0x80, 0x37, 0xFA, 0x21, 0x3D];
        let mut reactor = beating();
        let id = reserve(&mut reactor, 1, 1);
        let mut client = adopt(&mut reactor, id);
        let now = Instant::now();
        for byte in PONG {
            pass(&mut reactor, PARTS);
            client.write_all(&[byte]).unwrap();
            let events = next_events(&mut reactor);
            reactor.turn(&events, now);
        }
        pass(&mut reactor, PARTS);
        assert_eq!(count(&reactor, "heartbeats_missed"), 0);
        pass(&mut reactor, PARTS);
        assert_eq!(count(&reactor, "heartbeats_missed"), 1);
    }

    /// Without a ping, the client would count as silent at the next heartbeat.
    #[test]
    fn heartbeat_is_sent_despite_backlog() {
        let mut reactor = beating();
        let id = open(&mut reactor, 1, 1);
        // One message may exceed the limit on its own.
        let long = vec![b'x'; 2 * limits().send_queue_bytes];
        reactor.send(id, MessageKind::Text, &long);
        let waiting = connection(&mut reactor, id).send_queue.memory();
        assert!(waiting > long.len());
        pass(&mut reactor, PARTS);
        let send_queue = &connection(&mut reactor, id).send_queue;
        assert_eq!(
            send_queue.memory(),
            waiting + memory::entry_memory(2),
            "the ping"
        );
        assert_eq!(count(&reactor, "evicted"), 0);
    }

    #[test]
    fn client_pinged_late_has_full_time_to_answer() {
        for held_up in (1..3 * PARTS).step_by(5) {
            let mut reactor = beating();
            let slots = PARTS.into();
            let ids: Vec<_> = (0..slots).map(|it| open(&mut reactor, 1, it)).collect();
            let mut asked: Vec<Option<(usize, Instant)>> = vec![None; ids.len()];
            for part in 0..6 * PARTS {
                let mut now = reactor.timers.next_step;
                if part == 2 * PARTS {
                    now += reactor.timers.step * held_up;
                }
                serve_timers_at(&mut reactor, now);
                for (&id, asked) in ids.iter().zip(&mut asked) {
                    let client = connection(&mut reactor, id);
                    let waiting = client.send_queue.memory();
                    if asked.is_some_and(|(before, _)| waiting == before) || waiting == 0 {
                        continue;
                    }
                    client.active_since_ping = true;
                    if let Some((_, last)) = asked.replace((waiting, now)) {
                        let time = now - last;
                        assert!(time > INTERVAL * 2 / 3, "{time:?} after {held_up} parts");
                    }
                }
            }
            assert_eq!(count(&reactor, "heartbeats_missed"), 0);
        }
    }

    #[test]
    fn adoption_cancels_reservation_deadline() {
        let mut reactor = reactor(Limits {
            reservation: Duration::from_secs(1),
            ..limits()
        });
        let adopted = reserve(&mut reactor, 1, 1);
        let late = reserve(&mut reactor, 1, 2);
        let _client = adopt(&mut reactor, adopted);
        let due = reactor.now + Duration::from_secs(1);
        serve_timers_at(&mut reactor, due);
        assert_eq!(count(&reactor, "reservations_expired"), 1);
        assert!(reactor.connections.get(late).is_none());
        assert_eq!(connection(&mut reactor, adopted).state, State::Open);
    }
}
