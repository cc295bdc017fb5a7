//! Tokens: their keys change while the router runs, and databases know what they claim.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};

use crate::harness::{Client, Folder, Start, wait_until};

/// Connections of one look: whatever core each of them comes to.
const LOGINS: usize = 8;

/// A token of joe's that is good until 2100.
fn token(key: &SigningKey) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!(
        "{}.{}",
        part(r#"{"alg":"EdDSA"}"#),
        part(r#"{"sub":"joe","role":"backend","exp":4102444800}"#)
    );
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()))
}

/// As a service that rotates its keys would: nobody ever reads half of it.
fn write_keys(path: &Path, key: &SigningKey) {
    let point = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
    replace(path, &format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{point}"}}]}}"#));
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

/// What a login with this token is answered.
fn log_in(address: SocketAddr, token: &str) -> (Client, String) {
    let mut client = Client::connect(address).unwrap();
    let hello = r#"[1,"realm1",{"roles":{"caller":{}},"authmethods":["jwt"]}]"#;
    assert!(client.ask(hello).starts_with("[4,"));
    let answer = client.ask(&format!(r#"[5,"{token}",{{}}]"#));
    (client, answer)
}

fn are_admitted(address: SocketAddr, token: &str) -> bool {
    (0..LOGINS).all(|_| log_in(address, token).1.starts_with("[2,"))
}

fn are_refused(address: SocketAddr, token: &str) -> bool {
    (0..LOGINS).all(|_| log_in(address, token).1.contains("wamp.error.authentication_denied"))
}

#[test]
fn new_keys_are_taken_while_the_router_runs() {
    let folder = Folder::new();
    let path = folder.path().join("jwks.json");
    let [old, new] = [[1; 32], [2; 32]].map(|seed| SigningKey::from_bytes(&seed));
    write_keys(&path, &old);
    let router = Start::new(&format!(
        "[[listener]]\nport = 0\nrole = \"backend\"\n[[realm]]\nname = \"realm1\"\n[[realm.role]]\nname = \"backend\"\n\
         [realm.token]\nkeys_file = \"{}\"\n",
        path.display()
    ))
    .router();
    let address = router.address();
    let (old, new) = (token(&old), (token(&new), new));
    assert!(are_admitted(address, &old) && are_refused(address, &new.0));
    let (mut session, _) = log_in(address, &old);
    write_keys(&path, &new.1);
    wait_until("the new key is taken", || are_admitted(address, &new.0));
    wait_until("the old key is taken no more", || are_refused(address, &old));
    // Who is there stays: a session ends with its token.
    assert!(session.ask(r#"[48,1,{},"com.nobody"]"#).contains("wamp.error.not_authorized"));
    // What makes no sense changes nothing, and what comes behind it is taken again.
    replace(&path, "no keys");
    router.wait_for_log("the keys of tokens stay as they were");
    assert!(are_admitted(address, &new.0));
    let third = SigningKey::from_bytes(&[3; 32]);
    write_keys(&path, &third);
    let third = token(&third);
    wait_until("a third key is taken", || are_admitted(address, &third));
    wait_until("the second is taken no more", || are_refused(address, &new.0));
    router.stop();
}

#[test]
fn claims_of_a_token_are_known_inside_a_database() {
    let folder = Folder::new();
    let path = folder.path().join("jwks.json");
    let key = SigningKey::from_bytes(&[1; 32]);
    write_keys(&path, &key);
    let router = Start::new(&format!(
        r#"
[[listener]]
port = 0
role = "backend"
[[realm]]
name = "realm1"
[[realm.role]]
name = "backend"
[[realm.role.permission]]
uri = "com.who"
allow = ["call"]
[realm.token]
keys_file = "{}"
claims = ["role"]
[[database]]
name = "who"
type = "sqlite"
realm = "realm1"
path = "{}"
[[database.procedure]]
uri = "com.who"
sql = "select wamp('authid') || ' ' || wamp('authmethod') || ' ' || wamp('authextra')"
result = "value"
"#,
        path.display(),
        folder.path().join("who.sqlite3").display()
    ))
    .router();
    let (mut session, welcome) = log_in(router.address(), &token(&key));
    assert!(welcome.starts_with("[2,"), "{welcome}");
    let mut number = 0;
    wait_until("the database is there", || {
        number += 1;
        let answer = session.ask(&format!("[48,{number},{{}},\"com.who\"]"));
        answer == format!(r#"[50,{number},{{}},["joe jwt {{\"role\":\"backend\"}}"]]"#)
    });
    router.stop();
}
