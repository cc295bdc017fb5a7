//! The state machine of one core: what goes to whom. Pure.

pub mod authorize;
pub mod uri_map;
