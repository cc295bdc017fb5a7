//! Finds the end of the plain part of a JSON string: sixteen bytes at a time where the processor is known to have
//! SSE2, eight at a time elsewhere.

/// The first index from `from` on that holds a quote, a backslash or a control character (below 0x20), or the
/// length where there is none.
#[inline]
pub(super) fn end_of_plain(bytes: &[u8], from: usize) -> usize {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    return sse2::end_of_plain(bytes, from);
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
    return portable::end_of_plain(bytes, from);
}

#[inline]
fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };

    #[inline]
    pub(super) fn end_of_plain(bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
            let found = not_plain(chunk);
            if found != 0 {
                return at + found.trailing_zeros() as usize;
            }
            at += 16;
        }
        super::portable::end_of_plain(bytes, at)
    }

    /// One bit for every byte that ends the plain part.
    #[allow(unsafe_code)]
    #[inline]
    fn not_plain(chunk: &[u8; 16]) -> u32 {
        // SAFETY: this module is only compiled where SSE2 is a feature of the target, so the instructions exist; the
        // one that reads memory reads sixteen bytes from any alignment, which is exactly the array.
        unsafe {
            let bytes = _mm_loadu_si128(chunk.as_ptr().cast::<__m128i>());
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)) as u32
        }
    }
}

mod portable {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;

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
        bytes
            .get(at..)
            .unwrap_or_default()
            .iter()
            .position(|&byte| !super::is_plain(byte))
            .map_or_else(|| bytes.len().max(from), |more| at + more)
    }

    /// The high bit of every byte that is zero. A borrow can only set bits above the lowest one that is right, and
    /// only the lowest is used.
    #[inline]
    fn zero_bytes(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & HIGHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plainly(bytes: &[u8], from: usize) -> usize {
        (from..bytes.len()).find(|&at| !is_plain(bytes[at])).unwrap_or(bytes.len())
    }

    #[test]
    fn every_byte_at_every_place_is_found_or_passed() {
        for length in 0..40 {
            for place in 0..length {
                for byte in 0..=255u8 {
                    let mut bytes = vec![b'a'; length];
                    bytes[place] = byte;
                    assert_eq!(end_of_plain(&bytes, 0), plainly(&bytes, 0), "{byte} at {place} of {length}");
                    assert_eq!(portable::end_of_plain(&bytes, 0), plainly(&bytes, 0));
                }
            }
        }
    }

    #[test]
    fn neighbours_of_a_match_do_not_hide_or_invent_one() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    [b'"', b'!', b'#', 0x1f, 0x20, b'\\', b'[', 0x80, 0xff, 0xa2][(state >> 33) as usize % 10]
                })
                .collect();
            for from in 0..=40 {
                assert_eq!(end_of_plain(&bytes, from), plainly(&bytes, from), "{bytes:?} from {from}");
                assert_eq!(portable::end_of_plain(&bytes, from), plainly(&bytes, from));
            }
        }
    }
}
