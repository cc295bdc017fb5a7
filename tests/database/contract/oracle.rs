//! Oracle in the contract: a server that somebody has, named by `ORACLE_TEST_DSN` (`oracle://user:password@host:1521/service`).
//!
//! The user is one of its own: its packages `wamp` and the tables of the cases are removed and made anew for each case, so cases run one
//! after the other, as one test. The SQL of the cases is what databases have in common; what Oracle says otherwise is written
//! otherwise here. Without a server all of it is rendered and looked at, as far as that goes.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crosspoint::database::oracle::install::{Options, Plan};
use crosspoint::database::oracle::settings::Settings;
use crosspoint::database::oracle::{Administrator, Oracle as Driver};
use serde_json::json;

use super::backend::{Backend, Held, OnlyRendered, Shared, Writer};
use crate::database::oracle::plsql::{self, Library, Token};
use crate::database::oracle::{Script, client};

/// Where the server is; where the client library is, if the system does not find it; and which case alone is run.
const SERVER: &str = "ORACLE_TEST_DSN";
const CLIENT: &str = "ORACLE_TEST_CLIENT";
const CASE: &str = "ORACLE_TEST_CASE";

/// What does not apply, and why.
const NOT_OF_ORACLE: [(&str, &str); 6] = [
    ("integers_are_exact", "a NUMBER of more than 18 digits comes out as a text"),
    ("booleans_are_booleans", "SQL has no BOOLEAN before 23ai"),
    ("bytes_are_bytes", "no bytes are null"),
    ("what_returns_rows_gives_them", CHANGES),
    ("one_at_a_time_is_in_order", CHANGES),
    ("every_call_of_many_callers_is_answered_once", CHANGES),
];
const CHANGES: &str = "a statement that changes rows gives none: RETURNING INTO belongs in a block";

/// An error that a query can raise: a procedure does not stand in one.
const CONTRACT_ERROR: &str =
    "create or replace function contract_error(p_uri varchar2, p_text varchar2) return varchar2 as
begin
    wamp.error(p_uri, p_text);
    return null;
end;";

/// A user's schema on a server; or none, and what cases would have run.
pub(crate) struct Oracle {
    url: Option<String>,
    /// The folder of the client library.
    client: Option<PathBuf>,
    kept: Mutex<Vec<String>>,
}

impl Oracle {
    /// Nothing is there, and nothing of Oracle has ever been.
    fn at(url: &str, client: Option<PathBuf>) -> Self {
        let oracle = Self { url: Some(url.to_owned()), client, kept: Mutex::default() };
        let administrator = oracle.administrator();
        let mut statements = Vec::new();
        if administrator.installed().unwrap().is_some() {
            statements.extend(Plan::uninstall(true).statements().to_vec());
        }
        statements.extend(Plan::upgrade(None, &Options::default()).unwrap().statements().to_vec());
        for statement in &statements {
            administrator.run(&statement.sql).unwrap_or_else(|error| panic!("{}: {error}", statement.sql));
        }
        administrator.run(CONTRACT_ERROR).unwrap();
        oracle
    }

    /// Without a server.
    fn rendering() -> Self {
        Self { url: None, client: None, kept: Mutex::default() }
    }

