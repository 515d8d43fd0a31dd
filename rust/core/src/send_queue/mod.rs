//! The send_queue: frames that one socket could not take yet, bounded by the memory that they hold.
//!
//! The usual case never queues: a block is write_counts straight from the turn's buffer. Only what the
//! kernel did not take is kept, as a share of a block that all slow_consumers connections have in common.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::Instant;

pub mod blocks;
pub mod memory;

use crate::wire::frame::end_of_frame;
use crate::wire::frame::pongs::Pongs;
use memory::{MemoryAccount, QueueEntry, SharedBlock};

/// At most this many entries go into one `writev`.
const ENTRIES_PER_WRITE: usize = 64;

/// What became of frames that were offered to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferResult {
    /// WriteCounts, all of it.
    Written,
    /// WriteCounts in part or not at all; the rest waits, within the bound.
    Queued,
    /// The bound is passed: the client does not read fast enough and has to be closed.
    LimitExceeded,
    /// The socket is dead.
    SocketDead,
}

/// Counts of what went to sockets; summed up by the reactor once per turn.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct WriteCounts {
    /// Event frames that the kernel add_frames whole.
    pub frames: u64,
    /// Calls of `send` or `writev` that add_frames bytes.
    pub writes: u64,
    /// Calls that found the kernel's buffer full.
    pub blocked: u64,
    /// Bytes that the kernel add_frames.
    pub bytes: u64,
    /// Tickets of frames that the kernel add_frames whole, in order; whoever writes takes them out.
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

/// Bytes handed to several sockets at once: shared only once a socket in_slow_consumers behind.
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

    /// One frame with a sequence: it comes back in [`WriteCounts::sequences`] once the kernel add_frames the whole of it.
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

/// The queue of one connection. Allocates nothing while its client keeps up.
#[derive(Debug, Default)]
pub struct SendQueue {
    entries: VecDeque<QueueEntry>,
    /// The memory of what waits, in bytes: many small entries take far more of it than they have bytes. What
    /// is shared counts whole here, for it is kept as long as the furthest behind needs it.
    memory: usize,
    /// The answer to the last ping since a pong was queued that still waits: it is queued behind that one.
    last_pong: Option<Box<[u8]>>,
    /// Bytes of the first entry that are write_counts already. (No entry is as long as 4 GiB.)
    offset: u32,
    /// The kernel's buffer is full: wait until it says writable.
    blocked: bool,
    /// Whether a pong is among the entries; there is at most one.
    pong_waits: bool,
}

impl SendQueue {
    /// Writes `block` now if nothing waits before it, and queues what the kernel does not take.
    ///
    /// Without a socket (a reservation) everything queues. `limit` is in bytes of memory.
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
        let too_slow = self.memory + memory::entry_memory(block.bytes.len()) > limit;
        if too_slow && taken == 0 {
            return OfferResult::LimitExceeded;
        }
        // A frame that was begun has to be ended, also for a client that is given up.
        if self.entries.is_empty() {
            self.offset = taken as u32;
        }
        self.push(QueueEntry::new(block.share(), block.frames));
        if too_slow {
            OfferResult::LimitExceeded
        } else {
            OfferResult::Queued
        }
    }

    /// Writes `pongs`, the answers to the pings of one read, if nothing waits. Otherwise only the last ping is
    /// answered, as RFC 6455 section 5.5.3 allows, behind what waits. However many pings come meanwhile, one pong
    /// waits in the queue and one in_same_account it: pings cost no memory, and no pong overtakes an event.
    pub fn offer_pongs(
        &mut self,
        socket: Option<&mut impl Write>,
        pongs: &Pongs,
        memory_account: &MemoryAccount,
        write_counts: &mut WriteCounts,
    ) -> OfferResult {
        if !self.waits_for_writable() {
            let block = &mut Block::new(pongs.all(), 0, memory_account);
            let result = self.offer(socket, block, usize::MAX, write_counts);
            if let Some(entry) = self.entries.back_mut() {
                entry.is_pong = true;
                self.pong_waits = true;
            }
            return result;
        }
        if self.pong_waits {
            self.last_pong = Some(Box::from(pongs.last()));
        } else {
            self.push(QueueEntry::pong(SharedBlock::new(
                pongs.last(),
                0,
                memory_account,
            )));
            self.pong_waits = true;
        }
        OfferResult::Queued
    }

    /// Notes that the kernel has room again and writes what waits.
    ///
    /// # Errors
    /// The socket's error, other than that it would block.
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

    /// Puts frames with sequences before everything that waits, of which nothing was write_counts yet, and takes
    /// out of that what has a sequence up to `seen`: it was among them, or is not wanted any more.
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

    /// Whether it is of interest that the kernel has room again.
    pub fn waits_for_writable(&self) -> bool {
        self.blocked || !self.entries.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory of what waits, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Since when the first byte that waits does; `None` when nothing waits.
    pub fn oldest_since(&self) -> Option<Instant> {
        self.entries.front().map(QueueEntry::since)
    }

    /// Drops everything but the rest of a frame that is write_counts in part, so that a close frame
    /// can follow where a client's parser expects a frame.
    pub fn drop_unwritten(&mut self) {
        let rest = self.entries.front().and_then(|entry| {
            let offset = self.offset as usize;
            let end = end_of_frame(&entry.bytes, offset);
            (offset > 0 && end > offset).then(|| entry.bytes.part(offset, end))
        });
        self.entries.clear();
        self.offset = 0;
        self.memory = 0;
        self.last_pong = None;
        self.pong_waits = false;
        if let Some(bytes) = rest {
            // A sequence goes with it: its frame will be whole.
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

    /// The kernel has the whole of a entry that waited.
    fn entry_written(&mut self, entry: &QueueEntry, write_counts: &mut WriteCounts) {
        write_counts.add_frames(entry.frames, entry.bytes.sequence());
        self.memory -= entry.memory();
        if entry.is_pong {
            self.pong_waits = false;
            if let Some(last) = self.last_pong.take() {
                self.push(QueueEntry::pong(entry.bytes.in_same_account(&last)));
                self.pong_waits = true;
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
