//! The send queue: unsent frames of one connection, bounded by their memory.
//!
//! In the usual case nothing is queued: a block is written straight from the buffer of the turn. Only what
//! the kernel did not take is kept, as a reference to a block that all slow consumers share.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::Instant;

pub mod memory;

use crate::wire::transport::{Replies, Transport};
use memory::{MemoryAccount, QueueEntry, SharedBlock};

/// The maximum number of entries in one `writev`.
const ENTRIES_PER_WRITE: usize = 64;

/// The result of offering frames to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferResult {
    /// Everything was written.
    Written,
    /// The frames were written in part or not at all. The rest is queued, within the limit.
    Queued,
    /// The limit is exceeded: the client does not read fast enough and must be evicted.
    LimitExceeded,
    /// The socket is dead.
    SocketDead,
}

/// What was written to sockets. The reactor adds it to the counters once per turn.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct WriteCounts {
    /// Event frames that the kernel took completely.
    pub frames: u64,
    /// Calls of `send` or `writev` that wrote bytes.
    pub writes: u64,
    /// Calls that found the kernel's buffer full.
    pub blocked: u64,
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Sequences of frames that the kernel took completely, in order. The caller takes them out.
    pub sequences: Vec<u64>,
}

impl WriteCounts {
    fn add_frames(&mut self, frames: u32, sequence: u64) {
        self.frames += u64::from(frames);
        if sequence != 0 {
            self.sequences.push(sequence);
        }
    }
}

/// Bytes for several sockets. They are copied and shared only once a socket does not take them.
pub struct Block<'a> {
    bytes: &'a [u8],
    frames: u32,
    sequence: u64,
    memory_account: &'a MemoryAccount,
    shared: Option<Rc<SharedBlock>>,
}

impl<'a> Block<'a> {
    /// `frames` counts the events in `bytes`; 0 for a control frame.
    pub fn new(bytes: &'a [u8], frames: u32, memory_account: &'a MemoryAccount) -> Self {
        Self {
            bytes,
            frames,
            sequence: 0,
            memory_account,
            shared: None,
        }
    }

    /// One frame with a sequence. The sequence appears in [`WriteCounts::sequences`] once the kernel took
    /// the whole frame.
    pub fn with_sequence(
        bytes: &'a [u8],
        sequence: u64,
        memory_account: &'a MemoryAccount,
    ) -> Self {
        Self {
            sequence,
            ..Self::new(bytes, 1, memory_account)
        }
    }

    fn share(&mut self) -> Rc<SharedBlock> {
        self.shared
            .get_or_insert_with(|| SharedBlock::new(self.bytes, self.sequence, self.memory_account))
            .clone()
    }
}

/// The queue of one connection. It allocates nothing while its client keeps up.
#[derive(Debug, Default)]
pub struct SendQueue {
    entries: VecDeque<QueueEntry>,
    /// The memory of the entries, in bytes: many small entries take far more memory than they have bytes.
    /// Shared blocks count in full, because the slowest connection keeps them alive.
    memory: usize,
    /// The reply to the last frame that came while another reply was queued. It is queued after that one.
    last_reply: Option<Box<[u8]>>,
    /// Bytes of the first entry that are written already. (No entry is as long as 4 GiB.)
    offset: u32,
    /// The kernel's buffer is full; the socket is not writable.
    blocked: bool,
    /// Whether a reply is among the entries; there is at most one.
    reply_waits: bool,
}

impl SendQueue {
    /// Writes `block` at once if the queue is empty, and queues what the kernel does not take.
    ///
    /// Without a socket (a reservation) everything is queued. `limit` is in bytes of memory.
    pub fn offer(
        &mut self,
        socket: Option<&mut impl Write>,
        block: &mut Block<'_>,
        limit: usize,
        write_counts: &mut WriteCounts,
    ) -> OfferResult {
        let mut taken = 0;
        if let Some(socket) = socket
            && !self.waits_for_writable()
        {
            match send(socket, block.bytes, write_counts) {
                Ok(count) if count == block.bytes.len() => {
                    write_counts.add_frames(block.frames, block.sequence);
                    return OfferResult::Written;
                }
                Ok(count) => taken = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return OfferResult::SocketDead,
            }
            self.blocked = true;
        }
        let evicted = self.memory + memory::entry_memory(block.bytes.len()) > limit;
        if evicted && taken == 0 {
            return OfferResult::LimitExceeded;
        }
        // A partly written frame must be completed, also for a client that is evicted.
        if self.entries.is_empty() {
            self.offset = taken as u32;
        }
        self.push(QueueEntry::new(block.share(), block.frames));
        if evicted {
            OfferResult::LimitExceeded
        } else {
            OfferResult::Queued
        }
    }

