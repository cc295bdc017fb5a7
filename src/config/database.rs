//! `[[database]]`: databases whose procedures are called.

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use super::authentication::FILE;
use super::authentication::secret::{Secret, SecretKeys};
use super::database_inside::{DatabaseInside, DatabaseSubscription, SUBSCRIPTIONS_MAX};
use super::kinds::{
    Boolean, Bytes, Integer, List, NAME, Optional, Text, Words, did_you_mean, milliseconds,
    milliseconds_or_off, several, single,
};
use super::section::{Fields, Keys, Reader, Section, required, section};
use super::tree::{Path, Table};
use super::{Realm, realm};
use crate::database::Shape;
use crate::database::oracle;
use crate::database::oracle::settings::{PASSWORD, Settings as OracleSettings};
use crate::database::postgres::wire::Settings;

/// How many databases there may be.
pub(super) const DATABASES_MAX: usize = 64;
const PROCEDURES_MAX: usize = 10_000;
const WATCHES_MAX: usize = 1_000;
const SCHEMAS_MAX: usize = 100;
const ROLES_MAX: usize = 1_000;

/// `[[database]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// `name`: for the log.
    pub name: String,
    /// `type`
    pub kind: DatabaseKind,
    /// `realm`: whose procedures it serves.
    pub realm: String,
    /// `url`, `url_env`, `url_file`: where the server is, and who goes there, of PostgreSQL and Oracle.
    pub url: DatabaseUrl,
    /// `connections` for calls, of PostgreSQL and Oracle.
    pub connections: usize,
    /// `[[database.expose]]`: schemas whose functions are procedures, of PostgreSQL and Oracle.
    pub exposed: Vec<DatabaseSchema>,
    /// `[[database.role]]`: which role of the database a call runs as, of PostgreSQL; which user, of Oracle. None: as who
    /// connects.
    pub roles: Vec<DatabaseRole>,
    /// `client_path`: the folder of the client library, of Oracle.
    pub client_path: Option<PathBuf>,
    /// `connection_class` of servers that are shared (DRCP), of Oracle.
    pub connection_class: Option<String>,
    /// `wamp_schema`: who owns the package `wamp`, of Oracle. `None`: who connects.
    pub wamp_schema: Option<String>,
    /// `json_columns`: columns whose texts are JSON, with `*` for anything, of Oracle.
    pub json_columns: Vec<String>,
    /// `path` of the file, of SQLite.
    pub path: Option<PathBuf>,
    /// `readers`: connections that read, of SQLite.
    pub readers: usize,
    /// `queue_max`: calls that may wait for each kind of work.
    pub queue_max: usize,
    /// `queue_bytes_max`: what those may hold.
    pub queue_bytes_max: usize,
    /// `result_bytes_max`: the longest result, or part of one.
    pub result_bytes_max: usize,
    /// `refresh_ms`: how often it is asked whether what it offers has changed.
    pub refresh: Duration,
    /// `timeout_ms`: how long a call may take; zero is no limit.
    pub timeout: Duration,
    /// `replay_timeout_ms`: how long who resumes waits for what it has published.
    pub replay_timeout: Duration,
    /// `int8`: whether large integers are strings to who speaks JSON.
    pub large_as_text: bool,
    /// `numeric`: whether exact numbers are floats, of PostgreSQL and Oracle.
    pub exact_as_float: bool,
    /// `publish`: whether it publishes events: through a table `wamp_outbox` in SQLite, a schema `wamp` in PostgreSQL.
    pub publish: bool,
    /// `feedback`: whether it is noted in each row of the outbox that it was sent, and to how many, of PostgreSQL; the latter
    /// alone of Oracle, whose rows say the former in any case.
    pub feedback: bool,
    /// `[database.inside]`: what it does in the realm by itself; `None` is nothing but publishing.
    pub inside: Option<DatabaseInside>,
    /// `[[database.subscription]]`: events that run something in it.
    pub subscriptions: Vec<DatabaseSubscription>,
    /// `[[database.procedure]]`
    pub procedures: Vec<DatabaseProcedure>,
    /// `[[database.watch]]`
    pub watches: Vec<DatabaseWatch>,
}

