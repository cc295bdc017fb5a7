//! A client library of Oracle's interface without a server: built once, and told by scripts what to answer.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crosspoint::database::oracle::Oracle;
use crosspoint::database::oracle::install::{Options, Plan};
use crosspoint::database::oracle::settings::Settings;

#[path = "plsql.rs"]
pub(crate) mod plsql;

use plsql::Library;

/// The folder with `libclntsh.so`, made of `tests/oracle/*.c`.
pub(crate) fn client() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let library = folder.join("libclntsh.so");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"])
            .arg(&library);
        compiler
            .args(["client.c", "script.c", "values.c"].map(|source| sources.join(source)))
            .arg("-lpthread");
        let built = compiler.output().expect("there is a C compiler, as other crates need it");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        folder
    };
    BUILT.get_or_init(build).clone()
}

/// All that is installed, in order.
pub(crate) fn installation() -> Plan {
    let options =
        Options { router: Some("crosspoint".to_owned()), everybody_publishes: Some(true), crossbar: true };
    Plan::upgrade(None, &options).unwrap()
}

/// What that has for others to call.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| Library::of(installation().statements().iter().map(|statement| &*statement.sql)))
}

/// A script, and the record of what was asked; both go with it.
pub(crate) struct Script {
    path: PathBuf,
}

/// What a schema `wamp` that is installed says to who drains it.
pub(crate) const INSTALLED: &str = "
entry version
match max(version)
column V NUMBER 9
row 1
entry lead
match wamp_drain.lead
out r 3
entry sent
match select sent from
column SENT NUMBER 18
row 4
entry sleeps
match wamp_drain.sleeps
entry wait
match wamp_drain.wait
sleep 20
entry mark
match wamp_drain.mark
entry aside
match wamp_drain.set_aside
entry prune
match wamp_drain.prune
out r 0
entry release
match wamp_drain.release
";

/// Answers to the question what there is; a line of `rows` is what ALL_PROCEDURES and ALL_ARGUMENTS say.
pub(crate) fn catalogue(rows: &[&str]) -> String {
    let mut text = "
entry catalogue
match all_procedures
column OBJECT_TYPE VARCHAR2 13
column OBJECT_NAME VARCHAR2 128
column PROCEDURE_NAME VARCHAR2 128
column SUBPROGRAM_ID NUMBER 9
column PIPELINED VARCHAR2 3
column ARGUMENT_NAME VARCHAR2 128
column POSITION NUMBER 9
column DATA_TYPE VARCHAR2 30
column DEFAULTED VARCHAR2 1
column IN_OUT VARCHAR2 9
column DATA_PRECISION NUMBER 9
column DATA_SCALE NUMBER 9
column TYPE_NAME VARCHAR2 128
column TYPE_OWNER VARCHAR2 128
column TYPE_SUBNAME VARCHAR2 128
"
    .to_owned();
    for row in rows {
        text.push_str(&format!("row {row}\n"));
    }
    text
}

/// What every session asks for before it is used.
const PREAMBLE: &str = "
entry identity
match object_name = 'WAMP_CTX'
column COUNT NUMBER 10
row 0
entry fingerprint
match max(last_ddl_time)
column F VARCHAR2 100
row 1 2026
";

impl Script {
    pub(crate) fn new(text: &str) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("crosspoint-oracle-{}-{number}", std::process::id()));
        let script = Self { path };
        script.write(text);
        script
    }

    /// What it says from here on; what stands first is taken.
    pub(crate) fn write(&self, text: &str) {
        // At once, as it is read at any time.
        let part = self.path.with_extension("part");
        std::fs::write(&part, format!("{text}\n{PREAMBLE}")).unwrap();
        std::fs::rename(part, &self.path).unwrap();
    }

    /// A driver that goes there as the user `shop`.
    pub(crate) fn driver(&self) -> Oracle {
        let url = format!("oracle://shop:tiger@{}", self.path.display());
        let settings = Settings::parse(&url, &BTreeMap::new()).unwrap();
        let mut driver = Oracle::new(settings, "realm1");
        driver.client = Some(client());
        driver.connections = 1;
        driver
    }

    /// Lines of the record that begin so.
    pub(crate) fn record(&self, beginning: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path.with_extension("record")).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(beginning)).map(str::to_owned).collect()
    }

    /// What statements with this in their SQL were given: their SQL, and their placeholders.
    pub(crate) fn executed(&self, part: &str) -> Vec<Executed> {
        let all = self.record("EXECUTE\t");
        all.iter().map(|line| Executed::read(line)).filter(|it| it.sql.contains(part)).collect()
    }

    /// The only one of these.
    pub(crate) fn only(&self, part: &str) -> Executed {
        let mut all = self.executed(part);
        assert_eq!(all.len(), 1, "{part}: {all:?}");
        all.remove(0)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // What a test has had the driver say is well formed, and calls nothing that is not installed.
        if !std::thread::panicking() {
            for it in self.executed("") {
                let (_, mut wrong) = library().wrong_calls(&it.sql);
                wrong.extend(plsql::wrong_with(&it.sql));
                assert!(wrong.is_empty(), "{wrong:?}: {}", it.sql);
            }
        }
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension("record"));
    }
}

/// A statement that was run.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) user: String,
    pub(crate) client: String,
    pub(crate) action: String,
    pub(crate) sql: String,
    bound: BTreeMap<String, String>,
}

impl Executed {
    fn read(line: &str) -> Self {
        let mut parts = line.split('\t').skip(1).map(str::to_owned);
        let mut next = || parts.next().unwrap();
        let (user, client, action, sql) = (next(), next(), next(), next().replace("\\n", "\n"));
        let bound = parts.map(|part| {
            let (name, value) = part.split_once('=').unwrap();
            (name.to_lowercase(), value.to_owned())
        });
        Self { user, client, action, sql, bound: bound.collect() }
    }

    pub(crate) fn bound(&self, name: &str) -> &str {
        self.bound.get(name).unwrap_or_else(|| panic!("{name} was not bound: {self:?}"))
    }

    pub(crate) fn placeholders(&self) -> Vec<&str> {
        self.bound.keys().map(String::as_str).collect()
    }
}
