//! The naive model: a list of listeners with what each hears, and what a control record does to it
//! as the contract says it, without an index, scopes, principals or turns.

use std::collections::BTreeMap;

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::routing::subscription::{DeviceInHome, Subscription};

use crate::harness::{Client, Heard, SHARDS};
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

/// What a listener wants to hear, of its own project.
#[derive(Clone, Debug, PartialEq)]
enum Want {
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
    /// To hear this home once it is activated.
    Waiting(u64),
}

impl Want {
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

    fn wants(&self, about: &About) -> bool {
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
    /// Its reservation was undone.
    Undone,
    /// Adopted after that: it is to come again.
    Refused,
    /// We closed it with this code.
    Closed(u16),
    /// The client closed. It may still have heard what it had not by the last fence.
    Left,
    Vanished,
}

pub struct Listener {
    pub id: ConnectionId,
    pub principal: Principal,
    pub phase: Phase,
    pub client: Option<Client>,
    /// Everything it is to hear, in order.
    pub expected: Vec<Heard>,
    /// How much of it was routed before the last fence.
    pub settled: usize,
    /// The code with which it will be closed.
    pub condemned: Option<u16>,
    /// Whether it hears no more because of that.
    pub finished: bool,
    wants: Vec<Want>,
    follows: Option<Followed>,
    /// Homes that its user entered, with the moment of the record.
    entered: Vec<(u64, u64)>,
    /// The moment of the record that ends it shard by shard.
    ended: Option<u64>,
    /// Whether it is finished behind the batch.
    is_ending: bool,
}

#[derive(Clone)]
enum Followed {
    Everything,
    Entities(Vec<String>),
}

impl Listener {
    pub fn new(
        id: ConnectionId,
        principal: Principal,
        subscription: &Subscription,
        follow: bool,
        waiting: &[u64],
    ) -> Self {
        let names = |entities: &[Box<str>]| entities.iter().map(ToString::to_string).collect();
        let followed = match subscription {
            Subscription::Homes(_) => Some(Followed::Everything),
            Subscription::Entities { entities, .. } => Some(Followed::Entities(names(entities))),
            Subscription::Devices(_) | Subscription::Bound(_) | Subscription::Commands(_) => None,
        };
        Self {
            id,
            principal,
            phase: Phase::Reserved,
            client: None,
            expected: Vec::new(),
            settled: 0,
            condemned: None,
            finished: false,
            wants: wants(subscription)
                .into_iter()
                .chain(waiting.iter().copied().map(Want::Waiting))
                .collect(),
            follows: followed.filter(|_| follow),
            entered: Vec::new(),
            ended: None,
            is_ending: false,
        }
    }

    pub fn hears(&self, about: &About) -> bool {
        let (About::Event { project, .. } | About::Command { project, .. }) = about;
        self.is_heard()
            && self.principal.project == *project
            && self.wants.iter().any(|want| want.wants(about))
    }

    pub fn is_heard(&self) -> bool {
        !self.finished && matches!(self.phase, Phase::Reserved | Phase::Open | Phase::Left)
    }

    fn condemn(&mut self, code: u16) {
        self.condemned.get_or_insert(code);
    }

    fn finish(&mut self) {
        self.finished = true;
        if let (Phase::Open, Some(code)) = (self.phase, self.condemned) {
            self.phase = Phase::Closed(code);
        }
    }

    fn lose(&mut self, gone: impl Fn(&Want) -> bool) -> bool {
        let before = self.wants.len();
        self.wants.retain(|want| !gone(want));
        self.wants.len() < before
    }

    /// What a lost membership, home or device does.
    fn lose_access(&mut self, gone: impl Fn(&Want) -> bool) {
        if !self.lose(gone) || !self.wants.is_empty() {
            return;
        }
        if self.ended.is_some() {
            self.is_ending = true;
        } else if self.follows.is_none() || self.condemned.is_some() {
            self.condemn(4500);
            self.finish();
        }
    }

