//! What the contract needs of a database: where it is, another program that uses it, and the SQL by which it says what all
//! of them can do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crosspoint::database::postgres::install::{Options, Plan};
use crosspoint::database::postgres::wire::{Connection, Deadline, Error, Settings};

use crate::database::server::{Folder, Server};

/// A database of one case's own.
pub(crate) trait Backend {
    /// One on a server that others use, too; or in a file.
    fn new() -> Self
    where
        Self: Sized;

    /// Its lines of `[[database]]`.
    fn section(&self) -> String;

    /// What databases have in common, as this one says it.
    fn render(&self, sql: &str) -> String {
        sql.to_owned()
    }

    /// Whether this one only takes note of what a case would run: a script, and the SQL of procedures.
    fn keeps(&self, _script: &str, _procedures: &[String]) -> bool {
        false
    }

    /// So many connections, for calls that read.
    fn connections(&self, count: usize) -> String;

    /// Runs a script as another program does, which knows nothing of routers.
    fn execute(&self, script: &str);

    /// The first column of what another program reads, as texts.
    fn select(&self, sql: &str) -> Vec<String>;

    /// A transaction of another program, which has run this script and is open.
    fn hold(&self, script: &str) -> Box<dyn Held>;

    /// Another program that writes, if the database is there.
    fn writer(&self) -> Option<Box<dyn Writer>>;

    /// How a transaction of such a program begins, that will write.
    fn begin(&self) -> &'static str;

    /// What is to be there before a router publishes out of it.
    fn install_publishing(&self);

    /// Rows of one column `n`, from 1 to `count`, which is SQL.
    fn numbers(&self, count: &str) -> String;

    /// A statement that gives a value, and takes very long to.
    fn endless(&self) -> String;

    /// A statement that puts a row into a table, and takes very long to.
    fn endless_write(&self, table: &str) -> String;

    /// The name of the type of bytes.
    fn bytes_type(&self) -> &'static str;

    /// An expression that publishes; all four are SQL, and any may be `null`.
    fn publish(&self, topic: &str, args: &str, kwargs: &str, options: &str) -> String;

    /// A call that publishes this and fails then.
    fn publish_and_fail(&self, topic: &str) -> String;

    /// A call that publishes this and then takes very long.
    fn publish_and_hang(&self, topic: &str) -> String;

    /// Calls with two arguments that put them into a table `log`, publish them, and then do nothing, or fail.
    fn put_and_publish(&self, topic: &str) -> [String; 2];

    /// A script, and a call that publishes `com.before`, `com.undone`, which a savepoint takes back, and `com.after`.
    fn publish_with_savepoint(&self) -> (String, String);

    /// Lines of `[[database]]`, and a script, by which changes of a table `item` are published to `com.item`.
    fn watch(&self) -> (String, String);

    /// An expression that ends the call with an error of the application's own; both are SQL.
    fn error(&self, uri: &str, text: &str) -> String;

    /// An expression that tells of the caller: realm, session, authid, authrole, authmethod.
    fn who(&self, what: &str) -> String;

    /// A script by which a table `t (n)` refuses the row 13: `not 13`.
    fn refuse_13(&self) -> String;

    /// The URIs of a unique key and of a foreign key that was violated.
    fn constraint_uris(&self) -> [&'static str; 2];
}

/// Why a case that only takes note of what it would run goes no further.
pub(crate) struct OnlyRendered;

/// A transaction that is open.
pub(crate) trait Held {
    fn commit(self: Box<Self>);
    fn roll_back(self: Box<Self>);
}

/// A connection of another program.
pub(crate) trait Writer {
    /// `None`: the connection is lost, and nobody knows what became of it.
    fn run(&mut self, sql: &str) -> Option<()>;
}

/// SQLite: a file.
pub(crate) struct Sqlite {
    folder: Folder,
}

impl Sqlite {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("contract.db")
    }

    fn open(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        connection
    }
}

struct HeldSqlite(rusqlite::Connection);

impl Held for HeldSqlite {
    fn commit(self: Box<Self>) {
        self.0.execute_batch("commit").unwrap();
    }

    fn roll_back(self: Box<Self>) {
        self.0.execute_batch("rollback").unwrap();
    }
}

impl Writer for rusqlite::Connection {
    fn run(&mut self, sql: &str) -> Option<()> {
        self.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        Some(())
    }
}

const ENDLESS: &str =
    "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c";

