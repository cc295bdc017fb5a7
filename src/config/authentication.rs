//! `[[realm.user]]`: who may log in, how, and as what.

pub(super) mod secret;
mod users_file;

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(super) use self::secret::FILE;
use self::secret::{Check, SecretKeys};
pub use self::secret::{SECRET_BYTES_MAX, Secret};
use super::kinds::{
    Integer, List, NAME, Optional, Or, Text, Words, Wrong, did_you_mean, milliseconds, put, single,
};
use super::section::{Fields, Keys, Reader, Section, required};
use super::tree::{Path, Table};
use super::{Config, Realm};
use crate::password::PasswordHash;
use crate::token::Keys as SigningKeys;

/// How many users a realm may have.
pub(super) const USERS_MAX: usize = 100_000;

/// What the authids of anonymous sessions begin with.
pub const ANONYMOUS_PREFIX: &str = "anonymous-";

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// How a client can say who it is: the methods of HELLO.Details.authmethods.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum AuthMethod {
            $($(#[$doc])* $name,)*
        }

        impl AuthMethod {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word of the specification.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }

        const METHOD_WORDS: &[(&str, AuthMethod)] = &[$(($word, AuthMethod::$name)),*];
    };
}

methods! {
    Anonymous = "anonymous";
    Ticket = "ticket";
    WampCra = "wampcra";
    WampScram = "wamp-scram";
    /// What Autobahn makes of SCRAM: another name, and small differences.
    Scram = "scram";
    Cryptosign = "cryptosign";
    /// A token of somebody whom the realm trusts, as method `ticket` takes it, too.
    Jwt = "jwt";
    /// The cookie of a connection on which somebody logged in by another one.
    Cookie = "cookie";
}

impl AuthMethod {
    /// The method of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.as_str() == word)
    }
}

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
    /// `ticket_hash`, `ticket_hash_env`, `ticket_hash_file`: instead of `ticket`, its hash.
    pub ticket_hash: Option<Secret>,
    /// `secret`, `secret_env`, `secret_file`: the password of method `wampcra`, known to both sides.
    pub secret: Option<Secret>,
    /// `authorized_keys`: public keys of method `cryptosign`.
    pub authorized_keys: Vec<PublicKey>,
    /// `[realm.user.wampcra]`: instead of `secret`, a key derived from the password.
    pub wampcra: Option<WampCraKey>,
    /// `[realm.user.scram]`
    pub scram: Option<ScramKeys>,
}

/// `[realm.token]`: JSON Web Tokens that let their bearers in.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenConfig {
    /// `secret`, `secret_env`, `secret_file`: for HS256.
    pub secret: Option<Secret>,
    /// `keys_file`: a public key in PEM, or a set of keys in JSON. Read again when it changes.
    pub keys_file: Option<PathBuf>,
    /// What is in `keys_file`; empty until [`Config::read_secrets`] has looked.
    pub keys: Box<str>,
    /// `issuer`
    pub issuer: Option<String>,
    /// `audience`
    pub audience: Option<String>,
    /// `leeway_ms`: how far clocks may be apart.
    pub leeway: Duration,
    /// `authid_claim`
    pub authid_claim: String,
    /// `role_claim`
    pub role_claim: String,
    /// `role`: of tokens that claim none.
    pub role: Option<String>,
    /// `claims`: what of a token becomes `authextra`; `None` ("all") is all but the registered ones.
    pub claims: Option<Vec<String>>,
}

/// A public key of Ed25519.
pub type PublicKey = [u8; 32];

/// `[realm.user.wampcra]`: what PBKDF2 makes of a password, which is the secret of WAMP-CRA then.
#[derive(Clone, Debug, PartialEq)]
pub struct WampCraKey {
    /// `key`, `key_env`, `key_file`, in base64.
    pub key: Option<Secret>,
    /// `salt`, used as it stands here.
    pub salt: String,
    /// `iterations`
    pub iterations: u32,
}

/// `[realm.user.scram]`: what a router knows of a password for SCRAM.
#[derive(Clone, Debug, PartialEq)]
pub struct ScramKeys {
    /// `dialect`: of which method they are, the specification's or Autobahn's.
    pub dialect: ScramDialect,
    /// `kdf`
    pub kdf: Kdf,
    /// `iterations`
    pub iterations: u32,
    /// `memory` in KiB, for argon2id13 alone.
    pub memory: Option<u32>,
    /// `salt` in base64.
    pub salt: String,
    /// `stored_key`, in base64.
    pub stored_key: Option<Secret>,
    /// `server_key`, in base64.
    pub server_key: Option<Secret>,
}

