//! The table of transitions: for each type of control record the shards that get a copy, what a reader
//! does with a copy, and the close codes that follow.
//!
//! The relay asks [`concerned_shards`], the router applies the [`Action`]s of a row, and Lua gets the numbers.
//! `docs/control-records.md` is generated from the table.

use crate::bus::envelope::ControlHeader;
use crate::bus::shard::shard_of;
use crate::routing::record_bodies::{EndedPermission, old_home};
use crate::wire::close::{self, CloseCode};

#[cfg(test)]
mod tests;

/// The types of control records. The numbers are on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    MemberAdded = 1,
    MemberRemoved = 2,
    UserDeleted = 3,
    /// The key was revoked or rotated, or its session ended.
    KeyEnded = 4,
    DeviceDeleted = 5,
    /// `home` is the new home; the body has the decimal digits of the old one (0: none).
    DeviceMoved = 6,
    HomeDeleted = 7,
    ProjectDisabled = 8,
    ProjectDeleted = 9,
    ProjectEnabled = 10,
    /// The permission to read `home`, or `device` in it, or an entity in it. The body names the entity and
    /// the users.
    PermissionEnded = 11,
    /// `home` is the home that it was bound to; the body is the entity's id.
    EntityMoved = 12,
    /// No event of the home is delivered until it is activated.
    HomeDeactivated = 13,
    HomeActivated = 14,
    /// A member was added to a home that is deactivated.
    MemberWaits = 15,
}

/// One row of the table.
#[derive(Debug)]
pub struct Transition {
    pub record_type: RecordType,
    /// The name of the type in scripts.
    pub name: &'static str,
    /// The shards that get a copy.
    pub copies: &'static [CopiedTo],
    /// What tells records of this type about different things apart.
    pub identity: Identity,
    /// What a reader does with a copy, in order.
    pub actions: &'static [Action],
    /// The same in words, for the generated page.
    pub summary: &'static str,
}

/// An id of a record, or several. Their shards get a copy; ids that are 0 have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopiedTo {
    User,
    Home,
    Device,
    ProjectKey,
    /// The home in the body of a moved device.
    OldHome,
    /// The users in the body of an ended permission.
    NamedUsers,
    /// The homes that the user may receive; every shard if they are not listed.
    UserHomes,
    EveryShard,
}

impl CopiedTo {
    /// The name on the generated page.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Home => "home",
            Self::Device => "device",
            Self::ProjectKey => "project key",
            Self::OldHome => "old home",
            Self::NamedUsers => "each named user",
            Self::UserHomes => "the user's homes",
            Self::EveryShard => "all",
        }
    }
}

/// What two records of one type must have in common, so that the later one replaces the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// All ids.
    Ids,
    /// All ids but the home: a device has one latest move.
    IdsWithoutHome,
    /// All ids and the body.
    IdsAndBody,
}

/// What a reader does with a copy. An action changes topics of the copy's own shard only.
#[derive(Debug)]
pub enum Action {
    /// Connections of the user that follow homes subscribe to the home.
    Join(HomeState),
    /// Connections lose topics. A connection without topics that follows no homes is closed with the code.
    Lose {
        losers: Losers,
        topics: LostTopics,
        code: &'static CloseCode,
        /// Whether the access may have come back already; see [`Reversal`].
        reversal: Reversal,
        /// Whether connections that follow homes wait for the home instead.
        followers_wait: bool,
    },
    /// Connections that wait for the home subscribe to it.
    Resume,
    /// The subscribers of the topic are closed with 4004 after the batch. They reconnect and are authorised
    /// again.
    Resubscribe(LostTopics),
    /// Connections lose their topics shard by shard and are closed with the code.
    Revoke {
        whose: Revoked,
        code: &'static CloseCode,
        reversal: Reversal,
    },
}

/// Whether a joined home is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeState {
    Active,
    /// The connection subscribes once the home is activated.
    Deactivated,
}

/// Whether access that ended may have been given again before the connection was reserved. A record that
/// is older than the reservation then says nothing final, and the code is 4004.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reversal {
    Possible,
    Never,
}

/// Which connections lose topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Losers {
    /// Those of the record's user.
    User,
    /// Those of the users in the body of an ended permission.
    NamedUsers,
    Everyone,
}

/// Which topics are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostTopics {
    /// All topics of the home.
    Home,
    /// The device in the home.
    Device,
    /// The device in its old home.
    DeviceInOldHome,
    /// The commands to the device.
    Commands,
    /// The entity in the body, in the home.
    Entity,
    /// The topic of the ended permission.
    Permission,
}

