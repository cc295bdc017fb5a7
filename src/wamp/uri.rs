//! URIs: dotted strings, checked loosely or strictly (basic profile, "URIs").

use super::options::MatchPolicy;

/// What no configuration can exceed: the most components of a URI.
pub const COMPONENTS_MAX: usize = 128;

/// Which characters a component may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UriRule {
    /// Anything but white space, `.` and `#`.
    #[default]
    Loose,
    /// `[0-9a-z_]` only.
    Strict,
}

/// The longest URI in bytes, and the most components; longer ones are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriLimits {
    /// In bytes.
    pub bytes_max: usize,
    /// How many.
    pub components_max: usize,
}

impl Default for UriLimits {
    fn default() -> Self {
        Self { bytes_max: 1024, components_max: 64 }
    }
}

/// Why a URI is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriError {
    /// No component at all.
    Empty,
    /// Two dots in a row, or a dot at an end, where every component must have a name.
    EmptyComponent,
    /// A character that the rule does not allow.
    Character,
    /// Longer than the limit, in bytes.
    TooLong,
    /// More components than the limit.
    TooManyComponents,
}

impl UriError {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the URI is empty",
            Self::EmptyComponent => "the URI has an empty component",
            Self::Character => "the URI has a character that is not allowed",
            Self::TooLong => "the URI is too long",
            Self::TooManyComponents => "the URI has too many components",
        }
    }
}

/// Checks a URI to publish to or to call, or the one of an exact subscription or registration.
///
/// # Errors
/// What is wrong with it.
pub fn check(uri: &str, rule: UriRule, limits: UriLimits) -> Result<(), UriError> {
    check_with(uri, rule, limits, false)
}

/// Checks the URI of a SUBSCRIBE or REGISTER: patterns may have empty components.
///
/// # Errors
/// What is wrong with it.
pub fn check_pattern(
    uri: &str,
    policy: MatchPolicy,
    rule: UriRule,
    limits: UriLimits,
) -> Result<(), UriError> {
    check_with(uri, rule, limits, policy != MatchPolicy::Exact)
}

/// What a byte is to the loose rule, where nothing else has to be looked at: 0 is a part of a component, 1 the dot.
const LOOSE: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'.' => 1,
            b'#' | b' ' | 0x09..=0x0d | 0x80.. => 2,
            _ => 0,
        };
        byte += 1;
    }
    kinds
};

/// Whether a URI is what nearly all are: ASCII, by the loose rule, without empty components, and within its limits.
#[inline]
fn is_plain(uri: &str, limits: UriLimits) -> bool {
    let (mut components, mut before, mut kinds) = (1, 1, 0);
    for byte in uri.as_bytes() {
        let kind = LOOSE[usize::from(*byte)];
        // Two dots are 1 and 1; whatever else is wrong is 2.
        kinds |= kind & before | kind & 2;
        components += usize::from(kind);
        before = kind;
    }
    kinds == 0 && before == 0 && uri.len() <= limits.bytes_max && components <= limits.components_max
}

fn check_with(uri: &str, rule: UriRule, limits: UriLimits, empty_allowed: bool) -> Result<(), UriError> {
    if rule == UriRule::Loose && is_plain(uri, limits) {
        return Ok(());
    }
    if uri.is_empty() && !empty_allowed {
        return Err(UriError::Empty);
    }
    if uri.len() > limits.bytes_max {
        return Err(UriError::TooLong);
    }
    let mut components = 1;
    let mut component_is_empty = true;
    // Bytes decide as long as they are ASCII; the loose rule asks the character only beyond that.
    let bytes = uri.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'.' {
            if component_is_empty && !empty_allowed {
                return Err(UriError::EmptyComponent);
            }
            components += 1;
            component_is_empty = true;
            at += 1;
            continue;
        }
        let allowed = match rule {
            UriRule::Strict => byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_',
            UriRule::Loose if byte < 0x80 => byte != b'#' && !matches!(byte, b' ' | 0x09..=0x0d),
            UriRule::Loose => {
                let character = uri[at..].chars().next().unwrap_or(' ');
                at += character.len_utf8() - 1;
                !character.is_whitespace()
            }
        };
        if !allowed {
            return Err(UriError::Character);
        }
        component_is_empty = false;
        at += 1;
    }
    if component_is_empty && !empty_allowed {
        return Err(UriError::EmptyComponent);
    }
    if components > limits.components_max {
        return Err(UriError::TooManyComponents);
    }
    Ok(())
}

