//! What `crosspoint db` makes in a database of Oracle: which versions of it there are, and the statements of each.
//!
//! Statements that define something commit by themselves in Oracle, so an installation is no transaction: each statement may be
//! run once more instead, and one that was broken off is completed by the same command.

use std::fmt;

/// One version.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Counted from 1, without a gap.
    pub number: u32,
    /// From the version before to this one, in order: each a name and its statements, with a line that is a slash behind each.
    pub scripts: &'static [(&'static str, &'static str)],
}

/// All versions, in order.
pub const VERSIONS: &[Version] = &[Version {
    number: 1,
    scripts: &[
        ("tables", include_str!("install/version_1/tables.sql")),
        ("who calls", include_str!("install/version_1/identity.sql")),
        ("publishing", include_str!("install/version_1/publish.sql")),
        ("the drainer", include_str!("install/version_1/drain.sql")),
    ],
}];

const CROSSBAR: &str = include_str!("install/crossbar.sql");
const UNINSTALL: &str = include_str!("install/uninstall.sql");

/// What an installation is to be like. What is not said stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The user of a router, which may then drain.
    pub router: Option<String>,
    /// Whether everybody may publish every topic that no rule is about.
    pub everybody_publishes: Option<bool>,
    /// The package `crossbar` as well.
    pub crossbar: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is for, in a few words.
    pub title: String,
    /// One statement.
    pub sql: String,
    /// It is PL/SQL, which keeps its last semicolon.
    pub is_block: bool,
}

/// What to run, in order, as who is to own it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    statements: Vec<Statement>,
}

impl Plan {
    /// From the installed version to the newest, and the options.
    ///
    /// # Errors
    /// The database is ahead, or a name is none.
    pub fn upgrade(installed: Option<u32>, options: &Options) -> Result<Self, String> {
        let known = VERSIONS.last().map_or(0, |version| version.number);
        let installed = installed.unwrap_or(0);
        if installed > known {
            return Err(format!(
                "the package wamp of this database is of version {installed}, and this program knows versions up to \
                 {known}: use the program that installed it, or a newer one"
            ));
        }
        let mut statements = Vec::new();
        for version in VERSIONS.iter().filter(|version| version.number > installed) {
            let number = version.number;
            for (name, script) in version.scripts {
                statements.extend(split(&format!("version {number}: {name}"), script));
            }
            let sql = format!(
                "insert into wamp_version (version, installed_at) select {number}, systimestamp from dual \
                 where not exists (select 1 from wamp_version where version = {number})"
            );
            statements.push(Statement {
                title: format!("version {number} is installed"),
                sql,
                is_block: false,
            });
            statements.push(commit());
        }
        options.append_to(&mut statements)?;
        Ok(Self { statements })
    }

    /// Removes all of it; unless it is forced, only where no event waits.
    #[must_use]
    pub fn uninstall(force: bool) -> Self {
        let mut statements = Vec::new();
        if !force {
            let sql = "declare
    l_count number;
begin
    select count(*) into l_count from wamp_outbox
     where error is null and (position is null or position > (select sent from wamp_state));
    if l_count > 0 then
        raise_application_error(-20998, l_count || ' events wait and would be lost; --force removes them too');
    end if;
end;";
            let title = "is anything in the way".to_owned();
            statements.push(Statement { title, sql: sql.to_owned(), is_block: true });
        }
        statements.extend(split("remove", UNINSTALL));
        Self { statements }
    }

    /// What to run.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

impl Options {
    fn append_to(&self, statements: &mut Vec<Statement>) -> Result<(), String> {
        let mut plain = |title: &str, sql: String| {
            statements.push(Statement { title: title.to_owned(), sql, is_block: false });
        };
        if let Some(router) = &self.router {
            let router = name(router)?;
            for grant in [
                "execute on wamp_ctx",
                "execute on wamp_drain",
                "read on wamp_outbox",
                "read on wamp_state",
                "read on wamp_registration",
                "read on wamp_subscription",
                "read on wamp_call",
                "read on wamp_version",
            ] {
                plain("the router's user may drain", format!("grant {grant} to {router}"));
            }
        }
        if let Some(allowed) = self.everybody_publishes {
            let (word, preposition) = if allowed { ("grant", "to") } else { ("revoke", "from") };
            let grant = format!("{word} execute on wamp {preposition} public");
            // What nobody was granted cannot be revoked.
            let sql = format!(
                "begin\n    execute immediate '{grant}';\nexception\n    when others then\n        \
                 if sqlcode <> -1927 then raise; end if;\nend;"
            );
            let rule = if allowed { "allow" } else { "disallow" };
            let call =
                format!("begin\n    wamp.{rule}('PUBLIC', 'publish', '*', 'prefix');\n    commit;\nend;");
            for sql in [sql, call] {
                let title = "what no rule is about".to_owned();
                statements.push(Statement { title, sql, is_block: true });
            }
        }
        if self.crossbar {
            statements.extend(split("the package crossbar", CROSSBAR));
        }
        Ok(())
    }
}

fn commit() -> Statement {
    Statement { title: "kept".to_owned(), sql: "commit".to_owned(), is_block: false }
}

/// A user's name, as it stands in statements.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 128 || text.contains(['"', '\0']) {
        return Err(format!("{text:?} is no name of a user: 1 to 128 bytes, without quotes"));
    }
    Ok(format!("\"{}\"", text.to_uppercase()))
}

