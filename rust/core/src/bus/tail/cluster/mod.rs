//! The reader of a cluster: one connection for each master, and one thread for all.
//!
//! An XREAD may wait only for keys of one slot. So the masters tell which keys of the shards change, and the
//! reader asks for those shards with XREADs that do not wait, all in one write. A message comes with the
//! replies of the turn of Redis in which the key changed, so nothing is polled.
//!
//! One thread, because shards move between masters: it follows MOVED and ASK with nothing to hand over, and
//! takes what several masters sent in one turn to the reactor at once. Connecting is done elsewhere
//! (`opening`), so a master that does not answer delays no other one.

mod node;
mod opening;
mod shard;
mod slots;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use super::TailError;
use super::connector::Connector;
use super::feed::Feed;
use super::link::Link;
use super::reply::{Element, Reply};
use super::shard_reader::ENTRIES_PER_READ;
use crate::reactor::inbox::ShardEntry;
use crate::stats::Stats;
use node::Node;
use opening::{Arrival, NodeAddress, Opening, PAUSE};
use shard::{Asked, Shard, Wanted, told};
use slots::{Refusal, SlotOwners};

const WAKER: Token = Token(usize::MAX);
/// How long the start may take.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between two looks at what is due, while all shards are read, and while some are not.
const TICK: Duration = Duration::from_millis(100);
const SHORT_TICK: Duration = Duration::from_millis(20);
/// Reads all shards of a cluster.
pub(super) struct ClusterReader {
    feed: Feed,
    opening: Opening,
    poll: Poll,
    shards: Vec<Shard>,
    nodes: BTreeMap<usize, Node>,
    next_number: usize,
    /// Entries for the reactor.
    taken: Vec<ShardEntry>,
    /// The last failure, for the message when the start fails.
    problem: Option<TailError>,
}

impl ClusterReader {
    /// A reader at the end of each shard. `link` is a connection to any node.
    pub fn start(
        connector: Connector,
        link: &mut Link,
        shards: u32,
        feed: Feed,
    ) -> Result<Self, TailError> {
        let owners = match connector.cluster() {
            Some(_) => Some(opening::owners(link)?),
            None => None,
        };
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let now = feed.now();
        let mut reader = Self {
            opening: Opening::new(connector, feed.context.notifier.clone(), waker, now),
            poll,
            shards: (0..shards).map(Shard::new).collect(),
            nodes: BTreeMap::new(),
            next_number: 0,
            taken: Vec::new(),
            problem: None,
            feed,
        };
        match owners {
            Some(owners) => reader.apply(&owners, now),
            // A cluster of one node, which the URL names.
            None => {
                let number = reader.number_of(NodeAddress::OfUrl, now);
                for shard in &mut reader.shards {
                    shard.place(number, false);
                }
            }
        }
        reader.until_started(now + START_TIMEOUT)?;
        Ok(reader)
    }

    fn until_started(&mut self, deadline: Instant) -> Result<(), TailError> {
        let mut events = Events::with_capacity(64);
        while !self.shards.iter().all(|shard| shard.is_started) {
            if self.feed.now() > deadline {
                return Err(self.problem.take().unwrap_or(TailError::SlotsMissing));
            }
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// Reads until the reader is stopped.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        while !self.feed.stopped() {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let is_current = self.shards.iter().all(|shard| shard.is_current);
        let tick = if is_current { TICK } else { SHORT_TICK };
        match self.poll.poll(events, Some(tick)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = self.feed.now();
        for event in events.iter() {
            match event.token() {
                WAKER => {}
                Token(number) => self.receive(number, now),
            }
        }
        self.feed.route(std::mem::take(&mut self.taken));
        while let Some(arrival) = self.opening.arrival() {
            match arrival {
                Arrival::Link(number, link) => self.adopt(number, link, now),
                Arrival::Owners(owners) => self.take_owners(owners, now),
            }
        }
        self.tend(now);
        self.ask(now);
        self.note_reply();
        Ok(())
    }

    /// Notes how up to date the reader is, if it reads all shards.
    fn note_reply(&self) {
        if self.shards.iter().all(|shard| shard.is_current)
            && let Some(oldest) = self.nodes.values().map(|node| node.answered_at).min()
        {
            self.feed.note_reply(oldest);
        }
    }

    // Replies

    fn receive(&mut self, number: usize, now: Instant) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        node.active_at = now;
        // Taken out, because its replies are borrowed from it.
        let Some(mut link) = node.link.take() else {
            return;
        };
        let outcome = self.receive_from(&mut link, number, now);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.link = Some(link);
            self.taken.append(&mut node.finished());
        }
        if let Err(error) = outcome {
            self.lose(number, error, now);
        }
    }

