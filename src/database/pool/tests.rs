//! A pool whose database does what it is told, and cores that wait for it.

use std::sync::Condvar;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::database::{Backlog, NotRead, Replayer};
use crate::router::database::{
    Caller, DatabasePublication, NotReplayed, ReplayNumber, Replayed, key_of_batch,
};
use crate::shard::mesh::{self, Doorbell, MeshEnd, SharedDoorbell};
use crate::wamp::MatchPolicy;
use crate::wamp::SessionId;
use crate::wamp::error::uri;

const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than anything but a server that says nothing.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(2);

const BACKLOG: Backlog = Backlog { events: 3, oldest_ms: 9 };

/// A core that sleeps until it is rung.
#[derive(Default)]
struct Bell(Mutex<u32>, Condvar);

impl Doorbell for Bell {
    fn ring(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }
}

/// What the one server of all connections does, and is told.
#[derive(Default)]
struct Server {
    is_down: AtomicBool,
    is_led_by_another: AtomicBool,
    /// How often somebody wanted to publish meanwhile.
    sources_refused: AtomicUsize,
    /// Connections, ever.
    connections: AtomicUsize,
    /// Those that read what was published, ever.
    replayers: AtomicUsize,
    calls: AtomicU64,
    /// Calls that were stopped although they did not wait to be.
    innocent: AtomicU64,
    /// Calls of `wait` that wait.
    waiting: AtomicUsize,
    /// Calls of `silent` that wait for a server that says nothing, whatever is done to it.
    silent: AtomicUsize,
    /// It says something again.
    speaks: AtomicBool,
    /// Who reads what was published waits, and how many do.
    replays_are_silent: AtomicBool,
    silent_replays: AtomicUsize,
    /// It publishes, up to this position; what of that was marked, and how many got it.
    talks: AtomicBool,
    talks_until: AtomicU64,
    marked: AtomicU64,
    received: Mutex<HashMap<u64, u64>>,
}

/// It publishes, and never has anything.
struct Quiet;

/// It publishes batches of two, and keeps what it is told of them.
struct Talks {
    server: Arc<Server>,
    last: u64,
}

impl Source for Talks {
    fn next(
        &mut self,
        _bounds: BatchBounds,
        wait: Duration,
        _problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        if self.last == self.server.talks_until.load(Ordering::SeqCst) {
            thread::sleep(wait.min(Duration::from_millis(1)));
            return Ok(Vec::new());
        }
        let publication = |position| DatabasePublication { position, depth: 0, publish: "".into() };
        self.last += 2;
        Ok(vec![publication(self.last - 1), publication(self.last)])
    }

    fn wants_receivers(&self) -> bool {
        true
    }

    fn received(&mut self, receivers: &[(u64, u64)]) {
        self.server.received.lock().unwrap().extend(receivers.iter().copied());
    }

    fn mark(&mut self, last: u64) -> Result<(), Problem> {
        self.server.marked.store(last, Ordering::SeqCst);
        Ok(())
    }
}

impl Source for Quiet {
    fn next(
        &mut self,
        _bounds: BatchBounds,
        wait: Duration,
        _problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        thread::sleep(wait.min(Duration::from_millis(1)));
        Ok(Vec::new())
    }

    fn mark(&mut self, _last: u64) -> Result<(), Problem> {
        Ok(())
    }
}

struct Fake {
    server: Arc<Server>,
    threads: usize,
}

struct FakeConnection {
    server: Arc<Server>,
    cancel: Arc<FakeCancel>,
    is_broken: bool,
}

#[derive(Default)]
struct FakeCancel {
    is_calling: AtomicBool,
    is_cancelled: AtomicBool,
    is_given_up: AtomicBool,
    /// It runs `silent`: a cancel is not heard either.
    is_silent: AtomicBool,
}

impl Cancel for FakeCancel {
    /// Stops whatever runs when it gets there, as a server does.
    fn cancel(&self) {
        thread::sleep(Duration::from_millis(1));
        while self.is_silent.load(Ordering::SeqCst) && !self.is_given_up.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        if self.is_calling.load(Ordering::SeqCst) {
            self.is_cancelled.store(true, Ordering::SeqCst);
        }
    }

    fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
    }
}

impl Driver for Fake {
    fn lanes(&self) -> Vec<usize> {
        vec![self.threads]
    }

