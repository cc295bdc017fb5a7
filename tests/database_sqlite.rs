//! What is particular to SQLite, by its threads. What all databases have in common is in `tests/database_contract.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests wait")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crosspoint::database::PublicationLimits;
use crosspoint::database::pool::Notice;
use crosspoint::database::sqlite::{Publishes, Sqlite};
use crosspoint::database::{Backlog, Declared, Numbers, Shape};
use crosspoint::wamp::codec::{DecodeLimits, Serializer};
use crosspoint::wamp::uri::UriLimits;
use serde_json::{Value, json};

#[path = "database/stand.rs"]
mod stand;

use stand::{End, How, Stand};

/// A database in a file of its own, which goes with it.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("crosspoint-sqlite-{}-{number}.db", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn execute(&self, sql: &str) {
        rusqlite::Connection::open(&self.0).unwrap().execute_batch(sql).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.0.display()));
        }
    }
}

fn declared(uri: &str, shape: Shape, sql: &str) -> Declared {
    Declared { uri: uri.to_owned(), sql: sql.to_owned(), shape, timeout_ms: 0, concurrency: 0 }
}

fn stand(file: &File, procedures: &[(&str, Shape, &str)]) -> Stand {
    let procedures = procedures.iter().map(|(uri, shape, sql)| declared(uri, *shape, sql)).collect();
    let mut driver = Sqlite::new(file.0.clone(), 2, 1 << 20);
    driver.procedures = procedures;
    Stand::new(driver)
}

const ENDLESS: &str =
    "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c";

#[test]
fn values_both_ways_in_every_serializer() {
    let file = File::new();
    file.execute("create table t (i integer, r real, s text, b blob, yes boolean, j json)");
    let mut stand = stand(
        &file,
        &[
            ("echo", Shape::Row, "select :v as v, typeof(:v) as t"),
            ("put", Shape::Rows, "insert into t values (:i, :r, :s, :b, :yes, :j)"),
            ("get", Shape::Row, "select * from t"),
        ],
    );
    for serializer in Serializer::ALL {
        stand.serializer = serializer;
        for (value, kind, back) in [
            (json!(null), "null", json!(null)),
            (json!(true), "integer", json!(1)),
            (json!(9_223_372_036_854_775_807_u64), "integer", json!(9_223_372_036_854_775_807_u64)),
            (json!(-5), "integer", json!(-5)),
            (json!(1.5), "real", json!(1.5)),
            (json!("grün"), "text", json!("grün")),
            (json!("\0AQID"), "blob", json!("\0AQID")),
            (json!([1, "x"]), "text", json!("[1,\"x\"]")),
            (json!({"a": [1]}), "text", json!("{\"a\":[1]}")),
        ] {
            assert_eq!(
                stand.result("echo", json!([value])),
                json!([{"v": back, "t": kind}]),
                "{serializer:?}"
            );
        }
        let (uri, text) = stand.error("echo", json!([18_446_744_073_709_551_615_u64]), json!({}));
        assert_eq!(uri, "wamp.error.invalid_argument");
        assert_eq!(text, "the argument `1`: 18446744073709551615 is beyond the integers of SQLite");
    }
    let row = json!({"i": 1, "r": 2.5, "s": "x", "b": "\0AQID", "yes": true, "j": {"k": [1, null]}});
    assert_eq!(stand.call("put", json!([]), row.clone()), End::Result(json!([1]), Value::Null));
    for serializer in Serializer::ALL {
        stand.serializer = serializer;
        assert_eq!(stand.result("get", json!([])), json!([row]), "{serializer:?}");
    }
}

