//! The keys that connections were made with: which are in use, and the end of one that only this node noticed.

use super::super::Reactor;
use crate::connection::{Connection, Holder, PrincipalKind, State};
use crate::reactor::notifications::Notification;
use crate::wire::close;

impl Reactor {
    /// Tells the keys of the users of open connections, in a part that takes `limit` looks.
    pub(in crate::reactor) fn tell_keys_in_use(&mut self, cursor: u32, limit: u32) {
        let end = self
            .connections
            .slots()
            .min(cursor.saturating_add(limit.max(1)));
        let mut keys: Vec<_> = (cursor..end)
            .filter_map(|slot| self.connections.look_at(slot))
            .filter(|it| uses_a_users_key(it))
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

    /// No copies in other shards are to be waited for: they are deaf at once.
    pub(in crate::reactor) fn end_key(&mut self, holder: Holder, key_tag: u64) {
        for slot in self.connections.of(holder) {
            let is_of_key = |it: &Connection| it.principal.key_tag == key_tag;
            if self.connections.look_at(slot).is_some_and(is_of_key) {
                self.condemn(slot, &close::KEY_ENDED);
                self.finish(slot);
            }
        }
    }
}

fn uses_a_users_key(connection: &Connection) -> bool {
    connection.principal.kind == PrincipalKind::User
        && connection.state == State::Open
        && connection.condemned.is_none()
}
