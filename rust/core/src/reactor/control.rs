//! Control records: who may hear what changes here, in line with the events of the same shard.
//!
//! A record is copied to the shards it concerns. Each copy acts on the topics of its own shard only,
//! so that every event read before it is still delivered, and none that is read after it.

use std::time::Instant;

use smallvec::SmallVec;

use super::Reactor;
use crate::close::{self, CloseCode};
use crate::connection::{Holder, PrincipalKind};
use crate::envelope::{ControlHeader, RecordType};
use crate::index::{ScopeId, Slot};
use crate::shard::shard_of;
use crate::stats::Stats;
use crate::subjects::{Age, Subject};
use crate::topic::{Topic, TopicRef};

impl Reactor {
    /// Applies the copy of a record that stood in this shard.
    pub(super) fn apply(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(kind) = RecordType::from_number(record.record_type) else {
            Stats::add(&self.shared.stats.control_records_unknown, 1);
            return;
        };
        if self.age(Some(shard), kind, record) == Age::Older {
            Stats::add(&self.shared.stats.control_records_older, 1);
            return;
        }
        Stats::add(&self.shared.stats.control_records, 1);
        match kind {
            RecordType::MemberAdded => self.member_added(shard, record),
            RecordType::MemberRemoved => self.member_removed(shard, record),
            RecordType::UserDeleted => {
                let user = holder(PrincipalKind::User, record.project, record.user);
                self.revoke_all(shard, user, None, &close::PRINCIPAL_DELETED);
            }
            RecordType::KeyEnded => self.key_ended(shard, record),
            RecordType::DeviceDeleted => self.device_deleted(shard, record),
            RecordType::DeviceMoved => self.device_moved(shard, record),
            RecordType::HomeDeleted => self.home_deleted(shard, record),
            RecordType::ProjectDisabled | RecordType::ProjectDeleted => {
                self.project_ended(shard, kind, record);
            }
            // It lets nobody hear more who is connected: the gateway asks for its mark.
            RecordType::ProjectEnabled => {}
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
        };
        let stamp = (record.outbox_ms, record.outbox_seq);
        self.subjects.note(subject, stamp, Instant::now())
    }

    fn is_shard_of(&self, shard: u32, id: u64) -> bool {
        id != 0 && shard_of(id, self.limits.shards) == shard
    }

    fn member_added(&mut self, shard: u32, record: &ControlHeader<'_>) {
        if !self.is_shard_of(shard, record.home) {
            return;
        }
        let user = holder(PrincipalKind::User, record.project, record.user);
        for slot in self.connections.of(user) {
            self.follow(slot, record.project, record.home);
        }
    }

    fn member_removed(&mut self, shard: u32, record: &ControlHeader<'_>) {
        if !self.is_shard_of(shard, record.home) {
            return;
        }
        let user = holder(PrincipalKind::User, record.project, record.user);
        for slot in self.connections.of(user) {
            if self.lose(slot, |topic| topic.home() == Some(record.home)) {
                self.end_if_nothing_is_left(slot, &close::ACCESS_ENDED);
            }
        }
    }

    fn key_ended(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let holder = match (record.user, record.device) {
            // A project's key: nobody is connected with one.
            (0, 0) => return,
            (0, device) => holder(PrincipalKind::Device, record.project, device),
            (user, _) => holder(PrincipalKind::User, record.project, user),
        };
        self.revoke_all(shard, holder, Some(record.key_tag), &close::KEY_ENDED);
    }

