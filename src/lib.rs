//! Crosspoint, a WAMP application router.

pub mod config;
pub mod cookie;
pub mod database;
pub mod link;
pub mod metrics;
pub mod node;
pub mod password;
pub mod router;
pub mod shard;
pub mod token;
pub mod wamp;
#[cfg(test)]
mod work;
