//! The bus: the shards (Redis Streams), what stands in them, and the threads that read them.

pub mod append;
pub mod cache_versions;
pub mod envelope;
pub mod shard;
pub mod tail;
