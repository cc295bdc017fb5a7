//! `[[database]]`: databases whose procedures are called.

use std::path::PathBuf;
use std::time::Duration;

use super::authentication::FILE;
use super::kinds::{
    Boolean, Bytes, Integer, NAME, Optional, Text, Words, did_you_mean, milliseconds, milliseconds_or_off,
    several,
};
use super::section::{Fields, Reader, Section, required, section};
use super::tree::Path;
use super::{Realm, realm};
use crate::database::sqlite::Shape;

/// How many databases there may be.
pub(super) const DATABASES_MAX: usize = 64;
const PROCEDURES_MAX: usize = 10_000;
const WATCHES_MAX: usize = 1_000;

/// `[[database]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// `name`: for the log.
    pub name: String,
    /// `type`
    pub kind: DatabaseKind,
    /// `realm`: whose procedures it serves.
    pub realm: String,
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
    /// `publish`: whether it publishes events, through a table `wamp_outbox`.
    pub publish: bool,
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
}

const KINDS: &[(&str, DatabaseKind)] = &[("sqlite", DatabaseKind::Sqlite)];

const SHAPES: &[(&str, Shape)] =
    &[("rows", Shape::Rows), ("row", Shape::Row), ("value", Shape::Value), ("nothing", Shape::Nothing)];

const NAME_OF_TABLE: Text<String> =
    Text { expects: "the name of a table", parse: |text| Ok(text.to_owned()), print: String::clone };

const SQL: Text<String> = Text { expects: "SQL", parse: |text| Ok(text.to_owned()), print: String::clone };

section! {
    Database {
        name: NAME, required();
        kind ["type"]: Words(KINDS), required();
        realm: Text { expects: "the name of a realm", parse: |text| Ok(text.to_owned()), print: String::clone }, required();
        path: Optional(FILE), None;
        readers: Integer(1..=64), 4;
        queue_max: Integer(1..=100_000), 1_024;
        queue_bytes_max: Bytes(1 << 16..=1 << 40), 64 << 20;
        result_bytes_max: Bytes(1 << 10..=64 << 20), 1 << 20;
        refresh ["refresh_ms"]: milliseconds(50..=3_600_000), Duration::from_secs(2);
        timeout ["timeout_ms"]: milliseconds_or_off(1..=86_400_000), Duration::from_secs(60);
        publish: Boolean, false;
        procedures ["procedure"]: several(PROCEDURES_MAX), Vec::new();
        watches ["watch"]: several(WATCHES_MAX), Vec::new();
    }
}

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
        let uris = self
            .procedures
            .iter()
            .map(|procedure| Some((&procedure.uri, format!("the procedure `{}`", procedure.uri))));
        fields.reader.refuse_duplicates(&fields.path.key("procedure"), &["uri"], uris);
        let tables =
            self.watches.iter().map(|watch| Some((&watch.table, format!("a watch of `{}`", watch.table))));
        fields.reader.refuse_duplicates(&fields.path.key("watch"), &["table"], tables);
        if !self.publish && !self.watches.is_empty() && fields.is_sound("watch") {
            let hint = "add `publish = true`: a table `wamp_outbox` is made in it then";
            fields.problem("watch", "the database does not publish", hint);
        }
    }
}

section! {
    DatabaseProcedure {
        uri: realm::PROCEDURE, required();
        sql: SQL, required();
        shape ["result"]: Words(SHAPES), Shape::Rows;
        timeout ["timeout_ms"]: Optional(milliseconds(1..=86_400_000)), None;
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
