//! Databases without a router: their threads, and a core that calls and waits.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crosspoint::database::pool::Notice;
use crosspoint::database::{Counted, DatabaseEnd, Driver, Pool, PoolOptions};
use crosspoint::router::database::{Caller, DatabaseEvent, DatabaseIndex, Procedure, Query, QueryNumber};
use crosspoint::router::peer::RealmIndex;
use crosspoint::shard::mesh::{self, Doorbell, MeshEnd, SharedDoorbell};
use crosspoint::shard::queries::Databases;
use crosspoint::wamp::SessionId;
use crosspoint::wamp::codec::{Encoder, OwnedPayload, Serializer, to_json};
use crosspoint::wamp::message::Value as Encoded;
use serde_json::{Value, json};

/// Nothing takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Bell(Mutex<bool>, Condvar);

impl Doorbell for Bell {
    fn ring(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// Args and kwargs of RESULT.
    Result(Value, Value),
    /// URI, args and kwargs of ERROR.
    Error(String, Value, Value),
}

/// What a core hears of one call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// Args of a part of its result.
    Part(Value),
    End(End),
}

/// One database and one core.
pub(crate) struct Stand {
    pool: Pool,
    end: DatabaseEnd,
    mesh: MeshEnd<u32>,
    bell: Arc<Bell>,
    last: u64,
    pub(crate) offered: Arc<[Arc<Procedure>]>,
    notices: Arc<Mutex<Vec<Notice>>>,
    /// What was published, by position, and how much at a time.
    pub(crate) published: Vec<(u64, String)>,
    pub(crate) batches: Vec<usize>,
    /// Nothing that is published is ever said to have been offered.
    pub(crate) is_deaf: bool,
    /// What results are asked for in, and arguments given in.
    pub(crate) serializer: Serializer,
}

impl Stand {
    /// Waits until the database offers something.
    pub(crate) fn new(driver: impl Driver) -> Self {
        Self::with_refresh(driver, Duration::from_millis(50))
    }

