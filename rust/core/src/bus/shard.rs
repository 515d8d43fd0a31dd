//! The shard of an id.

/// The shard of an id: CRC-16/XMODEM of its decimal digits, modulo the number of shards.
///
/// Any client of the bus can compute it; Redis Cluster hashes its keys with the same function. 0 shards
/// count as one.
pub fn shard_of(id: u64, shards: u32) -> u32 {
    u32::from(crc16(itoa::Buffer::new().format(id).as_bytes())) % shards.max(1)
}

/// CRC-16/XMODEM: polynomial 0x1021, from 0, nothing reflected.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::{crc16, shard_of};

    #[test]
    fn crc16_matches_known_vectors() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        assert_eq!(crc16(b"A"), 0x58E5);
    }

    #[test]
    fn ids_are_hashed_as_decimal_digits() {
        for id in [0, 7, 10, 123_456_789, u64::MAX] {
            let expected = u32::from(crc16(id.to_string().as_bytes())) % 64;
            assert_eq!(shard_of(id, 64), expected, "id {id}");
        }
        assert_eq!(shard_of(123_456_789, 65_536), 0x31C3);
        assert_eq!(shard_of(1, 1), 0);
        assert_eq!(shard_of(1, 0), 0);
    }
}
