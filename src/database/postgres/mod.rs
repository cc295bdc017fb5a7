//! PostgreSQL.

pub mod install;
pub mod wire;
