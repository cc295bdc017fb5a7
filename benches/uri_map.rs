//! What does it cost to find who gets a message, to remember who wants it, and to forget those who leave?
//!
//! - 1,000,000 subscriptions of 1,000 sessions, to 1,000 topics, to 100,000 and to one each: a look-up, and the memory of
//!   a subscription (requested bytes; the allocator's own overhead is not in them).
//! - 10,000 wildcard patterns, as people write them and as an enemy does: a look-up, to be below 20 µs.
//! - 100,000 sessions that leave one topic: at most 1 µs each.
//!
//! Sessions come and go through the router's own inputs; its effects do nothing.

#[path = "setting/cpu_time.rs"]
mod cpu_time;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use crosspoint::config;
use crosspoint::metrics::Counters;
use crosspoint::router::database::{DatabaseIndex, Query, QueryNumber, Receivers, Replay};
use crosspoint::router::effects::{CreditTime, Effects, EventFrames, Sent, Transcoded};
use crosspoint::router::peer::{Charge, CoreId, PeerMessage, SessionKey, SessionRef};
use crosspoint::router::uri_map::UriMap;
use crosspoint::router::{Door, LinkInfo, Now, Router, RouterConfig, SlowCheck};
use crosspoint::wamp::codec::Serializer;
use crosspoint::wamp::message::{Event, Hello, Message, Subscribe};
use crosspoint::wamp::options::{HelloDetails, SubscribeOptions, Text};
use crosspoint::wamp::{CloseReason, MatchPolicy, RequestId, SessionId};

use cpu_time::{CpuTime, by_cpu_time, thread_cpu_ns};

const NOW: Now = Now { monotonic_us: 1_000_000, wall_us: 1_700_000_000_000_000 };

/// What a look-up among 10,000 wildcard patterns may take, in nanoseconds.
const WILDCARD_NS_MAX: f64 = 20_000.0;

/// What the end of a session may take, in nanoseconds.
const LEAVING_NS_MAX: f64 = 1000.0;

/// So many sessions hold the subscriptions.
const SESSIONS: usize = 1000;

/// As many shapes of one length as the default configuration lets a realm have (`limits.wildcard_shapes_max`).
const SHAPES_MAX: usize = 1 << SHAPE_BITS;
const SHAPE_BITS: usize = 7;

/// Effects that do nothing.
#[derive(Default)]
struct Nothing(Counters);

impl Effects for Nothing {
    fn send(&mut self, _to: SessionKey, _message: &Message<'_>) -> Sent {
        Sent::Accepted
    }

    fn may_tell(&self) -> bool {
        true
    }

    fn send_part(&mut self, _to: SessionKey, _message: &Message<'_>) -> Sent {
        Sent::Accepted
    }

    fn reply(&mut self, _to: SessionKey, message: &Message<'_>) -> Sent {
        assert!(!matches!(message, Message::Error(_)), "refused: {message:?}");
        Sent::Accepted
    }

    fn event(
        &mut self,
        _to: SessionKey,
        _event: &Event<'_>,
        _frames: &mut EventFrames,
        _transcoded: &mut Transcoded,
    ) -> Sent {
        Sent::Accepted
    }

    fn announce(&mut self, _topic: u64, _wanted: bool) -> u32 {
        0
    }

    fn interest(&self, _core: CoreId, _topic: u64) -> (bool, u32) {
        (false, 0)
    }

    fn searched(&mut self, _shapes: usize) {}

    fn peer(&mut self, _to: CoreId, _message: PeerMessage) {}

    fn charge(&mut self, _session: SessionKey, _bytes: u32) -> bool {
        false
    }

    fn resume_requests(&mut self, _session: SessionKey) -> bool {
        true
    }

    fn credit(&mut self, _session: SessionRef, _charge: Charge, _when: CreditTime) {}

    fn probe(&mut self, _session: SessionKey) -> bool {
        false
    }

    fn may_log_in(&mut self, _session: SessionKey) -> bool {
        true
    }

    fn login_failed(&mut self, _session: SessionKey) {}

    fn query(&mut self, _query: Query) -> bool {
        false
    }

    fn query_more(&mut self, _database: DatabaseIndex, _query: QueryNumber) {}

    fn query_cancel(&mut self, _database: DatabaseIndex, _query: QueryNumber) {}

    fn replay(&mut self, _replay: Replay) -> bool {
        false
    }

    fn received(&mut self, _receivers: Receivers) {}

    fn has_room(&self, _session: SessionKey) -> bool {
        true
    }

    fn check(&mut self, _session: SessionKey, _check: SlowCheck) -> bool {
        false
    }

    fn opened(&mut self, _session: SessionKey, _id: SessionId) {}

    fn left(&mut self, _session: SessionKey) {}

