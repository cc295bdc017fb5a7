//! What a key can hold: how each kind of value is read, written, and named in messages.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::errors::closest;
use super::section::{Reader, Section, list_of};
use super::tree::{Node, Path, Table, Value, Wanted};

/// A kind of value.
pub(super) trait Kind {
    /// What it becomes.
    type Value;

    /// The value. What is wrong inside of it is noted with the reader, what is wrong with all of it is returned.
    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<Self::Value, Fault>;

    /// What [`read`](Self::read) makes the same value of; `None` where that is what an absent key means.
    fn write(&self, value: &Self::Value) -> Option<Value>;

    /// Continues "expected …".
    fn expects(&self) -> String;
}

/// Why a value was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The problem is with the reader already.
    Noted,
    /// It is not what [`Kind::expects`] says; `found` is its type where that is why. The key's own kind is the one to
    /// say what it expects, not one inside of that.
    Unexpected { found: Option<&'static str>, hint: Option<String> },
    /// Something of its own.
    Wrong(Wrong),
}

/// What is wrong with a value, and what to do about it.
pub(super) type Wrong = (String, Option<String>);

impl Fault {
    fn type_of(node: &Node) -> Self {
        Self::Unexpected { found: Some(node.type_name()), hint: None }
    }

    fn out_of_range() -> Self {
        Self::Unexpected { found: None, hint: None }
    }

    /// With what to do about it.
    fn with_hint(mut self, hint: Option<String>) -> Self {
        if let Self::Unexpected { hint: place, .. } = &mut self {
            *place = hint;
        }
        self
    }
}

/// Reads a value and notes what is wrong with it.
pub(super) fn read<K: Kind>(kind: &K, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Option<K::Value> {
    let (problem, hint) = match kind.read(reader, path, node) {
        Ok(value) => return Some(value),
        Err(Fault::Noted) => return None,
        Err(Fault::Wrong(wrong)) => wrong,
        Err(Fault::Unexpected { found: None, hint }) => (format!("expected {}", kind.expects()), hint),
        Err(Fault::Unexpected { found: Some(found), hint }) => {
            (format!("expected {}, found {found}", kind.expects()), hint)
        }
    };
    reader.problem(path, problem, hint);
    None
}

/// Writes a value into a table.
pub(super) fn put<K: Kind>(table: &mut Table, key: &str, kind: &K, value: &K::Value) {
    if let Some(value) = kind.write(value) {
        table.put(key, value);
    }
}

/// `true` or `false`.
pub(super) struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn read(&self, _: &mut Reader<'_>, _: &Path, node: &Node) -> Result<bool, Fault> {
        match node.as_wanted(Wanted::Value).as_ref() {
            Node { value: Value::Boolean(boolean), .. } => Ok(*boolean),
            other => Err(Fault::type_of(other).with_hint(without_quotes::<bool>(other))),
        }
    }

    fn write(&self, value: &bool) -> Option<Value> {
        Some(Value::Boolean(*value))
    }

    fn expects(&self) -> String {
        "`true` or `false`".to_owned()
    }
}

/// For a string that would do if it were none.
fn without_quotes<T: FromStr>(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text) if text.parse::<T>().is_ok() => Some(format!("write `{text}` without quotes")),
        _ => None,
    }
}

/// A whole number of a range.
pub(super) struct Integer<T>(pub(super) RangeInclusive<T>);

impl<T: Copy + Display + PartialOrd + TryFrom<i128> + TryInto<i128>> Kind for Integer<T> {
    type Value = T;

    fn read(&self, _: &mut Reader<'_>, _: &Path, node: &Node) -> Result<T, Fault> {
        let node = node.as_wanted(Wanted::Value);
        let Value::Integer(integer) = node.value else {
            return Err(Fault::type_of(&node).with_hint(without_quotes::<i128>(&node)));
        };
        let value = T::try_from(integer).ok().filter(|value| self.0.contains(value));
        value.ok_or_else(Fault::out_of_range)
    }

    fn write(&self, value: &T) -> Option<Value> {
        (*value).try_into().ok().map(Value::Integer)
    }

    fn expects(&self) -> String {
        format!("an integer from {} to {}", self.0.start(), self.0.end())
    }
}

/// A time in milliseconds.
pub(super) struct Milliseconds {
    range: RangeInclusive<u64>,
    zero_is_off: bool,
}

/// A time of a range.
pub(super) fn milliseconds(range: RangeInclusive<u64>) -> Milliseconds {
    Milliseconds { range, zero_is_off: false }
}

