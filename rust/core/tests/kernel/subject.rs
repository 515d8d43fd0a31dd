//! A connection of the property, and what it may receive in one state of the store.

use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::routing::subscription::{Follows, SubscribedTopic, Subscription};

use crate::truth::{COUNT, PROJECT, Truth, device_key_tag, number, user_key_tag};

/// What a connection asked for, with places of homes and devices.
#[derive(Clone, Debug)]
pub enum Asked {
    /// All homes of the user, as they change.
    AllHomes,
    Homes(Vec<usize>),
    /// A device in the home where it was.
    Device(usize, usize),
    /// The commands to the device itself.
    Commands,
}

/// An event of a home, maybe of a device in it; or a command to a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sent {
    Event { home: usize, device: Option<usize> },
    Command { device: usize },
}

/// Principal, key and request of a connection. `owner` is the place of its user or device.
#[derive(Clone, Debug)]
pub struct Subject {
    pub owner: usize,
    pub key: usize,
    pub asked: Asked,
}

impl Subject {
    pub fn principal(&self) -> Principal {
        let (kind, key_tag) = match self.asked {
            Asked::Commands => (PrincipalKind::Device, device_key_tag(self.owner, self.key)),
            _ => (PrincipalKind::User, user_key_tag(self.owner, self.key)),
        };
        Principal {
            kind,
            project: PROJECT,
            id: number(self.owner),
            key_tag,
        }
    }

    pub fn is_following(&self) -> bool {
        matches!(self.asked, Asked::AllHomes)
    }

    /// The subscription that the handshake finds; `None` if it is refused.
    pub fn authorise(&self, truth: &Truth) -> Option<Subscription> {
        if !self.is_alive(truth) {
            return None;
        }
        let topics = match &self.asked {
            Asked::AllHomes => {
                let belongs = |&home: &usize| truth.belongs(self.owner, home);
                let (waiting, active): (Vec<_>, Vec<_>) = (0..COUNT)
                    .filter(belongs)
                    .partition(|&home| truth.is_deactivated[home]);
                return Some(Subscription {
                    follows: Some(Follows::Homes),
                    deactivated_homes: waiting.into_iter().map(number).collect(),
                    ..Subscription::of(active.into_iter().map(home_topic).collect())
                });
            }
            Asked::Homes(homes) => {
                if !homes.iter().all(|&it| truth.receives_home(self.owner, it)) {
                    return None;
                }
                homes.iter().copied().map(home_topic).collect()
            }
            &Asked::Device(device, home) => {
                if !self.has_device(truth, device, home) {
                    return None;
                }
                vec![SubscribedTopic::Device {
                    device: number(device),
                    home: number(home),
                }]
            }
            Asked::Commands => vec![SubscribedTopic::Command {
                device: number(self.owner),
            }],
        };
        Some(Subscription::of(topics))
    }

    /// Whether its key is valid.
    pub fn is_alive(&self, truth: &Truth) -> bool {
        match self.asked {
            Asked::Commands => truth.is_device_alive(self.owner, self.key),
            _ => truth.is_user_alive(self.owner, self.key),
        }
    }

    /// Whether it may receive this in this state of the store.
    pub fn may_receive(&self, truth: &Truth, sent: Sent) -> bool {
        self.is_alive(truth) && self.matches(truth, sent)
    }

    /// The same, whatever became of its key.
    pub fn matches(&self, truth: &Truth, sent: Sent) -> bool {
        match (&self.asked, sent) {
            (Asked::AllHomes, Sent::Event { home, .. }) => truth.receives_home(self.owner, home),
            (Asked::Homes(homes), Sent::Event { home, .. }) => {
                homes.contains(&home) && truth.receives_home(self.owner, home)
            }
            (&Asked::Device(device, place), Sent::Event { home, device: of }) => {
                home == place && of == Some(device) && self.has_device(truth, device, home)
            }
            (Asked::Commands, Sent::Command { device }) => device == self.owner,
            _ => false,
        }
    }

    /// Whether anything of what it asked for is left.
    pub fn has_access(&self, truth: &Truth) -> bool {
        let anywhere = (0..COUNT).any(|home| match self.asked {
            Asked::Device(device, place) => self.may_receive(
                truth,
                Sent::Event {
                    home: place,
                    device: Some(device),
                },
            ),
            _ => self.may_receive(truth, Sent::Event { home, device: None }),
        });
        match self.asked {
            Asked::AllHomes | Asked::Commands => self.is_alive(truth),
            Asked::Homes(_) | Asked::Device(..) => anywhere,
        }
    }

    fn has_device(&self, truth: &Truth, device: usize, home: usize) -> bool {
        truth.device_home[device] == home
            && !truth.is_device_deleted[device]
            && truth.receives_home(self.owner, home)
    }
}

fn home_topic(home: usize) -> SubscribedTopic {
    SubscribedTopic::Home { home: number(home) }
}