    /// Writes `replies`, the transport's answers to what was read (pongs), if the queue is empty. Otherwise
    /// only the last one is sent, as RFC 6455 section 5.5.3 allows, after the queued frames. At most one
    /// reply is queued and one is stored beside it. So pings take no memory, and no pong overtakes an event.
    pub fn offer_replies(
        &mut self,
        socket: Option<&mut impl Write>,
        replies: &Replies,
        memory_account: &MemoryAccount,
        write_counts: &mut WriteCounts,
    ) -> OfferResult {
        if !self.waits_for_writable() {
            let block = &mut Block::new(replies.all(), 0, memory_account);
            let result = self.offer(socket, block, usize::MAX, write_counts);
            if let Some(entry) = self.entries.back_mut() {
                entry.is_reply = true;
                self.reply_waits = true;
            }
            return result;
        }
        if self.reply_waits {
            self.last_reply = Some(Box::from(replies.last()));
        } else {
            self.push(QueueEntry::reply(SharedBlock::new(
                replies.last(),
                0,
                memory_account,
            )));
            self.reply_waits = true;
        }
        OfferResult::Queued
    }

    /// Writes what is queued, after the socket became writable.
    ///
    /// # Errors
    /// The socket's error, except that it would block.
    pub fn flush(
        &mut self,
        socket: &mut impl Write,
        write_counts: &mut WriteCounts,
    ) -> io::Result<()> {
        self.blocked = false;
        while !self.entries.is_empty() {
            match self.write_entries(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    write_counts.writes += 1;
                    write_counts.bytes += count as u64;
                    self.consume(count, write_counts);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    write_counts.blocked += 1;
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.entries = VecDeque::new();
        Ok(())
    }

    /// Puts frames with sequences before all queued entries, of which nothing was written yet. Queued
    /// entries with a sequence up to `seen` are removed: they are among these frames, or were delivered or
    /// deleted.
    pub fn prepend<'a>(&mut self, frames: impl Iterator<Item = Block<'a>>, seen: u64) {
        debug_assert_eq!(self.offset, 0);
        let later = std::mem::take(&mut self.entries);
        self.entries
            .extend(frames.map(|mut frame| QueueEntry::new(frame.share(), frame.frames)));
        self.entries.extend(later.into_iter().filter(|entry| {
            let sequence = entry.bytes.sequence();
            sequence == 0 || sequence > seen
        }));
        self.memory = self.entries.iter().map(QueueEntry::memory).sum();
    }

    /// Whether a writable socket changes anything.
    pub fn waits_for_writable(&self) -> bool {
        self.blocked || !self.entries.is_empty()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory of the queue, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// When the first entry was queued; `None` if the queue is empty.
    pub fn oldest_since(&self) -> Option<Instant> {
        self.entries.front().map(QueueEntry::since)
    }

    /// Drops everything except the rest of a partly written frame of this transport, so that our last frame
    /// can follow where the client's parser expects a frame.
    pub fn drop_unwritten(&mut self, transport: Transport) {
        let rest = self.entries.front().and_then(|entry| {
            let offset = self.offset as usize;
            let end = transport.end_of_frame(&entry.bytes, offset);
            (offset > 0 && end > offset).then(|| entry.bytes.part(offset, end))
        });
        self.entries.clear();
        self.offset = 0;
        self.memory = 0;
        self.last_reply = None;
        self.reply_waits = false;
        if let Some(bytes) = rest {
            // The sequence stays: its frame will be complete.
            self.push(QueueEntry::new(bytes, 0));
        }
    }

    fn push(&mut self, entry: QueueEntry) {
        self.memory += entry.memory();
        self.entries.push_back(entry);
    }

    fn write_entries(&self, socket: &mut impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); ENTRIES_PER_WRITE];
        let mut count = 0;
        for (slice, entry) in slices.iter_mut().zip(&self.entries) {
            let start = if count == 0 { self.offset as usize } else { 0 };
            *slice = IoSlice::new(&entry.bytes[start..]);
            count += 1;
        }
        socket.write_vectored(&slices[..count])
    }

    fn consume(&mut self, mut count: usize, write_counts: &mut WriteCounts) {
        while let Some(entry) = self.entries.front() {
            let rest = entry.bytes.len() - self.offset as usize;
            if count < rest {
                self.offset += count as u32;
                return;
            }
            count -= rest;
            self.offset = 0;
            if let Some(entry) = self.entries.pop_front() {
                self.entry_written(&entry, write_counts);
            }
        }
    }

    /// The kernel has taken a whole entry.
    fn entry_written(&mut self, entry: &QueueEntry, write_counts: &mut WriteCounts) {
        write_counts.add_frames(entry.frames, entry.bytes.sequence());
        self.memory -= entry.memory();
        if entry.is_reply {
            self.reply_waits = false;
            if let Some(last) = self.last_reply.take() {
                self.push(QueueEntry::reply(entry.bytes.in_same_account(&last)));
                self.reply_waits = true;
            }
        }
    }
}

/// Writes until everything is taken or the kernel's buffer is full.
fn send(
    socket: &mut impl Write,
    bytes: &[u8],
    write_counts: &mut WriteCounts,
) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match socket.write(&bytes[taken..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                taken += count;
                write_counts.writes += 1;
                write_counts.bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => {
                write_counts.blocked += 1;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    write_counts.blocked += 1;
                }
                return Err(error);
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests;
