//! The router as a process: its command line, its signals, its logs, and a machine that denies it what it needs.
//!
//! Each test starts a router of its own on free ports and ends what it started. Nothing here needs more than loopback;
//! where a test wants something that a machine may not have (Python, namespaces, two processors), it says so and passes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "a test of a process waits in real time")]

mod harness;
#[path = "database/server.rs"]
mod server;

mod process {
    mod authorizer;
    mod command_line;
    mod credentials;
    mod database_inside;
    mod database_subscriptions;
    mod databases;
    mod demo;
    mod faults;
    mod logins;
    mod logs;
    mod machine;
    mod postgresql;
    mod postgresql_log;
    mod preflight;
    mod realms;
    mod resuming;
    mod service_manager;
    mod signing_keys;
    mod start;
    mod stop;
}
