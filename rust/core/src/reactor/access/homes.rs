//! Control records about homes and who is in them: connections that follow their user's homes hear them,
//! wait for them, or hear them no more.

use smallvec::SmallVec;

use super::super::Reactor;
use super::{holder, stamp};
use crate::bus::envelope::{ControlHeader, RecordType};
use crate::connection::{Connection, PrincipalKind};
use crate::routing::index::Slot;
use crate::routing::record_dedup::Subject;
use crate::routing::topic::{Topic, TopicRef};
use crate::wire::close;

/// When a home is heard that a connection follows.
#[derive(Clone, Copy)]
pub(super) enum Hearing {
    AtOnce,
    /// Once it is activated.
    Later,
}

impl Reactor {
    /// Whether a membership is older than what is known of its home: one that is repeated behind the home's
    /// deactivation would let it be heard.
    pub(super) fn home_changed(
        &self,
        shard: u32,
        kind: RecordType,
        record: &ControlHeader<'_>,
    ) -> bool {
        if !matches!(kind, RecordType::MemberAdded | RecordType::MemberWaits) {
            return false;
        }
        let home = Subject {
            shard: Some(shard),
            project: record.project,
            user: 0,
            home: record.home,
            device: 0,
            key_tag: 0,
            detail: 0,
        };
        self.subjects
            .newest(&home)
            .is_some_and(|newest| stamp(record) < newest)
    }

    pub(super) fn member_added(
        &mut self,
        shard: u32,
        record: &ControlHeader<'_>,
        hearing: Hearing,
    ) {
        if !self.is_shard_of(shard, record.home) {
            return;
        }
        let user = holder(PrincipalKind::User, record.project, record.user);
        for slot in self.connections.of(user) {
            self.enter(slot, record, hearing);
        }
    }

    pub(super) fn member_removed(&mut self, shard: u32, record: &ControlHeader<'_>) {
        if !self.is_shard_of(shard, record.home) {
            return;
        }
        let user = holder(PrincipalKind::User, record.project, record.user);
        for slot in self.connections.of(user) {
            let Some(connection) = self.connections.at(slot) else {
                continue;
            };
            connection.entered.retain(|(home, _)| *home != record.home);
            if self.lose(slot, |topic| topic.home() == Some(record.home)) {
                self.end_unless_doubtful(slot, record);
            }
        }
    }

    pub(super) fn home_deleted(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home) = (record.project, record.home);
        if !self.is_shard_of(shard, home) {
            return;
        }
        let gone = |topic: &Topic| topic.project() == project && topic.home() == Some(home);
        let scopes = self.index.scopes_of(gone);
        for slot in self.members_of(&scopes) {
            self.lose(slot, gone);
            self.end_if_nothing_is_left(slot, &close::ACCESS_ENDED);
        }
    }

    /// Who follows homes waits for it, in the place of what they heard of it; the others lose that for good.
    pub(super) fn home_deactivated(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home) = (record.project, record.home);
        if !self.is_shard_of(shard, home) {
            return;
        }
        let waiting = TopicRef::Waiting { project, home };
        let heard = |topic: &Topic| {
            topic.project() == project && topic.home() == Some(home) && topic.as_ref() != waiting
        };
        let scopes = self.index.scopes_of(heard);
        for slot in self.members_of(&scopes) {
            if self.connections.look_at(slot).is_some_and(|it| it.follow) {
                self.rescope(slot, |topic| !heard(topic), &[waiting]);
            } else if self.lose(slot, heard) {
                self.end_unless_doubtful(slot, record);
            }
        }
    }

    pub(super) fn home_activated(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home) = (record.project, record.home);
        if !self.is_shard_of(shard, home) {
            return;
        }
        for slot in self.listeners(TopicRef::Waiting { project, home }) {
            if self
                .connections
                .look_at(slot)
                .is_some_and(|it| !it.deaf && is_staying(it) && !entered_too_late(it, record))
            {
                self.hear_home(slot, record, Hearing::AtOnce);
            }
        }
    }

    /// The connection's user entered the record's home, which it hears if it follows its user's homes.
    fn enter(&mut self, slot: Slot, record: &ControlHeader<'_>, hearing: Hearing) {
        let home = record.home;
        let Some(connection) = self.connections.at(slot).filter(|it| !it.deaf) else {
            return;
        };
        if entered_too_late(connection, record) {
            // It may hear it: it came when the store knew of this and the tail did not.
            let has_ended = connection.ended.is_some();
            if self.lose(slot, |topic| topic.home() == Some(home)) && has_ended {
                self.finish_behind_this_batch(slot);
            }
            return;
        }
        if !is_staying(connection) {
            return;
        }
        // Of who named its homes, too, for the same reason: it has to lose this one if it ended before.
        if connection.condemned.is_none() {
            connection.entered.retain(|(known, _)| *known != home);
            connection.entered.push((home, stamp(record)));
        }
        if connection.follow {
            self.hear_home(slot, record, hearing);
        }
    }

    /// What a connection that follows homes has of this one, in the place of what it had of it.
    fn hear_home(&mut self, slot: Slot, record: &ControlHeader<'_>, hearing: Hearing) {
        let (project, home) = (record.project, record.home);
        let Some(connection) = self.connections.at(slot) else {
            return;
        };
        let entities = connection.entities.take();
        let more: SmallVec<[TopicRef<'_>; 4]> = match (hearing, &entities) {
            (Hearing::Later, _) => SmallVec::from_iter([TopicRef::Waiting { project, home }]),
            (Hearing::AtOnce, None) => SmallVec::from_iter([TopicRef::Home { project, home }]),
            (Hearing::AtOnce, Some(followed)) => followed
                .0
                .iter()
                .map(|entity| TopicRef::Entity {
                    project,
                    home,
                    entity,
                })
                .collect(),
        };
        self.rescope(slot, |topic| topic.home() != Some(home), &more);
        drop(more);
        if let Some(connection) = self.connections.at(slot) {
            connection.entities = entities;
        }
    }
}

/// Whether a connection hears more than what was read with the record that sends it away.
fn is_staying(connection: &Connection) -> bool {
    connection.condemned.is_none() || connection.ended.is_some()
}

/// Whether a connection had ended when its user entered the record's home. Who is condemned by a later record
/// hears until that one's copy in this shard.
fn entered_too_late(connection: &Connection, record: &ControlHeader<'_>) -> bool {
    connection.ended.is_some_and(|ended| ended <= stamp(record))
        || ended_before(record, connection.principal.key_tag)
}

/// Whether this key had ended when its user entered the home. The end's own copies are in the shards of that
/// moment, and in the user's: it may be read after this record, and what follows here must not be heard.
fn ended_before(record: &ControlHeader<'_>, key_tag: u64) -> bool {
    record
        .body
        .chunks_exact(2 * size_of::<u64>())
        .any(|digits| hexadecimal(digits) == Some(key_tag))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}
