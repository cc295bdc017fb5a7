//! `[limits]`: every bound, its range and its default (docs/limits.md).

use std::time::Duration;

use super::Limits;
use super::kinds::{Bytes, Integer, Or, milliseconds, milliseconds_or_off, print_size};
use super::section::{Fields, Section, section};
use crate::wamp::uri::{COMPONENTS_MAX, UriLimits};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const TIB: usize = 1 << 40;

/// More than this DEFLATE cannot do.
const INFLATE_RATIO_CAP: u32 = 1_032;

/// The hard cap of `message_bytes_max`: what the longest frame of RawSocket holds.
const MESSAGE_BYTES_CAP: usize = 16 * MIB;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

section! {
    Limits {
        connections_max ["connections"]: Or("auto", Integer(1..=100_000_000)), None;
        connections_per_address_max: Integer(1..=100_000_000), 1_000;
        connects_per_address_per_second: Integer(1..=10_000_000), 200;
        connects_per_address_burst: Integer(1..=10_000_000), 1_000;
        login_failures_per_address_max: Integer(1..=1_000_000), 20;
        login_failures_forgiven_per_minute: Integer(1..=1_000_000), 10;
        check_threads: Integer(1..=256), 2;
        checks_waiting_max: Integer(1..=100_000), 64;
        handshake_timeout ["handshake_timeout_ms"]: milliseconds(100..=600_000), ms(5_000);
        hello_timeout ["hello_timeout_ms"]: milliseconds(100..=600_000), ms(10_000);
        http_head_bytes_max: Bytes(KIB..=64 * KIB), 8 * KIB;
        hello_bytes_max: Bytes(KIB..=MIB), 16 * KIB;
        message_bytes_max: Bytes(KIB..=MESSAGE_BYTES_CAP), MIB;
        frames_per_message_max: Integer(1..=1_000_000), 1_024;
        compression_bytes_min: Bytes(0..=MESSAGE_BYTES_CAP), 256;
        compression_level: Integer(1..=9), 3;
        compression_window_bits: Integer(9..=15), 15;
        inflate_ratio_max: Integer(10..=INFLATE_RATIO_CAP), 200;
        depth_max: Integer(8..=256), 64;
        uri_bytes_max: Bytes(64..=64 * KIB), KIB;
        uri_components_max: Integer(4..=COMPONENTS_MAX), 64;
        option_list_max: Integer(1..=100_000), 1_000;
        subscriptions_per_session_max: Integer(1..=10_000_000), 1_000;
        registrations_per_session_max: Integer(1..=10_000_000), 1_000;
        uri_bytes_per_session_max: Bytes(KIB..=GIB), 256 * KIB;
        wildcard_shapes_max: Integer(1..=100_000), 128;
        nodes_per_subscription_max: Integer(1..=100_000), 1_000;
        nodes_per_registration_max: Integer(1..=100_000), 1_000;
        retained_events_per_realm_max: Integer(0..=100_000), 10_000;
        retained_bytes_per_realm_max: Bytes(KIB..=TIB), 16 * MIB;
        retained_per_subscribe_max: Integer(1..=100_000), 4_096;
        retained_bytes_per_subscribe_max: Bytes(KIB..=GIB), MIB;
        resumptions_per_core_max: Integer(1..=10_000_000), 100_000;
        calls_per_session_max: Integer(1..=1_000_000), 1_000;
        invocations_per_session_max: Integer(1..=1_000_000), 1_000;
        queued_calls_per_registration_max: Integer(0..=1_000_000), 1_000;
        queued_bytes_per_registration_max: Bytes(0..=GIB), 4 * MIB;
        queued_bytes_per_realm_max: Bytes(0..=TIB), 64 * MIB;
        queue_timeout ["queue_timeout_ms"]: milliseconds(10..=86_400_000), ms(30_000);
        reroutes_per_call_max: Integer(0..=1_000), 32;
        reroute_bytes_per_registration_max: Bytes(0..=GIB), 4 * MIB;
        takeover_timeout ["takeover_timeout_ms"]: milliseconds(100..=60_000), ms(2_000);
        outbox_soft_bytes: Bytes(4 * KIB..=GIB), MIB;
        outbox_hard_bytes: Bytes(4 * KIB..=GIB), 4 * MIB;
        outbox_bytes_per_core_max: Bytes(MIB..=TIB), 256 * MIB;
        partial_bytes_per_core_max: Bytes(MIB..=TIB), 128 * MIB;
        paused_bytes_per_core_max: Bytes(MIB..=TIB), 128 * MIB;
        slow_consumer_timeout ["slow_consumer_timeout_ms"]: milliseconds(100..=3_600_000), ms(10_000);
        publisher_hold ["publisher_hold_ms"]: milliseconds(0..=10_000), ms(100);
        ping_interval ["ping_interval_ms"]: milliseconds_or_off(100..=86_400_000), ms(30_000);
        ping_timeout ["ping_timeout_ms"]: milliseconds(100..=600_000), ms(10_000);
        turn_bytes_per_session: Bytes(KIB..=16 * MIB), 64 * KIB;
        turn_deliveries_per_session: Integer(1..=10_000_000), 4_096;
        turn_flush_bulk_max: Integer(1..=1_000_000), 512;
        credit_bytes_per_session: Bytes(KIB..=GIB), 256 * KIB;
        ring_entries: Integer(2..=1 << 20), 4_096;
        ring_bytes_max: Bytes(64 * KIB..=16 * GIB), 16 * MIB;
        linger_timeout ["linger_timeout_ms"]: milliseconds(0..=60_000), ms(5_000);
        linger_bytes_max: Bytes(0..=16 * MIB), 64 * KIB;
        lingering_per_core_max: Integer(0..=1_000_000), 1_024;
        kill_timeout ["kill_timeout_ms"]: milliseconds(100..=600_000), ms(10_000);
        authenticator_timeout ["authenticator_timeout_ms"]: milliseconds(100..=600_000), ms(5_000);
        authenticator_calls_max: Integer(1..=1_000_000), 256;
        cookie_logins_max: Integer(1..=1_000_000), 10_000;
        cookie_logins_per_user_max: Integer(1..=10_000), 16;
        call_timeout ["call_timeout_ms"]: milliseconds_or_off(1..=604_800_000), ms(0);
        call_all_timeout ["call_all_timeout_ms"]: milliseconds(10..=604_800_000), ms(30_000);
        call_all_bytes_per_realm_max: Bytes(KIB..=TIB), 64 * MIB;
        call_timeout_max ["call_timeout_max_ms"]: milliseconds(1..=604_800_000), ms(86_400_000);
        authorizer_timeout ["authorizer_timeout_ms"]: milliseconds(100..=600_000), ms(5_000);
        authorizer_calls_max: Integer(1..=1_000_000), 256;
        authorizer_cache_max: Integer(0..=10_000_000), 10_000;
        testaments_per_session_max: Integer(0..=100_000), 32;
        testament_bytes_per_session_max: Bytes(0..=16 * MIB), 64 * KIB;
        details_bytes_per_session_max: Bytes(0..=MIB), 4 * KIB;
        gathers_per_core_max: Integer(1..=1_000_000), 64;
        gather_timeout ["gather_timeout_ms"]: milliseconds(10..=60_000), ms(1_000);
        memory_high_percent: Integer(1..=99), 80;
        memory_critical_percent: Integer(2..=100), 92;
    }
}

