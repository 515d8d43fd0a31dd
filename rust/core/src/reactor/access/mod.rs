//! Access changes: control records, applied in order with the events of the same shard.
//!
//! A record is copied to all shards that it concerns. Each copy changes only topics of its own shard. So
//! every event before it is delivered, and none after it.

mod homes;
mod keys;
pub(super) mod pending_close;
mod topics;

use super::Reactor;
use crate::bus::envelope::{ControlHeader, RecordType};
use crate::bus::shard::shard_of;
use crate::connection::{Connection, PrincipalId, PrincipalKind};
use crate::routing::access::{Access, Grace};
use crate::routing::index::{AudienceId, Slot};
use crate::routing::record_dedup::{OutboxPosition, Recency, RecordKey};
use crate::routing::topic::{Topic, TopicRef};
use crate::stats::Stats;
use crate::wire::close::{self, CloseCode};
use homes::HomeState;

impl Reactor {
    /// Applies the copy of a record in this shard.
    pub(super) fn apply(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(kind) = RecordType::from_number(record.record_type) else {
            Stats::add(&self.shared.stats.control_records_unknown, 1);
            return;
        };
        if self.recency(Some(shard), kind, record) == Recency::Older
            || self.home_changed(shard, kind, record)
        {
            Stats::add(&self.shared.stats.control_records_older, 1);
            return;
        }
        Stats::add(&self.shared.stats.control_records, 1);
        match kind {
            RecordType::MemberAdded => self.member_added(shard, record, HomeState::Active),
            RecordType::MemberWaits => self.member_added(shard, record, HomeState::Deactivated),
            RecordType::MemberRemoved => self.member_removed(shard, record),
            RecordType::UserDeleted => {
                let user = principal_id(PrincipalKind::User, record.project, record.user);
                let revocation = Revocation::of(record, &close::PRINCIPAL_DELETED);
                self.revoke_all(shard, user, None, revocation);
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
            // It gives open connections no further access; the handshake depends on its cache version.
            RecordType::ProjectEnabled => {}
            RecordType::PermissionEnded => self.permission_ended(shard, record),
            RecordType::EntityMoved => self.entity_moved(shard, record),
        }
    }

    fn recency(
        &mut self,
        shard: Option<u32>,
        kind: RecordType,
        record: &ControlHeader<'_>,
    ) -> Recency {
        let key = RecordKey {
            shard,
            project: record.project,
            user: record.user,
            // Moves of one device have the same key, whatever the home.
            home: if kind == RecordType::DeviceMoved {
                0
            } else {
                record.home
            },
            device: record.device,
            key_tag: record.key_tag,
            detail: match kind {
                RecordType::PermissionEnded | RecordType::EntityMoved => {
                    self.record_dedup.detail(record.record_type, record.body)
                }
                _ => 0,
            },
        };
        self.record_dedup.observe(key, position(record), self.now)
    }

    pub(super) fn is_shard_of(&self, shard: u32, id: u64) -> bool {
        id != 0 && shard_of(id, self.limits.shards) == shard
    }

    fn key_ended(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let principal_id = match (record.user, record.device) {
            // A key of a project; no connection is made with one.
            (0, 0) => return,
            (0, device) => principal_id(PrincipalKind::Device, record.project, device),
            (user, _) => principal_id(PrincipalKind::User, record.project, user),
        };
        let revocation = Revocation::of(record, &close::KEY_ENDED);
        self.revoke_all(shard, principal_id, Some(record.key_tag), revocation);
    }

    fn device_deleted(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home, device) = (record.project, record.home, record.device);
        if self.is_shard_of(shard, device) {
            for slot in self.subscribers(TopicRef::Command { project, device }) {
                self.revoke_access(slot, &close::PRINCIPAL_DELETED, Grace::Batch);
                self.unsubscribe(slot);
            }
            let device = principal_id(PrincipalKind::Device, project, device);
            let revocation = Revocation::of(record, &close::PRINCIPAL_DELETED);
            self.revoke_all(shard, device, None, revocation);
        }
        if self.is_shard_of(shard, home) {
            let topic = TopicRef::Device {
                project,
                home,
                device,
            };
            for slot in self.subscribers(topic) {
                self.remove_topics(slot, |it| it.as_ref() == topic);
                self.close_if_no_topics(slot, &close::ACCESS_ENDED);
            }
        }
    }

