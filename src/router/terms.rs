//! What only some calls and publications carry from core to core: who is behind them, and how they were asked for.

use super::Router;
use super::authorizer::Permit;
use super::peer::SessionKey;
use crate::wamp::SessionId;
use crate::wamp::options::{InvocationDetails, Text};

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
}

impl CallTerms {
    /// What the callee is told of it.
    pub(super) fn invocation_details(&self) -> InvocationDetails<'_> {
        let disclosed = self.disclosed.as_ref();
        InvocationDetails {
            caller: disclosed.map(|caller| caller.session),
            caller_authid: disclosed.map(|caller| Text::Borrowed(&*caller.authid)),
            caller_authrole: disclosed.map(|caller| Text::Borrowed(&*caller.authrole)),
            trustlevel: self.trust_level,
            ..InvocationDetails::default()
        }
    }

    /// What it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.disclosed.as_ref().map_or(0, Disclosed::bytes)
    }
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
