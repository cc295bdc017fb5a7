//! What is wrong with a configuration, for people: every problem at once, each with its place and a way out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;

use super::tree::{Node, Origin, Path};

/// How many problems are kept; the rest are counted.
const ERRORS_MAX: usize = 100;
/// How many characters of a line of the file are shown.
const EXCERPT_CHARACTERS_MAX: usize = 120;
/// How many characters stand before the carets where a line is longer than that.
const EXCERPT_LEAD: usize = 40;

/// Every problem of a configuration, those of the file first and in its order, then those of the environment.
///
/// `Display` prints all of them for people, in the manner of a compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// At least one, at most 100.
    pub errors: Vec<ConfigError>,
    /// How many more there are.
    pub left_out: usize,
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The name of the file, as it was handed in.
    pub file: String,
    /// The line in the file, from 1; 0 where no line of it is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 where no line is meant.
    pub column: usize,
    /// The variable of the environment that is wrong, instead of a line of the file.
    pub variable: Option<String>,
    /// The key, such as `realm[0].role[1].name`; empty where the text is no TOML.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
    excerpt: Option<Excerpt>,
}

/// The part of a line that is shown, and what of it is underlined, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    caret: usize,
    width: usize,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(out, "{error}")?;
        }
        match (self.errors.len(), self.left_out) {
            (1, 0) => write!(out, "error: the configuration has 1 problem"),
            (count, 0) => write!(out, "error: the configuration has {count} problems"),
            (count, more) => {
                write!(
                    out,
                    "error: the configuration has {} problems, {more} of them not shown",
                    count + more
                )
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => writeln!(out, "error: {}", self.problem)?,
            path => writeln!(out, "error: {path}: {}", self.problem)?,
        }
        let gutter = if self.line == 0 { 1 } else { self.line.to_string().len() };
        let file = if self.file.is_empty() { "the configuration" } else { &self.file };
        match &self.variable {
            Some(variable) => writeln!(out, "{:gutter$}--> the environment variable {variable}", "")?,
            None if self.line == 0 => writeln!(out, "{:gutter$}--> {file}", "")?,
            None => writeln!(out, "{:gutter$}--> {file}:{}:{}", "", self.line, self.column)?,
        }
        if let Some(Excerpt { text, caret, width }) = &self.excerpt {
            writeln!(out, "{:gutter$} |", "")?;
            writeln!(out, "{} | {text}", self.line)?;
            writeln!(out, "{:gutter$} | {:caret$}{}", "", "", "^".repeat(*width))?;
        }
        if let Some(hint) = &self.hint {
            writeln!(out, "{:gutter$} |", "")?;
            let mut lines = hint.lines();
            writeln!(out, "{:gutter$} = help: {}", "", lines.next().unwrap_or_default())?;
            for line in lines {
                let indented = format!("{:gutter$}         {line}", "");
                writeln!(out, "{}", indented.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Which place of a key is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// What stands behind it.
    Value,
    /// The key itself.
    Key,
}

/// Collects problems while a configuration is read.
pub(super) struct Problems<'a> {
    file_name: &'a str,
    text: &'a str,
    environment: &'a [(String, OsString)],
    /// With what they are sorted by: the file before the environment, then by place.
    errors: Vec<(Origin, ConfigError)>,
    paths: BTreeSet<Path>,
    left_out: usize,
}

impl<'a> Problems<'a> {
    pub(super) fn new(file_name: &'a str, text: &'a str, environment: &'a [(String, OsString)]) -> Self {
        let (errors, paths) = (Vec::new(), BTreeSet::new());
        Self { file_name, text, environment, errors, paths, left_out: 0 }
    }

    /// Notes a problem of the value, or of the key, at `path`. Where there is none, the nearest table above is shown.
    pub(super) fn add(
        &mut self,
        root: &Node,
        show: Show,
        path: &Path,
        problem: String,
        hint: Option<String>,
    ) {
        // Finding the place takes as long as its table; for those that are only counted it does not matter.
        let full = self.errors.len() == ERRORS_MAX;
        let origin = if full { Origin::Nowhere } else { root.origin_of(path, show) };
        self.add_at(origin, path, problem, hint);
    }

    /// Notes a problem whose place is known, or that has none in the tree.
    pub(super) fn add_at(&mut self, origin: Origin, path: &Path, problem: String, hint: Option<String>) {
        self.mark(path);
        if self.errors.len() == ERRORS_MAX {
            self.left_out += 1;
            return;
        }
        let mut error = ConfigError {
            file: printable(self.file_name, &[]),
            line: 0,
            column: 0,
            variable: None,
            path: path.to_string(),
            problem: printable(&problem, &[]),
            hint: hint.map(|hint| printable(&hint, &['\n'])),
            excerpt: None,
        };
        match origin {
            Origin::Nowhere => {}
            Origin::Variable(index) => {
                error.variable = self.environment.get(index).map(|(name, _)| name.escape_debug().to_string());
            }
            Origin::Text { start, end } => error.locate(self.text, start, end),
        }
        self.errors.push((origin, error));
    }

    /// Counts `path` as wrong, with nothing to say beyond what was said.
    pub(super) fn mark(&mut self, path: &Path) {
        self.paths.insert(path.clone());
    }

    /// Whether something is wrong at `path` itself, or below it.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.paths.range(path.clone()..).next().is_some_and(|found| found.starts_with(path))
    }

    /// All of them, or `value` where there are none.
    pub(super) fn into_result<T>(mut self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort_by_key(|(origin, _)| *origin);
        let errors = self.errors.into_iter().map(|(_, error)| error).collect();
        Err(ConfigErrors { errors, left_out: self.left_out })
    }
}

impl ConfigError {
    /// Sets line, column and excerpt from byte offsets into `text`, whatever they are.
    fn locate(&mut self, text: &str, start: usize, end: usize) {
        let start = floor_char_boundary(text, start);
        let end = floor_char_boundary(text, end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let before = text[line_start..start].chars().count();
        let width = text[start..end.min(line_start + line.len()).max(start)].chars().count().max(1);
        self.line = text[..line_start].matches('\n').count() + 1;
        self.column = before + 1;
        let names_users = self.path.contains(".user[") || self.path.contains(".token");
        self.excerpt = Some(Excerpt::new(&masked(line, names_users), before, width));
    }
}

/// Keys whose values are secret.
const SECRET_KEYS: [&str; 6] = ["ticket", "ticket_hash", "secret", "key", "stored_key", "server_key"];

/// Keys of users and tokens whose values may be shown; any other may be a secret whose name is misspelt.
const HARMLESS_KEYS: [&str; 7] = ["authid", "role", "salt", "kdf", "dialect", "issuer", "audience"];
const HARMLESS_ENDS: [&str; 3] = ["_env", "_file", "_claim"];

/// A line with stars in the place of secrets: as long as before.
fn masked(line: &str, names_users: bool) -> String {
    let is_secret = |key: &str| match names_users {
        true => {
            !HARMLESS_KEYS.contains(&key)
                && !HARMLESS_ENDS.iter().any(|end| key.ends_with(end))
                && !key.is_empty()
        }
        false => SECRET_KEYS.contains(&key),
    };
    let mut out = String::with_capacity(line.len());
    // The quotation mark of the text that this character is in, and whether that is a secret.
    let mut quoted: Option<(char, bool)> = None;
    let mut escaped = false;
    for character in line.chars() {
        match quoted {
            Some((mark, _)) if character == mark && !escaped => {
                quoted = None;
                out.push(character);
            }
            Some((mark, hidden)) => {
                escaped = mark == '"' && character == '\\' && !escaped;
                out.push(if hidden { '*' } else { character });
            }
            None => {
                if matches!(character, '"' | '\'') {
                    let key = out.trim_end().strip_suffix('=').map_or("", str::trim_end);
                    let is_part = |part: char| part.is_ascii_alphanumeric() || part == '_' || part == '-';
                    let key = key.rsplit(|part| !is_part(part)).next().unwrap_or_default();
                    quoted = Some((character, is_secret(key)));
                }
                out.push(character);
            }
        }
    }
    out
}

impl Excerpt {
    /// A long line is cut to what stands around the span, and what would move a terminal's cursor is replaced.
    fn new(line: &str, before: usize, width: usize) -> Self {
        let fits = line.chars().nth(EXCERPT_CHARACTERS_MAX).is_none();
        let skipped = if fits { 0 } else { before.saturating_sub(EXCERPT_LEAD) };
        let mut text: String = if skipped == 0 { String::new() } else { "…".to_owned() };
        let caret = before - skipped + text.chars().count();
        text.extend(line.chars().skip(skipped).take(EXCERPT_CHARACTERS_MAX).map(
            |character| match character {
                '\t' => ' ',
                control if control.is_control() => '\u{fffd}',
                other => other,
            },
        ));
        if line.chars().nth(skipped + EXCERPT_CHARACTERS_MAX).is_some() {
            text.push('…');
        }
        let shown = text.chars().count();
        Self { width: width.min(shown.saturating_sub(caret)).max(1), text, caret }
    }
}

/// With control characters escaped, but for those kept: names and paths come from the file, and a terminal obeys them.
fn printable(text: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !kept.contains(&character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The candidate that was probably meant, by the number of letters to change.
pub(super) fn closest<'c>(given: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distance_max = (given.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| Some((edit_distance(given, candidate, distance_max)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, taken away, changed or swapped with their neighbour; `None` above `distance_max`.
fn edit_distance(from: &str, to: &str, distance_max: usize) -> Option<usize> {
    /// Keys and words are shorter; what is longer is no misspelling of one.
    const LETTERS_MAX: usize = 64;
    let from: Vec<char> = from.chars().take(LETTERS_MAX + 1).flat_map(char::to_lowercase).collect();
    let to: Vec<char> = to.chars().take(LETTERS_MAX + 1).flat_map(char::to_lowercase).collect();
    if from.len().max(to.len()) > LETTERS_MAX || from.len().abs_diff(to.len()) > distance_max {
        return None;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row];
        for column in 1..=to.len() {
            let changed = usize::from(from[row - 1] != to[column - 1]);
            let mut best = (last[column] + 1).min(current[column - 1] + 1).min(last[column - 1] + changed);
            let swapped =
                row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1];
            if swapped {
                best = best.min(before_last[column - 2] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().filter(|distance| *distance <= distance_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        for (line, names_users, expected) in [
            (r#"ticket = "pass\"word" # x"#, false, r#"ticket = "**********" # x"#),
            (r#"wampcra = { key = 'abc', salt = "s" }"#, false, r#"wampcra = { key = '***', salt = "s" }"#),
            (r#"tiket = "abc""#, true, r#"tiket = "***""#),
            (r#"ticket = "abc"#, false, r#"ticket = "***"#),
            (r#"authid = "joe""#, true, r#"authid = "joe""#),
            (r#"ticket_env = "A""#, true, r#"ticket_env = "A""#),
            (r#"authorized_keys = ["aa"]"#, true, r#"authorized_keys = ["aa"]"#),
            (r#"name = "realm1""#, false, r#"name = "realm1""#),
        ] {
            assert_eq!(masked(line, names_users), expected);
        }
    }

    #[test]
    fn distances() {
        assert_eq!(edit_distance("port", "port", 2), Some(0));
        assert_eq!(edit_distance("prot", "port", 2), Some(1));
        assert_eq!(edit_distance("ports", "port", 2), Some(1));
        assert_eq!(edit_distance("", "ab", 2), Some(2));
        assert_eq!(edit_distance("kitten", "sitting", 3), Some(3));
        assert_eq!(edit_distance("kitten", "sitting", 2), None);
        assert_eq!(edit_distance(&"a".repeat(1000), &"a".repeat(1001), 500), None);
    }

    #[test]
    fn suggestions() {
        let keys = ["host", "port", "path", "handshake_timeout_ms"];
        assert_eq!(closest("Port", keys), Some("port"));
        assert_eq!(closest("handshake_timeout", keys), Some("handshake_timeout_ms"));
        assert_eq!(closest("database", keys), None);
        assert_eq!(closest("", keys), None);
    }

    #[test]
    fn long_lines_are_cut_around_the_carets() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let excerpt = Excerpt::new(&line, 500, 1);
        assert_eq!(excerpt.text.chars().nth(excerpt.caret), Some('X'));
        assert_eq!(excerpt.text.chars().count(), EXCERPT_CHARACTERS_MAX + 2);
        assert!(excerpt.text.starts_with('…') && excerpt.text.ends_with('…'));
        let whole = Excerpt::new(&line, 0, 1001);
        assert_eq!((whole.caret, whole.width), (0, EXCERPT_CHARACTERS_MAX + 1));
    }

    #[test]
    fn what_moves_a_terminal_is_replaced() {
        assert_eq!(Excerpt::new("a\tb\u{1b}[2J", 0, 1).text, "a b\u{fffd}[2J");
    }

    #[test]
    fn places_at_the_edges() {
        let mut problems = Problems::new("file", "a\r\n日本", &[]);
        for (start, end) in [(0, 0), (0, 8), (3, 6), (4, 5), (9, 9), (100, 3)] {
            problems.add_at(Origin::Text { start, end }, &Path::default(), String::new(), None);
        }
        let errors = problems.into_result(()).unwrap_err().errors;
        let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
        assert_eq!(places, [(1, 1), (1, 1), (2, 1), (2, 1), (2, 3), (2, 3)]);
    }
}
