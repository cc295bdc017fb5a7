//! A router, a database behind it, and what a case wants of them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::{OnlyRendered, Shared};
use super::client::{Login, Session};
use crate::harness::{Router, Start, wait_until};

/// What a case begins with.
pub(crate) struct Setup {
    database: Shared,
    script: String,
    lines: String,
    refresh_ms: u64,
    procedures: String,
    statements: Vec<String>,
    uris: Vec<String>,
    tables: String,
    users: String,
    permissions: String,
    publishes: bool,
    connections: usize,
}

/// The permission to do everything.
const ALL: &str = "[[realm.role.permission]]\nuri = \"\"\nmatch = \"prefix\"\nallow = \"all\"\n";

impl Setup {
    pub(crate) fn new(database: &Shared) -> Self {
        Self {
            database: database.clone(),
            script: String::new(),
            lines: String::new(),
            refresh_ms: 50,
            procedures: String::new(),
            statements: Vec::new(),
            uris: Vec::new(),
            tables: String::new(),
            users: String::new(),
            permissions: ALL.to_owned(),
            publishes: false,
            connections: 3,
        }
    }

    /// Tables, and what else is made before the router comes.
    pub(crate) fn script(mut self, sql: &str) -> Self {
        self.script.push_str(sql);
        self.script.push('\n');
        self
    }

    pub(crate) fn procedure(self, uri: &str, result: &str, sql: &str) -> Self {
        self.procedure_with(uri, result, sql, "")
    }

    /// With further lines of its section.
    pub(crate) fn procedure_with(mut self, uri: &str, result: &str, sql: &str, lines: &str) -> Self {
        let sql = self.database.render(&sql.replace('\n', " "));
        self.procedures.push_str(&format!(
            "[[database.procedure]]\nuri = \"{uri}\"\nresult = \"{result}\"\nsql = {}\n{lines}\n",
            json!(sql)
        ));
        self.statements.push(sql);
        self.uris.push(uri.to_owned());
        self
    }

    /// Further lines of `[[database]]`.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }

    /// Further tables of `[[database]]`, and the lines that stand in it.
    pub(crate) fn tables(mut self, tables: &str) -> Self {
        self.tables.push_str(tables);
        self
    }

    /// How often it is asked whether what it offers has changed, and whether it is there.
    pub(crate) fn refresh_ms(mut self, refresh_ms: u64) -> Self {
        self.refresh_ms = refresh_ms;
        self
    }

    pub(crate) fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    pub(crate) fn publishing(mut self) -> Self {
        self.publishes = true;
        self
    }

    /// Who logs in by the ticket `secret`, with the role `user`, which may do everything.
    pub(crate) fn user(mut self, authid: &str) -> Self {
        if self.users.is_empty() {
            self.users = format!("[[realm.role]]\nname = \"user\"\n{ALL}");
        }
        self.users.push_str(&format!(
            "[[realm.user]]\nauthid = \"{authid}\"\nrole = \"user\"\nticket = \"secret\"\n"
        ));
        self
    }

    /// What who is anonymous may do, instead of everything.
    pub(crate) fn permissions(mut self, permissions: &str) -> Self {
        self.permissions = permissions.to_owned();
        self
    }

    /// Starts a router, and waits until it offers all procedures.
    pub(crate) fn start(self) -> Stage {
        let stage = self.start_without_waiting();
        stage.wait_until_offered();
        stage
    }

    pub(crate) fn start_without_waiting(mut self) -> Stage {
        if self.database.keeps(&self.script, &self.statements) {
            std::panic::resume_unwind(Box::new(OnlyRendered));
        }
        if self.publishes {
            self.database.install_publishing();
            self.lines.push_str("publish = true\n");
        }
        if !self.script.is_empty() {
            self.database.execute(&self.script);
        }
        let connections = self.database.connections(self.connections);
        let section = self.database.section();
        let Self { lines, refresh_ms, procedures, tables, users, permissions, .. } = &self;
        let config = format!(
            "[node]\nshutdown_timeout_ms = 1000\n[limits]\nmessage_bytes_max = \"3 MiB\"\n[[realm]]\nname = \"realm1\"\n[[realm.role]]\nname = \"anonymous\"\n{permissions}{users}\
             [[database]]\nname = \"contract\"\nrealm = \"realm1\"\n{section}{connections}refresh_ms = {refresh_ms}\n{lines}{procedures}{tables}"
        );
        let router = Start::new(&config).router();
        Stage { router, config, uris: self.uris }
    }
}

/// A router that runs.
pub(crate) struct Stage {
    pub(crate) router: Router,
    config: String,
    uris: Vec<String>,
}

impl Stage {
    pub(crate) fn address(&self) -> SocketAddr {
        self.router.address()
    }

    pub(crate) fn session(&self) -> Session {
        Session::join(self.address())
    }

    pub(crate) fn session_as(&self, login: Login<'_>) -> Session {
        Session::join_as(self.address(), login)
    }

    pub(crate) fn wait_until_offered(&self) {
        // Who asks may need a permission that this one does not.
        let mut session = self.session();
        for uri in &self.uris {
            wait_until(uri, || self.is_offered(&mut session, uri));
        }
    }

    /// Waits until the database has been given so many calls, and no more than so many of them wait for a thread.
    pub(crate) fn wait_until_taken(&self, calls: u64, waiting_max: u64) {
        wait_until("the calls to be taken", || {
            if self.router.counters().of("queries") < calls {
                return false;
            }
            let mut waiting = None;
            wait_until("the report of the database", || {
                let log = self.router.log();
                let report = log.rsplit_once("counters: ").map_or("", |(_, report)| report);
                let line = report.lines().find_map(|line| line.split_once("of this database: "));
                waiting = line.and_then(|(_, line)| {
                    line.split(' ').find_map(|word| word.strip_prefix("waiting=")?.parse::<u64>().ok())
                });
                waiting.is_some()
            });
            waiting <= Some(waiting_max)
        });
    }

    fn is_offered(&self, session: &mut Session, uri: &str) -> bool {
        !session.value("wamp.registration.match", json!([uri])).is_null()
    }

    /// The router is killed, as by `kill -9`, and another one takes its place, elsewhere.
    pub(crate) fn kill_and_start(&mut self) {
        self.router.kill();
        self.start_again();
    }

    pub(crate) fn kill(&mut self) {
        self.router.kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.router = Start::new(&self.config).router();
    }

    /// Another router with the same configuration, in front of the same database.
    pub(crate) fn another(&self) -> Self {
        let router = Start::new(&self.config).router();
        Self { router, config: self.config.clone(), uris: self.uris.clone() }
    }

    /// Waits until a call gives this.
    pub(crate) fn wait_for_value(&self, session: &mut Session, uri: &str, value: &Value) {
        wait_until(uri, || {
            use super::client::Answer::Result;
            matches!(session.call(uri, json!([])), Result(args, _) if args[0] == *value)
        });
    }
}

/// A while in which something would have happened that must not.
pub(crate) fn a_moment() {
    std::thread::sleep(Duration::from_millis(150));
}
