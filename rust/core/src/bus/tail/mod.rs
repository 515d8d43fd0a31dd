//! The tail: reads every shard and feeds the reactor.
//!
//! It remembers how far it read in each shard, and reads on from there after every reconnect:
//! nothing is read twice, and nothing is missed that Redis still has. What Redis has no more is
//! noticed, by checks at each shard's account: after every reconnect, whenever a shard is behind,
//! and every few seconds.
//!
//! On one Redis a single connection waits for all shards. On a cluster a command may not cross
//! slots, so there each shard has a connection of its own.

pub mod link;
pub mod reply;
pub mod shard_reader;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bus::cache_versions::CacheVersions;
use crate::bus::envelope;
use crate::core::guarded;
use crate::reactor::inbox::{Command, Entry, Inbox};
use crate::reactor::notifications::{Notification, Notifier};
use crate::stats::Stats;
use link::{Address, Link, append_head, append_word};
use reply::{Element, NotResp, Reply};
use shard_reader::{CheckResult, ENTRIES_PER_READ, GapCause, ShardReader};

/// How long Redis may be silent on purpose, in milliseconds: a node that has not last_replies from Redis
/// for a second trusts no cached key, so a quiet bus must answer more often than that.
const BLOCK_MS: u64 = 400;
/// How long a reply may take beyond that before the connection counts as dead.
const REPLY_TIMEOUT: Duration = Duration::from_millis(BLOCK_MS + 2_000);
/// Between two checks at all shards while Redis has something to say; it is checked_at at all of them
/// at once when it has nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// Gives a shard whose Redis fell back a new epoch, unless somebody was faster.
const RENEW_EPOCH: &str = "if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2]) end return redis.call('GET', KEYS[1])";

