//! What only a server of Oracle can tell. There is none where Crosspoint is built: whoever has one says where with
//! ORACLE_TEST_DSN, as `oracle://user:password@host:1521/service`.

#![cfg(feature = "oracle")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests wait")]

use std::collections::BTreeMap;

use crosspoint::database::oracle::Oracle;
use crosspoint::database::oracle::settings::Settings;
use crosspoint::database::{Declared, Shape};
use serde_json::{Value, json};

mod harness;
#[path = "database/stand.rs"]
mod stand;

use stand::{End, Heard, How, Stand};

/// Where it is; or a line that nobody misses.
fn stand(procedures: &[(&str, Shape, &str)]) -> Option<Stand> {
    let Ok(url) = std::env::var("ORACLE_TEST_DSN") else {
        harness::not_tested("what only a server of Oracle can tell: ORACLE_TEST_DSN names none");
        return None;
    };
    let settings = Settings::parse(&url, &std::env::vars().collect::<BTreeMap<_, _>>()).unwrap();
    let mut driver = Oracle::new(settings, "realm1");
    driver.connections = 2;
    let declared = |&(uri, shape, sql): &(&str, Shape, &str)| Declared {
        uri: uri.to_owned(),
        sql: sql.to_owned(),
        shape,
        timeout_ms: 0,
        concurrency: 0,
    };
    driver.procedures = procedures.iter().map(declared).collect();
    Some(Stand::new(driver))
}

#[test]
fn values_and_errors_of_a_server() {
    let row = "select 1 / 4 as quarter, cast(7 as number(5)) as seven, 'x' as text, hextoraw('00ff') as bytes,
        date '2026-11-26' as day, to_clob('long') as clob, interval '1' day as span, null as nothing from dual";
    let block = "begin open :cursor_rows for select level as n from dual connect by level <= :most; :out_text := :text; end;";
    let Some(mut stand) = stand(&[
        ("row", Shape::Row, row),
        ("block", Shape::Rows, block),
        (
            "raise",
            Shape::Nothing,
            "begin raise_application_error(-20999, '{\"uri\":\"com.sold_out\"}'); end;",
        ),
        ("missing", Shape::Rows, "select * from there_is_no_such_table"),
    ]) else {
        return;
    };
    let row = json!([{
        "quarter": "0.25", "seven": 7, "text": "x", "bytes": "\0AP8=", "day": "2026-11-26T00:00:00", "clob": "long",
        "span": "P1D", "nothing": null,
    }]);
    assert_eq!(stand.result("row", json!([])), row);
    let block = stand.call("block", json!([]), json!({"most": 2, "text": "grün"}));
    assert_eq!(block, End::Result(Value::Null, json!({"rows": [{"n": "1"}, {"n": "2"}], "text": "grün"})));
    assert_eq!(stand.error("raise", json!([]), json!({})).0, "com.sold_out");
    assert_eq!(stand.error("missing", json!([]), json!({})).0, "wamp.error.no_such_procedure");
}

#[test]
fn a_server_stops_what_is_cancelled_and_what_takes_too_long() {
    let sleep = "begin dbms_session.sleep(30); end;";
    let Some(mut stand) =
        stand(&[("sleep", Shape::Nothing, sleep), ("one", Shape::Value, "select 1 from dual")])
    else {
        return;
    };
    let number = stand.begin("sleep", &json!([]), &json!({}), How::default()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    stand.cancel(number);
    let (_, Heard::End(End::Error(uri, ..))) = stand.next() else { panic!("it went on") };
    assert_eq!(uri, "wamp.error.canceled");
    let how = How { timeout_ms: 300, ..How::default() };
    let End::Error(uri, ..) = stand.call_as("sleep", &json!([]), &json!({}), how) else {
        panic!("it went on")
    };
    assert_eq!(uri, "wamp.error.timeout");
    for _ in 0..20 {
        assert_eq!(stand.result("one", json!([])), json!(["1"]));
    }
}
