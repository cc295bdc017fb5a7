//! `[[realm.user]]`: who may log in, how, and as what; and secrets, which nothing here ever shows.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use super::kinds::{List, NAME, Optional, Or, Text, Words, Wrong, put};
use super::section::{Fields, Keys, Reader, Section, list_of, required};
use super::tree::{Path, Table};
use super::{Config, Realm};

/// How many users a realm may have.
pub(super) const USERS_MAX: usize = 100_000;

/// Stands where a secret is left out when a configuration is printed; refused when it is read.
const HIDDEN: &str = "(hidden)";

/// A secret in a file is no longer than this, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// How a client can say who it is: the methods of HELLO.Details.authmethods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum AuthMethod {
    Anonymous,
    Ticket,
}

impl AuthMethod {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Anonymous, Self::Ticket];

    /// The word of the specification.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Ticket => "ticket",
        }
    }

    /// The method of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == word)
    }
}

const METHOD_WORDS: &[(&str, AuthMethod)] =
    &[("anonymous", AuthMethod::Anonymous), ("ticket", AuthMethod::Ticket)];

/// A list of methods, or what stands for a choice that the router makes.
pub(super) const fn methods(word: &'static str) -> Or<List<Words<AuthMethod>>> {
    Or(word, List { name: "methods", of: Words(METHOD_WORDS), count: 1..=AuthMethod::ALL.len() })
}

/// `[[realm.user]]`
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// `authid`
    pub authid: String,
    /// `role`
    pub role: String,
    /// `ticket`, `ticket_env`, `ticket_file`: what method `ticket` has to show.
    pub ticket: Option<Secret>,
}

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

impl Secret {
    /// The secret; empty until [`Config::read_secrets`] has looked where it is.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("source", &self.source).finish_non_exhaustive()
    }
}

const SECRET: Text<String> = Text { expects: "a secret", parse: parse_secret, print: |_| HIDDEN.to_owned() };

const VARIABLE: Text<String> = Text {
    expects: "the name of a variable of the environment",
    parse: parse_variable,
    print: String::clone,
};

const SECRET_FILE: Text<PathBuf> = Text {
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

pub(super) fn parse_file(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(("this is no path of a file".to_owned(), None));
    }
    Ok(PathBuf::from(text))
}

/// The three keys that a secret can be in.
pub(super) struct SecretKeys {
    pub(super) here: &'static str,
    pub(super) environment: &'static str,
    pub(super) file: &'static str,
}

const TICKET: SecretKeys = SecretKeys { here: "ticket", environment: "ticket_env", file: "ticket_file" };

impl SecretKeys {
    pub(super) fn read(&self, fields: &mut Fields<'_, '_>) -> Option<Secret> {
        let here = fields.read(self.here, &Optional(SECRET), None);
        let environment = fields.read(self.environment, &Optional(VARIABLE), None);
        let file = fields.read(self.file, &Optional(SECRET_FILE), None);
        let given: Vec<&str> = [self.here, self.environment, self.file]
            .into_iter()
            .filter(|key| fields.has(key) && fields.is_sound(key))
            .collect();
        if let [first, second, ..] = given[..] {
            let hint = format!("leave one of {} out", list_of(&given, "and"));
            fields.problem(second, format!("`{first}` is given too"), hint);
        }
        let (source, text) = match (here, environment, file) {
            (Some(text), ..) => (Source::Here, text),
            (None, Some(name), _) => (Source::Environment(name), String::new()),
            (None, None, Some(path)) => (Source::File(path), String::new()),
            (None, None, None) => return None,
        };
        Some(Secret { source, text: text.into_boxed_str() })
    }

    pub(super) fn write(&self, secret: Option<&Secret>, table: &mut Table) {
        match secret {
            None => {}
            Some(Secret { source: Source::Here, .. }) => put(table, self.here, &SECRET, &String::new()),
            Some(Secret { source: Source::Environment(name), .. }) => {
                put(table, self.environment, &VARIABLE, name);
            }
            Some(Secret { source: Source::File(path), .. }) => put(table, self.file, &SECRET_FILE, path),
        }
    }
}

impl Keys for User {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            authid: fields.read("authid", &AUTHID, required()),
            role: fields.read("role", &NAME, required()),
            ticket: TICKET.read(fields),
        }
    }

    fn write(&self, table: &mut Table) {
        put(table, "authid", &AUTHID, &self.authid);
        put(table, "role", &NAME, &self.role);
        TICKET.write(self.ticket.as_ref(), table);
    }
}

