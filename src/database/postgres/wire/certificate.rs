//! The two things that are wanted of a certificate beyond what rustls tells: the hash that channel binding takes of it
//! (RFC 5929 section 4.1), and until when it is good.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// An explicit tag of number 0: the version of a certificate, the hash among the parameters of RSASSA-PSS.
const TAGGED_0: u8 = 0xa0;

/// A name of an algorithm, as its encoding.
type ObjectId = &'static [u8];

/// Signatures that hash by an algorithm of SHA-1's time: for them SHA-256 is taken.
const OLD: [ObjectId; 3] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
];
/// RSA, ECDSA, and the hash itself.
const SHA_256: [ObjectId; 3] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
    &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
];
const SHA_384: [ObjectId; 3] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
    &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
];
const SHA_512: [ObjectId; 3] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
    &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
];
const SHA_224: [ObjectId; 3] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0e],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01],
    &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04],
];
const RSASSA_PSS: ObjectId = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// `tls-server-end-point`: the hash of a certificate by the algorithm that its signature hashes with. Signatures without
/// one of their own (Ed25519) leave it undefined.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (mut parts, _) = element(certificate, SEQUENCE)?;
    (_, parts) = element(parts, SEQUENCE)?;
    let (algorithm, _) = element(parts, SEQUENCE)?;
    let (mut name, parameters) = element(algorithm, OBJECT_ID)?;
    if name == RSASSA_PSS {
        // Without a hash among its parameters it is SHA-1.
        let hash = element(parameters, SEQUENCE).and_then(|(fields, _)| element(fields, TAGGED_0));
        name = match hash {
            Some((hash, _)) => element(element(hash, SEQUENCE)?.0, OBJECT_ID)?.0,
            None => OLD[1],
        };
    }
    let is = |names: [ObjectId; 3]| names.contains(&name);
    if is(SHA_256) || is(OLD) {
        Some(Sha256::digest(certificate).to_vec())
    } else if is(SHA_384) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is(SHA_512) {
        Some(Sha512::digest(certificate).to_vec())
    } else if is(SHA_224) {
        Some(Sha224::digest(certificate).to_vec())
    } else {
        None
    }
}

/// The first and the last second in which it is good, since 1970.
pub(super) fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (parts, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(parts, SEQUENCE)?;
    if let Some((_, rest)) = element(fields, TAGGED_0) {
        fields = rest;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = any_element(fields)?.2;
    }
    let (times, _) = element(fields, SEQUENCE)?;
    let (kind, from, rest) = any_element(times)?;
    let from = seconds(kind, from)?;
    let (kind, until, _) = any_element(rest)?;
    Some((from, seconds(kind, until)?))
}

/// The contents of an element of that kind, and what follows it.
fn element(bytes: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    any_element(bytes).filter(|(found, ..)| *found == kind).map(|(_, contents, rest)| (contents, rest))
}

fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // No certificate needs more than four bytes for a length.
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((kind, contents, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` as seconds since 1970.
fn seconds(kind: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |range: std::ops::Range<usize>| {
        let part = digits.get(range)?;
        part.iter().all(u8::is_ascii_digit).then_some(())?;
        std::str::from_utf8(part).ok()?.parse::<i64>().ok()
    };
    let (year, at) = match (kind, digits.len()) {
        (UTC_TIME, 12) => (number(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0..4)?, 4),
        _ => return None,
    };
    let field = |index: usize| number(at + 2 * index..at + 2 * index + 2);
    let (month, day) = (field(0)?, field(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + field(2)? * 3600 + field(3)? * 60 + field(4)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        if contents.len() < 0x80 {
            bytes.push(contents.len() as u8);
        } else {
            bytes.extend([0x82, (contents.len() >> 8) as u8, contents.len() as u8]);
        }
        bytes.extend(contents);
        bytes
    }

    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let algorithm = wrapped(SEQUENCE, algorithm);
        let times =
            [wrapped(UTC_TIME, b"700101000000Z"), wrapped(GENERALIZED_TIME, b"20240229120000Z")].concat();
        let fields = [
            wrapped(TAGGED_0, &[2, 1, 2]),
            wrapped(2, &[1]),
            algorithm.clone(),
            wrapped(SEQUENCE, &[0; 200]),
            wrapped(SEQUENCE, &times),
        ]
        .concat();
        wrapped(SEQUENCE, &[wrapped(SEQUENCE, &fields), algorithm, wrapped(3, &[0; 70])].concat())
    }

    #[test]
    fn hashes_follow_the_signature() {
        for (names, bytes) in [(OLD, 32), (SHA_224, 28), (SHA_256, 32), (SHA_384, 48), (SHA_512, 64)] {
            for name in names {
                let found = end_point(&certificate(&wrapped(OBJECT_ID, name))).unwrap();
                assert_eq!(found.len(), bytes, "{name:?}");
            }
        }
        let der = certificate(&wrapped(OBJECT_ID, SHA_384[1]));
        assert_eq!(end_point(&der).unwrap(), Sha384::digest(&der).to_vec());
        let ed25519 = certificate(&wrapped(OBJECT_ID, &[0x2b, 0x65, 0x70]));
        assert_eq!(end_point(&ed25519), None);
    }

    #[test]
    fn the_hash_of_pss_is_among_its_parameters() {
        let hash = wrapped(TAGGED_0, &wrapped(SEQUENCE, &wrapped(OBJECT_ID, SHA_512[2])));
        let algorithm = [wrapped(OBJECT_ID, RSASSA_PSS), wrapped(SEQUENCE, &hash)].concat();
        assert_eq!(end_point(&certificate(&algorithm)).unwrap().len(), 64);
        let algorithm = [wrapped(OBJECT_ID, RSASSA_PSS), wrapped(SEQUENCE, &[])].concat();
        assert_eq!(end_point(&certificate(&algorithm)).unwrap().len(), 32);
    }

    #[test]
    fn times_are_read() {
        assert_eq!(validity(&certificate(&wrapped(OBJECT_ID, SHA_256[0]))), Some((0, 1_709_208_000)));
        assert_eq!(seconds(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(GENERALIZED_TIME, b"20000301000000Z"), Some(951_868_800));
        for bad in
            [&b"4912312359Z"[..], b"49123123595 Z", b"491331235959Z", b"491231235959", b"+91231235959Z"]
        {
            assert_eq!(seconds(UTC_TIME, bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in any::<proptest::sample::Index>()) {
            let _ = (end_point(&bytes), validity(&bytes));
            let whole = certificate(&wrapped(OBJECT_ID, SHA_256[0]));
            let mut changed = whole.clone();
            let at = cut.index(changed.len());
            changed[at] ^= bytes.first().copied().unwrap_or(1);
            let _ = (end_point(&changed), validity(&changed), validity(&whole[..at]), end_point(&whole[..at]));
        }
    }
}
