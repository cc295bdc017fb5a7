//! Shards that are brought to one of their bounds on purpose, turn by turn: what chance meets too seldom, or not exactly.

#[path = "directed/databases.rs"]
mod databases;

use std::rc::Rc;
use std::time::Duration;

use crosspoint::config::{self, Limits, SlowPolicy};
use crosspoint::metrics::Counters;
use crosspoint::shard::{MemoryLevel, Tuning};
use crosspoint::wamp::CloseReason;
use crosspoint::wamp::codec::Serializer;

use super::advanced::{Advanced, PEOPLE};
use super::profile::Profile;
use super::random::Random;
use super::run::{Cores, Wrong, build_cores};
use super::transport::{Frame, Framing, Transport};
use super::world::{Kernel, Net};

/// More than any client here sends or is sent.
const WIDE: usize = 1 << 20;

/// What a client that reads nothing has taken for it, in bytes.
const NARROW: usize = 512;

/// Until then everything that can be done without time is done.
const TURNS_MAX: usize = 200;

/// One core, and clients that do as they are told.
struct Scene {
    kernel: Kernel,
    cores: Cores,
    random: Random,
}

/// A client that speaks JSON.
struct Peer {
    wire: usize,
    transport: Transport,
    input: Vec<u8>,
    is_open: bool,
}

fn limits() -> Limits {
    config::parse("scene", "", &[]).expect("the empty configuration is sound").limits
}

impl Scene {
    fn new(limits: Limits) -> Self {
        Self::build(limits, false, 1)
    }

    /// Whoever registers `sim.authorize` is asked about everything else.
    fn asked(limits: Limits) -> Self {
        Self::build(limits, true, 1)
    }

    /// Clients on the first core; the realm is at home on the second, which has a turn when it is given one.
    fn apart(limits: Limits) -> Self {
        Self::build(limits, false, 2)
    }

    /// Clients may log in.
    fn of_users(limits: Limits) -> Self {
        Self::build_with(limits, false, 1, Advanced { logins: true, ..Advanced::default() })
    }

    fn build(limits: Limits, authorizer: bool, cores: usize) -> Self {
        Self::build_with(limits, authorizer, cores, Advanced::default())
    }

    fn build_with(limits: Limits, authorizer: bool, cores: usize, advanced: Advanced) -> Self {
        let mut random = Random::new(0, 0);
        let kernel = Net::new(Random::new(0, 1));
        let profile = Profile {
            cores,
            clients: 0,
            actions: 0,
            limits,
            tuning: Tuning::default(),
            slow: SlowPolicy::Close,
            home: cores - 1,
            two_realms: false,
            impatient: false,
            memory_runs_short: false,
            ends_by_order: false,
            authorizer,
            shares: false,
            reroutes: false,
            advanced,
            long_once_in: 1,
            may_close: Vec::new(),
        };
        let cores = build_cores(&profile, &kernel, Wrong::default(), random.seed(), &[]);
        kernel.borrow_mut().unkind = false;
        Self { kernel, cores: Rc::clone(&cores), random }
    }

    /// One turn; false when the shard fell asleep instead.
    fn turn(&mut self) -> bool {
        self.turn_of(0)
    }

    fn turn_of(&mut self, core: usize) -> bool {
        let mut core = self.cores[core].borrow_mut();
        core.turn();
        !core.is_asleep
    }

    /// Turns until nothing is left to do.
    fn settle(&mut self) {
        self.settle_core(0);
    }

    fn settle_core(&mut self, core: usize) {
        // It wakes up first, if it sleeps. One wait may report a part of what is ready.
        self.turn_of(core);
        let is_quiet = |scene: &mut Self| !scene.turn_of(core) && !scene.kernel.borrow().wakes(core);
        assert!((0..TURNS_MAX).any(|_| is_quiet(self)), "it goes on for ever");
    }

    /// Turns of all cores until they have nothing to say to each other.
    fn settle_all(&mut self) {
        let is_awake = |scene: &Self| (0..scene.cores.len()).any(|core| scene.kernel.borrow().wakes(core));
        let settled = (0..TURNS_MAX).any(|_| {
            (0..self.cores.len()).for_each(|core| self.settle_core(core));
            !is_awake(self)
        });
        assert!(settled, "it goes on for ever");
    }

    fn pass(&mut self, time: Duration) {
        self.kernel.borrow_mut().now_us += time.as_micros() as u64;
    }

