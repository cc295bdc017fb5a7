//! `wamp.publish`, `wamp.error`, and who calls.

use super::schema::{Database, claim, mark, publish, refusal, value};

#[test]
fn events_leave_with_their_transaction_and_only_then() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let (mut router, epoch) = database.lead();

    let mut transaction = ann.transaction().unwrap();
    transaction.batch_execute("SELECT wamp.publish('com.shop.a', '[1]')").unwrap();
    assert_eq!(claim(&mut router, epoch), [], "nothing before COMMIT");
    transaction.commit().unwrap();
    assert_eq!(claim(&mut router, epoch).len(), 1);

    let mut transaction = ann.transaction().unwrap();
    transaction.batch_execute("SELECT wamp.publish('com.shop.b')").unwrap();
    transaction.rollback().unwrap();
    assert_eq!(claim(&mut router, epoch), []);

    // A savepoint takes back what was published in it, and nothing else.
    let mut transaction = ann.transaction().unwrap();
    transaction.batch_execute("SELECT wamp.publish('com.shop.before')").unwrap();
    let mut savepoint = transaction.savepoint("part").unwrap();
    savepoint.batch_execute("SELECT wamp.publish('com.shop.undone')").unwrap();
    savepoint.rollback().unwrap();
    transaction
        .batch_execute(
            "DO $$ BEGIN PERFORM wamp.publish('com.shop.undone'); RAISE division_by_zero; \
             EXCEPTION WHEN division_by_zero THEN PERFORM wamp.publish('com.shop.after'); END $$",
        )
        .unwrap();
    transaction.commit().unwrap();
    let topics: Vec<_> = claim(&mut router, epoch).into_iter().map(|row| row.2).collect();
    assert_eq!(topics, ["com.shop.before", "com.shop.after"]);
}

#[test]
fn one_transaction_is_in_its_order() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    ann.batch_execute(
        "BEGIN; SELECT wamp.publish('com.shop.n', NULL, jsonb_build_object('n', n)) FROM generate_series(1, 2500) AS n; COMMIT",
    )
    .unwrap();
    let (mut router, epoch) = database.lead();
    // In batches smaller than the transaction, too.
    let mut positions = 0;
    loop {
        let rows = super::schema::claim_at_most(&mut router, epoch, 700, 16 << 20, 16 << 20);
        for row in &rows {
            positions += 1;
            assert_eq!(row.1, Some(positions), "without a gap");
            assert_eq!(row.3.as_deref(), Some(format!("{{\"n\": {positions}}}").as_str()));
        }
        if rows.is_empty() {
            break;
        }
    }
    assert_eq!(positions, 2500);
}

#[test]
fn payloads_are_exact_and_of_any_size_up_to_the_bound() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let (mut router, epoch) = database.lead();
    let exact = r#"{"big": 12345678901234567890.10, "text": "\" \\ \u0001 ü 😀", "null": null}"#;
    publish(&mut ann, "com.shop.exact", exact);
    let kwargs: String = claim(&mut router, epoch).remove(0).3.unwrap();
    for part in ["12345678901234567890.10", "ü 😀", "\\u0001", "\"null\": null"] {
        assert!(kwargs.contains(part), "{kwargs}");
    }

    // 1 MiB, counted as it is written in JSON, with the topic.
    let around = "com.shop.big".len() + r#"{"x": ""}"#.len();
    let text = |bytes: usize| format!("{{\"x\": \"{}\"}}", "y".repeat(bytes - around));
    publish(&mut ann, "com.shop.big", &text(1 << 20));
    assert_eq!(claim(&mut router, epoch)[0].3.as_deref(), Some(text(1 << 20).as_str()));
    let sql = |bytes: usize| format!("SELECT wamp.publish('com.shop.big', NULL, '{}')", text(bytes));
    let refused = refusal(&mut ann, &sql((1 << 20) + 1));
    assert_eq!((refused.code.as_str(), refused.hint.is_some()), ("54000", true));
    assert!(refused.message.contains("1048577 bytes, and at most 1048576"), "{refused:?}");

    database.connect("owner").batch_execute("UPDATE wamp.setting SET event_bytes_max = 16777216").unwrap();
    ann.batch_execute(&sql(9 << 20)).unwrap();
    assert_eq!(
        claim(&mut router, epoch)[0].3.as_deref().map(str::len),
        Some((9 << 20) - "com.shop.big".len())
    );
}

