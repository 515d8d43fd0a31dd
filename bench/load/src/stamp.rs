//! What the publisher puts into `eventData`, and how the listener finds it again inside an event.
//!
//! `{"seq":N,"ts":T,"lane":L,"pad":"xxx"}`: the sequence number of that lane (one home), the monotonic time
//! at which the request was sent, the lane, and padding.

const SEQUENCE: &[u8] = b"\"seq\":";
const TIME: &[u8] = b",\"ts\":";
const LANE: &[u8] = b",\"lane\":";

/// One stamp as it was found in a message.
#[derive(Debug, PartialEq, Clone, Copy)]
pub struct Stamp {
    pub sequence: u64,
    pub time: u64,
    pub lane: u64,
}

/// Appends `eventData` with `pad` bytes of padding.
pub fn append(out: &mut Vec<u8>, stamp: Stamp, pad: usize) {
    out.extend_from_slice(b"{\"seq\":");
    append_number(out, stamp.sequence);
    out.extend_from_slice(TIME);
    append_number(out, stamp.time);
    out.extend_from_slice(LANE);
    append_number(out, stamp.lane);
    out.extend_from_slice(b",\"pad\":\"");
    out.resize(out.len() + pad, b'x');
    out.extend_from_slice(b"\"}");
}

/// Appends `eventData` padded to `size` bytes (a stamp that is longer already stays as it is).
pub fn append_sized(out: &mut Vec<u8>, stamp: Stamp, size: usize) {
    let start = out.len();
    append(out, stamp, 0);
    let missing = size.saturating_sub(out.len() - start);
    out.truncate(out.len() - 2);
    out.resize(out.len() + missing, b'x');
    out.extend_from_slice(b"\"}");
}

pub fn append_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Finds stamps. Messages of one run look alike, so the place of the last one is tried first.
#[derive(Default)]
pub struct Finder {
    hint: usize,
}

impl Finder {
    #[inline]
    pub fn find(&mut self, message: &[u8]) -> Option<Stamp> {
        let starts_here = message
            .get(self.hint..)
            .is_some_and(|rest| rest.starts_with(SEQUENCE));
        if !starts_here {
            self.hint = message
                .windows(SEQUENCE.len())
                .position(|window| window == SEQUENCE)?;
        }
        let (sequence, rest) = number(message.get(self.hint + SEQUENCE.len()..)?)?;
        let (time, rest) = number(rest.strip_prefix(TIME)?)?;
        let (lane, _) = number(rest.strip_prefix(LANE)?)?;
        Some(Stamp {
            sequence,
            time,
            lane,
        })
    }
}

#[inline]
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut length = 0;
    while let Some(digit) = bytes
        .get(length)
        .map(|byte| byte.wrapping_sub(b'0'))
        .filter(|digit| *digit < 10)
    {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        length += 1;
    }
    if length == 0 {
        None
    } else {
        Some((value, &bytes[length..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_wherever_it_stands() {
        let mut finder = Finder::default();
        for (sequence, before) in [
            (0, "{"),
            (9, "{"),
            (1000, "{\"homeId\":12,"),
            (u64::MAX, ""),
        ] {
            let stamp = Stamp {
                sequence,
                time: 12_345,
                lane: 7,
            };
            let mut message = before.as_bytes().to_vec();
            append(&mut message, stamp, 3);
            assert_eq!(finder.find(&message), Some(stamp));
        }
        assert_eq!(finder.find(b"{\"eventType\":\"x\"}"), None);
        assert_eq!(finder.find(b""), None);
    }

    #[test]
    fn sized_to_the_byte() {
        for (sequence, time) in [(0, 0), (123_456, 1_700_000_000_000)] {
            let mut out = b"before".to_vec();
            append_sized(
                &mut out,
                Stamp {
                    sequence,
                    time,
                    lane: 0,
                },
                200,
            );
            assert_eq!(out.len(), 206);
            assert!(out.ends_with(b"x\"}"));
        }
    }
}
