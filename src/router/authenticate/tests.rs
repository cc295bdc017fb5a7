//! Those who stand in for users that do not exist.

use serde_json::json;

use super::*;
use crate::config::tests::with_users;
use crate::work::{self, Work};

const USERS: &str = r#"
[[realm.user]]
authid = "plain"
role = "anonymous"
secret = "secret"
[[realm.user]]
authid = "salted"
role = "anonymous"
wampcra = { key = "MTIzNA==", salt = "0123456789abcdef", iterations = 1000 }
[[realm.user]]
authid = "scram"
role = "anonymous"
[realm.user.scram]
kdf = "argon2id13"
iterations = 2
memory = 64
salt = "MDEyMzQ1Njc4OWFi"
stored_key = "MDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFiMDEyMzQ1Njc="
server_key = "MDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFiMDEyMzQ1Njc="
"#;

fn accounts(users: &str) -> Accounts {
    Accounts::new(&with_users(users).realms[0])
}

/// What somebody of this name is challenged with, by whatever method works first; nonces are left out.
fn challenge(accounts: &Accounts, authid: &str) -> (AuthMethod, Value) {
    let extra = json!({ "nonce": "MTIzNA==" });
    let extra = extra.as_object().unwrap();
    for method in AuthMethod::ALL {
        let Some(principal) = accounts.find(*method, Some(authid), extra) else { continue };
        let facts = Facts {
            now: Now::default(),
            nonce: &[7; 32],
            session: SessionId(1),
            authid,
            role: "anonymous",
            extra,
        };
        if let Some(begun) = accounts.begin(*method, principal, &facts) {
            let mut extra: Value = serde_json::from_str(&begun.unwrap().0).unwrap();
            extra.as_object_mut().unwrap().remove("challenge");
            return (*method, extra);
        }
    }
    panic!("{authid} has no method");
}

#[test]
fn nobody_looks_like_somebody() {
    let accounts = accounts(USERS);
    let mut seen = [0; 3];
    for number in 0..300 {
        let name = format!("nobody-{number}");
        assert!(!accounts.find(AuthMethod::WampCra, Some(&name), &Map::new()).unwrap().is_real);
        let (method, extra) = challenge(&accounts, &name);
        assert_eq!(challenge(&accounts, &name), (method, extra.clone()), "it is the same every time");
        let kind = ["plain", "salted", "scram"].iter().position(|user| {
            let (own_method, own) = challenge(&accounts, user);
            let (Some(own), Some(extra)) = (own.as_object(), extra.as_object()) else { return false };
            own_method == method
                && own.iter().all(|(key, value)| {
                    let Some(other) = extra.get(key) else { return false };
                    match key.as_str() {
                        "salt" => {
                            other != value && other.as_str().map(str::len) == value.as_str().map(str::len)
                        }
                        _ => other == value,
                    }
                })
                && own.len() == extra.len()
        });
        seen[kind.unwrap_or_else(|| panic!("{method:?} {extra} is like nobody's"))] += 1;
    }
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}

