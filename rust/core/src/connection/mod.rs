//! One connection, as the reactor keeps it.

pub mod allowance;
pub mod by_principal;
pub mod counts;
pub mod ids;
pub mod socket;
pub mod table;

use crate::routing::index::AudienceId;
use crate::routing::record_dedup::OutboxPosition;
use crate::routing::subscription::FollowedEntities;
use crate::send_queue::SendQueue;
use crate::wire::close::CloseCode;
use crate::wire::frame::Decoder;
use allowance::Allowance;
use counts::CountGuard;
use ids::ConnectionId;
use socket::Socket;

/// What kind of key a connection was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PrincipalKind {
    User = 0,
    Device = 1,
}

/// Who a connection speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    pub kind: PrincipalKind,
    pub project: u64,
    pub id: u64,
    /// The first eight bytes of the key's SHA-256.
    pub key_tag: u64,
}

impl Principal {
    /// Who it is, whatever key was shown.
    pub fn principal_id(&self) -> PrincipalId {
        PrincipalId {
            kind: self.kind,
            project: self.project,
            id: self.id,
        }
    }
}

/// Whom keys belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrincipalId {
    pub kind: PrincipalKind,
    pub project: u64,
    pub id: u64,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In the index with an send queue, without a socket; undone if not adopted in time.
    Reserved,
    /// Adopted and open.
    Open,
    /// Our close frame is queued or sent; the peer's is awaited until the deadline.
    Closing,
    /// Both close frames are through, or the peer broke the protocol: our side is shut as soon as
    /// everything is written.
    Draining,
    /// Our side is shut. What still arrives is thrown away until the peer shuts its own, or the
    /// deadline.
    Shut,
}

/// A connection of the reactor. Idle, it owns nothing on the heap but itself.
pub struct Connection {
    pub id: ConnectionId,
    pub principal: Principal,
    /// Its part in the counts. Before the socket, and so given back before the client sees its end.
    pub held: CountGuard,
    pub socket: Option<Socket>,
    pub decoder: Decoder,
    pub send_queue: SendQueue,
    /// What its client may still send.
    pub allowance: Allowance,
    pub audience: AudienceId,
    /// Place among the members of `audience`.
    pub place: u32,
    pub state: State,
    /// Whether it hears homes from the moment on at which its user becomes a member.
    pub follow: bool,
    /// What it hears in such a home, if not everything.
    pub entities: Option<Box<FollowedEntities>>,
    /// When it was reserved, in ms since 1970.
    pub reserved_ms: u64,
    /// The last sequence of a kept command that it got: a repeated one is not delivered again.
    pub last_sequence: u64,
    /// Homes that its user joined_homes since then, and where the records of it stand in the outbox.
    pub joined_homes: Vec<(u64, OutboxPosition)>,
    /// Why it has to go, once a control record or a gap said so.
    pub pending_close: Option<&'static CloseCode>,
    /// Where in the outbox the record stands that ends all that it hears, shard by shard.
    pub revoked_at: Option<OutboxPosition>,
    /// The code of the close frame that was said or answered; 1006 before there was one.
    pub close_code: u16,
    /// Whether anything arrived since the last ping.
    pub answered: bool,
    /// Whether the audience was left, so that no more events come.
    pub unsubscribed: bool,
    /// Whether the peer said that nothing more comes: there will be no other edge to read the rest by.
    pub peer_finished: bool,
    /// Whether it is listed among those that something waits for.
    pub in_slow_consumers: bool,
    /// Whether it is listed among those that are to be read.
    pub in_unread: bool,
}

impl Connection {
    /// Whether a close frame was said or answered.
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
    fn an_idle_connection_is_small() {
        assert!(
            size_of::<Connection>() <= 288,
            "{}",
            size_of::<Connection>()
        );
    }
}
