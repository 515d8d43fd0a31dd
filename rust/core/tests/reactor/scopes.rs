//! Who hears what, against a naive model: reserve, adopt, route, leave in any order, in one turn
//! of the reactor and over several.

use homewire_core::connection::ConnectionId;
use homewire_core::envelope::EventHeader;
use homewire_core::frame::Opcode;
use homewire_core::inbox::{Entry, Subscription};
use homewire_core::notify::Notification;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{Client, Heard, Node, PROJECT, command, devices, entry, homes, limits};

/// What an envelope is about.
#[derive(Clone, Debug)]
enum About {
    Event {
        home: u64,
        device: u64,
        entity: Option<&'static str>,
    },
    Command {
        device: u64,
    },
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(Subscription),
    /// Each of these is done to one listener of those there are, also if it makes no sense.
    Adopt(Index),
    Abandon(Index),
    Say(Index),
    Close(Index),
    /// The client closes.
    Leave(Index),
    /// The client is gone without a word.
    Vanish(Index),
    Route(Vec<About>),
    /// The next step is in a later turn.
    Fence,
    /// The next steps are in one turn.
    Occupy,
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    let entities = |homes: &[u64], entities: &[&str]| Subscription::Entities {
        homes: homes.to_vec(),
        entities: entities.iter().map(|&it| it.into()).collect(),
    };
    prop_oneof![
        // Most share one scope: there a mistake shows.
        4 => Just(homes(&[1])),
        2 => Just(homes(&[1, 2])),
        1 => Just(homes(&[2, 1, 2])),
        1 => Just(homes(&[])),
        1 => Just(devices(&[1])),
        1 => Just(devices(&[2, 1])),
        1 => Just(entities(&[1], &["lamp"])),
        1 => Just(entities(&[1, 2], &["lamp", "door"])),
        1 => Just(Subscription::Commands(1)),
    ]
}

