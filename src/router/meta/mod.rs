//! The meta API: what the router tells of itself, and the procedures below `wamp` that it answers.
//!
//! A meta event is published by the realm's home core, which hears of its cause by ring and so puts all of them in one
//! order ([`news`], R11). A meta procedure is answered on its caller's core; what only other cores know is asked for
//! ([`gather`]). Nothing here is on the path of a PUBLISH, nor of a CALL whose URI is not below `wamp`.

mod backlog;
pub(super) mod gather;
pub(super) mod news;
pub(super) mod procedure;
mod registration;
mod session;
mod subscription;

use serde_json::Value;

use self::backlog::Backlog;
use self::gather::{Findings, Gathers, Question, Topic};
use self::procedure::Procedure;
use self::session::Sweeps;
use super::Router;
use super::dealer::Change;
use super::effects::Effects;
use super::peer::{Charge, Outcome, Parcel, RealmIndex, ReplyHead, SessionKey, Sitting};
use crate::wamp::arguments::Written;
use crate::wamp::error::uri;
use crate::wamp::features::RouterFeatures;
use crate::wamp::options::Passthru;
use crate::wamp::{Arguments, Payload, RequestId};

pub(super) use self::gather::{Answer, Ask};
pub(super) use self::news::{Cause, News, NewsKind};

/// What a realm without the meta API does not announce.
pub(super) const FEATURES: RouterFeatures = RouterFeatures::BROKER_SESSION_META_API
    .with(RouterFeatures::BROKER_SUBSCRIPTION_META_API)
    .with(RouterFeatures::DEALER_SESSION_META_API)
    .with(RouterFeatures::DEALER_REGISTRATION_META_API)
    .with(RouterFeatures::DEALER_TESTAMENT_META_API);

/// What a core keeps for the meta API.
#[derive(Debug, Default)]
pub(super) struct Meta {
    /// Counts what meta events are made of, so that nobody hears of what was before its subscription (R11).
    sequence: u64,
    /// Procedures whose answers are on their way to this core.
    gathers: Gathers,
    /// Sessions that are to be ended as turns permit.
    sweeps: Sweeps,
    /// What is told later, because it is much.
    backlog: Backlog,
    /// What happened to registrations of this core's dealers; empty between inputs.
    pub(super) changes: Vec<(RealmIndex, Change)>,
    /// What ends now ends without a word to anybody (`wamp.session.kill_all`).
    pub(super) is_silent: bool,
}

impl Meta {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.gathers.len() + self.sweeps.len() + self.backlog.len() + self.changes.len()
    }

    /// When there is something to do, in monotonic microseconds.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        [self.gathers.next_deadline_us(), self.sweeps.next_deadline_us()].into_iter().flatten().min()
    }
}

/// Why a meta procedure was not carried out: an error URI, and a text for people.
pub(super) type Refusal = (&'static str, &'static str);

impl Router {
    /// Answers a call of a procedure of the router's own, at once or once other cores have answered. Whether it is one.
    pub(super) fn handle_meta_call(
        &mut self,
        key: SessionKey,
        request: RequestId,
        uri: &str,
        payload: &Payload<'_>,
        effects: &mut impl Effects,
    ) -> bool {
        let realm = self.sessions.at(key.slot).realm;
        if !self.realms[usize::from(realm.0)].meta_api {
            return false;
        }
        let Some(procedure) = Procedure::of(uri) else { return false };
        effects.counters().meta_calls += 1;
        let caller = self.sitting(key);
        let question = match Arguments::read(payload) {
            // These two are the session's own, on this core.
            Ok(arguments) if procedure == Procedure::SessionAddTestament => {
                let added = self.add_testament(key, &arguments, payload);
                self.answer_meta_call(caller, request, added.map(|()| Written::default()), effects);
                return true;
            }
            Ok(arguments) if procedure == Procedure::SessionFlushTestaments => {
                let flushed = self.flush_testaments(key, &arguments);
                self.answer_meta_call(caller, request, flushed.map(|()| Written::default()), effects);
                return true;
            }
            Ok(arguments) => self.meta_question(key, procedure, &arguments),
            Err(_) => Err((uri::INVALID_ARGUMENT, "the arguments cannot be read as JSON values")),
        };
        match question {
            Ok(question) => self.ask(caller, request, procedure, question, effects),
            Err((error, text)) => self.answer_call(caller, request, error, text, effects),
        }
        true
    }

