//! The life cycle of a connection: reserved, adopted, closing, draining, removed.

use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;

use super::Reactor;
use super::slow_consumers::SendFailure;
use crate::connection::allowance::Allowance;
use crate::connection::counts::CountGuard;
use crate::connection::ids::ConnectionId;
use crate::connection::socket::Socket;
use crate::connection::{Connection, Principal, PrincipalKind, State};
use crate::reactor::notifications::Notification;
use crate::routing::subscription::Reservation;
use crate::send_queue::memory;
use crate::send_queue::{Block, SendQueue};
use crate::stats::Stats;
use crate::wire::close::{self, CloseCode};
use crate::wire::transport::{InboundLimits, MessageKind, Transport};

/// Room for what a transport adds to a message.
const FRAME_OVERHEAD: usize = 16;

/// The close code to report for a removed connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndCode(Option<u16>);

impl EndCode {
    /// The code of the close frame that was sent or received.
    pub(super) const KEEP: Self = Self(None);
    /// No close frame was exchanged.
    pub(super) const ABNORMAL: Self = Self::of(close::ABNORMAL);

    pub(super) const fn of(code: u16) -> Self {
        Self(Some(code))
    }
}

impl Reactor {
    pub(super) fn reserve(
        &mut self,
        reservation: Reservation,
        count_guard: CountGuard,
        at_ms: u64,
    ) {
        let id = reservation.id;
        let receiver = reservation
            .subscription
            .encoding
            .transport
            .receiver(InboundLimits {
                message_bytes: self.limits.message_bytes,
                keep: self.limits.deliver_messages,
            });
        let effects = self.router.subscribe(reservation, at_ms);
        self.execute(effects);
        self.connections.insert(Connection {
            id,
            count_guard,
            socket: None,
            receiver,
            send_queue: SendQueue::default(),
            allowance: Allowance::default(),
            state: State::Reserved,
            last_sequence: 0,
            close_code: close::ABNORMAL,
            active_since_ping: true,
            peer_finished: false,
            in_slow_consumers: false,
            in_unread: false,
        });
        self.reserved += 1;
        Stats::add(&self.shared.stats.reserved, 1);
        self.timers
            .add_reservation_deadline(id, self.now + self.limits.reservation);
        if self.stopping {
            self.abandon(id);
        }
    }

    pub(super) fn adopt(
        &mut self,
        id: ConnectionId,
        mut socket: Socket,
        transport: Transport,
        mut early: Vec<u8>,
    ) {
        let Some(connection) = self
            .connections
            .get(id)
            .filter(|connection| connection.state == State::Reserved)
        else {
            refuse(&mut socket, transport);
            return;
        };
        let token = mio::Token(id.as_u64() as usize);
        let descriptor = socket.descriptor();
        connection.socket = Some(socket);
        connection.state = State::Open;
        self.reserved -= 1;
        self.open += 1;
        Stats::add(&self.shared.stats.adopted, 1);
        let registered = self.poll.registry().register(
            &mut SourceFd(&descriptor),
            token,
            Interest::READABLE | Interest::WRITABLE,
        );
        if registered.is_err() {
            self.remove(id, EndCode::ABNORMAL);
            return;
        }
        self.notify_adopted(id);
        self.seal(id);
        self.flush(id);
        // Its access may have ended before it had a socket.
        self.close_if_revoked(id);
        if !early.is_empty() {
            self.received(id, &mut early);
        }
    }

    /// Only devices: nothing tracks which users are connected.
    fn notify_adopted(&mut self, id: ConnectionId) {
        let is_device = |it: &Principal| it.kind == PrincipalKind::Device;
        if self.router.principal(id).as_ref().is_some_and(is_device) {
            self.shared.notifier.push(Notification::Adopted { id });
        }
    }

    pub(super) fn abandon(&mut self, id: ConnectionId) {
        if self
            .connections
            .get(id)
            .is_some_and(|it| it.state == State::Reserved)
        {
            self.remove(id, EndCode::ABNORMAL);
        }
    }

    pub(super) fn send(&mut self, id: ConnectionId, kind: MessageKind, payload: &[u8]) {
        if !self.router.access(id).is_some_and(|it| it.is_subscribed()) {
            return;
        }
        self.seal(id);
        let Some(transport) = self.connections.get(id).map(|it| it.transport()) else {
            return;
        };
        let mut frame = Vec::with_capacity(payload.len() + FRAME_OVERHEAD);
        transport.append_message(&mut frame, kind, |out| out.extend_from_slice(payload));
        // One message may exceed the limit on its own, however long it is.
        let limit = self.limits.send_queue_bytes + memory::entry_memory(frame.len());
        self.offer_frame(id, &frame, limit);
    }

    pub(super) fn close_with(&mut self, id: ConnectionId, why: CloseCode) {
        self.close(id, why.code, why.reason);
    }

