//! Values into Oracle and out of it.

use std::io::Read as _;

use oracle::sql_type::{
    Blob, Clob, FromSql, IntervalDS, IntervalYM, Lob as _, Nclob, OracleType, RefCursor, Timestamp, ToSql,
};
use oracle::{Connection, SqlValue};

use super::errors::Failure;
use super::subprograms::Kind;
use super::times;
use crate::database::Numbers;
use crate::wamp::codec::{Composer, Datum, Encoder, to_json};

/// The most characters that a text of PL/SQL is given room for: four bytes each are just what a value without a LOB may have.
pub(super) const TEXT_CHARS_MAX: u32 = 8_191;
/// The same of SQL, where longer ones go as a LOB.
const SQL_TEXT_BYTES_MAX: usize = 4_000;
const RAW_BYTES_MAX: usize = 32_767;
const SQL_RAW_BYTES_MAX: usize = 2_000;
/// Numbers have no more digits than that, and exponents beyond their own ends.
const NUMBER_BYTES_MAX: usize = 172;
/// Of a number, before the point, behind it, or of its exponent.
const DIGITS_MAX: usize = 18;

/// A value on its way in, or room for one on its way out.
#[derive(Clone, Debug)]
pub(super) enum Bound {
    Null(OracleType),
    Text(String, OracleType),
    Number(String),
    Double(f64),
    Bytes(Vec<u8>, OracleType),
    Timestamp(Timestamp, OracleType),
    DaySecond(IntervalDS),
    YearMonth(IntervalYM),
    Boolean(bool),
}

const NUMBER: OracleType = OracleType::Number(0, 0);
const DAY_SECOND: OracleType = OracleType::IntervalDS(9, 9);
const YEAR_MONTH: OracleType = OracleType::IntervalYM(9);

impl ToSql for Bound {
    fn oratype(&self, _connection: &Connection) -> oracle::Result<OracleType> {
        Ok(match self {
            Self::Null(kind) | Self::Text(_, kind) | Self::Bytes(_, kind) | Self::Timestamp(_, kind) => {
                kind.clone()
            }
            Self::Number(_) => NUMBER,
            Self::Double(_) => OracleType::BinaryDouble,
            Self::DaySecond(_) => DAY_SECOND,
            Self::YearMonth(_) => YEAR_MONTH,
            Self::Boolean(_) => OracleType::Boolean,
        })
    }

    fn to_sql(&self, value: &mut SqlValue<'_>) -> oracle::Result<()> {
        match self {
            Self::Null(_) => value.set_null(),
            Self::Text(text, _) | Self::Number(text) => value.set(text),
            Self::Double(number) => value.set(number),
            Self::Bytes(bytes, _) => value.set(bytes),
            Self::Timestamp(timestamp, _) => value.set(timestamp),
            Self::DaySecond(interval) => value.set(interval),
            Self::YearMonth(interval) => value.set(interval),
            Self::Boolean(truth) => value.set(truth),
        }
    }
}

/// Room for a value that comes out.
pub(super) fn room(kind: Kind) -> Bound {
    Bound::Null(match kind {
        Kind::Text => OracleType::Varchar2(TEXT_CHARS_MAX),
        Kind::NationalText => OracleType::NVarchar2(TEXT_CHARS_MAX),
        Kind::Number | Kind::Integer => NUMBER,
        Kind::Double => OracleType::BinaryDouble,
        Kind::Date => OracleType::Date,
        Kind::Timestamp => OracleType::Timestamp(9),
        Kind::TimestampZone => OracleType::TimestampTZ(9),
        Kind::DaySecond => DAY_SECOND,
        Kind::YearMonth => YEAR_MONTH,
        Kind::Raw => OracleType::Raw(RAW_BYTES_MAX as u32),
        Kind::Clob | Kind::Json | Kind::Object => OracleType::CLOB,
        Kind::NationalClob => OracleType::NCLOB,
        Kind::Blob => OracleType::BLOB,
        Kind::Boolean => OracleType::Boolean,
        Kind::Cursor => OracleType::RefCursor,
    })
}

