//! Whole shards in a world of chance: seeded, deterministic, in one thread, without a socket and without a clock.
//!
//! Every run draws its cores, bounds and clients from its seed, and a scheduler that takes any step that is possible.
//! The promises of ARCHITECTURE.md (O1 to O6, one answer a call, bounds, nobody stuck, nothing left) are checked as it
//! goes. `SIMULATION_SEED=n` replays one seed and shows its last steps, `SIMULATION_SEEDS=n` sets how many are run
//! (docs/testing.md).

#![allow(unreachable_pub)]

#[path = "simulation/advanced.rs"]
mod advanced;
#[path = "simulation/authorizer.rs"]
mod authorizer;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/content.rs"]
mod content;
#[path = "simulation/database.rs"]
mod database;
#[path = "simulation/directed.rs"]
mod directed;
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/profile.rs"]
mod profile;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/transport.rs"]
mod transport;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crosspoint::router::fault::Fault as RouterFault;
use crosspoint::shard::mesh::Fault as MeshFault;

use advanced::Advanced;
use history::Violation;
use run::{Run, Totals, Wrong};

/// Runs in `cargo test --release`; a build that is not optimized runs fewer.
const SEEDS: u64 = if cfg!(debug_assertions) { 150 } else { 1000 };

/// Within so many seeds every wrong design has to be noticed.
const WRONG_SEEDS: u64 = 1000;

/// How much of a run that failed is shown.
const LINES_SHOWN: usize = 100;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// One seed. A panic of the router is a promise not kept like any other.
fn play(seed: u64, wrong: Wrong, advanced: Advanced, shows: bool) -> Result<Totals, Violation> {
    let mut run = Run::new(seed, wrong, advanced);
    run.trace.is_on = shows;
    let played = catch_unwind(AssertUnwindSafe(|| run.play()));
    let has_panicked = played.is_err();
    let result = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { promise: "panic", text: text.unwrap_or_default() })
    });
    if shows && result.is_err() {
        eprintln!("{}", run.describe());
        // All of it where one seed is asked for.
        let lines_max = if number("SIMULATION_SEED").is_some() { usize::MAX } else { LINES_SHOWN };
        let lines = &run.trace.lines;
        for line in &lines[lines.len().saturating_sub(lines_max)..] {
            eprintln!("{line}");
        }
    }
    if has_panicked {
        // It may be in any state.
        std::mem::forget(run);
    }
    result
}

/// Plays a seed; the first time that one fails, once more with its last steps shown.
fn play_and_tell(seed: u64, failures: &mut Vec<String>) -> Totals {
    let advanced = Advanced::draw(seed);
    let violation = match play(seed, Wrong::default(), advanced, false) {
        Ok(totals) => return totals,
        Err(violation) => violation,
    };
    let replayed = play(seed, Wrong::default(), advanced, failures.is_empty());
    let replays = if replayed.err().as_ref() == Some(&violation) { "" } else { " (it does NOT replay)" };
    let failure = format!("SIMULATION_SEED={seed}{replays}: {}: {}", violation.promise, violation.text);
    eprintln!("{failure}");
    failures.push(failure);
    Totals::default()
}

#[test]
fn every_promise_is_kept() {
    let one = number("SIMULATION_SEED");
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let range = one.map_or(0..seeds, |seed| seed..seed + 1);
    let (mut totals, mut failures) = (Totals::default(), Vec::new());
    for seed in range.clone() {
        totals.add(&play_and_tell(seed, &mut failures));
    }
    let seen = seen(&totals);
    println!("seeds {range:?}: {} steps, {} sessions", totals.steps, totals.sessions);
    for (what, count) in &seen {
        println!("{count:>9} {what}");
    }
    assert!(failures.is_empty(), "promises that were not kept:\n{}", failures.join("\n"));
    // A mechanism that never came into play was not tested.
    let never: Vec<_> = seen.iter().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect();
    assert!(range.count() < 100 || never.is_empty(), "these never happened: {never:?}");
}

