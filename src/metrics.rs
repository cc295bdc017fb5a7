//! Counters of one core as plain integers; summed when somebody reads them.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// What one core counted since it started.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Connections that ended, by [`crate::wamp::CloseReason`].
            pub closed: [u64; CLOSE_REASONS],
        }

        impl Counters {
            /// Adds another core's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                for (mine, theirs) in self.closed.iter_mut().zip(other.closed) {
                    *mine += theirs;
                }
            }

            /// What was counted since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                let mut new = Self { $($name: self.$name.saturating_sub(earlier.$name),)* closed: self.closed };
                for (count, earlier) in new.closed.iter_mut().zip(earlier.closed) {
                    *count = count.saturating_sub(earlier);
                }
                new
            }

            /// Grows whenever a connection ended or was refused: whether there is something to tell people.
            #[must_use]
            pub fn noteworthy(&self) -> u64 {
                self.closed.iter().sum::<u64>() + self.connections_refused + self.accept_paused
            }

            /// Every counter with its name, those of closed connections as `closed_<reason>`.
            #[must_use]
            pub fn named(&self) -> Vec<(String, u64)> {
                let mut all = vec![$((stringify!($name).to_owned(), self.$name)),*];
                for reason in CloseReason::ALL {
                    all.push((format!("closed_{}", reason.info().key), self.closed[*reason as usize]));
                }
                all
            }
        }
    };
}

use crate::wamp::CloseReason;

const CLOSE_REASONS: usize = CloseReason::ALL.len();

counters! {
    /// Connections accepted.
    connections_accepted
    /// Connections refused because of a limit.
    connections_refused
    /// Times that accepting paused because there were no descriptors.
    accept_paused
    /// Sessions opened.
    sessions_opened
    /// Sessions ended.
    sessions_ended
    /// HELLOs answered by ABORT.
    sessions_refused
    /// Logins that were wrong.
    logins_failed
    /// Logins refused because too many from their address were wrong.
    logins_barred
    /// Cookies given to browsers.
    cookies_set
    /// Sessions opened by a cookie.
    cookie_sessions
    /// Logins by cookie that ended with the sessions of their users, by a meta procedure.
    cookie_logins_ended
    /// Logins that no cookie stands for any more, or never did, because of a bound.
    cookie_logins_forgotten
    /// Slow checks of logins given to the threads that make them.
    checks
    /// Logins refused because too many slow checks were under way.
    checks_refused
    /// Messages received.
    messages_received
    /// Messages queued for sending.
    messages_sent
    /// Bytes received.
    bytes_received
    /// Bytes that the kernel took.
    bytes_sent
    /// PUBLISH messages accepted.
    publications
    /// EVENTs queued.
    events
    /// EVENTs not queued because the subscriber's outbox was full (role option `slow = "drop"`).
    events_dropped
    /// EVENTs not queued because the subscriber's serializer cannot carry them.
    events_not_representable
    /// EVENTs not queued because they are longer than the subscriber takes.
    events_too_large
    /// Retained events forgotten because a realm had as many, or as large ones, as it may have.
    retained_forgotten
    /// Retained events left out because one SUBSCRIBE matched too many.
    retained_left_out
    /// Subscriptions taken from their sessions (`wamp.subscription.remove_subscriber`).
    subscriptions_revoked
    /// Payloads of publications written in another serializer: once for each serializer on each core.
    events_transcoded
    /// CALLs accepted.
    calls
    /// INVOCATIONs queued.
    invocations
    /// Calls answered with RESULT.
    results
    /// Progressive results queued.
    progressive_results
    /// Further parts of progressive calls queued.
    progressive_invocations
    /// Calls ended because no result came in time.
    call_timeouts
    /// Calls answered with ERROR.
    call_errors
    /// Calls refused because the callee's outbox was full.
    invocations_refused
    /// Results turned into errors because the caller's outbox was full.
    results_refused
    /// Calls that waited because every callee had as many as it takes at a time.
    calls_queued
    /// Calls refused because as many waited as may wait.
    queue_full
    /// Calls that no callee had room for in time.
    queue_timeouts
    /// Calls that went to another callee because one refused them.
    calls_rerouted
    /// Calls given to databases.
    queries
    /// Calls that a database had no place for, or that it is away.
    queries_refused
    /// Calls given to databases that nobody waited for any more.
    queries_cancelled
    /// Events that databases have published.
    database_publications
    /// Subscriptions that began with what a database had published before.
    resumptions
    /// Those that could not: not all of it is kept, or the database is away.
    resumptions_failed
    /// Events that were delivered so.
    events_replayed
    /// Procedures of databases that others have registered, each time that a database offered them.
    database_procedures_shadowed
    /// Registrations that were taken from a callee.
    registrations_revoked
    /// CALLs of meta procedures.
    meta_calls
    /// Meta events published.
    meta_events
    /// Of what becomes meta events, how much had to wait because it was much at a time.
    meta_events_delayed
    /// Testaments published.
    testaments
    /// Meta procedures that were answered without the part of a core that did not answer in time.
    gathers_partial
    /// Registrations that went to another session of the same authid because the holder did not answer a ping.
    takeovers
    /// CANCELs taken.
    cancels
    /// Requests answered with ERROR, calls not counted.
    request_errors
    /// Requests that the role may not make.
    not_authorized
    /// Logins that an authenticator was asked about.
    authentications_asked
    /// Logins refused because too many were being asked about.
    authentications_refused
    /// Requests that an authorizer was asked about.
    decisions_asked
    /// Requests that an earlier answer of an authorizer decided.
    decisions_cached
    /// Requests refused at a limit of their session.
    limit_reached
    /// Frames that were compressed: an event once for each serializer, framing and window, however many get it.
    frames_compressed
    /// Frames that were tried to compress and are sent as they are, because that is not longer.
    frames_incompressible
    /// Turns of the shard.
    turns
    /// Times the shard slept.
    sleeps
    /// Calls of recv for messages, those that gave nothing included.
    receives
    /// Calls of send and sendmsg for messages, those that were refused included.
    sends
    /// Sends that the kernel refused for now.
    send_refused
    /// Sends that the kernel took in part.
    send_partial
    /// Flushes that were cut by the bound of a turn.
    flush_cut
    /// Sessions that had to wait for the next turn: bytes or deliveries.
    paused_budget
    /// Sessions that had to wait for credit.
    paused_credit
    /// Publishers that waited for a slow reader.
    paused_hold
    /// Sessions whose requests waited because they did not read their own outbox.
    paused_outbox
    /// Sessions whose requests waited for a decision.
    paused_decision
    /// Sessions that waited because memory was short.
    paused_memory
    /// Sessions that were not read because too many of their requests waited.
    paused_waiting
    /// Sessions that were not received from because the core kept too much input that may not be handled yet.
    paused_input
    /// Turns that read nothing because another core was far behind.
    paused_mesh
    /// Messages that a peer core's ring had no place for at once.
    ring_full
    /// Messages sent to other cores.
    peer_messages
    /// Doorbells rung.
    doorbells
    /// Pings sent.
    pings
    /// Pongs received.
    pongs
}

