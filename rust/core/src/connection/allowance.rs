//! What one client may send: frames and bytes per second, with a burst of some seconds.
//!
//! Two token buckets, by the clock of the reactor's turns. Each bucket stores only the time at which it is
//! full again, so a silent client costs nothing.

/// The burst, in seconds of the rate.
pub const BURST_S: f64 = 5.0;
/// The minimum burst in bytes, in messages of the maximum length, however low the rate.
const MESSAGES_AT_ONCE: f64 = 2.0;

/// The rates; 0: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Frames per second of every kind, including fragments and control frames.
    pub frames_per_s: u32,
    /// Bytes per second, as read from the socket.
    pub bytes_per_s: u32,
}

/// How much of its rates a connection has used. Times are seconds since the reactor started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    frames_full_at: f64,
    bytes_full_at: f64,
}

impl Allowance {
    /// Takes the input of one read. Returns whether it was within the allowance; `longest` is the maximum
    /// message length in bytes.
    pub fn take(
        &mut self,
        now: f64,
        frames: u32,
        bytes: usize,
        rates: &Rates,
        longest: usize,
    ) -> bool {
        let frames_burst = f64::from(rates.frames_per_s) * BURST_S;
        let bytes_burst =
            (f64::from(rates.bytes_per_s) * BURST_S).max(longest as f64 * MESSAGES_AT_ONCE);
        let within_frames = take(
            &mut self.frames_full_at,
            now,
            f64::from(frames),
            f64::from(rates.frames_per_s),
            frames_burst,
        );
        let within_bytes = take(
            &mut self.bytes_full_at,
            now,
            bytes as f64,
            f64::from(rates.bytes_per_s),
            bytes_burst,
        );
        within_frames && within_bytes
    }
}

fn take(full_at: &mut f64, now: f64, count: f64, per_s: f64, burst: f64) -> bool {
    if per_s == 0.0 {
        return true;
    }
    *full_at = full_at.max(now) + count / per_s;
    (*full_at - now) * per_s <= burst
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        frames_per_s: 10,
        bytes_per_s: 1000,
    };
    const LONGEST: usize = 4000;

    #[test]
    fn burst_is_accepted_and_next_frame_is_not() {
        let mut allowance = Allowance::default();
        for _ in 0..50 {
            assert!(allowance.take(7.0, 1, 0, &RATES, LONGEST));
        }
        assert!(!allowance.take(7.0, 1, 0, &RATES, LONGEST));
    }

    #[test]
    fn steady_client_at_rate_is_accepted() {
        let mut allowance = Allowance::default();
        for second in 0..1000 {
            assert!(allowance.take(f64::from(second), 10, 1000, &RATES, LONGEST));
        }
        assert!(allowance.take(1000.0, 50, 0, &RATES, LONGEST), "a burst");
    }

    #[test]
    fn bytes_are_limited_and_longest_message_is_accepted() {
        let mut allowance = Allowance::default();
        assert!(allowance.take(0.0, 1, 2 * LONGEST, &RATES, LONGEST));
        assert!(!allowance.take(0.0, 1, 1, &RATES, LONGEST));
        assert!(allowance.take(8.0, 1, 5000, &RATES, LONGEST));
    }

    #[test]
    fn zero_rate_is_unlimited() {
        let mut allowance = Allowance::default();
        assert!(allowance.take(0.0, u32::MAX, usize::MAX, &Rates::default(), LONGEST));
    }
}