    fn settings(&self) -> Settings {
        let url = self.url.as_deref().expect("nothing is run where there is no server");
        Settings::parse(url, &std::env::vars().collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn administrator(&self) -> Administrator {
        let mut driver = Driver::new(self.settings(), "realm1");
        driver.client.clone_from(&self.client);
        Administrator::connect(&driver).unwrap()
    }

    /// A session that commits nothing by itself.
    fn program(&self) -> Program {
        // The client library is loaded, and the server is there.
        drop(self.administrator());
        let url = self.url.as_deref().unwrap_or_default();
        let who = url.strip_prefix("oracle://").and_then(|rest| rest.split_once('@')).unwrap().0;
        let (user, password) = who.split_once(':').unwrap_or((who, ""));
        let password = password.replace("%40", "@").replace("%3A", ":").replace("%25", "%");
        let connect = self.settings().connect;
        Program(oracle::Connection::connect(user, password, connect).unwrap())
    }
}

/// Another program that uses the database.
struct Program(oracle::Connection);

impl Program {
    fn run_all(&self, script: &str) -> oracle::Result<()> {
        for sql in split(script) {
            if let Some(table) = created(&sql) {
                let gone = self.0.execute(&format!("drop table {table} cascade constraints purge"), &[]);
                let is_missing = |error: &oracle::Error| error.to_string().contains("ORA-00942");
                assert!(gone.as_ref().err().is_none_or(is_missing), "{table}: {:?}", gone.err());
            }
            self.0.execute(&sql, &[])?;
        }
        Ok(())
    }
}

impl Held for Program {
    fn commit(self: Box<Self>) {
        self.0.commit().unwrap();
    }

    fn roll_back(self: Box<Self>) {
        self.0.rollback().unwrap();
    }
}

impl Writer for Program {
    fn run(&mut self, sql: &str) -> Option<()> {
        match self.run_all(sql) {
            Ok(()) => Some(()),
            Err(error) if error.dpi_code().is_some() => None,
            Err(error) => panic!("{sql}: {error}"),
        }
    }
}

impl Backend for Oracle {
    fn new() -> Self {
        Self::at(&std::env::var(SERVER).expect(SERVER), std::env::var_os(CLIENT).map(Into::into))
    }

    fn section(&self) -> String {
        let client = self.client.as_ref().map(|folder| format!("client_path = {}\n", json!(folder)));
        let client = client.unwrap_or_default();
        format!("type = \"oracle\"\nurl = {}\njson_columns = [\"j\"]\n{client}", json!(self.url))
    }

    fn connections(&self, count: usize) -> String {
        format!("connections = {count}\n")
    }

    fn render(&self, sql: &str) -> String {
        render(sql)
    }

    fn keeps(&self, script: &str, procedures: &[String]) -> bool {
        if self.url.is_some() {
            return false;
        }
        let mut kept = self.kept.lock().unwrap();
        kept.extend(split(script));
        kept.extend_from_slice(procedures);
        true
    }

    fn execute(&self, script: &str) {
        let program = self.program();
        program.run_all(script).unwrap_or_else(|error| panic!("{script}: {error}"));
        program.0.commit().unwrap();
    }

    fn select(&self, sql: &str) -> Vec<String> {
        let program = self.program();
        let rows = program.0.query(&render(sql), &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.map(|row| row.unwrap().get::<_, Option<String>>(0).unwrap().unwrap_or_default()).collect()
    }

    fn hold(&self, script: &str) -> Box<dyn Held> {
        let program = self.program();
        program.run_all(script).unwrap_or_else(|error| panic!("{script}: {error}"));
        Box::new(program)
    }

    fn writer(&self) -> Option<Box<dyn Writer>> {
        Some(Box::new(self.program()))
    }

    fn begin(&self) -> &'static str {
        ""
    }

    fn install_publishing(&self) {
        // It is there from the beginning: who calls is known by it as well.
    }

    fn numbers(&self, count: &str) -> String {
        let many = "(select 1 from dual connect by level <= 2000)";
        format!("select cast(rownum as number(10)) as n from {many}, {many} where rownum <= {count}")
    }

    fn endless(&self) -> String {
        "begin dbms_session.sleep(1000); end;".to_owned()
    }

    fn endless_write(&self, table: &str) -> String {
        format!("begin insert into {table} values (1); dbms_session.sleep(1000); end;")
    }

    fn bytes_type(&self) -> &'static str {
        "blob"
    }

    fn publish(&self, topic: &str, args: &str, kwargs: &str, options: &str) -> String {
        // A null without a type could be meant for either publish.
        let typed = |text: &str| if text == "null" { "to_clob(null)" } else { text }.to_owned();
        let (args, kwargs, options) = (typed(args), typed(kwargs), typed(options));
        format!("wamp.publish({topic}, p_args => {args}, p_kwargs => {kwargs}, p_options => {options})")
    }

    fn publish_and_fail(&self, topic: &str) -> String {
        format!("begin wamp.publish('{topic}'); wamp.error('com.error.wanted', 'it fails'); end;")
    }

    fn publish_and_hang(&self, topic: &str) -> String {
        format!("begin wamp.publish('{topic}'); dbms_session.sleep(1000); end;")
    }

    fn put_and_publish(&self, topic: &str) -> [String; 2] {
        let put = |then: &str| {
            format!(
                "begin insert into log values (:writer, :num); \
                 wamp.publish('{topic}', p_args => '[' || :writer || ', ' || :num || ', \"call\"]');{then} end;"
            )
        };
        [put(""), put(" wamp.error('com.error.wanted', 'it fails');")]
    }

    fn publish_with_savepoint(&self) -> (String, String) {
        let call = "begin wamp.publish('com.before'); savepoint s; wamp.publish('com.undone'); rollback to s; \
                    wamp.publish('com.after'); end;";
        (String::new(), call.to_owned())
    }

    fn watch(&self) -> (String, String) {
        (String::new(), "begin wamp_watch('item', 'com.item'); end;\n/\n".to_owned())
    }

    fn error(&self, uri: &str, text: &str) -> String {
        format!("contract_error({uri}, {text})")
    }

    fn who(&self, what: &str) -> String {
        match what {
            "authmethod" => "json_value(sys_context('WAMP_CTX', 'DETAILS', 4000), '$.authmethod')".to_owned(),
            other => format!("sys_context('WAMP_CTX', '{}')", other.to_uppercase()),
        }
    }

    fn refuse_13(&self) -> String {
        "create or replace trigger refuse before insert on t for each row when (new.n = 13)
         begin raise_application_error(-20001, 'not 13'); end;\n/\n"
            .to_owned()
    }

    fn constraint_uris(&self) -> [&'static str; 2] {
        ["crosspoint.error.sql.ora_00001", "crosspoint.error.sql.ora_02291"]
    }
}

/// The statements of a script, as Oracle takes them. Blocks end with a line that is a slash alone, others with a semicolon.
fn split(script: &str) -> Vec<String> {
    const BLOCKS: [&str; 5] = [
        "begin",
        "declare",
        "create or replace trigger",
        "create or replace function",
        "create or replace procedure",
    ];
    let (mut found, mut rest) = (Vec::new(), script.trim());
    while !rest.is_empty() {
        let (sql, behind) = if BLOCKS.iter().any(|word| rest.starts_with(word)) {
            rest.split_once("\n/").unwrap_or((rest, ""))
        } else {
            let mut is_quoted = false;
            let end = rest.find(|character| {
                is_quoted ^= character == '\'';
                character == ';' && !is_quoted
            });
            end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]))
        };
        let sql = render(sql);
        if !sql.is_empty() {
            found.push(sql);
        }
        rest = behind.trim_start();
    }
    found
}

