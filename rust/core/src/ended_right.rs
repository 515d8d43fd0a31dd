//! The body of a record that a permission ended.

use serde::Deserialize;

use crate::envelope::ControlHeader;
use crate::topic::TopicRef;

/// A right that some users have no more.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct EndedRight {
    /// The entity whose events might be read; otherwise it is the record's device, or its home.
    #[serde(default)]
    entity: Option<String>,
    /// Who had it.
    pub users: Vec<u64>,
}

impl EndedRight {
    /// What a record's body says; `None` if it is no such body.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The one topic that was heard by this right; `None` if it was one to write, or about what is in no home.
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
