//! The tally: how many connections each user, device, project and address holds on this node.
//!
//! Raised on the thread that reserves, so that a burst of handshakes is counted before the reactor
//! hears of the first. Lowered by the drop of what the connection carries: however it ends, and also
//! if its reservation never left the queue.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connection::{Principal, PrincipalKind};

/// A list of all subjects is made from so many of them at a time; handshakes go on in between.
const ROWS_AT_ONCE: usize = 4096;
/// The row of a connection whose address nobody knows.
const NO_ROW: u32 = u32::MAX;

/// Whose connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    User { project: u64, id: u64 },
    Device { project: u64, id: u64 },
    Project(u64),
    Address(IpAddr),
}

impl Subject {
    fn of_principal(principal: Principal) -> Self {
        let Principal { project, id, .. } = principal;
        match principal.kind {
            PrincipalKind::User => Self::User { project, id },
            PrincipalKind::Device => Self::Device { project, id },
        }
    }

    /// An IPv4 address by itself, however it is written; of IPv6 the /64 that it is in, for that is
    /// what one subscriber is given.
    fn of_address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address => address,
        })
    }
}

/// How many connections some subjects hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub principal: u32,
    pub project: u32,
    pub address: u32,
}

/// Which subjects a list is about: those that hold more than this.
#[derive(Clone, Copy, Debug)]
pub struct More {
    pub than_user: u32,
    pub than_device: u32,
    pub than_project: u32,
    pub than_address: u32,
}

