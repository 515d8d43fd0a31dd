//! Socket events: bytes to read, room to write.

use std::io::{self, Read};

use mio::Events;

use super::lifecycle::EndCode;
use super::{BYTES_READ_PER_TURN, MAX_READ_PAUSE, READS_PER_TURN, Reactor, WAKER};
use crate::connection::State;
use crate::connection::ids::ConnectionId;
use crate::reactor::notifications::Notification;
use crate::routing::access::Access;
use crate::stats::Stats;
use crate::wire::close::{self, Violation};
use crate::wire::transport::Incoming;

/// Result of one read, with the number of bytes.
enum Progress {
    /// The socket is empty; further bytes cause a new edge.
    Emptied(usize),
    /// There may be more bytes: the socket is read again after the others.
    Unfinished(usize),
}

/// The result of one read, besides data messages and pings.
enum ClientAction {
    Nothing,
    Close(Option<u16>),
    Violation(Violation),
    /// More frames or bytes than the connection may send.
    RateExceeded,
}

impl Reactor {
    pub(super) fn serve_sockets(&mut self, events: &Events) {
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
                connection.peer_finished = true;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.note_unread(id);
            }
        }
        if self.now >= self.next_read {
            self.read_some();
        }
        self.handle_failed_sends();
    }

    fn note_unread(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id)
            && !std::mem::replace(&mut connection.in_unread, true)
        {
            self.unread.push_back(id);
        }
    }

    /// Reads sockets in turns of one buffer each, until they are empty or a limit of this turn is reached.
    fn read_some(&mut self) {
        // The pause depends on how long reading took, so the clock is read here, too.
        let began = self.shared.clock.now();
        let (mut reads, mut bytes) = (0, 0);
        while let Some(id) = self.unread.pop_front() {
            if self.limits.deliver_messages && self.shared.notifier.is_full() {
                Stats::add(&self.shared.stats.reads_paused, 1);
                self.read_paused.push(id);
                continue;
            }
            if let Some(connection) = self.connections.get(id) {
                connection.in_unread = false;
            }
            reads += 1;
            match self.read(id) {
                Progress::Emptied(count) => bytes += count,
                Progress::Unfinished(count) => {
                    bytes += count;
                    self.note_unread(id);
                }
            }
            if reads >= READS_PER_TURN || bytes >= BYTES_READ_PER_TURN {
                break;
            }
        }
        if !self.unread.is_empty() {
            Stats::add(&self.shared.stats.reads_deferred, 1);
            let took = self.shared.clock.now().saturating_duration_since(began);
            self.next_read = self.now + MAX_READ_PAUSE.min(took * 4);
        }
    }

    /// Writes what is queued, as far as the kernel takes it.
    pub(super) fn flush(&mut self, id: ConnectionId) {
        // Most edges only mean that a client with an empty queue has read its data.
        let Some(connection) = self
            .connections
            .get(id)
            .filter(|it| it.send_queue.waits_for_writable())
        else {
            return;
        };
        let Some(socket) = connection.socket.as_mut() else {
            return;
        };
        let outcome = connection.send_queue.flush(socket, &mut self.write_counts);
        self.notify_written(id);
        match outcome {
            Ok(()) => self.shut_if_drained(id),
            Err(_) => self.remove(id, EndCode::ABNORMAL),
        }
    }

    fn read(&mut self, id: ConnectionId) -> Progress {
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
                let end_code = match self.connections.get(id) {
                    Some(connection) if connection.state == State::Open => {
                        EndCode::of(connection.transport().end_of_stream_code())
                    }
                    _ => EndCode::KEEP,
                };
                self.remove(id, end_code);
                Progress::Emptied(0)
            }
            // A short read emptied the socket, and further bytes cause a new edge. The end of the stream
            // does not, if it arrived together with the last bytes.
            Ok(count) if count < full && !self.peer_finished(id) => Progress::Emptied(count),
            Ok(count) => Progress::Unfinished(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Progress::Unfinished(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Emptied(0),
            Err(_) => {
                self.remove(id, EndCode::ABNORMAL);
                Progress::Emptied(0)
            }
        }
    }

    fn peer_finished(&mut self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|it| it.peer_finished)
    }

    /// Handles bytes from a client. The block of its audience must not be open.
    pub(super) fn received(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        match self.decode(id, bytes) {
            ClientAction::Nothing => {}
            ClientAction::Close(code) => self.peer_closed(id, code),
            ClientAction::Violation(violation) => {
                Stats::add(&self.shared.stats.violations, 1);
                self.close_and_drain(id, violation.code, violation.reason);
            }
            ClientAction::RateExceeded => {
                if let Some(principal) = self.router.principal(id) {
                    let principal_id = principal.identity();
                    self.shared
                        .notifier
                        .push(Notification::AllowanceExceeded { principal_id });
                }
                // After the notification: when the count is visible, the notification is queued already.
                Stats::add(&self.shared.stats.inbound_exceeded, 1);
                self.close_and_drain(id, close::RATE_EXCEEDED.code, close::RATE_EXCEEDED.reason);
            }
        }
    }

    /// Closes a connection whose further input is ignored.
    fn close_and_drain(&mut self, id: ConnectionId, code: u16, reason: &str) {
        match self.connections.get(id) {
            Some(connection) if connection.state == State::Open => {
                let frame = connection.transport().close_frame(code, reason);
                self.send_last_frame(id, code, &frame, State::Draining);
            }
            _ => self.remove(id, EndCode::KEEP),
        }
    }

    fn decode(&mut self, id: ConnectionId, bytes: &mut [u8]) -> ClientAction {
        let Some(connection) = self.connections.get(id) else {
            return ClientAction::Nothing;
        };
        connection.active_since_ping = true;
        if matches!(connection.state, State::Draining | State::Shut) {
            return ClientAction::Nothing;
        }
        let open = connection.state == State::Open;
        // A client with a pending close may not send messages, but its pings are answered until it is
        // closed.
        let may_send = self.router.access(id) == Some(Access::Active);
        let length = bytes.len();
        let mut rest = bytes;
        let mut action = loop {
            let (kind, payload) = match connection.receiver.receive(&mut rest, &mut self.replies) {
                Ok(Some(Incoming::Message { kind, payload })) => (kind, payload),
                Ok(Some(Incoming::Close { code })) => break ClientAction::Close(code),
                Ok(None) => break ClientAction::Nothing,
                Err(violation) => break ClientAction::Violation(violation),
            };
            Stats::add(&self.shared.stats.messages, 1);
            if open && may_send {
                self.shared.notifier.push(Notification::Message {
                    id,
                    kind,
                    payload: payload.into_owned(),
                });
            }
        };
        let frames = connection.receiver.take_frames();
        if !open {
            self.replies.clear();
            return action;
        }
        let (rates, longest) = (&self.limits.inbound, self.limits.message_bytes);
        let seconds = self.now.saturating_duration_since(self.began).as_secs_f64();
        let within = connection
            .allowance
            .take(seconds, frames, length, rates, longest);
        if !within && matches!(action, ClientAction::Nothing) {
            action = ClientAction::RateExceeded;
        }
        if !self.replies.is_empty() {
            let result = connection.send_queue.offer_replies(
                connection.socket.as_mut(),
                &self.replies,
                &self.memory_account,
                &mut self.write_counts,
            );
            self.replies.clear();
            self.unsent.settle(result, connection);
        }
        action
    }

    /// The peer sent a close frame: reply with the same code unless we closed first, then shut our side.
    fn peer_closed(&mut self, id: ConnectionId, code: Option<u16>) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if connection.state == State::Open {
            let frame = connection.transport().close_reply(code);
            let code = code.unwrap_or(close::NO_CODE);
            self.send_last_frame(id, code, &frame, State::Draining);
        } else {
            connection.state = State::Draining;
            self.shut_if_drained(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;
    use crate::bus::envelope::{EventHeader, encode_event};
    use crate::reactor::READ_BUFFER;
    use crate::reactor::inbox::{ReactorCommand, ShardEntry};
    use crate::reactor::test_reactor::{
        adopt, count, limits, next_events, no_events, reactor, reserve,
    };

    const EMPTY_PING: [u8; 6] = [0x89, 0x80, 1, 2, 3, 4];
    const EMPTY_TEXT: [u8; 6] = [0x81, 0x80, 1, 2, 3, 4];
    const WITNESS: u64 = 2;
    const CLIENTS: u64 = 20;

    fn fill(client: &mut UnixStream, frame: &[u8]) -> usize {
        client.set_nonblocking(true).unwrap();
        let many = frame.repeat(10_000);
        let mut written = 0;
        while let Ok(more) = client.write(&many[written % frame.len()..]) {
            written += more;
        }
        written
    }

    fn event() -> ReactorCommand {
        ReactorCommand::Route(vec![ShardEntry {
            shard: 0,
            envelope: encode_event(&EventHeader {
                project: WITNESS,
                home: 1,
                event_type: "on",
                ..EventHeader::default()
            }),
        }])
    }

    /// Twenty clients have more bytes than one turn reads. Each turn delivers events, each client gets its
    /// share, and in the end everything is read.
    #[test]
    fn flood_is_read_within_budget_and_each_turn_delivers() {
        for frame in [EMPTY_PING, EMPTY_TEXT] {
            let (mut reactor, mut now) = (reactor(limits()), Instant::now());
            let mut ids = Vec::new();
            let mut clients = Vec::new();
            let mut flood = 0;
            for user in 0..CLIENTS {
                ids.push(reserve(&mut reactor, 1, user));
                let mut client = adopt(&mut reactor, ids[ids.len() - 1]);
                flood += fill(&mut client, &frame);
                clients.push(client);
            }
            let witness = reserve(&mut reactor, WITNESS, 1);
            let mut witness_client = adopt(&mut reactor, witness);
            witness_client.set_nonblocking(true).unwrap();
            let mut events = next_events(&mut reactor);
            let (mut turns, mut buffer) = (0, [0; 1000]);
            loop {
                reactor.shared.inbox.send(event());
                reactor.turn(&events, now);
                turns += 1;
                assert!(
                    witness_client.read(&mut buffer).unwrap() > 0,
                    "turn {turns}"
                );
                now += MAX_READ_PAUSE;
                if reactor.unread.is_empty() {
                    match next_events_now(&mut reactor) {
                        Some(more) => events = more,
                        None => break,
                    }
                } else {
                    assert!(reactor.poll_timeout(now).is_zero(), "it would fall asleep");
                    events = no_events();
                }
            }
            // At least as many turns as the budget requires; each reads the budget and at most one buffer
            // more.
            assert!(turns >= flood / (BYTES_READ_PER_TURN + READ_BUFFER));
            assert!(count(&reactor, "reads_deferred") > 0);
            assert_eq!(count(&reactor, "inbound_exceeded"), 0);
        }
    }

    /// The end of one client's flood is not read before the start of another client's input.
    #[test]
    fn sockets_are_read_in_turns() {
        let (mut reactor, now) = (reactor(limits()), Instant::now());
        let loud = reserve(&mut reactor, 1, 1);
        let mut loud = adopt(&mut reactor, loud);
        assert!(fill(&mut loud, &EMPTY_TEXT) > READ_BUFFER);
        let quiet = reserve(&mut reactor, 1, 2);
        let mut quiet = adopt(&mut reactor, quiet);
        quiet.write_all(&EMPTY_PING).unwrap();
        let mut buffer = [0; 10];
        let events = next_events(&mut reactor);
        reactor.turn(&events, now);
        assert_eq!(
            quiet.read(&mut buffer).unwrap(),
            2,
            "a pong in the first turn"
        );
    }

    /// After a turn that reached the limit, further turns deliver but do not read.
    #[test]
    fn reading_pauses_after_full_turn() {
        let (mut reactor, now) = (reactor(limits()), Instant::now());
        let mut clients = Vec::new();
        for user in 0..CLIENTS {
            let id = reserve(&mut reactor, 1, user);
            clients.push(adopt(&mut reactor, id));
            fill(&mut clients[user as usize], &EMPTY_TEXT);
        }
        let witness = reserve(&mut reactor, WITNESS, 1);
        let mut witness_client = adopt(&mut reactor, witness);
        let events = next_events(&mut reactor);
        reactor.turn(&events, now);
        assert_eq!(count(&reactor, "reads_deferred"), 1);
        assert!(reactor.poll_timeout(now) > std::time::Duration::ZERO);
        assert!(reactor.poll_timeout(now) <= MAX_READ_PAUSE);
        let (waiting, mut buffer) = (reactor.unread.len(), [0; 1000]);
        reactor.shared.inbox.send(event());
        reactor.turn(&no_events(), now);
        assert!(witness_client.read(&mut buffer).unwrap() > 0);
        assert_eq!(reactor.unread.len(), waiting);
        assert_eq!(count(&reactor, "reads_deferred"), 1);
        reactor.turn(&no_events(), now + MAX_READ_PAUSE);
        assert_eq!(count(&reactor, "reads_deferred"), 2);
    }

    /// Events of readable sockets; a socket that was read would report edges for ever.
    fn next_events_now(reactor: &mut Reactor) -> Option<Events> {
        let mut events = Events::with_capacity(1024);
        let no_wait = Some(std::time::Duration::ZERO);
        reactor.poll.poll(&mut events, no_wait).unwrap();
        events
            .iter()
            .any(mio::event::Event::is_readable)
            .then_some(events)
    }
}