    fn receive_from(
        &mut self,
        link: &mut Link,
        number: usize,
        now: Instant,
    ) -> Result<(), TailError> {
        while let Some(mut reply) = link.poll_reply()? {
            self.take(number, &mut reply, now)?;
        }
        Ok(())
    }

    /// Takes one reply, or a message about changed keys.
    fn take(
        &mut self,
        number: usize,
        reply: &mut Reply<'_>,
        now: Instant,
    ) -> Result<(), TailError> {
        let Some(node) = self.nodes.get_mut(&number) else {
            return Ok(());
        };
        let first = reply.clone().element();
        if let Some(Element::Push(_)) = first {
            self.take_message(number, reply);
            return Ok(());
        }
        let Some(question) = node.take_reply(first, now)? else {
            return Ok(());
        };
        let Some((index, asked)) = question.shard else {
            return Ok(());
        };
        self.shards[index].note_reply();
        match question.refusal {
            Some((Refusal::Wrong, text)) => Err(TailError::Refused(text)),
            Some((refusal, text)) => {
                self.problem = Some(TailError::Refused(text));
                self.follow(index, refusal, now);
                Ok(())
            }
            None => self.take_answer(number, index, asked, reply),
        }
    }

    fn take_answer(
        &mut self,
        number: usize,
        index: usize,
        asked: Asked,
        reply: &mut Reply<'_>,
    ) -> Result<(), TailError> {
        let Some(node) = self.nodes.get_mut(&number) else {
            return Ok(());
        };
        let shard = &mut self.shards[index];
        let before = node.taken.len();
        match asked {
            Asked::Read => {
                let mut foreign = 0;
                let taken = shard
                    .reader
                    .take_read(reply, &mut node.taken, &mut foreign)?;
                Stats::add(&self.feed.context.stats.foreign_entries, foreign);
                if taken == ENTRIES_PER_READ {
                    // There may be more, and Redis may trim it meanwhile.
                    shard.want(Wanted::Check);
                }
            }
            Asked::Check if !shard.is_started => {
                shard.reader.start_at_end(reply)?;
                shard.is_started = true;
            }
            Asked::Check => {
                let outcome = self
                    .feed
                    .take_check(&mut shard.reader, reply, &mut node.taken)?;
                shard.needs_epoch = outcome.needs_epoch;
                if outcome.more {
                    shard.want(Wanted::Check);
                }
            }
            Asked::Renewal => {
                shard
                    .reader
                    .set_epoch(reply.text().ok_or(TailError::Reply("EVAL"))?);
                shard.needs_epoch = false;
            }
        }
        shard.note_answer(number);
        node.note_answer(node.taken.len() > before);
        Ok(())
    }

    /// A message that names changed keys; without names, all may have changed.
    fn take_message(&mut self, number: usize, reply: &mut Reply<'_>) {
        reply.element();
        if reply.text() != Some(b"invalidate") {
            return;
        }
        let Some(Element::Array(keys)) = reply.element() else {
            self.want_checks(number);
            return;
        };
        for _ in 0..keys {
            let Some((index, wanted)) = reply.text().and_then(told) else {
                continue;
            };
            if let Some(shard) = self.shards.get_mut(index).filter(|it| it.node == number) {
                shard.want(wanted);
            }
        }
    }

    fn want_checks(&mut self, number: usize) {
        for shard in self.shards.iter_mut().filter(|it| it.node == number) {
            shard.want(Wanted::Check);
        }
    }

    // Places of shards

