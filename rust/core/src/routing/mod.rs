//! Which connections receive an event: topics, subscriptions, audiences and access. No I/O.

pub mod access;
pub mod index;
pub mod record_dedup;
pub mod subscription;
pub mod topic;
