//! The protocol that a client sees: WebSocket frames, JSON objects and close codes. No I/O.

pub mod close;
pub mod encoding;
pub mod frame;
