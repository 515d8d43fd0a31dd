//! Revocations: connections lose their topics shard by shard, and are closed when none is left, when the
//! batch ends, or when their grace is over.

use std::time::Instant;

use super::{Effect, Effects, Router};
use crate::bus::shard::shard_of;
use crate::connection::PrincipalId;
use crate::connection::ids::ConnectionId;
use crate::routing::access::{Access, Grace};
use crate::routing::index::Slot;
use crate::routing::record_dedup::OutboxPosition;
use crate::wire::close::{self, CloseCode};

impl Router {
    /// The current batch is routed.
    #[must_use]
    pub fn end_batch(&mut self) -> Effects {
        for id in std::mem::take(&mut self.after_batch) {
            // A membership record older than the end of its key may have added a topic; the end has a copy
            // in that shard, too.
            let waits_for_copy = self
                .access(id)
                .is_some_and(|access| access.revoked_at().is_some())
                && self.has_topics(id.slot());
            if !waits_for_copy {
                self.close(id);
            }
        }
        self.take_effects()
    }

    /// The time is `now`: closes the connections whose grace is over.
    #[must_use]
    pub fn expire(&mut self, now: Instant) -> Effects {
        while self.next_expiry().is_some_and(|at| at <= now)
            && let Some((_, id)) = self.graces.pop_front()
        {
            self.close(id);
        }
        self.take_effects()
    }

    /// When [`Router::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.graces.front().map(|&(at, _)| at)
    }

    /// Entries of this shard may be missing, a revocation among them. Closes every connection with a topic
    /// in the shard, and those whose key's end would be announced there.
    #[must_use]
    pub fn gap(&mut self, shard: u32) -> Effects {
        let shards = self.shards;
        let mut concerned = self.members_with(|topic| shard_of(topic.shard_key(), shards) == shard);
        concerned.extend(self.subscribers.slots_where(|it| {
            it.access.is_subscribed() && shard_of(it.principal.id, shards) == shard
        }));
        for slot in concerned {
            self.close_now(slot, &close::RESYNC);
        }
        self.take_effects()
    }

    /// The key of this principal ended, and no record says so: there are no copies to wait for.
    #[must_use]
    pub fn end_key(&mut self, principal_id: PrincipalId, key_tag: u64) -> Effects {
        for slot in self.subscribers.slots_of(principal_id) {
            if self
                .subscribers
                .at(slot)
                .is_some_and(|it| it.principal.key_tag == key_tag)
            {
                self.close_now(slot, &close::KEY_ENDED);
            }
        }
        self.take_effects()
    }

    /// Closes a connection with 4004 after the batch: it reconnects and is authorised again.
    pub fn request_resubscribe(&mut self, id: ConnectionId) {
        if self.subscribers.get(id).is_some() {
            self.resubscribe_after_batch(id.slot());
        }
    }

    pub(super) fn resubscribe_after_batch(&mut self, slot: Slot) {
        if let Some(subscriber) = self.subscribers.subscribed(slot) {
            subscriber.access.revoke(&close::RESUBSCRIBE, Grace::Batch);
            self.after_batch.push(subscriber.id);
        }
    }

    /// Starts the revocation of a connection that keeps receiving until the other copies of the record at
    /// this position arrive.
    pub(super) fn revoke_by_copies(
        &mut self,
        slot: Slot,
        code: &'static CloseCode,
        since: OutboxPosition,
        now: Instant,
    ) {
        if let Some(subscriber) = self.subscribers.at_mut(slot)
            && subscriber.access.revoke(code, Grace::Copies { since })
        {
            self.graces
                .push_back((now + self.close_grace, subscriber.id));
        }
    }

    /// Closes a connection with this code. It receives nothing more.
    pub(super) fn close_now(&mut self, slot: Slot, code: &'static CloseCode) {
        if let Some(subscriber) = self.subscribers.at_mut(slot) {
            subscriber.access.revoke(code, Grace::Batch);
            let id = subscriber.id;
            self.close(id);
        }
    }

    /// Closes a connection without topics, unless it follows homes and waits for the next one.
    pub(super) fn close_if_no_topics(&mut self, slot: Slot, code: &'static CloseCode) {
        if self.has_topics(slot) {
            return;
        }
        let Some(subscriber) = self.subscribers.subscribed(slot) else {
            return;
        };
        if subscriber.access.revoked_at().is_some() {
            self.after_batch.push(subscriber.id);
        } else if subscriber.follows.is_none() || subscriber.access != Access::Active {
            self.close_now(slot, code);
        }
    }

    pub(super) fn has_topics(&self, slot: Slot) -> bool {
        self.subscribers
            .at(slot)
            .filter(|it| it.access.is_subscribed())
            .is_some_and(|it| self.index.topics(it.audience).next().is_some())
    }

    /// The end of a revocation.
    fn close(&mut self, id: ConnectionId) {
        if self
            .access(id)
            .is_some_and(|access| matches!(access, Access::Revoking { .. }))
        {
            self.leave_audience(id.slot());
            self.effects.push(Effect::Close { id });
        }
    }
}
