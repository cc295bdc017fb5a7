//! What the drainer relies on: positions, bounds, the window, one leader, and that nobody is forgotten while it sleeps.

use postgres::Client;

use super::schema::{Database, claim, claim_at_most, mark, notified, publish, refusal, refusal_of, value};

fn positions(client: &mut Client, sql: &str) -> Vec<i64> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Trap: a row with a higher id is visible before one with a lower id. Whoever reads on from the last id loses one.
#[test]
fn a_row_that_commits_late_is_not_passed_over() {
    let database = Database::installed();
    let (mut slow, mut fast) = (database.connect("ann"), database.connect("ann"));
    let (mut router, epoch) = database.lead();
    let mut open = slow.transaction().unwrap();
    let lower: i64 = open.query_one("SELECT wamp.publish('com.shop.slow')", &[]).unwrap().get(0);
    let higher = publish(&mut fast, "com.shop.fast", "{}");
    assert!(lower < higher);
    let first = claim(&mut router, epoch);
    assert_eq!(first.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(higher, Some(1))]);
    mark(&mut router, epoch, 1);
    open.commit().unwrap();
    let second = claim(&mut router, epoch);
    assert_eq!(second.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(lower, Some(2))]);
    // Who resumes gets them in the order in which they were dispatched.
    assert_eq!(positions(&mut router, "SELECT position FROM wamp.replay(0)"), [1, 2]);
    assert_eq!(positions(&mut router, "SELECT position FROM wamp.replay(1)"), [2]);
}

/// Rows that are done stay in the index while anybody reads an older snapshot. Looking begins behind them, and never behind a
/// row that may still appear.
#[test]
fn looking_begins_behind_what_is_done_but_not_behind_who_is_late() {
    // Transactions of all databases of a server count.
    let database = Database::alone();
    let (mut late, mut ann, mut owner) =
        (database.connect("ann"), database.connect("ann"), database.connect("owner"));
    let (mut router, epoch) = database.lead();
    let mut reader = database.connect("owner");
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM wamp.outbox").unwrap();
    let round = |ann: &mut Client, router: &mut Client, count: usize| {
        for _ in 0..count {
            publish(ann, "com.shop.a", "{}");
            assert_eq!(claim(router, epoch).len(), 1);
        }
    };
    let floor = |client: &mut Client| value::<i64>(client, "SELECT floor FROM wamp.drain");
    round(&mut ann, &mut router, 3);
    let begun = floor(&mut owner);
    assert!(begun >= 1, "a reader is not in the way");

    // It has drawn its id, and is not there yet.
    late.batch_execute("BEGIN").unwrap();
    let id = publish(&mut late, "com.shop.late", "{}");
    round(&mut ann, &mut router, 5);
    assert!(floor(&mut owner) < id, "{} {id}", floor(&mut owner));
    late.batch_execute("COMMIT").unwrap();
    assert_eq!(claim(&mut router, epoch).iter().map(|row| row.0).collect::<Vec<_>>(), [id]);
    round(&mut ann, &mut router, 3);
    assert!(floor(&mut owner) > id);

    // A row below it that is tried again is found again.
    publish(&mut late, "com.shop.again", "{}");
    let aside = claim_at_most(&mut router, epoch, 1, 1000, 3)[0].0;
    round(&mut ann, &mut router, 3);
    assert!(floor(&mut owner) >= aside);
    assert!(value::<bool>(&mut owner, &format!("SELECT wamp.retry({aside})")));
    assert_eq!(claim(&mut router, epoch)[0].0, aside);
    reader.batch_execute("COMMIT").unwrap();

    // Nor are ids lost that begin anew.
    owner.batch_execute("TRUNCATE wamp.outbox RESTART IDENTITY").unwrap();
    publish(&mut ann, "com.shop.a", "{}");
    publish(&mut ann, "com.shop.a", "{}");
    assert_eq!(claim(&mut router, epoch).len(), 2);
}