impl Backend for Sqlite {
    fn new() -> Self {
        let database = Self { folder: Folder::new() };
        // As it is when a router has had it: readers do not wait for writers.
        let mode: String =
            database.open().query_row("pragma journal_mode = wal", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        database
    }

    fn section(&self) -> String {
        format!("type = \"sqlite\"\npath = \"{}\"\n", self.path().display())
    }

    fn connections(&self, count: usize) -> String {
        format!("readers = {count}\n")
    }

    fn execute(&self, script: &str) {
        self.open().execute_batch(script).unwrap_or_else(|error| panic!("{script}: {error}"));
    }

    fn select(&self, sql: &str) -> Vec<String> {
        let connection = self.open();
        let mut statement = connection.prepare(&format!("select cast(c as text) from ({sql})")).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn hold(&self, script: &str) -> Box<dyn Held> {
        let connection = self.open();
        connection.execute_batch(&format!("begin immediate; {script}")).unwrap();
        Box::new(HeldSqlite(connection))
    }

    fn writer(&self) -> Option<Box<dyn Writer>> {
        Some(Box::new(self.open()))
    }

    fn begin(&self) -> &'static str {
        "begin immediate;"
    }

    fn install_publishing(&self) {}

    fn numbers(&self, count: &str) -> String {
        format!(
            "with recursive c(n) as (select 1 union all select n + 1 from c where n < {count}) select n from c"
        )
    }

    fn endless(&self) -> String {
        ENDLESS.to_owned()
    }

    fn endless_write(&self, table: &str) -> String {
        format!("insert into {table} values (1); insert into {table} select count(*) from ({ENDLESS})")
    }

    fn bytes_type(&self) -> &'static str {
        "blob"
    }

    fn publish(&self, topic: &str, args: &str, kwargs: &str, options: &str) -> String {
        format!("publish({topic}, {args}, {kwargs}, {options})")
    }

    fn publish_and_fail(&self, topic: &str) -> String {
        format!("select publish('{topic}'); select wamp_error('com.error.wanted', 'it fails')")
    }

    fn publish_and_hang(&self, topic: &str) -> String {
        format!("select publish('{topic}'); {}", self.endless_write("t"))
    }

    fn put_and_publish(&self, topic: &str) -> [String; 2] {
        let put = format!(
            "insert into log values (:writer, :number); select publish('{topic}', json_array(:writer, :number, 'call'))"
        );
        [put.clone(), format!("{put}; select wamp_error('com.error.wanted', 'it fails')")]
    }

    fn publish_with_savepoint(&self) -> (String, String) {
        let call = "select publish('com.before'); savepoint s; select publish('com.undone'); rollback to s; \
                    select publish('com.after')";
        (String::new(), call.to_owned())
    }

    fn watch(&self) -> (String, String) {
        ("[[database.watch]]\ntable = \"item\"\ntopic = \"com.item\"\n".to_owned(), String::new())
    }

    fn error(&self, uri: &str, text: &str) -> String {
        format!("wamp_error({uri}, {text})")
    }

    fn who(&self, what: &str) -> String {
        format!("wamp('{what}')")
    }

    fn refuse_13(&self) -> String {
        "create trigger refuse before insert on t when new.n = 13 begin select raise(abort, 'not 13'); end;"
            .to_owned()
    }

    fn constraint_uris(&self) -> [&'static str; 2] {
        ["crosspoint.error.sql.constraint_unique", "crosspoint.error.sql.constraint_foreign_key"]
    }
}

/// PostgreSQL: a database on a private server.
pub(crate) struct Postgres {
    settings: Settings,
    url: String,
    /// It publishes through the log of the server.
    logs: bool,
}

/// One server for all cases that do not hurt it; it ends with the process.
fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| crate::database::server::Setup::default().setting("max_connections", "200").start())
}

impl Postgres {
    /// On a server of its own, that may be hurt.
    pub(crate) fn on(server: &Server) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("contract{}", LAST.fetch_add(1, Ordering::Relaxed));
        server.psql(&format!("create database {name}"));
        let url = server.url("postgres");
        let url = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
        Self { settings: Settings::parse(&url, &BTreeMap::new()).unwrap(), url, logs: false }
    }

    /// The same; what it publishes goes through the log of the server.
    pub(crate) fn through_the_log(server: &Server) -> Self {
        Self { logs: true, ..Self::on(server) }
    }

    fn open(&self) -> Connection {
        Connection::connect(&self.settings, deadline()).unwrap()
    }

    /// Whether another program can reach it.
    pub(crate) fn try_execute(&self, script: &str) -> bool {
        let deadline = Deadline::after(Duration::from_secs(10));
        let Ok(mut connection) = Connection::connect(&self.settings, deadline) else { return false };
        connection.simple_query(script, deadline, |_| {}).is_ok()
    }
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

struct HeldPostgres(Connection);

impl Held for HeldPostgres {
    fn commit(mut self: Box<Self>) {
        self.0.simple_query("commit", deadline(), |_| {}).unwrap();
    }

    fn roll_back(mut self: Box<Self>) {
        self.0.simple_query("rollback", deadline(), |_| {}).unwrap();
    }
}

impl Writer for Connection {
    fn run(&mut self, sql: &str) -> Option<()> {
        match self.simple_query(sql, deadline(), |_| {}) {
            Ok(_) => Some(()),
            // It is going down, or coming up.
            Err(Error::Server(error)) if !error.sqlstate.starts_with("57") => panic!("{sql}: {error}"),
            Err(_) => None,
        }
    }
}

