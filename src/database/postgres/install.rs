//! The schema `wamp` of a database: which versions of it there are, and the statements that install, upgrade and remove it.
//!
//! Nothing here talks to a server. Whoever does asks [`INSTALLED_VERSION`] first, then runs a [`Plan`] statement by
//! statement on one connection: it is one transaction, and refuses to do anything if the database is not at the version for
//! which it was made. `install/version_1/drain.sql` says how a router uses what is installed.

use std::fmt;

/// Asks for one value, an `int4`: the version that is installed, or null.
pub const INSTALLED_VERSION: &str = "SELECT pg_catalog.substring(pg_catalog.obj_description(\
     pg_catalog.to_regclass('wamp.version'), 'pg_class'), 'version ([0-9]+)$')::pg_catalog.int4";

/// One version of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Counted from 1, without a gap.
    pub number: u32,
    /// From the version before to this one, in order: each a name and its statements, which may be run once more.
    pub scripts: &'static [(&'static str, &'static str)],
}

/// All versions, in order.
pub const VERSIONS: &[Version] = &[Version {
    number: 1,
    scripts: &[
        ("tables", include_str!("install/version_1/tables.sql")),
        ("rules", include_str!("install/version_1/rules.sql")),
        ("publishing", include_str!("install/version_1/publish.sql")),
        ("changes of rows", include_str!("install/version_1/rows.sql")),
        ("changes of functions", include_str!("install/version_1/changes.sql")),
        ("functions and calls", include_str!("install/version_1/procedures.sql")),
        ("the drainer", include_str!("install/version_1/drain.sql")),
        ("rights", include_str!("install/version_1/rights.sql")),
    ],
}];

const BEGIN: &str = include_str!("install/begin.sql");
const CROSSBAR: &str = include_str!("install/crossbar.sql");
const UNINSTALL_GUARD: &str = include_str!("install/uninstall_guard.sql");
const UNINSTALL: &str = include_str!("install/uninstall.sql");

const LOG_PUBLICATION: &str = include_str!("install/log_publication.sql");
const LOG_SLOT: &str = include_str!("install/log_slot.sql");
const LOG_SLOT_DROP: &str = include_str!("install/log_slot_drop.sql");
const LOG: &str = include_str!("install/log.sql");
const LOG_END: &str = include_str!("install/log_end.sql");

/// What an installation is to be like. What is not said stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The database role of a router, which may then drain.
    pub router: Option<String>,
    /// Whether every database user may publish every topic that no rule is about.
    pub everybody_publishes: Option<bool>,
    /// The longest event: 4 KiB to 16 MiB.
    pub event_bytes_max: Option<u32>,
    /// The schema `crossbar` as well.
    pub crossbar: bool,
    /// Whether events are written into the log of the server (WAL mode), and not into the outbox.
    pub log: Option<bool>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The database is ahead of this program.
    Newer {
        /// Its version.
        installed: u32,
        /// The newest known here.
        known: u32,
    },
    /// There is nothing to remove.
    NotInstalled,
    /// A name that no database object can have.
    Name(String),
    /// [`Options::event_bytes_max`] is out of its range.
    EventBytes(u32),
}

impl fmt::Display for InstallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { installed, known } => write!(
                formatter,
                "the schema wamp of this database is of version {installed}, and this program knows versions up to \
                 {known}: use the program that installed it, or a newer one"
            ),
            Self::NotInstalled => {
                write!(formatter, "this database has no schema wamp: `crosspoint db install` makes it")
            }
            Self::Name(name) => {
                write!(formatter, "{name:?} is no name of a database role: 1 to 63 bytes, none of them 0")
            }
            Self::EventBytes(bytes) => {
                write!(formatter, "events of at most {bytes} bytes cannot be had: say 4096 to 16777216")
            }
        }
    }
}

impl std::error::Error for InstallError {}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is for, in a few words.
    pub title: String,
    /// One or several SQL statements, for the simple query protocol.
    pub sql: String,
}

