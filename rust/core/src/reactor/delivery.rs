//! From an envelope to sockets: match, encode once, append to blocks, write each block to its members.

use super::Reactor;
use crate::bus::envelope::{self, ControlHeader, Envelope};
use crate::connection::ids::ConnectionId;
use crate::reactor::inbox::ShardEntry;
use crate::routing::blocks::OpenBlock;
use crate::routing::index::Slot;
use crate::routing::router::{Match, Router};
use crate::send_queue::Block;
use crate::stats::Stats;
use crate::wire::encoding::Frames;

/// Number of connections whose state is prefetched before the first of them is written to.
const PREFETCHED: usize = 8;

/// The result of routing an envelope.
pub(super) enum Routed<'a> {
    /// The frame is in the blocks of all matched audiences; the longest block has this many bytes.
    Delivered { longest_block: usize },
    /// The frame is ready and its audiences are matched. It is delivered on its own, so that the write of
    /// each socket can be reported.
    QueuedCommand { sequence: u64, expires_ms: u64 },
    /// The control record must be applied before the next envelope is routed.
    Control(ControlHeader<'a>),
}

/// Routes one envelope into the open blocks.
///
/// A malformed envelope is counted and skipped: one bad entry must not stop a node. The same goes for an
/// envelope in the wrong shard.
pub(super) fn route<'a>(
    entry: &'a ShardEntry,
    router: &mut Router,
    frames: &mut Frames,
    stats: &Stats,
) -> Routed<'a> {
    Stats::add(&stats.envelopes, 1);
    frames.clear();
    let mut queued = None;
    let found = match envelope::decode(&entry.envelope) {
        Ok(Envelope::Event(event)) => {
            let found = router.route_event(entry.shard, &event);
            if found == Match::Audiences {
                frames.encode(router.encodings(), |encoding, out| {
                    encoding.append_event(out, &event)
                });
            }
            found
        }
        Ok(Envelope::Command(command)) => {
            let found = router.route_command(entry.shard, &command);
            if found == Match::Audiences {
                frames.encode(router.encodings(), |encoding, out| {
                    encoding.append_command(out, &command)
                });
                queued = (command.sequence != 0).then_some(Routed::QueuedCommand {
                    sequence: command.sequence,
                    expires_ms: command.expires_ms,
                });
            }
            found
        }
        Ok(Envelope::Control(record)) => return Routed::Control(record),
        Err(_) => {
            Stats::add(&stats.malformed, 1);
            return Routed::Delivered { longest_block: 0 };
        }
    };
    match found {
        Match::Nothing => Routed::Delivered { longest_block: 0 },
        Match::WrongShard => {
            Stats::add(&stats.malformed, 1);
            Routed::Delivered { longest_block: 0 }
        }
        Match::Audiences => {
            Stats::add(&stats.matched, 1);
            queued.unwrap_or_else(|| Routed::Delivered {
                longest_block: router.append(|encoding| frames.get(encoding)),
            })
        }
    }
}

impl Reactor {
    /// Writes every open block.
    pub(super) fn seal_all(&mut self) {
        while let Some(block) = self.router.next_block() {
            self.hand_out(block, None);
        }
        self.handle_failed_sends();
    }

    /// Writes the open block of the connection's audience. Required before the connection gets a frame of
    /// its own.
    pub(super) fn seal(&mut self, id: ConnectionId) {
        if let Some(block) = self.router.block_before(id) {
            self.hand_out(block, None);
        }
    }

    /// Writes a block to these connections, or to all members of its audience.
    pub(super) fn hand_out(&mut self, sealed: OpenBlock, members: Option<&[Slot]>) {
        let mut block = Block::new(&sealed.bytes, sealed.frames, &self.memory_account);
        let members = members.unwrap_or_else(|| self.router.members(sealed.audience));
        for group in members.chunks(PREFETCHED) {
            self.connections.prefetch(group);
            for &slot in group {
                let Some(connection) = self.connections.at(slot) else {
                    continue;
                };
                let result = connection.send_queue.offer(
                    connection.socket.as_mut(),
                    &mut block,
                    self.limits.send_queue_bytes,
                    &mut self.write_counts,
                );
                self.unsent.settle(result, connection);
            }
        }
        self.router.recycle(sealed);
    }
}
