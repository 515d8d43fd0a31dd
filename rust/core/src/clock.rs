//! The clock: the only place of the core that reads the time.
//!
//! The reactor reads it at the start of each turn; whatever is due or measured in the turn counts from
//! there. A test turns a clock of its own, so that no test waits for the time or depends on it.

#![allow(clippy::disallowed_methods, reason = "this is the clock")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<ManualTime>>);

/// The time of a clock that stands until it is turned.
#[derive(Debug)]
struct ManualTime {
    began: Instant,
    began_ms: u64,
    /// Nanoseconds since then.
    passed: AtomicU64,
}

impl Clock {
    /// The clock of the machine.
    pub fn machine() -> Self {
        Self(None)
    }

    /// A clock that shows the present until it is turned by [`Clock::advance`].
    pub fn manual() -> Self {
        let machine = Self::machine();
        Self(Some(Arc::new(ManualTime {
            began: machine.now(),
            began_ms: machine.unix_ms(),
            passed: AtomicU64::new(0),
        })))
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.began + manual.passed(),
        }
    }

    /// Milliseconds since 1970 (UTC), as Redis counts them.
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
            }
            Some(manual) => manual.began_ms + manual.passed().as_millis() as u64,
        }
    }

    /// Turns a manual clock forward by less than 500 years. The clock of the machine is not turned.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            manual.passed.fetch_add(by, Ordering::SeqCst);
        }
    }
}

impl ManualTime {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_stands_until_advanced() {
        let clock = Clock::manual();
        let (now, unix_ms) = (clock.now(), clock.unix_ms());
        let same = clock.clone();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(same.now() - now, Duration::from_millis(1_500));
        assert_eq!(same.unix_ms() - unix_ms, 1_500);
        assert_eq!(same.now(), clock.now());
    }
}