/// Why the tail cannot read.
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
    /// What was reached is no Redis.
    #[error(transparent)]
    NotResp(#[from] NotResp),
    /// Redis answered something that is no answer to what was asked.
    #[error("Redis answered {0} in a form that is not a stream's")]
    Reply(&'static str),
}

/// What the tail works with.
#[derive(Clone)]
pub struct TailContext {
    pub inbox: Arc<Inbox>,
    pub stats: Arc<Stats>,
    pub notifier: Arc<Notifier>,
    pub cache_versions: Arc<CacheVersions>,
}

/// When Redis last answered each of the tail's connections.
#[derive(Debug)]
pub struct LastReplies {
    started: Instant,
    /// In milliseconds since `started`.
    last: Box<[AtomicU64]>,
}

impl LastReplies {
    fn new(connections: usize) -> Self {
        Self {
            started: Instant::now(),
            last: (0..connections).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn note(&self, connection: usize) {
        let now = self.started.elapsed().as_millis() as u64;
        self.last[connection].store(now, Ordering::Relaxed);
    }

    /// How long the connection that waits longest has been waiting for an answer.
    pub fn silence(&self) -> Duration {
        let oldest = self.last.iter().map(|last| last.load(Ordering::Relaxed));
        let oldest = Duration::from_millis(oldest.min().unwrap_or(0));
        self.started.elapsed().saturating_sub(oldest)
    }
}

/// A running tail.
#[derive(Debug)]
pub struct Tail {
    stop: Arc<AtomicBool>,
    last_replies: Arc<LastReplies>,
}

impl Tail {
    /// Connects, notes where each shard ends now, and begins to read from there.
    ///
    /// # Errors
    /// See [`TailError`].
    pub fn start(url: &str, shards: u32, context: &TailContext) -> Result<Self, TailError> {
        let address = Address::parse(url)?;
        let groups = groups(
            is_cluster(&mut Link::open(&address, REPLY_TIMEOUT)?)?,
            shards,
        );
        let last_replies = Arc::new(LastReplies::new(groups.len()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::with_capacity(groups.len());
        for (number, shards) in groups.into_iter().enumerate() {
            let mut reader = Reader {
                address: address.clone(),
                shards,
                context: context.clone(),
                last_replies: Arc::clone(&last_replies),
                number,
                stop: Arc::clone(&stop),
                checked_at: Instant::now(),
            };
            let mut link = Link::open(&reader.address, REPLY_TIMEOUT)?;
            reader.start_at_end(&mut link)?;
            readers.push((reader, link));
        }
        for (mut reader, link) in readers {
            let notifier = Arc::clone(&context.notifier);
            // Nobody waits for it: it ends by itself with its next answer from Redis.
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

    /// Reads no more. The threads end with their next answers from Redis; nobody waits for them.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn is_cluster(link: &mut Link) -> Result<bool, TailError> {
    let mut reply = link.ask(&["INFO", "cluster"])?;
    let text = reply.text().ok_or(TailError::Reply("INFO"))?;
    Ok(memchr::memmem::find(text, b"cluster_enabled:1").is_some())
}

/// Which shards share a connection.
fn groups(cluster: bool, shards: u32) -> Vec<Vec<ShardReader>> {
    let all = (0..shards).map(ShardReader::new);
    if cluster {
        all.map(|shard| vec![shard]).collect()
    } else {
        vec![all.collect()]
    }
}

struct Reader {
    address: Address,
    shards: Vec<ShardReader>,
    context: TailContext,
    last_replies: Arc<LastReplies>,
    number: usize,
    stop: Arc<AtomicBool>,
    /// When all shards were last checked_at at.
    checked_at: Instant,
}

impl Reader {
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

    /// A connection on which every shard was checked_at at.
    fn reconnect(&mut self) -> Option<Link> {
        let mut link = Link::open(&self.address, REPLY_TIMEOUT).ok()?;
        self.check(&mut link).ok()?;
        Some(link)
    }

    /// Reads until the connection fails. Answers whether it was ever of use.
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
            if self.checked_at.elapsed() >= interval && self.check(&mut link).is_err() {
                break;
            }
        }
        useful
    }

    /// One XREAD that waits.
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

    /// Notes where each shard ends.
    fn start_at_end(&mut self, link: &mut Link) -> Result<(), TailError> {
        link.send(&self.checks())?;
        for shard in &mut self.shards {
            shard.start_at_end(&mut check_reply(link)?)?;
        }
        self.last_replies.note(self.number);
        Ok(())
    }

    /// Looks at all shards: what is new in them, and what is missing.
    fn check(&mut self, link: &mut Link) -> Result<(), TailError> {
        link.send(&self.checks())?;
        let (mut taken, mut without_epoch) = (Vec::new(), Vec::new());
        let outcome = self.take_checks(link, &mut taken, &mut without_epoch);
        // In one piece, like what an XREAD brings: who is sent for again, by a record in one shard, still hears
        // what was acknowledged before that in another.
        self.route(taken);
        outcome?;
        self.last_replies.note(self.number);
        self.checked_at = Instant::now();
        for index in without_epoch {
            self.renew_epoch(link, index)?;
        }
        Ok(())
    }

    /// Takes what all checks result, and notes the shards that need a new epoch.
    fn take_checks(
        &mut self,
        link: &mut Link,
        taken: &mut Vec<Entry>,
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
            if result.gap.is_some() {
                self.route(std::mem::take(taken));
                self.report_gap(index, &result);
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

    /// Says what is missing, before what comes after it is handed on.
    fn report_gap(&self, index: usize, result: &CheckResult) {
        let Some(cause) = result.gap else {
            return;
        };
        let shard = self.shards[index].number;
        let stats = &self.context.stats;
        match cause {
            GapCause::Trimmed(entries) => Stats::add(&stats.trimmed_unread, entries),
            GapCause::HistoryLost => Stats::add(&stats.fell_back, 1),
        }
        // Control records may be among what is missing.
        self.context.cache_versions.increment(shard);
        self.context.inbox.send(Command::Gap { shard });
        self.context.notifier.push(Notification::Gap {
            shard,
            cause: cause.to_string(),
        });
    }

    /// Whoever holds positions of the history that is lost must learn that they are worthless.
    fn renew_epoch(&mut self, link: &mut Link, index: usize) -> Result<(), TailError> {
        let shard = &mut self.shards[index];
        let before = String::from_utf8_lossy(shard.epoch()).into_owned();
        let epoch = random_epoch();
        let key = shard.epoch_key();
        let mut reply = link.ask(&["EVAL", RENEW_EPOCH, "1", &key, &before, &epoch])?;
        shard.set_epoch(reply.text().ok_or(TailError::Reply("EVAL"))?);
        Ok(())
    }

    fn route(&mut self, taken: Vec<Entry>) {
        if taken.is_empty() {
            return;
        }
        for entry in &taken {
            if envelope::is_control(&entry.envelope) {
                // First: whoever reads the store after this is as new as the mark.
                self.context.cache_versions.increment(entry.shard);
            }
        }
        if !self.context.inbox.route(taken) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// What one XREAD brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing, for as long as it waited.
    Idle,
    Busy,
    /// As much of a shard as one reply takes: there may be more, and it may be trimmed meanwhile.
    Behind,
}

fn take_read(
    shards: &mut [ShardReader],
    reply: &mut Reply<'_>,
    taken: &mut Vec<Entry>,
    stats: &Stats,
) -> Result<Outcome, TailError> {
    const WRONG: TailError = TailError::Reply("XREAD");
    let streams = match reply.element() {
        Some(Element::Nil) => return Ok(Outcome::Idle),
        Some(Element::Array(streams)) => streams,
        _ => return Err(WRONG),
    };
    let (mut outcome, mut foreign) = (Outcome::Busy, 0);
    // Redis answers in the order in which it was asked.
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

/// The EXEC of the next check.
fn check_reply(link: &mut Link) -> Result<Reply<'_>, TailError> {
    for _ in 0..ShardReader::REPLIES_BEFORE_EXEC {
        link.reply()?;
    }
    link.reply()
}

/// 64 bits that no other history has. The hasher's keys are the process's random numbers.
fn random_epoch() -> String {
    let bits = std::hash::RandomState::new().hash_one(std::time::SystemTime::now());
    format!("{bits:016x}")
}