impl Statement {
    fn new(title: impl Into<String>, sql: impl Into<String>) -> Self {
        Self { title: title.into(), sql: sql.into() }
    }
}

/// What to run, in order, on one connection: one transaction, but for what has to be there before a slot of the log. After an
/// error, end the connection or roll back, and see [`Plan::undo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    statements: Vec<Statement>,
    /// What no transaction takes back; to be run after it was rolled back.
    undo: Option<Statement>,
}

impl Plan {
    /// From the installed version to the newest, and the options. With the newest installed only the options are left.
    ///
    /// # Errors
    /// If the database is ahead, or an option cannot be.
    pub fn upgrade(installed: Option<u32>, options: &Options) -> Result<Self, InstallError> {
        Self::upgrade_through(VERSIONS, installed, options)
    }

    /// As [`Plan::upgrade`], of other versions than this program's.
    ///
    /// # Errors
    /// As [`Plan::upgrade`].
    pub fn upgrade_through(
        versions: &[Version],
        installed: Option<u32>,
        options: &Options,
    ) -> Result<Self, InstallError> {
        let known = versions.last().map_or(0, |version| version.number);
        let installed = installed.unwrap_or(0);
        if installed > known {
            return Err(InstallError::Newer { installed, known });
        }
        let mut statements = Vec::new();
        if options.log == Some(true) {
            statements.push(Statement::new("what is read of the log", LOG_PUBLICATION));
        }
        statements.push(Statement::new("one transaction", "BEGIN;"));
        if options.log == Some(true) {
            statements.push(Statement::new("a slot of the log", LOG_SLOT));
        }
        statements.extend([
            Statement::new("a schema of our own, for one at a time", BEGIN),
            Statement::new("made for the version that is there", expect_version(installed)),
        ]);
        for version in versions.iter().filter(|version| version.number > installed) {
            for (name, sql) in version.scripts {
                statements.push(Statement::new(format!("version {}: {name}", version.number), *sql));
            }
            statements.push(Statement::new(
                format!("version {} is installed", version.number),
                format!(
                    "INSERT INTO wamp.version (number) VALUES ({0});\n\
                     COMMENT ON TABLE wamp.version IS 'Crosspoint: schema wamp, version {0}';",
                    version.number
                ),
            ));
        }
        if installed < known {
            statements.push(Statement::new(
                "routers that are trusted get what is new",
                "SELECT wamp.trust_router(rolname) FROM wamp.router \
                 JOIN pg_catalog.pg_roles ON pg_roles.oid OPERATOR(pg_catalog.=) router.role;",
            ));
        }
        options.append_to(&mut statements)?;
        statements.push(Statement::new("done", "COMMIT;"));
        let undo = (options.log == Some(true)).then(|| Statement::new("the slot", LOG_SLOT_DROP));
        Ok(Self { statements, undo })
    }

    /// Removes the schemas and the triggers of `wamp.watch`. Unless it is forced it refuses while events wait, which would be
    /// lost, and while other objects are built on the schema, which would go with it.
    ///
    /// # Errors
    /// If nothing is installed.
    pub fn uninstall(installed: Option<u32>, force: bool) -> Result<Self, InstallError> {
        let Some(installed) = installed else { return Err(InstallError::NotInstalled) };
        let mut statements = vec![
            Statement::new("one transaction", "BEGIN;"),
            Statement::new("a schema of our own, for one at a time", BEGIN),
            Statement::new("made for the version that is there", expect_version(installed)),
        ];
        if !force {
            statements.push(Statement::new("is anything in the way", UNINSTALL_GUARD));
        }
        statements.push(Statement::new("remove", UNINSTALL));
        statements.push(Statement::new("the slot of the log, if there is one", LOG_SLOT_DROP));
        statements.push(Statement::new("done", "COMMIT;"));
        Ok(Self { statements, undo: None })
    }

