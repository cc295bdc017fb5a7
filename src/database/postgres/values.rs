//! Values of PostgreSQL's types as text, one way and the other.
//!
//! Every type has a text form that the server itself reads and writes, so that those of extensions work like its own; here
//! are the few whose text is not what WAMP would say.

use std::collections::HashMap;

use crate::database::Numbers;
use crate::wamp::codec::{Composer, Datum, Encoder, data, to_json};

/// The numbers of the types that are something else than their text.
pub(super) mod oid {
    pub(in crate::database::postgres) const BOOL: u32 = 16;
    pub(in crate::database::postgres) const BYTEA: u32 = 17;
    pub(in crate::database::postgres) const INT8: u32 = 20;
    pub(in crate::database::postgres) const INT2: u32 = 21;
    pub(in crate::database::postgres) const INT4: u32 = 23;
    pub(in crate::database::postgres) const OID: u32 = 26;
    pub(in crate::database::postgres) const JSON: u32 = 114;
    pub(in crate::database::postgres) const FLOAT4: u32 = 700;
    pub(in crate::database::postgres) const FLOAT8: u32 = 701;
    pub(in crate::database::postgres) const TIMESTAMP: u32 = 1114;
    pub(in crate::database::postgres) const TIMESTAMPTZ: u32 = 1184;
    pub(in crate::database::postgres) const NUMERIC: u32 = 1700;
    pub(in crate::database::postgres) const REFCURSOR: u32 = 1790;
    pub(in crate::database::postgres) const RECORD: u32 = 2249;
    pub(in crate::database::postgres) const VOID: u32 = 2278;
    pub(in crate::database::postgres) const JSONB: u32 = 3802;
}

/// What is known of the types of a database.
#[derive(Clone, Debug, Default)]
pub(super) struct Types {
    by_oid: HashMap<u32, Kind>,
    /// How its numbers are told.
    numbers: Numbers,
}

/// What a type is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its text is all there is to it.
    Scalar,
    /// A list of these.
    Array(u32),
    /// Named fields.
    Composite,
    /// Another one with a condition.
    Domain(u32),
}

impl Types {
    pub(super) fn new(numbers: Numbers) -> Self {
        Self { by_oid: HashMap::new(), numbers }
    }

    pub(super) fn insert(&mut self, oid: u32, kind: Kind) {
        self.by_oid.insert(oid, kind);
    }

    /// What a type is, below its domains.
    pub(super) fn base(&self, oid: u32) -> (u32, Kind) {
        let (mut oid, mut kind) = (oid, self.by_oid.get(&oid).copied().unwrap_or(Kind::Scalar));
        // No type of the catalogue is its own base; the bound is against one that changes meanwhile.
        for _ in 0..32 {
            let Kind::Domain(base) = kind else { break };
            (oid, kind) = (base, self.by_oid.get(&base).copied().unwrap_or(Kind::Scalar));
        }
        (oid, kind)
    }

    /// Whether values of a type are asked for as JSON: those with fields, and lists of such.
    pub(super) fn is_structured(&self, oid: u32) -> bool {
        match self.base(oid).1 {
            Kind::Composite => true,
            Kind::Array(element) => self.is_structured(element),
            Kind::Scalar | Kind::Domain(_) => oid == oid::RECORD,
        }
    }
}

/// An argument as the text of a type; `None` is null.
///
/// # Errors
/// What is wrong with it, for who calls.
pub(super) fn text_of(
    datum: &Datum<'_>,
    type_oid: u32,
    types: &Types,
    encoder: &mut Encoder,
) -> Result<Option<String>, String> {
    let (base, kind) = types.base(type_oid);
    if *datum == Datum::Null {
        return Ok(None);
    }
    if matches!(base, oid::JSON | oid::JSONB) || types.is_structured(type_oid) {
        return json_of(datum, encoder).map(Some);
    }
    if let Kind::Array(element) = kind {
        return match datum {
            Datum::List(list) => array_of(*list, element, types, encoder).map(Some),
            Datum::Text(text) if text.starts_with('{') => Ok(Some(text.clone().into_owned())),
            other => Err(format!("expected a list, found {}", other.describe())),
        };
    }
    scalar_of(datum, base).map(Some)
}

