//! Ids of connections. The threads of Python allocate them, the reactor releases them.

use std::sync::{Mutex, PoisonError};

use crate::routing::index::Slot;

/// A connection's id: its slot and the slot's generation. A late command about a closed connection never
/// reaches the next connection in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn new(slot: Slot, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    /// The number that Python stores.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    pub(crate) fn slot(self) -> Slot {
        self.0 as u32
    }
}

impl From<u64> for ConnectionId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

#[derive(Debug, Default)]
struct Free {
    generations: Vec<u32>,
    free: Vec<Slot>,
}

/// Allocates connection ids. The generation of a slot grows each time it is allocated.
#[derive(Debug, Default)]
pub struct ConnectionIds(Mutex<Free>);

impl ConnectionIds {
    /// A new id.
    pub fn allocate(&self) -> ConnectionId {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = inner.free.pop() {
            let generation = &mut inner.generations[slot as usize];
            *generation = generation.wrapping_add(1);
            return ConnectionId::new(slot, *generation);
        }
        inner.generations.push(0);
        ConnectionId::new(inner.generations.len() as Slot - 1, 0)
    }

    /// Releases the slot of `id`. The id itself is never allocated again.
    pub fn release(&self, id: ConnectionId) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.free.push(id.slot());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reused_slot_has_new_id() {
        let ids = ConnectionIds::default();
        let first = ids.allocate();
        ids.release(first);
        let second = ids.allocate();
        assert_eq!(first.slot(), second.slot());
        assert_ne!(first, second);
    }
}
