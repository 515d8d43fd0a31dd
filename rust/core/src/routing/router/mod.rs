//! The router: which connections receive what. No sockets, no clock, no I/O.
//!
//! Its caller tells it of reservations, envelopes, gaps and times, and carries out the [`Effect`]s that it
//! gets back, in their order and before the next call.

mod actions;
mod homes;
mod revocation;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::bus::envelope::{CommandHeader, EventHeader};
use crate::bus::shard::shard_of;
use crate::connection::Principal;
use crate::connection::ids::ConnectionId;
use crate::routing::access::Access;
use crate::routing::blocks::{Blocks, OpenBlock};
use crate::routing::index::{AudienceId, Index, Slot};
use crate::routing::record_dedup::RecordDedup;
use crate::routing::subscribers::{Subscriber, Subscribers};
use crate::routing::subscription::Reservation;
use crate::routing::topic::{Topic, TopicRef};
use crate::wire::encoding::Encoding;

pub use actions::Applied;

/// What the caller must do.
#[derive(Debug)]
pub enum Effect {
    /// Write these frames. The connections were in the audience when the frames were routed.
    Deliver {
        block: OpenBlock,
        members: Vec<Slot>,
    },
    /// The topics of a connection changed and take this many bytes. If they grew beyond the limit of the
    /// principal, the caller calls [`Router::request_resubscribe`].
    TopicBytes {
        id: ConnectionId,
        bytes: usize,
        has_grown: bool,
    },
    /// Close this connection with the code of its access. It receives nothing more.
    Close { id: ConnectionId },
}

/// Effects in order.
pub type Effects = Vec<Effect>;

/// The audiences that an envelope was matched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Nothing,
    /// [`Router::matched`] has at least one audience.
    Audiences,
    /// The envelope has subscribers, but its writer uses another number of shards: the control records of
    /// its home are in another shard. It must not be delivered.
    WrongShard,
}

/// Subscriptions and their audiences, the frames of this turn, and what connections may still receive.
pub struct Router {
    shards: u32,
    close_grace: Duration,
    index: Index,
    blocks: Blocks,
    subscribers: Subscribers,
    dedup: RecordDedup,
    /// Connections to unsubscribe at the end of the batch.
    after_batch: Vec<ConnectionId>,
    /// When the grace of each connection that waits for copies is over; in order.
    graces: VecDeque<(Instant, ConnectionId)>,
    matched: Vec<AudienceId>,
    effects: Effects,
}

