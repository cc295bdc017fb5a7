//! Calls of procedures in Oracle: the driver, the crate and ODPI-C as they are, over a client library that plays scripts.

#![cfg(feature = "oracle")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests wait")]

use crosspoint::database::oracle::{Exposed, Oracle};
use crosspoint::database::pool::Notice;
use crosspoint::database::{Declared, Numbers, Shape};
use crosspoint::wamp::codec::Serializer;
use serde_json::{Value, json};

#[path = "database/oracle.rs"]
mod oracle;
#[path = "database/stand.rs"]
mod stand;

use oracle::{Script, catalogue};
use stand::{End, Heard, How, Stand};

fn exposed(package: Option<&str>) -> Exposed {
    Exposed {
        schema: "SHOP".to_owned(),
        package: package.map(str::to_owned),
        prefix: "com.shop.".to_owned(),
        allow: Vec::new(),
        deny: Vec::new(),
    }
}

fn declared(uri: &str, shape: Shape, sql: &str) -> Declared {
    Declared { uri: uri.to_owned(), sql: sql.to_owned(), shape, timeout_ms: 0, concurrency: 0 }
}

/// A driver of the package PKG, or of SQL of the configuration.
fn driver(script: &Script) -> Oracle {
    let mut driver = script.driver();
    driver.exposed = vec![exposed(Some("PKG"))];
    driver
}

const ADD: [&str; 3] = [
    "PACKAGE|PKG|ADD2|1|NO|~|0|NUMBER|N|OUT|~|~|~",
    "PACKAGE|PKG|ADD2|1|NO|P_A|1|NUMBER|N|IN|~|~|~",
    "PACKAGE|PKG|ADD2|1|NO|P_B|2|NUMBER|Y|IN|~|~|~",
];

#[test]
fn a_function_is_called_by_name_with_what_is_given() {
    let script = Script::new(&format!("{}\nentry add\nmatch \"ADD2\"\nout r 42", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    let result = stand.call("com.shop.add2", json!([40]), json!({"p_b": "2.00"}));
    // Exact: a NUMBER without precision is a text.
    assert_eq!(result, End::Result(json!(["42"]), Value::Null));
    let call = script.only("ADD2");
    assert_eq!(
        call.sql,
        "begin\n:r := \"SHOP\".\"PKG\".\"ADD2\"(\"P_A\" => :a0, \"P_B\" => :a1);\ncommit;\nend;"
    );
    assert_eq!((call.bound("a0"), call.bound("a1"), call.bound("r")), ("40", "2", "NULL"));
    assert_eq!((&*call.user, &*call.client, &*call.action), ("shop", "joe", "com.shop.add2"));

    // The default of what is not given applies.
    assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["42"]));
    let call = script.executed("ADD2").pop().unwrap();
    assert_eq!(call.sql, "begin\n:r := \"SHOP\".\"PKG\".\"ADD2\"(\"P_A\" => :a0);\ncommit;\nend;");
    assert_eq!(call.placeholders(), ["a0", "r"]);

    for (args, kwargs, text) in [
        (json!([]), json!({}), "the argument `p_a` is missing"),
        (json!([1, 2, 3]), json!({}), "argument 3: there are 2 parameters that take a value"),
        (json!([1]), json!({"p_a": 1}), "the argument `p_a` is given twice"),
        (json!([1]), json!({"p_c": 1}), "there is no parameter `p_c`"),
        (json!(["x"]), json!({}), "the argument `1`: `x` is no number of Oracle"),
    ] {
        let (uri, said) = stand.error("com.shop.add2", args, kwargs);
        assert_eq!((&*uri, &*said), ("wamp.error.invalid_argument", text));
    }
    assert_eq!(script.executed("ADD2").len(), 2);
}

