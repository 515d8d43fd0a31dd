//! Control records about single topics: what is heard is elsewhere now, or somebody may not read it any more.

use serde::Deserialize;

use super::super::Reactor;
use super::holder;
use crate::bus::envelope::ControlHeader;
use crate::connection::PrincipalKind;
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
        self.send_for_again(TopicRef::Device {
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
            self.send_for_again(TopicRef::Entity {
                project: record.project,
                home: record.home,
                entity,
            });
        }
    }

    /// Its listeners come back, and are authorised anew.
    fn send_for_again(&mut self, topic: TopicRef<'_>) {
        for slot in self.listeners(topic) {
            self.condemn(slot, &close::RESUBSCRIBE);
            self.lose(slot, |it| it.as_ref() == topic);
            self.finish_behind_this_batch(slot);
        }
    }

    pub(super) fn permission_ended(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let Some(ended) = EndedRight::read(record.body) else {
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
            let user = holder(PrincipalKind::User, record.project, user);
            for slot in self.connections.of(user) {
                if self.lose(slot, |it| it.as_ref() == topic) {
                    self.end_unless_doubtful(slot, record);
                }
            }
        }
    }
}

/// A right that some users have no more.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct EndedRight {
    /// The entity whose events might be read; otherwise it is the record's device, or its home.
    #[serde(default)]
    entity: Option<String>,
    /// Who had it.
    pub users: Vec<u64>,
}

impl EndedRight {
    /// What a record's body says; `None` if it is no such body.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The one topic that was heard by this right; `None` if it was one to write, or about what is in no home.
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