    fn counters(&self) -> Counters {
        self.cores[0].borrow().shard.counters()
    }

    fn closed(&self, reason: CloseReason) -> u64 {
        self.counters().closed[reason as usize]
    }

    fn set_memory(&mut self, level: MemoryLevel) {
        self.cores[0].borrow().control.set_memory(level);
    }

    /// A connection on which a session was asked for.
    fn knock(&mut self, framing: Framing, to_client_max: usize) -> Peer {
        let transport = Transport { serializer: Serializer::Json, framing, window_bits: None };
        self.knock_by(transport, to_client_max)
    }

    fn knock_by(&mut self, transport: Transport, to_client_max: usize) -> Peer {
        let wire = self.kernel.borrow_mut().connect(0, WIDE, to_client_max);
        self.arrive(wire, transport.handshake());
        let mut peer = Peer { wire, transport, input: Vec::new(), is_open: false };
        self.say(&mut peer, r#"[1,"realm1",{"roles":{"caller":{},"publisher":{},"subscriber":{}}}]"#);
        peer
    }

    /// A session.
    fn join(&mut self, framing: Framing, to_client_max: usize) -> Peer {
        let mut peer = self.knock(framing, to_client_max);
        // WELCOME may be longer than what the kernel takes at a time.
        let heard = (0..TURNS_MAX).find_map(|_| {
            self.settle();
            let heard = self.hear(&mut peer);
            (!heard.is_empty()).then_some(heard)
        });
        let heard = heard.unwrap_or_default();
        assert!(heard.len() == 1 && heard[0].starts_with("[2,"), "{heard:?}");
        peer
    }

    fn arrive(&mut self, wire: usize, bytes: Vec<u8>) {
        self.kernel.borrow_mut().arrive(wire, bytes.into_iter());
    }

    fn say(&mut self, peer: &mut Peer, message: &str) {
        let frame = peer.transport.frame(message.as_bytes(), &mut self.random);
        self.arrive(peer.wire, frame);
    }

    /// Everything that has come.
    fn hear(&mut self, peer: &mut Peer) -> Vec<String> {
        self.kernel.borrow_mut().read(peer.wire, usize::MAX, &mut peer.input);
        let mut heard = Vec::new();
        loop {
            match peer.transport.next(&mut peer.input, peer.is_open, &mut self.random).expect("whole frames")
            {
                Some(Frame::Messages(messages)) => {
                    heard.extend(messages.into_iter().map(|bytes| String::from_utf8(bytes).expect("JSON")));
                }
                Some(_) => peer.is_open = true,
                None => return heard,
            }
        }
    }

    /// Sessions that subscribed to `topic` and read no more.
    fn stalled_subscribers(&mut self, count: usize) -> Vec<Peer> {
        (0..count)
            .map(|_| {
                let mut peer = self.join(Framing::RawSocket, NARROW);
                self.say(&mut peer, r#"[32,1,{},"topic"]"#);
                self.settle();
                let heard = self.hear(&mut peer);
                assert!(heard.len() == 1 && heard[0].starts_with("[33,1,"), "{heard:?}");
                peer
            })
            .collect()
    }

    /// Whoever is asked about all requests but its own first.
    fn authorizer(&mut self) -> Peer {
        let mut authorizer = self.join(Framing::RawSocket, WIDE);
        self.say(&mut authorizer, r#"[64,1,{},"sim.authorize"]"#);
        self.settle();
        assert!(self.hear(&mut authorizer)[0].starts_with("[65,1,"));
        authorizer
    }

    fn publish(&mut self, publisher: &mut Peer, request: u32, bytes: usize) {
        let payload = "x".repeat(bytes);
        self.say(publisher, &format!(r#"[16,{request},{{"acknowledge":true}},"topic",["{payload}"]]"#));
    }
}

#[test]
fn at_most_64_pings_leave_in_one_turn() {
    let mut limits = limits();
    // Too short to be spread: all are due at once.
    limits.ping_interval = Duration::from_millis(200);
    let mut scene = Scene::new(limits);
    let mut peers: Vec<_> = (0..150).map(|_| scene.knock(Framing::WebSocket, WIDE)).collect();
    scene.settle();
    assert!(peers.iter_mut().all(|peer| scene.hear(peer).len() == 1));
    scene.pass(Duration::from_millis(200));
    let mut pings = Vec::new();
    while pings.iter().sum::<u64>() < 150 {
        let before = scene.counters().pings;
        if scene.turn() {
            pings.push(scene.counters().pings - before);
        }
        assert!(pings.len() < TURNS_MAX, "{pings:?}");
    }
    pings.retain(|count| *count > 0);
    assert_eq!(pings, [64, 64, 22]);
}

#[test]
fn what_is_inflated_counts_in_the_turn_of_who_sent_it() {
    let mut scene = Scene::new(limits());
    let transport =
        Transport { serializer: Serializer::Json, framing: Framing::WebSocket, window_bits: Some(15) };
    let mut publisher = scene.knock_by(transport, WIDE);
    scene.settle();
    assert!(scene.hear(&mut publisher)[0].starts_with("[2,"));
    // Twenty messages of 40,000 bytes, which come in one recv. Those of an even length are compressed.
    for request in 1..=20 {
        let text = "x".repeat(40_000);
        let mut message = format!(r#"[16,{request},{{"acknowledge":true}},"topic",["{text}"]]"#);
        if !message.len().is_multiple_of(2) {
            message.push(' ');
        }
        scene.say(&mut publisher, &message);
    }
    let mut handled = Vec::new();
    while handled.iter().sum::<u64>() < 20 {
        let before = scene.counters();
        scene.turn();
        let after = scene.counters();
        assert!(after.bytes_received - before.bytes_received < 40_000);
        handled.push(after.publications - before.publications);
        assert!(handled.len() < TURNS_MAX, "{handled:?}");
    }
    handled.retain(|count| *count > 0);
    // Twice in the first turn: for the event, and as one that is still readable.
    assert_eq!(handled, [4, 2, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(scene.hear(&mut publisher).len(), 20);
}

#[test]
fn at_the_bound_of_paused_input_nobody_is_received_from_and_nobody_closed() {
    let mut limits = limits();
    limits.paused_bytes_per_core_max = 1000;
    let mut scene = Scene::new(limits);
    let mut publisher = scene.join(Framing::RawSocket, WIDE);
    let mut other = scene.join(Framing::RawSocket, WIDE);
    scene.set_memory(MemoryLevel::High);
    // The first publication finds out that memory is short; the others are kept, and more than may be.
    (1..=30).for_each(|request| scene.publish(&mut publisher, request, 100));
    scene.settle();
    assert_eq!(scene.hear(&mut publisher).len(), 1);
    let kept = scene.cores[0].borrow().shard.held().paused_bytes;
    assert!(kept > 1000, "{kept} bytes are kept");
    scene.say(&mut other, r#"[48,1,{},"nowhere"]"#);
    let received = scene.counters().bytes_received;
    scene.settle();
    assert_eq!((scene.counters().bytes_received - received, scene.counters().paused_input), (0, 1));
    scene.set_memory(MemoryLevel::Normal);
    scene.settle();
    assert!(scene.hear(&mut other)[0].starts_with("[8,48,1,"));
    assert_eq!(scene.hear(&mut publisher).len(), 29);
    assert_eq!(scene.counters().closed.iter().sum::<u64>(), 0);
}

#[test]
fn over_the_bound_of_partial_input_the_largest_is_closed() {
    let mut limits = limits();
    limits.partial_bytes_per_core_max = 16_384;
    let mut scene = Scene::new(limits);
    let mut frames = Vec::new();
    let mut peers: Vec<_> = [5000, 6000, 7000]
        .map(|bytes| {
            let peer = scene.join(Framing::RawSocket, WIDE);
            let call = format!(r#"[48,1,{{}},"nowhere",["{}"]]"#, "x".repeat(bytes));
            frames.push(peer.transport.frame(call.as_bytes(), &mut scene.random));
            peer
        })
        .into();
    for (peer, frame) in peers.iter().zip(&frames) {
        assert_eq!(scene.closed(CloseReason::OutOfMemory), 0);
        scene.arrive(peer.wire, frame[..frame.len() - 1].to_vec());
        scene.settle();
    }
    assert_eq!(scene.closed(CloseReason::OutOfMemory), 1);
    assert!(scene.hear(&mut peers[2])[0].contains("out_of_memory"));
    for (peer, frame) in peers.iter_mut().zip(&frames).take(2) {
        scene.arrive(peer.wire, frame[frame.len() - 1..].to_vec());
        scene.settle();
        assert!(scene.hear(peer)[0].starts_with("[8,48,1,"));
    }
}

/// One core whose outboxes may hold 40,000 bytes.
fn scene_of_outboxes() -> Scene {
    let mut limits = limits();
    limits.outbox_bytes_per_core_max = 40_000;
    limits.slow_consumer_timeout = Duration::from_secs(1);
    Scene::new(limits)
}

#[test]
fn over_five_quarters_of_the_bound_of_outboxes_the_largest_are_closed() {
    let mut scene = scene_of_outboxes();
    let mut publisher = scene.join(Framing::RawSocket, WIDE);
    let _subscribers = scene.stalled_subscribers(10);
    // What the first leaves is half sent, and has to go out whole; the second can be taken back.
    scene.publish(&mut publisher, 1, 3000);
    scene.settle();
    scene.publish(&mut publisher, 2, 3000);
    scene.settle();
    assert_eq!(scene.hear(&mut publisher).len(), 2);
    let held = scene.cores[0].borrow().shard.held().outbox_bytes;
    assert!((30_000..=40_000).contains(&held), "{held} bytes are queued");
    // As many as had to be, and no more.
    assert_eq!(scene.closed(CloseReason::OutOfMemory), 6);
}

#[test]
fn publishers_do_not_wait_for_ever_for_readers_that_take_just_enough_to_stay() {
    let mut scene = scene_of_outboxes();
    let mut publisher = scene.join(Framing::RawSocket, WIDE);
    let mut subscribers = scene.stalled_subscribers(8);
    // The second brings the outboxes over their bound, the third finds out, the fourth waits.
    for (request, bytes) in [(1, 2800), (2, 2800), (3, 10), (4, 10)] {
        scene.publish(&mut publisher, request, bytes);
        scene.settle();
    }
    assert_eq!(scene.hear(&mut publisher).len(), 3);
    assert_eq!(scene.closed(CloseReason::OutOfMemory), 0);
    let mut answered = 0;
    for _ in 0..15 {
        for peer in &mut subscribers {
            let mut bytes = Vec::new();
            scene.kernel.borrow_mut().read(peer.wire, NARROW / 4, &mut bytes);
        }
        scene.pass(Duration::from_millis(100));
        scene.settle();
        answered += scene.hear(&mut publisher).len();
    }
    assert_eq!(answered, 1);
    assert!(scene.closed(CloseReason::OutOfMemory) > 0);
    assert_eq!(scene.closed(CloseReason::SlowConsumer), 0);
}

#[test]
fn what_waits_for_a_decision_goes_on_in_its_order_up_to_the_end_of_the_stream() {
    let mut scene = Scene::asked(limits());
    let mut authorizer = scene.authorizer();
    let mut subscriber = scene.join(Framing::RawSocket, WIDE);
    scene.say(&mut subscriber, r#"[32,1,{},"topic"]"#);
    scene.settle();
    assert!(scene.hear(&mut authorizer)[0].starts_with("[68,1,"));
    scene.say(&mut authorizer, "[70,1,{},[true]]");
    scene.settle();
    assert_eq!(scene.hear(&mut subscriber).len(), 1);
    let mut publisher = scene.join(Framing::RawSocket, WIDE);
    scene.say(&mut publisher, r#"[16,1,{},"topic",[1]]"#);
    scene.say(&mut publisher, r#"[16,2,{},"topic",[2]]"#);
    scene.say(&mut publisher, r#"[6,{},"wamp.close.close_realm"]"#);
    scene.kernel.borrow_mut().arrive_fin(publisher.wire);
    scene.settle();
    // The first is asked about, nothing behind it is done.
    assert_eq!(scene.hear(&mut authorizer).len(), 1);
    assert_eq!((scene.hear(&mut subscriber).len(), scene.hear(&mut publisher).len()), (0, 0));
    assert_eq!((scene.counters().paused_decision, scene.counters().sessions_ended), (2, 0));
    scene.say(&mut authorizer, "[70,2,{},[true]]");
    scene.settle();
    scene.say(&mut authorizer, "[70,3,{},[true]]");
    scene.settle();
    let events = scene.hear(&mut subscriber);
    assert!(events[0].ends_with("[1]]") && events[1].ends_with("[2]]"), "{events:?}");
    assert!(scene.hear(&mut publisher)[0].contains("goodbye_and_out"));
    assert_eq!(scene.counters().sessions_ended, 1);
}

#[test]
fn a_session_with_too_many_requests_behind_a_decision_is_not_read() {
    let mut scene = Scene::asked(limits());
    let mut authorizer = scene.authorizer();
    let mut publisher = scene.join(Framing::RawSocket, WIDE);
    (1..=200).for_each(|request| scene.publish(&mut publisher, request, 1000));
    scene.settle();
    let kept = scene.cores[0].borrow().shard.peaks().waiting_bytes;
    assert!((65_536..70_000).contains(&kept), "{kept} bytes wait");
    assert_eq!(scene.counters().paused_waiting, 1);
    let mut asked = scene.hear(&mut authorizer).len();
    for request in 1..=200 {
        assert_eq!(asked, 1, "about request {request}");
        scene.say(&mut authorizer, &format!("[70,{request},{{}},[true]]"));
        scene.settle();
        asked = scene.hear(&mut authorizer).len();
    }
    assert_eq!(scene.hear(&mut publisher).len(), 200);
}

/// Sessions that wait for their turn to be asked about while an authorizer decides about somebody else.
struct Turns {
    scene: Scene,
    authorizer: Peer,
    asked: Peer,
    stalled: Peer,
    other: Peer,
}

/// The second of them does not read, and is told more once it has taken what is there.
fn turns_of_who_does_not_read(publisher: bool) -> (Turns, Option<Peer>) {
    let mut limits = limits();
    limits.authorizer_calls_max = 1;
    (limits.outbox_soft_bytes, limits.outbox_hard_bytes) = (64 << 10, 80 << 10);
    limits.message_bytes_max = 64 << 10;
    let mut scene = Scene::asked(limits);
    let mut authorizer = scene.authorizer();
    let mut answered = 0;
    let mut let_do = |scene: &mut Scene, peer: &mut Peer, message: &str| {
        scene.say(peer, message);
        scene.settle();
        assert_eq!(scene.hear(&mut authorizer).len(), 1);
        answered += 1;
        scene.say(&mut authorizer, &format!(r#"[70,{answered},{{}},[{{"allow":true,"cache":true}}]]"#));
        scene.settle();
        assert_eq!(scene.hear(peer).len(), 1);
    };
    let mut asked = scene.join(Framing::RawSocket, WIDE);
    let mut stalled = scene.join(Framing::RawSocket, NARROW);
    let mut other = scene.join(Framing::RawSocket, WIDE);
    let_do(&mut scene, &mut stalled, r#"[32,1,{},"topic"]"#);
    let publisher = publisher.then(|| {
        let mut publisher = scene.join(Framing::RawSocket, WIDE);
        let_do(&mut scene, &mut publisher, r#"[16,1,{"acknowledge":true},"topic"]"#);
        scene.settle();
        scene.hear(&mut stalled);
        publisher
    });
    for (peer, request) in [(&mut asked, 1), (&mut stalled, 2), (&mut other, 1)] {
        scene.say(peer, &format!(r#"[48,{request},{{}},"nowhere.{request}"]"#));
        scene.settle();
    }
    assert_eq!(scene.hear(&mut authorizer).len(), 1);
    scene.say(&mut authorizer, &format!("[70,{},{{}},[true]]", answered + 1));
    (Turns { scene, authorizer, asked, stalled, other }, publisher)
}

impl Turns {
    /// Who does not read is passed over, and asks when it reads.
    fn go_on(mut self, answered: u32) {
        let Self { scene, authorizer, asked, stalled, other } = &mut self;
        scene.settle();
        assert!(scene.hear(asked)[0].starts_with("[8,48,1,"));
        for (peer, request) in [(other, 1), (stalled, 2)] {
            let (mut messages, mut questions) = (Vec::new(), scene.hear(authorizer));
            // Who does not read is asked about once it has read.
            for _ in 0..TURNS_MAX {
                if request == 2 {
                    messages.extend(scene.hear(peer));
                }
                scene.settle();
                questions.extend(scene.hear(authorizer));
            }
            assert_eq!(questions.len(), 1, "{questions:?}");
            scene.say(authorizer, &format!("[70,{},{{}},[true]]", answered + request));
            scene.settle();
            messages.extend(scene.hear(peer));
            let answer = format!("[8,48,{request},");
            assert!(messages.iter().any(|message| message.starts_with(&answer)), "{messages:?}");
        }
    }
}

#[test]
fn who_does_not_read_passes_its_turn_at_an_authorizer_on() {
    let (mut turns, _) = turns_of_who_does_not_read(false);
    // What it is told are its own pings.
    let length = 45_000u32.to_be_bytes();
    let mut ping = vec![1, length[1], length[2], length[3]];
    ping.resize(4 + 45_000, b'?');
    turns.scene.arrive(turns.stalled.wire, ping);
    let (authorizer, scene) = (turns.authorizer.wire, &mut turns.scene);
    let answer: Vec<u8> = scene.kernel.borrow_mut().wires[authorizer].to_router.drain(..).collect();
    scene.settle();
    assert_eq!(scene.counters().paused_outbox, 1);
    scene.arrive(authorizer, answer);
    turns.go_on(2);
}

#[test]
fn who_reads_no_more_when_it_is_its_turn_at_an_authorizer_passes_it_on() {
    // What is ready in which order is chance: in some of these the event comes between the turn and the asking.
    for waits in 0..24 {
        let (mut turns, publisher) = turns_of_who_does_not_read(true);
        let mut publisher = publisher.expect("one was asked for");
        let authorizer = turns.authorizer.wire;
        let scene = &mut turns.scene;
        let answer: Vec<u8> = scene.kernel.borrow_mut().wires[authorizer].to_router.drain(..).collect();
        for _ in 0..waits {
            scene.turn();
        }
        scene.publish(&mut publisher, 2, 45_000);
        scene.arrive(authorizer, answer);
        scene.settle();
        assert!(scene.hear(&mut turns.asked)[0].starts_with("[8,48,1,"));
        let mut is_answered = [false; 2];
        for answered in 5..=6 {
            for _ in 0..TURNS_MAX {
                for (place, peer) in [&mut turns.stalled, &mut turns.other].into_iter().enumerate() {
                    // The one who does not read does so once the other has been answered.
                    let reads = place == 1 || is_answered[1];
                    let heard = if reads { scene.hear(peer) } else { Vec::new() };
                    is_answered[place] |= heard.iter().any(|message| message.starts_with("[8,48,"));
                }
                scene.settle();
            }
            scene.hear(&mut turns.authorizer);
            scene.say(&mut turns.authorizer, &format!("[70,{answered},{{}},[true]]"));
            scene.settle();
            is_answered[1] |= !scene.hear(&mut turns.other).is_empty();
        }
        assert!(is_answered[1], "{waits}: the other is not asked about");
    }
}

/// Logs in as ada on a connection that is open, and registers this as its first request.
fn log_in(scene: &mut Scene, peer: &mut Peer, procedure: &str) {
    let roles = r#"{"callee":{"features":{"registration_revocation":true}}}"#;
    let hello = format!(r#"[1,"realm1",{{"roles":{roles},"authmethods":["ticket"],"authid":"ada"}}]"#);
    scene.say(peer, &hello);
    let ticket = PEOPLE[0].ticket();
    scene.say(peer, &format!(r#"[5,"{ticket}",{{}}]"#));
    scene.say(peer, &format!(r#"[64,1,{{}},"{procedure}"]"#));
    scene.settle();
}

#[test]
fn who_was_asked_whether_it_is_there_and_has_left_is_not_asked_about_in_its_next_session() {
    let mut scene = Scene::of_users(limits());
    let (mut holder, mut other) =
        (scene.join(Framing::WebSocket, WIDE), scene.join(Framing::WebSocket, WIDE));
    let leave = r#"[6,{},"wamp.close.normal"]"#;
    for peer in [&mut holder, &mut other] {
        scene.say(peer, leave);
        scene.settle();
        assert_eq!(scene.hear(peer).len(), 1);
    }
    log_in(&mut scene, &mut holder, "procedure");
    log_in(&mut scene, &mut other, "procedure");
    assert_eq!((scene.hear(&mut holder).len(), scene.hear(&mut other).len()), (3, 2), "it waits");
    assert_eq!(scene.counters().pings, 1);
    // The holder leaves, and comes back on the same connection at once.
    scene.say(&mut holder, leave);
    log_in(&mut scene, &mut holder, "another");
    assert_eq!((scene.hear(&mut holder).len(), scene.hear(&mut other).len()), (4, 1));
    let pass = |scene: &mut Scene, milliseconds: u64| {
        for _ in 0..milliseconds / 50 {
            scene.pass(Duration::from_millis(50));
            scene.settle();
        }
    };
    pass(&mut scene, 1500);
    scene.say(&mut other, r#"[64,2,{},"another"]"#);
    scene.settle();
    assert_eq!(scene.counters().pings, 2);
    // The time of the first ping is over, that of the second is not.
    pass(&mut scene, 1000);
    assert_eq!((scene.hear(&mut other).len(), scene.counters().takeovers), (0, 0));
    pass(&mut scene, 1500);
    assert_eq!((scene.hear(&mut other).len(), scene.counters().takeovers), (1, 1));
}

#[test]
fn who_subscribes_and_unsubscribes_waits_for_the_core_that_is_told() {
    let mut limits = limits();
    limits.credit_bytes_per_session = 8 * 1024;
    let mut scene = Scene::apart(limits);
    let mut listener = scene.join(Framing::RawSocket, WIDE);
    scene.say(&mut listener, r#"[32,1,{},"wamp.subscription.on_create"]"#);
    scene.settle_all();
    let topic = scene.hear(&mut listener);
    assert!(topic.len() == 1 && topic[0].starts_with("[33,1,"), "{topic:?}");
    let mut busy = scene.join(Framing::RawSocket, WIDE);
    scene.settle_all();
    // The id of a subscription is the same each time.
    scene.say(&mut busy, r#"[32,1,{},"topic"]"#);
    scene.settle_all();
    let subscribed = scene.hear(&mut busy).remove(0);
    let id = subscribed.trim_start_matches("[33,1,").trim_end_matches(']').to_owned();
    for pair in 1..=200 {
        scene.say(&mut busy, &format!(r#"[34,{},{id}]"#, 2 * pair));
        scene.say(&mut busy, &format!(r#"[32,{},{{}},"topic"]"#, 2 * pair + 1));
    }
    // The realm's home has no turn: it has the share of this session, and no more.
    let before = scene.counters().peer_messages;
    scene.settle();
    let told = scene.counters().peer_messages - before;
    assert!((40..60).contains(&told), "{told} messages wait for it");
    assert_eq!(scene.hear(&mut busy).len(), told as usize);
    assert_eq!(scene.counters().paused_credit, 1);
    scene.settle_all();
    assert_eq!(scene.hear(&mut busy).len() + told as usize, 400);
    assert_eq!(scene.hear(&mut listener).len(), 201);
}

/// A session with this many subscriptions and registrations; how many events of them the listener heard.
fn busy(scene: &mut Scene, count: usize, listener: &mut Peer) -> (Peer, usize) {
    let mut busy = scene.join(Framing::RawSocket, WIDE);
    scene.settle_all();
    let (mut answered, mut heard) = (0, 0);
    for number in 1..=count {
        let (subscribe, register) = (2 * number - 1, 2 * number);
        scene.say(&mut busy, &format!(r#"[32,{subscribe},{{}},"topic.{number}"]"#));
        scene.say(&mut busy, &format!(r#"[64,{register},{{}},"procedure.{number}"]"#));
        if number % 100 == 0 {
            scene.settle_all();
            answered += scene.hear(&mut busy).len();
            heard += scene.hear(listener).len();
        }
    }
    assert_eq!(answered, 2 * count);
    (busy, heard)
}

/// The end of a session with 10,000 subscriptions and as many registrations: how many meta events each turn of home publishes,
/// while who listens takes so many bytes between two turns.
fn told_of_an_end(mut scene: Scene, home: usize, takes: usize) -> Vec<u64> {
    const EACH: usize = 10_000;
    let mut listener = scene.join(Framing::RawSocket, takes.min(WIDE));
    scene.settle_all();
    for (request, topic) in [(1, "wamp.subscription"), (2, "wamp.registration"), (3, "wamp.session")] {
        scene.say(&mut listener, &format!(r#"[32,{request},{{"match":"prefix"}},"{topic}"]"#));
    }
    scene.settle_all();
    scene.hear(&mut listener);
    let (mut busy, heard) = busy(&mut scene, EACH, &mut listener);
    // That it is there, and all that it subscribed to and registered.
    assert_eq!(heard, 4 * EACH + 1);
    let published = |scene: &Scene| scene.cores[home].borrow().shard.counters().meta_events;
    scene.say(&mut busy, r#"[6,{},"wamp.close.normal"]"#);
    let mut told = Vec::new();
    let (mut events, mut quiet) = (Vec::new(), 0);
    while quiet < 10 {
        let before = published(&scene);
        (0..scene.cores.len()).for_each(|core| {
            scene.turn_of(core);
        });
        told.push(published(&scene) - before);
        quiet = if told.last() == Some(&0) { quiet + 1 } else { 0 };
        if quiet > 0 {
            scene.pass(Duration::from_millis(100));
        }
        let mut input = std::mem::take(&mut listener.input);
        scene.kernel.borrow_mut().read(listener.wire, takes, &mut input);
        listener.input = input;
    }
    events.append(&mut scene.hear(&mut listener));
    scene.settle_all();
    events.append(&mut scene.hear(&mut listener));
    assert_eq!(scene.hear(&mut busy), [r#"[6,{},"wamp.close.goodbye_and_out"]"#]);
    // All of it, and its leave behind everything else.
    assert_eq!(events.len(), 4 * EACH + 1);
    assert!(events[4 * EACH].contains("on_leave"), "{}", events[4 * EACH]);
    for topic in ["on_unsubscribe", "on_unregister", "on_delete"] {
        let count = events.iter().filter(|event| event.contains(topic)).count();
        assert_eq!(count, if topic == "on_delete" { 2 * EACH } else { EACH });
    }
    assert_eq!(scene.counters().closed.iter().sum::<u64>(), 0, "who listens is not closed");
    for core in scene.cores.iter() {
        let core = core.borrow();
        assert_eq!((core.shard.held().credit_unsettled, core.shard.table_sizes().registrations), (0, 0));
    }
    told.retain(|count| *count > 0);
    told
}

/// What allows a session as much as that.
fn limits_of_many() -> Limits {
    let mut limits = limits();
    (limits.subscriptions_per_session_max, limits.registrations_per_session_max) = (10_000, 10_000);
    limits.uri_bytes_per_session_max = 1 << 20;
    limits
}

#[test]
fn the_end_of_a_session_with_much_is_told_in_pieces() {
    let (scene, apart) = (Scene::new(limits_of_many()), Scene::apart(limits_of_many()));
    for (scene, home) in [(scene, 0), (apart, 1)] {
        let told = told_of_an_end(scene, home, usize::MAX);
        // Of two events that one thing becomes each bears half of what it costs.
        let share = 2 * (limits().credit_bytes_per_session as u64 / 160 + 1);
        // What another core has offered by then may be followed by more in the same turn.
        let most = if home == 0 { share } else { 2 * share };
        assert!(told.iter().all(|count| *count <= most), "{told:?}");
        assert_eq!(told.iter().sum::<u64>(), 40_001);
    }
}

#[test]
fn who_reads_slowly_still_hears_of_the_end_of_a_session_with_much() {
    let mut limits = limits_of_many();
    // All of it would be several times as long.
    (limits.outbox_soft_bytes, limits.outbox_hard_bytes) = (64 << 10, 1 << 20);
    limits.message_bytes_max = 64 << 10;
    told_of_an_end(Scene::new(limits), 0, 200 << 10);
}

#[test]
fn who_asks_for_lists_leaves_room_for_others_who_ask() {
    let mut scene = Scene::apart(limits());
    let mut busy = scene.join(Framing::RawSocket, WIDE);
    let mut other = scene.join(Framing::RawSocket, WIDE);
    (1..=100).for_each(|request| {
        scene.say(&mut busy, &format!(r#"[48,{request},{{}},"wamp.session.list"]"#));
    });
    scene.settle();
    scene.say(&mut other, r#"[48,1,{},"wamp.session.count"]"#);
    let before = scene.counters();
    scene.settle();
    // As many wait as one session may have, and then one more.
    assert_eq!((before.meta_calls, scene.counters().meta_calls), (17, 18));
    assert_eq!(scene.counters().paused_credit, 1);
    assert_eq!(scene.hear(&mut other), [""; 0]);
    scene.settle_all();
    assert_eq!(scene.hear(&mut other), ["[50,1,{},[2]]"]);
    let lists = scene.hear(&mut busy);
    assert_eq!(lists.len(), 100);
    assert!(lists.iter().all(|list| list.starts_with("[50,")), "{lists:?}");
    assert_eq!(scene.counters().limit_reached, 0);
}
