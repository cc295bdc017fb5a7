//! Which of the names in a database are offered.

/// Whether a name is among those that are allowed (all where none are said), and not among those that are denied.
pub(super) fn offers(name: &str, allow: &[String], deny: &[String]) -> bool {
    let is_in = |patterns: &[String]| patterns.iter().any(|pattern| is_like(name, pattern));
    (allow.is_empty() || is_in(allow)) && !is_in(deny)
}

/// Whether a name is like a pattern, in which `*` stands for anything.
pub(super) fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn names_like_patterns() {
        for (pattern, names, others) in [
            ("*", &["", "a"][..], &[][..]),
            ("add", &["add"], &["adder", ""]),
            ("get_*", &["get_", "get_item"], &["forget_item"]),
            ("*_item", &["get_item", "_item"], &["items", "item"]),
            ("a*b*c", &["abc", "a_b_c", "abbc"], &["acb", "ab"]),
            ("a*a", &["aa", "aba"], &["a"]),
        ] {
            assert!(names.iter().all(|name| is_like(name, pattern)), "{pattern}");
            assert!(!others.iter().any(|name| is_like(name, pattern)), "{pattern}");
        }
    }
}
