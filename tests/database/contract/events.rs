//! What databases publish.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::backend::Shared;
use super::client::{Event, Session};
use super::stage::{Setup, Stage, a_moment};

/// `com.say(topic, args, kwargs, options)`, all but the topic in JSON.
pub(crate) fn speaker(database: &Shared) -> Setup {
    let say = database.publish(":topic", ":args", ":kwargs", ":options");
    Setup::new(database).publishing().procedure("com.say", "value", &format!("select {say}"))
}

pub(crate) fn say(session: &mut Session, topic: &str, args: &str) {
    session.done("com.say", json!([topic, args, null, null]));
}

/// Who hears all of `com.`.
pub(crate) fn listener(stage: &Stage) -> Session {
    let mut session = stage.session();
    session.subscribe("com.", json!({"match": "prefix"}));
    session
}

fn topics(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| &*event.topic).collect()
}

pub(crate) fn an_event_comes_with_the_commit(database: &Shared) {
    let stage = speaker(database).start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    session.done("com.say", json!(["com.a", "[1, \"x\", null]", "{\"k\": [true]}", null]));
    let event = listener.event();
    assert_eq!(
        (&*event.topic, event.args, event.kwargs),
        ("com.a", json!([1, "x", null]), json!({"k": [true]}))
    );
    assert!(event.id.is_some());
    // Without arguments.
    session.done("com.say", json!(["com.b", null, null, null]));
    assert_eq!(listener.event().args, json!([]));
}

pub(crate) fn what_fails_publishes_nothing(database: &Shared) {
    let stage =
        speaker(database).procedure("com.fail", "nothing", &database.publish_and_fail("com.lost")).start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    for _ in 0..3 {
        session.failure("com.fail", json!([])).is("com.error.wanted");
    }
    say(&mut session, "com.kept", "[]");
    assert_eq!(listener.event().topic, "com.kept");
    listener.expect_no_event();
}

pub(crate) fn what_is_cancelled_publishes_nothing(database: &Shared) {
    let stage = speaker(database)
        .script("create table t (n integer);")
        .procedure_with("com.slow", "nothing", &database.publish_and_hang("com.lost"), "timeout_ms = 200")
        .start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    session.failure("com.slow", json!([])).is("wamp.error.timeout");
    say(&mut session, "com.kept", "[]");
    assert_eq!(listener.event().topic, "com.kept");
    listener.expect_no_event();
}

pub(crate) fn what_a_savepoint_takes_back_is_not_published(database: &Shared) {
    let (script, call) = database.publish_with_savepoint();
    let stage = speaker(database).script(&script).procedure("com.p", "nothing", &call).start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    session.call("com.p", json!([]));
    assert_eq!(topics(&listener.events(2)), ["com.before", "com.after"]);
    listener.expect_no_event();
}

pub(crate) fn events_of_one_writer_come_in_order(database: &Shared) {
    let stage = speaker(database).start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    let calls: Vec<_> = (0..100)
        .map(|number| {
            // The next when the one before is over: calls have no order between them.
            session
                .done("com.say", json!([format!("com.t{}", number % 3), format!("[{number}]"), null, null]))
        })
        .collect();
    assert_eq!(calls.len(), 100);
    let events = listener.events(100);
    assert!(events.iter().enumerate().all(|(at, event)| event.args == json!([at])), "{events:?}");
    assert!(events.is_sorted_by(|one, other| one.id < other.id), "{events:?}");
}

pub(crate) fn many_writers_lose_nothing_and_keep_their_order(database: &Shared) {
    let stage = speaker(database).start();
    let mut listener = listener(&stage);
    let address = stage.address();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            std::thread::spawn(move || {
                let mut session = Session::join(address);
                for number in 0..40 {
                    say(&mut session, "com.t", &format!("[{writer}, {number}]"));
                    if number % 10 == 0 {
                        // Long enough for who drains to fall asleep.
                        a_moment();
                    }
                }
            })
        })
        .collect();
    let events = listener.events(160);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let mut next = BTreeMap::new();
    for event in &events {
        let writer = event.args[0].as_u64().unwrap();
        let number = next.entry(writer).or_insert(0_u64);
        assert_eq!(event.args[1], json!(*number), "of {writer}");
        *number += 1;
    }
    assert!(events.is_sorted_by(|one, other| one.id < other.id));
    listener.expect_no_event();
}

