//! The protocol that a client sees: transports, JSON objects and close codes. No I/O.

pub mod close;
pub mod encoding;
pub mod frame;
pub mod transport;
