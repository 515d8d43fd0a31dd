//! The naive model of deduplication: the newest record with each key.

use std::collections::BTreeMap;

use homewire_core::bus::envelope::ControlHeader;

use crate::model::Subscriber;
use crate::records::{DEVICE_MOVED, MEMBER_ADDED, MEMBER_WAITS, PROJECT_DELETED, PROJECT_DISABLED};

/// The newest record with each key, by shard; without a shard, those about a whole project.
#[derive(Default)]
pub struct Newest(BTreeMap<(Option<u32>, [u64; 5]), u64>);

impl Newest {
    /// `None` if a newer record was applied before; otherwise whether the record is new, and it becomes the
    /// newest.
    fn overtook(&mut self, shard: Option<u32>, record: &ControlHeader<'_>) -> Option<bool> {
        let home = if record.record_type == DEVICE_MOVED {
            0
        } else {
            record.home
        };
        let subject = [
            record.project,
            record.user,
            home,
            record.device,
            record.key_tag,
        ];
        let newest = self.0.get(&(shard, subject)).copied();
        if newest.is_some_and(|newest| newest > record.outbox_ms) {
            return None;
        }
        self.0.insert((shard, subject), record.outbox_ms);
        if matches!(record.record_type, MEMBER_ADDED | MEMBER_WAITS) {
            let of_home = self.0.get(&(shard, [record.project, 0, home, 0, 0]));
            if of_home.is_some_and(|newest| *newest > record.outbox_ms) {
                return None;
            }
        }
        Some(newest != Some(record.outbox_ms))
    }

    /// The effect of a copy of a record on all subscribers.
    pub fn apply(
        &mut self,
        subscribers: &mut [Subscriber],
        shard: u32,
        record: &ControlHeader<'_>,
    ) {
        if self.overtook(Some(shard), record).is_none() {
            return;
        }
        let ends_project = matches!(record.record_type, PROJECT_DISABLED | PROJECT_DELETED);
        let is_first_copy = ends_project && self.overtook(None, record) == Some(true);
        for subscriber in subscribers {
            if subscriber.is_subscribed() && subscriber.principal.project == record.project {
                subscriber.apply(shard, record, is_first_copy);
            }
        }
    }
}
