//! What is made of passwords: keys and hashes, slow on purpose. Pure, and never to be called on a core.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::authentication::{Kdf, ScramDialect};

/// A hash may not take more memory than this, in KiB: one GiB.
pub const MEMORY_KIB_MAX: u32 = 1 << 20;

/// Nor more rounds than this.
pub const ITERATIONS_MAX: u32 = 100_000_000;

/// A cost that cannot be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPossible;

impl fmt::Display for NotPossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no hash has these costs, or a salt of this length")
    }
}

impl std::error::Error for NotPossible {}

/// PBKDF2 with HMAC-SHA256.
pub fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
    ::pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, key);
}

/// Argon2id, version 1.3, on one lane.
///
/// # Errors
/// It has no such costs.
pub fn argon2id(
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    memory_kib: u32,
    lanes: u32,
    key: &mut [u8],
) -> Result<(), NotPossible> {
    let params = Params::new(memory_kib, iterations, lanes, Some(key.len())).map_err(|_| NotPossible)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password, salt, key).map_err(|_| NotPossible)
}

/// The key of WAMP-CRA with a salted password, in base64: that text is the secret.
#[must_use]
pub fn wampcra_key(password: &str, salt: &str, iterations: u32) -> String {
    let mut key = [0; 32];
    pbkdf2(password.as_bytes(), salt.as_bytes(), iterations, &mut key);
    STANDARD.encode(key)
}

/// The costs of a SCRAM key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ScramCosts {
    pub kdf: Kdf,
    pub iterations: u32,
    /// For argon2id13 alone.
    pub memory_kib: u32,
}

/// The salted password of SCRAM, as each dialect has it.
///
/// # Errors
/// Argon2 has no such costs.
pub fn salted_password(
    dialect: ScramDialect,
    costs: ScramCosts,
    password: &str,
    salt: &[u8],
) -> Result<Vec<u8>, NotPossible> {
    let mut key = [0; 32];
    match costs.kdf {
        Kdf::Pbkdf2 => pbkdf2(password.as_bytes(), salt, costs.iterations, &mut key),
        Kdf::Argon2id13 => {
            argon2id(password.as_bytes(), salt, costs.iterations, costs.memory_kib, 1, &mut key)?;
        }
    }
    Ok(match dialect {
        ScramDialect::WampScram => key.to_vec(),
        ScramDialect::Autobahn => STANDARD_NO_PAD.encode(key).into_bytes(),
    })
}

/// `StoredKey` and `ServerKey` of SCRAM (RFC 5802, section 3).
#[must_use]
pub fn scram_keys(salted_password: &[u8]) -> ([u8; 32], [u8; 32]) {
    let client_key = hmac(salted_password, b"Client Key");
    (Sha256::digest(client_key).into(), hmac(salted_password, b"Server Key"))
}

/// HMAC-SHA256.
#[must_use]
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length");
    };
    #[cfg(test)]
    crate::work::count(|work| work.hmacs += 1);
    hmac.update(message);
    hmac.finalize().into_bytes().into()
}

/// The hash of a password, in the usual notation: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`, `$pbkdf2-sha256$i=…$salt$hash`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    costs: Costs,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("costs", &self.costs).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Costs {
    Argon2id { memory_kib: u32, iterations: u32, lanes: u32 },
    Pbkdf2 { iterations: u32 },
}

impl PasswordHash {
    /// Makes one with Argon2id.
    ///
    /// # Errors
    /// There are no such costs.
    pub fn argon2id(
        password: &str,
        salt: &[u8],
        iterations: u32,
        memory_kib: u32,
    ) -> Result<Self, NotPossible> {
        let mut hash = vec![0; 32];
        argon2id(password.as_bytes(), salt, iterations, memory_kib, 1, &mut hash)?;
        Ok(Self { costs: Costs::Argon2id { memory_kib, iterations, lanes: 1 }, salt: salt.to_vec(), hash })
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const UNKNOWN: &str = "expected a hash that begins with `$argon2id$v=19$` or `$pbkdf2-sha256$`";
        const COSTS: &str = "the costs of the hash are wrong, or too high";
        let parts: Vec<&str> = text.split('$').collect();
        let (costs, salt, hash) = match parts[..] {
            ["", "argon2id", "v=19", costs, salt, hash] => {
                let [memory_kib, iterations, lanes] = numbers(costs, ["m", "t", "p"]).ok_or(COSTS)?;
                (Costs::Argon2id { memory_kib, iterations, lanes }, salt, hash)
            }
            ["", "pbkdf2-sha256", costs, salt, hash] => {
                let [iterations] = numbers(costs, ["i"]).ok_or(COSTS)?;
                (Costs::Pbkdf2 { iterations }, salt, hash)
            }
            _ => return Err(UNKNOWN),
        };
        let is_possible = match costs {
            Costs::Argon2id { memory_kib, iterations, lanes } => {
                memory_kib <= MEMORY_KIB_MAX
                    && iterations <= ITERATIONS_MAX
                    && Params::new(memory_kib, iterations, lanes, None).is_ok()
            }
            Costs::Pbkdf2 { iterations } => (1..=ITERATIONS_MAX).contains(&iterations),
        };
        if !is_possible {
            return Err(COSTS);
        }
        let bytes =
            |text| STANDARD_NO_PAD.decode(text).map_err(|_| "salt and hash must be base64 without `=`");
        let (salt, hash) = (bytes(salt)?, bytes(hash)?);
        if !(8..=64).contains(&salt.len()) || !(16..=64).contains(&hash.len()) {
            return Err("the salt must have 8 to 64 bytes, the hash 16 to 64");
        }
        Ok(Self { costs, salt, hash })
    }

