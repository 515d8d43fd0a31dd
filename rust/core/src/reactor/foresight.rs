//! What a batch says of keys and users that end, known before its first envelope is routed.
//!
//! A session ends, then its user enters a home: the end has copies in the homes of its own moment only,
//! and in the user's shard. Read together, the home's shard may come first, and what stands there behind
//! the membership would reach a key that had ended before.

use super::Reactor;
use crate::connection::{Connection, Holder, PrincipalKind};
use crate::envelope::{self, ControlHeader, Envelope, RecordType};
use crate::inbox::Entry;
use crate::subjects::Stamp;

/// Everything that this user's connections hear ends, or those of one key.
#[derive(Debug)]
pub(super) struct ForeseenEnd {
    user: Holder,
    key_tag: Option<u64>,
    stamp: Stamp,
}

impl ForeseenEnd {
    fn of(record: &ControlHeader<'_>) -> Option<Self> {
        let key_tag = match RecordType::from_number(record.record_type) {
            Some(RecordType::KeyEnded) if record.user != 0 => Some(record.key_tag),
            Some(RecordType::UserDeleted) => None,
            _ => return None,
        };
        Some(Self {
            user: Holder {
                kind: PrincipalKind::User,
                project: record.project,
                id: record.user,
            },
            key_tag,
            stamp: (record.outbox_ms, record.outbox_seq),
        })
    }

    /// Whether it ended this connection before what stands there in the outbox.
    pub(super) fn precedes(&self, connection: &Connection, stamp: Stamp) -> bool {
        let principal = &connection.principal;
        self.stamp < stamp
            && self.user == principal.holder()
            && self.key_tag.is_none_or(|tag| tag == principal.key_tag)
    }
}

impl Reactor {
    /// Looks through a batch. Nearly always nothing is decoded.
    pub(super) fn foresee(&mut self, batch: &[Entry]) {
        self.foreseen.clear();
        let controls = batch
            .iter()
            .filter(|entry| envelope::is_control(&entry.envelope));
        for entry in controls {
            if let Ok(Envelope::Control(record)) = envelope::decode(&entry.envelope) {
                self.foreseen.extend(ForeseenEnd::of(&record));
            }
        }
    }
}
