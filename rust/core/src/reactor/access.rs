//! Access changes in the reactor: carries out what the router decides, within the budget of each turn.

use super::Reactor;
use crate::bus::envelope::ControlHeader;
use crate::connection::ids::ConnectionId;
use crate::connection::{PrincipalId, PrincipalKind, State};
use crate::reactor::notifications::Notification;
use crate::routing::access::Access;
use crate::routing::router::{Applied, Effect, Effects};
use crate::stats::Stats;

/// Each close costs a write. With more in one turn, deliveries to other connections would be delayed.
pub(super) const CLOSES_PER_TURN: usize = 128;

impl Reactor {
    /// Applies the copy of a record in this shard.
    pub(super) fn apply(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (applied, effects) = self.router.apply(shard, record, self.now);
        let stats = &self.shared.stats;
        match applied {
            Applied::Done => Stats::add(&stats.control_records, 1),
            Applied::Older => Stats::add(&stats.control_records_older, 1),
            Applied::UnknownType => {
                // A later version wrote it. It may end access, so subscribers must not go on without it.
                Stats::add(&stats.control_records_unknown, 1);
                self.resync(shard);
            }
            Applied::Malformed => {
                Stats::add(&stats.control_records, 1);
                Stats::add(&stats.malformed, 1);
            }
        }
        self.execute(effects);
    }

    /// Entries of this shard may be missing.
    pub(super) fn resync(&mut self, shard: u32) {
        Stats::add(&self.shared.stats.gaps, 1);
        let effects = self.router.gap(shard);
        self.execute(effects);
    }

    /// Closes the connections of a key whose end only this node noticed.
    pub(super) fn end_key(&mut self, principal_id: PrincipalId, key_tag: u64) {
        let effects = self.router.end_key(principal_id, key_tag);
        self.execute(effects);
    }

    /// The current batch is routed. Returns whether the closes fill a turn.
    pub(super) fn end_batch(&mut self) -> bool {
        let queued_before = self.close_queue.len();
        let effects = self.router.end_batch();
        self.execute(effects);
        self.closes_fill_turn(queued_before)
    }

    pub(super) fn execute(&mut self, effects: Effects) {
        // Mostly there are none; then this must cost nothing.
        for effect in effects {
            self.execute_one(effect);
        }
    }

    #[inline(never)]
    fn execute_one(&mut self, effect: Effect) {
        match effect {
            Effect::Deliver { block, members } => self.hand_out(block, Some(&members)),
            Effect::TopicBytes {
                id,
                bytes,
                has_grown,
            } => self.count_topics(id, bytes, has_grown),
            Effect::Close { id } => {
                // A reservation is closed once it is adopted.
                if self.connections.get(id).map(|it| it.state) == Some(State::Open) {
                    self.close_queue.push_back(id);
                }
            }
        }
    }

    fn count_topics(&mut self, id: ConnectionId, bytes: usize, has_grown: bool) {
        Stats::add(&self.shared.stats.subscription_changes, 1);
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let all = connection.count_guard.set_topic_bytes(bytes);
        if has_grown && all > self.limits.principal_topic_bytes {
            // The client reconnects, and its handshake names the limit.
            self.router.request_resubscribe(id);
        }
    }

    /// Closes some of the connections that the router closed.
    pub(super) fn serve_close_queue(&mut self) {
        for _ in 0..CLOSES_PER_TURN {
            let Some(id) = self.close_queue.pop_front() else {
                break;
            };
            self.close_if_revoked(id);
        }
        self.handle_failed_sends();
    }

    /// Closes a connection that the router closed, with the code of its revocation.
    pub(super) fn close_if_revoked(&mut self, id: ConnectionId) {
        if let Some(Access::Closed { code: Some(code) }) = self.router.access(id) {
            self.close_with(id, *code);
        }
    }

    /// Reports the keys of users of open connections, in parts of `limit` slots.
    pub(super) fn report_active_keys(&mut self, cursor: u32, limit: u32) {
        let slots = self.connections.slots();
        let end = slots.min(cursor.saturating_add(limit.max(1)));
        let mut keys: Vec<_> = (cursor..end)
            .filter_map(|slot| self.connections.peek(slot))
            .filter(|it| it.state == State::Open)
            .filter(|it| self.router.access(it.id) == Some(Access::Active))
            .filter_map(|it| self.router.principal(it.id))
            .filter(|it| it.kind == PrincipalKind::User)
            .map(|it| (it.project, it.id, it.key_tag))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let next = if end < slots { end } else { 0 };
        self.shared
            .notifier
            .push(Notification::ActiveKeys { next, keys });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::bus::envelope::{EventHeader, encode_control, encode_event};
    use crate::reactor::inbox::{ReactorCommand, ShardEntry};
    use crate::reactor::test_reactor::{adopt, count, limits, no_events, open, reactor, reserve};
    use crate::routing::transitions::RecordType;

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
            record_type: RecordType::ProjectDisabled as u64,
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
            reactor.router.topic_count(),
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
