//! What only other cores know: asked for, and put together once all of them have answered.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Procedure;
use super::backlog::Waiting;
use super::session::KillOrder;
use crate::router::Router;
use crate::router::effects::{CreditTime, Effects};
use crate::router::peer::{Charge, CoreId, MESSAGE_OVERHEAD_BYTES, PeerMessage, RealmIndex, Sitting};
use crate::wamp::error::uri;
use crate::wamp::options::MatchPolicy;
use crate::wamp::{RegistrationId, RequestId, SessionId, SubscriptionId};

/// A URI as it is subscribed or registered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(in crate::router) struct Topic {
    pub policy: MatchPolicy,
    pub uri: Box<str>,
}

/// What a core is asked, or told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(in crate::router) enum Question {
    CountSessions {
        roles: Option<Vec<Box<str>>>,
    },
    ListSessions {
        roles: Option<Vec<Box<str>>>,
    },
    Session(SessionId),
    Kill(Box<KillOrder>),
    ModifyDetails {
        session: SessionId,
        details: Map<String, Value>,
    },
    ListSubscriptions,
    LookUpSubscription(Topic),
    MatchSubscriptions(Box<str>),
    Subscription(SubscriptionId),
    Subscribers {
        subscription: SubscriptionId,
        list: bool,
    },
    RemoveSubscriber {
        subscription: SubscriptionId,
        session: SessionId,
        reason: Option<Box<str>>,
    },
    /// The answers of authorizers about this user, and this URI, are not to be used again; `None` is about all.
    ForgetDecisions {
        authid: Option<Box<str>>,
        uri: Option<Box<str>>,
    },
    ListRegistrations,
    LookUpRegistration(Topic),
    MatchRegistration(Box<str>),
    Registration(RegistrationId),
    Callees {
        registration: RegistrationId,
        list: bool,
    },
    RemoveCallee {
        registration: RegistrationId,
        session: SessionId,
        reason: Option<Box<str>>,
    },
}

impl Question {
    /// Whether home alone knows.
    fn is_for_home(&self) -> bool {
        matches!(
            self,
            Self::ListRegistrations
                | Self::LookUpRegistration(_)
                | Self::MatchRegistration(_)
                | Self::Registration(_)
                | Self::Callees { .. }
                | Self::RemoveCallee { .. }
        )
    }

    /// What it holds beyond itself, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::CountSessions { roles: Some(roles) } | Self::ListSessions { roles: Some(roles) } => {
                roles.iter().map(|role| role.len() + size_of::<Box<str>>()).sum()
            }
            Self::Kill(order) => order.bytes(),
            Self::ModifyDetails { details, .. } => super::session::bytes_of(details),
            Self::LookUpSubscription(topic) | Self::LookUpRegistration(topic) => topic.uri.len(),
            Self::MatchSubscriptions(uri) | Self::MatchRegistration(uri) => uri.len(),
            Self::RemoveCallee { reason: Some(reason), .. }
            | Self::RemoveSubscriber { reason: Some(reason), .. } => reason.len(),
            Self::ForgetDecisions { authid, uri } => {
                [authid, uri].into_iter().flatten().map(|text| text.len()).sum()
            }
            _ => 0,
        }
    }
}

/// A question on its way.
#[derive(Debug)]
pub struct Ask {
    realm: RealmIndex,
    /// Who wants to know, and the number of its gathering.
    pub(super) from: CoreId,
    pub(super) number: u64,
    question: Question,
}

/// What a core found, on its way to the core that asked.
#[derive(Debug)]
pub struct Answer {
    /// Who asked.
    to: CoreId,
    number: u64,
    findings: Findings,
    /// It is to be heard behind all that home has to tell.
    is_behind: bool,
}

impl Ask {
    /// What it holds of a ring, in bytes.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.question.bytes()
    }
}

impl Answer {
    /// What it holds of a ring, in bytes.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.findings.ids.iter().map(|ids| ids.len() * size_of::<u64>()).sum()
    }
}

/// What one core, or all of them, found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Findings {
    pub(super) is_found: bool,
    pub(super) count: u64,
    /// Ids; where they are apart by match policy the other two lists are used as well.
    pub(super) ids: [Vec<u64>; 3],
    pub(super) details: Map<String, Value>,
    /// When it was created, in microseconds since 1970: home knows.
    pub(super) created_us: Option<u64>,
}

impl Findings {
    pub(super) fn of_ids(ids: Vec<u64>) -> Self {
        Self { ids: [ids, Vec::new(), Vec::new()], ..Self::default() }
    }

    fn add(&mut self, other: Self) {
        self.is_found |= other.is_found;
        self.count += other.count;
        for (all, some) in self.ids.iter_mut().zip(other.ids) {
            if all.is_empty() {
                *all = some;
            } else {
                all.extend(some);
            }
        }
        self.details.extend(other.details);
        self.created_us = self.created_us.or(other.created_us);
    }
}

/// A call that waits for other cores.
#[derive(Debug)]
struct Gather {
    caller: Sitting,
    request: RequestId,
    procedure: Procedure,
    /// How many have not answered.
    missing: u16,
    findings: Findings,
    deadline_us: u64,
    /// What the caller was charged (R8): a share of what it may owe, so that it is not read while it waits for many.
    charge: Charge,
}

/// Of one session so many may wait before it is not read.
const GATHERS_PER_SESSION: usize = 16;

/// The calls of this core that wait for others, by number: the order in which they began, and in which they time out.
/// An entry ends with the last answer, and at its deadline.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    open: BTreeMap<u64, Gather>,
    last_number: u64,
}

