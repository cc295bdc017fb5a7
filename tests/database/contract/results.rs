//! Shapes of results, parts of them, and errors.

use crosspoint::wamp::codec::Serializer;
use serde_json::{Value, json};

use super::backend::Shared;
use super::client::{Answer, Login};
use super::stage::{Setup, Stage};

fn squares(database: &Shared, uri: &str, shape: &str, sql: &str) -> Stage {
    Setup::new(database)
        .script(
            "create table t (n integer primary key, m integer); insert into t values (1, 1), (2, 4), (3, 9);",
        )
        .procedure(uri, shape, sql)
        .start()
}

pub(crate) fn rows_are_objects(database: &Shared) {
    let stage = squares(database, "com.p", "rows", "select n, m from t order by n");
    let rows = json!([{"n": 1, "m": 1}, {"n": 2, "m": 4}, {"n": 3, "m": 9}]);
    assert_eq!(stage.session().call("com.p", json!([])), Answer::Result(json!([rows]), json!({})));
}

pub(crate) fn no_rows_are_an_empty_list(database: &Shared) {
    let stage = squares(database, "com.p", "rows", "select n from t where n > 3");
    assert_eq!(stage.session().call("com.p", json!([])), Answer::Result(json!([[]]), json!({})));
}

pub(crate) fn a_row_is_the_first_one(database: &Shared) {
    let stage = squares(database, "com.p", "row", "select n, m from t order by n desc");
    assert_eq!(stage.session().value("com.p", json!([])), json!({"n": 3, "m": 9}));
}

pub(crate) fn a_value_is_the_first_column(database: &Shared) {
    let stage = squares(database, "com.p", "value", "select m, n from t order by n desc");
    assert_eq!(stage.session().value("com.p", json!([])), json!(9));
}

pub(crate) fn no_row_is_null(database: &Shared) {
    let none = "select n, m from t where n > 3";
    let stage = Setup::new(database)
        .script("create table t (n integer, m integer);")
        .procedure("com.row", "row", none)
        .procedure("com.value", "value", none)
        .start();
    let mut session = stage.session();
    for uri in ["com.row", "com.value"] {
        assert_eq!(session.value(uri, json!([])), Value::Null);
    }
}

pub(crate) fn nothing_is_no_argument(database: &Shared) {
    let stage = squares(database, "com.p", "nothing", "select n from t");
    assert_eq!(stage.session().call("com.p", json!([])), Answer::Result(json!([]), json!({})));
}

pub(crate) fn what_changes_rows_tells_how_many(database: &Shared) {
    let stage = squares(database, "com.p", "rows", "update t set m = m + 1 where n > :n");
    let mut session = stage.session();
    assert_eq!(session.value("com.p", json!([1])), json!(2));
    assert_eq!(session.value("com.p", json!([7])), json!(0));
}

pub(crate) fn what_returns_rows_gives_them(database: &Shared) {
    let stage = squares(database, "com.p", "rows", "delete from t where n >= :n returning n");
    let mut session = stage.session();
    assert_eq!(session.value("com.p", json!([3])), json!([{"n": 3}]));
    assert_eq!(database.select("select count(*) as c from t"), ["2"]);
}

/// Rows that are long enough to count.
fn many(database: &Shared) -> Setup {
    let numbers = database.numbers(":count");
    let rows = format!("select n, 'a row of some length, so that it counts' as t from ({numbers}) as r");
    Setup::new(database).procedure("com.many", "rows", &rows)
}

pub(crate) fn a_result_that_is_too_long_is_refused(database: &Shared) {
    let stage = many(database).line("result_bytes_max = \"64 KiB\"").connections(1).start();
    let mut session = stage.session();
    for _ in 0..3 {
        session.failure("com.many", json!([20_000])).is("wamp.error.payload_size_exceeded");
        // Nothing of what was given up is taken for the next.
        assert_eq!(session.value("com.many", json!([2])).as_array().unwrap().len(), 2);
    }
}

fn with_progress() -> Value {
    json!({"receive_progress": true})
}

pub(crate) fn large_sets_come_in_parts_in_order(database: &Shared) {
    let stage = many(database).start();
    for serializer in Serializer::ALL {
        let login = Login { serializer: Some(serializer), ..Login::default() };
        let mut session = stage.session_as(login);
        let call = session.begin("com.many", with_progress(), json!([12_000]), json!({}));
        let (mut next, mut parts) = (1, 0);
        loop {
            let (args, is_last) = match session.answer(call) {
                Answer::Part(args) => (args, false),
                Answer::Result(args, kwargs) => {
                    assert_eq!(kwargs, json!({"rows": 12_000}));
                    (args, true)
                }
                Answer::Error(failure) => panic!("{failure:?}"),
            };
            for row in args[0].as_array().unwrap() {
                assert_eq!(row["n"], next);
                next += 1;
            }
            parts += 1;
            if is_last {
                break;
            }
        }
        assert_eq!(next, 12_001, "{serializer:?}");
        assert!(parts >= 20, "{parts} parts");
    }
}

pub(crate) fn a_small_set_comes_whole(database: &Shared) {
    let stage = many(database).start();
    let answer = stage.session().call_with("com.many", with_progress(), json!([3]), json!({}));
    let Answer::Result(args, kwargs) = answer else { panic!("{answer:?}") };
    assert_eq!((args[0].as_array().unwrap().len(), kwargs), (3, json!({"rows": 3})));
}

