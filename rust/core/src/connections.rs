//! All connections of the reactor, by slot.

use crate::connection::{Connection, ConnectionId};
use crate::index::Slot;

/// The table of connections. A lookup by id finds nothing once the slot has a successor.
#[derive(Default)]
pub struct Connections(Vec<Option<Box<Connection>>>);

impl Connections {
    /// Puts a connection into the slot of its id.
    pub fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot() as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(Box::new(connection));
    }

    /// The connection of this very id.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.at(id.slot()).filter(|connection| connection.id == id)
    }

    /// Whoever has the slot now.
    pub fn at(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.0.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Takes the connection of this very id out.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        self.0
            .get_mut(id.slot() as usize)?
            .take_if(|connection| connection.id == id)
    }

    /// How many slots there are, empty ones included.
    pub fn slots(&self) -> Slot {
        self.0.len() as Slot
    }

    /// The ids of all connections.
    pub fn ids(&self) -> Vec<ConnectionId> {
        self.0
            .iter()
            .flatten()
            .map(|connection| connection.id)
            .collect()
    }
}