/// A time of a range, or 0 for "not at all".
pub(super) fn milliseconds_or_off(range: RangeInclusive<u64>) -> Milliseconds {
    Milliseconds { range, zero_is_off: true }
}

impl Kind for Milliseconds {
    type Value = Duration;

    fn read(&self, _: &mut Reader<'_>, _: &Path, node: &Node) -> Result<Duration, Fault> {
        let node = node.as_wanted(Wanted::Value);
        let Value::Integer(integer) = node.value else {
            let hint = matches!(node.value, Value::String(_) | Value::Other(_))
                .then(|| "write the milliseconds as they are, as in `10000` for 10 seconds".to_owned());
            return Err(Fault::type_of(&node).with_hint(hint));
        };
        u64::try_from(integer)
            .ok()
            .filter(|value| self.range.contains(value) || (self.zero_is_off && *value == 0))
            .map(Duration::from_millis)
            .ok_or_else(Fault::out_of_range)
    }

    fn write(&self, value: &Duration) -> Option<Value> {
        i128::try_from(value.as_millis()).ok().map(Value::Integer)
    }

    fn expects(&self) -> String {
        let off = if self.zero_is_off { ", or 0 for off" } else { "" };
        format!("milliseconds from {} to {}{off}", self.range.start(), self.range.end())
    }
}

/// The units of sizes, the largest first.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A number of bytes of a range: an integer, or a string with a unit.
pub(super) struct Bytes(pub(super) RangeInclusive<usize>);

impl Kind for Bytes {
    type Value = usize;

    fn read(&self, _: &mut Reader<'_>, _: &Path, node: &Node) -> Result<usize, Fault> {
        let node = node.as_wanted(Wanted::Value);
        let bytes = match &node.value {
            Value::Integer(integer) => usize::try_from(*integer).ok(),
            Value::String(text) => {
                parse_size(text).map_err(|hint| Fault::out_of_range().with_hint(Some(hint)))?
            }
            _ => return Err(Fault::type_of(&node)),
        };
        bytes.filter(|bytes| self.0.contains(bytes)).ok_or_else(Fault::out_of_range)
    }

    fn write(&self, value: &usize) -> Option<Value> {
        match largest_unit(*value) {
            (_, 1) => i128::try_from(*value).ok().map(Value::Integer),
            _ => Some(Value::String(print_size(*value))),
        }
    }

    fn expects(&self) -> String {
        format!("a size from {} to {}", print_size(*self.0.start()), print_size(*self.0.end()))
    }
}

/// A size for people, exactly.
pub(super) fn print_size(bytes: usize) -> String {
    match largest_unit(bytes) {
        (_, 1) => format!("{bytes} bytes"),
        (unit, size) => format!("{} {unit}", bytes / size),
    }
}

/// The largest unit that divides a size.
fn largest_unit(bytes: usize) -> (&'static str, usize) {
    let divides = |(_, size): &(&str, usize)| bytes > 0 && bytes.is_multiple_of(*size);
    UNITS.into_iter().find(divides).unwrap_or(("B", 1))
}

/// `Ok(None)` is more than memory can hold; the error is what to write instead.
fn parse_size(text: &str) -> Result<Option<usize>, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("write bytes as in `65536`, or a size as in \"64 KiB\"".to_owned());
    }
    let Some((_, size)) = UNITS.into_iter().find(|(name, _)| *name == unit) else {
        let names = UNITS.map(|(name, _)| name);
        return Err(match UNITS.into_iter().find(|(name, _)| is_spelling_of(unit, name)) {
            Some((name, _)) => format!("did you mean \"{digits} {name}\"?"),
            None => format!("the units are {}", list_of(&names, "and")),
        });
    };
    Ok(digits.parse::<usize>().ok().and_then(|number| number.checked_mul(size)))
}

/// Whether `unit` is what some write for `name`: `K`, `kb`, `kib` for `KiB`.
fn is_spelling_of(unit: &str, name: &str) -> bool {
    let first = &name[..1];
    [name, first, &format!("{first}B")].iter().any(|spelling| unit.eq_ignore_ascii_case(spelling))
}