    /// What to run.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// What to run when it failed and was rolled back, unless the slot was there before.
    #[must_use]
    pub fn undo(&self) -> Option<&Statement> {
        self.undo.as_ref()
    }
}

/// The text of `--dry-run`: a script that `psql` runs as the program would.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\\set ON_ERROR_STOP on")?;
        for statement in &self.statements {
            write!(formatter, "\n-- == {}\n{}\n", statement.title, statement.sql.trim_end())?;
        }
        Ok(())
    }
}

impl Options {
    fn append_to(&self, statements: &mut Vec<Statement>) -> Result<(), InstallError> {
        if let Some(router) = &self.router {
            let router = literal(router)?;
            statements.push(Statement::new(
                "the router's role may drain",
                format!("SELECT wamp.trust_router({router});"),
            ));
        }
        if let Some(allowed) = self.everybody_publishes {
            let function = if allowed { "allow" } else { "disallow" };
            statements.push(Statement::new(
                "what no rule is about",
                format!("SELECT wamp.{function}('public', 'publish', '', 'prefix');"),
            ));
        }
        if let Some(bytes) = self.event_bytes_max {
            if !(4096..=16_777_216).contains(&bytes) {
                return Err(InstallError::EventBytes(bytes));
            }
            statements.push(Statement::new(
                "the longest event",
                format!("UPDATE wamp.setting SET event_bytes_max = {bytes};"),
            ));
        }
        match self.log {
            Some(true) => statements.push(Statement::new("events go into the log", LOG)),
            Some(false) => statements.push(Statement::new("events are rows again", LOG_END)),
            None => {}
        }
        if self.crossbar {
            statements.push(Statement::new("the schema crossbar", CROSSBAR));
        }
        Ok(())
    }
}

/// Fails if another program has changed the schema since its version was asked for.
fn expect_version(number: u32) -> String {
    format!(
        "DO $expect$\nBEGIN\n    \
         IF coalesce((SELECT pg_catalog.max(number) FROM wamp.version), 0) OPERATOR(pg_catalog.<>) {number} THEN\n        \
         RAISE EXCEPTION 'the schema wamp has changed meanwhile' USING HINT = 'Run the same command again.';\n    \
         END IF;\nEND\n$expect$;"
    )
}

