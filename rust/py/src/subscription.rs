//! `homewire.auth.models.Principal` and `homewire.auth.subscription.Subscription` as the core reads them.

use std::borrow::Cow;

use homewire_core::connection as core;
use homewire_core::connection::PrincipalKind;
use homewire_core::routing::subscription as routing;
use homewire_core::routing::subscription::{FollowedEntities, SubscribedTopic};
use homewire_core::wire::encoding::Encoding;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A topic in the project of the principal.
#[pyclass(frozen, eq, hash, from_py_object, module = "homewire._core")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Home { home: u64 },
    Device { device: u64, home: u64 },
    Entity { entity: String, home: u64 },
    Command { device: u64 },
}

#[pymethods]
impl Topic {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}

/// The attributes of the Python class with this name; see there.
#[derive(FromPyObject)]
pub struct Subscription {
    topics: Vec<Topic>,
    follows_homes: bool,
    followed_entities: Vec<String>,
    deactivated_homes: Vec<u64>,
}

/// The attributes of the Python class with this name; see there.
#[derive(FromPyObject)]
pub struct Principal {
    #[pyo3(from_py_with = kind)]
    kind: PrincipalKind,
    project_id: u64,
    id: u64,
    key_tag: u64,
}

fn kind(kind: &Bound<'_, PyAny>) -> PyResult<PrincipalKind> {
    match kind.extract::<Cow<'_, str>>()?.as_ref() {
        "user" => Ok(PrincipalKind::User),
        "device" => Ok(PrincipalKind::Device),
        _ => Err(PyValueError::new_err(
            "only users and devices have connections",
        )),
    }
}

impl From<Principal> for core::Principal {
    fn from(principal: Principal) -> Self {
        Self {
            kind: principal.kind,
            project: principal.project_id,
            id: principal.id,
            key_tag: principal.key_tag,
        }
    }
}

impl From<Subscription> for routing::Subscription {
    fn from(subscription: Subscription) -> Self {
        let entities = subscription.followed_entities;
        let follows = subscription
            .follows_homes
            .then(|| match entities.is_empty() {
                true => routing::Follows::Homes,
                false => {
                    let names = entities.into_iter().map(String::into_boxed_str).collect();
                    routing::Follows::Entities(Box::new(FollowedEntities(names)))
                }
            });
        Self {
            topics: subscription.topics.into_iter().map(Into::into).collect(),
            follows,
            deactivated_homes: subscription.deactivated_homes,
            encoding: Encoding::WEB_SOCKET,
        }
    }
}

impl From<Topic> for SubscribedTopic {
    fn from(topic: Topic) -> Self {
        match topic {
            Topic::Home { home } => Self::Home { home },
            Topic::Device { device, home } => Self::Device { device, home },
            Topic::Entity { entity, home } => Self::Entity {
                entity: entity.into_boxed_str(),
                home,
            },
            Topic::Command { device } => Self::Command { device },
        }
    }
}
