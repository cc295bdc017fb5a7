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
    let row =
        router.query_one("SELECT id, kind, uri FROM wamp.claim($1, 10, 1000, 1000)", &[&epoch]).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (id, "call", "com.shop.add"));
    // What there is to be called: also again, while nobody has answered it, but not what is under way.
    let open = "SELECT id, procedure, args::text, kwargs::text, left_ms, has_function, db_user FROM wamp.open_calls($1, $2, 10, 1000)";
    for _ in 0..2 {
        let row = router.query_one(open, &[&epoch, &Vec::<i64>::new()]).unwrap();
        assert_eq!((row.get(0), row.get(1)), (id, "com.shop.add"));
        assert_eq!((row.get(2), row.get(3)), ("[1, 2]", "{\"k\": 3}"));
        assert_eq!((row.get(4), row.get(5)), (None::<i64>, true));
        assert_eq!(row.get::<_, String>(6), database.role("ann"));
    }
    assert_eq!(router.query(open, &[&epoch, &vec![id]]).unwrap().len(), 0);
    assert_eq!(
        refusal(&mut router, &format!("SELECT wamp.open_calls({}, '{{}}', 1, 1)", epoch - 1)).code,
        "WA003"
    );
    // Calls are no events: who resumes is not shown them.
    assert_eq!(value::<i64>(&mut router, "SELECT count(*) FROM wamp.replay(0)"), 0);

    let finish = format!("SELECT wamp.finish_call({id}, '[3]', NULL)");
    let on_result: Option<String> = value(&mut router, &finish);
    assert_eq!(router.query(open, &[&epoch, &Vec::<i64>::new()]).unwrap().len(), 0, "it is answered");
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
fn open_calls_are_bounded_and_their_time_runs() {
    let database = prepared();
    let mut ann = database.connect("ann");
    for call in [
        "wamp.call_async('com.shop.a', '[1]')",
        "wamp.call_async('com.shop.b', '[2]', timeout_ms => 1)",
        "wamp.call_async('com.shop.c', '[3]', timeout_ms => 3600000)",
    ] {
        ann.batch_execute(&format!("SELECT {call}")).unwrap();
    }
    std::thread::sleep(Duration::from_millis(5));
    let (mut router, epoch) = database.lead();
    let mut open = |rows: i32, bytes: i64| -> Vec<(String, Option<i64>)> {
        let sql = "SELECT procedure, left_ms FROM wamp.open_calls($1, '{}', $2, $3)";
        router
            .query(sql, &[&epoch, &rows, &bytes])
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    };
    let all = open(10, 1000);
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["com.shop.a", "com.shop.b", "com.shop.c"]);
    assert_eq!((all[0].1, all[1].1), (None, Some(0)));
    assert!(all[2].1.is_some_and(|left| left > 0 && left <= 3_600_000));
    assert_eq!((open(2, 1000).len(), open(10, 30).len(), open(10, 0).len()), (2, 2, 1));
    for (call, code) in [
        ("wamp.call_async('com.shop.a', timeout_ms => 0)", "22023"),
        ("wamp.call_async('com.shop.a', jsonb_build_array(repeat('x', 2000000)))", "54000"),
    ] {
        assert_eq!(refusal(&mut ann, &format!("SELECT {call}")).code, code, "{call}");
    }
}

/// With the rights of a superuser the schema tells of changes of functions, and of nothing else.
#[test]
fn changes_of_functions_are_told_where_a_superuser_has_installed_it() {
    let database = prepared();
    let mut router = database.connect("router");
    router.batch_execute("LISTEN wamp_schema").unwrap();
    let mut superuser = database.superuser();
    let change = "CREATE FUNCTION app.new() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    superuser.batch_execute(change).unwrap();
    assert!(!notified(&mut router, "wamp_schema"), "the owner is no superuser");
    superuser
        .batch_execute(include_str!("../../src/database/postgres/install/version_1/changes.sql"))
        .unwrap();
    while notified(&mut router, "wamp_schema") {}
    let mut owner = database.connect("owner");
    for change in [
        "CREATE FUNCTION app.newer() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COMMENT ON FUNCTION app.newer() IS '@wamp timeout_ms=5'",
        "DROP FUNCTION app.newer()",
    ] {
        owner.batch_execute(change).unwrap();
        assert!(notified(&mut router, "wamp_schema"), "{change}");
    }
    owner.batch_execute("CREATE TEMPORARY TABLE passing (a int); DROP TABLE passing").unwrap();
    assert!(!notified(&mut router, "wamp_schema"));
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