/// The table that a statement makes.
fn created(sql: &str) -> Option<&str> {
    sql.strip_prefix("create table ")?.split([' ', '(']).next()
}

/// A statement that databases have in common, as Oracle says it.
fn render(sql: &str) -> String {
    let sql = sql.trim();
    if sql.starts_with("begin ") || sql.starts_with("declare") || sql.starts_with("create or replace ") {
        return sql.to_owned();
    }
    // What changes rows does not stand in a query, and a savepoint goes by itself.
    if let Some(call) = sql.strip_prefix("select wamp.") {
        return format!("begin wamp.{call}; end;");
    }
    if sql.starts_with("release savepoint") {
        return String::new();
    }
    let mut sql = outside_of_texts(sql, |part| {
        let part = part.replace(") as ", ") ").replace("count(*)", "cast(count(*) as number(18))");
        let part = part.replace("length(b)", "cast(dbms_lob.getlength(b) as number(18))");
        renamed(&part, "number", "num")
    });
    if created(&sql).is_some() {
        for (portable, own) in [
            ("bigint", "number(19)"),
            ("integer", "number(10)"),
            ("boolean", "number(1)"),
            ("text", "clob"),
            ("double precision", "binary_double"),
            ("j json", "j clob check (j is json)"),
        ] {
            sql = renamed(&sql, portable, own);
        }
    }
    if let Some(number) = sql.strip_prefix("select ")
        && number.chars().all(|character| character.is_ascii_digit())
    {
        sql = format!("select cast({number} as number(10))");
    }
    if sql.starts_with("select ") && !outside(&sql).contains(" from ") {
        sql.push_str(" from dual");
    }
    match sql.strip_prefix("insert into ").and_then(|rest| rest.split_once(" values ")) {
        Some((table, values)) if groups(values).len() > 1 => {
            let rows: Vec<_> =
                groups(values).iter().map(|values| format!("select {values} from dual")).collect();
            format!("insert into {table} {}", rows.join(" union all "))
        }
        _ => sql,
    }
}