#[test]
fn arguments_by_name_and_by_position() {
    let file = File::new();
    let mut stand = stand(
        &file,
        &[
            ("named", Shape::Value, "select :a || '-' || :b"),
            ("numbered", Shape::Value, "select ?2 || '-' || ?1"),
            ("plain", Shape::Value, "select ? || '-' || ?"),
        ],
    );
    assert_eq!(stand.result("named", json!(["x", "y"])), json!(["x-y"]));
    assert_eq!(
        stand.call("named", json!([]), json!({"b": "y", "a": "x"})),
        End::Result(json!(["x-y"]), Value::Null)
    );
    assert_eq!(
        stand.call("named", json!(["x"]), json!({"b": "y"})),
        End::Result(json!(["x-y"]), Value::Null)
    );
    assert_eq!(stand.result("numbered", json!(["x", "y"])), json!(["y-x"]));
    assert_eq!(stand.result("plain", json!(["x", "y"])), json!(["x-y"]));
    for (uri, args, kwargs, text) in [
        ("named", json!(["x"]), json!({}), "the argument `b` is missing"),
        ("plain", json!(["x"]), json!({}), "the argument 2 is missing"),
        ("named", json!(["x", "y", "z"]), json!({}), "argument 3: there are fewer parameters"),
        ("named", json!(["x", "y"]), json!({"c": 1}), "there is no parameter `c`"),
        // Given twice.
        ("named", json!(["x", "y"]), json!({"a": "x"}), "argument 1: there are fewer parameters"),
    ] {
        let error = stand.error(uri, args, kwargs);
        assert_eq!(error, ("wamp.error.invalid_argument".to_owned(), text.to_owned()));
    }
}

#[test]
fn a_call_is_one_transaction_or_nothing() {
    let file = File::new();
    file.execute("create table t (n integer primary key, m integer check (m < 10))");
    let mut stand = stand(
        &file,
        &[
            ("two", Shape::Nothing, "insert into t values (:n, 1); insert into t values (:n + 1, :m)"),
            ("count", Shape::Value, "select count(*) from t"),
        ],
    );
    assert_eq!(stand.error("two", json!([1, 10]), json!({})).0, "wamp.error.invalid_argument");
    assert_eq!(stand.result("count", json!([])), json!([0]));
    stand.result("two", json!([1, 1]));
    assert_eq!(stand.error("two", json!([2, 1]), json!({})).0, "crosspoint.error.sql.constraint_unique");
    assert_eq!(stand.result("count", json!([])), json!([2]));
}

#[test]
fn errors_have_their_uris() {
    let file = File::new();
    file.execute(
        "create table t (n integer not null unique, m integer references t (n));
         create trigger no before insert on t when new.n = 13 begin select raise(abort, 'not 13'); end;
         create trigger own before insert on t when new.n = 14 begin select wamp_error('com.shop.no', 'not 14'); end;",
    );
    let mut stand = stand(
        &file,
        &[
            ("put", Shape::Nothing, "insert into t values (:n, :m)"),
            ("raise", Shape::Value, "select wamp_error(:uri, 'why')"),
            ("who", Shape::Value, "select wamp(:what)"),
        ],
    );
    let mut error = |uri: &str, args: Value| stand.error(uri, args, json!({}));
    assert_eq!(error("put", json!([null, null])).0, "wamp.error.invalid_argument");
    assert_eq!(error("put", json!([1, 5])).0, "crosspoint.error.sql.constraint_foreign_key");
    assert_eq!(
        error("put", json!([13, null])),
        ("crosspoint.error.application".to_owned(), "not 13".to_owned())
    );
    assert_eq!(error("put", json!([14, null])), ("com.shop.no".to_owned(), "not 14".to_owned()));
    assert_eq!(error("raise", json!(["com.own"])), ("com.own".to_owned(), "why".to_owned()));
    assert_eq!(error("raise", json!(["no uri"])).0, "crosspoint.error.application");
    assert_eq!(error("who", json!(["what"])).0, "crosspoint.error.sql");
}

