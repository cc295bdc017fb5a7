//! `wampcra` (advanced profile, "Challenge Response Authentication"): HMAC over a challenge, with a secret that both sides
//! know, or a key that PBKDF2 makes of it on the client's side. The router needs no slow hash for either.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use subtle::ConstantTimeEq;

use super::{Begun, Facts, Proof, Salting};
use crate::config::User;
use crate::password::hmac;

pub(super) fn begin(user: &User, facts: &Facts<'_>, salting: Salting<'_>) -> Begun {
    let challenge = json!({
        "authid": facts.authid,
        "authrole": facts.role,
        "authmethod": "wampcra",
        "authprovider": "static",
        "nonce": STANDARD.encode(facts.nonce),
        "timestamp": facts.timestamp(),
        "session": facts.session.0,
    });
    let challenge = challenge.to_string();
    let mut extra = json!({ "challenge": challenge });
    if let Some(own) = &user.wampcra {
        let length =
            own.key.as_ref().and_then(|key| STANDARD.decode(key.expose()).ok()).map_or(32, |key| key.len());
        extra["salt"] = salting.text(&own.salt).into();
        extra["iterations"] = own.iterations.into();
        extra["keylen"] = length.into();
    }
    Begun { extra: extra.to_string(), proof: Proof::WampCra { challenge: challenge.into() } }
}

pub(super) fn is_right(user: &User, challenge: &str, signature: &str) -> bool {
    // A derived key is used as its base64 says it, not as the bytes that it stands for: so do all clients.
    let key = user.secret.as_ref().or_else(|| user.wampcra.as_ref()?.key.as_ref());
    let Some(key) = key else { return false };
    let expected = STANDARD.encode(hmac(key.expose().as_bytes(), challenge.as_bytes()));
    expected.as_bytes().ct_eq(signature.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_of_an_independent_implementation() {
        // python3 -c "import hmac,base64;print(base64.b64encode(hmac.new(b'secret',b'challenge','sha256').digest()))"
        let signature = "oeUF6Wxqoezggrue+wbIDxKRPSF6esKwizR2MHh9HaA=";
        assert_eq!(STANDARD.encode(hmac(b"secret", b"challenge")), signature);
    }
}