/// The statements of a script.
fn split(title: &str, script: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    for part in script.split("\n/\n") {
        // What stands before the first word is for people.
        let mut sql = part.trim();
        while sql.starts_with("--") {
            sql = sql.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
        }
        if sql.is_empty() {
            continue;
        }
        let is_block = [
            "declare",
            "begin",
            "create or replace package",
            "create or replace procedure",
            "create or replace function",
        ]
        .iter()
        .any(|word| sql.starts_with(word));
        statements.push(Statement { title: title.to_owned(), sql: sql.to_owned(), is_block });
    }
    statements
}

/// The text of `--dry-run`: a script that SQL*Plus and SQLcl run as the program would.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "-- Never run against an Oracle server by those who wrote it: see docs/oracle.md."
        )?;
        writeln!(formatter, "whenever sqlerror exit failure\nset define off")?;
        for statement in &self.statements {
            write!(formatter, "\n-- == {}\n{}\n/\n", statement.title, statement.sql)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(plan: &Plan) -> Vec<&str> {
        plan.statements().iter().map(|statement| statement.sql.as_str()).collect()
    }

    #[test]
    fn versions_count_from_one() {
        let numbers: Vec<_> = VERSIONS.iter().map(|version| version.number as usize).collect();
        assert_eq!(numbers, (1..=VERSIONS.len()).collect::<Vec<_>>());
    }

    #[test]
    fn scripts_are_statements() {
        let plan = Plan::upgrade(None, &Options { crossbar: true, ..Options::default() }).unwrap();
        for statement in plan.statements() {
            let (sql, is_block) = (&statement.sql, statement.is_block);
            assert!(!sql.starts_with("--") && !sql.contains("\n/\n"), "{sql}");
            assert_eq!(sql.ends_with(';'), is_block, "{sql}");
            // Every block has an end for each beginning of a package, and no statement is two.
            assert!(is_block || !sql.contains(';'), "{sql}");
        }
        let all = plan.to_string();
        for name in [
            "package wamp_ctx",
            "package wamp ",
            "package wamp_drain",
            "package crossbar",
            "procedure wamp_watch",
        ] {
            assert!(all.contains(&format!("create or replace {name}")), "{name}");
        }
        assert_eq!(all.matches("create or replace package body").count(), 4);
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        assert!(texts(&Plan::upgrade(None, &Options::default()).unwrap()).len() > 10);
        assert!(texts(&Plan::upgrade(Some(1), &Options::default()).unwrap()).is_empty());
        assert!(Plan::upgrade(Some(2), &Options::default()).unwrap_err().contains("versions up to 1"));
    }

    #[test]
    fn options_are_statements() {
        let plan = |options: &Options| Plan::upgrade(Some(1), options).map(|plan| plan.to_string());
        let router = |name: &str| plan(&Options { router: Some(name.to_owned()), ..Options::default() });
        assert!(router("crosspoint").unwrap().contains("grant execute on wamp_drain to \"CROSSPOINT\"\n/\n"));
        for wrong in ["", "a\"b", &"x".repeat(129)] {
            assert!(router(wrong).unwrap_err().contains("no name of a user"));
        }
        let everybody =
            |allowed| plan(&Options { everybody_publishes: Some(allowed), ..Options::default() }).unwrap();
        assert!(everybody(true).contains("grant execute on wamp to public"));
        assert!(everybody(false).contains("wamp.disallow('PUBLIC', 'publish', '*', 'prefix')"));
    }

    #[test]
    fn uninstalling_asks_first() {
        let (gentle, forced) = (Plan::uninstall(false), Plan::uninstall(true));
        assert_eq!(gentle.statements().len(), forced.statements().len() + 1);
        assert!(gentle.statements()[0].sql.contains("would be lost"));
        assert!(forced.to_string().contains("drop table wamp_outbox purge"));
    }
}