/// Whose connections are revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    User,
    Device,
    /// The user or device, with this key.
    Key,
    Project,
}

/// The rows, by number.
pub static TABLE: [Transition; 15] = [
    Transition {
        record_type: RecordType::MemberAdded,
        name: "member_added",
        copies: &[CopiedTo::Home, CopiedTo::User],
        identity: Identity::Ids,
        actions: &[Action::Join(HomeState::Active)],
        summary: "The user's connections that follow homes subscribe to the home.",
    },
    Transition {
        record_type: RecordType::MemberRemoved,
        name: "member_removed",
        copies: &[CopiedTo::Home, CopiedTo::User],
        identity: Identity::Ids,
        actions: &[lose(Losers::User, LostTopics::Home, Reversal::Possible)],
        summary: "The user's connections lose the home.",
    },
    Transition {
        record_type: RecordType::UserDeleted,
        name: "user_deleted",
        copies: &[CopiedTo::User, CopiedTo::UserHomes],
        identity: Identity::Ids,
        actions: &[revoke(
            Revoked::User,
            &close::PRINCIPAL_DELETED,
            Reversal::Never,
        )],
        summary: "The user's connections are revoked.",
    },
    Transition {
        record_type: RecordType::KeyEnded,
        name: "key_ended",
        copies: &[
            CopiedTo::User,
            CopiedTo::UserHomes,
            CopiedTo::Device,
            CopiedTo::ProjectKey,
        ],
        identity: Identity::Ids,
        actions: &[revoke(Revoked::Key, &close::KEY_ENDED, Reversal::Never)],
        summary: "The connections that were made with the key are revoked.",
    },
    Transition {
        record_type: RecordType::DeviceDeleted,
        name: "device_deleted",
        copies: &[CopiedTo::Device, CopiedTo::Home],
        identity: Identity::Ids,
        actions: &[
            Action::Lose {
                losers: Losers::Everyone,
                topics: LostTopics::Commands,
                code: &close::PRINCIPAL_DELETED,
                reversal: Reversal::Never,
                followers_wait: false,
            },
            revoke(Revoked::Device, &close::PRINCIPAL_DELETED, Reversal::Never),
            lose(Losers::Everyone, LostTopics::Device, Reversal::Never),
        ],
        summary: "The device's connections are revoked. Other connections lose the device.",
    },
    Transition {
        record_type: RecordType::DeviceMoved,
        name: "device_moved",
        copies: &[CopiedTo::Device, CopiedTo::Home, CopiedTo::OldHome],
        identity: Identity::IdsWithoutHome,
        actions: &[Action::Resubscribe(LostTopics::DeviceInOldHome)],
        summary: "Subscribers of the device in its old home lose it and are asked to resubscribe.",
    },
    Transition {
        record_type: RecordType::HomeDeleted,
        name: "home_deleted",
        copies: &[CopiedTo::EveryShard],
        identity: Identity::Ids,
        actions: &[lose(Losers::Everyone, LostTopics::Home, Reversal::Never)],
        summary: "All connections lose the home.",
    },
    Transition {
        record_type: RecordType::ProjectDisabled,
        name: "project_disabled",
        copies: &[CopiedTo::EveryShard],
        identity: Identity::Ids,
        actions: &[revoke(
            Revoked::Project,
            &close::PROJECT_ENDED,
            Reversal::Possible,
        )],
        summary: "All connections of the project are revoked.",
    },
    Transition {
        record_type: RecordType::ProjectDeleted,
        name: "project_deleted",
        copies: &[CopiedTo::EveryShard],
        identity: Identity::Ids,
        actions: &[revoke(
            Revoked::Project,
            &close::PROJECT_ENDED,
            Reversal::Never,
        )],
        summary: "All connections of the project are revoked.",
    },
    Transition {
        record_type: RecordType::ProjectEnabled,
        name: "project_enabled",
        copies: &[CopiedTo::EveryShard],
        identity: Identity::Ids,
        actions: &[],
        summary: "Nothing: it gives open connections no further access. Caches read the project again.",
    },
    Transition {
        record_type: RecordType::PermissionEnded,
        name: "permission_ended",
        copies: &[CopiedTo::Home, CopiedTo::NamedUsers],
        identity: Identity::IdsAndBody,
        actions: &[lose(
            Losers::NamedUsers,
            LostTopics::Permission,
            Reversal::Possible,
        )],
        summary: "Connections of the named users lose the one topic of this permission.",
    },
    Transition {
        record_type: RecordType::EntityMoved,
        name: "entity_moved",
        copies: &[CopiedTo::Home],
        identity: Identity::IdsAndBody,
        actions: &[Action::Resubscribe(LostTopics::Entity)],
        summary: "Subscribers of the entity in this home lose it and are asked to resubscribe.",
    },
    Transition {
        record_type: RecordType::HomeDeactivated,
        name: "home_deactivated",
        copies: &[CopiedTo::Home],
        identity: Identity::Ids,
        actions: &[Action::Lose {
            losers: Losers::Everyone,
            topics: LostTopics::Home,
            code: &close::ACCESS_ENDED,
            reversal: Reversal::Possible,
            followers_wait: true,
        }],
        summary: "Connections that follow homes wait for the home. Other connections lose it.",
    },
    Transition {
        record_type: RecordType::HomeActivated,
        name: "home_activated",
        copies: &[CopiedTo::Home],
        identity: Identity::Ids,
        actions: &[Action::Resume],
        summary: "Connections that wait for the home subscribe to it.",
    },
    Transition {
        record_type: RecordType::MemberWaits,
        name: "member_waits",
        copies: &[CopiedTo::Home, CopiedTo::User],
        identity: Identity::Ids,
        actions: &[Action::Join(HomeState::Deactivated)],
        summary: "The user's connections that follow homes wait for the home, which is deactivated.",
    },
];