    /// Starts the close handshake: no more events, our close frame, then the peer has time to answer. A
    /// pending close determines the code, whatever the caller asks for.
    pub(super) fn close(&mut self, id: ConnectionId, code: u16, reason: &str) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let pending = self.router.access(id).and_then(|it| it.code());
        let (code, reason) = match pending {
            Some(why) => (why.code, why.reason),
            None => (code, reason),
        };
        match connection.state {
            State::Reserved => self.remove(id, EndCode::ABNORMAL),
            State::Open => {
                let stats = &self.shared.stats;
                match pending {
                    Some(&close::RESYNC) => Stats::add(&stats.resynced, 1),
                    Some(_) => Stats::add(&stats.revoked, 1),
                    None => {}
                }
                let transport = connection.transport();
                let frame = transport.close_frame(code, reason);
                let next = if transport.close_is_answered() {
                    State::Closing
                } else {
                    State::Draining
                };
                self.send_last_frame(id, code, &frame, next);
            }
            State::Closing | State::Draining | State::Shut => {}
        }
    }

    /// Leaves the audience and queues the last frame of this connection.
    pub(super) fn send_last_frame(
        &mut self,
        id: ConnectionId,
        code: u16,
        frame: &[u8],
        next: State,
    ) {
        self.unsubscribe(id);
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        connection.state = next;
        connection.close_code = code;
        self.timers
            .add_close_deadline(id, self.now + self.limits.close);
        self.offer_frame(id, frame, usize::MAX);
        self.shut_if_drained(id);
    }

    /// Shuts our side once everything is written and the close handshake is complete.
    pub(super) fn shut_if_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if connection.state == State::Draining
            && connection.send_queue.is_empty()
            && let Some(socket) = &connection.socket
        {
            let shut = socket.shut_writing();
            // Only once: each shutdown causes another edge of the socket, and another call.
            connection.state = State::Shut;
            if shut.is_err() {
                self.remove(id, EndCode::KEEP);
            }
        }
    }

    /// Writes a frame to one connection; its queue may then take `limit` bytes of memory. The block of its
    /// audience must not be open.
    pub(super) fn offer_frame(&mut self, id: ConnectionId, frame: &[u8], limit: usize) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let result = connection.send_queue.offer(
            connection.socket.as_mut(),
            &mut Block::new(frame, 0, &self.memory_account),
            limit,
            &mut self.write_counts,
        );
        self.unsent.settle(result, connection);
    }

    /// Removes or evicts the connections whose writes failed. No block is open here.
    pub(super) fn handle_failed_sends(&mut self) {
        while let Some((id, failure)) = self.unsent.failed.pop() {
            match failure {
                SendFailure::SocketDead => self.remove(id, EndCode::ABNORMAL),
                SendFailure::SlowConsumer => self.evict(id),
            }
        }
    }

    pub(super) fn evict(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        match connection.state {
            State::Open => {
                let transport = connection.transport();
                connection.send_queue.drop_unwritten(transport);
                Stats::add(&self.shared.stats.evicted, 1);
                self.close_with(id, close::SLOW_CONSUMER);
            }
            State::Reserved => self.remove(id, EndCode::ABNORMAL),
            // The close frame is queued, and its deadline is set.
            State::Closing | State::Draining | State::Shut => {}
        }
    }

    fn unsubscribe(&mut self, id: ConnectionId) {
        let effects = self.router.unsubscribe(id);
        self.execute(effects);
    }

    /// Removes a connection and closes its descriptor.
    pub(super) fn remove(&mut self, id: ConnectionId, end_code: EndCode) {
        self.unsubscribe(id);
        self.router.forget(id);
        let Some(connection) = self.connections.remove(id) else {
            return;
        };
        match &connection.socket {
            Some(socket) => {
                self.open -= 1;
                // aiohttp may still hold the original of our descriptor, and epoll keeps a socket until its
                // last copy is closed. The only error is a socket that was never registered.
                let _ = self
                    .poll
                    .registry()
                    .deregister(&mut SourceFd(&socket.descriptor()));
            }
            None => self.reserved -= 1,
        }
        Stats::add(&self.shared.stats.closed, 1);
        self.shared.connection_ids.release(id);
        self.shared.notifier.push(Notification::Closed {
            id,
            code: end_code.0.unwrap_or(connection.close_code),
        });
    }

    pub(super) fn stop(&mut self, code: u16, reason: &str, timeout: Duration) {
        self.stopping = true;
        self.timers.stop_deadline = Some(self.now + timeout);
        for id in self.connections.ids() {
            self.close(id, code, reason);
        }
    }

    pub(super) fn remove_all(&mut self) {
        for id in self.connections.ids() {
            self.remove(id, EndCode::KEEP);
        }
    }
}

/// Closes a socket whose reservation was removed because the handshake took too long.
fn refuse(socket: &mut Socket, transport: Transport) {
    use std::io::Write;
    let frame = transport.close_frame(close::TRY_AGAIN.code, close::TRY_AGAIN.reason);
    if socket.write(&frame).is_ok() {
        // Whether the peer receives it or not, the socket is closed here.
        let _ = socket.shut_writing();
    }
}