/// A name of a role in quotes, whatever `standard_conforming_strings` is.
fn literal(name: &str) -> Result<String, InstallError> {
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(InstallError::Name(name.to_owned()));
    }
    let quoted = name.replace('\'', "''");
    Ok(if name.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up version, to have something to upgrade to.
    const SECOND: Version = Version { number: 2, scripts: &[("more", "CREATE TABLE wamp.more ();")] };

    fn titles(plan: &Plan) -> Vec<&str> {
        plan.statements().iter().map(|statement| statement.title.as_str()).collect()
    }

    #[test]
    fn versions_count_from_one() {
        let numbers: Vec<_> = VERSIONS.iter().map(|version| version.number as usize).collect();
        assert_eq!(numbers, (1..=VERSIONS.len()).collect::<Vec<_>>());
        assert!(VERSIONS.iter().all(|version| !version.scripts.is_empty()));
    }

    #[test]
    fn a_plan_is_one_transaction() {
        for installed in [None, Some(1)] {
            let plans = [
                Plan::upgrade(installed, &Options::default()).unwrap(),
                Plan::uninstall(Some(1), false).unwrap(),
            ];
            for plan in plans {
                assert_eq!(plan.statements().first().unwrap().sql, "BEGIN;");
                assert_eq!(plan.statements().last().unwrap().sql, "COMMIT;");
                // No script ends it early.
                let between = &plan.statements()[1..plan.statements().len() - 1];
                let ends = |sql: &str| sql.lines().any(|line| line == "COMMIT;" || line == "BEGIN;");
                assert!(!between.iter().any(|statement| ends(&statement.sql)));
            }
        }
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        let versions = [VERSIONS[0], SECOND];
        let through = |installed| Plan::upgrade_through(&versions, installed, &Options::default());
        let all = through(None).unwrap();
        assert!(
            titles(&all).contains(&"version 1: tables") && titles(&all).contains(&"version 2 is installed")
        );
        assert!(all.statements()[2].sql.contains("OPERATOR(pg_catalog.<>) 0 "));

        let second = through(Some(1)).unwrap();
        assert!(!titles(&second).iter().any(|title| title.starts_with("version 1")));
        assert!(titles(&second).contains(&"version 2: more"));
        assert!(second.statements()[2].sql.contains("OPERATOR(pg_catalog.<>) 1 "));

        assert_eq!(titles(&through(Some(2)).unwrap()).len(), 4);
        let error = through(Some(3)).unwrap_err();
        assert_eq!(error, InstallError::Newer { installed: 3, known: 2 });
        assert!(error.to_string().contains("version 3") && error.to_string().contains("up to 2"));
    }

    #[test]
    fn options_are_statements() {
        let plan = |options: Options| Plan::upgrade(Some(1), &options).map(|plan| plan.to_string());
        let router = |name: &str| plan(Options { router: Some(name.to_owned()), ..Options::default() });
        assert!(router("o'neill\\; --").unwrap().contains("trust_router(E'o''neill\\\\; --')"));
        for bad in ["", "a\0b", &"x".repeat(64)] {
            assert_eq!(router(bad), Err(InstallError::Name(bad.to_owned())));
        }
        let publishing =
            |allowed| plan(Options { everybody_publishes: Some(allowed), ..Options::default() }).unwrap();
        assert!(publishing(true).contains("wamp.allow('public', 'publish', '', 'prefix')"));
        assert!(publishing(false).contains("wamp.disallow('public', 'publish', '', 'prefix')"));
        let bytes = |bytes| plan(Options { event_bytes_max: Some(bytes), ..Options::default() });
        assert!(bytes(65536).unwrap().contains("SET event_bytes_max = 65536"));
        assert_eq!(bytes(4095), Err(InstallError::EventBytes(4095)));
        assert_eq!(bytes(16_777_217), Err(InstallError::EventBytes(16_777_217)));
        let crossbar = plan(Options { crossbar: true, ..Options::default() }).unwrap();
        assert!(crossbar.contains("CREATE SCHEMA crossbar"));
        let log = |log| Plan::upgrade(Some(1), &Options { log: Some(log), ..Options::default() }).unwrap();
        let begins = ["what is read of the log", "one transaction", "a slot of the log"];
        assert_eq!(titles(&log(true))[..3], begins, "before anything is written");
        assert!(log(true).undo().is_some_and(|undo| undo.sql.contains("pg_drop_replication_slot")));
        assert!(
            log(false).to_string().contains("DROP TRIGGER IF EXISTS to_log") && log(false).undo().is_none()
        );
    }

    #[test]
    fn uninstalling_asks_first() {
        let gentle = Plan::uninstall(Some(1), false).unwrap();
        let forced = Plan::uninstall(Some(1), true).unwrap();
        assert_eq!(
            titles(&gentle)[3..],
            ["is anything in the way", "remove", "the slot of the log, if there is one", "done"]
        );
        assert_eq!(titles(&forced)[3..], ["remove", "the slot of the log, if there is one", "done"]);
        assert!(gentle.statements()[4].sql.contains("DROP SCHEMA wamp CASCADE"));
        assert!(!gentle.statements()[3].sql.contains("DROP"));
        assert_eq!(Plan::uninstall(None, true), Err(InstallError::NotInstalled));
    }

    #[test]
    fn a_dry_run_has_every_statement() {
        let plan = Plan::upgrade(None, &Options { crossbar: true, ..Options::default() }).unwrap();
        let text = plan.to_string();
        for statement in plan.statements() {
            assert!(text.contains(statement.sql.trim_end()), "{}", statement.title);
            assert!(text.contains(&format!("-- == {}\n", statement.title)));
        }
    }
}