    fn revoke(&mut self, shard: u32, code: u16, moment: u64) {
        if self.condemned.is_none() {
            self.ended = Some(moment);
        }
        self.condemn(code);
        let later = std::mem::take(&mut self.entered);
        let is_later = |home| {
            later
                .iter()
                .any(|(known, entered)| *known == home && *entered > moment)
        };
        self.lose(|want| want.shard() == shard || want.home().is_some_and(is_later));
        if self.wants.is_empty() {
            self.is_ending = true;
        }
    }

    /// Everything that was read together has been routed.
    pub fn end_of_batch(&mut self) {
        if std::mem::take(&mut self.is_ending)
            && self.is_heard()
            && (self.ended.is_none() || self.wants.is_empty())
        {
            self.finish();
        }
    }

    fn enter(&mut self, home: u64, moment: u64, ended: &[u8], is_active: bool) {
        let key = format!("{:016x}", self.principal.key_tag);
        let has_ended = str::from_utf8(ended).unwrap().contains(&key);
        if has_ended || self.ended.is_some_and(|ended| ended <= moment) {
            let was_heard = self.lose(|want| want.home() == Some(home));
            self.is_ending |= was_heard && self.wants.is_empty() && self.ended.is_some();
            return;
        }
        if !self.may_still_follow(moment) {
            return;
        }
        if self.condemned.is_none() {
            self.entered.retain(|(known, _)| *known != home);
            self.entered.push((home, moment));
        }
        if self.follows.is_some() {
            self.follow(home, is_active);
        }
    }

    fn may_still_follow(&self, moment: u64) -> bool {
        self.condemned.is_none() || self.ended.is_some_and(|ended| moment < ended)
    }

    fn follow(&mut self, home: u64, is_active: bool) {
        self.lose(|want| want.home() == Some(home));
        match &self.follows {
            _ if !is_active => self.wants.push(Want::Waiting(home)),
            None => {}
            Some(Followed::Everything) => self.wants.push(Want::Home(home)),
            Some(Followed::Entities(names)) => {
                let of_home = |entity: &String| Want::Entity {
                    home,
                    entity: entity.clone(),
                };
                self.wants.extend(names.iter().map(of_home));
            }
        }
    }

