//! Oracle: functions and procedures of schemas and packages, and SQL of the configuration.
//!
//! A call is one anonymous block with the parameters that it has values for, and one transaction. It is compiled against the
//! client of Oracle as it is loaded at run time, and was never run against a server of Oracle: tests run it, and the library it
//! is built on, against a client library of their own (`tests/oracle/`).

pub mod settings;

#[cfg(feature = "oracle")]
mod administrator;
#[cfg(feature = "oracle")]
mod discover;
#[cfg(feature = "oracle")]
mod errors;
#[cfg(feature = "oracle")]
pub mod inside;
#[cfg(feature = "oracle")]
pub mod install;
#[cfg(feature = "oracle")]
mod outbox;
#[cfg(feature = "oracle")]
mod readable;
#[cfg(feature = "oracle")]
mod results;
#[cfg(feature = "oracle")]
mod statements;
#[cfg(feature = "oracle")]
mod subprograms;
#[cfg(feature = "oracle")]
mod times;
#[cfg(feature = "oracle")]
mod values;

#[cfg(feature = "oracle")]
mod driver;

#[cfg(feature = "oracle")]
pub use administrator::Administrator;
#[cfg(feature = "oracle")]
use driver::{CALL_MIN, LOOK, Target};
#[cfg(feature = "oracle")]
pub use driver::{Exposed, Oracle};

/// Whether this program was compiled with it.
pub const IS_COMPILED_IN: bool = cfg!(feature = "oracle");
