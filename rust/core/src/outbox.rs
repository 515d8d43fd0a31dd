//! The outbox: frames that one socket could not take yet, bounded in bytes.
//!
//! The usual case never queues: a block is written straight from the turn's buffer. Only what the
//! kernel did not take is kept, as a share of a block that all lagging connections have in common.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::Instant;

use crate::boundary::end_of_frame;
use crate::kept::{Kept, Ledger, Piece};

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
    /// Bytes that wait.
    waiting: usize,
    /// Bytes of the first piece that are written already. (No piece is as long as 4 GiB.)
    offset: u32,
    /// The kernel's buffer is full: wait until it says writable.
    blocked: bool,
}

impl Outbox {
    /// Writes `block` now if nothing waits before it, and queues what the kernel does not take.
    ///
    /// Without a socket (a reservation) everything queues. `limit` is in bytes.
    pub fn offer(
        &mut self,
        socket: Option<&mut impl Write>,
        block: &mut Block<'_>,
        limit: usize,
        written: &mut Written,
    ) -> Verdict {
        let mut taken = 0;
        if let Some(socket) = socket
            && self.pieces.is_empty()
            && !self.blocked
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
        let rest = block.bytes.len() - taken;
        let too_slow = self.waiting + rest > limit;
        if too_slow && taken == 0 {
            return Verdict::TooSlow;
        }
        // A frame that was begun has to be ended, also for a client that is given up.
        self.waiting += rest;
        if self.pieces.is_empty() {
            self.offset = taken as u32;
        }
        self.pieces
            .push_back(Piece::new(block.share(), block.frames));
        if too_slow {
            Verdict::TooSlow
        } else {
            Verdict::Queued
        }
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
        self.waiting = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
    }

