//! The subset of msgpack that a header needs, borrowed and without recursion.

use rmp::Marker;

use super::Malformed;

/// Reads values off the front of a record.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Opens an array; returns the number of its members.
    pub(super) fn array(&mut self) -> Result<u32, Malformed> {
        match self.marker()? {
            Marker::FixArray(len) => Ok(u32::from(len)),
            Marker::Array16 => self.number::<2>().map(|len| len as u32),
            Marker::Array32 => self.number::<4>().map(|len| len as u32),
            _ => Err(Malformed::WrongType),
        }
    }

    pub(super) fn uint(&mut self) -> Result<u64, Malformed> {
        match self.marker()? {
            Marker::FixPos(value) => Ok(u64::from(value)),
            Marker::U8 => self.number::<1>(),
            Marker::U16 => self.number::<2>(),
            Marker::U32 => self.number::<4>(),
            Marker::U64 => self.number::<8>(),
            _ => Err(Malformed::WrongType),
        }
    }

    /// A string, or `None` for nil.
    pub(super) fn optional_str(&mut self) -> Result<Option<&'a str>, Malformed> {
        let len = match self.marker()? {
            Marker::Null => return Ok(None),
            Marker::FixStr(len) => u64::from(len),
            Marker::Str8 => self.number::<1>()?,
            Marker::Str16 => self.number::<2>()?,
            Marker::Str32 => self.number::<4>()?,
            _ => return Err(Malformed::WrongType),
        };
        let bytes = self.take(len)?;
        str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Malformed::NotUtf8)
    }

    /// Skips values of any type, at any depth of nesting.
    pub(super) fn skip(&mut self, mut values: u64) -> Result<(), Malformed> {
        // Each iteration consumes at least one byte. So the loop ends with the input even if a map claims
        // 2^32 entries, and `values` cannot overflow.
        while values > 0 {
            values -= 1;
            let (bytes, nested) = self.extent()?;
            self.take(bytes)?;
            values += nested;
        }
        Ok(())
    }

    /// Reads a marker and its length. Returns the number of its own bytes and of nested values that follow.
    fn extent(&mut self) -> Result<(u64, u64), Malformed> {
        let extent = match self.marker()? {
            Marker::Null | Marker::True | Marker::False => (0, 0),
            Marker::FixPos(_) | Marker::FixNeg(_) => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(len) => (u64::from(len), 0),
            Marker::Str8 | Marker::Bin8 => (self.number::<1>()?, 0),
            Marker::Str16 | Marker::Bin16 => (self.number::<2>()?, 0),
            Marker::Str32 | Marker::Bin32 => (self.number::<4>()?, 0),
            // One byte more than the data: the type of the extension.
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (self.number::<1>()? + 1, 0),
            Marker::Ext16 => (self.number::<2>()? + 1, 0),
            Marker::Ext32 => (self.number::<4>()? + 1, 0),
            Marker::FixArray(len) => (0, u64::from(len)),
            Marker::Array16 => (0, self.number::<2>()?),
            Marker::Array32 => (0, self.number::<4>()?),
            Marker::FixMap(len) => (0, 2 * u64::from(len)),
            Marker::Map16 => (0, 2 * self.number::<2>()?),
            Marker::Map32 => (0, 2 * self.number::<4>()?),
            Marker::Reserved => return Err(Malformed::WrongType),
        };
        Ok(extent)
    }

    fn marker(&mut self) -> Result<Marker, Malformed> {
        let (&byte, rest) = self.bytes.split_first().ok_or(Malformed::Truncated)?;
        self.bytes = rest;
        Ok(Marker::from_u8(byte))
    }

    /// A big-endian integer of `BYTES` (at most eight) bytes.
    fn number<const BYTES: usize>(&mut self) -> Result<u64, Malformed> {
        let (number, rest) = self
            .bytes
            .split_first_chunk::<BYTES>()
            .ok_or(Malformed::Truncated)?;
        self.bytes = rest;
        Ok(number
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let (front, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| self.bytes.split_at_checked(len))
            .ok_or(Malformed::Truncated)?;
        self.bytes = rest;
        Ok(front)
    }
}

/// Appends the head of an array of up to 15 members.
pub(super) fn put_array(out: &mut Vec<u8>, members: u8) {
    out.push(Marker::FixArray(members).to_u8());
}

pub(super) fn put_uint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7F => out.push(Marker::FixPos(value as u8).to_u8()),
        0x80..=0xFF => put(out, Marker::U8, &[value as u8]),
        0x100..=0xFFFF => put(out, Marker::U16, &(value as u16).to_be_bytes()),
        0x1_0000..=0xFFFF_FFFF => put(out, Marker::U32, &(value as u32).to_be_bytes()),
        _ => put(out, Marker::U64, &value.to_be_bytes()),
    }
}

pub(super) fn put_str(out: &mut Vec<u8>, text: &str) {
    let len = text.len();
    match len {
        0..=31 => out.push(Marker::FixStr(len as u8).to_u8()),
        32..=0xFF => put(out, Marker::Str8, &[len as u8]),
        0x100..=0xFFFF => put(out, Marker::Str16, &(len as u16).to_be_bytes()),
        // Texts are shorter than a body, and bodies are limited to far less than 4 GiB.
        _ => put(out, Marker::Str32, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_optional_str(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_str(out, text),
        None => out.push(Marker::Null.to_u8()),
    }
}

fn put(out: &mut Vec<u8>, marker: Marker, value: &[u8]) {
    out.push(marker.to_u8());
    out.extend_from_slice(value);
}
