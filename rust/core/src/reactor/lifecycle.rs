//! A connection's life: reserved, adopted, closing, draining, ended.

use std::time::{Duration, Instant};

use mio::Interest;
use mio::unix::SourceFd;

use super::{Doom, Reactor};
use crate::connection::allowance::Allowance;
use crate::connection::counts::Held;
use crate::connection::ids::ConnectionId;
use crate::connection::socket::Socket;
use crate::connection::{Connection, PrincipalKind, State};
use crate::reactor::notifications::Notification;
use crate::routing::subscription::{Reservation, followed, subscription_topics};
use crate::routing::topic::TopicRef;
use crate::send_queue::memory;
use crate::send_queue::{Block, Outbox, Verdict};
use crate::stats::Stats;
use crate::wire::close::{self, CloseCode};
use crate::wire::frame::{self, Decoder, Opcode};

/// How a connection ended, for whoever keeps count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending(Option<u16>);

impl Ending {
    /// The code that was said when closing began.
    pub(super) const KEEP: Self = Self(None);
    /// No close frame was exchanged (RFC 6455 section 7.1.5).
    pub(super) const ABNORMAL: Self = Self(Some(1006));
}

impl Reactor {
    pub(super) fn reserve(&mut self, reservation: Reservation, held: Held, at_ms: u64) {
        let Reservation {
            id,
            principal,
            subscription,
            follow,
            waiting,
            encoding,
            ..
        } = reservation;
        let project = principal.project;
        let mut topics = subscription_topics(project, &subscription);
        topics.extend(
            waiting
                .iter()
                .map(|&home| TopicRef::Waiting { project, home }),
        );
        let (scope, place) = self.index.join(id.slot(), &topics, encoding);
        drop(topics);
        self.seal(scope, place as usize);
        let (follow, entities) = if follow {
            followed(subscription)
        } else {
            (false, None)
        };
        let decoder = if self.limits.deliver_messages {
            Decoder::new(self.limits.message_bytes)
        } else {
            Decoder::discarding(self.limits.message_bytes)
        };
        self.connections.insert(Connection {
            id,
            principal,
            held,
            socket: None,
            decoder,
            outbox: Outbox::default(),
            allowance: Allowance::default(),
            scope,
            place,
            state: State::Reserved,
            follow,
            entities,
            reserved_ms: at_ms,
            seen_ticket: 0,
            entered: Vec::new(),
            condemned: None,
            ended: None,
            close_code: 1006,
            heard: true,
            deaf: false,
            hung_up: false,
            lags: false,
            unread: false,
        });
        self.reserved += 1;
        Stats::add(&self.shared.stats.reserved, 1);
        self.tell_of_device(id, |id, project, device| Notification::Reserved {
            id,
            project,
            device,
        });
        self.timers
            .expect_adoption(id, Instant::now() + self.limits.reservation);
        if self.stopping {
            self.abandon(id);
        }
    }

    pub(super) fn adopt(&mut self, id: ConnectionId, mut socket: Socket, mut early: Vec<u8>) {
        let Some(connection) = self
            .connections
            .get(id)
            .filter(|connection| connection.state == State::Reserved)
        else {
            refuse(&mut socket);
            return;
        };
        let token = mio::Token(id.as_u64() as usize);
        let descriptor = socket.descriptor();
        connection.socket = Some(socket);
        connection.state = State::Open;
        let scope = connection.scope;
        self.reserved -= 1;
        self.open += 1;
        Stats::add(&self.shared.stats.adopted, 1);
        let registered = self.poll.registry().register(
            &mut SourceFd(&descriptor),
            token,
            Interest::READABLE | Interest::WRITABLE,
        );
        if registered.is_err() {
            self.end(id, Ending::ABNORMAL);
            return;
        }
        self.tell_of_device(id, |id, _, _| Notification::Adopted { id });
        self.seal(scope, usize::MAX);
        self.flush(id);
        // What it may not hear any more ended while nobody could tell it.
        self.close_condemned(id);
        if !early.is_empty() {
            self.received(id, &mut early);
        }
    }

    /// Of users nobody keeps a list.
    fn tell_of_device(
        &mut self,
        id: ConnectionId,
        notification: fn(ConnectionId, u64, u64) -> Notification,
    ) {
        if let Some(connection) = self.connections.get(id)
            && connection.principal.kind == PrincipalKind::Device
        {
            let (project, device) = (connection.principal.project, connection.principal.id);
            self.shared.notifier.push(notification(id, project, device));
        }
    }

    pub(super) fn abandon(&mut self, id: ConnectionId) {
        if self
            .connections
            .get(id)
            .is_some_and(|it| it.state == State::Reserved)
        {
            self.end(id, Ending::ABNORMAL);
        }
    }

    pub(super) fn send(&mut self, id: ConnectionId, opcode: Opcode, payload: &[u8]) {
        let Some(connection) = self
            .connections
            .get(id)
            .filter(|connection| !connection.deaf)
        else {
            return;
        };
        let scope = connection.scope;
        self.seal(scope, usize::MAX);
        let mut frame = Vec::with_capacity(payload.len() + 10);
        frame::append_frame(&mut frame, opcode, payload);
        // However long one message is, it passes the bound by itself alone.
        let limit = self.limits.outbox_bytes + memory::entry_memory(frame.len());
        self.offer_frame(id, &frame, limit);
    }

    pub(super) fn close_with(&mut self, id: ConnectionId, why: CloseCode) {
        self.close(id, why.code, why.reason);
    }