    fn lane_of(&self, _procedure: &Procedure) -> usize {
        0
    }

    fn connect(&self, _lane: usize) -> Result<Box<dyn Connection>, Problem> {
        if self.server.is_down.load(Ordering::SeqCst) {
            return Err(Problem("nobody listens".to_owned()));
        }
        self.server.connections.fetch_add(1, Ordering::SeqCst);
        let cancel = Arc::new(FakeCancel::default());
        Ok(Box::new(FakeConnection { server: Arc::clone(&self.server), cancel, is_broken: false }))
    }

    fn source(&self) -> Result<Option<Box<dyn Source>>, Problem> {
        if self.server.is_led_by_another.load(Ordering::SeqCst) {
            self.server.sources_refused.fetch_add(1, Ordering::SeqCst);
            return Err(Problem("another router publishes".to_owned()));
        }
        if self.server.talks.load(Ordering::SeqCst) {
            return Ok(Some(Box::new(Talks { server: Arc::clone(&self.server), last: 0 })));
        }
        Ok(Some(Box::new(Quiet)))
    }

    fn publishes(&self) -> bool {
        true
    }

    fn replayer(&self) -> Result<Option<Box<dyn Replayer>>, Problem> {
        if self.server.is_down.load(Ordering::SeqCst) {
            return Err(Problem("nobody listens".to_owned()));
        }
        self.server.replayers.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Box::new(FakeReplayer(Arc::clone(&self.server)))))
    }
}

/// Has published nothing up to position 9, and keeps what is behind 5.
struct FakeReplayer(Arc<Server>);

impl Replayer for FakeReplayer {
    fn replay(&mut self, replay: &Replay, _bounds: BatchBounds) -> Result<Replayed, NotRead> {
        if self.0.is_down.load(Ordering::SeqCst) {
            return Err(NotRead::Lost(Problem("the server is gone".to_owned())));
        }
        self.0.silent_replays.fetch_add(1, Ordering::SeqCst);
        while self.0.replays_are_silent.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.0.silent_replays.fetch_sub(1, Ordering::SeqCst);
        if replay.after < 5 {
            return Err(NotRead::NotKept);
        }
        Ok(Replayed { publications: Vec::new(), upto: 9, is_complete: true })
    }
}

fn nothing() -> OwnedPayload {
    OwnedPayload::new(Serializer::Json, Vec::new(), Vec::new())
}

