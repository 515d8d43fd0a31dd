//! Delivery compared with a naive model: reserve, adopt, route, leave, control records and gaps in any
//! order, in one turn of the reactor and over several.

use homewire_core::bus::envelope::{ControlHeader, EventHeader};
use homewire_core::bus::shard::shard_of;
use homewire_core::reactor::inbox::ShardEntry;
use homewire_core::reactor::notifications::Notification;
use homewire_core::routing::subscription::Subscription;
use homewire_core::wire::transport::MessageKind;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::client::Received;
use crate::harness::{Node, SHARDS, command_of, copy, entry, limits, property};
use crate::model::{About, Phase, Subscriber};
use crate::newest_records::Newest;
use crate::records::LATER;

use crate::audience_steps::{Record, Routed, Step, steps};

/// A core, and the model of its subscribers.
struct Checked {
    node: Node,
    subscribers: Vec<Subscriber>,
    newest: Newest,
    names: u32,
    /// The moment of the last record.
    moment: u64,
}

impl Checked {
    fn new() -> Self {
        Self {
            node: Node::start(limits()),
            subscribers: Vec::new(),
            newest: Newest::default(),
            names: 0,
            moment: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Reserve(subscriber, what, follow, waiting) => {
                let follows = what.follows.clone().filter(|_| follow);
                let deactivated_homes = follows.as_ref().map_or_else(Vec::new, |_| waiting);
                let what = Subscription {
                    follows,
                    deactivated_homes,
                    ..what
                };
                let id = self.node.reserve_as(subscriber, what.clone());
                self.subscribers
                    .push(Subscriber::new(id, subscriber, &what));
            }
            Step::Route(routed) => self.route(&routed),
            Step::Gap(id) => {
                let shard = shard_of(id, SHARDS);
                assert!(self.node.core.gap(shard));
                for subscriber in &mut self.subscribers {
                    subscriber.note_gap(shard);
                }
            }
            Step::Fence => self.fence(),
            Step::Occupy => self.node.occupy(),
            Step::Adopt(subscriber) => self.with(subscriber, Self::adopt),
            Step::Abandon(subscriber) => self.with(subscriber, |node, subscriber, _| {
                node.core.abandon(subscriber.id);
                if subscriber.phase == Phase::Reserved {
                    subscriber.phase = Phase::Undone;
                }
            }),
            Step::Say(subscriber) => self.with(subscriber, |node, subscriber, name| {
                node.core
                    .send(subscriber.id, MessageKind::Text, name.as_bytes().to_vec());
                if subscriber.is_subscribed() {
                    subscriber.expected.push(Received::Text(name));
                }
            }),
            Step::Close(subscriber) => self.with(subscriber, |node, subscriber, _| {
                // If both sides close, either code may come first.
                if subscriber.phase == Phase::Left {
                    return;
                }
                node.core.close(subscriber.id, 4000, String::new());
                subscriber.phase = match subscriber.phase {
                    Phase::Reserved => Phase::Undone,
                    // The code of the pending close replaces the requested one.
                    Phase::Open => Phase::Closed(subscriber.pending_close.unwrap_or(4000)),
                    other => other,
                };
            }),
            Step::Leave(subscriber) => self.with(subscriber, |_, subscriber, _| {
                if let (Phase::Open, Some(client)) = (subscriber.phase, &mut subscriber.client) {
                    client.send_close(1000);
                    subscriber.phase = Phase::Left;
                }
            }),
            Step::Vanish(subscriber) => self.with(subscriber, |_, subscriber, _| {
                if subscriber.client.take().is_some() {
                    subscriber.phase = Phase::Vanished;
                }
            }),
        }
    }