impl Router {
    /// An empty router. A revoked connection is closed after `close_grace` even if copies of its record in
    /// other shards do not arrive.
    pub fn new(shards: u32, close_grace: Duration, now: Instant) -> Self {
        Self {
            shards,
            close_grace,
            index: Index::default(),
            blocks: Blocks::default(),
            subscribers: Subscribers::default(),
            dedup: RecordDedup::new(now),
            after_batch: Vec::new(),
            graces: VecDeque::new(),
            matched: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Subscribes a connection that was reserved at `reserved_ms` (milliseconds since 1970, UTC).
    #[must_use]
    pub fn subscribe(&mut self, reservation: Reservation, reserved_ms: u64) -> Effects {
        let Reservation {
            id,
            principal,
            subscription,
            ..
        } = reservation;
        let topics: SmallVec<[_; 4]> = subscription.topics(principal.project).collect();
        let (audience, place) = self.index.join(id.slot(), &topics, subscription.encoding);
        drop(topics);
        self.deliver_open_block(audience, place as usize);
        self.subscribers.insert(Subscriber {
            id,
            principal,
            access: Access::Active,
            audience,
            place,
            follows: subscription.follows,
            reserved_ms,
            joined_homes: Vec::new(),
        });
        self.take_effects()
    }

    /// The connection receives nothing more: it ends for a reason of its own, or is being closed.
    #[must_use]
    pub fn unsubscribe(&mut self, id: ConnectionId) -> Effects {
        if self.subscribers.get(id).is_some() {
            self.leave_audience(id.slot());
        }
        self.take_effects()
    }

    /// Forgets a connection that was unsubscribed.
    pub fn forget(&mut self, id: ConnectionId) {
        self.subscribers.remove(id);
    }

    /// Matches an event that was read from this shard.
    pub fn route_event(&mut self, shard: u32, event: &EventHeader<'_>) -> Match {
        self.find(shard, event.home, &event_topics(event))
    }

    /// Matches a command that was read from this shard.
    pub fn route_command(&mut self, shard: u32, command: &CommandHeader<'_>) -> Match {
        let topic = TopicRef::Command {
            project: command.project,
            device: command.device,
        };
        self.find(shard, command.device, &[topic])
    }

    /// The audiences of the last match.
    pub fn matched(&self) -> &[AudienceId] {
        &self.matched
    }

    /// The encodings of the audiences of the last match.
    pub fn encodings(&self) -> impl Iterator<Item = Encoding> {
        self.matched.iter().map(|&it| self.index.encoding(it))
    }

    /// The encoding of an audience.
    pub fn encoding(&self, audience: AudienceId) -> Encoding {
        self.index.encoding(audience)
    }

    /// Adds the frame of its encoding to the open block of each matched audience. Returns the length of the
    /// longest block in bytes.
    pub fn append<'a>(&mut self, frame: impl Fn(Encoding) -> &'a [u8]) -> usize {
        let mut longest = 0;
        for &audience in &self.matched {
            let frame = frame(self.index.encoding(audience));
            longest = longest.max(self.blocks.append(audience, frame));
        }
        longest
    }

    /// Takes any open block; its receivers are [`Router::members`]. `None` when all are taken.
    pub fn next_block(&mut self) -> Option<OpenBlock> {
        self.blocks.seal_next()
    }

    /// Takes the open block of an audience. Required before a member gets a frame of its own.
    pub fn block_of(&mut self, audience: AudienceId) -> Option<OpenBlock> {
        self.blocks.seal(audience)
    }

    /// Takes the open block of the connection's audience.
    pub fn block_before(&mut self, id: ConnectionId) -> Option<OpenBlock> {
        let audience = self.subscribers.get(id)?.audience;
        self.blocks.seal(audience)
    }

    /// Takes back the buffer of a written block.
    pub fn recycle(&mut self, block: OpenBlock) {
        self.blocks.recycle(block);
    }

    /// The connections of an audience.
    pub fn members(&self, audience: AudienceId) -> &[Slot] {
        self.index.members(audience)
    }

    /// What the connection may still receive.
    pub fn access(&self, id: ConnectionId) -> Option<Access> {
        self.subscribers.get(id).map(|it| it.access)
    }

    /// The principal of the connection.
    pub fn principal(&self, id: ConnectionId) -> Option<Principal> {
        self.subscribers.get(id).map(|it| it.principal)
    }

    /// The number of audiences.
    pub fn audience_count(&self) -> usize {
        self.index.audience_count()
    }

    /// The number of topics with at least one subscriber.
    pub fn topic_count(&self) -> usize {
        self.index.topic_count()
    }

    fn find(&mut self, shard: u32, shard_key: u64, topics: &[TopicRef<'_>]) -> Match {
        self.matched.clear();
        self.index.find(topics, &mut self.matched);
        if self.matched.is_empty() {
            return Match::Nothing;
        }
        // Checked only for a match: most nodes have no subscriber for most events.
        if shard_of(shard_key, self.shards) == shard {
            return Match::Audiences;
        }
        self.matched.clear();
        Match::WrongShard
    }

    /// Hands out the audience's open block to its first `members`. Required before the membership of the
    /// audience changes.
    fn deliver_open_block(&mut self, audience: AudienceId, members: usize) {
        if let Some(block) = self.blocks.seal(audience) {
            let all = self.index.members(audience);
            let members = all[..members.min(all.len())].to_vec();
            self.effects.push(Effect::Deliver { block, members });
        }
    }

    fn leave_audience(&mut self, slot: Slot) {
        let Some(subscriber) = self.subscribers.subscribed(slot) else {
            return;
        };
        subscriber.access.end();
        let (audience, place) = (subscriber.audience, subscriber.place);
        self.deliver_open_block(audience, usize::MAX);
        let moved = self.index.leave(audience, place);
        self.note_place(moved, place);
    }

    /// Removes the topics for which `gone` is true. Returns whether there was one.
    fn remove_topics(&mut self, slot: Slot, gone: impl Fn(&Topic) -> bool) -> bool {
        let Some(subscriber) = self.subscribers.subscribed(slot) else {
            return false;
        };
        // Checked first: a block without a change would cost the other members a write each.
        if !self.index.topics(subscriber.audience).any(&gone) {
            return false;
        }
        self.change_topics(slot, |topic| !gone(topic), &[]);
        true
    }

    /// Moves a connection to the audience of the topics for which `keep` is true, and `more`.
    fn change_topics(&mut self, slot: Slot, keep: impl Fn(&Topic) -> bool, more: &[TopicRef<'_>]) {
        let Some(subscriber) = self.subscribers.subscribed(slot) else {
            return;
        };
        let (id, audience, place) = (subscriber.id, subscriber.audience, subscriber.place);
        self.deliver_open_block(audience, usize::MAX);
        let Some(change) = self.index.change(slot, audience, place, keep, more) else {
            return;
        };
        self.note_place(change.moved, place);
        if let Some(subscriber) = self.subscribers.at_mut(slot) {
            (subscriber.audience, subscriber.place) = (change.audience, change.place);
        }
        // The block of the new audience contains events from before the change.
        self.deliver_open_block(change.audience, change.place as usize);
        self.effects.push(Effect::TopicBytes {
            id,
            bytes: self.index.topic_bytes(change.audience),
            has_grown: !more.is_empty(),
        });
    }

    fn note_place(&mut self, moved: Option<Slot>, place: u32) {
        if let Some(subscriber) = moved.and_then(|moved| self.subscribers.at_mut(moved)) {
            subscriber.place = place;
        }
    }

    fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }
}

fn event_topics<'a>(event: &EventHeader<'a>) -> SmallVec<[TopicRef<'a>; 3]> {
    let (project, home) = (event.project, event.home);
    let mut topics = SmallVec::new();
    topics.push(TopicRef::Home { project, home });
    if event.device != 0 {
        topics.push(TopicRef::Device {
            project,
            home,
            device: event.device,
        });
    }
    if let Some(entity) = event.entity {
        topics.push(TopicRef::Entity {
            project,
            home,
            entity,
        });
    }
    topics
}
