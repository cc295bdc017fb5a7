//! Databases: their procedures are procedures of a realm, and what they publish are events of it.
//!
//! Everything here blocks, on threads of its own: nothing of it ever runs on a core.

pub mod postgres;
