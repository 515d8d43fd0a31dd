//! What a client sees: WebSocket frames, JSON objects and close codes. No I/O here.

pub mod close;
pub mod encoding;
pub mod frame;