    /// The first copy revokes all connections of the project, each further copy those with topics in its
    /// shard. So only one of the many copies scans all connections of the node.
    fn project_ended(&mut self, shard: u32, kind: RecordType, record: &ControlHeader<'_>) {
        let project = record.project;
        if self.recency(None, kind, record) == Recency::Newer {
            for slot in self
                .connections
                .slots_where(|it| it.principal.project == project)
            {
                self.revoke(slot, shard, self.project_revocation(slot, kind, record));
            }
            return;
        }
        let shards = self.limits.shards;
        let audiences = self.index.audiences_of(|topic| {
            topic.project() == project && shard_of(topic.shard_key(), shards) == shard
        });
        for slot in self.members_of(&audiences) {
            self.revoke(slot, shard, self.project_revocation(slot, kind, record));
        }
    }

    fn project_revocation(
        &self,
        slot: Slot,
        kind: RecordType,
        record: &ControlHeader<'_>,
    ) -> Revocation {
        let predates = kind == RecordType::ProjectDisabled
            && self
                .connections
                .peek(slot)
                .is_some_and(|it| predates_reservation(record, it));
        let why = if predates {
            &close::RESUBSCRIBE
        } else {
            &close::PROJECT_ENDED
        };
        Revocation::of(record, why)
    }

    fn revoke_all(
        &mut self,
        shard: u32,
        principal_id: PrincipalId,
        key_tag: Option<u64>,
        revocation: Revocation,
    ) {
        for slot in self.connections.slots_of(principal_id) {
            let with_this_key = |connection: &Connection| {
                key_tag.is_none_or(|tag| connection.principal.key_tag == tag)
            };
            if self.connections.peek(slot).is_some_and(with_this_key) {
                self.revoke(slot, shard, revocation);
            }
        }
    }

    /// Applies one copy of a record that revokes the connection.
    ///
    /// The record has copies in the shards of its user's homes at that moment. Shards have no common order:
    /// the connection may already be subscribed to a home that the user joined later, and no copy would
    /// remove it. So every copy removes such homes.
    fn revoke(&mut self, slot: Slot, shard: u32, revocation: Revocation) {
        let shards = self.limits.shards;
        let grace = Grace::Copies {
            since: revocation.position,
        };
        self.revoke_access(slot, revocation.why, grace);
        let Some(connection) = self.connections.at(slot) else {
            return;
        };
        let mut later = std::mem::take(&mut connection.joined_homes);
        later.retain(|(_, joined_at)| *joined_at > revocation.position);
        self.remove_topics(slot, |topic| {
            shard_of(topic.shard_key(), shards) == shard
                || later.iter().any(|(home, _)| topic.home() == Some(*home))
        });
        if !self.has_topics(slot) {
            self.unsubscribe_after_batch(slot);
        }
    }

    /// Removes the topics for which `gone` is true. Returns whether there was one.
    pub(super) fn remove_topics(&mut self, slot: Slot, gone: impl Fn(&Topic) -> bool) -> bool {
        let Some(connection) = self
            .connections
            .at(slot)
            .filter(|it| it.access.is_subscribed())
        else {
            return false;
        };
        // Checked first: sealing without a change would cost the other members a write each.
        if !self.index.topics(connection.audience).any(&gone) {
            return false;
        }
        self.update_subscription(slot, |topic| !gone(topic), &[]);
        true
    }