/// What one core counted of a realm since it started, and what the realm has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealmCounters {
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions ended.
    pub sessions_ended: u64,
    /// Publications of sessions, their testaments included.
    pub publications: u64,
    /// EVENTs queued.
    pub events: u64,
    /// CALLs accepted.
    pub calls: u64,
    /// Requests answered with ERROR, calls included, and publications refused without a word.
    pub errors: u64,
    /// Subscriptions that sessions made.
    pub subscribed: u64,
    /// Those of them that have ended.
    pub unsubscribed: u64,
    /// REGISTERs answered with REGISTERED.
    pub registered: u64,
    /// Registrations that there are; those that are shared count once.
    pub registrations: u64,
}

impl RealmCounters {
    /// Adds another core's.
    pub fn add(&mut self, other: &Self) {
        self.sessions_opened += other.sessions_opened;
        self.sessions_ended += other.sessions_ended;
        self.publications += other.publications;
        self.events += other.events;
        self.calls += other.calls;
        self.errors += other.errors;
        self.subscribed += other.subscribed;
        self.unsubscribed += other.unsubscribed;
        self.registered += other.registered;
        self.registrations += other.registrations;
    }

    /// Every one with its name: what there is, and then what there ever was.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("sessions", self.sessions_opened.saturating_sub(self.sessions_ended)),
            ("subscriptions", self.subscribed.saturating_sub(self.unsubscribed)),
            ("registrations", self.registrations),
            ("sessions_opened", self.sessions_opened),
            ("publications", self.publications),
            ("events", self.events),
            ("calls", self.calls),
            ("errors", self.errors),
            ("subscribed", self.subscribed),
            ("registered", self.registered),
        ]
    }
}