/// `[[database.watch]]`: changes of a table are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseWatch {
    /// `table`
    pub table: String,
    /// `topic`: followed by `.on_insert`, `.on_update`, `.on_delete`.
    pub topic: String,
}

/// What kind of database it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file, in the process.
    #[default]
    Sqlite,
    /// A server.
    Postgresql,
    /// A server, through the client library of Oracle.
    Oracle,
}

/// Where a server is, and how to get in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseUrl {
    text: Option<Secret>,
    /// What the text says, of PostgreSQL; `None` until [`super::Config::read_secrets`] has looked.
    pub settings: Option<Box<Settings>>,
    /// The same of Oracle.
    pub oracle: Option<Box<OracleSettings>>,
}

const URL: SecretKeys =
    SecretKeys { here: "url", environment: "url_env", file: "url_file", check: |_| Ok(()) };

/// What libpq looks for in the environment.
const VARIABLES: [&str; 20] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGCHANNELBINDING",
    "PGCONNECT_TIMEOUT",
    "PGTARGETSESSIONATTRS",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSSLMINPROTOCOLVERSION",
    "USER",
    "LOGNAME",
];

impl DatabaseUrl {
    /// Whether the configuration says one.
    fn is_there(&self) -> bool {
        self.text.is_some()
    }

    pub(super) fn fetch(
        &mut self,
        kind: DatabaseKind,
        variable: &impl Fn(&str) -> Option<String>,
        file: &impl Fn(&FilePath) -> Result<String, String>,
    ) -> Result<(), String> {
        let Some(text) = &mut self.text else { return Ok(()) };
        text.fetch(URL.check, variable, file)?;
        if kind == DatabaseKind::Oracle {
            let password = variable(PASSWORD).map(|value| (PASSWORD.to_owned(), value));
            let settings = OracleSettings::parse(text.expose(), &password.into_iter().collect())?;
            self.oracle = Some(Box::new(settings));
            return Ok(());
        }
        let named = VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
        let settings = Settings::parse(text.expose(), &named.collect()).map_err(|error| error.to_string())?;
        self.settings = Some(Box::new(settings));
        Ok(())
    }
}

impl Keys for DatabaseUrl {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self { text: URL.read(fields), settings: None, oracle: None }
    }

    fn write(&self, table: &mut Table) {
        URL.write(self.text.as_ref(), table);
    }
}

/// `[[database.expose]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSchema {
    /// `schema`
    pub schema: String,
    /// `package`: only what is in it, of Oracle.
    pub package: Option<String>,
    /// `prefix`: before the name of each function.
    pub prefix: String,
    /// `allow`: names, with `*` for anything; all where there is none.
    pub allow: Vec<String>,
    /// `deny`: and of those not these.
    pub deny: Vec<String>,
}

/// `[[database.role]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRole {
    /// `role` of the realm.
    pub role: String,
    /// `runs_as`: that of the database.
    pub runs_as: String,
}

/// `[[database.procedure]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseProcedure {
    /// `uri`
    pub uri: String,
    /// `sql`
    pub sql: String,
    /// `result`
    pub shape: Shape,
    /// `timeout_ms`; `None` is that of the database.
    pub timeout: Option<Duration>,
    /// `concurrency`: how many calls of it run at a time; 0 is as many as there are connections.
    pub concurrency: u32,
}

const KINDS: &[(&str, DatabaseKind)] = &[
    ("sqlite", DatabaseKind::Sqlite),
    ("postgresql", DatabaseKind::Postgresql),
    ("oracle", DatabaseKind::Oracle),
];

const INTEGERS: &[(&str, bool)] = &[("number", false), ("string", true)];

const NUMERICS: &[(&str, bool)] = &[("string", false), ("float", true)];

pub(super) const IDENTIFIER: Text<String> =
    Text { expects: "a name of the database", parse: |text| Ok(text.to_owned()), print: String::clone };

const PATTERNS: List<Text<String>> = List { name: "names", of: IDENTIFIER, count: 0..=1_000 };

/// A prefix may be empty, and end where a URI would not.
const PREFIX: Text<String> =
    Text { expects: "the beginning of a URI", parse: |text| Ok(text.to_owned()), print: String::clone };

