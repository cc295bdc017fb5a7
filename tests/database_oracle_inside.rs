//! What a database of Oracle does by itself, as clients of the router see it: its statements call, and events call its procedures.
//! Over a client library that plays scripts: what would be run is tested, not whether Oracle takes it.

#![cfg(feature = "oracle")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "clients live in real time")]

mod harness;
#[path = "database/oracle.rs"]
mod oracle;

use harness::{Client, Router, Start, wait_until};
use oracle::{INSTALLED, Script, catalogue};

const CONFIG: &str = r#"
[[realm]]
name = "realm1"
[[realm.role]]
name = "anonymous"
[[realm.role.permission]]
uri = ""
match = "prefix"
allow = "all"
[[realm.role]]
name = "database"
[[realm.role.permission]]
uri = "com."
match = "prefix"
allow = ["call", "subscribe"]
[[database]]
name = "shop"
type = "oracle"
realm = "realm1"
publish = true
refresh_ms = 3600000
"#;

const INSIDE: &str = "[database.inside]\nrole = \"database\"\nattempts = 2\ncall_timeout_ms = 20000\n";

const OWN: &str = "
entry nothing_claimed
match wamp_drain.claim
out r 0
entry inside
match wamp_ctx.inside
entry bury
match wamp_drain.bury
entry finish
match wamp_drain.finish_call
out on_schema SHOP
out on_package PKG
out on_procedure ON_ANSWER
entry no_call
match select id from
match wamp_call
column ID NUMBER 18
";

const PROCEDURES: [&str; 7] = [
    "PACKAGE|PKG|ON_READING|1|NO|P_ARGS|1|CLOB|N|IN|~|~|~",
    "PACKAGE|PKG|ON_READING|1|NO|P_KWARGS|2|VARCHAR2|N|IN|~|~|~",
    "PACKAGE|PKG|ON_READING|1|NO|P_DETAILS|3|JSON|N|IN|~|~|~",
    "PACKAGE|PKG|ON_ANSWER|2|NO|P_ID|1|NUMBER|N|IN|~|~|~",
    "PACKAGE|PKG|ON_ANSWER|2|NO|P_ARGS|2|CLOB|N|IN|~|~|~",
    "PACKAGE|PKG|ON_ANSWER|2|NO|P_KWARGS|3|CLOB|N|IN|~|~|~",
    "PACKAGE|PKG|ON_ANSWER|2|NO|P_ERROR|4|VARCHAR2|N|IN|~|~|~",
];

const HANDLERS: &str = "entry on_reading\nmatch \"ON_READING\"\nentry on_answer\nmatch \"ON_ANSWER\"\n";

/// Rows of the outbox, once or always.
fn rows(name: &str, times: &str, row: &str) -> String {
    let mut text = format!("entry {name}\nmatch position > :after\nmatch sent_at is null\n{times}\n");
    text.push_str("column POSITION NUMBER 18\ncolumn TOPIC VARCHAR2 1024\ncolumn SESSION_ID VARCHAR2 20\n");
    for name in ["ARGS", "KWARGS", "OPTIONS"] {
        text.push_str(&format!("column {name} VARCHAR2 4000\ncolumn {name}_LOB CLOB\n"));
    }
    text.push_str(&format!("column KIND VARCHAR2 5\ncolumn ID NUMBER 18\ncolumn DEPTH NUMBER 9\n{row}\n"));
    text
}

/// A call that was just committed: its number and position, what is called, and how long its caller still waits.
fn call(id: u32, uri: &str, left: &str) -> String {
    let claimed = format!("entry claimed{id}\nmatch wamp_drain.claim\ntimes 1\nout r 1\n");
    let nothing = rows(&format!("before{id}"), "times 1", "");
    let row = rows(&format!("row{id}"), "times 1", &format!("row {id}|{uri}|~|~|~|~|~|~|~|call|{id}|0"));
    let open = format!(
        "entry open{id}\nmatch select id from\nmatch wamp_call\ntimes 1\ncolumn ID NUMBER 18\nrow {id}\n"
    );
    let mut call = format!("entry call{id}\nmatch on_procedure,\ntimes 1\n");
    for column in ["URI", "DB_USER", "ON_PROCEDURE", "ARGS"] {
        call.push_str(&format!("column {column} VARCHAR2 1000\n"));
    }
    call.push_str(
        "column ARGS_LOB CLOB\ncolumn KWARGS VARCHAR2 1000\ncolumn KWARGS_LOB CLOB\ncolumn LEFT NUMBER 18\ncolumn DEPTH NUMBER 9\n",
    );
    call.push_str(&format!("row {uri}|ANN|ON_ANSWER|[1,2.50]|~|~|{{\"k\":[1]}}|{left}|3\n"));
    [claimed, nothing, row, open, call].concat()
}

