//! Counters that any thread may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the core did since it started, and its current sizes.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Stats {
            /// All counters by name, each read once.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Connections with a socket, now.
    connections,
    /// Reservations without a socket, now.
    reservations,
    /// Scopes, now.
    scopes,
    /// Topics that somebody listens to, now.
    topics,
    /// Bytes of envelopes between tail and reactor, now.
    inbox_bytes,
    /// Memory of what waits in all outboxes, in bytes, now.
    outboxes_bytes,
    /// Connections that something waits for, or did at the last look, now.
    lagging,
    /// Bytes of clients' messages that Python did not take yet, now.
    messages_bytes,
    /// Reservations made.
    reserved,
    /// Reservations that were not adopted in time.
    reservations_expired,
    /// Sockets adopted.
    adopted,
    /// Connections that ended.
    closed,
    /// Connections closed because their client did not read.
    too_slow,
    /// Connections closed because all outboxes together were too large and theirs was among the longest.
    too_slow_in_sum,
    /// Connections closed because what waited for them was too old.
    too_slow_by_age,
    /// Times that a socket was not read because Python did not take the messages.
    messages_held,
    /// Connections closed because their client was silent.
    heartbeats_missed,
    /// Connections closed because their client broke the protocol.
    violations,
    /// Connections closed because their client sent more frames or bytes a second than it may.
    inbound_exceeded,
    /// Turns that ended with sockets left to read: the next ones go on with them.
    reads_deferred,
    /// Envelopes read from the bus.
    envelopes,
    /// Envelopes that could not be decoded, or stood in a shard where they do not belong: skipped.
    malformed,
    /// Control records applied.
    control_records,
    /// Control records older than what was applied about the same subject: ignored.
    control_records_older,
    /// Control records of a type that this version does not know: skipped.
    control_records_unknown,
    /// Connections closed because a control record ended what they may hear, or moved it.
    revoked,
    /// Changes of what an open connection hears.
    rescopes,
    /// Times that entries of a shard may have been missed.
    gaps,
    /// Connections closed because entries may have been missed.
    resynced,
    /// Envelopes that at least one scope wanted.
    matched,
    /// Event and command frames that the kernel took, over all sockets.
    deliveries,
    /// Calls of `send` and `writev` that took bytes.
    writes,
    /// Calls that found a socket's buffer full.
    blocked_writes,
    /// Bytes that the kernel took.
    bytes_written,
    /// Messages received from clients.
    messages,
    /// Turns of the reactor that had envelopes.
    turns,
    /// Connections made by the tail to Redis after the first.
    tail_reconnects,
    /// Entries of the shards that carry no envelope: counted and skipped.
    foreign_entries,
    /// Entries that Redis trimmed before they were read.
    trimmed_unread,
    /// Times that a shard was found to have lost what it had.
    fell_back,
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }
}