#[test]
fn positions_are_durable_before_they_are_used_and_repeated_unchanged() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let (mut router, epoch) = database.lead();
    for n in 0..5 {
        publish(&mut ann, "com.shop.n", &format!("{{\"n\": {n}}}"));
    }
    // A claim that does not commit gives nothing away.
    router.batch_execute("BEGIN; SET LOCAL synchronous_commit = off").unwrap();
    assert_eq!(claim(&mut router, epoch).len(), 5);
    assert_eq!(value::<String>(&mut router, "SHOW synchronous_commit"), "on", "whatever it was set to");
    router.batch_execute("ROLLBACK").unwrap();
    assert_eq!(value::<i64>(&mut router, "SELECT last FROM wamp.progress()"), 0);

    let given = claim(&mut router, epoch);
    assert_eq!(given.iter().filter_map(|row| row.1).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    mark(&mut router, epoch, 2);
    // The router dies, and another leads.
    drop(router);
    let (mut router, epoch) = wait_for_lead(&database);
    let progress = router.query_one("SELECT pruned, sent, last FROM wamp.progress()", &[]).unwrap();
    assert_eq!((progress.get(0), progress.get(1), progress.get(2)), (0_i64, 2_i64, 5_i64));
    let unsent =
        |client: &mut Client, after: i64, rows: i32| -> Vec<(i64, Option<i64>, String, Option<String>)> {
            let sql = "SELECT id, position, uri, kwargs::text FROM wamp.unsent($1, $2, $3, 1000000)";
            let rows = client.query(sql, &[&epoch, &after, &rows]).unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
        };
    let again: Vec<_> = given[2..].iter().map(|row| (row.0, row.1, row.2.clone(), row.3.clone())).collect();
    assert_eq!(unsent(&mut router, 2, 100), again, "what was not marked, as it was");
    assert_eq!(unsent(&mut router, 3, 1), again[1..2]);
    assert_eq!(claim(&mut router, epoch), [], "and it is not given new positions");
    publish(&mut ann, "com.shop.n", "{}");
    assert_eq!(claim(&mut router, epoch)[0].1, Some(6));
    let refused = refusal(&mut router, &format!("SELECT wamp.mark({epoch}, 7)"));
    assert!(refused.message.contains("position 7 is not assigned"), "{refused:?}");
    mark(&mut router, epoch, 6);
    mark(&mut router, epoch, 3);
    assert_eq!(value::<i64>(&mut router, "SELECT sent FROM wamp.progress()"), 6, "never backwards");
}