    /// Whether it is of interest that the kernel has room again.
    pub fn awaits_room(&self) -> bool {
        self.blocked || !self.pieces.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
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
        self.waiting = 0;
        if let Some(bytes) = rest {
            self.waiting = bytes.len();
            // A ticket goes with it: its frame will be whole.
            self.pieces.push_back(Piece::new(bytes, 0));
        }
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
        self.waiting -= count;
        while let Some(piece) = self.pieces.front() {
            let rest = piece.bytes.len() - self.offset as usize;
            if count < rest {
                self.offset += count as u32;
                return;
            }
            count -= rest;
            written.took(piece.frames, piece.bytes.ticket());
            self.offset = 0;
            self.pieces.pop_front();
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
mod tests {
    use super::*;
    use crate::frame;
    use proptest::prelude::*;

    /// A socket whose kernel takes a scripted number of bytes per call; 0 stands for "would block".
    struct Scripted {
        takes: VecDeque<usize>,
        got: Vec<u8>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.takes.pop_front() {
                Some(0) | None => Err(io::ErrorKind::WouldBlock.into()),
                Some(count) => {
                    let count = count.min(bytes.len());
                    self.got.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let bytes: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            self.write(&bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted(takes: &[usize]) -> Scripted {
        Scripted {
            takes: takes.iter().copied().collect(),
            got: Vec::new(),
        }
    }

    proptest! {
        /// Whatever the kernel takes at a time, all bytes arrive once, in order, all frames are
        /// counted, and the count of waiting bytes is exact.
        #[test]
        fn everything_arrives_in_order(
            lengths in prop::collection::vec((1usize..40, 1u32..4), 1..20),
            takes in prop::collection::vec(0usize..60, 0..60),
            flush_after in prop::collection::vec(any::<bool>(), 20),
        ) {
            let ledger = Ledger::new(Instant::now());
            let mut outbox = Outbox::default();
            let mut socket = scripted(&takes);
            let mut written = Written::default();
            let (mut sent, mut frames) = (Vec::new(), 0);
            for (number, (length, count)) in lengths.iter().enumerate() {
                let bytes: Vec<u8> = (0..*length).map(|at| (number * 40 + at) as u8).collect();
                sent.extend_from_slice(&bytes);
                frames += u64::from(*count);
                let verdict = outbox.offer(
                    Some(&mut socket), &mut Block::new(&bytes, *count, &ledger), usize::MAX, &mut written,
                );
                let whole = sent.len() == socket.got.len();
                prop_assert_eq!(verdict, if whole { Verdict::Accepted } else { Verdict::Queued });
                prop_assert_eq!(outbox.waiting(), sent.len() - socket.got.len());
                prop_assert!(ledger.bytes() >= outbox.waiting());
                if flush_after[number] {
                    outbox.flush(&mut socket, &mut written).unwrap();
                    prop_assert_eq!(outbox.waiting(), sent.len() - socket.got.len());
                }
            }
            socket.takes = std::iter::repeat_n(7, 1000).collect();
            outbox.flush(&mut socket, &mut written).unwrap();
            prop_assert!(outbox.is_empty());
            prop_assert_eq!(outbox.waiting(), 0);
            prop_assert_eq!(ledger.bytes(), 0);
            prop_assert_eq!(&socket.got, &sent);
            prop_assert_eq!(written.frames, frames);
            prop_assert_eq!(written.bytes, sent.len() as u64);
        }
    }

    proptest! {
        /// A ticket is told when the last byte of its frame is the kernel's, and not before.
        #[test]
        fn a_ticket_is_told_with_the_last_byte_of_its_frame(
            lengths in prop::collection::vec((1usize..40, any::<bool>()), 1..20),
            takes in prop::collection::vec(0usize..60, 0..60),
        ) {
            let ledger = Ledger::new(Instant::now());
            let mut outbox = Outbox::default();
            let mut socket = scripted(&takes);
            let mut written = Written::default();
            let (mut end, mut ends) = (0, Vec::new());
            let whole = |ends: &[(u64, usize)], got: usize| -> Vec<u64> {
                ends.iter().filter(|(_, end)| *end <= got).map(|(ticket, _)| *ticket).collect()
            };
            for (number, (length, has_ticket)) in (1..).zip(&lengths) {
                let bytes = vec![7; *length];
                end += length;
                let mut block = if *has_ticket {
                    ends.push((number, end));
                    Block::with_ticket(&bytes, number, &ledger)
                } else {
                    Block::new(&bytes, 1, &ledger)
                };
                outbox.offer(Some(&mut socket), &mut block, usize::MAX, &mut written);
                prop_assert_eq!(&written.tickets, &whole(&ends, socket.got.len()));
            }
            while !outbox.is_empty() && !socket.takes.is_empty() {
                outbox.flush(&mut socket, &mut written).unwrap();
                prop_assert_eq!(&written.tickets, &whole(&ends, socket.got.len()));
            }
        }
    }

    #[test]
    fn the_bound_is_exact_and_nothing_is_queued_past_it() {
        let ledger = Ledger::new(Instant::now());
        let mut outbox = Outbox::default();
        let mut written = Written::default();
        let mut socket = scripted(&[4]);
        let accepted = outbox.offer(
            Some(&mut socket),
            &mut Block::new(&[1; 10], 1, &ledger),
            6,
            &mut written,
        );
        assert_eq!(accepted, Verdict::Queued);
        let refused = outbox.offer(
            Some(&mut socket),
            &mut Block::new(&[2; 1], 1, &ledger),
            6,
            &mut written,
        );
        assert_eq!(refused, Verdict::TooSlow);
        assert_eq!(outbox.waiting(), 6);
    }

    #[test]
    fn a_frame_that_was_begun_is_ended_also_past_the_bound() {
        let ledger = Ledger::new(Instant::now());
        let mut bytes = Vec::new();
        frame::append_frame(&mut bytes, frame::Opcode::Text, b"first");
        let first = bytes.len();
        frame::append_frame(&mut bytes, frame::Opcode::Text, b"second");
        let mut outbox = Outbox::default();
        let mut written = Written::default();
        let mut socket = scripted(&[3]);
        let verdict = outbox.offer(
            Some(&mut socket),
            &mut Block::new(&bytes, 2, &ledger),
            1,
            &mut written,
        );
        assert_eq!(verdict, Verdict::TooSlow);
        outbox.drop_unwritten();
        socket.takes = [100].into();
        outbox.flush(&mut socket, &mut written).unwrap();
        assert_eq!(socket.got, bytes[..first]);
    }

    #[test]
    fn lagging_connections_share_one_copy() {
        let ledger = Ledger::new(Instant::now());
        let mut block = Block::new(b"frame", 1, &ledger);
        let mut written = Written::default();
        let mut outboxes = [Outbox::default(), Outbox::default()];
        for outbox in &mut outboxes {
            outbox.offer(None::<&mut Scripted>, &mut block, 100, &mut written);
        }
        assert!(Rc::ptr_eq(
            &outboxes[0].pieces[0].bytes,
            &outboxes[1].pieces[0].bytes
        ));
        drop(block);
        let shared = ledger.bytes();
        assert!(shared < 2 * (size_of::<Kept>() + b"frame".len()));
        let [first, second] = outboxes;
        drop(first);
        assert!(b"frame".len() < ledger.bytes() && ledger.bytes() < shared);
        drop(second);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn dropping_keeps_the_rest_of_a_frame_that_was_begun() {
        let ledger = Ledger::new(Instant::now());
        let mut bytes = Vec::new();
        frame::append_frame(&mut bytes, frame::Opcode::Text, b"first");
        let first = bytes.len();
        frame::append_frame(&mut bytes, frame::Opcode::Text, b"second");
        for taken in [1, first - 1, first, first + 3] {
            let mut outbox = Outbox::default();
            let mut written = Written::default();
            let mut socket = scripted(&[taken]);
            outbox.offer(
                Some(&mut socket),
                &mut Block::new(&bytes, 2, &ledger),
                100,
                &mut written,
            );
            outbox.drop_unwritten();
            socket.takes = [100].into();
            outbox.flush(&mut socket, &mut written).unwrap();
            let whole = if taken <= first { first } else { bytes.len() };
            assert_eq!(socket.got, bytes[..whole], "after {taken} bytes");
        }
    }
}
