//! Finds the end of the plain part of a JSON string, eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The first index from `from` on that holds a quote, a backslash or a control character (below 0x20), or the
/// length where there is none.
#[inline]
pub(super) fn end_of_plain(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let found = (zero_bytes(word ^ (ONES * b'"' as u64)) | zero_bytes(word ^ (ONES * b'\\' as u64)))
            | (word.wrapping_sub(ONES * 0x20) & !word & HIGHS);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            return at;
        }
        at += 1;
    }
    at
}

/// The high bit of every byte that is zero. A borrow can only set bits above the lowest one that is right, and only
/// the lowest is used.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plainly(bytes: &[u8], from: usize) -> usize {
        (from..bytes.len())
            .find(|&at| bytes[at] < 0x20 || bytes[at] == b'"' || bytes[at] == b'\\')
            .unwrap_or(bytes.len())
    }

    #[test]
    fn every_byte_at_every_place_is_found_or_passed() {
        for length in 0..40 {
            for place in 0..length {
                for byte in 0..=255u8 {
                    let mut bytes = vec![b'a'; length];
                    bytes[place] = byte;
                    assert_eq!(end_of_plain(&bytes, 0), plainly(&bytes, 0), "{byte} at {place} of {length}");
                }
            }
        }
    }

    #[test]
    fn neighbours_of_a_match_do_not_hide_or_invent_one() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    [b'"', b'!', b'#', 0x1f, 0x20, b'\\', b'[', 0x80, 0xff, 0xa2][(state >> 33) as usize % 10]
                })
                .collect();
            for from in 0..24 {
                assert_eq!(end_of_plain(&bytes, from), plainly(&bytes, from), "{bytes:?} from {from}");
            }
        }
    }
}
