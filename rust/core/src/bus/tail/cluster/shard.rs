//! One shard of a cluster: where it is read, and what is to be asked next.

use std::time::Instant;

use super::super::link::append_command;
use super::super::shard_reader::ShardReader;
use super::slots::slot_of;

/// After that many redirects without an answer the shard pauses: the nodes do not agree yet.
const MAX_REDIRECTS: u8 = 5;

/// What is to be asked for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    Nothing,
    Read,
    Check,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Read,
    Check,
    Renewal,
}

/// A shard, and the node that has it. At most one question is out for it, so nothing is read twice.
#[derive(Debug)]
pub struct Shard {
    pub reader: ShardReader,
    pub slot: u16,
    /// The number of the node.
    pub node: usize,
    /// Whether the node has the key, and does not own the slot yet.
    pub is_asking: bool,
    /// Whether the position is known.
    pub is_started: bool,
    /// Whether its node answered since the shard was placed there.
    pub is_current: bool,
    pub needs_epoch: bool,
    wanted: Wanted,
    /// The node from which an answer is awaited.
    awaited_from: Option<usize>,
    redirects: u8,
    paused_until: Option<Instant>,
}

impl Shard {
    /// At no node yet.
    pub fn new(number: u32) -> Self {
        let reader = ShardReader::new(number);
        Self {
            slot: slot_of(reader.key().as_bytes()),
            reader,
            node: usize::MAX,
            is_asking: false,
            is_started: false,
            is_current: false,
            needs_epoch: false,
            wanted: Wanted::Check,
            awaited_from: None,
            redirects: 0,
            paused_until: None,
        }
    }

    /// It is read from this node from now on.
    pub fn place(&mut self, node: usize, is_asking: bool) {
        self.node = node;
        self.is_asking = is_asking;
        self.is_current = false;
        self.wanted = Wanted::Check;
        self.paused_until = None;
    }

    /// A node redirected to this one. Returns whether the shard pauses, because it was redirected too often.
    pub fn redirect(&mut self, node: usize, is_asking: bool, pause: Instant) -> bool {
        self.place(node, is_asking);
        self.redirects += 1;
        if self.redirects < MAX_REDIRECTS {
            return false;
        }
        self.pause(pause);
        true
    }

    /// Its node cannot answer before this time.
    pub fn pause(&mut self, until: Instant) {
        self.redirects = 0;
        self.is_current = false;
        self.wanted = Wanted::Check;
        self.paused_until = Some(until);
    }

    /// The connection to this node was lost.
    pub fn lose(&mut self, node: usize) {
        if self.awaited_from == Some(node) {
            self.awaited_from = None;
        }
        if self.node == node {
            self.is_current = false;
            self.wanted = Wanted::Check;
        }
    }

    /// Something may have changed.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = self.wanted.max(wanted);
    }

    /// Whether a question to this node is due.
    pub fn is_due(&self, node: usize, now: Instant) -> bool {
        self.node == node
            && self.awaited_from.is_none()
            && (self.needs_epoch || self.wanted != Wanted::Nothing)
            && self.paused_until.is_none_or(|until| until <= now)
    }

    /// Appends the question that is due. Returns what it is and the number of its replies.
    pub fn append_question(&mut self, out: &mut Vec<u8>) -> (Asked, usize) {
        self.awaited_from = Some(self.node);
        self.paused_until = None;
        if self.is_asking {
            // It holds for the next command, or transaction.
            append_command(out, &["ASKING"]);
        }
        let asking = usize::from(self.is_asking);
        if self.needs_epoch {
            self.reader.append_renewal(out);
            return (Asked::Renewal, asking + 1);
        }
        match std::mem::replace(&mut self.wanted, Wanted::Nothing) {
            Wanted::Check => {
                self.reader.append_check(out);
                (Asked::Check, asking + ShardReader::REPLIES_BEFORE_EXEC + 1)
            }
            Wanted::Read | Wanted::Nothing => {
                self.reader.append_read(out);
                (Asked::Read, asking + 1)
            }
        }
    }

    /// The last reply to the question has arrived.
    pub fn note_reply(&mut self) {
        self.awaited_from = None;
    }

    /// The question was answered by this node.
    pub fn note_answer(&mut self, node: usize) {
        self.redirects = 0;
        self.is_current = self.node == node;
    }
}

