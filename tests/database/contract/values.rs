//! Values both ways, and arguments.

use crosspoint::wamp::codec::Serializer;
use serde_json::{Value, json};

use super::backend::Shared;
use super::client::{Answer, Login, Session};
use super::stage::{Setup, Stage};

/// A table with one column of every kind that all databases have, and procedures that put a row and get it.
fn keeper(database: &Shared) -> Stage {
    let bytes = database.bytes_type();
    Setup::new(database)
        .script(&format!(
            "create table kept (i bigint, f double precision, t text, y boolean, b {bytes}, j json);"
        ))
        .procedure("com.put", "nothing", "insert into kept values (:i, :f, :t, :y, :b, :j)")
        .procedure("com.get", "row", "select i, f, t, y, b, j from kept")
        .procedure("com.clear", "rows", "delete from kept")
        .start()
}

/// What comes back of a row in which one column is something else than null.
fn round_trip(session: &mut Session, column: &str, value: &Value) -> Value {
    let mut row = json!({"i": null, "f": null, "t": null, "y": null, "b": null, "j": null});
    row[column] = value.clone();
    let put = session.call_with("com.put", json!({}), json!([]), row.clone());
    assert_eq!(put, Answer::Result(json!([]), json!({})), "{column}: {value}");
    let back = session.value("com.get", json!([]));
    assert_eq!(session.value("com.clear", json!([])), json!(1));
    for (name, other) in back.as_object().unwrap() {
        assert!(name == column || other.is_null(), "{name} of {back}");
    }
    back[column].clone()
}

fn in_every_serializer(database: &Shared, column: &str, values: &[Value]) {
    let stage = keeper(database);
    for serializer in Serializer::ALL {
        let login = Login { serializer: Some(serializer), ..Login::default() };
        let mut session = stage.session_as(login);
        for value in values {
            assert_eq!(round_trip(&mut session, column, value), *value, "{serializer:?}");
        }
    }
}

pub(crate) fn integers_are_exact(database: &Shared) {
    let values = [0, 1, -1, 9_007_199_254_740_993, i64::MAX, i64::MIN].map(|value| json!(value));
    in_every_serializer(database, "i", &values);
}

pub(crate) fn floats_are_exact(database: &Shared) {
    let values = [0.5, -2.25, 0.1, 1e300, 5e-324, 123_456_789.123_456_78].map(|value| json!(value));
    in_every_serializer(database, "f", &values);
}

pub(crate) fn texts_are_what_they_were(database: &Shared) {
    let values = ["a", "grün 漢字 🦀", "\"'\\ \u{1} \t\n%_:?$1", "; drop table kept", "\\x41", "{}", "null"];
    in_every_serializer(database, "t", &values.map(|value| json!(value)));
}

pub(crate) fn booleans_are_booleans(database: &Shared) {
    in_every_serializer(database, "y", &[json!(true), json!(false)]);
}

pub(crate) fn bytes_are_bytes(database: &Shared) {
    // As JSON says them: a NUL, and base64.
    let values = ["\0AP8=", "\0", "\0AAECAwQFBgcICQ=="].map(|value| json!(value));
    in_every_serializer(database, "b", &values);
}

pub(crate) fn json_keeps_its_shape(database: &Shared) {
    let deep = json!({"a": [1, null, {"b": true, "c": []}, "x"], "empty": {}, "text": "grün"});
    in_every_serializer(database, "j", &[deep, json!([1, 2.5, [[]]]), json!({})]);
}

pub(crate) fn null_is_null_whatever_the_type(database: &Shared) {
    let stage = keeper(database);
    for serializer in Serializer::ALL {
        let login = Login { serializer: Some(serializer), ..Login::default() };
        let mut session = stage.session_as(login);
        for column in ["i", "f", "t", "y", "b", "j"] {
            assert_eq!(round_trip(&mut session, column, &Value::Null), Value::Null, "{serializer:?}");
        }
    }
}

pub(crate) fn a_text_of_a_mebibyte(database: &Shared) {
    let text: String = (0..1 << 20).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    let stage = long(database);
    for serializer in Serializer::ALL {
        let login = Login { serializer: Some(serializer), ..Login::default() };
        let mut session = stage.session_as(login);
        session.call("com.put", json!([text]));
        assert!(session.value("com.get", json!([])) == text, "{serializer:?}");
        session.call("com.clear", json!([]));
    }
}

fn long(database: &Shared) -> Stage {
    Setup::new(database)
        .script("create table kept (t text);")
        .line("result_bytes_max = \"2 MiB\"")
        .procedure("com.put", "nothing", "insert into kept values (:t)")
        .procedure("com.get", "value", "select t from kept")
        .procedure("com.clear", "rows", "delete from kept")
        .start()
}