/// The server notices that a session has gone some time after we do.
fn wait_for_lead(database: &Database) -> (Client, i64) {
    let mut client = database.connect("router");
    let begun = std::time::Instant::now();
    loop {
        if let Some(row) = client.query_opt("SELECT epoch FROM wamp.lead('test')", &[]).unwrap() {
            return (client, row.get(0));
        }
        assert!(begun.elapsed() < super::server::PATIENCE, "nobody can lead");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn one_leads_and_one_that_is_deposed_can_do_nothing() {
    let database = Database::installed();
    let (mut first, old) = database.lead();
    let mut second = database.connect("router");
    assert!(second.query_opt("SELECT * FROM wamp.lead('second')", &[]).unwrap().is_none());
    // To ask again is no second lock: one resignation frees it.
    let old: i64 =
        first.query_one("SELECT epoch FROM wamp.lead('first')", &[]).map(|row| row.get(0)).unwrap_or(old);
    first.execute("SELECT wamp.resign($1)", &[&old]).unwrap();
    let epoch: i64 = value(&mut second, "SELECT epoch FROM wamp.lead('second')");
    assert!(epoch > old);
    assert_eq!(value::<String>(&mut second, "SELECT leader FROM wamp.progress()"), "second");
    publish(&mut database.connect("ann"), "com.shop.a", "{}");
    for call in [
        format!("wamp.claim({old}, 1, 1, 1)"),
        format!("wamp.unsent({old}, 0, 1, 1)"),
        format!("wamp.mark({old}, 0)"),
        format!("wamp.awake({old})"),
        format!("wamp.doze({old})"),
        format!("wamp.horizon({old})"),
        format!("wamp.set_aside({old}, '{{1}}', 'x')"),
        format!("wamp.prune({old})"),
        format!("wamp.resign({old})"),
        "wamp.claim(NULL, 1, 1, 1)".to_owned(),
    ] {
        assert_eq!(refusal(&mut first, &format!("SELECT {call}")).code, "WA003", "{call}");
    }
    assert_eq!(claim(&mut second, epoch).len(), 1);
}

#[test]
fn a_claim_is_bounded_in_rows_and_bytes() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let (mut router, epoch) = database.lead();
    let size: i64 = {
        publish(&mut ann, "com.shop.a", "{\"x\": \"0123456789\"}");
        value(&mut router, &format!("SELECT bytes::bigint FROM wamp.claim({epoch}, 1, 1, 1000)"))
    };
    assert_eq!(size, "com.shop.a{\"x\": \"0123456789\"}".len() as i64);
    for _ in 0..6 {
        publish(&mut ann, "com.shop.a", "{\"x\": \"0123456789\"}");
    }
    let mut claimed = |rows, bytes| claim_at_most(&mut router, epoch, rows, bytes, 1000).len();
    assert_eq!(claimed(2, 1000), 2);
    assert_eq!(claimed(10, 2 * size), 2);
    assert_eq!(claimed(10, 0), 1, "one at least, or nothing would ever go on");
    assert_eq!(claimed(0, 1000), 0);
    assert_eq!(claimed(10, 1000), 1);

    let pages = |client: &mut Client, bytes: i64| {
        positions(client, &format!("SELECT position FROM wamp.replay(0, bytes_max => {bytes})")).len()
    };
    assert_eq!([pages(&mut router, 0), pages(&mut router, 3 * size), pages(&mut router, 1 << 20)], [1, 3, 7]);
    let unsent = format!("SELECT position FROM wamp.unsent({epoch}, 0, 100, {})", 2 * size);
    assert_eq!(positions(&mut router, &unsent), [1, 2]);
}

/// Sizes of one row each, in order; what fits goes, what is too long is set aside, and nothing waits behind it.
#[test]
fn a_poisoned_row_is_set_aside_and_blocks_nobody() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let (mut router, epoch) = database.lead();
    let with = |bytes: usize| format!("{{\"x\": \"{}\"}}", "y".repeat(bytes));
    for bytes in [5000, 10, 5000, 10, 10, 5000] {
        publish(&mut ann, "com.shop.a", &with(bytes));
    }
    let mut seen = Vec::new();
    loop {
        let rows = claim_at_most(&mut router, epoch, 10, 60, 1000);
        if rows.is_empty() {
            break;
        }
        seen.extend(rows.into_iter().map(|row| (row.0, row.1, row.3.is_some(), row.4)));
    }
    let reason = || Some("it has 5019 bytes, and the router takes at most 1000".to_owned());
    seen.sort();
    assert_eq!(
        seen,
        [
            (1, None, false, reason()),
            (2, Some(1), true, None),
            (3, None, false, reason()),
            (4, Some(2), true, None),
            (5, Some(3), true, None),
            (6, None, false, reason())
        ]
    );
    let backlog = "SELECT ARRAY[waiting, unsent, set_aside] FROM wamp.backlog()";
    assert_eq!(value::<Vec<i64>>(&mut router, backlog), [0, 3, 3]);
    let seen_by_author = "SELECT count(*) FROM wamp.publication WHERE set_aside LIKE '%at most 1000'";
    assert_eq!(value::<i64>(&mut ann, seen_by_author), 3);

    // The owner can have it tried again, and the drainer can set a row aside for reasons of its own.
    let mut owner = database.connect("owner");
    assert!(value::<bool>(&mut owner, "SELECT wamp.retry(3)"));
    assert!(!value::<bool>(&mut owner, "SELECT wamp.retry(3)"));
    assert!(!value::<bool>(&mut owner, "SELECT wamp.retry(2)"));
    publish(&mut ann, "com.shop.a", "{}");
    let aside = format!("SELECT wamp.set_aside({epoch}, '{{7, 2, 1}}', 'of no use')");
    assert_eq!(value::<i64>(&mut router, &aside), 1, "only what waits");
    assert_eq!(
        claim(&mut router, epoch).iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(),
        [(3, Some(4))]
    );
    assert_eq!(value::<String>(&mut ann, "SELECT set_aside FROM wamp.publication WHERE id = 7"), "of no use");

    router.execute("SELECT wamp.prune($1, leavings_keep => '0')", &[&epoch]).unwrap();
    assert_eq!(value::<Vec<i64>>(&mut router, backlog), [0, 4, 0]);
}

