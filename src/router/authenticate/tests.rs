//! Those who stand in for users that do not exist.

use serde_json::json;

use super::*;
use crate::config::tests::with_users;

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
