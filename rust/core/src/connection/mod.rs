//! One connection of the reactor.

pub mod allowance;
pub mod counts;
pub mod ids;
pub mod socket;
pub mod table;

use crate::send_queue::SendQueue;
use crate::wire::transport::{Receiver, Transport};
use allowance::Allowance;
use counts::CountGuard;
use ids::ConnectionId;
use socket::Socket;

/// The kind of the principal of a connection's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PrincipalKind {
    User = 0,
    Device = 1,
}

/// The principal of a connection, and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    pub kind: PrincipalKind,
    pub project: u64,
    pub id: u64,
    /// The first eight bytes of the key's SHA-256.
    pub key_tag: u64,
}

impl Principal {
    /// The principal without the key.
    pub fn identity(&self) -> PrincipalId {
        PrincipalId {
            kind: self.kind,
            project: self.project,
            id: self.id,
        }
    }
}

/// The identity that keys belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrincipalId {
    pub kind: PrincipalKind,
    pub project: u64,
    pub id: u64,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In the index with a send queue, without a socket. It is removed if it is not adopted before its
    /// deadline.
    Reserved,
    /// Adopted and open.
    Open,
    /// Our close frame is queued or sent; the peer's is expected until the deadline.
    Closing,
    /// Both close frames were exchanged, or the peer broke the protocol. Our side is shut once everything
    /// is written.
    Draining,
    /// Our side is shut. Further input is discarded until the peer shuts its side, or until the deadline.
    Shut,
}

/// A connection. An idle one owns no heap memory but itself.
pub struct Connection {
    pub id: ConnectionId,
    /// Counts the connection. It stands before the socket and is dropped first: the count falls before the
    /// client sees the end.
    pub count_guard: CountGuard,
    pub socket: Option<Socket>,
    /// What it speaks, and the received part of what its client sends.
    pub receiver: Receiver,
    pub send_queue: SendQueue,
    /// What the client may still send.
    pub allowance: Allowance,
    pub state: State,
    /// The last sequence of a queued command that was delivered. A repeated one is not delivered again.
    pub last_sequence: u64,
    /// The code of the close frame that was sent or received; 1006 before there was one.
    pub close_code: u16,
    /// Whether anything arrived since the last ping.
    pub active_since_ping: bool,
    /// Whether the peer has shut its side. No further edge announces the rest of its bytes.
    pub peer_finished: bool,
    /// Whether it is in the list of slow consumers.
    pub in_slow_consumers: bool,
    /// Whether it is in the list of sockets to read.
    pub in_unread: bool,
}

impl Connection {
    /// What it speaks.
    pub fn transport(&self) -> Transport {
        self.receiver.transport()
    }

    /// Whether a close frame was sent or received.
    pub fn is_closing(&self) -> bool {
        match self.state {
            State::Reserved | State::Open => false,
            State::Closing | State::Draining | State::Shut => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connection_is_small() {
        assert!(
            size_of::<Connection>() <= 176,
            "{}",
            size_of::<Connection>()
        );
    }
}