/// Which SCRAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ScramDialect {
    #[default]
    WampScram,
    Autobahn,
}

/// How a key is made of a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kdf {
    #[default]
    Pbkdf2,
    Argon2id13,
}

const TICKET: SecretKeys =
    SecretKeys { here: "ticket", environment: "ticket_env", file: "ticket_file", check: |_| Ok(()) };

const TICKET_HASH: SecretKeys = SecretKeys {
    here: "ticket_hash",
    environment: "ticket_hash_env",
    file: "ticket_hash_file",
    check: |text| PasswordHash::parse(text).map(drop),
};

const PASSWORD: SecretKeys =
    SecretKeys { here: "secret", environment: "secret_env", file: "secret_file", check: |_| Ok(()) };

const KEY: SecretKeys =
    SecretKeys { here: "key", environment: "key_env", file: "key_file", check: is_base64 };

const STORED_KEY: SecretKeys =
    SecretKeys { here: "stored_key", environment: "stored_key_env", file: "stored_key_file", check: is_key };

const SERVER_KEY: SecretKeys =
    SecretKeys { here: "server_key", environment: "server_key_env", file: "server_key_file", check: is_key };

fn is_base64(text: &str) -> Result<(), &'static str> {
    parse_base64(text).map(drop).map_err(|_| "this is no key in base64")
}

fn is_key(text: &str) -> Result<(), &'static str> {
    match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == 32 => Ok(()),
        _ => Err("this is not 32 bytes in base64"),
    }
}

/// The costs that are taken: the bounds are for mistakes.
const ITERATIONS: Integer<u32> = Integer(1..=100_000_000);
const MEMORY_KIB: Integer<u32> = Integer(8..=16 << 20);

const DIALECTS: &[(&str, ScramDialect)] =
    &[("wamp-scram", ScramDialect::WampScram), ("scram", ScramDialect::Autobahn)];

const KDFS: &[(&str, Kdf)] = &[("pbkdf2", Kdf::Pbkdf2), ("argon2id13", Kdf::Argon2id13)];

const SALT: Text<String> = Text { expects: "a salt", parse: parse_salt, print: String::clone };

const BASE64: Text<String> = Text { expects: "bytes in base64", parse: parse_base64, print: String::clone };

const PUBLIC_KEYS: List<Text<PublicKey>> = List {
    name: "public keys",
    of: Text { expects: "32 bytes in hexadecimal digits", parse: parse_public_key, print: |key| hex(key) },
    count: 0..=100,
};

const AUTHID: Text<String> = Text { expects: "an authid", parse: parse_authid, print: String::clone };

/// Whether a user may have this authid.
#[must_use]
pub fn is_authid(text: &str) -> bool {
    parse_authid(text).is_ok()
}

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

fn parse_salt(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 1024 {
        return Err(("a salt has 1 to 1024 bytes".to_owned(), None));
    }
    Ok(text.to_owned())
}

fn parse_base64(text: &str) -> Result<String, Wrong> {
    match STANDARD.decode(text) {
        Ok(bytes) if !bytes.is_empty() && bytes.len() <= 1024 => Ok(text.to_owned()),
        _ => Err(("this is not base64 of 1 to 1024 bytes".to_owned(), None)),
    }
}

fn parse_public_key(text: &str) -> Result<PublicKey, Wrong> {
    bytes_of_hex(text).ok_or_else(|| ("expected 32 bytes in 64 hexadecimal digits".to_owned(), None))
}

/// The bytes of so many hexadecimal digits.
#[must_use]
pub fn bytes_of_hex<const COUNT: usize>(text: &str) -> Option<[u8; COUNT]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * COUNT {
        return None;
    }
    let mut bytes = [0; COUNT];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Bytes in hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl User {
    /// A user who cannot log in yet.
    #[must_use]
    pub fn nobody(authid: &str, role: &str) -> Self {
        Self {
            authid: authid.to_owned(),
            role: role.to_owned(),
            ticket: None,
            ticket_hash: None,
            secret: None,
            authorized_keys: Vec::new(),
            wampcra: None,
            scram: None,
        }
    }
}