/// Statistics that were made when all rows waited, and plans that were made by them, must not have every claim read all rows.
#[test]
fn the_drainer_reads_by_indexes_whatever_statistics_say() {
    let database = Database::installed();
    let (mut router, epoch) = database.lead();
    let mut owner = database.connect("owner");
    database
        .connect("ann")
        .batch_execute("SELECT wamp.publish('com.shop.a') FROM generate_series(1, 5000)")
        .unwrap();
    for _ in 0..2 {
        owner.batch_execute("ANALYZE wamp.outbox").unwrap();
        router.batch_execute("BEGIN").unwrap();
        for _ in 0..7 {
            let claimed = claim_at_most(&mut router, epoch, 300, 1 << 20, 1 << 20);
            assert_eq!(claimed.len(), 300);
            mark(&mut router, epoch, claimed[299].1.unwrap());
            for function in [
                format!("unsent({epoch}, 0, 100, 100000)"),
                "replay(0, rows_max => 100)".to_owned(),
                format!("prune({epoch}, rows_keep => 1000000)"),
                "backlog()".to_owned(),
            ] {
                router.query(&format!("SELECT * FROM wamp.{function}"), &[]).unwrap();
            }
        }
        let sql = "SELECT seq_scan FROM pg_stat_xact_all_tables WHERE relid = 'wamp.outbox'::regclass";
        assert_eq!(value::<i64>(&mut router, sql), 0);
        let sql = "SELECT idx_scan FROM pg_stat_xact_all_tables WHERE relid = 'wamp.outbox'::regclass";
        assert!(value::<i64>(&mut router, sql) > 0, "it counts");
        router.batch_execute("COMMIT").unwrap();
    }
}

#[test]
fn the_backlog_is_known() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let (mut router, epoch) = database.lead();
    let backlog = "SELECT waiting, unsent, oldest IS NOT NULL FROM wamp.backlog()";
    let state = |router: &mut Client| -> (i64, i64, bool) {
        let row = router.query_one(backlog, &[]).unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    assert_eq!(state(&mut router), (0, 0, false));
    for _ in 0..4 {
        publish(&mut ann, "com.shop.a", "{}");
    }
    assert_eq!(state(&mut router), (4, 0, true));
    claim_at_most(&mut router, epoch, 3, 1000, 1000);
    assert_eq!(state(&mut router), (1, 3, true));
    mark(&mut router, epoch, 2);
    assert_eq!(state(&mut router), (1, 1, true));
    claim_at_most(&mut router, epoch, 3, 1000, 1000);
    assert_eq!(state(&mut router), (0, 2, true), "what has a position and was not sent is old, too");
    mark(&mut router, epoch, 4);
    assert_eq!(state(&mut router), (0, 0, false));
}