    fn apply(&mut self, shard: u32, record: &ControlHeader<'_>, is_first_copy: bool) {
        let at_home = record.home != 0 && shard_of(record.home, SHARDS) == shard;
        let at_device = record.device != 0 && shard_of(record.device, SHARDS) == shard;
        let is = |kind, id| self.principal.kind == kind && self.principal.id == id;
        let is_user = is(PrincipalKind::User, record.user);
        let is_device = is(PrincipalKind::Device, record.device);
        let has_key = self.principal.key_tag == record.key_tag;
        match record.record_type {
            MEMBER_ADDED | MEMBER_WAITS if at_home && is_user => {
                let is_active = record.record_type == MEMBER_ADDED;
                self.enter(record.home, record.outbox_ms, record.body, is_active);
            }
            HOME_DEACTIVATED if at_home => {
                let is_heard = |want: &Want| {
                    want.home() == Some(record.home) && *want != Want::Waiting(record.home)
                };
                if self.follows.is_none() {
                    self.lose_access(is_heard);
                } else if self.wants.iter().any(is_heard) {
                    self.follow(record.home, false);
                }
            }
            HOME_ACTIVATED
                if at_home
                    && self.wants.contains(&Want::Waiting(record.home))
                    && self.may_still_follow(record.outbox_ms) =>
            {
                self.follow(record.home, true);
            }
            MEMBER_REMOVED if at_home && is_user => {
                self.entered.retain(|(home, _)| *home != record.home);
                self.lose_access(|want| want.home() == Some(record.home));
            }
            USER_DELETED if is_user => self.revoke(shard, 4501, record.outbox_ms),
            KEY_ENDED if has_key && (is_user || is_device) => {
                self.revoke(shard, 4502, record.outbox_ms);
            }
            DEVICE_DELETED => self.device_deleted(shard, record, is_device, at_device, at_home),
            DEVICE_MOVED => self.device_moved(shard, record),
            HOME_DELETED if at_home => self.lose_access(|want| want.home() == Some(record.home)),
            PROJECT_DISABLED | PROJECT_DELETED
                if is_first_copy || self.wants.iter().any(|want| want.shard() == shard) =>
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
        if at_device && self.wants.contains(&Want::Command(device)) {
            self.condemn(4501);
            self.finish();
        }
        if at_device && is_device && !self.finished {
            self.revoke(shard, 4501, record.outbox_ms);
        }
        if at_home && !self.finished {
            self.lose_access(|want| *want == Want::Device { home, device });
        }
    }

    fn device_moved(&mut self, shard: u32, record: &ControlHeader<'_>) {
        let device = record.device;
        let old: u64 = str::from_utf8(record.body).unwrap().parse().unwrap();
        let had_it = self.wants.contains(&Want::Device { home: old, device });
        if had_it && old != record.home && shard_of(old, SHARDS) == shard {
            self.condemn(4004);
            self.lose(|want| *want == Want::Device { home: old, device });
            self.is_ending = true;
        }
    }

    /// Entries of this shard may be missing.
    pub fn miss(&mut self, shard: u32) {
        let is_own = shard_of(self.principal.id, SHARDS) == shard;
        if self.is_heard() && (is_own || self.wants.iter().any(|want| want.shard() == shard)) {
            self.condemn(4002);
            self.finish();
        }
    }
}

fn wants(subscription: &Subscription) -> Vec<Want> {
    match subscription {
        Subscription::Homes(homes) => homes.iter().copied().map(Want::Home).collect(),
        Subscription::Devices(devices) => devices
            .iter()
            .map(|&DeviceInHome { device, home }| Want::Device { home, device })
            .collect(),
        Subscription::Entities { homes, entities } => homes
            .iter()
            .flat_map(|&home| {
                entities.iter().map(move |entity| Want::Entity {
                    home,
                    entity: entity.to_string(),
                })
            })
            .collect(),
        Subscription::Bound(entities) => entities
            .iter()
            .map(|it| Want::Entity {
                home: it.home,
                entity: it.entity.to_string(),
            })
            .collect(),
        Subscription::Commands(device) => vec![Want::Command(*device)],
    }
}

/// The newest record about each subject, by shard; under no shard, that of a whole project.
#[derive(Default)]
pub struct Newest(BTreeMap<(Option<u32>, [u64; 5]), u64>);

impl Newest {
    /// Whether the record is older than one that was applied before; if not, it is now the newest.
    fn overtook(&mut self, shard: Option<u32>, record: &ControlHeader<'_>) -> Option<bool> {
        let home = if record.record_type == DEVICE_MOVED {
            0
        } else {
            record.home
        };
        let subject = [
            record.project,
            record.user,
            home,
            record.device,
            record.key_tag,
        ];
        let newest = self.0.get(&(shard, subject)).copied();
        if newest.is_some_and(|newest| newest > record.outbox_ms) {
            return None;
        }
        self.0.insert((shard, subject), record.outbox_ms);
        if matches!(record.record_type, MEMBER_ADDED | MEMBER_WAITS) {
            let of_home = self.0.get(&(shard, [record.project, 0, home, 0, 0]));
            if of_home.is_some_and(|newest| *newest > record.outbox_ms) {
                return None;
            }
        }
        Some(newest != Some(record.outbox_ms))
    }

    /// What the copy of a record does to everybody.
    pub fn apply(&mut self, listeners: &mut [Listener], shard: u32, record: &ControlHeader<'_>) {
        if self.overtook(Some(shard), record).is_none() {
            return;
        }
        let ends_project = matches!(record.record_type, PROJECT_DISABLED | PROJECT_DELETED);
        let is_first_copy = ends_project && self.overtook(None, record) == Some(true);
        for listener in listeners {
            if listener.is_heard() && listener.principal.project == record.project {
                listener.apply(shard, record, is_first_copy);
            }
        }
    }
}