impl Keys for User {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            authid: fields.read("authid", &AUTHID, required()),
            role: fields.read("role", &NAME, required()),
            ticket: TICKET.read(fields),
            ticket_hash: TICKET_HASH.read(fields),
            secret: PASSWORD.read(fields),
            authorized_keys: fields.read("authorized_keys", &PUBLIC_KEYS, Vec::new()),
            wampcra: fields.read("wampcra", &Optional(single()), None),
            scram: fields.read("scram", &Optional(single()), None),
        }
    }

    fn write(&self, table: &mut Table) {
        put(table, "authid", &AUTHID, &self.authid);
        put(table, "role", &NAME, &self.role);
        TICKET.write(self.ticket.as_ref(), table);
        TICKET_HASH.write(self.ticket_hash.as_ref(), table);
        PASSWORD.write(self.secret.as_ref(), table);
        if !self.authorized_keys.is_empty() {
            put(table, "authorized_keys", &PUBLIC_KEYS, &self.authorized_keys);
        }
        put(table, "wampcra", &Optional(single()), &self.wampcra);
        put(table, "scram", &Optional(single()), &self.scram);
    }
}

impl Section for User {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        if self.ticket.is_some() && self.ticket_hash.is_some() && fields.reader.is_sound(fields.path) {
            let hint = "leave one of them out, if possible the ticket itself";
            fields.problem("authid", "this user has a ticket and a hash of one", hint);
        }
        if self.secret.is_some() && self.wampcra.is_some() && fields.is_sound("wampcra") {
            fields.problem(
                "wampcra",
                "there is a `secret` too",
                "both are for WAMP-CRA: leave one of them out",
            );
        }
        if self.methods().next().is_none() && fields.reader.is_sound(fields.path) {
            let hint = "add a `ticket`, or another key that is named in docs/configuration.md";
            fields.problem("authid", "this user has no way to log in", hint);
        }
    }
}

impl Keys for WampCraKey {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            key: KEY.read(fields),
            salt: fields.read("salt", &SALT, required()),
            iterations: fields.read("iterations", &ITERATIONS, required()),
        }
    }

    fn write(&self, table: &mut Table) {
        KEY.write(self.key.as_ref(), table);
        put(table, "salt", &SALT, &self.salt);
        put(table, "iterations", &ITERATIONS, &self.iterations);
    }
}

impl Section for WampCraKey {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        KEY.demand(self.key.as_ref(), fields);
    }
}

impl Keys for ScramKeys {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            dialect: fields.read("dialect", &Words(DIALECTS), ScramDialect::WampScram),
            kdf: fields.read("kdf", &Words(KDFS), required()),
            iterations: fields.read("iterations", &ITERATIONS, required()),
            memory: fields.read("memory", &Optional(MEMORY_KIB), None),
            salt: fields.read("salt", &BASE64, required()),
            stored_key: STORED_KEY.read(fields),
            server_key: SERVER_KEY.read(fields),
        }
    }

    fn write(&self, table: &mut Table) {
        put(table, "dialect", &Words(DIALECTS), &self.dialect);
        put(table, "kdf", &Words(KDFS), &self.kdf);
        put(table, "iterations", &ITERATIONS, &self.iterations);
        put(table, "memory", &Optional(MEMORY_KIB), &self.memory);
        put(table, "salt", &BASE64, &self.salt);
        STORED_KEY.write(self.stored_key.as_ref(), table);
        SERVER_KEY.write(self.server_key.as_ref(), table);
    }
}

impl Section for ScramKeys {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        STORED_KEY.demand(self.stored_key.as_ref(), fields);
        SERVER_KEY.demand(self.server_key.as_ref(), fields);
        if !fields.is_sound("kdf") || !fields.is_sound("memory") || !fields.is_sound("dialect") {
            return;
        }
        match (self.dialect, self.kdf, self.memory) {
            (ScramDialect::Autobahn, Kdf::Pbkdf2, _) => {
                let hint = "write `kdf = \"argon2id13\"`: Autobahn cannot do the other";
                fields.problem("kdf", "the dialect \"scram\" needs argon2id13", hint);
            }
            (_, Kdf::Pbkdf2, Some(_)) => {
                fields.problem("memory", "pbkdf2 has no memory", "leave the key out")
            }
            (_, Kdf::Argon2id13, None) => {
                let hint = "add the KiB that the hash was made with";
                fields.problem("kdf", "argon2id13 needs `memory`", hint);
            }
            _ => {}
        }
    }
}

