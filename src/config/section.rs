//! How a table becomes a struct and a struct a table: each key is declared once, with [`section!`].

use std::collections::BTreeMap;

use super::errors::{ConfigErrors, Problems, Show, closest};
use super::kinds::{self, Kind};
use super::tree::{Node, Path, Table, Value};

/// The keys of a table; [`section!`] writes the implementation.
pub(super) trait Keys: Sized {
    /// Reads every key.
    fn read(fields: &mut Fields<'_, '_>) -> Self;
    /// Writes every key.
    fn write(&self, table: &mut Table);
}

/// A table of the configuration.
pub(super) trait Section: Keys {
    /// What must hold between its keys.
    fn check(&mut self, _fields: &mut Fields<'_, '_>) {}

    /// What it is where nothing is said; a required key has no meaning then.
    fn defaults() -> Self {
        let root = Node::from(Value::Table(Table::default()));
        let mut reader = Reader { root: &root, problems: Problems::new("", "", &[]) };
        Self::read_at(&mut reader, &Path::default(), None)
    }

    /// Reads the table at `path`, says which of its keys nobody knows, and checks it.
    fn read_at(reader: &mut Reader<'_>, path: &Path, table: Option<&Table>) -> Self {
        let mut fields = Fields::of(reader, path, table);
        let mut section = Self::read(&mut fields);
        let misspelt = fields.refuse_unknown_keys();
        fields.refuse_missing_keys(&misspelt);
        section.check(&mut fields);
        section
    }

    /// The table that it is read from.
    fn to_table(&self) -> Table {
        let mut table = Table::default();
        self.write(&mut table);
        table
    }
}

/// Declares the keys of a table: `field ["key" if it is another]: kind, value where the key is absent;`, in the order in
/// which they are printed. `..field;` takes a struct whose keys stand in the same table.
macro_rules! section {
    ($section:ident {
        $($field:ident $([$key:literal])? : $kind:expr, $absent:expr;)*
        $(..$inner:ident;)*
    }) => {
        impl $crate::config::section::Keys for $section {
            fn read(fields: &mut $crate::config::section::Fields<'_, '_>) -> Self {
                $(let $inner = $crate::config::section::Keys::read(fields);)*
                Self {
                    $($field: fields.read(section!(@key $field $($key)?), &$kind, $absent),)*
                    $($inner,)*
                }
            }

            fn write(&self, table: &mut $crate::config::tree::Table) {
                $($crate::config::section::Keys::write(&self.$inner, table);)*
                $($crate::config::kinds::put(table, section!(@key $field $($key)?), &$kind, &self.$field);)*
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}
pub(super) use section;

/// What a key means that is not there.
pub(super) enum Absent<T> {
    /// This.
    Means(T),
    /// A mistake; the value lets the rest be read.
    IsAnError(T),
}

impl<T> From<T> for Absent<T> {
    fn from(value: T) -> Self {
        Self::Means(value)
    }
}

/// The key must be there.
pub(super) fn required<T: Default>() -> Absent<T> {
    Absent::IsAnError(T::default())
}

/// The tree that is read, and what was found wrong with it.
pub(super) struct Reader<'a> {
    pub(super) root: &'a Node,
    pub(super) problems: Problems<'a>,
}

impl Reader<'_> {
    /// Something is wrong with the value at `path`.
    pub(super) fn problem(&mut self, path: &Path, problem: impl Into<String>, hint: Option<String>) {
        self.problems.add(self.root, Show::Value, path, problem.into(), hint);
    }

    /// Something is wrong with the key at `path`.
    pub(super) fn key_problem(&mut self, path: &Path, problem: impl Into<String>, hint: Option<String>) {
        self.problems.add(self.root, Show::Key, path, problem.into(), hint);
    }

    /// Whether all is well at `path` and below it. Checks between keys ask first: one mistake, one message.
    pub(super) fn is_sound(&self, path: &Path) -> bool {
        !self.problems.has(path)
    }

    /// Everything that was found, or `value`.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, ConfigErrors> {
        self.problems.into_result(value)
    }

    /// Two of a list may not be the same. Each comes as what tells it from the others, and in words for the message;
    /// both were read from `keys`, of which the first is shown.
    pub(super) fn refuse_duplicates<T: Ord>(
        &mut self,
        list: &Path,
        keys: &[&str],
        items: impl IntoIterator<Item = Option<(T, String)>>,
    ) {
        let mut first_seen = BTreeMap::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = list.index(index);
            let Some((value, words)) = item else { continue };
            if keys.iter().any(|key| !self.is_sound(&path.key(key))) {
                continue;
            }
            let first = *first_seen.entry(value).or_insert(index);
            if first == index {
                continue;
            }
            let hint = format!("the first is `{}`", list.index(first));
            let path = keys.first().map_or_else(|| path.clone(), |key| path.key(key));
            self.problem(&path, format!("{words} is there already"), Some(hint));
        }
    }
}