const SHAPES: &[(&str, Shape)] =
    &[("rows", Shape::Rows), ("row", Shape::Row), ("value", Shape::Value), ("nothing", Shape::Nothing)];

const NAME_OF_TABLE: Text<String> =
    Text { expects: "the name of a table", parse: |text| Ok(text.to_owned()), print: String::clone };

pub(super) const SQL: Text<String> =
    Text { expects: "SQL", parse: |text| Ok(text.to_owned()), print: String::clone };

section! {
    Database {
        name: NAME, required();
        kind ["type"]: Words(KINDS), required();
        realm: Text { expects: "the name of a realm", parse: |text| Ok(text.to_owned()), print: String::clone }, required();
        connections: Integer(1..=256), 8;
        path: Optional(FILE), None;
        readers: Integer(1..=64), 4;
        queue_max: Integer(1..=100_000), 1_024;
        queue_bytes_max: Bytes(1 << 16..=1 << 40), 64 << 20;
        result_bytes_max: Bytes(1 << 10..=64 << 20), 1 << 20;
        refresh ["refresh_ms"]: milliseconds(50..=3_600_000), Duration::from_secs(2);
        timeout ["timeout_ms"]: milliseconds_or_off(1..=86_400_000), Duration::from_secs(60);
        replay_timeout ["replay_timeout_ms"]: milliseconds(100..=600_000), Duration::from_secs(5);
        large_as_text ["int8"]: Words(INTEGERS), false;
        exact_as_float ["numeric"]: Words(NUMERICS), false;
        publish: Boolean, false;
        feedback: Boolean, false;
        inside: Optional(single()), None;
        subscriptions ["subscription"]: several(SUBSCRIPTIONS_MAX), Vec::new();
        procedures ["procedure"]: several(PROCEDURES_MAX), Vec::new();
        watches ["watch"]: several(WATCHES_MAX), Vec::new();
        exposed ["expose"]: several(SCHEMAS_MAX), Vec::new();
        roles ["role"]: several(ROLES_MAX), Vec::new();
        client_path: Optional(FILE), None;
        connection_class: Optional(IDENTIFIER), None;
        wamp_schema: Optional(IDENTIFIER), None;
        json_columns: PATTERNS, Vec::new();
        ..url;
    }
}

section! {
    DatabaseSchema {
        schema: IDENTIFIER, required();
        package: Optional(IDENTIFIER), None;
        prefix: PREFIX, required();
        allow: PATTERNS, Vec::new();
        deny: PATTERNS, Vec::new();
    }
}

impl Section for DatabaseSchema {}

section! {
    DatabaseRole {
        role: NAME, required();
        runs_as: IDENTIFIER, required();
    }
}

impl Section for DatabaseRole {}

section! {
    DatabaseWatch {
        table: NAME_OF_TABLE, required();
        topic: realm::URI, required();
    }
}

impl Section for DatabaseWatch {}

