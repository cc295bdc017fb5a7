//! What a server says, read where it lies: nothing is copied but texts that outlive it.

use super::error::{Error, ServerError};

/// Where one value of a row lies in its body; a null has none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Field {
    start: u32,
    /// -1 for null.
    length: i32,
}

/// One row, in the buffer that it was received into.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    body: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Row<'a> {
    pub(super) fn new(body: &'a [u8], fields: &'a [Field]) -> Self {
        Self { body, fields }
    }

    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The bytes of a value; none for null, and for a column that is not there.
    #[must_use]
    pub fn value(&self, column: usize) -> Option<&'a [u8]> {
        let field = self.fields.get(column)?;
        let length = usize::try_from(field.length).ok()?;
        self.body.get(field.start as usize..)?.get(..length)
    }

    /// A value that is text, or none.
    #[must_use]
    pub fn text(&self, column: usize) -> Option<&'a str> {
        std::str::from_utf8(self.value(column)?).ok()
    }

    /// All values in order.
    pub fn values(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        (0..self.len()).map(move |column| self.value(column))
    }

    /// What it has in bytes, for credit.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len()
    }
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not what is in it: rows have secrets.
        write!(f, "Row({} values, {} bytes)", self.len(), self.size())
    }
}

/// The columns of what follows.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    body: &'a [u8],
    count: usize,
}

/// What a column is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a str,
    /// The table that it is of, or 0.
    pub table: u32,
    /// Its number there, or 0.
    pub number: i16,
    /// Its type.
    pub type_oid: u32,
    /// The size of the type; negative where it varies.
    pub type_size: i16,
    /// As in `varchar(10)`; -1 for none.
    pub type_modifier: i32,
    /// Whether values come in binary.
    pub binary: bool,
}

impl<'a> Columns<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each in order.
    pub fn iter(self) -> impl Iterator<Item = Column<'a>> {
        let mut reader = Reader(self.body);
        // They were all read once when the message came.
        std::iter::from_fn(move || reader.column()).take(self.count)
    }

    fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let count = reader.count()?;
        let rest = reader.0;
        for _ in 0..count {
            reader.column()?;
        }
        reader.0.is_empty().then_some(Self { body: rest, count })
    }
}

/// The types of a statement's parameters.
#[derive(Clone, Copy, Debug)]
pub struct ParameterTypes<'a>(&'a [u8]);

impl ParameterTypes<'_> {
    /// Each in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.chunks_exact(4).map(|bytes| bytes.iter().fold(0, |oid, byte| oid << 8 | u32::from(*byte)))
    }
}

/// `NOTIFY`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notification {
    /// The server's process that notified.
    pub process_id: i32,
    /// The channel.
    pub channel: String,
    /// The payload, empty if none was given.
    pub payload: String,
}

/// Whether a transaction block is open after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransactionStatus {
    /// None is.
    Idle,
    /// One is.
    Open,
    /// One is and has failed: it can only be rolled back.
    Failed,
}

/// What a server asks for to let somebody in.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Challenge<'a> {
    Ok,
    CleartextPassword,
    Md5 { salt: [u8; 4] },
    Sasl { mechanisms: Vec<&'a str> },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Other(u32),
}

