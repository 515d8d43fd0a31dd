//! Connections that have to go because of what the bus said: a control record, or that entries of
//! it may be missing. They are deaf at once, and closed with their code a few at a time.

use std::time::Instant;

use super::Reactor;
use crate::close::{self, CloseCode};
use crate::connection::{ConnectionId, State};
use crate::index::Slot;
use crate::shard::shard_of;
use crate::stats::Stats;

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

    /// Condemns a connection that may wait for the record's other copies, but not for long.
    pub(super) fn condemn_in_time(&mut self, slot: Slot, why: &'static CloseCode) {
        if let Some(id) = self.condemn(slot, why) {
            self.timers
                .expect_revocation(id, Instant::now() + self.limits.revocation);
        }
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
