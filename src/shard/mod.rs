//! One core: sockets, rings and clock around its router.

pub mod mesh;
pub mod outbox;
