//! Control records: the actions of the table of transitions, applied in order with the events of the same
//! shard.
//!
//! A record is copied to all shards that it concerns. Each copy changes only topics of its own shard. So
//! every event before it is delivered, and none after it.

use std::time::Instant;

use super::{Effects, Router};
use crate::bus::envelope::ControlHeader;
use crate::bus::shard::shard_of;
use crate::connection::{PrincipalId, PrincipalKind};
use crate::routing::index::Slot;
use crate::routing::record_bodies::{EndedPermission, moved_entity, old_home};
use crate::routing::record_dedup::{Recency, RecordKey};
use crate::routing::subscribers::Subscriber;
use crate::routing::topic::{Topic, TopicRef};
use crate::routing::transitions::{
    Action, Identity, Losers, LostTopics, Reversal, Revoked, Transition,
};
use crate::wire::close::{self, CloseCode};

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// A newer record was applied before.
    Older,
    /// This version does not know the type.
    UnknownType,
    /// The body cannot be read.
    Malformed,
}

/// A copy of a record in a shard.
#[derive(Clone, Copy)]
pub(super) struct RecordCopy<'a> {
    pub(super) shard: u32,
    pub(super) record: &'a ControlHeader<'a>,
    now: Instant,
}

/// Stops a record whose body cannot be read.
struct MalformedBody;

impl Router {
    /// Applies the copy of a record in this shard.
    #[must_use]
    pub fn apply(
        &mut self,
        shard: u32,
        record: &ControlHeader<'_>,
        now: Instant,
    ) -> (Applied, Effects) {
        let Some(transition) = Transition::of(record.record_type) else {
            return (Applied::UnknownType, Effects::new());
        };
        let copy = RecordCopy { shard, record, now };
        if self.recency(Some(shard), transition.identity, copy) == Recency::Older
            || self.home_changed(transition, copy)
        {
            return (Applied::Older, Effects::new());
        }
        let outcome = transition
            .actions
            .iter()
            .try_for_each(|action| self.act(action, transition.identity, copy));
        let applied = match outcome {
            Ok(()) => Applied::Done,
            Err(MalformedBody) => Applied::Malformed,
        };
        (applied, self.take_effects())
    }

    fn act(
        &mut self,
        action: &Action,
        identity: Identity,
        copy: RecordCopy<'_>,
    ) -> Result<(), MalformedBody> {
        match *action {
            Action::Join(state) => self.join_home(state, copy),
            Action::Resume => self.resume(copy),
            Action::Resubscribe(topics) => {
                let permission = None;
                if let Some(lost) = self.lost_topics(topics, permission, copy)? {
                    self.resubscribe(lost);
                }
            }
            Action::Lose {
                losers,
                topics,
                code,
                reversal,
                followers_wait,
            } => {
                let permission = ended_permission(losers, copy)?;
                if let Some(lost) = self.lost_topics(topics, permission.as_ref(), copy)? {
                    for slot in self.losers(losers, permission.as_ref(), lost, copy) {
                        if followers_wait
                            && self
                                .subscribers
                                .at(slot)
                                .is_some_and(|it| it.follows.is_some())
                        {
                            self.wait_for_home(slot, copy);
                        } else {
                            self.lose(slot, lost, code, reversal, copy);
                        }
                    }
                }
            }
            Action::Revoke {
                whose,
                code,
                reversal,
            } => {
                for slot in self.revoked(whose, identity, copy) {
                    self.revoke(slot, code, reversal, copy);
                }
            }
        }
        Ok(())
    }

    fn recency(
        &mut self,
        shard: Option<u32>,
        identity: Identity,
        RecordCopy { record, now, .. }: RecordCopy<'_>,
    ) -> Recency {
        let home = match identity {
            Identity::IdsWithoutHome => 0,
            Identity::Ids | Identity::IdsAndBody => record.home,
        };
        let detail = match identity {
            Identity::IdsAndBody => self.dedup.detail(record.record_type, record.body),
            Identity::Ids | Identity::IdsWithoutHome => 0,
        };
        let key = RecordKey {
            shard,
            project: record.project,
            user: record.user,
            home,
            device: record.device,
            key_tag: record.key_tag,
            detail,
        };
        self.dedup.observe(key, record.position(), now)
    }