impl Section for Database {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        if self.kind == DatabaseKind::Sqlite
            && self.path.is_none()
            && fields.is_sound("path")
            && fields.has("type")
        {
            let hint =
                "say where its file is, as in `path = \"shop.sqlite3\"`; it is made if it is not there";
            fields.problem("path", "a database of type \"sqlite\" has a file", hint);
        }
        if self.kind == DatabaseKind::Postgresql && fields.has("type") {
            if !self.url.is_there() && fields.is_sound("url") {
                let hint = "write `url`, `url_env` or `url_file`, as in `url = \"postgres://user@host/database\"`; what it leaves open, PGHOST and its like say";
                fields.problem("url", "a database of type \"postgresql\" has a server", hint);
            }
            if !self.watches.is_empty() && fields.is_sound("watch") {
                let hint = "use `wamp.watch(table, topic)` in the database (docs/postgresql.md)";
                fields.problem("watch", "tables of PostgreSQL are watched by the database itself", hint);
            }
        }
        if self.kind == DatabaseKind::Oracle && fields.has("type") {
            self.check_oracle(fields);
        } else if fields.has("type") {
            for (key, is_there) in [
                ("client_path", self.client_path.is_some()),
                ("connection_class", self.connection_class.is_some()),
                ("wamp_schema", self.wamp_schema.is_some()),
                ("json_columns", !self.json_columns.is_empty()),
            ] {
                if is_there && fields.is_sound(key) {
                    fields.problem(key, "it is of databases of type \"oracle\" alone", "take the line out");
                }
            }
            if self.exposed.iter().any(|exposed| exposed.package.is_some()) && fields.is_sound("expose") {
                let hint = "take the line `package` out: what stands in the schema is offered";
                fields.problem("expose", "databases of type \"oracle\" alone have packages", hint);
            }
        }
        if fields.has("type")
            && self.exact_as_float
            && self.kind == DatabaseKind::Sqlite
            && fields.is_sound("numeric")
        {
            let problem = "it is of databases of type \"postgresql\" and \"oracle\" alone";
            fields.problem("numeric", problem, "take the line out");
        }
        self.check_inside(fields);
        self.check_subscriptions(fields);
        let uris = self
            .procedures
            .iter()
            .map(|procedure| Some((&procedure.uri, format!("the procedure `{}`", procedure.uri))));
        fields.reader.refuse_duplicates(&fields.path.key("procedure"), &["uri"], uris);
        let tables =
            self.watches.iter().map(|watch| Some((&watch.table, format!("a watch of `{}`", watch.table))));
        fields.reader.refuse_duplicates(&fields.path.key("watch"), &["table"], tables);
        if self.kind == DatabaseKind::Sqlite
            && !self.publish
            && !self.watches.is_empty()
            && fields.is_sound("watch")
        {
            let hint = "add `publish = true`: a table `wamp_outbox` is made in it then";
            fields.problem("watch", "the database does not publish", hint);
        }
    }
}

impl Database {
    fn check_oracle(&self, fields: &mut Fields<'_, '_>) {
        if !oracle::IS_COMPILED_IN && fields.is_sound("type") {
            let hint = "compile it with `cargo build --release --features oracle`";
            fields.problem("type", "this program was compiled without Oracle", hint);
        }
        if !self.url.is_there() && fields.is_sound("url") {
            let hint = "write `url`, `url_env` or `url_file`, as in `url = \"oracle://user:password@host:1521/service\"`; ORACLE_PASSWORD says the password that it leaves open";
            fields.problem("url", "a database of type \"oracle\" has a server", hint);
        }
        if !self.watches.is_empty() && fields.is_sound("watch") {
            let hint = "use `wamp_watch(table, topic)` in the database (docs/oracle.md)";
            fields.problem("watch", "tables of Oracle are watched by the database itself", hint);
        }
    }

    fn check_inside(&self, fields: &mut Fields<'_, '_>) {
        let has_type = fields.has("type");
        for (key, is_there) in [("inside", self.inside.is_some()), ("feedback", self.feedback)] {
            if !is_there || !fields.is_sound(key) {
                continue;
            }
            if key == "inside" && self.kind == DatabaseKind::Sqlite && has_type {
                // Its statements are run by events, whether it publishes or not.
            } else if key == "feedback" && self.kind == DatabaseKind::Sqlite && has_type {
                fields.problem(key, "databases of type \"sqlite\" do not have it", "leave it out");
            } else if !self.publish && fields.is_sound("publish") {
                let hint = "add `publish = true`: it is by what `crosspoint db install` makes, too";
                fields.problem(key, "the database does not publish", hint);
            }
        }
    }
}

section! {
    DatabaseProcedure {
        uri: realm::PROCEDURE, required();
        sql: SQL, required();
        shape ["result"]: Words(SHAPES), Shape::Rows;
        timeout ["timeout_ms"]: Optional(milliseconds(1..=86_400_000)), None;
        concurrency: Integer(0..=1_000), 0;
    }
}

impl Section for DatabaseProcedure {}

/// A database belongs to a realm that there is.
pub(super) fn check_realm(database: &Database, realms: &[Realm], reader: &mut Reader<'_>, path: &Path) {
    let path = path.key("realm");
    if reader.is_sound(&path) && !realms.iter().any(|realm| realm.name == database.realm) {
        let hint = did_you_mean(&database.realm, realms.iter().map(|realm| realm.name.as_str()));
        reader.problem(&path, format!("there is no realm `{}`", database.realm), hint);
    }
}
