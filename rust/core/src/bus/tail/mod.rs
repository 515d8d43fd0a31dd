//! The stream reader (tail): reads every shard and feeds the reactor.
//!
//! It stores its position in each shard and continues there after every reconnect. So nothing is read
//! twice, and nothing is missed that Redis still has. Checks of each shard's entry counts find what Redis
//! has no more. Checks run after every reconnect, whenever a shard is behind, and every few seconds.
//!
//! On a single Redis one XREAD waits for all shards (`single`). In a cluster a command may not cross slots; a
//! thread reads from all masters, which tell it what changed (`cluster`).

mod cluster;
pub mod connector;
mod feed;
pub mod link;
pub mod reply;
pub mod shard_reader;
mod single;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bus::cache_versions::CacheVersions;
use crate::clock::Clock;
use crate::core::guarded;
use crate::reactor::inbox::Inbox;
use crate::reactor::notifications::Notifier;
use crate::stats::Stats;
use cluster::ClusterReader;
use connector::{Address, Connector};
use feed::{Feed, LastReply};
use reply::NotResp;
use single::SingleReader;

/// How long an XREAD waits, in milliseconds. A node trusts no cached key when Redis was silent for a
/// second, so a quiet bus must answer more often than that.
const BLOCK_MS: u64 = 400;
/// How long a reply may take before the connection counts as dead.
const REPLY_TIMEOUT: Duration = Duration::from_millis(BLOCK_MS + 2_000);
/// Interval between checks of all shards while entries arrive. A bus without entries is checked more often.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// Why the stream reader cannot read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The URL cannot be used.
    #[error("the Redis URL {0}")]
    Address(&'static str),
    /// Redis cannot be reached, or no thread could be started.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Redis refused a command.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// No Sentinel names a server that is a master.
    #[error("no Sentinel names a master of this name")]
    NoMaster,
    /// Some slots have no node that serves them.
    #[error("the cluster does not serve all slots")]
    SlotsMissing,
    /// The server is not Redis.
    #[error(transparent)]
    NotResp(#[from] NotResp),
    /// Redis sent a reply that does not match the command.
    #[error("unexpected reply from Redis to {0}")]
    Reply(&'static str),
}

/// What the stream reader works with.
#[derive(Clone)]
pub struct TailContext {
    pub clock: Clock,
    pub inbox: Arc<Inbox>,
    pub stats: Arc<Stats>,
    pub notifier: Arc<Notifier>,
    pub cache_versions: Arc<CacheVersions>,
}

/// A running stream reader.
#[derive(Debug)]
pub struct Tail {
    stop: Arc<AtomicBool>,
    last_reply: Arc<LastReply>,
}

impl Tail {
    /// Connects, stores the end of each shard, and starts to read from there.
    ///
    /// # Errors
    /// See [`TailError`].
    pub fn start(address: Address, shards: u32, context: &TailContext) -> Result<Self, TailError> {
        let connector = Connector::new(address)?;
        let feed = Feed {
            context: context.clone(),
            last_reply: Arc::new(LastReply::new(&context.clock)),
            stop: Arc::default(),
        };
        let (stop, last_reply) = (Arc::clone(&feed.stop), Arc::clone(&feed.last_reply));
        let notifier = Arc::clone(&context.notifier);
        let mut link = connector.open(REPLY_TIMEOUT)?;
        // The thread is detached: it ends by itself with its next reply from Redis.
        if link.is_cluster() {
            let mut reader = ClusterReader::start(connector, &mut link, shards, feed)?;
            drop(link);
            drop(guarded("tail", notifier, move || {
                reader.run().map_err(|error| error.to_string())
            })?);
        } else {
            let mut reader = SingleReader::start(connector, &mut link, shards, feed)?;
            drop(guarded("tail", notifier, move || {
                reader.run(link);
                Ok(())
            })?);
        }
        Ok(Self { stop, last_reply })
    }

    /// How long Redis has been silent.
    pub fn silence(&self) -> Duration {
        self.last_reply.silence()
    }

    /// Stops reading. The detached thread ends with its next reply from Redis.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
