//! CacheVersions: for each shard, how many control records this node has read from it.
//!
//! What was read from the store while a version stood still is known to be as new as that version. So a
//! cache needs no message that tells it what to forget: an entry is good while its version is.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter a shard. The tail raises them, before it hands the records on.
#[derive(Debug)]
pub struct CacheVersions(Box<[AtomicU64]>);

impl CacheVersions {
    /// All at zero.
    pub fn new(shards: u32) -> Self {
        Self((0..shards.max(1)).map(|_| AtomicU64::new(0)).collect())
    }

    /// The shard has something new to say about who may hear what.
    pub fn increment(&self, shard: u32) {
        if let Some(version) = self.0.get(shard as usize) {
            version.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The sum over some shards: it is unchanged exactly as long as each of them is.
    pub fn sum(&self, shards: impl IntoIterator<Item = u32>) -> u64 {
        shards
            .into_iter()
            .filter_map(|shard| self.0.get(shard as usize))
            .map(|version| version.load(Ordering::SeqCst))
            .fold(0, u64::wrapping_add)
    }

    /// The sum over all shards.
    pub fn total(&self) -> u64 {
        self.sum(0..self.0.len() as u32)
    }
}