pub(crate) fn an_event_of_a_mebibyte(database: &Shared) {
    let stage = speaker(database).start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    // What stands around it counts, too.
    let text = "x".repeat((1 << 20) - 200);
    for number in 0..3 {
        say(&mut session, "com.large", &format!("[{number}, \"{text}\"]"));
    }
    for number in 0..3 {
        let event = listener.event();
        assert_eq!(event.args[0], json!(number));
        assert!(event.args[1] == text);
    }
}

pub(crate) fn what_another_program_publishes_comes_as_well(database: &Shared) {
    let stage = speaker(database).start();
    let mut listener = listener(&stage);
    for round in 0..3 {
        other_program_says(database, &format!("com.other{round}"), "[7]");
        let event = listener.event();
        assert_eq!((event.topic, event.args), (format!("com.other{round}"), json!([7])));
        // Until who drains has fallen asleep.
        a_moment();
    }
    let held = database.hold(&other_program_sql(database, "com.late", "[8]"));
    a_moment();
    listener.expect_no_event();
    held.commit();
    assert_eq!(listener.event().topic, "com.late");
    database.hold(&other_program_sql(database, "com.never", "[9]")).roll_back();
    listener.expect_no_event();
}

/// A statement that publishes, of a program that has no functions of a router.
pub(crate) fn other_program_sql(database: &Shared, topic: &str, args: &str) -> String {
    let call = database.publish(&format!("'{topic}'"), &format!("'{args}'"), "null", "null");
    if call.starts_with("wamp.") {
        format!("select {call}")
    } else {
        format!("insert into wamp_outbox (topic, args) values ('{topic}', '{args}')")
    }
}

pub(crate) fn other_program_says(database: &Shared, topic: &str, args: &str) {
    database.execute(&other_program_sql(database, topic, args));
}

pub(crate) fn changes_of_a_table_are_events(database: &Shared) {
    let (tables, script) = database.watch();
    let stage = speaker(database)
        .script("create table item (id integer primary key, name text);")
        .script(&script)
        .tables(&tables)
        .procedure("com.put", "rows", "insert into item values (:id, :name)")
        .procedure("com.rename", "rows", "update item set name = :name where id = :id")
        .start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    session.value("com.put", json!([1, "tea"]));
    session.call_with("com.rename", json!({}), json!([]), json!({"id": 1, "name": "cup"}));
    database.execute("delete from item");
    let events = listener.events(3);
    assert_eq!(topics(&events), ["com.item.on_insert", "com.item.on_update", "com.item.on_delete"]);
    let (tea, cup) = (json!({"id": 1, "name": "tea"}), json!({"id": 1, "name": "cup"}));
    assert_eq!((&events[0].kwargs["op"], &events[0].kwargs["new"]), (&json!("insert"), &tea));
    assert_eq!((&events[1].kwargs["old"], &events[1].kwargs["new"]), (&tea, &cup));
    assert_eq!((&events[2].kwargs["op"], &events[2].kwargs["old"]), (&json!("delete"), &cup));
}

pub(crate) fn who_calls_does_not_hear_itself_unless_it_wants_to(database: &Shared) {
    let stage = speaker(database).start();
    let (mut other, mut own) = (listener(&stage), listener(&stage));
    say(&mut own, "com.a", "[]");
    own.done("com.say", json!(["com.b", null, null, "{\"exclude_me\": false}"]));
    assert_eq!(topics(&other.events(2)), ["com.a", "com.b"]);
    assert_eq!(own.event().topic, "com.b");
    own.expect_no_event();
}

pub(crate) fn events_go_to_whom_they_are_meant_for(database: &Shared) {
    let stage = speaker(database).start();
    let (mut one, mut other, mut session) = (listener(&stage), listener(&stage), stage.session());
    let mut say_to = |topic: &str, options: String| {
        session.done("com.say", json!([topic, null, null, options]));
    };
    say_to("com.a", format!("{{\"exclude\": [{}]}}", one.id));
    say_to("com.b", format!("{{\"eligible\": [{}]}}", one.id));
    say_to("com.c", "{}".to_owned());
    assert_eq!(topics(&one.events(2)), ["com.b", "com.c"]);
    assert_eq!(topics(&other.events(2)), ["com.a", "com.c"]);
}

