//! Real sockets against the real router: what bad, slow and vanishing clients do to it, and what others notice.
//!
//! Each test starts a router of its own on free ports with the limits that make its rows short, and ends it by
//! SIGTERM, which must find it whole. No time is measured: what waits has a bound that only keeps a test from
//! hanging, and progress is seen in messages and counters.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "clients on real sockets live in real time")]

mod harness;

mod wire {
    mod before_welcome;
    mod bystanders;
    mod client;
    mod router;

    mod compression;
    mod cookies;
    mod endings;
    mod handshake;
    mod limits;
    mod placement;
    mod slow_progress;
    mod slow_reader;
    mod slow_replies;
    mod takeover;
    mod vanished;
    mod wamp_abuse;
    mod websocket_abuse;
}
