//! A small deployment: a store, an outbox that is relayed copy by copy, shards, and one node whose reader
//! is behind. Every step is chosen by random numbers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use homewire_core::bus::envelope::{CommandHeader, ControlHeader, EventHeader};
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::routing::router::{Effect, Effects, Match, Router};
use homewire_core::routing::subscription::Reservation;
use homewire_core::routing::transitions::concerned_shards;

use crate::subject::{Asked, Sent, Subject};
use crate::truth::{Announced, COUNT, Change, KEYS, PROJECT, SHARDS, Truth, number};

/// Numbers that only depend on a seed (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    fn place(&mut self) -> usize {
        self.below(COUNT)
    }
}

/// An entry of a shard: the number of an event, or of a change.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Sent(usize),
    Copy(usize),
}

/// Something that was accepted, and the changes that were answered and made at that moment.
#[derive(Debug)]
pub struct Accepted {
    pub sent: Sent,
    pub at: usize,
    pub answered: usize,
    pub made: usize,
}

/// A connection of the node.
#[derive(Debug)]
pub struct Connected {
    pub subject: Subject,
    pub at: usize,
    /// The changes that were read by the node, answered and made when it was reserved.
    pub read: usize,
    pub answered: usize,
    pub made: usize,
    pub received: Vec<usize>,
    pub code: Option<u16>,
}

