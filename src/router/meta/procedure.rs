//! The procedures of the meta API: their URIs, their arguments, and how what the cores found becomes a result.

use serde_json::{Map, Value, json};

use super::Refusal;
use super::gather::Findings;
use crate::wamp::arguments::Written;
use crate::wamp::error::uri;
use crate::wamp::id::ID_MAX;
use crate::wamp::{Arguments, MatchPolicy, SessionId, SubscriptionId};

macro_rules! procedures {
    ($($name:ident = $uri:literal;)*) => {
        /// A procedure that the router answers itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::router) enum Procedure {
            $($name,)*
        }

        impl Procedure {
            /// The procedure of a URI.
            pub(super) fn of(uri: &str) -> Option<Self> {
                match uri {
                    $($uri => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

procedures! {
    SessionCount = "wamp.session.count";
    SessionList = "wamp.session.list";
    SessionGet = "wamp.session.get";
    SessionModifyDetails = "wamp.session.modify_details";
    SessionKill = "wamp.session.kill";
    SessionKillByAuthid = "wamp.session.kill_by_authid";
    SessionKillByAuthrole = "wamp.session.kill_by_authrole";
    SessionKillAll = "wamp.session.kill_all";
    SessionAddTestament = "wamp.session.add_testament";
    SessionFlushTestaments = "wamp.session.flush_testaments";
    SubscriptionList = "wamp.subscription.list";
    SubscriptionLookup = "wamp.subscription.lookup";
    SubscriptionMatch = "wamp.subscription.match";
    SubscriptionGet = "wamp.subscription.get";
    SubscriptionListSubscribers = "wamp.subscription.list_subscribers";
    SubscriptionCountSubscribers = "wamp.subscription.count_subscribers";
    SubscriptionRemoveSubscriber = "wamp.subscription.remove_subscriber";
    AuthorizerPurge = "crosspoint.authorizer.purge";
    RegistrationList = "wamp.registration.list";
    RegistrationLookup = "wamp.registration.lookup";
    RegistrationMatch = "wamp.registration.match";
    RegistrationGet = "wamp.registration.get";
    RegistrationListCallees = "wamp.registration.list_callees";
    RegistrationCountCallees = "wamp.registration.count_callees";
    RegistrationRemoveCallee = "wamp.registration.remove_callee";
}

const TOO_MANY_DETAILS: Refusal =
    (uri::LIMIT_REACHED, "the details of the session would be longer than they may be");

const NO_SUCH_SESSION: Refusal = (uri::NO_SUCH_SESSION, "the realm has no other session with this id");
const NO_SUCH_SUBSCRIPTION: Refusal =
    (uri::NO_SUCH_SUBSCRIPTION, "the realm has no subscription with this id");

const NO_SUCH_REGISTRATION: Refusal =
    (uri::NO_SUCH_REGISTRATION, "the realm has no registration with this id");
const NO_SUCH_CALLEE: Refusal = (uri::NO_SUCH_SESSION, "no session with this id serves the registration");
const NO_SUCH_SUBSCRIBER: Refusal =
    (uri::NO_SUCH_SESSION, "the subscription has no subscriber with this session id");

/// The key, of our own, that says that a core did not answer in time.
const PARTIAL: &str = "_partial";

impl Procedure {
    /// What the caller is answered, from what all cores found.
    pub(super) fn answer(self, findings: Findings, is_partial: bool) -> Result<Written, Refusal> {
        let Findings { is_found, count, mut ids, details, created_us } = findings;
        let mut answer = match self {
            Self::SessionCount
            | Self::SessionKillByAuthrole
            | Self::SessionKillAll
            | Self::AuthorizerPurge => Arguments::from(vec![count.into()]),
            Self::SessionList | Self::SessionKillByAuthid => {
                return Ok(written(is_partial, |out| write_ids(&ids[0], out)));
            }
            Self::SessionGet | Self::RegistrationGet if is_found => Arguments::from(vec![details.into()]),
            Self::SessionAddTestament | Self::SessionFlushTestaments => Arguments::default(),
            Self::SessionKill | Self::SessionModifyDetails | Self::RegistrationRemoveCallee if is_found => {
                Arguments::default()
            }
            // There was the session, and no room.
            Self::SessionModifyDetails if count > 0 => return Err(TOO_MANY_DETAILS),
            Self::SessionGet | Self::SessionKill | Self::SessionModifyDetails => return Err(NO_SUCH_SESSION),
            Self::SubscriptionList | Self::RegistrationList => {
                distinct(&mut ids);
                return Ok(written(is_partial, |out| write_lists(&ids, out)));
            }
            Self::SubscriptionLookup | Self::RegistrationLookup | Self::RegistrationMatch => {
                Arguments::from(vec![ids[0].first().copied().into()])
            }
            Self::SubscriptionMatch => {
                distinct(&mut ids);
                if ids[0].is_empty() {
                    Arguments::from(vec![Value::Null])
                } else {
                    return Ok(written(is_partial, |out| write_ids(&ids[0], out)));
                }
            }
            Self::SubscriptionGet
            | Self::SubscriptionListSubscribers
            | Self::SubscriptionCountSubscribers
            | Self::SubscriptionRemoveSubscriber
                if !is_found =>
            {
                return Err(NO_SUCH_SUBSCRIPTION);
            }
            Self::SubscriptionGet => {
                let mut details = details;
                let created = crate::wamp::codec::timestamp_text(created_us.unwrap_or_default());
                details.insert("created".to_owned(), created.into());
                Arguments::from(vec![details.into()])
            }
            // There was the registration, and not the callee.
            Self::RegistrationRemoveCallee if count > 0 => return Err(NO_SUCH_CALLEE),
            Self::RegistrationGet | Self::RegistrationRemoveCallee => return Err(NO_SUCH_REGISTRATION),
            Self::RegistrationListCallees | Self::RegistrationCountCallees if !is_found => {
                return Err(NO_SUCH_REGISTRATION);
            }
            Self::SubscriptionListSubscribers | Self::RegistrationListCallees => {
                return Ok(written(is_partial, |out| write_ids(&ids[0], out)));
            }
            Self::SubscriptionRemoveSubscriber if count > 0 => Arguments::default(),
            Self::SubscriptionRemoveSubscriber => return Err(NO_SUCH_SUBSCRIBER),
            Self::SubscriptionCountSubscribers | Self::RegistrationCountCallees => {
                Arguments::from(vec![count.into()])
            }
        };
        if is_partial {
            answer.kwargs.insert(PARTIAL.to_owned(), json!(true));
        }
        Ok(answer.write())
    }
}

/// Several cores may have found the same.
fn distinct(ids: &mut [Vec<u64>; 3]) {
    for list in ids {
        list.sort_unstable();
        list.dedup();
    }
}

/// One positional argument, written as it comes: a list may have very many ids.
fn written(is_partial: bool, write: impl FnOnce(&mut Vec<u8>)) -> Written {
    let mut args = vec![b'['];
    write(&mut args);
    args.push(b']');
    let kwargs = if is_partial { format!("{{\"{PARTIAL}\":true}}").into_bytes() } else { Vec::new() };
    Written::from_json(args, kwargs)
}

fn write_ids(ids: &[u64], out: &mut Vec<u8>) {
    out.push(b'[');
    let mut digits = itoa::Buffer::new();
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(digits.format(*id).as_bytes());
    }
    out.push(b']');
}

/// The ids under the words of their match policies.
fn write_lists(ids: &[Vec<u64>; 3], out: &mut Vec<u8>) {
    let policies = [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard];
    for (policy, list) in policies.into_iter().zip(ids) {
        out.push(if policy == MatchPolicy::Exact { b'{' } else { b',' });
        out.extend_from_slice(format!("\"{}\":", policy.as_str()).as_bytes());
        write_ids(list, out);
    }
    out.push(b'}');
}

/// A session id among the positional arguments.
pub(super) fn session(arguments: &Arguments, position: usize) -> Result<SessionId, Refusal> {
    let text = "the argument must be the id of a session";
    id(arguments.args.get(position)).map(SessionId).ok_or((uri::INVALID_ARGUMENT, text))
}

/// The subscription id that is the first argument.
pub(super) fn subscription(arguments: &Arguments) -> Result<SubscriptionId, Refusal> {
    let text = "the first argument must be the id of a subscription";
    id(arguments.args.first()).map(SubscriptionId).ok_or((uri::INVALID_ARGUMENT, text))
}

/// An id, also where a library wrote it as a float.
pub(in crate::router) fn id(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    let whole = |float: f64| (float.fract() == 0.0 && float >= 1.0).then_some(float as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole)).filter(|id| (1..=ID_MAX).contains(id))
}

/// `match` of the options that a look-up was given.
pub(super) fn match_policy(options: Option<&Value>) -> Result<MatchPolicy, Refusal> {
    let Some(options) = options.filter(|options| !options.is_null()) else { return Ok(MatchPolicy::Exact) };
    let Some(options) = options.as_object() else {
        return Err((uri::INVALID_ARGUMENT, "the options must be a map"));
    };
    let policies = [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard];
    match options.get("match") {
        None | Some(Value::Null) => Ok(MatchPolicy::Exact),
        Some(word) => policies
            .into_iter()
            .find(|policy| word.as_str() == Some(policy.as_str()))
            .ok_or((uri::INVALID_ARGUMENT, "the option match must be exact, prefix or wildcard")),
    }
}

/// Why something is taken away: for people, and for machines that know the URI.
pub(super) fn reason(arguments: &Arguments, position: usize) -> Result<Option<Box<str>>, Refusal> {
    match arguments.get("reason", position) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err((uri::INVALID_ARGUMENT, "the reason must be a string")),
    }
}

/// A text among the keyword arguments.
pub(super) fn text(kwargs: &Map<String, Value>, name: &str) -> Result<Option<Box<str>>, ()> {
    match kwargs.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err(()),
    }
}
