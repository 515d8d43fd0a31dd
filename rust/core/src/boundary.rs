//! Where frames end in a block of our own frames.

/// The end of the frame that the byte before `offset` belongs to, in a block of whole unmasked
/// frames (RFC 6455 section 5.2); `offset` itself where it lies between two frames.
pub fn end_of_frame(block: &[u8], offset: usize) -> usize {
    let mut end = 0;
    while end < offset {
        let Some(length) = frame_length(&block[end..]) else {
            return block.len();
        };
        end = (end + length).min(block.len());
    }
    end
}

fn frame_length(frame: &[u8]) -> Option<usize> {
    match frame.get(1)? {
        126 => {
            let length: [u8; 2] = frame.get(2..4)?.try_into().ok()?;
            Some(4 + usize::from(u16::from_be_bytes(length)))
        }
        127 => {
            let length: [u8; 8] = frame.get(2..10)?.try_into().ok()?;
            usize::try_from(u64::from_be_bytes(length))
                .ok()?
                .checked_add(10)
        }
        length => Some(2 + usize::from(*length)),
    }
}