/// A value for a parameter of this kind; `is_out`: there has to be room for what comes back as well.
///
/// # Errors
/// What is wrong with it, for who calls.
pub(super) fn bound(datum: &Datum<'_>, kind: Kind, is_out: bool) -> Result<Bound, String> {
    if *datum == Datum::Null {
        let is_long =
            matches!(kind, Kind::Clob | Kind::NationalClob | Kind::Blob | Kind::Json | Kind::Object);
        return Ok(if is_out || !is_long { room(kind) } else { Bound::Null(OracleType::Varchar2(1)) });
    }
    let expected = |what: &str| format!("expected {what}, found {}", datum.describe());
    Ok(match kind {
        Kind::Text | Kind::NationalText | Kind::Clob | Kind::NationalClob => {
            text(text_of(datum)?, kind, is_out)
        }
        Kind::Json => text(json_of(datum)?, Kind::Clob, is_out),
        Kind::Object => match datum {
            Datum::List(_) | Datum::Map(_) => text(json_of(datum)?, Kind::Clob, is_out),
            _ => return Err(expected("an object or a list")),
        },
        Kind::Number | Kind::Integer => number(number_of(datum)?),
        Kind::Double => {
            let number = match datum {
                Datum::Float(number) => *number,
                other => number_of(other)?.parse().map_err(|_| expected("a number"))?,
            };
            Bound::Double(number)
        }
        Kind::Date | Kind::Timestamp | Kind::TimestampZone => {
            let is_zone = kind == Kind::TimestampZone;
            let Datum::Text(text) = datum else { return Err(expected("a time as RFC 3339")) };
            let parsed = times::parse_timestamp(text, is_zone);
            let Bound::Null(kind) = room(kind) else { return Err(expected("a time")) };
            Bound::Timestamp(
                parsed.ok_or_else(|| format!("`{text}` is no time as RFC 3339 writes it"))?,
                kind,
            )
        }
        Kind::DaySecond => {
            let Datum::Text(text) = datum else { return Err(expected("a duration as ISO 8601")) };
            let parsed = times::parse_day_second(text);
            Bound::DaySecond(parsed.ok_or_else(|| format!("`{text}` is no duration of days to seconds"))?)
        }
        Kind::YearMonth => {
            let Datum::Text(text) = datum else { return Err(expected("a duration as ISO 8601")) };
            let parsed = times::parse_year_month(text);
            Bound::YearMonth(parsed.ok_or_else(|| format!("`{text}` is no duration of years and months"))?)
        }
        Kind::Raw | Kind::Blob => {
            let Datum::Bytes(bytes) = datum else { return Err(expected("bytes")) };
            let room = if is_out { RAW_BYTES_MAX } else { bytes.len().max(1) };
            let kind = if kind == Kind::Blob && (is_out || bytes.len() > RAW_BYTES_MAX) {
                OracleType::BLOB
            } else if bytes.len() > RAW_BYTES_MAX {
                return Err(format!("{} bytes are more than a RAW has", bytes.len()));
            } else {
                OracleType::Raw(room as u32)
            };
            Bound::Bytes(bytes.clone().into_owned(), kind)
        }
        Kind::Boolean => match datum {
            Datum::Boolean(truth) => Bound::Boolean(*truth),
            _ => return Err(expected("true or false")),
        },
        Kind::Cursor => return Err("a cursor cannot be given".to_owned()),
    })
}

/// A value for SQL of the configuration, which says no types: as its own kind.
///
/// # Errors
/// As [`bound`].
pub(super) fn bound_to_sql(datum: &Datum<'_>, is_block: bool) -> Result<Bound, String> {
    Ok(match datum {
        Datum::Null => Bound::Null(OracleType::Varchar2(1)),
        // Only PL/SQL has known it from the beginning.
        Datum::Boolean(truth) if is_block => Bound::Boolean(*truth),
        Datum::Boolean(truth) => Bound::Number(u8::from(*truth).to_string()),
        Datum::Float(number) => Bound::Double(*number),
        Datum::Unsigned(_) | Datum::Negative(_) | Datum::Literal(_) => number(number_of(datum)?),
        Datum::Bytes(bytes) => {
            let bytes = bytes.clone().into_owned();
            let most = if is_block { RAW_BYTES_MAX } else { SQL_RAW_BYTES_MAX };
            let kind = if bytes.len() > most {
                OracleType::BLOB
            } else {
                OracleType::Raw(bytes.len().max(1) as u32)
            };
            Bound::Bytes(bytes, kind)
        }
        Datum::Text(_) | Datum::List(_) | Datum::Map(_) => {
            let text = text_of(datum)?;
            if !is_block && text.len() > SQL_TEXT_BYTES_MAX {
                Bound::Text(text, OracleType::CLOB)
            } else {
                self::text(text, Kind::Text, false)
            }
        }
    })
}

