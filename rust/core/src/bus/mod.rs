//! The bus: the shards (Redis Streams), their entries, and the threads that read them.

pub mod append;
pub mod cache_versions;
pub mod envelope;
pub mod shard;
pub mod tail;
