//! `wamp.watch` and its trigger.

use super::schema::{Database, assert_denied, claim, refusal, value};

/// A schema `app` of the role `maker`, who may publish below `com.shop.`, and whose tables `writer` may change.
fn with_tables(sql: &str) -> Database {
    let database = Database::installed();
    let (mut owner, mut superuser) = (database.connect("owner"), database.superuser());
    database.create_role(&mut superuser, "maker");
    database.create_role(&mut superuser, "writer");
    database.allow(&mut owner, "maker", "publish", "com.shop.", "prefix");
    let maker = database.role("maker");
    superuser.batch_execute(&format!("CREATE SCHEMA app AUTHORIZATION {maker}")).unwrap();
    let grants = "GRANT USAGE ON SCHEMA app TO PUBLIC; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO PUBLIC";
    database.connect("maker").batch_execute(&format!("SET search_path = app; {sql}; {grants}")).unwrap();
    database
}

/// Topics and kwargs of what waits.
fn events(database: &Database) -> Vec<(String, String)> {
    let (mut router, epoch) = database.lead();
    claim(&mut router, epoch).into_iter().map(|row| (row.2, row.3.unwrap())).collect()
}

fn event(topic: &str, kwargs: &str) -> (String, String) {
    (topic.to_owned(), kwargs.to_owned())
}

