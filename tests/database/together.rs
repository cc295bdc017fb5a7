//! Calls that wait and are sent together: what becomes of one is nothing to the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crosspoint::database::Driver as _;
use crosspoint::database::postgres::Postgres;
use crosspoint::database::postgres::wire::{Connection, Deadline};
use crosspoint::router::database::QueryNumber;
use serde_json::{Value, json};

use super::Database;
use super::stand::{End, Heard, How, PATIENCE, Stand};

/// `work` takes a while, fails, or ends its own session, as it is told; most of the time it is quick.
const SQL: &str = "
create function api.work(number int, action text default '') returns text language plpgsql stable as $$
begin
    case action
    when 'sleep' then perform pg_sleep(number);
    when 'nap' then perform pg_sleep(0.001);
    when 'say' then raise notice 'it begins'; perform pg_sleep(number);
    when 'fail' then perform 1 / 0;
    when 'end' then perform pg_terminate_backend(pg_backend_pid());
    else null;
    end case;
    return concat_ws(' ', number, current_setting('wamp.authid'), current_setting('transaction_read_only'));
end $$;
create function api.pair(number int, out one int, out two text) language plpgsql immutable as $$
begin one := number; two := repeat('x', number); end $$;
create function api.change(number int) returns int language sql volatile as 'select $1';
create function api.gate() returns text language sql volatile as 'select pg_advisory_lock_shared(4711)::text || pg_advisory_unlock_shared(4711)';";

struct Calls {
    stand: Stand,
    driver: Postgres,
    database: Database,
    connections: usize,
    ended: HashMap<QueryNumber, End>,
}

impl Calls {
    /// Calls of `work` and `pair` are known to be quick.
    fn new(connections: usize) -> Self {
        let database = Database::new(SQL);
        let mut driver = database.driver();
        driver.connections = connections;
        let stand = Stand::new(driver.clone());
        let mut calls = Self { stand, driver, database, connections, ended: HashMap::new() };
        calls.wait_until_quick("com.work");
        calls.wait_until_quick("com.pair");
        // Each connection knows it with an action, too.
        for _ in 0..4 {
            let some: Vec<_> = calls.at_once(|calls| {
                (0..8 * calls.connections).map(|_| calls.begin("com.work", json!([7, ""]))).collect()
            });
            for number in some {
                assert!(matches!(calls.end(number), End::Result(..)));
            }
        }
        calls.wait_until_quick("com.work");
        calls
    }

