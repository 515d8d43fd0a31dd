//! The bodies of control records. A body that cannot be read is reported as malformed.

use serde::Deserialize;

use crate::bus::envelope::ControlHeader;
use crate::routing::topic::TopicRef;

/// The home that a moved device left; 0: none.
pub fn old_home(record: &ControlHeader<'_>) -> Option<u64> {
    let digits = str::from_utf8(record.body).ok()?;
    let is_number = digits.bytes().all(|it| it.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// The id of a moved entity.
pub fn moved_entity<'a>(record: &ControlHeader<'a>) -> Option<&'a str> {
    str::from_utf8(record.body).ok().filter(|it| !it.is_empty())
}

/// Whether this key of a new member ended before the user joined the home. The copies of that end are in
/// the shards of that moment and in the user's shard, and may be read after this record. Events of the
/// joined home must not be delivered meanwhile.
pub fn names_ended_key(record: &ControlHeader<'_>, key_tag: u64) -> bool {
    record
        .body
        .chunks_exact(2 * size_of::<u64>())
        .any(|digits| hexadecimal(digits) == Some(key_tag))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// A permission that users have lost.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct EndedPermission {
    /// The entity that was readable; without one, the record's device, or its home.
    #[serde(default)]
    entity: Option<String>,
    /// The users who had it.
    pub users: Vec<u64>,
}

impl EndedPermission {
    /// Parses the body of a record; `None` if it is malformed.
    pub fn read(body: &[u8]) -> Option<Self> {
        let ended: Self = serde_json::from_slice(body).ok()?;
        let names_users = !ended.users.is_empty() && !ended.users.contains(&0);
        names_users.then_some(ended)
    }

    /// The topic that the permission gave access to; `None` for a permission to write, or without a home.
    pub fn topic(&self, record: &ControlHeader<'_>) -> Option<TopicRef<'_>> {
        let (project, home, device) = (record.project, record.home, record.device);
        if home == 0 {
            return None;
        }
        Some(match self.entity.as_deref() {
            Some(entity) => TopicRef::Entity {
                project,
                home,
                entity,
            },
            None if device != 0 => TopicRef::Device {
                project,
                home,
                device,
            },
            None => TopicRef::Home { project, home },
        })
    }
}
