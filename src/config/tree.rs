//! A configuration before it is understood: tables, lists and values, each with the place that it came from.

use std::borrow::Cow;
use std::fmt;

use toml::de::{DeInteger, DeTable, DeValue};

use super::environment::{PREFIX, SEPARATOR};
use super::errors::Show;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What TOML can say, and what the environment can.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    /// Saturates: whatever needs more than 128 bits is out of every range.
    Integer(i128),
    Boolean(bool),
    /// Floats and dates, which no key wants; only the name of the type.
    Other(&'static str),
    Array(Vec<Node>),
    Table(Table),
    /// The text of a variable: what it is depends on what its key expects.
    Words(String),
}

/// The entries in the order in which they were written or put.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A key and what is behind it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_origin: Origin,
    pub(super) node: Node,
}

/// Where something came from; the order is that of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// Bytes of the file.
    Text { start: usize, end: usize },
    /// An index into the environment.
    Variable(usize),
    /// Neither: a default.
    Nowhere,
}

/// The way from the root to a value, such as `realm[0].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(Vec<Step>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    pub(super) fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The variable of the environment that leads here.
    pub(super) fn variable(&self) -> String {
        let steps = self.0.iter().map(|step| match step {
            Step::Key(key) => key.to_ascii_uppercase(),
            Step::Index(index) => index.to_string(),
        });
        format!("{PREFIX}{}", steps.collect::<Vec<_>>().join(SEPARATOR))
    }

    /// How the header of the table at this path is written: the keys without the indices.
    pub(super) fn header(&self) -> String {
        let keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(out, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if at == 0 { "" } else { "." };
                    if is_bare(key) {
                        write!(out, "{dot}{key}")?;
                    } else {
                        write!(out, "{dot}{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a key stands without quotes in TOML.
fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl Table {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Puts a value that came from nowhere.
    pub(super) fn put(&mut self, key: &str, value: Value) {
        let node = Node { value, origin: Origin::Nowhere };
        self.entries.push(Entry { key: key.to_owned(), key_origin: Origin::Nowhere, node });
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { value, origin: Origin::Nowhere }
    }
}

impl Node {
    /// The tree of a document.
    ///
    /// # Errors
    /// The first error of the parser.
    pub(super) fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        let table = DeTable::parse(text)?;
        let value = Value::Table(Table::from_toml(table.get_ref(), None));
        Ok(Self { value, origin: Origin::Nowhere })
    }

    /// What this is where `wanted` is expected: the text of a variable is read as that, anything else is what it is.
    pub(super) fn as_wanted(&self, wanted: Wanted) -> Cow<'_, Self> {
        match &self.value {
            Value::Words(words) => Cow::Owned(Self::from_words(words, wanted, self.origin)),
            _ => Cow::Borrowed(self),
        }
    }

    /// Reads the text of a variable: a TOML value if it is one, else as a string, or a list with commas between.
    fn from_words(words: &str, wanted: Wanted, origin: Origin) -> Self {
        let parsed = DeValue::parse(words.trim()).ok();
        let parsed = parsed.map(|value| Value::from_toml(value.get_ref(), Some(origin)));
        let value = match (wanted, parsed) {
            // Digits may well be somebody's name.
            (Wanted::String, Some(string @ Value::String(_))) => string,
            (Wanted::String, _) => Value::String(words.to_owned()),
            (Wanted::List, Some(list @ Value::Array(_))) => list,
            (Wanted::List, Some(string @ Value::String(_))) => {
                Value::Array(vec![Self { value: string, origin }])
            }
            (Wanted::List, _) => Value::Array(split_list(words, origin)),
            (Wanted::Value, Some(value)) => value,
            (Wanted::Value, None) => Value::String(words.to_owned()),
        };
        Self { value, origin }
    }

    /// The name of the type, with its article.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.value {
            Value::String(_) | Value::Words(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::Other(name) => name,
            Value::Array(nodes) if nodes.iter().any(|node| matches!(node.value, Value::Table(_))) => {
                "a list of tables"
            }
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// Where the value, or the key, at `path` was written; the nearest table above it if it was not.
    pub(super) fn origin_of(&self, path: &Path, show: Show) -> Origin {
        let mut node = self;
        let mut key_origin = self.origin;
        for step in &path.0 {
            match (step, &node.value) {
                (Step::Key(key), Value::Table(table)) => {
                    let Some(entry) = table.entry(key) else { return node.origin };
                    key_origin = entry.key_origin;
                    node = &entry.node;
                }
                (Step::Index(index), Value::Array(nodes)) => {
                    let Some(found) = nodes.get(*index) else { return node.origin };
                    key_origin = found.origin;
                    node = found;
                }
                _ => return node.origin,
            }
        }
        if show == Show::Key { key_origin } else { node.origin }
    }
}

/// What a key expects, as far as the text of a variable must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    String,
    List,
    Value,
}

fn split_list(words: &str, origin: Origin) -> Vec<Node> {
    if words.trim().is_empty() {
        return Vec::new();
    }
    words.split(',').map(|word| Node { value: Value::Words(word.trim().to_owned()), origin }).collect()
}

impl Table {
    /// `origin` replaces the spans where the text is not the file's.
    fn from_toml(table: &DeTable<'_>, origin: Option<Origin>) -> Self {
        let place = |span: std::ops::Range<usize>| {
            origin.unwrap_or(Origin::Text { start: span.start, end: span.end })
        };
        let entries = table.iter().map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_origin: place(key.span()),
            node: Node { value: Value::from_toml(value.get_ref(), origin), origin: place(value.span()) },
        });
        let mut entries: Vec<Entry> = entries.collect();
        // The parser sorts them by name; messages and what is kept of very many follow the file.
        entries.sort_by_key(|entry| entry.key_origin);
        Self { entries }
    }
}