#[test]
fn changes_of_rows_are_events() {
    let database = with_tables("CREATE TABLE item (id int PRIMARY KEY, name text, price numeric(10, 2))");
    let mut maker = database.connect("maker");
    maker.batch_execute("SELECT wamp.watch('app.item', 'com.shop.item')").unwrap();
    // The one who writes may not publish: the one who watches was asked.
    let mut writer = database.connect("writer");
    writer
        .batch_execute(
            "INSERT INTO app.item VALUES (1, 'it''s', 1.10); UPDATE app.item SET price = 2; UPDATE app.item SET price = price; \
             DELETE FROM app.item",
        )
        .unwrap();
    writer.batch_execute("BEGIN; INSERT INTO app.item VALUES (2, NULL, NULL); ROLLBACK").unwrap();
    let old = r#"{"id": 1, "name": "it's", "price": 1.10}"#;
    let new = r#"{"id": 1, "name": "it's", "price": 2.00}"#;
    assert_eq!(
        events(&database),
        [
            event(
                "com.shop.item.on_insert",
                &format!(r#"{{"op": "insert", "new": {old}, "table": "app.item"}}"#)
            ),
            event(
                "com.shop.item.on_update",
                &format!(r#"{{"op": "update", "new": {new}, "old": {old}, "table": "app.item"}}"#)
            ),
            event(
                "com.shop.item.on_delete",
                &format!(r#"{{"op": "delete", "old": {new}, "table": "app.item"}}"#)
            ),
        ]
    );
    assert_denied(&mut writer, &["SELECT wamp.publish('com.shop.item.on_insert')"]);

    assert!(value::<bool>(&mut maker, "SELECT wamp.unwatch('app.item', 'com.shop.item')"));
    assert!(!value::<bool>(&mut maker, "SELECT wamp.unwatch('app.item', 'com.shop.item')"));
    writer.batch_execute("INSERT INTO app.item VALUES (1)").unwrap();
    assert_eq!(events(&database), []);
}

#[test]
fn only_chosen_columns_are_shown() {
    let database = with_tables("CREATE TABLE item (id int, name text, secret text)");
    let mut maker = database.connect("maker");
    maker.batch_execute("SELECT wamp.watch('app.item', 'com.shop.item', '{id,name}')").unwrap();
    maker.batch_execute("SELECT wamp.watch('app.item', 'com.shop.number', '{id}')").unwrap();
    let mut writer = database.connect("writer");
    writer
        .batch_execute("INSERT INTO app.item VALUES (1, 'a', 'x'); UPDATE app.item SET secret = 'y'")
        .unwrap();
    writer.batch_execute("UPDATE app.item SET name = 'b'").unwrap();
    let mut seen = events(&database);
    seen.sort();
    let topics: Vec<_> = seen.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["com.shop.item.on_insert", "com.shop.item.on_update", "com.shop.number.on_insert"]);
    assert!(seen[0].1.contains(r#""new": {"id": 1, "name": "a"}"#), "{seen:?}");
    assert!(seen[2].1.contains(r#""new": {"id": 1}"#), "{seen:?}");

    // Once more with other columns replaces it; a column that is dropped is left out.
    maker.batch_execute("SELECT wamp.watch('app.item', 'com.shop.item', '{id,name,secret}')").unwrap();
    maker.batch_execute("ALTER TABLE app.item DROP COLUMN name").unwrap();
    writer.batch_execute("INSERT INTO app.item VALUES (2, 'z')").unwrap();
    let seen: Vec<_> =
        events(&database).into_iter().filter(|(topic, _)| topic == "com.shop.item.on_insert").collect();
    assert!(seen.len() == 1 && seen[0].1.contains(r#""new": {"id": 2, "secret": "z"}"#), "{seen:?}");
    let refused = refusal(&mut maker, "SELECT wamp.watch('app.item', 'com.shop.item', '{id,nme}')");
    assert!(refused.message.contains("no column nme"), "{refused:?}");
}

#[test]
fn names_are_names_and_never_statements() {
    let name = "it\"s; DROP TABLE app.precious; --";
    let quoted = name.replace('"', "\"\"");
    let sql = format!(
        "CREATE TABLE precious (); CREATE TABLE \"{quoted}\" (\"{quoted}\" int, \"a'b\" app.m, plain text); "
    );
    let database = with_tables(&format!("CREATE TYPE m AS ENUM ('x', 'y'); {sql}"));
    let mut maker = database.connect("maker");
    let topic = "com.shop.');DROP/**/TABLE/**/app.precious;--";
    maker
        .execute(
            "SELECT wamp.watch($1::text::regclass, $2, $3)",
            &[&format!("app.\"{quoted}\""), &topic, &vec![name, "a'b"]],
        )
        .unwrap();
    database
        .connect("writer")
        .batch_execute(&format!("INSERT INTO app.\"{quoted}\" VALUES (1, 'y', 'z')"))
        .unwrap();
    let seen = events(&database);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].0, format!("{topic}.on_insert"));
    for part in [r#""a'b": "y""#, r#""it\"s; DROP TABLE app.precious; --": 1"#] {
        assert!(seen[0].1.contains(part), "{seen:?}");
    }
    assert!(value::<bool>(&mut maker, "SELECT to_regclass('app.precious') IS NOT NULL"));
    let function = "SELECT wamp.subscribe('com.shop.a', 'app.f()); DROP TABLE app.precious; --')";
    assert!(maker.batch_execute(function).is_err());
    database.allow(&mut database.connect("owner"), "maker", "register", "com.shop.", "prefix");
    for bad in ["app.f''; DROP TABLE app.precious; --", "app.f(); DROP TABLE app.precious; --", "noschema"] {
        assert!(
            maker.batch_execute(&format!("SELECT wamp.register('com.shop.f', '{bad}')")).is_err(),
            "{bad}"
        );
    }
    assert!(value::<bool>(&mut maker, "SELECT to_regclass('app.precious') IS NOT NULL"));
}

#[test]
fn triggers_made_by_hand_ask_the_rules() {
    let database = with_tables("CREATE TABLE item (id int)");
    let mut maker = database.connect("maker");
    let trigger = |topic: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON app.item FOR EACH ROW \
             EXECUTE FUNCTION wamp.notify_row('{topic}')"
        )
    };
    maker.batch_execute(&trigger("com.shop.item")).unwrap();
    maker.batch_execute("INSERT INTO app.item VALUES (1)").unwrap();
    let mut writer = database.connect("writer");
    assert_denied(&mut writer, &["INSERT INTO app.item VALUES (2)"]);
    assert_eq!(events(&database).len(), 1);
    maker.batch_execute(&trigger("com.other")).unwrap();
    assert_denied(&mut maker, &["INSERT INTO app.item VALUES (3)"]);

    // A watch is for this table and these arguments; it helps no other trigger.
    maker
        .batch_execute("DROP TRIGGER t ON app.item; SELECT wamp.watch('app.item', 'com.shop.item')")
        .unwrap();
    maker.batch_execute("CREATE TABLE app.other (id int); GRANT INSERT ON app.other TO PUBLIC").unwrap();
    maker.batch_execute(&trigger("com.shop.item").replace("app.item", "app.other")).unwrap();
    assert_denied(&mut writer, &["INSERT INTO app.other VALUES (1)"]);
    writer.batch_execute("INSERT INTO app.item VALUES (1)").unwrap();

    // Nor may somebody watch who may not publish, or has nothing to say about the table.
    assert_denied(
        &mut maker,
        &[
            "SELECT wamp.watch('app.item', 'com.other')",
            "SELECT wamp.record_watch('app.item', 'com.other', '{}')",
        ],
    );
    let mut ann = database.connect("ann");
    assert_denied(
        &mut ann,
        &[
            "SELECT wamp.watch('app.item', 'com.shop.x')",
            "SELECT wamp.record_watch('app.item', 'com.shop.x', '{}')",
            "SELECT wamp.unwatch('app.item', 'com.shop.item')",
            "SELECT wamp.forget_watch('app.item', 'com.shop.item')",
        ],
    );
    for wrong in ["BEFORE INSERT ON app.item FOR EACH ROW", "AFTER INSERT ON app.item FOR EACH STATEMENT"] {
        maker
            .batch_execute(&format!(
                "CREATE TRIGGER w {wrong} EXECUTE FUNCTION wamp.notify_row('com.shop.w')"
            ))
            .unwrap();
        assert_eq!(refusal(&mut writer, "INSERT INTO app.item VALUES (1)").code, "39P01");
        maker.batch_execute("DROP TRIGGER w ON app.item").unwrap();
    }
}

#[test]
fn rows_of_partitions_are_rows_of_the_table() {
    let tables = "CREATE TABLE sale (day int, n int) PARTITION BY RANGE (day); \
                  CREATE TABLE early PARTITION OF sale FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (day); \
                  CREATE TABLE first PARTITION OF early FOR VALUES FROM (0) TO (5)";
    let database = with_tables(tables);
    database.connect("maker").batch_execute("SELECT wamp.watch('app.sale', 'com.shop.sale')").unwrap();
    database.connect("writer").batch_execute("INSERT INTO app.sale VALUES (1, 2)").unwrap();
    let kwargs = r#"{"op": "insert", "new": {"n": 2, "day": 1}, "table": "app.first"}"#;
    assert_eq!(events(&database), [event("com.shop.sale.on_insert", kwargs)]);
}

#[test]
fn a_long_row_does_not_stop_who_writes_it() {
    let database = with_tables("CREATE TABLE item (id int, content text)");
    let mut maker = database.connect("maker");
    maker.batch_execute("SELECT wamp.watch('app.item', 'com.shop.item')").unwrap();
    let mut writer = database.connect("writer");
    writer
        .batch_execute("INSERT INTO app.item VALUES (1, repeat('x', 1000000)), (2, repeat('x', 3000000))")
        .unwrap();
    let seen = events(&database);
    assert!(seen[0].1.len() > 1_000_000);
    assert_eq!(seen[1].1, r#"{"op": "insert", "table": "app.item", "too_long": true}"#);
}

/// A cast to json that belongs to the owner of a column's type: `to_jsonb` calls it, and would do so with the rights of the
/// schema's owner.
#[test]
fn casts_of_users_are_not_called_with_the_rights_of_the_owner() {
    let tables = "CREATE TYPE bait AS ENUM ('cheese'); CREATE DOMAIN age AS int; CREATE TYPE mood AS ENUM ('glad'); \
         CREATE FUNCTION spring(bait) RETURNS json LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO wamp.rule VALUES (0, 'publish', '', 'prefix'); RETURN '1'; END $$; \
         CREATE CAST (bait AS json) WITH FUNCTION spring(bait); \
         CREATE TYPE pair AS (a int, b bait); \
         CREATE TABLE item (id int, b bait, list bait[], p pair, years age, m mood, empty mood, big numeric)";
    let database = with_tables(tables);
    let mut maker = database.connect("maker");
    // It does what it is for: the trap is set.
    assert!(refusal(&mut maker, "SELECT to_jsonb('cheese'::app.bait)").message.contains("permission denied"));
    maker.batch_execute("SELECT wamp.watch('app.item', 'com.shop.item')").unwrap();
    let mut writer = database.connect("writer");
    writer
        .batch_execute(
            "INSERT INTO app.item VALUES (1, 'cheese', '{cheese}', (5, 'cheese'), 44, 'glad', NULL, 0.10)",
        )
        .unwrap();
    assert_eq!(
        value::<i64>(&mut database.superuser(), "SELECT count(*) FROM wamp.rule WHERE grantee = 0"),
        0
    );
    let seen = events(&database);
    for part in [
        r#""b": "cheese""#,
        r#""list": "{cheese}""#,
        r#""p": "(5,cheese)""#,
        r#""years": 44"#,
        r#""m": "glad""#,
        r#""empty": null"#,
        r#""big": 0.10"#,
    ] {
        assert!(seen[0].1.contains(part), "{part}: {seen:?}");
    }
}