/// Those with more digits than an integer of 64 bits has go as texts: the library of this program counts with such integers
/// while it looks whether a text is a number.
fn number(text: String) -> Bound {
    let longest = text.split(|character: char| !character.is_ascii_digit()).map(str::len).max();
    if longest.is_some_and(|digits| digits > DIGITS_MAX) {
        Bound::Text(text, OracleType::Varchar2(NUMBER_BYTES_MAX as u32))
    } else {
        Bound::Number(text)
    }
}

fn text(text: String, kind: Kind, is_out: bool) -> Bound {
    let chars = text.chars().count();
    let is_lob = matches!(kind, Kind::Clob | Kind::NationalClob);
    let oracle_type = match kind {
        Kind::NationalClob if is_out || chars > TEXT_CHARS_MAX as usize => OracleType::NCLOB,
        _ if is_lob && is_out || chars > TEXT_CHARS_MAX as usize => OracleType::CLOB,
        Kind::NationalText | Kind::NationalClob => {
            OracleType::NVarchar2(if is_out { TEXT_CHARS_MAX } else { chars.max(1) as u32 })
        }
        _ => OracleType::Varchar2(if is_out { TEXT_CHARS_MAX } else { chars.max(1) as u32 }),
    };
    Bound::Text(text, oracle_type)
}

/// A text of any length, for PL/SQL that takes a CLOB or a VARCHAR2.
pub(super) fn long_text(text: &str) -> Bound {
    self::text(text.to_owned(), Kind::Clob, false)
}

fn text_of(datum: &Datum<'_>) -> Result<String, String> {
    Ok(match datum {
        Datum::Text(text) => text.clone().into_owned(),
        Datum::Bytes(_) => return Err("expected a text, found bytes".to_owned()),
        Datum::Boolean(truth) => truth.to_string(),
        Datum::List(_) | Datum::Map(_) => json_of(datum)?,
        number => number_of(number)?,
    })
}

fn json_of(datum: &Datum<'_>) -> Result<String, String> {
    Ok(match datum {
        Datum::List(value) | Datum::Map(value) => {
            to_json(*value, &mut Encoder::new()).map_err(|error| error.to_string())?.into_owned()
        }
        Datum::Text(text) => serde_json::Value::from(&**text).to_string(),
        Datum::Boolean(truth) => truth.to_string(),
        Datum::Null => "null".to_owned(),
        Datum::Bytes(_) => return Err("JSON has no bytes".to_owned()),
        number => number_of(number)?,
    })
}

fn number_of(datum: &Datum<'_>) -> Result<String, String> {
    let text = match datum {
        Datum::Unsigned(number) => number.to_string(),
        Datum::Negative(number) => number.to_string(),
        Datum::Float(number) if number.is_finite() => number.to_string(),
        Datum::Literal(literal) => literal.clone().into_owned(),
        Datum::Text(text) => text.trim().to_owned(),
        other => return Err(format!("expected a number, found {}", other.describe())),
    };
    if is_number(&text) { Ok(text) } else { Err(format!("`{text}` is no number of Oracle")) }
}

/// `-12.5e-3`, and not more digits than the library of this program reads.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_exponent = |exponent: &str| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && digits.len() <= 3 && is_digits(digits)
    };
    text.len() <= NUMBER_BYTES_MAX
        && whole.len() + part.len() > 0
        && is_digits(whole)
        && is_digits(part)
        && exponent.is_none_or(is_exponent)
}

/// A value that came out. What is a LOB or a cursor is still to be read.
pub(super) enum Cell {
    Null,
    Integer(i64),
    Number(String),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Boolean(bool),
    Clob(Clob),
    NationalClob(Nclob),
    Blob(Blob),
    Cursor(Box<RefCursor>),
}

