use super::*;
use crate::wire::frame;
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
    /// counted, and the count of memory is exact.
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
            prop_assert_eq!(outbox.memory(), ledger.bytes());
            prop_assert!(outbox.memory() >= sent.len() - socket.got.len());
            if flush_after[number] {
                outbox.flush(&mut socket, &mut written).unwrap();
                prop_assert_eq!(outbox.memory(), ledger.bytes());
            }
        }
        socket.takes = std::iter::repeat_n(7, 1000).collect();
        outbox.flush(&mut socket, &mut written).unwrap();
        prop_assert!(outbox.is_empty());
        prop_assert_eq!(outbox.memory(), 0);
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
    let bound = memory::entry_memory(10);
    for (limit, first) in [(bound, Verdict::Queued), (bound - 1, Verdict::TooSlow)] {
        let mut outbox = Outbox::default();
        let mut written = Written::default();
        let mut offer = |length| {
            let bytes = vec![1; length];
            let block = &mut Block::new(&bytes, 1, &ledger);
            outbox.offer(None::<&mut Scripted>, block, limit, &mut written)
        };
        assert_eq!(offer(10), first);
        assert_eq!(
            offer(1),
            if first == Verdict::Queued {
                Verdict::TooSlow
            } else {
                Verdict::Queued
            }
        );
    }
}

/// Bytes alone would say that half a million pieces of two bytes are one megabyte.
#[test]
fn small_pieces_reach_the_bound_by_their_memory() {
    const LIMIT: usize = 1 << 20;
    let ledger = Ledger::new(Instant::now());
    let mut outbox = Outbox::default();
    let mut written = Written::default();
    let mut pieces = 0;
    loop {
        let block = &mut Block::new(b"ab", 1, &ledger);
        match outbox.offer(None::<&mut Scripted>, block, LIMIT, &mut written) {
            Verdict::Queued => pieces += 1,
            Verdict::TooSlow => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(pieces < LIMIT / 100, "{pieces}");
    assert_eq!(outbox.memory(), ledger.bytes());
    assert!(outbox.memory() > LIMIT - memory::entry_memory(2));
}

fn ping(outbox: &mut Outbox, socket: &mut Scripted, ledger: &Ledger, payload: &str) -> Verdict {
    let mut pongs = Pongs::default();
    pongs.add(payload.as_bytes());
    outbox.offer_pongs(Some(socket), &pongs, ledger, &mut Written::default())
}

/// The answers among `bytes`, by their payloads, and the events, by theirs.
fn heard(mut bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while let [_, length, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(usize::from(*length));
        all.push(String::from_utf8(payload.to_vec()).unwrap());
        bytes = rest;
    }
    all
}

#[test]
fn while_something_waits_pings_have_one_place_and_the_last_is_answered() {
    let ledger = Ledger::new(Instant::now());
    let mut outbox = Outbox::default();
    let mut written = Written::default();
    let mut event = Vec::new();
    frame::append_frame(&mut event, frame::Opcode::Text, b"event");
    let offer = |outbox: &mut Outbox, socket: &mut Scripted, written: &mut Written| {
        let block = &mut Block::new(&event, 1, &ledger);
        assert_eq!(
            outbox.offer(Some(socket), block, usize::MAX, written),
            Verdict::Queued
        );
    };
    // Of the event the kernel takes one byte.
    let mut socket = scripted(&[1]);
    offer(&mut outbox, &mut socket, &mut written);
    let mut most = 0;
    for number in 0..1000 {
        let verdict = ping(&mut outbox, &mut socket, &ledger, &number.to_string());
        assert_eq!(verdict, Verdict::Queued);
        most = most.max(outbox.memory());
        if number == 500 {
            offer(&mut outbox, &mut socket, &mut written);
        }
    }
    assert_eq!(
        most,
        2 * memory::entry_memory(event.len()) + memory::entry_memory(3)
    );
    assert_eq!(most, ledger.bytes());
    socket.takes = std::iter::repeat_n(4, 1000).collect();
    outbox.flush(&mut socket, &mut written).unwrap();
    assert_eq!(heard(&socket.got), ["event", "0", "event", "999"]);
    assert_eq!((outbox.memory(), ledger.bytes()), (0, 0));
    // And the place is free again.
    socket.takes = [100].into();
    assert_eq!(
        ping(&mut outbox, &mut socket, &ledger, "next"),
        Verdict::Accepted
    );
}

#[test]
fn a_pong_that_was_begun_is_ended_before_the_next() {
    let ledger = Ledger::new(Instant::now());
    let mut outbox = Outbox::default();
    let mut socket = scripted(&[2]);
    for payload in ["one", "two", "three"] {
        ping(&mut outbox, &mut socket, &ledger, payload);
    }
    socket.takes = [100, 100].into();
    outbox.flush(&mut socket, &mut Written::default()).unwrap();
    assert_eq!(heard(&socket.got), ["one", "three"]);
    assert!(outbox.is_empty());
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
        outbox.offer(None::<&mut Scripted>, &mut block, 1000, &mut written);
    }
    assert!(Rc::ptr_eq(
        &outboxes[0].pieces[0].bytes,
        &outboxes[1].pieces[0].bytes
    ));
    drop(block);
    let shared = ledger.bytes();
    assert!(shared < 2 * memory::entry_memory(b"frame".len()));
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
            1000,
            &mut written,
        );
        outbox.drop_unwritten();
        socket.takes = [100].into();
        outbox.flush(&mut socket, &mut written).unwrap();
        let whole = if taken <= first { first } else { bytes.len() };
        assert_eq!(socket.got, bytes[..whole], "after {taken} bytes");
    }
}
