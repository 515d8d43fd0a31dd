//! The memory of unsent frames, and its running sum over all connections of one reactor.
//!
//! What counts is *memory*, not queued bytes. A block that a thousand slow consumers share lies in memory
//! once and counts once; otherwise one popular event would count a thousand times and evict clients without
//! need. Each entry in a queue counts, too, because with small frames the queues take most of the memory.
//!
//! Drops update the sum, so no way in which a connection ends can forget to subtract. Frames that are
//! written at once are never counted.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Instant;

/// The approximate overhead of one allocation.
const ALLOCATION: usize = 16;

/// The memory of a shared block: the record with the two counts of its `Rc`, and the bytes, one allocation
/// each.
const fn shared_memory(length: usize) -> usize {
    2 * size_of::<usize>() + size_of::<SharedBlock>() + length + 2 * ALLOCATION
}

/// The memory of one queue entry of this length, if no other connection shares its bytes.
pub const fn entry_memory(length: usize) -> usize {
    size_of::<QueueEntry>() + shared_memory(length)
}

/// The memory of all send queues of one reactor, and the start time of its turn.
#[derive(Clone, Debug)]
pub struct MemoryAccount(Rc<Totals>);

#[derive(Debug)]
struct Totals {
    bytes: Cell<usize>,
    now: Cell<Instant>,
}

impl MemoryAccount {
    /// An empty account.
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

    /// Sets the time that blocks get from now on. One time for each turn saves reading the clock for each
    /// block.
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

/// Bytes that at least one socket has not taken yet.
#[derive(Debug)]
pub struct SharedBlock {
    bytes: Box<[u8]>,
    since: Instant,
    memory_account: MemoryAccount,
    sequence: u64,
}

impl SharedBlock {
    /// A copy of `bytes`, counted in the account until the last reference is dropped. With a `sequence`
    /// other than 0 the bytes are one frame of a queued command, and its write is reported.
    pub fn new(bytes: &[u8], sequence: u64, memory_account: &MemoryAccount) -> Rc<Self> {
        Self::since(bytes, sequence, memory_account.0.now.get(), memory_account)
    }

    /// A new block in the same account, with the time of this turn.
    pub fn in_same_account(&self, bytes: &[u8]) -> Rc<Self> {
        Self::new(bytes, 0, &self.memory_account)
    }

    /// The sequence of the frame; 0: none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A copy of a part, with the time of the whole.
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

/// An entry in the send queue of one connection.
#[derive(Debug)]
pub struct QueueEntry {
    pub bytes: Rc<SharedBlock>,
    /// Events in it; 0 for a control frame.
    pub frames: u32,
    /// Whether it is a reply of the transport.
    pub is_reply: bool,
}

impl QueueEntry {
    pub fn new(bytes: Rc<SharedBlock>, frames: u32) -> Self {
        bytes.memory_account.add(size_of::<Self>());
        Self {
            bytes,
            frames,
            is_reply: false,
        }
    }

    pub fn reply(bytes: Rc<SharedBlock>) -> Self {
        let mut entry = Self::new(bytes, 0);
        entry.is_reply = true;
        entry
    }

    /// Its memory, as if no other connection shared the bytes: it would be kept for this one alone.
    pub fn memory(&self) -> usize {
        entry_memory(self.bytes.len())
    }

    /// Start time of the turn in which it was queued.
    pub fn since(&self) -> Instant {
        self.bytes.since
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        self.bytes.memory_account.subtract(size_of::<Self>());
    }
}
