//! Commands that are kept for their device until the kernel took them: each has a ticket, and whoever
//! keeps it is told of the ticket once the whole frame was written to one of the device's sockets.

use super::{Doom, Reactor};
use crate::bus::envelope::{self, Envelope};
use crate::connection::State;
use crate::connection::ids::ConnectionId;
use crate::core::wall_clock_ms;
use crate::reactor::notifications::Notification;
use crate::send_queue::{Block, Verdict};
use crate::stats::Stats;
use crate::wire::encoding;

impl Reactor {
    /// Hands the frame that was just routed to all that `matched`, each of whom gets a ticket once.
    pub(super) fn deliver_kept(&mut self, ticket: u64, expires_ms: u64) {
        if self.matched.is_empty() || expires_ms <= wall_clock_ms() {
            return;
        }
        let matched = std::mem::take(&mut self.matched);
        for &scope in &matched {
            // What was routed before it comes before it.
            self.seal(scope, usize::MAX);
            let mut block = Block::with_ticket(&self.frame, ticket, &self.ledger);
            for &slot in self.index.members(scope) {
                let Some(connection) = self.connections.at(slot) else {
                    continue;
                };
                if ticket <= connection.seen_ticket {
                    continue;
                }
                connection.seen_ticket = ticket;
                let id = connection.id;
                let verdict = connection.outbox.offer(
                    connection.socket.as_mut(),
                    &mut block,
                    self.limits.outbox_bytes,
                    &mut self.written,
                );
                match verdict {
                    Verdict::Accepted => {
                        self.written.tickets.clear();
                        self.shared
                            .notifier
                            .push(Notification::Written { id, ticket });
                    }
                    Verdict::Queued => self.lagging.note(id, &mut connection.lags),
                    Verdict::TooSlow => self.doomed.push((id, Doom::TooSlow)),
                    Verdict::Gone => self.doomed.push((id, Doom::Gone)),
                }
            }
        }
        self.matched = matched;
    }

    /// Puts commands that were kept before everything that was routed to a reservation.
    pub(super) fn deliver_first(&mut self, id: ConnectionId, seen: u64, envelopes: &[Vec<u8>]) {
        let Some(connection) = self
            .connections
            .get(id)
            .filter(|connection| connection.state == State::Reserved)
        else {
            return;
        };
        let scope = connection.scope;
        self.seal(scope, usize::MAX);
        let frames = self.frames_of_kept(envelopes);
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let ledger = &self.ledger;
        let blocks = frames
            .iter()
            .map(|(ticket, frame)| Block::with_ticket(frame, *ticket, ledger));
        connection.outbox.put_first(blocks, seen);
        connection.seen_ticket = connection.seen_ticket.max(seen);
        if !connection.outbox.is_empty() {
            self.lagging.note(id, &mut connection.lags);
        }
    }

    /// The kernel took frames of kept commands from this connection's outbox.
    pub(super) fn tell_written(&mut self, id: ConnectionId) {
        for ticket in self.written.tickets.drain(..) {
            self.shared
                .notifier
                .push(Notification::Written { id, ticket });
        }
    }

    /// The frame of each command that is still to be delivered, with its ticket.
    fn frames_of_kept(&self, envelopes: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
        let now_ms = wall_clock_ms();
        let mut frames = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            match envelope::decode(envelope) {
                Ok(Envelope::Command(command)) if command.ticket != 0 => {
                    if command.expires_ms > now_ms {
                        let mut frame = Vec::new();
                        encoding::append_command_frame(&mut frame, &command);
                        frames.push((command.ticket, frame));
                    }
                }
                _ => Stats::add(&self.shared.stats.malformed, 1),
            }
        }
        frames
    }
}
