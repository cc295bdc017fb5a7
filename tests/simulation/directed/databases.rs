//! What a database is told of a batch that takes several turns to be offered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crosspoint::router::database::{
    DatabaseBatch, DatabaseEvent, DatabaseIndex, DatabasePublication, Query, QueryNumber, Receivers, Replay,
};
use crosspoint::router::peer::RealmIndex;
use crosspoint::shard::queries::Databases;

use super::{Framing, Scene, TURNS_MAX, WIDE, limits};

/// More than one call to the kernel takes.
const EVENTS: usize = 200;

/// Longer than what is copied, so that each frame is a piece of its own.
const LONG: usize = 2000;

/// A database that publishes once.
struct OneBatch {
    batch: Option<DatabaseBatch>,
    /// What of it was not offered, in bytes.
    owed: Arc<AtomicU32>,
}

impl Databases for OneBatch {
    fn query(&mut self, _query: Query) -> bool {
        false
    }

    fn more(&mut self, _database: DatabaseIndex, _query: QueryNumber) {}

    fn cancel(&mut self, _database: DatabaseIndex, _query: QueryNumber) {}

    fn charge(&mut self, _database: DatabaseIndex, _batch: u32, bytes: u32) {
        self.owed.fetch_add(bytes, Ordering::Relaxed);
    }

    fn credit(&mut self, _database: DatabaseIndex, _batch: u32, bytes: u32) {
        self.owed.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn received(&mut self, _receivers: Receivers) {}

    fn replay(&mut self, _replay: Replay) -> bool {
        false
    }

    fn take(&mut self) -> Option<DatabaseEvent> {
        self.batch.take().map(DatabaseEvent::Publish)
    }

    fn is_empty(&self) -> bool {
        self.batch.is_none()
    }
}

#[test]
fn a_batch_is_reported_when_all_of_it_was_offered() {
    let mut scene = Scene::new(limits());
    // They share the frames.
    let mut subscribers = [(); 2].map(|()| scene.join(Framing::RawSocket, WIDE));
    for subscriber in &mut subscribers {
        scene.say(subscriber, r#"[32,1,{},"topic"]"#);
        scene.settle();
        assert_eq!(scene.hear(subscriber).len(), 1);
    }
    let publication = |place: usize| DatabasePublication {
        position: place as u64 + 1,
        depth: 0,
        publish: format!(r#"[16,1,{{}},"topic",["{}"]]"#, "x".repeat(LONG)).into(),
    };
    let batch = DatabaseBatch {
        realm: RealmIndex(0),
        database: DatabaseIndex(0),
        number: 1,
        publications: (0..EVENTS).map(publication).collect(),
        is_counted: false,
    };
    let owed = Arc::<AtomicU32>::default();
    let database = OneBatch { batch: Some(batch), owed: Arc::clone(&owed) };
    scene.cores[0].borrow_mut().shard.query_by(Box::new(database));
    let (mut heard, mut turns) = (0, 0);
    while heard == 0 || owed.load(Ordering::Relaxed) > 0 {
        scene.turn();
        heard += subscribers.iter_mut().map(|subscriber| scene.hear(subscriber).len()).sum::<usize>();
        turns += 1;
        assert!(turns < TURNS_MAX, "{heard} events came, and the database was not told");
    }
    assert_eq!(heard, 2 * EVENTS);
    assert!(turns > 1, "it takes several turns");
}
