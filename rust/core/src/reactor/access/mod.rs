//! Control records: who may hear what changes here, in line with the events of the same shard.
//!
//! A record is copied to the shards it concerns. Each copy acts on the topics of its own shard only,
//! so that every event read before it is still delivered, and none that is read after it.

mod homes;
mod keys;
pub(super) mod pending_close;
mod topics;

use std::time::Instant;

use super::Reactor;
use crate::bus::envelope::{ControlHeader, RecordType};
use crate::bus::shard::shard_of;
use crate::connection::{Connection, Holder, PrincipalKind};
use crate::routing::index::{ScopeId, Slot};
use crate::routing::record_dedup::{Age, Stamp, Subject};
use crate::routing::topic::{Topic, TopicRef};
use crate::stats::Stats;
use crate::wire::close::{self, CloseCode};
use homes::Hearing;

impl Reactor {
    /// Applies the copy of a record that stood in this shard.
    pub(super) fn apply(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(kind) = RecordType::from_number(record.record_type) else {
            Stats::add(&self.shared.stats.control_records_unknown, 1);
            return;
        };
        if self.age(Some(shard), kind, record) == Age::Older
            || self.home_changed(shard, kind, record)
        {
            Stats::add(&self.shared.stats.control_records_older, 1);
            return;
        }
        Stats::add(&self.shared.stats.control_records, 1);
        match kind {
            RecordType::MemberAdded => self.member_added(shard, record, Hearing::AtOnce),
            RecordType::MemberWaits => self.member_added(shard, record, Hearing::Later),
            RecordType::MemberRemoved => self.member_removed(shard, record),
            RecordType::UserDeleted => {
                let user = holder(PrincipalKind::User, record.project, record.user);
                let end = End::of(record, &close::PRINCIPAL_DELETED);
                self.revoke_all(shard, user, None, end);
            }
            RecordType::KeyEnded => self.key_ended(shard, record),
            RecordType::DeviceDeleted => self.device_deleted(shard, record),
            RecordType::DeviceMoved => self.device_moved(shard, record),
            RecordType::HomeDeleted => self.home_deleted(shard, record),
            RecordType::HomeDeactivated => self.home_deactivated(shard, record),
            RecordType::HomeActivated => self.home_activated(shard, record),
            RecordType::ProjectDisabled | RecordType::ProjectDeleted => {
                self.project_ended(shard, kind, record);
            }
            // It lets nobody hear more who is connected: the gateway asks for its mark.
            RecordType::ProjectEnabled => {}
            RecordType::PermissionEnded => self.permission_ended(shard, record),
            RecordType::EntityMoved => self.entity_moved(shard, record),
        }
    }

    fn age(&mut self, shard: Option<u32>, kind: RecordType, record: &ControlHeader<'_>) -> Age {
        let subject = Subject {
            shard,
            project: record.project,
            user: record.user,
            // Moves of one device are about the device, wherever it goes.
            home: if kind == RecordType::DeviceMoved {
                0
            } else {
                record.home
            },
            device: record.device,
            key_tag: record.key_tag,
            detail: match kind {
                RecordType::PermissionEnded | RecordType::EntityMoved => {
                    self.subjects.detail(record.record_type, record.body)
                }
                _ => 0,
            },
        };
        self.subjects.note(subject, stamp(record), Instant::now())
    }

    pub(super) fn is_shard_of(&self, shard: u32, id: u64) -> bool {
        id != 0 && shard_of(id, self.limits.shards) == shard
    }

    fn key_ended(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let holder = match (record.user, record.device) {
            // A project's key: nobody is connected with one.
            (0, 0) => return,
            (0, device) => holder(PrincipalKind::Device, record.project, device),
            (user, _) => holder(PrincipalKind::User, record.project, user),
        };
        let end = End::of(record, &close::KEY_ENDED);
        self.revoke_all(shard, holder, Some(record.key_tag), end);
    }

