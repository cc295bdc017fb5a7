//! A message that arrives in pieces: fragments, or a frame longer than what was received so far.

use super::Violation;

/// The pieces of one message so far. Holds what arrived, whatever a header promised.
#[derive(Debug)]
pub(super) enum Assembly {
    /// Checked as it arrives, so that bad text fails at its first bad byte (RFC 6455 section 8.1).
    Text(TextAssembly),
    /// Bytes.
    Binary(Vec<u8>),
}

/// UTF-8 that arrives in pieces, which may end within a character.
#[derive(Debug, Default)]
pub(super) struct TextAssembly {
    text: String,
    /// The beginning of a character, at most three bytes.
    tail: [u8; 4],
    tail_len: u8,
}

/// A whole message that was put together.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Assembled {
    Text(String),
    Binary(Vec<u8>),
}

impl Assembly {
    /// Nothing yet.
    pub(super) fn new(is_text: bool) -> Self {
        if is_text { Self::Text(TextAssembly::default()) } else { Self::Binary(Vec::new()) }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// [`Violation::UTF8`] for text that cannot become UTF-8, whatever follows.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        match self {
            Self::Text(text) => text.push(piece),
            Self::Binary(bytes) => {
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// Bytes of the message so far.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.text.len() + usize::from(text.tail_len),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Heap held.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Text(text) => text.text.capacity(),
            Self::Binary(bytes) => bytes.capacity(),
        }
    }

    /// The whole message.
    ///
    /// # Errors
    /// [`Violation::UTF8`] for text that ends within a character.
    pub(super) fn finish(self) -> Result<Assembled, Violation> {
        match self {
            Self::Text(text) if text.tail_len > 0 => Err(Violation::UTF8),
            Self::Text(text) => Ok(Assembled::Text(text.text)),
            Self::Binary(bytes) => Ok(Assembled::Binary(bytes)),
        }
    }
}

impl TextAssembly {
    fn push(&mut self, mut piece: &[u8]) -> Result<(), Violation> {
        while self.tail_len > 0 {
            let Some((first, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.complete_character(*first)?;
        }
        match simdutf8::compat::from_utf8(piece) {
            Ok(text) => self.text.push_str(text),
            Err(error) if error.error_len().is_none() => {
                let (whole, tail) = piece.split_at(error.valid_up_to());
                // `whole` is what the look above found good; looking again keeps this free of unsafe code.
                self.text.push_str(simdutf8::basic::from_utf8(whole).map_err(|_| Violation::UTF8)?);
                self.tail[..tail.len()].copy_from_slice(tail);
                self.tail_len = tail.len() as u8;
            }
            Err(_) => return Err(Violation::UTF8),
        }
        Ok(())
    }

    /// Adds one byte to the character that was begun. Four bytes are a character or an error, so `tail` is
    /// long enough.
    fn complete_character(&mut self, byte: u8) -> Result<(), Violation> {
        let len = usize::from(self.tail_len) + 1;
        self.tail[len - 1] = byte;
        match std::str::from_utf8(&self.tail[..len]) {
            Ok(character) => {
                self.text.push_str(character);
                self.tail_len = 0;
            }
            Err(error) if error.error_len().is_none() => self.tail_len = len as u8,
            Err(_) => return Err(Violation::UTF8),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<Assembled, Violation> {
        let mut assembly = Assembly::new(true);
        for piece in pieces {
            assembly.push(piece)?;
        }
        assembly.finish()
    }

    #[test]
    fn characters_cut_anywhere_come_together() {
        let text = "a\u{e9}\u{20ac}\u{1f600}z\u{10ffff}";
        for width in 1..=text.len() {
            let assembled = assemble(text.as_bytes().chunks(width)).unwrap();
            assert_eq!(assembled, Assembled::Text(text.to_owned()), "pieces of {width}");
        }
    }

    #[test]
    fn fails_at_the_first_byte_that_cannot_be_mended() {
        for bad in [
            &b"\xc0\x80"[..],    // overlong
            b"\xed\xa0\x80",     // a surrogate
            b"\xf4\x90\x80\x80", // above U+10FFFF
            b"\xff",             // never in UTF-8
            b"\x80",             // continuation without a beginning
            b"\xe2\x28\xa1",     // broken off by ASCII
        ] {
            let mut assembly = Assembly::new(true);
            assembly.push(b"good ").unwrap();
            let failed_at = bad.iter().position(|byte| assembly.push(&[*byte]).is_err());
            let expected = std::str::from_utf8(bad).unwrap_err();
            // std tells how many bytes are bad; the last of those, or the one behind it, is where it shows.
            let failed_at = failed_at.expect("must fail before the end");
            assert!(failed_at <= expected.error_len().unwrap(), "{bad:?} failed at {failed_at}");
        }
    }

    #[test]
    fn an_end_within_a_character_fails_only_at_the_end() {
        let mut assembly = Assembly::new(true);
        assembly.push("\u{20ac}".as_bytes().split_at(2).0).unwrap();
        assert_eq!(assembly.len(), 2);
        assert_eq!(assembly.finish(), Err(Violation::UTF8));
    }
}
