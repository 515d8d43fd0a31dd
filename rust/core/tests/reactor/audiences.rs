//! Who hears what, against a naive model: reserve, adopt, route, leave, control records and gaps in
//! any order, in one turn of the reactor and over several.

use homewire_core::bus::envelope::{ControlHeader, EventHeader};
use homewire_core::bus::shard::shard_of;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::reactor::inbox::Entry;
use homewire_core::reactor::notifications::Notification;
use homewire_core::routing::subscription::{DeviceInHome, Subscription};
use homewire_core::wire::frame::Opcode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{
    Node, PROJECT, Received, SHARDS, command_of, copy, devices, entry, homes, limits,
};
use crate::model::{About, Newest, Phase, Subscriber};
use crate::records::{
    DEVICE_DELETED, DEVICE_MOVED, HOME_ACTIVATED, HOME_DEACTIVATED, HOME_DELETED, KEY_ENDED, LATER,
    MEMBER_ADDED, MEMBER_REMOVED, MEMBER_WAITS, PROJECT_DISABLED, PROJECT_ENABLED, USER_DELETED,
    record,
};

#[derive(Clone, Debug)]
enum Routed {
    About(About),
    Record(Record),
}

/// A control record, by the id whose shard its copy is in (none: every shard) and by how many
/// records it is older than the last.
#[derive(Clone, Debug)]
struct Record {
    header: ControlHeader<'static>,
    at: Option<u64>,
    late: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// The last: homes that are deactivated, and the user's.
    Reserve(Principal, Subscription, bool, Vec<u64>),
    /// Each of these is done to one subscriber of those there are, also if it makes no sense.
    Adopt(Index),
    Abandon(Index),
    Say(Index),
    Close(Index),
    /// The client closes.
    Leave(Index),
    /// The client is gone without a word.
    Vanish(Index),
    Route(Vec<Routed>),
    /// Entries of the shard of this id may be missing.
    Gap(u64),
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
        // Most share one audience: there a mistake shows.
        4 => Just(homes(&[1])),
        2 => Just(homes(&[1, 2])),
        1 => Just(homes(&[2, 1, 2])),
        1 => Just(homes(&[])),
        1 => Just(devices(&[1])),
        1 => Just(devices(&[2, 1])),
        1 => Just(Subscription::Devices(vec![DeviceInHome { device: 1, home: 2 }])),
        1 => Just(homes(&[2, 3])),
        1 => Just(entities(&[1], &["lamp"])),
        1 => Just(entities(&[1, 2], &["lamp", "door"])),
        1 => Just(Subscription::Commands(1)),
    ]
}

/// Of who follows nothing they are none of its homes.
fn waiting() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![3 => Just(vec![]), 1 => Just(vec![3]), 1 => Just(vec![3, 4])]
}

fn principals() -> impl Strategy<Value = Principal> {
    let kinds = prop_oneof![4 => Just(PrincipalKind::User), 1 => Just(PrincipalKind::Device)];
    let some = (kinds, projects(), 1u64..3, 1u64..3);
    some.prop_map(|(kind, project, id, key_tag)| Principal {
        kind,
        project,
        id,
        key_tag,
    })
}

fn projects() -> impl Strategy<Value = u64> {
    prop_oneof![9 => Just(PROJECT), 1 => Just(PROJECT + 1)]
}

fn abouts() -> impl Strategy<Value = About> {
    let entities = prop::sample::select(vec![None, Some("lamp"), Some("door")]);
    prop_oneof![
        9 => (projects(), 1u64..4, 0u64..3, entities)
            .prop_map(|(project, home, device, entity)| About::Event {
                project,
                home,
                device,
                entity,
            }),
        1 => (projects(), 1u64..3).prop_map(|(project, device)| About::Command { project, device }),
    ]
}

/// Those of two keys.
const ENDED_KEYS: &str = "00000000000000010000000000000007";