fn scalar_of(datum: &Datum<'_>, base: u32) -> Result<String, String> {
    let is_integer = matches!(base, oid::INT2 | oid::INT4 | oid::INT8 | oid::OID);
    Ok(match datum {
        Datum::Boolean(value) => value.to_string(),
        Datum::Unsigned(value) => value.to_string(),
        Datum::Negative(value) => value.to_string(),
        // 3.0 is an integer to whoever has no other numbers.
        Datum::Float(value) if is_integer && value.fract() == 0.0 && value.abs() < 9e15 => {
            format!("{value:.0}")
        }
        Datum::Float(value) if value.is_nan() => "NaN".to_owned(),
        Datum::Float(value) if value.is_infinite() => {
            if *value > 0.0 {
                "Infinity".to_owned()
            } else {
                "-Infinity".to_owned()
            }
        }
        Datum::Float(value) => value.to_string(),
        Datum::Literal(literal) => match literal.parse::<f64>() {
            Ok(value) if is_integer && literal.contains(['.', 'e', 'E']) => {
                return scalar_of(&Datum::Float(value), base);
            }
            _ => literal.clone().into_owned(),
        },
        Datum::Text(text) if base == oid::BYTEA && !text.starts_with("\\x") => {
            return Err("expected bytes, or a string that begins with \\x".to_owned());
        }
        Datum::Text(text) if text.contains('\0') => {
            return Err("a string of PostgreSQL has no NUL in it".to_owned());
        }
        Datum::Text(text) => text.clone().into_owned(),
        Datum::Bytes(bytes) if base == oid::BYTEA => {
            let mut hex = String::with_capacity(2 + 2 * bytes.len());
            hex.push_str("\\x");
            for byte in bytes.iter() {
                for digit in [byte >> 4, byte & 15] {
                    hex.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
                }
            }
            hex
        }
        other => return Err(format!("{} does not fit its type", other.describe())),
    })
}

/// Any value as JSON.
pub(super) fn json_of(datum: &Datum<'_>, encoder: &mut Encoder) -> Result<String, String> {
    Ok(match datum {
        Datum::Null => "null".to_owned(),
        Datum::Boolean(value) => value.to_string(),
        Datum::Unsigned(value) => value.to_string(),
        Datum::Negative(value) => value.to_string(),
        Datum::Float(value) if value.is_finite() => format!("{value:?}"),
        Datum::Float(_) => return Err("JSON has no such number".to_owned()),
        Datum::Literal(literal) => literal.clone().into_owned(),
        Datum::Text(text) => serde_json::Value::from(text.as_ref()).to_string(),
        Datum::Bytes(bytes) => {
            let mut composer = Composer::new(crate::wamp::codec::Serializer::Json);
            composer.bytes(bytes);
            String::from_utf8(composer.finish()).unwrap_or_default()
        }
        Datum::List(value) | Datum::Map(value) => {
            to_json(*value, encoder).map_err(|error| error.to_string())?.into_owned()
        }
    })
}

/// The most elements of one list.
const ELEMENTS_MAX: usize = 1 << 20;

fn array_of(
    list: crate::wamp::message::Value<'_>,
    element: u32,
    types: &Types,
    encoder: &mut Encoder,
) -> Result<String, String> {
    let all = data(list, ELEMENTS_MAX).ok_or("it has a value that no database knows")?;
    elements_of(&all, element, types, encoder)
}

