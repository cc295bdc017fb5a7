//! JSON Web Tokens (RFC 7519): reading them, the keys that they are signed with, and what they claim. Pure.
//!
//! The key decides about the algorithm, never the token: one that names another algorithm than its key has is not signed at
//! all. There is no `none`.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::DecodePublicKey;
use rsa::BoxedUint;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::password::hmac;

/// A token is no longer than this, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a token says of its bearer beside is no longer than this, in bytes of JSON.
pub const EXTRA_BYTES_MAX: usize = 4096;

/// What RFC 7519, section 4.1, has a use for.
const REGISTERED_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

/// A set of keys has no more than so many.
const KEYS_MAX: usize = 100;

/// Of an RSA key, in bits.
const MODULUS_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

/// What tokens may be signed with.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    /// `kid`
    id: Option<Box<str>>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Secret(Box<[u8]>),
    Rsa(Box<rsa::PublicKey>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.material.algorithm())).finish()
    }
}

impl Material {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::Hs256,
            Self::Rsa(_) => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        use rsa::signature::Verifier;
        match self {
            Self::Secret(secret) => hmac(secret, text).ct_eq(signature).into(),
            Self::Rsa(key) => {
                let scheme = rsa::Pkcs1v15Sign::new::<Sha256>();
                key.verify(scheme, &Sha256::digest(text), signature).is_ok()
            }
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signed| key.verify(text, &signed).is_ok()),
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signed| key.verify_strict(text, &signed).is_ok()),
        }
    }
}

impl Keys {
    /// Reads public keys: one in PEM, or a set as JSON (RFC 7517). Of a set, what the router does not know is left out.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.trim_start().starts_with("-----BEGIN") {
            let material = pem(text)
                .ok_or("expected a public key of RSA, P-256 or Ed25519 in PEM (`BEGIN PUBLIC KEY`)")?;
            return Ok(Self(vec![Key { id: None, material }]));
        }
        let set: Value = serde_json::from_str(text)
            .map_err(|_| "expected a public key in PEM, or a set of keys in JSON")?;
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Err("the set of keys has no list `keys`");
        };
        let keys: Vec<Key> = keys.iter().take(KEYS_MAX).filter_map(key_of_set).collect();
        if keys.is_empty() {
            return Err("the set has no key that the router knows: RS256, ES256 and Ed25519 are");
        }
        Ok(Self(keys))
    }

    /// These, and a secret.
    #[must_use]
    pub fn with_secret(mut self, secret: &str) -> Self {
        self.0.push(Key { id: None, material: Material::Secret(secret.as_bytes().into()) });
        self
    }
}

fn pem(text: &str) -> Option<Material> {
    let text = text.trim();
    if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_pem(text) {
        return Some(Material::Ed25519(Box::new(key)));
    }
    if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_pem(text) {
        return Some(Material::P256(Box::new(key)));
    }
    let key = rsa::PublicKey::from_public_key_pem(text).ok()?;
    rsa_material(key)
}

fn rsa_material(key: rsa::PublicKey) -> Option<Material> {
    use rsa::traits::PublicKeyParts;
    MODULUS_BITS.contains(&key.n().bit_width_vartime()).then(|| Material::Rsa(Box::new(key)))
}

fn key_of_set(key: &Value) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let number = |name: &str| Some(BoxedUint::from_be_slice_vartime(&bytes(name)?));
            rsa_material(rsa::PublicKey::new(number("n")?, number("e")?).ok()?)?
        }
        ("EC", Some("P-256")) => {
            let mut point = vec![4];
            point.extend(bytes("x")?);
            point.extend(bytes("y")?);
            Material::P256(Box::new(p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok()?))
        }
        ("OKP", Some("Ed25519")) => {
            let point = bytes("x")?.try_into().ok()?;
            Material::Ed25519(Box::new(ed25519_dalek::VerifyingKey::from_bytes(&point).ok()?))
        }
        _ => return None,
    };
    let algorithm = text("alg");
    let is_its_own = algorithm.is_none_or(|word| algorithm_of(word) == Some(material.algorithm()));
    is_its_own.then(|| Key { id: text("kid").map(Box::from), material })
}

fn algorithm_of(word: &str) -> Option<Algorithm> {
    match word {
        "HS256" => Some(Algorithm::Hs256),
        "RS256" => Some(Algorithm::Rs256),
        "ES256" => Some(Algorithm::Es256),
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDsa),
        _ => None,
    }
}