impl FromSql for Cell {
    fn from_sql(value: &SqlValue<'_>) -> oracle::Result<Self> {
        let oracle_type = value.oracle_type()?;
        if value.is_null()? {
            return Ok(Self::Null);
        }
        Ok(match oracle_type {
            OracleType::Int64 | OracleType::UInt64 => Self::Integer(value.get()?),
            OracleType::Number(..) | OracleType::Float(_) => Self::Number(value.get()?),
            OracleType::BinaryFloat => Self::Double(value.get::<f32>()?.into()),
            OracleType::BinaryDouble => Self::Double(value.get()?),
            OracleType::Raw(_) | OracleType::LongRaw => Self::Bytes(value.get()?),
            OracleType::Date
            | OracleType::Timestamp(_)
            | OracleType::TimestampTZ(_)
            | OracleType::TimestampLTZ(_) => Self::Text(times::timestamp(&value.get()?)),
            OracleType::IntervalDS(..) => Self::Text(times::day_second(&value.get()?)),
            OracleType::IntervalYM(_) => Self::Text(times::year_month(&value.get()?)),
            OracleType::Boolean => Self::Boolean(value.get()?),
            OracleType::CLOB => Self::Clob(value.get()?),
            OracleType::NCLOB => Self::NationalClob(value.get()?),
            OracleType::BLOB => Self::Blob(value.get()?),
            OracleType::RefCursor => Self::Cursor(Box::new(value.get()?)),
            // Texts, row ids, XML; and what cannot be had as one says so.
            _ => Self::Text(value.get()?),
        })
    }
}

/// Writes a value as calls know it.
///
/// # Errors
/// It is longer than a result may be, or cannot be read.
pub(super) fn write(
    out: &mut Composer,
    cell: Cell,
    kind: Option<Kind>,
    (numbers, bytes_max): (Numbers, usize),
) -> Result<(), Failure> {
    match cell {
        Cell::Null => out.null(),
        Cell::Integer(number) => numbers.write(number, out),
        // Exact: what has no more than 64 bits is a number where it is declared so, all else a text.
        Cell::Number(text) => match text.parse::<i64>() {
            Ok(number) if kind == Some(Kind::Integer) => numbers.write(number, out),
            _ => match text.parse::<f64>() {
                Ok(number) if numbers.exact_as_float && number.is_finite() => out.float(number),
                _ => out.text(&text),
            },
        },
        Cell::Double(number) if number.is_finite() => out.float(number),
        Cell::Double(_) => out.null(),
        Cell::Text(text) => write_text(out, &text, kind),
        Cell::Bytes(bytes) => out.bytes(&bytes),
        Cell::Boolean(truth) => out.boolean(truth),
        Cell::Clob(mut lob) => {
            let text = read_text(lob.size()?, &mut lob, bytes_max)?;
            write_text(out, &text, kind);
        }
        Cell::NationalClob(mut lob) => out.text(&read_text(lob.size()?, &mut lob, bytes_max)?),
        Cell::Blob(mut lob) => {
            let size = lob.size()?;
            if size > bytes_max as u64 {
                return Err(Failure::TooLong);
            }
            let mut bytes = Vec::with_capacity(size as usize);
            lob.read_to_end(&mut bytes).map_err(unreadable)?;
            out.bytes(&bytes);
        }
        Cell::Cursor(_) => return Err(Failure::Arguments("a cursor within a row cannot be read".to_owned())),
    }
    Ok(())
}

/// A text, or the value that it is in JSON.
fn write_text(out: &mut Composer, text: &str, kind: Option<Kind>) {
    let is_written = match kind {
        Some(Kind::Json) => out.json(text).is_ok(),
        // A list of the one value, which has an object's or a list's JSON, or null.
        Some(Kind::Object) => {
            let inner = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            inner.is_some_and(|inner| out.json(&in_small_letters(inner)).is_ok())
        }
        _ => false,
    };
    if !is_written {
        out.text(text);
    }
}