    /// Whether a membership record is older than the newest record about its home. A repeated membership
    /// must not subscribe to a home that was deactivated since.
    fn home_changed(&self, transition: &Transition, copy: RecordCopy<'_>) -> bool {
        let joins = |action: &Action| matches!(action, Action::Join(_));
        if !transition.actions.iter().any(joins) {
            return false;
        }
        let home = RecordKey {
            shard: Some(copy.shard),
            project: copy.record.project,
            user: 0,
            home: copy.record.home,
            device: 0,
            key_tag: 0,
            detail: 0,
        };
        self.dedup
            .newest(&home)
            .is_some_and(|newest| copy.record.position() < newest)
    }

    pub(super) fn is_shard_of(&self, shard: u32, id: u64) -> bool {
        id != 0 && shard_of(id, self.shards) == shard
    }

    /// The topics that are lost by this copy; `None` if they are in another shard.
    fn lost_topics<'a>(
        &self,
        topics: LostTopics,
        permission: Option<&'a EndedPermission>,
        RecordCopy { shard, record, .. }: RecordCopy<'a>,
    ) -> Result<Option<Lost<'a>>, MalformedBody> {
        let (project, home, device) = (record.project, record.home, record.device);
        let (shard_key, lost) = match topics {
            LostTopics::Home => (home, Some(Lost::Home { project, home })),
            LostTopics::Device => {
                let topic = TopicRef::Device {
                    project,
                    home,
                    device,
                };
                (home, Some(Lost::Topic(topic)))
            }
            LostTopics::DeviceInOldHome => {
                let old = old_home(record).ok_or(MalformedBody)?;
                let topic = TopicRef::Device {
                    project,
                    home: old,
                    device,
                };
                (old, (old != home).then_some(Lost::Topic(topic)))
            }
            LostTopics::Commands => {
                let topic = TopicRef::Command { project, device };
                (device, Some(Lost::Topic(topic)))
            }
            LostTopics::Entity => {
                let entity = moved_entity(record).ok_or(MalformedBody)?;
                let topic = TopicRef::Entity {
                    project,
                    home,
                    entity,
                };
                (home, Some(Lost::Topic(topic)))
            }
            LostTopics::Permission => {
                let topic = permission.and_then(|it| it.topic(record));
                (home, topic.map(Lost::Topic))
            }
        };
        Ok(lost.filter(|_| self.is_shard_of(shard, shard_key)))
    }

    fn losers(
        &mut self,
        losers: Losers,
        permission: Option<&EndedPermission>,
        lost: Lost<'_>,
        RecordCopy { record, .. }: RecordCopy<'_>,
    ) -> Vec<Slot> {
        let of_user = |user| self.subscribers.slots_of(user_id(record.project, user));
        match (losers, permission) {
            (Losers::Everyone, _) => self.subscribers_to(lost),
            (Losers::User, _) => of_user(record.user).to_vec(),
            (Losers::NamedUsers, Some(permission)) => permission
                .users
                .iter()
                .flat_map(|&it| of_user(it))
                .collect(),
            (Losers::NamedUsers, None) => Vec::new(),
        }
    }

    fn subscribers_to(&mut self, lost: Lost<'_>) -> Vec<Slot> {
        match lost {
            Lost::Home { .. } => self.members_with(|topic| lost.includes(topic)),
            Lost::Topic(topic) => self.subscribers_of(topic),
        }
    }

    /// The connection loses topics: closes it if it has none left, or asks it to resubscribe.
    fn lose(
        &mut self,
        slot: Slot,
        lost: Lost<'_>,
        code: &'static CloseCode,
        reversal: Reversal,
        RecordCopy { record, .. }: RecordCopy<'_>,
    ) {
        if let Lost::Home { home, .. } = lost
            && let Some(subscriber) = self.subscribers.at_mut(slot)
        {
            subscriber.joined_homes.retain(|(known, _)| *known != home);
        }
        if !self.remove_topics(slot, |topic| lost.includes(topic)) {
            return;
        }
        let may_be_back = self
            .subscribers
            .at(slot)
            .is_some_and(|it| it.follows.is_none() && may_be_reversed(reversal, record, it));
        if may_be_back {
            self.resubscribe_after_batch(slot);
        } else {
            self.close_if_no_topics(slot, code);
        }
    }

    fn resubscribe(&mut self, lost: Lost<'_>) {
        for slot in self.subscribers_to(lost) {
            self.resubscribe_after_batch(slot);
            self.remove_topics(slot, |topic| lost.includes(topic));
        }
    }

    fn revoked(&mut self, whose: Revoked, identity: Identity, copy: RecordCopy<'_>) -> Vec<Slot> {
        let record = copy.record;
        let principal_id = match (whose, record.user, record.device) {
            (Revoked::Project, _, _) => return self.revoked_of_project(identity, copy),
            (Revoked::Device, _, device) | (Revoked::Key, 0, device) => PrincipalId {
                kind: PrincipalKind::Device,
                project: record.project,
                id: device,
            },
            (Revoked::User | Revoked::Key, user, _) => user_id(record.project, user),
        };
        let mut slots = self.subscribers.slots_of(principal_id).to_vec();
        if whose == Revoked::Key {
            slots.retain(|&slot| {
                self.subscribers
                    .at(slot)
                    .is_some_and(|it| it.principal.key_tag == record.key_tag)
            });
        }
        slots
    }

    /// The first copy revokes all connections of the project, each further copy those with topics in its
    /// shard. So only one of the many copies scans all connections of the node.
    fn revoked_of_project(&mut self, identity: Identity, copy: RecordCopy<'_>) -> Vec<Slot> {
        let (project, shard, shards) = (copy.record.project, copy.shard, self.shards);
        if self.recency(None, identity, copy) == Recency::Newer {
            return self
                .subscribers
                .slots_where(|it| it.principal.project == project);
        }
        self.members_with(|topic| {
            topic.project() == project && shard_of(topic.shard_key(), shards) == shard
        })
    }

    /// Applies one copy of a record that revokes the connection.
    ///
    /// The record has copies in the shards of its user's homes at that moment. Shards have no common order:
    /// the connection may already be subscribed to a home that the user joined later, and no copy would
    /// remove it. So every copy removes such homes.
    fn revoke(
        &mut self,
        slot: Slot,
        code: &'static CloseCode,
        reversal: Reversal,
        RecordCopy { shard, record, now }: RecordCopy<'_>,
    ) {
        let (shards, position) = (self.shards, record.position());
        let Some(subscriber) = self.subscribers.subscribed(slot) else {
            return;
        };
        let code = if may_be_reversed(reversal, record, subscriber) {
            &close::RESUBSCRIBE
        } else {
            code
        };
        let mut later = std::mem::take(&mut subscriber.joined_homes);
        later.retain(|(_, joined_at)| *joined_at > position);
        let id = subscriber.id;
        self.revoke_by_copies(slot, code, position, now);
        self.remove_topics(slot, |topic| {
            shard_of(topic.shard_key(), shards) == shard
                || later.iter().any(|(home, _)| topic.home() == Some(*home))
        });
        if !self.has_topics(slot) {
            self.after_batch.push(id);
        }
    }

    pub(super) fn subscribers_of(&mut self, topic: TopicRef<'_>) -> Vec<Slot> {
        let mut audiences = Vec::new();
        self.index.find(&[topic], &mut audiences);
        audiences
            .iter()
            .flat_map(|&audience| self.index.members(audience))
            .copied()
            .collect()
    }

    /// The connections with a topic for which `wanted` is true. Scans all topics.
    pub(super) fn members_with(&mut self, wanted: impl Fn(&Topic) -> bool) -> Vec<Slot> {
        let audiences = self.index.audiences_of(wanted);
        audiences
            .iter()
            .flat_map(|&audience| self.index.members(audience))
            .copied()
            .collect()
    }
}

