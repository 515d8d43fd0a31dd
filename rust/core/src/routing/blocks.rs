//! Open blocks: the frames that an audience gets in this turn, in one copy for all of its connections.

use crate::routing::index::AudienceId;

/// Larger buffers are freed after their turn.
const SPARE_BYTES: usize = 256 << 10;
/// The maximum number of spare buffers.
const SPARE_BUFFERS: usize = 4096;
const CLOSED: u32 = u32::MAX;

/// Frames of one audience, in order.
#[derive(Debug)]
pub struct OpenBlock {
    pub audience: AudienceId,
    pub bytes: Vec<u8>,
    pub frames: u32,
}

/// The blocks of this turn. An audience has at most one open block. Sealing closes it; a later frame opens
/// another.
#[derive(Debug, Default)]
pub struct Blocks {
    open: Vec<OpenBlock>,
    /// Audience → its place in `open`.
    place_of_audience: Vec<u32>,
    spare: Vec<Vec<u8>>,
}

impl Blocks {
    /// Appends one frame to the audience's block. Returns the block's length in bytes.
    pub fn append(&mut self, audience: AudienceId, frame: &[u8]) -> usize {
        let block = self.block(audience);
        block.bytes.extend_from_slice(frame);
        block.frames += 1;
        block.bytes.len()
    }

    /// Takes the audience's open block, if it has one.
    pub fn seal(&mut self, audience: AudienceId) -> Option<OpenBlock> {
        let place = self.place_of_audience.get_mut(audience as usize)?;
        let block = self.open.get_mut(*place as usize)?;
        *place = CLOSED;
        Some(OpenBlock {
            audience,
            bytes: std::mem::take(&mut block.bytes),
            frames: std::mem::take(&mut block.frames),
        })
    }

    /// Takes any open block; `None` when all are sealed.
    pub fn seal_next(&mut self) -> Option<OpenBlock> {
        while let Some(block) = self.open.pop() {
            if block.frames > 0 {
                self.place_of_audience[block.audience as usize] = CLOSED;
                return Some(block);
            }
        }
        None
    }

    /// Takes back the buffer of a written block for reuse.
    pub fn recycle(&mut self, mut block: OpenBlock) {
        if block.bytes.capacity() <= SPARE_BYTES && self.spare.len() < SPARE_BUFFERS {
            block.bytes.clear();
            self.spare.push(block.bytes);
        }
    }

    fn block(&mut self, audience: AudienceId) -> &mut OpenBlock {
        let audience_slot = audience as usize;
        if self.place_of_audience.len() <= audience_slot {
            self.place_of_audience.resize(audience_slot + 1, CLOSED);
        }
        if self.place_of_audience[audience_slot] == CLOSED {
            self.place_of_audience[audience_slot] = self.open.len() as u32;
            self.open.push(OpenBlock {
                audience,
                bytes: self.spare.pop().unwrap_or_default(),
                frames: 0,
            });
        }
        &mut self.open[self.place_of_audience[audience_slot] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_audience_opens_another_block() {
        let mut blocks = Blocks::default();
        blocks.append(7, b"one");
        blocks.append(9, b"two");
        blocks.append(7, b"three");
        let sealed = blocks.seal(7).unwrap();
        assert_eq!(
            (sealed.bytes.as_slice(), sealed.frames),
            (&b"onethree"[..], 2)
        );
        assert!(blocks.seal(7).is_none());
        blocks.append(7, b"four");
        let mut left = Vec::new();
        while let Some(block) = blocks.seal_next() {
            left.push((block.audience, block.bytes.clone(), block.frames));
            blocks.recycle(block);
        }
        left.sort();
        assert_eq!(left, [(7, b"four".to_vec(), 1), (9, b"two".to_vec(), 1)]);
        assert!(blocks.seal(9).is_none());
    }
}
