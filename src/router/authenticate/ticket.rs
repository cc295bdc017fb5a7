//! `ticket` (advanced profile, "Ticket-based Authentication"): the secret itself.

use super::{Begun, Proof, SlowCheck, Verdict, is_same_secret};
use crate::config::User;
use crate::password::PasswordHash;

pub(super) fn begin() -> Begun {
    Begun { extra: "{}".to_owned(), proof: Proof::Ticket }
}

pub(super) fn verify(user: &User, ticket: &str) -> Verdict {
    if let Some(secret) = &user.ticket {
        return Verdict::of(is_same_secret(secret.expose().as_bytes(), ticket.as_bytes()));
    }
    // It was checked when it was fetched.
    let hash = user.ticket_hash.as_ref().and_then(|hash| PasswordHash::parse(hash.expose()).ok());
    match hash {
        Some(hash) => Verdict::Pending(SlowCheck::Password { ticket: ticket.into(), hash: Box::new(hash) }),
        None => Verdict::Wrong,
    }
}