    fn close(&mut self, _session: SessionKey, _reason: CloseReason, _farewell: Option<&Message<'_>>) {}

    fn serializer(&self, _session: SessionKey) -> Serializer {
        Serializer::Json
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.0
    }
}

/// A router and how many sessions it has, in slots from 0.
struct Sessions {
    router: Router,
    effects: Nothing,
    count: u32,
}

impl Sessions {
    fn new() -> Self {
        let config = config::parse("", "[[listener]]\nport = 1\n", &[]).expect("a configuration");
        let doors = vec![Door::from(&config.listeners[0])];
        let config =
            RouterConfig { realms: config.realms, limits: config.limits, doors, publishers: Vec::new() };
        Self { router: Router::new(&config, CoreId(0), 1, [7; 32]), effects: Nothing::default(), count: 0 }
    }

    fn open(&mut self) -> SessionKey {
        let key = SessionKey { slot: self.count, generation: 0 };
        self.count += 1;
        self.router.handle_open(NOW, key, LinkInfo { listener: 0 });
        let hello = Hello { realm: Text::Borrowed("realm1"), details: HelloDetails::default() };
        self.handle(key, &Message::Hello(hello));
        key
    }

    fn subscribe(&mut self, key: SessionKey, request: u64, topic: &str) {
        let request = RequestId(request);
        let options = SubscribeOptions::default();
        let topic = Text::Borrowed(topic);
        self.handle(key, &Message::Subscribe(Subscribe { request, options, topic }));
    }

    fn handle(&mut self, key: SessionKey, message: &Message<'_>) {
        let _ = self.router.handle_message(NOW, key, message, &mut self.effects);
    }

    fn close(&mut self, key: SessionKey) {
        self.router.handle_close(NOW, key, CloseReason::Reset, &mut self.effects);
    }
}

fn topic(number: usize) -> String {
    format!("com.example.topic.{number:07}")
}

/// Numbers below a bound that look like chance and are the same in every run.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: usize) -> usize {
        // Knuth's constants; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            list.swap(place, self.below(place + 1));
        }
    }
}

/// What a subscription takes, when there are so many of them, to so many topics.
fn memory(subscriptions: usize, topics: usize) {
    let mut sessions = Sessions::new();
    let topics_a_session = subscriptions / SESSIONS;
    let keys: Vec<_> = (0..SESSIONS).map(|_| sessions.open()).collect();
    let topic_names: Vec<_> = (0..topics).map(topic).collect();
    let allocated = allocation_counter::measure(|| {
        for (session, key) in keys.iter().enumerate() {
            for request in 0..topics_a_session {
                let number = (session * topics_a_session + request) % topics;
                sessions.subscribe(*key, request as u64 + 1, &topic_names[number]);
            }
        }
    });
    assert_eq!(sessions.router.table_sizes().subscriptions, topics);
    let bytes = allocated.bytes_current as f64;
    println!(
        "uri_map/memory: {subscriptions} subscriptions to {topics} topics: {:.0} bytes each, {:.0} MiB in all",
        bytes / subscriptions as f64,
        bytes / 1024.0 / 1024.0
    );
}

fn exact(criterion: &mut Criterion<CpuTime>, scale: usize) {
    let subscriptions = 1_000_000 / scale;
    let mut group = criterion.benchmark_group("uri_map/look-up of one topic, any of them");
    for topics in [1000, 100_000, 1_000_000] {
        let topics = topics / scale;
        memory(subscriptions, topics);
        let mut map = UriMap::new(7);
        for number in 0..topics {
            map.insert(MatchPolicy::Exact, &topic(number), number);
        }
        // One string, so that the URIs themselves are near, as they are in a message.
        let mut chance = Shuffle(7);
        let length = topic(0).len();
        let asked: String = (0..100_000).map(|_| topic(chance.below(topics))).collect();
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(topics), |bencher| {
            bencher.iter(|| {
                let uri = &asked[next..next + length];
                next = (next + length) % asked.len();
                map.matching(black_box(uri)).count()
            });
        });
    }
    group.finish();
}

/// Patterns as people write them: a few shapes, many names.
fn realistic_patterns(count: usize) -> (Vec<String>, String) {
    let pattern = |number: usize| {
        let (site, device) = (number / 8 % 250, number / 8);
        match number % 8 {
            0 => format!("com.example.site{site}..device{device}.temperature"),
            1 => format!("com.example.site{site}..device{device}."),
            2 => format!("com.example..floor{device}..alarm"),
            3 => format!("com.example...device{device}.temperature"),
            4 => format!("com.example..floor{device}.status"),
            5 => format!("com..site{device}..status"),
            6 => format!("com.example..device{device}"),
            _ => format!("com.example.site{device}...."),
        }
    };
    ((0..count).map(pattern).collect(), "com.example.site17.floor3.device17.temperature".to_owned())
}

