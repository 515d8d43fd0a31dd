//! Deduplication of control records.
//!
//! The relay may repeat a control record. A record that is older than the newest record with the same key
//! must change nothing; this module remembers the position of the newest one.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Age at which a generation is closed. After a crash the relay repeats records within two seconds, and
/// within a minute at the latest.
const GENERATION: Duration = Duration::from_secs(300);
/// Number of keys at which a generation is closed. Both generations together stay below 8 MB.
const MAX_RECORDS: usize = 32_768;

/// What a control record is about, in one shard; without a shard, in the shard where it is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordKey {
    pub shard: Option<u32>,
    pub project: u64,
    pub user: u64,
    pub home: u64,
    pub device: u64,
    pub key_tag: u64,
    /// A hash of the rest of the identity: the users of a permission, or the id of an entity.
    pub detail: u64,
}

/// Position of a record in the outbox stream of its project: milliseconds, and a number within the
/// millisecond.
pub type OutboxPosition = (u64, u64);

/// How a record compares with the newest known record with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recency {
    Newer,
    Same,
    Older,
}

/// A bounded memory of positions. A key without records for two generations is forgotten.
#[derive(Debug)]
pub struct RecordDedup {
    current: HashMap<RecordKey, OutboxPosition, RandomState>,
    previous: HashMap<RecordKey, OutboxPosition, RandomState>,
    began: Instant,
    hasher: RandomState,
}

impl RecordDedup {
    /// An empty memory.
    pub fn new(now: Instant) -> Self {
        Self {
            current: HashMap::default(),
            previous: HashMap::default(),
            began: now,
            hasher: RandomState::default(),
        }
    }

    /// The hash that distinguishes records of one type about the same ids.
    pub fn detail(&self, record_type: u64, body: &[u8]) -> u64 {
        self.hasher.hash_one((record_type, body))
    }

    /// Compares a record with the newest one with its key. Unless it is older, the record becomes the
    /// newest.
    pub fn observe(&mut self, key: RecordKey, position: OutboxPosition, now: Instant) -> Recency {
        if self.current.len() >= MAX_RECORDS || now.duration_since(self.began) >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
            self.began = now;
        }
        let recency = match self.newest(&key).map(|newest| position.cmp(&newest)) {
            None | Some(std::cmp::Ordering::Greater) => Recency::Newer,
            Some(std::cmp::Ordering::Equal) => Recency::Same,
            Some(std::cmp::Ordering::Less) => return Recency::Older,
        };
        self.current.insert(key, position);
        recency
    }

    /// The position of the newest record with this key, if it is remembered.
    pub fn newest(&self, key: &RecordKey) -> Option<OutboxPosition> {
        self.current
            .get(key)
            .or_else(|| self.previous.get(key))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(user: u64) -> RecordKey {
        RecordKey {
            shard: Some(1),
            project: 1,
            user,
            home: 0,
            device: 0,
            key_tag: 0,
            detail: 0,
        }
    }

    #[test]
    fn only_lower_position_is_older() {
        let now = Instant::now();
        let mut dedup = RecordDedup::new(now);
        for (position, recency) in [
            ((5, 0), Recency::Newer),
            ((5, 0), Recency::Same),
            ((4, 9), Recency::Older),
            ((5, 1), Recency::Newer),
            ((5, 0), Recency::Older),
            ((6, 0), Recency::Newer),
        ] {
            assert_eq!(
                dedup.observe(user(1), position, now),
                recency,
                "{position:?}"
            );
        }
        assert_eq!(dedup.observe(user(2), (1, 0), now), Recency::Newer);
        let elsewhere = RecordKey {
            shard: Some(2),
            ..user(1)
        };
        assert_eq!(dedup.observe(elsewhere, (1, 0), now), Recency::Newer);
    }

    #[test]
    fn key_is_forgotten_after_two_generations() {
        let now = Instant::now();
        let mut dedup = RecordDedup::new(now);
        dedup.observe(user(1), (5, 0), now);
        dedup.observe(user(2), (5, 0), now);
        let later = now + GENERATION;
        assert_eq!(dedup.observe(user(1), (4, 0), later), Recency::Older);
        assert_eq!(dedup.observe(user(1), (5, 0), later), Recency::Same);
        let latest = later + GENERATION;
        assert_eq!(dedup.observe(user(1), (4, 0), latest), Recency::Older);
        assert_eq!(dedup.observe(user(2), (4, 0), latest), Recency::Newer);
    }

    #[test]
    fn memory_is_bounded_under_load() {
        let now = Instant::now();
        let mut dedup = RecordDedup::new(now);
        for number in 0..10 * MAX_RECORDS as u64 {
            dedup.observe(user(number), (5, 0), now);
            assert!(dedup.current.len() + dedup.previous.len() <= 2 * MAX_RECORDS);
        }
        let last = 10 * MAX_RECORDS as u64 - 1;
        assert_eq!(dedup.observe(user(last), (4, 0), now), Recency::Older);
    }
}
