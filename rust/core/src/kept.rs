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
        ledger.add(size_of::<Self>() + bytes.len());
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
        self.ledger.subtract(size_of::<Self>() + self.bytes.len());
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
}

impl Piece {
    pub fn new(bytes: Rc<Kept>, frames: u32) -> Self {
        bytes.ledger.add(size_of::<Self>());
        Self { bytes, frames }
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
