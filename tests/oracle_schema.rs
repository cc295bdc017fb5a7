//! `crosspoint db` on a database of Oracle: which statements it runs, over a client library that plays scripts. Whether Oracle takes
//! them only Oracle can tell.

#![cfg(feature = "oracle")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::{Command, Output};

#[path = "database/oracle.rs"]
mod oracle;

use crosspoint::database::oracle::install::Plan;
use oracle::{Script, plsql};

/// Runs it, with a configuration that has this database.
fn db(script: &Script, words: &[&str]) -> Output {
    let settings = script.driver().settings;
    let text = format!(
        "[[realm]]\nname = \"realm1\"\n[[realm.role]]\nname = \"anonymous\"\n[[database]]\nname = \"shop\"\ntype = \"oracle\"\n\
         realm = \"realm1\"\nurl = \"oracle://shop:tiger@{}\"\nclient_path = \"{}\"\n",
        settings.connect,
        oracle::client().display()
    );
    let path = format!("{}.toml", settings.connect);
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosspoint"));
    let output = command.arg("db").args(words).args(["--config", &path]).output().unwrap();
    std::fs::remove_file(path).unwrap();
    output
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const EMPTY: &str = "entry version\nmatch max(version)\nerror 942 table or view does not exist\n";
const ANYTHING: &str = "
entry define
match create or replace
entry block
match begin
entry insert
match insert into
entry grant
match grant 
entry commit
match commit
";
const INSTALLED: &str = "entry version\nmatch max(version)\ncolumn V NUMBER 9\nrow 1\n";

#[test]
fn what_is_installed_is_run_statement_by_statement() {
    let script = Script::new(&format!("{EMPTY}{ANYTHING}"));
    let output = db(&script, &["install", "--router", "crosspoint", "--crossbar"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "shop: the packages have version 1 now\n");
    for part in [
        "create table wamp_outbox",
        "create or replace package wamp_ctx authid definer",
        "create or replace package body wamp as",
        "create or replace package body wamp_drain",
        "create or replace package crossbar",
        "grant execute on wamp_drain to \"CROSSPOINT\"",
    ] {
        assert_eq!(script.executed(part).len(), 1, "{part}");
    }
    // The version is written behind all that it is made of.
    let all = script.executed("");
    let version = all.iter().position(|it| it.sql.starts_with("insert into wamp_version")).unwrap();
    let drainer = all.iter().position(|it| it.sql.contains("package body wamp_drain")).unwrap();
    assert!(drainer < version);

    // What is shown is what is run, and needs no database.
    let shown =
        said(&db(&Script::new(""), &["install", "--router", "crosspoint", "--crossbar", "--dry-run"]));
    for it in &all[2..] {
        assert!(shown.contains(it.sql.trim_end()), "{}", it.sql);
    }
    assert!(shown.starts_with("-- Never run against an Oracle server"));
}

#[test]
fn what_does_not_compile_is_said() {
    let warned = "entry warned\nmatch package body wamp as\nwarning 24344 success with compilation error\n\
                  entry why\nmatch user_errors\ncolumn TEXT VARCHAR2 200\nrow PLS-00103: Encountered the symbol\n";
    let output = db(&Script::new(&format!("{EMPTY}{warned}{ANYTHING}")), &["install"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    for part in [
        "version 1: publishing: ORA-24344",
        "PLS-00103: Encountered the symbol",
        "Run the same command again",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn status_and_removal() {
    let state = "entry state\nmatch from wamp_state\ncolumn L VARCHAR2 99\ncolumn S VARCHAR2 9\ncolumn O VARCHAR2 9\n\
                 column W VARCHAR2 9\ncolumn A VARCHAR2 9\ncolumn C VARCHAR2 9\ncolumn D VARCHAR2 9\ncolumn E VARCHAR2 9\n\
                 row crosspoint 7|12|15|3|1|6|2|0\n";
    let script = Script::new(&format!("{state}{INSTALLED}{ANYTHING}"));
    let text = said(&db(&script, &["status"]));
    assert!(text.starts_with("shop: the packages have version 1\n"), "{text}");
    for line in [
        "router                  crosspoint 7",
        "waiting                 3",
        "set aside               1",
        "calls without an answer 6",
        "dead letters            2",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(said(&db(&Script::new(EMPTY), &["status"])).contains("`crosspoint db install` makes them"));
    assert!(said(&db(&Script::new(EMPTY), &["upgrade"])).contains("has no package wamp"));
    assert!(said(&db(&script, &["install"])).contains("version 1 already"));
    assert_eq!(said(&db(&script, &["uninstall"])), "shop: the packages are removed\n");
    assert_eq!(script.executed("drop table wamp_outbox").len(), 1);
    assert_eq!(script.executed("events wait and would be lost").len(), 1);
    assert!(said(&db(&script, &["install", "--log", "yes"])).contains("--log is of PostgreSQL alone"));
}

/// What can be said of the scripts without a server.
#[test]
fn scripts_are_well_formed_and_call_what_they_define() {
    let (installed, removed) = (oracle::installation(), Plan::uninstall(false));
    let mut calls = 0;
    for statement in installed.statements().iter().chain(removed.statements()) {
        let mut wrong = plsql::wrong_with(&statement.sql);
        let (count, of_calls) = oracle::library().wrong_calls(&statement.sql);
        calls += count;
        wrong.extend(of_calls);
        wrong.extend(plsql::private_functions_in_sql(&statement.sql, oracle::library()));
        assert_eq!(wrong, Vec::<String>::new(), "{}", statement.sql);
        let tokens = plsql::tokens(&statement.sql).unwrap();
        assert_eq!(plsql::is_block(&tokens), statement.is_block, "{}", statement.sql);
    }
    assert!(calls > 10, "{calls}");
    // What is made is removed.
    let removed = removed.to_string();
    for statement in installed.statements() {
        for (made, kind) in [("create table ", "table"), ("create or replace view ", "view")] {
            for part in statement.sql.split(made).skip(1) {
                let name: String = part.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
                assert!(removed.contains(&format!("drop {kind} {name}")), "{name}");
            }
        }
    }
}