    fn with(&mut self, subscriber: Index, act: impl FnOnce(&Node, &mut Subscriber, String)) {
        if !self.subscribers.is_empty() {
            let name = self.name();
            let subscriber = subscriber.index(self.subscribers.len());
            act(&self.node, &mut self.subscribers[subscriber], name);
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("no{}", self.names)
    }

    fn adopt(node: &Node, subscriber: &mut Subscriber, _name: String) {
        let phase = match (subscriber.phase, subscriber.pending_close) {
            (Phase::Reserved, Some(code)) if subscriber.unsubscribed => Phase::Closed(code),
            (Phase::Reserved, _) => Phase::Open,
            (Phase::Undone, _) => Phase::Refused,
            _ => return,
        };
        subscriber.phase = phase;
        subscriber.client = Some(node.adopt(subscriber.id, b""));
    }

    fn route(&mut self, routed: &[Routed]) {
        let mut entries = Vec::new();
        for it in routed {
            match it {
                Routed::About(about) => {
                    let name = self.name();
                    entries.push(envelope(about, &name));
                    for subscriber in &mut self.subscribers {
                        if subscriber.receives(about) {
                            subscriber.expected.push(Received::event(&name));
                        }
                    }
                }
                Routed::Record(record) => self.route_record(record, &mut entries),
            }
        }
        assert!(self.node.core.route(entries));
        for subscriber in &mut self.subscribers {
            subscriber.end_of_batch();
        }
    }

    fn route_record(&mut self, record: &Record, entries: &mut Vec<ShardEntry>) {
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
            let entry = copy(id, &header);
            self.newest
                .apply(&mut self.subscribers, entry.shard, &header);
            entries.push(entry);
        }
    }

    fn fence(&mut self) {
        self.node.fence();
        for subscriber in &mut self.subscribers {
            if subscriber.phase != Phase::Left {
                subscriber.settled = subscriber.expected.len();
            }
        }
    }

    fn check(mut self) -> Result<(), TestCaseError> {
        let end = Received::Text("the end".to_owned());
        for subscriber in &mut self.subscribers {
            if subscriber.phase == Phase::Open {
                self.node
                    .core
                    .send(subscriber.id, MessageKind::Text, b"the end".to_vec());
            }
            let Some(client) = &mut subscriber.client else {
                continue;
            };
            let last = match subscriber.phase {
                Phase::Open => end.clone(),
                Phase::Closed(code) => Received::Close(Some(code)),
                Phase::Left => Received::Close(Some(1000)),
                _ => Received::Close(Some(1013)),
            };
            // If a client with a pending close leaves, either code may come first.
            let or = match (
                subscriber.phase,
                subscriber.unsubscribed,
                subscriber.pending_close,
            ) {
                (Phase::Left, true, Some(code)) => Received::Close(Some(code)),
                _ => last.clone(),
            };
            let received = client.receive_until_one_of(&[last, or]);
            if subscriber.phase == Phase::Left {
                prop_assert!(received.len() >= subscriber.settled);
                prop_assert!(subscriber.expected.starts_with(&received));
                prop_assert_eq!(client.receive(), Received::End);
            } else if subscriber.phase == Phase::Refused {
                prop_assert_eq!(received, []);
            } else {
                prop_assert_eq!(&received, &subscriber.expected);
            }
        }
        self.check_that_nothing_is_left()
    }

    /// Every connection is removed once, with everything that it owned.
    fn check_that_nothing_is_left(mut self) -> Result<(), TestCaseError> {
        for subscriber in &mut self.subscribers {
            self.node.core.abandon(subscriber.id);
            subscriber.client = None;
        }
        let mut ended = Vec::new();
        while ended.len() < self.subscribers.len() {
            if let Notification::Closed { id, .. } = self.node.notification()
                && self
                    .subscribers
                    .iter()
                    .any(|subscriber| subscriber.id == id)
            {
                prop_assert!(!ended.contains(&id), "reported twice");
                ended.push(id);
            }
        }
        self.node
            .core
            .stop(1001, String::new(), std::time::Duration::ZERO);
        for now in [
            "connections",
            "reservations",
            "audiences",
            "topics",
            "inbox_bytes",
        ] {
            prop_assert_eq!(self.node.stat(now), 0, "{}", now);
        }
        Ok(())
    }
}

fn envelope(about: &About, name: &str) -> ShardEntry {
    match *about {
        About::Event {
            project,
            home,
            device,
            entity,
        } => entry(&EventHeader {
            project,
            home,
            device,
            entity,
            event_type: name,
            ..EventHeader::default()
        }),
        About::Command { project, device } => command_of(project, device, name),
    }
}

proptest! {
    #![proptest_config(property(ProptestConfig::default().cases.max(400)))]

    /// Each connection receives exactly the matching events between its reservation and its end, in order,
    /// as control records change its topics, and then the documented close code.
    #[test]
    fn connections_receive_what_model_predicts(steps in steps()) {
        let mut checked = Checked::new();
        for step in steps {
            checked.take(step);
        }
        checked.check()?;
    }
}
