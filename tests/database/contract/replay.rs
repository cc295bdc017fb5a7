//! Subscribers that resume behind what they have seen (`_after`).

use serde_json::{Value, json};

use super::backend::Shared;
use super::client::{Login, Session};
use super::events::{listener, other_program_says, say, speaker};
use super::stage::{Stage, a_moment};
use crate::harness::wait_until;

/// Resumes as soon as the router has what the database publishes.
fn resume(stage: &Stage, topic: &str, after: u64, more: Value) -> Session {
    let mut session = stage.session();
    let mut options = json!({"_after": after});
    options.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    wait_until("that it may resume", || {
        let answer = session.try_subscribe(topic, options.clone());
        assert!(answer[0] == 33 || answer[4] == "wamp.error.unavailable", "{answer}");
        answer[0] == 33
    });
    session
}

/// Publishes `com.t` with these numbers.
fn publish(session: &mut Session, numbers: std::ops::Range<u64>) {
    for number in numbers {
        say(session, "com.t", &format!("[{number}]"));
    }
}

/// The next events are those of these numbers; the id of the last.
fn expect(session: &mut Session, numbers: std::ops::Range<u64>) -> u64 {
    let mut id = 0;
    for number in numbers {
        let event = session.event();
        assert_eq!(event.args, json!([number]));
        assert!(event.id > Some(id), "{event:?} behind {id}");
        id = event.id.unwrap();
    }
    id
}

pub(crate) fn what_came_meanwhile_comes_first(database: &Shared) {
    let stage = speaker(database).start();
    let (mut first, mut session) = (listener(&stage), stage.session());
    publish(&mut session, 0..5);
    let seen = expect(&mut first, 0..5);
    drop(first);
    publish(&mut session, 5..20);
    let mut again = resume(&stage, "com.t", seen, json!({}));
    publish(&mut session, 20..25);
    expect(&mut again, 5..25);
    again.expect_no_event();
}

pub(crate) fn behind_nothing_comes_all_that_is_kept(database: &Shared) {
    let stage = speaker(database).start();
    let mut session = stage.session();
    publish(&mut session, 0..30);
    let mut late = resume(&stage, "com.t", 0, json!({}));
    expect(&mut late, 0..30);
    publish(&mut session, 30..33);
    expect(&mut late, 30..33);
}

pub(crate) fn behind_the_last_comes_what_is_new(database: &Shared) {
    let stage = speaker(database).start();
    let (mut first, mut session) = (listener(&stage), stage.session());
    publish(&mut session, 0..3);
    let seen = expect(&mut first, 0..3);
    let mut again = resume(&stage, "com.t", seen, json!({}));
    again.expect_no_event();
    publish(&mut session, 3..6);
    expect(&mut again, 3..6);
}

pub(crate) fn patterns_resume_in_one_order(database: &Shared) {
    let stage = speaker(database).start();
    let (mut first, mut session) = (listener(&stage), stage.session());
    for number in 0..30_u64 {
        say(
            &mut session,
            ["com.a.item", "com.b.item", "com.other"][number as usize % 3],
            &format!("[{number}]"),
        );
    }
    let all = first.events(30);
    let (after, behind) = (all[9].id.unwrap(), &all[10..]);
    let mut prefix = resume(&stage, "com.", after, json!({"match": "prefix"}));
    assert_eq!(prefix.events(20), behind);
    let mut wildcard = resume(&stage, "com..item", after, json!({"match": "wildcard"}));
    let items: Vec<_> = behind.iter().filter(|event| event.topic != "com.other").cloned().collect();
    assert_eq!(wildcard.events(items.len()), items);
    wildcard.expect_no_event();
}

pub(crate) fn nobody_misses_anything_while_others_write(database: &Shared) {
    const ALL: u64 = 120;
    let stage = speaker(database).start();
    let mut session = stage.session();
    publish(&mut session, 0..1);
    let address = stage.address();
    let writer = std::thread::spawn(move || publish(&mut Session::join(address), 1..ALL));
    let mut late: Vec<_> = (0..12)
        .map(|number| {
            std::thread::sleep(std::time::Duration::from_millis(number * 7));
            resume(&stage, "com.t", 0, json!({}))
        })
        .collect();
    writer.join().unwrap();
    for one in &mut late {
        expect(one, 0..ALL);
        one.expect_no_event();
    }
}

