//! Frames from a client: masked, fragmented, in pieces of any size.

use std::borrow::Cow;
use std::mem;
use std::str;

use super::utf8::Utf8;
use super::{MAX_CONTROL_PAYLOAD, Opcode, is_close_code};
use crate::wire::close::Violation;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7F;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
/// Two bytes, eight of a long length, four of the mask.
const MAX_HEADER: usize = 14;
const MASK_LEN: usize = 4;

const TEXT_NOT_UTF8: Violation = Violation::not_utf8("text is not UTF-8");

/// What a client sent. Payloads that arrived in one piece are borrowed from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message, checked to be UTF-8.
    Text(Cow<'a, [u8]>),
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping; the pong must have the same payload.
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong(Cow<'a, [u8]>),
    /// A close frame. It has no code if its payload was empty.
    Close {
        code: Option<u16>,
        reason: Cow<'a, str>,
    },
}

/// The receiving half of one connection.
///
/// It stores a partly received header itself. Everything else is in a box that is freed at the end of the
/// message, because tens of thousands of decoders are idle at any time.
#[derive(Debug)]
pub struct Decoder {
    pending: Option<Box<Pending>>,
    /// The maximum message length over all fragments, in bytes.
    limit: u32,
    /// Payload bytes of the current frame that have not arrived.
    remaining: u32,
    /// The header of the current frame. Its last four bytes, the mask, are rotated with the payload.
    header: [u8; MAX_HEADER],
    header_len: u8,
    phase: Phase,
    keep: bool,
    /// Frames whose header arrived since [`Decoder::take_frames`].
    frames: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header,
    Payload,
    /// After a close or a violation: further input is ignored.
    Finished,
}

/// The received part of incomplete frames.
#[derive(Debug, Default)]
struct Pending {
    message: Option<Message>,
    control: Vec<u8>,
}

/// An incomplete data message.
#[derive(Debug)]
struct Message {
    payload: Vec<u8>,
    size: u32,
    is_text: bool,
    utf8: Utf8,
}

impl Decoder {
    /// A decoder for messages of up to `max_message_bytes` (at most 4 GiB).
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            pending: None,
            limit: u32::try_from(max_message_bytes).unwrap_or(u32::MAX),
            remaining: 0,
            header: [0; MAX_HEADER],
            header_len: 0,
            phase: Phase::Header,
            keep: true,
            frames: 0,
        }
    }

    /// A decoder that checks text and binary messages by the same rules, but neither stores nor reports
    /// them.
    pub fn discarding(max_message_bytes: usize) -> Self {
        Self {
            keep: false,
            ..Self::new(max_message_bytes)
        }
    }

    /// Consumes bytes from the front of `input` up to the end of the next message or control frame.
    ///
    /// Unmasks in place. Returns `None` when `input` is used up, and always after a close or a violation.
    /// Call it in a loop for each received piece.
    ///
    /// # Errors
    /// The [`Violation`] at the byte that causes it, however the bytes were split.
    pub fn decode<'a>(
        &mut self,
        input: &mut &'a mut [u8],
    ) -> Result<Option<Incoming<'a>>, Violation> {
        if self.phase == Phase::Finished {
            *input = &mut [];
            return Ok(None);
        }
        let result = self.advance(input);
        if matches!(result, Err(_) | Ok(Some(Incoming::Close { .. }))) {
            self.phase = Phase::Finished;
            self.pending = None;
        }
        result
    }

    /// The number of frames that started since the last call, including fragments and control frames.
    pub fn take_frames(&mut self) -> u32 {
        mem::take(&mut self.frames)
    }

    /// Whether a close or a violation was seen.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Heap bytes of an incomplete message or control frame.
    pub fn buffered_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| {
            let message = pending.message.as_ref();
            size_of::<Pending>()
                + pending.control.capacity()
                + message.map_or(0, |message| message.payload.capacity())
        })
    }

    fn advance<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Incoming<'a>>, Violation> {
        loop {
            if self.phase == Phase::Header && !self.read_header(input)? {
                return Ok(None);
            }
            if self.remaining > 0 && input.is_empty() {
                return Ok(None);
            }
            if let Some(incoming) = self.read_payload(input)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// Reads the header and checks each part as soon as it is there. Returns whether the header is
    /// complete.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<bool, Violation> {
        loop {
            let len = usize::from(self.header_len);
            let length_end = 2 + extended_length(self.header[1]);
            let stop = match len {
                0 => 1,
                1 => 2,
                _ if len < length_end => length_end,
                _ => length_end + MASK_LEN,
            };
            let piece = take(input, stop - len);
            self.header[len..len + piece.len()].copy_from_slice(piece);
            self.header_len += piece.len() as u8;
            if usize::from(self.header_len) < stop {
                return Ok(false);
            }
            match stop {
                1 => self.check_first_byte()?,
                2 => self.check_second_byte()?,
                _ if stop == length_end => self.check_length()?,
                _ => {
                    self.phase = Phase::Payload;
                    self.frames = self.frames.saturating_add(1);
                    return Ok(true);
                }
            }
        }
    }

    fn check_first_byte(&self) -> Result<(), Violation> {
        let first = self.header[0];
        if first & RESERVED != 0 {
            return Err(Violation::protocol("reserved bits set"));
        }
        let in_message = self.message().is_some();
        match Opcode::from_bits(first & OPCODE) {
            None => Err(Violation::protocol("reserved opcode")),
            Some(opcode) if opcode.is_control() && first & FIN == 0 => {
                Err(Violation::protocol("fragmented control frame"))
            }
            Some(Opcode::Continuation) if !in_message => {
                Err(Violation::protocol("continuation without a message"))
            }
            Some(Opcode::Text | Opcode::Binary) if in_message => {
                Err(Violation::protocol("message inside a fragmented message"))
            }
            Some(_) => Ok(()),
        }
    }

    fn check_second_byte(&mut self) -> Result<(), Violation> {
        let second = self.header[1];
        if second & MASKED == 0 {
            return Err(Violation::protocol("frame is not masked"));
        }
        if self.is_control() && usize::from(second & LENGTH) > MAX_CONTROL_PAYLOAD {
            return Err(Violation::protocol("control frame too long"));
        }
        if extended_length(second) == 0 {
            self.check_length()?;
        }
        Ok(())
    }

    /// Sets `remaining`, or rejects the frame before any of its payload is stored.
    fn check_length(&mut self) -> Result<(), Violation> {
        let [_, second, a, b, c, d, e, f, g, h, ..] = self.header;
        let (length, minimum) = match second & LENGTH {
            LENGTH_16 => (u64::from(u16::from_be_bytes([a, b])), 126),
            LENGTH_64 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 1 << 16),
            short => (u64::from(short), 0),
        };
        if length < minimum {
            return Err(Violation::protocol("length is not minimal"));
        }
        if length >> 63 != 0 {
            return Err(Violation::protocol("length has its top bit set"));
        }
        if !self.is_control() {
            let before = self.message().map_or(0, |message| u64::from(message.size));
            if before + length > u64::from(self.limit) {
                return Err(Violation::too_big());
            }
        }
        // A data frame is within the 32-bit limit, a control frame within 125 bytes.
        self.remaining = u32::try_from(length).map_err(|_| Violation::too_big())?;
        Ok(())
    }

    /// Consumes available payload; returns what it completes.
    fn read_payload<'a>(
        &mut self,
        input: &mut &'a mut [u8],
    ) -> Result<Option<Incoming<'a>>, Violation> {
        let piece = take(input, self.remaining as usize);
        self.unmask(piece);
        self.remaining -= piece.len() as u32;
        let frame_ends = self.remaining == 0;
        if frame_ends {
            self.phase = Phase::Header;
            self.header_len = 0;
        }
        match Opcode::from_bits(self.header[0] & OPCODE) {
            Some(opcode) if opcode.is_control() => self.take_control(opcode, piece, frame_ends),
            opcode => self.take_data(opcode == Some(Opcode::Text), piece, frame_ends),
        }
    }

    fn take_control<'a>(
        &mut self,
        opcode: Opcode,
        piece: &'a [u8],
        frame_ends: bool,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        let mut earlier = match &mut self.pending {
            Some(pending) => mem::take(&mut pending.control),
            None => Vec::new(),
        };
        let payload = if earlier.is_empty() {
            Cow::Borrowed(piece)
        } else {
            earlier.extend_from_slice(piece);
            Cow::Owned(earlier)
        };
        if !frame_ends {
            self.pending.get_or_insert_default().control = payload.into_owned();
            return Ok(None);
        }
        if self.message().is_none() {
            self.pending = None;
        }
        match opcode {
            Opcode::Ping => Ok(Some(Incoming::Ping(payload))),
            Opcode::Pong => Ok(Some(Incoming::Pong(payload))),
            _ => parse_close(payload).map(Some),
        }
    }

    fn take_data<'a>(
        &mut self,
        is_text: bool,
        piece: &'a [u8],
        frame_ends: bool,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        let message_ends = frame_ends && self.header[0] & FIN != 0;
        if message_ends && self.message().is_none() {
            if is_text && str::from_utf8(piece).is_err() {
                return Err(TEXT_NOT_UTF8);
            }
            return Ok(self.report(is_text, Cow::Borrowed(piece)));
        }
        let keep = self.keep;
        let pending = self.pending.get_or_insert_default();
        let message = pending
            .message
            .get_or_insert_with(|| Message::starting(is_text));
        message.push(piece, keep)?;
        if !message_ends {
            return Ok(None);
        }
        if !message.utf8.is_complete() {
            return Err(TEXT_NOT_UTF8);
        }
        let (is_text, payload) = (message.is_text, mem::take(&mut message.payload));
        self.pending = None;
        Ok(self.report(is_text, Cow::Owned(payload)))
    }

    fn report<'a>(&self, is_text: bool, payload: Cow<'a, [u8]>) -> Option<Incoming<'a>> {
        match (self.keep, is_text) {
            (false, _) => None,
            (true, true) => Some(Incoming::Text(payload)),
            (true, false) => Some(Incoming::Binary(payload)),
        }
    }

    /// Unmasks the next piece of the payload and rotates the mask for the following piece.
    fn unmask(&mut self, piece: &mut [u8]) {
        let mask_start = 2 + extended_length(self.header[1]);
        let mask = &mut self.header[mask_start..mask_start + MASK_LEN];
        let [a, b, c, d] = [mask[0], mask[1], mask[2], mask[3]];
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = piece.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip([a, b, c, d].into_iter().cycle()) {
            *byte ^= mask;
        }
        mask.rotate_left(piece.len() % MASK_LEN);
    }

    fn message(&self) -> Option<&Message> {
        self.pending.as_ref()?.message.as_ref()
    }

    fn is_control(&self) -> bool {
        Opcode::from_bits(self.header[0] & OPCODE).is_some_and(Opcode::is_control)
    }
}