pub(crate) fn bytes_of_a_mebibyte(database: &Shared) {
    let bytes = database.bytes_type();
    let stage = Setup::new(database)
        .script(&format!("create table kept (b {bytes});"))
        .line("result_bytes_max = \"2 MiB\"")
        .procedure("com.put", "nothing", "insert into kept values (:b)")
        .procedure("com.get", "value", "select b from kept")
        .procedure("com.length", "value", "select length(b) from kept")
        .start();
    // Three bytes each four letters.
    let text = format!("\0{}", "AP9/".repeat((1 << 20) / 3));
    let mut session = stage.session();
    session.call("com.put", json!([text]));
    assert_eq!(session.value("com.length", json!([])), json!((1 << 20) / 3 * 3));
    for serializer in Serializer::ALL {
        let login = Login { serializer: Some(serializer), ..Login::default() };
        assert!(stage.session_as(login).value("com.get", json!([])) == text, "{serializer:?}");
    }
}

pub(crate) fn a_number_beyond_its_type_is_refused(database: &Shared) {
    let stage = keeper(database);
    let mut session = stage.session();
    let row = json!({"i": u64::MAX, "f": null, "t": null, "y": null, "b": null, "j": null});
    session.call_with("com.put", json!({}), json!([]), row).failure().is("wamp.error.invalid_argument");
    assert_eq!(session.value("com.clear", json!([])), json!(0));
}

fn joiner(database: &Shared) -> Stage {
    Setup::new(database)
        .script("create table pair (a text, b text);")
        .procedure("com.join", "nothing", "insert into pair values (:a, :b)")
        .procedure("com.last", "row", "select a, b from pair")
        .procedure("com.clear", "rows", "delete from pair")
        .start()
}

pub(crate) fn arguments_by_position_and_by_name(database: &Shared) {
    let stage = joiner(database);
    let mut session = stage.session();
    for (args, kwargs) in [
        (json!(["x", "y"]), json!({})),
        (json!([]), json!({"b": "y", "a": "x"})),
        (json!(["x"]), json!({"b": "y"})),
    ] {
        let joined = session.call_with("com.join", json!({}), args.clone(), kwargs.clone());
        assert_eq!(joined, Answer::Result(json!([]), json!({})), "{args} {kwargs}");
        assert_eq!(session.value("com.last", json!([])), json!({"a": "x", "b": "y"}), "{args} {kwargs}");
        assert_eq!(session.value("com.clear", json!([])), json!(1));
    }
}

/// What is said of arguments that do not fit; nothing has been done.
fn refused(database: &Shared, args: Value, kwargs: Value, text: &str) {
    let stage = joiner(database);
    let refused = stage.session().call_with("com.join", json!({}), args, kwargs).failure();
    assert_eq!(refused.is("wamp.error.invalid_argument"), text);
    assert_eq!(database.select("select count(*) as c from pair"), ["0"]);
}

pub(crate) fn an_argument_that_is_missing_is_named(database: &Shared) {
    refused(database, json!(["x"]), json!({}), "the argument `b` is missing");
}

pub(crate) fn more_arguments_than_parameters_are_refused(database: &Shared) {
    refused(database, json!(["x", "y", "z"]), json!({}), "argument 3: there are fewer parameters");
}

pub(crate) fn a_name_that_no_parameter_has_is_refused(database: &Shared) {
    refused(database, json!(["x", "y"]), json!({"c": 1}), "there is no parameter `c`");
}

pub(crate) fn an_argument_that_is_given_twice_is_refused(database: &Shared) {
    let stage = joiner(database);
    let mut session = stage.session();
    let both = session.call_with("com.join", json!({}), json!(["x", "y"]), json!({"a": "z"})).failure();
    assert!(both.is("wamp.error.invalid_argument").contains("argument 1"));
    assert_eq!(database.select("select count(*) as c from pair"), ["0"]);
}

pub(crate) fn one_parameter_may_stand_in_two_places(database: &Shared) {
    let stage = Setup::new(database)
        .script("create table pair (a text, b text);")
        .procedure("com.twice", "nothing", "insert into pair values (:a, :a)")
        .procedure("com.last", "row", "select a, b from pair")
        .procedure("com.clear", "rows", "delete from pair")
        .start();
    let mut session = stage.session();
    session.done("com.twice", json!(["x"]));
    assert_eq!(session.value("com.last", json!([])), json!({"a": "x", "b": "x"}));
    assert_eq!(session.value("com.clear", json!([])), json!(1));
    let named = session.call_with("com.twice", json!({}), json!([]), json!({"a": "y"}));
    assert_eq!(named, Answer::Result(json!([]), json!({})));
    assert_eq!(session.value("com.last", json!([])), json!({"a": "y", "b": "y"}));
}

pub(crate) fn what_looks_like_a_parameter_in_a_text_is_none(database: &Shared) {
    let stage = Setup::new(database)
        .script("create table pair (a text, b text);")
        .procedure("com.put", "nothing", "insert into pair values (':no', :a) -- :neither")
        .procedure("com.last", "row", "select a, b from pair")
        .start();
    let mut session = stage.session();
    session.done("com.put", json!(["x"]));
    assert_eq!(session.value("com.last", json!([])), json!({"a": ":no", "b": "x"}));
}