    fn device_deleted(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let (project, home, device) = (record.project, record.home, record.device);
        if self.is_shard_of(shard, device) {
            for slot in self.listeners(TopicRef::Command { project, device }) {
                self.condemn(slot, &close::PRINCIPAL_DELETED);
                self.finish(slot);
            }
            let device = holder(PrincipalKind::Device, project, device);
            self.revoke_all(shard, device, None, &close::PRINCIPAL_DELETED);
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

    fn device_moved(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(old) = decimal(record.body) else {
            Stats::add(&self.shared.stats.malformed, 1);
            return;
        };
        if old == record.home || !self.is_shard_of(shard, old) {
            return;
        }
        let listeners = self.listeners(TopicRef::Device {
            project: record.project,
            home: old,
            device: record.device,
        });
        for slot in listeners {
            self.condemn(slot, &close::RESUBSCRIBE);
            self.finish(slot);
        }
    }

    fn home_deleted(&mut self, shard: u32, record: &ControlHeader<'_>) {
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

    /// The first copy condemns all connections of the project, and each those who listen in its
    /// shard: so only one of the many copies looks at every connection of the node.
    fn project_ended(&mut self, shard: u32, kind: RecordType, record: &ControlHeader<'_>) {
        let project = record.project;
        if self.age(None, kind, record) == Age::Newer {
            for slot in self.connections.which(|it| it.principal.project == project) {
                self.revoke(slot, shard, &close::PROJECT_ENDED);
            }
            return;
        }
        let shards = self.limits.shards;
        let scopes = self.index.scopes_of(|topic| {
            topic.project() == project && shard_of(topic.anchor(), shards) == shard
        });
        for slot in self.members_of(&scopes) {
            self.revoke(slot, shard, &close::PROJECT_ENDED);
        }
    }

    fn revoke_all(
        &mut self,
        shard: u32,
        holder: Holder,
        key_tag: Option<u64>,
        why: &'static CloseCode,
    ) {
        for slot in self.connections.of(holder) {
            let with_this_key = |connection: &crate::connection::Connection| {
                key_tag.is_none_or(|tag| connection.principal.key_tag == tag)
            };
            if self
                .connections
                .at(slot)
                .is_some_and(|it| with_this_key(it))
            {
                self.revoke(slot, shard, why);
            }
        }
    }

    /// One copy of a record that ends everything for this connection.
    fn revoke(&mut self, slot: Slot, shard: u32, why: &'static CloseCode) {
        let shards = self.limits.shards;
        self.condemn_in_time(slot, why);
        self.lose(slot, |topic| shard_of(topic.anchor(), shards) == shard);
        if !self.hears_anything(slot) {
            self.finish(slot);
        }
    }

    /// The connection hears this home from now on, if it follows its user's homes.
    fn follow(&mut self, slot: Slot, project: u64, home: u64) {
        let Some(connection) = self
            .connections
            .at(slot)
            .filter(|it| it.follow && it.condemned.is_none())
        else {
            return;
        };
        let entities = connection.entities.take();
        let more: SmallVec<[TopicRef<'_>; 4]> = match &entities {
            None => SmallVec::from_iter([TopicRef::Home { project, home }]),
            Some(followed) => followed
                .0
                .iter()
                .map(|entity| TopicRef::Entity {
                    project,
                    home,
                    entity,
                })
                .collect(),
        };
        self.rescope(slot, |_| true, &more);
        drop(more);
        if let Some(connection) = self.connections.at(slot) {
            connection.entities = entities;
        }
    }

    /// Takes the topics that are `gone` from a connection. Answers whether it had one.
    fn lose(&mut self, slot: Slot, gone: impl Fn(&Topic) -> bool) -> bool {
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

    fn rescope(&mut self, slot: Slot, keep: impl Fn(&Topic) -> bool, more: &[TopicRef<'_>]) {
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
        if let Some(connection) = self.connections.at(slot) {
            (connection.scope, connection.place) = (change.scope, change.place);
        }
        // What is in its new scope's block was routed before it came.
        self.seal(change.scope, change.place as usize);
        Stats::add(&self.shared.stats.rescopes, 1);
    }

    fn end_if_nothing_is_left(&mut self, slot: Slot, why: &'static CloseCode) {
        if self.hears_anything(slot) {
            return;
        }
        let Some(connection) = self.connections.at(slot) else {
            return;
        };
        if !connection.follow || connection.condemned.is_some() {
            self.condemn(slot, why);
            self.finish(slot);
        }
    }

    fn hears_anything(&mut self, slot: Slot) -> bool {
        self.connections
            .at(slot)
            .filter(|it| !it.deaf)
            .is_some_and(|it| self.index.topics(it.scope).next().is_some())
    }

    fn listeners(&mut self, topic: TopicRef<'_>) -> Vec<Slot> {
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

fn holder(kind: PrincipalKind, project: u64, id: u64) -> Holder {
    Holder { kind, project, id }
}

fn decimal(body: &[u8]) -> Option<u64> {
    str::from_utf8(body).ok()?.parse().ok()
}
