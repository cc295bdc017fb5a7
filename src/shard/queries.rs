//! What a core gives to databases, and hears of them. Who stands behind it has threads of its own, and never waits here.

use std::fmt;

use crate::router::database::{DatabaseEvent, DatabaseIndex, Query, QueryNumber, Receivers, Replay};

/// A core's end of all databases.
pub trait Databases: Send {
    /// Gives a query away; whether there was room. Of each that was taken comes one last event.
    fn query(&mut self, query: Query) -> bool;

    /// The next part of a result may come.
    fn more(&mut self, database: DatabaseIndex, query: QueryNumber);

    /// Nobody waits for a query any more; its last event comes all the same.
    fn cancel(&mut self, database: DatabaseIndex, query: QueryNumber);

    /// A batch of publications is charged with so many bytes.
    fn charge(&mut self, database: DatabaseIndex, batch: u32, bytes: u32);

    /// So many bytes of a batch were offered to those who get them. It is over when nothing is left.
    fn credit(&mut self, database: DatabaseIndex, batch: u32, bytes: u32);

    /// How many sessions of one core got a publication of a batch that is not over.
    fn received(&mut self, receivers: Receivers);

    /// Asks for what was published; whether it is there. Of each that was asked for comes one answer.
    fn replay(&mut self, replay: Replay) -> bool;

    /// What they say, one event after the other.
    fn take(&mut self) -> Option<DatabaseEvent>;

    /// Whether nothing was said that was not taken: asked after the core has announced its sleep, too. Whoever says
    /// something later rings.
    fn is_empty(&self) -> bool;
}

/// There may be none.
#[derive(Default)]
pub(super) struct Queries(Option<Box<dyn Databases>>);

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queries").field(&self.0.is_some()).finish()
    }
}

impl Queries {
    pub(super) fn of(databases: Box<dyn Databases>) -> Self {
        Self(Some(databases))
    }

    pub(super) fn query(&mut self, query: Query) -> bool {
        self.0.as_mut().is_some_and(|databases| databases.query(query))
    }

    pub(super) fn more(&mut self, database: DatabaseIndex, query: QueryNumber) {
        if let Some(databases) = &mut self.0 {
            databases.more(database, query);
        }
    }

    pub(super) fn cancel(&mut self, database: DatabaseIndex, query: QueryNumber) {
        if let Some(databases) = &mut self.0 {
            databases.cancel(database, query);
        }
    }

    pub(super) fn charge(&mut self, database: DatabaseIndex, batch: u32, bytes: u32) {
        if let Some(databases) = &mut self.0 {
            databases.charge(database, batch, bytes);
        }
    }

    pub(super) fn credit(&mut self, database: DatabaseIndex, batch: u32, bytes: u32) {
        if let Some(databases) = &mut self.0 {
            databases.credit(database, batch, bytes);
        }
    }

    pub(super) fn received(&mut self, receivers: Receivers) {
        if let Some(databases) = &mut self.0 {
            databases.received(receivers);
        }
    }

    pub(super) fn replay(&mut self, replay: Replay) -> bool {
        self.0.as_mut().is_some_and(|databases| databases.replay(replay))
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<DatabaseEvent> {
        self.0.as_mut()?.take()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|databases| databases.is_empty())
    }
}