    /// Begins the close handshake: no more events, our close frame, then the peer has its time.
    /// Whoever closes one that is condemned: it hears why.
    pub(super) fn close(&mut self, id: ConnectionId, code: u16, reason: &str) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let (code, reason) = match connection.condemned {
            Some(why) => (why.code, why.reason),
            None => (code, reason),
        };
        match connection.state {
            State::Reserved => self.end(id, Ending::ABNORMAL),
            State::Open => {
                let stats = &self.shared.stats;
                match connection.condemned {
                    Some(&close::RESYNC) => Stats::add(&stats.resynced, 1),
                    Some(_) => Stats::add(&stats.revoked, 1),
                    None => {}
                }
                let mut frame = Vec::new();
                frame::append_close(&mut frame, code, reason);
                self.say_last(id, code, &frame, State::Closing);
            }
            State::Closing | State::Draining | State::Shut => {}
        }
    }

    /// Leaves the scope and queues the last frame this connection gets.
    pub(super) fn say_last(&mut self, id: ConnectionId, code: u16, frame: &[u8], next: State) {
        self.leave(id);
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        connection.state = next;
        connection.close_code = code;
        self.timers
            .expect_end(id, Instant::now() + self.limits.close);
        self.offer_frame(id, frame, usize::MAX);
        self.shut_if_drained(id);
    }

    /// Shuts our side once everything is said and the close handshake is through.
    pub(super) fn shut_if_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if connection.state == State::Draining
            && connection.outbox.is_empty()
            && let Some(socket) = &connection.socket
        {
            let shut = socket.shut_writing();
            // Once only: each shutdown makes the socket's next edge, and so its own next turn.
            connection.state = State::Shut;
            if shut.is_err() {
                self.end(id, Ending::KEEP);
            }
        }
    }

    /// Writes a frame to one connection, for which at most `limit` bytes of memory may then wait. Its
    /// scope's block must not be open.
    pub(super) fn offer_frame(&mut self, id: ConnectionId, frame: &[u8], limit: usize) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let verdict = connection.outbox.offer(
            connection.socket.as_mut(),
            &mut Block::new(frame, 0, &self.ledger),
            limit,
            &mut self.written,
        );
        match verdict {
            Verdict::Accepted => {}
            Verdict::Queued => self.lagging.note(id, &mut connection.lags),
            Verdict::TooSlow => self.doomed.push((id, Doom::TooSlow)),
            Verdict::Gone => self.doomed.push((id, Doom::Gone)),
        }
    }

    /// Ends or closes what could not be written to. Nothing is open or borrowed here.
    pub(super) fn settle_doomed(&mut self) {
        while let Some((id, doom)) = self.doomed.pop() {
            match doom {
                Doom::Gone => self.end(id, Ending::ABNORMAL),
                Doom::TooSlow => self.give_up_on(id),
            }
        }
    }

    pub(super) fn give_up_on(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        match connection.state {
            State::Open => {
                connection.outbox.drop_unwritten();
                Stats::add(&self.shared.stats.too_slow, 1);
                self.close_with(id, close::TOO_SLOW);
            }
            State::Reserved => self.end(id, Ending::ABNORMAL),
            // Its close frame is on the way, and its deadline running.
            State::Closing | State::Draining | State::Shut => {}
        }
    }

    pub(super) fn leave(&mut self, id: ConnectionId) {
        let Some(connection) = self
            .connections
            .get(id)
            .filter(|connection| !connection.deaf)
        else {
            return;
        };
        connection.deaf = true;
        let (scope, place) = (connection.scope, connection.place);
        self.seal(scope, usize::MAX);
        // Sealing writes, and a write may find other sockets dead, but it moves nobody:
        // they are only noted as doomed.
        if let Some(moved) = self.index.leave(scope, place)
            && let Some(connection) = self.connections.at(moved)
        {
            connection.place = place;
        }
    }

    /// Forgets a connection and closes its descriptor.
    pub(super) fn end(&mut self, id: ConnectionId, ending: Ending) {
        self.leave(id);
        let Some(connection) = self.connections.remove(id) else {
            return;
        };
        match &connection.socket {
            Some(socket) => {
                self.open -= 1;
                // aiohttp may still hold the descriptor that ours was copied from, and epoll
                // forgets a socket only with its last copy.
                // The one error is that it was never registered: then there is nothing to forget.
                let _ = self
                    .poll
                    .registry()
                    .deregister(&mut SourceFd(&socket.descriptor()));
            }
            None => self.reserved -= 1,
        }
        Stats::add(&self.shared.stats.closed, 1);
        self.shared.slots.give_back(id);
        self.shared.notifier.push(Notification::Closed {
            id,
            code: ending.0.unwrap_or(connection.close_code),
        });
    }

    pub(super) fn stop(&mut self, code: u16, reason: &str, patience: Duration) {
        self.stopping = true;
        self.timers.last_call = Some(Instant::now() + patience);
        for id in self.connections.ids() {
            self.close(id, code, reason);
        }
    }

    pub(super) fn end_all(&mut self) {
        for id in self.connections.ids() {
            self.end(id, Ending::KEEP);
        }
    }
}

/// Tells a client whose reservation is gone (its handshake took too long) to come again.
fn refuse(socket: &mut Socket) {
    use std::io::Write;
    let mut frame = Vec::new();
    frame::append_close(&mut frame, close::TRY_AGAIN.code, close::TRY_AGAIN.reason);
    if socket.write(&frame).is_ok() {
        // Whether the peer hears it or not, the socket ends here.
        let _ = socket.shut_writing();
    }
}
