//! Random steps of the property in `audiences.rs`.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::routing::subscription::Subscription;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{PROJECT, SHARDS, commands_to, devices, devices_in, homes};
use crate::model::About;
use crate::records::{
    DEVICE_DELETED, DEVICE_MOVED, HOME_ACTIVATED, HOME_DEACTIVATED, HOME_DELETED, KEY_ENDED,
    MEMBER_ADDED, MEMBER_REMOVED, MEMBER_WAITS, PROJECT_DISABLED, PROJECT_ENABLED, USER_DELETED,
    entities, record,
};

#[derive(Clone, Debug)]
pub enum Routed {
    About(About),
    Record(Record),
}

/// A control record, the id of its copy's shard (none: every shard), and how many records it is older than
/// the last.
#[derive(Clone, Debug)]
pub struct Record {
    pub header: ControlHeader<'static>,
    pub at: Option<u64>,
    pub late: u64,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// The last member: deactivated homes of the user.
    Reserve(Principal, Subscription, bool, Vec<u64>),
    /// Each of the following steps acts on one existing subscriber, also where it has no effect.
    Adopt(Index),
    Abandon(Index),
    Say(Index),
    Close(Index),
    /// The client closes.
    Leave(Index),
    /// The client disconnects without a close frame.
    Vanish(Index),
    Route(Vec<Routed>),
    /// Entries of the shard of this id may be missing.
    Gap(u64),
    /// The next step happens in a later turn.
    Fence,
    /// The next steps happen in one turn.
    Occupy,
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    prop_oneof![
        // Most subscribers share one audience, where a mistake shows.
        4 => Just(homes(&[1])),
        2 => Just(homes(&[1, 2])),
        1 => Just(homes(&[2, 1, 2])),
        1 => Just(homes(&[])),
        1 => Just(devices(&[1])),
        1 => Just(devices(&[2, 1])),
        1 => Just(devices_in(&[(2, 1)])),
        1 => Just(homes(&[2, 3])),
        1 => Just(entities(&[1], &["lamp"])),
        1 => Just(entities(&[1, 2], &["lamp", "door"])),
        1 => Just(commands_to(1)),
    ]
}

/// Without following they have no effect.
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

/// Two key tags.
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

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
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
