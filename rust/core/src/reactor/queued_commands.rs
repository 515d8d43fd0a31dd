//! Queued commands: those kept until the kernel took them for a socket of their device.
//!
//! Each has a sequence. The sequence is reported once the whole frame was written to one of the device's
//! sockets.

use super::Reactor;
use crate::bus::envelope::{self, Envelope};
use crate::connection::State;
use crate::connection::ids::ConnectionId;
use crate::reactor::notifications::Notification;
use crate::send_queue::{Block, OfferResult};
use crate::stats::Stats;
use crate::wire::encoding::Encoding;

impl Reactor {
    /// Writes the routed frame to all members of the matched audiences, once for each sequence.
    pub(super) fn deliver_queued_command(&mut self, sequence: u64, expires_ms: u64) {
        if expires_ms <= self.shared.clock.unix_ms() {
            return;
        }
        for audience in self.router.matched().to_vec() {
            // Frames that were routed earlier are written first.
            if let Some(block) = self.router.block_of(audience) {
                self.hand_out(block, None);
            }
            let frame = self.frames.get(self.router.encoding(audience));
            let mut block = Block::with_sequence(frame, sequence, &self.memory_account);
            for &slot in self.router.members(audience) {
                let Some(connection) = self.connections.at(slot) else {
                    continue;
                };
                if sequence <= connection.last_sequence {
                    continue;
                }
                connection.last_sequence = sequence;
                let id = connection.id;
                let result = connection.send_queue.offer(
                    connection.socket.as_mut(),
                    &mut block,
                    self.limits.send_queue_bytes,
                    &mut self.write_counts,
                );
                self.unsent.settle(result, connection);
                if result == OfferResult::Written {
                    self.write_counts.sequences.clear();
                    self.shared
                        .notifier
                        .push(Notification::Written { id, sequence });
                }
            }
        }
    }

    /// Puts queued commands before everything that was routed to a reservation.
    pub(super) fn deliver_first(&mut self, id: ConnectionId, seen: u64, envelopes: &[Vec<u8>]) {
        if self.connections.get(id).map(|it| it.state) != Some(State::Reserved) {
            return;
        }
        self.seal(id);
        let Some(transport) = self.connections.get(id).map(|it| it.transport()) else {
            return;
        };
        let frames = self.queued_command_frames(Encoding::of(transport), envelopes);
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let memory_account = &self.memory_account;
        let blocks = frames
            .iter()
            .map(|(sequence, frame)| Block::with_sequence(frame, *sequence, memory_account));
        connection.send_queue.prepend(blocks, seen);
        connection.last_sequence = connection.last_sequence.max(seen);
        if !connection.send_queue.is_empty() {
            self.unsent.settle(OfferResult::Queued, connection);
        }
    }

    /// Reports the queued commands that the kernel took from this connection's send queue.
    pub(super) fn notify_written(&mut self, id: ConnectionId) {
        for sequence in self.write_counts.sequences.drain(..) {
            self.shared
                .notifier
                .push(Notification::Written { id, sequence });
        }
    }

    /// The frame and sequence of each command that has not expired.
    fn queued_command_frames(
        &self,
        encoding: Encoding,
        envelopes: &[Vec<u8>],
    ) -> Vec<(u64, Vec<u8>)> {
        let now_ms = self.shared.clock.unix_ms();
        let mut frames = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            match envelope::decode(envelope) {
                Ok(Envelope::Command(command)) if command.sequence != 0 => {
                    if command.expires_ms > now_ms {
                        let mut frame = Vec::new();
                        encoding.append_command(&mut frame, &command);
                        frames.push((command.sequence, frame));
                    }
                }
                _ => Stats::add(&self.shared.stats.malformed, 1),
            }
        }
        frames
    }
}
