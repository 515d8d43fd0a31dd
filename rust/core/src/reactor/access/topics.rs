//! Control records about single topics: a device or entity moved, or a permission ended.

use serde::Deserialize;

use super::super::Reactor;
use super::principal_id;
use crate::bus::envelope::ControlHeader;
use crate::connection::PrincipalKind;
use crate::routing::access::Grace;
use crate::routing::topic::TopicRef;
use crate::stats::Stats;
use crate::wire::close;

impl Reactor {
    pub(super) fn device_moved(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(old) = decimal(record.body) else {
            Stats::add(&self.shared.stats.malformed, 1);
            return;
        };
        if old == record.home || !self.is_shard_of(shard, old) {
            return;
        }
        self.request_resubscribe(TopicRef::Device {
            project: record.project,
            home: old,
            device: record.device,
        });
    }

    pub(super) fn entity_moved(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(entity) = str::from_utf8(record.body).ok().filter(|it| !it.is_empty()) else {
            Stats::add(&self.shared.stats.malformed, 1);
            return;
        };
        if self.is_shard_of(shard, record.home) {
            self.request_resubscribe(TopicRef::Entity {
                project: record.project,
                home: record.home,
                entity,
            });
        }
    }

    /// Closes the subscribers of the topic; they reconnect and are authorised again.
    fn request_resubscribe(&mut self, topic: TopicRef<'_>) {
        for slot in self.subscribers(topic) {
            self.revoke_access(slot, &close::RESUBSCRIBE, Grace::Batch);
            self.remove_topics(slot, |it| it.as_ref() == topic);
            self.unsubscribe_after_batch(slot);
        }
    }

    pub(super) fn permission_ended(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(ended) = EndedPermission::read(record.body) else {
            Stats::add(&self.shared.stats.malformed, 1);
            return;
        };
        let Some(topic) = ended.topic(record) else {
            return;
        };
        if !self.is_shard_of(shard, record.home) {
            return;
        }
        for &user in &ended.users {
            let user = principal_id(PrincipalKind::User, record.project, user);
            for slot in self.connections.slots_of(user) {
                if self.remove_topics(slot, |it| it.as_ref() == topic) {
                    self.close_or_resubscribe(slot, record);
                }
            }
        }
    }
}

/// A permission that users have lost.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct EndedPermission {
    /// The entity that was readable; without one, the record's device, or its home.
    #[serde(default)]
    entity: Option<String>,
    /// The users who had it.
    pub users: Vec<u64>,
}

impl EndedPermission {
    /// Parses the body of a record; `None` if it is malformed.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The topic that the permission gave access to; `None` for a permission to write, or without a home.
    pub fn topic(&self, record: &ControlHeader<'_>) -> Option<TopicRef<'_>> {
        let (project, home, device) = (record.project, record.home, record.device);
        if home == 0 {
            return None;
        }
        Some(match self.entity.as_deref() {
            Some(entity) => TopicRef::Entity {
                project,
                home,
                entity,
            },
            None if device != 0 => TopicRef::Device {
                project,
                home,
                device,
            },
            None => TopicRef::Home { project, home },
        })
    }
}

fn decimal(body: &[u8]) -> Option<u64> {
    str::from_utf8(body).ok()?.parse().ok()
}