    /// Whether what ends now ends without a word to anybody.
    pub(super) fn ends_silently(&self) -> bool {
        self.meta.is_silent
    }

    /// What a call of a meta procedure asks the cores.
    fn meta_question(
        &self,
        key: SessionKey,
        procedure: Procedure,
        arguments: &Arguments,
    ) -> Result<Question, Refusal> {
        let topic = || self.meta_topic(key, arguments);
        Ok(match procedure {
            Procedure::SessionCount => Question::CountSessions { roles: roles(arguments)? },
            Procedure::SessionList => Question::ListSessions { roles: roles(arguments)? },
            Procedure::SessionAddTestament | Procedure::SessionFlushTestaments => {
                return Err((uri::INVALID_ARGUMENT, "this is no question"));
            }
            Procedure::SessionGet => Question::Session(procedure::session(arguments, 0)?),
            Procedure::SessionModifyDetails => Question::ModifyDetails {
                session: procedure::session(arguments, 0)?,
                details: session::modified(arguments)?,
            },
            Procedure::SessionKill
            | Procedure::SessionKillByAuthid
            | Procedure::SessionKillByAuthrole
            | Procedure::SessionKillAll => {
                Question::Kill(Box::new(self.kill_order(key, procedure, arguments)?))
            }
            Procedure::SubscriptionList => Question::ListSubscriptions,
            Procedure::SubscriptionLookup => Question::LookUpSubscription(topic()?),
            Procedure::SubscriptionMatch => Question::MatchSubscriptions(topic()?.uri),
            Procedure::SubscriptionGet => Question::Subscription(procedure::subscription(arguments)?),
            Procedure::SubscriptionListSubscribers => {
                Question::Subscribers { subscription: procedure::subscription(arguments)?, list: true }
            }
            Procedure::SubscriptionCountSubscribers => {
                Question::Subscribers { subscription: procedure::subscription(arguments)?, list: false }
            }
            Procedure::SubscriptionRemoveSubscriber => Question::RemoveSubscriber {
                subscription: procedure::subscription(arguments)?,
                session: procedure::session(arguments, 1)?,
                reason: procedure::reason(arguments, 2)?,
            },
            Procedure::AuthorizerPurge => {
                let text = |name| {
                    let wrong = (uri::INVALID_ARGUMENT, "authid and uri must be strings");
                    procedure::text(&arguments.kwargs, name).map_err(|()| wrong)
                };
                Question::ForgetDecisions { authid: text("authid")?, uri: text("uri")? }
            }
            Procedure::RegistrationList => Question::ListRegistrations,
            Procedure::RegistrationLookup => Question::LookUpRegistration(topic()?),
            Procedure::RegistrationMatch => Question::MatchRegistration(topic()?.uri),
            Procedure::RegistrationGet => Question::Registration(registration::registration(arguments)?),
            Procedure::RegistrationListCallees => {
                Question::Callees { registration: registration::registration(arguments)?, list: true }
            }
            Procedure::RegistrationCountCallees => {
                Question::Callees { registration: registration::registration(arguments)?, list: false }
            }
            Procedure::RegistrationRemoveCallee => Question::RemoveCallee {
                registration: registration::registration(arguments)?,
                session: procedure::session(arguments, 1)?,
                reason: procedure::reason(arguments, 2)?,
            },
        })
    }

