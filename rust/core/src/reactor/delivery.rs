//! From an envelope to sockets: match, encode once, append to blocks, write each block to its members.

use smallvec::SmallVec;

use super::Reactor;
use crate::bus::envelope::{self, CommandHeader, ControlHeader, Envelope, EventHeader};
use crate::bus::shard::shard_of;
use crate::reactor::inbox::ShardEntry;
use crate::routing::index::{AudienceId, Index};
use crate::routing::topic::TopicRef;
use crate::send_queue::Block;
use crate::send_queue::blocks::{Blocks, OpenBlock};
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
/// envelope in the wrong shard: its writer uses another number of shards, and the control records of its
/// home are in the right one.
pub(super) fn route<'a>(
    entry: &'a ShardEntry,
    shards: u32,
    index: &mut Index,
    blocks: &mut Blocks,
    matched: &mut Vec<AudienceId>,
    frames: &mut Frames,
    stats: &Stats,
) -> Routed<'a> {
    Stats::add(&stats.envelopes, 1);
    matched.clear();
    frames.clear();
    let mut shard_key = 0;
    let mut queued = None;
    match envelope::decode(&entry.envelope) {
        Ok(Envelope::Event(event)) => {
            index.find(&event_topics(&event), matched);
            if !matched.is_empty() {
                let encodings = matched.iter().map(|&audience| index.encoding(audience));
                frames.encode(encodings, |encoding, out| {
                    encoding.append_event(out, &event)
                });
                shard_key = event.home;
            }
        }
        Ok(Envelope::Command(command)) => {
            index.find(&[command_topic(&command)], matched);
            if !matched.is_empty() {
                let encodings = matched.iter().map(|&audience| index.encoding(audience));
                frames.encode(encodings, |encoding, out| {
                    encoding.append_command(out, &command)
                });
                shard_key = command.device;
                queued = (command.sequence != 0).then_some(Routed::QueuedCommand {
                    sequence: command.sequence,
                    expires_ms: command.expires_ms,
                });
            }
        }
        Ok(Envelope::Control(record)) => return Routed::Control(record),
        Err(_) => Stats::add(&stats.malformed, 1),
    }
    let mut longest_block = 0;
    if !matched.is_empty() {
        // Checked only for a match: most nodes have no subscriber for most events.
        if shard_of(shard_key, shards) == entry.shard {
            Stats::add(&stats.matched, 1);
        } else {
            Stats::add(&stats.malformed, 1);
            matched.clear();
        }
    }
    if let Some(queued) = queued {
        return queued;
    }
    for &audience in &*matched {
        let frame = frames.get(index.encoding(audience));
        longest_block = longest_block.max(blocks.append(audience, frame));
    }
    Routed::Delivered { longest_block }
}

fn event_topics<'a>(event: &EventHeader<'a>) -> SmallVec<[TopicRef<'a>; 3]> {
    let (project, home) = (event.project, event.home);
    let mut topics = SmallVec::new();
    topics.push(TopicRef::Home { project, home });
    if event.device != 0 {
        topics.push(TopicRef::Device {
            project,
            home,
            device: event.device,
        });
    }
    if let Some(entity) = event.entity {
        topics.push(TopicRef::Entity {
            project,
            home,
            entity,
        });
    }
    topics
}

fn command_topic(command: &CommandHeader<'_>) -> TopicRef<'static> {
    TopicRef::Command {
        project: command.project,
        device: command.device,
    }
}

impl Reactor {
    /// Writes every open block.
    pub(super) fn seal_all(&mut self) {
        while let Some(block) = self.blocks.seal_next() {
            self.hand_out(block, usize::MAX);
        }
        self.handle_failed_sends();
    }

    /// Writes the audience's open block to its first `members`. Required before the membership of the
    /// audience changes, or before a member gets a frame of its own.
    pub(super) fn seal(&mut self, audience: AudienceId, members: usize) {
        if let Some(block) = self.blocks.seal(audience) {
            self.hand_out(block, members);
        }
    }

    fn hand_out(&mut self, sealed: OpenBlock, members: usize) {
        let mut block = Block::new(&sealed.bytes, sealed.frames, &self.memory_account);
        let all = self.index.members(sealed.audience);
        for group in all[..members.min(all.len())].chunks(PREFETCHED) {
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
        self.blocks.recycle(sealed);
    }
}
