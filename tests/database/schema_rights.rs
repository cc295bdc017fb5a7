//! Who may do what: rules, privileges, and attempts to get round them.

use std::sync::{Arc, Mutex};

use crosspoint::database::postgres::install::{Options, Plan};

use super::schema::{Database, assert_denied, claim, publish, refusal, run, value};
use super::server::Setup;

#[test]
fn what_no_rule_allows_is_denied() {
    let database = Database::installed();
    let (mut owner, mut superuser) = (database.connect("owner"), database.superuser());
    for role in ["bob", "group", "member", "outside"] {
        database.create_role(&mut superuser, role);
    }
    database.allow(&mut owner, "bob", "publish", "com.shop.one", "exact");
    database.allow(&mut owner, "group", "publish", "com.group.", "prefix");
    let (group, member) = (database.role("group"), database.role("member"));
    let outside = database.role("outside");
    superuser
        // In this order: since PostgreSQL 16 a grant keeps whether it is inherited.
        .batch_execute(&format!("ALTER ROLE {outside} NOINHERIT; GRANT {group} TO {member}, {outside}"))
        .unwrap();

    let may = |role: &str, topic: &str| {
        let mut client = database.connect(role);
        let said: bool = value(&mut client, &format!("SELECT wamp.may('publish', '{topic}')"));
        let done = client.batch_execute(&format!("SELECT wamp.publish('{topic}')")).is_ok();
        assert_eq!(said, done, "{role} {topic}");
        done
    };
    for (role, topic, expected) in [
        ("ann", "com.shop.a", true),
        ("ann", "com.shopping", false),
        ("ann", "com.shop", false),
        ("bob", "com.shop.one", true),
        ("bob", "com.shop.one.more", false),
        ("bob", "com.shop.on", false),
        ("group", "com.group.a", true),
        ("member", "com.group.a", true),
        // As with every privilege, who does not inherit must take the role first, and that is not what is looked at.
        ("outside", "com.group.a", false),
        ("router", "com.shop.a", false),
        ("owner", "any.thing", true),
    ] {
        assert_eq!(may(role, topic), expected, "{role} {topic}");
    }
    database.allow(&mut owner, "public", "publish", "com.open.", "prefix");
    assert!(may("outside", "com.open.a"));
    let taken = "SELECT wamp.disallow('public', 'publish', 'com.open.', 'prefix')";
    assert!(value::<bool>(&mut owner, taken));
    assert!(!value::<bool>(&mut owner, taken));
    assert!(!may("outside", "com.open.a"));

    let refused = refusal(&mut database.connect("bob"), "SELECT wamp.publish('com.other')");
    assert!(refused.message.contains("may not publish 'com.other'"), "{refused:?}");
    assert!(refused.hint.unwrap().contains("wamp.allow("));
}

#[test]
fn the_login_decides_and_not_the_role_of_the_moment() {
    let database = Database::installed();
    let mut superuser = database.superuser();
    database.create_role(&mut superuser, "pool");
    let (ann, pool) = (database.role("ann"), database.role("pool"));
    superuser.batch_execute(&format!("ALTER ROLE {pool} NOINHERIT; GRANT {ann} TO {pool}")).unwrap();
    let mut client = database.connect("pool");
    client.batch_execute(&format!("SET ROLE {ann}")).unwrap();
    assert_denied(&mut client, &["SELECT wamp.publish('com.shop.a')"]);

    // Neither does a function that runs as somebody who may.
    database
        .connect("owner")
        .batch_execute(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; CREATE FUNCTION app.f() RETURNS bigint LANGUAGE sql \
             SECURITY DEFINER AS $$ SELECT wamp.publish('com.shop.a') $$",
        )
        .unwrap();
    client.batch_execute("RESET ROLE").unwrap();
    assert_denied(&mut client, &["SELECT app.f()"]);
    publish(&mut database.connect("ann"), "com.shop.a", "{}");
}

