//! What ciborium says of CBOR, and RFC 8949 itself, whose appendix C is a well-formedness check.

use super::value::{UNSAYABLE, Value};
use super::{DEPTH_MAX, Reading};

/// Tags that refer to other places of the message (docs/serialization.md).
const REFERRING: [u64; 4] = [25, 28, 29, 256];

/// ciborium stops at 256 levels.
const LEVELS_MAX: usize = 250;

/// `None` where both refuse, or ciborium takes what is not well-formed.
pub(super) fn read(bytes: &[u8]) -> Option<Reading> {
    let mut walk = Walk { bytes, at: 0, deepest: 0, refers: false, differences: Vec::new() };
    match walk.item(0) {
        Ok(()) if walk.at == bytes.len() => {}
        Ok(()) | Err(Fault::Ill) => {
            assert!(by_ciborium(bytes).is_none(), "ciborium takes what is not well-formed: {bytes:02x?}");
            return None;
        }
        Err(Fault::TooDeep | Fault::SimpleInTwoBytes | Fault::ChunksInChunks) => return None,
    }
    let (depth, refers) = (walk.deepest, walk.refers);
    if depth > DEPTH_MAX {
        return Some(Reading { value: Value::Null, depth, refers });
    }
    let value =
        by_ciborium(&without(bytes, &walk.differences)).expect("well-formed, and no difference is left");
    Some(Reading { value: value_of(value), depth, refers })
}

fn by_ciborium(mut bytes: &[u8]) -> Option<ciborium::Value> {
    let value = ciborium::from_reader(&mut bytes).ok()?;
    bytes.is_empty().then_some(value)
}

/// Why an item is not taken.
enum Fault {
    /// Not well-formed, and ciborium says so, too.
    Ill,
    TooDeep,
    /// `f8 00` to `f8 1f`: not well-formed (RFC 8949, 3.3), but ciborium takes `f8 14` to `f8 17` for those of one byte.
    SimpleInTwoBytes,
    /// A chunk of indefinite length: not well-formed (RFC 8949, 3.2.3), but ciborium looks into it.
    ChunksInChunks,
}

/// What ciborium refuses though it is well-formed, with the place and what to give it instead.
type Difference = (std::ops::Range<usize>, Vec<u8>);