fn records() -> impl Strategy<Value = Record> {
    let types = prop_oneof![
        5 => Just(MEMBER_ADDED),
        5 => Just(MEMBER_REMOVED),
        1 => Just(USER_DELETED),
        3 => Just(KEY_ENDED),
        2 => Just(DEVICE_DELETED),
        2 => Just(DEVICE_MOVED),
        1 => Just(HOME_DELETED),
        3 => Just(HOME_DEACTIVATED),
        3 => Just(HOME_ACTIVATED),
        2 => Just(MEMBER_WAITS),
        1 => Just(PROJECT_DISABLED),
        1 => Just(PROJECT_ENABLED),
    ];
    let at = prop_oneof![1 => Just(None), 2 => (1..=u64::from(SHARDS)).prop_map(Some)];
    let late = prop_oneof![4 => Just(0), 1 => 0u64..5];
    let old_homes = prop::sample::select(vec!["0", "1", "2"]);
    let ended = prop::sample::select(vec!["", "", "0000000000000002", ENDED_KEYS]);
    let ids = (1u64..3, 1u64..4, 1u64..3, 1u64..3, any::<bool>());
    (types, projects(), ids, old_homes, ended, at, late).prop_map(
        |(record_type, project, ids, old_home, ended, at, late)| {
            let (user, home, device, key_tag, of_user) = ids;
            let mut header = ControlHeader {
                project,
                ..record(record_type, 0)
            };
            match record_type {
                MEMBER_ADDED | MEMBER_WAITS => {
                    (header.user, header.home) = (user, home);
                    header.body = ended.as_bytes();
                }
                MEMBER_REMOVED => (header.user, header.home) = (user, home),
                USER_DELETED => header.user = user,
                KEY_ENDED if of_user => (header.user, header.key_tag) = (user, key_tag),
                KEY_ENDED => (header.device, header.key_tag) = (device, key_tag),
                DEVICE_DELETED => (header.device, header.home) = (device, home),
                DEVICE_MOVED => {
                    (header.device, header.home) = (device, home);
                    header.body = old_home.as_bytes();
                }
                HOME_DELETED | HOME_DEACTIVATED | HOME_ACTIVATED => header.home = home,
                _ => {}
            }
            Record { header, at, late }
        },
    )
}

fn routed() -> impl Strategy<Value = Routed> {
    prop_oneof![
        3 => abouts().prop_map(Routed::About),
        1 => records().prop_map(Routed::Record),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = any::<Index>;
    let step = prop_oneof![
        6 => (principals(), subscriptions(), any::<bool>(), waiting())
            .prop_map(|(subscriber, what, follow, waiting)| Step::Reserve(subscriber, what, follow, waiting)),
        6 => one().prop_map(Step::Adopt),
        1 => one().prop_map(Step::Abandon),
        2 => one().prop_map(Step::Say),
        2 => one().prop_map(Step::Close),
        1 => one().prop_map(Step::Leave),
        1 => one().prop_map(Step::Vanish),
        8 => vec(routed(), 1..6).prop_map(Step::Route),
        1 => (1..=u64::from(SHARDS)).prop_map(Step::Gap),
        1 => Just(Step::Fence),
        1 => Just(Step::Occupy),
    ];
    vec(step, 1..60)
}

/// A core, and what its subscribers are to hear.
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
                let follows =
                    matches!(what, Subscription::Homes(_) | Subscription::Entities { .. });
                let waiting = if follow && follows {
                    waiting
                } else {
                    Vec::new()
                };
                let id =
                    self.node
                        .reserve_with_deactivated(subscriber, what.clone(), follow, &waiting);
                let subscriber = Subscriber::new(id, subscriber, &what, follow, &waiting);
                self.subscribers.push(subscriber);
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
                    .send(subscriber.id, Opcode::Text, name.as_bytes().to_vec());
                if subscriber.is_subscribed() {
                    subscriber.expected.push(Received::Text(name));
                }
            }),
            Step::Close(subscriber) => self.with(subscriber, |node, subscriber, _| {
                // Whose close comes first when both do is nobody's to say.
                if subscriber.phase == Phase::Left {
                    return;
                }
                node.core.close(subscriber.id, 4000, String::new());
                subscriber.phase = match subscriber.phase {
                    Phase::Reserved => Phase::Undone,
                    // Whoever closes a condemned one: it hears why.
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

    fn route_record(&mut self, record: &Record, entries: &mut Vec<Entry>) {
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
                    .send(subscriber.id, Opcode::Text, b"the end".to_vec());
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
            // Whose close comes first when a client leaves that is condemned is nobody's to say.
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

    /// Every connection ends, once, and takes everything along.
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
            "audiences",
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
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    /// Each connection gets exactly what matched between its reservation and its end, as control
    /// records changed it meanwhile, in order; and the code that says why it ended.
    #[test]
    fn each_hears_what_it_asked_for_while_it_is_there(steps in steps()) {
        let mut checked = Checked::new();
        for step in steps {
            checked.take(step);
        }
        checked.check()?;
    }
}