/// What a whole run must have met.
fn seen(totals: &Totals) -> Vec<(&'static str, u64)> {
    use crosspoint::wamp::CloseReason;
    let (counters, happened, databases) = (&totals.counters, &totals.happened, &totals.databases);
    let closed = |reason: CloseReason| counters.closed[reason as usize];
    vec![
        ("rings that were full", counters.ring_full),
        ("sleeps of a shard", counters.sleeps),
        ("doorbells", counters.doorbells),
        ("pauses for the budget of a turn", counters.paused_budget),
        ("pauses for credit", counters.paused_credit),
        ("pauses for a slow reader", counters.paused_hold),
        ("pauses for a full outbox", counters.paused_outbox),
        ("pauses for a decision", counters.paused_decision),
        ("requests that an authorizer was asked about", counters.decisions_asked),
        ("requests that an earlier answer decided", counters.decisions_cached),
        ("pauses for memory", counters.paused_memory),
        ("pauses for requests that wait", counters.paused_waiting),
        ("pauses for input that is kept", counters.paused_input),
        ("turns that read nothing for a full mesh", counters.paused_mesh),
        ("flushes that were cut", counters.flush_cut),
        ("writes refused", counters.send_refused),
        ("writes in part", counters.send_partial),
        ("calls interrupted by a signal", totals.kernel.interrupted),
        ("accepts without descriptors", totals.kernel.out_of_descriptors),
        ("pauses of accepting", counters.accept_paused),
        ("sockets that could not be watched", totals.kernel.registrations_refused),
        ("events received", happened.events),
        ("comings of sessions heard of", happened.joins),
        ("goings of sessions heard of", happened.leaves),
        ("events dropped", counters.events_dropped),
        ("events reported as lost", happened.events_lost),
        ("retained events received", happened.retained),
        ("retained events left out", counters.retained_left_out),
        ("retained events forgotten at a bound", counters.retained_forgotten),
        ("publishers disclosed", happened.publishers_disclosed),
        ("invocations", happened.invocations),
        ("invocations refused", counters.invocations_refused),
        ("answers of callees", happened.results),
        ("parts of results", happened.progress),
        ("further parts of calls", happened.parts),
        ("parts of calls that were over", happened.late_parts),
        ("calls that took too long", happened.timeouts),
        ("callers disclosed", happened.disclosed),
        ("errors of the router", happened.errors),
        ("results refused", counters.results_refused),
        ("frames compressed", counters.frames_compressed),
        ("frames that were not worth it", counters.frames_incompressible),
        ("calls that waited for a callee", counters.calls_queued),
        ("calls refused because too many waited", counters.queue_full),
        ("calls that waited too long", counters.queue_timeouts),
        ("calls re-routed", counters.calls_rerouted),
        ("invocations of calls that another had refused", happened.rerouted),
        ("logins", happened.logins),
        ("logins by a cookie", happened.cookies),
        ("logins by a cookie ended with the sessions of their users", counters.cookie_logins_ended),
        ("logins denied", happened.denials),
        ("users that an authenticator was asked about", counters.authentications_asked),
        ("sessions ended by others", happened.kills),
        ("sessions ended with all others, for one who listened", happened.silent_ends),
        ("meta events of subscriptions and registrations", happened.news),
        ("messages that the router does not read", happened.sealed),
        ("resources of which the node was found out", happened.placed),
        ("events of histories", happened.kept),
        ("testaments received", happened.testaments),
        ("registrations taken over", happened.takeovers),
        ("registrations taken by force", counters.registrations_revoked),
        ("calls that databases ran", databases.queries),
        ("answers to those", happened.query_answers),
        ("calls that databases had no place for", databases.refused),
        ("parts of their results", databases.parts),
        ("calls of databases that nobody waited for any more", databases.cancelled),
        ("calls of databases that took too long", databases.timed_out),
        ("calls that ran when a database went away", databases.lost),
        ("changes of what databases offer", databases.changes),
        ("procedures of databases that clients had", counters.database_procedures_shadowed),
        ("events that databases dispatched", databases.dispatched),
        ("batches dispatched again", databases.dispatched_again),
        ("events of databases received", happened.database_events),
        ("those of who had resumed", happened.resumed_events),
        ("events replayed", counters.events_replayed),
        ("replays", databases.replays),
        ("replays of what is kept no more", databases.not_kept),
        ("replays that a database was lost in", databases.replays_lost),
        ("resumed subscriptions that read too slowly", happened.resumptions_lost),
        ("cancels", counters.cancels),
        ("interrupts", happened.interrupts),
        ("pings", counters.pings),
        ("closed as slow consumers", closed(CloseReason::SlowConsumer)),
        ("closed for want of memory", closed(CloseReason::OutOfMemory)),
        ("closed without an answer to a ping", closed(CloseReason::PingTimeout)),
        ("ends of a stream", closed(CloseReason::EndOfStream)),
        ("resets", closed(CloseReason::Reset)),
        ("closed by shutdown", closed(CloseReason::SystemShutdown)),
    ]
}

