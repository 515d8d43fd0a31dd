//! Incremental check of UTF-8 in pieces that may end inside a character.

use std::str;

/// The text contains a byte that is not valid there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

/// State of an incomplete text: the bytes of its unfinished last character.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    unfinished: [u8; 3],
    len: u8,
}

impl Utf8 {
    /// Takes the next piece. Fails at the first invalid byte, even if its character is incomplete (Autobahn
    /// 6.4 requires this).
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        let rest = self.finish_character(piece)?;
        match str::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let tail = &rest[error.valid_up_to()..];
                self.unfinished[..tail.len()].copy_from_slice(tail);
                self.len = tail.len() as u8;
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }

    /// Whether the text may end here.
    pub(super) fn is_complete(self) -> bool {
        self.len == 0
    }

    /// Completes the unfinished character, if there is one; returns the rest of the piece.
    fn finish_character<'a>(&mut self, mut piece: &'a [u8]) -> Result<&'a [u8], NotUtf8> {
        while self.len > 0
            && let Some((&byte, rest)) = piece.split_first()
        {
            piece = rest;
            let len = usize::from(self.len);
            let mut character = [0; 4];
            character[..len].copy_from_slice(&self.unfinished[..len]);
            character[len] = byte;
            match str::from_utf8(&character[..=len]) {
                Ok(_) => self.len = 0,
                // At most three bytes can be unfinished, so the index stays in bounds.
                Err(error) if error.error_len().is_none() => {
                    self.unfinished[len] = byte;
                    self.len += 1;
                }
                Err(_) => return Err(NotUtf8),
            }
        }
        Ok(piece)
    }
}
