//! Installing, upgrading, removing.

use crosspoint::database::postgres::install::{INSTALLED_VERSION, Options, Plan, VERSIONS, Version};
use postgres::Client;

use super::schema::{Database, publish, refusal_of, run, shared, value};

/// A version that this program does not have, to upgrade to: a new column, and a new function that routers need.
const SECOND: Version = Version {
    number: 2,
    scripts: &[
        ("a column", "ALTER TABLE wamp.subscription ADD COLUMN IF NOT EXISTS note text;"),
        (
            "a function for routers",
            "CREATE OR REPLACE FUNCTION wamp.note() RETURNS text LANGUAGE sql SECURITY DEFINER \
             SET search_path = pg_catalog, pg_temp AS $$ SELECT max(note) FROM wamp.subscription $$; \
             REVOKE ALL ON FUNCTION wamp.note() FROM PUBLIC; \
             CREATE OR REPLACE FUNCTION wamp.trust_router(role text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
             EXECUTE format('GRANT EXECUTE ON FUNCTION wamp.note() TO %I', role); END $$;",
        ),
    ],
};

/// A version whose last statement fails.
const BROKEN: Version =
    Version { number: 2, scripts: &[("half of it", "CREATE TABLE wamp.half (); SELECT 1 / 0;")] };

fn installed(client: &mut Client) -> Option<u32> {
    value::<Option<i32>>(client, INSTALLED_VERSION).map(|number| number.try_into().unwrap())
}

fn upgrade(client: &mut Client, options: &Options) -> Result<(), postgres::Error> {
    let plan = Plan::upgrade(installed(client), options).unwrap();
    run(client, &plan)
}

