//! The index: topics → audiences → connections.
//!
//! An *audience* is an immutable, interned set of topics with an encoding. Connections with the same set
//! share one audience. An event is matched to audiences first and to connections second: the cost of a
//! match depends on the number of matches, not on the number of subscribers.
//!
//! Every pair of a topic and an audience is stored on both sides, each with its place on the other side. So
//! the removal of an audience takes time proportional to the number of its own topics, however many
//! audiences share them.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::routing::topic::{Topic, TopicRef};
use crate::wire::encoding::Encoding;

/// Number of an audience. It is reused after the last connection left.
pub type AudienceId = u32;
/// Number of a connection's slot in the reactor.
pub type Slot = u32;

/// One end of a topic–audience pair: the record on the other side, and this link's place in its list.
#[derive(Clone, Copy, Debug)]
struct Link {
    target: u32,
    place: u32,
}

#[derive(Debug)]
struct TopicRecord {
    topic: Topic,
    audiences: SmallVec<[Link; 2]>,
}

#[derive(Debug)]
struct Audience {
    topics: SmallVec<[Link; 2]>,
    connections: SmallVec<[Slot; 4]>,
    encoding: Encoding,
    /// Number of the last match that found this audience. An event that matches it by two topics is
    /// delivered once.
    last_match: u32,
}

/// Audience and place of a connection after [`Index::change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub audience: AudienceId,
    pub place: u32,
    /// The connection that moved to the vacated place in the old audience; its owner must store the new
    /// place.
    pub moved: Option<Slot>,
}

/// Topics, audiences and their members. Owned by the reactor thread alone.
#[derive(Debug, Default)]
pub struct Index {
    topics: Vec<Option<TopicRecord>>,
    free_topics: Vec<u32>,
    topic_table: HashTable<u32>,
    audiences: Vec<Option<Audience>>,
    free_audiences: Vec<u32>,
    audience_table: HashTable<u32>,
    hasher: RandomState,
    last_match: u32,
}