impl User {
    /// How this user can log in.
    pub fn methods(&self) -> impl Iterator<Item = AuthMethod> {
        let scram = |dialect| self.scram.as_ref().is_some_and(|keys| keys.dialect == dialect);
        [
            (AuthMethod::Ticket, self.ticket.is_some() || self.ticket_hash.is_some()),
            (AuthMethod::WampCra, self.secret.is_some() || self.wampcra.is_some()),
            (AuthMethod::WampScram, scram(ScramDialect::WampScram)),
            (AuthMethod::Scram, scram(ScramDialect::Autobahn)),
            (AuthMethod::Cryptosign, !self.authorized_keys.is_empty()),
        ]
        .into_iter()
        .filter_map(|(method, is_there)| is_there.then_some(method))
    }

    /// All that is known of this user, for what must change when a user does.
    pub fn material(&self) -> impl Iterator<Item = &[u8]> {
        let secrets = [
            self.ticket.as_ref(),
            self.ticket_hash.as_ref(),
            self.secret.as_ref(),
            self.wampcra.as_ref().and_then(|own| own.key.as_ref()),
            self.scram.as_ref().and_then(|own| own.stored_key.as_ref()),
            self.scram.as_ref().and_then(|own| own.server_key.as_ref()),
        ];
        let secrets = secrets.into_iter().flatten().map(|secret| secret.expose().as_bytes());
        std::iter::once(self.authid.as_bytes())
            .chain(secrets)
            .chain(self.authorized_keys.iter().map(<[u8; 32]>::as_slice))
    }

    fn secrets(&mut self) -> impl Iterator<Item = (&'static str, Check, &mut Secret)> {
        let (stored_key, server_key) = match &mut self.scram {
            Some(keys) => (keys.stored_key.as_mut(), keys.server_key.as_mut()),
            None => (None, None),
        };
        let all = [
            ("ticket", &TICKET, self.ticket.as_mut()),
            ("ticket_hash", &TICKET_HASH, self.ticket_hash.as_mut()),
            ("secret", &PASSWORD, self.secret.as_mut()),
            ("wampcra.key", &KEY, self.wampcra.as_mut().and_then(|own| own.key.as_mut())),
            ("scram.stored_key", &STORED_KEY, stored_key),
            ("scram.server_key", &SERVER_KEY, server_key),
        ];
        all.into_iter().filter_map(|(name, keys, secret)| Some((name, keys.check, secret?)))
    }
}

impl Keys for TokenConfig {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            secret: PASSWORD.read(fields),
            keys_file: fields.read("keys_file", &Optional(FILE), None),
            keys: Box::default(),
            issuer: fields.read("issuer", &Optional(CLAIM), None),
            audience: fields.read("audience", &Optional(CLAIM), None),
            leeway: fields.read("leeway_ms", &milliseconds(0..=3_600_000), LEEWAY),
            authid_claim: fields.read("authid_claim", &CLAIM, "sub".to_owned()),
            role_claim: fields.read("role_claim", &CLAIM, "role".to_owned()),
            role: fields.read("role", &Optional(NAME), None),
            claims: fields.read("claims", &CLAIMS, Some(Vec::new())),
        }
    }

    fn write(&self, table: &mut Table) {
        PASSWORD.write(self.secret.as_ref(), table);
        put(table, "keys_file", &Optional(FILE), &self.keys_file);
        put(table, "issuer", &Optional(CLAIM), &self.issuer);
        put(table, "audience", &Optional(CLAIM), &self.audience);
        put(table, "leeway_ms", &milliseconds(0..=3_600_000), &self.leeway);
        put(table, "authid_claim", &CLAIM, &self.authid_claim);
        put(table, "role_claim", &CLAIM, &self.role_claim);
        put(table, "role", &Optional(NAME), &self.role);
        put(table, "claims", &CLAIMS, &self.claims);
    }
}

impl Section for TokenConfig {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        if self.secret.is_none() && self.keys_file.is_none() && fields.reader.is_sound(fields.path) {
            let hint = "write `keys_file`, or for HS256 one of `secret`, `secret_env` and `secret_file`";
            fields.reader.problem(
                fields.path,
                "nothing says what tokens are signed with",
                Some(hint.to_owned()),
            );
        }
    }
}

impl TokenConfig {
    /// What tokens are signed with, as far as it can be read.
    #[must_use]
    pub fn signing_keys(&self) -> SigningKeys {
        let keys = SigningKeys::parse(&self.keys).unwrap_or_default();
        match &self.secret {
            Some(secret) => keys.with_secret(secret.expose()),
            None => keys,
        }
    }

