//! WebSocket frames (RFC 6455) of the server side, without I/O.
//!
//! The [`Decoder`] takes bytes from a client in pieces of any size; the `append_*` functions write the
//! frames of the server.

mod decoder;
mod encoder;
mod utf8;

pub use decoder::{Decoder, Incoming};
pub use encoder::{
    append_close, append_frame, append_framed, append_header, end_of_frame, header_len,
};

/// The longest payload of a ping, pong or close frame, in bytes (RFC 6455, 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The maximum reason length of a close frame, in bytes: the payload starts with the two bytes of the code.
pub const MAX_CLOSE_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// The type of a frame (RFC 6455, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    /// The opcode of a four-bit number; `None` for reserved ones.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// Whether this is a close, ping or pong, which may come between the fragments of a message.
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Whether a client may send this code in a close frame (RFC 6455, 7.4, and the IANA registry).
///
/// 1004, 1005, 1006 and 1015 are reserved, 1016 to 2999 are unassigned, all others are out of range.
pub const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