/// What stands outside of texts.
fn outside(sql: &str) -> String {
    sql.split('\'').step_by(2).collect()
}

fn outside_of_texts(sql: &str, change: impl Fn(&str) -> String) -> String {
    let parts = sql.split('\'').enumerate();
    let parts = parts.map(|(place, part)| if place % 2 == 0 { change(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("'")
}

/// With another word for a word, unless a bracket opens behind it.
fn renamed(sql: &str, from: &str, to: &str) -> String {
    let is_of_word = |character: char| character.is_alphanumeric() || character == '_';
    let (mut written, mut rest) = (String::new(), sql);
    while let Some(at) = rest.find(from) {
        let behind = &rest[at + from.len()..];
        let is_word = !rest[..at].ends_with(is_of_word) && !behind.starts_with(is_of_word);
        let is_it = is_word && (!behind.starts_with('(') || from != "number");
        written.push_str(&rest[..at]);
        written.push_str(if is_it { to } else { from });
        rest = behind;
    }
    written + rest
}

/// What stands in the brackets of a list of them.
fn groups(values: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut is_quoted, mut found) = (0, 0, false, Vec::new());
    for (at, character) in values.char_indices() {
        is_quoted ^= character == '\'';
        match character {
            '(' if !is_quoted => {
                begin = if depth == 0 { at + 1 } else { begin };
                depth += 1;
            }
            ')' if !is_quoted => {
                depth -= 1;
                if depth == 0 {
                    found.push(&values[begin..at]);
                }
            }
            _ => {}
        }
    }
    found
}

/// Cases that apply.
fn cases() -> impl Iterator<Item = (&'static str, fn(&Shared))> {
    let applies = |name: &str| NOT_OF_ORACLE.iter().all(|(other, _)| *other != name);
    crate::CASES.iter().copied().filter(move |(name, _)| applies(name))
}

#[test]
fn the_contract() {
    if std::env::var_os(SERVER).is_none() {
        crate::harness::not_tested(&format!(
            "the contract of databases, of Oracle: {SERVER} names no server"
        ));
        return;
    }
    let only = std::env::var(CASE).ok();
    let mut failed = Vec::new();
    for (name, case) in cases().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let database: Shared = Arc::new(Oracle::new());
        let ended = catch_unwind(AssertUnwindSafe(|| case(&database)));
        eprintln!("{name}: {}", if ended.is_ok() { "holds" } else { "FAILED" });
        failed.extend(ended.err().map(|_| name));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// What a script has to say to whoever installs, and to the cases below.
const ANSWERS: &str = "
entry version
match max(version)
error 942 table or view does not exist
entry rows
match select n, m from t
column N NUMBER 10
column M NUMBER 10
row 1|1
row 2|4
row 3|9
entry count
match cast(count(*)
column C NUMBER 18
row 0
entry one
match select cast(1
column C NUMBER 10
row 1
entry plan
match create
entry block
match begin
entry insert
match insert into
entry commit
match commit
entry savepoint
match savepoint s
entry drop
match drop table
error 942 table or view does not exist
";

/// Of what runs cases on a server nothing but the server is missing here: they are run over a client library of our own.
#[test]
fn what_runs_cases_works_over_a_script() {
    let script = Script::new(ANSWERS);
    let url = format!("oracle://shop:tiger@{}", script.driver().settings.connect);
    let oracle = Arc::new(Oracle::at(&url, Some(client())));
    assert_eq!(script.executed("create or replace package body wamp as").len(), 1);
    assert_eq!(script.executed("function contract_error").len(), 1);
    let database: Shared = oracle.clone();
    for name in [
        "rows_are_objects",
        "what_cannot_be_had_of_a_database_is_said",
        "an_argument_that_is_missing_is_named",
    ] {
        let (_, case) = cases().find(|(other, _)| *other == name).unwrap();
        case(&database);
    }
    assert_eq!(script.only("insert into t select 1, 1").sql.matches("union all").count(), 2);
    // What other programs do.
    let commits = script.record("COMMIT").len();
    database.hold("insert into t values (7)").roll_back();
    assert_eq!((script.record("COMMIT").len(), script.executed("values (7)").len()), (commits, 1));
    database.hold("insert into t values (8)").commit();
    assert_eq!(script.record("COMMIT").len(), commits + 1);
    let mut writer = database.writer().unwrap();
    let sql =
        "savepoint s; insert into t values (9); select wamp.publish('com.t'); release savepoint s; commit";
    assert_eq!(writer.run(&format!("{}{sql}", database.begin())), Some(()));
    let last: Vec<_> = script.executed("").into_iter().rev().take(4).map(|it| it.sql).collect();
    assert_eq!(
        last,
        ["commit", "begin wamp.publish('com.t'); end;", "insert into t values (9)", "savepoint s"]
    );
}

#[test]
fn what_does_not_apply_is_a_case() {
    for (name, reason) in NOT_OF_ORACLE {
        assert!(crate::CASES.iter().any(|(other, _)| *other == name), "{name}");
        assert!(!reason.is_empty());
    }
}

/// Words of what databases have in common that Oracle does not know, or not there.
const FOREIGN: [&str; 9] =
    ["text", "bigint", "boolean", "precision", "json", "returning", "limit", "jsonb", "release"];

/// What is wrong with a statement of a case, in which there are these tables.
fn wrong_with(sql: &str, tables: &BTreeSet<String>, library: &Library) -> Vec<String> {
    let mut wrong = plsql::wrong_with(sql);
    wrong.extend(library.wrong_calls(sql).1);
    let tokens = plsql::tokens(sql).unwrap_or_default();
    let is_check = |place: usize| plsql::is_word(tokens.get(place.wrapping_sub(1)), &["is"]);
    for (place, token) in tokens.iter().enumerate() {
        if plsql::is_word(Some(token), &FOREIGN) && !is_check(place) {
            wrong.push(format!("{token:?} is not of Oracle"));
        }
        // The type has its precision everywhere here.
        if plsql::is_word(Some(token), &["number"]) && tokens.get(place + 1) != Some(&Token::Symbol("(")) {
            wrong.push("nothing is called number".to_owned());
        }
        let follows = |words: &[&str]| plsql::is_word(tokens.get(place.wrapping_sub(1)), words);
        if let Token::Word(name) = token
            && follows(&["from", "into", "update", "references"])
            && !tables.contains(name)
        {
            wrong.push(format!("there is no table {name}"));
        }
    }
    let is_query = plsql::is_word(tokens.first(), &["select"]);
    if is_query && !tokens.iter().any(|token| plsql::is_word(Some(token), &["from"])) {
        wrong.push("a query is from something".to_owned());
    }
    if sql.contains("), (") && outside(sql).contains(" values ") {
        wrong.push("one row is inserted at a time".to_owned());
    }
    if outside(sql).replace(") as number(", "").contains(") as ") {
        wrong.push("a table has its other name without AS".to_owned());
    }
    wrong
}

fn library() -> Library {
    let plan = Plan::upgrade(None, &Options::default()).unwrap();
    let statements = plan.statements().iter().map(|statement| &*statement.sql);
    Library::of(statements.chain([CONTRACT_ERROR]))
}

/// Tables that are there without a case making them, or that a case makes later.
fn tables_of(statements: &[String]) -> BTreeSet<String> {
    let made = statements.iter().filter_map(|sql| created(sql));
    made.chain(["dual", "later"]).map(str::to_owned).collect()
}

/// Each case, up to where it would start a router: its tables, its procedures, and what they call.
#[test]
fn what_cases_run_is_sql_of_oracle() {
    let library = library();
    let (mut count, mut statements, mut calls) = (0, 0, 0);
    for (name, case) in cases() {
        let oracle = Arc::new(Oracle::rendering());
        let database: Shared = oracle.clone();
        let ended = catch_unwind(AssertUnwindSafe(|| case(&database)));
        let stopped = ended.expect_err(name);
        assert!(stopped.is::<OnlyRendered>(), "{name} ended otherwise");
        let kept = oracle.kept.lock().unwrap();
        let tables = tables_of(&kept);
        for sql in kept.iter() {
            assert_eq!(wrong_with(sql, &tables, &library), Vec::<String>::new(), "{name}: {sql}");
            calls += library.wrong_calls(sql).0;
        }
        (count, statements) = (count + 1, statements + kept.len());
    }
    assert_eq!(count, crate::CASES.len() - NOT_OF_ORACLE.len());
    assert!(statements > 150 && calls > 40, "{statements} statements, {calls} calls");
}

/// What cases run behind that, as far as it stands in them as it is.
#[test]
fn what_other_programs_of_the_cases_run_is_sql_of_oracle() {
    let library = library();
    let (mut count, all) =
        (0, BTreeSet::from(["t", "kept", "pair", "log", "item", "later", "dual"].map(str::to_owned)));
    for source in [
        include_str!("calls.rs"),
        include_str!("crash.rs"),
        include_str!("events.rs"),
        include_str!("replay.rs"),
        include_str!("results.rs"),
        include_str!("routers.rs"),
        include_str!("values.rs"),
    ] {
        for call in [".select(\"", ".execute(\"", ".hold(\""] {
            for text in source.split(call).skip(1) {
                let text = text.split('"').next().unwrap();
                for sql in split(text) {
                    assert_eq!(wrong_with(&sql, &all, &library), Vec::<String>::new(), "{sql}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 15, "{count}");
}

#[test]
fn what_is_not_of_oracle_is_found() {
    let (library, tables) = (library(), BTreeSet::from(["t".to_owned(), "dual".to_owned()]));
    for (bad, part) in [
        ("create table t (x text)", "is not of Oracle"),
        ("select 1", "from something"),
        ("select n from other", "there is no table other"),
        ("insert into t values (1), (2)", "one row"),
        ("insert into t select n from (select 1 from dual) as r", "without AS"),
        ("delete from t returning n", "is not of Oracle"),
        ("begin wamp.publish('a', 'b', 'c', 'd', 'e'); end;", "wamp.publish does not take"),
        ("begin wamp.publishes('a'); end;", "wamp.publishes is not there"),
        ("insert into t values (:number)", "cannot be called number"),
        ("create table t (number number(10))", "nothing is called number"),
        ("select number from t", "nothing is called number"),
    ] {
        let wrong = wrong_with(bad, &tables, &library).concat();
        assert!(wrong.contains(part), "{bad}: {wrong}");
    }
    for (portable, own) in [
        ("select 1", "select cast(1 as number(10)) from dual"),
        ("select ':number from' || 1", "select ':number from' || 1 from dual"),
        (
            "select count(*) from (select n from t) as r",
            "select cast(count(*) as number(18)) from (select n from t) r",
        ),
        (
            "insert into t values (:n), (:m)",
            "insert into t select :n from dual union all select :m from dual",
        ),
        (
            "create table log (writer integer, number integer)",
            "create table log (writer number(10), num number(10))",
        ),
        ("select wamp.publish('a', ';')", "begin wamp.publish('a', ';'); end;"),
        ("release savepoint s", ""),
    ] {
        assert_eq!(render(portable), own);
    }
    assert_eq!(
        split("create table t (n integer); begin null; end;\n/\ninsert into t values (';');\nselect 2"),
        [
            "create table t (n number(10))",
            "begin null; end;",
            "insert into t values (';')",
            "select cast(2 as number(10)) from dual"
        ]
    );
}
