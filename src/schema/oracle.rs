//! `crosspoint db` for a database of Oracle: the packages `wamp`, `wamp_ctx` and `wamp_drain`, and what they keep.

use crosspoint::config::Config;

use super::{Action, Request};

#[cfg(not(feature = "oracle"))]
impl Request {
    pub(super) fn run_oracle(&self, _action: Action, _config: &Config) -> Result<String, String> {
        Err("this program was compiled without Oracle: compile it with --features oracle".to_owned())
    }
}

#[cfg(feature = "oracle")]
mod compiled {
    use std::path::PathBuf;

    use crosspoint::config::DatabaseKind;
    use crosspoint::database::Problem;
    use crosspoint::database::oracle::install::{Options, Plan, VERSIONS};
    use crosspoint::database::oracle::settings::Settings;
    use crosspoint::database::oracle::{Administrator, Oracle};

    use super::{Action, Config, Request};

    impl Request {
        pub(in crate::schema) fn run_oracle(
            &self,
            action: Action,
            config: &Config,
        ) -> Result<String, String> {
            let (name, driver) = self.oracle_driver(config)?;
            let options = self.oracle_options()?;
            let said = |problem: Problem| format!("{name}: {problem}");
            // What would be run on a database without anything can be shown without one.
            if self.dry_run && action == Action::Install {
                return Ok(Plan::upgrade(None, &options)?.to_string());
            }
            if self.dry_run && action == Action::Uninstall {
                return Ok(Plan::uninstall(self.force).to_string());
            }
            let administrator = Administrator::connect(&driver).map_err(said)?;
            let installed = administrator.installed().map_err(said)?;
            let known = VERSIONS.last().map_or(0, |version| version.number);
            let plan = match (action, installed) {
                (Action::Status, None) => {
                    return Ok(format!(
                        "{name}: the packages are not installed; `crosspoint db install` makes them\n"
                    ));
                }
                (Action::Status, Some(installed)) => {
                    return status(&administrator, &name, installed, known).map_err(said);
                }
                (Action::Upgrade, None) => {
                    return Err(format!("{name} has no package wamp: `crosspoint db install` makes it"));
                }
                (Action::Uninstall, None) => {
                    return Err(format!("{name} has no package wamp: there is nothing to remove"));
                }
                (Action::Uninstall, Some(_)) => Plan::uninstall(self.force),
                (Action::Install | Action::Upgrade, installed) => {
                    Plan::upgrade(installed, &options).map_err(|error| format!("{name}: {error}"))?
                }
            };
            if self.dry_run {
                return Ok(plan.to_string());
            }
            for statement in plan.statements() {
                administrator.run(&statement.sql).map_err(|problem| {
                    let title = &statement.title;
                    format!(
                        "{name}: {title}: {problem}\nRun the same command again: what is there already stays."
                    )
                })?;
            }
            Ok(match (action, installed) {
                (Action::Uninstall, _) => format!("{name}: the packages are removed\n"),
                (_, Some(version)) if version == known => {
                    format!("{name}: the packages have version {known} already; the options hold now\n")
                }
                _ => format!("{name}: the packages have version {known} now\n"),
            })
        }

        fn oracle_options(&self) -> Result<Options, String> {
            let options = &self.options;
            let unknown =
                [("--event-bytes-max", options.event_bytes_max.is_some()), ("--log", options.log.is_some())];
            if let Some((option, _)) = unknown.iter().find(|(_, is_there)| *is_there) {
                return Err(format!("{option} is of PostgreSQL alone"));
            }
            Ok(Options {
                router: options.router.clone(),
                everybody_publishes: options.everybody_publishes,
                crossbar: options.crossbar,
            })
        }

        fn oracle_driver(&self, config: &Config) -> Result<(String, Oracle), String> {
            let is_oracle = |kind| kind == DatabaseKind::Oracle;
            let mut of_config = config.databases.iter().filter(|database| is_oracle(database.kind));
            let (name, settings, client): (String, Settings, Option<PathBuf>) = match &self.url {
                Some(url) => {
                    let settings = Settings::parse(url, &super::super::variables());
                    let settings = settings.map_err(|error| format!("--url: {error}"))?;
                    let client = of_config.find_map(|database| database.client_path.clone());
                    (settings.connect.clone(), settings, client)
                }
                None => {
                    let database = self.chosen(config)?;
                    let settings = database.url.oracle.as_deref().cloned();
                    let settings =
                        settings.ok_or_else(|| format!("the url of {} was not read", database.name))?;
                    (database.name.clone(), settings, database.client_path.clone())
                }
            };
            let mut driver = Oracle::new(settings, "");
            driver.client = client;
            Ok((name, driver))
        }
    }

    fn status(
        administrator: &Administrator,
        name: &str,
        installed: u32,
        known: u32,
    ) -> Result<String, Problem> {
        let mut text = format!("{name}: the packages have version {installed}");
        match installed.cmp(&known) {
            std::cmp::Ordering::Less => {
                text.push_str(&format!("; `crosspoint db upgrade` makes it version {known}"));
            }
            std::cmp::Ordering::Greater => text.push_str("; this program is older"),
            std::cmp::Ordering::Equal => {}
        }
        let sql = "select nvl(leader, 'none'), to_char(sent), to_char(last),
            (select to_char(count(*)) from wamp_outbox where position is null and error is null),
            (select to_char(count(*)) from wamp_outbox where error is not null),
            (select to_char(count(*)) from wamp_call where finished_at is null),
            (select to_char(count(*)) from wamp_dead_letter),
            (select to_char(count(*)) from user_errors where name in ('WAMP', 'WAMP_CTX', 'WAMP_DRAIN', 'CROSSBAR', 'WAMP_WATCH'))
            from wamp_state";
        let row = administrator.texts(sql)?;
        let titles = [
            "router",
            "events sent",
            "of",
            "waiting",
            "set aside",
            "calls without an answer",
            "dead letters",
            "errors of compilation",
        ];
        text.push('\n');
        for (title, value) in titles.iter().zip(&row) {
            text.push_str(&format!("  {title:<24}{value}\n"));
        }
        Ok(text)
    }
}
