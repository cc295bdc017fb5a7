//! The methods of authentication, one file each: what to challenge with and whether the answer is right, as functions
//! of what is configured, the time and a nonce.
//!
//! Who does not exist is treated as somebody who does, to the end: [`Accounts::find`] gives a stand-in whose challenge looks
//! like that of a real user, whose answer costs as much to check, and is never right. So neither a message nor the
//! time it takes tells who exists.

mod answer;
mod bearer;
mod cryptosign;
mod scram;
mod slow;
mod ticket;
mod wampcra;

use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(super) use self::answer::{Answered, Refused, read as read_answer};
pub(super) use self::bearer::{Bearer, Tokens};
pub(super) use self::cryptosign::announced_key;
pub use self::slow::SlowCheck;
use super::Now;
use crate::config::authentication::{PublicKey, ScramDialect};
use crate::config::{self, AuthMethod, User};
use crate::password::hmac;
use crate::wamp::SessionId;
use crate::wamp::codec::rfc_3339;

/// Users of a realm, as a router looks them up.
#[derive(Debug)]
pub(super) struct Accounts {
    users: Vec<Account>,
    by_authid: HashMap<Box<str>, u32, FixedState>,
    by_public_key: HashMap<PublicKey, u32, FixedState>,
    /// Stands in for whoever has a key that nobody has.
    with_key: Option<u32>,
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
    account: u32,
    is_real: bool,
}

/// What a challenge is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) now: Now,
    /// Random, and never used for anything else.
    pub(super) nonce: &'a [u8; 32],
    /// Of the session that is to be.
    pub(super) session: SessionId,
    pub(super) authid: &'a str,
    pub(super) role: &'a str,
    /// HELLO.Details.authextra
    pub(super) extra: &'a Map<String, Value>,
}

impl Facts<'_> {
    fn timestamp(&self) -> String {
        rfc_3339((self.now.wall_us / 1_000_000) as i64, (self.now.wall_us / 1000 % 1000) as u32 * 1_000_000)
            .unwrap_or_default()
    }
}

/// What a challenge has to be answered with.
#[derive(Debug)]
pub(super) enum Proof {
    /// The ticket.
    Ticket,
    /// The HMAC of this text.
    WampCra { challenge: Box<str> },
    /// `AuthMessage` of RFC 5802, and the nonce in it.
    Scram { message: Box<str>, nonce: Box<str> },
    /// A token.
    Token,
    /// Nothing any more: a slow check is under way.
    Checking,
    /// A signature of these bytes.
    Cryptosign { public_key: PublicKey, challenge: [u8; 32] },
}

/// A way to begin.
#[derive(Debug)]
pub(super) struct Begun {
    /// CHALLENGE.Extra, a map in JSON.
    extra: String,
    proof: Proof,
}

/// Why a method cannot begin although the principal has it: something is wrong with HELLO.
pub(super) type Refusal = &'static str;

/// What came of an answer.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is right; `authextra` for WELCOME is a map in JSON, or empty.
    Right { authextra: Box<str> },
    /// It is wrong.
    Wrong,
    /// This will tell.
    Pending(SlowCheck),
}

impl Verdict {
    fn of(is_right: bool) -> Self {
        if is_right { Self::Right { authextra: Box::default() } } else { Self::Wrong }
    }
}

impl Accounts {
    pub(super) fn new(realm: &config::Realm) -> Self {
        let mut stand_in = Sha256::new();
        stand_in.update(realm.name.as_bytes());
        let hasher = FixedState::with_seed(0);
        let mut users = Vec::with_capacity(realm.users.len());
        let mut by_authid = HashMap::with_hasher(hasher.clone());
        let mut by_public_key = HashMap::with_hasher(hasher);
        for user in &realm.users {
            // The configuration has checked that the role is there.
            let Some(role) = realm.roles.iter().position(|role| role.name == user.role) else { continue };
            let place = users.len() as u32;
            by_authid.insert(user.authid.as_str().into(), place);
            by_public_key.extend(user.authorized_keys.iter().map(|key| (*key, place)));
            for secret in user.material() {
                stand_in.update((secret.len() as u64).to_le_bytes());
                stand_in.update(secret);
            }
            users.push(Account { user: user.clone(), role: role as u16 });
        }
        let with_key = by_public_key.values().copied().min();
        Self { users, by_authid, by_public_key, with_key, stand_in_key: stand_in.finalize().into() }
    }

