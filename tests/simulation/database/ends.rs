//! What a core has of all databases together.

use crosspoint::router::database::{
    DatabaseEvent, DatabaseIndex, Query, QueryNumber, Receivers, Replay, batch_of_key,
};
use crosspoint::shard::queries::Databases;

use super::{Shared, lock};

/// One core's end of all databases, by their number.
#[derive(Debug)]
pub struct DatabasesOfCore {
    databases: Vec<Shared>,
    core: usize,
    /// Who is asked first, so that one that says much lets the others speak.
    first: usize,
}

impl DatabasesOfCore {
    pub fn new(databases: &[Shared], core: usize) -> Self {
        Self { databases: databases.to_vec(), core, first: 0 }
    }

    fn of(&self, database: DatabaseIndex) -> &Shared {
        &self.databases[usize::from(database.0)]
    }
}

impl Databases for DatabasesOfCore {
    fn query(&mut self, query: Query) -> bool {
        lock(self.of(query.database)).query(self.core, query)
    }

    fn more(&mut self, database: DatabaseIndex, query: QueryNumber) {
        lock(self.of(database)).more(self.core, query);
    }

    fn cancel(&mut self, database: DatabaseIndex, query: QueryNumber) {
        lock(self.of(database)).cancel(self.core, query);
    }

    fn charge(&mut self, database: DatabaseIndex, batch: u32, bytes: u32) {
        lock(self.of(database)).charge(self.core, batch, bytes);
    }

    fn credit(&mut self, database: DatabaseIndex, batch: u32, bytes: u32) {
        lock(self.of(database)).credit(self.core, batch, bytes);
    }

    fn received(&mut self, receivers: Receivers) {
        if let Some((database, number)) = batch_of_key(receivers.batch) {
            lock(self.of(database)).received(number, receivers);
        }
    }

    fn replay(&mut self, replay: Replay) -> bool {
        lock(self.of(replay.database)).replay(self.core, replay)
    }

    fn take(&mut self) -> Option<DatabaseEvent> {
        let count = self.databases.len();
        let first = self.first;
        self.first = (first + 1) % count;
        (0..count).find_map(|after| lock(&self.databases[(first + after) % count]).take(self.core))
    }

    fn is_empty(&self) -> bool {
        self.databases.iter().all(|database| lock(database).desks[self.core].is_empty())
    }
}