/// Some values as the list of a type.
pub(super) fn list_of(
    all: &[Datum<'_>],
    list_oid: u32,
    types: &Types,
    encoder: &mut Encoder,
) -> Result<String, String> {
    if types.is_structured(list_oid) {
        let texts: Result<Vec<_>, _> = all.iter().map(|datum| json_of(datum, encoder)).collect();
        return Ok(format!("[{}]", texts?.join(",")));
    }
    match types.base(list_oid).1 {
        Kind::Array(element) => elements_of(all, element, types, encoder),
        _ => Err("its type is no list".to_owned()),
    }
}

fn elements_of(
    all: &[Datum<'_>],
    element: u32,
    types: &Types,
    encoder: &mut Encoder,
) -> Result<String, String> {
    let mut text = String::from("{");
    for (index, datum) in all.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match datum {
            Datum::Null => text.push_str("NULL"),
            // A list in a list is one more dimension.
            Datum::List(inner) => text.push_str(&array_of(*inner, element, types, encoder)?),
            other => {
                let value = text_of(other, element, types, encoder)
                    .map_err(|problem| format!("element {}: {problem}", index + 1))?;
                text.push('"');
                for character in value.unwrap_or_default().chars() {
                    if matches!(character, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(character);
                }
                text.push('"');
            }
        }
    }
    text.push('}');
    Ok(text)
}

/// Writes the text of a type's value.
pub(super) fn write(composer: &mut Composer, text: &str, type_oid: u32, types: &Types) {
    match types.base(type_oid) {
        (oid::BOOL, _) => composer.boolean(text == "t"),
        (oid::INT2 | oid::INT4 | oid::INT8 | oid::OID, _) => match text.parse() {
            Ok(value) => types.numbers.write(value, composer),
            Err(_) => composer.text(text),
        },
        (oid::NUMERIC, _) if !types.numbers.exact_as_float => composer.text(text),
        (oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC, _) => match text.parse() {
            Ok(value) => composer.float(value),
            Err(_) => composer.text(text),
        },
        (oid::JSON | oid::JSONB, _) => {
            if composer.json(text).is_err() {
                composer.text(text);
            }
        }
        (oid::BYTEA, _) => match bytes_of(text) {
            Some(bytes) => composer.bytes(&bytes),
            None => composer.text(text),
        },
        (oid::TIMESTAMPTZ, _) => composer.text(&time(text, true)),
        (oid::TIMESTAMP, _) => composer.text(&time(text, false)),
        (_, Kind::Array(element)) => {
            let mut reader = ArrayText { text, at: 0 };
            reader.pass_dimensions();
            if !reader.write(composer, element, types, 0) {
                debug_assert!(false, "an array that the server wrote: {text}");
            }
        }
        _ => composer.text(text),
    }
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// `2024-02-29 08:00:00.5+00` as RFC 3339; what is no such time (infinity, before Christ) stays.
fn time(text: &str, has_zone: bool) -> String {
    let is_usual = text.as_bytes().get(10) == Some(&b' ') && !text.ends_with("BC");
    if !is_usual {
        return text.to_owned();
    }
    let mut time = text.replacen(' ', "T", 1);
    if has_zone && let Some(utc) = time.strip_suffix("+00") {
        time = format!("{utc}Z");
    }
    time
}

/// The text of an array: `{1,NULL,"a \"b\""}`.
struct ArrayText<'t> {
    text: &'t str,
    at: usize,
}

impl ArrayText<'_> {
    /// `[0:2]={…}`, where it does not begin at 1.
    fn pass_dimensions(&mut self) {
        if self.text.starts_with('[')
            && let Some(end) = self.text.find('=')
        {
            self.at = end + 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Writes the list that begins here; whether there was one.
    fn write(&mut self, composer: &mut Composer, element: u32, types: &Types, depth: usize) -> bool {
        if self.peek() != Some(b'{') || depth > 6 {
            return false;
        }
        self.at += 1;
        composer.open_list();
        let is_whole = self.elements(composer, element, types, depth);
        composer.close();
        is_whole
    }

    fn elements(&mut self, composer: &mut Composer, element: u32, types: &Types, depth: usize) -> bool {
        loop {
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    return true;
                }
                Some(b',') => self.at += 1,
                Some(b'{') => {
                    if !self.write(composer, element, types, depth + 1) {
                        return false;
                    }
                }
                Some(b'"') => match self.quoted() {
                    Some(text) => write(composer, &text, element, types),
                    None => return false,
                },
                Some(_) => {
                    let rest = &self.text[self.at..];
                    let end = rest.find([',', '}']).unwrap_or(rest.len());
                    match &rest[..end] {
                        "NULL" => composer.null(),
                        text => write(composer, text, element, types),
                    }
                    self.at += end;
                }
                None => return false,
            }
        }
    }

    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut escaped = false;
        for (index, character) in self.text[self.at + 1..].char_indices() {
            match character {
                _ if escaped => {
                    text.push(character);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.at += 1 + index + 1;
                    return Some(text);
                }
                _ => text.push(character),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wamp::codec::Serializer;
    use crate::wamp::message::Value;

    fn written(text: &str, type_oid: u32, types: &Types) -> String {
        let mut composer = Composer::new(Serializer::Json);
        composer.open_list();
        write(&mut composer, text, type_oid, types);
        composer.close();
        String::from_utf8(composer.finish()).unwrap()
    }

    fn types() -> Types {
        let mut types = Types::default();
        types.insert(1007, Kind::Array(oid::INT4));
        types.insert(1009, Kind::Array(25));
        types.insert(90_000, Kind::Domain(90_001));
        types.insert(90_001, Kind::Domain(oid::INT4));
        types.insert(90_002, Kind::Composite);
        types.insert(90_003, Kind::Array(90_002));
        types
    }

    #[test]
    fn texts_of_the_server_as_values() {
        let types = types();
        for (text, oid, json) in [
            ("t", oid::BOOL, "[true]"),
            ("-9223372036854775808", oid::INT8, "[-9223372036854775808]"),
            ("7", 90_000, "[7]"),
            ("NaN", oid::FLOAT8, "[null]"),
            ("1e+20", oid::FLOAT8, "[1e20]"),
            ("1.10", 1700, "[\"1.10\"]"),
            ("{\"a\": 1.10}", oid::JSONB, "[{\"a\": 1.10}]"),
            ("\\x00ff", oid::BYTEA, "[\"\\u0000AP8=\"]"),
            ("2024-02-29 08:00:00.123456+00", oid::TIMESTAMPTZ, "[\"2024-02-29T08:00:00.123456Z\"]"),
            ("2024-02-29 08:00:00", oid::TIMESTAMP, "[\"2024-02-29T08:00:00\"]"),
            ("infinity", oid::TIMESTAMPTZ, "[\"infinity\"]"),
            ("0044-03-15 00:00:00 BC", oid::TIMESTAMP, "[\"0044-03-15 00:00:00 BC\"]"),
            ("{1,NULL,-3}", 1007, "[[1,null,-3]]"),
            ("{{1,2},{3,4}}", 1007, "[[[1,2],[3,4]]]"),
            ("[0:1]={1,2}", 1007, "[[1,2]]"),
            ("{}", 1007, "[[]]"),
            (r#"{"a b","c\"d\\e",NULL,"NULL",f}"#, 1009, r#"[["a b","c\"d\\e",null,"NULL","f"]]"#),
        ] {
            assert_eq!(written(text, oid, &types), json, "{text}");
        }
    }

    #[test]
    fn arguments_as_texts_for_the_server() {
        let (types, mut encoder) = (types(), Encoder::new());
        let mut text = |json: &str, oid: u32| {
            let datum = Datum::read(Value { serializer: Serializer::Json, bytes: json.as_bytes() }).unwrap();
            text_of(&datum, oid, &types, &mut encoder)
        };
        let is = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(text("null", oid::INT4), Ok(None));
        assert_eq!(text("3.0", oid::INT4), is("3"));
        assert_eq!(text("3.5", oid::INT4), is("3.5"));
        assert_eq!(text("1.10", 1700), is("1.10"));
        assert_eq!(text("123456789012345678901234567890", 1700), is("123456789012345678901234567890"));
        assert_eq!(text("true", oid::BOOL), is("true"));
        assert_eq!(text("\"x\"", 25), is("x"));
        assert_eq!(text("\"\\u0000AQI=\"", oid::BYTEA), is("\\x0102"));
        assert_eq!(text("[1,null,3.0]", 1007), is("{\"1\",NULL,\"3\"}"));
        assert_eq!(text("[[1],[2]]", 1007), is("{{\"1\"},{\"2\"}}"));
        assert_eq!(text(r#"["a\"b","c\\d",""]"#, 1009), is(r#"{"a\"b","c\\d",""}"#));
        assert_eq!(text(r#"{"a":[1.10]}"#, oid::JSONB), is(r#"{"a":[1.10]}"#));
        assert_eq!(text("\"x\"", oid::JSONB), is("\"x\""));
        assert_eq!(text(r#"{"name":"tea"}"#, 90_002), is(r#"{"name":"tea"}"#));
        assert_eq!(text(r#"[{"name":"tea"}]"#, 90_003), is(r#"[{"name":"tea"}]"#));
        for (json, oid) in
            [("{}", 25), ("[1]", oid::INT4), ("\"abc\"", oid::BYTEA), ("1", 1007), ("\"\\u0000\\u0000\"", 25)]
        {
            assert!(text(json, oid).is_err(), "{json}");
        }
    }
}
