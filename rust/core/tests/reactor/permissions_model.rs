//! Ends of permissions against a naive model.

use std::collections::BTreeSet;

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::connection::ids::ConnectionId;
use homewire_core::routing::subscription::Subscription;
use proptest::prelude::*;

use crate::client::{Client, Received};
use crate::harness::{Node, PROJECT, copy, homes, limits, property, user};
use crate::records::{everywhere, received_so_far, route_all};

use crate::permissions::{PERMISSIONS, Permission};

/// A subscriber of the property below.
struct Subscriber {
    user: u64,
    left: BTreeSet<Permission>,
    id: ConnectionId,
    client: Client,
}

#[derive(Clone, Debug)]
enum Step {
    Event(usize),
    /// The end of a permission of the users 1 to 3 whose bit is set; in every shard, or in that of home 3
    /// alone, where it has no effect.
    End {
        permission: usize,
        users: u8,
        elsewhere: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..PERMISSIONS.len()).prop_map(Step::Event),
        1 => (0..PERMISSIONS.len(), 1u8..8, any::<bool>())
            .prop_map(|(permission, users, elsewhere)| Step::End { permission, users, elsewhere }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// All values of a filter are of one kind: for each user, what it may read of each.
fn filters() -> Vec<Vec<Permission>> {
    let of_kind =
        |wanted: fn(&Permission) -> bool| PERMISSIONS.into_iter().filter(wanted).collect();
    vec![
        of_kind(|it| matches!(it, Permission::Home(_))),
        of_kind(|it| matches!(it, Permission::Device(..))),
        of_kind(|it| matches!(it, Permission::Entity(..))),
    ]
}

fn subscription_to(permissions: &[Permission]) -> Subscription {
    let mut all = permissions
        .iter()
        .map(|permission| permission.subscription());
    let Some(mut first) = all.next() else {
        return homes(&[]);
    };
    first.topics.extend(all.flat_map(|it| it.topics));
    first
}

fn receives(permissions: &BTreeSet<Permission>, about: Permission) -> bool {
    permissions.contains(&about) || permissions.contains(&Permission::Home(about.home()))
}

proptest! {
    #![proptest_config(property(48))]

    /// Any permissions end for any users between any events. The naive model is a set of permissions for
    /// each subscriber.
    #[test]
    fn subscribers_receive_what_permissions_allow(steps in steps()) {
        let node = Node::start(limits());
        let mut subscribers = Vec::new();
        for number in 1..=3 {
            for permissions in filters() {
                let (id, client) =
                    node.connect_for(user(number), subscription_to(&permissions), false);
                let left = BTreeSet::from_iter(permissions);
                subscribers.push((Subscriber { user: number, left, id, client }, Vec::new()));
            }
        }
        for (moment, step) in steps.into_iter().enumerate() {
            let name = moment.to_string();
            match step {
                Step::Event(about) => {
                    node.route(PERMISSIONS[about].event(&name));
                    for (subscriber, expected) in &mut subscribers {
                        if receives(&subscriber.left, PERMISSIONS[about]) {
                            expected.push(Received::event(&name));
                        }
                    }
                }
                Step::End { permission, users, elsewhere } => {
                    let permission = PERMISSIONS[permission];
                    let users: Vec<u64> =
                        (1..=3).filter(|user| users >> (user - 1) & 1 == 1).collect();
                    let body = permission.body(&users);
                    let ended = ControlHeader { body: body.as_bytes(), ..permission.ended(moment as u64) };
                    if elsewhere {
                        node.route(copy(3, &ended));
                        continue;
                    }
                    route_all(&node, everywhere(&ended));
                    for (subscriber, _) in &mut subscribers {
                        if users.contains(&subscriber.user) {
                            subscriber.left.remove(&permission);
                        }
                    }
                }
            }
        }
        for (mut subscriber, expected) in subscribers {
            let received = if subscriber.left.is_empty() {
                subscriber.client.receive_until(&Received::Close(Some(4500)))
            } else {
                received_so_far(&node, subscriber.id, &mut subscriber.client)
            };
            prop_assert_eq!(received, expected, "user {} of project {}", subscriber.user, PROJECT);
        }
        prop_assert_eq!(node.stat("malformed"), 0);
    }
}
