//! What all readers do with entries: routing, cache versions, gaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::reply::Reply;
use super::shard_reader::{GapCause, ShardReader};
use super::{TailContext, TailError};
use crate::bus::envelope;
use crate::clock::Clock;
use crate::reactor::inbox::{ReactorCommand, ShardEntry};
use crate::reactor::notifications::Notification;
use crate::stats::Stats;

/// The time up to which the reader has what Redis had.
#[derive(Debug)]
pub(super) struct LastReply {
    clock: Clock,
    started: Instant,
    /// In milliseconds since `started`.
    last: AtomicU64,
}

impl LastReply {
    pub fn new(clock: &Clock) -> Self {
        Self {
            started: clock.now(),
            clock: clock.clone(),
            last: AtomicU64::new(0),
        }
    }

    fn note(&self, at: Instant) {
        let since = at.saturating_duration_since(self.started).as_millis();
        self.last.store(since as u64, Ordering::Relaxed);
    }

    /// The time since then.
    pub fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let elapsed = self.clock.now().saturating_duration_since(self.started);
        elapsed.saturating_sub(last)
    }
}

/// The way of entries from a reader to the reactor.
#[derive(Clone)]
pub(super) struct Feed {
    pub context: TailContext,
    pub last_reply: Arc<LastReply>,
    pub stop: Arc<AtomicBool>,
}

impl Feed {
    pub fn now(&self) -> Instant {
        self.context.clock.now()
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// All shards were read as Redis had them at this time.
    pub fn note_reply(&self, at: Instant) {
        self.last_reply.note(at);
    }

    /// Takes the EXEC reply of a check: entries into `taken`, a gap to the reactor, behind what was taken
    /// before. Returns whether the shard needs a new epoch.
    ///
    /// # Errors
    /// [`TailError::Reply`] for a reply that does not match a check.
    pub fn take_check(
        &self,
        shard: &mut ShardReader,
        reply: &mut Reply<'_>,
        taken: &mut Vec<ShardEntry>,
    ) -> Result<CheckOutcome, TailError> {
        let (mut entries, mut foreign) = (Vec::new(), 0);
        let result = shard.take_check(reply, &mut entries, &mut foreign)?;
        Stats::add(&self.context.stats.foreign_entries, foreign);
        if let Some(cause) = result.gap {
            self.route(std::mem::take(taken));
            self.report_gap(shard.number, cause);
        }
        taken.append(&mut entries);
        Ok(CheckOutcome {
            needs_epoch: result.needs_epoch,
            more: result.more,
        })
    }

    /// Reports a gap, before later entries are routed.
    fn report_gap(&self, shard: u32, cause: GapCause) {
        let stats = &self.context.stats;
        match cause {
            GapCause::Trimmed(entries) => Stats::add(&stats.trimmed_unread, entries),
            GapCause::HistoryLost => Stats::add(&stats.history_lost, 1),
            GapCause::NewerVersion => Stats::add(&stats.newer_versions, 1),
        }
        // Control records may be among the missing entries.
        self.context.cache_versions.increment(shard);
        self.context.inbox.send(ReactorCommand::Gap { shard });
        self.context.notifier.push(Notification::Gap {
            shard,
            cause: cause.to_string(),
        });
    }

    /// Routes entries. An entry of a newer version is a gap: what it says is missing here.
    pub fn route(&self, mut taken: Vec<ShardEntry>) {
        while let Some(place) = taken.iter().position(|it| envelope::is_newer(&it.envelope)) {
            let shard = taken[place].shard;
            let newer = |it: &&ShardEntry| it.shard == shard && envelope::is_newer(&it.envelope);
            let count = taken[place..].iter().take_while(newer).count();
            let later = taken.split_off(place + count);
            taken.truncate(place);
            self.route_readable(std::mem::replace(&mut taken, later));
            self.report_gap(shard, GapCause::NewerVersion);
        }
        self.route_readable(taken);
    }

    fn route_readable(&self, taken: Vec<ShardEntry>) {
        if taken.is_empty() {
            return;
        }
        for entry in &taken {
            if envelope::is_control(&entry.envelope) {
                // Before the record is routed: what is read from the store from now on is as new as this
                // version.
                self.context.cache_versions.increment(entry.shard);
            }
        }
        if !self.context.inbox.route(taken) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// What is left to do after a check.
pub(super) struct CheckOutcome {
    /// The history was lost, and no node has given the shard a new epoch yet.
    pub needs_epoch: bool,
    /// There may be more entries to read.
    pub more: bool,
}
