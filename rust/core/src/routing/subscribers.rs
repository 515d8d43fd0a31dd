//! The subscribers of the router, by slot and by principal.

use smallvec::SmallVec;

use crate::connection::ids::ConnectionId;
use crate::connection::{Principal, PrincipalId};
use crate::routing::access::Access;
use crate::routing::by_principal::SlotsByPrincipal;
use crate::routing::index::{AudienceId, Slot};
use crate::routing::record_dedup::OutboxPosition;
use crate::routing::subscription::Follows;

/// What routing knows of one connection.
#[derive(Debug)]
pub struct Subscriber {
    pub id: ConnectionId,
    pub principal: Principal,
    pub access: Access,
    pub audience: AudienceId,
    /// Place among the members of `audience`.
    pub place: u32,
    /// What it receives in homes that the user joins.
    pub follows: Option<Follows>,
    /// When it was reserved, in milliseconds since 1970.
    pub reserved_ms: u64,
    /// Homes that the user joined since the reservation, with the outbox positions of those records.
    pub joined_homes: Vec<(u64, OutboxPosition)>,
}

/// The table of subscribers. A lookup by id returns nothing once the slot has a newer connection.
#[derive(Debug, Default)]
pub struct Subscribers {
    slots: Vec<Option<Box<Subscriber>>>,
    by_principal: SlotsByPrincipal,
}

impl Subscribers {
    /// Puts a subscriber into the slot of its id.
    pub fn insert(&mut self, subscriber: Subscriber) {
        let slot = subscriber.id.slot();
        let principal_id = subscriber.principal.identity();
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, || None);
        }
        self.slots[slot as usize] = Some(Box::new(subscriber));
        self.by_principal
            .add(slot, principal_id, |slot| principal_of(&self.slots, slot));
    }

    /// The subscriber with exactly this id.
    pub fn get(&self, id: ConnectionId) -> Option<&Subscriber> {
        self.at(id.slot()).filter(|it| it.id == id)
    }

    /// The current subscriber in a slot.
    pub fn at(&self, slot: Slot) -> Option<&Subscriber> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// The current subscriber in a slot, to be changed.
    pub fn at_mut(&mut self, slot: Slot) -> Option<&mut Subscriber> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The current subscriber in a slot, to be changed, unless it left its audience.
    pub fn subscribed(&mut self, slot: Slot) -> Option<&mut Subscriber> {
        self.at_mut(slot).filter(|it| it.access.is_subscribed())
    }

    /// Removes the subscriber with exactly this id.
    pub fn remove(&mut self, id: ConnectionId) {
        let Some(principal_id) = self.get(id).map(|it| it.principal.identity()) else {
            return;
        };
        self.by_principal.remove(id.slot(), principal_id, |slot| {
            principal_of(&self.slots, slot)
        });
        self.slots[id.slot() as usize] = None;
    }

    /// The slots of the connections of a principal.
    pub fn slots_of(&self, principal_id: PrincipalId) -> SmallVec<[Slot; 4]> {
        self.by_principal
            .slots_of(principal_id, |slot| principal_of(&self.slots, slot))
            .collect()
    }

    /// The slots of the connections for which `wanted` is true. Scans all connections.
    pub fn slots_where(&self, wanted: impl Fn(&Subscriber) -> bool) -> Vec<Slot> {
        self.slots
            .iter()
            .flatten()
            .filter(|subscriber| wanted(subscriber))
            .map(|subscriber| subscriber.id.slot())
            .collect()
    }
}

fn principal_of(slots: &[Option<Box<Subscriber>>], slot: Slot) -> Option<PrincipalId> {
    let subscriber = slots.get(slot as usize)?.as_deref()?;
    Some(subscriber.principal.identity())
}
