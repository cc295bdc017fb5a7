//! Crosspoint, a WAMP application router.

pub mod config;
pub mod link;
pub mod router;
pub mod shard;
pub mod wamp;
