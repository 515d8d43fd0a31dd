//! The precedence of the query parameters `entityId`, `deviceId` and `homeId`.
//!
//! Spec 000, *userSession/websocket*: "If both homeId and deviceId parameters are present at the same time,
//! only deviceId will take effect. Also, if both deviceId and entityId parameters are present at the same
//! time, only entityId will take effect."

use std::collections::HashSet;
use std::hash::Hash;

use crate::input::Invalid;

/// The maximum number of values of one filter.
pub const MAX_VALUES: usize = 1_000;

/// The one filter in effect. Values keep the order in which they were given; duplicates are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection<'a> {
    /// No filter: every home that the user is a member of.
    All,
    Homes(Vec<u64>),
    Devices(Vec<u64>),
    Entities(Vec<&'a str>),
}

/// Selects the filter in effect from the values of the three query parameters.
///
/// A filter without effect is not parsed. `homeId` and `deviceId` may be comma-separated lists, `entityId`
/// may not.
///
/// # Errors
/// The filter in effect has an empty or malformed value, or more than [`MAX_VALUES`] values.
pub fn select<'a>(
    homes: &[&str],
    devices: &[&str],
    entities: &[&'a str],
) -> Result<Selection<'a>, Invalid> {
    if !entities.is_empty() {
        parse_entities(entities).map(Selection::Entities)
    } else if !devices.is_empty() {
        parse_ids("deviceId", devices).map(Selection::Devices)
    } else if !homes.is_empty() {
        parse_ids("homeId", homes).map(Selection::Homes)
    } else {
        Ok(Selection::All)
    }
}

fn parse_entities<'a>(values: &[&'a str]) -> Result<Vec<&'a str>, Invalid> {
    if values.len() > MAX_VALUES {
        return Err(too_many("entityId"));
    }
    if values.iter().any(|value| value.is_empty()) {
        return Err(Invalid::new("entityId", "must not be empty"));
    }
    Ok(distinct(values.to_vec()))
}

fn parse_ids(field: &'static str, values: &[&str]) -> Result<Vec<u64>, Invalid> {
    let mut ids = Vec::new();
    for value in values.iter().flat_map(|value| value.split(',')) {
        if ids.len() == MAX_VALUES {
            return Err(too_many(field));
        }
        ids.push(
            parse_id(value).ok_or_else(|| {
                Invalid::new(field, "must be a positive integer of at most 63 bits")
            })?,
        );
    }
    Ok(distinct(ids))
}

fn parse_id(digits: &str) -> Option<u64> {
    // `parse` alone would accept a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let id = digits.parse::<i64>().ok()?;
    u64::try_from(id).ok().filter(|&id| id > 0)
}

fn distinct<T: Copy + Eq + Hash>(mut values: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::with_capacity(values.len());
    values.retain(|&value| seen.insert(value));
    values
}

fn too_many(field: &'static str) -> Invalid {
    Invalid::new(field, format!("must have at most {MAX_VALUES} values"))
}
