//! The stream reader (tail): reads every shard and feeds the reactor.
//!
//! It stores its position in each shard and continues there after every reconnect. So nothing is read
//! twice, and nothing is missed that Redis still has. Checks of each shard's entry counts find what Redis
//! has no more. Checks run after every reconnect, whenever a shard is behind, and every few seconds.
//!
//! On a single Redis one connection waits for all shards. In a cluster a command may not cross slots, so
//! each shard has a connection of its own.

pub mod link;
pub mod reply;
pub mod shard_reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bus::cache_versions::CacheVersions;
use crate::bus::envelope;
use crate::clock::Clock;
use crate::core::guarded;
use crate::reactor::inbox::{Inbox, ReactorCommand, ShardEntry};
use crate::reactor::notifications::{Notification, Notifier};
use crate::stats::Stats;
use link::{Address, Connector, Link, append_head, append_word};
use reply::{Element, NotResp, Reply};
use shard_reader::{ENTRIES_PER_READ, GapCause, ShardReader, random_epoch};

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

/// Gives a shard whose history was lost a new epoch, unless another node did so first.
const RENEW_EPOCH: &str = "if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2]) end return redis.call('GET', KEYS[1])";

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

/// When Redis last answered on each connection.
#[derive(Debug)]
pub struct LastReplies {
    clock: Clock,
    started: Instant,
    /// In milliseconds since `started`.
    last: Box<[AtomicU64]>,
}

impl LastReplies {
    fn new(connections: usize, clock: &Clock) -> Self {
        Self {
            started: clock.now(),
            clock: clock.clone(),
            last: (0..connections).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn note(&self, connection: usize) {
        let now = self.elapsed().as_millis() as u64;
        self.last[connection].store(now, Ordering::Relaxed);
    }

    /// The time since the last answer, of the connection for which it is longest.
    pub fn silence(&self) -> Duration {
        let oldest = self.last.iter().map(|last| last.load(Ordering::Relaxed));
        let oldest = Duration::from_millis(oldest.min().unwrap_or(0));
        self.elapsed().saturating_sub(oldest)
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.started)
    }
}

/// A running stream reader.
#[derive(Debug)]
pub struct Tail {
    stop: Arc<AtomicBool>,
    last_replies: Arc<LastReplies>,
}

impl Tail {
    /// Connects, stores the end of each shard, and starts to read from there.
    ///
    /// # Errors
    /// See [`TailError`].
    pub fn start(address: Address, shards: u32, context: &TailContext) -> Result<Self, TailError> {
        let connector = Connector::new(address)?;
        let groups = groups(is_cluster(&mut connector.open(REPLY_TIMEOUT)?)?, shards);
        let last_replies = Arc::new(LastReplies::new(groups.len(), &context.clock));
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::with_capacity(groups.len());
        for (number, shards) in groups.into_iter().enumerate() {
            let mut reader = GroupReader {
                connector: connector.clone(),
                shards,
                context: context.clone(),
                last_replies: Arc::clone(&last_replies),
                number,
                stop: Arc::clone(&stop),
                checked_at: context.clock.now(),
            };
            let mut link = connector.open(REPLY_TIMEOUT)?;
            reader.start_at_end(&mut link)?;
            readers.push((reader, link));
        }
        for (mut reader, link) in readers {
            let notifier = Arc::clone(&context.notifier);
            // The thread is detached: it ends by itself with its next reply from Redis.
            drop(guarded("tail", notifier, move || {
                reader.run(link);
                Ok(())
            })?);
        }
        Ok(Self { stop, last_replies })
    }

    /// How long Redis has been silent.
    pub fn silence(&self) -> Duration {
        self.last_replies.silence()
    }

