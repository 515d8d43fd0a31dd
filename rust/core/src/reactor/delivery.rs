//! From an envelope to sockets: match, encode once, append to blocks, write each block to its members.

use smallvec::SmallVec;

use super::{Doom, Reactor};
use crate::blocks::{Blocks, OpenBlock};
use crate::encode;
use crate::envelope::{self, CommandHeader, Envelope, EventHeader};
use crate::inbox::Entry;
use crate::index::{Index, ScopeId};
use crate::outbox::{Block, Verdict};
use crate::stats::Stats;
use crate::topic::TopicRef;

/// Routes one envelope into the open blocks. Answers the length of the longest block it touched.
///
/// A record that cannot be decoded is counted and skipped: one bad record must not stop a node.
pub(super) fn route(
    entry: &Entry,
    index: &mut Index,
    blocks: &mut Blocks,
    matched: &mut Vec<ScopeId>,
    frame: &mut Vec<u8>,
    stats: &Stats,
) -> usize {
    Stats::add(&stats.envelopes, 1);
    matched.clear();
    frame.clear();
    match envelope::decode(&entry.envelope) {
        Ok(Envelope::Event(event)) => {
            index.find(&event_topics(&event), matched);
            if !matched.is_empty() {
                encode::append_event_frame(frame, &event);
            }
        }
        Ok(Envelope::Command(command)) => {
            index.find(&[command_topic(&command)], matched);
            if !matched.is_empty() {
                encode::append_command_frame(frame, &command);
            }
        }
        Ok(Envelope::Control(_)) => {}
        Err(_) => Stats::add(&stats.malformed, 1),
    }
    if !matched.is_empty() {
        Stats::add(&stats.matched, 1);
    }
    let mut longest = 0;
    for &scope in &*matched {
        longest = longest.max(blocks.append(scope, frame));
    }
    longest
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
    /// Hands out every open block.
    pub(super) fn seal_all(&mut self) {
        while let Some(block) = self.blocks.seal_next() {
            self.hand_out(block, usize::MAX);
        }
        self.settle_doomed();
    }

    /// Hands out the scope's open block to its first `members`, before the scope's membership
    /// changes or one of them gets a frame of its own.
    pub(super) fn seal(&mut self, scope: ScopeId, members: usize) {
        if let Some(block) = self.blocks.seal(scope) {
            self.hand_out(block, members);
        }
    }

    fn hand_out(&mut self, sealed: OpenBlock, members: usize) {
        let mut block = Block::new(&sealed.bytes, sealed.frames, &self.ledger);
        for &slot in self.index.members(sealed.scope).iter().take(members) {
            let Some(connection) = self.connections.at(slot) else {
                continue;
            };
            let verdict = connection.outbox.offer(
                connection.socket.as_mut(),
                &mut block,
                self.limits.outbox_bytes,
                &mut self.written,
            );
            match verdict {
                Verdict::Accepted => {}
                Verdict::Queued => self.lagging.note(connection.id, &mut connection.lags),
                Verdict::TooSlow => self.doomed.push((connection.id, Doom::TooSlow)),
                Verdict::Gone => self.doomed.push((connection.id, Doom::Gone)),
            }
        }
        self.blocks.recycle(sealed);
    }
}
