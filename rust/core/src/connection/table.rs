//! All connections of the reactor, by slot.

use crate::connection::Connection;
use crate::connection::ids::ConnectionId;
use crate::routing::index::Slot;

/// The table of connections. A lookup by id returns nothing once the slot has a newer connection.
#[derive(Default)]
pub struct ConnectionTable {
    slots: Vec<Option<Box<Connection>>>,
}

impl ConnectionTable {
    /// Puts a connection into the slot of its id.
    pub fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot();
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, || None);
        }
        self.slots[slot as usize] = Some(Box::new(connection));
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
        self.get(id)?;
        self.slots[id.slot() as usize].take()
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