impl Connection for FakeConnection {
    fn call(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, CallError> {
        self.server.calls.fetch_add(1, Ordering::SeqCst);
        self.cancel.is_cancelled.store(false, Ordering::SeqCst);
        self.cancel.is_calling.store(true, Ordering::SeqCst);
        let result = self.run(query, results);
        self.cancel.is_calling.store(false, Ordering::SeqCst);
        if self.cancel.is_cancelled.load(Ordering::SeqCst) && !results.is_cancelled() {
            self.server.innocent.fetch_add(1, Ordering::SeqCst);
        }
        result
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::clone(&self.cancel) as Arc<dyn Cancel>
    }

    fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn discover(&mut self) -> Result<Discovered, Problem> {
        Ok(Discovered { procedures: vec![procedure("p")], problems: Vec::new() })
    }

    fn has_changed(&mut self) -> Result<bool, Problem> {
        if self.server.is_down.load(Ordering::SeqCst) {
            return Err(Problem("the server is gone".to_owned()));
        }
        Ok(false)
    }

    fn backlog(&mut self) -> Result<Option<Backlog>, Problem> {
        Ok(Some(BACKLOG))
    }
}

impl FakeConnection {
    fn run(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, CallError> {
        match &*query.procedure.uri {
            "wait" => {
                self.server.waiting.fetch_add(1, Ordering::SeqCst);
                while !self.cancel.is_cancelled.load(Ordering::SeqCst) {
                    if results.time_left().is_some_and(|left| left.is_zero()) {
                        self.server.waiting.fetch_sub(1, Ordering::SeqCst);
                        return Err(CallError::timed_out(query.serializer));
                    }
                    thread::sleep(Duration::from_micros(50));
                }
                self.server.waiting.fetch_sub(1, Ordering::SeqCst);
                Err(CallError::cancelled(query.serializer))
            }
            "parts" => {
                for _ in 0..3 {
                    results.part(nothing()).map_err(|stopped| match stopped {
                        Stopped::Cancelled => CallError::cancelled(query.serializer),
                        Stopped::TimedOut => CallError::timed_out(query.serializer),
                    })?;
                }
                Ok(nothing())
            }
            "silent" => {
                self.cancel.is_silent.store(true, Ordering::SeqCst);
                self.server.silent.fetch_add(1, Ordering::SeqCst);
                while !self.server.speaks.load(Ordering::SeqCst)
                    && !self.cancel.is_given_up.load(Ordering::SeqCst)
                {
                    thread::sleep(Duration::from_millis(1));
                }
                self.cancel.is_silent.store(false, Ordering::SeqCst);
                self.server.silent.fetch_sub(1, Ordering::SeqCst);
                self.is_broken = true;
                Err(CallError::unavailable(query.serializer, "nothing was heard"))
            }
            "panic" => panic!("as the test wants it"),
            "lose" => {
                self.is_broken = true;
                Err(CallError::unavailable(query.serializer, "the connection was lost"))
            }
            _ => {
                thread::sleep(Duration::from_micros(query.number.0 % 7 * 100));
                Ok(nothing())
            }
        }
    }
}

fn procedure(uri: &str) -> Arc<Procedure> {
    // `wait/2` waits, and two at a time do.
    let (uri, concurrency) =
        uri.split_once('/').map_or((uri, 0), |(uri, bound)| (uri, bound.parse().unwrap()));
    Arc::new(Procedure { uri: uri.into(), driver: Arc::new(()), timeout_ms: 0, concurrency })
}

/// Some cores without a router.
struct Stand {
    server: Arc<Server>,
    pool: Pool,
    bells: Vec<Arc<Bell>>,
    ends: Vec<(MeshEnd<u32>, PoolEnd)>,
    last: u64,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl Stand {
    fn new(cores: usize, threads: usize, queue_max: usize) -> Self {
        Self::of(Arc::default(), cores, threads, queue_max)
    }

    fn of(server: Arc<Server>, cores: usize, threads: usize, queue_max: usize) -> Self {
        let bells: Vec<_> = (0..cores).map(|_| Arc::new(Bell::default())).collect();
        let doorbells = bells.iter().map(|bell| Arc::clone(bell) as SharedDoorbell).collect();
        let meshes = mesh::connect::<u32>(4, doorbells);
        let wakers = (0..cores).map(|core| meshes[0].waker(core)).collect();
        let driver = Arc::new(Fake { server: Arc::clone(&server), threads });
        let refresh = Duration::from_millis(20);
        let options =
            PoolOptions { queue_max, queue_bytes_max: 1 << 20, refresh, replay_timeout: REPLAY_TIMEOUT };
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&notices);
        let notify = Arc::new(move |notice: &Notice| heard.lock().unwrap().push(notice.clone()));
        let names = (RealmIndex(0), DatabaseIndex(0));
        let pool = Pool::start(driver, names, options, wakers, notify).unwrap();
        let ends = meshes.into_iter().enumerate().map(|(core, mesh)| (mesh, pool.end(core))).collect();
        let mut stand = Self { server, pool, bells, ends, last: 0, notices };
        for core in 0..cores {
            let event = stand.next(core);
            assert!(matches!(event, DatabaseEvent::Offer(_, _, ref all) if *all[0].uri == *"p"), "{event:?}");
        }
        stand
    }

    fn query(&mut self, core: usize, uri: &str, timeout_ms: u64) -> Option<QueryNumber> {
        self.last += 1;
        let caller = Caller {
            session: SessionId(1),
            authid: "a".into(),
            authrole: "r".into(),
            authmethod: "anonymous",
            authprovider: "static",
            authextra: "".into(),
        };
        let query = Query {
            number: QueryNumber(self.last),
            database: DatabaseIndex(0),
            procedure: procedure(uri),
            payload: nothing(),
            serializer: Serializer::Json,
            timeout_ms,
            receive_progress: true,
            caller,
        };
        self.ends[core].1.query(query).then_some(QueryNumber(self.last))
    }

