//! Close codes that the core sends: named once, with what a client should do.

/// A WebSocket close code with its reason. Below 4500: come back; from 4500 on: don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode {
    /// The number on the wire (RFC 6455 section 7.4).
    pub code: u16,
    /// A few words for whoever reads a log; at most 123 bytes.
    pub reason: &'static str,
}

/// The node goes away: reconnect at once, to another.
pub const GOING_AWAY: CloseCode = CloseCode {
    code: 1001,
    reason: "going away",
};
/// The client did not read fast enough and events were dropped: reconnect after a second.
pub const TOO_SLOW: CloseCode = CloseCode {
    code: 4001,
    reason: "too slow: reconnect",
};
/// Nothing was heard from the client for two heartbeats: reconnect at once.
pub const HEARTBEAT_MISSED: CloseCode = CloseCode {
    code: 4003,
    reason: "no heartbeat",
};
/// The handshake took too long on our side: come again after a second.
pub const TRY_AGAIN: CloseCode = CloseCode {
    code: 1013,
    reason: "try again",
};
