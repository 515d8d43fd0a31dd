//! Frames kept for sockets that lag, and the running sum of what all of them take.
//!
//! What is counted is *memory*, not queued bytes: a block that a thousand lagging connections share
//! lies in memory once and counts once, or a single popular event would look like a thousand and
//! close clients for nothing. Each place in a queue counts beside it, because with small
//! frames the queues are what takes the memory. The sum is kept by what is dropped, so that no way in
//! which a connection ends can forget to subtract; what is written through at once never comes here.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Instant;

/// What the allocator adds to each allocation, about.
const ALLOCATION: usize = 16;

/// The memory of kept bytes: the record with the two counts of its `Rc`, and the bytes, one allocation each.
const fn kept_memory(length: usize) -> usize {
    2 * size_of::<usize>() + size_of::<Kept>() + length + 2 * ALLOCATION
}

/// What one place in a queue costs that holds so many bytes, if nobody shares them.
pub const fn entry_memory(length: usize) -> usize {
    size_of::<Piece>() + kept_memory(length)
}

/// What the outboxes of one reactor take together, and about what time it is.
#[derive(Clone, Debug)]
pub struct Ledger(Rc<Totals>);

#[derive(Debug)]
struct Totals {
    bytes: Cell<usize>,
    now: Cell<Instant>,
}

impl Ledger {
    /// An empty one.
    pub fn new(now: Instant) -> Self {
        Self(Rc::new(Totals {
            bytes: Cell::new(0),
            now: Cell::new(now),
        }))
    }

    /// The memory of all outboxes, in bytes.
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
pub struct Kept {
    bytes: Box<[u8]>,
    since: Instant,
    ledger: Ledger,
    ticket: u64,
}

impl Kept {
    /// A copy of `bytes`, in the ledger's sum for as long as somebody holds it. With a `ticket` other than
    /// 0 they are one frame, of which is told when the kernel has taken it whole.
    pub fn new(bytes: &[u8], ticket: u64, ledger: &Ledger) -> Rc<Self> {
        Self::since(bytes, ticket, ledger.0.now.get(), ledger)
    }

    /// Something new, as old as this turn, in the same sum.
    pub fn beside(&self, bytes: &[u8]) -> Rc<Self> {
        Self::new(bytes, 0, &self.ledger)
    }

    /// The ticket of the frame; 0: none.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// A copy of a part, as old as the whole.
    pub fn part(&self, start: usize, end: usize) -> Rc<Self> {
        Self::since(
            &self.bytes[start..end],
            self.ticket,
            self.since,
            &self.ledger,
        )
    }

    fn since(bytes: &[u8], ticket: u64, since: Instant, ledger: &Ledger) -> Rc<Self> {
        ledger.add(kept_memory(bytes.len()));
        Rc::new(Self {
            bytes: Box::from(bytes),
            since,
            ledger: ledger.clone(),
            ticket,
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.ledger.subtract(kept_memory(self.bytes.len()));
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A place in one connection's queue.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Rc<Kept>,
    /// Events in it; 0 for a control frame.
    pub frames: u32,
    /// Whether it answers pings.
    pub is_pong: bool,
}

impl Piece {
    pub fn new(bytes: Rc<Kept>, frames: u32) -> Self {
        bytes.ledger.add(size_of::<Self>());
        Self {
            bytes,
            frames,
            is_pong: false,
        }
    }

    pub fn pong(bytes: Rc<Kept>) -> Self {
        let mut piece = Self::new(bytes, 0);
        piece.is_pong = true;
        piece
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

impl Drop for Piece {
    fn drop(&mut self) {
        self.bytes.ledger.subtract(size_of::<Self>());
    }
}
