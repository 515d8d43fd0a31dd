//! Answers to pings, bounded in number.

use crate::wire::frame::{Opcode, append_frame};

/// Answers to the pings of one read: the first ones, and always the last.
///
/// RFC 6455 requires only the last one. But a client may send several at once and count the answers, as
/// case 2.10 of the Autobahn suite does with ten. So the first pings are answered, too, in one write.
#[derive(Debug, Default)]
pub struct Pongs {
    bytes: Vec<u8>,
    /// Start of the last answer.
    last: usize,
    count: usize,
}

impl Pongs {
    const MOST: usize = 16;

    /// Answers a ping with this payload. At the maximum it replaces the last answer.
    pub fn add(&mut self, payload: &[u8]) {
        if self.count == Self::MOST {
            self.bytes.truncate(self.last);
        } else {
            self.count += 1;
        }
        self.last = self.bytes.len();
        append_frame(&mut self.bytes, Opcode::Pong, payload);
    }

    /// Whether there was no ping.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All answers, as frames.
    pub fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// Removes all answers and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.last, self.count) = (0, 0);
    }

    /// The answer to the last ping.
    pub fn last(&self) -> &[u8] {
        &self.bytes[self.last..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(pings: usize) -> Pongs {
        let mut pongs = Pongs::default();
        for ping in 1..=pings {
            pongs.add(&[ping as u8]);
        }
        pongs
    }

    #[test]
    fn few_pings_are_all_answered_and_last_of_many() {
        for (pings, answered) in [(1, 1), (10, 10), (16, 16), (17, 16), (200, 16)] {
            let pongs = answers(pings);
            let payloads: Vec<u8> = pongs.all().chunks(3).map(|frame| frame[2]).collect();
            assert_eq!(payloads.len(), answered);
            assert!(payloads.is_sorted());
            assert_eq!(payloads.last(), Some(&(pings as u8)));
            assert_eq!(pongs.last(), &[0x8A, 1, pings as u8]);
        }
    }
}