impl Value {
    fn from_toml(value: &DeValue<'_>, origin: Option<Origin>) -> Self {
        match value {
            DeValue::String(string) => Self::String(string.to_string()),
            DeValue::Integer(integer) => Self::Integer(saturating_integer(integer)),
            DeValue::Boolean(boolean) => Self::Boolean(*boolean),
            DeValue::Float(_) => Self::Other("a float"),
            DeValue::Datetime(_) => Self::Other("a date or time"),
            DeValue::Table(table) => Self::Table(Table::from_toml(table, origin)),
            DeValue::Array(values) => Self::Array(
                values
                    .iter()
                    .map(|value| {
                        let span = value.span();
                        Node {
                            value: Self::from_toml(value.get_ref(), origin),
                            origin: origin.unwrap_or(Origin::Text { start: span.start, end: span.end }),
                        }
                    })
                    .collect(),
            ),
        }
    }
}

fn saturating_integer(integer: &DeInteger<'_>) -> i128 {
    let limit = if integer.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
    i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, wanted: Wanted) -> String {
        let node = Node { value: Value::Words(text.to_owned()), origin: Origin::Variable(0) };
        format!("{:?}", node.as_wanted(wanted).value)
    }

    #[test]
    fn the_text_of_a_variable_is_what_its_key_expects() {
        assert_eq!(words("42", Wanted::String), r#"String("42")"#);
        assert_eq!(words(r#""4 2""#, Wanted::String), r#"String("4 2")"#);
        assert_eq!(words(" 42 ", Wanted::Value), "Integer(42)");
        assert_eq!(words("auto", Wanted::Value), r#"String("auto")"#);
        assert!(words("0, 1", Wanted::List).contains(r#"Words("0")"#));
        assert!(words("[0, 1]", Wanted::List).contains("Integer(1)"));
        assert_eq!(words("", Wanted::List), "Array([])");
    }

    #[test]
    fn integers_saturate() {
        let integer = |text: &str| match Node::from_toml(text).unwrap().value {
            Value::Table(table) => format!("{:?}", table.entry("a").unwrap().node.value),
            _ => String::new(),
        };
        assert_eq!(integer("a = 0x10"), "Integer(16)");
        assert_eq!(integer("a = -1_000"), "Integer(-1000)");
        assert_eq!(integer(&format!("a = 9{}", "9".repeat(100))), format!("Integer({})", i128::MAX));
        assert_eq!(integer(&format!("a = -9{}", "9".repeat(100))), format!("Integer({})", i128::MIN));
    }
}