#[test]
fn an_ordinary_role_reaches_nothing_else() {
    let database = Database::installed();
    let mut ann = database.connect("ann");
    assert_denied(
        &mut ann,
        &[
            "SELECT * FROM wamp.outbox",
            "INSERT INTO wamp.rule VALUES (0, 'publish', '', 'prefix')",
            "UPDATE wamp.setting SET event_bytes_max = 16777216",
            "DELETE FROM wamp.drain",
            "SELECT last_value FROM wamp.asleep",
            "SELECT setval('wamp.asleep', 1)",
            "CREATE TABLE wamp.mine ()",
            "SELECT wamp.enqueue('event', 'com.other', NULL, NULL, NULL, NULL)",
            "SELECT wamp.allow('public', 'publish', '', 'prefix')",
            "SELECT wamp.trust_router(session_user)",
            "SELECT wamp.retry(1)",
            "SELECT wamp.advance_positions(1000)",
            "SELECT * FROM wamp.lead('mine')",
            "SELECT * FROM wamp.replay(0)",
            "SELECT wamp.finish_call(1, NULL, NULL, NULL)",
            "INSERT INTO wamp.publication (topic) VALUES ('com.other')",
            "ALTER FUNCTION wamp.publish(text, jsonb, jsonb, jsonb) SECURITY INVOKER",
        ],
    );
    // Of every function only these may be executed, whatever a later version adds.
    let sql = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'wamp'::regnamespace \
               AND has_function_privilege(oid, 'EXECUTE') ORDER BY 1";
    let names = |client: &mut postgres::Client| -> Vec<String> {
        client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let ordinary = names(&mut ann);
    assert_eq!(
        ordinary,
        [
            "authid",
            "authrole",
            "call_async",
            "call_result",
            "call_wait",
            "details",
            "error",
            "forget_watch",
            "may",
            "notify_row",
            "position",
            "publish",
            "realm",
            "record_watch",
            "register",
            "reload",
            "session",
            "subscribe",
            "trigger_name",
            "unregister",
            "unsubscribe",
            "unwatch",
            "watch"
        ]
    );
    let mut routers: Vec<_> = names(&mut database.connect("router"));
    routers.retain(|name| !ordinary.contains(name));
    assert_eq!(
        routers,
        [
            "awake",
            "backlog",
            "bury",
            "claim",
            "close_log",
            "doze",
            "feed",
            "finish_call",
            "horizon",
            "in_window",
            "lead",
            "log",
            "mark",
            "open_calls",
            "progress",
            "prune",
            "replay",
            "resign",
            "set_aside",
            "settled",
            "unsent"
        ]
    );
    // The router drains and no more.
    assert_denied(
        &mut database.connect("router"),
        &[
            "SELECT * FROM wamp.outbox",
            "SELECT wamp.publish('com.shop.a')",
            "SELECT wamp.allow('public', 'publish', '')",
        ],
    );
    let router = database.role("router");
    assert!(value::<bool>(
        &mut database.connect("owner"),
        &format!("SELECT wamp.distrust_router('{router}')")
    ));
    assert_denied(&mut database.connect("router"), &["SELECT * FROM wamp.lead('mine')"]);
}

#[test]
fn functions_with_rights_of_the_owner_have_their_search_path_pinned() {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    let sql = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'wamp'::regnamespace AND prosecdef \
               AND NOT coalesce(proconfig, '{}') @> '{\"search_path=pg_catalog, pg_temp\"}'";
    assert_eq!(value::<i64>(&mut owner, sql), 0);
    let definers = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'wamp'::regnamespace AND prosecdef";
    assert!(value::<i64>(&mut owner, definers) > 20);
    // Whoever may call a function without a pinned path may be fooled by it only about their own rights.
    let open = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'wamp'::regnamespace AND proconfig IS NULL \
                AND has_function_privilege('public', oid, 'EXECUTE')";
    let open: Vec<String> = owner.query(open, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(open, ["call_wait"]);
}

/// Functions and operators in front of the server's own, each of which would tell.
#[test]
fn a_search_path_full_of_traps_changes_nothing() {
    let database = Database::installed();
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!("GRANT CREATE ON DATABASE {} TO {}", database.name, database.role("ann")))
        .unwrap();
    let mut ann = database.connect("ann");
    ann.batch_execute(
        "CREATE SCHEMA trap;
         CREATE FUNCTION trap.jsonb_typeof(jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
         CREATE FUNCTION trap.octet_length(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
         CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
         CREATE FUNCTION trap.starts_with(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE FUNCTION trap.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
         CREATE FUNCTION trap.same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.same);
         CREATE TABLE trap.item (id int); CREATE TEMP TABLE rule (a int);
         SET search_path = trap, pg_catalog, pg_temp",
    )
    .unwrap();
    ann.batch_execute("SELECT wamp.publish('com.shop.a', '[1]', '{}', '{\"retain\": true}')").unwrap();
    ann.batch_execute("SELECT wamp.watch('item', 'com.shop.item'); INSERT INTO item VALUES (1)").unwrap();
    assert_denied(&mut ann, &["SELECT wamp.publish('com.other')"]);
    let refused = refusal(&mut ann, "SELECT wamp.error('com.shop.error')");
    assert_eq!(refused.code, "WA000");
    let (mut router, epoch) = database.lead();
    assert_eq!(claim(&mut router, epoch).len(), 2);
}

#[test]
fn only_trusted_roles_put_functions_into_the_router() {
    let database = Database::installed();
    let (mut owner, mut superuser) = (database.connect("owner"), database.superuser());
    owner
        .batch_execute(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
             CREATE FUNCTION app.on_event(args jsonb, kwargs jsonb, details jsonb) RETURNS void LANGUAGE sql AS '';
             CREATE FUNCTION app.secret(args jsonb) RETURNS void LANGUAGE sql AS '';
             REVOKE ALL ON FUNCTION app.secret(jsonb) FROM PUBLIC;
             CREATE FUNCTION app.add(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a + b'",
        )
        .unwrap();
    let mut ann = database.connect("ann");
    // To publish is no right to subscribe, register or call.
    assert_denied(
        &mut ann,
        &[
            "SELECT wamp.subscribe('com.shop.a', 'app.on_event(jsonb, jsonb, jsonb)')",
            "SELECT wamp.register('com.shop.add', 'app.add')",
            "SELECT wamp.call_async('com.shop.add')",
        ],
    );
    database.allow(&mut owner, "ann", "subscribe", "com.shop.", "prefix");
    database.allow(&mut owner, "ann", "register", "com.shop.", "prefix");
    database.allow(&mut owner, "ann", "call", "com.shop.", "prefix");
    ann.batch_execute("SELECT wamp.subscribe('com.shop.', 'app.on_event(jsonb, jsonb, jsonb)', 'prefix')")
        .unwrap();
    ann.batch_execute(
        "SELECT wamp.subscribe('com.shop..a', 'app.on_event(jsonb, jsonb, jsonb)', 'wildcard')",
    )
    .unwrap();
    ann.batch_execute("SELECT wamp.register('com.shop.add', 'app.add')").unwrap();
    assert_denied(
        &mut ann,
        &[
            // Patterns that reach further than the rule.
            "SELECT wamp.subscribe('com.', 'app.on_event(jsonb, jsonb, jsonb)', 'prefix')",
            "SELECT wamp.subscribe('com..a', 'app.on_event(jsonb, jsonb, jsonb)', 'wildcard')",
            "SELECT wamp.subscribe('.shop.a', 'app.on_event(jsonb, jsonb, jsonb)', 'wildcard')",
            "SELECT wamp.subscribe('', 'app.on_event(jsonb, jsonb, jsonb)', 'prefix')",
            // Functions that they may not execute themselves.
            "SELECT wamp.subscribe('com.shop.a', 'app.secret(jsonb)')",
            "SELECT wamp.register('com.shop.secret', 'app.secret')",
            "SELECT wamp.register('com.shop.secret', 'app.secret(jsonb)')",
            "SELECT wamp.call_async('com.shop.add', on_result => 'app.secret(jsonb)')",
        ],
    );
    // What somebody else has made is theirs, unless the owner says otherwise.
    database.create_role(&mut superuser, "eve");
    database.allow(&mut owner, "eve", "register", "com.shop.", "prefix");
    database.allow(&mut owner, "eve", "subscribe", "com.shop.", "prefix");
    let mut eve = database.connect("eve");
    assert_denied(
        &mut eve,
        &[
            "SELECT wamp.register('com.shop.add', 'app.add')",
            "SELECT wamp.unregister('com.shop.add')",
            "SELECT wamp.unsubscribe('com.shop.', 'app.on_event(jsonb, jsonb, jsonb)', 'prefix')",
        ],
    );
    assert!(value::<bool>(&mut owner, "SELECT wamp.unregister('com.shop.add')"));
    eve.batch_execute("SELECT wamp.register('com.shop.add', 'app.add')").unwrap();
}

/// Who knows the prefix writes any event, of any topic, into the log. Plans are shown to whoever wants to see them.
#[test]
fn the_prefix_of_the_log_is_in_no_plan() {
    let server = Setup::default().setting("wal_level", "logical").start();
    let database = Database::installed_on(&server);
    let options = Options { log: Some(true), ..Options::default() };
    run(&mut database.superuser(), &Plan::upgrade(Some(1), &options).unwrap()).unwrap();
    let prefix: String = value(&mut database.superuser(), "SELECT log_prefix FROM wamp.setting");
    assert!(prefix.len() > 20, "{prefix}");
    let told = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&told);
    let mut ann = database.connect_and_hear("ann", move |text| heard.lock().unwrap().push_str(text));
    for setting in ["debug_print_parse", "debug_print_rewritten", "debug_print_plan"] {
        ann.batch_execute(&format!("SET client_min_messages = log; SET {setting} = on")).unwrap();
    }
    // More often than a plan is made anew for the values at hand.
    for _ in 0..8 {
        publish(&mut ann, "com.shop.a", "{}");
    }
    let logged = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('wamp_' || (SELECT oid FROM pg_database
        WHERE datname = current_database()), NULL, NULL, 'proto_version', '1', 'publication_names', 'wamp', 'messages', 'true')";
    assert!(value::<i64>(&mut database.superuser(), logged) >= 8, "they are in the log");
    let told = told.lock().unwrap();
    assert!(told.contains("pg_logical_emit_message") || told.contains(":funcid"), "plans are shown");
    let bytes: Vec<_> = prefix.bytes().map(|byte| byte.to_string()).collect();
    assert!(!told.contains(&bytes.join(" ")) && !told.contains(&prefix), "the prefix is in a plan");
}