    /// Who has this name, or else announces this key; one who stands in where nobody does. `None` without either,
    /// and where there is no user at all.
    pub(super) fn find(
        &self,
        method: AuthMethod,
        authid: Option<&str>,
        extra: &Map<String, Value>,
    ) -> Option<Principal> {
        let key = if method == AuthMethod::Cryptosign { announced_key(extra) } else { None };
        let known = match (authid, &key) {
            (Some(authid), _) => self.by_authid.get(authid),
            (None, Some(key)) => self.by_public_key.get(key),
            (None, None) => return None,
        };
        // Whoever has a key will do: no name says more.
        let Some(authid) = authid else {
            let account = known.copied().or(self.with_key)?;
            return Some(Principal { account, is_real: known.is_some() });
        };
        if self.users.is_empty() {
            return None;
        }
        // For users too, who need nobody to stand in: it takes its time.
        let number = u64::from_le_bytes(first(black_box(self.stand_in("whom", authid))));
        let account = known.copied().unwrap_or((number % self.users.len() as u64) as u32);
        Some(Principal { account, is_real: known.is_some() })
    }

    pub(super) fn account(&self, principal: Principal) -> &Account {
        &self.users[principal.account as usize]
    }

    /// Bytes that belong to a name for as long as the users stay the same, and that nobody can foretell.
    fn stand_in(&self, purpose: &str, authid: &str) -> [u8; 32] {
        hmac(&hmac(&self.stand_in_key, purpose.as_bytes()), authid.as_bytes())
    }

    /// Whether the configuration names this user, or whoever has this key.
    pub(super) fn names(&self, authid: Option<&str>, key: Option<&PublicKey>) -> bool {
        match authid {
            Some(authid) => self.by_authid.contains_key(authid),
            None => key.is_some_and(|key| self.by_public_key.contains_key(key)),
        }
    }

    /// Begins a method: CHALLENGE.Extra in JSON, and what is to come. `None` where this principal does not have it.
    pub(super) fn begin(
        &self,
        method: AuthMethod,
        principal: Principal,
        facts: &Facts<'_>,
    ) -> Option<Result<(String, Proof), Refusal>> {
        let user = &self.account(principal).user;
        let salting =
            Salting::OfAccounts { accounts: self, authid: facts.authid, is_real: principal.is_real };
        begin(user, salting, method, facts)
    }

    /// Whether an answer is right: AUTHENTICATE.Signature and what is beside it.
    pub(super) fn verify(
        &self,
        principal: Principal,
        proof: &Proof,
        signature: &str,
        extra: &Map<String, Value>,
    ) -> Verdict {
        let verdict = verify_with(&self.account(principal).user, proof, signature, extra);
        // Only now: a stand-in must cost what a user does.
        match verdict {
            Verdict::Right { .. } if !principal.is_real => Verdict::Wrong,
            verdict => verdict,
        }
    }
}

impl Principal {
    /// Whether this is a user, and nobody who stands in.
    pub(super) fn is_real(self) -> bool {
        self.is_real
    }
}

/// Begins a method for a user whom an authenticator knows. `None` where it is not one with a challenge.
pub(super) fn begin_with(
    user: &User,
    method: AuthMethod,
    facts: &Facts<'_>,
) -> Option<Result<(String, Proof), Refusal>> {
    begin(user, Salting::Own, method, facts)
}

