//! Tokens (`jwt`, and `ticket` that is one): who signed them lets their bearers in, and for how long.

use std::sync::Arc;

use crate::config::TokenConfig;
use crate::config::authentication::is_authid;
use crate::router::Now;
use crate::token::{Claims, Keys, Rules, Token};

/// What a realm asks of tokens.
#[derive(Debug)]
pub(in super::super) struct Tokens {
    rules: Rules,
    pub(in super::super) keys: Arc<Keys>,
}

/// Somebody whom a token names.
#[derive(Debug)]
pub(in super::super) struct Bearer {
    pub(in super::super) authid: Box<str>,
    pub(in super::super) role: Box<str>,
    /// When the token is good no more, in monotonic microseconds: however the wall clock is set meanwhile.
    pub(in super::super) expires_us: u64,
    /// For WELCOME: a map in JSON, or empty; or what is wrong with it.
    pub(in super::super) authextra: Result<Box<str>, &'static str>,
}

impl Tokens {
    pub(in super::super) fn new(config: &TokenConfig) -> Self {
        let boxed = |text: &Option<String>| text.as_deref().map(Box::from);
        let rules = Rules {
            issuer: boxed(&config.issuer),
            audience: boxed(&config.audience),
            leeway_us: config.leeway.as_micros() as u64,
            authid_claim: config.authid_claim.as_str().into(),
            role_claim: config.role_claim.as_str().into(),
            role: boxed(&config.role),
            extra_claims: config
                .claims
                .as_ref()
                .map(|claims| claims.iter().map(|claim| claim.as_str().into()).collect()),
        };
        Self { rules, keys: Arc::new(config.signing_keys()) }
    }

    /// Whom a token names, if it is one for this realm and this time; its signature is another matter. `authid` is what the
    /// client said of itself.
    pub(in super::super) fn bearer(&self, now: Now, token: &Token, authid: Option<&str>) -> Option<Bearer> {
        let Claims { authid: claimed, role, left_us } = token.claims(&self.rules, now.wall_us)?;
        if authid.is_some_and(|authid| *authid != *claimed) || !is_authid(&claimed) {
            return None;
        }
        let expires_us = now.monotonic_us.saturating_add(left_us);
        Some(Bearer { authid: claimed, role, expires_us, authextra: token.extra(&self.rules) })
    }
}