/// One of a few words.
pub(super) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Words<T> {
    type Value = T;

    fn read(&self, _: &mut Reader<'_>, _: &Path, node: &Node) -> Result<T, Fault> {
        let node = node.as_wanted(Wanted::String);
        let Value::String(word) = &node.value else { return Err(Fault::type_of(&node)) };
        if let Some((_, value)) = self.0.iter().find(|(name, _)| name == word) {
            return Ok(*value);
        }
        Err(Fault::out_of_range().with_hint(did_you_mean(word, self.0.iter().map(|(name, _)| *name))))
    }

    fn write(&self, value: &T) -> Option<Value> {
        let (name, _) = self.0.iter().find(|(_, named)| named == value)?;
        Some(Value::String((*name).to_owned()))
    }

    fn expects(&self) -> String {
        let quoted: Vec<String> = self.0.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        match quoted.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => quoted.concat(),
        }
    }
}

/// The word that was probably meant.
pub(super) fn did_you_mean<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<String> {
    closest(word, words).map(|meant| format!("did you mean \"{meant}\"?"))
}

/// A word such as "auto", or a value that is no string.
pub(super) struct Or<K>(pub(super) &'static str, pub(super) K);

impl<K: Kind> Kind for Or<K> {
    type Value = Option<K::Value>;

    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<Option<K::Value>, Fault> {
        if let Value::String(word) = &node.as_wanted(Wanted::String).value {
            if word == self.0 {
                return Ok(None);
            }
            if let Some(hint) = did_you_mean(word, [self.0]) {
                return Err(Fault::out_of_range().with_hint(Some(hint)));
            }
        }
        self.1.read(reader, path, node).map(Some)
    }

    fn write(&self, value: &Option<K::Value>) -> Option<Value> {
        match value {
            None => Some(Value::String(self.0.to_owned())),
            Some(value) => self.1.write(value),
        }
    }

    fn expects(&self) -> String {
        format!("\"{}\" or {}", self.0, self.1.expects())
    }
}

/// A key that need not be there.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<Option<K::Value>, Fault> {
        self.0.read(reader, path, node).map(Some)
    }

    fn write(&self, value: &Option<K::Value>) -> Option<Value> {
        value.as_ref().and_then(|value| self.0.write(value))
    }

    fn expects(&self) -> String {
        self.0.expects()
    }
}

/// A string that means something.
pub(super) struct Text<T: 'static> {
    /// Continues "expected …".
    pub(super) expects: &'static str,
    pub(super) parse: fn(&str) -> Result<T, Wrong>,
    pub(super) print: fn(&T) -> String,
}

impl<T> Kind for Text<T> {
    type Value = T;

    fn read(&self, _: &mut Reader<'_>, _: &Path, node: &Node) -> Result<T, Fault> {
        let node = node.as_wanted(Wanted::String);
        let Value::String(text) = &node.value else { return Err(Fault::type_of(&node)) };
        (self.parse)(text).map_err(Fault::Wrong)
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(Value::String((self.print)(value)))
    }

    fn expects(&self) -> String {
        self.expects.to_owned()
    }
}

/// A word of the operator's own choice, such as the name of a role.
pub(super) const NAME: Text<String> = Text { expects: "a name", parse: parse_name, print: String::clone };

fn parse_name(text: &str) -> Result<String, Wrong> {
    const NAME_BYTES_MAX: usize = 255;
    if text.is_empty() {
        return Err(("the name is empty".to_owned(), None));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err((format!("the name is longer than {NAME_BYTES_MAX} bytes"), None));
    }
    if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(("the name has white space or control characters".to_owned(), None));
    }
    Ok(text.to_owned())
}

/// Values of one kind, each once.
pub(super) struct List<K> {
    /// Continues "expected a list of …".
    pub(super) name: &'static str,
    pub(super) of: K,
    pub(super) count: RangeInclusive<usize>,
}

impl<K: Kind> Kind for List<K>
where
    K::Value: PartialEq,
{
    type Value = Vec<K::Value>;

    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<Vec<K::Value>, Fault> {
        let node = node.as_wanted(Wanted::List);
        let Value::Array(nodes) = &node.value else {
            let hint = matches!(node.value, Value::String(_) | Value::Integer(_) | Value::Boolean(_))
                .then(|| "a list stands in brackets, even one of a single value".to_owned());
            return Err(Fault::type_of(&node).with_hint(hint));
        };
        // One that is far too long is not worth reading to its end.
        let read_max = self.count.end().saturating_mul(2);
        let mut values = Vec::new();
        let mut sound = true;
        for (index, node) in nodes.iter().enumerate().take(read_max) {
            let path = path.index(index);
            match read(&self.of, reader, &path, node) {
                None => sound = false,
                Some(value) if values.contains(&value) => {
                    reader.problem(&path, "this value is in the list already", None);
                    sound = false;
                }
                Some(value) => values.push(value),
            }
        }
        if !sound {
            return Err(Fault::Noted);
        }
        if !self.count.contains(&nodes.len()) {
            let problem = match (nodes.len(), self.count.end()) {
                (0, _) => "the list is empty".to_owned(),
                (count, most) => format!("the list has {count} values; at most {most}"),
            };
            return Err(Fault::Wrong((problem, Some(format!("expected {}", self.expects())))));
        }
        Ok(values)
    }

    fn write(&self, values: &Vec<K::Value>) -> Option<Value> {
        let nodes = values.iter().filter_map(|value| self.of.write(value)).map(Node::from);
        Some(Value::Array(nodes.collect()))
    }

    fn expects(&self) -> String {
        format!("a list of {}, each {}", self.name, self.of.expects())
    }
}

