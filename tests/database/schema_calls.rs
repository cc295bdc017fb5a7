//! Registering, subscribing, calling out of the database.

use std::time::{Duration, Instant};

use super::schema::{Database, claim, notified, refusal, refusal_of, value};
use super::server::PATIENCE;

fn prepared() -> Database {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    for action in ["subscribe", "register", "call"] {
        database.allow(&mut owner, "ann", action, "com.shop.", "prefix");
    }
    owner
        .batch_execute(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
             CREATE FUNCTION app.on_event(args jsonb, kwargs jsonb, details jsonb) RETURNS void LANGUAGE sql AS '';
             CREATE FUNCTION app.on_result(id jsonb, args jsonb, kwargs jsonb, error jsonb) RETURNS void LANGUAGE sql AS '';
             CREATE FUNCTION app.\"Odd Name\"(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
             CREATE FUNCTION app.add(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a + b';
             CREATE FUNCTION app.add(a text) RETURNS text LANGUAGE sql AS 'SELECT a';
             CREATE PROCEDURE app.work(a int) LANGUAGE sql AS ''",
        )
        .unwrap();
    database
}

#[test]
fn registrations_are_kept_for_the_router() {
    let database = prepared();
    let mut ann = database.connect("ann");
    let mut router = database.connect("router");
    router.batch_execute("LISTEN wamp_schema").unwrap();
    for (uri, function, kept) in [
        ("com.shop.add", "app.add", "app.add"),
        ("com.shop.add2", "app.add(int, int)", "app.add(integer,integer)"),
        ("com.shop.odd", "app.\"Odd Name\"", "app.\"Odd Name\""),
        ("com.shop.work", "app.work", "app.work"),
        // Once more: replaced.
        ("com.shop.add", "app.add(text)", "app.add(text)"),
    ] {
        ann.execute("SELECT wamp.register($1, $2, '{\"timeout\": 5}')", &[&uri, &function]).unwrap();
        let sql = "SELECT function, options ->> 'timeout' FROM wamp.registration WHERE uri = $1";
        let row = router.query_one(sql, &[&uri]).unwrap();
        assert_eq!((row.get(0), row.get(1)), (kept, "5"));
        assert!(notified(&mut router, "wamp_schema"));
    }
    for (call, code) in [
        ("wamp.register('com.shop.x', 'app.none')", "42883"),
        ("wamp.register('com.shop.x', 'app.add(bigint)')", "42883"),
        ("wamp.register('com.shop.x', NULL)", "22023"),
        ("wamp.register('com.shop.x', 'add')", "22023"),
        ("wamp.register('com.shop.x', 'app.add', '[]')", "22023"),
        ("wamp.register('com.shop..x', 'app.add')", "22023"),
        ("wamp.register('wamp.x', 'app.add')", "22023"),
    ] {
        assert_eq!(refusal(&mut ann, &format!("SELECT {call}")).code, code, "{call}");
    }
    assert!(!notified(&mut router, "wamp_schema"));
    assert!(value::<bool>(&mut ann, "SELECT wamp.unregister('com.shop.add')"));
    assert!(notified(&mut router, "wamp_schema"));
    assert!(!value::<bool>(&mut ann, "SELECT wamp.unregister('com.shop.add')"));
    ann.batch_execute("SELECT wamp.reload()").unwrap();
    assert!(notified(&mut router, "wamp_schema"));
}

#[test]
fn subscriptions_are_kept_for_the_router() {
    let database = prepared();
    let mut ann = database.connect("ann");
    let mut router = database.connect("router");
    router.batch_execute("LISTEN wamp_schema").unwrap();
    let sql = "SELECT wamp.subscribe('com.shop.', 'app.on_event(jsonb, jsonb, jsonb)', 'prefix')";
    let id: i64 = value(&mut ann, sql);
    assert!(notified(&mut router, "wamp_schema"));
    assert_eq!(value::<i64>(&mut ann, sql), id, "the same again is the same");
    assert!(!notified(&mut router, "wamp_schema"));
    let row =
        router.query_one("SELECT topic, match, function, subscribed_by FROM wamp.subscription", &[]).unwrap();
    assert_eq!(
        (row.get(0), row.get(1), row.get(2)),
        ("com.shop.", "prefix", "app.on_event(jsonb,jsonb,jsonb)")
    );
    assert_eq!(row.get::<_, String>(3), database.role("ann"));
    for (call, code) in [
        ("wamp.subscribe('com.shop.a', 'app.add(int, int)')", "42P13"),
        ("wamp.subscribe('com.shop.a', 'app.on_result(jsonb, jsonb, jsonb, jsonb)')", "42P13"),
        ("wamp.subscribe('com.shop.a', NULL)", "42P13"),
        ("wamp.subscribe('com.shop.a', 'app.none(jsonb)')", "42883"),
        ("wamp.subscribe('com.shop.a', 'app.on_event(jsonb, jsonb, jsonb)', 'like')", "22023"),
        ("wamp.subscribe('com.shop.a', 'app.on_event(jsonb, jsonb, jsonb)', NULL)", "22023"),
        ("wamp.subscribe('com.shop.', 'app.on_event(jsonb, jsonb, jsonb)')", "22023"),
    ] {
        assert_eq!(refusal(&mut ann, &format!("SELECT {call}")).code, code, "{call}");
    }
    let undo = sql.replace("subscribe", "unsubscribe");
    assert!(value::<bool>(&mut ann, &undo));
    assert!(notified(&mut router, "wamp_schema"));
    assert!(!value::<bool>(&mut ann, &undo));
}

#[test]
fn events_that_failed_for_good_are_kept() {
    let database = prepared();
    let (mut router, epoch) = database.lead();
    let sql =
        "SELECT wamp.bury('app.on_event', 'com.shop.a', '[1]', '{}', '{\"publication\": 1}', 'boom', 5)";
    assert_eq!(value::<i64>(&mut router, sql), 1);
    let mut owner = database.connect("owner");
    assert_eq!(value::<String>(&mut owner, "SELECT error FROM wamp.dead_letter WHERE attempts = 5"), "boom");
    router.execute("SELECT wamp.prune($1)", &[&epoch]).unwrap();
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM wamp.dead_letter"), 1);
    router.execute("SELECT wamp.prune($1, leavings_keep => '0')", &[&epoch]).unwrap();
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM wamp.dead_letter"), 0);
}

#[test]
fn calls_go_out_with_their_transaction_and_are_answered_once() {
    let database = prepared();
    let mut ann = database.connect("ann");
    let sql = "SELECT wamp.call_async('com.shop.add', '[1, 2]', '{\"k\": 3}', 'app.on_result(jsonb, jsonb, jsonb, jsonb)')";
    ann.batch_execute(&format!("BEGIN; {sql}; ROLLBACK")).unwrap();
    let id: i64 = value(&mut ann, sql);
    assert_eq!(
        value::<Option<bool>>(&mut ann, &format!("SELECT wamp.call_result({id}) IS NULL")),
        Some(true)
    );
    let (mut router, epoch) = database.lead();
    let row = router
        .query_one(
            "SELECT id, kind, uri, args::text, kwargs::text FROM wamp.claim($1, 10, 1000, 1000)",
            &[&epoch],
        )
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (id, "call", "com.shop.add"));
    assert_eq!((row.get(3), row.get(4)), ("[1, 2]", "{\"k\": 3}"));
    // Calls are no events: who resumes is not shown them.
    assert_eq!(value::<i64>(&mut router, "SELECT count(*) FROM wamp.replay(0)"), 0);

    let finish = format!("SELECT wamp.finish_call({id}, '[3]', NULL)");
    let on_result: Option<String> = value(&mut router, &finish);
    assert_eq!(on_result.as_deref(), Some("app.on_result(jsonb,jsonb,jsonb,jsonb)"));
    assert_eq!(value::<Option<String>>(&mut router, &finish.replace("[3]", "[4]")), None, "once");
    let result: String = value(&mut ann, &format!("SELECT wamp.call_result({id})::text"));
    assert_eq!(result, r#"{"args": [3], "kwargs": {}}"#);

    // It is nobody else's.
    let mut superuser = database.superuser();
    database.create_role(&mut superuser, "eve");
    let mut eve = database.connect("eve");
    assert_eq!(refusal(&mut eve, &format!("SELECT wamp.call_result({id})")).code, "42501");
    assert_eq!(refusal(&mut ann, "SELECT wamp.call_result(4711)").code, "P0002");
    router.execute("SELECT wamp.prune($1, calls_keep => '0')", &[&epoch]).unwrap();
    assert_eq!(refusal(&mut ann, &format!("SELECT wamp.call_result({id})")).code, "P0002");
}

/// A router that answers one call, when there is one.
fn answer_one(database: &Database, answer: &str) {
    let (mut router, epoch) = database.lead();
    let begun = Instant::now();
    loop {
        if let Some(row) = claim(&mut router, epoch).first() {
            router.batch_execute(&format!("SELECT wamp.finish_call({}, {answer})", row.0)).unwrap();
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no call came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn calls_that_wait_get_their_answer() {
    let database = prepared();
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let mut ann = database.connect("ann");
        ann.batch_execute(&format!("SET default_transaction_isolation = '{isolation}'")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| answer_one(&database, "'[42]', '{\"a\": 1}'"));
            let row = ann
                .query_one("CALL wamp.call_wait('com.shop.add', '[40, 2]', NULL, NULL, 60000)", &[])
                .unwrap();
            assert_eq!(row.columns()[0].name(), "result");
        });
        let sql = "SELECT outcome::text FROM wamp.call ORDER BY id DESC LIMIT 1";
        assert_eq!(
            value::<String>(&mut database.connect("owner"), sql),
            r#"{"args": [42], "kwargs": {"a": 1}}"#
        );

        std::thread::scope(|scope| {
            scope.spawn(|| answer_one(&database, "'[\"gone\"]', NULL, 'com.shop.error.sold_out'"));
            let error = ann
                .batch_execute("CALL wamp.call_wait('com.shop.add', '[1]', NULL, timeout_ms => 60000)")
                .unwrap_err();
            let refused = refusal_of(&error);
            assert_eq!(
                (refused.code.as_str(), refused.hint.as_deref()),
                ("WA000", Some("com.shop.error.sold_out"))
            );
            assert_eq!(refused.detail.as_deref(), Some(r#"{"args": ["gone"], "kwargs": {}}"#));
        });
    }
}

#[test]
fn calls_that_wait_do_so_for_their_time_and_outside_of_transactions() {
    let database = prepared();
    let mut ann = database.connect("ann");
    let refused = refusal(&mut ann, "CALL wamp.call_wait('com.shop.add', '[]', '{}', timeout_ms => 30)");
    assert_eq!((refused.code.as_str(), refused.hint.as_deref()), ("WA000", Some("wamp.error.timeout")));
    let mut transaction = ann.transaction().unwrap();
    let error = transaction.batch_execute("CALL wamp.call_wait('com.shop.add', '[]', '{}')").unwrap_err();
    assert_eq!(refusal_of(&error).code, "2D000");
    transaction.rollback().unwrap();
    // The first was sent, and may still be answered; the second never was.
    let (mut router, epoch) = database.lead();
    assert_eq!(claim(&mut router, epoch).len(), 1);
}
