//! What kind of run a seed makes: how many cores and clients, and how tight each bound is.

use std::time::Duration;

use crosspoint::config::{self, Limits, SlowPolicy};
use crosspoint::shard::Tuning;
use crosspoint::wamp::error::uri;

use super::advanced::Advanced;
use super::random::Random;

/// The kind of one run.
#[derive(Clone, Debug)]
pub struct Profile {
    pub cores: usize,
    pub clients: usize,
    /// How much each client does, at most.
    pub actions: usize,
    pub limits: Limits,
    pub tuning: Tuning,
    pub slow: SlowPolicy,
    pub home: usize,
    pub two_realms: bool,
    /// Time makes leaps, and timeouts are short.
    pub impatient: bool,
    pub memory_runs_short: bool,
    pub ends_by_order: bool,
    /// Somebody is asked about every request.
    pub authorizer: bool,
    /// Procedures are shared, limited in their concurrency, and taken by force.
    pub shares: bool,
    /// Some callees announce that another may be tried where they refuse.
    pub reroutes: bool,
    pub advanced: Advanced,
    pub long_once_in: usize,
    /// Reasons for which the router may close a session that keeps to the protocol.
    pub may_close: Vec<&'static str>,
}

impl Profile {
    pub fn draw(random: &mut Random) -> Self {
        let is_roomy = random.once_in(3);
        let impatient = random.once_in(8);
        let memory_runs_short = random.once_in(5);
        let mut profile = Self {
            cores: random.between(1, 4),
            clients: random.between(3, 8),
            actions: random.between(40, 500),
            limits: base(random),
            tuning: tuning(random),
            slow: if random.once_in(3) { SlowPolicy::Drop } else { SlowPolicy::Close },
            home: random.below(4),
            two_realms: random.once_in(5),
            impatient,
            memory_runs_short,
            ends_by_order: random.once_in(3),
            authorizer: false,
            shares: false,
            reroutes: false,
            advanced: Advanced::default(),
            long_once_in: *random.pick(&[2, 5, 20]),
            may_close: Vec::new(),
        };
        if !is_roomy {
            tighten_outboxes(&mut profile, random);
            profile.may_close.extend([uri::SLOW_CONSUMER, uri::OUT_OF_MEMORY]);
        }
        if memory_runs_short {
            profile.may_close.push(uri::OUT_OF_MEMORY);
        }
        if impatient {
            let limits = &mut profile.limits;
            limits.slow_consumer_timeout = Duration::from_millis(random.between(500, 5_000) as u64);
            limits.ping_interval = Duration::from_millis(random.between(100, 2_000) as u64);
            limits.ping_timeout = Duration::from_millis(random.between(100, 2_000) as u64);
            profile.may_close.extend([uri::SLOW_CONSUMER, uri::PING_TIMEOUT, uri::HANDSHAKE_TIMEOUT]);
        }
        // One that does not read in time would refuse what the clients count on.
        if is_roomy && !impatient && !memory_runs_short && random.once_in(2) {
            profile.authorizer = true;
            let limits = &mut profile.limits;
            limits.authorizer_timeout = Duration::from_secs(3600);
            limits.authorizer_calls_max = random.between(1, 4);
            limits.authorizer_cache_max = random.below(8);
            limits.invocations_per_session_max = 1000;
        }
        if random.once_in(2) {
            profile.shares = true;
            profile.reroutes = !random.once_in(3);
            let limits = &mut profile.limits;
            limits.queued_calls_per_registration_max = random.below(12);
            limits.reroutes_per_call_max = random.between(1, 4);
            // Calls that still wait when all is quiet are told from those that are lost by what the clients hold.
            let is_short = random.once_in(3);
            let millis = if is_short { random.between(10, 300) as u64 } else { 3_600_000 };
            limits.queue_timeout = Duration::from_millis(millis);
            if random.once_in(3) {
                limits.queued_bytes_per_registration_max = random.between(200, 4000);
                limits.reroute_bytes_per_registration_max = random.between(200, 4000);
            }
        }
        profile
    }

