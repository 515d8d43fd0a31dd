//! The tail: a thread with its own Redis connection that reads every shard and feeds the reactor.
//!
//! It remembers how far it read in each shard, and reads on from there after every reconnect:
//! nothing is read twice, and nothing is missed that Redis still has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::{Client, Cmd, Connection, ConnectionLike, RedisError, Value};

use crate::core::guarded;
use crate::inbox::{Entry, Inbox};
use crate::notify::Notifier;
use crate::stats::Stats;

/// Entries of one shard per reply.
const ENTRIES_PER_READ: usize = 512;
/// How long Redis may be silent on purpose, in milliseconds: a node that has not heard from Redis
/// for a second trusts no cached key, so a quiet bus must answer more often than that.
const BLOCK_MS: usize = 400;
/// How long a reply may take beyond that before the connection counts as dead.
const PATIENCE: Duration = Duration::from_millis(2_000);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

/// Why the tail could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// Redis cannot be reached, or refused.
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    /// Redis answered something that is no answer to what was asked.
    #[error("Redis answered {0} in a form that is not a stream's")]
    Reply(&'static str),
    /// No thread could be started.
    #[error("the tail thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// How far a shard was read: the id of its last entry, `<ms>-<seq>`.
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

/// One shard as the tail knows it.
#[derive(Clone, Debug)]
struct Shard {
    key: String,
    position: StreamId,
}

/// A running tail.
#[derive(Debug)]
pub struct Tail {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Tail {
    /// Connects, notes where each shard ends now, and begins to read from there.
    ///
    /// `heard` is called after every answer of Redis.
    ///
    /// # Errors
    /// See [`TailError`].
    pub fn start(
        url: &str,
        shards: u32,
        inbox: Arc<Inbox>,
        stats: Arc<Stats>,
        notifier: Arc<Notifier>,
        heard: impl Fn() + Send + 'static,
    ) -> Result<Self, TailError> {
        let client = Client::open(url)?;
        let mut connection = connect(&client)?;
        let shards = (0..shards)
            .map(|number| end_of_shard(&mut connection, number))
            .collect::<Result<Vec<_>, _>>()?;
        heard();
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            client,
            shards,
            inbox,
            stats,
            heard: Box::new(heard),
            stop: Arc::clone(&stop),
        };
        let thread = guarded("tail", notifier, move || {
            reader.run(connection);
            Ok(())
        })?;
        Ok(Self { stop, thread })
    }

    /// Reads no more. The thread ends with its next answer from Redis; nobody waits for it.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread);
    }
}

fn connect(client: &Client) -> Result<Connection, RedisError> {
    let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
    let patience = Duration::from_millis(BLOCK_MS as u64) + PATIENCE;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// The key of a shard's stream; the same as `homewire.bus.shards.stream_key`.
fn stream_key(shard: u32) -> String {
    format!("hw:{{e{shard}}}:events")
}

/// Where a shard ends: `last-generated-id`, which also counts entries that are trimmed or deleted.
fn end_of_shard(connection: &mut Connection, number: u32) -> Result<Shard, TailError> {
    let key = stream_key(number);
    let exists: bool = redis::cmd("EXISTS").arg(&key).query(connection)?;
    let position = if exists {
        let information: Value = redis::cmd("XINFO")
            .arg("STREAM")
            .arg(&key)
            .query(connection)?;
        last_generated_id(&information).ok_or(TailError::Reply("XINFO STREAM"))?
    } else {
        StreamId::default()
    };
    Ok(Shard { key, position })
}

fn last_generated_id(information: &Value) -> Option<StreamId> {
    let pairs = information.as_map_iter()?;
    for (name, value) in pairs {
        if bytes(name)? == b"last-generated-id" {
            return StreamId::parse(bytes(value)?);
        }
    }
    None
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

struct Reader {
    client: Client,
    shards: Vec<Shard>,
    inbox: Arc<Inbox>,
    stats: Arc<Stats>,
    heard: Box<dyn Fn() + Send>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(&mut self, connection: Connection) {
        let mut current = Some(connection);
        let mut backoff = FIRST_BACKOFF;
        while !self.stop.load(Ordering::Relaxed) {
            match current.take() {
                Some(connection) => {
                    if self.read_until_error(connection) {
                        backoff = FIRST_BACKOFF;
                    }
                    Stats::add(&self.stats.tail_reconnects, 1);
                }
                None => {
                    std::thread::sleep(backoff);
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    current = connect(&self.client).ok();
                }
            }
        }
    }

    /// Reads until the connection fails. Answers whether it was ever of use.
    fn read_until_error(&mut self, mut connection: Connection) -> bool {
        let mut useful = false;
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(reply) = connection.req_command(&self.command()) else {
                break;
            };
            useful = true;
            (self.heard)();
            let entries = self.take(reply);
            if !entries.is_empty() && !self.inbox.route(entries) {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        useful
    }

    fn command(&self) -> Cmd {
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(ENTRIES_PER_READ)
            .arg("BLOCK")
            .arg(BLOCK_MS)
            .arg("STREAMS");
        for shard in &self.shards {
            command.arg(&shard.key);
        }
        for shard in &self.shards {
            command.arg(shard.position.to_string());
        }
        command
    }

    /// Takes the entries out of a reply and moves the positions behind them.
    fn take(&mut self, reply: Value) -> Vec<Entry> {
        let Value::Array(streams) = reply else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for stream in streams {
            let Value::Array(mut pair) = stream else {
                continue;
            };
            let (Some(Value::Array(entries)), Some(key)) = (pair.pop(), pair.pop()) else {
                continue;
            };
            let Some(number) = bytes(&key).and_then(|key| self.number_of(key)) else {
                continue;
            };
            for entry in entries {
                self.take_entry(number, entry, &mut taken);
            }
        }
        taken
    }

    fn number_of(&self, key: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(key).ok()?;
        let number: usize = text
            .strip_prefix("hw:{e")?
            .strip_suffix("}:events")?
            .parse()
            .ok()?;
        (number < self.shards.len()).then_some(number)
    }

    fn take_entry(&mut self, number: usize, entry: Value, taken: &mut Vec<Entry>) {
        let Value::Array(mut pair) = entry else {
            return;
        };
        let (Some(fields), Some(id)) = (pair.pop(), pair.pop()) else {
            return;
        };
        if let Some(position) = bytes(&id).and_then(StreamId::parse) {
            self.shards[number].position = position;
        }
        match envelope_of(fields) {
            Some(envelope) => taken.push(Entry {
                shard: number as u32,
                envelope,
            }),
            None => Stats::add(&self.stats.foreign_entries, 1),
        }
    }
}

/// The value of the field `e`, moved out without a copy.
fn envelope_of(fields: Value) -> Option<Vec<u8>> {
    let Value::Array(fields) = fields else {
        return None;
    };
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if bytes(&name) == Some(b"e")
            && let Value::BulkString(envelope) = value
        {
            return Some(envelope);
        }
    }
    None
}