/// What subscribes inside; `version` changes when that changes.
fn subscriptions(version: u32, rows: &[&str]) -> String {
    let mut text = format!("entry noted\nmatch sum(id)\ncolumn F VARCHAR2 100\nrow {version}\n");
    text.push_str(
        "entry subscriptions\nmatch procedure_name from\nmatch wamp_subscription\ncolumn ID NUMBER 18\n",
    );
    for column in ["TOPIC", "MATCH", "SCHEMA_NAME", "PACKAGE_NAME", "PROCEDURE_NAME"] {
        text.push_str(&format!("column {column} VARCHAR2 1024\n"));
    }
    rows.iter().for_each(|row| text.push_str(&format!("row {row}\n")));
    text
}

fn script(parts: &[&str]) -> String {
    [
        parts.concat(),
        rows("no_more", "", ""),
        HANDLERS.to_owned(),
        INSTALLED.to_owned(),
        OWN.to_owned(),
        catalogue(&PROCEDURES),
    ]
    .concat()
}

fn config(script: &Script, tables: &str) -> String {
    let settings = script.driver().settings;
    format!(
        "{CONFIG}url = \"oracle://shop:tiger@{}\"\nclient_path = \"{}\"\n{INSIDE}\
         [[database.procedure]]\nuri = \"com.one\"\nsql = \"select 1 from dual\"\n{tables}",
        settings.connect,
        oracle::client().display()
    )
}

fn router(script: &Script, tables: &str) -> Router {
    let router = Start::new(&config(script, tables)).router();
    router.wait_for_log("the database is there");
    router.wait_for_log("its functions subscribe");
    router
}

/// A client that counts its requests.
struct Party {
    client: Client,
    last: u64,
}

impl Party {
    fn join(router: &Router) -> Self {
        Self { client: Client::join(router.address(), "realm1"), last: 0 }
    }

    fn publish(&mut self, rest: &str) {
        self.last += 1;
        self.client.send(&format!("[16,{},{{}},{rest}]", self.last));
    }

    fn wait_for_subscription(&mut self, topic: &str, is_there: bool) {
        wait_until(topic, || {
            self.last += 1;
            let call = format!("[48,{},{{}},\"wamp.subscription.match\",[\"{topic}\"]]", self.last);
            self.client.ask(&call).ends_with("[null]]") != is_there
        });
    }
}

