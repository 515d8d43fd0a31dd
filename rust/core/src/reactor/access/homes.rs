//! Control records about homes and their members.
//!
//! A connection may follow its user's homes. It then subscribes to a home when the user joins it, waits
//! while the home is deactivated, and unsubscribes when the user leaves it.

use smallvec::SmallVec;

use super::super::Reactor;
use super::{position, principal_id};
use crate::bus::envelope::{ControlHeader, RecordType};
use crate::connection::PrincipalKind;
use crate::routing::access::Access;
use crate::routing::index::Slot;
use crate::routing::record_dedup::RecordKey;
use crate::routing::topic::{Topic, TopicRef};
use crate::wire::close;

/// Whether a joined home is active.
#[derive(Clone, Copy)]
pub(super) enum HomeState {
    Active,
    /// The connection subscribes once the home is activated.
    Deactivated,
}

impl Reactor {
    /// Whether a membership record is older than the newest record about its home. A repeated membership
    /// must not subscribe to a home that was deactivated since.
    pub(super) fn home_changed(
        &self,
        shard: u32,
        kind: RecordType,
        record: &ControlHeader<'_>,
    ) -> bool {
        if !matches!(kind, RecordType::MemberAdded | RecordType::MemberWaits) {
            return false;
        }
        let home = RecordKey {
            shard: Some(shard),
            project: record.project,
            user: 0,
            home: record.home,
            device: 0,
            key_tag: 0,
            detail: 0,
        };
        self.record_dedup
            .newest(&home)
            .is_some_and(|newest| position(record) < newest)
    }

    pub(super) fn member_added(
        &mut self,
        shard: u32,
        record: &ControlHeader<'_>,
        state: HomeState,
    ) {
        if !self.is_shard_of(shard, record.home) {
            return;
        }
        let user = principal_id(PrincipalKind::User, record.project, record.user);
        for slot in self.connections.slots_of(user) {
            self.join_home(slot, record, state);
        }
    }

    pub(super) fn member_removed(&mut self, shard: u32, record: &ControlHeader<'_>) {
        if !self.is_shard_of(shard, record.home) {
            return;
        }
        let user = principal_id(PrincipalKind::User, record.project, record.user);
        for slot in self.connections.slots_of(user) {
            let Some(connection) = self.connections.at(slot) else {
                continue;
            };
            connection
                .joined_homes
                .retain(|(home, _)| *home != record.home);
            if self.remove_topics(slot, |topic| topic.home() == Some(record.home)) {
                self.close_or_resubscribe(slot, record);
            }
        }
    }

    pub(super) fn home_deleted(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home) = (record.project, record.home);
        if !self.is_shard_of(shard, home) {
            return;
        }
        let gone = |topic: &Topic| topic.project() == project && topic.home() == Some(home);
        let audiences = self.index.audiences_of(gone);
        for slot in self.members_of(&audiences) {
            self.remove_topics(slot, gone);
            self.close_if_no_topics(slot, &close::ACCESS_ENDED);
        }
    }

    /// Connections that follow homes wait for the activation. Others lose the topics for good.
    pub(super) fn home_deactivated(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home) = (record.project, record.home);
        if !self.is_shard_of(shard, home) {
            return;
        }
        let waiting = TopicRef::DeactivatedHome { project, home };
        let is_subscribed = |topic: &Topic| {
            topic.project() == project && topic.home() == Some(home) && topic.as_ref() != waiting
        };
        let audiences = self.index.audiences_of(is_subscribed);
        for slot in self.members_of(&audiences) {
            if self.connections.peek(slot).is_some_and(|it| it.follow) {
                self.update_subscription(slot, |topic| !is_subscribed(topic), &[waiting]);
            } else if self.remove_topics(slot, is_subscribed) {
                self.close_or_resubscribe(slot, record);
            }
        }
    }

    pub(super) fn home_activated(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home) = (record.project, record.home);
        if !self.is_shard_of(shard, home) {
            return;
        }
        for slot in self.subscribers(TopicRef::DeactivatedHome { project, home }) {
            if self
                .connections
                .peek(slot)
                .is_some_and(|it| it.access.may_gain(position(record)))
            {
                self.subscribe_to_home(slot, record, HomeState::Active);
            }
        }
    }

    /// The user of the connection joined the home of the record. A connection that follows homes subscribes
    /// to it.
    fn join_home(&mut self, slot: Slot, record: &ControlHeader<'_>, state: HomeState) {
        let home = record.home;
        let Some(connection) = self
            .connections
            .at(slot)
            .filter(|it| it.access.is_subscribed())
        else {
            return;
        };
        let revoked_at = connection.access.revoked_at();
        if revoked_at.is_some_and(|it| it <= position(record))
            || key_ended_before(record, connection.principal.key_tag)
        {
            // The topic may exist already: the connection was reserved when the store had this record and
            // the stream reader had not.
            if self.remove_topics(slot, |topic| topic.home() == Some(home)) && revoked_at.is_some()
            {
                self.unsubscribe_after_batch(slot);
            }
            return;
        }
        if !connection.access.may_gain(position(record)) {
            return;
        }
        // Also for connections that name their homes, for the same reason: they must lose this home if
        // their key was revoked earlier.
        if connection.access == Access::Active {
            connection.joined_homes.retain(|(known, _)| *known != home);
            connection.joined_homes.push((home, position(record)));
        }
        if connection.follow {
            self.subscribe_to_home(slot, record, state);
        }
    }

    /// Replaces the topics of this home.
    fn subscribe_to_home(&mut self, slot: Slot, record: &ControlHeader<'_>, state: HomeState) {
        let (project, home) = (record.project, record.home);
        let Some(connection) = self.connections.at(slot) else {
            return;
        };
        let entities = connection.entities.take();
        let more: SmallVec<[TopicRef<'_>; 4]> = match (state, &entities) {
            (HomeState::Deactivated, _) => {
                SmallVec::from_iter([TopicRef::DeactivatedHome { project, home }])
            }
            (HomeState::Active, None) => SmallVec::from_iter([TopicRef::Home { project, home }]),
            (HomeState::Active, Some(followed)) => followed
                .0
                .iter()
                .map(|entity| TopicRef::Entity {
                    project,
                    home,
                    entity,
                })
                .collect(),
        };
        self.update_subscription(slot, |topic| topic.home() != Some(home), &more);
        drop(more);
        if let Some(connection) = self.connections.at(slot) {
            connection.entities = entities;
        }
    }
}

/// Whether this key ended before its user joined the home. The copies of that end are in the shards of that
/// moment and in the user's shard, and may be read after this record. Events of the joined home must not be
/// delivered meanwhile.
fn key_ended_before(record: &ControlHeader<'_>, key_tag: u64) -> bool {
    record
        .body
        .chunks_exact(2 * size_of::<u64>())
        .any(|digits| hexadecimal(digits) == Some(key_tag))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}
