//! What the load carries: who sent it, its number, when, and padding up to the size that was asked for. All of it
//! text, so that every serializer carries it alike.

/// The shortest payload, in bytes: sender, number and time, in hexadecimal.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 40;

/// What a payload says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which of the senders.
    pub(crate) sender: u32,
    /// The number of the message among those of its sender, from 1.
    pub(crate) sequence: u64,
    /// When it was sent, or should have been where the load is paced: nanoseconds of the monotonic clock, which all
    /// processes of a machine share.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// Writes it into `out`, `bytes` long; shorter payloads than the shortest become that.
    pub(crate) fn write(self, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        push_hex(u64::from(self.sender), 8, out);
        push_hex(self.sequence, 16, out);
        push_hex(self.sent_ns, 16, out);
        out.resize(bytes.max(PAYLOAD_BYTES_MIN), b'x');
    }

    /// Reads it; `None` where it is none, or where the padding is not what was written.
    pub(crate) fn read(payload: &[u8], bytes: usize) -> Option<Self> {
        if payload.len() != bytes.max(PAYLOAD_BYTES_MIN) {
            return None;
        }
        let (head, padding) = payload.split_at_checked(PAYLOAD_BYTES_MIN)?;
        if padding.iter().any(|byte| *byte != b'x') {
            return None;
        }
        Some(Self {
            sender: u32::try_from(hex(&head[..8])?).ok()?,
            sequence: hex(&head[8..24])?,
            sent_ns: hex(&head[24..40])?,
        })
    }
}

fn push_hex(number: u64, digits: u32, out: &mut Vec<u8>) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize]);
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_as_they_were_written() {
        let stamp = Stamp { sender: 0xFFFF_0001, sequence: 7, sent_ns: u64::MAX - 1 };
        let mut payload = Vec::new();
        for bytes in [0, 40, 64, 5000] {
            stamp.write(bytes, &mut payload);
            assert_eq!(payload.len(), bytes.max(PAYLOAD_BYTES_MIN));
            assert_eq!(Stamp::read(&payload, bytes), Some(stamp));
        }
        payload[4999] = b'y';
        assert_eq!(Stamp::read(&payload, 5000), None, "changed on its way");
        payload.pop();
        assert_eq!(Stamp::read(&payload, 5000), None, "cut");
    }
}
