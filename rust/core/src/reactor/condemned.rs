//! Connections that have to go because of what the bus said: a control record, or that entries of
//! it may be missing. They are deaf at once, and closed with their code a few at a time.

use std::time::Instant;

use super::Reactor;
use crate::close::{self, CloseCode};
use crate::connection::{ConnectionId, State};
use crate::index::Slot;
use crate::shard::shard_of;
use crate::stats::Stats;
use crate::subjects::Stamp;

/// Closing costs a write each: with more in one turn, everybody else's deliveries would wait.
pub(super) const ENDINGS_PER_TURN: usize = 128;

impl Reactor {
    /// Decides how this connection will be closed. Only the first reason counts.
    pub(super) fn condemn(&mut self, slot: Slot, why: &'static CloseCode) -> Option<ConnectionId> {
        let connection = self
            .connections
            .at(slot)
            .filter(|it| !it.deaf && it.condemned.is_none())?;
        connection.condemned = Some(why);
        Some(connection.id)
    }

    /// Condemns a connection that may wait for the other copies of the record, which stands there in
    /// the outbox, but not for long.
    pub(super) fn condemn_in_time(&mut self, slot: Slot, why: &'static CloseCode, stamp: Stamp) {
        if let Some(id) = self.condemn(slot, why) {
            if let Some(connection) = self.connections.at(slot) {
                connection.ended = Some(stamp);
            }
            self.timers
                .expect_revocation(id, Instant::now() + self.limits.revocation);
        }
    }

    /// A condemned connection hears no more once everything is routed that was read with the record.
    pub(super) fn finish_behind_this_batch(&mut self, slot: Slot) {
        if let Some(connection) = self.connections.at(slot).filter(|it| !it.deaf) {
            self.ending.push(connection.id);
        }
    }

    /// Nothing is left of a batch. Whether that ended so many that it took a turn's time.
    pub(super) fn finish_ending(&mut self) -> bool {
        let waiting = self.condemned.len();
        for id in std::mem::take(&mut self.ending) {
            let Some(connection) = self.connections.get(id) else {
                continue;
            };
            // A membership that is older than the end of its key: that has a copy there too.
            if connection.ended.is_none() || !self.hears_anything(id.slot()) {
                self.finish(id.slot());
            }
        }
        self.condemned_many(waiting)
    }

    /// A condemned connection hears no more. It is closed in its turn, or once it is adopted.
    pub(super) fn finish(&mut self, slot: Slot) {
        let Some(connection) = self
            .connections
            .at(slot)
            .filter(|it| !it.deaf && it.condemned.is_some())
        else {
            return;
        };
        let (id, state) = (connection.id, connection.state);
        self.leave(id);
        if state == State::Open {
            self.condemned.push_back(id);
        }
    }

    /// The other copies of its record did not come in time.
    pub(super) fn finish_overdue(&mut self, id: ConnectionId) {
        if self.connections.get(id).is_some() {
            self.finish(id.slot());
        }
    }

    /// Closes some of those who were condemned.
    pub(super) fn end_condemned(&mut self) {
        for _ in 0..ENDINGS_PER_TURN {
            let Some(id) = self.condemned.pop_front() else {
                break;
            };
            self.close_condemned(id);
        }
        self.settle_doomed();
    }