#[test]
fn who_calls_is_known_inside_and_only_while_it_runs() {
    let file = File::new();
    let sql = "select wamp('session') || ' ' || wamp('authid') || ' ' || wamp('authrole')";
    let how = "select wamp('authmethod') || ' ' || wamp('authprovider') || ' ' || json_extract(wamp('authextra'), '$.team')";
    let mut stand = stand(&file, &[("who", Shape::Value, sql), ("how", Shape::Value, how)]);
    assert_eq!(stand.result("who", json!([])), json!(["4711 joe user"]));
    let how = How { authid: "ann", authrole: "admin", ..How::default() };
    let end = stand.call_as("who", &json!([]), &json!({}), how);
    assert_eq!(end, End::Result(json!(["4711 ann admin"]), Value::Null));
    let end = stand.call_as("how", &json!([]), &json!({}), How { authextra: r#"{"team":"ü"}"#, ..how });
    assert_eq!(end, End::Result(json!(["jwt dynamic ü"]), Value::Null));
    assert_eq!(stand.result("how", json!([])), json!([null]));
}

#[test]
fn readers_run_beside_a_writer_and_cannot_write() {
    let file = File::new();
    file.execute("create table t (n integer); insert into t values (1)");
    let mut stand = stand(
        &file,
        &[
            (
                "slow_write",
                Shape::Nothing,
                &format!("insert into t values (2); insert into t select count(*) from ({ENDLESS})"),
            ),
            ("read", Shape::Value, "select count(*) from t"),
        ],
    );
    let writing = stand.begin("slow_write", &json!([]), &json!({}), How::default()).unwrap();
    for _ in 0..20 {
        assert_eq!(stand.result("read", json!([])), json!([1]));
    }
    stand.cancel(writing);
    assert_eq!(stand.next().0, writing);
}

#[test]
fn other_files_and_switches_are_out_of_reach() {
    let file = File::new();
    let mut stand = stand(
        &file,
        &[
            ("fine", Shape::Value, "select 1"),
            ("attach", Shape::Nothing, "attach database ':memory:' as other"),
            ("switch", Shape::Nothing, "pragma query_only = 0"),
            ("wrong", Shape::Value, "select from"),
            ("empty", Shape::Value, " -- nothing\n"),
            ("look", Shape::Rows, "select name from pragma_table_info('sqlite_schema') limit 1"),
        ],
    );
    let offered: Vec<_> = stand.offered.iter().map(|procedure| procedure.uri.to_string()).collect();
    assert_eq!(offered, ["fine", "look"]);
    assert_eq!(stand.result("look", json!([])), json!([[{"name": "type"}]]));
    let notices = stand.notices();
    let Some(Notice::Offers(2, problems)) = notices.last() else { panic!("{notices:?}") };
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(problems[0].starts_with("the procedure attach is not offered: not authorized"), "{problems:?}");
    assert!(problems[3].contains("there is no statement in it"), "{problems:?}");
}

fn publishing(file: &File, procedures: &[(&str, Shape, &str)], watches: &[(&str, &str)]) -> Stand {
    let mut driver = Sqlite::new(file.0.clone(), 2, 1 << 20);
    driver.procedures = procedures.iter().map(|(uri, shape, sql)| declared(uri, *shape, sql)).collect();
    driver.publishing = Some(Publishes {
        watches: watches.iter().map(|(table, topic)| ((*table).to_owned(), (*topic).to_owned())).collect(),
        limits: PublicationLimits {
            uri: UriLimits { bytes_max: 256, components_max: 32 },
            decode: DecodeLimits::default(),
        },
    });
    Stand::new(driver)
}

fn texts(published: &[(u64, String)]) -> Vec<&str> {
    published.iter().map(|(_, publish)| publish.as_str()).collect()
}

#[test]
fn what_a_transaction_publishes_comes_with_its_commit_or_never() {
    let file = File::new();
    file.execute("create table t (n integer primary key)");
    let mut stand = publishing(
        &file,
        &[
            ("say", Shape::Value, "select publish(:topic, :args, :kwargs, :options)"),
            ("say_and_fail", Shape::Nothing, "select publish('com.lost'); insert into t values ('x')"),
            (
                "say_and_stay",
                Shape::Nothing,
                "select publish('com.kept', json_array(1)); insert into t values (7)",
            ),
        ],
        &[],
    );
    stand.result("say", json!(["com.a", "[1,1.50]", "{\"k\":[]}", null]));
    assert_eq!(stand.error("say_and_fail", json!([]), json!({})).0, "wamp.error.invalid_argument");
    stand.result("say_and_stay", json!([]));
    // Who calls is left out, unless it asks to be told.
    stand.result("say", json!(["com.b", null, null, "{\"exclude_me\":false}"]));
    stand.result("say", json!(["com.c", null, "{}", "{\"exclude\":[5]}"]));
    let published = stand.publications(4);
    assert_eq!(
        texts(&published),
        [
            r#"[16,1,{"exclude":[4711]},"com.a",[1,1.50],{"k":[]}]"#,
            r#"[16,1,{"exclude":[4711]},"com.kept",[1]]"#,
            r#"[16,1,{"exclude_me":false},"com.b"]"#,
            r#"[16,1,{"exclude":[5,4711]},"com.c",[],{}]"#,
        ]
    );
    assert!(published.is_sorted_by_key(|(position, _)| *position));
    for (args, text) in [
        (json!(["wamp.session.on_join", null, null, null]), "begins with `wamp`"),
        (json!(["com. a", null, null, null]), "the topic com. a"),
        (json!(["com.a", "{}", null, null]), "Arguments"),
        (json!(["com.a", null, "[]", null]), "ArgumentsKw"),
        (json!(["com.a", null, null, "[]"]), "options"),
        (json!([null, null, null, null]), "the topic is null"),
    ] {
        let (uri, said) = stand.error("say", args, json!({}));
        assert!(uri == "crosspoint.error.sql" && said.contains(text), "{uri} {said}");
    }
}

#[test]
fn changes_of_tables_are_published_whoever_makes_them() {
    let file = File::new();
    file.execute("create table \"it's\" (id integer primary key, name text, picture blob)");
    let put = "insert into \"it's\" (name, picture) values (:name, x'00ff')";
    let mut stand = publishing(
        &file,
        &[("put", Shape::Rows, put), ("change", Shape::Rows, "update \"it's\" set name = :name")],
        &[("it's", "com.item"), ("missing", "com.missing")],
    );
    let notices = stand.notices();
    let is_offer = |notice: &&Notice| matches!(notice, Notice::Offers(..));
    let Some(Notice::Offers(2, problems)) = notices.iter().find(is_offer) else { panic!("{notices:?}") };
    assert_eq!(problems[..], ["the table missing is not watched: there is no table missing".to_owned()]);
    stand.result("put", json!(["tea"]));
    stand.result("change", json!(["green tea"]));
    // Another program, which knows nothing of us.
    file.execute("delete from \"it's\"");
    let published = stand.publications(3);
    let tea = r#"{"id":1,"name":"tea","picture":"00FF"}"#;
    let green = r#"{"id":1,"name":"green tea","picture":"00FF"}"#;
    let head =
        |event: &str| format!(r#"[16,1,{{}},"com.item.on_{event}",[],{{"op":"{event}","table":"it's","#);
    assert_eq!(
        texts(&published),
        [
            &*format!("{}\"new\":{tea}}}]", head("insert")),
            &*format!("{}\"new\":{green},\"old\":{tea}}}]", head("update")),
            &*format!("{}\"old\":{green}}}]", head("delete")),
        ]
    );
}

#[test]
fn what_was_not_offered_is_offered_again_after_a_start() {
    let file = File::new();
    let procedures = [("say", Shape::Value, "select publish('com.t', json_array(:n))")];
    let mut first = publishing(&file, &procedures, &[]);
    first.result("say", json!([1]));
    assert_eq!(first.publications(1).len(), 1);
    first.is_deaf = true;
    first.result("say", json!([2]));
    first.result("say", json!([3]));
    let again = first.publications(1);
    let counted = first.counted_with_backlog(2);
    assert_eq!((counted.calls, counted.failed, counted.publications), (3, 0, 1), "{counted:?}");
    let age = counted.backlog.map(|backlog| backlog.oldest_ms);
    std::thread::sleep(Duration::from_millis(5));
    assert!(first.counted_with_backlog(2).backlog.map(|backlog| backlog.oldest_ms) > age);
    drop(first);
    let mut second = publishing(&file, &procedures, &[]);
    let published = second.publications(2);
    assert_eq!(published[..again.len()], again[..], "the same again, with the same position");
    assert!(published[1].1.contains("[3]"));
    assert_eq!(second.counted_with_backlog(0).backlog, Some(Backlog::default()));
}

#[test]
fn what_is_no_publication_is_set_aside_and_stops_nothing() {
    let file = File::new();
    let mut stand = publishing(&file, &[("one", Shape::Value, "select 1")], &[]);
    file.execute(
        "insert into wamp_outbox (topic, args) values ('com.first', '[1]'), ('wamp.bad', '[]'), ('com.bad', 'nonsense'),
                                                       (x'ff', null), ('com.last', '[2]')",
    );
    let published = stand.publications(2);
    assert_eq!(texts(&published), [r#"[16,1,{},"com.first",[1]]"#, r#"[16,1,{},"com.last",[2]]"#]);
    let aside = stand.notices().iter().filter(|notice| matches!(notice, Notice::SetAside(_))).count();
    assert_eq!(aside, 3, "{:?}", stand.notices());
    let connection = rusqlite::Connection::open(&file.0).unwrap();
    let kept: i64 = connection
        .query_row("select count(*) from wamp_outbox where error is not null", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 3, "people can look at what was wrong");
}

#[test]
fn many_writers_and_long_events_keep_their_order() {
    let file = File::new();
    let mut stand = publishing(&file, &[("one", Shape::Value, "select 1")], &[]);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let path = file.0.clone();
            std::thread::spawn(move || {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(Duration::from_secs(30)).unwrap();
                for number in 0..100 {
                    let length = if number % 25 == 0 { 1 << 20 } else { 10 };
                    let args = json!([writer, number, "x".repeat(length)]).to_string();
                    let sql = "insert into wamp_outbox (topic, args) values ('com.t', ?1)";
                    connection.execute(sql, [args]).unwrap();
                }
            })
        })
        .collect();
    let published = stand.publications(400);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(published.is_sorted_by_key(|(position, _)| *position));
    let mut next = [0_u64; 4];
    for (_, publish) in &published {
        let message: Value = serde_json::from_str(publish).unwrap();
        let writer = message[4][0].as_u64().unwrap() as usize;
        assert_eq!(message[4][1], next[writer]);
        next[writer] += 1;
    }
    assert_eq!((published.len(), next), (400, [100; 4]));
}

#[test]
fn large_integers_are_strings_to_who_speaks_json_where_the_database_says_so() {
    let file = File::new();
    let mut driver = Sqlite::new(file.0.clone(), 2, 1 << 20);
    let sql = "select 9007199254740991 as safe, 9007199254740992 as large, -9223372036854775808 as lowest";
    driver.procedures = vec![
        declared("row", Shape::Row, sql),
        declared("rows", Shape::Rows, sql),
        declared("value", Shape::Value, "select 9007199254740993"),
    ];
    driver.numbers = Numbers { large_as_text: true, exact_as_float: false };
    let mut stand = Stand::new(driver);
    let row = json!({
        "safe": 9_007_199_254_740_991_i64, "large": "9007199254740992", "lowest": "-9223372036854775808",
    });
    assert_eq!(stand.result("row", json!([])), json!([row]));
    assert_eq!(stand.result("rows", json!([])), json!([[row]]));
    assert_eq!(stand.result("value", json!([])), json!(["9007199254740993"]));
    for serializer in [Serializer::MsgPack, Serializer::Cbor] {
        stand.serializer = serializer;
        let value = json!([9_007_199_254_740_993_i64]);
        assert_eq!(stand.result("value", json!([])), value, "{serializer:?}");
    }
}
