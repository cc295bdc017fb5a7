//! The schema `wamp` on a real PostgreSQL server: what the functions promise to who publishes, to who drains, and against
//! those who may not.
//!
//! Each test has a database and roles of its own on one private server. No time is measured; whatever waits has a bound
//! that only keeps a test from hanging.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "a server is waited for in real time")]

mod database {
    mod server;

    mod schema;
    mod schema_calls;
    mod schema_crash;
    mod schema_drain;
    mod schema_install;
    mod schema_publish;
    mod schema_rights;
    mod schema_rows;
    mod schema_stress;
}
