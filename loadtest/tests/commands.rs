//! Every command against a router of the same build: it runs, finds nothing wrong, and says what it is asked for.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

fn router() -> PathBuf {
    let router = PathBuf::from(env!("CARGO_BIN_EXE_loadtest")).with_file_name("crosspoint");
    assert!(router.exists(), "{} is not there: cargo build --workspace", router.display());
    router
}

/// Runs a command, a short while, against a router of its own. In that while something is measured also where others have the
/// machine most of the time.
fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .arg("--router")
        .arg(router())
        .args(["--quiet", "--duration", "1", "--warmup", "0.1"])
        .output()
        .unwrap()
}

/// What it says as JSON, where nothing is wrong.
fn figures(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--json", "-"]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let mut outcome: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(outcome["problems"], Value::Array(Vec::new()), "{arguments:?}");
    assert!(outcome["configuration"].as_str().unwrap().contains("[limits]"));
    outcome["figures"].take()
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("{name} is missing in {figures}"))
}

#[test]
fn calls_in_every_serializer_and_framing() {
    for serializer in ["json", "msgpack", "cbor"] {
        for framing in [&[][..], &["--rawsocket"]] {
            let figures = figures(&[&["rpc", "--serializer", serializer][..], framing].concat());
            assert!(number(&figures, "calls") > 0.0);
            for name in ["router_cpu_us_per_call", "latency_p50_us", "latency_p99_us", "generator_busy"] {
                number(&figures, name);
            }
        }
    }
}

#[test]
fn calls_on_all_placements() {
    let figures = figures(&["rpc", "--callers", "1", "--callees", "1", "--flight", "1", "--placements"]);
    for name in ["callee0_caller0", "callee1_caller1", "callee0_caller1", "callee1_caller0"] {
        number(&figures, &format!("router_cpu_us_per_call_{name}"));
        number(&figures, &format!("router_system_us_per_call_{name}"));
    }
    // The kernel's part has a mean as the whole has, and the two parts are the whole.
    let [all, user, system] =
        ["cpu", "user", "system"].map(|part| number(&figures, &format!("router_{part}_us_per_call")));
    assert!(all > 0.0 && (user + system - all).abs() < 0.01 * all, "{figures}");
}

#[test]
fn parties_are_on_the_cores_that_they_are_put_on() {
    let events = |subscribers_on| {
        let parties = ["--publishers-on", "0", "--subscribers-on", subscribers_on, "--counters"];
        figures(&[&["pubsub"][..], &parties].concat())
    };
    let together = events("0");
    assert_eq!(number(&together, "router_peer_messages_per_event"), 0.0, "{together}");
    for name in ["turns", "sleeps", "receives", "sends"] {
        assert!(number(&together, &format!("router_{name}_per_event")) > 0.0, "{name} in {together}");
    }
    // With one processor there is one core.
    if std::thread::available_parallelism().unwrap().get() > 1 {
        let apart = events("1");
        assert!(number(&apart, "router_peer_messages_per_event") >= 0.9, "{apart}");
        assert!(number(&apart, "router_core1_us_per_event") > 0.0, "{apart}");
    }
}

#[test]
fn events_in_a_closed_loop_and_at_a_pace() {
    let closed = ["pubsub", "--publishers", "2", "--subscribers", "6", "--topics", "2", "--flight", "4"];
    let figures_closed = figures(&[&closed[..], &["--acknowledge"]].concat());
    // Each publication has three receivers; those of both publishers that are under way when measuring begins or ends count in
    // part.
    let (events, publications) = (number(&figures_closed, "events"), number(&figures_closed, "publications"));
    let (receivers, under_way) = (3.0, 2.0 * 4.0);
    assert!(publications > 0.0, "{figures_closed}");
    assert!((events - receivers * publications).abs() <= receivers * under_way, "{figures_closed}");
    let paced = figures(&["pubsub", "--subscribers", "2", "--rate", "200"]);
    assert!(number(&paced, "events") > 0.0);
}

#[test]
fn calls_at_a_pace_are_as_many_as_their_rate_asks_for() {
    let begun = Instant::now();
    let figures = figures(&["rpc", "--callers", "2", "--callees", "1", "--rate", "100"]);
    let took = begun.elapsed().as_secs_f64();
    // What is late is made up for, so no more than were due in all the time that the run took, and as many as were due while it
    // measured but for those that are late in the end. In a closed loop they would be many thousands.
    let (calls, per_second) = (number(&figures, "calls"), number(&figures, "calls_per_second"));
    assert!(
        calls <= 200.0 * took + 1.0,
        "{calls} calls in {took} seconds, of two callers with 100 a second each"
    );
    assert!(per_second > 20.0, "{per_second} calls a second, of two callers with 100 a second each");
    number(&figures, "latency_p99_us");
}

#[test]
fn several_processes_add_up() {
    let one = figures(&["rpc", "--processes", "2", "--callers", "1", "--callees", "1"]);
    assert!(number(&one, "calls") > 0.0);
}

