//! Connection counts: how many connections each user, device, project and address has on this node.
//!
//! The thread that reserves increments them, so that a burst of handshakes is counted before the reactor
//! handles the first. A guard in the connection decrements them when it is dropped: however the connection
//! ends, and also if its reservation never left the queue.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connection::{Principal, PrincipalKind};

/// Rows that [`ConnectionCounts::above`] reads under one lock; handshakes go on in between.
const ROWS_AT_ONCE: usize = 4096;
/// The row of a connection without a known address.
const NO_ROW: u32 = u32::MAX;

/// What connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountKey {
    User { project: u64, id: u64 },
    Device { project: u64, id: u64 },
    Project(u64),
    Address(IpAddr),
}

impl CountKey {
    fn of_principal(principal: Principal) -> Self {
        let Principal { project, id, .. } = principal;
        match principal.kind {
            PrincipalKind::User => Self::User { project, id },
            PrincipalKind::Device => Self::Device { project, id },
        }
    }

    /// An IPv4 address counts alone, however it is written. An IPv6 address counts as its /64, because one
    /// subscriber has a whole /64.
    fn of_address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address => address,
        })
    }
}

/// The counts of one principal, its project and an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub principal: u32,
    pub project: u32,
    pub address: u32,
    /// The approximate memory of the topics of the principal's connections, in bytes.
    pub principal_topic_bytes: u64,
    /// The approximate memory of the topics of the project's connections, in bytes.
    pub project_topic_bytes: u64,
}

/// Limits above which [`ConnectionCounts::above`] lists a key.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    pub user: u32,
    pub device: u32,
    pub project: u32,
    pub address: u32,
}

