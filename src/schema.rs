//! `crosspoint db`: the schema `wamp` of a PostgreSQL database, and the packages of an Oracle one, by which they publish.

mod oracle;

use std::collections::BTreeMap;
use std::time::Duration;

use crosspoint::config::{Config, Database, DatabaseKind};
use crosspoint::database::oracle::settings::Settings as OracleSettings;
use crosspoint::database::postgres::install::{INSTALLED_VERSION, Options, Plan, VERSIONS};
use crosspoint::database::postgres::wire::{Connection, Deadline, Error, Settings};

/// How long a statement may take: a table that others use makes whoever changes it wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether there is a slot of the log already, which a plan that fails must leave.
const HAS_SLOT: &str = "select exists (select from pg_replication_slots where slot_name = 'wamp_' ||
    (select oid from pg_database where datname = current_database()))";

/// What a server says of a mistake of its own, and how often a plan is begun anew for that.
const INTERNAL_ERROR: &str = "XX000";
const SLOT_ATTEMPTS_MAX: u32 = 10;
/// Others hold what has to be locked.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Install,
    Status,
    Upgrade,
    Uninstall,
}

/// The words behind `crosspoint db`.
#[derive(Debug, Default)]
pub(crate) struct Request {
    action: Option<Action>,
    /// Which of the configuration.
    database: Option<String>,
    /// As whom, where that is another one than the router.
    url: Option<String>,
    dry_run: bool,
    force: bool,
    options: Options,
}

impl Request {
    /// Whether it has not been said what is to be done.
    pub(crate) fn wants_action(&self) -> bool {
        self.action.is_none()
    }

    pub(crate) fn take_action(&mut self, word: &str) -> Result<(), String> {
        self.action = Some(match word {
            "install" => Action::Install,
            "status" => Action::Status,
            "upgrade" => Action::Upgrade,
            "uninstall" => Action::Uninstall,
            other => {
                return Err(format!(
                    "there is no command `db {other}`: it is install, status, upgrade or uninstall"
                ));
            }
        });
        Ok(())
    }

    /// `value` gives what stands behind the option.
    pub(crate) fn take_option(
        &mut self,
        name: &str,
        value: &mut dyn FnMut() -> Result<String, String>,
    ) -> Result<(), String> {
        match name {
            "database" => self.database = Some(value()?),
            "url" => self.url = Some(value()?),
            "router" => self.options.router = Some(value()?),
            "event-bytes-max" => {
                let bytes = value()?.parse();
                let bytes = bytes.map_err(|_| "--event-bytes-max is a number of bytes".to_owned())?;
                self.options.event_bytes_max = Some(bytes);
            }
            "everybody-publishes" => {
                self.options.everybody_publishes = Some(yes_or_no("--everybody-publishes", &value()?)?);
            }
            "log" => self.options.log = Some(yes_or_no("--log", &value()?)?),
            "crossbar" => self.options.crossbar = true,
            "dry-run" => self.dry_run = true,
            "force" => self.force = true,
            other => return Err(format!("db does not know --{other}")),
        }
        Ok(())
    }