/// Everything that is in the schema, as text.
fn contents(client: &mut Client) -> Vec<String> {
    let sql = "SELECT relkind::text || ' ' || relname || coalesce(relacl::text, '') FROM pg_class \
               WHERE relnamespace = 'wamp'::regnamespace \
               UNION ALL SELECT p.oid::regprocedure::text || md5(prosrc) || coalesce(proacl::text, '') FROM pg_proc AS p \
               WHERE pronamespace = 'wamp'::regnamespace ORDER BY 1";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_second_installation_changes_nothing() {
    let database = Database::empty();
    let mut owner = database.connect("owner");
    assert_eq!(installed(&mut owner), None);
    upgrade(&mut owner, &Options::default()).unwrap();
    assert_eq!(installed(&mut owner), Some(1));
    publish(&mut owner, "com.shop.a", "{}");
    let before = contents(&mut owner);
    assert!(before.len() > 50, "{before:?}");

    // The newest version again, and every script of it again on what is there, as somebody may do by hand.
    upgrade(&mut owner, &Options::default()).unwrap();
    assert_eq!(contents(&mut owner), before);
    for (name, sql) in VERSIONS.iter().flat_map(|version| version.scripts) {
        owner.batch_execute(sql).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    assert_eq!(contents(&mut owner), before);
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM wamp.outbox"), 1);
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM wamp.version"), 1);
}

#[test]
fn an_upgrade_keeps_what_is_there_and_gives_routers_what_is_new() {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    publish(&mut owner, "com.shop.a", "{}");
    let versions = [VERSIONS[0], SECOND];
    let plan = Plan::upgrade_through(&versions, installed(&mut owner), &Options::default()).unwrap();
    run(&mut owner, &plan).unwrap();
    assert_eq!(installed(&mut owner), Some(2));
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM wamp.outbox"), 1);
    database.connect("router").batch_execute("SELECT wamp.note()").unwrap();
    let mut ann = database.connect("ann");
    assert!(ann.batch_execute("SELECT wamp.note()").is_err());

    // This program does not know that version, and says so.
    let error = Plan::upgrade(installed(&mut owner), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");

    // From nothing it gets there as well.
    let fresh = Database::empty();
    let mut owner = fresh.connect("owner");
    run(&mut owner, &Plan::upgrade_through(&versions, None, &Options::default()).unwrap()).unwrap();
    assert_eq!(installed(&mut owner), Some(2));
}

#[test]
fn an_upgrade_that_fails_leaves_everything_as_it_was() {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    let before = contents(&mut owner);
    let plan = Plan::upgrade_through(&[VERSIONS[0], BROKEN], Some(1), &Options::default()).unwrap();
    assert_eq!(refusal_of(&run(&mut owner, &plan).unwrap_err()).code, "22012");
    assert_eq!(installed(&mut owner), Some(1));
    assert_eq!(contents(&mut owner), before);
}

#[test]
fn a_plan_for_another_version_does_nothing() {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    let before = contents(&mut owner);
    // Two programs have looked before one of them installed.
    let plan = Plan::upgrade(None, &Options::default()).unwrap();
    let refused = refusal_of(&run(&mut owner, &plan).unwrap_err());
    assert!(refused.message.contains("changed meanwhile"), "{refused:?}");
    assert_eq!(contents(&mut owner), before);
}

#[test]
fn foreign_schemas_are_left_alone() {
    let database = Database::empty();
    let mut owner = database.connect("owner");
    owner.batch_execute("CREATE SCHEMA wamp; CREATE TABLE wamp.theirs ()").unwrap();
    let refused = refusal_of(&upgrade(&mut owner, &Options::default()).unwrap_err());
    assert!(refused.message.contains("not Crosspoint's") && refused.hint.is_some(), "{refused:?}");
    // An empty one may have been made for the role that installs.
    owner.batch_execute("DROP TABLE wamp.theirs; CREATE SCHEMA crossbar").unwrap();
    upgrade(&mut owner, &Options::default()).unwrap();
    let crossbar = Options { crossbar: true, ..Options::default() };
    let refused = refusal_of(&upgrade(&mut owner, &crossbar).unwrap_err());
    assert!(refused.message.contains("\"crossbar\""), "{refused:?}");
    run(&mut owner, &Plan::uninstall(Some(1), false).unwrap()).unwrap();
    assert!(value::<bool>(&mut owner, "SELECT to_regnamespace('crossbar') IS NOT NULL"));
    assert!(value::<bool>(&mut owner, "SELECT to_regnamespace('wamp') IS NULL"));
}

#[test]
fn the_dry_run_is_a_script_that_installs() {
    let database = Database::empty();
    let mut superuser = database.superuser();
    superuser.batch_execute(&format!("CREATE ROLE \"{}_o'r\\x\" LOGIN", database.name)).unwrap();
    let options = Options {
        router: Some(format!("{}_o'r\\x", database.name)),
        everybody_publishes: Some(true),
        event_bytes_max: Some(65536),
        crossbar: true,
        ..Options::default()
    };
    let script = Plan::upgrade(None, &options).unwrap().to_string();
    shared().psql(&format!("\\connect {}\n{script}", database.name));
    assert_eq!(installed(&mut superuser), Some(1));
    assert_eq!(value::<i32>(&mut superuser, "SELECT event_bytes_max FROM wamp.setting"), 65536);

    // Everybody may publish, until that is taken back.
    database.create_role(&mut superuser, "bob");
    let mut bob = database.connect("bob");
    bob.batch_execute("SELECT crossbar.publish('any.topic', '[1]', '{}', NULL, false)").unwrap();
    let closed = Options { everybody_publishes: Some(false), ..Options::default() };
    upgrade(&mut superuser, &closed).unwrap();
    assert!(bob.batch_execute("SELECT crossbar.publish('any.topic')").is_err());
}

#[test]
fn nothing_is_lost_by_an_uninstallation() {
    let database = Database::installed();
    let mut owner = database.connect("owner");
    upgrade(&mut owner, &Options { crossbar: true, ..Options::default() }).unwrap();
    let gentle = Plan::uninstall(installed(&mut owner), false).unwrap();

    publish(&mut owner, "com.shop.a", "{}");
    let refused = refusal_of(&run(&mut owner, &gentle).unwrap_err());
    assert!(refused.message.contains("1 events have not been sent"), "{refused:?}");
    let (mut router, epoch) = database.lead();
    let last = super::schema::claim(&mut router, epoch)[0].1.unwrap();
    let refused = refusal_of(&run(&mut owner, &gentle).unwrap_err());
    assert!(refused.message.contains("1 events"), "assigned is not sent: {refused:?}");
    super::schema::mark(&mut router, epoch, last);

    owner.batch_execute("CREATE SCHEMA app").unwrap();
    for (make, drop, what) in [
        ("CREATE VIEW app.v AS SELECT wamp.authid() AS me", "DROP VIEW app.v", "view"),
        ("CREATE TABLE app.t (who text DEFAULT wamp.authid())", "DROP TABLE app.t", "default"),
        (
            "CREATE FUNCTION app.f() RETURNS text LANGUAGE sql RETURN wamp.authid()",
            "DROP FUNCTION app.f()",
            "function",
        ),
    ] {
        owner.batch_execute(make).unwrap();
        let refused = refusal_of(&run(&mut owner, &gentle).unwrap_err());
        assert!(
            refused.message.contains("built on the schema wamp") && refused.message.contains(what),
            "{refused:?}"
        );
        owner.batch_execute(drop).unwrap();
    }

    // Triggers go, tables and what is in them stay.
    owner
        .batch_execute("CREATE TABLE app.item (id int); SELECT wamp.watch('app.item', 'com.shop.item')")
        .unwrap();
    run(&mut owner, &gentle).unwrap();
    assert_eq!(installed(&mut owner), None);
    owner.batch_execute("INSERT INTO app.item VALUES (1)").unwrap();
    assert!(value::<bool>(
        &mut owner,
        "SELECT to_regnamespace('wamp') IS NULL AND to_regnamespace('crossbar') IS NULL"
    ));

    // And it can be installed again, and removed by force.
    upgrade(&mut owner, &Options::default()).unwrap();
    publish(&mut owner, "com.shop.a", "{}");
    run(&mut owner, &Plan::uninstall(Some(1), true).unwrap()).unwrap();
    assert_eq!(installed(&mut owner), None);
}

#[test]
fn roles_that_are_gone_do_no_harm() {
    let database = Database::installed();
    let (mut owner, mut superuser) = (database.connect("owner"), database.superuser());
    database.create_role(&mut superuser, "brief");
    let brief = database.role("brief");
    owner.execute("SELECT wamp.trust_router($1)", &[&brief]).unwrap();
    database.allow(&mut owner, "brief", "publish", "com.brief.", "prefix");
    superuser.batch_execute(&format!("DROP OWNED BY {brief}; DROP ROLE {brief}")).unwrap();
    // Rules of a role that is no more are rules for nobody: neither for others, nor for a new one of that name.
    publish(&mut database.connect("ann"), "com.shop.a", "{}");
    database.create_role(&mut superuser, "brief");
    assert!(database.connect("brief").batch_execute("SELECT wamp.publish('com.brief.a')").is_err());
    let versions = [VERSIONS[0], SECOND];
    run(&mut owner, &Plan::upgrade_through(&versions, Some(1), &Options::default()).unwrap()).unwrap();
}
