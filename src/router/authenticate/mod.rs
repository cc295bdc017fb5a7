//! The methods of authentication, one file each: what to challenge with and whether the answer is right, as functions
//! of what is configured, the time and a nonce.
//!
//! Who does not exist is treated as somebody who does, to the end: [`Accounts::find`] gives a stand-in whose challenge looks
//! like that of a real user, whose answer costs as much to check, and is never right. So neither a message nor the
//! time it takes tells who exists.

mod ticket;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{self, AuthMethod, User};

/// Users of a realm, as a router looks them up.
#[derive(Debug)]
pub(super) struct Accounts {
    users: Vec<Account>,
    by_authid: HashMap<Box<str>, u32, FixedState>,
    /// What stand-ins are made of: a hash of all secrets of the realm, so that they stay what they are while the users do.
    stand_in_key: [u8; 32],
}

/// One user.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) user: User,
    /// The place of the role among those of the realm.
    pub(super) role: u16,
}

/// Who wants to log in: a user, or the stand-in for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Principal {
    pub(super) account: u32,
    pub(super) is_real: bool,
}

/// What a challenge has to be answered with.
#[derive(Debug)]
pub(super) enum Proof {
    /// The ticket.
    Ticket,
}

/// A way to begin.
#[derive(Debug)]
pub(super) struct Begun {
    /// CHALLENGE.Extra, a map in JSON.
    pub(super) extra: String,
    pub(super) proof: Proof,
}

/// What came of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is right; `authextra` for WELCOME is a map in JSON, or empty.
    Right { authextra: Box<str> },
    /// It is wrong.
    Wrong,
}

impl Verdict {
    fn of(is_right: bool) -> Self {
        if is_right { Self::Right { authextra: Box::default() } } else { Self::Wrong }
    }
}

impl Accounts {
    pub(super) fn new(realm: &config::Realm) -> Self {
        let role_of = |user: &User| realm.roles.iter().position(|role| role.name == user.role);
        let mut stand_in = Sha256::new();
        stand_in.update(realm.name.as_bytes());
        let mut users = Vec::with_capacity(realm.users.len());
        let mut by_authid = HashMap::with_hasher(FixedState::with_seed(0));
        for user in &realm.users {
            // The configuration has checked that the role is there.
            let Some(role) = role_of(user) else { continue };
            by_authid.insert(user.authid.as_str().into(), users.len() as u32);
            for secret in user.material() {
                stand_in.update((secret.len() as u64).to_le_bytes());
                stand_in.update(secret);
            }
            users.push(Account { user: user.clone(), role: role as u16 });
        }
        Self { users, by_authid, stand_in_key: stand_in.finalize().into() }
    }

    /// Somebody of this name: the user, or one who stands in. `None` where there is no user at all.
    pub(super) fn find(&self, authid: &str) -> Option<Principal> {
        if let Some(account) = self.by_authid.get(authid) {
            return Some(Principal { account: *account, is_real: true });
        }
        if self.users.is_empty() {
            return None;
        }
        let number = u64::from_le_bytes(first(self.stand_in("whom", authid)));
        Some(Principal { account: (number % self.users.len() as u64) as u32, is_real: false })
    }

    pub(super) fn account(&self, principal: Principal) -> &Account {
        &self.users[principal.account as usize]
    }

    /// Bytes that belong to a name for ever, and that nobody can foretell.
    fn stand_in(&self, purpose: &str, authid: &str) -> [u8; 32] {
        let mut bytes = hmac(&self.stand_in_key, purpose.as_bytes());
        bytes = hmac(&bytes, authid.as_bytes());
        bytes
    }

    /// Begins a method; `None` where this principal does not have it.
    pub(super) fn begin(&self, method: AuthMethod, principal: Principal) -> Option<Begun> {
        let user = &self.account(principal).user;
        match method {
            AuthMethod::Ticket => user.ticket.as_ref().map(|_| ticket::begin()),
            AuthMethod::Anonymous => None,
        }
    }

    /// Whether an answer is right.
    pub(super) fn verify(&self, principal: Principal, proof: &Proof, signature: &str) -> Verdict {
        let user = &self.account(principal).user;
        let is_right = match proof {
            Proof::Ticket => user.ticket.as_ref().is_some_and(|secret| ticket::is_right(secret, signature)),
        };
        // Only now: a stand-in must cost what a user does.
        Verdict::of(is_right & principal.is_real)
    }
}

fn first<const COUNT: usize>(bytes: [u8; 32]) -> [u8; COUNT] {
    let mut some = [0; COUNT];
    some.copy_from_slice(&bytes[..COUNT]);
    some
}

/// HMAC-SHA256.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut hmac) => {
            hmac.update(message);
            hmac.finalize().into_bytes().into()
        }
        // Keys of every length are taken.
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

/// Whether two secrets are the same, in a time that tells neither where they differ nor how long they are.
fn is_same_secret(left: &[u8], right: &[u8]) -> bool {
    Sha256::digest(left).ct_eq(&Sha256::digest(right)).into()
}
