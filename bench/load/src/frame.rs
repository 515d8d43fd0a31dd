//! WebSocket frames, as far as a load client needs them (RFC 6455, section 5).

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The request key that every connection of the load client sends, and the answer to it: the floor server
/// needs no SHA-1 then, and the client can still check the answer.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What stands at the beginning of a stretch of received bytes.
#[derive(Debug, PartialEq)]
pub enum Parsed<'a> {
    /// One whole frame and how many bytes it takes.
    Frame {
        opcode: u8,
        payload: &'a [u8],
        length: usize,
    },
    Incomplete,
    Broken(&'static str),
}

/// Reads one unmasked, unfragmented frame; a server that sends anything else is reported as broken.
#[inline]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let [first, second, rest @ ..] = bytes else {
        return Parsed::Incomplete;
    };
    if first & 0xf0 != 0x80 {
        return Parsed::Broken("a fragment or reserved bits");
    }
    if second & 0x80 != 0 {
        return Parsed::Broken("a masked frame from the server");
    }
    let (header, size) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => (
            10,
            u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize,
        ),
        (126 | 127, _) => return Parsed::Incomplete,
        (size, _) => (2, usize::from(size)),
    };
    let Some(length) = size.checked_add(header) else {
        return Parsed::Broken("a length beyond memory");
    };
    match bytes.get(header..length) {
        Some(payload) => Parsed::Frame {
            opcode: first & 0x0f,
            payload,
            length,
        },
        None => Parsed::Incomplete,
    }
}

/// Appends an unmasked text frame, as a server sends it.
pub fn append_text(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x80 | TEXT);
    match payload.len() {
        size @ 0..=125 => out.push(size as u8),
        size @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            out.push(127);
            out.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// A short frame as a client sends it, its payload cut off after 125 bytes, which is all that a pong may have.
/// The mask is zero: the rule is kept and the payload needs no copying pass.
pub fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(125)];
    let mut out = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_every_length_form() {
        for size in [0, 1, 125, 126, 200, 65_535, 65_536] {
            let payload = vec![b'x'; size];
            let mut bytes = Vec::new();
            append_text(&mut bytes, &payload);
            for cut in (0..bytes.len())
                .step_by(1 + size / 100)
                .chain([bytes.len() - 1])
            {
                assert_eq!(
                    parse(&bytes[..cut]),
                    Parsed::Incomplete,
                    "{size} cut at {cut}"
                );
            }
            let length = bytes.len();
            bytes.push(0x81);
            assert_eq!(
                parse(&bytes),
                Parsed::Frame {
                    opcode: TEXT,
                    payload: &payload,
                    length
                }
            );
        }
    }

    #[test]
    fn what_a_server_must_not_send() {
        assert!(matches!(
            parse(&[0x81, 0x80, 0, 0, 0, 0]),
            Parsed::Broken(_)
        ));
        assert!(matches!(parse(&[0x01, 0x00]), Parsed::Broken(_)));
        assert!(matches!(parse(&[0xc1, 0x00]), Parsed::Broken(_)));
        let mut endless = vec![0x81, 127];
        endless.extend_from_slice(&[0xff; 8]);
        assert!(matches!(parse(&endless), Parsed::Broken(_)));
    }
}
