//! What the newest control record about each subject was, so that an older one that is repeated
//! after it (a relay may do that) changes nothing.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// A generation is closed when it is so old. A relay repeats what a crash left within a second or
/// two, and every minute at the latest.
const GENERATION: Duration = Duration::from_secs(300);
/// And when it has so many subjects: both generations stay below 8 MB.
const SUBJECTS: usize = 32_768;

/// What a control record is about, in one shard, or in whichever shard it is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    pub shard: Option<u32>,
    pub project: u64,
    pub user: u64,
    pub home: u64,
    pub device: u64,
    pub key_tag: u64,
    /// A hash of what else tells it from others: of a right whose it was, of an entity its id.
    pub detail: u64,
}

/// Where a record stands in its project's outbox stream: milliseconds, and a number within them.
pub type Stamp = (u64, u64);

/// How a record compares with what was noted about its subject before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Newer,
    Same,
    Older,
}

/// A bounded memory: what nobody spoke about for a generation or two is forgotten.
#[derive(Debug)]
pub struct Subjects {
    young: HashMap<Subject, Stamp, RandomState>,
    old: HashMap<Subject, Stamp, RandomState>,
    began: Instant,
    hasher: RandomState,
}

impl Subjects {
    /// An empty memory.
    pub fn new(now: Instant) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            began: now,
            hasher: RandomState::default(),
        }
    }

    /// What tells a record from others of its type about the same ids.
    pub fn detail(&self, record_type: u64, body: &[u8]) -> u64 {
        self.hasher.hash_one((record_type, body))
    }

    /// Compares a record with the newest one about its subject, which it becomes unless it is older.
    pub fn note(&mut self, subject: Subject, stamp: Stamp, now: Instant) -> Age {
        if self.young.len() >= SUBJECTS || now.duration_since(self.began) >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.began = now;
        }
        let age = match self.newest(&subject).map(|newest| stamp.cmp(&newest)) {
            None | Some(std::cmp::Ordering::Greater) => Age::Newer,
            Some(std::cmp::Ordering::Equal) => Age::Same,
            Some(std::cmp::Ordering::Less) => return Age::Older,
        };
        self.young.insert(subject, stamp);
        age
    }

    /// The place of the newest record about a subject, if it is remembered.
    pub fn newest(&self, subject: &Subject) -> Option<Stamp> {
        self.young
            .get(subject)
            .or_else(|| self.old.get(subject))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(user: u64) -> Subject {
        Subject {
            shard: Some(1),
            project: 1,
            user,
            home: 0,
            device: 0,
            key_tag: 0,
            detail: 0,
        }
    }

    #[test]
    fn only_what_is_older_is_older() {
        let now = Instant::now();
        let mut subjects = Subjects::new(now);
        for (stamp, age) in [
            ((5, 0), Age::Newer),
            ((5, 0), Age::Same),
            ((4, 9), Age::Older),
            ((5, 1), Age::Newer),
            ((5, 0), Age::Older),
            ((6, 0), Age::Newer),
        ] {
            assert_eq!(subjects.note(user(1), stamp, now), age, "{stamp:?}");
        }
        assert_eq!(subjects.note(user(2), (1, 0), now), Age::Newer);
        let elsewhere = Subject {
            shard: Some(2),
            ..user(1)
        };
        assert_eq!(subjects.note(elsewhere, (1, 0), now), Age::Newer);
    }

    #[test]
    fn what_nobody_speaks_about_is_forgotten_after_two_generations() {
        let now = Instant::now();
        let mut subjects = Subjects::new(now);
        subjects.note(user(1), (5, 0), now);
        subjects.note(user(2), (5, 0), now);
        let later = now + GENERATION;
        assert_eq!(subjects.note(user(1), (4, 0), later), Age::Older);
        assert_eq!(subjects.note(user(1), (5, 0), later), Age::Same);
        let latest = later + GENERATION;
        assert_eq!(subjects.note(user(1), (4, 0), latest), Age::Older);
        assert_eq!(subjects.note(user(2), (4, 0), latest), Age::Newer);
    }

    #[test]
    fn it_is_bounded_however_much_happens_at_once() {
        let now = Instant::now();
        let mut subjects = Subjects::new(now);
        for number in 0..10 * SUBJECTS as u64 {
            subjects.note(user(number), (5, 0), now);
            assert!(subjects.young.len() + subjects.old.len() <= 2 * SUBJECTS);
        }
        let last = 10 * SUBJECTS as u64 - 1;
        assert_eq!(subjects.note(user(last), (4, 0), now), Age::Older);
    }
}