/// Seeds that failed until something was mended, and what; without what runs have of the advanced profile beside the rest.
const ONCE_BROKEN: [(u64, &str); 13] = [
    (16, "a callee was interrupted twice for one call"),
    (110, "a callee was interrupted twice for one call"),
    (235, "CANCEL overtook the CALL that it cancels"),
    (326, "CANCEL overtook the CALL that it cancels"),
    (201, "requests that waited were forgotten when the budget of the turn ended"),
    (218, "requests that waited were forgotten when the budget of the turn ended"),
    (342, "requests that waited were forgotten when the budget of the turn ended"),
    (216, "who was not received from was not read again, because its own requests waited"),
    (257, "a connection that lingered was held for a slow reader, and written to"),
    (669, "who was not received from was not read again, because its own requests waited"),
    (1111, "a connection that was closed for want of memory was told so before its handshake was answered"),
    (8263, "a shard that was about to look again for a ring that had been full was taken for stuck"),
    (353, "a CANCEL of an open call overtook one of the same call that waited behind an authorizer"),
];

/// The same of runs that have some of the advanced profile.
const ONCE_BROKEN_ADVANCED: [(u64, &str); 3] = [
    (7, "a call of what a database had taken back did not go to who had registered a pattern"),
    (73, "a call of what a database had taken back did not go to who had registered a pattern"),
    (1557, "who was closed as too slow for one event of a batch had heard the next"),
];

#[test]
fn what_was_once_broken_is_mended() {
    let plain = ONCE_BROKEN.iter().map(|(seed, what)| (seed, what, Advanced::default()));
    let advanced = ONCE_BROKEN_ADVANCED.iter().map(|(seed, what)| (seed, what, Advanced::draw(*seed)));
    for (seed, what, advanced) in plain.chain(advanced) {
        if let Err(violation) = play(*seed, Wrong::default(), advanced, false) {
            panic!("SIMULATION_SEED={seed} ({what}): {}: {}", violation.promise, violation.text);
        }
    }
}

#[test]
fn a_seed_replays() {
    for seed in 0..3 {
        let [first, second] =
            [(); 2].map(|()| format!("{:?}", play(seed, Wrong::default(), Advanced::draw(seed), false)));
        assert_eq!(first, second);
    }
}

/// Some seed shows that a design is wrong, by the promise that it breaks.
#[track_caller]
fn must_break(wrong: Wrong, promises: &[&str]) {
    must_break_with(|_| Advanced::default(), wrong, promises);
}

/// The same, with what runs have of the advanced profile.
#[track_caller]
fn must_break_with(advanced: impl Fn(u64) -> Advanced, wrong: Wrong, promises: &[&str]) {
    for seed in 0..WRONG_SEEDS {
        if let Err(violation) = play(seed, wrong, advanced(seed), false)
            && promises.contains(&violation.promise)
        {
            println!("{wrong:?}: seed {seed} breaks {}: {}", violation.promise, violation.text);
            return;
        }
    }
    panic!("{WRONG_SEEDS} seeds did not notice {wrong:?}");
}

#[test]
fn a_call_that_skips_home_is_noticed() {
    must_break(Wrong { router: RouterFault::SkipHome, ..Wrong::default() }, &["O3"]);
}