pub(crate) fn a_set_that_is_cancelled_between_parts_ends(database: &Shared) {
    let stage = many(database).connections(1).start();
    let mut session = stage.session();
    for _ in 0..3 {
        let call = session.begin("com.many", with_progress(), json!([2_000_000]), json!({}));
        assert!(matches!(session.answer(call), Answer::Part(_)));
        session.cancel(call, "kill");
        let end = loop {
            match session.answer(call) {
                Answer::Part(_) => {}
                end => break end,
            }
        };
        end.failure().is("wamp.error.canceled");
        assert_eq!(session.value("com.many", json!([1])).as_array().unwrap().len(), 1);
    }
}

pub(crate) fn an_error_behind_the_first_parts_ends_a_set(database: &Shared) {
    let numbers = database.numbers("3000");
    let raise = database.error("'com.error.late'", "'too late'");
    let rows = format!("select case when n = 2999 then {raise} else 'fine' end as t from ({numbers}) as r");
    let stage = Setup::new(database).publishing().procedure("com.late", "rows", &rows).start();
    let mut session = stage.session();
    let call = session.begin("com.late", with_progress(), json!([]), json!({}));
    let (mut rows, mut parts) = (0, 0);
    let failure = loop {
        match session.answer(call) {
            Answer::Part(args) => {
                (rows, parts) = (rows + args[0].as_array().unwrap().len(), parts + 1);
            }
            other => break other.failure(),
        }
    };
    assert_eq!(failure.is("com.error.late"), "too late");
    assert!(parts >= 1 && rows < 2999, "{parts} parts, {rows} rows");
}

fn keys(database: &Shared) -> Stage {
    Setup::new(database)
        .script(
            "create table t (n integer not null primary key, m integer check (m < 10), p integer references t (n));",
        )
        .script(&database.refuse_13())
        .procedure("com.put", "rows", "insert into t values (:n, :m, :p)")
        .start()
}

pub(crate) fn a_key_that_is_there_has_its_error(database: &Shared) {
    let stage = keys(database);
    let mut session = stage.session();
    assert_eq!(session.value("com.put", json!([1, 1, null])), json!(1));
    session.failure("com.put", json!([1, 1, null])).is(database.constraint_uris()[0]);
    assert_eq!(session.value("com.put", json!([2, 1, 1])), json!(1));
}

pub(crate) fn a_key_that_is_not_there_has_its_error(database: &Shared) {
    let stage = keys(database);
    stage.session().failure("com.put", json!([1, 1, 99])).is(database.constraint_uris()[1]);
}

pub(crate) fn null_where_there_must_be_a_value_is_an_invalid_argument(database: &Shared) {
    let stage = Setup::new(database)
        .script("create table t (n text not null);")
        .procedure("com.put", "rows", "insert into t values (:n)")
        .start();
    stage.session().failure("com.put", json!([null])).is("wamp.error.invalid_argument");
}

pub(crate) fn what_a_check_refuses_is_an_invalid_argument(database: &Shared) {
    let stage = keys(database);
    stage.session().failure("com.put", json!([1, 10, null])).is("wamp.error.invalid_argument");
}

pub(crate) fn what_a_trigger_refuses_is_an_error_of_the_application(database: &Shared) {
    let stage = keys(database);
    let text = stage.session().failure("com.put", json!([13, 1, null])).is("crosspoint.error.application");
    assert_eq!(text, "not 13");
}

pub(crate) fn errors_of_ones_own_have_their_uri(database: &Shared) {
    let raise = database.error("'com.shop.error.sold_out'", "'none left'");
    let stage =
        Setup::new(database).publishing().procedure("com.p", "value", &format!("select {raise}")).start();
    let mut session = stage.session();
    for _ in 0..2 {
        assert_eq!(session.failure("com.p", json!([])).is("com.shop.error.sold_out"), "none left");
    }
}

pub(crate) fn a_procedure_comes_with_its_table(database: &Shared) {
    let stage = Setup::new(database)
        .procedure("com.count", "value", "select count(*) from later")
        .start_without_waiting();
    let mut session = stage.session();
    // Not offered, or offered and without its table: for who calls it is the same. While nobody has looked, it is neither.
    crate::harness::wait_until("that it was looked for", || {
        stage.router.log().contains("the database is there")
    });
    crate::harness::wait_until("the answer", || {
        let failure = session.failure("com.count", json!([]));
        failure.uri == "wamp.error.no_such_procedure" || panic!("{failure:?}")
    });
    database.execute("create table later (n integer); insert into later values (1);");
    stage.wait_for_value(&mut session, "com.count", &json!(1));
}

pub(crate) fn what_every_database_offers_is_a_registration(database: &Shared) {
    let stage = squares(database, "com.p", "value", "select 1");
    let mut session = stage.session();
    let id = session.value("wamp.registration.lookup", json!(["com.p"]));
    let details = session.value("wamp.registration.get", json!([id]));
    assert_eq!((&details["uri"], &details["invoke"]), (&json!("com.p"), &json!("single")), "{details}");
    assert_eq!(session.value("wamp.registration.match", json!(["com.p"])), id);
}
