//! The index against a naive model: a list of subscribers and the topics of each.
#![allow(clippy::unwrap_used)] // Failing loudly is what a test is for.

use std::collections::{BTreeMap, BTreeSet};

use homewire_core::routing::index::{AudienceId, Index, Slot};
use homewire_core::routing::topic::TopicRef;
use homewire_core::wire::encoding::Encoding;
use proptest::collection::vec;
use proptest::prelude::*;

/// Few enough that subscribers share topics and whole sets, and similar enough that a confused member
/// (project, home, kind) is another topic.
const UNIVERSE: [TopicRef<'static>; 11] = [
    home(1, 1),
    home(1, 2),
    home(2, 1),
    device(1, 1),
    device(2, 1),
    command(1, 1),
    command(2, 1),
    entity(1, 1, "lamp"),
    entity(1, 2, "lamp"),
    entity(1, 1, "door"),
    entity(2, 1, "lamp"),
];

const fn home(project: u64, home: u64) -> TopicRef<'static> {
    TopicRef::Home { project, home }
}

const fn device(project: u64, device: u64) -> TopicRef<'static> {
    TopicRef::Device {
        project,
        home: 1,
        device,
    }
}

const fn command(project: u64, device: u64) -> TopicRef<'static> {
    TopicRef::Command { project, device }
}

const fn entity(project: u64, home: u64, entity: &'static str) -> TopicRef<'static> {
    TopicRef::Entity {
        project,
        home,
        entity,
    }
}

/// A step on an index.
#[derive(Clone, Debug)]
enum Step {
    /// With these topics, with duplicates and in any order.
    Join(Vec<TopicRef<'static>>),
    /// The subscriber at this index.
    Leave(prop::sample::Index),
    Find(Vec<TopicRef<'static>>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let topics = || vec(prop::sample::select(&UNIVERSE[..]), 0..5);
    let step = prop_oneof![
        3 => topics().prop_map(Step::Join),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        2 => topics().prop_map(Step::Find),
    ];
    vec(step, 1..80)
}

struct Subscriber {
    topics: BTreeSet<TopicRef<'static>>,
    audience: AudienceId,
    place: u32,
}

/// The index, and what its caller must store.
#[derive(Default)]
struct Checked {
    index: Index,
    subscribers: BTreeMap<Slot, Subscriber>,
    next: Slot,
}

impl Checked {
    fn join(&mut self, topics: &[TopicRef<'static>]) {
        let slot = self.next;
        self.next += 1;
        let (audience, place) = self.index.join(slot, topics, Encoding::WEB_SOCKET);
        let subscriber = Subscriber {
            topics: topics.iter().copied().collect(),
            audience,
            place,
        };
        self.subscribers.insert(slot, subscriber);
    }

    fn leave(&mut self, which: prop::sample::Index) {
        if self.subscribers.is_empty() {
            return;
        }
        let slot = *self
            .subscribers
            .keys()
            .nth(which.index(self.subscribers.len()))
            .unwrap();
        let gone = self.subscribers.remove(&slot).unwrap();
        if let Some(moved) = self.index.leave(gone.audience, gone.place) {
            self.subscribers.get_mut(&moved).unwrap().place = gone.place;
        }
    }

    /// The subscribers of an event with these topics, as often as the index returns them.
    fn find(&mut self, topics: &[TopicRef<'_>]) -> Vec<Slot> {
        let mut matched = Vec::new();
        self.index.find(topics, &mut matched);
        let mut slots: Vec<Slot> = matched
            .into_iter()
            .flat_map(|audience| self.index.members(audience).iter().copied())
            .collect();
        slots.sort_unstable();
        slots
    }

    fn find_naively(&self, topics: &[TopicRef<'_>]) -> Vec<Slot> {
        self.subscribers
            .iter()
            .filter(|(_, subscriber)| topics.iter().any(|topic| subscriber.topics.contains(topic)))
            .map(|(&slot, _)| slot)
            .collect()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let sets: BTreeSet<_> = self.subscribers.values().map(|it| &it.topics).collect();
        let topics: BTreeSet<_> = sets.iter().copied().flatten().collect();
        prop_assert_eq!(self.index.audience_count(), sets.len());
        prop_assert_eq!(self.index.topic_count(), topics.len());
        for (&slot, subscriber) in &self.subscribers {
            let members = self.index.members(subscriber.audience);
            prop_assert_eq!(members.get(subscriber.place as usize), Some(&slot));
            let topics: BTreeSet<_> = self
                .index
                .topics(subscriber.audience)
                .map(|it| it.as_ref())
                .collect();
            prop_assert_eq!(&topics, &subscriber.topics);
        }
        for topic in UNIVERSE {
            prop_assert_eq!(self.find(&[topic]), self.find_naively(&[topic]));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    /// After every step each subscriber matches its topics once. Equal sets share an audience. After the
    /// last leave nothing is left.
    #[test]
    fn subscribers_match_their_topics(steps in steps()) {
        let mut checked = Checked::default();
        for step in steps {
            match step {
                Step::Join(topics) => checked.join(&topics),
                Step::Leave(which) => checked.leave(which),
                Step::Find(topics) => {
                    prop_assert_eq!(checked.find(&topics), checked.find_naively(&topics));
                }
            }
            checked.check()?;
        }
        while let Some((_, gone)) = checked.subscribers.pop_first() {
            if let Some(moved) = checked.index.leave(gone.audience, gone.place) {
                checked.subscribers.get_mut(&moved).unwrap().place = gone.place;
            }
            checked.check()?;
        }
        prop_assert_eq!((checked.index.audience_count(), checked.index.topic_count()), (0, 0));
    }
}

#[test]
fn event_with_three_topics_of_one_audience_matches_once() {
    let mut checked = Checked::default();
    let topics = [home(1, 1), device(1, 1), entity(1, 1, "lamp")];
    checked.join(&topics);
    assert_eq!(checked.find(&topics), [0]);
    assert_eq!(checked.find(&topics), [0], "the next event too");
}

#[test]
fn empty_subscription_matches_nothing() {
    let mut checked = Checked::default();
    checked.join(&[]);
    assert!(checked.find(&UNIVERSE).is_empty());
    assert_eq!(
        (checked.index.audience_count(), checked.index.topic_count()),
        (1, 0)
    );
}

#[test]
fn repeated_or_unknown_leave_changes_nothing() {
    let mut checked = Checked::default();
    checked.join(&[home(1, 1)]);
    let Subscriber {
        audience, place, ..
    } = checked.subscribers[&0];
    assert_eq!(checked.index.leave(audience, place + 1), None);
    assert_eq!(checked.index.leave(audience + 1, 0), None);
    assert_eq!(checked.find(&[home(1, 1)]), [0]);
    checked.index.leave(audience, place);
    assert_eq!(checked.index.leave(audience, place), None);
    assert_eq!(
        (checked.index.audience_count(), checked.index.topic_count()),
        (0, 0)
    );
}
