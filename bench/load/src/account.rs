//! What a listener received: counted, and held against the order in which it was sent.

use crate::histogram::Histogram;
use crate::stamp::{Finder, Stamp};

const SECOND: f64 = 1e9;

/// The order of events on one connection: the sequence of each lane (home) goes up by one.
#[derive(Default)]
pub struct Order {
    lanes: Vec<(u64, u64)>,
}

impl Order {
    #[inline]
    /// # Errors
    /// What came instead of what was due.
    pub fn check(&mut self, stamp: Stamp, allowed: usize) -> Result<(), String> {
        let position = match self.lanes.iter().position(|(lane, _)| *lane == stamp.lane) {
            Some(position) => position,
            None if self.lanes.len() < allowed => {
                self.lanes.push((stamp.lane, 0));
                self.lanes.len() - 1
            }
            None => return Err(format!("lane {} does not belong here", stamp.lane)),
        };
        let known = &mut self.lanes[position];
        let wanted = known.1;
        known.1 = stamp.sequence + 1;
        if stamp.sequence == wanted {
            Ok(())
        } else {
            Err(format!(
                "lane {}: {} came, {wanted} was due",
                stamp.lane, stamp.sequence
            ))
        }
    }
}

/// All connections together. Times are of `sys::now`.
#[derive(Default)]
pub struct Totals {
    pub messages: u64,
    pub measured: u64,
    pub bytes: u64,
    pub payload_bytes: u64,
    pub receives: u64,
    pub faults: u64,
    pub first_fault: Option<String>,
    pub closed: u64,
    pub last_closed_at: u64,
    pub first_close: Option<u16>,
    pub first_at: u64,
    pub last_at: u64,
    /// When the newest message was sent that came, by its stamp.
    pub newest_sent: u64,
    pub latency: Histogram,
    pub finder: Finder,
}

impl Totals {
    /// Notes that something was wrong; the first such text is kept.
    pub fn fault(&mut self, text: String) {
        self.faults += 1;
        self.first_fault.get_or_insert(text);
    }

    /// One JSON line. `counts` are the messages of each connection, `wanted` their sum as it should be.
    pub fn report(
        &self,
        wanted: u64,
        counts: impl ExactSizeIterator<Item = u64> + Clone,
        connect_seconds: f64,
        cpu_seconds: f64,
    ) -> String {
        let connections = counts.len();
        let window = self.last_at.saturating_sub(self.first_at) as f64 / SECOND;
        let complete = self.messages == wanted && self.faults == 0 && self.closed == 0;
        format!(
            "{{\"connections\":{},\"expected\":{wanted},\"messages\":{},\"complete\":{complete},\"faults\":{},\
             \"first_fault\":{},\"closed\":{},\"first_close\":{},\"last_closed_ns\":{},\"fewest\":{},\"most\":{},\"bytes\":{},\
             \"payload_bytes\":{},\"receives\":{},\"connect_s\":{connect_seconds:.3},\"first_ns\":{},\"last_ns\":{},\"newest_sent_ns\":{},\
             \"window_s\":{window:.6},\"rate\":{:.0},\"cpu_s\":{cpu_seconds:.4},\"latency\":{}}}",
            connections,
            self.messages,
            self.faults,
            self.first_fault
                .as_ref()
                .map_or("null".to_owned(), |text| format!("\"{text}\"")),
            self.closed,
            self.first_close
                .map_or("null".to_owned(), |code| code.to_string()),
            self.last_closed_at,
            counts.clone().min().unwrap_or(0),
            counts.max().unwrap_or(0),
            self.bytes,
            self.payload_bytes,
            self.receives,
            self.first_at,
            self.last_at,
            self.newest_sent,
            if window > 0.0 {
                self.measured as f64 / window
            } else {
                0.0
            },
            self.latency.json(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(lane: u64, sequence: u64) -> Stamp {
        Stamp {
            sequence,
            time: 1,
            lane,
        }
    }

    #[test]
    fn losses_duplicates_and_strangers_are_faults() {
        let mut order = Order::default();
        assert!(order.check(stamp(4, 0), 2).is_ok());
        assert!(order.check(stamp(4, 1), 2).is_ok());
        assert!(order.check(stamp(5, 0), 2).is_ok());
        assert!(order.check(stamp(4, 1), 2).is_err(), "twice");
        assert!(order.check(stamp(4, 3), 2).is_err(), "one lost");
        assert!(order.check(stamp(4, 4), 2).is_ok());
        assert!(order.check(stamp(6, 0), 2).is_err(), "not subscribed");
        assert!(
            Order::default().check(stamp(1, 1), 1).is_err(),
            "the first one lost"
        );
    }
}
