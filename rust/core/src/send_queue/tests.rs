use super::*;
use crate::wire::frame;
use crate::wire::transport::MessageKind;
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
    /// Whatever the kernel takes at a time, all bytes arrive once and in order, all frames are counted, and
    /// the memory is exact.
    #[test]
    fn all_bytes_arrive_in_order(
        lengths in prop::collection::vec((1usize..40, 1u32..4), 1..20),
        takes in prop::collection::vec(0usize..60, 0..60),
        flush_after in prop::collection::vec(any::<bool>(), 20),
    ) {
        let memory_account = MemoryAccount::new(Instant::now());
        let mut send_queue = SendQueue::default();
        let mut socket = scripted(&takes);
        let mut write_counts = WriteCounts::default();
        let (mut sent, mut frames) = (Vec::new(), 0);
        for (number, (length, count)) in lengths.iter().enumerate() {
            let bytes: Vec<u8> = (0..*length).map(|at| (number * 40 + at) as u8).collect();
            sent.extend_from_slice(&bytes);
            frames += u64::from(*count);
            let result = send_queue.offer(
                Some(&mut socket), &mut Block::new(&bytes, *count, &memory_account), usize::MAX, &mut write_counts,
            );
            let whole = sent.len() == socket.got.len();
            prop_assert_eq!(result, if whole { OfferResult::Written } else { OfferResult::Queued });
            prop_assert_eq!(send_queue.memory(), memory_account.bytes());
            prop_assert!(send_queue.memory() >= sent.len() - socket.got.len());
            if flush_after[number] {
                send_queue.flush(&mut socket, &mut write_counts).unwrap();
                prop_assert_eq!(send_queue.memory(), memory_account.bytes());
            }
        }
        socket.takes = std::iter::repeat_n(7, 1000).collect();
        send_queue.flush(&mut socket, &mut write_counts).unwrap();
        prop_assert!(send_queue.is_empty());
        prop_assert_eq!(send_queue.memory(), 0);
        prop_assert_eq!(memory_account.bytes(), 0);
        prop_assert_eq!(&socket.got, &sent);
        prop_assert_eq!(write_counts.frames, frames);
        prop_assert_eq!(write_counts.bytes, sent.len() as u64);
    }
}

proptest! {
    /// A sequence is reported with the last byte of its frame, and not before.
    #[test]
    fn sequence_is_reported_with_last_byte_of_frame(
        lengths in prop::collection::vec((1usize..40, any::<bool>()), 1..20),
        takes in prop::collection::vec(0usize..60, 0..60),
    ) {
        let memory_account = MemoryAccount::new(Instant::now());
        let mut send_queue = SendQueue::default();
        let mut socket = scripted(&takes);
        let mut write_counts = WriteCounts::default();
        let (mut end, mut ends) = (0, Vec::new());
        let whole = |ends: &[(u64, usize)], got: usize| -> Vec<u64> {
            ends.iter().filter(|(_, end)| *end <= got).map(|(sequence, _)| *sequence).collect()
        };
        for (number, (length, has_ticket)) in (1..).zip(&lengths) {
            let bytes = vec![7; *length];
            end += length;
            let mut block = if *has_ticket {
                ends.push((number, end));
                Block::with_sequence(&bytes, number, &memory_account)
            } else {
                Block::new(&bytes, 1, &memory_account)
            };
            send_queue.offer(Some(&mut socket), &mut block, usize::MAX, &mut write_counts);
            prop_assert_eq!(&write_counts.sequences, &whole(&ends, socket.got.len()));
        }
        while !send_queue.is_empty() && !socket.takes.is_empty() {
            send_queue.flush(&mut socket, &mut write_counts).unwrap();
            prop_assert_eq!(&write_counts.sequences, &whole(&ends, socket.got.len()));
        }
    }
}