    /// Follows a redirect, or pauses a shard whose node cannot serve.
    fn follow(&mut self, index: usize, refusal: Refusal, now: Instant) {
        Stats::add(&self.feed.context.stats.tail_redirects, 1);
        let pause = now + PAUSE;
        let (target, is_asking) = match refusal {
            Refusal::Moved(owner) => (owner, false),
            Refusal::Ask(target) => (target, true),
            Refusal::Later | Refusal::Wrong => {
                self.shards[index].pause(pause);
                self.opening.want_owners();
                return;
            }
        };
        let number = self.number_of(NodeAddress::At(target), now);
        let is_paused = self.shards[index].redirect(number, is_asking, pause);
        // During a migration the slots are what they were.
        if is_paused || !is_asking {
            self.opening.want_owners();
        }
    }

    /// The number of the node at this address; a new one, if it is not known.
    fn number_of(&mut self, address: NodeAddress, now: Instant) -> usize {
        let known = self.nodes.iter().find(|(_, node)| node.address == address);
        if let Some((number, _)) = known {
            return *number;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.nodes.insert(number, Node::new(address, now));
        number
    }

    /// Places all shards by the owners of their slots.
    fn apply(&mut self, owners: &SlotOwners, now: Instant) {
        for index in 0..self.shards.len() {
            let Some(owner) = owners.owner(self.shards[index].slot) else {
                self.opening.want_owners();
                continue;
            };
            let number = self.number_of(NodeAddress::At(owner.clone()), now);
            let shard = &mut self.shards[index];
            if shard.node == number {
                shard.is_asking = false;
            } else if !shard.is_asking {
                shard.place(number, false);
            }
        }
    }

    fn take_owners(&mut self, owners: Result<SlotOwners, TailError>, now: Instant) {
        match owners {
            Ok(owners) => self.apply(&owners, now),
            Err(error) => {
                self.problem = Some(error);
                self.opening.want_owners();
            }
        }
    }

    // Connections

    fn adopt(&mut self, number: usize, link: Result<Link, TailError>, now: Instant) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        node.is_opening = false;
        let adopted = link.and_then(|link| node.adopt(link, number, self.poll.registry(), now));
        match adopted {
            Ok(()) => self.want_checks(number),
            Err(error) => self.lose(number, error, now),
        }
    }

    /// The connection to a node is lost, or could not be opened.
    fn lose(&mut self, number: usize, error: TailError, now: Instant) {
        self.problem = Some(error);
        self.opening.want_owners();
        for shard in &mut self.shards {
            shard.lose(number);
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            let was_connected = node.lose(now);
            self.taken.append(&mut node.finished());
            Stats::add(
                &self.feed.context.stats.tail_reconnects,
                u64::from(was_connected),
            );
        }
    }

    /// Whatever is due by the time.
    fn tend(&mut self, now: Instant) {
        let shards = &self.shards;
        self.nodes.retain(|number, node| {
            node.is_in_use() || shards.iter().any(|shard| shard.node == *number)
        });
        let (mut silent, mut to_check) = (Vec::new(), Vec::new());
        for (number, node) in &mut self.nodes {
            if node.may_open(now) {
                let opened = self.opening.open(*number, node.address.clone());
                node.note_opening(opened.is_ok(), now);
            } else if node.is_silent(now) {
                silent.push(*number);
            } else if node.takes_check(now) {
                to_check.push(*number);
            }
        }
        for number in to_check {
            self.want_checks(number);
        }
        for number in silent {
            self.lose(number, io::Error::from(io::ErrorKind::TimedOut).into(), now);
        }
        let known = self.nodes.values().map(|node| &node.address);
        self.opening.ask_owners(known, now);
    }

    /// Sends all questions that are due.
    fn ask(&mut self, now: Instant) {
        let mut lost = Vec::new();
        for (number, node) in &mut self.nodes {
            if let Err(error) = node.ask(*number, &mut self.shards, self.poll.registry(), now) {
                lost.push((*number, error));
            }
        }
        for (number, error) in lost {
            self.lose(number, error.into(), now);
        }
    }
}
