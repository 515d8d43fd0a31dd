//! The reader of one shard: its position, and the detection of missing entries.

use std::fmt;
use std::hash::BuildHasher;

use super::TailError;
use super::link::append_command;
use super::reply::{Element, Reply};
use crate::bus::append::events_key;
use crate::reactor::inbox::ShardEntry;

/// Maximum number of entries of one shard in one reply.
pub const ENTRIES_PER_READ: usize = 512;

/// Gives a shard whose history was lost a new epoch, unless another node did so first.
const RENEW_EPOCH: &str = "if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2]) end return redis.call('GET', KEYS[1])";

/// A position in a shard: the id of an entry, `<ms>-<seq>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    pub ms: u64,
    pub seq: u64,
}

impl StreamId {
    /// Parses `<ms>-<seq>`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self {
            ms: ms.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.ms, self.seq)
    }
}

/// Why entries of a shard may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// That many entries were trimmed before they were read.
    Trimmed(u64),
    /// Redis lost entries: it was restored from an older file, failed over to a replica that was behind, or
    /// restarted empty.
    HistoryLost,
    /// A later version of homewire wrote an entry that this one cannot read.
    NewerVersion,
}

impl fmt::Display for GapCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trimmed(entries) => write!(formatter, "{entries} trimmed before they were read"),
            Self::HistoryLost => formatter.write_str("Redis fell back"),
            Self::NewerVersion => formatter.write_str("written by a newer version of homewire"),
        }
    }
}

/// 64 random bits. The keys of the hasher are the random numbers of the process.
pub fn random_epoch() -> String {
    let bits = std::hash::RandomState::new().hash_one(());
    format!("{bits:016x}")
}

/// The result of a check of a shard, besides its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckResult {
    pub gap: Option<GapCause>,
    /// Whether there are more entries to read.
    pub more: bool,
    /// The history was lost, and no node has given the shard a new epoch yet.
    pub needs_epoch: bool,
}

/// A shard and the reader's position in it.
#[derive(Clone, Debug)]
pub struct ShardReader {
    pub number: u32,
    key: String,
    position: StreamId,
    /// The number of entries ever added up to `position`, as in Redis (`entries-added`). Unknown after a
    /// gap, until the shard was read to its end.
    count: Option<u64>,
    /// The random name of the shard's history; empty until Python sets one.
    epoch: Vec<u8>,
}

/// The reply to `XINFO STREAM`. A missing stream is empty.
#[derive(Clone, Copy, Debug, Default)]
struct Information {
    length: u64,
    last: StreamId,
    added: u64,
}

impl ShardReader {
    pub fn new(number: u32) -> Self {
        Self {
            number,
            key: events_key(number),
            position: StreamId::default(),
            count: Some(0),
            epoch: Vec::new(),
        }
    }

    /// The stream's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How far the shard was read.
    pub fn position(&self) -> StreamId {
        self.position
    }

    /// The key of the shard's epoch; must equal `homewire.bus.shards.epoch_key`.
    pub fn epoch_key(&self) -> String {
        format!("hw:{{e{}}}:epoch", self.number)
    }

    /// The epoch that the shard has after a renewal; another node may have given it first.
    pub fn set_epoch(&mut self, epoch: &[u8]) {
        self.epoch = epoch.to_vec();
    }

    /// Appends the command that reads what is behind the position, without waiting.
    pub fn append_read(&self, out: &mut Vec<u8>) {
        let (count, position) = (ENTRIES_PER_READ.to_string(), self.position.to_string());
        append_command(
            out,
            &["XREAD", "COUNT", &count, "STREAMS", &self.key, &position],
        );
    }

    /// Appends the commands of one check: epoch, entries and entry counts. They form one transaction on one
    /// slot, because counts of different moments prove nothing.
    pub fn append_check(&self, out: &mut Vec<u8>) {
        append_command(out, &["MULTI"]);
        append_command(out, &["GET", &self.epoch_key()]);
        self.append_read(out);
        append_command(out, &["XINFO", "STREAM", &self.key]);
        append_command(out, &["EXEC"]);
    }

    /// Appends the command that gives the shard a new epoch, and answers the one that it has then. A new
    /// epoch tells other readers that their positions in the lost history are worthless.
    pub fn append_renewal(&self, out: &mut Vec<u8>) {
        let (key, epoch) = (self.epoch_key(), random_epoch());
        let before = String::from_utf8_lossy(&self.epoch);
        append_command(out, &["EVAL", RENEW_EPOCH, "1", &key, &before, &epoch]);
    }

    /// The number of replies to a check before that of its EXEC.
    pub const REPLIES_BEFORE_EXEC: usize = 4;

    /// Starts at the shard's end, by the EXEC reply of a check.
    ///
    /// # Errors
    /// [`TailError::Reply`] for a reply that does not match a check.
    pub fn start_at_end(&mut self, reply: &mut Reply<'_>) -> Result<(), TailError> {
        let epoch = check_epoch(reply)?;
        reply.skip();
        let information = information(reply)?;
        self.epoch = epoch.unwrap_or_default().to_vec();
        self.position = information.last;
        self.count = Some(information.added);
        Ok(())
    }