/// A token that somebody showed. What it claims is worth nothing until its signature was checked.
#[derive(Clone)]
pub struct Token {
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
    signed: Box<[u8]>,
    signature: Box<[u8]>,
    claims: Map<String, Value>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Token {
    /// Reads one; `None` where the text is no token, or one that is signed in a way that nobody here checks.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?) {
            Ok(Value::Object(map)) => Some(map),
            _ => None,
        };
        let header = object(header)?;
        // What must be understood and is not (RFC 7515, section 4.1.11).
        if header.contains_key("crit") {
            return None;
        }
        Some(Self {
            algorithm: algorithm_of(header.get("alg")?.as_str()?)?,
            key_id: header.get("kid").and_then(Value::as_str).map(Box::from),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?.into(),
            claims: object(claims)?,
            signed: signed.as_bytes().into(),
        })
    }

    /// Whether checking the signature takes too long for a core.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        matches!(self.algorithm, Algorithm::Rs256 | Algorithm::Es256)
    }

    /// Whether one of the keys has signed it.
    #[must_use]
    pub fn is_signed(&self, keys: &Keys) -> bool {
        let is_meant = |key: &&Key| match (&self.key_id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        keys.0
            .iter()
            .filter(is_meant)
            .filter(|key| key.material.algorithm() == self.algorithm)
            .any(|key| key.material.has_signed(&self.signed, &self.signature))
    }

    /// What it claims, if that is what the rules ask for at this time.
    #[must_use]
    pub fn claims(&self, rules: &Rules, wall_us: u64) -> Option<Claims> {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str);
        let seconds = |name: &str| self.claims.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
        let now = wall_us as f64 / 1e6;
        let leeway = rules.leeway_us as f64 / 1e6;
        let expires = seconds("exp")?;
        // A comparison with what is no number is never true.
        let is_of_now = now < expires + leeway && seconds("nbf").is_none_or(|begins| begins <= now + leeway);
        let is_of = |claim: &Value, wanted: &str| match claim {
            Value::String(text) => text == wanted,
            Value::Array(list) => list.iter().any(|entry| entry.as_str() == Some(wanted)),
            _ => false,
        };
        let is_issued = rules.issuer.as_deref().is_none_or(|issuer| text("iss") == Some(issuer));
        // Who does not know who it is cannot be meant (RFC 7519, section 4.1.3).
        let is_meant = match (&rules.audience, self.claims.get("aud")) {
            (None, None) => true,
            (Some(wanted), Some(claim)) => is_of(claim, wanted),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !is_of_now || !is_issued || !is_meant {
            return None;
        }
        let left_us = ((expires + leeway - now) * 1e6) as u64;
        let authid = text(&rules.authid_claim).filter(|authid| !authid.is_empty())?;
        let role = text(&rules.role_claim).map(Box::from).or_else(|| rules.role.clone())?;
        Some(Claims { authid: authid.into(), role, left_us })
    }
}

impl Token {
    /// What it claims beside: a map in JSON, or empty.
    ///
    /// # Errors
    /// It is longer than it may be.
    pub fn extra(&self, rules: &Rules) -> Result<Box<str>, &'static str> {
        let is_wanted = |name: &str| match &rules.extra_claims {
            Some(names) => names.iter().any(|wanted| **wanted == *name),
            None => !REGISTERED_CLAIMS.contains(&name),
        };
        let wanted = self.claims.iter().filter(|(name, _)| is_wanted(name));
        let extra: Map<String, Value> = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
        if extra.is_empty() {
            return Ok(Box::default());
        }
        let text = Value::Object(extra).to_string();
        if text.len() > EXTRA_BYTES_MAX {
            return Err("the claims of the token that are told are longer than 4 KiB together");
        }
        Ok(text.into())
    }
}

/// What tokens of a realm must claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rules {
    pub issuer: Option<Box<str>>,
    pub audience: Option<Box<str>>,
    pub leeway_us: u64,
    pub authid_claim: Box<str>,
    pub role_claim: Box<str>,
    /// The role of tokens that claim none.
    pub role: Option<Box<str>>,
    /// What becomes `authextra`; `None` is all but the registered ones.
    pub extra_claims: Option<Vec<Box<str>>>,
}

/// What a token says of its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The authid.
    pub authid: Box<str>,
    /// The name of the role.
    pub role: Box<str>,
    /// How long it is still good, in microseconds.
    pub left_us: u64,
}

/// A signature that is too slow to be checked on a core.
#[derive(Clone, Debug)]
pub struct SlowSignature {
    /// The token.
    pub token: Box<Token>,
    /// The keys of this moment.
    pub keys: Arc<Keys>,
}

impl SlowSignature {
    /// Checks it.
    #[must_use]
    pub fn check(&self) -> bool {
        self.token.is_signed(&self.keys)
    }
}

#[cfg(test)]
mod tests;
