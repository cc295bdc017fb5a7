//! The cookie by which a browser is known again (RFC 6265): reading and setting it. Pure.
//!
//! It is random and says nothing. What is kept of it is a hash, so that neither a table that somebody reads nor the time of a
//! look-up helps to make one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::config::CookieConfig;

/// So many characters are 32 bytes.
const TEXT_LENGTH: usize = 43;

/// The value of a cookie: 32 random bytes.
pub struct Cookie([u8; 32]);

/// What is kept of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CookieDigest([u8; 32]);

impl CookieDigest {
    /// The first one in the order of all.
    pub const MIN: Self = Self([0; 32]);
}

impl Cookie {
    /// One of these bytes, which nobody can foretell.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The value of a header; `None` where this cannot be one.
    fn read(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_LENGTH {
            return None;
        }
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    /// As it stands in a header.
    #[must_use]
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> CookieDigest {
        CookieDigest(Sha256::digest(self.0).into())
    }

    /// The header that gives it to a browser, with CR LF.
    #[must_use]
    pub fn header(&self, config: &CookieConfig) -> String {
        let CookieConfig { name, max_age, same_site, http_only, secure } = config;
        format!(
            "Set-Cookie: {name}={}; Path=/; Max-Age={}; SameSite={}{}{}\r\n",
            self.text(),
            max_age.as_secs(),
            same_site.as_str(),
            if *http_only { "; HttpOnly" } else { "" },
            if *secure { "; Secure" } else { "" },
        )
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie")
    }
}

impl fmt::Debug for CookieDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieDigest")
    }
}

/// The cookie of this name in the Cookie headers of a request. Two that differ are none: another host of the site may
/// have set one of them, and nobody can tell which.
#[must_use]
pub fn presented<'a>(headers: impl Iterator<Item = &'a [u8]>, name: &str) -> Option<CookieDigest> {
    let mut found: Option<CookieDigest> = None;
    let pairs = headers.flat_map(|header| header.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    for pair in pairs {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
        if pair[..at].trim_ascii() != name.as_bytes() {
            continue;
        }
        let digest = Cookie::read(pair[at + 1..].trim_ascii())?.digest();
        if found.is_some_and(|other| other != digest) {
            return None;
        }
        found = Some(digest);
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::SameSite;

    fn of(headers: &[&str]) -> Option<CookieDigest> {
        presented(headers.iter().map(|header| header.as_bytes()), "id")
    }

    #[test]
    fn what_is_set_is_known_again() {
        let mut config = CookieConfig {
            name: "id".to_owned(),
            max_age: Duration::from_secs(90),
            same_site: SameSite::Lax,
            http_only: true,
            secure: false,
        };
        let cookie = Cookie::new([9; 32]);
        let text = cookie.text();
        assert_eq!(
            cookie.header(&config),
            format!("Set-Cookie: id={text}; Path=/; Max-Age=90; SameSite=Lax; HttpOnly\r\n")
        );
        (config.http_only, config.secure, config.same_site) = (false, true, SameSite::None);
        assert_eq!(
            cookie.header(&config),
            format!("Set-Cookie: id={text}; Path=/; Max-Age=90; SameSite=None; Secure\r\n")
        );
        let digest = Some(cookie.digest());
        assert_eq!(of(&[&format!("id={text}")]), digest);
        assert_eq!(of(&["other=1", &format!("a=b;  id = {text} ;c")]), digest);
        assert_eq!(of(&[&format!("id={text}; id={text}")]), digest);
        assert_eq!(format!("{cookie:?} {digest:?}"), "Cookie Some(CookieDigest)");
    }

    #[test]
    fn what_is_none() {
        let (one, other) = (Cookie::new([1; 32]).text(), Cookie::new([2; 32]).text());
        for header in [
            String::new(),
            "id".to_owned(),
            "id=".to_owned(),
            format!("ID={one}"),
            format!("xid={one}"),
            format!("id={one}A"),
            format!("id=\"{one}\""),
            format!("id={}+", &one[..42]),
            // Bits behind the last byte: another text for the same bytes.
            format!("id={}F", &one[..42]),
            format!("id={one}; id={other}"),
            format!("id={one}; id=x"),
        ] {
            assert_eq!(of(&[&header]), None, "{header}");
        }
        assert_eq!(of(&[&format!("id={one}"), &format!("id={other}")]), None);
    }
}