    fn fetch(
        &mut self,
        variable: &impl Fn(&str) -> Option<String>,
        file: &impl Fn(&FilePath) -> Result<String, String>,
    ) -> Result<(), String> {
        if let Some(secret) = &mut self.secret {
            secret.fetch(PASSWORD.check, variable, file)?;
        }
        if let Some(path) = &self.keys_file {
            let text = file(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            SigningKeys::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))?;
            self.keys = text.into();
        }
        Ok(())
    }
}

const LEEWAY: Duration = Duration::from_secs(30);

const CLAIM: Text<String> = Text { expects: "a text", parse: parse_claim, print: String::clone };

const CLAIMS: Or<List<Text<String>>> = Or("all", List { name: "claims", of: CLAIM, count: 0..=100 });

fn parse_claim(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 1024 {
        return Err(("expected 1 to 1024 bytes".to_owned(), None));
    }
    Ok(text.to_owned())
}

/// What must hold between the users of a realm and its roles.
pub(super) fn check(realm: &Realm, fields: &mut Fields<'_, '_>) {
    if let Some(role) = realm.token.as_ref().and_then(|token| token.role.as_ref())
        && fields.is_sound("role")
    {
        let path = fields.path.key("token").key("role");
        check_role(realm, role, fields.reader, &path);
    }
    check_users(realm, &realm.users, fields);
}

/// Why no two users have the same key.
const KEY_NAMES_USER: &str = "a client that sends no authid is found by its key";

fn key_is_taken(owner: &str) -> String {
    format!("the user `{owner}` has this key already")
}

/// What must hold between users that stand in one table, and the roles of their realm.
fn check_users(realm: &Realm, users: &[User], fields: &mut Fields<'_, '_>) {
    let list = fields.path.key("user");
    let names = users.iter().map(|user| Some((&user.authid, format!("the user `{}`", user.authid))));
    fields.reader.refuse_duplicates(&list, &["authid"], names);
    let keys = users.iter().enumerate().flat_map(|(index, user)| {
        user.authorized_keys.iter().enumerate().map(move |(place, key)| (*key, index, place))
    });
    let mut owners = std::collections::BTreeMap::new();
    for (key, user, place) in keys {
        let owner = *owners.entry(key).or_insert(user);
        if owner != user {
            let path = list.index(user).key("authorized_keys").index(place);
            fields.reader.problem(&path, key_is_taken(&users[owner].authid), Some(KEY_NAMES_USER.to_owned()));
        }
    }
    if !fields.is_sound("role") {
        return;
    }
    for (index, user) in users.iter().enumerate() {
        check_role(realm, &user.role, fields.reader, &list.index(index).key("role"));
    }
}

/// A role must be one that the realm has.
fn check_role(realm: &Realm, role: &str, reader: &mut Reader<'_>, path: &Path) {
    if realm.roles.iter().any(|known| known.name == role) || !reader.is_sound(path) {
        return;
    }
    let names = realm.roles.iter().map(|known| known.name.as_str());
    let hint =
        did_you_mean(role, names).unwrap_or_else(|| format!("add a [[realm.role]] with the name `{role}`"));
    reader.problem(path, format!("the realm has no role `{role}`"), Some(hint));
}

impl Config {
    /// Fetches the secrets that are in variables and files.
    ///
    /// # Errors
    /// Those that are not there, all at once, for people.
    pub fn read_secrets(
        &mut self,
        variable: impl Fn(&str) -> Option<String>,
        file: impl Fn(&FilePath) -> Result<String, String>,
    ) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        for realm in &mut self.realms {
            if let Some(token) = &mut realm.token
                && let Err(problem) = token.fetch(&variable, &file)
            {
                problems.push(format!("token of realm `{}`: {problem}", realm.name));
            }
            for user in &mut realm.users {
                let whose = format!("user `{}` of realm `{}`", user.authid, realm.name);
                for (name, check, secret) in user.secrets() {
                    if let Err(problem) = secret.fetch(check, &variable, &file) {
                        problems.push(format!("{whose}: {name}: {problem}"));
                    }
                }
            }
        }
        for database in &mut self.databases {
            if let Err(problem) = database.url.fetch(database.kind, &variable, &file) {
                problems.push(format!("database `{}`: url: {problem}", database.name));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