impl Thresholds {
    fn than(self, key: CountKey) -> u32 {
        match key {
            CountKey::User { .. } => self.user,
            CountKey::Device { .. } => self.device,
            CountKey::Project(_) => self.project,
            CountKey::Address(_) => self.address,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    key: CountKey,
    count: u32,
    topic_bytes: u64,
}

#[derive(Debug, Default)]
struct Rows {
    places: HashMap<CountKey, u32>,
    rows: Vec<Row>,
    free: Vec<u32>,
}

impl Rows {
    fn increment(&mut self, key: CountKey, topic_bytes: u64) -> u32 {
        let row = Row {
            key,
            count: 1,
            topic_bytes,
        };
        match self.places.entry(key) {
            Entry::Occupied(entry) => {
                let place = *entry.get();
                let row = &mut self.rows[place as usize];
                row.count += 1;
                row.topic_bytes += topic_bytes;
                place
            }
            Entry::Vacant(entry) => {
                let place = self.free.pop().unwrap_or(self.rows.len() as u32);
                match self.rows.get_mut(place as usize) {
                    Some(reused) => *reused = row,
                    None => self.rows.push(row),
                }
                *entry.insert(place)
            }
        }
    }

    /// Removes a key with its last connection.
    fn decrement(&mut self, place: u32, topic_bytes: u64) {
        let Some(row) = self.rows.get_mut(place as usize) else {
            return;
        };
        row.count -= 1;
        row.topic_bytes -= topic_bytes;
        if row.count == 0 {
            self.places.remove(&row.key);
            self.free.push(place);
        }
    }

    /// The number of connections, and the memory of their topics.
    fn count(&self, key: CountKey) -> (u32, u64) {
        let place = self.places.get(&key);
        let row = place.map(|&place| &self.rows[place as usize]);
        row.map_or((0, 0), |row| (row.count, row.topic_bytes))
    }
}

/// The counts, shared by the threads that reserve and the reactor.
#[derive(Debug, Default)]
pub struct ConnectionCounts(Mutex<Rows>);

impl ConnectionCounts {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one connection, whose topics take `topic_bytes`, until the guard is dropped.
    pub fn add(
        self: &Arc<Self>,
        principal: Principal,
        address: Option<IpAddr>,
        topic_bytes: usize,
    ) -> CountGuard {
        let topic_bytes = u32::try_from(topic_bytes).unwrap_or(u32::MAX);
        let bytes = u64::from(topic_bytes);
        let mut rows = self.rows();
        let places = [
            rows.increment(CountKey::of_principal(principal), bytes),
            rows.increment(CountKey::Project(principal.project), bytes),
            address.map_or(NO_ROW, |address| {
                rows.increment(CountKey::of_address(address), bytes)
            }),
        ];
        drop(rows);
        CountGuard {
            counts: Arc::clone(self),
            places,
            topic_bytes,
        }
    }

    /// The counts of this principal, its project and this address.
    pub fn held(&self, principal: Principal, address: Option<IpAddr>) -> Counts {
        let rows = self.rows();
        let (own, own_bytes) = rows.count(CountKey::of_principal(principal));
        let (project, project_bytes) = rows.count(CountKey::Project(principal.project));
        Counts {
            principal: own,
            project,
            address: address.map_or(0, |address| rows.count(CountKey::of_address(address)).0),
            principal_topic_bytes: own_bytes,
            project_topic_bytes: project_bytes,
        }
    }

    /// Every key with more connections than its threshold, in no order.
    pub fn above(&self, more: Thresholds) -> Vec<(CountKey, u32)> {
        let mut found = Vec::new();
        let mut start = 0;
        loop {
            let rows = self.rows();
            let Some(some) = rows.rows.get(start..) else {
                return found;
            };
            let some = &some[..some.len().min(ROWS_AT_ONCE)];
            if some.is_empty() {
                return found;
            }
            let many = some.iter().filter(|row| row.count > more.than(row.key));
            found.extend(many.map(|row| (row.key, row.count)));
            start += some.len();
        }
    }
}

/// Counts one connection while it lives.
#[derive(Debug)]
pub struct CountGuard {
    counts: Arc<ConnectionCounts>,
    places: [u32; 3],
    topic_bytes: u32,
}

impl CountGuard {
    /// Sets the memory of the connection's topics. Returns that of all connections of its principal.
    pub fn set_topic_bytes(&mut self, bytes: usize) -> u64 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.topic_bytes, bytes);
        let mut rows = self.counts.rows();
        for place in self.places {
            if let Some(row) = rows.rows.get_mut(place as usize) {
                row.topic_bytes = row.topic_bytes + u64::from(bytes) - u64::from(before);
            }
        }
        let own = rows.rows.get(self.places[0] as usize);
        own.map_or(0, |row| row.topic_bytes)
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        let mut rows = self.counts.rows();
        for place in self.places {
            rows.decrement(place, u64::from(self.topic_bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(project: u64, id: u64) -> Principal {
        Principal {
            kind: PrincipalKind::User,
            project,
            id,
            key_tag: 0,
        }
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn counts(principal: u32, project: u32, address: u32) -> Counts {
        Counts {
            principal,
            project,
            address,
            ..Counts::default()
        }
    }

    #[test]
    fn topic_bytes_are_released_as_counted_or_changed() {
        let all = Arc::new(ConnectionCounts::default());
        let bytes = |id| {
            let held = all.held(user(1, id), None);
            (held.principal_topic_bytes, held.project_topic_bytes)
        };
        let mut first = all.add(user(1, 1), address("192.0.2.1"), 500);
        let second = all.add(user(1, 1), None, 20);
        let third = all.add(user(1, 2), None, 3);
        assert_eq!((bytes(1), bytes(2)), ((520, 523), (3, 523)));
        assert_eq!(first.set_topic_bytes(100), 120);
        assert_eq!((bytes(1), bytes(2)), ((120, 123), (3, 123)));
        drop(first);
        assert_eq!(bytes(1), (20, 23));
        drop((second, third));
        assert_eq!(bytes(1), (0, 0));
    }

    #[test]
    fn each_key_has_its_own_count() {
        let all = Arc::new(ConnectionCounts::default());
        let here = address("192.0.2.1");
        let device = Principal {
            kind: PrincipalKind::Device,
            ..user(1, 10)
        };
        let first = all.add(user(1, 10), here, 0);
        let second = all.add(user(1, 10), address("192.0.2.2"), 0);
        let third = all.add(device, here, 0);
        let fourth = all.add(user(2, 10), None, 0);
        assert_eq!(all.held(user(1, 10), here), counts(2, 3, 2));
        assert_eq!(all.held(device, None), counts(1, 3, 0));
        assert_eq!(all.held(user(2, 10), here), counts(1, 1, 2));
        drop(first);
        assert_eq!(all.held(user(1, 10), here), counts(1, 2, 1));
        drop((second, third, fourth));
        assert_eq!(all.held(user(1, 10), here), counts(0, 0, 0));
    }

    #[test]
    fn key_without_connections_is_removed() {
        let all = Arc::new(ConnectionCounts::default());
        for id in 0..10_000 {
            drop(all.add(user(1, id), address("192.0.2.1"), 0));
        }
        let rows = all.rows();
        assert!(rows.places.is_empty());
        assert_eq!(rows.rows.len(), 3);
        assert_eq!(rows.free.len(), 3);
    }

    #[test]
    fn reused_row_counts_from_one() {
        let all = Arc::new(ConnectionCounts::default());
        let first = all.add(user(1, 1), None, 0);
        drop(all.add(user(2, 2), None, 0));
        let next = all.add(user(3, 3), None, 0);
        assert_eq!(all.held(user(3, 3), None), counts(1, 1, 0));
        assert_eq!(all.held(user(2, 2), None), counts(0, 0, 0));
        drop(next);
        assert_eq!(all.held(user(1, 1), None), counts(1, 1, 0));
        drop(first);
    }

    #[test]
    fn address_counts_once_in_any_notation() {
        let all = Arc::new(ConnectionCounts::default());
        let _old = all.add(user(1, 1), address("::ffff:192.0.2.1"), 0);
        let _new = all.add(user(1, 1), address("2001:db8:0:7::1"), 0);
        let held = |text| all.held(user(1, 1), address(text)).address;
        assert_eq!(held("192.0.2.1"), 1);
        assert_eq!(held("2001:db8:0:7:ffff::2"), 1);
        assert_eq!(held("2001:db8:0:8::1"), 0);
    }

    #[test]
    fn above_lists_keys_over_threshold_of_their_kind() {
        let all = Arc::new(ConnectionCounts::default());
        let many = ROWS_AT_ONCE as u64 + 10;
        let _ones: Vec<CountGuard> = (0..many).map(|id| all.add(user(1, id), None, 0)).collect();
        let _two = all.add(user(1, many - 1), address("192.0.2.1"), 0);
        let more = Thresholds {
            user: 1,
            device: 0,
            project: many as u32,
            address: 1,
        };
        let mut found = all.above(more);
        found.sort_by_key(|&(_, count)| count);
        let last = CountKey::User {
            project: 1,
            id: many - 1,
        };
        let project = CountKey::Project(1);
        assert_eq!(found, [(last, 2), (project, many as u32 + 1)]);
        let none = Thresholds {
            user: 0,
            device: 0,
            project: 0,
            address: 0,
        };
        assert_eq!(all.above(none).len() as u64, many + 2);
    }

    #[test]
    fn concurrent_counts_are_exact() {
        let all = Arc::new(ConnectionCounts::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for id in 0..1000 {
                        drop(all.add(user(1, id % 7), address("192.0.2.1"), 0));
                    }
                });
            }
        });
        assert_eq!(all.held(user(1, 0), address("192.0.2.1")), counts(0, 0, 0));
    }
}