/// Whether the first component is `wamp`, which is reserved for the protocol itself.
#[must_use]
pub fn is_reserved(uri: &str) -> bool {
    uri == "wamp" || uri.starts_with("wamp.")
}

/// Whether `uri` is matched by `pattern` under `policy`: the definition that every index must agree with.
///
/// Prefixes match by string, wildcards by component (ARCHITECTURE.md).
#[must_use]
pub fn matches(pattern: &str, policy: MatchPolicy, uri: &str) -> bool {
    match policy {
        MatchPolicy::Exact => pattern == uri,
        MatchPolicy::Prefix => uri.starts_with(pattern),
        MatchPolicy::Wildcard => {
            let mut wanted = pattern.split('.');
            let mut given = uri.split('.');
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(want), Some(have)) if want.is_empty() || want == have => {}
                    _ => return false,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loose(uri: &str) -> Result<(), UriError> {
        check(uri, UriRule::Loose, UriLimits::default())
    }

    #[test]
    fn loose_uris() {
        for good in ["a", "com.example.add2", "com.Exämple.日本", "a.b-c.d:e/f", "\u{feff}x"] {
            assert_eq!(loose(good), Ok(()), "{good}");
        }
        assert_eq!(loose(""), Err(UriError::Empty));
        for bad in ["a..b", ".a", "a.", "."] {
            assert_eq!(loose(bad), Err(UriError::EmptyComponent), "{bad}");
        }
        for bad in ["a b", "a.#", "a\u{00a0}b", "a.\tb", "a\u{2003}"] {
            assert_eq!(loose(bad), Err(UriError::Character), "{bad}");
        }
        assert_eq!(loose(&"a".repeat(1025)), Err(UriError::TooLong));
        assert_eq!(loose(&vec!["a"; 65].join(".")), Err(UriError::TooManyComponents));
        assert_eq!(loose(&vec!["a"; 64].join(".")), Ok(()));
    }

    #[test]
    fn strict_uris() {
        let strict = |uri| check(uri, UriRule::Strict, UriLimits::default());
        assert_eq!(strict("com.example.add_2"), Ok(()));
        for bad in ["com.Example", "com.exämple", "com.ex-ample"] {
            assert_eq!(strict(bad), Err(UriError::Character), "{bad}");
        }
    }

    #[test]
    fn patterns_may_have_empty_components() {
        let pattern = |uri, policy| check_pattern(uri, policy, UriRule::Loose, UriLimits::default());
        for good in ["com..add", "com.", ".add", "", "."] {
            assert_eq!(pattern(good, MatchPolicy::Wildcard), Ok(()), "{good:?}");
            assert_eq!(pattern(good, MatchPolicy::Prefix), Ok(()), "{good:?}");
        }
        assert_eq!(pattern("com..add", MatchPolicy::Exact), Err(UriError::EmptyComponent));
    }

    #[test]
    fn matching() {
        assert!(matches("com.a", MatchPolicy::Prefix, "com.ab.c"));
        assert!(!matches("com.a", MatchPolicy::Prefix, "com.b"));
        assert!(matches("com..x", MatchPolicy::Wildcard, "com.a.x"));
        assert!(!matches("com..x", MatchPolicy::Wildcard, "com.a.b.x"));
        assert!(!matches("com..x", MatchPolicy::Wildcard, "com.a"));
        assert!(matches("", MatchPolicy::Wildcard, "com"));
        assert!(is_reserved("wamp.error.x") && is_reserved("wamp") && !is_reserved("wampx.a"));
    }
}
