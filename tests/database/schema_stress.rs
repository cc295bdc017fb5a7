//! Many writers against a drainer that falls asleep, is woken, and dies between any two of its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

use super::schema::{Database, mark};
use super::server::PATIENCE;

const WRITERS: usize = 8;
/// Of each writer at least; they go on until the drainer has slept and died in every way.
const TRANSACTIONS: usize = 40;
const TRANSACTIONS_MAX: usize = 300;

/// What a writer published: its number, its transaction, and the place in it.
type Event = (usize, usize, usize);

/// Numbers from a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Mostly short, sometimes long enough for the drainer to fall asleep meanwhile.
    fn pause(&mut self, long: u64) {
        let milliseconds = match self.below(8) {
            0 => self.below(long),
            1..=3 => self.below(4),
            _ => return,
        };
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
}

/// One event as it was dispatched. The number of the transaction that wrote it is in its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dispatched {
    position: i64,
    id: i64,
    event: Event,
    transaction: u64,
}

/// What became of a drainer's life: what it dispatched between one start and the next.
#[derive(Default)]
struct Drained {
    runs: Vec<Vec<Dispatched>>,
    sleeps: usize,
    crashes: BTreeMap<&'static str, usize>,
}

fn write(
    database: &Database,
    writer: usize,
    seed: u64,
    enough: &AtomicBool,
    committed: &Mutex<BTreeSet<Event>>,
) {
    let mut random = Random(seed);
    let mut client = database.connect("ann");
    let publish = |client: &mut Client, step: usize, transaction: usize| {
        let sql = "SELECT wamp.publish('com.shop.n', jsonb_build_array($1::int, $2::int, $3::int, pg_current_xact_id()::text))";
        client.execute(sql, &[&(writer as i32), &(transaction as i32), &(step as i32)]).unwrap();
    };
    for transaction in 0..TRANSACTIONS_MAX {
        if transaction >= TRANSACTIONS && enough.load(Ordering::SeqCst) {
            break;
        }
        // The snapshot is from before the pause, and from before the drainer's flips in it.
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM wamp.publication")
            .unwrap();
        random.pause(30);
        let events = 1 + random.below(3) as usize;
        for step in 0..events {
            publish(&mut client, step, transaction);
            random.pause(15);
            if random.below(8) == 0 {
                client.batch_execute("SAVEPOINT undone").unwrap();
                publish(&mut client, 99, transaction);
                client.batch_execute("ROLLBACK TO SAVEPOINT undone").unwrap();
            }
        }
        if random.below(6) == 0 {
            client.batch_execute("ROLLBACK").unwrap();
        } else {
            // Noted first: it may be dispatched before COMMIT has returned.
            committed.lock().unwrap().extend((0..events).map(|step| (writer, transaction, step)));
            client.batch_execute("COMMIT").unwrap();
        }
        let between = random.below(120);
        random.pause(4 * between + 1);
        std::thread::sleep(Duration::from_millis(between));
    }
}

/// Positions in order, from a claim or from what an earlier life had left.
fn read(
    client: &mut Client,
    sql: &str,
    parameters: &[&(dyn postgres::types::ToSql + Sync)],
) -> Vec<Dispatched> {
    let rows = client.query(sql, parameters).unwrap();
    rows.iter()
        .map(|row| {
            let words: String = row.get(2);
            let words: Vec<u64> =
                words.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
            let event = (words[0] as usize, words[1] as usize, words[2] as usize);
            Dispatched { position: row.get(0), id: row.get(1), event, transaction: words[3] }
        })
        .collect()
}

struct Drainer<'a> {
    database: &'a Database,
    client: Client,
    epoch: i64,
    random: Random,
    drained: Drained,
}

impl<'a> Drainer<'a> {
    fn start(database: &'a Database, seed: u64) -> Self {
        let (client, epoch) = database.lead();
        let drained = Drained { runs: vec![Vec::new()], ..Drained::default() };
        let mut drainer = Self { database, client, epoch, random: Random(seed), drained };
        drainer.begin();
        drainer
    }

    /// Takes over: what is assigned and not marked goes first.
    fn begin(&mut self) {
        self.client.batch_execute("LISTEN wamp").unwrap();
        let sql = "SELECT position, id, args::text FROM wamp.unsent($1, 0, 10000, 16777216)";
        let left = read(&mut self.client, sql, &[&self.epoch]);
        self.dispatch(left);
        self.client.execute("SELECT wamp.awake($1)", &[&self.epoch]).unwrap();
    }

