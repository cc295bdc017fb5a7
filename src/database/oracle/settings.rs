//! Where an Oracle database is, and who goes there: `oracle://user:password@connect string`.

use std::collections::BTreeMap;
use std::fmt;

/// The variable that has the password where the URL has none.
pub const PASSWORD: &str = "ORACLE_PASSWORD";

const SCHEME: &str = "oracle://";

/// How to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Empty: whom the wallet or the operating system says.
    pub user: String,
    password: String,
    /// As Oracle's client understands it: `host:port/service`, a name of `tnsnames.ora`, or a description.
    pub connect: String,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("user", &self.user)
            .field("connect", &self.connect)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Whether a URL is one of these.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads a URL; `variables` say what it leaves open.
    ///
    /// # Errors
    /// What is wrong with it, without what is secret in it.
    pub fn parse(text: &str, variables: &BTreeMap<String, String>) -> Result<Self, String> {
        const FORM: &str = "`oracle://user:password@host:1521/service`";
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| format!("it does not look like {FORM}"))?;
        let (who, connect) =
            rest.split_once('@').ok_or_else(|| format!("there is no `@` in it: it looks like {FORM}"))?;
        if connect.is_empty() {
            return Err(format!("nothing stands behind its `@`: it looks like {FORM}"));
        }
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (decoded(user)?, Some(decoded(password)?)),
            None => (decoded(who)?, None),
        };
        let password = password.or_else(|| variables.get(PASSWORD).cloned()).unwrap_or_default();
        if !user.is_empty() && password.is_empty() {
            return Err(format!("it has a user and no password: write {FORM}, or set {PASSWORD}"));
        }
        Ok(Self { user, password, connect: connect.to_owned() })
    }

    /// The secret, for who logs in.
    #[cfg(feature = "oracle")]
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The name of the schema of who goes there; empty where that is not known before.
    #[must_use]
    pub fn schema(&self) -> String {
        match self.user.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => quoted.to_owned(),
            None => self.user.to_uppercase(),
        }
    }
}

/// `%40` is `@`.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("a `%` in its user or password is written `%25`")?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).map_err(|_| "its user or password is no UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, &BTreeMap::new())
    }

    #[test]
    fn urls() {
        let settings = parse("oracle://shop:s%40c%3Aret@db.example:1521/FREEPDB1").unwrap();
        assert_eq!((&*settings.user, &*settings.password), ("shop", "s@c:ret"));
        assert_eq!(settings.connect, "db.example:1521/FREEPDB1");
        assert_eq!(settings.schema(), "SHOP");
        assert!(!format!("{settings:?}").contains("ret"));
        assert_eq!(parse("oracle://\"Shop\":x@SHOPDB").unwrap().schema(), "Shop");
        assert_eq!(parse("oracle://@wallet_alias").unwrap().user, "");
        let variables = BTreeMap::from([(PASSWORD.to_owned(), "tiger".to_owned())]);
        let settings = Settings::parse("oracle://scott@tcps://db:2484/x", &variables).unwrap();
        assert_eq!((&*settings.password, &*settings.connect), ("tiger", "tcps://db:2484/x"));
    }

    #[test]
    fn what_is_wrong_is_said_without_secrets() {
        for (text, problem) in [
            ("postgres://x", "it does not look like"),
            ("oracle://shop:secret", "there is no `@`"),
            ("oracle://shop:secret@", "nothing stands behind its `@`"),
            ("oracle://shop@db/x", "no password"),
            ("oracle://shop:secret%@db/x", "written `%25`"),
            ("oracle://shop:secret%ff@db/x", "no UTF-8"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(problem) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