    /// Takes entries and counts from the EXEC reply of a check.
    ///
    /// # Errors
    /// [`TailError::Reply`] for a reply that does not match a check.
    pub fn take_check(
        &mut self,
        reply: &mut Reply<'_>,
        taken: &mut Vec<ShardEntry>,
        foreign: &mut u64,
    ) -> Result<CheckResult, TailError> {
        let epoch = check_epoch(reply)?.unwrap_or_default().to_vec();
        let entries = self.take_read(reply, taken, foreign)?;
        let information = information(reply)?;
        let more = entries == ENTRIES_PER_READ;
        let gap = self.detect_gap(&epoch, information, more);
        let is_old = epoch.is_empty() || epoch == self.epoch;
        let needs_epoch = is_old && gap == Some(GapCause::HistoryLost);
        self.epoch = epoch;
        if gap.is_some() {
            self.position = self.position.min(information.last);
            self.count = None;
        }
        if !more {
            self.count = Some(information.added);
        }
        Ok(CheckResult {
            gap,
            more,
            needs_epoch,
        })
    }

    /// Takes the entries from the reply to [`ShardReader::append_read`]. Returns their number.
    ///
    /// # Errors
    /// [`TailError::Reply`] for another reply.
    pub fn take_read(
        &mut self,
        reply: &mut Reply<'_>,
        taken: &mut Vec<ShardEntry>,
        foreign: &mut u64,
    ) -> Result<usize, TailError> {
        match reply.element() {
            Some(Element::Nil) => Ok(0),
            // One stream: its key and its entries.
            Some(Element::Map(1)) => {
                reply.skip();
                self.take_entries(reply, taken, foreign)
            }
            _ => Err(TailError::Reply("XREAD")),
        }
    }

    fn detect_gap(&self, epoch: &[u8], now: Information, more: bool) -> Option<GapCause> {
        let known = !self.epoch.is_empty();
        if (known && epoch != self.epoch) || now.last < self.position {
            return Some(GapCause::HistoryLost);
        }
        let count = self.count?;
        if now.added < count {
            // Fewer than were read: the history was lost, and later entries may hide that from the
            // position.
            return Some(GapCause::HistoryLost);
        }
        // At the end of the shard, all added entries must have been read. Before the end, at least all
        // trimmed ones.
        let must_be_read = if more {
            now.added.saturating_sub(now.length)
        } else {
            now.added
        };
        let missing = must_be_read.saturating_sub(count);
        (missing > 0).then_some(GapCause::Trimmed(missing))
    }

    /// Takes the entries of one stream from a reply and moves the position behind them.
    ///
    /// # Errors
    /// [`TailError::Reply`] for a reply that is not a list of entries.
    pub fn take_entries(
        &mut self,
        reply: &mut Reply<'_>,
        taken: &mut Vec<ShardEntry>,
        foreign: &mut u64,
    ) -> Result<usize, TailError> {
        const WRONG: TailError = TailError::Reply("XREAD");
        let entries = reply.array().ok_or(WRONG)?;
        for _ in 0..entries {
            reply.array().ok_or(WRONG)?;
            let id = reply.text().and_then(StreamId::parse).ok_or(WRONG)?;
            self.position = id;
            self.count = self.count.map(|count| count + 1);
            match take_envelope(reply)? {
                Some(envelope) => taken.push(ShardEntry {
                    shard: self.number,
                    envelope: envelope.to_vec(),
                }),
                None => *foreign += 1,
            }
        }
        Ok(entries)
    }
}

/// The value of the field `e` among an entry's fields.
fn take_envelope<'a>(reply: &mut Reply<'a>) -> Result<Option<&'a [u8]>, TailError> {
    const WRONG: TailError = TailError::Reply("XREAD");
    let fields = match reply.element() {
        Some(Element::Array(count)) => count / 2,
        // An entry that was deleted while it was read has no fields.
        Some(Element::Nil) => 0,
        _ => return Err(WRONG),
    };
    let mut envelope = None;
    for _ in 0..fields {
        let name = reply.text().ok_or(WRONG)?;
        let value = reply.text().ok_or(WRONG)?;
        if name == b"e" && envelope.is_none() {
            envelope = Some(value);
        }
    }
    Ok(envelope)
}

fn check_epoch<'a>(reply: &mut Reply<'a>) -> Result<Option<&'a [u8]>, TailError> {
    match (reply.element(), reply.element()) {
        (Some(Element::Array(3)), Some(Element::Text(epoch))) => Ok(Some(epoch)),
        (Some(Element::Array(3)), Some(Element::Nil)) => Ok(None),
        _ => Err(TailError::Reply("a check")),
    }
}

fn information(reply: &mut Reply<'_>) -> Result<Information, TailError> {
    const WRONG: TailError = TailError::Reply("XINFO STREAM");
    let mut information = Information::default();
    let pairs = match reply.element() {
        Some(Element::Map(pairs)) => pairs,
        // The key does not exist.
        Some(Element::Error(_)) => return Ok(information),
        _ => return Err(WRONG),
    };
    for _ in 0..pairs {
        match reply.text().ok_or(WRONG)? {
            b"length" => information.length = count(reply).ok_or(WRONG)?,
            b"entries-added" => information.added = count(reply).ok_or(WRONG)?,
            b"last-generated-id" => {
                information.last = reply.text().and_then(StreamId::parse).ok_or(WRONG)?;
            }
            _ => reply.skip(),
        }
    }
    Ok(information)
}

fn count(reply: &mut Reply<'_>) -> Option<u64> {
    reply.integer()?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Failing loudly is what a test is for.
mod tests;