impl Gathers {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.open.first_key_value().map(|(_, gather)| gather.deadline_us)
    }
}

impl Router {
    /// Asks all cores, this one first.
    pub(super) fn ask(
        &mut self,
        caller: Sitting,
        request: RequestId,
        procedure: Procedure,
        question: Question,
        effects: &mut impl Effects,
    ) {
        if self.meta.gathers.len() >= self.limits.gathers_per_core_max {
            effects.counters().limit_reached += 1;
            let text = "as many meta procedures wait for other cores as may; try again";
            self.answer_call(caller, request, uri::UNAVAILABLE, text, effects);
            return;
        }
        let realm = self.sessions.at(caller.key.slot).realm;
        // What it costs to gather is seen when it is done.
        let bytes = (self.limits.credit_bytes_per_session / GATHERS_PER_SESSION)
            .max(question.bytes() + MESSAGE_OVERHEAD_BYTES as usize) as u32;
        let charge = Charge { bytes, paused: effects.charge(caller.key, bytes) };
        self.meta.gathers.last_number += 1;
        let number = self.meta.gathers.last_number;
        let gather = Gather {
            caller,
            request,
            procedure,
            missing: if question.is_for_home() { 1 } else { self.cores },
            findings: Findings::default(),
            deadline_us: self.now.monotonic_us + self.limits.gather_timeout.as_micros() as u64,
            charge,
        };
        self.meta.gathers.open.insert(number, gather);
        let home = self.realms[usize::from(realm.0)].home;
        if question.is_for_home() && home != self.core {
            let ask = Ask { realm, from: self.core, number, question };
            effects.peer(home, PeerMessage::Ask(Box::new(ask)));
            return;
        }
        let others = (self.cores > 1 && !question.is_for_home()).then(|| question.clone());
        // This core first: whatever comes of it here is on its way to home before home is asked.
        self.handle_ask(Ask { realm, from: self.core, number, question }, effects);
        let Some(question) = others else { return };
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            let ask = Ask { realm, from: self.core, number, question: question.clone() };
            effects.peer(core, PeerMessage::Ask(Box::new(ask)));
        }
    }

    /// A question of some core.
    pub(in crate::router) fn handle_ask(&mut self, ask: Ask, effects: &mut impl Effects) {
        if let Question::Kill(order) = ask.question {
            self.begin_sweep(ask.realm, *order, ask.from, ask.number, effects);
            return;
        }
        let findings = self.meta_findings(ask.realm, &ask.question, effects);
        if matches!(ask.question, Question::RemoveSubscriber { .. }) {
            // Who asked hears of the end before it hears that it was made.
            self.answer_by_home(ask.realm, ask.from, ask.number, findings, effects);
            return;
        }
        let answer = Answer { to: ask.from, number: ask.number, findings, is_behind: false };
        self.send_answer(ask.from, answer, effects);
    }

    /// Tells the core that asked what a sweep has done: by way of home and so behind the word of every session that it
    /// ended.
    pub(super) fn answer_by_home(
        &mut self,
        realm: RealmIndex,
        to: CoreId,
        number: u64,
        findings: Findings,
        effects: &mut impl Effects,
    ) {
        let home = self.realms[usize::from(realm.0)].home;
        self.send_answer(home, Answer { to, number, findings, is_behind: true }, effects);
    }

    fn send_answer(&mut self, to: CoreId, answer: Answer, effects: &mut impl Effects) {
        if to == self.core {
            self.handle_answer(answer, effects);
        } else {
            effects.peer(to, PeerMessage::Answer(Box::new(answer)));
        }
    }

    /// What some core found. One that comes after the deadline finds nobody.
    pub(in crate::router) fn handle_answer(&mut self, answer: Answer, effects: &mut impl Effects) {
        if answer.is_behind && self.must_wait(true, effects) {
            self.let_wait(Waiting::Answer(Box::new(answer)), effects);
        } else {
            self.take_answer(answer, effects);
        }
    }

    pub(super) fn take_answer(&mut self, mut answer: Answer, effects: &mut impl Effects) {
        // Home has told all that was before it.
        answer.is_behind = false;
        if answer.to != self.core {
            self.send_answer(answer.to, answer, effects);
            return;
        }
        let Some(gather) = self.meta.gathers.open.get_mut(&answer.number) else { return };
        gather.findings.add(answer.findings);
        gather.missing -= 1;
        if gather.missing == 0
            && let Some(gather) = self.meta.gathers.open.remove(&answer.number)
        {
            self.finish_gather(gather, effects);
        }
    }

    fn finish_gather(&mut self, gather: Gather, effects: &mut impl Effects) {
        effects.credit(gather.caller.session(), gather.charge, CreditTime::Now);
        let is_partial = gather.missing > 0;
        let mut answer = gather.procedure.answer(gather.findings, is_partial);
        if is_partial && answer.is_err() {
            answer = Err((uri::UNAVAILABLE, "a core of the router has not answered in time; try again"));
        }
        self.answer_meta_call(gather.caller, gather.request, answer, effects);
    }

    /// Answers with what there is where a core has not answered in time.
    pub(super) fn handle_gather_timeouts(&mut self, now_us: u64, effects: &mut impl Effects) {
        while let Some(first) = self.meta.gathers.open.first_entry()
            && first.get().deadline_us <= now_us
        {
            let gather = first.remove();
            effects.counters().gathers_partial += 1;
            self.finish_gather(gather, effects);
        }
    }
}