impl Backend for Postgres {
    fn new() -> Self {
        Self::on(shared())
    }

    fn section(&self) -> String {
        format!("type = \"postgresql\"\nurl = \"{}\"\n", self.url)
    }

    fn connections(&self, count: usize) -> String {
        format!("connections = {count}\n")
    }

    fn execute(&self, script: &str) {
        let run = self.open().simple_query(script, deadline(), |_| {});
        run.unwrap_or_else(|error| panic!("{script}: {error}"));
    }

    fn select(&self, sql: &str) -> Vec<String> {
        let mut found = Vec::new();
        let sql = format!("select c::text from ({sql}) as r");
        let run = self.open().simple_query(&sql, deadline(), |row| {
            found.push(row.text(0).unwrap_or_default().to_owned());
        });
        run.unwrap_or_else(|error| panic!("{sql}: {error}"));
        found
    }

    fn hold(&self, script: &str) -> Box<dyn Held> {
        let mut connection = self.open();
        connection.simple_query(&format!("begin; {script}"), deadline(), |_| {}).unwrap();
        Box::new(HeldPostgres(connection))
    }

    fn writer(&self) -> Option<Box<dyn Writer>> {
        let deadline = Deadline::after(Duration::from_secs(10));
        Connection::connect(&self.settings, deadline).ok().map(|it| Box::new(it) as Box<dyn Writer>)
    }

    fn begin(&self) -> &'static str {
        "begin;"
    }

    fn install_publishing(&self) {
        let options = Options {
            router: Some("postgres".to_owned()),
            everybody_publishes: Some(true),
            log: self.logs.then_some(true),
            ..Options::default()
        };
        let plan = Plan::upgrade(None, &options).unwrap();
        let mut connection = self.open();
        for statement in plan.statements() {
            connection.simple_query(&statement.sql, deadline(), |_| {}).unwrap();
        }
    }

    fn numbers(&self, count: &str) -> String {
        format!("select n from generate_series(1, {count}::int) as n")
    }

    fn endless(&self) -> String {
        "select pg_sleep(1000)::text".to_owned()
    }

    fn endless_write(&self, table: &str) -> String {
        format!(
            "with w as (insert into {table} values (1) returning 1) insert into {table} select 2 from pg_sleep(1000)"
        )
    }

    fn bytes_type(&self) -> &'static str {
        "bytea"
    }

    fn publish(&self, topic: &str, args: &str, kwargs: &str, options: &str) -> String {
        format!("wamp.publish({topic}, {args}::text::jsonb, {kwargs}::text::jsonb, {options}::text::jsonb)")
    }

    fn publish_and_fail(&self, topic: &str) -> String {
        format!("select wamp.publish('{topic}'), wamp.error('com.error.wanted', 'it fails')::text")
    }

    fn publish_and_hang(&self, topic: &str) -> String {
        format!("with p as materialized (select wamp.publish('{topic}')) select pg_sleep(1000) from p")
    }

    fn put_and_publish(&self, topic: &str) -> [String; 2] {
        let put = |then: &str| {
            format!(
                "with l as (insert into log values (:writer::int, :number::int) returning writer, number)
                 select wamp.publish('{topic}', jsonb_build_array(writer, number, 'call')){then} from l"
            )
        };
        [put(""), put(", wamp.error('com.error.wanted', 'it fails')::text")]
    }

    fn publish_with_savepoint(&self) -> (String, String) {
        // A block with EXCEPTION is a savepoint.
        let script = "create function saving() returns void language plpgsql as $$ begin
            perform wamp.publish('com.before');
            begin perform wamp.publish('com.undone'); raise exception 'no'; exception when others then null; end;
            perform wamp.publish('com.after');
        end $$;";
        (script.to_owned(), "select saving()".to_owned())
    }

    fn watch(&self) -> (String, String) {
        (String::new(), "select wamp.watch('item', 'com.item')".to_owned())
    }

    fn error(&self, uri: &str, text: &str) -> String {
        format!("wamp.error({uri}, {text})::text")
    }

    fn who(&self, what: &str) -> String {
        match what {
            "authmethod" => "(current_setting('wamp.details')::json ->> 'authmethod')".to_owned(),
            other => format!("current_setting('wamp.{other}')"),
        }
    }

    fn refuse_13(&self) -> String {
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not 13'; end $$;
         create trigger refuse before insert on t for each row when (new.n = 13) execute function refuse();"
            .to_owned()
    }

    fn constraint_uris(&self) -> [&'static str; 2] {
        ["crosspoint.error.sql.23505", "crosspoint.error.sql.23503"]
    }
}

/// A database that a case and its helpers use.
pub(crate) type Shared = Arc<dyn Backend + Send + Sync>;