/// JSON whose keys are in small letters where they are in capitals, as attributes of object types are that nobody has quoted.
fn in_small_letters(json: &str) -> String {
    let mut written = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(begin) = rest.find('"') {
        written.push_str(&rest[..=begin]);
        rest = &rest[begin + 1..];
        let mut is_escaped = false;
        let end = rest.find(|character| {
            let is_end = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            is_end
        });
        let (text, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let is_key = behind.get(1..).is_some_and(|behind| behind.trim_start().starts_with(':'));
        if is_key && !text.contains('\\') {
            written.push_str(&super::results::name_of(text));
        } else {
            written.push_str(text);
        }
        let (quote, behind) = behind.split_at(behind.len().min(1));
        written.push_str(quote);
        rest = behind;
    }
    written.push_str(rest);
    written
}

/// All of a text of the outbox, whose length is bounded by what may be published.
pub(super) fn read_clob(mut lob: Clob) -> oracle::Result<String> {
    let mut text = String::new();
    lob.read_to_string(&mut text)
        .map_err(|error| oracle::Error::new(oracle::ErrorKind::Other, error.to_string()))?;
    Ok(text)
}

fn read_text(chars: u64, lob: &mut impl std::io::Read, bytes_max: usize) -> Result<String, Failure> {
    if chars > bytes_max as u64 {
        return Err(Failure::TooLong);
    }
    let mut text = String::with_capacity(chars as usize);
    lob.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// What reading a LOB says is an error of the database in the clothes of another.
fn unreadable(error: std::io::Error) -> Failure {
    let text = error.to_string();
    let inner = error.into_inner().and_then(|inner| inner.downcast::<oracle::Error>().ok());
    match inner {
        Some(error) => Failure::Oracle(*error),
        None => Failure::Oracle(oracle::Error::new(oracle::ErrorKind::Other, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_oracle() {
        for good in ["0", "-1", "+1", ".5", "5.", "12.5e-3", "1E125", "123456789012345678901234567890.25"] {
            assert!(is_number(good), "{good}");
        }
        for bad in ["", "-", ".", "1e", "1e+", "1e1234", "0x1", "1,5", "NaN", "1 2", &"1".repeat(173)] {
            assert!(!is_number(bad), "{bad}");
        }
    }

    #[test]
    fn keys_of_objects_are_in_small_letters() {
        for (json, small) in [
            (
                r#"{"ID":1,"NAME":"A:\"B\"","Mixed":[{"X" : null}]}"#,
                r#"{"id":1,"name":"A:\"B\"","Mixed":[{"x" : null}]}"#,
            ),
            (r#"["ID","a\\",{"A\u0041":"B"}]"#, r#"["ID","a\\",{"A\u0041":"B"}]"#),
            ("12.50", "12.50"),
            ("\"open", "\"open"),
        ] {
            assert_eq!(in_small_letters(json), small);
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (datum, kind, problem) in [
            (Datum::Text("x".into()), Kind::Number, "`x` is no number of Oracle"),
            (Datum::Boolean(true), Kind::Integer, "expected a number, found"),
            (Datum::Unsigned(1), Kind::Boolean, "expected true or false, found"),
            (Datum::Text("yesterday".into()), Kind::Date, "`yesterday` is no time"),
            (Datum::Unsigned(1), Kind::Timestamp, "expected a time as RFC 3339, found"),
            (Datum::Text("P1M".into()), Kind::DaySecond, "no duration of days to seconds"),
            (Datum::Text("x".into()), Kind::Raw, "expected bytes, found"),
            (Datum::Bytes(vec![1].into()), Kind::Text, "found bytes"),
            (Datum::Bytes(vec![1].into()), Kind::Json, "JSON has no bytes"),
            (Datum::Unsigned(1), Kind::Object, "expected an object or a list, found"),
        ] {
            let error = bound(&datum, kind, false).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        let long = Datum::Bytes(vec![0; 40_000].into());
        assert!(bound(&long, Kind::Raw, false).unwrap_err().contains("more than a RAW has"));
        assert!(matches!(bound(&long, Kind::Blob, false), Ok(Bound::Bytes(_, OracleType::BLOB))));
    }

    #[test]
    fn long_texts_are_lobs() {
        let of = |text: String, kind, is_out| match bound(&Datum::Text(text.into()), kind, is_out) {
            Ok(Bound::Text(_, oracle_type)) => oracle_type,
            other => panic!("{other:?}"),
        };
        assert_eq!(of("grün".to_owned(), Kind::Text, false), OracleType::Varchar2(4));
        assert_eq!(of("x".to_owned(), Kind::Text, true), OracleType::Varchar2(TEXT_CHARS_MAX));
        assert_eq!(of("x".repeat(8_192), Kind::Text, false), OracleType::CLOB);
        assert_eq!(of("x".to_owned(), Kind::Clob, false), OracleType::Varchar2(1));
        assert_eq!(of("x".to_owned(), Kind::Clob, true), OracleType::CLOB);
        assert_eq!(of("x".to_owned(), Kind::NationalText, false), OracleType::NVarchar2(1));
        let sql = |text: String| bound_to_sql(&Datum::Text(text.into()), false);
        assert!(matches!(sql("x".repeat(4_001)), Ok(Bound::Text(_, OracleType::CLOB))));
    }
}