impl More {
    fn than(self, subject: Subject) -> u32 {
        match subject {
            Subject::User { .. } => self.than_user,
            Subject::Device { .. } => self.than_device,
            Subject::Project(_) => self.than_project,
            Subject::Address(_) => self.than_address,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    subject: Subject,
    count: u32,
}

#[derive(Debug, Default)]
struct Rows {
    places: HashMap<Subject, u32>,
    rows: Vec<Row>,
    free: Vec<u32>,
}

impl Rows {
    fn raise(&mut self, subject: Subject) -> u32 {
        let row = Row { subject, count: 1 };
        match self.places.entry(subject) {
            Entry::Occupied(entry) => {
                let place = *entry.get();
                self.rows[place as usize].count += 1;
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

    /// Forgets a subject with its last connection.
    fn lower(&mut self, place: u32) {
        let Some(row) = self.rows.get_mut(place as usize) else {
            return;
        };
        row.count -= 1;
        if row.count == 0 {
            self.places.remove(&row.subject);
            self.free.push(place);
        }
    }

    fn count(&self, subject: Subject) -> u32 {
        let place = self.places.get(&subject);
        place.map_or(0, |&place| self.rows[place as usize].count)
    }
}

/// The counts, shared by the threads that reserve and the reactor.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Rows>);

impl Tally {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection, for as long as the answer lives.
    pub fn hold(self: &Arc<Self>, principal: Principal, address: Option<IpAddr>) -> Held {
        let mut rows = self.rows();
        let places = [
            rows.raise(Subject::of_principal(principal)),
            rows.raise(Subject::Project(principal.project)),
            address.map_or(NO_ROW, |address| rows.raise(Subject::of_address(address))),
        ];
        drop(rows);
        Held {
            tally: Arc::clone(self),
            places,
        }
    }

    /// What this principal, its project and this address hold now.
    pub fn held(&self, principal: Principal, address: Option<IpAddr>) -> Counts {
        let rows = self.rows();
        Counts {
            principal: rows.count(Subject::of_principal(principal)),
            project: rows.count(Subject::Project(principal.project)),
            address: address.map_or(0, |address| rows.count(Subject::of_address(address))),
        }
    }

    /// Every subject that holds more than is said for its kind, in no order.
    pub fn above(&self, more: More) -> Vec<(Subject, u32)> {
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
            let many = some.iter().filter(|row| row.count > more.than(row.subject));
            found.extend(many.map(|row| (row.subject, row.count)));
            start += some.len();
        }
    }
}

/// One connection's part in the counts; dropped with it.
#[derive(Debug)]
pub struct Held {
    tally: Arc<Tally>,
    places: [u32; 3],
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut rows = self.tally.rows();
        for place in self.places {
            rows.lower(place);
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
        }
    }

    #[test]
    fn each_subject_has_a_count_of_its_own() {
        let tally = Arc::new(Tally::default());
        let here = address("192.0.2.1");
        let device = Principal {
            kind: PrincipalKind::Device,
            ..user(1, 10)
        };
        let first = tally.hold(user(1, 10), here);
        let second = tally.hold(user(1, 10), address("192.0.2.2"));
        let third = tally.hold(device, here);
        let fourth = tally.hold(user(2, 10), None);
        assert_eq!(tally.held(user(1, 10), here), counts(2, 3, 2));
        assert_eq!(tally.held(device, None), counts(1, 3, 0));
        assert_eq!(tally.held(user(2, 10), here), counts(1, 1, 2));
        drop(first);
        assert_eq!(tally.held(user(1, 10), here), counts(1, 2, 1));
        drop((second, third, fourth));
        assert_eq!(tally.held(user(1, 10), here), counts(0, 0, 0));
    }

    #[test]
    fn who_holds_nothing_is_forgotten() {
        let tally = Arc::new(Tally::default());
        for id in 0..10_000 {
            drop(tally.hold(user(1, id), address("192.0.2.1")));
        }
        let rows = tally.rows();
        assert!(rows.places.is_empty());
        assert_eq!(rows.rows.len(), 3);
        assert_eq!(rows.free.len(), 3);
    }

    #[test]
    fn a_row_that_is_used_again_counts_from_one() {
        let tally = Arc::new(Tally::default());
        let kept = tally.hold(user(1, 1), None);
        drop(tally.hold(user(2, 2), None));
        let next = tally.hold(user(3, 3), None);
        assert_eq!(tally.held(user(3, 3), None), counts(1, 1, 0));
        assert_eq!(tally.held(user(2, 2), None), counts(0, 0, 0));
        drop(next);
        assert_eq!(tally.held(user(1, 1), None), counts(1, 1, 0));
        drop(kept);
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        let tally = Arc::new(Tally::default());
        let _old = tally.hold(user(1, 1), address("::ffff:192.0.2.1"));
        let _new = tally.hold(user(1, 1), address("2001:db8:0:7::1"));
        let held = |text| tally.held(user(1, 1), address(text)).address;
        assert_eq!(held("192.0.2.1"), 1);
        assert_eq!(held("2001:db8:0:7:ffff::2"), 1);
        assert_eq!(held("2001:db8:0:8::1"), 0);
    }

    #[test]
    fn the_list_has_who_holds_more_than_is_said_for_its_kind() {
        let tally = Arc::new(Tally::default());
        let many = ROWS_AT_ONCE as u64 + 10;
        let _ones: Vec<Held> = (0..many).map(|id| tally.hold(user(1, id), None)).collect();
        let _two = tally.hold(user(1, many - 1), address("192.0.2.1"));
        let more = More {
            than_user: 1,
            than_device: 0,
            than_project: many as u32,
            than_address: 1,
        };
        let mut found = tally.above(more);
        found.sort_by_key(|&(_, count)| count);
        let last = Subject::User {
            project: 1,
            id: many - 1,
        };
        let project = Subject::Project(1);
        assert_eq!(found, [(last, 2), (project, many as u32 + 1)]);
        let all = More {
            than_user: 0,
            than_device: 0,
            than_project: 0,
            than_address: 0,
        };
        assert_eq!(tally.above(all).len() as u64, many + 2);
    }

    #[test]
    fn threads_do_not_lose_count() {
        let tally = Arc::new(Tally::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for id in 0..1000 {
                        drop(tally.hold(user(1, id % 7), address("192.0.2.1")));
                    }
                });
            }
        });
        assert_eq!(
            tally.held(user(1, 0), address("192.0.2.1")),
            counts(0, 0, 0)
        );
    }
}