impl Section for User {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        let keys = ["authid", TICKET.here, TICKET.environment, TICKET.file];
        if self.methods().next().is_none() && keys.iter().all(|key| fields.is_sound(key)) {
            let hint = "add a `ticket`, or another key that is named in docs/configuration.md";
            fields.problem("authid", "this user has no way to log in", hint);
        }
    }
}

impl User {
    /// How this user can log in.
    pub fn methods(&self) -> impl Iterator<Item = AuthMethod> {
        [(AuthMethod::Ticket, self.ticket.is_some())]
            .into_iter()
            .filter_map(|(method, is_there)| is_there.then_some(method))
    }

    /// All that is secret of this user, for what must change when a user does.
    pub fn material(&self) -> impl Iterator<Item = &[u8]> {
        [Some(self.authid.as_bytes()), self.ticket.as_ref().map(|secret| secret.expose().as_bytes())]
            .into_iter()
            .flatten()
    }

    fn secrets(&mut self) -> impl Iterator<Item = (&'static SecretKeys, &mut Secret)> {
        [(&TICKET, self.ticket.as_mut())].into_iter().filter_map(|(keys, secret)| Some((keys, secret?)))
    }
}

const AUTHID: Text<String> = Text { expects: "an authid", parse: parse_authid, print: String::clone };

/// Whatever a client may send, but for what no person could tell apart in a log.
fn parse_authid(text: &str) -> Result<String, Wrong> {
    const AUTHID_BYTES_MAX: usize = 1_024;
    if text.is_empty() {
        return Err(("the authid is empty".to_owned(), None));
    }
    if text.len() > AUTHID_BYTES_MAX {
        return Err((format!("the authid is longer than {AUTHID_BYTES_MAX} bytes"), None));
    }
    if text.chars().any(char::is_control) {
        return Err(("the authid has control characters".to_owned(), None));
    }
    if text.starts_with(ANONYMOUS_PREFIX) {
        let hint = "sessions that do not log in are called so";
        return Err((format!("the authid begins with `{ANONYMOUS_PREFIX}`"), Some(hint.to_owned())));
    }
    Ok(text.to_owned())
}

/// What the authids of anonymous sessions begin with.
pub const ANONYMOUS_PREFIX: &str = "anonymous-";

/// What must hold between the users of a realm and its roles.
pub(super) fn check(realm: &Realm, fields: &mut Fields<'_, '_>) {
    let list = fields.path.key("user");
    let names = realm.users.iter().map(|user| Some((&user.authid, format!("the user `{}`", user.authid))));
    fields.reader.refuse_duplicates(&list, &["authid"], names);
    if !fields.is_sound("role") {
        return;
    }
    for (index, user) in realm.users.iter().enumerate() {
        check_role(realm, &user.role, fields.reader, &list.index(index).key("role"));
    }
}

/// A role must be one that the realm has.
pub(super) fn check_role(realm: &Realm, role: &str, reader: &mut Reader<'_>, path: &Path) {
    if realm.roles.iter().any(|known| known.name == role) || !reader.is_sound(path) {
        return;
    }
    let names = realm.roles.iter().map(|known| known.name.as_str());
    let hint = super::kinds::did_you_mean(role, names)
        .unwrap_or_else(|| format!("add a [[realm.role]] with the name `{role}`"));
    reader.problem(path, format!("the realm has no role `{role}`"), Some(hint));
}

/// A file or variable that a secret should be in, and is not: for people.
pub type SecretProblem = String;

impl Config {
    /// Fetches the secrets that are in variables and files.
    ///
    /// # Errors
    /// Those that are not there, all at once.
    pub fn read_secrets(
        &mut self,
        variable: impl Fn(&str) -> Option<String>,
        file: impl Fn(&FilePath) -> Result<String, String>,
    ) -> Result<(), Vec<SecretProblem>> {
        let mut problems = Vec::new();
        for realm in &mut self.realms {
            for user in &mut realm.users {
                let whose = format!("user `{}` of realm `{}`", user.authid, realm.name);
                for (keys, secret) in user.secrets() {
                    if let Err(problem) = secret.fetch(&variable, &file) {
                        problems.push(format!("{whose}: {}: {problem}", keys.here));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

impl Secret {
    fn fetch(
        &mut self,
        variable: &impl Fn(&str) -> Option<String>,
        file: &impl Fn(&FilePath) -> Result<String, String>,
    ) -> Result<(), String> {
        let text = match &self.source {
            Source::Here => return Ok(()),
            Source::Environment(name) => {
                variable(name).ok_or_else(|| format!("the variable {name} is not set, or no text"))?
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
        self.text = text.into_boxed_str();
        Ok(())
    }
}
