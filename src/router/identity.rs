//! Who a session is, where it is more than anonymous.

use crate::config::AuthMethod;

/// Who a session is, as an authentication found it. Anonymous sessions have none: their authid is made of their id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The authid.
    pub authid: Box<str>,
    /// How it was found.
    pub authmethod: AuthMethod,
    /// Who vouches for it: `static` for the configuration.
    pub authprovider: &'static str,
    /// What the provider says beside: a map in JSON, or empty.
    pub authextra: Box<str>,
    /// When the session ends by itself, in monotonic microseconds; [`NEVER`] for most.
    pub expires_us: u64,
}

/// No end of its own.
pub const NEVER: u64 = u64::MAX;

// The cost sheet: what every session pays that logged in.
const _: () = assert!(size_of::<Identity>() <= 64);