#[test]
fn who_resumes_gets_what_is_in_the_window_or_is_told() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let (mut router, epoch) = database.lead();
    for topic in ["com.shop.a", "com.shop.b", "com.shop.a.x", "com.shop.b.y", "com.shopping"] {
        // The last one is not allowed; it stands for nothing.
        let _ = ann.batch_execute(&format!("SELECT wamp.publish('{topic}')"));
    }
    claim(&mut router, epoch);
    mark(&mut router, epoch, 4);
    let mut replay =
        |arguments: &str| positions(&mut router, &format!("SELECT position FROM wamp.replay({arguments})"));
    assert_eq!(replay("0"), [1, 2, 3, 4]);
    assert_eq!(replay("4"), [] as [i64; 0]);
    assert_eq!(replay("1, 3"), [2, 3]);
    assert_eq!(replay("0, rows_max => 2"), [1, 2]);
    assert_eq!(replay("0, topic => 'com.shop.a', match => 'exact'"), [1]);
    assert_eq!(replay("0, topic => 'com.shop.a', match => 'prefix'"), [1, 3]);
    assert_eq!(replay("0, topic => 'com.shop.', match => 'wildcard'"), [1, 2]);
    assert_eq!(replay("0, topic => 'com..b.y', match => 'wildcard'"), [4]);
    assert_eq!(replay("0, topic => '...', match => 'wildcard'"), [3, 4]);
    // What means something to a regular expression does not here.
    assert_eq!(replay("0, topic => 'com.shop.[ab]', match => 'wildcard'"), [] as [i64; 0]);
    assert_eq!(replay("0, topic => 'com.sh*p.', match => 'wildcard'"), [] as [i64; 0]);

    for position in ["5", "-1", "NULL"] {
        let refused = refusal(&mut router, &format!("SELECT * FROM wamp.replay({position})"));
        assert_eq!((refused.code.as_str(), refused.hint.is_some()), ("WA002", true));
        assert_eq!(refused.detail.as_deref(), Some("The window reaches from 0 to 4."));
    }
    assert_eq!(value::<i64>(&mut router, &format!("SELECT wamp.prune({epoch}, rows_keep => 2)")), 2);
    assert_eq!(positions(&mut router, "SELECT position FROM wamp.replay(2)"), [3, 4]);
    assert!(value::<bool>(&mut router, "SELECT wamp.in_window(2) AND wamp.in_window(4)"));
    assert!(value::<bool>(&mut router, "SELECT NOT wamp.in_window(1) AND NOT wamp.in_window(5)"));
    let error = router.query("SELECT * FROM wamp.replay(1)", &[]).unwrap_err();
    assert_eq!(refusal_of(&error).code, "WA002", "a gap is never taken for silence");
}

#[test]
fn the_window_is_pruned_by_age_and_number_and_never_what_is_not_sent() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    let mut superuser = database.superuser();
    let (mut router, epoch) = database.lead();
    ann.batch_execute("SELECT wamp.publish('com.shop.a') FROM generate_series(1, 20)").unwrap();
    claim(&mut router, epoch);
    let prune = |router: &mut Client, arguments: &str| -> i64 {
        value(router, &format!("SELECT wamp.prune({epoch}, {arguments})"))
    };
    let kept = |client: &mut Client| positions(client, "SELECT position FROM wamp.outbox ORDER BY position");
    assert_eq!(prune(&mut router, "'0', 0"), 0, "nothing is sent yet");
    mark(&mut router, epoch, 12);

    assert_eq!(prune(&mut router, "'1 hour', 100"), 0);
    // By number: of 20 positions the newest 17.
    assert_eq!(prune(&mut router, "'1 hour', 17"), 3);
    assert_eq!(kept(&mut superuser), (4..=20).collect::<Vec<_>>());
    // By age. One older row behind a newer one waits for it: the window has no holes.
    let age =
        "UPDATE wamp.outbox SET assigned_at = assigned_at - interval '2 hours' WHERE position IN (4, 5, 7)";
    superuser.batch_execute(age).unwrap();
    assert_eq!(prune(&mut router, "'1 hour', 100"), 2);
    assert_eq!(kept(&mut superuser), (6..=20).collect::<Vec<_>>());
    // In steps, and to what is sent.
    assert_eq!(prune(&mut router, "'0', 0, 4"), 4);
    assert_eq!(prune(&mut router, "'0', 0, 4"), 3);
    assert_eq!(prune(&mut router, "'0', 0, 4"), 0);
    assert_eq!(kept(&mut superuser), (13..=20).collect::<Vec<_>>());
    let progress = router.query_one("SELECT pruned, sent, last FROM wamp.progress()", &[]).unwrap();
    assert_eq!((progress.get(0), progress.get(1), progress.get(2)), (12_i64, 12_i64, 20_i64));
    assert_eq!(
        positions(&mut router, &format!("SELECT position FROM wamp.unsent({epoch}, 12, 100, 100000)")).len(),
        8
    );

    // What waits is not touched either.
    ann.batch_execute("SELECT wamp.publish('com.shop.a')").unwrap();
    mark(&mut router, epoch, 20);
    assert_eq!(prune(&mut router, "'0', 0, 100"), 8);
    assert_eq!(claim(&mut router, epoch)[0].1, Some(21));
}