#[test]
fn statements_call_procedures_of_clients() {
    let plain = subscriptions(1, &[]);
    let script_file = Script::new(&script(&[&plain]));
    let router = router(&script_file, "");
    let mut callee = Client::join(router.address(), "realm1");
    assert!(callee.ask("[64,1,{},\"com.add\"]").starts_with("[65,1,"));

    script_file.write(&script(&[&call(41, "com.add", "~"), &plain]));
    let invocation = callee.receive().message();
    assert!(invocation.ends_with(",[1,2.50],{\"k\":[1]}]"), "{invocation}");
    let request = invocation.strip_prefix("[68,").unwrap().split(',').next().unwrap();
    callee.send(&format!("[70,{request},{{}},[12345678901234567890.50],{{\"b\":null}}]"));
    wait_until("the answer", || script_file.executed("\"ON_ANSWER\"").len() == 1);
    let noted = script_file.only("wamp_drain.finish_call");
    for (name, value) in
        [("id", "41"), ("args", "[12345678901234567890.50]"), ("kwargs", "{\"b\":null}"), ("error", "NULL")]
    {
        assert_eq!(noted.bound(name), value);
    }
    let given = script_file.only("\"ON_ANSWER\"");
    assert_eq!(given.sql, "begin\n\"SHOP\".\"PKG\".\"ON_ANSWER\"(:a0, :a1, :a2, :a3);\nend;");
    assert_eq!((given.bound("a0"), given.bound("a1")), ("41", "[12345678901234567890.50]"));
    assert_eq!((given.bound("a2"), given.bound("a3")), ("{\"b\":null}", "NULL"));
    // What it publishes came of as many events as the call did.
    let inside = script_file.only("wamp_ctx.inside");
    assert_eq!((inside.bound("realm"), inside.bound("depth")), ("realm1", "3"));
    // The answer, and what the procedure does with it, are one transaction.
    wait_until("the commit", || {
        let all = script_file.record("");
        let at = |part: &str| all.iter().position(|line| line.contains(part)).unwrap();
        let (noted, given) = (at("wamp_drain.finish_call"), at("\"ON_ANSWER\""));
        let begun = all[noted..given].iter().any(|line| line == "COMMIT");
        noted < given && !begun && all[given..].iter().any(|line| line == "COMMIT")
    });
    wait_until("the mark", || {
        script_file.executed("wamp_drain.mark").iter().any(|it| it.bound("upto") == "41")
    });

    // What is in nobody's time any more is called by nobody; and an error is an answer.
    script_file.write(&script(&[&call(42, "com.add", "-7"), &plain]));
    wait_until("that it is late", || script_file.executed("\"ON_ANSWER\"").len() == 2);
    script_file.write(&script(&[&call(43, "com.nobody", "5000"), &plain]));
    wait_until("that nobody is there", || script_file.executed("\"ON_ANSWER\"").len() == 3);
    let answers = script_file.executed("\"ON_ANSWER\"");
    let answers: Vec<_> = answers.iter().map(|it| (it.bound("a0"), it.bound("a3"))).collect();
    assert_eq!(
        answers[1..],
        [("42", "wamp.error.timeout"), ("43", "wamp.error.no_such_procedure")],
        "{answers:?}"
    );
    // Its session has the name of who called.
    let listed = callee.ask("[48,2,{},\"wamp.session.list\",[[\"database\"]]]");
    let id = listed.rsplit_once("[[").unwrap().1.split(']').next().unwrap().to_owned();
    let told = callee.ask(&format!("[48,3,{{}},\"wamp.session.get\",[{id}]]"));
    assert!(told.contains("\"authid\":\"ANN\"") && told.contains("\"authprovider\":\"database\""), "{told}");
    router.stop();
}

#[test]
fn events_call_procedures_and_failing_ones_are_put_aside() {
    let reading = subscriptions(1, &["1|com.sensor.|prefix|SHOP|PKG|ON_READING"]);
    let script_file = Script::new(&script(&[&reading]));
    let router = router(&script_file, "");
    let mut client = Party::join(&router);
    client.wait_for_subscription("com.sensor.x", true);
    client.publish("\"com.sensor.kitchen\",[21.50],{\"unit\":\"C\"}");
    wait_until("the procedure", || script_file.executed("\"ON_READING\"").len() == 1);
    let run = script_file.only("\"ON_READING\"");
    assert_eq!(run.sql, "begin\n\"SHOP\".\"PKG\".\"ON_READING\"(:a0, :a1, json(:a2));\nend;");
    assert_eq!((run.bound("a0"), run.bound("a1")), ("[21.50]", "{\"unit\":\"C\"}"));
    let details: serde_json::Value = serde_json::from_str(run.bound("a2")).unwrap();
    assert_eq!(details["topic"], "com.sensor.kitchen");
    assert!(details["publication"].is_u64());
    let inside = script_file.only("wamp_ctx.inside");
    assert_eq!((inside.bound("realm"), inside.bound("depth")), ("realm1", "1"));
    wait_until("the commit", || !script_file.record("COMMIT").is_empty());

    // One that fails is tried again, and in the end put aside.
    let fails = "entry fails\nmatch \"ON_READING\"\nerror 20001 it is poisoned\\nORA-06512: at line 1\n";
    script_file.write(&script(&[fails, &reading]));
    client.publish("\"com.sensor.hall\",[\"poison\"]");
    wait_until("the letter", || script_file.executed("wamp_drain.bury").len() == 1);
    let letter = script_file.only("wamp_drain.bury");
    for (name, value) in [
        ("procedure_name", "SHOP.PKG.ON_READING"),
        ("topic", "com.sensor.hall"),
        ("args", "[\"poison\"]"),
        ("kwargs", "{}"),
        ("error", "ORA-20001: it is poisoned"),
        ("attempts", "2"),
    ] {
        assert_eq!(letter.bound(name), value);
    }
    assert_eq!(script_file.executed("\"ON_READING\"").len(), 3);
    assert_eq!(script_file.record("ROLLBACK").len(), 2);
    router.wait_for_log("in wamp_dead_letter");

    // The next is given to it all the same, by a connection that was lost meanwhile.
    let lost = "entry lost\nmatch \"ON_READING\"\ntimes 1\nlost\n";
    script_file.write(&script(&[lost, &reading]));
    client.publish("\"com.sensor.hall\",[3]");
    wait_until("the other connection", || script_file.executed("\"ON_READING\"").len() == 5);
    assert_eq!(script_file.executed("\"ON_READING\"")[4].bound("a0"), "[3]");

    // Subscriptions follow while the router runs; one that cannot be is said.
    let others = subscriptions(
        2,
        &["2|com.sensor.|prefix|SHOP|PKG|NOT_THERE", "3|com.other|exact|SHOP|PKG|ON_ANSWER"],
    );
    script_file.write(&script(&[&others]));
    router.wait_for_log(
        "com.sensor. is not subscribed inside: there is no procedure SHOP.PKG.NOT_THERE to execute",
    );
    router.wait_for_log("SHOP.PKG.ON_ANSWER does not take 1 to 3 parameters");
    client.wait_for_subscription("com.sensor.x", false);
    router.stop();
}

