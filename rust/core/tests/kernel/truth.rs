//! What the store says: who may receive what, and the changes of that.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::routing::transitions::RecordType;

/// Homes, users and devices are numbered from 1. Each number is in a shard of its own.
pub const COUNT: usize = 3;
pub const SHARDS: u32 = 4;
pub const PROJECT: u64 = 1;
/// The keys of each user and device.
pub const KEYS: usize = 2;

/// One state of the store. Places in the arrays are numbers less one.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub is_member: [[bool; COUNT]; COUNT],
    pub is_deactivated: [bool; COUNT],
    pub is_home_deleted: [bool; COUNT],
    pub is_user_deleted: [bool; COUNT],
    pub is_user_key_ended: [[bool; KEYS]; COUNT],
    pub device_home: [usize; COUNT],
    pub is_device_deleted: [bool; COUNT],
    pub is_device_key_ended: [[bool; KEYS]; COUNT],
    pub is_disabled: bool,
}

/// Changes, with places of users, homes, devices and keys.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Join(usize, usize),
    Leave(usize, usize),
    DeleteUser(usize),
    EndUserKey(usize, usize),
    EndDeviceKey(usize, usize),
    DeleteDevice(usize),
    Move(usize, usize),
    DeleteHome(usize),
    Deactivate(usize),
    Activate(usize),
    Disable,
    Enable,
}

/// A record with what decides on its shards.
pub struct Announced {
    pub header: ControlHeader<'static>,
    pub body: Vec<u8>,
    pub user_homes: Vec<u64>,
}

pub fn number(place: usize) -> u64 {
    place as u64 + 1
}

pub fn user_key_tag(user: usize, key: usize) -> u64 {
    100 + 10 * number(user) + key as u64
}

pub fn device_key_tag(device: usize, key: usize) -> u64 {
    200 + 10 * number(device) + key as u64
}

impl Truth {
    pub fn is_user_alive(&self, user: usize, key: usize) -> bool {
        !self.is_disabled && !self.is_user_deleted[user] && !self.is_user_key_ended[user][key]
    }

    pub fn is_device_alive(&self, device: usize, key: usize) -> bool {
        !self.is_disabled
            && !self.is_device_deleted[device]
            && !self.is_device_key_ended[device][key]
    }

    /// Whether the user is a member of the home, which need not be active.
    pub fn belongs(&self, user: usize, home: usize) -> bool {
        self.is_member[user][home] && !self.is_home_deleted[home]
    }

    pub fn receives_home(&self, user: usize, home: usize) -> bool {
        self.belongs(user, home) && !self.is_deactivated[home]
    }

    /// Makes the change and returns its record; `None` if it changes nothing.
    pub fn make(&mut self, change: Change) -> Option<Announced> {
        let mut user_homes = Vec::new();
        let mut body = Vec::new();
        let homes_of = |truth: &Self, user| {
            let belongs = |&home: &usize| truth.belongs(user, home);
            (0..COUNT).filter(belongs).map(number).collect::<Vec<_>>()
        };
        let (record_type, user, home, device, key_tag) = match change {
            Change::Join(user, home) => {
                if self.is_member[user][home]
                    || self.is_home_deleted[home]
                    || self.is_user_deleted[user]
                {
                    return None;
                }
                self.is_member[user][home] = true;
                for key in 0..KEYS {
                    if self.is_user_key_ended[user][key] {
                        body.extend(format!("{:016x}", user_key_tag(user, key)).bytes());
                    }
                }
                let record_type = if self.is_deactivated[home] {
                    RecordType::MemberWaits
                } else {
                    RecordType::MemberAdded
                };
                (record_type, number(user), number(home), 0, 0)
            }
            Change::Leave(user, home) => {
                if !self.belongs(user, home) {
                    return None;
                }
                self.is_member[user][home] = false;
                let ids = (number(user), number(home));
                (RecordType::MemberRemoved, ids.0, ids.1, 0, 0)
            }
            Change::DeleteUser(user) => {
                user_homes = homes_of(self, user);
                turn_on(&mut self.is_user_deleted[user])?;
                self.is_member[user] = [false; COUNT];
                (RecordType::UserDeleted, number(user), 0, 0, 0)
            }
            Change::EndUserKey(user, key) => {
                user_homes = homes_of(self, user);
                turn_on(&mut self.is_user_key_ended[user][key])?;
                let tag = user_key_tag(user, key);
                (RecordType::KeyEnded, number(user), 0, 0, tag)
            }
            Change::EndDeviceKey(device, key) => {
                turn_on(&mut self.is_device_key_ended[device][key])?;
                let tag = device_key_tag(device, key);
                (RecordType::KeyEnded, 0, 0, number(device), tag)
            }
            Change::DeleteDevice(device) => {
                turn_on(&mut self.is_device_deleted[device])?;
                let home = number(self.device_home[device]);
                (RecordType::DeviceDeleted, 0, home, number(device), 0)
            }
            Change::Move(device, home) => {
                let old = std::mem::replace(&mut self.device_home[device], home);
                if old == home || self.is_device_deleted[device] {
                    self.device_home[device] = old;
                    return None;
                }
                body.extend(number(old).to_string().bytes());
                (RecordType::DeviceMoved, 0, number(home), number(device), 0)
            }
            Change::DeleteHome(home) => {
                turn_on(&mut self.is_home_deleted[home])?;
                (RecordType::HomeDeleted, 0, number(home), 0, 0)
            }
            Change::Deactivate(home) => {
                turn_on(&mut self.is_deactivated[home])?;
                (RecordType::HomeDeactivated, 0, number(home), 0, 0)
            }
            Change::Activate(home) => {
                turn_off(&mut self.is_deactivated[home])?;
                (RecordType::HomeActivated, 0, number(home), 0, 0)
            }
            Change::Disable => {
                turn_on(&mut self.is_disabled)?;
                (RecordType::ProjectDisabled, 0, 0, 0, 0)
            }
            Change::Enable => {
                turn_off(&mut self.is_disabled)?;
                (RecordType::ProjectEnabled, 0, 0, 0, 0)
            }
        };
        let header = ControlHeader {
            project: PROJECT,
            record_type: record_type as u64,
            user,
            home,
            device,
            key_tag,
            ..ControlHeader::default()
        };
        Some(Announced {
            header,
            body,
            user_homes,
        })
    }
}

fn turn_on(flag: &mut bool) -> Option<()> {
    (!std::mem::replace(flag, true)).then_some(())
}

fn turn_off(flag: &mut bool) -> Option<()> {
    std::mem::replace(flag, false).then_some(())
}