/// A table, `[name]`.
pub(super) struct Single<T>(PhantomData<T>);

/// How to write the table at `path`, in the file or in the environment.
fn table_hint(node: &Node, path: &Path, open: &str, close: &str) -> String {
    match (&node.value, open) {
        (Value::Words(_), "[") => format!("name one of its keys: {}__…", path.variable()),
        (Value::Words(_), _) => format!("name an element and its key: {}__0__…", path.variable()),
        _ => format!("write `{open}{}{close}`", path.header()),
    }
}

/// A table, `[name]`.
pub(super) const fn single<T>() -> Single<T> {
    Single(PhantomData)
}

impl<T: Section> Kind for Single<T> {
    type Value = T;

    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<T, Fault> {
        let wanted = node.as_wanted(Wanted::Value);
        let Value::Table(table) = &wanted.value else {
            return Err(Fault::type_of(&wanted).with_hint(Some(table_hint(node, path, "[", "]"))));
        };
        Ok(T::read_at(reader, path, Some(table)))
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(Value::Table(value.to_table()))
    }

    fn expects(&self) -> String {
        "a table".to_owned()
    }
}

/// A list of tables, `[[name]]`.
pub(super) struct Several<T> {
    count_max: usize,
    of: PhantomData<T>,
}

/// A list of tables, `[[name]]`; an absent key and an empty list are the same.
pub(super) const fn several<T>(count_max: usize) -> Several<T> {
    Several { count_max, of: PhantomData }
}

impl<T: Section> Kind for Several<T> {
    type Value = Vec<T>;

    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<Vec<T>, Fault> {
        let wanted = node.as_wanted(Wanted::Value);
        let Value::Array(nodes) = &wanted.value else {
            return Err(Fault::type_of(&wanted).with_hint(Some(table_hint(node, path, "[[", "]]"))));
        };
        if nodes.len() > self.count_max {
            let problem = format!("there are {}; at most {}", nodes.len(), self.count_max);
            return Err(Fault::Wrong((problem, None)));
        }
        let mut sections = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            sections.extend(read(&single::<T>(), reader, &path.index(index), node));
        }
        if sections.len() == nodes.len() { Ok(sections) } else { Err(Fault::Noted) }
    }

    fn write(&self, sections: &Vec<T>) -> Option<Value> {
        let tables = sections.iter().map(|section| Node::from(Value::Table(section.to_table())));
        (!sections.is_empty()).then(|| Value::Array(tables.collect()))
    }

    fn expects(&self) -> String {
        "a list of tables".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0 B", 0), ("12 B", 12), ("64 KiB", 65536), ("64KiB", 65536), ("2 GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(Some(bytes)), "{text}");
        }
        assert_eq!(parse_size(&format!("{} GiB", usize::MAX)), Ok(None));
        assert_eq!(parse_size("99999999999999999999999 B"), Ok(None));
        assert_eq!(parse_size("64 kb"), Err("did you mean \"64 KiB\"?".to_owned()));
        assert_eq!(parse_size("1 M"), Err("did you mean \"1 MiB\"?".to_owned()));
        for wrong in ["", "KiB", "1.5 MiB", "-1 KiB", "1 KiB 2", "٣ KiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert!(parse_size("64 bits").unwrap_err().contains("`KiB`"));
        assert!(parse_size("64 日本").unwrap_err().contains("`KiB`"));
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_divides_them() {
        let written = |bytes| format!("{:?}", Bytes(0..=usize::MAX).write(&bytes).unwrap());
        assert_eq!(written(1 << 20), r#"String("1 MiB")"#);
        assert_eq!(written(1000), "Integer(1000)");
        assert_eq!(written(0), "Integer(0)");
        assert_eq!(written(3 << 10), r#"String("3 KiB")"#);
    }
}