pub(crate) fn who_was_with_another_router_resumes_with_the_next(database: &Shared) {
    let mut stage = speaker(database).start();
    let (mut first, mut session) = (listener(&stage), stage.session());
    publish(&mut session, 0..5);
    let seen = expect(&mut first, 0..3);
    publish(&mut session, 5..8);
    stage.kill();
    for number in 8..12 {
        other_program_says(database, "com.t", &format!("[{number}]"));
    }
    stage.start_again();
    stage.wait_until_offered();
    let mut again = resume(&stage, "com.t", seen, json!({}));
    publish(&mut stage.session(), 12..15);
    expect(&mut again, 3..15);
}

pub(crate) fn a_router_that_is_killed_again_and_again_costs_no_event(database: &Shared) {
    let mut stage = speaker(database).start();
    let (mut seen, mut next) = (0, 0);
    for round in 0..5 {
        let mut session = resume(&stage, "com.t", seen, json!({}));
        let mut writer = stage.session();
        publish(&mut writer, round * 10..round * 10 + 10);
        // Not all are taken before the router is gone.
        seen = expect(&mut session, next..next + 6);
        next += 6;
        stage.kill_and_start();
        stage.wait_until_offered();
    }
    expect(&mut resume(&stage, "com.t", seen, json!({})), next..50);
}

pub(crate) fn what_is_resumed_again_is_the_same(database: &Shared) {
    let stage = speaker(database).start();
    let (mut first, mut session) = (listener(&stage), stage.session());
    session.done("com.say", json!(["com.t", "[1, \"ü\", null]", "{\"k\": [1.5]}", null]));
    let text = "x".repeat((1 << 20) - 200);
    session.done("com.say", json!(["com.t", format!("[\"{text}\"]"), null, "{}"]));
    let live = first.events(2);
    for serializer in crosspoint::wamp::codec::Serializer::ALL {
        let login = Login { serializer: Some(serializer), ..Login::default() };
        let mut again = stage.session_as(login);
        // It has what the database publishes, since somebody has heard it.
        again.subscribe("com.", json!({"match": "prefix", "_after": 0}));
        assert!(again.events(2) == live, "{serializer:?}");
    }
}

pub(crate) fn who_was_not_meant_is_not_meant_later(database: &Shared) {
    let stage = speaker(database).user("ann").start();
    let mut session = stage.session();
    session.done("com.say", json!(["com.t", "[0]", null, "{\"eligible_authid\": [\"ann\"]}"]));
    say(&mut session, "com.t", "[1]");
    let mut anybody = resume(&stage, "com.t", 0, json!({}));
    expect(&mut anybody, 1..2);
    anybody.expect_no_event();
    let mut ann = stage.session_as(Login { authid: Some("ann"), ..Login::default() });
    ann.subscribe("com.t", json!({"_after": 0}));
    expect(&mut ann, 0..2);
}

pub(crate) fn what_was_rolled_back_is_not_there_later(database: &Shared) {
    let stage =
        speaker(database).procedure("com.fail", "nothing", &database.publish_and_fail("com.t")).start();
    let mut session = stage.session();
    publish(&mut session, 0..2);
    session.failure("com.fail", json!([])).is("com.error.wanted");
    publish(&mut session, 2..4);
    let mut late = resume(&stage, "com.t", 0, json!({}));
    expect(&mut late, 0..4);
    late.expect_no_event();
}

pub(crate) fn a_position_that_nobody_has_seen_is_refused(database: &Shared) {
    let stage = speaker(database).start();
    publish(&mut stage.session(), 0..2);
    let mut session = stage.session();
    let mut answer = Value::Null;
    wait_until("that it may resume", || {
        answer = session.try_subscribe("com.t", json!({"_after": 1_000_000}));
        answer[4] != "wamp.error.unavailable"
    });
    assert_eq!((&answer[0], &answer[4]), (&json!(8), &json!("crosspoint.error.events_not_kept")), "{answer}");
    // And it may subscribe otherwise.
    session.subscribe("com.t", json!({"_after": 0}));
    expect(&mut session, 0..2);
    let answer = session.try_subscribe("com.t", json!({"_after": 0}));
    assert_eq!((&answer[0], &answer[4]), (&json!(8), &json!("wamp.error.invalid_argument")), "{answer}");
}

pub(crate) fn resuming_waits_for_no_call(database: &Shared) {
    let stage =
        speaker(database).connections(1).procedure("com.endless", "value", &database.endless()).start();
    let mut session = stage.session();
    publish(&mut session, 0..5);
    let endless: Vec<_> = (0..3).map(|_| session.start("com.endless", json!([]))).collect();
    a_moment();
    expect(&mut resume(&stage, "com.t", 0, json!({})), 0..5);
    endless.into_iter().for_each(|call| session.cancel(call, "kill"));
}