    /// Stops reading. The detached threads end with their next replies from Redis.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn is_cluster(link: &mut Link) -> Result<bool, TailError> {
    let mut reply = link.ask(&["INFO", "cluster"])?;
    let text = reply.text().ok_or(TailError::Reply("INFO"))?;
    Ok(memchr::memmem::find(text, b"cluster_enabled:1").is_some())
}

/// Groups the shards by connection.
fn groups(cluster: bool, shards: u32) -> Vec<Vec<ShardReader>> {
    let all = (0..shards).map(ShardReader::new);
    if cluster {
        all.map(|shard| vec![shard]).collect()
    } else {
        vec![all.collect()]
    }
}

struct GroupReader {
    connector: Connector,
    shards: Vec<ShardReader>,
    context: TailContext,
    last_replies: Arc<LastReplies>,
    number: usize,
    stop: Arc<AtomicBool>,
    /// When all shards were last checked.
    checked_at: Instant,
}

impl GroupReader {
    fn run(&mut self, link: Link) {
        let mut current = Some(link);
        let mut backoff = FIRST_BACKOFF;
        while !self.stopped() {
            match current.take() {
                Some(link) => {
                    if self.read_until_error(link) {
                        backoff = FIRST_BACKOFF;
                    }
                    Stats::add(&self.context.stats.tail_reconnects, 1);
                }
                None => {
                    std::thread::sleep(backoff);
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    current = self.reconnect();
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A new connection on which every shard was checked.
    fn reconnect(&mut self) -> Option<Link> {
        let mut link = self.connector.open(REPLY_TIMEOUT).ok()?;
        self.check(&mut link).ok()?;
        Some(link)
    }

    /// Reads until the connection fails. Returns whether any read succeeded.
    fn read_until_error(&mut self, mut link: Link) -> bool {
        let mut useful = false;
        let mut command = Vec::new();
        while !self.stopped() {
            self.write_read(&mut command);
            let Ok(outcome) = self.read(&mut link, &command) else {
                break;
            };
            useful = true;
            let interval = match outcome {
                Outcome::Behind => Duration::ZERO,
                Outcome::Idle => IDLE_CHECK_INTERVAL,
                Outcome::Busy => CHECK_INTERVAL,
            };
            let since_check = self
                .context
                .clock
                .now()
                .saturating_duration_since(self.checked_at);
            if since_check >= interval && self.check(&mut link).is_err() {
                break;
            }
        }
        useful
    }

    /// Sends one blocking XREAD and routes its entries.
    fn read(&mut self, link: &mut Link, command: &[u8]) -> Result<Outcome, TailError> {
        link.send(command)?;
        let mut reply = link.reply()?;
        self.last_replies.note(self.number);
        let mut taken = Vec::new();
        let outcome = take_read(
            &mut self.shards,
            &mut reply,
            &mut taken,
            &self.context.stats,
        )?;
        self.route(taken);
        Ok(outcome)
    }

    fn write_read(&self, out: &mut Vec<u8>) {
        out.clear();
        append_head(out, 6 + 2 * self.shards.len());
        let (count, block) = (ENTRIES_PER_READ.to_string(), BLOCK_MS.to_string());
        for word in ["XREAD", "COUNT", &count, "BLOCK", &block, "STREAMS"] {
            append_word(out, word.as_bytes());
        }
        for shard in &self.shards {
            append_word(out, shard.key().as_bytes());
        }
        for shard in &self.shards {
            append_word(out, shard.position().to_string().as_bytes());
        }
    }

    /// Stores the end of each shard as its position.
    fn start_at_end(&mut self, link: &mut Link) -> Result<(), TailError> {
        link.send(&self.checks())?;
        for shard in &mut self.shards {
            shard.start_at_end(&mut check_reply(link)?)?;
        }
        self.last_replies.note(self.number);
        Ok(())
    }

    /// Checks all shards: reads new entries and finds gaps.
    fn check(&mut self, link: &mut Link) -> Result<(), TailError> {
        link.send(&self.checks())?;
        let (mut taken, mut without_epoch) = (Vec::new(), Vec::new());
        let outcome = self.take_checks(link, &mut taken, &mut without_epoch);
        // In one batch, as after an XREAD. A record in one shard may request a new subscription; events
        // that other shards acknowledged before must be delivered first.
        self.route(taken);
        outcome?;
        self.last_replies.note(self.number);
        self.checked_at = self.context.clock.now();
        for index in without_epoch {
            self.renew_epoch(link, index)?;
        }
        Ok(())
    }

    /// Takes the results of all checks, and collects the shards that need a new epoch.
    fn take_checks(
        &mut self,
        link: &mut Link,
        taken: &mut Vec<ShardEntry>,
        without_epoch: &mut Vec<usize>,
    ) -> Result<(), TailError> {
        for index in 0..self.shards.len() {
            let mut entries = Vec::new();
            let (mut reply, mut foreign) = (check_reply(link)?, 0);
            let result = self.shards[index].take_check(&mut reply, &mut entries, &mut foreign)?;
            Stats::add(&self.context.stats.foreign_entries, foreign);
            if result.needs_epoch {
                without_epoch.push(index);
            }
            if let Some(cause) = result.gap {
                self.route(std::mem::take(taken));
                self.report_gap(self.shards[index].number, cause);
            }
            taken.append(&mut entries);
        }
        Ok(())
    }

    fn checks(&self) -> Vec<u8> {
        let mut checks = Vec::new();
        for shard in &self.shards {
            shard.append_check(&mut checks);
        }
        checks
    }

    /// Reports a gap, before later entries are routed.
    fn report_gap(&self, shard: u32, cause: GapCause) {
        let stats = &self.context.stats;
        match cause {
            GapCause::Trimmed(entries) => Stats::add(&stats.trimmed_unread, entries),
            GapCause::HistoryLost => Stats::add(&stats.history_lost, 1),
            GapCause::NewerVersion => Stats::add(&stats.newer_versions, 1),
        }
        // Control records may be among the missing entries.
        self.context.cache_versions.increment(shard);
        self.context.inbox.send(ReactorCommand::Gap { shard });
        self.context.notifier.push(Notification::Gap {
            shard,
            cause: cause.to_string(),
        });
    }

    /// A new epoch tells other readers that their positions in the lost history are worthless.
    fn renew_epoch(&mut self, link: &mut Link, index: usize) -> Result<(), TailError> {
        let shard = &mut self.shards[index];
        let before = String::from_utf8_lossy(shard.epoch()).into_owned();
        let epoch = random_epoch();
        let key = shard.epoch_key();
        let mut reply = link.ask(&["EVAL", RENEW_EPOCH, "1", &key, &before, &epoch])?;
        shard.set_epoch(reply.text().ok_or(TailError::Reply("EVAL"))?);
        Ok(())
    }

    /// Routes entries. An entry of a newer version is a gap: what it says is missing here.
    fn route(&mut self, mut taken: Vec<ShardEntry>) {
        while let Some(place) = taken.iter().position(|it| envelope::is_newer(&it.envelope)) {
            let shard = taken[place].shard;
            let newer = |it: &&ShardEntry| it.shard == shard && envelope::is_newer(&it.envelope);
            let count = taken[place..].iter().take_while(newer).count();
            let later = taken.split_off(place + count);
            taken.truncate(place);
            self.route_readable(std::mem::replace(&mut taken, later));
            self.report_gap(shard, GapCause::NewerVersion);
        }
        self.route_readable(taken);
    }

    fn route_readable(&mut self, taken: Vec<ShardEntry>) {
        if taken.is_empty() {
            return;
        }
        for entry in &taken {
            if envelope::is_control(&entry.envelope) {
                // Before the record is routed: what is read from the store from now on is as new as this
                // version.
                self.context.cache_versions.increment(entry.shard);
            }
        }
        if !self.context.inbox.route(taken) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// The result of one XREAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// No entries until the timeout.
    Idle,
    Busy,
    /// One reply was not enough for a shard. There may be more entries, and Redis may trim them meanwhile.
    Behind,
}

fn take_read(
    shards: &mut [ShardReader],
    reply: &mut Reply<'_>,
    taken: &mut Vec<ShardEntry>,
    stats: &Stats,
) -> Result<Outcome, TailError> {
    const WRONG: TailError = TailError::Reply("XREAD");
    let streams = match reply.element() {
        Some(Element::Nil) => return Ok(Outcome::Idle),
        Some(Element::Array(streams)) => streams,
        _ => return Err(WRONG),
    };
    let (mut outcome, mut foreign) = (Outcome::Busy, 0);
    // Redis answers in the order of the request.
    let mut shards = shards.iter_mut();
    for _ in 0..streams {
        reply.array().ok_or(WRONG)?;
        let key = reply.text().ok_or(WRONG)?;
        let shard = shards
            .find(|shard| shard.key().as_bytes() == key)
            .ok_or(WRONG)?;
        let entries = shard.take_entries(reply, taken, &mut foreign)?;
        if entries == ENTRIES_PER_READ {
            outcome = Outcome::Behind;
        }
    }
    Stats::add(&stats.foreign_entries, foreign);
    Ok(outcome)
}

/// The EXEC reply of the next check.
fn check_reply(link: &mut Link) -> Result<Reply<'_>, TailError> {
    for _ in 0..ShardReader::REPLIES_BEFORE_EXEC {
        link.reply()?;
    }
    link.reply()
}
