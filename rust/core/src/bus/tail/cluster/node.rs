//! A node of a cluster that has shards: its connection, and what was asked on it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::super::link::{Link, append_command};
use super::super::reply::Element;
use super::super::{
    BLOCK_MS, CHECK_INTERVAL, FIRST_BACKOFF, IDLE_CHECK_INTERVAL, MAX_BACKOFF, REPLY_TIMEOUT,
    TailError,
};
use super::opening::NodeAddress;
use super::shard::{Asked, Shard};
use super::slots::Refusal;
use crate::reactor::inbox::ShardEntry;

/// A master that was silent for so long is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_millis(BLOCK_MS);

/// What was asked on a connection.
pub struct Question {
    /// The index of the shard, and what was asked for it; without one, a PING.
    pub shard: Option<(usize, Asked)>,
    /// The number of replies that have not arrived.
    replies: usize,
    /// The first error among the replies, and its text.
    pub refusal: Option<(Refusal, String)>,
}

impl Question {
    fn new(shard: Option<(usize, Asked)>, replies: usize) -> Self {
        Self {
            shard,
            replies,
            refusal: None,
        }
    }
}

/// A node that has shards.
pub struct Node {
    pub address: NodeAddress,
    pub link: Option<Link>,
    pub is_opening: bool,
    retry_at: Instant,
    backoff: Duration,
    /// In the order of their replies.
    questions: VecDeque<Question>,
    /// The entries of the replies so far.
    pub taken: Vec<ShardEntry>,
    /// When it last answered.
    pub answered_at: Instant,
    /// When it last sent anything or was asked.
    pub active_at: Instant,
    checked_at: Instant,
    /// Whether entries came since then.
    is_busy: bool,
    /// Whether the kernel did not take all commands.
    is_full: bool,
}

impl Node {
    /// Without a connection.
    pub fn new(address: NodeAddress, now: Instant) -> Self {
        Self {
            address,
            link: None,
            is_opening: false,
            retry_at: now,
            backoff: FIRST_BACKOFF,
            questions: VecDeque::new(),
            taken: Vec::new(),
            answered_at: now,
            active_at: now,
            checked_at: now,
            is_busy: false,
            is_full: false,
        }
    }

    /// The host, for addresses that leave it out.
    fn host(&self) -> &str {
        match &self.address {
            NodeAddress::OfUrl => "",
            NodeAddress::At((host, _)) => host,
        }
    }

    /// Whether a connection is being opened, or answers are awaited.
    pub fn is_in_use(&self) -> bool {
        self.is_opening || !self.questions.is_empty()
    }

    /// Whether a connection is to be opened.
    pub fn may_open(&self, now: Instant) -> bool {
        self.link.is_none() && !self.is_opening && now >= self.retry_at
    }

    /// A thread opens a connection, or could not be started.
    pub fn note_opening(&mut self, is_opening: bool, now: Instant) {
        self.is_opening = is_opening;
        self.retry_at = now + self.backoff;
    }

    /// Takes a new connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(
        &mut self,
        link: Link,
        number: usize,
        registry: &Registry,
        now: Instant,
    ) -> Result<(), TailError> {
        let descriptor = link.as_raw_fd();
        registry.register(
            &mut SourceFd(&descriptor),
            Token(number),
            Interest::READABLE,
        )?;
        self.link = Some(link);
        (self.answered_at, self.active_at, self.checked_at) = (now, now, now);
        Ok(())
    }

    /// Gives up the connection, or the attempt to open one. Returns whether there was one.
    pub fn lose(&mut self, now: Instant) -> bool {
        self.questions.clear();
        self.is_full = false;
        self.retry_at = now + self.backoff;
        self.backoff = (2 * self.backoff).min(MAX_BACKOFF);
        // Its end also removes it from the poll.
        self.link.take().is_some()
    }

    /// The entries of all replies, once they have arrived. In one piece: a record in one shard may close a
    /// connection that still receives what other shards had before.
    pub fn finished(&mut self) -> Vec<ShardEntry> {
        if self.questions.is_empty() {
            std::mem::take(&mut self.taken)
        } else {
            Vec::new()
        }
    }

    /// Whether a reply takes so long that the connection counts as dead.
    pub fn is_silent(&self, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.active_at);
        self.link.is_some() && !self.questions.is_empty() && silence > REPLY_TIMEOUT
    }

    /// Whether its shards are to be checked now. Then the next check is due later.
    pub fn takes_check(&mut self, now: Instant) -> bool {
        let interval = if self.is_busy {
            CHECK_INTERVAL
        } else {
            IDLE_CHECK_INTERVAL
        };
        let is_due = now.saturating_duration_since(self.checked_at) >= interval;
        if self.link.is_none() || !is_due {
            return false;
        }
        self.checked_at = now;
        self.is_busy = false;
        true
    }

    /// Takes the first element of a reply. Returns the question, if that was its last reply.
    ///
    /// # Errors
    /// [`TailError::Reply`] for a reply to nothing.
    pub fn take_reply(
        &mut self,
        first: Option<Element<'_>>,
        now: Instant,
    ) -> Result<Option<Question>, TailError> {
        self.answered_at = now;
        let refusal = match first {
            Some(Element::Error(text)) => Some((
                Refusal::parse(text, self.host()),
                String::from_utf8_lossy(text).into_owned(),
            )),
            _ => None,
        };
        let question = self.questions.front_mut();
        let question = question.ok_or(TailError::Reply("no command"))?;
        question.refusal = question.refusal.take().or(refusal);
        question.replies -= 1;
        if question.replies > 0 {
            return Ok(None);
        }
        Ok(self.questions.pop_front())
    }

    /// A question was answered, with entries or without.
    pub fn note_answer(&mut self, has_entries: bool) {
        self.backoff = FIRST_BACKOFF;
        self.is_busy |= has_entries;
    }

    /// Sends all questions that are due in one write, once the last ones are answered.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(
        &mut self,
        number: usize,
        shards: &mut [Shard],
        registry: &Registry,
        now: Instant,
    ) -> io::Result<()> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        if !self.questions.is_empty() {
            return match self.is_full {
                true => self.flush(number, registry),
                false => Ok(()),
            };
        }
        let mut commands = Vec::new();
        for (index, shard) in shards.iter_mut().enumerate() {
            if shard.is_due(number, now) {
                let (asked, replies) = shard.append_question(&mut commands);
                let question = Question::new(Some((index, asked)), replies);
                self.questions.push_back(question);
            }
        }
        let silence = now.saturating_duration_since(self.answered_at);
        if commands.is_empty() && silence >= PING_INTERVAL {
            append_command(&mut commands, &["PING"]);
            self.questions.push_back(Question::new(None, 1));
        }
        if commands.is_empty() {
            return Ok(());
        }
        self.active_at = now;
        link.queue(&commands);
        self.flush(number, registry)
    }

    /// Sends what was queued. While the kernel does not take all, the poll tells when it takes more.
    fn flush(&mut self, number: usize, registry: &Registry) -> io::Result<()> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let is_full = !link.flush()?;
        if is_full != self.is_full {
            let interest = if is_full {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let descriptor = link.as_raw_fd();
            registry.reregister(&mut SourceFd(&descriptor), Token(number), interest)?;
            self.is_full = is_full;
        }
        Ok(())
    }
}
