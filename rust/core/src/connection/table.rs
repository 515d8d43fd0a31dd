//! All connections of the reactor, by slot and by whom they speak for.

use smallvec::SmallVec;

use crate::connection::by_principal::Principals;
use crate::connection::ids::ConnectionId;
use crate::connection::{Connection, Holder};
use crate::routing::index::Slot;

/// The table of connections. A lookup by id finds nothing once the slot has a successor.
#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    principals: Principals,
}

impl Connections {
    /// Puts a connection into the slot of its id.
    pub fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot();
        let holder = connection.principal.holder();
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, || None);
        }
        self.slots[slot as usize] = Some(Box::new(connection));
        self.principals
            .add(slot, holder, |slot| holder_of(&self.slots, slot));
    }

    /// The connection of this very id.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.at(id.slot()).filter(|connection| connection.id == id)
    }

    /// Whoever has the slot now.
    pub fn at(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The same, to be looked at.
    pub fn look_at(&self, slot: Slot) -> Option<&Connection> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// Brings what writing to these needs into the cache. At one look the processor waits for all of
    /// them at the same time; with a system call between, it would wait for each by itself.
    pub fn fetch(&self, slots: &[Slot]) {
        let ready =
            |connection: &&Connection| connection.socket.is_some() & connection.outbox.is_empty();
        let connections = slots.iter().filter_map(|&slot| self.look_at(slot));
        std::hint::black_box(connections.filter(ready).count());
    }

    /// Takes the connection of this very id out.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let holder = self.get(id)?.principal.holder();
        self.principals
            .remove(id.slot(), holder, |slot| holder_of(&self.slots, slot));
        self.slots[id.slot() as usize].take()
    }

    /// The slots of everybody who speaks for this user or device.
    pub fn of(&self, holder: Holder) -> SmallVec<[Slot; 4]> {
        self.principals
            .of(holder, |slot| holder_of(&self.slots, slot))
            .collect()
    }

    /// The slots of those connections. Looks at every one there is.
    pub fn which(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Slot> {
        self.slots
            .iter()
            .flatten()
            .filter(|connection| wanted(connection))
            .map(|connection| connection.id.slot())
            .collect()
    }

    /// How many slots there are, empty ones included.
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

fn holder_of(slots: &[Option<Box<Connection>>], slot: Slot) -> Option<Holder> {
    let connection = slots.get(slot as usize)?.as_deref()?;
    Some(connection.principal.holder())
}
