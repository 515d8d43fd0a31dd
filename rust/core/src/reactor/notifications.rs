//! What the core tells Python: a queue, and a descriptor that is readable while it is not empty.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connection::PrincipalId;
use crate::connection::ids::ConnectionId;
use crate::stats::Stats;

/// Something that happened in the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// A connection ended with this close code (1006 when none was exchanged).
    Closed { id: ConnectionId, code: u16 },
    /// A handshake for a device's command socket is under way: told before its client can know of it.
    /// `Adopted` or `Closed` follows.
    Reserved {
        id: ConnectionId,
        project: u64,
        device: u64,
    },
    /// That socket was taken over; its end will be told by `Closed`.
    Adopted { id: ConnectionId },
    /// The kernel took the whole frame of a command that is kept under this sequence until then.
    Written { id: ConnectionId, sequence: u64 },
    /// A connection of this principal is closed with 1008, because its client sent more than its allowance.
    AllowanceExceeded { principal_id: PrincipalId },
    /// A client sent a message.
    Message {
        id: ConnectionId,
        text: bool,
        payload: Vec<u8>,
    },
    /// A part of the keys of users that connections are open with: project, user, key tag. `next` is
    /// where the following part begins; 0: there is none.
    KeysInUse {
        next: u32,
        keys: Vec<(u64, u64, u64)>,
    },
    /// Entries of a shard may be missing, and why.
    Gap { shard: u32, cause: String },
    /// A thread of the core stopped; nothing can be trusted any more.
    Failed { reason: String },
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Notification>,
    message_bytes: usize,
}

/// The queue between the core's threads and Python's loop.
#[derive(Debug)]
pub struct Notifier {
    queue: Mutex<Queue>,
    /// Messages of clients wait here in about this many bytes; then the reactor reads no more of them.
    limit: usize,
    stats: Arc<Stats>,
    writer: UnixStream,
    reader: UnixStream,
}

impl Notifier {
    /// `limit` bounds the messages of clients, in bytes.
    ///
    /// # Errors
    /// The kernel's, when there are no descriptors left.
    pub fn new(limit: usize, stats: Arc<Stats>) -> io::Result<Self> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        Ok(Self {
            queue: Mutex::default(),
            limit,
            stats,
            writer,
            reader,
        })
    }

    /// The descriptor to watch for reading.
    pub fn descriptor(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Queues one notification and wakes Python if it may be asleep.
    pub fn push(&self, notification: Notification) {
        let mut queue = self.lock();
        let was_empty = queue.items.is_empty();
        if let Notification::Message { payload, .. } = &notification {
            // With its place in the queue, for empty messages take memory too.
            queue.message_bytes += payload.len() + size_of::<Notification>();
            Stats::set(&self.stats.messages_bytes, queue.message_bytes as u64);
        }
        queue.items.push_back(notification);
        drop(queue);
        if was_empty {
            // The only failure is a full pipe, and then it is readable already.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// Whether so many messages wait that clients have to.
    pub fn is_full(&self) -> bool {
        self.lock().message_bytes >= self.limit
    }

    /// Takes everything that waits. Second value: whether messages had to wait for this.
    pub fn take(&self) -> (VecDeque<Notification>, bool) {
        let mut drained = [0; 64];
        while matches!((&self.reader).read(&mut drained), Ok(count) if count == drained.len()) {}
        let queue = {
            let mut queue = self.lock();
            Stats::set(&self.stats.messages_bytes, 0);
            std::mem::take(&mut *queue)
        };
        (queue.items, queue.message_bytes >= self.limit)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
