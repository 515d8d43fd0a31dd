//! The keys of connections: which are in use, and the end of a key that only this node noticed.

use super::super::Reactor;
use crate::connection::{Connection, PrincipalId, PrincipalKind, State};
use crate::reactor::notifications::Notification;
use crate::routing::access::{Access, Grace};
use crate::wire::close;

impl Reactor {
    /// Reports the keys of users of open connections, in parts of `limit` slots.
    pub(in crate::reactor) fn report_keys_in_use(&mut self, cursor: u32, limit: u32) {
        let end = self
            .connections
            .slots()
            .min(cursor.saturating_add(limit.max(1)));
        let mut keys: Vec<_> = (cursor..end)
            .filter_map(|slot| self.connections.peek(slot))
            .filter(|it| has_open_user_key(it))
            .map(|it| (it.principal.project, it.principal.id, it.principal.key_tag))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let next = if end < self.connections.slots() {
            end
        } else {
            0
        };
        self.shared
            .notifier
            .push(Notification::KeysInUse { next, keys });
    }

    /// There are no copies in other shards to wait for, so the connections are unsubscribed at once.
    pub(in crate::reactor) fn end_key(&mut self, principal_id: PrincipalId, key_tag: u64) {
        for slot in self.connections.slots_of(principal_id) {
            let is_of_key = |it: &Connection| it.principal.key_tag == key_tag;
            if self.connections.peek(slot).is_some_and(is_of_key) {
                self.revoke_access(slot, &close::KEY_ENDED, Grace::Batch);
                self.unsubscribe(slot);
            }
        }
    }
}

fn has_open_user_key(connection: &Connection) -> bool {
    connection.principal.kind == PrincipalKind::User
        && connection.state == State::Open
        && connection.access == Access::Active
}
