//! A byte stream: frames with a length over a plain socket, without pings.
//!
//! A frame is its length (four bytes, the highest first) and so many bytes. Length 0 ends the stream of its
//! sender; the server adds its close code (two bytes).

use std::borrow::Cow;
use std::mem;

use super::{InboundLimits, Incoming, MessageKind, Protocol, Replies};
use crate::wire::close::{self, Violation};

const HEADER: usize = 4;
const CLOSE: usize = HEADER + 2;

/// The receiving half of a byte stream.
#[derive(Debug)]
pub struct ByteStream {
    /// The received part of a message.
    pending: Option<Box<Pending>>,
    /// Maximum length of a message, in bytes.
    limit: u32,
    /// Bytes of the current message that have not arrived.
    remaining: u32,
    frames: u32,
    header: [u8; HEADER],
    header_len: u8,
    keep: bool,
}

#[derive(Debug, Default)]
struct Pending {
    payload: Vec<u8>,
}

impl Protocol for ByteStream {
    const PING: Option<&'static [u8]> = None;
    const CLOSE_IS_ANSWERED: bool = false;
    const END_OF_STREAM_CODE: u16 = close::NORMAL.code;

    fn append_message(out: &mut Vec<u8>, _: MessageKind, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        write(out);
        let payload = out.len() - start - HEADER;
        out[start..start + HEADER].copy_from_slice(&(payload as u32).to_be_bytes());
    }

    fn append_close(out: &mut Vec<u8>, code: u16, _: &str) {
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(&code.to_be_bytes());
    }

    fn append_close_reply(out: &mut Vec<u8>, code: Option<u16>) {
        Self::append_close(out, code.unwrap_or(close::NORMAL.code), "");
    }

    fn end_of_frame(block: &[u8], offset: usize) -> usize {
        let mut end = 0;
        while end < offset {
            let Some(&header) = block[end..].first_chunk::<HEADER>() else {
                return block.len();
            };
            end += match u32::from_be_bytes(header) {
                0 => CLOSE,
                length => HEADER + length as usize,
            };
        }
        end.min(block.len())
    }

    fn new(limits: InboundLimits) -> Self {
        Self {
            pending: None,
            limit: u32::try_from(limits.message_bytes).unwrap_or(u32::MAX),
            remaining: 0,
            frames: 0,
            header: [0; HEADER],
            header_len: 0,
            keep: limits.keep,
        }
    }

    fn receive<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        _: &mut Replies,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        while !input.is_empty() {
            if self.remaining == 0 && self.read_header(input)? {
                return Ok(Some(Incoming::Close { code: None }));
            }
            let count = input.len().min(self.remaining as usize);
            let (piece, rest) = mem::take(input).split_at_mut(count);
            *input = rest;
            self.remaining -= count as u32;
            if let Some(payload) = self.take_piece(piece) {
                let kind = MessageKind::Binary;
                return Ok(Some(Incoming::Message { kind, payload }));
            }
        }
        Ok(None)
    }

    fn take_frames(&mut self) -> u32 {
        mem::take(&mut self.frames)
    }
}

impl ByteStream {
    /// Reads the available part of a header. Returns whether it ends the stream.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<bool, Violation> {
        while usize::from(self.header_len) < HEADER {
            let Some((first, rest)) = mem::take(input).split_first_mut() else {
                return Ok(false);
            };
            self.header[usize::from(self.header_len)] = *first;
            self.header_len += 1;
            *input = rest;
        }
        self.header_len = 0;
        self.frames = self.frames.saturating_add(1);
        self.remaining = u32::from_be_bytes(self.header);
        if self.remaining > self.limit {
            return Err(Violation::too_big());
        }
        Ok(self.remaining == 0)
    }

    /// Stores a piece of the current message; returns the message if it is complete.
    fn take_piece<'a>(&mut self, piece: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if !self.keep || piece.is_empty() {
            return None;
        }
        match (self.pending.take(), self.remaining) {
            (None, 0) => Some(Cow::Borrowed(piece)),
            (pending, remaining) => {
                let mut pending = pending.unwrap_or_default();
                pending.payload.extend_from_slice(piece);
                if remaining == 0 {
                    return Some(Cow::Owned(pending.payload));
                }
                self.pending = Some(pending);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_all(pieces: &mut [Vec<u8>], limits: InboundLimits) -> Vec<Incoming<'static>> {
        let mut half = ByteStream::new(limits);
        let mut received = Vec::new();
        for piece in pieces {
            let mut input = piece.as_mut_slice();
            while let Some(incoming) = half.receive(&mut input, &mut Replies::default()).unwrap() {
                received.push(match incoming {
                    Incoming::Message { kind, payload } => Incoming::Message {
                        kind,
                        payload: Cow::Owned(payload.into_owned()),
                    },
                    Incoming::Close { code } => Incoming::Close { code },
                });
            }
        }
        received
    }

    #[test]
    fn messages_are_read_however_they_are_split() {
        let limits = InboundLimits {
            message_bytes: 10,
            keep: true,
        };
        let message = |payload: &[u8]| Incoming::Message {
            kind: MessageKind::Binary,
            payload: Cow::Owned(payload.to_vec()),
        };
        let mut sent = Vec::new();
        for payload in [&b"one"[..], b"three"] {
            ByteStream::append_message(&mut sent, MessageKind::Text, |out| {
                out.extend_from_slice(payload);
            });
        }
        sent.extend_from_slice(&[0; HEADER]);
        let expected = [
            message(b"one"),
            message(b"three"),
            Incoming::Close { code: None },
        ];
        for split in 0..=sent.len() {
            let (first, second) = sent.split_at(split);
            let received = receive_all(&mut [first.to_vec(), second.to_vec()], limits);
            assert_eq!(received, expected, "split at {split}");
        }
        let dropped = InboundLimits {
            keep: false,
            ..limits
        };
        assert_eq!(receive_all(&mut [sent], dropped), expected[2..]);
    }

    #[test]
    fn longer_message_is_refused_at_its_header() {
        let limits = InboundLimits {
            message_bytes: 10,
            keep: false,
        };
        let mut header = 11u32.to_be_bytes();
        let outcome =
            ByteStream::new(limits).receive(&mut header.as_mut_slice(), &mut Replies::default());
        assert_eq!(outcome, Err(Violation::too_big()));
    }

    #[test]
    fn end_of_frame_is_found_at_each_offset() {
        let mut block = Vec::new();
        for payload in [&b"ab"[..], b"cde"] {
            ByteStream::append_message(&mut block, MessageKind::Text, |out| {
                out.extend_from_slice(payload);
            });
        }
        ByteStream::append_close(&mut block, 4001, "");
        let ends = [0, 6, 13, 19];
        for offset in 0..=block.len() {
            let expected = ends.iter().find(|&&end| end >= offset).unwrap();
            assert_eq!(ByteStream::end_of_frame(&block, offset), *expected);
        }
    }
}
