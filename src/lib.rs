//! Crosspoint, a WAMP application router.

pub mod config;
pub mod link;
pub mod wamp;