/// The deployment, with its whole history.
pub struct World {
    pub random: Random,
    /// The state of the store before the first change and after each.
    pub history: Vec<Truth>,
    pub changes: Vec<Change>,
    pub accepted: Vec<Accepted>,
    pub connected: Vec<Connected>,
    /// The time: one step each.
    step: usize,
    announced: Vec<Announced>,
    /// Changes that still have to be copied to each shard, and all that one has to be copied to.
    to_copy: Vec<VecDeque<usize>>,
    to_read: Vec<VecDeque<Entry>>,
    began: Instant,
    router: Router,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut truth = Truth::default();
        for user in 0..COUNT {
            for home in 0..COUNT {
                truth.is_member[user][home] = random.below(3) > 0;
            }
        }
        for device in 0..COUNT {
            truth.device_home[device] = random.place();
        }
        let began = Instant::now();
        let shards = SHARDS as usize;
        Self {
            random,
            history: vec![truth],
            changes: Vec::new(),
            accepted: Vec::new(),
            connected: Vec::new(),
            step: 0,
            announced: Vec::new(),
            to_copy: vec![VecDeque::new(); shards],
            to_read: vec![VecDeque::new(); shards],
            began,
            router: Router::new(SHARDS, CLOSE_GRACE, began),
        }
    }

    /// Takes so many random steps, reads everything, and lets the graces pass.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..3 {
            self.connect();
        }
        for _ in 0..steps {
            self.step += 1;
            match self.random.below(16) {
                0..=4 => self.send(),
                5 => self.connect(),
                6..=7 => self.change(),
                8..=11 => self.copy(),
                12..=14 => self.read(),
                _ => self.end_turn(),
            }
        }
        while self.to_copy.iter().any(|it| !it.is_empty()) {
            self.copy();
        }
        while self.to_read.iter().any(|it| !it.is_empty()) {
            self.read();
        }
        self.end_turn();
        let effects = self.router.expire(self.began + CLOSE_GRACE);
        self.execute(effects);
    }

    pub fn truth(&self) -> &Truth {
        &self.history[self.history.len() - 1]
    }

    /// The changes up to the first that is not copied to all of its shards.
    fn answered(&self) -> usize {
        let first = self.to_copy.iter().filter_map(VecDeque::front).min();
        first.copied().unwrap_or(self.changes.len())
    }

    /// The changes up to the first with a copy that the node has not read.
    fn read_changes(&self) -> usize {
        let copies = self.to_read.iter().flatten().filter_map(|it| match it {
            Entry::Copy(change) => Some(*change),
            Entry::Sent(_) => None,
        });
        copies.min().unwrap_or(usize::MAX).min(self.answered())
    }

    fn send(&mut self) {
        let sent = match self.random.below(8) {
            0 => Sent::Command {
                device: self.random.place(),
            },
            1..=3 => {
                let device = self.random.place();
                let home = self.truth().device_home[device];
                Sent::Event {
                    home,
                    device: Some(device),
                }
            }
            _ => Sent::Event {
                home: self.random.place(),
                device: None,
            },
        };
        let shard_key = match sent {
            Sent::Event { home, .. } => home,
            Sent::Command { device } => device,
        };
        let shard = shard_of(number(shard_key), SHARDS) as usize;
        self.to_read[shard].push_back(Entry::Sent(self.accepted.len()));
        self.accepted.push(Accepted {
            sent,
            at: self.step,
            answered: self.answered(),
            made: self.changes.len(),
        });
    }

    fn change(&mut self) {
        let (one, other, key) = (
            self.random.place(),
            self.random.place(),
            self.random.below(KEYS),
        );
        let change = match self.random.below(28) {
            0..=6 => Change::Join(one, other),
            7..=12 => Change::Leave(one, other),
            13 => Change::DeleteUser(one),
            14..=16 => Change::EndUserKey(one, key),
            17 => Change::EndDeviceKey(one, key),
            18 => Change::DeleteDevice(one),
            19..=20 => Change::Move(one, other),
            21 => Change::DeleteHome(one),
            22..=23 => Change::Deactivate(one),
            24..=25 => Change::Activate(one),
            26 => Change::Disable,
            _ => Change::Enable,
        };
        let mut truth = self.truth().clone();
        let Some(announced) = truth.make(change) else {
            return;
        };
        let record = ControlHeader {
            body: &announced.body,
            ..announced.header
        };
        let shards = concerned_shards(&record, Some(&announced.user_homes), 0, SHARDS).unwrap();
        for shard in shards {
            self.to_copy[shard as usize].push_back(self.changes.len());
        }
        self.changes.push(change);
        self.history.push(truth);
        self.announced.push(Announced {
            header: ControlHeader {
                outbox_ms: milliseconds(self.step),
                outbox_seq: self.step as u64 % STEPS_PER_MS,
                ..announced.header
            },
            ..announced
        });
    }

    /// Copies the next record to one shard.
    fn copy(&mut self) {
        let shard = self.random.below(SHARDS as usize);
        if let Some(change) = self.to_copy[shard].pop_front() {
            self.to_read[shard].push_back(Entry::Copy(change));
        }
    }

    /// Reads some entries of some shards in one batch.
    fn read(&mut self) {
        for _ in 0..=self.random.below(2) {
            let shard = self.random.below(SHARDS as usize);
            for _ in 0..=self.random.below(4) {
                if let Some(entry) = self.to_read[shard].pop_front() {
                    self.route(shard as u32, entry);
                }
            }
        }
        let effects = self.router.end_batch();
        self.execute(effects);
    }

    fn route(&mut self, shard: u32, entry: Entry) {
        let found = match entry {
            Entry::Sent(place) => {
                let found = match self.accepted[place].sent {
                    Sent::Event { home, device } => {
                        let event = EventHeader {
                            project: PROJECT,
                            home: number(home),
                            device: device.map_or(0, number),
                            ..EventHeader::default()
                        };
                        self.router.route_event(shard, &event)
                    }
                    Sent::Command { device } => {
                        let command = CommandHeader {
                            project: PROJECT,
                            device: number(device),
                            ..CommandHeader::default()
                        };
                        self.router.route_command(shard, &command)
                    }
                };
                if found == Match::Audiences {
                    let frame = (place as u32).to_be_bytes();
                    self.router.append(|_| &frame);
                }
                found
            }
            Entry::Copy(change) => {
                let announced = &self.announced[change];
                let record = ControlHeader {
                    body: &announced.body,
                    ..announced.header
                };
                let (_, effects) = self.router.apply(shard, &record, self.began);
                self.execute(effects);
                Match::Nothing
            }
        };
        assert_ne!(found, Match::WrongShard);
    }

    /// Hands out all frames, as at the end of a turn.
    fn end_turn(&mut self) {
        while let Some(block) = self.router.next_block() {
            let members = self.router.members(block.audience).to_vec();
            self.deliver(&block.bytes, &members);
            self.router.recycle(block);
        }
    }

    /// The handshake reads the store, which may be ahead of the node's reader.
    fn connect(&mut self) {
        let owner = self.random.place();
        let asked = match self.random.below(8) {
            0..=3 => Asked::AllHomes,
            4 => Asked::Homes(vec![self.random.place()]),
            5 => {
                let first = self.random.place();
                Asked::Homes(vec![first, (first + 1) % COUNT])
            }
            6 => {
                let device = self.random.place();
                Asked::Device(device, self.truth().device_home[device])
            }
            _ => Asked::Commands,
        };
        let subject = Subject {
            owner,
            key: self.random.below(KEYS),
            asked,
        };
        let Some(subscription) = subject.authorise(self.truth()) else {
            return;
        };
        let reservation = Reservation {
            id: ConnectionId::from(self.connected.len() as u64),
            principal: subject.principal(),
            subscription,
            address: None,
        };
        let effects = self.router.subscribe(reservation, milliseconds(self.step));
        self.execute(effects);
        self.connected.push(Connected {
            subject,
            at: self.step,
            read: self.read_changes(),
            answered: self.answered(),
            made: self.changes.len(),
            received: Vec::new(),
            code: None,
        });
    }

    fn execute(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Deliver { block, members } => self.deliver(&block.bytes, &members),
                Effect::TopicBytes { .. } => {}
                Effect::Close { id } => {
                    let access = self.router.access(id).unwrap();
                    let code = access.code().unwrap().code;
                    let connected = &mut self.connected[id.as_u64() as usize];
                    assert_eq!(connected.code.replace(code), None, "closed twice");
                }
            }
        }
    }

    fn deliver(&mut self, frames: &[u8], members: &[u32]) {
        for frame in frames.chunks_exact(4) {
            let place = u32::from_be_bytes(frame.try_into().unwrap()) as usize;
            for &slot in members {
                self.connected[slot as usize].received.push(place);
            }
        }
    }
}

const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Some steps have the same millisecond, as some records and reservations do.
const STEPS_PER_MS: u64 = 3;

fn milliseconds(step: usize) -> u64 {
    step as u64 / STEPS_PER_MS
}