#[test]
fn what_cannot_be_published_is_refused_at_once() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    for (sql, words) in [
        ("wamp.publish(NULL)", "null"),
        ("wamp.publish('')", "not a URI"),
        ("wamp.publish('com.shop..a')", "not a URI"),
        ("wamp.publish('com.shop.')", "not a URI"),
        ("wamp.publish('com.shop.a b')", "not a URI"),
        ("wamp.publish(E'com.shop.a\\n')", "not a URI"),
        ("wamp.publish('com.shop.#')", "not a URI"),
        ("wamp.publish('com.shop.' || repeat('x', 1100))", "not a URI"),
        ("wamp.publish('com.shop' || repeat('.a', 63))", "not a URI"),
        ("wamp.publish('wamp.session.on_join')", "protocol's own"),
        ("wamp.publish('wamp')", "protocol's own"),
        ("wamp.publish('com.shop.a', '{}')", "array"),
        ("wamp.publish('com.shop.a', '1')", "array"),
        ("wamp.publish('com.shop.a', 'null')", "array"),
        ("wamp.publish('com.shop.a', NULL, '[]')", "object"),
        ("wamp.publish('com.shop.a', NULL, NULL, '[]')", "object"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"exlude\": [1]}')", "no option 'exlude'"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"durable\": false}')", "no option 'durable'"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"exclude\": [\"1\"]}')", "session ids"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"eligible\": [1.5]}')", "session ids"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"eligible\": [0]}')", "session ids"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"eligible_authid\": [1]}')", "strings"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"exclude_authrole\": \"x\"}')", "strings"),
        ("wamp.publish('com.shop.a', NULL, NULL, '{\"retain\": 1}')", "true or false"),
    ] {
        let refused = refusal(&mut ann, &format!("SELECT {sql}"));
        assert!(matches!(refused.code.as_str(), "22023" | "22004"), "{sql}: {refused:?}");
        assert!(refused.message.contains(words), "{sql}: {refused:?}");
    }
    let (mut router, epoch) = database.lead();
    assert_eq!(claim(&mut router, epoch), []);
    for sql in [
        "wamp.publish('com.shop' || repeat('.a', 62))",
        "wamp.publish('com.shop.ä')",
        "wamp.publish('com.shop.a', '[]', '{}', '{}')",
        "wamp.publish('com.shop.a', NULL, NULL, '{\"exclude\": [1, 9007199254740992], \"eligible_authid\": [\"x\"], \
         \"retain\": true, \"exclude_me\": false, \"disclose_me\": true, \"acknowledge\": true}')",
        "wamp.publish(topic => 'com.shop.a', kwargs => '{\"a\": 1}')",
    ] {
        ann.batch_execute(&format!("SELECT {sql}")).unwrap();
    }
    assert_eq!(claim(&mut router, epoch).len(), 5);
}

