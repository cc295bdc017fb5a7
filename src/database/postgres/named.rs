//! SQL with named parameters (`:name`), as the server wants it: `$1`, `$2`, …

/// SQL for the server, and the name of each parameter in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) sql: String,
    pub(super) names: Vec<String>,
}

/// Gives the parameters their numbers. What is in strings, names, comments and dollar quotes is left alone, and `::` is a cast.
pub(super) fn numbered(sql: &str) -> Numbered {
    let bytes = sql.as_bytes();
    let (mut out, mut names) = (String::with_capacity(sql.len()), Vec::<String>::new());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'\'' => after_quoted(bytes, at, b'\'', is_escape_string(bytes, at)),
            b'"' => after_quoted(bytes, at, b'"', false),
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => after_comment(bytes, at),
            b'$' => after_dollar_quote(sql, at).unwrap_or(at + 1),
            b':' if bytes.get(at + 1) == Some(&b':') => at + 2,
            // Part of a slice: `a[1:2]`.
            b':' if bytes.get(at + 1).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') => {
                let rest = &bytes[at + 1..];
                let length = rest
                    .iter()
                    .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
                    .unwrap_or(rest.len());
                let name = &sql[at + 1..at + 1 + length];
                let place = names.iter().position(|known| known == name).unwrap_or_else(|| {
                    names.push(name.to_owned());
                    names.len() - 1
                });
                out.push_str(&format!("${}", place + 1));
                at += 1 + length;
                continue;
            }
            _ => at + 1,
        };
        // Cuts lie behind ASCII alone, or at the end of what is no character of its own.
        let end = (end..=sql.len()).find(|end| sql.is_char_boundary(*end)).unwrap_or(sql.len());
        out.push_str(&sql[at..end]);
        at = end;
    }
    Numbered { sql: out, names }
}

fn is_escape_string(bytes: &[u8], at: usize) -> bool {
    let is_letter =
        |index: usize| bytes.get(index).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    at > 0 && matches!(bytes[at - 1], b'e' | b'E') && (at < 2 || !is_letter(at - 2))
}

fn after_quoted(bytes: &[u8], start: usize, quote: u8, has_escapes: bool) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if has_escapes => at += 2,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Comments may be nested.
fn after_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `$$ … $$`, `$tag$ … $tag$`; `$1` is none.
fn after_dollar_quote(sql: &str, start: usize) -> Option<usize> {
    let length = sql[start + 1..].find('$')?;
    let tag = &sql[start..start + length + 2];
    let inner = &tag[1..tag.len() - 1];
    let is_tag = inner.chars().all(|character| character.is_alphanumeric() || character == '_')
        && !inner.starts_with(|character: char| character.is_ascii_digit());
    let after = start + tag.len();
    is_tag.then(|| sql[after..].find(tag).map_or(sql.len(), |length| after + length + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_nothing_else_does() {
        for (sql, numbered_sql, names) in [
            ("select :a, :b_2, :a", "select $1, $2, $1", &["a", "b_2"][..]),
            ("select 1::int, :x::text", "select 1::int, $1::text", &["x"]),
            ("select ':a', \":b\", 'it''s :c', :d", "select ':a', \":b\", 'it''s :c', $1", &["d"]),
            ("select e'\\':a', :b", "select e'\\':a', $1", &["b"]),
            ("select name'\\', :b", "select name'\\', $1", &["b"]),
            ("select 1 -- :a\n, :b", "select 1 -- :a\n, $1", &["b"]),
            ("select /* :a /* :b */ :c */ :d", "select /* :a /* :b */ :c */ $1", &["d"]),
            ("do $$ :a $$; select :b", "do $$ :a $$; select $1", &["b"]),
            ("select $tag$ :a $$ $tag$, :b", "select $tag$ :a $$ $tag$, $1", &["b"]),
            ("select a[1:2], :grün", "select a[1:2], $1ün", &["gr"]),
            ("select 'grün', :x || 'ß'", "select 'grün', $1 || 'ß'", &["x"]),
            ("select '", "select '", &[]),
            ("select $1, :a", "select $1, $1", &["a"]),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(numbered(sql), Numbered { sql: numbered_sql.to_owned(), names }, "{sql}");
        }
    }
}
