//! Answers of a transport to what a client sent, bounded in number.

/// Answers to the frames of one read: the first ones, and always the last.
///
/// RFC 6455 requires only an answer to the last ping. But a client may send several at once and count the
/// answers, as case 2.10 of the Autobahn suite does with ten. So the first ones are answered, too, in one
/// write.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// Start of the last answer.
    last: usize,
    count: usize,
}

impl Replies {
    const MOST: usize = 16;

    /// Adds the answer that `append` appends. At the maximum it replaces the last answer.
    pub fn add(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        if self.count == Self::MOST {
            self.bytes.truncate(self.last);
        } else {
            self.count += 1;
        }
        self.last = self.bytes.len();
        append(&mut self.bytes);
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All answers, as frames.
    pub fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// The last answer.
    pub fn last(&self) -> &[u8] {
        &self.bytes[self.last..]
    }

    /// Removes all answers and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.last, self.count) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_answers_are_all_kept_and_last_of_many() {
        for (added, kept) in [(1, 1), (10, 10), (16, 16), (17, 16), (200, 16)] {
            let mut replies = Replies::default();
            for number in 1..=added {
                replies.add(|out| out.push(number));
            }
            assert_eq!(replies.all().len(), kept);
            assert!(replies.all().is_sorted());
            assert_eq!(replies.last(), &[added]);
        }
    }
}
