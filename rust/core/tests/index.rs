//! The index against a naive model: a list of listeners and what each asked for.
#![allow(clippy::unwrap_used)] // Failing loudly is what a test is for.

use std::collections::{BTreeMap, BTreeSet};

use homewire_core::routing::index::{AudienceId, Index, Slot};
use homewire_core::routing::topic::TopicRef;
use homewire_core::wire::encoding::Encoding;
use proptest::collection::vec;
use proptest::prelude::*;

/// Few enough that listeners share topics and whole sets of them, and alike enough that a mistaken
/// member (project, home, kind) would be another topic.
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

/// What is done to an index.
#[derive(Clone, Debug)]
enum Step {
    /// With these topics, repeated and in any order.
    Join(Vec<TopicRef<'static>>),
    /// Whoever stands there among those who are in.
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

struct Listener {
    topics: BTreeSet<TopicRef<'static>>,
    audience: AudienceId,
    place: u32,
}

/// The index, and in_same_account it what its user has to remember.
#[derive(Default)]
struct Checked {
    index: Index,
    listeners: BTreeMap<Slot, Listener>,
    next: Slot,
}

impl Checked {
    fn join(&mut self, topics: &[TopicRef<'static>]) {
        let slot = self.next;
        self.next += 1;
        let (audience, place) = self.index.join(slot, topics, Encoding::Plain);
        let listener = Listener {
            topics: topics.iter().copied().collect(),
            audience,
            place,
        };
        self.listeners.insert(slot, listener);
    }

    fn leave(&mut self, who: prop::sample::Index) {
        if self.listeners.is_empty() {
            return;
        }
        let slot = *self
            .listeners
            .keys()
            .nth(who.index(self.listeners.len()))
            .unwrap();
        let gone = self.listeners.remove(&slot).unwrap();
        if let Some(moved) = self.index.leave(gone.audience, gone.place) {
            self.listeners.get_mut(&moved).unwrap().place = gone.place;
        }
    }

    /// Who hears an event about these topics, from the index; each as often as it would.
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
        self.listeners
            .iter()
            .filter(|(_, listener)| topics.iter().any(|topic| listener.topics.contains(topic)))
            .map(|(&slot, _)| slot)
            .collect()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let sets: BTreeSet<_> = self.listeners.values().map(|it| &it.topics).collect();
        let topics: BTreeSet<_> = sets.iter().copied().flatten().collect();
        prop_assert_eq!(self.index.audience_count(), sets.len());
        prop_assert_eq!(self.index.topic_count(), topics.len());
        for (&slot, listener) in &self.listeners {
            let members = self.index.members(listener.audience);
            prop_assert_eq!(members.get(listener.place as usize), Some(&slot));
            let topics: BTreeSet<_> = self
                .index
                .topics(listener.audience)
                .map(|it| it.as_ref())
                .collect();
            prop_assert_eq!(&topics, &listener.topics);
        }
        for topic in UNIVERSE {
            prop_assert_eq!(self.find(&[topic]), self.find_naively(&[topic]));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    /// After every step everybody hears what they asked for, once; whoever asks for the same shares a
    /// audience; and when everybody left nothing is kept.
    #[test]
    fn everybody_hears_what_they_asked_for(steps in steps()) {
        let mut checked = Checked::default();
        for step in steps {
            match step {
                Step::Join(topics) => checked.join(&topics),
                Step::Leave(who) => checked.leave(who),
                Step::Find(topics) => {
                    prop_assert_eq!(checked.find(&topics), checked.find_naively(&topics));
                }
            }
            checked.check()?;
        }
        while let Some((_, gone)) = checked.listeners.pop_first() {
            if let Some(moved) = checked.index.leave(gone.audience, gone.place) {
                checked.listeners.get_mut(&moved).unwrap().place = gone.place;
            }
            checked.check()?;
        }
        prop_assert_eq!((checked.index.audience_count(), checked.index.topic_count()), (0, 0));
    }
}

#[test]
fn an_event_about_three_topics_of_one_scope_is_heard_once() {
    let mut checked = Checked::default();
    let topics = [home(1, 1), device(1, 1), entity(1, 1, "lamp")];
    checked.join(&topics);
    assert_eq!(checked.find(&topics), [0]);
    assert_eq!(checked.find(&topics), [0], "the next event too");
}

#[test]
fn nobody_hears_for_who_asked_for_nothing() {
    let mut checked = Checked::default();
    checked.join(&[]);
    assert!(checked.find(&UNIVERSE).is_empty());
    assert_eq!(
        (checked.index.audience_count(), checked.index.topic_count()),
        (1, 0)
    );
}

#[test]
fn leaving_twice_or_from_nowhere_changes_nothing() {
    let mut checked = Checked::default();
    checked.join(&[home(1, 1)]);
    let Listener {
        audience, place, ..
    } = checked.listeners[&0];
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