impl Message {
    fn starting(is_text: bool) -> Self {
        Self {
            payload: Vec::new(),
            size: 0,
            is_text,
            utf8: Utf8::default(),
        }
    }

    fn push(&mut self, piece: &[u8], keep: bool) -> Result<(), Violation> {
        if self.is_text {
            self.utf8.push(piece).map_err(|_| TEXT_NOT_UTF8)?;
        }
        if keep {
            self.payload.extend_from_slice(piece);
        }
        self.size += piece.len() as u32;
        Ok(())
    }
}

/// The number of bytes after the first two that state the length.
const fn extended_length(second: u8) -> usize {
    match second & LENGTH {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    }
}

/// Cuts up to `count` bytes off the front of `input`.
fn take<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let count = count.min(input.len());
    let (front, rest) = mem::take(input).split_at_mut(count);
    *input = rest;
    front
}

fn parse_close(payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, Violation> {
    let [high, low] = match *payload {
        [] => {
            return Ok(Incoming::Close {
                code: None,
                reason: Cow::Borrowed(""),
            });
        }
        [high, low, ..] => [high, low],
        [_] => return Err(Violation::protocol("close frame with half a code")),
    };
    let code = u16::from_be_bytes([high, low]);
    if !is_close_code(code) {
        return Err(Violation::protocol("close code not allowed"));
    }
    let reason = match payload {
        Cow::Borrowed(bytes) => str::from_utf8(&bytes[2..]).map(Cow::Borrowed).ok(),
        Cow::Owned(bytes) => str::from_utf8(&bytes[2..])
            .map(|reason| Cow::Owned(reason.to_owned()))
            .ok(),
    };
    match reason {
        Some(reason) => Ok(Incoming::Close {
            code: Some(code),
            reason,
        }),
        None => Err(Violation::not_utf8("close reason is not UTF-8")),
    }
}