    /// The same; how often it is asked whether anything has changed.
    pub(crate) fn with_refresh(driver: impl Driver, refresh: Duration) -> Self {
        let bell = Arc::new(Bell::default());
        let mesh = mesh::connect::<u32>(4, vec![Arc::clone(&bell) as SharedDoorbell]).pop().unwrap();
        let options =
            PoolOptions { queue_max: 64, queue_bytes_max: 64 << 20, refresh, replay_timeout: PATIENCE };
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&notices);
        let notify = Arc::new(move |notice: &Notice| heard.lock().unwrap().push(notice.clone()));
        let names = (RealmIndex(0), DatabaseIndex(0));
        let pool = Pool::start(Arc::new(driver), names, options, vec![mesh.waker(0)], notify).unwrap();
        let end = DatabaseEnd::new(vec![pool.end(0)]);
        let serializer = Serializer::Json;
        let mut stand = Self {
            pool,
            end,
            mesh,
            bell,
            last: 0,
            offered: Arc::new([]),
            notices,
            published: Vec::new(),
            batches: Vec::new(),
            is_deaf: false,
            serializer,
        };
        while stand.offered.is_empty() {
            let begin = Instant::now();
            stand.hear(begin);
        }
        stand
    }

    /// What was counted, and the backlog, once that is so many events.
    pub(crate) fn counted_with_backlog(&self, events: u64) -> Counted {
        let begin = Instant::now();
        loop {
            let counted = self.pool.counted(self.pool.ask(), PATIENCE);
            if counted.backlog.is_some_and(|backlog| backlog.events == events) {
                return counted;
            }
            assert!(begin.elapsed() < PATIENCE, "{counted:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What was counted so far.
    pub(crate) fn counted(&self) -> Counted {
        self.pool.counted(0, Duration::ZERO)
    }

    /// What the log would have.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap().clone()
    }

    fn event(&mut self, begin: Instant) -> DatabaseEvent {
        loop {
            if let Some(event) = self.end.take() {
                return event;
            }
            let end = &self.end;
            if self.mesh.may_sleep(|| end.is_empty()) {
                let mut rung = self.bell.0.lock().unwrap();
                while !*rung {
                    let left = PATIENCE.saturating_sub(begin.elapsed());
                    assert!(!left.is_zero(), "the database says nothing: {:?}", self.notices());
                    rung = self.bell.1.wait_timeout(rung, left).unwrap().0;
                }
                *rung = false;
                self.mesh.awake();
            }
        }
    }

    /// The next thing that is heard; `None`: what is offered has changed.
    fn hear(&mut self, begin: Instant) -> Option<(QueryNumber, Heard)> {
        match self.event(begin) {
            DatabaseEvent::Offer(_, _, procedures) => {
                self.offered = procedures;
                None
            }
            DatabaseEvent::Publish(batch) => {
                self.batches.push(batch.publications.len());
                let published = batch.publications.iter();
                self.published.extend(published.map(|one| (one.position, one.publish.to_string())));
                if !self.is_deaf {
                    self.end.charge(DatabaseIndex(0), batch.number, 2);
                    self.end.credit(DatabaseIndex(0), batch.number, 2);
                }
                None
            }
            DatabaseEvent::Replayed(..) => panic!("nothing was asked to be replayed"),
            DatabaseEvent::Part(number, payload) => {
                self.end.more(DatabaseIndex(0), number);
                Some((number, Heard::Part(values(&payload).0)))
            }
            DatabaseEvent::Done(number, payload) => {
                let (args, kwargs) = values(&payload);
                Some((number, Heard::End(End::Result(args, kwargs))))
            }
            DatabaseEvent::Failed(number, uri, payload) => {
                let (args, kwargs) = values(&payload);
                Some((number, Heard::End(End::Error(uri.into(), args, kwargs))))
            }
        }
    }

    /// The next thing that is heard of any call.
    pub(crate) fn next(&mut self) -> (QueryNumber, Heard) {
        let begin = Instant::now();
        loop {
            if let Some(heard) = self.hear(begin) {
                return heard;
            }
        }
    }

    /// Waits until so much was published.
    pub(crate) fn publications(&mut self, count: usize) -> Vec<(u64, String)> {
        let begin = Instant::now();
        while self.published.len() < count {
            self.hear(begin);
        }
        std::mem::take(&mut self.published)
    }

    /// Waits until something else is offered.
    pub(crate) fn next_offer(&mut self) {
        let begin = Instant::now();
        self.hear(begin);
    }

    fn payload(&self, args: &Value, kwargs: &Value) -> OwnedPayload {
        let bytes = |value: &Value, is_empty: bool| {
            if is_empty { Vec::new() } else { value.to_string().into_bytes() }
        };
        let args = bytes(args, args.as_array().is_none_or(Vec::is_empty));
        let kwargs = bytes(kwargs, kwargs.as_object().is_none_or(serde_json::Map::is_empty));
        let json = OwnedPayload::new(Serializer::Json, args, kwargs);
        match self.serializer {
            Serializer::Json => json,
            other => Encoder::new().transcode(&json.as_payload(), other).unwrap(),
        }
    }

    /// Begins a call; `None` where there is no room.
    pub(crate) fn begin(&mut self, uri: &str, args: &Value, kwargs: &Value, how: How) -> Option<QueryNumber> {
        let procedure = self.offered.iter().find(|procedure| *procedure.uri == *uri);
        let procedure = Arc::clone(procedure.unwrap_or_else(|| panic!("{uri} is not offered")));
        self.last += 1;
        let number = QueryNumber(self.last);
        let caller = Caller {
            session: SessionId(4711),
            authid: how.authid.into(),
            authrole: how.authrole.into(),
            authmethod: "jwt",
            authprovider: "dynamic",
            authextra: how.authextra.into(),
        };
        let query = Query {
            number,
            database: DatabaseIndex(0),
            procedure,
            payload: self.payload(args, kwargs),
            serializer: self.serializer,
            timeout_ms: how.timeout_ms,
            receive_progress: how.receive_progress,
            caller,
        };
        self.end.query(query).then_some(number)
    }

    pub(crate) fn cancel(&mut self, number: QueryNumber) {
        self.end.cancel(DatabaseIndex(0), number);
    }

    /// Calls and waits for the end.
    pub(crate) fn call(&mut self, uri: &str, args: Value, kwargs: Value) -> End {
        self.call_as(uri, &args, &kwargs, How::default())
    }

    pub(crate) fn call_as(&mut self, uri: &str, args: &Value, kwargs: &Value, how: How) -> End {
        let number = self.begin(uri, args, kwargs, how).expect("there is room");
        loop {
            if let (of, Heard::End(end)) = self.next() {
                assert_eq!(of, number);
                return end;
            }
        }
    }

    /// The args of a result.
    pub(crate) fn result(&mut self, uri: &str, args: Value) -> Value {
        match self.call(uri, args, json!({})) {
            End::Result(args, _) => args,
            error => panic!("{uri}: {error:?}"),
        }
    }

    /// The URI and the first argument of an error.
    pub(crate) fn error(&mut self, uri: &str, args: Value, kwargs: Value) -> (String, String) {
        match self.call(uri, args, kwargs) {
            End::Error(error, args, _) => (error, args[0].as_str().unwrap_or_default().to_owned()),
            result => panic!("{uri}: {result:?}"),
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.pool.stop();
        self.pool.join();
    }
}

/// How a call is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) authid: &'static str,
    pub(crate) authrole: &'static str,
    pub(crate) authextra: &'static str,
    pub(crate) timeout_ms: u64,
    pub(crate) receive_progress: bool,
}

impl Default for How {
    fn default() -> Self {
        Self { authid: "joe", authrole: "user", authextra: "", timeout_ms: 0, receive_progress: false }
    }
}

fn values(payload: &OwnedPayload) -> (Value, Value) {
    let payload = payload.as_payload();
    let value = |bytes: &[u8]| {
        if bytes.is_empty() {
            return Value::Null;
        }
        let encoded = Encoded { serializer: payload.serializer, bytes };
        let json = to_json(encoded, &mut Encoder::new()).expect("it can be said in JSON");
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json}: {error}"))
    };
    (value(payload.args), value(payload.kwargs))
}