    /// What a core hears next; it sleeps until it is rung.
    fn next(&mut self, core: usize) -> DatabaseEvent {
        let (mesh, end) = &mut self.ends[core];
        loop {
            if let Some(event) = end.take() {
                return event;
            }
            if mesh.may_sleep(|| end.is_empty()) {
                let bell = &self.bells[core];
                let rung = bell.0.lock().unwrap();
                let (mut rung, timeout) =
                    bell.1.wait_timeout_while(rung, PATIENCE, |rung| *rung == 0).unwrap();
                // A ring that was lost would let this time out.
                assert!(!timeout.timed_out(), "nobody rang");
                *rung = 0;
                mesh.awake();
            }
        }
    }

    fn fails(&mut self, core: usize) -> (QueryNumber, Box<str>) {
        match self.next(core) {
            DatabaseEvent::Failed(number, uri, _) => (number, uri),
            event => panic!("{event:?}"),
        }
    }

    fn until(&self, is: impl Fn(&Server) -> bool) {
        let begin = Instant::now();
        while !is(&self.server) {
            assert!(begin.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn every_query_of_every_core_is_answered_once() {
    let mut stand = Stand::new(2, 3, 64);
    let mut asked = [0, 0];
    let mut answered = [0, 0];
    while answered.iter().sum::<usize>() < 2_000 {
        for core in 0..2 {
            while asked[core] < 1_000 && stand.query(core, "p", 0).is_some() {
                asked[core] += 1;
            }
            if answered[core] < asked[core] {
                let event = stand.next(core);
                assert!(matches!(event, DatabaseEvent::Done(..)), "{event:?}");
                answered[core] += 1;
            }
        }
    }
    assert_eq!(stand.server.calls.load(Ordering::SeqCst), 2_000);
    assert!(stand.ends.iter().all(|(_, end)| end.calls.is_empty() && end.is_empty()));
    assert_eq!(stand.pool.shared.waiting_bytes.load(Ordering::SeqCst), 0);
    stand.pool.stop();
    assert!(stand.pool.join());
}

#[test]
fn what_becomes_of_calls_is_counted() {
    let mut stand = Stand::new(1, 1, 8);
    let counted = |stand: &Stand| stand.pool.counted(stand.pool.ask(), PATIENCE);
    assert_eq!(counted(&stand), Counted { backlog: Some(BACKLOG), ..Counted::default() });
    stand.query(0, "p", 0).unwrap();
    assert!(matches!(stand.next(0), DatabaseEvent::Done(..)));
    let late = stand.query(0, "wait", 5).unwrap();
    assert_eq!(stand.fails(0), (late, uri::TIMEOUT.into()));
    let unwanted = stand.query(0, "wait", 0).unwrap();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 1);
    stand.query(0, "p", 0).unwrap();
    let now = counted(&stand);
    assert_eq!((now.calls, now.timed_out, now.cancelled, now.waiting, now.connections), (2, 1, 0, 1, 1));
    stand.ends[0].1.cancel(unwanted);
    assert_eq!(stand.fails(0), (unwanted, uri::CANCELED.into()));
    assert!(matches!(stand.next(0), DatabaseEvent::Done(..)));
    let lost = stand.query(0, "lose", 0).unwrap();
    assert_eq!(stand.fails(0), (lost, uri::UNAVAILABLE.into()));
    let now = counted(&stand);
    let expected = Counted { calls: 5, failed: 1, cancelled: 1, timed_out: 1, backlog: Some(BACKLOG), ..now };
    assert_eq!((now, now.waiting, now.connections), (expected, 0, 0), "the connection was lost");
}

#[test]
fn a_full_queue_is_an_answer() {
    let mut stand = Stand::new(1, 1, 2);
    let first = stand.query(0, "wait", 0).unwrap();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 1);
    assert!(stand.query(0, "p", 0).is_some());
    assert!(stand.query(0, "p", 0).is_some());
    assert!(stand.query(0, "p", 0).is_none());
    stand.ends[0].1.cancel(first);
    assert_eq!(stand.fails(0), (first, uri::CANCELED.into()));
    for _ in 0..2 {
        assert!(matches!(stand.next(0), DatabaseEvent::Done(..)));
    }
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let mut stand = Stand::new(1, 1, 1_000_000);
    let first = stand.query(0, "wait", 0).unwrap();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 1);
    let taken = (0..100_000).take_while(|_| stand.query(0, "p", 0).is_some()).count();
    assert_eq!(taken, (1 << 20) / QUERY_OVERHEAD_BYTES);
    stand.ends[0].1.cancel(first);
}

#[test]
fn a_late_cancel_stops_no_other() {
    let mut stand = Stand::new(1, 2, 64);
    let mut cancelled = 0;
    for round in 0..400 {
        let numbers = [stand.query(0, "p", 0).unwrap(), stand.query(0, "p", 0).unwrap()];
        if round % 3 > 0 {
            thread::sleep(Duration::from_micros(round % 11 * 60));
        }
        stand.ends[0].1.cancel(numbers[0]);
        for _ in 0..2 {
            cancelled += usize::from(matches!(stand.next(0), DatabaseEvent::Failed(..)));
        }
    }
    assert_eq!(stand.server.innocent.load(Ordering::SeqCst), 0, "{cancelled} were cancelled in time");
}

#[test]
fn what_is_cancelled_before_it_begins_never_begins() {
    let mut stand = Stand::new(1, 1, 8);
    let first = stand.query(0, "wait", 0).unwrap();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 1);
    let second = stand.query(0, "p", 0).unwrap();
    stand.ends[0].1.cancel(second);
    stand.ends[0].1.cancel(first);
    assert_eq!(stand.fails(0).0, first);
    assert_eq!(stand.fails(0), (second, uri::CANCELED.into()));
    assert_eq!(stand.server.calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_part_waits_until_the_one_before_is_taken() {
    let mut stand = Stand::new(1, 1, 8);
    let number = stand.query(0, "parts", 0).unwrap();
    for _ in 0..2 {
        assert!(matches!(stand.next(0), DatabaseEvent::Part(of, _) if of == number));
        thread::sleep(Duration::from_millis(5));
        assert!(stand.ends[0].1.is_empty(), "a part came that nobody asked for");
        stand.ends[0].1.more(number);
    }
    assert!(matches!(stand.next(0), DatabaseEvent::Part(..)));
    assert!(matches!(stand.next(0), DatabaseEvent::Done(..)));

    // Nobody takes the second: its time goes by, or somebody cancels.
    let late = stand.query(0, "parts", 30).unwrap();
    assert!(matches!(stand.next(0), DatabaseEvent::Part(..)));
    assert_eq!(stand.fails(0), (late, uri::TIMEOUT.into()));
    let unwanted = stand.query(0, "parts", 0).unwrap();
    assert!(matches!(stand.next(0), DatabaseEvent::Part(..)));
    stand.ends[0].1.cancel(unwanted);
    assert_eq!(stand.fails(0), (unwanted, uri::CANCELED.into()));
}

#[test]
fn a_database_that_is_away_answers_at_once_and_comes_back() {
    let mut stand = Stand::new(1, 2, 8);
    stand.server.is_down.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    while let Some(number) = stand.query(0, "lose", 0) {
        assert_eq!(stand.fails(0), (number, uri::UNAVAILABLE.into()));
        assert!(begin.elapsed() < PATIENCE);
    }
    let away = |notices: &Mutex<Vec<Notice>>| {
        notices.lock().unwrap().iter().filter(|notice| matches!(notice, Notice::Away(_))).count()
    };
    stand.until(|_| away(&stand.notices) > 0);
    stand.server.is_down.store(false, Ordering::SeqCst);
    // It offers again what it has.
    assert!(matches!(stand.next(0), DatabaseEvent::Offer(..)));
    stand.until(|_| !stand.pool.shared.is_away.load(Ordering::SeqCst));
    assert!(stand.query(0, "p", 0).is_some());
    assert!(matches!(stand.next(0), DatabaseEvent::Done(..)));
}

#[test]
fn slow_procedures_with_a_bound_leave_threads_to_others() {
    let mut stand = Stand::new(1, 3, 8);
    let slow: Vec<_> = (0..5).map(|_| stand.query(0, "wait/2", 0).unwrap()).collect();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 2);
    for _ in 0..20 {
        let other = stand.query(0, "p", 0).unwrap();
        assert!(matches!(stand.next(0), DatabaseEvent::Done(number, _) if number == other));
    }
    assert_eq!(stand.server.waiting.load(Ordering::SeqCst), 2);
    // One that waits for its turn is answered before that.
    stand.ends[0].1.cancel(slow[3]);
    assert_eq!(stand.fails(0), (slow[3], uri::CANCELED.into()));
    // The next takes the place of one that has ended, in order.
    for (ended, begun) in [(slow[0], 23), (slow[1], 24), (slow[2], 24), (slow[4], 24)] {
        stand.ends[0].1.cancel(ended);
        assert_eq!(stand.fails(0), (ended, uri::CANCELED.into()));
        stand.until(|server| server.calls.load(Ordering::SeqCst) == begun);
    }
    stand.until(|_| stand.pool.shared.lanes[0].turns().is_empty());
    assert_eq!(stand.pool.shared.waiting_bytes.load(Ordering::SeqCst), 0);
}

#[test]
fn who_waits_for_a_turn_waits_no_longer_than_its_time() {
    let mut stand = Stand::new(1, 2, 2);
    let first = stand.query(0, "wait/1", 0).unwrap();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 1);
    let patient = stand.query(0, "wait/1", 0).unwrap();
    let late = stand.query(0, "wait/1", 30).unwrap();
    assert_eq!(stand.fails(0), (late, uri::TIMEOUT.into()));
    // As many wait as may wait for a thread: the third is refused.
    let last = stand.query(0, "wait/1", 0).unwrap();
    let refused = stand.query(0, "wait/1", 0).unwrap();
    assert_eq!(stand.fails(0), (refused, uri::UNAVAILABLE.into()));
    for number in [first, patient, last] {
        stand.ends[0].1.cancel(number);
        assert_eq!(stand.fails(0).0, number);
    }
    stand.until(|_| stand.pool.shared.lanes[0].turns().is_empty());
    assert_eq!(stand.pool.shared.waiting_bytes.load(Ordering::SeqCst), 0);
}

#[test]
fn one_at_a_time_is_in_order_and_every_one_is_answered() {
    let mut stand = Stand::new(2, 4, 2_000);
    for core in 0..2 {
        for _ in 0..500 {
            assert!(stand.query(core, "p/1", 0).is_some());
        }
    }
    for core in 0..2 {
        let mut last = QueryNumber(0);
        for _ in 0..500 {
            let event = stand.next(core);
            assert!(
                matches!(event, DatabaseEvent::Done(number, _) if number > last),
                "{event:?} after {last:?}"
            );
            if let DatabaseEvent::Done(number, _) = event {
                last = number;
            }
        }
    }
    assert_eq!(stand.server.calls.load(Ordering::SeqCst), 1_000);
}

#[test]
fn the_end_cancels_what_runs() {
    let mut stand = Stand::new(1, 2, 8);
    stand.query(0, "parts", 0).unwrap();
    assert!(matches!(stand.next(0), DatabaseEvent::Part(..)));
    stand.pool.stop();
    assert!(stand.pool.join());
}

#[test]
fn a_driver_that_panics_takes_no_turn_and_no_thread_along() {
    let mut stand = Stand::new(1, 1, 8);
    for _ in 0..3 {
        let number = stand.query(0, "panic/1", 0).unwrap();
        let next = stand.query(0, "panic/1", 0).unwrap();
        for number in [number, next] {
            assert_eq!(stand.fails(0), (number, uri::UNAVAILABLE.into()));
        }
    }
    assert!(stand.query(0, "p", 0).is_some());
    assert!(matches!(stand.next(0), DatabaseEvent::Done(..)));
    stand.until(|_| stand.pool.shared.lanes[0].turns().is_empty());
    stand.pool.stop();
    assert!(stand.pool.join());
}

#[test]
fn callers_of_a_server_that_says_nothing_are_answered_in_time() {
    let mut stand = Stand::new(1, 2, 8);
    let late = stand.query(0, "silent", 30).unwrap();
    assert_eq!(stand.fails(0), (late, uri::TIMEOUT.into()));
    assert_eq!(stand.server.silent.load(Ordering::SeqCst), 1, "its thread waits on");
    // Nothing comes of it any more: its caller was answered.
    stand.server.speaks.store(true, Ordering::SeqCst);
    stand.until(|server| server.silent.load(Ordering::SeqCst) == 0);
    for _ in 0..4 {
        let number = stand.query(0, "p", 0).unwrap();
        assert!(matches!(stand.next(0), DatabaseEvent::Done(of, _) if of == number));
    }
    assert!(stand.ends[0].1.is_empty());
}

#[test]
fn who_waits_for_a_thread_waits_no_longer_than_its_time() {
    let mut stand = Stand::new(2, 1, 8);
    let first = stand.query(0, "wait", 0).unwrap();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 1);
    let late = [stand.query(1, "p", 30).unwrap(), stand.query(1, "p", 40).unwrap()];
    let patient = stand.query(1, "p", 0).unwrap();
    for number in late {
        assert_eq!(stand.fails(1), (number, uri::TIMEOUT.into()));
    }
    assert_eq!(stand.server.waiting.load(Ordering::SeqCst), 1, "the thread is still busy");
    stand.ends[0].1.cancel(first);
    assert_eq!(stand.fails(0), (first, uri::CANCELED.into()));
    assert!(matches!(stand.next(1), DatabaseEvent::Done(number, _) if number == patient));
    stand.until(|server| server.calls.load(Ordering::SeqCst) == 2);
    assert!(stand.ends.iter().all(|(_, end)| end.calls.is_empty() && end.is_empty()));
}

#[test]
fn a_call_that_cannot_be_cancelled_is_given_up_and_holds_no_other_thread() {
    let mut stand = Stand::new(1, 2, 8);
    let silent = stand.query(0, "silent", 0).unwrap();
    stand.until(|server| server.silent.load(Ordering::SeqCst) == 1);
    stand.ends[0].1.cancel(silent);
    // Whoever cancels is held by that; those whose time is over are not.
    let others: Vec<_> = (0..3).map(|_| stand.query(0, "wait/1", 50).unwrap()).collect();
    for _ in 0..3 {
        let (number, error) = stand.fails(0);
        assert!(others.contains(&number) && *error == *uri::TIMEOUT, "{number:?} {error}");
    }
    assert_eq!(stand.server.silent.load(Ordering::SeqCst), 1);
    assert_eq!(stand.fails(0), (silent, uri::CANCELED.into()));
    stand.until(|server| server.silent.load(Ordering::SeqCst) == 0);
    // Both threads are there again.
    for _ in 0..2 {
        stand.query(0, "wait", 0).unwrap();
    }
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 2);
}