/// The shard of a key that a server names as changed, and what to do.
pub fn told(key: &[u8]) -> Option<(usize, Wanted)> {
    let behind = key.strip_prefix(b"hw:{e")?;
    let (digits, kind) = behind.split_at(memchr::memchr(b'}', behind)?);
    let wanted = match kind {
        b"}:events" => Wanted::Read,
        b"}:epoch" => Wanted::Check,
        _ => return None,
    };
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, wanted))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Failing loudly is what a test is for.
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    fn question(shard: &mut Shard) -> (Asked, usize, String) {
        let mut out = Vec::new();
        let (asked, replies) = shard.append_question(&mut out);
        (asked, replies, String::from_utf8(out).unwrap())
    }

    #[test]
    fn keys_of_a_shard_are_told_apart() {
        assert_eq!(told(b"hw:{e12}:events"), Some((12, Wanted::Read)));
        assert_eq!(told(b"hw:{e0}:epoch"), Some((0, Wanted::Check)));
        for other in [
            &b"hw:{e12}:once:x"[..],
            b"hw:{ex}:events",
            b"hw:{p1}:events",
            b"hw:{e1",
        ] {
            assert_eq!(told(other), None);
        }
    }

    #[test]
    fn shard_asks_one_question_at_a_time() {
        let now = Clock::manual().now();
        let mut shard = Shard::new(5);
        assert!(!shard.is_due(3, now));
        shard.place(3, false);
        assert!(shard.is_due(3, now) && !shard.is_due(4, now));
        let (asked, replies, text) = question(&mut shard);
        assert_eq!((asked, replies), (Asked::Check, 5));
        assert!(text.starts_with("*1\r\n$5\r\nMULTI"));
        // Moved meanwhile: the answer of the old node comes first.
        shard.place(4, false);
        assert!(!shard.is_due(4, now));
        shard.note_reply();
        shard.note_answer(3);
        assert!(shard.is_due(4, now) && !shard.is_current);
        question(&mut shard);
        shard.note_reply();
        shard.note_answer(4);
        assert!(shard.is_current && !shard.is_due(4, now));
        shard.want(Wanted::Read);
        assert_eq!(question(&mut shard).0, Asked::Read);
        // The answer is lost with the connection; the check behind it finds what it would have said.
        shard.lose(4);
        assert_eq!(question(&mut shard).0, Asked::Check);
    }

    #[test]
    fn slot_in_migration_is_asked_with_asking() {
        let now = Clock::manual().now();
        let mut shard = Shard::new(5);
        assert!(!shard.redirect(1, true, now));
        let (_, replies, text) = question(&mut shard);
        assert_eq!(replies, 6);
        assert!(text.starts_with("*1\r\n$6\r\nASKING\r\n*1\r\n$5\r\nMULTI"));
        shard.note_reply();
        shard.needs_epoch = true;
        let (asked, replies, text) = question(&mut shard);
        assert_eq!((asked, replies), (Asked::Renewal, 2));
        assert!(text.starts_with("*1\r\n$6\r\nASKING\r\n*6\r\n$4\r\nEVAL"));
    }

    #[test]
    fn shard_between_nodes_that_disagree_pauses() {
        let now = Clock::manual().now();
        let later = now + Duration::from_millis(100);
        let mut shard = Shard::new(5);
        let paused: Vec<bool> = (0..usize::from(MAX_REDIRECTS))
            .map(|turn| shard.redirect(turn % 2, false, later))
            .collect();
        assert_eq!(paused, [false, false, false, false, true]);
        assert!(!shard.is_due(0, now) && shard.is_due(0, later));
    }
}