impl Index {
    /// Puts a connection into the audience of exactly these topics and this encoding.
    ///
    /// Returns the audience and the connection's place among its members; [`Index::leave`] needs both. The
    /// caller must have sealed the open block of the audience.
    pub fn join(
        &mut self,
        slot: Slot,
        topics: &[TopicRef<'_>],
        encoding: Encoding,
    ) -> (AudienceId, u32) {
        let mut ids: SmallVec<[u32; 8]> = topics.iter().map(|topic| self.intern(*topic)).collect();
        ids.sort_unstable();
        ids.dedup();
        self.join_interned(slot, &ids, encoding)
    }

    /// Moves a connection to another audience. Its topics are those of the old audience for which `keep` is
    /// true, and `more`. Returns `None` if that is the same set.
    ///
    /// The caller must have sealed the open block of the old audience.
    pub fn change(
        &mut self,
        slot: Slot,
        audience_id: AudienceId,
        place: u32,
        keep: impl Fn(&Topic) -> bool,
        more: &[TopicRef<'_>],
    ) -> Option<Change> {
        let audience = self.audience(audience_id)?;
        let encoding = audience.encoding;
        let before: SmallVec<[u32; 8]> = audience.topics.iter().map(|link| link.target).collect();
        let mut ids: SmallVec<[u32; 8]> = before
            .iter()
            .copied()
            .filter(|&id| {
                self.topics[id as usize]
                    .as_ref()
                    .is_some_and(|record| keep(&record.topic))
            })
            .collect();
        ids.extend(more.iter().map(|topic| self.intern(*topic)));
        ids.sort_unstable();
        ids.dedup();
        if ids == before {
            return None;
        }
        // Join first: topics that both sets contain never lose their last audience, and are not freed.
        let (audience, new_place) = self.join_interned(slot, &ids, encoding);
        Some(Change {
            audience,
            place: new_place,
            moved: self.leave(audience_id, place),
        })
    }

    /// The audiences with a topic for which `wanted` is true, each once. Scans all topics.
    pub fn audiences_of(&mut self, wanted: impl Fn(&Topic) -> bool) -> Vec<AudienceId> {
        self.begin_match();
        let mut found = Vec::new();
        for record in self.topics.iter().flatten() {
            if !wanted(&record.topic) {
                continue;
            }
            for link in &record.audiences {
                if let Some(audience) = self.audiences[link.target as usize].as_mut()
                    && audience.last_match != self.last_match
                {
                    audience.last_match = self.last_match;
                    found.push(link.target);
                }
            }
        }
        found
    }

    /// Removes a connection from its audience. The last connection removes the audience.
    ///
    /// Returns the slot of the member that moved to `place`, if one did: its owner must store the new
    /// place.
    pub fn leave(&mut self, audience_id: AudienceId, place: u32) -> Option<Slot> {
        let audience = self.audiences.get_mut(audience_id as usize)?.as_mut()?;
        if place as usize >= audience.connections.len() {
            return None;
        }
        audience.connections.swap_remove(place as usize);
        let moved = audience.connections.get(place as usize).copied();
        if audience.connections.is_empty() {
            self.remove_audience(audience_id);
        }
        moved
    }

    /// Appends the audiences with any of `topics` to `matched`, each once.
    pub fn find(&mut self, topics: &[TopicRef<'_>], matched: &mut Vec<AudienceId>) {
        self.begin_match();
        for topic in topics {
            let hash = self.hasher.hash_one(topic);
            let records = &self.topics;
            let Some(&id) = self
                .topic_table
                .find(hash, |&id| is_topic(records, id, *topic))
            else {
                continue;
            };
            let Some(record) = self.topics[id as usize].as_ref() else {
                continue;
            };
            for link in &record.audiences {
                if let Some(audience) = self.audiences[link.target as usize].as_mut()
                    && audience.last_match != self.last_match
                {
                    audience.last_match = self.last_match;
                    matched.push(link.target);
                }
            }
        }
    }

    /// The connections of an audience.
    pub fn members(&self, audience_id: AudienceId) -> &[Slot] {
        self.audience(audience_id)
            .map_or(&[], |audience| &audience.connections)
    }

    /// The encoding of an audience.
    pub fn encoding(&self, audience_id: AudienceId) -> Encoding {
        self.audience(audience_id)
            .map_or(Encoding::WEB_SOCKET, |audience| audience.encoding)
    }

    /// The topics of an audience.
    pub fn topics(&self, audience_id: AudienceId) -> impl Iterator<Item = &Topic> {
        self.audience(audience_id)
            .into_iter()
            .flat_map(|audience| &audience.topics)
            .filter_map(|link| self.topics[link.target as usize].as_ref())
            .map(|record| &record.topic)
    }

    /// The approximate memory of an audience's topics, as if no other audience shared them.
    pub fn topic_bytes(&self, audience: AudienceId) -> usize {
        self.topics(audience).map(Topic::bytes).sum()
    }

    /// The number of audiences.
    pub fn audience_count(&self) -> usize {
        self.audience_table.len()
    }

    /// The number of topics with at least one subscriber.
    pub fn topic_count(&self) -> usize {
        self.topic_table.len()
    }

    /// Starts a match. The counter wraps after 2³² matches; old numbers would then look current and hide an
    /// audience, so they are reset.
    fn begin_match(&mut self) {
        self.last_match = self.last_match.wrapping_add(1);
        if self.last_match == 0 {
            for audience in self.audiences.iter_mut().flatten() {
                audience.last_match = 0;
            }
            self.last_match = 1;
        }
    }

    fn audience(&self, audience_id: AudienceId) -> Option<&Audience> {
        self.audiences.get(audience_id as usize)?.as_ref()
    }

    /// `topics` must be sorted and unique.
    fn join_interned(
        &mut self,
        slot: Slot,
        topics: &[u32],
        encoding: Encoding,
    ) -> (AudienceId, u32) {
        let hash = self.hash_audience(topics, encoding);
        let audience_id = match self.find_audience(hash, topics, encoding) {
            Some(found) => found,
            None => self.add_audience(hash, topics, encoding),
        };
        let Some(audience) = self.audiences[audience_id as usize].as_mut() else {
            return (audience_id, 0);
        };
        audience.connections.push(slot);
        (audience_id, audience.connections.len() as u32 - 1)
    }

    fn intern(&mut self, topic: TopicRef<'_>) -> u32 {
        let hash = self.hasher.hash_one(topic);
        let records = &self.topics;
        if let Some(&id) = self
            .topic_table
            .find(hash, |&id| is_topic(records, id, topic))
        {
            return id;
        }
        let record = TopicRecord {
            topic: topic.into(),
            audiences: SmallVec::new(),
        };
        let id = insert(&mut self.topics, &mut self.free_topics, record);
        let (records, hasher) = (&self.topics, &self.hasher);
        self.topic_table
            .insert_unique(hash, id, |&id| hash_topic(records, hasher, id));
        id
    }

    fn hash_audience(&self, topics: &[u32], encoding: Encoding) -> u64 {
        self.hasher.hash_one((topics, encoding))
    }

    fn find_audience(&self, hash: u64, topics: &[u32], encoding: Encoding) -> Option<AudienceId> {
        self.audience_table
            .find(hash, |&id| {
                self.audience(id).is_some_and(|audience| {
                    audience.encoding == encoding
                        && audience.topics.len() == topics.len()
                        && audience
                            .topics
                            .iter()
                            .zip(topics)
                            .all(|(link, topic)| link.target == *topic)
                })
            })
            .copied()
    }

    fn add_audience(&mut self, hash: u64, topics: &[u32], encoding: Encoding) -> AudienceId {
        let audience = Audience {
            topics: SmallVec::with_capacity(topics.len()),
            connections: SmallVec::new(),
            encoding,
            last_match: self.last_match,
        };
        let audience_id = insert(&mut self.audiences, &mut self.free_audiences, audience);
        for (place, &topic) in topics.iter().enumerate() {
            let (Some(record), Some(audience)) = (
                self.topics[topic as usize].as_mut(),
                self.audiences[audience_id as usize].as_mut(),
            ) else {
                continue;
            };
            audience.topics.push(Link {
                target: topic,
                place: record.audiences.len() as u32,
            });
            record.audiences.push(Link {
                target: audience_id,
                place: place as u32,
            });
        }
        let (audiences, hasher) = (&self.audiences, &self.hasher);
        self.audience_table.insert_unique(hash, audience_id, |&id| {
            rehash_audience(audiences, hasher, id)
        });
        audience_id
    }

    fn remove_audience(&mut self, audience_id: AudienceId) {
        let hash = rehash_audience(&self.audiences, &self.hasher, audience_id);
        if let Ok(entry) = self
            .audience_table
            .find_entry(hash, |&id| id == audience_id)
        {
            entry.remove();
        }
        let Some(audience) = self.audiences[audience_id as usize].take() else {
            return;
        };
        self.free_audiences.push(audience_id);
        for link in audience.topics {
            self.unlink(link);
        }
    }

    /// Removes one audience from a topic's list, and updates the link of the audience that took its place.
    fn unlink(&mut self, link: Link) {
        let Some(record) = self.topics[link.target as usize].as_mut() else {
            return;
        };
        record.audiences.swap_remove(link.place as usize);
        if let Some(moved) = record.audiences.get(link.place as usize)
            && let Some(audience) = self.audiences[moved.target as usize].as_mut()
        {
            audience.topics[moved.place as usize].place = link.place;
        }
        if record.audiences.is_empty() {
            let hash = hash_topic(&self.topics, &self.hasher, link.target);
            if let Ok(entry) = self.topic_table.find_entry(hash, |&id| id == link.target) {
                entry.remove();
            }
            self.topics[link.target as usize] = None;
            self.free_topics.push(link.target);
        }
    }
}

fn insert<T>(records: &mut Vec<Option<T>>, free: &mut Vec<u32>, record: T) -> u32 {
    if let Some(id) = free.pop() {
        records[id as usize] = Some(record);
        return id;
    }
    records.push(Some(record));
    records.len() as u32 - 1
}

fn is_topic(records: &[Option<TopicRecord>], id: u32, topic: TopicRef<'_>) -> bool {
    records[id as usize]
        .as_ref()
        .is_some_and(|record| record.topic.as_ref() == topic)
}

fn hash_topic(records: &[Option<TopicRecord>], hasher: &RandomState, id: u32) -> u64 {
    records[id as usize]
        .as_ref()
        .map_or(0, |record| hasher.hash_one(record.topic.as_ref()))
}

fn rehash_audience(audiences: &[Option<Audience>], hasher: &RandomState, id: AudienceId) -> u64 {
    audiences[id as usize].as_ref().map_or(0, |audience| {
        let topics: SmallVec<[u32; 8]> = audience.topics.iter().map(|link| link.target).collect();
        hasher.hash_one((&topics[..], audience.encoding))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audience_is_found_after_match_counter_wraps() {
        const HOME: TopicRef<'static> = TopicRef::Home {
            project: 1,
            home: 2,
        };
        let mut index = Index::default();
        let (audience, _) = index.join(3, &[HOME], Encoding::WEB_SOCKET);
        // The audience has the first match number; the next match would get the same number after the wrap.
        index.last_match = u32::MAX;
        for _ in 0..3 {
            let mut matched = Vec::new();
            index.find(&[HOME, HOME], &mut matched);
            assert_eq!(matched, [audience]);
        }
    }
}