/// Patterns as an enemy would write them: of one length, in as many shapes as may be, none of which matches, and with names
/// in half of the places, which takes longest.
fn adversarial_patterns(count: usize, length: usize) -> (Vec<String>, String) {
    let uri: Vec<_> = (0..length).map(|place| format!("c{place}")).collect();
    let pattern = |number: usize| {
        // The shape is in the last places, a number in binary. The name in the first place is not the URI's.
        let shape = number % SHAPES_MAX;
        let is_named = |place: usize| match length - 1 - place {
            bit @ ..SHAPE_BITS => shape >> bit & 1 == 1,
            _ => place % 2 == 1,
        };
        let components = (0..length).map(|place| match place {
            0 => format!("x{}", number / SHAPES_MAX),
            place if is_named(place) => uri[place].clone(),
            _ => String::new(),
        });
        components.collect::<Vec<_>>().join(".")
    };
    ((0..count).map(pattern).collect(), uri.join("."))
}

fn wildcards(criterion: &mut Criterion<CpuTime>, scale: usize) {
    let count = 10_000 / scale;
    let mut group = criterion.benchmark_group(format!("uri_map/look-up among {count} wildcard patterns"));
    for (name, (patterns, uri)) in [
        ("realistic", realistic_patterns(count)),
        ("adversarial, 12 components", adversarial_patterns(count, 12)),
        // As many as the default configuration permits (`limits.uri_components_max`).
        ("adversarial, 64 components", adversarial_patterns(count, 64)),
    ] {
        let mut map = UriMap::new(7);
        for (number, pattern) in patterns.iter().enumerate() {
            let policy = MatchPolicy::Wildcard;
            assert!(map.has_room(policy, pattern, SHAPES_MAX), "too many shapes");
            map.insert(policy, pattern, number);
        }
        assert_eq!(map.len(), count);
        let mut matching = map.matching(&uri);
        let (found, tried) = (matching.by_ref().count(), matching.shapes_tried());
        // The least of all samples: what else runs on the machine only adds.
        let least_ns = RefCell::new(f64::INFINITY);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let begun_ns = thread_cpu_ns();
                for _ in 0..times {
                    black_box(map.matching(black_box(&uri)).count());
                }
                let spent_ns = thread_cpu_ns() - begun_ns;
                let mut least_ns = least_ns.borrow_mut();
                *least_ns = least_ns.min(spent_ns as f64 / times as f64);
                spent_ns
            });
        });
        if scale == 1 {
            let verdict = verdict(least_ns.into_inner(), WILDCARD_NS_MAX);
            println!("uri_map: {name}: {found} found, {tried} shapes tried, {verdict}");
        }
    }
    group.finish();
}

/// Sessions that leave a topic one after the other.
fn leaving(criterion: &mut Criterion<CpuTime>, scale: usize) {
    let count = 100_000 / scale;
    let mut group = criterion.benchmark_group(format!("uri_map/one of {count} sessions leaves their topic"));
    group.sample_size(10);
    for in_order in [true, false] {
        let name = if in_order { "in order" } else { "in any order" };
        let least_ns = RefCell::new(f64::INFINITY);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut all_ns = 0;
                for _ in 0..times {
                    let mut sessions = Sessions::new();
                    let mut keys: Vec<_> = (0..count).map(|_| sessions.open()).collect();
                    keys.iter().for_each(|key| sessions.subscribe(*key, 1, "com.example.topic"));
                    if !in_order {
                        Shuffle(7).shuffle(&mut keys);
                    }
                    let begun_ns = thread_cpu_ns();
                    keys.iter().for_each(|key| sessions.close(*key));
                    let spent_ns = (thread_cpu_ns() - begun_ns) / count as u64;
                    assert_eq!(sessions.router.table_sizes(), Default::default());
                    let mut least_ns = least_ns.borrow_mut();
                    *least_ns = least_ns.min(spent_ns as f64);
                    all_ns += spent_ns;
                }
                all_ns
            });
        });
        if scale == 1 {
            println!("uri_map: leaving {name}: {}", verdict(least_ns.into_inner(), LEAVING_NS_MAX));
        }
    }
    group.finish();
}

fn verdict(ns: f64, ns_max: f64) -> String {
    if ns.is_infinite() {
        return "not asked for".to_owned();
    }
    let holds = if ns <= ns_max { "holds" } else { "does NOT hold" };
    format!("{ns:.0} ns at best; the bound of {ns_max} ns {holds}")
}

fn main() {
    // `cargo bench -- --test` and `cargo test --benches` only ask whether it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let scale = if quick { 100 } else { 1 };
    let mut criterion = by_cpu_time(Duration::from_secs(2));
    exact(&mut criterion, scale);
    wildcards(&mut criterion, scale);
    leaving(&mut criterion, scale);
    criterion.final_summary();
}