#[test]
fn stand_ins_change_with_the_users_alone() {
    let (first, second) = (accounts(USERS), accounts(USERS));
    let third = accounts(&USERS.replace("secret = \"secret\"", "secret = \"another\""));
    let of = |accounts: &Accounts| {
        (0..20).map(|number| challenge(accounts, &number.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(of(&first), of(&second));
    assert_ne!(of(&first), of(&third));
}

#[test]
fn no_answer_of_nobody_is_right() {
    // With one user its stand-ins share the very secret.
    let accounts = accounts("[[realm.user]]\nauthid = \"joe\"\nrole = \"anonymous\"\nticket = \"secret\"\n");
    for (authid, expected) in [("joe", true), ("nobody", false)] {
        let principal = accounts.find(AuthMethod::Ticket, Some(authid), &Map::new()).unwrap();
        let verdict = accounts.verify(principal, &Proof::Ticket, "secret", &Map::new());
        assert_eq!(matches!(verdict, Verdict::Right { .. }), expected);
    }
}

/// Users of every kind that there is, and the hash of "pencil".
const EVERY_KIND: &str = r#"
[[realm.user]]
authid = "ticket"
role = "anonymous"
ticket = "pencil"
[[realm.user]]
authid = "hashed"
role = "anonymous"
ticket_hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$7ql1KsnijfLzvp6JUpZXpLKv+/juL8r/6WnKu/acC6c"
[[realm.user]]
authid = "slow"
role = "anonymous"
ticket_hash = "$pbkdf2-sha256$i=10$c2FsdHNhbHQ$rveQwDaAL0+5KDA9lIejzzp95dPSbe0NQYQfrdRCfT0"
[[realm.user]]
authid = "plain"
role = "anonymous"
secret = "secret"
[[realm.user]]
authid = "salted"
role = "anonymous"
wampcra = { key = "MTIzNA==", salt = "a salt that is longer than one block of thirty-two bytes", iterations = 1000 }
[[realm.user]]
authid = "scram"
role = "anonymous"
[realm.user.scram]
kdf = "pbkdf2"
iterations = 2
salt = "MDEyMzQ1Njc4OWFi"
stored_key = "MDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFiMDEyMzQ1Njc="
server_key = "MDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFiMDEyMzQ1Njc="
[[realm.user]]
authid = "autobahn"
role = "anonymous"
[realm.user.scram]
dialect = "scram"
kdf = "argon2id13"
iterations = 2
memory = 64
salt = "MDEyMzQ1Njc4OWFi"
stored_key = "MDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFiMDEyMzQ1Njc="
server_key = "MDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFiMDEyMzQ1Njc="
[[realm.user]]
authid = "key"
role = "anonymous"
authorized_keys = ["545efb0a2192db8d43f118e9bf9aee081466e1ef36c708b96ee6f62dddad9122"]
"#;

/// A whole login with a wrong answer: which user's it was, or is like, and what was computed until CHALLENGE and after it.
/// `None` where the method is none of his.
fn wrong_login(
    accounts: &Accounts,
    method: AuthMethod,
    authid: Option<&str>,
    pubkey: &str,
) -> (u32, Option<[Work; 2]>) {
    let extra = json!({ "nonce": "MTIzNA==", "pubkey": pubkey });
    let extra = extra.as_object().unwrap();
    work::take();
    let principal = accounts.find(method, authid, extra).unwrap();
    let name = authid.unwrap_or("key");
    let facts = Facts {
        now: Now::default(),
        nonce: &[7; 32],
        session: SessionId(1),
        authid: name,
        role: "anonymous",
        extra,
    };
    let Some(begun) = accounts.begin(method, principal, &facts) else { return (principal.account, None) };
    let (_, proof) = begun.unwrap();
    let to_challenge = work::take();
    // As long as a right one of this method, so that nothing ends early.
    let answer = match &proof {
        Proof::Cryptosign { challenge, .. } => {
            format!("{}{}", "01".repeat(64), config::authentication::hex(challenge))
        }
        _ => STANDARD.encode([1; 32]),
    };
    let beside = match &proof {
        Proof::Scram { nonce, .. } => json!({ "nonce": nonce }),
        _ => json!({}),
    };
    match accounts.verify(principal, &proof, &answer, beside.as_object().unwrap()) {
        Verdict::Wrong => {}
        Verdict::Pending(check) => assert!(!check.run(), "{name} is let in"),
        Verdict::Right { .. } => panic!("{name} is let in"),
    }
    (principal.account, Some([to_challenge, work::take()]))
}

/// Row 22 of the list of what must not hurt: what is computed tells no more than what is answered. Ten thousand logins.
#[test]
fn nobody_costs_what_somebody_does() {
    const KEY: &str = "545efb0a2192db8d43f118e9bf9aee081466e1ef36c708b96ee6f62dddad9122";
    const NOBODYS: &str = "1adfc8bfe1d35616e64dffbd900096f23b066f914c8c2ffbb66f6075b4ac0f5b";
    let accounts = accounts(EVERY_KIND);
    let users: Vec<String> = accounts.users.iter().map(|account| account.user.authid.clone()).collect();
    let methods: Vec<_> = AuthMethod::ALL
        .iter()
        .copied()
        .filter(|method| {
            users.iter().any(|user| wrong_login(&accounts, *method, Some(user), KEY).1.is_some())
        })
        .collect();
    assert_eq!(methods.len(), 5, "ticket, wampcra, two kinds of SCRAM, cryptosign");
    let mut met = std::collections::BTreeSet::new();
    for method in methods {
        let own: Vec<_> =
            users.iter().map(|user| wrong_login(&accounts, method, Some(user), NOBODYS)).collect();
        for number in 0..2_000 {
            let name = format!("nobody-{number}");
            let (account, cost) = wrong_login(&accounts, method, Some(&name), NOBODYS);
            assert_eq!(
                (account, cost),
                own[account as usize],
                "{method:?} of {name}, as {}",
                users[account as usize]
            );
            met.insert((method, account));
            let Some([_, answer]) = cost else { continue };
            // Somebody has looked at the answer.
            let done = match method {
                AuthMethod::Ticket => answer.secrets + answer.passwords,
                AuthMethod::WampCra | AuthMethod::WampScram | AuthMethod::Scram => answer.hmacs,
                _ => answer.signatures,
            };
            assert!(done > 0, "{method:?} of {name}: {answer:?}");
        }
    }
    assert_eq!(met.len(), 5 * users.len(), "somebody stood in for every user, whatever the method");
    // Without a name the key says who it is.
    let [known, unknown] =
        [KEY, NOBODYS].map(|key| wrong_login(&accounts, AuthMethod::Cryptosign, None, key));
    assert_eq!(known, unknown);
}
