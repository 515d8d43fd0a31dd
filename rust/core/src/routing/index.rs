//! The index: topics → scopes → connections.
//!
//! A *scope* is an immutable, interned set of topics with an encoding; connections that ask for
//! the same share one. An event is matched to scopes, and only then to connections, so that the
//! cost of a match grows with what matches and not with how many subscribe.
//!
//! Every pair of a topic and a scope is stored on both sides together with its place on the other
//! side, so that the last leaver of a scope removes it in time proportional to its own topics,
//! however popular they are.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::routing::topic::{Topic, TopicRef};
use crate::wire::encoding::Encoding;

/// Number of a scope; reused after its last connection left.
pub type ScopeId = u32;
/// Number of a connection's slot in the reactor.
pub type Slot = u32;

/// One end of a topic–scope pair: the record on the other side, and our place in its list.
#[derive(Clone, Copy, Debug)]
struct Link {
    target: u32,
    place: u32,
}

#[derive(Debug)]
struct TopicRecord {
    topic: Topic,
    scopes: SmallVec<[Link; 2]>,
}

#[derive(Debug)]
struct Scope {
    topics: SmallVec<[Link; 2]>,
    connections: SmallVec<[Slot; 4]>,
    encoding: Encoding,
    /// The last match that found this scope: an event that reaches it by two topics is delivered once.
    stamp: u32,
}

/// Where a connection stands after [`Index::change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub scope: ScopeId,
    pub place: u32,
    /// Who took its place in the old scope, and must remember that.
    pub moved: Option<Slot>,
}

/// Topics, scopes and their members. Owned by the reactor thread alone.
#[derive(Debug, Default)]
pub struct Index {
    topics: Vec<Option<TopicRecord>>,
    free_topics: Vec<u32>,
    topic_table: HashTable<u32>,
    scopes: Vec<Option<Scope>>,
    free_scopes: Vec<u32>,
    scope_table: HashTable<u32>,
    hasher: RandomState,
    stamp: u32,
}

impl Index {
    /// Puts a connection into the scope of exactly these topics and this encoding.
    ///
    /// Answers the scope and the connection's place among its members, which [`Index::leave`]
    /// wants back. The scope's open block must have been sealed before.
    pub fn join(
        &mut self,
        slot: Slot,
        topics: &[TopicRef<'_>],
        encoding: Encoding,
    ) -> (ScopeId, u32) {
        let mut ids: SmallVec<[u32; 8]> = topics.iter().map(|topic| self.intern(*topic)).collect();
        ids.sort_unstable();
        ids.dedup();
        self.join_interned(slot, &ids, encoding)
    }

    /// Moves a connection to the scope of other topics: those of its own that are to `keep`, and
    /// `more`. `None` when that is what it has already.
    ///
    /// The open block of its scope must have been sealed before.
    pub fn change(
        &mut self,
        slot: Slot,
        scope_id: ScopeId,
        place: u32,
        keep: impl Fn(&Topic) -> bool,
        more: &[TopicRef<'_>],
    ) -> Option<Change> {
        let scope = self.scope(scope_id)?;
        let encoding = scope.encoding;
        let before: SmallVec<[u32; 8]> = scope.topics.iter().map(|link| link.target).collect();
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
        // In this order the topics that it keeps always have a listener, and stay as they are.
        let (scope, new_place) = self.join_interned(slot, &ids, encoding);
        Some(Change {
            scope,
            place: new_place,
            moved: self.leave(scope_id, place),
        })
    }

    /// The scopes that hear a topic which is `wanted`, each once. Looks at every topic there is.
    pub fn scopes_of(&mut self, wanted: impl Fn(&Topic) -> bool) -> Vec<ScopeId> {
        self.next_stamp();
        let mut found = Vec::new();
        for record in self.topics.iter().flatten() {
            if !wanted(&record.topic) {
                continue;
            }
            for link in &record.scopes {
                if let Some(scope) = self.scopes[link.target as usize].as_mut()
                    && scope.stamp != self.stamp
                {
                    scope.stamp = self.stamp;
                    found.push(link.target);
                }
            }
        }
        found
    }

    /// Takes a connection out of its scope; the last one takes the scope along.
    ///
    /// Answers the slot of the member that moved to `place`, if one did: its owner must remember
    /// the new place.
    pub fn leave(&mut self, scope_id: ScopeId, place: u32) -> Option<Slot> {
        let scope = self.scopes.get_mut(scope_id as usize)?.as_mut()?;
        if place as usize >= scope.connections.len() {
            return None;
        }
        scope.connections.swap_remove(place as usize);
        let moved = scope.connections.get(place as usize).copied();
        if scope.connections.is_empty() {
            self.remove_scope(scope_id);
        }
        moved
    }

    /// Appends the scopes that hear any of `topics` to `matched`, each once.
    pub fn find(&mut self, topics: &[TopicRef<'_>], matched: &mut Vec<ScopeId>) {
        self.next_stamp();
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
            for link in &record.scopes {
                if let Some(scope) = self.scopes[link.target as usize].as_mut()
                    && scope.stamp != self.stamp
                {
                    scope.stamp = self.stamp;
                    matched.push(link.target);
                }
            }
        }
    }

    /// The connections of a scope.
    pub fn members(&self, scope_id: ScopeId) -> &[Slot] {
        self.scope(scope_id).map_or(&[], |scope| &scope.connections)
    }

    /// The encoding of a scope.
    pub fn encoding(&self, scope_id: ScopeId) -> Encoding {
        self.scope(scope_id)
            .map_or(Encoding::Plain, |scope| scope.encoding)
    }

    /// The topics of a scope.
    pub fn topics(&self, scope_id: ScopeId) -> impl Iterator<Item = &Topic> {
        self.scope(scope_id)
            .into_iter()
            .flat_map(|scope| &scope.topics)
            .filter_map(|link| self.topics[link.target as usize].as_ref())
            .map(|record| &record.topic)
    }

    /// The memory of a scope's topics, about, as if no other scope had them.
    pub fn topic_bytes(&self, scope: ScopeId) -> usize {
        self.topics(scope).map(Topic::bytes).sum()
    }

    /// How many scopes there are.
    pub fn scope_count(&self) -> usize {
        self.scope_table.len()
    }

    /// How many topics somebody listens to.
    pub fn topic_count(&self) -> usize {
        self.topic_table.len()
    }

    /// Begins a match. After 2³² of them the oldest stamps would pass for new ones, and hide a scope.
    fn next_stamp(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            for scope in self.scopes.iter_mut().flatten() {
                scope.stamp = 0;
            }
            self.stamp = 1;
        }
    }

    fn scope(&self, scope_id: ScopeId) -> Option<&Scope> {
        self.scopes.get(scope_id as usize)?.as_ref()
    }

    /// `topics` are sorted, each once.
    fn join_interned(&mut self, slot: Slot, topics: &[u32], encoding: Encoding) -> (ScopeId, u32) {
        let hash = self.hash_scope(topics, encoding);
        let scope_id = match self.find_scope(hash, topics, encoding) {
            Some(found) => found,
            None => self.add_scope(hash, topics, encoding),
        };
        let Some(scope) = self.scopes[scope_id as usize].as_mut() else {
            return (scope_id, 0);
        };
        scope.connections.push(slot);
        (scope_id, scope.connections.len() as u32 - 1)
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
            scopes: SmallVec::new(),
        };
        let id = insert(&mut self.topics, &mut self.free_topics, record);
        let (records, hasher) = (&self.topics, &self.hasher);
        self.topic_table
            .insert_unique(hash, id, |&id| hash_topic(records, hasher, id));
        id
    }