#[test]
fn values_both_ways_in_every_serializer() {
    let mut rows = Vec::new();
    let kinds = [
        ("T", "VARCHAR2"),
        ("N", "NVARCHAR2"),
        ("X", "NUMBER"),
        ("I", "PLS_INTEGER"),
        ("D", "BINARY_DOUBLE"),
        ("W", "DATE"),
        ("S", "TIMESTAMP(6)"),
        ("Z", "TIMESTAMP(6) WITH TIME ZONE"),
        ("DS", "INTERVAL DAY TO SECOND"),
        ("YM", "INTERVAL YEAR TO MONTH"),
        ("R", "RAW"),
        ("C", "CLOB"),
        ("B", "BLOB"),
        ("O", "PL/SQL BOOLEAN"),
        ("J", "JSON"),
    ];
    for (place, (name, kind)) in kinds.iter().enumerate() {
        let place = place + 1;
        rows.push(format!("PACKAGE|PKG|ALL_OF_THEM|1|NO|{name}|{place}|{kind}|N|IN/OUT|~|~|~"));
    }
    let rows: Vec<_> = rows.iter().map(String::as_str).collect();
    let answers = "
entry all
match ALL_OF_THEM
out a0 grün
out a1 blau
out a2 -12345678901234567890.125
out a3 -7
out a4 2.5
out a5 2026-11-26T15:04:05
out a6 2026-11-26T15:04:05.000250
out a7 2026-11-26T15:04:05.5+05:30
out a8 -1 -2 -3 -4 -500000000
out a9 1 2
out a10 00ff10
out a11 lang und länger
out a12 0102
out a13 true
out a14 {\"k\":[1,null]}
";
    let script = Script::new(&format!("{}{answers}", catalogue(&rows)));
    let mut stand = Stand::new(driver(&script));
    let given = json!({
        "t": "größer", "n": "ß", "x": 0.001, "i": 3.0, "d": 1, "w": "2026-01-02", "s": "2026-01-02T03:04:05.6+01:00",
        "z": "2026-01-02T03:04:05-02:00", "ds": "P1DT2H", "ym": "-P1Y", "r": "\0AQID", "c": "x", "b": "\0/w==",
        "o": false, "j": {"a": [1, "x"]},
    });
    for serializer in Serializer::ALL {
        stand.serializer = serializer;
        let result = stand.call("com.shop.all_of_them", json!([]), given.clone());
        let back = json!({
            "t": "grün", "n": "blau", "x": "-12345678901234567890.125", "i": -7, "d": 2.5,
            "w": "2026-11-26T15:04:05", "s": "2026-11-26T15:04:05.00025", "z": "2026-11-26T15:04:05.5+05:30",
            "ds": "-P1DT2H3M4.5S", "ym": "P1Y2M", "r": "\0AP8Q", "c": "lang und länger", "b": "\0AQI=", "o": true,
            "j": {"k": [1, null]},
        });
        assert_eq!(result, End::Result(Value::Null, back), "{serializer:?}");
    }
    let call = script.executed("ALL_OF_THEM").remove(0);
    for (name, bound) in [
        ("a0", "größer"),
        ("a1", "ß"),
        ("a2", "0.001"),
        ("a3", "3"),
        ("a4", "1"),
        ("a5", "2026-01-02T00:00:00"),
        ("a6", "2026-01-02T02:04:05.600000000+0"),
        ("a7", "2026-01-02T03:04:05.000000000-120"),
        ("a8", "1 2 0 0 0"),
        ("a9", "-1 0 0 0 0"),
        ("a10", "010203"),
        ("a11", "x"),
        ("a12", "ff"),
        ("a13", "false"),
        ("a14", "{\"a\":[1,\"x\"]}"),
    ] {
        assert_eq!(call.bound(name), bound, "{name}");
    }
    // What is read behind the call keeps its transaction open until then.
    assert!(!call.sql.contains("commit") && !script.record("COMMIT").is_empty());

    let nothing: serde_json::Map<_, _> =
        given.as_object().unwrap().keys().map(|key| (key.clone(), Value::Null)).collect();
    stand.serializer = Serializer::Json;
    stand.call("com.shop.all_of_them", json!([]), Value::Object(nothing));
    let call = script.executed("ALL_OF_THEM").pop().unwrap();
    assert!(call.placeholders().iter().all(|name| call.bound(name) == "NULL"), "{call:?}");
}

#[test]
fn numbers_keep_all_their_digits() {
    let script = Script::new(&catalogue(&ADD));
    let mut stand = Stand::new(driver(&script));
    for number in [
        "0",
        "1",
        "-1",
        "10",
        "100",
        "0.1",
        "0.01",
        "-0.001",
        "99",
        "-99.99",
        "1234567.89",
        "1000000000000000000000",
        "12345678901234567890123456789012345678",
        "-0.12345678901234567890123456789",
        "9223372036854775807",
    ] {
        script.write(&format!("{}\nentry add\nmatch \"ADD2\"\nout r {number}", catalogue(&ADD)));
        assert_eq!(stand.result("com.shop.add2", json!([number])), json!([number]));
        let call = script.executed("ADD2").pop().unwrap();
        assert_eq!(call.bound("a0"), number);
        let digits = number.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap();
        assert_eq!(call.sql.contains("to_number(:a0)"), digits > 18);
    }
}

#[test]
fn numbers_are_what_the_configuration_wants() {
    let rows = [
        "PACKAGE|PKG|BOTH|1|NO|P_EXACT|1|NUMBER|N|OUT|~|~|~",
        "PACKAGE|PKG|BOTH|1|NO|P_LARGE|2|NUMBER|N|OUT|18|0|~",
    ];
    let answers = "entry both\nmatch \"BOTH\"\nout a0 0.25\nout a1 123456789012345678";
    let script = Script::new(&format!("{}\n{answers}", catalogue(&rows)));
    let mut driver = driver(&script);
    driver.numbers = Numbers { large_as_text: true, exact_as_float: true };
    let mut stand = Stand::new(driver);
    for (serializer, large) in [
        (Serializer::Json, json!("123456789012345678")),
        (Serializer::MsgPack, json!(123_456_789_012_345_678_u64)),
    ] {
        stand.serializer = serializer;
        let result = stand.call("com.shop.both", json!([]), json!({}));
        assert_eq!(result, End::Result(Value::Null, json!({"p_exact": 0.25, "p_large": large})));
    }
}

const CURSOR: [&str; 3] = [
    "PACKAGE|PKG|ITEMS|1|NO|~|0|REF CURSOR|N|OUT|~|~|~",
    "PACKAGE|PKG|BOTH|2|NO|P_ONE|1|REF CURSOR|N|OUT|~|~|~",
    "PACKAGE|PKG|BOTH|2|NO|P_TWO|2|REF CURSOR|N|OUT|~|~|~",
];

#[test]
fn cursors_are_rows_and_come_in_parts() {
    let answers = "
entry items
match \"ITEMS\"
cursor r rows
entry both
match \"BOTH\"
cursor a0 few
cursor a1 few
entry rows
column ID NUMBER 9
column NAME VARCHAR2 20
column Price NUMBER
row {n}|item {n}|0.50
repeat 1201
entry few
column ID NUMBER 9
row 1
row ~
";
    let script = Script::new(&format!("{}{answers}", catalogue(&CURSOR)));
    let mut stand = Stand::new(driver(&script));
    let End::Result(args, kwargs) = stand.call("com.shop.items", json!([]), json!({})) else { panic!() };
    let rows = args[0].as_array().unwrap();
    assert_eq!((rows.len(), kwargs), (1201, Value::Null));
    assert_eq!(rows[1200], json!({"id": 1201, "name": "item 1201", "Price": "0.5"}));

    let how = How { receive_progress: true, ..How::default() };
    stand.begin("com.shop.items", &json!([]), &json!({}), how).unwrap();
    let mut parts = Vec::new();
    let end = loop {
        match stand.next().1 {
            Heard::Part(args) => parts.push(args[0].as_array().unwrap().len()),
            Heard::End(end) => break end,
        }
    };
    assert_eq!(parts, [500, 500]);
    let End::Result(args, kwargs) = end else { panic!("{end:?}") };
    assert_eq!((args[0].as_array().unwrap().len(), kwargs), (201, json!({"rows": 1201})));

    let both = stand.call("com.shop.both", json!([]), json!({}));
    let few = json!([{"id": 1}, {"id": null}]);
    assert_eq!(both, End::Result(Value::Null, json!({"p_one": few, "p_two": few})));
    assert_eq!(script.record("COMMIT").len(), 3);
}

#[test]
fn results_that_nobody_asked_for_are_given_too() {
    let answers = "
entry add
match \"ADD2\"
out r 3
result first
result first
entry first
column A NUMBER 5
row 7
";
    let script = Script::new(&format!("{}{answers}", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    let result = stand.call("com.shop.add2", json!([1]), json!({}));
    assert_eq!(result, End::Result(json!(["3"]), json!({"results": [[{"a": 7}], [{"a": 7}]]})));
}

#[test]
fn what_is_too_long_is_an_error_and_what_is_long_goes_as_a_lob() {
    let rows = [
        "PACKAGE|PKG|ECHO|1|NO|~|0|CLOB|N|OUT|~|~|~",
        "PACKAGE|PKG|ECHO|1|NO|P_TEXT|1|CLOB|N|IN|~|~|~",
        "PACKAGE|PKG|ECHO|1|NO|P_BYTES|2|BLOB|Y|IN|~|~|~",
    ];
    let long = "ä".repeat(3_000);
    let script = Script::new(&format!("{}\nentry echo\nmatch \"ECHO\"\nout r {long}", catalogue(&rows)));
    let mut driver = driver(&script);
    driver.result_bytes_max = 10_000;
    let mut stand = Stand::new(driver);
    let huge = "x".repeat(50_000);
    assert_eq!(stand.result("com.shop.echo", json!([huge])), json!([long]));
    assert_eq!(script.only("ECHO").bound("a0"), huge);
    script.write(&format!("{}\nentry echo\nmatch \"ECHO\"\nout r {huge}", catalogue(&rows)));
    assert_eq!(stand.error("com.shop.echo", json!(["x"]), json!({})).0, "wamp.error.payload_size_exceeded");
    // And is undone.
    assert_eq!(script.record("ROLLBACK").len(), 1);
}

#[test]
fn errors_are_what_the_table_says() {
    let script = Script::new(&catalogue(&ADD));
    let mut stand = Stand::new(driver(&script));
    for (code, text, uri, said) in [
        (
            1,
            "unique constraint (SHOP.PK) violated",
            "crosspoint.error.sql.ora_00001",
            "ORA-00001: unique constraint (SHOP.PK) violated",
        ),
        (20_001, "sold out\\nORA-06512: at \"SHOP.PKG\", line 7", "crosspoint.error.application", "sold out"),
        (1031, "insufficient privileges", "wamp.error.not_authorized", "ORA-01031: insufficient privileges"),
        (
            942,
            "table or view does not exist",
            "wamp.error.no_such_procedure",
            "ORA-00942: table or view does not exist",
        ),
        (
            6550,
            "line 2, column 3:\\nPLS-00302: component 'ADD2' must be declared",
            "wamp.error.no_such_procedure",
            "ORA-06550: line 2, column 3:\nPLS-00302: component 'ADD2' must be declared",
        ),
        (1403, "no data found", "wamp.error.invalid_argument", "ORA-01403: no data found"),
        (
            2290,
            "check constraint violated",
            "wamp.error.invalid_argument",
            "ORA-02290: check constraint violated",
        ),
        (
            12_170,
            "TNS:Connect timeout occurred",
            "wamp.error.timeout",
            "ORA-12170: TNS:Connect timeout occurred",
        ),
    ] {
        script.write(&format!("{}\nentry add\nmatch \"ADD2\"\nerror {code} {text}", catalogue(&ADD)));
        let error = stand.call("com.shop.add2", json!([1]), json!({}));
        assert_eq!(error, End::Error(uri.to_owned(), json!([said]), json!({"code": code, "message": said})));
    }
    for (json_text, expected) in [
        (
            r#"{"uri":"com.shop.error.sold_out","desc":"none left","detail":{"item":7}}"#,
            End::Error(
                "com.shop.error.sold_out".to_owned(),
                json!(["none left"]),
                json!({"detail": {"item": 7}}),
            ),
        ),
        (
            r#"{"uri":"com.shop.error.sold_out","args":[1,2],"kwargs":{"a":null}}"#,
            End::Error("com.shop.error.sold_out".to_owned(), json!([1, 2]), json!({"a": null})),
        ),
        (
            r#"{"uri":"not a uri"}"#,
            End::Error(
                "crosspoint.error.application".to_owned(),
                json!([r#"{"uri":"not a uri"}"#]),
                Value::Null,
            ),
        ),
        ("plain", End::Error("crosspoint.error.application".to_owned(), json!(["plain"]), Value::Null)),
    ] {
        let text = format!("error 20999 {json_text}\\nORA-06512: at \"WAMP.CROSSBAR\", line 12");
        script.write(&format!("{}\nentry add\nmatch \"ADD2\"\n{text}", catalogue(&ADD)));
        assert_eq!(stand.call("com.shop.add2", json!([1]), json!({})), expected);
    }
    // None of them cost the session, but each was undone.
    assert_eq!(script.record("ROLLBACK").len(), 12);
}

#[test]
fn a_session_that_is_gone_is_an_error_once() {
    let lost = "entry lost\nmatch \"ADD2\"\ntimes 1\nlost\nentry add\nmatch \"ADD2\"\nout r 1";
    let script = Script::new(&format!("{}\n{lost}", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    assert_eq!(stand.error("com.shop.add2", json!([1]), json!({})).0, "wamp.error.unavailable");
    assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["1"]));
    // The keeper, the one that was lost, and the one after it.
    assert_eq!(script.record("LOGON").len(), 3);
}

#[test]
fn a_package_that_was_compiled_meanwhile_is_called_once_more() {
    let discarded = "entry gone\nmatch \"ADD2\"\ntimes 1\nerror 4068 existing state of packages has been discarded\n\
                     entry add\nmatch \"ADD2\"\nout r 1";
    let script = Script::new(&format!("{}\n{discarded}", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["1"]));
    assert_eq!(script.executed("ADD2").len(), 2);
}

/// Waits until so many statements with this in their SQL have begun.
fn begun(script: &Script, part: &str, count: usize) {
    let begin = std::time::Instant::now();
    while script.executed(part).len() < count {
        assert!(begin.elapsed() < stand::PATIENCE, "nothing begins");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

const BLOCK_ONCE: &str = "entry block\nmatch \"ADD2\"\ntimes 1\nblock\nentry add\nmatch \"ADD2\"\nout r 1";

#[test]
fn a_cancel_breaks_the_call_and_not_the_next() {
    let script = Script::new(&format!("{}\n{BLOCK_ONCE}", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    let number = stand.begin("com.shop.add2", &json!([1]), &json!({}), How::default()).unwrap();
    begun(&script, "ADD2", 1);
    stand.cancel(number);
    let (of, Heard::End(End::Error(uri, ..))) = stand.next() else { panic!() };
    assert_eq!((of, &*uri), (number, "wamp.error.canceled"));
    let breaks = script.record("BREAK").len();
    assert!(breaks >= 1);
    // Nothing is broken that has ended.
    stand.cancel(number);
    for _ in 0..5 {
        assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["1"]));
    }
    assert_eq!(script.record("BREAK").len(), breaks);
}

#[test]
fn a_cancel_that_comes_too_late_does_not_stop_the_next_call() {
    // The server has answered before it saw the break: that is for what comes next.
    let late =
        "entry late\nmatch \"ADD2\"\ntimes 1\nsleep 3000\ndeaf\nout r 1\nentry add\nmatch \"ADD2\"\nout r 2";
    let script = Script::new(&format!("{}\n{late}", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    let number = stand.begin("com.shop.add2", &json!([1]), &json!({}), How::default()).unwrap();
    begun(&script, "ADD2", 1);
    stand.cancel(number);
    let (of, Heard::End(end)) = stand.next() else { panic!() };
    assert_eq!((of, end), (number, End::Result(json!(["1"]), Value::Null)));
    assert!(!script.record("BREAK").is_empty());
    for _ in 0..3 {
        assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["2"]));
    }
}

#[test]
fn a_call_ends_when_its_time_is_over() {
    let script = Script::new(&format!("{}\n{BLOCK_ONCE}", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    // Time enough to begin in.
    let how = How { timeout_ms: 2000, ..How::default() };
    let End::Error(uri, ..) = stand.call_as("com.shop.add2", &json!([1]), &json!({}), how) else { panic!() };
    assert_eq!(uri, "wamp.error.timeout");
    assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["1"]));
}

#[test]
fn calls_run_on_as_many_threads_as_there_are_connections() {
    let script = Script::new(&format!("{}\nentry add\nmatch \"ADD2\"\nblock", catalogue(&ADD)));
    let mut driver = driver(&script);
    driver.connections = 4;
    let mut stand = Stand::new(driver);
    let begin =
        |stand: &mut Stand| stand.begin("com.shop.add2", &json!([1]), &json!({}), How::default()).unwrap();
    let numbers: Vec<_> = (0..8).map(|_| begin(&mut stand)).collect();
    // Four at a time, each stopped alone.
    begun(&script, "ADD2", 4);
    assert_eq!(script.executed("ADD2").len(), 4);
    script.write(&format!("{}\nentry add\nmatch \"ADD2\"\nout r 1", catalogue(&ADD)));
    for number in &numbers[..4] {
        stand.cancel(*number);
    }
    let mut ended = 0;
    for _ in 0..8 {
        let (number, Heard::End(end)) = stand.next() else { panic!() };
        let was_blocked = numbers[..4].contains(&number);
        match end {
            End::Error(uri, ..) => assert!(was_blocked && uri == "wamp.error.canceled"),
            End::Result(args, _) => assert!(!was_blocked && args == json!(["1"])),
        }
        ended += 1;
    }
    assert_eq!((ended, script.executed("ADD2").len()), (8, 8));
}

#[test]
fn who_calls_is_said_in_the_block_of_the_call() {
    let identity = "entry there\nmatch object_name = 'WAMP_CTX'\ncolumn C NUMBER 10\nrow 1";
    let answers = "entry add\nmatch \"ADD2\"\nout r 1\nentry set\nmatch wamp_ctx.set\nentry ask\nmatch from dual\n\
                   column V NUMBER 5\nrow 1";
    let script = Script::new(&format!("{}\n{identity}\n{answers}", catalogue(&ADD)));
    let mut driver = driver(&script);
    driver.owner = "WAMP".to_owned();
    driver.procedures = vec![declared("com.shop.ask", Shape::Value, "select 1 from dual")];
    let mut stand = Stand::new(driver);
    let how = How { authextra: "{\"team\":\"a\"}", ..How::default() };
    stand.call_as("com.shop.add2", &json!([1]), &json!({}), how);
    let call = script.only("ADD2");
    assert!(
        call.sql.contains("\"WAMP\".wamp_ctx.set(:w_realm, :w_session, :w_authid, :w_authrole, :w_details);")
    );
    let details = "{\"authmethod\":\"jwt\",\"authprovider\":\"dynamic\",\"authextra\":{\"team\":\"a\"}}";
    for (name, value) in [
        ("w_realm", "realm1"),
        ("w_session", "4711"),
        ("w_authid", "joe"),
        ("w_authrole", "user"),
        ("w_details", details),
    ] {
        assert_eq!(call.bound(name), value);
    }
    // SQL of the configuration is run as it stands, behind a block of its own.
    assert_eq!(stand.result("com.shop.ask", json!([])), json!([1]));
    let all = script.executed("");
    let last: Vec<_> = all[all.len() - 2..].iter().map(|it| it.sql.split(' ').next().unwrap()).collect();
    assert_eq!(last, ["begin", "select"]);
    assert_eq!(all[all.len() - 2].bound("w_authid"), "joe");
}

#[test]
fn packages_that_are_installed_while_the_router_runs_are_used_by_connections_of_before() {
    let add = "entry add\nmatch \"ADD2\"\nout r 1";
    let script = Script::new(&format!("{}\n{add}", catalogue(&ADD)));
    let mut stand = Stand::new(driver(&script));
    assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["1"]));
    let identity = "entry there\nmatch object_name = 'WAMP_CTX'\ncolumn C NUMBER 10\nrow 1";
    script.write(&format!("{identity}\n{}\n{add}", catalogue(&ADD)));
    stand.next_offer();
    assert_eq!(stand.result("com.shop.add2", json!([1])), json!(["1"]));
    let calls = script.executed("ADD2");
    let are_told: Vec<_> = calls.iter().map(|call| call.sql.contains("\"SHOP\".wamp_ctx.set")).collect();
    assert_eq!(are_told, [false, true]);
    assert_eq!(script.record("LOGON").len(), 2);
}

#[test]
fn roles_run_as_users_of_the_database() {
    let script = Script::new(&format!("{}\nentry add\nmatch \"ADD2\"\nout r 1", catalogue(&ADD)));
    let mut driver = driver(&script);
    let roles = [("user", "WEB_USER"), ("admin", "WEB_ADMIN")];
    driver.roles = Some(roles.map(|(role, user)| (role.to_owned(), user.to_owned())).into());
    let mut stand = Stand::new(driver);
    for role in ["user", "admin", "user"] {
        let how = How { authrole: role, ..How::default() };
        assert_eq!(
            stand.call_as("com.shop.add2", &json!([1]), &json!({}), how),
            End::Result(json!(["1"]), Value::Null)
        );
    }
    let users: Vec<_> = script.executed("ADD2").into_iter().map(|call| call.user).collect();
    assert_eq!(users, ["shop[WEB_USER]", "shop[WEB_ADMIN]", "shop[WEB_USER]"]);
    let how = How { authrole: "guest", ..How::default() };
    let End::Error(uri, ..) = stand.call_as("com.shop.add2", &json!([1]), &json!({}), how) else { panic!() };
    assert_eq!(uri, "wamp.error.not_authorized");
    // Each user has one session, beside the keeper's and the worker's own.
    assert_eq!(script.record("LOGON").len(), 4);
}

#[test]
fn sql_of_the_configuration() {
    let answers = "
entry columns
match dbms_sql
out w_columns 2 ID\\n119 J\\n
entry items
match from item
column ID NUMBER 9
column NAME CLOB
row 1|nail
row 2|~
entry insert
match insert into item
count 3
entry block
match begin
out out_total 17
cursor cursor_items items
entry json_texts
match json_serialize(q.\"J\"
column ID NUMBER 9
column J CLOB
row 1|{\"a\":[1,\"x\"]}
row 2|~
entry json
match json_table
column ID NUMBER 9
column J JSON
entry documents
match from documents
column DOC CLOB
column LAST_DOC VARCHAR2 100
column TEXT VARCHAR2 100
row [1.50]|{\"k\":null}|[1]
row no json|~|x
";
    let script = Script::new(answers);
    let mut driver = script.driver();
    driver.procedures = vec![
        declared(
            "rows",
            Shape::Rows,
            "select id, name from item where id < :most and name <> ':no' -- :neither",
        ),
        declared("row", Shape::Row, "select id, name from item"),
        declared("value", Shape::Value, "select id from item"),
        declared("nothing", Shape::Nothing, "select id from item"),
        declared("insert", Shape::Rows, "insert into item select :id, :name from dual"),
        declared("block", Shape::Rows, "begin shop.do(:p_item, :out_total, :cursor_items); end;"),
        declared("json", Shape::Rows, "select id, j from json_table where id < :most"),
        declared("json_value", Shape::Row, "select id, j from json_table"),
        declared("documents", Shape::Rows, "select doc, last_doc, text from documents"),
    ];
    driver.json_columns = vec!["doc".to_owned(), "last_*".to_owned()];
    let mut stand = Stand::new(driver);
    let rows = json!([[{"id": 1, "name": "nail"}, {"id": 2, "name": null}]]);
    assert_eq!(stand.result("row", json!([])), json!([{"id": 1, "name": "nail"}]));
    assert_eq!(stand.result("value", json!([])), json!([1]));
    assert_eq!(stand.result("nothing", json!([])), Value::Null);
    assert_eq!(stand.call("insert", json!([1, "x"]), json!({})), End::Result(json!([3]), Value::Null));
    let insert = script.only("insert into item");
    assert_eq!((insert.bound("id"), insert.bound("name")), ("1", "x"));
    let block = stand.call("block", json!([]), json!({"p_item": "nail"}));
    assert_eq!(block, End::Result(Value::Null, json!({"total": "17", "items": rows[0]})));
    let (uri, text) = stand.error("insert", json!([]), json!({"id": 1}));
    assert_eq!((&*uri, &*text), ("wamp.error.invalid_argument", "the argument `name` is missing"));
    let (_, text) = stand.error("insert", json!([1, 2, 3]), json!({}));
    assert_eq!(text, "argument 3: there are fewer parameters");
    let (_, text) = stand.error("value", json!([]), json!({"x": 1}));
    assert_eq!(text, "there is no parameter `x`");
    // Columns of type JSON come as texts; that they have to is found out once.
    let values = json!([{"id": 1, "j": {"a": [1, "x"]}}, {"id": 2, "j": null}]);
    for _ in 0..2 {
        assert_eq!(stand.result("json", json!([7])), json!([values]));
    }
    assert_eq!(script.executed("dbms_sql").len(), 1);
    let read = script.executed("json_serialize");
    assert!(
        read[0].sql.ends_with("from (\nselect id, j from json_table where id < :most\n) q"),
        "{}",
        read[0].sql
    );
    assert_eq!((read.len(), read[0].bound("most"), read[1].bound("most")), (2, "7", "7"));
    assert_eq!(stand.result("json_value", json!([])), json!([values[0]]));
    // And those whose texts are JSON as values, where the configuration says which they are.
    let documents = json!([
        {"doc": [1.50], "last_doc": {"k": null}, "text": "[1]"},
        {"doc": "no json", "last_doc": null, "text": "x"},
    ]);
    assert_eq!(stand.result("documents", json!([])), json!([documents]));
    let long = "y".repeat(5_000);
    assert_eq!(stand.call("insert", json!([null, long]), json!({})), End::Result(json!([3]), Value::Null));
    let insert = script.executed("insert into item").pop().unwrap();
    assert_eq!((insert.bound("id"), insert.bound("name")), ("NULL", &*long));
}

#[test]
fn what_is_offered_and_what_is_not() {
    let rows = [
        "FUNCTION|NOW|~|1|NO|~|0|DATE|N|OUT|~|~|~",
        "PACKAGE|PKG_VOTE|RESET|1|NO|~|~|~|~|~|~|~|~",
        "PACKAGE|PKG_VOTE|VOTE|2|NO|P_ID|1|NUMBER|N|IN|10|0|~",
        "PACKAGE|PKG_VOTE|VOTE|3|NO|P_NAME|1|VARCHAR2|N|IN|~|~|~",
        "PACKAGE|PKG_VOTE|SECRET|4|NO|~|~|~|~|~|~|~|~",
        "PACKAGE|PKG_VOTE|HARD|5|NO|P_ALL|1|PL/SQL RECORD|N|IN|~|~|T_ALL",
    ];
    let answers = "entry id\nmatch \"P_ID\"\nentry name\nmatch \"P_NAME\"\nentry any\nmatch begin\nout r 2026-11-26T01:02:03";
    let script = Script::new(&format!("{}\n{answers}", catalogue(&rows)));
    let mut driver = script.driver();
    let deny = vec!["*.secret".to_owned()];
    driver.exposed = vec![Exposed { deny, ..exposed(None) }];
    let mut stand = Stand::with_refresh(driver, std::time::Duration::from_millis(20));
    let offered: Vec<_> = stand.offered.iter().map(|procedure| procedure.uri.to_string()).collect();
    assert_eq!(offered, ["com.shop.now", "com.shop.pkg_vote.reset", "com.shop.pkg_vote.vote"]);
    let Some(Notice::Offers(3, problems)) = stand.notices().pop() else { panic!("{:?}", stand.notices()) };
    assert_eq!(
        problems,
        [
            "pkg_vote.hard() is not offered: P_ALL is of the type T_ALL, which calls cannot carry: use JSON or a REF CURSOR"
        ]
    );
    assert_eq!(stand.result("com.shop.now", json!([])), json!(["2026-11-26T01:02:03"]));
    // Overloads are told apart by names, or by kinds.
    for (args, kwargs, part) in [
        (json!([7]), json!({}), "P_ID"),
        (json!(["x"]), json!({}), "P_NAME"),
        (json!([]), json!({"p_name": 1}), "P_NAME"),
    ] {
        let before = script.executed(part).len();
        assert_eq!(stand.call("com.shop.pkg_vote.vote", args, kwargs), End::Result(Value::Null, Value::Null));
        assert_eq!(script.executed(part).len(), before + 1);
    }
    let (_, text) = stand.error("com.shop.pkg_vote.vote", json!([null]), json!({}));
    assert_eq!(text, "it could be any of these: pkg_vote.vote(p_id); pkg_vote.vote(p_name)");
    let (_, text) = stand.error("com.shop.pkg_vote.vote", json!([1, 2]), json!({}));
    assert_eq!(text, "none of these fits: pkg_vote.vote(p_id); pkg_vote.vote(p_name)");

    // Somebody compiles something.
    let changed = "entry changed\nmatch max(last_ddl_time)\ncolumn F VARCHAR2 100\nrow 2 2027";
    script.write(&format!("{changed}\n{}\n{answers}", catalogue(&rows[..1])));
    stand.next_offer();
    assert_eq!(stand.offered.len(), 1);
}

#[test]
fn sessions_are_set_up_and_counted() {
    let script = Script::new(&catalogue(&ADD));
    let mut driver = driver(&script);
    driver.connection_class = Some("crosspoint".to_owned());
    let stand = Stand::new(driver);
    assert_eq!(stand.offered.len(), 1);
    assert_eq!(script.record("LOGON"), ["LOGON\tshop\tclass=crosspoint"]);
    let set_up = script.only("alter session");
    for part in ["time_zone = '+00:00'", "nls_numeric_characters = '.,'", "HH24:MI:SS.FFTZH:TZM"] {
        assert!(set_up.sql.contains(part), "{}", set_up.sql);
    }
    drop(stand);
    assert_eq!(script.record("LOGOFF").len(), 1);
}

#[test]
fn objects_and_collections_are_objects_and_lists() {
    let rows = [
        "PACKAGE|PKG|STORE|1|NO|~|0|VARRAY|N|OUT|~|~|T_NAMES|SHOP|~",
        "PACKAGE|PKG|STORE|1|NO|P_ITEM|1|OBJECT|N|IN|~|~|T_ITEM|SHOP|~",
        "PACKAGE|PKG|STORE|1|NO|P_ALL|2|TABLE|N|IN/OUT|~|~|T_ITEMS|SHOP|~",
        "PACKAGE|PKG|STORE|1|NO|P_LAST|3|OBJECT|N|OUT|~|~|T_ITEM|SHOP|~",
    ];
    let answers = "
entry store
match \"STORE\"
out r [[\"NAIL\",\"x\"]]
out a1 [[{\"ID\":1,\"PRICE\":0.50,\"Note\":\"A\"},null]]
out a2 [null]
";
    let script = Script::new(&format!("{}{answers}", catalogue(&rows)));
    let mut stand = Stand::new(driver(&script));
    for serializer in Serializer::ALL {
        stand.serializer = serializer;
        let given = json!({"p_all": [{"id": 1}], "p_item": {"id": 7, "name": "nail"}});
        let result = stand.call("com.shop.store", json!([]), given);
        let all = json!([{"id": 1, "price": 0.50, "Note": "A"}, null]);
        assert_eq!(
            result,
            End::Result(json!([["NAIL", "x"]]), json!({"p_all": all, "p_last": null})),
            "{serializer:?}"
        );
    }
    let call = script.executed("STORE").remove(0);
    assert_eq!((call.bound("a0"), call.bound("a1")), ("{\"id\":7,\"name\":\"nail\"}", "[{\"id\":1}]"));
    assert!(call.sql.contains("json_value(:a0, '$' returning \"SHOP\".\"T_ITEM\" error on error) into o0"));
    let (uri, text) = stand.error("com.shop.store", json!([7]), json!({"p_all": null}));
    assert_eq!(
        (&*uri, &*text),
        ("wamp.error.invalid_argument", "the argument `1`: expected an object or a list, found an integer")
    );
    // Null is null, and no object of nulls.
    stand.serializer = Serializer::Json;
    stand.call("com.shop.store", json!([null]), json!({"p_all": null}));
    let call = script.executed("STORE").pop().unwrap();
    assert_eq!((call.bound("a0"), call.bound("a1")), ("NULL", "NULL"));
}

#[test]
fn json_in_cursors_comes_where_its_text_does() {
    let columns = |kind: &str| {
        format!(
            "{}\nentry items\nmatch \"ITEMS\"\ncursor r rows\nentry rows\ncolumn DOC {kind}\nrow {{\"k\":1.50}}",
            catalogue(&CURSOR)
        )
    };
    let script = Script::new(&columns("CLOB"));
    let mut driver = driver(&script);
    driver.json_columns = vec!["*oc".to_owned()];
    let mut stand = Stand::new(driver);
    assert_eq!(stand.result("com.shop.items", json!([])), json!([[{"doc": {"k": 1.50}}]]));
    script.write(&columns("JSON"));
    let (uri, text) = stand.error("com.shop.items", json!([]), json!({}));
    assert_eq!(uri, "crosspoint.error.sql");
    assert!(text.contains("open it for json_serialize"), "{text}");
}

#[test]
fn a_query_that_fails_is_looked_at_once_more() {
    let columns = "entry columns\nmatch dbms_sql\nout w_columns 119 J\\n\n";
    let query =
        "entry texts\nmatch json_serialize\ncolumn J CLOB\nrow 1\nentry plain\nmatch from t\ncolumn J JSON\n";
    let script = Script::new(&format!("{columns}{query}"));
    let mut driver = script.driver();
    driver.procedures = vec![declared("j", Shape::Value, "select j from t")];
    let mut stand = Stand::new(driver);
    for _ in 0..2 {
        assert_eq!(stand.result("j", json!([])), json!([1]));
    }
    let other = "entry other\nmatch json_serialize\ntimes 1\nerror 904 \"J\": invalid identifier\n";
    script.write(&format!("{other}{columns}{query}"));
    assert_eq!(stand.error("j", json!([]), json!({})).0, "crosspoint.error.sql.ora_00904");
    assert_eq!(stand.result("j", json!([])), json!([1]));
    assert_eq!(script.executed("dbms_sql").len(), 2);
}
