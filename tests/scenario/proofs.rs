//! What clients answer to CHALLENGE: `A proves …`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crosspoint::config::authentication::{Kdf, ScramDialect, bytes_of_hex, hex};
use crosspoint::password::{self, ScramCosts, hmac, salted_password};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

/// AUTHENTICATE for the last CHALLENGE: a method and what it needs.
pub(crate) fn prove(words: &[String], challenge: &Value) -> Result<Value, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let extra = &challenge[2];
    let text = |key: &str| extra[key].as_str().ok_or_else(|| format!("no `{key}` in {challenge}"));
    match words[..] {
        ["wampcra", secret] => {
            let key = match extra.get("salt") {
                None => secret.to_owned(),
                Some(salt) => {
                    let iterations = extra["iterations"].as_u64().ok_or("no iterations")?;
                    let mut key = vec![0; extra["keylen"].as_u64().ok_or("no keylen")? as usize];
                    let salt = salt.as_str().ok_or("no salt")?;
                    password::pbkdf2(secret.as_bytes(), salt.as_bytes(), iterations as u32, &mut key);
                    STANDARD.encode(key)
                }
            };
            let signature = hmac(key.as_bytes(), text("challenge")?.as_bytes());
            Ok(json!([5, STANDARD.encode(signature), {}]))
        }
        [dialect @ ("wamp-scram" | "scram"), authid, secret, nonce] => {
            let (kdf, dialect) = match (text("kdf")?, dialect) {
                ("pbkdf2", "wamp-scram") => (Kdf::Pbkdf2, ScramDialect::WampScram),
                ("argon2id13", "wamp-scram") => (Kdf::Argon2id13, ScramDialect::WampScram),
                ("argon2id-13", "scram") => (Kdf::Argon2id13, ScramDialect::Autobahn),
                (kdf, dialect) => return Err(format!("{dialect} has no {kdf}")),
            };
            let iterations = extra["iterations"].as_u64().ok_or("no iterations")? as u32;
            let memory_kib = extra["memory"].as_u64().unwrap_or_default() as u32;
            let salt = text("salt")?;
            let salted = salted_password(
                dialect,
                ScramCosts { kdf, iterations, memory_kib },
                secret,
                &STANDARD.decode(salt).map_err(|error| error.to_string())?,
            )
            .map_err(|error| error.to_string())?;
            let (stored_key, _) = password::scram_keys(&salted);
            let server_nonce = text("nonce")?;
            let binding = if dialect == ScramDialect::WampScram { "biws" } else { "" };
            let authid = match dialect {
                ScramDialect::WampScram => authid.replace('=', "=3D").replace(',', "=2C"),
                ScramDialect::Autobahn => authid.to_owned(),
            };
            let message = format!(
                "n={authid},r={nonce},r={server_nonce},s={salt},i={iterations},c={binding},r={server_nonce}"
            );
            let signature = hmac(&stored_key, message.as_bytes());
            let key = hmac(&salted, b"Client Key");
            let proof: Vec<u8> = key.iter().zip(signature).map(|(key, other)| key ^ other).collect();
            let extra = match dialect {
                ScramDialect::WampScram => {
                    json!({ "nonce": server_nonce, "channel_binding": null, "cbind_data": null })
                }
                ScramDialect::Autobahn => json!({}),
            };
            Ok(json!([5, STANDARD.encode(proof), extra]))
        }
        ["cryptosign", private_key] => {
            let key = SigningKey::from_bytes(&bytes_of_hex(private_key).ok_or("no private key")?);
            let signed: [u8; 32] = bytes_of_hex(text("challenge")?).ok_or("no challenge")?;
            let signature = key.sign(&signed).to_bytes();
            Ok(json!([5, format!("{}{}", hex(&signature), hex(&signed)), {}]))
        }
        _ => Err(format!("nobody can prove {words:?}")),
    }
}
