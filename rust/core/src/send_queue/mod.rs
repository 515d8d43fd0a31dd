//! The outbox: frames that one socket could not take yet, bounded by the memory that they hold.
//!
//! The usual case never queues: a block is written straight from the turn's buffer. Only what the
//! kernel did not take is kept, as a share of a block that all lagging connections have in common.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::Instant;

pub mod blocks;
pub mod memory;

use crate::wire::frame::end_of_frame;
use crate::wire::frame::pongs::Pongs;
use memory::{Kept, Ledger, Piece};

/// At most this many pieces go into one `writev`.
const PIECES_PER_WRITE: usize = 64;

/// What became of frames that were offered to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Written, all of it.
    Accepted,
    /// Written in part or not at all; the rest waits, within the bound.
    Queued,
    /// The bound is passed: the client does not read fast enough and has to be closed.
    TooSlow,
    /// The socket is dead.
    Gone,
}

/// Counts of what went to sockets; summed up by the reactor once per turn.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Written {
    /// Event frames that the kernel took whole.
    pub frames: u64,
    /// Calls of `send` or `writev` that took bytes.
    pub writes: u64,
    /// Calls that found the kernel's buffer full.
    pub blocked: u64,
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Tickets of frames that the kernel took whole, in order; whoever writes takes them out.
    pub tickets: Vec<u64>,
}

impl Written {
    fn took(&mut self, frames: u32, ticket: u64) {
        self.frames += u64::from(frames);
        if ticket != 0 {
            self.tickets.push(ticket);
        }
    }
}

/// Bytes handed to several sockets at once: shared only once a socket lags behind.
pub struct Block<'a> {
    bytes: &'a [u8],
    frames: u32,
    ticket: u64,
    ledger: &'a Ledger,
    shared: Option<Rc<Kept>>,
}

impl<'a> Block<'a> {
    /// `frames` counts the events in `bytes`; 0 for a control frame.
    pub fn new(bytes: &'a [u8], frames: u32, ledger: &'a Ledger) -> Self {
        Self {
            bytes,
            frames,
            ticket: 0,
            ledger,
            shared: None,
        }
    }

    /// One frame with a ticket: it comes back in [`Written::tickets`] once the kernel took the whole of it.
    pub fn with_ticket(bytes: &'a [u8], ticket: u64, ledger: &'a Ledger) -> Self {
        Self {
            ticket,
            ..Self::new(bytes, 1, ledger)
        }
    }

    fn share(&mut self) -> Rc<Kept> {
        self.shared
            .get_or_insert_with(|| Kept::new(self.bytes, self.ticket, self.ledger))
            .clone()
    }
}

/// The queue of one connection. Allocates nothing while its client keeps up.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// The memory of what waits, in bytes: many small pieces take far more of it than they have bytes. What
    /// is shared counts whole here, for it is kept as long as the furthest behind needs it.
    memory: usize,
    /// The answer to the last ping since a pong was queued that still waits: it is queued behind that one.
    last_pong: Option<Box<[u8]>>,
    /// Bytes of the first piece that are written already. (No piece is as long as 4 GiB.)
    offset: u32,
    /// The kernel's buffer is full: wait until it says writable.
    blocked: bool,
    /// Whether a pong is among the pieces; there is at most one.
    pong_waits: bool,
}

impl Outbox {
    /// Writes `block` now if nothing waits before it, and queues what the kernel does not take.
    ///
    /// Without a socket (a reservation) everything queues. `limit` is in bytes of memory.
    pub fn offer(
        &mut self,
        socket: Option<&mut impl Write>,
        block: &mut Block<'_>,
        limit: usize,
        written: &mut Written,
    ) -> Verdict {
        let mut taken = 0;
        if let Some(socket) = socket
            && !self.awaits_room()
        {
            match send(socket, block.bytes, written) {
                Ok(count) if count == block.bytes.len() => {
                    written.took(block.frames, block.ticket);
                    return Verdict::Accepted;
                }
                Ok(count) => taken = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Verdict::Gone,
            }
            self.blocked = true;
        }
        let too_slow = self.memory + memory::entry_memory(block.bytes.len()) > limit;
        if too_slow && taken == 0 {
            return Verdict::TooSlow;
        }
        // A frame that was begun has to be ended, also for a client that is given up.
        if self.pieces.is_empty() {
            self.offset = taken as u32;
        }
        self.push(Piece::new(block.share(), block.frames));
        if too_slow {
            Verdict::TooSlow
        } else {
            Verdict::Queued
        }
    }

