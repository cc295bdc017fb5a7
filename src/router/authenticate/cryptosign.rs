//! `cryptosign` (advanced profile, "Cryptosign-based Authentication"): the client signs random bytes with its private key.
//! Checking one signature costs a core about as much as a large message.

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::{Begun, Facts, Proof, Refusal};
use crate::config::authentication::{PublicKey, bytes_of_hex, hex};

/// The key that the client announces.
pub(in super::super) fn announced_key(extra: &Map<String, Value>) -> Option<PublicKey> {
    extra.get("pubkey").and_then(Value::as_str).and_then(bytes_of_hex)
}

pub(super) fn begin(facts: &Facts<'_>) -> Result<Begun, Refusal> {
    let Some(public_key) = announced_key(facts.extra) else {
        return Err("HELLO.Details.authextra.pubkey must be the public key in 64 hexadecimal digits");
    };
    super::refuse_channel_binding(facts.extra)?;
    let challenge = *facts.nonce;
    let extra = json!({ "challenge": hex(&challenge), "channel_binding": null });
    Ok(Begun { extra: extra.to_string(), proof: Proof::Cryptosign { public_key, challenge } })
}

/// The signature and what was signed, 64 and 32 bytes.
pub(super) fn is_right(public_key: &PublicKey, challenge: &[u8; 32], signature: &str) -> bool {
    let Some(bytes) = bytes_of_hex::<96>(signature) else { return false };
    let (signature, signed) = bytes.split_at(64);
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    let Ok(key) = VerifyingKey::from_bytes(public_key) else { return false };
    #[cfg(test)]
    crate::work::count(|work| work.signatures += 1);
    // Strict: a weak key would be satisfied by anything.
    let is_signed = key.verify_strict(signed, &signature).is_ok();
    let is_of_this_challenge: bool = signed.ct_eq(challenge).into();
    is_signed & is_of_this_challenge
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    /// Private key, challenge and signature, as the specification gives them.
    const VECTORS: [(&str, &str, &str); 3] = [
        (
            "4d57d97a68f555696620a6d849c0ce582568518d729eb753dc7c732de2804510",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "b32675b221f08593213737bef8240e7c15228b07028e19595294678c90d11c0cae80a357331bfc5cc9fb71081464e6e75013517c2cf067ad566a6b7b728e5d03ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ),
        (
            "d511fe78e23934b3dadb52fcd022974b80bd92bccc7c5cf404e46cc0a8a2f5cd",
            "b26c1f87c13fc1da14997f1b5a71995dff8fbe0a62fae8473c7bdbd05bfb607d",
            "d4209ad10d5aff6bfbc009d7e924795de138a63515efc7afc6b01b7fe5201372190374886a70207b042294af5bd64ce725cd8dceb344e6d11c09d1aaaf4d660fb26c1f87c13fc1da14997f1b5a71995dff8fbe0a62fae8473c7bdbd05bfb607d",
        ),
        (
            "6e1fde9cf9e2359a87420b65a87dc0c66136e66945196ba2475990d8a0c3a25b",
            "b05e6b8ad4d69abf74aa3be3c0ee40ae07d66e1895b9ab09285a2f1192d562d2",
            "7beb282184baadd08f166f16dd683b39cab53816ed81e6955def951cb2ddad1ec184e206746fd82bda075af03711d3d5658fc84a76196b0fa8d1ebc92ef9f30bb05e6b8ad4d69abf74aa3be3c0ee40ae07d66e1895b9ab09285a2f1192d562d2",
        ),
    ];

    #[test]
    fn the_vectors_of_the_specification() {
        for (private, challenge, signature) in VECTORS {
            let key = SigningKey::from_bytes(&bytes_of_hex(private).unwrap()).verifying_key().to_bytes();
            let challenge: [u8; 32] = bytes_of_hex(challenge).unwrap();
            assert!(is_right(&key, &challenge, signature));
            let mut other = challenge;
            other[31] ^= 1;
            assert!(!is_right(&key, &other, signature), "of another challenge");
            for place in [0, 63, 100, 127, 191] {
                let mut wrong = signature.as_bytes().to_vec();
                wrong[place] = if wrong[place] == b'0' { b'1' } else { b'0' };
                assert!(!is_right(&key, &challenge, std::str::from_utf8(&wrong).unwrap()), "{place}");
            }
            assert!(!is_right(&key, &challenge, &signature[..128]) && !is_right(&key, &challenge, ""));
            assert!(!is_right(&[0; 32], &challenge, signature));
        }
    }
}