/// A table while it is read.
pub(super) struct Fields<'f, 'a> {
    pub(super) reader: &'f mut Reader<'a>,
    pub(super) path: &'f Path,
    table: Option<&'f Table>,
    /// The keys that were asked for: all there are.
    names: Vec<&'static str>,
    /// Those of them that should be there, and what they expect.
    missing: Vec<(&'static str, String)>,
}

impl<'f, 'a> Fields<'f, 'a> {
    /// The table at `path`, of which nothing was asked for yet.
    pub(super) fn of(reader: &'f mut Reader<'a>, path: &'f Path, table: Option<&'f Table>) -> Self {
        Self { reader, path, table, names: Vec::new(), missing: Vec::new() }
    }
}

impl Fields<'_, '_> {
    /// The value of a key. A wrong one is noted, and the default stands in for it.
    pub(super) fn read<K: Kind>(
        &mut self,
        name: &'static str,
        kind: &K,
        absent: impl Into<Absent<K::Value>>,
    ) -> K::Value {
        self.names.push(name);
        let path = self.path.key(name);
        if let Some(entry) = self.table.and_then(|table| table.entry(name)) {
            let read = kinds::read(kind, self.reader, &path, &entry.node);
            let (Absent::Means(stand_in) | Absent::IsAnError(stand_in)) = absent.into();
            return read.unwrap_or(stand_in);
        }
        match absent.into() {
            Absent::Means(value) => value,
            Absent::IsAnError(stand_in) => {
                self.missing.push((name, kind.expects()));
                stand_in
            }
        }
    }

    /// Whether the file or the environment has this key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.entry(name).is_some())
    }

    /// Whether nothing is wrong with the value of this key.
    pub(super) fn is_sound(&self, name: &str) -> bool {
        self.reader.is_sound(&self.path.key(name))
    }

    /// Something is wrong with the value of this key.
    pub(super) fn problem(&mut self, name: &str, problem: impl Into<String>, hint: impl Into<String>) {
        let path = self.path.key(name);
        self.reader.problem(&path, problem, Some(hint.into()));
    }

    /// Notes the keys that nobody knows, and returns those that were probably meant.
    fn refuse_unknown_keys(&mut self) -> Vec<&'static str> {
        let Some(table) = self.table else { return Vec::new() };
        let mut meant = Vec::new();
        for entry in &table.entries {
            let key = entry.key.as_str();
            if self.names.contains(&key) {
                continue;
            }
            if let Some(name) = closest(key, self.names.iter().copied()) {
                if table.entry(name).is_none() {
                    // Nobody knows what would stand there.
                    self.reader.problems.mark(&self.path.key(name));
                }
                meant.push(name);
            }
            let hint = self.keys_like(key);
            self.reader.key_problem(&self.path.key(key), "unknown key", Some(hint));
        }
        meant
    }

    fn refuse_missing_keys(&mut self, misspelt: &[&str]) {
        for (name, expects) in std::mem::take(&mut self.missing) {
            if misspelt.contains(&name) {
                continue;
            }
            let hint = format!("expected {expects}");
            self.reader.problem(&self.path.key(name), "this key is missing", Some(hint));
        }
    }

    /// Which keys were probably meant, or which there are.
    fn keys_like(&self, key: &str) -> String {
        const NAMES_SHOWN_MAX: usize = 12;
        let is_part = |name: &&&str| !key.is_empty() && name.contains(key);
        let alike: Vec<&str> = match closest(key, self.names.iter().copied()) {
            Some(name) => vec![name],
            None => self.names.iter().filter(is_part).copied().collect(),
        };
        if !alike.is_empty() {
            return format!("did you mean {}?", list_of(&alike, "or"));
        }
        let place = match self.path.header() {
            root if root.is_empty() => "the top level".to_owned(),
            header => format!("`{header}`"),
        };
        match self.names.get(..NAMES_SHOWN_MAX) {
            None => format!("{place} has {}", list_of(&self.names, "and")),
            Some(first) => format!("{place} has {}, …", first.join(", ")),
        }
    }
}

/// `a`, `b` and `c`, or with another word before the last.
pub(super) fn list_of(words: &[&str], before_last: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {before_last} {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