#[test]
fn limit_is_exact() {
    let memory_account = MemoryAccount::new(Instant::now());
    let bound = memory::entry_memory(10);
    for (limit, first) in [
        (bound, OfferResult::Queued),
        (bound - 1, OfferResult::LimitExceeded),
    ] {
        let mut send_queue = SendQueue::default();
        let mut write_counts = WriteCounts::default();
        let mut offer = |length| {
            let bytes = vec![1; length];
            let block = &mut Block::new(&bytes, 1, &memory_account);
            send_queue.offer(None::<&mut Scripted>, block, limit, &mut write_counts)
        };
        assert_eq!(offer(10), first);
        assert_eq!(
            offer(1),
            if first == OfferResult::Queued {
                OfferResult::LimitExceeded
            } else {
                OfferResult::Queued
            }
        );
    }
}

/// Counted in bytes alone, half a million entries of two bytes would be one megabyte.
#[test]
fn small_entries_reach_limit_by_their_memory() {
    const LIMIT: usize = 1 << 20;
    let memory_account = MemoryAccount::new(Instant::now());
    let mut send_queue = SendQueue::default();
    let mut write_counts = WriteCounts::default();
    let mut entries = 0;
    loop {
        let block = &mut Block::new(b"ab", 1, &memory_account);
        match send_queue.offer(None::<&mut Scripted>, block, LIMIT, &mut write_counts) {
            OfferResult::Queued => entries += 1,
            OfferResult::LimitExceeded => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(entries < LIMIT / 100, "{entries}");
    assert_eq!(send_queue.memory(), memory_account.bytes());
    assert!(send_queue.memory() > LIMIT - memory::entry_memory(2));
}

fn ping(
    send_queue: &mut SendQueue,
    socket: &mut Scripted,
    memory_account: &MemoryAccount,
    payload: &str,
) -> OfferResult {
    let mut replies = Replies::default();
    replies.add(|out| frame::append_frame(out, frame::Opcode::Pong, payload.as_bytes()));
    send_queue.offer_replies(
        Some(socket),
        &replies,
        memory_account,
        &mut WriteCounts::default(),
    )
}

/// The payloads of the frames in `bytes`, events and pongs.
fn received(mut bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while let [_, length, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(usize::from(*length));
        all.push(String::from_utf8(payload.to_vec()).unwrap());
        bytes = rest;
    }
    all
}

#[test]
fn queued_pings_take_one_place_and_last_is_answered() {
    let memory_account = MemoryAccount::new(Instant::now());
    let mut send_queue = SendQueue::default();
    let mut write_counts = WriteCounts::default();
    let mut event = Vec::new();
    frame::append_frame(&mut event, frame::Opcode::Text, b"event");
    let offer =
        |send_queue: &mut SendQueue, socket: &mut Scripted, write_counts: &mut WriteCounts| {
            let block = &mut Block::new(&event, 1, &memory_account);
            assert_eq!(
                send_queue.offer(Some(socket), block, usize::MAX, write_counts),
                OfferResult::Queued
            );
        };
    // The kernel takes one byte of the event.
    let mut socket = scripted(&[1]);
    offer(&mut send_queue, &mut socket, &mut write_counts);
    let mut most = 0;
    for number in 0..1000 {
        let result = ping(
            &mut send_queue,
            &mut socket,
            &memory_account,
            &number.to_string(),
        );
        assert_eq!(result, OfferResult::Queued);
        most = most.max(send_queue.memory());
        if number == 500 {
            offer(&mut send_queue, &mut socket, &mut write_counts);
        }
    }
    assert_eq!(
        most,
        2 * memory::entry_memory(event.len()) + memory::entry_memory(3)
    );
    assert_eq!(most, memory_account.bytes());
    socket.takes = std::iter::repeat_n(4, 1000).collect();
    send_queue.flush(&mut socket, &mut write_counts).unwrap();
    assert_eq!(received(&socket.got), ["event", "0", "event", "999"]);
    assert_eq!((send_queue.memory(), memory_account.bytes()), (0, 0));
    // The place of the pong is free again.
    socket.takes = [100].into();
    assert_eq!(
        ping(&mut send_queue, &mut socket, &memory_account, "next"),
        OfferResult::Written
    );
}

#[test]
fn partly_written_pong_is_completed_before_next() {
    let memory_account = MemoryAccount::new(Instant::now());
    let mut send_queue = SendQueue::default();
    let mut socket = scripted(&[2]);
    for payload in ["one", "two", "three"] {
        ping(&mut send_queue, &mut socket, &memory_account, payload);
    }
    socket.takes = [100, 100].into();
    send_queue
        .flush(&mut socket, &mut WriteCounts::default())
        .unwrap();
    assert_eq!(received(&socket.got), ["one", "three"]);
    assert!(send_queue.is_empty());
}

#[test]
fn partly_written_frame_is_completed_beyond_limit() {
    let memory_account = MemoryAccount::new(Instant::now());
    let mut bytes = Vec::new();
    frame::append_frame(&mut bytes, frame::Opcode::Text, b"first");
    let first = bytes.len();
    frame::append_frame(&mut bytes, frame::Opcode::Text, b"second");
    let mut send_queue = SendQueue::default();
    let mut write_counts = WriteCounts::default();
    let mut socket = scripted(&[3]);
    let result = send_queue.offer(
        Some(&mut socket),
        &mut Block::new(&bytes, 2, &memory_account),
        1,
        &mut write_counts,
    );
    assert_eq!(result, OfferResult::LimitExceeded);
    send_queue.drop_unwritten(Transport::WebSocket);
    socket.takes = [100].into();
    send_queue.flush(&mut socket, &mut write_counts).unwrap();
    assert_eq!(socket.got, bytes[..first]);
}

#[test]
fn slow_consumers_share_one_copy() {
    let memory_account = MemoryAccount::new(Instant::now());
    let mut block = Block::new(b"frame", 1, &memory_account);
    let mut write_counts = WriteCounts::default();
    let mut send_queues = [SendQueue::default(), SendQueue::default()];
    for send_queue in &mut send_queues {
        send_queue.offer(None::<&mut Scripted>, &mut block, 1000, &mut write_counts);
    }
    assert!(Rc::ptr_eq(
        &send_queues[0].entries[0].bytes,
        &send_queues[1].entries[0].bytes
    ));
    drop(block);
    let shared = memory_account.bytes();
    assert!(shared < 2 * memory::entry_memory(b"frame".len()));
    let [first, second] = send_queues;
    drop(first);
    assert!(b"frame".len() < memory_account.bytes() && memory_account.bytes() < shared);
    drop(second);
    assert_eq!(memory_account.bytes(), 0);
}

#[test]
fn drop_unwritten_keeps_rest_of_partly_written_frame() {
    for transport in [Transport::WebSocket, Transport::ByteStream] {
        drop_unwritten_within_frames(transport);
    }
}

fn drop_unwritten_within_frames(transport: Transport) {
    let memory_account = MemoryAccount::new(Instant::now());
    let mut bytes = Vec::new();
    let mut append = |payload: &[u8]| {
        transport.append_message(&mut bytes, MessageKind::Text, |out| {
            out.extend_from_slice(payload);
        });
        bytes.len()
    };
    let first = append(b"first");
    append(b"second");
    for taken in [1, first - 1, first, first + 3] {
        let mut send_queue = SendQueue::default();
        let mut write_counts = WriteCounts::default();
        let mut socket = scripted(&[taken]);
        send_queue.offer(
            Some(&mut socket),
            &mut Block::new(&bytes, 2, &memory_account),
            1000,
            &mut write_counts,
        );
        send_queue.drop_unwritten(transport);
        socket.takes = [100].into();
        send_queue.flush(&mut socket, &mut write_counts).unwrap();
        let whole = if taken <= first { first } else { bytes.len() };
        assert_eq!(
            socket.got,
            bytes[..whole],
            "{transport:?} after {taken} bytes"
        );
    }
}