    /// The connection is gone, and with it all that was only in memory.
    fn crash(&mut self, place: &'static str) {
        *self.drained.crashes.entry(place).or_default() += 1;
        self.drained.runs.push(Vec::new());
        self.client = self.database.connect("router");
        let begun = Instant::now();
        loop {
            if let Some(row) = self.client.query_opt("SELECT epoch FROM wamp.lead('again')", &[]).unwrap() {
                self.epoch = row.get(0);
                return self.begin();
            }
            assert!(begun.elapsed() < PATIENCE, "the old session holds its lock");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn crashes(&mut self) -> bool {
        self.random.below(25) == 0
    }

    fn dispatch(&mut self, rows: Vec<Dispatched>) {
        let Some(last) = rows.last().map(|row| row.position) else { return };
        self.drained.runs.last_mut().unwrap().extend(rows);
        if self.crashes() {
            return self.crash("dispatched, not marked");
        }
        mark(&mut self.client, self.epoch, last);
        if self.crashes() {
            self.crash("marked");
        }
    }

    /// Whether there was anything. Rows that come after a sleep must be of transactions beyond the horizon: all others
    /// had no reason to wake anybody.
    fn claim(&mut self, beyond: u64) -> bool {
        let rows = 1 + self.random.below(20) as i32;
        let sql = "SELECT position, id, args::text FROM wamp.claim($1, $2, 1000000, 1000000) ORDER BY 1";
        let rows = read(&mut self.client, sql, &[&self.epoch, &rows]);
        for row in &rows {
            assert!(row.transaction > beyond, "{row:?} was there before the drainer slept, at {beyond}");
        }
        let some = !rows.is_empty();
        if some && self.crashes() {
            self.crash("assigned, not dispatched");
        } else {
            self.dispatch(rows);
        }
        some
    }

    /// Falls asleep, and is woken by a notification alone.
    fn sleep(&mut self, finished: impl Fn(&Self) -> bool) {
        let lives = self.drained.runs.len();
        self.client.execute("SELECT wamp.doze($1)", &[&self.epoch]).unwrap();
        let sql = "SELECT wamp.horizon($1)::text";
        let horizon: String = self.client.query_one(sql, &[&self.epoch]).unwrap().get(0);
        loop {
            let sql = "SELECT wamp.settled($1::text::xid8)";
            let settled: bool = self.client.query_one(sql, &[&horizon]).unwrap().get(0);
            let some = self.claim(0);
            if self.drained.runs.len() != lives {
                return;
            }
            if settled && !some {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Nothing is looked for here but a notification, and whether there is anything left to come.
        let begun = Instant::now();
        while self.client.notifications().timeout_iter(Duration::from_millis(20)).next().unwrap().is_none() {
            if finished(self) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody woke the drainer");
        }
        self.client.execute("SELECT wamp.awake($1)", &[&self.epoch]).unwrap();
        self.drained.sleeps += 1;
        self.claim(horizon.parse().unwrap());
    }

    /// Until all that was committed is dispatched and marked.
    fn run(
        mut self,
        writing: &AtomicUsize,
        enough: &AtomicBool,
        committed: &Mutex<BTreeSet<Event>>,
    ) -> Drained {
        let finished = |drainer: &Self| {
            writing.load(Ordering::SeqCst) == 0 && {
                let seen: BTreeSet<_> = drainer.drained.runs.iter().flatten().map(|row| row.event).collect();
                *committed.lock().unwrap() == seen
            }
        };
        let mut empty = 0;
        while !finished(&self) {
            enough.store(self.drained.sleeps > 5 && self.drained.crashes.len() == 3, Ordering::SeqCst);
            if self.claim(0) {
                empty = 0;
                continue;
            }
            empty += 1;
            if empty > 3 {
                self.sleep(finished);
                empty = 0;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.drained
    }
}

#[test]
fn every_committed_event_comes_in_order_and_repeated_only_as_it_was() {
    let database = Database::installed();
    let seed = std::env::var("SCHEMA_SEED").ok().and_then(|word| word.parse().ok()).unwrap_or(20_261_126);
    println!("SCHEMA_SEED={seed}");
    let committed = Mutex::new(BTreeSet::new());
    let (writing, enough) = (AtomicUsize::new(WRITERS), AtomicBool::new(false));
    let drained = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (database, committed, writing, enough) = (&database, &committed, &writing, &enough);
            scope.spawn(move || {
                // Also when it fails: the drainer must not wait for it.
                let ended = OnDrop(|| {
                    writing.fetch_sub(1, Ordering::SeqCst);
                });
                write(database, writer, seed + 1 + writer as u64, enough, committed);
                drop(ended);
            });
        }
        Drainer::start(&database, seed).run(&writing, &enough, &committed)
    });
    let committed = committed.into_inner().unwrap();

    // It did what it is about.
    assert!(committed.len() > WRITERS * TRANSACTIONS, "{}", committed.len());
    assert!(drained.sleeps > 5 && drained.crashes.len() == 3, "{} {:?}", drained.sleeps, drained.crashes);
    println!("{} events, slept {} times, died {:?}", committed.len(), drained.sleeps, drained.crashes);

    // Within a life without a gap, and from one to the next without a gap between.
    let mut by_position: BTreeMap<i64, Dispatched> = BTreeMap::new();
    for run in &drained.runs {
        for (before, after) in run.iter().zip(run.iter().skip(1)) {
            assert_eq!(before.position + 1, after.position);
        }
        for row in run {
            let next = by_position.len() as i64 + 1;
            let known = by_position.entry(row.position).or_insert_with(|| row.clone());
            assert_eq!(known, row, "repeated as something else");
            assert!(row.position <= next, "{row:?} came before {next}");
        }
    }
    // Each event has one position, and every position one event.
    let events: BTreeSet<_> = by_position.values().map(|row| row.event).collect();
    assert_eq!(events, committed);
    assert_eq!(by_position.len(), committed.len());
    // Events of one transaction are in their order, and so are the transactions of one writer.
    let mut last: BTreeMap<usize, Event> = BTreeMap::new();
    for row in by_position.values() {
        let before = last.insert(row.event.0, row.event);
        assert!(before < Some(row.event), "{before:?} came before {row:?}");
    }
    // Who resumes at any place gets exactly the rest.
    let mut router = database.connect("router");
    let after = by_position.len() as i64 / 3;
    let sql = "SELECT position, 0::bigint, args::text FROM wamp.replay($1, rows_max => 100000, bytes_max => 100000000)";
    let rest = read(&mut router, sql, &[&after]);
    let expected: Vec<_> =
        by_position.range(after + 1..).map(|(_, row)| Dispatched { id: 0, ..row.clone() }).collect();
    assert_eq!(rest, expected);
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}