/// Any message, borrowed from the buffer.
#[derive(Debug)]
pub(super) enum Message<'a> {
    Authentication(Challenge<'a>),
    BackendKey { process_id: i32, secret: &'a [u8] },
    BindComplete,
    CloseComplete,
    CommandComplete(&'a str),
    CopyBoth,
    CopyData,
    CopyDone,
    CopyIn,
    CopyOut,
    EmptyQuery,
    Error(Box<ServerError>),
    NegotiateProtocolVersion,
    NoData,
    Notice(Box<ServerError>),
    Notification(Notification),
    Parameter { name: &'a str, value: &'a str },
    ParameterTypes(ParameterTypes<'a>),
    ParseComplete,
    PortalSuspended,
    Ready(TransactionStatus),
    Row,
    Columns(Columns<'a>),
}

/// Reads one message. The values of a row are put into `fields`, which are used again and again.
pub(super) fn read<'a>(tag: u8, body: &'a [u8], fields: &mut Vec<Field>) -> Result<Message<'a>, Error> {
    decode(tag, body, fields).ok_or_else(|| {
        let problem = if KNOWN.contains(&tag) { "a malformed message" } else { "an unknown message" };
        Error::protocol(format!("{problem} {} of {} bytes", super::inbox::letter(tag), body.len()))
    })
}

/// Every letter that [`decode`] knows.
const KNOWN: &[u8] = b"123ACDEGHIKNRSTWZcdnstv";

fn decode<'a>(tag: u8, body: &'a [u8], fields: &mut Vec<Field>) -> Option<Message<'a>> {
    let mut reader = Reader(body);
    let message = match tag {
        b'1' => Message::ParseComplete,
        b'2' => Message::BindComplete,
        b'3' => Message::CloseComplete,
        b'A' => Message::Notification(Notification {
            process_id: reader.i32()?,
            channel: reader.lossy_text()?,
            payload: reader.lossy_text()?,
        }),
        b'C' => Message::CommandComplete(reader.text()?),
        b'D' => {
            read_fields(body, fields)?;
            return Some(Message::Row);
        }
        b'E' => return ServerError::read(body).map(|error| Message::Error(Box::new(error))),
        b'G' => return Some(Message::CopyIn),
        b'H' => return Some(Message::CopyOut),
        b'I' => Message::EmptyQuery,
        b'K' => {
            let process_id = reader.i32()?;
            // From version 3.2 on keys are longer; never longer than this.
            (4..=256).contains(&reader.0.len()).then_some(())?;
            return Some(Message::BackendKey { process_id, secret: reader.0 });
        }
        b'N' => return ServerError::read(body).map(|error| Message::Notice(Box::new(error))),
        b'R' => return challenge(reader).map(Message::Authentication),
        b'S' => Message::Parameter { name: reader.text()?, value: reader.text()? },
        b'T' => return Columns::read(body).map(Message::Columns),
        b'W' => return Some(Message::CopyBoth),
        b'Z' => Message::Ready(match reader.u8()? {
            b'I' => TransactionStatus::Idle,
            b'T' => TransactionStatus::Open,
            b'E' => TransactionStatus::Failed,
            _ => return None,
        }),
        b'c' => Message::CopyDone,
        b'd' => return Some(Message::CopyData),
        b'n' => Message::NoData,
        b's' => Message::PortalSuspended,
        b't' => {
            let count = reader.count()?;
            (reader.0.len() == 4 * count).then_some(())?;
            return Some(Message::ParameterTypes(ParameterTypes(reader.0)));
        }
        b'v' => return Some(Message::NegotiateProtocolVersion),
        _ => return None,
    };
    reader.0.is_empty().then_some(message)
}

fn read_fields(body: &[u8], fields: &mut Vec<Field>) -> Option<()> {
    fields.clear();
    let mut reader = Reader(body);
    let count = reader.count()?;
    // No row has more values than fit into it, whatever it says.
    (count <= reader.0.len() / 4).then_some(())?;
    for _ in 0..count {
        let length = reader.i32()?;
        let start = u32::try_from(body.len() - reader.0.len()).ok()?;
        if let Ok(bytes) = usize::try_from(length) {
            reader.take(bytes)?;
        } else if length != -1 {
            return None;
        }
        fields.push(Field { start, length });
    }
    reader.0.is_empty().then_some(())
}

fn challenge(mut reader: Reader<'_>) -> Option<Challenge<'_>> {
    let challenge = match reader.u32()? {
        0 => Challenge::Ok,
        3 => Challenge::CleartextPassword,
        5 => Challenge::Md5 { salt: reader.take(4)?.try_into().ok()? },
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match reader.text()? {
                    "" => break,
                    name if mechanisms.len() < 16 => mechanisms.push(name),
                    _ => return None,
                }
            }
            Challenge::Sasl { mechanisms }
        }
        11 => return Some(Challenge::SaslContinue(reader.0)),
        12 => return Some(Challenge::SaslFinal(reader.0)),
        other => return Some(Challenge::Other(other)),
    };
    reader.0.is_empty().then_some(challenge)
}