fn abouts() -> impl Strategy<Value = About> {
    let entities = prop::sample::select(vec![None, Some("lamp"), Some("door")]);
    prop_oneof![
        9 => (1u64..3, 0u64..3, entities)
            .prop_map(|(home, device, entity)| About::Event { home, device, entity }),
        1 => (1u64..3).prop_map(|device| About::Command { device }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = any::<Index>;
    let step = prop_oneof![
        6 => subscriptions().prop_map(Step::Reserve),
        6 => one().prop_map(Step::Adopt),
        1 => one().prop_map(Step::Abandon),
        2 => one().prop_map(Step::Say),
        2 => one().prop_map(Step::Close),
        1 => one().prop_map(Step::Leave),
        1 => one().prop_map(Step::Vanish),
        8 => vec(abouts(), 1..5).prop_map(Step::Route),
        1 => Just(Step::Fence),
        1 => Just(Step::Occupy),
    ];
    vec(step, 1..60)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Reserved,
    Open,
    /// Its reservation was undone.
    Undone,
    /// Adopted after that: it is to come again.
    Refused,
    /// We closed it.
    Closed,
    /// The client closed. It may still have heard what it had not by the last fence.
    Left,
    Vanished,
}

struct Listener {
    id: ConnectionId,
    subscription: Subscription,
    phase: Phase,
    client: Option<Client>,
    /// Everything it is to hear, in order.
    expected: Vec<Heard>,
    /// How much of it was routed before the last fence.
    settled: usize,
}

impl Listener {
    fn wants(&self, about: &About) -> bool {
        match (&self.subscription, about) {
            (Subscription::Homes(homes), About::Event { home, .. }) => homes.contains(home),
            (Subscription::Devices(devices), About::Event { home, device, .. }) => devices
                .iter()
                .any(|wanted| wanted.device == *device && wanted.home == *home),
            (Subscription::Entities { homes, entities }, About::Event { home, entity, .. }) => {
                homes.contains(home)
                    && entity.is_some_and(|it| entities.iter().any(|name| **name == *it))
            }
            (Subscription::Commands(own), About::Command { device }) => own == device,
            _ => false,
        }
    }

    fn is_heard(&self) -> bool {
        matches!(self.phase, Phase::Reserved | Phase::Open | Phase::Left)
    }
}

/// A core, and what its listeners are to hear.
struct Checked {
    node: Node,
    listeners: Vec<Listener>,
    names: u32,
}

impl Checked {
    fn new() -> Self {
        Self {
            node: Node::start(limits()),
            listeners: Vec::new(),
            names: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Reserve(subscription) => self.listeners.push(Listener {
                id: self.node.reserve(subscription.clone()),
                subscription,
                phase: Phase::Reserved,
                client: None,
                expected: Vec::new(),
                settled: 0,
            }),
            Step::Route(abouts) => self.route(&abouts),
            Step::Fence => self.fence(),
            Step::Occupy => self.node.occupy(),
            Step::Adopt(who) => self.with(who, Self::adopt),
            Step::Abandon(who) => self.with(who, |node, listener, _| {
                node.core.abandon(listener.id);
                if listener.phase == Phase::Reserved {
                    listener.phase = Phase::Undone;
                }
            }),
            Step::Say(who) => self.with(who, |node, listener, name| {
                node.core
                    .send(listener.id, Opcode::Text, name.as_bytes().to_vec());
                if listener.is_heard() {
                    listener.expected.push(Heard::Text(name));
                }
            }),
            Step::Close(who) => self.with(who, |node, listener, _| {
                // Whose close comes first when both do is nobody's to say.
                if listener.phase == Phase::Left {
                    return;
                }
                node.core.close(listener.id, 4000, String::new());
                listener.phase = match listener.phase {
                    Phase::Reserved => Phase::Undone,
                    Phase::Open => Phase::Closed,
                    other => other,
                };
            }),
            Step::Leave(who) => self.with(who, |_, listener, _| {
                if let (Phase::Open, Some(client)) = (listener.phase, &mut listener.client) {
                    client.say_close(1000);
                    listener.phase = Phase::Left;
                }
            }),
            Step::Vanish(who) => self.with(who, |_, listener, _| {
                if listener.client.take().is_some() {
                    listener.phase = Phase::Vanished;
                }
            }),
        }
    }

    fn with(&mut self, who: Index, act: impl FnOnce(&Node, &mut Listener, String)) {
        if !self.listeners.is_empty() {
            let name = self.name();
            let who = who.index(self.listeners.len());
            act(&self.node, &mut self.listeners[who], name);
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("no{}", self.names)
    }

    fn adopt(node: &Node, listener: &mut Listener, _name: String) {
        let phase = match listener.phase {
            Phase::Reserved => Phase::Open,
            Phase::Undone => Phase::Refused,
            _ => return,
        };
        listener.phase = phase;
        listener.client = Some(node.adopt(listener.id, b""));
    }

    fn route(&mut self, abouts: &[About]) {
        let mut entries = Vec::new();
        for about in abouts {
            let name = self.name();
            entries.push(envelope(about, &name));
            for listener in &mut self.listeners {
                if listener.is_heard() && listener.wants(about) {
                    listener.expected.push(Heard::event(&name));
                }
            }
        }
        assert!(self.node.core.route(entries));
    }

    fn fence(&mut self) {
        self.node.fence();
        for listener in &mut self.listeners {
            if listener.phase != Phase::Left {
                listener.settled = listener.expected.len();
            }
        }
    }

    fn check(mut self) -> Result<(), TestCaseError> {
        let end = Heard::Text("the end".to_owned());
        for listener in &mut self.listeners {
            if listener.phase == Phase::Open {
                self.node
                    .core
                    .send(listener.id, Opcode::Text, b"the end".to_vec());
            }
            let Some(client) = &mut listener.client else {
                continue;
            };
            let last = match listener.phase {
                Phase::Open => end.clone(),
                Phase::Closed => Heard::Close(Some(4000)),
                Phase::Left => Heard::Close(Some(1000)),
                _ => Heard::Close(Some(1013)),
            };
            let heard = client.hear_until(&last);
            if listener.phase == Phase::Left {
                prop_assert!(heard.len() >= listener.settled);
                prop_assert!(listener.expected.starts_with(&heard));
                prop_assert_eq!(client.hear(), Heard::End);
            } else if listener.phase == Phase::Refused {
                prop_assert_eq!(heard, []);
            } else {
                prop_assert_eq!(&heard, &listener.expected);
            }
        }
        self.check_that_nothing_is_left()
    }

    /// Every connection ends, once, and takes everything along.
    fn check_that_nothing_is_left(mut self) -> Result<(), TestCaseError> {
        for listener in &mut self.listeners {
            self.node.core.abandon(listener.id);
            listener.client = None;
        }
        let mut ended = Vec::new();
        while ended.len() < self.listeners.len() {
            if let Notification::Closed { id, .. } = self.node.notification()
                && self.listeners.iter().any(|listener| listener.id == id)
            {
                prop_assert!(!ended.contains(&id), "told twice");
                ended.push(id);
            }
        }
        self.node
            .core
            .stop(1001, String::new(), std::time::Duration::ZERO);
        for now in [
            "connections",
            "reservations",
            "scopes",
            "topics",
            "inbox_bytes",
        ] {
            prop_assert_eq!(self.node.stat(now), 0, "{}", now);
        }
        Ok(())
    }
}

fn envelope(about: &About, name: &str) -> Entry {
    match *about {
        About::Event {
            home,
            device,
            entity,
        } => entry(&EventHeader {
            project: PROJECT,
            home,
            device,
            entity,
            event_type: name,
            ..EventHeader::default()
        }),
        About::Command { device } => command(device, name),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Each connection gets exactly what matched between its reservation and its end, in order.
    #[test]
    fn each_hears_what_it_asked_for_while_it_is_there(steps in steps()) {
        let mut checked = Checked::new();
        for step in steps {
            checked.take(step);
        }
        checked.check()?;
    }
}
