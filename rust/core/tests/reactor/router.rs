//! The router alone, compared with the same naive model as the whole core: no sockets, no threads, and
//! thousands of cases a second.

use std::time::{Duration, Instant};

use homewire_core::bus::envelope::{CommandHeader, ControlHeader, EventHeader};
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::routing::router::{Effect, Effects, Match, Router};
use homewire_core::routing::subscription::{Reservation, Subscription};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::audience_steps::{Record, Routed, Step, steps};
use crate::client::Received;
use crate::harness::{SHARDS, property};
use crate::model::{About, Phase, Subscriber};
use crate::newest_records::Newest;
use crate::records::LATER;

/// A router, the model of its subscribers, and what each of them received.
struct Checked {
    router: Router,
    now: Instant,
    subscribers: Vec<Subscriber>,
    received: Vec<Vec<Received>>,
    closed: Vec<Option<u16>>,
    newest: Newest,
    names: u32,
    moment: u64,
}

impl Checked {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            router: Router::new(SHARDS, Duration::from_secs(1_000_000), now),
            now,
            subscribers: Vec::new(),
            received: Vec::new(),
            closed: Vec::new(),
            newest: Newest::default(),
            names: 0,
            moment: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Reserve(principal, subscription, follow, waiting) => {
                let follows = subscription.follows.clone().filter(|_| follow);
                let deactivated_homes = follows.as_ref().map_or_else(Vec::new, |_| waiting);
                let subscription = Subscription {
                    follows,
                    deactivated_homes,
                    ..subscription
                };
                let id = ConnectionId::from(self.subscribers.len() as u64);
                self.subscribers
                    .push(Subscriber::new(id, principal, &subscription));
                self.received.push(Vec::new());
                self.closed.push(None);
                let reservation = Reservation {
                    id,
                    principal,
                    subscription,
                    address: None,
                };
                let effects = self.router.subscribe(reservation, 0);
                self.execute(effects);
            }
            Step::Route(routed) => self.route(&routed),
            Step::Gap(id) => {
                let shard = shard_of(id, SHARDS);
                let effects = self.router.gap(shard);
                self.execute(effects);
                for subscriber in &mut self.subscribers {
                    subscriber.note_gap(shard);
                }
            }
            Step::Adopt(chosen) => {
                if let Some(place) = self.choose(chosen) {
                    let subscriber = &mut self.subscribers[place];
                    subscriber.phase = match (subscriber.phase, subscriber.pending_close) {
                        (Phase::Reserved, Some(code)) if subscriber.unsubscribed => {
                            Phase::Closed(code)
                        }
                        (Phase::Reserved, _) => Phase::Open,
                        (phase, _) => phase,
                    };
                }
            }
            Step::Say(chosen) => {
                if let Some(place) = self.choose(chosen) {
                    self.say(place);
                }
            }
            Step::Abandon(chosen)
            | Step::Close(chosen)
            | Step::Leave(chosen)
            | Step::Vanish(chosen) => {
                if let Some(place) = self.choose(chosen) {
                    self.end(place);
                }
            }
            Step::Fence => self.end_turn(),
            Step::Occupy => {}
        }
    }

    fn choose(&self, chosen: Index) -> Option<usize> {
        let all = self.subscribers.len();
        (all > 0).then(|| chosen.index(all))
    }

    /// A frame of its own: everything that was routed to it comes first.
    fn say(&mut self, place: usize) {
        let subscriber = &mut self.subscribers[place];
        if !subscriber.is_subscribed() {
            return;
        }
        let text = Received::Text("own".to_owned());
        subscriber.expected.push(text.clone());
        if let Some(block) = self.router.block_before(subscriber.id) {
            let members = self.router.members(block.audience).to_vec();
            self.deliver(&block.bytes, &members);
        }
        self.received[place].push(text);
    }

    /// The connection ends for a reason of its own.
    fn end(&mut self, place: usize) {
        let subscriber = &mut self.subscribers[place];
        let id = subscriber.id;
        if matches!(subscriber.phase, Phase::Reserved | Phase::Open) {
            subscriber.phase = Phase::Undone;
            let effects = self.router.unsubscribe(id);
            self.execute(effects);
            self.router.forget(id);
        }
    }

    fn route(&mut self, routed: &[Routed]) {
        for it in routed {
            match it {
                Routed::About(about) => self.route_about(about),
                Routed::Record(record) => self.route_record(record),
            }
        }
        let effects = self.router.end_batch();
        self.execute(effects);
        for subscriber in &mut self.subscribers {
            subscriber.end_of_batch();
        }
    }

    fn route_about(&mut self, about: &About) {
        self.names += 1;
        let found = match *about {
            About::Event {
                project,
                home,
                device,
                entity,
            } => self.router.route_event(
                shard_of(home, SHARDS),
                &EventHeader {
                    project,
                    home,
                    device,
                    entity,
                    ..EventHeader::default()
                },
            ),
            About::Command { project, device } => self.router.route_command(
                shard_of(device, SHARDS),
                &CommandHeader {
                    project,
                    device,
                    ..CommandHeader::default()
                },
            ),
        };
        if found == Match::Audiences {
            let frame = self.names.to_be_bytes();
            self.router.append(|_| &frame);
        }
        for subscriber in &mut self.subscribers {
            if subscriber.receives(about) {
                subscriber.expected.push(name(self.names));
            }
        }
    }

    fn route_record(&mut self, record: &Record) {
        self.moment += 1;
        let header = ControlHeader {
            outbox_ms: LATER + self.moment.saturating_sub(record.late),
            ..record.header
        };
        let copies = match record.at {
            Some(id) => id..=id,
            None => 1..=u64::from(SHARDS),
        };
        for id in copies {
            let shard = shard_of(id, SHARDS);
            self.newest.apply(&mut self.subscribers, shard, &header);
            let (_, effects) = self.router.apply(shard, &header, self.now);
            self.execute(effects);
        }
    }

    fn end_turn(&mut self) {
        while let Some(block) = self.router.next_block() {
            let members = self.router.members(block.audience).to_vec();
            self.deliver(&block.bytes, &members);
            self.router.recycle(block);
        }
    }

    fn execute(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Deliver { block, members } => self.deliver(&block.bytes, &members),
                Effect::TopicBytes { .. } => {}
                Effect::Close { id } => {
                    let code = self.router.access(id).and_then(|it| it.code());
                    self.closed[id.as_u64() as usize] = code.map(|it| it.code);
                }
            }
        }
    }

    fn deliver(&mut self, frames: &[u8], members: &[u32]) {
        for frame in frames.chunks_exact(4) {
            let number = u32::from_be_bytes(frame.try_into().unwrap());
            for &slot in members {
                self.received[slot as usize].push(name(number));
            }
        }
    }

    fn check(mut self) -> Result<(), TestCaseError> {
        self.end_turn();
        for (place, subscriber) in self.subscribers.iter().enumerate() {
            prop_assert_eq!(&self.received[place], &subscriber.expected);
            let expected = subscriber.pending_close.filter(|_| subscriber.unsubscribed);
            if subscriber.phase != Phase::Undone {
                prop_assert_eq!(self.closed[place], expected);
            }
        }
        for place in 0..self.subscribers.len() {
            let id = self.subscribers[place].id;
            let effects = self.router.unsubscribe(id);
            self.execute(effects);
            self.router.forget(id);
        }
        prop_assert_eq!(
            (self.router.audience_count(), self.router.topic_count()),
            (0, 0)
        );
        Ok(())
    }
}

fn name(number: u32) -> Received {
    Received::event(&number.to_string())
}

proptest! {
    #![proptest_config(property(ProptestConfig::default().cases.max(4_000)))]

    /// The effects of every step are those that the model predicts, in order.
    #[test]
    fn router_decides_what_model_predicts(steps in steps()) {
        let mut checked = Checked::new();
        for step in steps {
            checked.take(step);
        }
        checked.check()?;
    }
}
