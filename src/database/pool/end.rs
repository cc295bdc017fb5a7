//! What one core has of all databases together.

use std::fmt;

use super::PoolEnd;
use crate::router::database::{
    DatabaseEvent, DatabaseIndex, Query, QueryNumber, Receivers, Replay, batch_of_key,
};
use crate::shard::queries::Databases;

/// One core's end of all databases, by their number.
pub struct DatabaseEnd {
    pools: Vec<PoolEnd>,
    /// Who is asked first, so that one that says much lets the others speak.
    first: usize,
}

impl fmt::Debug for DatabaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseEnd").field("pools", &self.pools.len()).finish_non_exhaustive()
    }
}

impl DatabaseEnd {
    /// Of these, in the order of their numbers.
    #[must_use]
    pub fn new(pools: Vec<PoolEnd>) -> Self {
        Self { pools, first: 0 }
    }
}

impl Databases for DatabaseEnd {
    fn query(&mut self, query: Query) -> bool {
        self.pools.get_mut(usize::from(query.database.0)).is_some_and(|pool| pool.query(query))
    }

    fn more(&mut self, database: DatabaseIndex, query: QueryNumber) {
        if let Some(pool) = self.pools.get(usize::from(database.0)) {
            pool.more(query);
        }
    }

    fn cancel(&mut self, database: DatabaseIndex, query: QueryNumber) {
        if let Some(pool) = self.pools.get(usize::from(database.0)) {
            pool.cancel(query);
        }
    }

    fn charge(&mut self, database: DatabaseIndex, batch: u32, bytes: u32) {
        if let Some(pool) = self.pools.get_mut(usize::from(database.0)) {
            pool.charge(batch, bytes);
        }
    }

    fn credit(&mut self, database: DatabaseIndex, batch: u32, bytes: u32) {
        if let Some(pool) = self.pools.get_mut(usize::from(database.0)) {
            pool.credit(batch, bytes);
        }
    }

    fn received(&mut self, receivers: Receivers) {
        if let Some((database, batch)) = batch_of_key(receivers.batch)
            && let Some(pool) = self.pools.get_mut(usize::from(database.0))
        {
            pool.received(batch, receivers);
        }
    }

    fn replay(&mut self, replay: Replay) -> bool {
        self.pools.get_mut(usize::from(replay.database.0)).is_some_and(|pool| pool.replay(replay))
    }

    fn take(&mut self) -> Option<DatabaseEvent> {
        let count = self.pools.len();
        let first = self.first;
        self.first = if first + 1 >= count { 0 } else { first + 1 };
        (0..count).find_map(|after| self.pools[(first + after) % count].take())
    }

    fn is_empty(&self) -> bool {
        self.pools.iter().all(PoolEnd::is_empty)
    }
}