/// Topics that connections lose.
#[derive(Clone, Copy)]
enum Lost<'a> {
    /// All topics of a home.
    Home {
        project: u64,
        home: u64,
    },
    Topic(TopicRef<'a>),
}

impl Lost<'_> {
    fn includes(&self, topic: &Topic) -> bool {
        match *self {
            Self::Home { project, home } => {
                topic.project() == project && topic.home() == Some(home)
            }
            Self::Topic(lost) => topic.as_ref() == lost,
        }
    }
}

fn ended_permission(
    losers: Losers,
    RecordCopy { record, .. }: RecordCopy<'_>,
) -> Result<Option<EndedPermission>, MalformedBody> {
    match losers {
        Losers::NamedUsers => EndedPermission::read(record.body)
            .map(Some)
            .ok_or(MalformedBody),
        Losers::User | Losers::Everyone => Ok(None),
    }
}

/// Whether the record is older than the reservation, because the stream reader was behind, and the access
/// may have come back since. The handshake may then have read a state that includes the record and later
/// changes. A final close code could be wrong, so the client is asked to reconnect. (If our clock is behind
/// that of Redis, the final code is sent for a moment longer.)
fn may_be_reversed(
    reversal: Reversal,
    record: &ControlHeader<'_>,
    subscriber: &Subscriber,
) -> bool {
    reversal == Reversal::Possible && record.outbox_ms <= subscriber.reserved_ms
}

pub(super) fn user_id(project: u64, id: u64) -> PrincipalId {
    PrincipalId {
        kind: PrincipalKind::User,
        project,
        id,
    }
}