    /// The URI that a look-up is for, with the `match` of its options.
    fn meta_topic(&self, key: SessionKey, arguments: &Arguments) -> Result<Topic, Refusal> {
        let Some(uri) = arguments.args.first().and_then(Value::as_str) else {
            return Err((uri::INVALID_ARGUMENT, "the first argument must be a URI"));
        };
        let policy = procedure::match_policy(arguments.args.get(1))?;
        let (realm, _) = self.realm_and_session(key);
        crate::wamp::uri::check_pattern(uri, policy, realm.uri_rule, realm.uri_limits)
            .map_err(|error| (uri::INVALID_URI, error.as_str()))?;
        Ok(Topic { policy, uri: uri.into() })
    }

    /// What this core knows of a question.
    fn meta_findings(
        &mut self,
        realm: RealmIndex,
        question: &Question,
        effects: &mut impl Effects,
    ) -> Findings {
        match question {
            Question::CountSessions { roles } => self.count_sessions(realm, roles.as_deref()),
            Question::ListSessions { roles } => self.list_sessions(realm, roles.as_deref(), effects),
            Question::Session(id) => self.find_session(realm, *id),
            Question::ModifyDetails { session, details } => self.modify_details(realm, *session, details),
            // A sweep answers for itself.
            Question::Kill(_) => Findings::default(),
            Question::ListSubscriptions => self.list_subscriptions(realm, effects),
            Question::LookUpSubscription(topic) => self.look_up_subscription(realm, topic),
            Question::MatchSubscriptions(uri) => self.match_subscriptions(realm, uri, effects),
            Question::Subscription(id) => self.find_subscription(realm, *id),
            Question::RemoveSubscriber { subscription, session, reason } => {
                self.remove_subscriber(realm, *subscription, *session, reason.as_deref(), effects)
            }
            Question::Subscribers { subscription, list } => {
                self.find_subscribers(realm, *subscription, *list, effects)
            }
            Question::ForgetDecisions { authid, uri } => {
                let count = self.decisions.purge(realm, authid.as_deref(), uri.as_deref());
                Findings { count, ..Findings::default() }
            }
            Question::ListRegistrations => self.list_registrations(realm, effects),
            Question::LookUpRegistration(topic) => self.look_up_registration(realm, topic),
            Question::MatchRegistration(uri) => self.match_registration(realm, uri, effects),
            Question::Registration(id) => self.find_registration(realm, *id),
            Question::Callees { registration, list } => {
                self.find_callees(realm, *registration, *list, effects)
            }
            Question::RemoveCallee { registration, session, reason } => {
                self.remove_callee(realm, *registration, *session, reason.as_deref(), effects)
            }
        }
    }

    /// RESULT, or ERROR, for a call of a session of this core.
    fn answer_meta_call(
        &mut self,
        caller: Sitting,
        request: RequestId,
        answer: Result<Written, Refusal>,
        effects: &mut impl Effects,
    ) {
        match answer {
            Err((error, text)) => self.answer_call(caller, request, error, text, effects),
            Ok(written) => {
                let (outcome, charge) = (Outcome::Result, Charge::default());
                let passthru = Passthru::default();
                let head = ReplyHead { caller, request, outcome, callee: None, charge, passthru };
                let payload = written.as_payload();
                self.finish_call(&Parcel::Borrowed { head, uri: "", payload }, effects);
            }
        }
    }

    /// Deadlines of the meta API that have passed.
    pub(super) fn handle_meta_timeouts(&mut self, now_us: u64, effects: &mut impl Effects) {
        self.handle_gather_timeouts(now_us, effects);
        self.continue_sweep(effects);
    }
}

/// The optional filter by roles.
fn roles(arguments: &Arguments) -> Result<Option<Vec<Box<str>>>, Refusal> {
    const WRONG: Refusal = (uri::INVALID_ARGUMENT, "filter_authroles must be a list of strings");
    match arguments.get("filter_authroles", 0) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => {
            let names = list.iter().map(|name| name.as_str().map(Box::from).ok_or(WRONG));
            names.collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(WRONG),
    }
}
