//! What a database of Oracle publishes: the drainer and who resumes, over a client library that plays scripts.

#![cfg(feature = "oracle")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests wait")]

use std::time::{Duration, Instant};

use crosspoint::database::oracle::Oracle;
use crosspoint::database::pool::Notice;
use crosspoint::database::{BatchBounds, Declared, Driver as _, NotRead, Problem, PublicationLimits, Shape};
use crosspoint::router::database::{DatabaseIndex, Replay, ReplayNumber};
use crosspoint::wamp::codec::DecodeLimits;
use crosspoint::wamp::options::MatchPolicy;
use crosspoint::wamp::uri::UriLimits;
use serde_json::json;

#[path = "database/oracle.rs"]
mod oracle;
#[path = "database/stand.rs"]
mod stand;

use oracle::{INSTALLED, Script};
use stand::Stand;

const LIMITS: PublicationLimits = PublicationLimits {
    uri: UriLimits { bytes_max: 256, components_max: 32 },
    decode: DecodeLimits { depth_max: 64, list_max: 100 },
};

/// A driver that publishes, and offers something as well.
fn driver(script: &Script) -> Oracle {
    let mut driver = script.driver();
    driver.publishing = Some(LIMITS);
    let sql = "select 1 from dual".to_owned();
    let (uri, shape, timeout_ms, concurrency) = ("one".to_owned(), Shape::Value, 0, 0);
    driver.procedures = vec![Declared { uri, sql, shape, timeout_ms, concurrency }];
    driver
}

/// What is behind all others of its kind: nothing waits.
const NOTHING: &str = "
entry nothing_claimed
match wamp_drain.claim
out r 0
";

/// Rows that have positions: each its position, topic, session, and short args; all of it once, or always.
fn rows(name: &str, part: &str, times: &str, rows: &[&str]) -> String {
    let mut text = format!("entry {name}\nmatch position > :after\nmatch {part}\n{times}\n");
    text.push_str("column POSITION NUMBER 18\ncolumn TOPIC VARCHAR2 1024\ncolumn SESSION_ID VARCHAR2 20\n");
    for name in ["ARGS", "KWARGS", "OPTIONS"] {
        text.push_str(&format!("column {name} VARCHAR2 4000\ncolumn {name}_LOB CLOB\n"));
    }
    text.push_str("column KIND VARCHAR2 5\ncolumn ID NUMBER 18\ncolumn DEPTH NUMBER 9\n");
    for row in rows {
        text.push_str(&format!("row {row}\n"));
    }
    text
}

const UNSENT: &str = "sent_at is null";

