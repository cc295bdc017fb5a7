//! Routers that are killed (`kill -9`), and those that take their place.

use serde_json::json;

use super::backend::Shared;
use super::stage::{Setup, a_moment};
use crate::harness::wait_until;

pub(crate) fn what_was_answered_is_there_after_a_kill(database: &Shared) {
    let mut stage = Setup::new(database)
        .script("create table t (n integer);")
        .procedure("com.put", "rows", "insert into t values (:n)")
        .procedure("com.count", "value", "select count(*) from t")
        .start();
    for round in 1..=4 {
        let mut session = stage.session();
        for number in 0..5 {
            assert_eq!(session.value("com.put", json!([number])), json!(1));
        }
        stage.kill_and_start();
        let mut session = stage.session();
        stage.wait_until_offered();
        stage.wait_for_value(&mut session, "com.count", &json!(round * 5));
    }
}

pub(crate) fn what_ran_when_a_router_was_killed_is_done_whole_or_not_at_all(database: &Shared) {
    let numbers = database.numbers("20000");
    let mut stage = Setup::new(database)
        .script("create table t (n integer);")
        .procedure("com.fill", "nothing", &format!("insert into t select n from ({numbers}) as r"))
        .procedure("com.count", "value", "select count(*) from t")
        .start();
    for round in 0..4 {
        let mut session = stage.session();
        for _ in 0..3 {
            session.start("com.fill", json!([]));
        }
        std::thread::sleep(std::time::Duration::from_millis(round * 20));
        stage.kill_and_start();
        stage.wait_until_offered();
        let mut session = stage.session();
        let count = session.value("com.count", json!([])).as_u64().unwrap();
        assert_eq!(count % 20_000, 0, "half of a call");
    }
}

pub(crate) fn a_router_that_is_stopped_ends_its_calls_and_the_next_goes_on(database: &Shared) {
    let mut stage = Setup::new(database)
        .script("create table t (n integer);")
        .connections(2)
        .procedure("com.write", "nothing", &database.endless_write("t"))
        .procedure("com.endless", "value", &database.endless())
        .procedure("com.count", "value", "select count(*) from t")
        .start();
    let mut session = stage.session();
    session.start("com.write", json!([]));
    session.start("com.endless", json!([]));
    a_moment();
    let pid = stage.router.pid();
    stage.router.signal(rustix::process::Signal::TERM);
    let ended = stage.router.wait(crate::harness::PATIENCE);
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{pid:?}: {}", stage.router.log());
    // What it ran was cancelled: nothing of it is there, and nothing of it is in the way.
    wait_until("the end of the calls", || database.select("select count(*) as c from t") == ["0"]);
    database.execute("insert into t values (1)");
    stage.start_again();
    stage.wait_until_offered();
    assert_eq!(stage.session().value("com.count", json!([])), json!(1));
}