impl Section for Limits {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        let message = ("message_bytes_max", self.message_bytes_max);
        let hard = ("outbox_hard_bytes", self.outbox_hard_bytes);
        for (less, more) in [
            (("outbox_soft_bytes", self.outbox_soft_bytes), hard),
            (hard, ("outbox_bytes_per_core_max", self.outbox_bytes_per_core_max)),
            (("hello_bytes_max", self.hello_bytes_max), message),
            (("uri_bytes_max", self.uri_bytes_max), message),
            (
                ("uri_bytes_max", self.uri_bytes_max),
                ("uri_bytes_per_session_max", self.uri_bytes_per_session_max),
            ),
            // What is let in must fit wherever it has to wait, or it could never be delivered.
            (message, hard),
            (message, ("partial_bytes_per_core_max", self.partial_bytes_per_core_max)),
            (message, ("paused_bytes_per_core_max", self.paused_bytes_per_core_max)),
            (message, ("ring_bytes_max", self.ring_bytes_max)),
        ] {
            refuse_above(fields, less, more, print_size);
        }
        refuse_above(
            fields,
            ("publisher_hold_ms", self.publisher_hold.as_millis()),
            ("slow_consumer_timeout_ms", self.slow_consumer_timeout.as_millis()),
            |milliseconds| milliseconds.to_string(),
        );
        refuse_above(
            fields,
            ("call_timeout_ms", self.call_timeout.as_millis()),
            ("call_timeout_max_ms", self.call_timeout_max.as_millis()),
            |milliseconds| milliseconds.to_string(),
        );
        refuse_above(
            fields,
            ("memory_high_percent", self.memory_high_percent),
            ("memory_critical_percent", self.memory_critical_percent),
            |percent| percent.to_string(),
        );
    }
}

/// Of two keys and their values, the first may not be above the second. Whichever was given is the one to blame.
fn refuse_above<T: Copy + Ord>(
    fields: &mut Fields<'_, '_>,
    (less_key, less): (&str, T),
    (more_key, more): (&str, T),
    print: impl Fn(T) -> String,
) {
    if less <= more || !fields.is_sound(less_key) || !fields.is_sound(more_key) {
        return;
    }
    if fields.has(less_key) {
        let problem = format!("expected at most `{more_key}`, which is {}", print(more));
        fields.problem(less_key, problem, format!("lower `{less_key}` or raise `{more_key}`"));
    } else {
        let problem = format!("expected at least `{less_key}`, which is {}", print(less));
        fields.problem(more_key, problem, format!("raise `{more_key}` or lower `{less_key}`"));
    }
}

impl Limits {
    /// What every URI must keep to.
    #[must_use]
    pub fn uri_limits(&self) -> UriLimits {
        UriLimits { bytes_max: self.uri_bytes_max, components_max: self.uri_components_max }
    }
}