    /// Does it; what there is to say.
    pub(crate) fn run(&self, config: &Config) -> Result<String, String> {
        let Some(action) = self.action else {
            return Err("db: say what is to be done: install, status, upgrade or uninstall".to_owned());
        };
        if self.is_oracle(config)? {
            return self.run_oracle(action, config);
        }
        let (name, settings) = self.settings(config)?;
        let deadline = Deadline::after(PATIENCE);
        let mut connection = Connection::connect(&settings, deadline).map_err(|error| error.to_string())?;
        let installed = connection.simple_value(INSTALLED_VERSION, deadline).map_err(|error| said(&error))?;
        let installed = installed.and_then(|text| text.parse::<u32>().ok());
        let known = VERSIONS.last().map_or(0, |version| version.number);
        let plan = match action {
            Action::Status => return status(&mut connection, &name, installed, known),
            Action::Upgrade if installed.is_none() => {
                return Err(format!("{name} has no schema wamp: `crosspoint db install` makes it"));
            }
            Action::Install | Action::Upgrade => Plan::upgrade(installed, &self.options),
            Action::Uninstall => Plan::uninstall(installed, self.force),
        };
        let plan = plan.map_err(|error| format!("{name}: {error}"))?;
        if self.dry_run {
            return Ok(plan.to_string());
        }
        let had_log = connection.simple_value(HAS_SLOT, deadline).map_err(|error| said(&error))?;
        let had_log = had_log.as_deref() == Some("t");
        let mut attempts = 1;
        while let Err((title, error)) = apply(&mut connection, &plan) {
            // Where much is going on in other databases, a server of version 15 stumbles now and then when it makes a slot.
            if error.sqlstate() == Some(INTERNAL_ERROR) && attempts < SLOT_ATTEMPTS_MAX {
                attempts += 1;
                let rolled_back = connection.simple_query("rollback", Deadline::after(PATIENCE), |_| {});
                rolled_back.map_err(|error| said(&error))?;
                continue;
            }
            let mut text = format!("{name}: {title}: {}\nNothing was changed.", said(&error));
            if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) {
                text.push_str(
                    " A transaction that has published is open all the while: see pg_stat_activity and pg_prepared_xacts, end it, and run the same command again.",
                );
            }
            if let Some(undo) = plan.undo().filter(|_| !had_log) {
                let back = format!("rollback; {}", undo.sql);
                if connection.simple_query(&back, Deadline::after(PATIENCE), |_| {}).is_err() {
                    text.push_str("\nBut a slot `wamp_...` may be left, for which the server keeps its log: look at pg_replication_slots.");
                }
            }
            return Err(text);
        }
        Ok(match (action, installed) {
            (Action::Uninstall, _) => format!("{name}: the schema wamp is removed\n"),
            (_, Some(version)) if version == known => {
                format!("{name}: the schema wamp has version {known} already; the options hold now\n")
            }
            _ => format!("{name}: the schema wamp has version {known} now\n"),
        })
    }

    fn is_oracle(&self, config: &Config) -> Result<bool, String> {
        match &self.url {
            Some(url) => Ok(OracleSettings::is_url(url)),
            None => Ok(self.chosen(config)?.kind == DatabaseKind::Oracle),
        }
    }

    /// Which of the configuration is meant.
    fn chosen<'c>(&self, config: &'c Config) -> Result<&'c Database, String> {
        let is_server = |kind| matches!(kind, DatabaseKind::Postgresql | DatabaseKind::Oracle);
        let mut servers = config.databases.iter().filter(|database| is_server(database.kind));
        match &self.database {
            Some(name) => servers.find(|database| database.name == *name).ok_or_else(|| {
                format!("the configuration has no database `{name}` of type \"postgresql\" or \"oracle\"")
            }),
            None => match (servers.next(), servers.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => {
                    let text = "the configuration has no database of type \"postgresql\" or \"oracle\": name its \
                                file with --config, or say where it is with --url";
                    Err(text.to_owned())
                }
                _ => Err("the configuration has several databases: say which with --database".to_owned()),
            },
        }
    }

    fn settings(&self, config: &Config) -> Result<(String, Settings), String> {
        if let Some(url) = &self.url {
            let settings = Settings::parse(url, &variables()).map_err(|error| format!("--url: {error}"))?;
            return Ok((settings.database.clone(), settings));
        }
        let database = self.chosen(config)?;
        let settings = database.url.settings.as_deref().cloned();
        let settings = settings.ok_or_else(|| format!("the url of {} was not read", database.name))?;
        Ok((database.name.clone(), settings))
    }
}

/// Of the environment, those that are text.
fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Runs all of a plan; or what failed, and why.
fn apply<'p>(connection: &mut Connection, plan: &'p Plan) -> Result<(), (&'p str, Error)> {
    for statement in plan.statements() {
        let run = connection.simple_query(&statement.sql, Deadline::after(PATIENCE), |_| {});
        run.map_err(|error| (statement.title.as_str(), error))?;
    }
    Ok(())
}

fn yes_or_no(option: &str, word: &str) -> Result<bool, String> {
    match word {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{option} is yes or no")),
    }
}

fn status(
    connection: &mut Connection,
    name: &str,
    installed: Option<u32>,
    known: u32,
) -> Result<String, String> {
    let Some(installed) = installed else {
        return Ok(format!("{name}: the schema wamp is not installed; `crosspoint db install` makes it\n"));
    };
    let mut text = format!("{name}: the schema wamp has version {installed}");
    match installed.cmp(&known) {
        std::cmp::Ordering::Less => {
            text.push_str(&format!("; `crosspoint db upgrade` makes it version {known}"))
        }
        std::cmp::Ordering::Greater => text.push_str("; this program is older"),
        std::cmp::Ordering::Equal => {}
    }
    let sql = "select coalesce(p.leader, 'none'), p.sent, p.last, b.waiting, b.set_aside
               from wamp.progress() p, wamp.backlog() b";
    let mut lines = String::new();
    let looked = connection.simple_query(sql, Deadline::after(PATIENCE), |row| {
        let column = |index: usize| row.text(index).unwrap_or_default();
        lines = format!(
            "\n  router        {}\n  events sent   {} of {}\n  waiting       {}\n  set aside     {}\n",
            column(0),
            column(1),
            column(2),
            column(3),
            column(4)
        );
    });
    match looked {
        Ok(_) => text.push_str(&lines),
        // Whoever is not trusted may still know the version.
        Err(error) => text.push_str(&format!("\n  its queue may not be looked at: {}\n", said(&error))),
    }
    Ok(text)
}

/// What the server says, and its advice.
fn said(error: &Error) -> String {
    match error.server().and_then(|server| server.hint.as_deref()) {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}
