//! The connections of each user and device, so that a control record finds them.
//!
//! Most users have one connection, so the table stores no keys. The entry of a principal is the slot of its
//! latest connection; the other connections form a linked list from there. This takes about 13 bytes for
//! each connection.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::connection::PrincipalId;
use crate::routing::index::Slot;

const NONE: Slot = Slot::MAX;

/// The neighbours of a slot in the list of its principal.
#[derive(Clone, Copy, Debug)]
struct Neighbours {
    previous: Slot,
    next: Slot,
}

/// Principal → slots. The callback must return the same principal for a slot from `add` until after
/// `remove`.
#[derive(Debug, Default)]
pub struct SlotsByPrincipal {
    latest: HashTable<Slot>,
    neighbours: Vec<Neighbours>,
    hasher: RandomState,
}

impl SlotsByPrincipal {
    /// Puts a slot at the front of its principal's list.
    pub fn add(
        &mut self,
        slot: Slot,
        principal_id: PrincipalId,
        principal_of: impl Fn(Slot) -> Option<PrincipalId>,
    ) {
        if self.neighbours.len() <= slot as usize {
            let alone = Neighbours {
                previous: NONE,
                next: NONE,
            };
            self.neighbours.resize(slot as usize + 1, alone);
        }
        let hash = self.hasher.hash_one(principal_id);
        let mut next = NONE;
        match self
            .latest
            .find_mut(hash, |&latest| principal_of(latest) == Some(principal_id))
        {
            Some(latest) => next = std::mem::replace(latest, slot),
            None => {
                let hasher = &self.hasher;
                self.latest.insert_unique(hash, slot, |&latest| {
                    principal_of(latest).map_or(0, |principal_id| hasher.hash_one(principal_id))
                });
            }
        }
        if let Some(second) = self.neighbours.get_mut(next as usize) {
            second.previous = slot;
        }
        self.neighbours[slot as usize] = Neighbours {
            previous: NONE,
            next,
        };
    }

    /// Removes a slot from its principal's list.
    pub fn remove(
        &mut self,
        slot: Slot,
        principal_id: PrincipalId,
        principal_of: impl Fn(Slot) -> Option<PrincipalId>,
    ) {
        let Some(&Neighbours { previous, next }) = self.neighbours.get(slot as usize) else {
            return;
        };
        if let Some(after) = self.neighbours.get_mut(next as usize) {
            after.previous = previous;
        }
        if let Some(before) = self.neighbours.get_mut(previous as usize) {
            before.next = next;
            return;
        }
        let hash = self.hasher.hash_one(principal_id);
        let found = self
            .latest
            .find_entry(hash, |&latest| principal_of(latest) == Some(principal_id));
        if let Ok(mut entry) = found {
            if next == NONE {
                entry.remove();
            } else {
                *entry.get_mut() = next;
            }
        }
    }

    /// The slots of a principal, the latest first.
    pub fn slots_of(
        &self,
        principal_id: PrincipalId,
        principal_of: impl Fn(Slot) -> Option<PrincipalId>,
    ) -> impl Iterator<Item = Slot> {
        let latest = self
            .latest
            .find(self.hasher.hash_one(principal_id), |&latest| {
                principal_of(latest) == Some(principal_id)
            })
            .copied();
        std::iter::successors(latest, |&slot| {
            let next = self.neighbours.get(slot as usize)?.next;
            (next != NONE).then_some(next)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::connection::PrincipalKind;

    fn principal_id(number: u8) -> PrincipalId {
        PrincipalId {
            kind: if number.is_multiple_of(2) {
                PrincipalKind::User
            } else {
                PrincipalKind::Device
            },
            project: u64::from(number / 2 % 2),
            id: u64::from(number / 4),
        }
    }

    proptest! {
        /// Slots are added and removed in any order, under any principal; the naive model is a map.
        #[test]
        fn principal_has_exactly_its_slots(
            steps in proptest::collection::vec((0u32..40, 0u8..12), 1..300)
        ) {
            let mut principals = SlotsByPrincipal::default();
            let mut model: BTreeMap<Slot, PrincipalId> = BTreeMap::new();
            for (slot, number) in steps {
                if let Some(&principal_id) = model.get(&slot) {
                    principals.remove(slot, principal_id, |it| model.get(&it).copied());
                    model.remove(&slot);
                } else {
                    model.insert(slot, principal_id(number));
                    principals.add(slot, principal_id(number), |it| model.get(&it).copied());
                }
                for number in 0..12 {
                    let wanted = principal_id(number);
                    let mut found: Vec<_> =
                        principals.slots_of(wanted, |it| model.get(&it).copied()).collect();
                    found.sort_unstable();
                    let expected: Vec<_> = model
                        .iter()
                        .filter(|(_, principal_id)| **principal_id == wanted)
                        .map(|(slot, _)| *slot)
                        .collect();
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert!(model.is_empty() || !principals.latest.is_empty());
            for (slot, principal_id) in model.clone() {
                principals.remove(slot, principal_id, |it| model.get(&it).copied());
                model.remove(&slot);
            }
            prop_assert!(principals.latest.is_empty());
        }
    }
}
