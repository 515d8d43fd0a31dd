//! The naive model: a list of subscribers with their topics, and the effect of each control record as
//! documented; without an index, audiences or turns.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::routing::subscription::{Follows, SubscribedTopic, Subscription};

use crate::client::{Client, Received};
use crate::harness::SHARDS;
use crate::records::{
    DEVICE_DELETED, DEVICE_MOVED, HOME_ACTIVATED, HOME_DEACTIVATED, HOME_DELETED, KEY_ENDED,
    MEMBER_ADDED, MEMBER_REMOVED, MEMBER_WAITS, PROJECT_DELETED, PROJECT_DISABLED, USER_DELETED,
};

/// What an envelope is about.
#[derive(Clone, Debug)]
pub enum About {
    Event {
        project: u64,
        home: u64,
        device: u64,
        entity: Option<&'static str>,
    },
    Command {
        project: u64,
        device: u64,
    },
}

/// A topic of a subscriber in its own project.
#[derive(Clone, Debug, PartialEq)]
enum Topic {
    Home(u64),
    Device {
        home: u64,
        device: u64,
    },
    Entity {
        home: u64,
        entity: String,
    },
    Command(u64),
    /// A deactivated home, to subscribe to once it is activated.
    Waiting(u64),
}

impl Topic {
    fn home(&self) -> Option<u64> {
        match *self {
            Self::Home(home)
            | Self::Device { home, .. }
            | Self::Entity { home, .. }
            | Self::Waiting(home) => Some(home),
            Self::Command(_) => None,
        }
    }

    fn shard(&self) -> u32 {
        match *self {
            Self::Command(device) => shard_of(device, SHARDS),
            Self::Home(home)
            | Self::Device { home, .. }
            | Self::Entity { home, .. }
            | Self::Waiting(home) => shard_of(home, SHARDS),
        }
    }

