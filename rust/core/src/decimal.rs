//! Numbers as decimal digits, without allocating.

/// Decimal digits of `u64::MAX`.
pub const MAX_DIGITS: usize = 20;

/// The digits of `value`, which are written into the end of `room`.
#[inline]
pub fn digits(value: u64, room: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let mut start = MAX_DIGITS;
    let mut rest = value;
    loop {
        start -= 1;
        room[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    &room[start..]
}

/// Appends the digits of `value`.
#[inline]
pub fn append_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(digits(value, &mut [0; MAX_DIGITS]));
}

#[cfg(test)]
mod tests {
    use super::append_integer;

    #[test]
    fn every_number_of_digits_is_written_as_the_standard_library_does() {
        let mut edges = vec![0, u64::MAX];
        edges.extend((0..20).flat_map(|power| [10u64.pow(power) - 1, 10u64.pow(power)]));
        for value in edges {
            let mut out = b"id ".to_vec();
            append_integer(&mut out, value);
            assert_eq!(out, format!("id {value}").into_bytes());
        }
    }
}
