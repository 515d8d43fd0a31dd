//! Latencies in logarithmic buckets: recording costs a few instructions, quantiles are within 1.6 %.

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;

pub struct Histogram {
    buckets: Vec<u64>,
    samples: u64,
    largest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    pub fn new() -> Self {
        Self {
            buckets: vec![0; SUB * (64 - SUB_BITS as usize + 1)],
            samples: 0,
            largest: 0,
        }
    }

    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.samples += 1;
        self.largest = self.largest.max(nanoseconds);
    }

    /// The value below which `share` of the samples lie, in nanoseconds; 0 without samples.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.samples as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (position, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(position).min(self.largest);
            }
        }
        0
    }

    /// A JSON object with the usual quantiles in microseconds.
    pub fn json(&self) -> String {
        let micro = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        format!(
            "{{\"samples\":{},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1}}}",
            self.samples,
            micro(self.quantile(0.5)),
            micro(self.quantile(0.99)),
            micro(self.quantile(0.999)),
            micro(self.largest),
        )
    }
}

fn bucket(value: u64) -> usize {
    let magnitude = 63 - (value | 1).leading_zeros();
    if magnitude < SUB_BITS {
        return value as usize;
    }
    let shift = magnitude - SUB_BITS;
    (shift as usize + 1) * SUB + ((value >> shift) as usize & (SUB - 1))
}

fn upper_bound(position: usize) -> u64 {
    if position < SUB {
        return position as u64;
    }
    let shift = (position / SUB - 1) as u32;
    let lower = ((SUB + position % SUB) as u64) << shift;
    lower + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values_in_order() {
        let mut last = 0;
        for shift in 0..64 {
            for value in [
                1u64 << shift,
                (1u64 << shift) | (1u64 << shift) >> 3,
                u64::MAX >> (63 - shift),
            ] {
                let position = bucket(value);
                assert!(position >= last || value < upper_bound(last));
                assert!(upper_bound(position) >= value);
                assert!(upper_bound(position) - value <= value / 32, "{value}");
                last = last.max(position);
            }
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let mut histogram = Histogram::new();
        for value in 1..=100_000 {
            histogram.record(value);
        }
        let p99 = histogram.quantile(0.99) as f64;
        assert!((p99 / 99_000.0 - 1.0).abs() < 0.02, "{p99}");
        assert_eq!(histogram.quantile(1.0), 100_000);
        assert_eq!(Histogram::new().quantile(0.5), 0);
    }
}