pub(crate) fn what_is_no_publication_fails_at_once(database: &Shared) {
    let stage = speaker(database).start();
    let (mut listener, mut session) = (listener(&stage), stage.session());
    for (topic, args, kwargs, options) in [
        (json!("com. a"), json!(null), json!(null), json!(null)),
        (json!("wamp.session.on_join"), json!(null), json!(null), json!(null)),
        (json!(null), json!(null), json!(null), json!(null)),
        (json!("com.a"), json!("{}"), json!(null), json!(null)),
        (json!("com.a"), json!(null), json!("[]"), json!(null)),
        (json!("com.a"), json!(null), json!(null), json!("[]")),
        (json!("com.a"), json!("nonsense"), json!(null), json!(null)),
    ] {
        let call = json!([topic, args, kwargs, options]);
        let failure = session.failure("com.say", call.clone());
        assert!(!failure.uri.is_empty() && !failure.text.is_empty(), "{call} {failure:?}");
    }
    say(&mut session, "com.fine", "[]");
    assert_eq!(listener.event().topic, "com.fine");
    listener.expect_no_event();
}

pub(crate) fn events_reach_subscribers_of_every_core_and_pattern(database: &Shared) {
    let stage = speaker(database).start();
    let mut listeners: Vec<_> = (0..6)
        .map(|number| {
            let (topic, policy) =
                [("com.shop.item", "exact"), ("com.", "prefix"), ("com..item", "wildcard")][number % 3];
            let mut session = stage.session();
            session.subscribe(topic, json!({"match": policy}));
            session
        })
        .collect();
    let mut session = stage.session();
    for number in 0..20 {
        say(&mut session, "com.shop.item", &format!("[{number}]"));
    }
    let ids: Vec<Vec<_>> = listeners
        .iter_mut()
        .map(|listener| {
            let events = listener.events(20);
            assert!(events.iter().enumerate().all(|(at, event)| event.args == json!([at])));
            events.iter().map(|event| event.id).collect()
        })
        .collect();
    assert!(ids.iter().all(|other| *other == ids[0]), "an event has one id, whoever gets it");
}

pub(crate) fn a_slow_subscriber_holds_up_nobody_for_long(database: &Shared) {
    let stage = speaker(database).start();
    let login = super::client::Login { has_small_buffer: true, ..Default::default() };
    let mut slow = stage.session_as(login);
    slow.subscribe("com.", json!({"match": "prefix"}));
    let (mut listener, mut session) = (listener(&stage), stage.session());
    let text = "x".repeat(500_000);
    for number in 0..20 {
        say(&mut session, "com.t", &format!("[{number}, \"{text}\"]"));
        let event = listener.event();
        assert_eq!(event.args[0], json!(number));
    }
    // It reads nothing; what came first is there for it, in order, up to where it was given up.
    let mut next = 0;
    while let Ok(Some(event)) = slow.try_event_within(Duration::from_millis(500)) {
        assert_eq!(event.args[0], json!(next));
        next += 1;
    }
    assert!(next < 20, "it was given up");
}

/// Committed while no router runs: the next one publishes it.
pub(crate) fn what_is_committed_without_a_router_is_offered_by_the_next(database: &Shared) {
    let mut stage = speaker(database).start();
    let mut session = stage.session();
    say(&mut session, "com.a", "[0]");
    crate::harness::wait_until("that it was offered", || {
        stage.router.counters().of("database_publications") == 1
    });
    a_moment();
    stage.kill();
    for number in 1..=5 {
        other_program_says(database, "com.a", &format!("[{number}]"));
    }
    stage.start_again();
    crate::harness::wait_until("those five", || stage.router.counters().of("database_publications") >= 5);
    // And what comes then.
    let mut listener = listener(&stage);
    other_program_says(database, "com.b", "[6]");
    let event = loop {
        let event = listener.event();
        if event.topic == "com.b" {
            break event;
        }
    };
    assert_eq!(event.args, json!([6]));
    assert_eq!(event.id, Some(7));
}
