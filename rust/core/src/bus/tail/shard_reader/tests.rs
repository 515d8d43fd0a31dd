//! The replies are written out as Redis would send them.

use super::super::reply::Parser;
use super::*;

/// The EXEC reply of a check: epoch, entries by id, and what `XINFO STREAM` says.
fn check_reply(ids: &[String], length: u64, last: &str, added: u64) -> Vec<u8> {
    let mut reply = b"*3\r\n$1\r\ne\r\n".to_vec();
    if ids.is_empty() {
        reply.extend_from_slice(b"_\r\n");
    } else {
        reply.extend_from_slice(format!("%1\r\n$1\r\nk\r\n*{}\r\n", ids.len()).as_bytes());
        for id in ids {
            let entry = format!(
                "*2\r\n${}\r\n{id}\r\n*2\r\n$1\r\ne\r\n$1\r\nx\r\n",
                id.len()
            );
            reply.extend_from_slice(entry.as_bytes());
        }
    }
    let stream = format!(
        "%3\r\n+length\r\n:{length}\r\n+entries-added\r\n:{added}\r\n+last-generated-id\r\n${}\r\n{last}\r\n",
        last.len()
    );
    reply.extend_from_slice(stream.as_bytes());
    reply
}

fn take(reader: &mut ShardReader, reply: &[u8]) -> (CheckResult, usize) {
    let mut parser = Parser::default();
    assert_eq!(parser.read(reply), Ok(Some(reply.len())));
    let mut taken = Vec::new();
    let result = reader
        .take_check(&mut parser.reply(reply), &mut taken, &mut 0)
        .unwrap();
    (result, taken.len())
}

/// A reader at the end of a shard of 10 entries, the last of which is `10-0`.
fn reader_at_end() -> ShardReader {
    let reply = check_reply(&[], 10, "10-0", 10);
    let mut parser = Parser::default();
    assert_eq!(parser.read(&reply), Ok(Some(reply.len())));
    let mut reader = ShardReader::new(0);
    reader.start_at_end(&mut parser.reply(&reply)).unwrap();
    reader
}

fn ids(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("{number}-0")).collect()
}

/// The position that the next check reads from.
fn asked_position(reader: &ShardReader) -> StreamId {
    let mut commands = Vec::new();
    reader.append_check(&mut commands);
    let words: Vec<_> = commands.split(|byte| *byte == b'\n').collect();
    let key = words
        .iter()
        .position(|word| word.starts_with(reader.key().as_bytes()))
        .unwrap();
    StreamId::parse(words[key + 2].strip_suffix(b"\r").unwrap()).unwrap()
}

/// A client has to learn of the gap before it receives what came later.
#[test]
fn gap_is_reported_with_first_page_behind_it() {
    let mut reader = reader_at_end();
    // 3,000 entries were added, of which 1,000 are left.
    let page = ids(2_011..=2_522);
    assert_eq!(page.len(), ENTRIES_PER_READ);
    let (result, taken) = take(&mut reader, &check_reply(&page, 1_000, "3010-0", 3_010));
    // The reader counts what it read, so of 2,010 trimmed entries it misses those at least.
    assert_eq!(result.gap, Some(GapCause::Trimmed(2_010 - 10 - 512)));
    assert!(result.more);
    assert_eq!(taken, ENTRIES_PER_READ);
    // The gap is reported once.
    let (result, _) = take(
        &mut reader,
        &check_reply(&ids(2_523..=3_010), 1_000, "3010-0", 3_010),
    );
    assert_eq!((result.gap, result.more), (None, false));
    // From then on the count is known again.
    let (result, _) = take(
        &mut reader,
        &check_reply(&ids(3_012..=3_012), 1, "3012-0", 3_012),
    );
    assert_eq!(result.gap, Some(GapCause::Trimmed(1)));
}

#[test]
fn entries_trimmed_behind_the_reader_are_no_gap() {
    let mut reader = reader_at_end();
    let (result, _) = take(
        &mut reader,
        &check_reply(&ids(11..=522), 600, "1010-0", 1_010),
    );
    assert_eq!((result.gap, result.more), (None, true));
    let (result, _) = take(
        &mut reader,
        &check_reply(&ids(523..=1_010), 100, "1010-0", 1_010),
    );
    assert_eq!((result.gap, result.more), (None, false));
}

/// Two entries of one millisecond: the second comes after the connection to Redis was cut.
#[test]
fn reader_resumes_behind_last_entry() {
    let mut reader = reader_at_end();
    let first = ["15-0".to_owned()];
    assert_eq!(
        take(&mut reader, &check_reply(&first, 11, "15-0", 11)),
        (CheckResult::default(), 1)
    );
    assert_eq!(asked_position(&reader), StreamId { ms: 15, seq: 0 });
    let second = ["15-1".to_owned()];
    assert_eq!(
        take(&mut reader, &check_reply(&second, 12, "15-1", 12)),
        (CheckResult::default(), 1)
    );
    assert_eq!(asked_position(&reader), StreamId { ms: 15, seq: 1 });
}

#[test]
fn reader_that_starts_at_end_asks_for_what_follows() {
    assert_eq!(
        asked_position(&reader_at_end()),
        StreamId { ms: 10, seq: 0 }
    );
}

#[test]
fn shard_that_fell_back_is_a_gap_and_needs_an_epoch() {
    for (last, added) in [("9-0", 10), ("11-0", 9)] {
        let mut reader = reader_at_end();
        let (result, _) = take(&mut reader, &check_reply(&[], added, last, added));
        assert_eq!(result.gap, Some(GapCause::HistoryLost), "{last} {added}");
        assert!(result.needs_epoch);
    }
}
