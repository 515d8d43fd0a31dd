//! All connections of the reactor, by slot and by principal.

use smallvec::SmallVec;

use crate::connection::by_principal::SlotsByPrincipal;
use crate::connection::ids::ConnectionId;
use crate::connection::{Connection, PrincipalId};
use crate::routing::index::Slot;

/// The table of connections. A lookup by id returns nothing once the slot has a newer connection.
#[derive(Default)]
pub struct ConnectionTable {
    slots: Vec<Option<Box<Connection>>>,
    by_principal: SlotsByPrincipal,
}

impl ConnectionTable {
    /// Puts a connection into the slot of its id.
    pub fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot();
        let principal_id = connection.principal.identity();
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, || None);
        }
        self.slots[slot as usize] = Some(Box::new(connection));
        self.by_principal
            .add(slot, principal_id, |slot| principal_of(&self.slots, slot));
    }

    /// The connection with exactly this id.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.at(id.slot()).filter(|connection| connection.id == id)
    }

    /// The current connection in a slot.
    pub fn at(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The same, read-only.
    pub fn peek(&self, slot: Slot) -> Option<&Connection> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// Loads the state that a write needs into the processor's cache. Together, the cache misses overlap;
    /// with system calls in between, each would be waited for.
    pub fn prefetch(&self, slots: &[Slot]) {
        let ready = |connection: &&Connection| {
            connection.socket.is_some() & connection.send_queue.is_empty()
        };
        let connections = slots.iter().filter_map(|&slot| self.peek(slot));
        std::hint::black_box(connections.filter(ready).count());
    }

    /// Removes the connection with exactly this id.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let principal_id = self.get(id)?.principal.identity();
        self.by_principal.remove(id.slot(), principal_id, |slot| {
            principal_of(&self.slots, slot)
        });
        self.slots[id.slot() as usize].take()
    }

    /// The slots of the connections of a principal.
    pub fn slots_of(&self, principal_id: PrincipalId) -> SmallVec<[Slot; 4]> {
        self.by_principal
            .slots_of(principal_id, |slot| principal_of(&self.slots, slot))
            .collect()
    }

    /// The slots of the connections for which `wanted` is true. Scans all connections.
    pub fn slots_where(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Slot> {
        self.slots
            .iter()
            .flatten()
            .filter(|connection| wanted(connection))
            .map(|connection| connection.id.slot())
            .collect()
    }

    /// The number of slots, including empty ones.
    pub fn slots(&self) -> Slot {
        self.slots.len() as Slot
    }

    /// The ids of all connections.
    pub fn ids(&self) -> Vec<ConnectionId> {
        self.slots
            .iter()
            .flatten()
            .map(|connection| connection.id)
            .collect()
    }
}

fn principal_of(slots: &[Option<Box<Connection>>], slot: Slot) -> Option<PrincipalId> {
    let connection = slots.get(slot as usize)?.as_deref()?;
    Some(connection.principal.identity())
}