#[test]
fn errors_carry_uri_and_payload() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let refused = refusal(
        &mut ann,
        "SELECT wamp.error('com.shop.error.sold_out', 'none left', '[1]', '{\"item\": 7}')",
    );
    assert_eq!(refused.code, "WA000");
    assert_eq!(
        (refused.message.as_str(), refused.hint.as_deref()),
        ("none left", Some("com.shop.error.sold_out"))
    );
    assert_eq!(refused.detail.as_deref(), Some(r#"{"args": [1], "kwargs": {"item": 7}}"#));
    let refused = refusal(&mut ann, "SELECT wamp.error('wamp.error.invalid_argument')");
    assert_eq!(refused.hint.as_deref(), Some("wamp.error.invalid_argument"));
    assert_eq!(refused.detail.as_deref(), Some(r#"{"args": ["wamp.error.invalid_argument"], "kwargs": {}}"#));
    for bad in ["NULL", "''", "'no uri'", "'a..b'"] {
        assert_eq!(refusal(&mut ann, &format!("SELECT wamp.error({bad})")).code, "22023");
    }
}

#[test]
fn the_caller_is_known_inside() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let who = "SELECT wamp.realm() IS NULL AND wamp.session() IS NULL AND wamp.authid() IS NULL \
               AND wamp.authrole() IS NULL AND wamp.details() IS NULL";
    assert!(value::<bool>(&mut ann, who));
    let mut transaction = ann.transaction().unwrap();
    transaction
        .batch_execute(
            "SELECT set_config('wamp.realm', 'realm1', true), set_config('wamp.session', '9007199254740992', true), \
             set_config('wamp.authid', 'joe', true), set_config('wamp.authrole', 'user', true), \
             set_config('wamp.details', '{\"depth\": 3, \"claims\": {\"a\": 1}}', true)",
        )
        .unwrap();
    let row = transaction
        .query_one(
            "SELECT wamp.realm(), wamp.session(), wamp.authid(), wamp.authrole(), wamp.details() -> 'claims' ->> 'a', \
             wamp.publish('com.shop.a')",
            &[],
        )
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), ("realm1", 9_007_199_254_740_992_i64, "joe"));
    assert_eq!((row.get(3), row.get(4)), ("user", "1"));
    transaction.commit().unwrap();
    // Set for the transaction alone, they are empty afterwards and not an error.
    assert!(value::<bool>(&mut ann, who));
    let (mut router, epoch) = database.lead();
    let sql = "SELECT session, depth, db_user FROM wamp.claim($1, 10, 1000, 1000)";
    let row = router.query_one(sql, &[&epoch]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (Some(9_007_199_254_740_992_i64), 3));
    assert_eq!(row.get::<_, String>(2), database.role("ann"));
}

#[test]
fn publishers_see_what_became_of_their_own_events() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let ids: Vec<i64> = (0..3).map(|_| publish(&mut ann, "com.shop.a", "{}")).collect();
    publish(&mut database.connect("owner"), "com.other", "{}");
    let (mut router, epoch) = database.lead();
    claim(&mut router, epoch);
    router
        .execute("SELECT wamp.mark($1, 2, '{1,2}', '{17,0}', ARRAY[NULL, 'no such realm'])", &[&epoch])
        .unwrap();
    let rows = ann
        .query(
            "SELECT id, position, receivers, error, sent_at IS NOT NULL FROM wamp.publication ORDER BY id",
            &[],
        )
        .unwrap();
    let expected =
        [(1, Some(17), None, true), (2, Some(0), Some("no such realm"), true), (3, None, None, false)];
    assert_eq!(rows.len(), expected.len(), "only one's own");
    for ((row, id), (position, receivers, error, sent)) in rows.iter().zip(ids).zip(expected) {
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (id, position));
        assert_eq!(row.get::<_, Option<i64>>(2), receivers);
        assert_eq!((row.get::<_, Option<&str>>(3), row.get::<_, bool>(4)), (error, sent));
    }
    // What could not be dispatched is not shown to who resumes.
    let replayed = router.query("SELECT position FROM wamp.replay(0)", &[]).unwrap();
    assert_eq!(replayed.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [1, 3, 4]);
    mark(&mut router, epoch, 4);
}

#[test]
fn the_old_name_publishes() {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    let options = crosspoint::database::postgres::install::Options { crossbar: true, ..Default::default() };
    let plan = crosspoint::database::postgres::install::Plan::upgrade(Some(1), &options).unwrap();
    super::schema::run(&mut owner, &plan).unwrap();
    super::schema::run(&mut owner, &plan).unwrap();
    let mut ann = database.connect("ann");
    let all = "SELECT crossbar.publish('com.shop.a', '[1]'::jsonb, '{\"b\": 2}'::jsonb, NULL::jsonb, false)";
    assert!(value::<i64>(&mut ann, all) > 0);
    assert!(value::<i64>(&mut ann, "SELECT crossbar.publish('com.shop.a')") > 0);
    assert_eq!(refusal(&mut ann, "SELECT crossbar.publish('com.shop.a', autonomous => true)").code, "0A000");
    super::schema::assert_denied(&mut ann, &["SELECT crossbar.publish('com.other')"]);
    let (mut router, epoch) = database.lead();
    assert_eq!(claim(&mut router, epoch).len(), 2);
}