#[test]
fn rows_say_how_many_sessions_got_them_where_that_is_wanted() {
    let plain = subscriptions(1, &[]);
    let script_file = Script::new(&script(&[&plain]));
    let config = config(&script_file, "").replace("publish = true", "publish = true\nfeedback = true");
    let router = Start::new(&config).router();
    router.wait_for_log("what the database publishes is read");
    let mut clients = [Party::join(&router), Party::join(&router)];
    for party in &mut clients {
        party.last += 1;
        assert!(party.client.ask("[32,1,{},\"com.shop.a\"]").starts_with("[33,1,"));
    }
    let event = |id: u32, topic: &str| {
        rows(&format!("row{id}"), "times 1", &format!("row {id}|{topic}|~|[{id}]|~|~|~|~|~|event|{id}|0"))
    };
    script_file.write(&script(&[&event(5, "com.shop.a"), &plain]));
    for party in &mut clients {
        assert!(party.client.receive().message().ends_with(",[5]]"));
    }
    let marks = || script_file.executed("wamp_drain.mark");
    wait_until("the mark", || marks().len() == 1);
    script_file.write(&script(&[&event(6, "com.shop.b"), &plain]));
    wait_until("the mark of what nobody got", || marks().len() == 2);
    let marks = marks();
    let marks: Vec<_> = marks.iter().map(|it| (it.bound("upto"), it.bound("receivers"))).collect();
    assert_eq!(marks, [("5", "[[5,2]]"), ("6", "[]")]);
    router.stop();
}

#[test]
fn the_configuration_subscribes_as_well() {
    let plain = subscriptions(1, &[]);
    let script_file = Script::new(&script(&[&plain]));
    let tables = "[[database.subscription]]\ntopic = \"com.sensor.\"\nmatch = \"prefix\"\nfunction = \"pkg.on_reading\"\n\
                  [[database.subscription]]\ntopic = \"com.other\"\nfunction = \"a.b.c.d\"\n\
                  [[database.subscription]]\ntopic = \"com.other\"\nfunction = \"pkg.nothing\"\n";
    let router = router(&script_file, tables);
    router.wait_for_log(
        "not subscribed, as the configuration says: com.other: a.b.c.d is neither procedure nor",
    );
    router.wait_for_log("com.other: there is no procedure SHOP.PKG.NOTHING to execute");
    let mut client = Party::join(&router);
    client.wait_for_subscription("com.sensor.x", true);
    client.publish("\"com.sensor.x\",[1]");
    wait_until("the procedure", || script_file.executed("\"ON_READING\"").len() == 1);
    // It is looked for again when something is compiled in that schema.
    let asks = script_file.executed("max(last_ddl_time)");
    assert!(asks.iter().any(|it| it.sql.contains("or owner in ('SHOP')")), "{asks:?}");
    router.stop();
}