const fn lose(losers: Losers, topics: LostTopics, reversal: Reversal) -> Action {
    Action::Lose {
        losers,
        topics,
        code: &close::ACCESS_ENDED,
        reversal,
        followers_wait: false,
    }
}

const fn revoke(whose: Revoked, code: &'static CloseCode, reversal: Reversal) -> Action {
    Action::Revoke {
        whose,
        code,
        reversal,
    }
}

impl Transition {
    /// The row of a record type; `None` for a type of a later version.
    pub fn of(number: u64) -> Option<&'static Self> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        TABLE.get(place)
    }

    /// The codes that a copy can close a connection with, in ascending order.
    pub fn codes(&self) -> Vec<u16> {
        let mut codes: Vec<u16> =
            self.actions
                .iter()
                .flat_map(|action| {
                    let (code, reversal) = match *action {
                        Action::Join(_) | Action::Resume => return [None, None],
                        Action::Resubscribe(_) => (&close::RESUBSCRIBE, Reversal::Never),
                        Action::Lose { code, reversal, .. }
                        | Action::Revoke { code, reversal, .. } => (code, reversal),
                    };
                    let again = (reversal == Reversal::Possible).then_some(close::RESUBSCRIBE.code);
                    [Some(code.code), again]
                })
                .flatten()
                .collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

/// The shards that get a copy of a record, ascending. `user_homes` are the homes that its user may receive;
/// `None`: not listed. A type of a later version goes to every shard: during an upgrade any node may relay
/// what another one wrote. Returns `None` for a malformed body.
pub fn concerned_shards(
    record: &ControlHeader<'_>,
    user_homes: Option<&[u64]>,
    project_key: u64,
    shards: u32,
) -> Option<Vec<u32>> {
    let everywhere = || Some((0..shards).collect());
    let Some(transition) = Transition::of(record.record_type) else {
        return everywhere();
    };
    let mut ids = Vec::new();
    for copied_to in transition.copies {
        match copied_to {
            CopiedTo::User => ids.push(record.user),
            CopiedTo::Home => ids.push(record.home),
            CopiedTo::Device => ids.push(record.device),
            CopiedTo::ProjectKey => ids.push(project_key),
            CopiedTo::OldHome => ids.push(old_home(record)?),
            CopiedTo::NamedUsers => ids.extend(EndedPermission::read(record.body)?.users),
            CopiedTo::UserHomes => match user_homes {
                Some(homes) => ids.extend(homes),
                None => return everywhere(),
            },
            CopiedTo::EveryShard => return everywhere(),
        }
    }
    let mut concerned: Vec<u32> = ids
        .into_iter()
        .filter(|&id| id != 0)
        .map(|id| shard_of(id, shards))
        .collect();
    concerned.sort_unstable();
    concerned.dedup();
    Some(concerned)
}