    fn wait_until_quick(&mut self, uri: &str) {
        let begin = Instant::now();
        loop {
            // Each connection has prepared it.
            let some: Vec<_> = (0..8 * self.connections).map(|_| self.begin(uri, json!([7]))).collect();
            for number in some {
                assert!(matches!(self.end(number), End::Result(..)));
            }
            let procedure = self.stand.offered.iter().find(|procedure| *procedure.uri == *uri).unwrap();
            if self.driver.pace_us(procedure).is_some() {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{uri} is never quick");
        }
    }

    fn begin(&mut self, uri: &str, args: Value) -> QueryNumber {
        self.begin_as(uri, args, How::default())
    }

    fn begin_as(&mut self, uri: &str, args: Value, how: How) -> QueryNumber {
        self.stand.begin(uri, &args, &json!({}), how).expect("there is room")
    }

    fn end(&mut self, number: QueryNumber) -> End {
        loop {
            if let Some(end) = self.ended.remove(&number) {
                return end;
            }
            if let (of, Heard::End(end)) = self.stand.next() {
                assert_eq!(self.ended.insert(of, end), None, "one end for each");
            }
        }
    }

    fn error(&mut self, number: QueryNumber) -> String {
        match self.end(number) {
            End::Error(uri, ..) => uri,
            result => panic!("{result:?}"),
        }
    }

    /// `work` gives this to who is called joe.
    fn is_right(&mut self, number: QueryNumber, of: u64) {
        assert_eq!(self.end(number), End::Result(json!([format!("{of} joe on")]), Value::Null));
    }

    /// What is begun by this waits for the same moment, and as far as it may goes together.
    fn at_once<T>(&mut self, begin: impl FnOnce(&mut Self) -> T) -> T {
        let deadline = Deadline::after(PATIENCE);
        let mut gate = Connection::connect(&self.database.settings, deadline).unwrap();
        gate.simple_query("select pg_advisory_lock(4711)", deadline, |_| {}).unwrap();
        let held: Vec<_> = (0..self.connections).map(|_| self.begin("com.gate", json!([]))).collect();
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
            and database = (select oid from pg_database where datname = current_database())";
        let mut all = String::new();
        let begun = Instant::now();
        while all != self.connections.to_string() {
            assert!(begun.elapsed() < PATIENCE, "{all} connections are held");
            std::thread::sleep(Duration::from_millis(2));
            gate.simple_query(waiting, deadline, |row| {
                all = row.text(0).unwrap_or_default().to_owned();
            })
            .unwrap();
        }
        let result = begin(self);
        gate.simple_query("select pg_advisory_unlock(4711)", deadline, |_| {}).unwrap();
        for number in held {
            assert!(matches!(self.end(number), End::Result(..)));
        }
        result
    }

    /// So many calls of `work` that do nothing.
    fn quick(&mut self, count: u64) -> Vec<(u64, QueryNumber)> {
        (0..count).map(|of| (of, self.begin("com.work", json!([of])))).collect()
    }
}

#[test]
fn calls_that_wait_go_together_and_each_has_its_own_result() {
    let mut calls = Calls::new(1);
    let before = calls.stand.counted().together;
    let (all, changes, pairs, others, wrong, failing) = calls.at_once(|calls| {
        let all = calls.quick(20);
        // Between two that go together, one that does not.
        let changes: Vec<_> = (0..3).map(|of| calls.begin("com.change", json!([of]))).collect();
        let pairs: Vec<_> = (0..5).map(|of| calls.begin("com.pair", json!([of]))).collect();
        let ann = How { authid: "ann", ..How::default() };
        let others: Vec<_> = (0..5).map(|of| calls.begin_as("com.work", json!([of]), ann)).collect();
        let wrong = calls.begin("com.work", json!(["seven"]));
        let failing: Vec<_> = (0..3).map(|_| calls.begin("com.work", json!([1, "fail"]))).collect();
        (all, changes, pairs, others, wrong, failing)
    });
    for (of, number) in all {
        calls.is_right(number, of);
    }
    for (of, number) in changes.into_iter().enumerate() {
        assert_eq!(calls.end(number), End::Result(json!([of]), Value::Null));
    }
    for (of, number) in pairs.into_iter().enumerate() {
        let expected = json!({"one": of, "two": "x".repeat(of)});
        assert_eq!(calls.end(number), End::Result(Value::Null, expected));
    }
    for (of, number) in others.into_iter().enumerate() {
        assert_eq!(calls.end(number), End::Result(json!([format!("{of} ann on")]), Value::Null));
    }
    assert_eq!(calls.error(wrong), "wamp.error.invalid_argument");
    for number in failing {
        assert_eq!(calls.error(number), "wamp.error.invalid_argument");
    }
    let counted = calls.stand.counted();
    assert!(counted.together - before >= 2, "{counted:?}");
}

#[test]
fn calls_that_may_change_something_go_alone() {
    let mut calls = Calls::new(1);
    calls.wait_until_many("com.change");
    let before = calls.stand.counted().together;
    let all =
        calls.at_once(|calls| (0..20).map(|of| calls.begin("com.change", json!([of]))).collect::<Vec<_>>());
    for (of, number) in all.into_iter().enumerate() {
        assert_eq!(calls.end(number), End::Result(json!([of]), Value::Null));
    }
    assert_eq!(calls.stand.counted().together, before);
}

impl Calls {
    fn wait_until_many(&mut self, uri: &str) {
        for _ in 0..20 {
            let number = self.begin(uri, json!([1]));
            assert!(matches!(self.end(number), End::Result(..)));
        }
    }
}

#[test]
fn those_behind_a_slow_one_are_run_by_others() {
    let mut calls = Calls::new(2);
    let (slow, all) = calls.at_once(|calls| {
        let slow = calls.begin("com.work", json!([100_000, "sleep"]));
        (slow, calls.quick(30))
    });
    for (of, number) in all {
        calls.is_right(number, of);
    }
    calls.stand.cancel(slow);
    assert_eq!(calls.error(slow), "wamp.error.canceled");
    // And its connection is of use again.
    calls.wait_until_quick("com.pair");
    assert_eq!(calls.stand.counted().connections, 2);
}

#[test]
fn who_cancels_one_stops_no_other() {
    let mut calls = Calls::new(1);
    for round in 0..60_u64 {
        let (victims, all) = calls.at_once(|calls| {
            let mut victims = Vec::new();
            let mut all = Vec::new();
            for of in 0..12 {
                if of % 2 == 0 {
                    victims.push((of, calls.begin("com.work", json!([of, "nap"]))));
                }
                all.push((of, calls.begin("com.work", json!([of, "nap"]))));
            }
            (victims, all)
        });
        // About when each of them ends.
        for (_, number) in &victims {
            std::thread::sleep(Duration::from_micros(2_000 + round % 20 * 100));
            calls.stand.cancel(*number);
        }
        for (of, number) in victims {
            match calls.end(number) {
                End::Error(uri, ..) => assert_eq!(uri, "wamp.error.canceled"),
                End::Result(args, _) => assert_eq!(args, json!([format!("{of} joe on")])),
            }
        }
        for (of, number) in all {
            calls.is_right(number, of);
        }
    }
}

#[test]
fn a_call_that_is_stopped_among_others_ends_and_they_go_on() {
    let mut calls = Calls::new(1);
    let (slow, all) = calls.at_once(|calls| {
        let mut all = calls.quick(3);
        let slow = calls.begin("com.work", json!([100_000, "sleep"]));
        all.extend(calls.quick(10));
        (slow, all)
    });
    calls.is_right(all[0].1, 0);
    calls.stand.cancel(slow);
    assert_eq!(calls.error(slow), "wamp.error.canceled");
    for (of, number) in all.into_iter().skip(1) {
        calls.is_right(number, of);
    }
}

#[test]
fn each_has_its_own_time() {
    let mut calls = Calls::new(1);
    let (slow, all) = calls.at_once(|calls| {
        let short = How { timeout_ms: 200, ..How::default() };
        let slow = calls.begin_as("com.work", json!([100_000, "sleep"]), short);
        (slow, calls.quick(10))
    });
    assert_eq!(calls.error(slow), "wamp.error.timeout");
    for (of, number) in all {
        calls.is_right(number, of);
    }
}

#[test]
fn who_loses_its_connection_to_another_is_run_once_more() {
    let mut calls = Calls::new(1);
    for _ in 0..5 {
        let (ending, all) = calls.at_once(|calls| {
            let mut all = calls.quick(3);
            let ending = calls.begin("com.work", json!([1, "end"]));
            all.extend(calls.quick(8));
            (ending, all)
        });
        assert_eq!(calls.error(ending), "wamp.error.unavailable");
        for (of, number) in all {
            calls.is_right(number, of);
        }
    }
}

#[test]
fn what_cannot_be_sent_does_not_wait_for_a_slow_one() {
    let mut calls = Calls::new(2);
    let (slow, wrong) = calls.at_once(|calls| {
        let slow = calls.begin("com.work", json!([100_000, "sleep"]));
        (slow, (0..30).map(|_| calls.begin("com.work", json!([1, "", "one too many"]))).collect::<Vec<_>>())
    });
    for number in wrong {
        assert_eq!(calls.error(number), "wamp.error.invalid_argument");
    }
    calls.stand.cancel(slow);
    assert_eq!(calls.error(slow), "wamp.error.canceled");
}

#[test]
fn what_others_run_is_not_left_running() {
    let mut calls = Calls::new(2);
    let all = calls.at_once(|calls| {
        (0..8).map(|_| calls.begin("com.work", json!([100_000, "sleep"]))).collect::<Vec<_>>()
    });
    // Those behind the first ones have been given to others by then, if ever.
    std::thread::sleep(Duration::from_millis(500));
    for number in &all {
        calls.stand.cancel(*number);
    }
    for number in all {
        assert_eq!(calls.error(number), "wamp.error.canceled");
    }
    let deadline = Deadline::after(PATIENCE);
    let mut asking = Connection::connect(&calls.database.settings, deadline).unwrap();
    let begun = Instant::now();
    loop {
        let still = asking
            .simple_value(
                "select count(*) from pg_stat_activity where datname = current_database()
            and state = 'active' and wait_event = 'PgSleep'",
                deadline,
            )
            .unwrap()
            .unwrap();
        if still == "0" {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{still} run although nobody waits for them");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn who_says_something_first_and_takes_long_keeps_nobody_waiting() {
    let mut calls = Calls::new(2);
    // The quicker they are, the longer they would rely on the other thread.
    for _ in 0..200 {
        let number = calls.begin("com.pair", json!([7]));
        assert!(matches!(calls.end(number), End::Result(..)));
    }
    let some: Vec<_> =
        calls.at_once(|calls| (0..16).map(|_| calls.begin("com.work", json!([0, "say"]))).collect());
    for number in some {
        assert!(matches!(calls.end(number), End::Result(..)));
    }
    calls.wait_until_quick("com.work");
    let slow = calls.begin("com.work", json!([100_000, "say"]));
    std::thread::sleep(Duration::from_millis(300));
    let number = calls.begin("com.pair", json!([7]));
    assert!(matches!(calls.end(number), End::Result(..)));
    calls.stand.cancel(slow);
    assert_eq!(calls.error(slow), "wamp.error.canceled");
}

#[test]
fn those_that_are_run_once_more_do_not_wait_for_each_other() {
    let mut calls = Calls::new(2);
    let (ending, slow, all) = calls.at_once(|calls| {
        let ending = calls.begin("com.work", json!([1, "end"]));
        let slow = calls.begin("com.work", json!([100_000, "sleep"]));
        (ending, slow, calls.quick(20))
    });
    assert_eq!(calls.error(ending), "wamp.error.unavailable");
    for (of, number) in all {
        calls.is_right(number, of);
    }
    calls.stand.cancel(slow);
    assert_eq!(calls.error(slow), "wamp.error.canceled");
}

#[test]
fn those_behind_one_that_says_something_are_run_by_others() {
    let mut calls = Calls::new(2);
    let (slow, all) = calls.at_once(|calls| {
        let slow = calls.begin("com.work", json!([100_000, "say"]));
        (slow, calls.quick(30))
    });
    for (of, number) in all {
        calls.is_right(number, of);
    }
    calls.stand.cancel(slow);
    assert_eq!(calls.error(slow), "wamp.error.canceled");
}