#[test]
fn sessions_are_opened_and_each_gets_its_event() {
    let figures =
        figures(&["connect", "--sessions", "300", "--per-process", "100", "--subscribe", "--hold", "0.2"]);
    assert_eq!(number(&figures, "sessions"), 300.0);
    assert_eq!(number(&figures, "events"), 300.0);
    for name in ["router_cpu_us_per_session", "router_bytes_per_session", "slab_bytes_per_session"] {
        number(&figures, name);
    }
}

#[test]
fn idle_sessions_beside_work() {
    let figures = figures(&["mixed", "--sessions", "50", "--pairs", "1"]);
    assert!(number(&figures, "ratio") > 0.0);
}

#[test]
fn a_subscriber_that_stalls_is_told_of() {
    let figures = figures(&["stall", "--payload", "1024", "--stalled", "2"]);
    for name in ["longest_gap_ratio", "router_grown_bytes", "stalled_events", "closed_slow_consumer"] {
        number(&figures, name);
    }
}

/// A flood that is a small one.
const FLOOD: [&str; 13] = [
    "flood",
    "--sessions",
    "50",
    "--publishers",
    "4",
    "--subscribers",
    "8",
    "--topics",
    "2",
    "--callers",
    "2",
    "--settle",
    "3",
];

#[test]
fn a_flood_leaves_no_more_behind_than_the_one_before() {
    // Of so small a flood most is what buffers and the allocator keep, now more and now less.
    let figures = figures(&[&FLOOD[..], &["--growth-max", "150"]].concat());
    for name in ["operations_first", "operations_second", "router_resident_before_bytes"] {
        assert!(number(&figures, name) > 0.0, "{name} in {figures}");
    }
    let [peak, first, second] = ["peak", "after_first", "after_second"]
        .map(|name| number(&figures, &format!("router_resident_{name}_bytes")));
    assert!(peak >= first && peak >= second, "{figures}");
}

#[test]
fn a_router_that_grows_with_every_flood_is_told_of() {
    let output = run(&[&FLOOD[..], &["--growth-max", "-100"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("PROBLEM: the second flood left"), "{said}");
    let nobody = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["flood", "--url", "ws://127.0.0.1:9/ws", "--quiet"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("--pid"), "{nobody:?}");
}

/// Little of everything.
const DATABASE: [&str; 9] =
    ["database", "--rounds", "1", "--connections", "2", "--flight", "2", "--backlog", "500"];

#[test]
fn postgresql_is_measured_beside_pgbench() {
    let figures = figures(&DATABASE);
    for name in [
        "calls_per_second",
        "pgbench_calls_per_second",
        "pgbench_ratio",
        "call_latency_single_p50_us",
        "publishing_ratio",
        "event_latency_p99_us",
        "event_latency_asleep_p50_us",
        "backlog_drained_per_second",
    ] {
        assert!(number(&figures, name) > 0.0, "{name} in {figures}");
    }
    assert_eq!(number(&figures, "backlog_events"), 500.0);
    // Of a server that hardly had a processor these are less than the kernel counts.
    for name in ["server_cpu_us_per_call", "server_cpu_us_per_publishing"] {
        number(&figures, name);
    }
}

#[test]
fn sqlite_is_measured() {
    let figures = figures(&[&DATABASE[..], &["--kind", "sqlite"]].concat());
    for name in ["calls_per_second", "publishing_ratio", "event_latency_p50_us", "backlog_drained_per_second"]
    {
        assert!(number(&figures, name) > 0.0, "{name} in {figures}");
    }
}

#[test]
fn what_of_a_database_cannot_be_measured_is_said() {
    for (arguments, said) in [
        (&["database"][..], "--router"),
        (
            &["database", "--router", "x", "--kind", "sqlite", "--database-url", "postgres://a@b/c"],
            "PostgreSQL",
        ),
        (&["database", "--router", "x", "--rounds", "0"], "nothing to do"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}

#[test]
fn everybody_comes_back_after_the_router_was_killed() {
    let figures =
        figures(&["storm", "--sessions", "100", "--per-process", "60", "--reconnect-within", "0.2"]);
    assert_eq!(number(&figures, "sessions"), 100.0);
    assert!(number(&figures, "failures") >= 100.0, "all of them were cut off");
}

#[test]
fn a_report_is_one_page_with_its_plots() {
    let path = std::env::temp_dir().join(format!("loadtest-{}.html", std::process::id()));
    let output = run(&["rpc", "--html", path.to_str().unwrap()]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("router CPU per call") && text.contains("calls a second"), "{text}");
    let page = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(page.contains("<svg") && page.contains("The configuration of the router"), "{page}");
}

#[test]
fn what_is_wrong_is_said_and_ends_with_a_code() {
    let nobody = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["rpc", "--url", "ws://127.0.0.1:9/ws", "--quiet"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("refused"), "{nobody:?}");
    let realm = run(&["rpc", "--realm", "com.nowhere"]);
    assert_eq!(realm.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&realm.stderr).contains("no_such_realm"), "{realm:?}");
    let storm = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(["storm", "--quiet"]).output().unwrap();
    assert!(String::from_utf8_lossy(&storm.stderr).contains("--router"), "{storm:?}");
}
