//! What only some calls and publications carry from core to core: who is behind them, and how they were asked for.

use super::Router;
use super::authorizer::Permit;
use super::dealer::Aim;
use super::peer::{CallHead, SessionKey};
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::MessageType;
use crate::wamp::options::{InvocationDetails, Passthru, Text};
use crate::wamp::{ProtocolError, SessionId};

/// Who called or published, for those who are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Disclosed {
    pub session: SessionId,
    pub authid: Box<str>,
    pub authrole: Box<str>,
}

impl Disclosed {
    /// What it holds beside itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.authid.len() + self.authrole.len()
    }
}

/// What a call carries beside its procedure and its payload; most carry nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTerms {
    /// INVOCATION.Details.caller…
    pub disclosed: Option<Disclosed>,
    /// Nobody asked for it so far: the dealer takes it away unless the callee registered with `disclose_caller`.
    pub is_disclosed_if_wanted: bool,
    /// INVOCATION.Details.trustlevel
    pub trust_level: Option<u64>,
    /// INVOCATION.Details.timeout, for callees that mind it; 0 is none.
    pub timeout_ms: u64,
    /// The caller takes progressive results.
    pub receive_progress: bool,
    /// Which part of the call this is.
    pub input: Input,
    /// Which of its callees it may go to.
    pub(super) aim: Aim,
    /// It goes to all nodes, and what they answer is gathered.
    pub(super) is_for_all: bool,
    /// INVOCATION.Details.ppt_*
    pub passthru: Passthru<'static>,
}

/// Which part of a call's input a CALL brings (advanced profile, "Progressive Call Invocations").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// All of it.
    #[default]
    Whole,
    /// The first; more follow.
    First,
    /// Another one.
    More,
    /// No more follow.
    Last,
}

impl CallHead {
    /// Whether it brings this part of a call's input.
    pub(super) fn is(&self, input: Input) -> bool {
        self.terms.as_deref().is_some_and(|terms| terms.input == input)
    }

    /// Which callees it may go to.
    pub(super) fn aim(&self) -> Aim {
        self.terms.as_deref().map_or(Aim::Any, |terms| terms.aim)
    }

    /// Whether it goes to all nodes.
    pub(super) fn is_for_all(&self) -> bool {
        self.terms.as_deref().is_some_and(|terms| terms.is_for_all)
    }

    /// What its caller can make long beside procedure and payload, in bytes.
    pub(super) fn carried_bytes(&self) -> usize {
        self.terms.as_deref().map_or(0, |terms| terms.passthru.bytes())
    }
}

const INVOCATIONS: ClientFeatures =
    ClientFeatures::CALLEE_PROGRESSIVE_CALL_INVOCATIONS.with(ClientFeatures::CALLEE_CALL_CANCELING);

impl CallTerms {
    /// Whether a callee with these features is asked for progressive results. The specification wants it to be one that
    /// can be interrupted; published libraries announce the one without the other, and what they send in vain is dropped.
    pub(super) fn wants_progress(&self, features: ClientFeatures) -> bool {
        self.receive_progress && features.contains(ClientFeatures::CALLEE_PROGRESSIVE_CALL_RESULTS)
    }

    /// Why a callee with these features cannot take the call.
    pub(super) fn not_supported(&self, features: ClientFeatures) -> Option<&'static str> {
        if self.input == Input::First && !features.contains(INVOCATIONS) {
            return Some("the callee takes no progressive call invocations");
        }
        (self.passthru.is_used() && !features.contains(ClientFeatures::CALLEE_PAYLOAD_PASSTHRU_MODE))
            .then_some("the callee does not know payload passthru mode")
    }

    /// What a callee with these features is told of it.
    pub(super) fn invocation_details(&self, features: ClientFeatures) -> InvocationDetails<'_> {
        let disclosed = self.disclosed.as_ref();
        InvocationDetails {
            caller: disclosed.map(|caller| caller.session),
            caller_authid: disclosed.map(|caller| Text::Borrowed(&*caller.authid)),
            caller_authrole: disclosed.map(|caller| Text::Borrowed(&*caller.authrole)),
            trustlevel: self.trust_level,
            timeout_ms: if features.contains(ClientFeatures::CALLEE_CALL_TIMEOUT) {
                self.timeout_ms
            } else {
                0
            },
            receive_progress: self.wants_progress(features),
            progress: matches!(self.input, Input::First | Input::More),
            passthru: self.passthru.borrowed(),
            procedure: None,
        }
    }

    /// What it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.disclosed.as_ref().map_or(0, Disclosed::bytes) + self.passthru.bytes()
    }
}

/// What of it outlives its message: nothing where it is not used.
#[inline]
pub(super) fn carried(passthru: &Passthru<'_>) -> Passthru<'static> {
    if passthru.is_used() { passthru.to_static() } else { Passthru::default() }
}

/// Whoever seals a payload must have said that it knows payload passthru mode (advanced profile, "Payload Passthru Mode":
/// a protocol error).
pub(super) fn check_announced(
    kind: MessageType,
    passthru: &Passthru<'_>,
    features: ClientFeatures,
    needed: ClientFeatures,
) -> Result<(), ProtocolError> {
    if !passthru.is_used() || features.contains(needed) {
        return Ok(());
    }
    let name = kind.name();
    Err(ProtocolError::new(format!(
        "{name}: ppt_scheme is used, but the client did not announce payload_passthru_mode"
    )))
}

/// The text of ERROR `option_disallowed.disclose_me`.
pub(super) const DISCLOSE_ME_DENIED: &str = "the realm does not let clients ask to be disclosed";

impl Router {
    /// Who a session of this core is, for the other side of what it calls or publishes.
    pub(super) fn disclosed(&self, key: SessionKey) -> Disclosed {
        let (realm, session) = self.realm_and_session(key);
        let authrole = &realm.roles[session.role as usize].name;
        Disclosed { session: session.id, authid: session.authid().into(), authrole: authrole.clone() }
    }

    /// Whether a session asked to be disclosed in vain: its realm does not allow that, and its role is not disclosed
    /// anyway.
    pub(super) fn may_not_disclose(&self, key: SessionKey, disclose_me: bool, permit: Permit) -> bool {
        disclose_me && !permit.disclose && !self.realm_and_session(key).0.disclose_me
    }
}
