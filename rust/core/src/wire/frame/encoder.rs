//! Frames from the server: whole and unmasked.

use super::{MAX_CLOSE_REASON, Opcode};

const FIN: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
const MAX_HEADER: usize = 10;
/// The header length for payloads of 126 to 65,535 bytes, which most events have.
const USUAL_HEADER: usize = 4;

/// The length of the header of an unmasked frame: 2, 4 or 10 bytes.
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => MAX_HEADER,
    }
}

/// Appends a whole frame.
pub fn append_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(header_len(payload.len()) + payload.len());
    append_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the header of a frame. The caller appends the payload of `payload_len` bytes next.
pub fn append_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    let header = header(opcode, payload_len);
    out.extend_from_slice(&header[..header_len(payload_len)]);
}

/// Appends a frame whose payload is what `write` appends, of unknown length.
///
/// `write` must only append. The payload is written in its final place, and moved only if it has less than
/// 126 or more than 65,535 bytes.
pub fn append_framed(out: &mut Vec<u8>, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; USUAL_HEADER]);
    let payload = start + USUAL_HEADER;
    write(out);
    let payload_len = out.len() - payload;
    let header_len = header_len(payload_len);
    if header_len > USUAL_HEADER {
        out.resize(start + header_len + payload_len, 0);
    }
    if header_len != USUAL_HEADER {
        out.copy_within(payload..payload + payload_len, start + header_len);
        out.truncate(start + header_len + payload_len);
    }
    out[start..start + header_len].copy_from_slice(&header(opcode, payload_len)[..header_len]);
}

/// Appends a close frame. A reason of more than 123 bytes is cut between characters.
pub fn append_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(MAX_CLOSE_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    append_header(out, Opcode::Close, 2 + end);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

/// The header, in the first [`header_len`] bytes.
fn header(opcode: Opcode, payload_len: usize) -> [u8; MAX_HEADER] {
    let mut header = [0; MAX_HEADER];
    header[0] = FIN | opcode as u8;
    match payload_len {
        0..=125 => header[1] = payload_len as u8,
        126..=0xFFFF => {
            header[1] = LENGTH_16;
            header[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            header[1] = LENGTH_64;
            header[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
    header
}

/// The end of the frame that contains the byte before `offset`, in a block of whole unmasked frames (RFC
/// 6455 section 5.2); `offset` itself if it lies between two frames.
pub fn end_of_frame(block: &[u8], offset: usize) -> usize {
    let mut end = 0;
    while end < offset {
        let Some(length) = frame_length(&block[end..]) else {
            return block.len();
        };
        end = (end + length).min(block.len());
    }
    end
}

fn frame_length(frame: &[u8]) -> Option<usize> {
    match frame.get(1)? {
        126 => {
            let length: [u8; 2] = frame.get(2..4)?.try_into().ok()?;
            Some(4 + usize::from(u16::from_be_bytes(length)))
        }
        127 => {
            let length: [u8; 8] = frame.get(2..10)?.try_into().ok()?;
            usize::try_from(u64::from_be_bytes(length))
                .ok()?
                .checked_add(10)
        }
        length => Some(2 + usize::from(*length)),
    }
}
