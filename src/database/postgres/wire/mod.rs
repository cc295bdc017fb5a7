//! The PostgreSQL wire client of the call path: one blocking connection for one thread.
//!
//! ```text
//! Settings::parse ── Connection::connect ─┬─ prepare                        a Statement
//!                                         ├─ requests(): bind, execute, …   many groups, each with its own sync
//!                                         │  send()                         one write; it never waits
//!                                         │  next(deadline)                 Event after Event; rows are borrowed
//!                                         ├─ drain                          what is left of abandoned answers
//!                                         ├─ hear, wait_notification, ping  what comes unasked
//!                                         ├─ cancel_handle()                for another thread
//!                                         └─ into_replication               START_REPLICATION
//! ```
//!
//! `stream` moves bytes, `inbox` cuts them into messages, `message` reads these, `requests` writes ours and remembers what
//! each must be answered with, `connection` holds them together. After an error that [`Error::ends_connection`] names
//! nothing more can be done; after any other, a timeout among them, the connection goes on exactly where it was.

mod authenticate;
mod bouncer;
mod cancel;
mod certificate;
mod connect;
mod connection;
mod deadline;
mod error;
mod inbox;
mod message;
mod replication;
mod requests;
pub mod settings;
mod statement;
mod stream;
mod tls;

pub use bouncer::{Pooling, probe};
pub use cancel::CancelHandle;
pub use connection::{Connection, Event};
pub use deadline::Deadline;
pub use error::{Attempt, Error, ServerError};
pub use message::{Column, Columns, Notification, ParameterTypes, Row, TransactionStatus};
pub use replication::{Replicated, Replication};
pub use requests::{Parameter, Requests, ResultFormat};
pub use settings::Settings;
pub use statement::{OwnedColumn, Statement};
