//! The masking of client frames (RFC 6455 section 5.3).

/// Applies `mask` to `payload` in place, from the mask's first byte on. Masking twice gives the original.
///
/// Eight bytes at a time, which compilers turn into vector instructions.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The mask for what follows after `len` bytes of the payload.
pub(super) fn advance(mut mask: [u8; 4], len: usize) -> [u8; 4] {
    mask.rotate_left(len & 3);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_equals_the_definition() {
        let mask = [0x11, 0x22, 0x44, 0x88];
        for len in 0..70_usize {
            let mut payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            unmask(&mut payload, mask);
            let expected: Vec<u8> = (0..len).map(|i| i as u8 ^ mask[i % 4]).collect();
            assert_eq!(payload, expected, "length {len}");
        }
    }

    #[test]
    fn in_pieces_equals_at_once() {
        let mask = [1, 2, 3, 4];
        let whole: Vec<u8> = (0..50).collect();
        let mut at_once = whole.clone();
        unmask(&mut at_once, mask);
        for cut in 0..=whole.len() {
            let mut pieces = whole.clone();
            let (left, right) = pieces.split_at_mut(cut);
            unmask(left, mask);
            unmask(right, advance(mask, cut));
            assert_eq!(pieces, at_once, "cut at {cut}");
        }
    }
}
