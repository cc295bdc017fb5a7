//! What a client wants of databases: their procedures, and their events since it was here.

use crosspoint::wamp::MatchPolicy;
use crosspoint::wamp::message::{Message, Register};
use crosspoint::wamp::options::RegisterOptions;

use super::{Client, Pending, Stage};
use crate::database::{OFFERED, lock};
use crate::history::{Manner, Registration};

/// What is subscribed to for events of databases; some of it meets what clients publish too.
const PATTERNS: [(MatchPolicy, &str); 8] = [
    (MatchPolicy::Exact, "d.t.one"),
    (MatchPolicy::Exact, "d.t.two"),
    (MatchPolicy::Exact, "a.x"),
    (MatchPolicy::Prefix, "d"),
    (MatchPolicy::Prefix, "d.t.t"),
    (MatchPolicy::Prefix, "a"),
    (MatchPolicy::Wildcard, "d..one"),
    (MatchPolicy::Wildcard, ".."),
];

/// What is registered that databases offer, by patterns too.
const REGISTERED: [(MatchPolicy, &str); 7] = [
    (MatchPolicy::Exact, "d.p.both"),
    (MatchPolicy::Exact, "d.p.both"),
    (MatchPolicy::Exact, "a.b.d"),
    (MatchPolicy::Exact, "a.b.d"),
    (MatchPolicy::Prefix, "d"),
    (MatchPolicy::Prefix, "d.p.z"),
    (MatchPolicy::Wildcard, "d.."),
];

impl Client {
    /// Whether its realm has databases.
    pub(super) fn has_databases(&self, stage: &Stage<'_>) -> bool {
        self.realm == 0 && stage.advanced.databases > 0
    }

    /// One thing that has to do with them.
    pub(super) fn act_of_databases(&mut self, session: usize, stage: &mut Stage<'_>) {
        match stage.random.below(100) {
            0..44 => {
                let procedures = OFFERED[stage.random.below(stage.advanced.databases)];
                let procedure = *stage.random.pick(procedures);
                let manner = Manner {
                    disclose_me: stage.random.once_in(6),
                    receive_progress: stage.random.once_in(2),
                    in_parts: stage.random.once_in(20),
                    timeout_ms: if stage.random.once_in(6) {
                        stage.random.between(1, 5_000) as u64
                    } else {
                        0
                    },
                    is_sealed: false,
                };
                self.call_in_manner(session, procedure, (manner, self.can_seal), stage);
                if stage.random.once_in(6) {
                    self.cancel(session, stage);
                }
            }
            44..68 => self.resume(session, stage),
            68..74 => {
                let (policy, pattern) = *stage.random.pick(&PATTERNS);
                self.subscribe_to(session, policy, pattern, stage);
            }
            74..78 => self.unsubscribe(session, stage),
            78..89 => self.register_beside(session, stage),
            89..93 => self.unregister(session, stage),
            _ => self.cancel(session, stage),
        }
    }

    /// A procedure of a database, as it is called while nothing else happens.
    pub fn call_plainly(&mut self, procedure: &'static str, stage: &mut Stage<'_>) -> Option<(usize, u64)> {
        let session = self.session.filter(|_| self.is_open())?;
        let number = stage.history.sessions[session].calls.len() as u64;
        self.call_in_manner(session, procedure, (Manner::default(), false), stage);
        Some((session, number))
    }

    /// Subscribes behind the last that it has had, or behind some other position.
    fn resume(&mut self, session: usize, stage: &mut Stage<'_>) {
        let index = stage.random.below(stage.advanced.databases);
        let (policy, pattern) = *stage.random.pick(&PATTERNS);
        let last = lock(&stage.history.databases.all[index]).last_position() as usize;
        let heard = stage.history.sessions[session].subscriptions.iter().rev().find_map(|held| {
            let is_same = (held.policy, held.pattern) == (policy, pattern);
            is_same.then(|| held.of_databases.heard.get(&index))?
        });
        let after = match (heard, stage.random.below(8)) {
            (Some(heard), 0..6) => heard.last(),
            (_, 0) => 0,
            (_, 1) => last as u64 + 2,
            (_, 2..5) => last.saturating_sub(stage.random.below(20)) as u64,
            _ => stage.random.below(last + 1) as u64,
        };
        self.subscribe_after(session, policy, pattern, Some((index, after)), stage);
    }

    /// Registers what a database offers, or may offer soon.
    fn register_beside(&mut self, session: usize, stage: &mut Stage<'_>) {
        let (policy, pattern) = *stage.random.pick(&REGISTERED);
        let options = RegisterOptions { match_policy: policy, ..RegisterOptions::default() };
        let held = &mut stage.history.sessions[session].registrations;
        held.push(Registration {
            pattern,
            policy,
            concurrency: 0,
            id: 0,
            asked_at: stage.step,
            since: None,
            is_ending: false,
            is_over: false,
            is_revoked: false,
            disclose_caller: false,
        });
        let request = self.next_request(Some(Pending::Register(held.len() - 1)));
        let message = Register { request, options, procedure: pattern.into() };
        self.send(&Message::Register(message), stage);
    }
}