    fn topics(&self, about: &About) -> bool {
        match (self, about) {
            (Self::Home(own), About::Event { home, .. }) => own == home,
            (
                Self::Device { home: own, device },
                About::Event {
                    home, device: it, ..
                },
            ) => own == home && device == it,
            (
                Self::Entity { home: own, entity },
                About::Event {
                    home, entity: it, ..
                },
            ) => own == home && *it == Some(entity.as_str()),
            (Self::Command(own), About::Command { device, .. }) => own == device,
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Reserved,
    Open,
    /// The reservation was abandoned.
    Undone,
    /// Adopted after that, and closed with 1013.
    Refused,
    /// We closed it with this code.
    Closed(u16),
    /// The client closed. It may have received some of the events since the last fence.
    Left,
    Vanished,
}

pub struct Subscriber {
    pub id: ConnectionId,
    pub principal: Principal,
    pub phase: Phase,
    pub client: Option<Client>,
    /// Everything that it must receive, in order.
    pub expected: Vec<Received>,
    /// The number of expected events that were routed before the last fence.
    pub settled: usize,
    /// The code of its pending close.
    pub pending_close: Option<u16>,
    /// Whether it receives no more events.
    pub unsubscribed: bool,
    topics: Vec<Topic>,
    follows: Option<Followed>,
    /// Homes that its user joined, with the moments of the records.
    joined: Vec<(u64, u64)>,
    /// The moment of the record that revokes it shard by shard.
    revoked_at: Option<u64>,
    /// Whether it is unsubscribed at the end of the batch.
    unsubscribes_after_batch: bool,
}

#[derive(Clone)]
enum Followed {
    Everything,
    Entities(Vec<String>),
}

impl Subscriber {
    pub fn new(id: ConnectionId, principal: Principal, subscription: &Subscription) -> Self {
        let names = |entities: &[Box<str>]| entities.iter().map(ToString::to_string).collect();
        let follows = subscription.follows.as_ref().map(|follows| match follows {
            Follows::Homes => Followed::Everything,
            Follows::Entities(entities) => Followed::Entities(names(&entities.0)),
        });
        Self {
            id,
            principal,
            phase: Phase::Reserved,
            client: None,
            expected: Vec::new(),
            settled: 0,
            pending_close: None,
            unsubscribed: false,
            topics: topics(subscription).collect(),
            follows,
            joined: Vec::new(),
            revoked_at: None,
            unsubscribes_after_batch: false,
        }
    }

    pub fn receives(&self, about: &About) -> bool {
        let (About::Event { project, .. } | About::Command { project, .. }) = about;
        self.is_subscribed()
            && self.principal.project == *project
            && self.topics.iter().any(|topic| topic.topics(about))
    }

    pub fn is_subscribed(&self) -> bool {
        !self.unsubscribed && matches!(self.phase, Phase::Reserved | Phase::Open | Phase::Left)
    }

    fn mark_for_close(&mut self, code: u16) {
        self.pending_close.get_or_insert(code);
    }

    fn unsubscribe(&mut self) {
        self.unsubscribed = true;
        if let (Phase::Open, Some(code)) = (self.phase, self.pending_close) {
            self.phase = Phase::Closed(code);
        }
    }

    fn remove_topics(&mut self, gone: impl Fn(&Topic) -> bool) -> bool {
        let before = self.topics.len();
        self.topics.retain(|topic| !gone(topic));
        self.topics.len() < before
    }

    /// The effect of a lost membership, home or device.
    fn remove_access(&mut self, gone: impl Fn(&Topic) -> bool) {
        if !self.remove_topics(gone) || !self.topics.is_empty() {
            return;
        }
        if self.revoked_at.is_some() {
            self.unsubscribes_after_batch = true;
        } else if self.follows.is_none() || self.pending_close.is_some() {
            self.mark_for_close(4500);
            self.unsubscribe();
        }
    }

    fn revoke(&mut self, shard: u32, code: u16, moment: u64) {
        if self.pending_close.is_none() {
            self.revoked_at = Some(moment);
        }
        self.mark_for_close(code);
        let later = std::mem::take(&mut self.joined);
        let is_later = |home| {
            later
                .iter()
                .any(|(known, joined)| *known == home && *joined > moment)
        };
        self.remove_topics(|topic| topic.shard() == shard || topic.home().is_some_and(is_later));
        if self.topics.is_empty() {
            self.unsubscribes_after_batch = true;
        }
    }

    /// The batch is routed.
    pub fn end_of_batch(&mut self) {
        if std::mem::take(&mut self.unsubscribes_after_batch)
            && self.is_subscribed()
            && (self.revoked_at.is_none() || self.topics.is_empty())
        {
            self.unsubscribe();
        }
    }

    fn join_home(&mut self, home: u64, moment: u64, ended: &[u8], is_active: bool) {
        let key = format!("{:016x}", self.principal.key_tag);
        let has_ended = str::from_utf8(ended).unwrap().contains(&key);
        if has_ended || self.revoked_at.is_some_and(|ended| ended <= moment) {
            let was_subscribed = self.remove_topics(|topic| topic.home() == Some(home));
            self.unsubscribes_after_batch |=
                was_subscribed && self.topics.is_empty() && self.revoked_at.is_some();
            return;
        }
        if !self.may_join_homes(moment) {
            return;
        }
        if self.pending_close.is_none() {
            self.joined.retain(|(known, _)| *known != home);
            self.joined.push((home, moment));
        }
        if self.follows.is_some() {
            self.follow(home, is_active);
        }
    }

    fn may_join_homes(&self, moment: u64) -> bool {
        self.pending_close.is_none() || self.revoked_at.is_some_and(|ended| moment < ended)
    }

    fn follow(&mut self, home: u64, is_active: bool) {
        self.remove_topics(|topic| topic.home() == Some(home));
        match &self.follows {
            _ if !is_active => self.topics.push(Topic::Waiting(home)),
            None => {}
            Some(Followed::Everything) => self.topics.push(Topic::Home(home)),
            Some(Followed::Entities(names)) => {
                let of_home = |entity: &String| Topic::Entity {
                    home,
                    entity: entity.clone(),
                };
                self.topics.extend(names.iter().map(of_home));
            }
        }
    }

    pub fn apply(&mut self, shard: u32, record: &ControlHeader<'_>, is_first_copy: bool) {
        let at_home = record.home != 0 && shard_of(record.home, SHARDS) == shard;
        let at_device = record.device != 0 && shard_of(record.device, SHARDS) == shard;
        let is = |kind, id| self.principal.kind == kind && self.principal.id == id;
        let is_user = is(PrincipalKind::User, record.user);
        let is_device = is(PrincipalKind::Device, record.device);
        let has_key = self.principal.key_tag == record.key_tag;
        match record.record_type {
            MEMBER_ADDED | MEMBER_WAITS if at_home && is_user => {
                let is_active = record.record_type == MEMBER_ADDED;
                self.join_home(record.home, record.outbox_ms, record.body, is_active);
            }
            HOME_DEACTIVATED if at_home => {
                let is_subscribed = |topic: &Topic| {
                    topic.home() == Some(record.home) && *topic != Topic::Waiting(record.home)
                };
                if self.follows.is_none() {
                    self.remove_access(is_subscribed);
                } else if self.topics.iter().any(is_subscribed) {
                    self.follow(record.home, false);
                }
            }
            HOME_ACTIVATED
                if at_home
                    && self.topics.contains(&Topic::Waiting(record.home))
                    && self.may_join_homes(record.outbox_ms) =>
            {
                self.follow(record.home, true);
            }
            MEMBER_REMOVED if at_home && is_user => {
                self.joined.retain(|(home, _)| *home != record.home);
                self.remove_access(|topic| topic.home() == Some(record.home));
            }
            USER_DELETED if is_user => self.revoke(shard, 4501, record.outbox_ms),
            KEY_ENDED if has_key && (is_user || is_device) => {
                self.revoke(shard, 4502, record.outbox_ms);
            }
            DEVICE_DELETED => self.device_deleted(shard, record, is_device, at_device, at_home),
            DEVICE_MOVED => self.device_moved(shard, record),
            HOME_DELETED if at_home => {
                self.remove_access(|topic| topic.home() == Some(record.home))
            }
            PROJECT_DISABLED | PROJECT_DELETED
                if is_first_copy || self.topics.iter().any(|topic| topic.shard() == shard) =>
            {
                self.revoke(shard, 4503, record.outbox_ms);
            }
            _ => {}
        }
    }

    fn device_deleted(
        &mut self,
        shard: u32,
        record: &ControlHeader<'_>,
        is_device: bool,
        at_device: bool,
        at_home: bool,
    ) {
        let (home, device) = (record.home, record.device);
        if at_device && self.topics.contains(&Topic::Command(device)) {
            self.mark_for_close(4501);
            self.unsubscribe();
        }
        if is_device && !self.unsubscribed {
            self.revoke(shard, 4501, record.outbox_ms);
        }
        if at_home && !self.unsubscribed {
            self.remove_access(|topic| *topic == Topic::Device { home, device });
        }
    }

    fn device_moved(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let device = record.device;
        let old: u64 = str::from_utf8(record.body).unwrap().parse().unwrap();
        let had_it = self.topics.contains(&Topic::Device { home: old, device });
        if had_it && old != record.home && shard_of(old, SHARDS) == shard {
            self.mark_for_close(4004);
            self.remove_topics(|topic| *topic == Topic::Device { home: old, device });
            self.unsubscribes_after_batch = true;
        }
    }

    /// Entries of this shard may be missing.
    pub fn note_gap(&mut self, shard: u32) {
        let is_own = shard_of(self.principal.id, SHARDS) == shard;
        if self.is_subscribed()
            && (is_own || self.topics.iter().any(|topic| topic.shard() == shard))
        {
            self.mark_for_close(4002);
            self.unsubscribe();
        }
    }
}

fn topics(subscription: &Subscription) -> impl Iterator<Item = Topic> {
    let waiting = subscription.deactivated_homes.iter().copied();
    let topics = subscription.topics.iter().map(|topic| match topic {
        &SubscribedTopic::Home { home } => Topic::Home(home),
        &SubscribedTopic::Device { device, home } => Topic::Device { home, device },
        SubscribedTopic::Entity { entity, home } => Topic::Entity {
            home: *home,
            entity: entity.to_string(),
        },
        &SubscribedTopic::Command { device } => Topic::Command(device),
    });
    topics.chain(waiting.map(Topic::Waiting))
}