    /// Writes `pongs`, the answers to the pings of one read, if nothing waits. Otherwise only the last ping is
    /// answered, as RFC 6455 section 5.5.3 allows, behind what waits. However many pings come meanwhile, one pong
    /// waits in the queue and one beside it: pings cost no memory, and no pong overtakes an event.
    pub fn offer_pongs(
        &mut self,
        socket: Option<&mut impl Write>,
        pongs: &Pongs,
        ledger: &Ledger,
        written: &mut Written,
    ) -> Verdict {
        if !self.awaits_room() {
            let block = &mut Block::new(pongs.all(), 0, ledger);
            let verdict = self.offer(socket, block, usize::MAX, written);
            if let Some(piece) = self.pieces.back_mut() {
                piece.is_pong = true;
                self.pong_waits = true;
            }
            return verdict;
        }
        if self.pong_waits {
            self.last_pong = Some(Box::from(pongs.last()));
        } else {
            self.push(Piece::pong(Kept::new(pongs.last(), 0, ledger)));
            self.pong_waits = true;
        }
        Verdict::Queued
    }

    /// Notes that the kernel has room again and writes what waits.
    ///
    /// # Errors
    /// The socket's error, other than that it would block.
    pub fn flush(&mut self, socket: &mut impl Write, written: &mut Written) -> io::Result<()> {
        self.blocked = false;
        while !self.pieces.is_empty() {
            match self.write_pieces(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written.writes += 1;
                    written.bytes += count as u64;
                    self.consume(count, written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    written.blocked += 1;
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pieces = VecDeque::new();
        Ok(())
    }

    /// Puts frames with tickets before everything that waits, of which nothing was written yet, and takes
    /// out of that what has a ticket up to `seen`: it was among them, or is not wanted any more.
    pub fn put_first<'a>(&mut self, frames: impl Iterator<Item = Block<'a>>, seen: u64) {
        debug_assert_eq!(self.offset, 0);
        let later = std::mem::take(&mut self.pieces);
        self.pieces
            .extend(frames.map(|mut frame| Piece::new(frame.share(), frame.frames)));
        self.pieces.extend(later.into_iter().filter(|piece| {
            let ticket = piece.bytes.ticket();
            ticket == 0 || ticket > seen
        }));
        self.memory = self.pieces.iter().map(Piece::memory).sum();
    }

    /// Whether it is of interest that the kernel has room again.
    pub fn awaits_room(&self) -> bool {
        self.blocked || !self.pieces.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The memory of what waits, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Since when the first byte that waits does; `None` when nothing waits.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.pieces.front().map(Piece::since)
    }

    /// Drops everything but the rest of a frame that is written in part, so that a close frame
    /// can follow where a client's parser expects a frame.
    pub fn drop_unwritten(&mut self) {
        let rest = self.pieces.front().and_then(|piece| {
            let offset = self.offset as usize;
            let end = end_of_frame(&piece.bytes, offset);
            (offset > 0 && end > offset).then(|| piece.bytes.part(offset, end))
        });
        self.pieces.clear();
        self.offset = 0;
        self.memory = 0;
        self.last_pong = None;
        self.pong_waits = false;
        if let Some(bytes) = rest {
            // A ticket goes with it: its frame will be whole.
            self.push(Piece::new(bytes, 0));
        }
    }

    fn push(&mut self, piece: Piece) {
        self.memory += piece.memory();
        self.pieces.push_back(piece);
    }

    fn write_pieces(&self, socket: &mut impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            let start = if count == 0 { self.offset as usize } else { 0 };
            *slice = IoSlice::new(&piece.bytes[start..]);
            count += 1;
        }
        socket.write_vectored(&slices[..count])
    }

    fn consume(&mut self, mut count: usize, written: &mut Written) {
        while let Some(piece) = self.pieces.front() {
            let rest = piece.bytes.len() - self.offset as usize;
            if count < rest {
                self.offset += count as u32;
                return;
            }
            count -= rest;
            self.offset = 0;
            if let Some(piece) = self.pieces.pop_front() {
                self.is_written(&piece, written);
            }
        }
    }

    /// The kernel has the whole of a piece that waited.
    fn is_written(&mut self, piece: &Piece, written: &mut Written) {
        written.took(piece.frames, piece.bytes.ticket());
        self.memory -= piece.memory();
        if piece.is_pong {
            self.pong_waits = false;
            if let Some(last) = self.last_pong.take() {
                self.push(Piece::pong(piece.bytes.beside(&last)));
                self.pong_waits = true;
            }
        }
    }
}

/// Writes until everything is taken or the kernel's buffer is full.
fn send(socket: &mut impl Write, bytes: &[u8], written: &mut Written) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match socket.write(&bytes[taken..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                taken += count;
                written.writes += 1;
                written.bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => {
                written.blocked += 1;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    written.blocked += 1;
                }
                return Err(error);
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests;