    /// Whether it is that of a password. This is what takes so long.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        #[cfg(test)]
        crate::work::count(|work| work.passwords += 1);
        let mut hash = vec![0; self.hash.len()];
        match self.costs {
            Costs::Argon2id { memory_kib, iterations, lanes } => {
                if argon2id(password, &self.salt, iterations, memory_kib, lanes, &mut hash).is_err() {
                    return false;
                }
            }
            Costs::Pbkdf2 { iterations } => pbkdf2(password, &self.salt, iterations, &mut hash),
        }
        hash.ct_eq(&self.hash).into()
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, hash) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.hash));
        match self.costs {
            Costs::Argon2id { memory_kib, iterations, lanes } => {
                write!(f, "$argon2id$v=19$m={memory_kib},t={iterations},p={lanes}${salt}${hash}")
            }
            Costs::Pbkdf2 { iterations } => write!(f, "$pbkdf2-sha256$i={iterations}${salt}${hash}"),
        }
    }
}

/// `a=1,b=2`, with just these names in this order.
fn numbers<const COUNT: usize>(text: &str, names: [&str; COUNT]) -> Option<[u32; COUNT]> {
    let mut parts = text.split(',');
    let mut numbers = [0; COUNT];
    for (number, name) in numbers.iter_mut().zip(names) {
        let digits = parts.next()?.strip_prefix(name)?.strip_prefix('=')?;
        *number = digits.parse().ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
    }
    parts.next().is_none().then_some(numbers)
}

/// The password as clients say it to SCRAM (RFC 4013): characters that look alike are one, some are nothing.
///
/// # Errors
/// It has characters that no password may have.
pub fn prepared(password: &str) -> Result<String, &'static str> {
    match stringprep::saslprep(password) {
        Ok(prepared) if !prepared.is_empty() => Ok(prepared.into_owned()),
        Ok(_) => Err("the password is empty"),
        Err(_) => Err("the password has control characters, or others that no password may have (RFC 4013)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let hash = PasswordHash::argon2id("pencil", b"saltsaltsalt", 1, 8).unwrap();
        assert_eq!(PasswordHash::parse(&hash.to_string()).as_ref(), Ok(&hash));
        assert!(hash.matches(b"pencil") && !hash.matches(b"pencils") && !hash.matches(b""));
        assert!(!format!("{hash:?}").contains(&hash.to_string()[40..]));
    }

    /// Made with Python: `hashlib.pbkdf2_hmac`, and `argon2.low_level.hash_secret_raw` of argon2-cffi.
    #[test]
    fn known_hashes() {
        let text = "$pbkdf2-sha256$i=1000$c2FsdHNhbHQ$wVNdDJbDXytD3Ypu4dvQtX0COri6cW8h0XT6q2RUj3E";
        assert!(PasswordHash::parse(text).unwrap().matches(b"pencil"));
        let text = "$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$P91qhzMgWF7XPicaMAScSA5QW16hfxZgMtNcEdEGBhg";
        assert!(PasswordHash::parse(text).unwrap().matches(b"pencil"));
    }

    #[test]
    fn what_is_no_hash() {
        for text in [
            "",
            "pencil",
            "$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHQ",
            "$argon2i$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
            "$argon2id$v=16$m=64,t=2,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
            "$argon2id$v=19$m=2000000,t=2,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
            "$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
            "$argon2id$v=19$m=64,p=1,t=2$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
            "$argon2id$v=19$m=64,t=2,p=1,x=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
            "$argon2id$v=19$m=64,t=+2,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
            "$argon2id$v=19$m=64,t=2,p=1$c2Fs$c2FsdHNhbHRzYWx0c2FsdA",
            "$pbkdf2-sha256$i=0$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
        ] {
            assert!(PasswordHash::parse(text).is_err(), "{text}");
        }
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_keys_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let costs = ScramCosts { kdf: Kdf::Pbkdf2, iterations: 4096, memory_kib: 0 };
        let salted = salted_password(ScramDialect::WampScram, costs, "pencil", &salt).unwrap();
        let (stored_key, server_key) = scram_keys(&salted);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&stored_key, message.as_bytes());
        let client_key = hmac(&salted, b"Client Key");
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, other)| key ^ other).collect();
        assert_eq!(STANDARD.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let verifier = hmac(&server_key, message.as_bytes());
        assert_eq!(STANDARD.encode(verifier), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn passwords_that_look_alike() {
        assert_eq!(prepared("pass\u{ad}word").as_deref(), Ok("password"));
        assert_eq!(prepared("\u{2168}").as_deref(), Ok("IX"));
        assert!(prepared("a\u{7}").is_err() && prepared("").is_err());
    }
}
