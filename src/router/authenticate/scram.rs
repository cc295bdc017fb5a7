//! `wamp-scram` (advanced profile, "Salted Challenge Response Authentication"): the router knows a key by which it recognizes
//! the client's, and one by which it shows that it is itself. The client alone pays for the slow hash.
//!
//! Autobahn calls it `scram`, with small differences: another word for Argon2, no channel binding in what is signed,
//! another name for the router's signature, and the salted password in base64 where the specification has bytes. A
//! user's keys are for one of the two.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Begun, Facts, Proof, Refusal, Salting, Verdict, first};
use crate::config::authentication::{Kdf, ScramDialect, ScramKeys};
use crate::password::hmac;

/// A client's nonce is no longer than this, in characters.
const NONCE_MAX: usize = 256;

/// How many bytes the router adds to the client's nonce.
const NONCE_BYTES: usize = 16;

pub(super) fn begin(keys: &ScramKeys, facts: &Facts<'_>, salting: Salting<'_>) -> Result<Begun, Refusal> {
    let nonce = facts.extra.get("nonce").and_then(Value::as_str).unwrap_or_default();
    if nonce.is_empty() || nonce.len() > NONCE_MAX || STANDARD.decode(nonce).is_err() {
        return Err("HELLO.Details.authextra.nonce must be a few random bytes in base64");
    }
    super::refuse_channel_binding(facts.extra)?;
    let server_nonce = format!("{nonce}{}", STANDARD.encode(first::<NONCE_BYTES>(*facts.nonce)));
    let salt = salting.base64(&keys.salt);
    let iterations = keys.iterations;
    let (kdf, binding) = match (keys.dialect, keys.kdf) {
        (_, Kdf::Pbkdf2) => ("pbkdf2", "biws"),
        (ScramDialect::WampScram, Kdf::Argon2id13) => ("argon2id13", "biws"),
        (ScramDialect::Autobahn, Kdf::Argon2id13) => ("argon2id-13", ""),
    };
    let mut extra = json!({ "nonce": server_nonce, "salt": salt, "kdf": kdf, "iterations": iterations });
    if keys.dialect == ScramDialect::WampScram || keys.memory.is_some() {
        extra["memory"] = keys.memory.into();
    }
    // Of "n,," and nothing (RFC 5802, section 7): "biws".
    let authid = match keys.dialect {
        ScramDialect::WampScram => escaped(facts.authid),
        ScramDialect::Autobahn => facts.authid.to_owned(),
    };
    let message =
        format!("n={authid},r={nonce},r={server_nonce},s={salt},i={iterations},c={binding},r={server_nonce}");
    Ok(Begun {
        extra: extra.to_string(),
        proof: Proof::Scram { message: message.into(), nonce: server_nonce.into() },
    })
}

/// Commas and equals signs separate attributes (RFC 5802, section 5.1).
fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

pub(super) fn verify(
    keys: &ScramKeys,
    message: &str,
    nonce: &str,
    signature: &str,
    extra: &Map<String, Value>,
) -> Verdict {
    let (Some(stored_key), Some(server_key)) = (key(keys.stored_key.as_ref()), key(keys.server_key.as_ref()))
    else {
        return Verdict::Wrong;
    };
    // Autobahn does not send it back.
    let nonce_is_right = match extra.get("nonce") {
        Some(sent) => sent.as_str() == Some(nonce),
        None => keys.dialect == ScramDialect::Autobahn,
    };
    let is_bound = ["channel_binding", "cbind_data"]
        .iter()
        .any(|key| extra.get(*key).is_some_and(|value| !value.is_null()));
    let proof: [u8; 32] =
        STANDARD.decode(signature).ok().and_then(|proof| proof.try_into().ok()).unwrap_or_default();
    let client_signature = hmac(&stored_key, message.as_bytes());
    let mut client_key = client_signature;
    for (byte, proof) in client_key.iter_mut().zip(proof) {
        *byte ^= proof;
    }
    let is_right: bool = Sha256::digest(client_key).as_slice().ct_eq(&stored_key).into();
    if !is_right || !nonce_is_right || is_bound {
        return Verdict::Wrong;
    }
    let verifier = STANDARD.encode(hmac(&server_key, message.as_bytes()));
    let authextra = match keys.dialect {
        ScramDialect::WampScram => json!({ "verifier": verifier }),
        ScramDialect::Autobahn => json!({ "scram_server_signature": verifier }),
    };
    Verdict::Right { authextra: authextra.to_string().into() }
}

fn key(secret: Option<&crate::config::Secret>) -> Option<[u8; 32]> {
    STANDARD.decode(secret?.expose()).ok()?.try_into().ok()
}
