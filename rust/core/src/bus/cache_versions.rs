//! Cache versions: for each shard, the number of control records that this node has read from it.
//!
//! A value that was read from the store is current as long as the versions of its shards are unchanged. So
//! a cache needs no invalidation messages.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter for each shard. The stream reader increments it before it passes the record to the reactor.
#[derive(Debug)]
pub struct CacheVersions(Box<[AtomicU64]>);

impl CacheVersions {
    /// All versions 0.
    pub fn new(shards: u32) -> Self {
        Self((0..shards.max(1)).map(|_| AtomicU64::new(0)).collect())
    }

    /// A control record was read from this shard, or may have been missed.
    pub fn increment(&self, shard: u32) {
        if let Some(version) = self.0.get(shard as usize) {
            version.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The sum over some shards. It is unchanged exactly as long as each of them is.
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