    fn hash_scope(&self, topics: &[u32], encoding: Encoding) -> u64 {
        self.hasher.hash_one((topics, encoding))
    }

    fn find_scope(&self, hash: u64, topics: &[u32], encoding: Encoding) -> Option<ScopeId> {
        self.scope_table
            .find(hash, |&id| {
                self.scope(id).is_some_and(|scope| {
                    scope.encoding == encoding
                        && scope.topics.len() == topics.len()
                        && scope
                            .topics
                            .iter()
                            .zip(topics)
                            .all(|(link, topic)| link.target == *topic)
                })
            })
            .copied()
    }

    fn add_scope(&mut self, hash: u64, topics: &[u32], encoding: Encoding) -> ScopeId {
        let scope = Scope {
            topics: SmallVec::with_capacity(topics.len()),
            connections: SmallVec::new(),
            encoding,
            stamp: self.stamp,
        };
        let scope_id = insert(&mut self.scopes, &mut self.free_scopes, scope);
        for (place, &topic) in topics.iter().enumerate() {
            let (Some(record), Some(scope)) = (
                self.topics[topic as usize].as_mut(),
                self.scopes[scope_id as usize].as_mut(),
            ) else {
                continue;
            };
            scope.topics.push(Link {
                target: topic,
                place: record.scopes.len() as u32,
            });
            record.scopes.push(Link {
                target: scope_id,
                place: place as u32,
            });
        }
        let (scopes, hasher) = (&self.scopes, &self.hasher);
        self.scope_table
            .insert_unique(hash, scope_id, |&id| rehash_scope(scopes, hasher, id));
        scope_id
    }

    fn remove_scope(&mut self, scope_id: ScopeId) {
        let hash = rehash_scope(&self.scopes, &self.hasher, scope_id);
        if let Ok(entry) = self.scope_table.find_entry(hash, |&id| id == scope_id) {
            entry.remove();
        }
        let Some(scope) = self.scopes[scope_id as usize].take() else {
            return;
        };
        self.free_scopes.push(scope_id);
        for link in scope.topics {
            self.unlink(link);
        }
    }

    /// Removes one scope from a topic's list and tells the scope that took its place.
    fn unlink(&mut self, link: Link) {
        let Some(record) = self.topics[link.target as usize].as_mut() else {
            return;
        };
        record.scopes.swap_remove(link.place as usize);
        if let Some(moved) = record.scopes.get(link.place as usize)
            && let Some(scope) = self.scopes[moved.target as usize].as_mut()
        {
            scope.topics[moved.place as usize].place = link.place;
        }
        if record.scopes.is_empty() {
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

fn rehash_scope(scopes: &[Option<Scope>], hasher: &RandomState, id: ScopeId) -> u64 {
    scopes[id as usize].as_ref().map_or(0, |scope| {
        let topics: SmallVec<[u32; 8]> = scope.topics.iter().map(|link| link.target).collect();
        hasher.hash_one((&topics[..], scope.encoding))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_found_by_every_one_of_more_than_four_billion_matches() {
        const HOME: TopicRef<'static> = TopicRef::Home {
            project: 1,
            home: 2,
        };
        let mut index = Index::default();
        let (scope, _) = index.join(3, &[HOME], Encoding::Plain);
        // Its stamp is the very first, and the next match's would be that again.
        index.stamp = u32::MAX;
        for _ in 0..3 {
            let mut matched = Vec::new();
            index.find(&[HOME, HOME], &mut matched);
            assert_eq!(matched, [scope]);
        }
    }
}
