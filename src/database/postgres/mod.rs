//! PostgreSQL.

pub mod install;
