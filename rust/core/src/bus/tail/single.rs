//! The reader of a single Redis: one XREAD waits for all shards.

use std::time::{Duration, Instant};

use super::connector::Connector;
use super::feed::Feed;
use super::link::{Link, append_head, append_word};
use super::reply::{Element, Reply};
use super::shard_reader::{ENTRIES_PER_READ, ShardReader};
use super::{
    BLOCK_MS, CHECK_INTERVAL, FIRST_BACKOFF, IDLE_CHECK_INTERVAL, MAX_BACKOFF, REPLY_TIMEOUT,
    TailError,
};
use crate::reactor::inbox::ShardEntry;
use crate::stats::Stats;

/// Reads all shards on one blocking connection.
pub(super) struct SingleReader {
    connector: Connector,
    shards: Vec<ShardReader>,
    feed: Feed,
    /// When all shards were last checked.
    checked_at: Instant,
}

impl SingleReader {
    /// A reader at the end of each shard.
    pub fn start(
        connector: Connector,
        link: &mut Link,
        shards: u32,
        feed: Feed,
    ) -> Result<Self, TailError> {
        let mut reader = Self {
            connector,
            shards: (0..shards).map(ShardReader::new).collect(),
            checked_at: feed.now(),
            feed,
        };
        reader.start_at_end(link)?;
        Ok(reader)
    }

    /// Reads until the reader is stopped.
    pub fn run(&mut self, link: Link) {
        let mut current = Some(link);
        let mut backoff = FIRST_BACKOFF;
        while !self.feed.stopped() {
            match current.take() {
                Some(link) => {
                    if self.read_until_error(link) {
                        backoff = FIRST_BACKOFF;
                    }
                    Stats::add(&self.feed.context.stats.tail_reconnects, 1);
                }
                None => {
                    std::thread::sleep(backoff);
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    current = self.reconnect();
                }
            }
        }
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
        while !self.feed.stopped() {
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
            let since_check = self.feed.now().saturating_duration_since(self.checked_at);
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
        self.feed.note_reply(self.feed.now());
        let mut taken = Vec::new();
        let outcome = take_read(
            &mut self.shards,
            &mut reply,
            &mut taken,
            &self.feed.context.stats,
        )?;
        self.feed.route(taken);
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
        self.feed.note_reply(self.feed.now());
        Ok(())
    }

    /// Checks all shards: reads new entries and finds gaps.
    fn check(&mut self, link: &mut Link) -> Result<(), TailError> {
        link.send(&self.checks())?;
        let (mut taken, mut without_epoch) = (Vec::new(), Vec::new());
        let outcome = self.take_checks(link, &mut taken, &mut without_epoch);
        // In one batch, as after an XREAD. A record in one shard may request a new subscription; events
        // that other shards acknowledged before must be delivered first.
        self.feed.route(taken);
        outcome?;
        self.feed.note_reply(self.feed.now());
        self.checked_at = self.feed.now();
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
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let outcome = self
                .feed
                .take_check(shard, &mut check_reply(link)?, taken)?;
            if outcome.needs_epoch {
                without_epoch.push(index);
            }
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

    /// Gives a shard whose history was lost a new epoch.
    fn renew_epoch(&mut self, link: &mut Link, index: usize) -> Result<(), TailError> {
        let shard = &mut self.shards[index];
        let mut command = Vec::new();
        shard.append_renewal(&mut command);
        link.send(&command)?;
        shard.set_epoch(link.reply()?.text().ok_or(TailError::Reply("EVAL"))?);
        Ok(())
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
        Some(Element::Map(streams)) => streams,
        _ => return Err(WRONG),
    };
    let (mut outcome, mut foreign) = (Outcome::Busy, 0);
    // Redis answers in the order of the request.
    let mut shards = shards.iter_mut();
    for _ in 0..streams {
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