#[test]
fn a_cancel_that_skips_home_is_noticed() {
    must_break(Wrong { router: RouterFault::CancelDirect, ..Wrong::default() }, &["interrupt"]);
}

#[test]
fn a_fan_out_in_chunks_is_noticed() {
    must_break(Wrong { router: RouterFault::ChunkFanOut, ..Wrong::default() }, &["O1"]);
}

#[test]
fn what_every_core_retains_as_it_comes_is_noticed() {
    must_break(Wrong { router: RouterFault::RetainAsItComes, ..Wrong::default() }, &["R12"]);
}

#[test]
fn publications_by_way_of_their_topic_are_noticed() {
    must_break(Wrong { router: RouterFault::PublishByTopic, ..Wrong::default() }, &["O1"]);
}

#[test]
fn a_ring_that_reorders_is_noticed() {
    must_break(Wrong { mesh: MeshFault::Reorder, ..Wrong::default() }, &["O1", "O3", "O4"]);
}

#[test]
fn overtaking_the_overflow_is_noticed() {
    must_break(Wrong { mesh: MeshFault::OvertakeOverflow, ..Wrong::default() }, &["O1", "O3", "O4"]);
}

#[test]
fn telling_of_those_who_end_with_all_others_is_noticed() {
    let wrong = Wrong { router: RouterFault::TellOfAll, ..Wrong::default() };
    must_break_with(Advanced::draw, wrong, &["kill"]);
}

#[test]
fn what_is_lost_of_a_seal_is_noticed() {
    for router in [RouterFault::UnsealEvents, RouterFault::UnsealInvocations, RouterFault::UnsealResults] {
        must_break_with(Advanced::draw, Wrong { router, ..Wrong::default() }, &["passthru"]);
    }
}

#[test]
fn logins_by_cookie_that_outlive_the_sessions_of_their_users_are_noticed() {
    let wrong = Wrong { router: RouterFault::KeepLogins, ..Wrong::default() };
    must_break_with(Advanced::draw, wrong, &["cookie"]);
}

#[test]
fn a_cookie_that_lets_in_whoever_names_himself_is_noticed() {
    let wrong = Wrong { router: RouterFault::TrustCookies, ..Wrong::default() };
    must_break_with(Advanced::draw, wrong, &["cookie"]);
}

#[track_caller]
fn must_break_databases(router: RouterFault, promises: &[&str]) {
    // By chance most have none.
    let advanced = |seed| Advanced { databases: 1 + (seed % 2) as usize, ..Advanced::draw(seed) };
    must_break_with(advanced, Wrong { router, ..Wrong::default() }, promises);
}

#[test]
fn events_of_databases_that_come_during_a_replay_are_noticed() {
    must_break_databases(RouterFault::DeliverDuringReplays, &["resume"]);
}

#[test]
fn going_live_before_all_that_was_held_back_is_noticed() {
    must_break_databases(RouterFault::LiveTooSoon, &["resume"]);
}

#[test]
fn events_of_databases_that_come_once_more_behind_a_replay_are_noticed() {
    must_break_databases(RouterFault::ForgetReplayed, &["resume"]);
}

#[test]
fn a_batch_that_is_reported_before_it_was_offered_is_noticed() {
    must_break_databases(RouterFault::ReportAtOnce, &["R8"]);
}

#[test]
fn parts_of_results_beyond_the_room_of_their_caller_are_noticed() {
    must_break_databases(RouterFault::IgnoreRoom, &["credit"]);
}

#[test]
fn answers_of_databases_to_calls_that_are_over_are_noticed() {
    must_break_databases(RouterFault::AnswerTwice, &["answer"]);
}

#[test]
fn queries_that_are_not_forgotten_are_noticed() {
    must_break_databases(RouterFault::KeepQueries, &["held"]);
}

#[test]
fn queries_that_run_on_without_their_callers_are_noticed() {
    must_break_databases(RouterFault::LeaveQueries, &["interrupt"]);
}

#[test]
fn a_change_of_what_a_database_offers_that_a_core_has_lost_is_noticed() {
    must_break_databases(RouterFault::LoseCatalogues, &["R7"]);
}