fn begin(
    user: &User,
    salting: Salting<'_>,
    method: AuthMethod,
    facts: &Facts<'_>,
) -> Option<Result<(String, Proof), Refusal>> {
    let begun = match method {
        // Tokens and cookies have their own way, and who shows nothing none.
        AuthMethod::Anonymous | AuthMethod::Jwt | AuthMethod::Cookie => return None,
        AuthMethod::Ticket if user.ticket.is_none() && user.ticket_hash.is_none() => return None,
        AuthMethod::Ticket => Ok(ticket::begin()),
        AuthMethod::WampCra if user.secret.is_none() && user.wampcra.is_none() => return None,
        AuthMethod::WampCra => Ok(wampcra::begin(user, facts, salting)),
        AuthMethod::WampScram | AuthMethod::Scram => {
            let dialect =
                if method == AuthMethod::Scram { ScramDialect::Autobahn } else { ScramDialect::WampScram };
            let keys = user.scram.as_ref().filter(|keys| keys.dialect == dialect)?;
            scram::begin(keys, facts, salting)
        }
        AuthMethod::Cryptosign if user.authorized_keys.is_empty() => return None,
        AuthMethod::Cryptosign => cryptosign::begin(facts),
    };
    Some(begun.map(|Begun { extra, proof }| (extra, proof)))
}

/// Whether the answer of such a user is right.
pub(super) fn verify_with(
    user: &User,
    proof: &Proof,
    signature: &str,
    extra: &Map<String, Value>,
) -> Verdict {
    match proof {
        Proof::Checking | Proof::Token => Verdict::Wrong,
        Proof::Ticket => ticket::verify(user, signature),
        Proof::WampCra { challenge } => Verdict::of(wampcra::is_right(user, challenge, signature)),
        Proof::Scram { message, nonce } => match &user.scram {
            Some(keys) => scram::verify(keys, message, nonce, signature, extra),
            None => Verdict::Wrong,
        },
        Proof::Cryptosign { public_key, challenge } => {
            let is_right = cryptosign::is_right(public_key, challenge, signature);
            Verdict::of(is_right & user.authorized_keys.contains(public_key))
        }
    }
}

/// Whose salt a challenge has.
#[derive(Clone, Copy, Debug)]
enum Salting<'a> {
    /// The user's.
    Own,
    /// The user's, or for somebody of this name who is none one that looks like it. Both take the same work.
    OfAccounts { accounts: &'a Accounts, authid: &'a str, is_real: bool },
}

impl Salting<'_> {
    /// A salt of text, like this one: as long, of the same characters.
    fn text(self, own: &str) -> String {
        let Self::OfAccounts { accounts, authid, is_real } = self else { return own.to_owned() };
        let alphabet: Vec<char> = match own.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            true => ('0'..='9').chain('a'..='f').collect(),
            false => ('a'..='z').chain('A'..='Z').chain('0'..='9').collect(),
        };
        let bytes = accounts.salt_bytes(authid, own.chars().count());
        let stand_in = bytes.into_iter().map(|byte| alphabet[usize::from(byte) % alphabet.len()]).collect();
        if is_real { own.to_owned() } else { stand_in }
    }

    /// A salt in base64, like this one: of as many bytes.
    fn base64(self, own: &str) -> String {
        let Self::OfAccounts { accounts, authid, is_real } = self else { return own.to_owned() };
        let length = STANDARD.decode(own).map_or(16, |bytes| bytes.len());
        let stand_in = STANDARD.encode(accounts.salt_bytes(authid, length));
        if is_real { own.to_owned() } else { stand_in }
    }
}

impl Accounts {
    fn salt_bytes(&self, authid: &str, length: usize) -> Vec<u8> {
        let blocks = 0..length.div_ceil(32);
        let mut bytes: Vec<u8> =
            blocks.flat_map(|block| self.stand_in(&format!("salt {block}"), authid)).collect();
        bytes.truncate(length);
        black_box(bytes)
    }
}

/// Binding to a channel needs TLS, which the router does not end.
fn refuse_channel_binding(extra: &Map<String, Value>) -> Result<(), Refusal> {
    match extra.get("channel_binding") {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err("HELLO.Details.authextra.channel_binding: there is none here, leave it out"),
    }
}

fn first<const COUNT: usize>(bytes: [u8; 32]) -> [u8; COUNT] {
    let mut some = [0; COUNT];
    some.copy_from_slice(&bytes[..COUNT]);
    some
}

/// Whether two secrets are the same, in a time that tells neither where they differ nor how long they are.
fn is_same_secret(left: &[u8], right: &[u8]) -> bool {
    #[cfg(test)]
    crate::work::count(|work| work.secrets += 1);
    Sha256::digest(left).as_slice().ct_eq(Sha256::digest(right).as_slice()).into()
}

#[cfg(test)]
mod tests;