    fn device_deleted(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home, device) = (record.project, record.home, record.device);
        if self.is_shard_of(shard, device) {
            for slot in self.listeners(TopicRef::Command { project, device }) {
                self.condemn(slot, &close::PRINCIPAL_DELETED);
                self.finish(slot);
            }
            let device = holder(PrincipalKind::Device, project, device);
            let end = End::of(record, &close::PRINCIPAL_DELETED);
            self.revoke_all(shard, device, None, end);
        }
        if self.is_shard_of(shard, home) {
            let topic = TopicRef::Device {
                project,
                home,
                device,
            };
            for slot in self.listeners(topic) {
                self.lose(slot, |it| it.as_ref() == topic);
                self.end_if_nothing_is_left(slot, &close::ACCESS_ENDED);
            }
        }
    }

    /// The first copy condemns all connections of the project, and each those who listen in its
    /// shard: so only one of the many copies looks at every connection of the node.
    fn project_ended(&mut self, shard: u32, kind: RecordType, record: &ControlHeader<'_>) {
        let project = record.project;
        if self.age(None, kind, record) == Age::Newer {
            for slot in self.connections.which(|it| it.principal.project == project) {
                self.revoke(slot, shard, self.end_of_project(slot, kind, record));
            }
            return;
        }
        let shards = self.limits.shards;
        let scopes = self.index.scopes_of(|topic| {
            topic.project() == project && shard_of(topic.anchor(), shards) == shard
        });
        for slot in self.members_of(&scopes) {
            self.revoke(slot, shard, self.end_of_project(slot, kind, record));
        }
    }

    fn end_of_project(&self, slot: Slot, kind: RecordType, record: &ControlHeader<'_>) -> End {
        let is_doubtful = kind == RecordType::ProjectDisabled
            && self
                .connections
                .look_at(slot)
                .is_some_and(|it| is_older(record, it));
        let why = if is_doubtful {
            &close::RESUBSCRIBE
        } else {
            &close::PROJECT_ENDED
        };
        End::of(record, why)
    }

    fn revoke_all(&mut self, shard: u32, holder: Holder, key_tag: Option<u64>, end: End) {
        for slot in self.connections.of(holder) {
            let with_this_key = |connection: &Connection| {
                key_tag.is_none_or(|tag| connection.principal.key_tag == tag)
            };
            if self.connections.look_at(slot).is_some_and(with_this_key) {
                self.revoke(slot, shard, end);
            }
        }
    }

    /// One copy of a record that ends everything for this connection.
    ///
    /// The record knows the homes of that moment. Shards have no common order: one that the user
    /// entered later may be heard already, and none of the copies would end that.
    fn revoke(&mut self, slot: Slot, shard: u32, end: End) {
        let shards = self.limits.shards;
        self.condemn_in_time(slot, end.why, end.stamp);
        let Some(connection) = self.connections.at(slot) else {
            return;
        };
        let mut later = std::mem::take(&mut connection.entered);
        later.retain(|(_, entered)| *entered > end.stamp);
        self.lose(slot, |topic| {
            shard_of(topic.anchor(), shards) == shard
                || later.iter().any(|(home, _)| topic.home() == Some(*home))
        });
        if !self.hears_anything(slot) {
            self.finish_behind_this_batch(slot);
        }
    }

    /// Takes the topics that are `gone` from a connection. Answers whether it had one.
    pub(super) fn lose(&mut self, slot: Slot, gone: impl Fn(&Topic) -> bool) -> bool {
        let Some(connection) = self.connections.at(slot).filter(|it| !it.deaf) else {
            return false;
        };
        // Looked at before: sealing for nothing would cost its neighbours a write each.
        if !self.index.topics(connection.scope).any(&gone) {
            return false;
        }
        self.rescope(slot, |topic| !gone(topic), &[]);
        true
    }

    pub(super) fn rescope(
        &mut self,
        slot: Slot,
        keep: impl Fn(&Topic) -> bool,
        more: &[TopicRef<'_>],
    ) {
        let Some(connection) = self.connections.at(slot).filter(|it| !it.deaf) else {
            return;
        };
        let (scope, place) = (connection.scope, connection.place);
        self.seal(scope, usize::MAX);
        let Some(change) = self.index.change(slot, scope, place, keep, more) else {
            return;
        };
        if let Some(connection) = change.moved.and_then(|moved| self.connections.at(moved)) {
            connection.place = place;
        }
        let bytes = self.index.topic_bytes(change.scope);
        let mut is_too_much = false;
        if let Some(connection) = self.connections.at(slot) {
            (connection.scope, connection.place) = (change.scope, change.place);
            let all = connection.held.set_topic_bytes(bytes);
            is_too_much = !more.is_empty() && all > self.limits.principal_topic_bytes;
        }
        // What is in its new scope's block was routed before it came.
        self.seal(change.scope, change.place as usize);
        Stats::add(&self.shared.stats.rescopes, 1);
        if is_too_much {
            // It comes again, and is told at its handshake which limit that is.
            self.condemn(slot, &close::RESUBSCRIBE);
            self.finish_behind_this_batch(slot);
        }
    }

    /// A connection lost what the record is about.
    pub(super) fn end_unless_doubtful(&mut self, slot: Slot, record: &ControlHeader<'_>) {
        let is_doubtful = self
            .connections
            .look_at(slot)
            .is_some_and(|it| !it.follow && is_older(record, it));
        if is_doubtful {
            self.condemn(slot, &close::RESUBSCRIBE);
            self.finish_behind_this_batch(slot);
        } else {
            self.end_if_nothing_is_left(slot, &close::ACCESS_ENDED);
        }
    }

    pub(super) fn end_if_nothing_is_left(&mut self, slot: Slot, why: &'static CloseCode) {
        if self.hears_anything(slot) {
            return;
        }
        let Some(connection) = self.connections.look_at(slot) else {
            return;
        };
        if connection.ended.is_some() {
            self.finish_behind_this_batch(slot);
        } else if !connection.follow || connection.condemned.is_some() {
            self.condemn(slot, why);
            self.finish(slot);
        }
    }

    pub(super) fn hears_anything(&mut self, slot: Slot) -> bool {
        self.connections
            .at(slot)
            .filter(|it| !it.deaf)
            .is_some_and(|it| self.index.topics(it.scope).next().is_some())
    }

    pub(super) fn listeners(&mut self, topic: TopicRef<'_>) -> Vec<Slot> {
        let mut scopes = Vec::new();
        self.index.find(&[topic], &mut scopes);
        self.members_of(&scopes)
    }

    pub(super) fn members_of(&self, scopes: &[ScopeId]) -> Vec<Slot> {
        scopes
            .iter()
            .flat_map(|&scope| self.index.members(scope))
            .copied()
            .collect()
    }
}

/// How a record ends all that somebody hears.
#[derive(Clone, Copy)]
struct End {
    why: &'static CloseCode,
    stamp: Stamp,
}

impl End {
    fn of(record: &ControlHeader<'_>, why: &'static CloseCode) -> Self {
        Self {
            why,
            stamp: stamp(record),
        }
    }
}

pub(super) fn stamp(record: &ControlHeader<'_>) -> Stamp {
    (record.outbox_ms, record.outbox_seq)
}

/// Whether a record is from before the connection was reserved, and the tail was behind. What the
/// store said then may have known of it, and of what undid it since: who is told to go away for good
/// might be wronged, so it is told to come again. (If our clock is behind that of Redis, a moment
/// longer it is told the former.)
fn is_older(record: &ControlHeader<'_>, connection: &Connection) -> bool {
    record.outbox_ms <= connection.reserved_ms
}

pub(super) fn holder(kind: PrincipalKind, project: u64, id: u64) -> Holder {
    Holder { kind, project, id }
}