/// What is left of a body.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// A count in 16 bits. The server means it without a sign.
    fn count(&mut self) -> Option<usize> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A text that ends with a zero byte.
    fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let text = std::str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    /// A text of whoever notified: a database whose encoding is SQL_ASCII passes on any bytes.
    fn lossy_text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    fn column(&mut self) -> Option<Column<'a>> {
        Some(Column {
            name: self.text()?,
            table: self.u32()?,
            number: self.i16()?,
            type_oid: self.u32()?,
            type_size: self.i16()?,
            type_modifier: self.i32()?,
            binary: match self.i16()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_read_where_they_lie() {
        let body = [0, 3, 0, 0, 0, 2, b'h', b'i', 255, 255, 255, 255, 0, 0, 0, 0];
        let mut fields = Vec::new();
        assert!(matches!(read(b'D', &body, &mut fields), Ok(Message::Row)));
        let row = Row::new(&body, &fields);
        assert_eq!(row.values().collect::<Vec<_>>(), [Some(&b"hi"[..]), None, Some(&b""[..])]);
        assert_eq!((row.text(0), row.text(1), row.value(3)), (Some("hi"), None, None));
        for cut in 0..body.len() {
            assert!(read(b'D', &body[..cut], &mut fields).is_err(), "{cut}");
        }
        for bad in [&[0u8, 1, 255, 255, 255, 254][..], &[0, 0, 0], &[255, 255, 0, 0, 0, 0]] {
            assert!(read(b'D', bad, &mut fields).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn columns_are_read() {
        let mut body = vec![0, 1];
        body.extend(b"id\0\0\0\0\x07\0\x02\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01");
        let Ok(Message::Columns(columns)) = read(b'T', &body, &mut Vec::new()) else { panic!("no columns") };
        let column = Column {
            name: "id",
            table: 7,
            number: 2,
            type_oid: 23,
            type_size: 4,
            type_modifier: -1,
            binary: true,
        };
        assert_eq!(columns.iter().collect::<Vec<_>>(), [column]);
        for cut in 0..body.len() {
            assert!(read(b'T', &body[..cut], &mut Vec::new()).is_err(), "{cut}");
        }
    }

    #[test]
    fn challenges_are_read() {
        let read = |body: &'static [u8]| match read(b'R', body, &mut Vec::new()) {
            Ok(Message::Authentication(challenge)) => Some(challenge),
            _ => None,
        };
        assert_eq!(read(b"\0\0\0\0"), Some(Challenge::Ok));
        assert_eq!(read(b"\0\0\0\x05abcd"), Some(Challenge::Md5 { salt: *b"abcd" }));
        let sasl = Challenge::Sasl { mechanisms: vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"] };
        assert_eq!(read(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), Some(sasl));
        assert_eq!(read(b"\0\0\0\x07"), Some(Challenge::Other(7)));
        for bad in [&b"\0\0\0"[..], b"\0\0\0\x05abc", b"\0\0\0\x0aX", b"\0\0\0\0x"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(tag in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut fields = Vec::new();
            let known = KNOWN.contains(&tag);
            if let Ok(message) = read(tag, &body, &mut fields) {
                prop_assert!(known);
                match message {
                    Message::Row => prop_assert_eq!(Row::new(&body, &fields).values().count(), fields.len()),
                    Message::Columns(columns) => prop_assert_eq!(columns.iter().count(), columns.len()),
                    _ => {}
                }
            }
            prop_assert!(fields.capacity() <= body.len() + 4);
        }

        #[test]
        fn rows_of_any_shape_are_read(values in proptest::collection::vec(
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)), 0..20,
        )) {
            let mut body = (values.len() as u16).to_be_bytes().to_vec();
            for value in &values {
                match value {
                    None => body.extend((-1i32).to_be_bytes()),
                    Some(value) => {
                        body.extend((value.len() as i32).to_be_bytes());
                        body.extend(value);
                    }
                }
            }
            let mut fields = Vec::new();
            prop_assert!(read(b'D', &body, &mut fields).is_ok());
            let read: Vec<_> = Row::new(&body, &fields).values().map(|value| value.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(read, values);
        }
    }
}
