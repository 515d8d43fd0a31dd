//! Pending closes: connections that a control record or a gap requires to close. They are unsubscribed first,
//! and then closed with their code, a limited number in each turn.

use super::super::Reactor;
use crate::bus::shard::shard_of;
use crate::connection::State;
use crate::connection::ids::ConnectionId;
use crate::routing::access::{Access, Grace};
use crate::routing::index::Slot;
use crate::stats::Stats;
use crate::wire::close::{self, CloseCode};

/// Each close costs a write. With more in one turn, deliveries to other connections would be delayed.
pub(in crate::reactor) const CLOSES_PER_TURN: usize = 128;

impl Reactor {
    /// Starts the revocation of a connection, if it has not started. If copies in other shards have to
    /// arrive first, the connection is closed after the close grace at the latest.
    pub(super) fn revoke_access(&mut self, slot: Slot, code: &'static CloseCode, grace: Grace) {
        let Some(connection) = self.connections.at(slot) else {
            return;
        };
        if connection.access.revoke(code, grace) && matches!(grace, Grace::Copies { .. }) {
            let id = connection.id;
            self.timers
                .add_grace_deadline(id, self.now + self.limits.close_grace);
        }
    }

    /// Unsubscribes a connection with a pending close once the current batch is routed.
    pub(super) fn unsubscribe_after_batch(&mut self, slot: Slot) {
        if let Some(connection) = self
            .connections
            .at(slot)
            .filter(|it| it.access.is_subscribed())
        {
            self.to_unsubscribe.push(connection.id);
        }
    }

    /// The current batch is routed. Returns whether the closes fill a turn.
    pub(in crate::reactor) fn end_batch(&mut self) -> bool {
        let queued_before = self.close_queue.len();
        for id in std::mem::take(&mut self.to_unsubscribe) {
            let Some(connection) = self.connections.get(id) else {
                continue;
            };
            // A membership record older than the end of its key has added a topic; the end has a copy in
            // that shard, too.
            if connection.access.revoked_at().is_none() || !self.has_topics(id.slot()) {
                self.unsubscribe(id.slot());
            }
        }
        self.closes_fill_turn(queued_before)
    }

    /// Unsubscribes a connection with a pending close. It is closed in its turn, or once it is adopted.
    pub(super) fn unsubscribe(&mut self, slot: Slot) {
        let Some(connection) = self
            .connections
            .at(slot)
            .filter(|it| matches!(it.access, Access::Revoking { .. }))
        else {
            return;
        };
        let (id, state) = (connection.id, connection.state);
        self.leave_audience(id);
        if state == State::Open {
            self.close_queue.push_back(id);
        }
    }

    /// The close grace is over.
    pub(in crate::reactor) fn unsubscribe_after_grace(&mut self, id: ConnectionId) {
        if self.connections.get(id).is_some() {
            self.unsubscribe(id.slot());
        }
    }

    /// Closes some of the unsubscribed connections.
    pub(in crate::reactor) fn serve_close_queue(&mut self) {
        for _ in 0..CLOSES_PER_TURN {
            let Some(id) = self.close_queue.pop_front() else {
                break;
            };
            self.close_if_marked(id);
        }
        self.handle_failed_sends();
    }

    /// Closes a connection that is unsubscribed, with the code of its pending close.
    pub(in crate::reactor) fn close_if_marked(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id)
            && let Access::Closed { code: Some(code) } = connection.access
        {
            self.close_with(id, *code);
        }
    }

    /// Entries of this shard may be missing, a revocation among them. Closes every connection with a topic
    /// in the shard, and those whose key's end would be announced there.
    pub(in crate::reactor) fn resync(&mut self, shard: u32) {
        Stats::add(&self.shared.stats.gaps, 1);
        let shards = self.limits.shards;
        let audiences = self
            .index
            .audiences_of(|topic| shard_of(topic.shard_key(), shards) == shard);
        let mut concerned = self.members_of(&audiences);
        concerned.extend(self.connections.slots_where(|it| {
            it.access.is_subscribed() && shard_of(it.principal.id, shards) == shard
        }));
        for slot in concerned {
            self.revoke_access(slot, &close::RESYNC, Grace::Batch);
            self.unsubscribe(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::bus::envelope::{ControlHeader, EventHeader, encode_control, encode_event};
    use crate::reactor::inbox::{ReactorCommand, ShardEntry};
    use crate::reactor::test_reactor::{adopt, count, limits, no_events, open, reactor, reserve};

    const MANY: u64 = 10_000;
    const LARGE: u64 = 1;
    const OTHER: u64 = 2;

    fn event() -> ShardEntry {
        ShardEntry {
            shard: 0,
            envelope: encode_event(&EventHeader {
                project: OTHER,
                home: 1,
                event_type: "on",
                ..EventHeader::default()
            }),
        }
    }

    fn disabled() -> ReactorCommand {
        let record = ControlHeader {
            project: LARGE,
            record_type: 8,
            ..ControlHeader::default()
        };
        ReactorCommand::Route(vec![ShardEntry {
            shard: 0,
            envelope: encode_control(&record),
        }])
    }

    /// Closes many connections of one project, while events of another one are delivered.
    fn end_many(what: ReactorCommand, reported: impl Fn(&Reactor) -> u64) {
        let (mut reactor, now) = (reactor(limits()), Instant::now());
        // Connections without a socket queue everything; only the witness has a socket.
        for user in 0..MANY {
            open(&mut reactor, LARGE, user);
        }
        reactor.shared.inbox.send(what);
        reactor.turn(&no_events(), now);
        assert_eq!(reported(&reactor), CLOSES_PER_TURN as u64);
        assert_eq!(
            reactor.index.topic_count(),
            0,
            "all are unsubscribed at once"
        );

        let witness = reserve(&mut reactor, OTHER, 1);
        let _client = adopt(&mut reactor, witness);
        let mut turns = 1;
        while reported(&reactor) < MANY {
            assert!(!reactor.is_idle(), "it would fall asleep");
            reactor
                .shared
                .inbox
                .send(ReactorCommand::Route(vec![event()]));
            reactor.turn(&no_events(), now);
            turns += 1;
            let deliveries = reactor.shared.stats.snapshot();
            assert!(deliveries.contains(&("deliveries", turns - 1)));
            assert_eq!(reported(&reactor), MANY.min(turns * CLOSES_PER_TURN as u64));
        }
        assert!(reactor.is_idle());
    }

    #[test]
    fn disabled_project_closes_ten_thousand_in_turns_with_deliveries_between() {
        end_many(disabled(), |reactor| count(reactor, "revoked"));
    }

    #[test]
    fn gap_closes_ten_thousand_in_turns_with_deliveries_between() {
        let gap = ReactorCommand::Gap { shard: 0 };
        end_many(gap, |reactor| count(reactor, "resynced"));
    }

    #[test]
    fn record_that_closes_many_ends_its_turn() {
        let (mut reactor, now) = (reactor(limits()), Instant::now());
        for user in 0..=CLOSES_PER_TURN as u64 {
            open(&mut reactor, LARGE, user);
        }
        reserve(&mut reactor, OTHER, 1);
        reactor.shared.inbox.send(disabled());
        reactor
            .shared
            .inbox
            .send(ReactorCommand::Route(vec![event()]));
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "matched"), 0);
        reactor.turn(&no_events(), now);
        assert_eq!(count(&reactor, "matched"), 1);
    }
}
