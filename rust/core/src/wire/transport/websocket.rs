//! WebSocket (RFC 6455): the frames of [`crate::wire::frame`], pings, and a close handshake.

use super::{InboundLimits, Incoming, MessageKind, Protocol, Replies};
use crate::wire::close::{self, Violation};
use crate::wire::frame::{self, Decoder, Opcode};

/// The receiving half of a WebSocket.
#[derive(Debug)]
pub struct WebSocket(Decoder);

impl Protocol for WebSocket {
    /// An empty ping.
    const PING: Option<&'static [u8]> = Some(&[0x89, 0]);
    const CLOSE_IS_ANSWERED: bool = true;
    const END_OF_STREAM_CODE: u16 = close::ABNORMAL;

    fn append_message(out: &mut Vec<u8>, kind: MessageKind, write: impl FnOnce(&mut Vec<u8>)) {
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        frame::append_framed(out, opcode, write);
    }

    fn append_close(out: &mut Vec<u8>, code: u16, reason: &str) {
        frame::append_close(out, code, reason);
    }

    fn append_close_reply(out: &mut Vec<u8>, code: Option<u16>) {
        match code {
            Some(code) => frame::append_close(out, code, ""),
            None => frame::append_frame(out, Opcode::Close, &[]),
        }
    }

    fn end_of_frame(block: &[u8], offset: usize) -> usize {
        frame::end_of_frame(block, offset)
    }

    fn new(limits: InboundLimits) -> Self {
        Self(if limits.keep {
            Decoder::new(limits.message_bytes)
        } else {
            Decoder::discarding(limits.message_bytes)
        })
    }

    fn receive<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        replies: &mut Replies,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        loop {
            let (kind, payload) = match self.0.decode(input)? {
                None => return Ok(None),
                Some(frame::Incoming::Text(payload)) => (MessageKind::Text, payload),
                Some(frame::Incoming::Binary(payload)) => (MessageKind::Binary, payload),
                Some(frame::Incoming::Ping(payload)) => {
                    replies.add(|out| frame::append_frame(out, Opcode::Pong, &payload));
                    continue;
                }
                Some(frame::Incoming::Pong(_)) => continue,
                Some(frame::Incoming::Close { code, .. }) => {
                    return Ok(Some(Incoming::Close { code }));
                }
            };
            return Ok(Some(Incoming::Message { kind, payload }));
        }
    }

    fn take_frames(&mut self) -> u32 {
        self.0.take_frames()
    }
}