#[test]
fn what_was_published_is_read_again_whatever_calls_do() {
    let mut stand = Stand::new(2, 1, 8);
    stand.query(0, "wait", 0).unwrap();
    stand.until(|server| server.waiting.load(Ordering::SeqCst) == 1);
    stand.until(|_| stand.pool.shared.is_publishing.load(Ordering::SeqCst));
    let replay = |number, after| Replay {
        number: ReplayNumber(number),
        database: DatabaseIndex(0),
        after,
        topic: "com.t".into(),
        policy: MatchPolicy::Exact,
    };
    let ask = |stand: &mut Stand, core: usize, number, after| {
        assert!(stand.ends[core].1.replay(replay(number, after)));
        loop {
            match stand.next(core) {
                DatabaseEvent::Replayed(answered, result) => {
                    assert_eq!(answered, ReplayNumber(number));
                    return result;
                }
                DatabaseEvent::Offer(..) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let nothing_new = Replayed { publications: Vec::new(), upto: 9, is_complete: true };
    for number in 0..40 {
        let core = number as usize % 2;
        assert_eq!(ask(&mut stand, core, number, 5), Ok(nothing_new.clone()));
        assert_eq!(ask(&mut stand, core, number, 4), Err(NotReplayed::NotKept));
    }
    assert!(stand.server.replayers.load(Ordering::SeqCst) <= Replays::READERS, "connections are kept");
    stand.server.is_down.store(true, Ordering::SeqCst);
    assert_eq!(ask(&mut stand, 0, 50, 5), Err(NotReplayed::Away));
    stand.until(|_| stand.pool.shared.is_away.load(Ordering::SeqCst));
    assert!(!stand.ends[0].1.replay(replay(51, 5)), "that is known at once");
    stand.server.is_down.store(false, Ordering::SeqCst);
    stand.until(|_| !stand.pool.shared.is_away.load(Ordering::SeqCst));
    stand.until(|_| stand.pool.shared.is_publishing.load(Ordering::SeqCst));
    assert_eq!(ask(&mut stand, 1, 52, 5), Ok(nothing_new));
}

#[test]
fn who_resumes_is_sent_away_while_another_router_publishes() {
    let server = Arc::new(Server::default());
    server.is_led_by_another.store(true, Ordering::SeqCst);
    let mut stand = Stand::of(server, 1, 1, 8);
    let ask = |stand: &mut Stand, number| {
        let (number, topic, policy) = (ReplayNumber(number), "com.t".into(), MatchPolicy::Exact);
        let replay = Replay { number, database: DatabaseIndex(0), after: 5, topic, policy };
        assert!(stand.ends[0].1.replay(replay));
        loop {
            if let DatabaseEvent::Replayed(_, result) = stand.next(0) {
                return result;
            }
        }
    };
    let said = |stand: &Stand| {
        let notices = stand.notices.lock().unwrap();
        notices.iter().filter(|notice| matches!(notice, Notice::PublishesNothing(_))).count()
    };
    assert_eq!(ask(&mut stand, 1), Err(NotReplayed::Away));
    // Why is said once, however often it is tried.
    stand.until(|server| server.sources_refused.load(Ordering::SeqCst) >= 3);
    assert_eq!(said(&stand), 1);
    stand.server.is_led_by_another.store(false, Ordering::SeqCst);
    let begin = Instant::now();
    while ask(&mut stand, 2).is_err() {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn how_many_got_what_is_known_when_it_is_marked() {
    let server = Arc::new(Server::default());
    server.talks.store(true, Ordering::SeqCst);
    let mut stand = Stand::of(Arc::clone(&server), 1, 1, 8);
    server.talks_until.store(4, Ordering::SeqCst);
    for number in 1..=2 {
        let DatabaseEvent::Publish(batch) = stand.next(0) else { panic!("nothing was published") };
        assert!(batch.is_counted && batch.number == number, "{batch:?}");
        let end = &mut stand.ends[0].1;
        end.charge(number, 3);
        let first = u64::from(2 * number - 1);
        let key = |number| key_of_batch(DatabaseIndex(0), number);
        // Two cores have some of the first; of another batch nothing is taken.
        for (of, position, count) in [(number, first, 2), (number, first, 5), (number + 1, first, 9)] {
            end.received(of, Receivers { batch: key(of), position, count });
        }
        end.credit(number, 3);
        let until = Instant::now() + PATIENCE;
        while server.marked.load(Ordering::SeqCst) < first + 1 {
            assert!(Instant::now() < until, "it is not marked");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(std::mem::take(&mut *server.received.lock().unwrap()), HashMap::from([(first, 7)]));
    }
}

#[test]
fn who_resumes_waits_no_longer_for_a_server_that_says_nothing_than_it_may() {
    let mut stand = Stand::new(2, 1, 8);
    stand.until(|_| stand.pool.shared.is_publishing.load(Ordering::SeqCst));
    stand.server.replays_are_silent.store(true, Ordering::SeqCst);
    let replay = |number| {
        let (number, topic, policy) = (ReplayNumber(number), "com.t".into(), MatchPolicy::Exact);
        Replay { number, database: DatabaseIndex(0), after: 5, topic, policy }
    };
    // Both readers wait, and more than they.
    for number in 1..=5 {
        assert!(stand.ends[number as usize % 2].1.replay(replay(number)));
    }
    stand.until(|server| server.silent_replays.load(Ordering::SeqCst) == 2);
    for (core, numbers) in [(1, &[1, 3, 5][..]), (0, &[2, 4])] {
        for number in numbers {
            let event = stand.next(core);
            let is_late =
                matches!(&event, DatabaseEvent::Replayed(of, Err(NotReplayed::Late)) if of.0 == *number);
            assert!(is_late, "{event:?} instead of {number}");
        }
    }
    assert_eq!(stand.server.silent_replays.load(Ordering::SeqCst), 2, "the readers still wait");
    stand.server.replays_are_silent.store(false, Ordering::SeqCst);
    // Nobody hears once more of what was answered.
    assert!(stand.ends[0].1.replay(replay(6)));
    let event = stand.next(0);
    assert!(matches!(&event, DatabaseEvent::Replayed(of, Ok(_)) if of.0 == 6), "{event:?}");
    stand.until(|_| !stand.pool.shared.replays.are_under_way());
    assert!(stand.ends.iter().all(|(_, end)| end.asked.is_empty() && end.is_empty()));
}