    /// What of the advanced profile fits to the rest.
    pub fn have(&mut self, advanced: Advanced) {
        // One that does not read in time would refuse what the clients count on.
        let may_be_slow = self.may_close.contains(&uri::OUT_OF_MEMORY) || self.impatient;
        let authenticator = advanced.authenticator && advanced.logins && !may_be_slow;
        // Who is asked must not be ended.
        let kills_all = advanced.kills_all && !authenticator && !self.authorizer;
        self.advanced = Advanced { authenticator, kills_all, ..advanced };
        self.advanced.set_limits(&mut self.limits);
        if self.advanced.leaps() && !self.impatient {
            // Nobody is closed for what passed in leaps.
            self.limits.slow_consumer_timeout = Duration::from_secs(3600);
        }
        if authenticator {
            self.limits.invocations_per_session_max = 1000;
        }
    }
}

/// Room for everything, except what makes turns and rings short.
fn base(random: &mut Random) -> Limits {
    let mut limits = config::parse("simulation", "", &[]).expect("the empty configuration is sound").limits;
    limits.message_bytes_max = random.between(1024, 8192);
    limits.hello_bytes_max = 1024;
    limits.compression_bytes_min = 16;
    limits.ring_entries = random.between(2, 8);
    limits.turn_bytes_per_session = random.between(128, 4096);
    limits.turn_flush_bulk_max = random.between(1, 3);
    // Minutes without a word would pass in the time that a run settles.
    limits.ping_interval = Duration::ZERO;
    limits.handshake_timeout = Duration::from_secs(3600);
    limits.hello_timeout = Duration::from_secs(3600);
    limits.slow_consumer_timeout = Duration::from_secs(50);
    limits.kill_timeout = Duration::from_millis(random.between(100, 10_000) as u64);
    limits.linger_timeout = Duration::from_secs(5);
    if random.once_in(2) {
        limits.turn_deliveries_per_session = random.between(1, 8);
    }
    if random.once_in(2) {
        limits.credit_bytes_per_session = random.between(512, 8192);
    }
    if random.once_in(3) {
        limits.ring_bytes_max = random.between(limits.message_bytes_max, 4 * limits.message_bytes_max);
    }
    if random.once_in(4) {
        limits.lingering_per_core_max = random.below(3);
        limits.linger_bytes_max = random.below(2048);
    }
    if random.once_in(3) {
        limits.retained_events_per_realm_max = random.between(1, 4);
        limits.retained_per_subscribe_max = random.between(1, 2);
    }
    if random.once_in(4) {
        limits.calls_per_session_max = random.between(1, 6);
        limits.invocations_per_session_max = random.between(1, 6);
    }
    limits
}

fn tuning(random: &mut Random) -> Tuning {
    Tuning {
        reply_reserve_bytes: random.between(64, 2048),
        small_fan_out: random.between(0, 4) as u32,
        slow_reader_bytes_min: random.between(1, 2048) as u64,
        waiting_bytes_max: random.between(64, 4096),
    }
}

fn tighten_outboxes(profile: &mut Profile, random: &mut Random) {
    let limits = &mut profile.limits;
    let message = limits.message_bytes_max;
    limits.outbox_hard_bytes = random.between(message, 4 * message);
    limits.outbox_soft_bytes = random.between(512, limits.outbox_hard_bytes);
    if random.once_in(2) {
        limits.outbox_bytes_per_core_max =
            random.between(limits.outbox_hard_bytes, 3 * limits.outbox_hard_bytes);
    }
    if random.once_in(4) {
        limits.partial_bytes_per_core_max = random.between(message, 4 * message) * 2;
    }
    if random.once_in(4) {
        limits.paused_bytes_per_core_max = random.between(64, message);
    }
}