/// Rows that say that there is a call, among others.
#[test]
fn calls_that_nobody_makes_are_answered_and_hold_nothing_up() {
    let script = Script::new(
        &[
            "entry claimed\nmatch wamp_drain.claim\ntimes 2\nout r 2\n",
            "entry finish\nmatch wamp_drain.finish_call\n",
            &rows("none", UNSENT, "times 1", &[]),
            // Two calls alone, and then one behind an event.
            &rows(
                "calls",
                UNSENT,
                "times 1",
                &["5|com.add|~|~|~|~|~|~|~|call|41", "6|com.add|~|~|~|~|~|~|~|call|42"],
            ),
            &rows("none_again", UNSENT, "times 1", &[]),
            &rows(
                "both",
                UNSENT,
                "times 1",
                &["7|com.shop.a|~|[1]|~|~|~|~|~|event|43", "8|com.add|~|~|~|~|~|~|~|call|44"],
            ),
            &rows("no_more", UNSENT, "", &[]),
            NOTHING,
            INSTALLED,
        ]
        .concat(),
    );
    let mut stand = Stand::new(driver(&script));
    assert_eq!(stand.publications(1), [(7, "[16,1,{},\"com.shop.a\",[1]]".to_owned())]);
    let begin = Instant::now();
    while script.executed("wamp_drain.mark").len() < 2 {
        assert!(begin.elapsed() < stand::PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    // What is behind the event is marked with it.
    let marks: Vec<_> =
        script.executed("wamp_drain.mark").iter().map(|it| it.bound("upto").to_owned()).collect();
    assert_eq!(marks, ["6", "8"]);
    let answers = script.executed("wamp_drain.finish_call");
    let answers: Vec<_> = answers.iter().map(|it| (it.bound("id"), it.bound("error"))).collect();
    let error = "wamp.error.feature_not_supported";
    assert_eq!(answers, [("41", error), ("42", error), ("44", error)]);
    assert!(script.executed("wamp_call").is_empty());
}

#[test]
fn positions_are_assigned_then_sent_then_marked() {
    let long = format!("[\"{}\"]", "x".repeat(5_000));
    let script = Script::new(
        &[
            // What an earlier router has left, and then what waits.
            rows("left", UNSENT, "times 1", &["5|com.shop.a|~|[1]|~|~|~|~|~"]),
            rows("none", UNSENT, "times 1", &[]),
            "entry claimed\nmatch wamp_drain.claim\ntimes 1\nout r 4\n".to_owned(),
            rows(
                "new",
                UNSENT,
                "times 1",
                &[
                    "6|com.shop.b|4711|[2]|~|{\"k\":true}|~|{\"exclude\":[1]}|~",
                    "7|wamp.not_yours|~|~|~|~|~|~|~",
                    &format!("8|com.shop.c|~|~|{long}|~|~|~|~"),
                    "9|com.shop.d|~|no json|~|~|~|~|~",
                ],
            ),
            rows("no_more", UNSENT, "", &[]),
            NOTHING.to_owned(),
            INSTALLED.to_owned(),
        ]
        .concat(),
    );
    let mut stand = Stand::new(driver(&script));
    let published = stand.publications(3);
    let expected = [
        (5, json!([16, 1, {}, "com.shop.a", [1]])),
        // Who calls does not get what the call publishes.
        (6, json!([16, 1, {"exclude": [1, 4711]}, "com.shop.b", [2], {"k": true}])),
        (8, json!([16, 1, {}, "com.shop.c", ["x".repeat(5_000)]])),
    ];
    for ((position, publish), expected) in published.iter().zip(&expected) {
        assert_eq!((*position, serde_json::from_str::<serde_json::Value>(publish).unwrap()), *expected);
    }
    let begin = Instant::now();
    while script.executed("wamp_drain.mark").len() < 2 {
        assert!(begin.elapsed() < stand::PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    // Each batch is marked when it was offered, by the epoch that leads.
    let marks = script.executed("wamp_drain.mark");
    let marks: Vec<_> = marks.iter().map(|it| (it.bound("epoch"), it.bound("upto"))).collect();
    assert_eq!(marks, [("3", "5"), ("3", "8")]);
    let asides = script.executed("wamp_drain.set_aside");
    let asides: Vec<_> = asides.iter().map(|it| it.bound("position")).collect();
    assert_eq!(asides, ["7", "9"]);
    let aside = |notice: &Notice| matches!(notice, Notice::SetAside(text) if text.starts_with("position 7 of wamp_outbox: the topic wamp.not_yours"));
    assert!(stand.notices().iter().any(aside), "{:?}", stand.notices());
    // Looked for behind what was given away, and not by anything else.
    let looks: Vec<_> = script.executed(UNSENT).iter().map(|it| it.bound("after").to_owned()).collect();
    assert_eq!(looks[..4], ["4", "5", "5", "9"]);
    drop(stand);
    assert_eq!(script.only("wamp_drain.release").bound("epoch"), "3");
}

#[test]
fn what_was_not_marked_is_offered_again_as_it_was() {
    let row = ["5|com.shop.a|~|[1]|~|~|~|~|~"];
    let script = Script::new(
        &[
            "entry lost\nmatch wamp_drain.mark\ntimes 1\nlost\n",
            &rows("twice", UNSENT, "times 2", &row),
            &rows("no_more", UNSENT, "", &[]),
            NOTHING,
            INSTALLED,
        ]
        .concat(),
    );
    let mut stand = Stand::new(driver(&script));
    let published = stand.publications(2);
    assert_eq!(published[0], published[1]);
    assert_eq!(script.executed("wamp_drain.lead").len(), 2);
}

#[test]
fn what_another_router_published_meanwhile_is_offered_when_the_place_is_back() {
    // This one offers 5, loses its place, and finds that another one has sent up to 8.
    let script = Script::new(
        &[
            "entry fenced\nmatch wamp_drain.mark\ntimes 1\nerror 20998 another router publishes what is in it\n",
            "entry sent_first\nmatch select sent from\ntimes 1\ncolumn SENT NUMBER 18\nrow 4\n",
            "entry sent_then\nmatch select sent from\ncolumn SENT NUMBER 18\nrow 8\n",
            "entry kept\nmatch select pruned, last\ncolumn P NUMBER 18\ncolumn L NUMBER 18\nrow 0|9\n",
            "entry begin\nmatch set transaction read only\n",
            &rows("own", UNSENT, "times 1", &["5|com.shop.a|~|[5]|~|~|~|~|~"]),
            &rows("next", UNSENT, "times 1", &["9|com.shop.a|~|[9]|~|~|~|~|~"]),
            &rows("no_more", UNSENT, "", &[]),
            &rows(
                "others",
                "fetch first 5000 rows",
                "",
                &[
                    "6|com.shop.a|~|[6]|~|~|~|~|~",
                    "8|com.other|~|[8]|~|~|~|~|~",
                    "9|com.shop.a|~|[9]|~|~|~|~|~",
                ],
            ),
            NOTHING,
            INSTALLED,
        ]
        .concat(),
    );
    let mut stand = Stand::new(driver(&script));
    let positions: Vec<_> = stand.publications(4).iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, [5, 6, 8, 9]);
    // It was looked for behind what was offered here.
    assert_eq!(script.only("fetch first 5000 rows").bound("after"), "5");
}

#[test]
fn it_sleeps_when_nothing_comes_and_is_woken() {
    let script = Script::new(&[&rows("no_more", UNSENT, "", &[]), NOTHING, INSTALLED].concat());
    let mut stand = Stand::new(driver(&script));
    let begin = Instant::now();
    while script.executed("wamp_drain.wait").is_empty() {
        assert!(begin.elapsed() < stand::PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let asleep = |script: &Script| -> Vec<String> {
        script.executed("wamp_drain.sleeps").iter().map(|it| it.bound("asleep").to_owned()).collect()
    };
    // Awake when it began; then it slept, and looked on for those who may not have known.
    assert_eq!(asleep(&script), ["0", "1"]);
    assert!(script.executed("wamp_drain.claim").len() > 3);
    let row = rows("new", UNSENT, "times 1", &["5|com.shop.a|~|~|~|~|~|~|~"]);
    script.write(&[&row, &rows("no_more", UNSENT, "", &[]), NOTHING, INSTALLED].concat());
    assert_eq!(stand.publications(1), [(5, "[16,1,{},\"com.shop.a\"]".to_owned())]);
    assert_eq!(asleep(&script)[..3], ["0", "1", "0"]);
}

#[test]
fn what_was_not_offered_yet_is_counted_when_somebody_asks() {
    let behind =
        "entry behind\nmatch min(published_at)\ncolumn C NUMBER 18\ncolumn M NUMBER 18\nrow 3|1500\n";
    let script = Script::new(&[behind, &rows("no_more", UNSENT, "", &[]), NOTHING, INSTALLED].concat());
    let stand = Stand::new(driver(&script));
    let counted = stand.counted_with_backlog(3);
    assert_eq!(counted.backlog.map(|backlog| backlog.oldest_ms), Some(1500));
}

/// What is said of a source that cannot be opened.
fn says(script: &Script) -> String {
    match driver(script).source() {
        Err(Problem(text)) => text,
        Ok(_) => panic!("it leads"),
    }
}

#[test]
fn what_is_missing_is_said() {
    let missing = Script::new("entry missing\nmatch max(version)\nerror 942 table or view does not exist");
    assert!(says(&missing).contains("there is no package wamp in the schema \"SHOP\""), "{}", says(&missing));
    assert!(says(&missing).contains("crosspoint db install"));
    let newer = Script::new("entry newer\nmatch max(version)\ncolumn V NUMBER 9\nrow 2");
    assert!(says(&newer).contains("has version 2, and this router knows version 1"));
    let led = "entry led\nmatch wamp_drain.lead\nout r ~\n";
    assert!(
        says(&Script::new(&format!("{led}{INSTALLED}")))
            .starts_with("another router publishes what is in it")
    );
}

#[test]
fn who_resumes_reads_what_is_kept() {
    let kept = "entry kept\nmatch select pruned, last\ncolumn P NUMBER 18\ncolumn L NUMBER 18\nrow 2|9\n";
    let begin = "entry begin\nmatch set transaction read only\n";
    let all = rows(
        "all",
        "error is null",
        "",
        &["3|com.shop.a|~|[3]|~|~|~|~|~", "4|com.other|~|[4]|~|~|~|~|~", "7|com.shop.b|~|[7]|~|~|~|~|~"],
    );
    let script = Script::new(&[kept, begin, &all, INSTALLED].concat());
    let mut replayer = driver(&script).replayer().unwrap().unwrap();
    let mut replay = |after, policy, publications_max| {
        let (number, database, topic) = (ReplayNumber(1), DatabaseIndex(0), "com.shop".into());
        let replay = Replay { number, database, after, topic, policy };
        replayer.replay(&replay, BatchBounds { publications_max, bytes_max: 1 << 20 })
    };
    let read = replay(2, MatchPolicy::Prefix, 10).unwrap();
    let positions: Vec<_> = read.publications.iter().map(|it| it.position).collect();
    assert_eq!((positions, read.upto, read.is_complete), (vec![3, 7], 9, true));
    let read = replay(2, MatchPolicy::Prefix, 1).unwrap();
    assert_eq!((read.publications.len(), read.upto, read.is_complete), (1, 3, false));
    // Before what is kept, and behind what there ever was.
    assert_eq!(replay(1, MatchPolicy::Prefix, 10), Err(NotRead::NotKept));
    assert_eq!(replay(10, MatchPolicy::Prefix, 10), Err(NotRead::NotKept));
    // All of one moment, which is over then.
    assert_eq!(script.executed("set transaction read only").len(), script.record("COMMIT").len());
}

#[test]
fn what_is_registered_in_the_database_is_offered() {
    let mut catalogue = "
entry there
match object_name = 'WAMP_CTX'
column C NUMBER 9
row 1
entry registered
match ora_hash
column R VARCHAR2 40
row 2 77
entry registrations
match wamp_registration
column URI VARCHAR2 1024
column SCHEMA_NAME VARCHAR2 128
column PACKAGE_NAME VARCHAR2 128
column PROCEDURE_NAME VARCHAR2 128
row com.vote|SHOP|PKG_VOTE|VOTE
row com.gone|SHOP|PKG_VOTE|GONE
entry set
match wamp_ctx.set
entry catalogue
match all_procedures
"
    .to_owned();
    for column in ["OBJECT_TYPE", "OBJECT_NAME", "PROCEDURE_NAME"] {
        catalogue.push_str(&format!("column {column} VARCHAR2 128\n"));
    }
    catalogue.push_str(
        "column SUBPROGRAM_ID NUMBER 9\ncolumn PIPELINED VARCHAR2 3\ncolumn ARGUMENT_NAME VARCHAR2 128\n",
    );
    catalogue
        .push_str("column POSITION NUMBER 9\ncolumn DATA_TYPE VARCHAR2 30\ncolumn DEFAULTED VARCHAR2 1\n");
    catalogue
        .push_str("column IN_OUT VARCHAR2 9\ncolumn DATA_PRECISION NUMBER 9\ncolumn DATA_SCALE NUMBER 9\n");
    catalogue.push_str(
        "column TYPE_NAME VARCHAR2 128\ncolumn TYPE_OWNER VARCHAR2 128\ncolumn TYPE_SUBNAME VARCHAR2 128\n",
    );
    catalogue.push_str("row PACKAGE|PKG_VOTE|VOTE|1|NO|P_ITEM|1|VARCHAR2|N|IN|~|~|~\n");
    catalogue.push_str("row PACKAGE|PKG_VOTE|OTHER|2|NO|~|~|~|~|~|~|~|~\n");
    let script = Script::new(&catalogue);
    let mut driver = driver(&script);
    driver.publishing = None;
    let mut stand = Stand::new(driver);
    let offered: Vec<_> = stand.offered.iter().map(|procedure| procedure.uri.to_string()).collect();
    assert_eq!(offered, ["one", "com.vote"]);
    let Some(Notice::Offers(2, problems)) = stand.notices().pop() else { panic!("{:?}", stand.notices()) };
    assert_eq!(problems, ["com.gone is not offered: there is no GONE in SHOP.PKG_VOTE to execute"]);
    stand.call("com.vote", json!(["nails"]), json!({}));
    assert_eq!(script.only("\"VOTE\"").bound("a0"), "nails");
}
