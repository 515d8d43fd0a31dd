//! The realtime core of homewire, in the order data meets it: the [`tail`] reads shards of Redis,
//! an [`envelope`] is decoded, the [`index`] matches topics to scopes, [`encode`] makes one frame,
//! [`blocks`] collect a scope's frames of a turn, an [`outbox`] bounds what one socket could not
//! take, and the [`reactor`] owns all of it. No Python here.

pub mod allowance;
pub mod append;
pub mod blocks;
mod boundary;
pub mod close;
pub mod connection;
mod connections;
pub mod core;
pub mod decimal;
pub mod encode;
pub mod encoding;
mod ended_right;
pub mod envelope;
pub mod filter;
pub mod frame;
pub mod inbox;
pub mod index;
pub mod input;
pub mod kept;
pub mod marks;
pub mod notify;
pub mod outbox;
pub mod pongs;
mod principals;
pub mod reactor;
pub mod shard;
pub mod slots;
pub mod stats;
mod subjects;
mod sys;
pub mod tail;
pub mod tally;
pub mod topic;
