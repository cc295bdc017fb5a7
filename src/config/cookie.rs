//! `[listener.cookie]`: the cookie by which a browser is known again.

use std::time::Duration;

use super::kinds::{Boolean, Text, Words, Wrong, milliseconds};
use super::section::{Fields, Section, section};

/// `[listener.cookie]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// `name`
    pub name: String,
    /// `max_age_ms`: how long the browser keeps it, and how long a login lasts that it stands for.
    pub max_age: Duration,
    /// `same_site`
    pub same_site: SameSite,
    /// `http_only`: scripts of the page cannot read it.
    pub http_only: bool,
    /// `secure`: the browser sends it over TLS alone.
    pub secure: bool,
}

/// On requests of which pages a browser sends a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SameSite {
    Strict,
    #[default]
    Lax,
    None,
}

impl SameSite {
    /// The word of Set-Cookie.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

const COOKIE_NAME: Text<String> =
    Text { expects: "the name of a cookie", parse: parse_cookie_name, print: String::clone };

const SAME_SITES: &[(&str, SameSite)] =
    &[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];

const DAY: Duration = Duration::from_secs(86_400);

/// Browsers take the first only over TLS, and the second only over TLS and of one host.
const SECURE_PREFIXES: [&str; 2] = ["__Secure-", "__Host-"];

section! {
    CookieConfig {
        name: COOKIE_NAME, "crosspoint".to_owned();
        max_age ["max_age_ms"]: milliseconds(1_000..=31_536_000_000), DAY;
        same_site: Words(SAME_SITES), SameSite::Lax;
        http_only: Boolean, true;
        secure: Boolean, false;
    }
}

impl Section for CookieConfig {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        if self.secure || !fields.is_sound("secure") {
            return;
        }
        let hint = "add `secure = true` if clients come over TLS";
        if self.same_site == SameSite::None && fields.is_sound("same_site") {
            let problem = "browsers throw away a cookie of every site that is not `secure`";
            fields.problem("same_site", problem, hint);
        }
        let is_prefixed = SECURE_PREFIXES.iter().any(|prefix| self.name.starts_with(prefix));
        if is_prefixed && fields.is_sound("name") {
            fields.problem(
                "name",
                "browsers throw away a cookie with this prefix that is not `secure`",
                hint,
            );
        }
    }
}

/// A token (RFC 6265, section 4.1.1).
fn parse_cookie_name(text: &str) -> Result<String, Wrong> {
    const NAME_BYTES_MAX: usize = 64;
    if text.is_empty() {
        return Err(("the name is empty".to_owned(), None));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err((format!("the name is longer than {NAME_BYTES_MAX} bytes"), None));
    }
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.bytes().all(is_sound) {
        let hint = "letters, digits, `-` and `_` will do";
        return Err((
            "the name has a character that cookies cannot have in theirs".to_owned(),
            Some(hint.to_owned()),
        ));
    }
    Ok(text.to_owned())
}
