//! Secrets, which nothing here ever shows, and where they come from.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use crate::config::kinds::{Optional, Text, Wrong, put};
use crate::config::section::{Fields, list_of};
use crate::config::tree::Table;

/// Stands where a secret is left out when a configuration is printed; refused when it is read.
const HIDDEN: &str = "(hidden)";

/// A secret in a file is no longer than this, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// In the configuration itself.
    Here,
    /// In a variable of the environment.
    Environment(String),
    /// In a file, its last line end left out.
    File(PathBuf),
}

/// A secret and where it comes from. Neither `Debug` nor a printed configuration shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    source: Source,
    text: Box<str>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Secret {
    /// One that somebody gave while the router runs.
    #[must_use]
    pub fn given(text: &str) -> Self {
        Self { source: Source::Here, text: text.into() }
    }

    /// The secret; empty until [`crate::config::Config::read_secrets`] has looked where it is.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Looks where it is, and whether it is what it should be.
    pub(in crate::config) fn fetch(
        &mut self,
        check: Check,
        variable: &impl Fn(&str) -> Option<String>,
        file: &impl Fn(&FilePath) -> Result<String, String>,
    ) -> Result<(), String> {
        let text = match &self.source {
            Source::Here => return Ok(()),
            Source::Environment(name) => {
                variable(name).ok_or_else(|| format!("the variable {name} is not set, or is no text"))?
            }
            Source::File(path) => {
                let text =
                    file(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                text.strip_suffix('\r').unwrap_or(text).to_owned()
            }
        };
        if text.is_empty() || text.len() > SECRET_BYTES_MAX {
            return Err(format!("the secret is empty, or longer than {SECRET_BYTES_MAX} bytes"));
        }
        check(&text)?;
        self.text = text.into_boxed_str();
        Ok(())
    }
}

/// What a secret must be, or what is wrong with it.
pub(in crate::config) type Check = fn(&str) -> Result<(), &'static str>;

/// The three keys that a secret can be in, and what it must be.
pub(in crate::config) struct SecretKeys {
    pub(in crate::config) here: &'static str,
    pub(in crate::config) environment: &'static str,
    pub(in crate::config) file: &'static str,
    pub(in crate::config) check: Check,
}

const SECRET: Text<String> = Text { expects: "a secret", parse: parse_secret, print: |_| HIDDEN.to_owned() };

const VARIABLE: Text<String> = Text {
    expects: "the name of a variable of the environment",
    parse: parse_variable,
    print: String::clone,
};

/// The path of a file.
pub(in crate::config) const FILE: Text<PathBuf> = Text {
    expects: "the path of a file",
    parse: parse_file,
    print: |path| path.to_string_lossy().into_owned(),
};

fn parse_secret(text: &str) -> Result<String, Wrong> {
    match text {
        "" => Err(("the secret is empty".to_owned(), None)),
        HIDDEN => {
            let hint = "`crosspoint check` leaves secrets out: write the secret itself here";
            Err(("this is no secret".to_owned(), Some(hint.to_owned())))
        }
        secret => Ok(secret.to_owned()),
    }
}

fn parse_variable(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.contains(['=', '\0']) {
        return Err(("this is no name of a variable".to_owned(), None));
    }
    Ok(text.to_owned())
}

fn parse_file(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(("this is no path of a file".to_owned(), None));
    }
    Ok(PathBuf::from(text))
}

impl SecretKeys {
    const fn names(&self) -> [&'static str; 3] {
        [self.here, self.environment, self.file]
    }

    pub(in crate::config) fn read(&self, fields: &mut Fields<'_, '_>) -> Option<Secret> {
        let here = fields.read(self.here, &Optional(SECRET), None);
        let environment = fields.read(self.environment, &Optional(VARIABLE), None);
        let file = fields.read(self.file, &Optional(FILE), None);
        let given: Vec<&str> =
            self.names().into_iter().filter(|key| fields.has(key) && fields.is_sound(key)).collect();
        // Never the first, whose line has the secret.
        if let [first, second, ..] = given[..] {
            let hint = format!("leave one of {} out", list_of(&given, "and"));
            fields.problem(second, format!("`{first}` is given too"), hint);
        }
        if let Some(text) = &here
            && let Err(problem) = (self.check)(text)
        {
            // Shown where its table begins: the line has the secret.
            let problem = format!("`{}`: {problem}", self.here);
            fields.reader.problem(fields.path, problem, None);
        }
        let (source, text) = match (here, environment, file) {
            (Some(text), ..) => (Source::Here, text),
            (None, Some(name), _) => (Source::Environment(name), String::new()),
            (None, None, Some(path)) => (Source::File(path), String::new()),
            (None, None, None) => return None,
        };
        Some(Secret { source, text: text.into_boxed_str() })
    }

    /// One of the three keys must be there.
    pub(in crate::config) fn demand(&self, secret: Option<&Secret>, fields: &mut Fields<'_, '_>) {
        if secret.is_none() && fields.reader.is_sound(fields.path) {
            let hint = format!("write {}", list_of(&self.names(), "or"));
            fields.reader.problem(fields.path, format!("`{}` is missing", self.here), Some(hint));
        }
    }

    pub(in crate::config) fn write(&self, secret: Option<&Secret>, table: &mut Table) {
        match secret {
            None => {}
            Some(Secret { source: Source::Here, .. }) => put(table, self.here, &SECRET, &String::new()),
            Some(Secret { source: Source::Environment(name), .. }) => {
                put(table, self.environment, &VARIABLE, name);
            }
            Some(Secret { source: Source::File(path), .. }) => put(table, self.file, &FILE, path),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::with_users;
    use crate::config::{self, Config};

    const USERS: &str = r#"
[[realm.user]]
authid = "joe"
role = "anonymous"
ticket = "do not show this"
[[realm.user]]
authid = "bob"
role = "anonymous"
ticket_env = "BOB"
[[realm.user]]
authid = "eve"
role = "anonymous"
ticket_file = "/eve"
"#;

    fn tickets(config: &Config) -> Vec<&str> {
        let users = config.realms[0].users.iter();
        users.map(|user| user.ticket.as_ref().unwrap().expose()).collect()
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let mut config = with_users(USERS);
        config
            .read_secrets(|_| Some("do not show this".to_owned()), |_| Ok("do not show this\r\n".to_owned()))
            .unwrap();
        assert_eq!(tickets(&config), ["do not show this"; 3]);
        assert!(!format!("{config:?} {:#?}", config.realms).contains("show"));
        assert!(!config.to_toml().contains("show"));
        // What was left out is no secret.
        assert!(config::parse("", &config.to_toml(), &[]).is_err());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let mut config = with_users(USERS);
        let problems = config.read_secrets(|_| None, |_| Err("it is gone".to_owned())).unwrap_err();
        assert_eq!(
            problems,
            [
                "user `bob` of realm `realm1`: ticket: the variable BOB is not set, or is no text",
                "user `eve` of realm `realm1`: ticket: /eve cannot be read: it is gone"
            ]
        );
        let problems = config.read_secrets(|_| Some(String::new()), |_| Ok("\n".to_owned())).unwrap_err();
        assert_eq!(problems.len(), 2);
    }
}