fn without(bytes: &[u8], differences: &[Difference]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    for (place, instead) in differences {
        out.extend_from_slice(&bytes[at..place.start]);
        out.extend_from_slice(instead);
        at = place.end;
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

/// The pseudocode of RFC 8949, appendix C, which also notes what we have our own rules for.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    deepest: usize,
    refers: bool,
    differences: Vec<Difference>,
}

impl<'a> Walk<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(length).map_err(|_| Fault::Ill)?;
        let taken = self.bytes[self.at..].get(..length).ok_or(Fault::Ill)?;
        self.at += length;
        Ok(taken)
    }

    /// Major type, additional information and its argument.
    fn head(&mut self) -> Result<(u8, u8, u64), Fault> {
        let first = self.take(1)?[0];
        let (major, information) = (first >> 5, first & 0x1f);
        let argument = match information {
            0..=23 => u64::from(information),
            24..=27 => self
                .take(1 << (information - 24))?
                .iter()
                .fold(0, |argument, byte| argument << 8 | u64::from(*byte)),
            31 if matches!(major, 2..=5 | 7) => 0,
            _ => return Err(Fault::Ill),
        };
        Ok((major, information, argument))
    }

    fn item(&mut self, depth: usize) -> Result<(), Fault> {
        let start = self.at;
        let (major, information, argument) = self.head()?;
        let inner = if (4..=6).contains(&major) { depth + 1 } else { depth };
        self.deepest = self.deepest.max(inner);
        if inner > LEVELS_MAX {
            return Err(Fault::TooDeep);
        }
        match (major, information) {
            (2 | 3, 31) => self.chunks(major)?,
            (2, _) => drop(self.take(argument)?),
            (3, _) => self.text(argument)?,
            (4 | 5, 31) => {
                while self.bytes.get(self.at) != Some(&0xff) {
                    self.items(u64::from(major) - 3, inner)?;
                }
                self.at += 1;
            }
            (4, _) => self.items(argument, inner)?,
            (5, _) => self.items(argument.checked_mul(2).ok_or(Fault::Ill)?, inner)?,
            (6, _) => {
                self.refers |= REFERRING.contains(&argument);
                let content = self.at;
                self.item(inner)?;
                if argument == 3 {
                    self.note_large_negative(content);
                }
            }
            (7, 31) => return Err(Fault::Ill),
            (7, 24) if argument < 32 => return Err(Fault::SimpleInTwoBytes),
            (7, 0..=19 | 24) => self.note_simple(start),
            _ => {}
        }
        Ok(())
    }

    fn items(&mut self, count: u64, depth: usize) -> Result<(), Fault> {
        for _ in 0..count {
            self.item(depth)?;
        }
        Ok(())
    }

    /// Every chunk of a text is UTF-8 by itself (3.2.3).
    fn text(&mut self, length: u64) -> Result<(), Fault> {
        str::from_utf8(self.take(length)?).map(drop).map_err(|_| Fault::Ill)
    }

    fn chunks(&mut self, of: u8) -> Result<(), Fault> {
        while self.bytes.get(self.at) != Some(&0xff) {
            match self.head()? {
                (major, 31, _) if major == of => return Err(Fault::ChunksInChunks),
                (2, _, length) if of == 2 => drop(self.take(length)?),
                (3, _, length) if of == 3 => self.text(length)?,
                _ => return Err(Fault::Ill),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// `simple_values`: ciborium refuses those without a meaning; we carry them, and cannot say them in other serializers.
    fn note_simple(&mut self, start: usize) {
        let mut instead = Vec::new();
        ciborium::into_writer(UNSAYABLE, &mut instead).expect("into memory");
        self.differences.push((start..self.at, instead));
    }

    /// `large_negative`: ciborium refuses tag 3 with sixteen bytes from 2^127 on; with a leading zero it does not.
    fn note_large_negative(&mut self, content: usize) {
        let end = std::mem::replace(&mut self.at, content);
        let head = self.head();
        let start = std::mem::replace(&mut self.at, end);
        if matches!(head, Ok((2, 0..=30, 16))) && self.bytes[start] >= 0x80 {
            self.differences.push((content..start, vec![0x51, 0]));
        }
    }
}

fn value_of(value: ciborium::Value) -> Value {
    match value {
        ciborium::Value::Null => Value::Null,
        ciborium::Value::Bool(value) => Value::Boolean(value),
        ciborium::Value::Integer(value) => integer(value.into()),
        ciborium::Value::Float(value) => Value::float(value),
        ciborium::Value::Text(text) => Value::text(&text),
        ciborium::Value::Bytes(bytes) => Value::Bytes(bytes),
        ciborium::Value::Array(elements) => Value::List(elements.into_iter().map(value_of).collect()),
        ciborium::Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (value_of(key), value_of(value))).collect())
        }
        ciborium::Value::Tag(tag, content) => match (tag, *content) {
            (2, ciborium::Value::Bytes(bytes)) => big_integer(&bytes, false),
            (3, ciborium::Value::Bytes(bytes)) => big_integer(&bytes, true),
            (_, content) => value_of(content),
        },
        _ => panic!("a value that ciborium did not have"),
    }
}

/// What fits 64 bits, signed or unsigned, stays an integer.
fn integer(value: i128) -> Value {
    match (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value) {
        true => Value::Integer(value),
        false => Value::float(value as f64),
    }
}

/// The integer of tags 2 and 3, by way of its decimal digits.
fn big_integer(bytes: &[u8], below_zero: bool) -> Value {
    // Little-endian, nine decimal digits each.
    let mut digits = Vec::new();
    for byte in bytes {
        multiply_and_add(&mut digits, 256, u64::from(*byte));
    }
    multiply_and_add(&mut digits, 1, u64::from(below_zero));
    let mut decimal: String = digits.iter().rev().map(|digit| format!("{digit:09}")).collect();
    decimal.insert(0, '0');
    if below_zero {
        decimal.insert(0, '-');
    }
    match decimal.parse::<i128>() {
        Ok(value) => integer(value),
        Err(_) => match decimal.parse::<f64>().expect("digits") {
            value if value.is_finite() => Value::float(value),
            _ => Value::Unsayable,
        },
    }
}

fn multiply_and_add(digits: &mut Vec<u64>, factor: u64, summand: u64) {
    let mut carry = summand;
    for digit in digits.iter_mut() {
        let sum = *digit * factor + carry;
        *digit = sum % 1_000_000_000;
        carry = sum / 1_000_000_000;
    }
    if carry > 0 {
        digits.push(carry);
    }
}