    /// Closes one that was condemned and hears no more, with the code that it was condemned to.
    pub(super) fn close_condemned(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id).filter(|it| it.deaf)
            && let Some(why) = connection.condemned
        {
            self.close_with(id, *why);
        }
    }

    /// Entries of this shard may be missing, a revocation among them: whoever hears something of
    /// it, or would have been told there that its key ended, comes again.
    pub(super) fn resync(&mut self, shard: u32) {
        Stats::add(&self.shared.stats.gaps, 1);
        let shards = self.limits.shards;
        let scopes = self
            .index
            .scopes_of(|topic| shard_of(topic.anchor(), shards) == shard);
        let mut concerned = self.members_of(&scopes);
        concerned.extend(
            self.connections
                .which(|it| !it.deaf && shard_of(it.principal.id, shards) == shard),
        );
        for slot in concerned {
            self.condemn(slot, &close::RESYNC);
            self.finish(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    use mio::{Events, Poll, Waker};

    use super::*;
    use crate::connection::{Principal, PrincipalKind, Socket, SocketOptions};
    use crate::encoding::Encoding;
    use crate::envelope::{ControlHeader, EventHeader, encode_control, encode_event};
    use crate::inbox::{Command, Entry, Inbox, Reservation, Subscription};
    use crate::marks::Marks;
    use crate::notify::Notifier;
    use crate::reactor::{Limits, Shared, WAKER};
    use crate::tally::Tally;

    const MANY: u64 = 10_000;
    const LARGE: u64 = 1;
    const OTHER: u64 = 2;

    /// A reactor that turns when it is told to.
    fn reactor() -> Reactor {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WAKER).unwrap();
        let (inbox, commands) = Inbox::new(waker, usize::MAX, Arc::default());
        let shared = Shared {
            inbox: Arc::new(inbox),
            slots: Arc::default(),
            notifier: Arc::new(Notifier::new(usize::MAX, Arc::default()).unwrap()),
            marks: Arc::new(Marks::new(1)),
            stats: Arc::default(),
        };
        let limits = Limits {
            shards: 1,
            heartbeat: Duration::from_secs(1_000_000),
            reservation: Duration::from_secs(1_000_000),
            revocation: Duration::from_secs(1_000_000),
            close: Duration::from_secs(1_000_000),
            outbox_bytes: 1 << 20,
            outboxes_bytes: usize::MAX,
            unsent_age: Duration::from_secs(1_000_000),
            message_bytes: 1 << 10,
            deliver_messages: false,
            messages_bytes: usize::MAX,
            socket: SocketOptions::default(),
        };
        Reactor::new(poll, shared, commands, limits)
    }

    fn reserve(reactor: &mut Reactor, project: u64, user: u64) -> ConnectionId {
        let id = reactor.shared.slots.take();
        let principal = Principal {
            kind: PrincipalKind::User,
            project,
            id: user,
            key_tag: 0,
        };
        let reservation = Reservation {
            id,
            principal,
            subscription: Subscription::Homes(vec![1]),
            follow: true,
            waiting: Vec::new(),
            encoding: Encoding::Plain,
            address: None,
        };
        let held = Arc::<Tally>::default().hold(principal, None);
        reactor.reserve(reservation, held, 0);
        id
    }

    fn event() -> Entry {
        Entry {
            shard: 0,
            envelope: encode_event(&EventHeader {
                project: OTHER,
                home: 1,
                event_type: "on",
                ..EventHeader::default()
            }),
        }
    }

    fn disabled() -> Command {
        let record = ControlHeader {
            project: LARGE,
            record_type: 8,
            ..ControlHeader::default()
        };
        Command::Route(vec![Entry {
            shard: 0,
            envelope: encode_control(&record),
        }])
    }

    /// Lets many connections of one project end at once, while another's events go on.
    fn end_many(what: Command, told: impl Fn(&Reactor) -> u64) {
        let mut reactor = reactor();
        // Without a socket, what they are told waits: only this test's witness has one.
        for user in 0..MANY {
            let id = reserve(&mut reactor, LARGE, user);
            reactor.connections.get(id).unwrap().state = State::Open;
        }
        reactor.shared.inbox.send(what);
        let events = Events::with_capacity(1);
        reactor.turn(&events);
        assert_eq!(told(&reactor), ENDINGS_PER_TURN as u64);
        assert_eq!(reactor.index.topic_count(), 0, "all are deaf at once");

        let witness = reserve(&mut reactor, OTHER, 1);
        let (_client, ours) = UnixStream::pair().unwrap();
        let socket = Socket::new(OwnedFd::from(ours), &SocketOptions::default()).unwrap();
        reactor.adopt(witness, socket, Vec::new());
        let mut turns = 1;
        while told(&reactor) < MANY {
            assert!(!reactor.is_idle(), "it would fall asleep");
            reactor.shared.inbox.send(Command::Route(vec![event()]));
            reactor.turn(&events);
            turns += 1;
            let deliveries = reactor.shared.stats.snapshot();
            assert!(deliveries.contains(&("deliveries", turns - 1)));
            assert_eq!(told(&reactor), MANY.min(turns * ENDINGS_PER_TURN as u64));
        }
        assert!(reactor.is_idle());
    }

    fn count(reactor: &Reactor, name: &str) -> u64 {
        let stats = reactor.shared.stats.snapshot();
        stats.iter().find(|(it, _)| *it == name).unwrap().1
    }

    #[test]
    fn ten_thousand_of_a_disabled_project_end_in_turns_between_which_others_hear() {
        end_many(disabled(), |reactor| count(reactor, "revoked"));
    }

    #[test]
    fn ten_thousand_end_behind_a_gap_in_turns_between_which_others_hear() {
        let gap = Command::Gap { shard: 0 };
        end_many(gap, |reactor| count(reactor, "resynced"));
    }

    #[test]
    fn a_record_that_ends_many_is_the_last_of_its_turn() {
        let mut reactor = reactor();
        for user in 0..=ENDINGS_PER_TURN as u64 {
            let id = reserve(&mut reactor, LARGE, user);
            reactor.connections.get(id).unwrap().state = State::Open;
        }
        reserve(&mut reactor, OTHER, 1);
        reactor.shared.inbox.send(disabled());
        reactor.shared.inbox.send(Command::Route(vec![event()]));
        let events = Events::with_capacity(1);
        reactor.turn(&events);
        assert_eq!(count(&reactor, "matched"), 0);
        reactor.turn(&events);
        assert_eq!(count(&reactor, "matched"), 1);
    }
}