    pub(super) fn update_subscription(
        &mut self,
        slot: Slot,
        keep: impl Fn(&Topic) -> bool,
        more: &[TopicRef<'_>],
    ) {
        let Some(connection) = self
            .connections
            .at(slot)
            .filter(|it| it.access.is_subscribed())
        else {
            return;
        };
        let (audience, place) = (connection.audience, connection.place);
        self.seal(audience, usize::MAX);
        let Some(change) = self.index.change(slot, audience, place, keep, more) else {
            return;
        };
        if let Some(connection) = change.moved.and_then(|moved| self.connections.at(moved)) {
            connection.place = place;
        }
        let bytes = self.index.topic_bytes(change.audience);
        let mut exceeds_limit = false;
        if let Some(connection) = self.connections.at(slot) {
            (connection.audience, connection.place) = (change.audience, change.place);
            let all = connection.count_guard.set_topic_bytes(bytes);
            exceeds_limit = !more.is_empty() && all > self.limits.principal_topic_bytes;
        }
        // The block of the new audience contains events from before the change.
        self.seal(change.audience, change.place as usize);
        Stats::add(&self.shared.stats.subscription_changes, 1);
        if exceeds_limit {
            // The client reconnects, and its handshake names the limit.
            self.revoke_access(slot, &close::RESUBSCRIBE, Grace::Batch);
            self.unsubscribe_after_batch(slot);
        }
    }

    /// The connection lost the topic of the record: closes it if it has no topics left, or requests a new
    /// subscription.
    pub(super) fn close_or_resubscribe(&mut self, slot: Slot, record: &ControlHeader<'_>) {
        let predates = self
            .connections
            .peek(slot)
            .is_some_and(|it| !it.follow && predates_reservation(record, it));
        if predates {
            self.revoke_access(slot, &close::RESUBSCRIBE, Grace::Batch);
            self.unsubscribe_after_batch(slot);
        } else {
            self.close_if_no_topics(slot, &close::ACCESS_ENDED);
        }
    }

    pub(super) fn close_if_no_topics(&mut self, slot: Slot, why: &'static CloseCode) {
        if self.has_topics(slot) {
            return;
        }
        let Some(connection) = self.connections.peek(slot) else {
            return;
        };
        if connection.access.revoked_at().is_some() {
            self.unsubscribe_after_batch(slot);
        } else if !connection.follow || connection.access != Access::Active {
            self.revoke_access(slot, why, Grace::Batch);
            self.unsubscribe(slot);
        }
    }

    pub(super) fn has_topics(&mut self, slot: Slot) -> bool {
        self.connections
            .at(slot)
            .filter(|it| it.access.is_subscribed())
            .is_some_and(|it| self.index.topics(it.audience).next().is_some())
    }

    pub(super) fn subscribers(&mut self, topic: TopicRef<'_>) -> Vec<Slot> {
        let mut audiences = Vec::new();
        self.index.find(&[topic], &mut audiences);
        self.members_of(&audiences)
    }

    pub(super) fn members_of(&self, audiences: &[AudienceId]) -> Vec<Slot> {
        audiences
            .iter()
            .flat_map(|&audience| self.index.members(audience))
            .copied()
            .collect()
    }
}

/// How a record revokes a connection.
#[derive(Clone, Copy)]
struct Revocation {
    why: &'static CloseCode,
    position: OutboxPosition,
}

impl Revocation {
    fn of(record: &ControlHeader<'_>, why: &'static CloseCode) -> Self {
        Self {
            why,
            position: position(record),
        }
    }
}

pub(super) fn position(record: &ControlHeader<'_>) -> OutboxPosition {
    (record.outbox_ms, record.outbox_seq)
}

/// Whether the record is older than the reservation, because the stream reader was behind. The handshake
/// may then have read a state that includes the record and later changes. A final close code could be
/// wrong, so the client is asked to reconnect. (If our clock is behind that of Redis, the final code is
/// sent for a moment longer.)
fn predates_reservation(record: &ControlHeader<'_>, connection: &Connection) -> bool {
    record.outbox_ms <= connection.reserved_ms
}

pub(super) fn principal_id(kind: PrincipalKind, project: u64, id: u64) -> PrincipalId {
    PrincipalId { kind, project, id }
}
