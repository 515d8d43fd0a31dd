//! What sockets have to say: bytes to read, room to write.

use std::io::{self, Read};

use mio::Events;

use super::lifecycle::Ending;
use super::{Doom, Reactor, WAKER};
use crate::connection::{ConnectionId, State};
use crate::frame::{self, Incoming, Opcode, Violation};
use crate::notify::Notification;
use crate::outbox::{Block, Verdict};
use crate::stats::Stats;

/// Reads of one socket per turn; the rest comes in the next, so that one talker delays nobody.
const READS_PER_TURN: usize = 4;

/// What was heard in one read, beyond data messages and pings.
enum Heard {
    Nothing,
    Close(Option<u16>),
    Violation(Violation),
    /// Our own answers did not fit.
    TooSlow,
    /// The socket is dead.
    Gone,
}

impl Reactor {
    pub(super) fn serve_sockets(&mut self, events: &Events) {
        for id in std::mem::take(&mut self.unread) {
            self.read(id);
        }
        for event in events {
            if event.token() == WAKER {
                continue;
            }
            let id = ConnectionId::from(event.token().0 as u64);
            if event.is_writable() {
                self.flush(id);
            }
            if event.is_read_closed()
                && let Some(connection) = self.connections.get(id)
            {
                connection.hung_up = true;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(id);
            }
        }
        self.settle_doomed();
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(super) fn flush(&mut self, id: ConnectionId) {
        // Most edges say no more than that a client, which had all of it, has read what it was sent.
        let Some(connection) = self
            .connections
            .get(id)
            .filter(|it| it.outbox.awaits_room())
        else {
            return;
        };
        let Some(socket) = connection.socket.as_mut() else {
            return;
        };
        let outcome = connection.outbox.flush(socket, &mut self.written);
        self.tell_written(id);
        match outcome {
            Ok(()) => self.shut_if_drained(id),
            Err(_) => self.end(id, Ending::ABNORMAL),
        }
    }

    fn read(&mut self, id: ConnectionId) {
        for _ in 0..READS_PER_TURN {
            if self.limits.deliver_messages && self.shared.notifier.is_full() {
                Stats::add(&self.shared.stats.messages_held, 1);
                self.starved.push(id);
                return;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let outcome = match self.connections.get(id).and_then(|it| it.socket.as_mut()) {
                Some(socket) => socket.read(&mut buffer),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
            let full = buffer.len();
            let outcome = outcome.inspect(|&count| self.received(id, &mut buffer[..count]));
            self.buffer = buffer;
            match outcome {
                Ok(0) => {
                    let abnormal = self
                        .connections
                        .get(id)
                        .is_some_and(|it| it.state == State::Open);
                    let ending = if abnormal {
                        Ending::ABNORMAL
                    } else {
                        Ending::KEEP
                    };
                    return self.end(id, ending);
                }
                // A short read emptied the socket; what comes later makes a new edge. But the end
                // of the stream makes none when it came along with the last bytes.
                Ok(count) if count < full && !self.hung_up(id) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.end(id, Ending::ABNORMAL),
            }
        }
        self.unread.push(id);
    }

    fn hung_up(&mut self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|it| it.hung_up)
    }

    /// Takes bytes of a client. The connection's scope must have no open block.
    pub(super) fn received(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        match self.listen(id, bytes) {
            Heard::Nothing => {}
            Heard::Close(code) => self.close_heard(id, code),
            Heard::Violation(violation) => {
                Stats::add(&self.shared.stats.violations, 1);
                let mut frame = Vec::new();
                frame::append_close(&mut frame, violation.code, violation.reason);
                match self.connections.get(id).map(|connection| connection.state) {
                    Some(State::Open) => self.say_last(id, violation.code, &frame, State::Draining),
                    _ => self.end(id, Ending::KEEP),
                }
            }
            Heard::Gone => self.end(id, Ending::ABNORMAL),
            Heard::TooSlow => self.doomed.push((id, Doom::TooSlow)),
        }
    }

    fn listen(&mut self, id: ConnectionId, bytes: &mut [u8]) -> Heard {
        let limit = self.limits.outbox_bytes;
        let Some(connection) = self.connections.get(id) else {
            return Heard::Nothing;
        };
        connection.heard = true;
        if matches!(connection.state, State::Draining | State::Shut) {
            return Heard::Nothing;
        }
        let mut open = connection.state == State::Open;
        // Who lost its key has nothing to say any more, but is still answered until it is told.
        let may_speak = connection.condemned.is_none();
        let mut fallen_behind = false;
        let mut rest = bytes;
        loop {
            let (text, payload) = match connection.decoder.decode(&mut rest) {
                Ok(Some(Incoming::Text(payload))) => (true, payload),
                Ok(Some(Incoming::Binary(payload))) => (false, payload),
                Ok(Some(Incoming::Ping(payload))) if open => {
                    let socket = connection.socket.as_mut();
                    match connection.outbox.offer(
                        socket,
                        &mut Block::new(&pong(&payload), 0, &self.ledger),
                        limit,
                        &mut self.written,
                    ) {
                        Verdict::Accepted => {}
                        Verdict::Queued => self.lagging.note(id, &mut connection.lags),
                        Verdict::Gone => return Heard::Gone,
                        // It gets no more answers, but what it says is still read to its end:
                        // the rest of a frame must not pass for the beginning of another.
                        Verdict::TooSlow => (open, fallen_behind) = (false, true),
                    }
                    continue;
                }
                Ok(Some(Incoming::Ping(_) | Incoming::Pong(_))) => continue,
                Ok(Some(Incoming::Close { code, .. })) => return Heard::Close(code),
                Ok(None) if fallen_behind => return Heard::TooSlow,
                Ok(None) => return Heard::Nothing,
                Err(violation) => return Heard::Violation(violation),
            };
            Stats::add(&self.shared.stats.messages, 1);
            if open && may_speak {
                self.shared.notifier.push(Notification::Message {
                    id,
                    text,
                    payload: payload.into_owned(),
                });
            }
        }
    }

    /// The peer closes: answer in kind if we did not close first, then shut our side.
    fn close_heard(&mut self, id: ConnectionId, code: Option<u16>) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if connection.state == State::Open {
            let mut frame = Vec::new();
            match code {
                Some(code) => frame::append_close(&mut frame, code, ""),
                None => frame::append_frame(&mut frame, Opcode::Close, &[]),
            }
            // 1005: the peer's close frame carried no code (RFC 6455 section 7.1.5).
            self.say_last(id, code.unwrap_or(1005), &frame, State::Draining);
        } else {
            connection.state = State::Draining;
            self.shut_if_drained(id);
        }
    }
}

fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 2);
    frame::append_frame(&mut frame, Opcode::Pong, payload);
    frame
}
