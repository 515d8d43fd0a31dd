//! Notifications to Python: a queue, and a descriptor that is readable while the queue is not empty.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connection::PrincipalId;
use crate::connection::ids::ConnectionId;
use crate::stats::Stats;
use crate::wire::transport::MessageKind;

/// A notification to Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// A connection was removed with this close code (1006 without a close frame).
    Closed { id: ConnectionId, code: u16 },
    /// A device's command connection was adopted; `Closed` reports its end.
    Adopted { id: ConnectionId },
    /// The kernel took the whole frame of the queued command with this sequence.
    Written { id: ConnectionId, sequence: u64 },
    /// The client of this principal exceeded its allowance and is closed with 1008.
    AllowanceExceeded { principal_id: PrincipalId },
    /// A message from a client.
    Message {
        id: ConnectionId,
        kind: MessageKind,
        payload: Vec<u8>,
    },
    /// Keys of users of open connections: project, user, key tag. `next` is the cursor of the following
    /// part; 0: there is none.
    ActiveKeys {
        next: u32,
        keys: Vec<(u64, u64, u64)>,
    },
    /// Entries of a shard may be missing, for this cause.
    Gap { shard: u32, cause: String },
    /// A thread of the core stopped; the node must stop.
    Failed { reason: String },
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Notification>,
    message_bytes: usize,
}

/// The queue between the threads of the core and Python's event loop.
#[derive(Debug)]
pub struct Notifier {
    queue: Mutex<Queue>,
    /// Maximum bytes of clients' messages in the queue; above it the reactor pauses reading.
    limit: usize,
    stats: Arc<Stats>,
    writer: UnixStream,
    reader: UnixStream,
}

impl Notifier {
    /// `limit` bounds the messages of clients, in bytes.
    ///
    /// # Errors
    /// The kernel's, if no descriptors are left.
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

    /// The descriptor to poll for reading.
    pub fn descriptor(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Queues one notification and wakes Python if the queue was empty.
    pub fn push(&self, notification: Notification) {
        let mut queue = self.lock();
        let was_empty = queue.items.is_empty();
        if let Notification::Message { payload, .. } = &notification {
            // With the size of its entry: empty messages take memory, too.
            queue.message_bytes += payload.len() + size_of::<Notification>();
            Stats::set(&self.stats.messages_bytes, queue.message_bytes as u64);
        }
        queue.items.push_back(notification);
        drop(queue);
        if was_empty {
            // The only failure is a full pipe, which is readable already.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// Whether the messages reached the limit.
    pub fn is_full(&self) -> bool {
        self.lock().message_bytes >= self.limit
    }

    /// Takes all notifications. The second value says whether the messages had reached the limit.
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
