//! Frames kept for sockets that lag, and the running sum of what all of them take.
//!
//! What is counted is *memory*, not queued bytes: a block that a thousand slow_consumers connections share
//! lies in memory once and counts once, or a single popular event would look like a thousand and
//! close clients for nothing. Each place in a queue counts in_same_account it, because with small
//! frames the queues are what takes the memory. The sum is kept by what is dropped, so that no way in
//! which a connection ends can forget to subtract; what is written through at once never comes here.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Instant;

/// What the allocator adds to each allocation, about.
const ALLOCATION: usize = 16;

/// The memory of kept bytes: the record with the two counts of its `Rc`, and the bytes, one allocation each.
const fn shared_memory(length: usize) -> usize {
    2 * size_of::<usize>() + size_of::<SharedBlock>() + length + 2 * ALLOCATION
}

/// What one place in a queue costs that holds so many bytes, if nobody shares them.
pub const fn entry_memory(length: usize) -> usize {
    size_of::<QueueEntry>() + shared_memory(length)
}

/// What the send queues of one reactor take together, and about what time it is.
#[derive(Clone, Debug)]
pub struct MemoryAccount(Rc<Totals>);

#[derive(Debug)]
struct Totals {
    bytes: Cell<usize>,
    now: Cell<Instant>,
}

impl MemoryAccount {
    /// An empty one.
    pub fn new(now: Instant) -> Self {
        Self(Rc::new(Totals {
            bytes: Cell::new(0),
            now: Cell::new(now),
        }))
    }

    /// The memory of all send queues, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// What is kept from now on is this old: nobody reads a clock to keep something.
    pub fn set_now(&self, now: Instant) {
        self.0.now.set(now);
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes);
    }

    fn subtract(&self, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get() - bytes);
    }
}

/// Bytes that at least one socket did not take yet.
#[derive(Debug)]
pub struct SharedBlock {
    bytes: Box<[u8]>,
    since: Instant,
    memory_account: MemoryAccount,
    sequence: u64,
}

impl SharedBlock {
    /// A copy of `bytes`, in the memory_account's sum for as long as somebody holds it. With a `sequence` other than
    /// 0 they are one frame, of which is told when the kernel has taken it whole.
    pub fn new(bytes: &[u8], sequence: u64, memory_account: &MemoryAccount) -> Rc<Self> {
        Self::since(bytes, sequence, memory_account.0.now.get(), memory_account)
    }

    /// Something new, as old as this turn, in the same sum.
    pub fn in_same_account(&self, bytes: &[u8]) -> Rc<Self> {
        Self::new(bytes, 0, &self.memory_account)
    }

    /// The sequence of the frame; 0: none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A copy of a part, as old as the whole.
    pub fn part(&self, start: usize, end: usize) -> Rc<Self> {
        Self::since(
            &self.bytes[start..end],
            self.sequence,
            self.since,
            &self.memory_account,
        )
    }

    fn since(
        bytes: &[u8],
        sequence: u64,
        since: Instant,
        memory_account: &MemoryAccount,
    ) -> Rc<Self> {
        memory_account.add(shared_memory(bytes.len()));
        Rc::new(Self {
            bytes: Box::from(bytes),
            since,
            memory_account: memory_account.clone(),
            sequence,
        })
    }
}

impl Drop for SharedBlock {
    fn drop(&mut self) {
        self.memory_account
            .subtract(shared_memory(self.bytes.len()));
    }
}

impl Deref for SharedBlock {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A place in one connection's queue.
#[derive(Debug)]
pub struct QueueEntry {
    pub bytes: Rc<SharedBlock>,
    /// Events in it; 0 for a control frame.
    pub frames: u32,
    /// Whether it answers pings.
    pub is_pong: bool,
}

impl QueueEntry {
    pub fn new(bytes: Rc<SharedBlock>, frames: u32) -> Self {
        bytes.memory_account.add(size_of::<Self>());
        Self {
            bytes,
            frames,
            is_pong: false,
        }
    }

    pub fn pong(bytes: Rc<SharedBlock>) -> Self {
        let mut entry = Self::new(bytes, 0);
        entry.is_pong = true;
        entry
    }

    /// What it costs its connection, as if nobody shared the bytes: that much would be kept for it alone.
    pub fn memory(&self) -> usize {
        entry_memory(self.bytes.len())
    }

    /// When the turn began in which it had to wait.
    pub fn since(&self) -> Instant {
        self.bytes.since
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        self.bytes.memory_account.subtract(size_of::<Self>());
    }
}
