//! Where an event of a bulk body belongs: its home, device and device class.

use std::borrow::Cow;

use foldhash::{HashMap, HashSet};

/// The home of an event, its device (0: none) and the class of that device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub home: u64,
    pub device: u64,
    pub device_class: Option<&'a str>,
}

/// Why an event has no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTarget {
    /// The reason of the API.
    pub reason: &'static str,
    pub field: &'static str,
    pub problem: Cow<'static, str>,
}

impl NoTarget {
    fn new(
        reason: &'static str,
        field: &'static str,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        let problem = problem.into();
        Self {
            reason,
            field,
            problem,
        }
    }
}

/// The homes and devices that events may name.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The homes of the project, without the deactivated ones.
    pub homes: &'a HashSet<u64>,
    pub deactivated: &'a HashSet<u64>,
    /// A device's home (0: none) and class.
    pub devices: &'a HashMap<u64, (u64, String)>,
}

impl<'a> Places<'a> {
    /// The target of an event. A device determines its home; a home in the same event must be that one.
    ///
    /// # Errors
    /// [`NoTarget`] for an unknown or deactivated home, an unknown device, and ids that contradict each other.
    pub fn target(&self, home: u64, device: u64) -> Result<Target<'a>, NoTarget> {
        if device == 0 {
            return self.home_target(home);
        }
        let Some((own, device_class)) = self.devices.get(&device) else {
            return Err(NoTarget::new("NOT_FOUND", "deviceId", "unknown"));
        };
        match *own {
            0 => Err(NoTarget::new(
                "DEVICE_NOT_IN_HOME",
                "deviceId",
                "the device is in no home",
            )),
            own if home != 0 && home != own => Err(NoTarget::new(
                "INVALID_PARAMETER",
                "homeId",
                "must be the home of this device",
            )),
            own if self.deactivated.contains(&own) => Err(deactivated(own)),
            own => Ok(Target {
                home: own,
                device,
                device_class: Some(device_class),
            }),
        }
    }

    fn home_target(&self, home: u64) -> Result<Target<'a>, NoTarget> {
        match home {
            0 => Err(NoTarget::new(
                "INVALID_PARAMETER",
                "homeId",
                "homeId or deviceId is required",
            )),
            home if self.homes.contains(&home) => Ok(Target {
                home,
                device: 0,
                device_class: None,
            }),
            home if self.deactivated.contains(&home) => Err(deactivated(home)),
            _ => Err(NoTarget::new("NOT_FOUND", "homeId", "unknown")),
        }
    }
}

fn deactivated(home: u64) -> NoTarget {
    let problem = format!("home {home} is deactivated");
    NoTarget::new("HOME_DEACTIVATED", "homeId", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_has_target_or_reason() {
        let homes = HashSet::from_iter([1]);
        let deactivated = HashSet::from_iter([2]);
        let device = |home| (home, "lamp".to_owned());
        let devices = HashMap::from_iter([(11, device(1)), (12, device(2)), (13, device(0))]);
        let places = Places {
            homes: &homes,
            deactivated: &deactivated,
            devices: &devices,
        };
        let home = |home| Target {
            home,
            device: 0,
            device_class: None,
        };
        let lamp = Target {
            home: 1,
            device: 11,
            device_class: Some("lamp"),
        };
        for (home_id, device_id, target) in [(1, 0, home(1)), (0, 11, lamp), (1, 11, lamp)] {
            assert_eq!(places.target(home_id, device_id), Ok(target));
        }
        for (home_id, device_id, reason) in [
            (0, 0, "INVALID_PARAMETER"),
            (2, 0, "HOME_DEACTIVATED"),
            (3, 0, "NOT_FOUND"),
            (0, 12, "HOME_DEACTIVATED"),
            (0, 13, "DEVICE_NOT_IN_HOME"),
            (0, 14, "NOT_FOUND"),
            (2, 11, "INVALID_PARAMETER"),
        ] {
            let refused = places.target(home_id, device_id).map_err(|it| it.reason);
            assert_eq!(refused, Err(reason), "home {home_id}, device {device_id}");
        }
    }
}
