//! How a connection wants its events written.

/// The encoding of a connection's events; one frame is made per event and encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// No subprotocol: each message is one Event (or Command) JSON object in a text frame.
    Plain = 0,
}
