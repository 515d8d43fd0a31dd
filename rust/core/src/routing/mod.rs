//! Which connections receive an event: topics, subscriptions and audiences. No I/O.

pub mod index;
pub mod record_dedup;
pub mod subscription;
pub mod topic;