#[test]
fn positions_can_be_carried_beyond_what_subscribers_have_seen() {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    let (mut router, epoch) = database.lead();
    publish(&mut database.connect("ann"), "com.shop.a", "{}");
    claim(&mut router, epoch);
    assert_eq!(refusal(&mut owner, "SELECT wamp.advance_positions(1000)").code, "22023", "one is not sent");
    mark(&mut router, epoch, 1);
    owner.batch_execute("SELECT wamp.advance_positions(1000)").unwrap();
    publish(&mut database.connect("ann"), "com.shop.a", "{}");
    assert_eq!(claim(&mut router, epoch)[0].1, Some(1001));
    assert_eq!(refusal(&mut router, "SELECT * FROM wamp.replay(1)").code, "WA002");
    assert_eq!(positions(&mut router, "SELECT position FROM wamp.replay(1000)"), [1001]);
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

fn settled(client: &mut Client, horizon: &str) -> bool {
    client.query_one("SELECT wamp.settled($1::text::xid8)", &[&horizon]).unwrap().get(0)
}

/// Trap: to wait until all that runs is younger than the end of a snapshot. That is the number after the last transaction
/// that has *ended*; a publisher that is newer, and runs, lies beyond it.
#[test]
fn a_publisher_that_saw_the_drainer_awake_is_waited_for() {
    // Transactions of all databases of a server count.
    let database = Database::alone();
    let (mut router, epoch) = database.lead();
    router.batch_execute("LISTEN wamp").unwrap();
    router.execute("SELECT wamp.awake($1)", &[&epoch]).unwrap();
    let mut ann = database.connect("ann");
    // A publisher that gets its number between that of the drainer and the flip. It has had its snapshot for long.
    ann.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM wamp.publication")
        .unwrap();
    router.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
    ann.batch_execute("SELECT wamp.publish('com.shop.a')").unwrap();
    let publisher: String = value(&mut ann, "SELECT pg_current_xact_id()::text");
    router.execute("SELECT wamp.doze($1)", &[&epoch]).unwrap();
    router.batch_execute("COMMIT").unwrap();

    let end: String = value(&mut router, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text");
    let trap = format!("SELECT pg_snapshot_xmin(pg_current_snapshot()) >= '{end}'::xid8");
    assert!(value::<bool>(&mut router, &trap), "and the publisher {publisher} runs");

    let horizon: String = router.query_one("SELECT wamp.horizon($1)::text", &[&epoch]).unwrap().get(0);
    assert!(number(&horizon) > number(&publisher), "{horizon} {publisher}");
    assert!(!settled(&mut router, &horizon));
    assert_eq!(claim(&mut router, epoch), []);
    // Now a new one notifies, and the old one still does not.
    let mut other = database.connect("ann");
    publish(&mut other, "com.shop.b", "{}");
    assert!(notified(&mut router, "wamp"));
    assert_eq!(claim(&mut router, epoch).len(), 1);
    assert!(!settled(&mut router, &horizon));
    ann.batch_execute("COMMIT").unwrap();
    assert!(!notified(&mut router, "wamp"));
    assert!(settled(&mut router, &horizon));
    assert_eq!(claim(&mut router, epoch).len(), 1, "the last claim sees it");
}

#[test]
fn nobody_notifies_while_the_drainer_is_awake() {
    let database = Database::installed();
    let (mut router, epoch) = database.lead();
    router.batch_execute("LISTEN wamp").unwrap();
    let mut ann = database.connect("ann");
    publish(&mut ann, "com.shop.a", "{}");
    assert!(!notified(&mut router, "wamp"), "fresh");
    router.execute("SELECT wamp.doze($1)", &[&epoch]).unwrap();
    // A snapshot from before the flip does not hide the flip.
    let mut early = database.connect("ann");
    early
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM wamp.publication")
        .unwrap();
    router.execute("SELECT wamp.awake($1)", &[&epoch]).unwrap();
    router.execute("SELECT wamp.doze($1)", &[&epoch]).unwrap();
    early.batch_execute("SELECT wamp.publish('com.shop.a'); COMMIT").unwrap();
    assert!(notified(&mut router, "wamp"));
    ann.batch_execute("BEGIN; SELECT wamp.publish('com.shop.a'); ROLLBACK").unwrap();
    assert!(!notified(&mut router, "wamp"));
    router.execute("SELECT wamp.awake($1)", &[&epoch]).unwrap();
    publish(&mut ann, "com.shop.a", "{}");
    assert!(!notified(&mut router, "wamp"));
    // Who resigns leaves it awake: nobody listens.
    router.execute("SELECT wamp.doze($1)", &[&epoch]).unwrap();
    router.execute("SELECT wamp.resign($1)", &[&epoch]).unwrap();
    publish(&mut ann, "com.shop.a", "{}");
    assert!(!notified(&mut router, "wamp"));
}

#[test]
fn the_steps_to_sleep_cannot_be_run_together() {
    let database = Database::installed();
    let (mut router, epoch) = database.lead();
    let both = format!("BEGIN; SELECT wamp.doze({epoch}); SELECT wamp.horizon({epoch})");
    assert_eq!(refusal(&mut router, &both).code, "25000");
    router.batch_execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    assert_eq!(refusal(&mut router, &format!("SELECT wamp.claim({epoch}, 1, 1, 1)")).code, "25000");
    router.batch_execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    assert_eq!(refusal(&mut router, "SELECT wamp.settled('1')").code, "25000");
}

/// Events that are left in the log are older than all rows: those wait. Calls, whose order nobody sees, do not.
#[test]
fn rows_wait_until_the_log_is_read() {
    let database = Database::installed();
    let (mut ann, mut owner) = (database.connect("ann"), database.connect("owner"));
    database.allow(&mut owner, "ann", "call", "com.shop.", "prefix");
    let (mut router, epoch) = database.lead();
    owner.batch_execute("UPDATE wamp.setting SET log_is_on = true, log_ends = true").unwrap();
    let row = publish(&mut ann, "com.shop.row", "{}");
    assert_eq!(claim(&mut router, epoch), []);
    assert!(value::<bool>(&mut router, "SELECT pg_current_xact_id_if_assigned() IS NULL"));
    let call: i64 = value(&mut ann, "SELECT wamp.call_async('com.shop.call')");
    assert_eq!(claim(&mut router, epoch).iter().map(|row| row.0).collect::<Vec<_>>(), [call]);
    let content = r#"{"kind": "event", "uri": "com.shop.log", "kwargs": {}, "bytes": 14, "depth": 0, "db_user": "ann",
                      "published_at": "2026-11-26"}"#;
    let messages = format!("[[\"0/10\", 1, {content}]]");
    router.execute("SELECT wamp.feed($1, $2::text::json)", &[&epoch, &messages]).unwrap();
    let close = |router: &mut Client| router.execute("SELECT wamp.close_log($1)", &[&epoch]).unwrap();
    close(&mut router);
    let ends = "SELECT log_is_on AND log_ends FROM wamp.setting";
    assert!(value::<bool>(&mut owner, ends), "not while one of the log has no position");
    let claimed = claim(&mut router, epoch);
    assert_eq!(
        claimed.iter().map(|row| (row.1, row.2.as_str())).collect::<Vec<_>>(),
        [(Some(2), "com.shop.log")]
    );
    close(&mut router);
    assert!(!value::<bool>(&mut owner, "SELECT log_is_on OR log_ends FROM wamp.setting"));
    assert_eq!(
        claim(&mut router, epoch).iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(),
        [(row, Some(3))]
    );
}
