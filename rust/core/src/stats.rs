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
    /// Connections that are reserved and not adopted yet, now.
    reservations,
    /// Audiences: distinct sets of topics of the connections, now.
    audiences,
    /// Topics with at least one subscriber, now.
    topics,
    /// Bytes of envelopes between the stream reader and the reactor, now.
    inbox_bytes,
    /// Memory of all send queues, in bytes, now.
    send_queues_bytes,
    /// Connections with unsent frames, now or within the last second.
    slow_consumers,
    /// Clients' messages that Python did not take yet, in bytes, now.
    messages_bytes,
    /// Reservations made.
    reserved,
    /// Reservations that were not adopted in time.
    reservations_expired,
    /// Sockets adopted from aiohttp.
    adopted,
    /// Connections that ended, including reservations.
    closed,
    /// Slow consumers that were closed with 4001.
    evicted,
    /// Slow consumers evicted because all send queues together exceeded their limit, longest queue first.
    evicted_by_memory,
    /// Slow consumers evicted because a byte was unsent for longer than its limit.
    evicted_by_age,
    /// Times that a socket was not read because Python did not take clients' messages.
    reads_paused,
    /// Connections closed because their client was silent.
    heartbeats_missed,
    /// Connections closed because their client violated RFC 6455.
    violations,
    /// Connections closed because their client exceeded its rate of frames or bytes.
    inbound_exceeded,
    /// Turns of the reactor that reached their read limit and left sockets to the next turns.
    reads_deferred,
    /// Envelopes read from the bus.
    envelopes,
    /// Envelopes that were skipped: malformed, or in the wrong shard.
    malformed,
    /// Control records applied.
    control_records,
    /// Control records ignored because a newer one was applied before.
    control_records_older,
    /// Control records of a type that this version does not know. Each is a gap.
    control_records_unknown,
    /// Connections closed because a control record ended or moved their access.
    revoked,
    /// Changes of the topics of open connections.
    subscription_changes,
    /// Times that entries of a shard may have been missed.
    gaps,
    /// Connections closed because entries may have been missed.
    resynced,
    /// Envelopes with at least one subscriber on this node.
    matched,
    /// Event and command frames that the kernel took, over all sockets.
    deliveries,
    /// Calls of send and writev that wrote bytes.
    writes,
    /// Calls that found a socket's buffer full.
    blocked_writes,
    /// Bytes that the kernel took.
    bytes_written,
    /// Messages received from clients.
    messages,
    /// Turns of the reactor that had envelopes.
    turns,
    /// Times that the stream reader reconnected to Redis.
    tail_reconnects,
    /// Times that a node of a cluster redirected the stream reader, or could not serve a shard.
    tail_redirects,
    /// Entries of the shards without an envelope, which were skipped.
    foreign_entries,
    /// Entries that Redis trimmed before this node had read them.
    trimmed_unread,
    /// Times that a shard had lost entries.
    history_lost,
    /// Gaps because a later version of homewire wrote entries.
    newer_versions,
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
