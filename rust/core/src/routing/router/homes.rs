//! Connections that follow the homes of their user: they subscribe to a home when the user joins it, wait
//! while it is deactivated, and subscribe again when it is activated.

use smallvec::SmallVec;

use super::Router;
use super::actions::{RecordCopy, user_id};
use crate::bus::envelope::ControlHeader;
use crate::routing::access::Access;
use crate::routing::index::Slot;
use crate::routing::record_bodies::names_ended_key;
use crate::routing::subscription::Follows;
use crate::routing::topic::TopicRef;
use crate::routing::transitions::HomeState;

impl Router {
    pub(super) fn join_home(&mut self, state: HomeState, copy: RecordCopy<'_>) {
        let record = copy.record;
        if !self.is_shard_of(copy.shard, record.home) {
            return;
        }
        for slot in self
            .subscribers
            .slots_of(user_id(record.project, record.user))
        {
            self.join(slot, state, record);
        }
    }

    /// The user of the connection joined the home of the record. A connection that follows homes subscribes
    /// to it.
    fn join(&mut self, slot: Slot, state: HomeState, record: &ControlHeader<'_>) {
        let (home, position) = (record.home, record.position());
        let Some(subscriber) = self.subscribers.subscribed(slot) else {
            return;
        };
        let id = subscriber.id;
        let revoked_at = subscriber.access.revoked_at();
        if revoked_at.is_some_and(|it| it <= position)
            || names_ended_key(record, subscriber.principal.key_tag)
        {
            // The topic may exist already: the connection was reserved when the store had this record and
            // the stream reader had not.
            let had_it = self.remove_topics(slot, |topic| topic.home() == Some(home));
            if had_it && revoked_at.is_some() {
                self.after_batch.push(id);
            }
            return;
        }
        if !subscriber.access.may_gain(position) {
            return;
        }
        // Also for connections that name their homes, for the same reason: they must lose this home if
        // their key was revoked earlier.
        if subscriber.access == Access::Active {
            subscriber.joined_homes.retain(|(known, _)| *known != home);
            subscriber.joined_homes.push((home, position));
        }
        if subscriber.follows.is_some() {
            self.subscribe_to_home(slot, state, record);
        }
    }

    pub(super) fn resume(&mut self, RecordCopy { shard, record, .. }: RecordCopy<'_>) {
        let (project, home) = (record.project, record.home);
        if !self.is_shard_of(shard, home) {
            return;
        }
        for slot in self.subscribers_of(TopicRef::DeactivatedHome { project, home }) {
            if self
                .subscribers
                .at(slot)
                .is_some_and(|it| it.access.may_gain(record.position()))
            {
                self.subscribe_to_home(slot, HomeState::Active, record);
            }
        }
    }

    /// Replaces the topics of this home.
    fn subscribe_to_home(&mut self, slot: Slot, state: HomeState, record: &ControlHeader<'_>) {
        let (project, home) = (record.project, record.home);
        let Some(subscriber) = self.subscribers.at_mut(slot) else {
            return;
        };
        let follows = subscriber.follows.take();
        let more: SmallVec<[TopicRef<'_>; 4]> = match (state, &follows) {
            (HomeState::Deactivated, _) => {
                SmallVec::from_iter([TopicRef::DeactivatedHome { project, home }])
            }
            (HomeState::Active, None | Some(Follows::Homes)) => {
                SmallVec::from_iter([TopicRef::Home { project, home }])
            }
            (HomeState::Active, Some(Follows::Entities(entities))) => entities
                .0
                .iter()
                .map(|entity| TopicRef::Entity {
                    project,
                    home,
                    entity,
                })
                .collect(),
        };
        self.change_topics(slot, |topic| topic.home() != Some(home), &more);
        drop(more);
        if let Some(subscriber) = self.subscribers.at_mut(slot) {
            subscriber.follows = follows;
        }
    }

    pub(super) fn wait_for_home(&mut self, slot: Slot, RecordCopy { record, .. }: RecordCopy<'_>) {
        let (project, home) = (record.project, record.home);
        let waiting = TopicRef::DeactivatedHome { project, home };
        self.change_topics(slot, |topic| topic.home() != Some(home), &[waiting]);
    }
}
