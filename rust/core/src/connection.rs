//! One connection, as the reactor keeps it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::allowance::Allowance;
use crate::close::CloseCode;
use crate::frame::Decoder;
use crate::index::{ScopeId, Slot};
use crate::outbox::Outbox;
use crate::subjects::Stamp;
use crate::tally::Held;

/// A connection's name: its slot and the slot's generation, so that a late word about a
/// connection that is gone never reaches its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn new(slot: Slot, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    /// The number that Python keeps.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    pub(crate) fn slot(self) -> Slot {
        self.0 as u32
    }
}

impl From<u64> for ConnectionId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

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
    pub fn holder(&self) -> Holder {
        Holder {
            kind: self.kind,
            project: self.project,
            id: self.id,
        }
    }
}

/// Whom keys belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    pub kind: PrincipalKind,
    pub project: u64,
    pub id: u64,
}

/// The entities that a connection hears in whatever home its user is a member of.
#[derive(Debug)]
pub struct FollowedEntities(pub Vec<Box<str>>);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In the index with an outbox, without a socket; undone if not adopted in time.
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
    pub held: Held,
    pub socket: Option<Socket>,
    pub decoder: Decoder,
    pub outbox: Outbox,
    /// What its client may still send.
    pub allowance: Allowance,
    pub scope: ScopeId,
    /// Place among the members of `scope`.
    pub place: u32,
    pub state: State,
    /// Whether it hears homes from the moment on at which its user becomes a member.
    pub follow: bool,
    /// What it hears in such a home, if not everything.
    pub entities: Option<Box<FollowedEntities>>,
    /// When it was reserved, in ms since 1970.
    pub reserved_ms: u64,
    /// The last ticket of a kept command that it got: a repeated one is not delivered again.
    pub seen_ticket: u64,
    /// Homes that its user entered since then, and where the records of it stand in the outbox.
    pub entered: Vec<(u64, Stamp)>,
    /// Why it has to go, once a control record or a gap said so.
    pub condemned: Option<&'static CloseCode>,
    /// Where in the outbox the record stands that ends all that it hears, shard by shard.
    pub ended: Option<Stamp>,
    /// The code of the close frame that was said or heard; 1006 before there was one.
    pub close_code: u16,
    /// Whether anything arrived since the last ping.
    pub heard: bool,
    /// Whether the scope was left, so that no more events come.
    pub deaf: bool,
    /// Whether the peer said that nothing more comes: there will be no other edge to read the rest by.
    pub hung_up: bool,
    /// Whether it is listed among those that something waits for.
    pub lags: bool,
    /// Whether it is listed among those that are to be read.
    pub unread: bool,
}

/// What the kernel may hold for a taken socket, and for how long. 0 leaves the kernel's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// `SO_SNDBUF`, in bytes.
    pub send_buffer_bytes: usize,
    /// `TCP_NOTSENT_LOWAT`, in bytes.
    pub unsent_bytes: u32,
    /// `TCP_USER_TIMEOUT`.
    pub timeout: Duration,
}

impl Connection {
    /// Whether a close frame was said or heard.
    pub fn is_closing(&self) -> bool {
        match self.state {
            State::Reserved | State::Open => false,
            State::Closing | State::Draining | State::Shut => true,
        }
    }
}

/// The taken socket. Reads and writes are the kernel's `recv` and `send`; it may be a TCP socket or
/// one end of a socket pair.
pub struct Socket(TcpStream);

impl Socket {
    /// Makes the socket non-blocking, turns Nagle's algorithm off and bounds the kernel's buffers.
    ///
    /// # Errors
    /// The kernel's, when it is no socket at all.
    pub fn new(descriptor: std::os::fd::OwnedFd, options: &SocketOptions) -> io::Result<Self> {
        let stream = TcpStream::from(descriptor);
        stream.set_nonblocking(true)?;
        let socket = SockRef::from(&stream);
        if options.send_buffer_bytes > 0 {
            socket.set_send_buffer_size(options.send_buffer_bytes)?;
        }
        match stream.set_nodelay(true) {
            Ok(()) => {
                if options.unsent_bytes > 0 {
                    socket.set_tcp_notsent_lowat(options.unsent_bytes)?;
                }
                if !options.timeout.is_zero() {
                    socket.set_tcp_user_timeout(Some(options.timeout))?;
                }
            }
            // One end of a socket pair knows no such options, and needs none.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        Ok(Self(stream))
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Tells the peer that nothing more comes.
    ///
    /// # Errors
    /// The kernel's, when the peer is gone already.
    pub fn shut_writing(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A deadline of one connection; stale ones are recognised by id and state.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    pub at: Instant,
    pub id: ConnectionId,
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
