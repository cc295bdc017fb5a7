//! A tree as TOML text.

use std::fmt::Write;

use super::tree::{Path, Table, Value};

/// The text of a document: values before tables, tables in the order in which they were put.
pub(super) fn print(root: &Table) -> String {
    let mut out = String::new();
    print_table(&mut out, root, &Path::default());
    out
}

fn print_table(out: &mut String, table: &Table, path: &Path) {
    for entry in &table.entries {
        if below(&entry.node.value).is_none() {
            let _ = writeln!(out, "{} = {}", entry.key, inline(&entry.node.value));
        }
    }
    for entry in &table.entries {
        let path = path.key(&entry.key);
        let Some((tables, open, close)) = below(&entry.node.value) else { continue };
        for table in tables {
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{open}{}{close}", path.header());
            print_table(out, table, &path);
        }
    }
}

/// The tables that get headers of their own, and the brackets of those.
fn below(value: &Value) -> Option<(Vec<&Table>, &'static str, &'static str)> {
    match value {
        Value::Table(table) => Some((vec![table], "[", "]")),
        Value::Array(nodes) => {
            let tables = nodes.iter().map(|node| match &node.value {
                Value::Table(table) => Some(table),
                _ => None,
            });
            let tables: Vec<&Table> = tables.collect::<Option<_>>()?;
            (!tables.is_empty()).then_some((tables, "[[", "]]"))
        }
        _ => None,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) | Value::Words(text) => quote(text),
        Value::Integer(integer) => integer.to_string(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Other(name) => quote(name),
        Value::Array(nodes) => {
            let values: Vec<String> = nodes.iter().map(|node| inline(&node.value)).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Table(table) => {
            let entries = table.entries.iter();
            let entries: Vec<String> =
                entries.map(|entry| format!("{} = {}", entry.key, inline(&entry.node.value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// A basic string of TOML.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive() {
        for text in ["", "a\"b\\c", "\u{0}\n\t\r\u{7f}\u{85}", "日本 \u{1f600}", "'''", "\"\"\""] {
            let document = format!("a = {}", quote(text));
            let table = toml::de::DeTable::parse(&document).unwrap();
            assert_eq!(table.get_ref()["a"].get_ref().as_str(), Some(text), "{document}");
        }
    }
}
