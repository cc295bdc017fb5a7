//! `crosspoint keygen` and `crosspoint hash-password`: what stands in a `[[realm.user]]`.

use std::io::{self, BufRead, IsTerminal, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crosspoint::config::authentication::{Kdf, ScramDialect, hex};
use crosspoint::password::{self, PasswordHash, ScramCosts};
use ed25519_dalek::SigningKey;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// What a browser can do in a moment; nothing that a stolen file should have to rely on.
const PBKDF2_ITERATIONS: u32 = 10_000;
/// What is usually taken for Argon2id: 19 MiB, twice.
const ARGON2_ITERATIONS: u32 = 2;
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;

/// A password is no longer than this, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Whose lines `hash-password` prints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Ticket,
    WampCra,
    WampScram,
    /// Autobahn's.
    Scram,
}

impl For {
    const ALL: [(&'static str, Self); 4] = [
        ("ticket", Self::Ticket),
        ("wampcra", Self::WampCra),
        ("wamp-scram", Self::WampScram),
        ("scram", Self::Scram),
    ];

    pub(crate) fn of_word(word: &str) -> Result<Self, String> {
        let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
        let found = Self::ALL.into_iter().find(|(name, _)| *name == word);
        found.map(|(_, method)| method).ok_or_else(|| {
            format!("there is no method `{word}` with a hashed password; those are {}", names.join(", "))
        })
    }
}

/// What `hash-password` was told.
#[derive(Default)]
pub(crate) struct Hashing {
    /// One method, or all of them.
    pub(crate) method: Option<For>,
    pub(crate) iterations: Option<u32>,
    pub(crate) memory_kib: Option<u32>,
    /// PBKDF2 for WAMP-SCRAM.
    pub(crate) pbkdf2: bool,
}

/// A pair of keys for method `cryptosign`.
pub(crate) fn keygen() -> Result<String, String> {
    let key = SigningKey::from_bytes(&random()?);
    Ok(format!(
        "# The client's, and nobody else's.\nprivate_key = \"{}\"\n\
         # For a [[realm.user]].\nauthorized_keys = [\"{}\"]\n",
        hex(&key.to_bytes()),
        hex(key.verifying_key().as_bytes()),
    ))
}

/// The lines of a user for a password.
pub(crate) fn hash_password(hashing: &Hashing) -> Result<String, String> {
    let password = read_password()?;
    let mut text =
        String::from("# Of these, what the user shall log in with; each below its [[realm.user]].\n");
    for (_, method) in For::ALL {
        if hashing.method.is_none_or(|wanted| wanted == method) {
            text.push('\n');
            text.push_str(&lines(method, hashing, &password)?);
        }
    }
    Ok(text)
}

fn lines(method: For, hashing: &Hashing, password: &str) -> Result<String, String> {
    let salt = random::<16>()?;
    if method == For::Ticket {
        let iterations = hashing.iterations.unwrap_or(ARGON2_ITERATIONS);
        let memory_kib = hashing.memory_kib.unwrap_or(ARGON2_MEMORY_KIB);
        let hash = PasswordHash::argon2id(password, &salt, iterations, memory_kib);
        let hash = hash.map_err(|error| error.to_string())?;
        return Ok(format!("ticket_hash = \"{hash}\"\n"));
    }
    if method == For::WampCra {
        let (salt, iterations) = (hex(&salt), hashing.iterations.unwrap_or(PBKDF2_ITERATIONS));
        let key = password::wampcra_key(password, &salt, iterations);
        return Ok(format!(
            "[realm.user.wampcra]\nsalt = \"{salt}\"\niterations = {iterations}\nkey = \"{key}\"\n"
        ));
    }
    let dialect = if method == For::Scram { ScramDialect::Autobahn } else { ScramDialect::WampScram };
    let kdf = if hashing.pbkdf2 && method == For::WampScram { Kdf::Pbkdf2 } else { Kdf::Argon2id13 };
    let (kdf_name, usual) = match kdf {
        Kdf::Pbkdf2 => ("pbkdf2", PBKDF2_ITERATIONS),
        Kdf::Argon2id13 => ("argon2id13", ARGON2_ITERATIONS),
    };
    let memory_kib = hashing.memory_kib.unwrap_or(ARGON2_MEMORY_KIB);
    let costs = ScramCosts { kdf, iterations: hashing.iterations.unwrap_or(usual), memory_kib };
    // As each of the two has the client do it.
    let prepared = match dialect {
        ScramDialect::WampScram => password::prepared(password)?,
        ScramDialect::Autobahn => password.to_owned(),
    };
    let salted =
        password::salted_password(dialect, costs, &prepared, &salt).map_err(|error| error.to_string())?;
    let (stored_key, server_key) = password::scram_keys(&salted);
    let mut text = String::from("[realm.user.scram]\n");
    if dialect == ScramDialect::Autobahn {
        text.push_str("# For Autobahn, which calls it so.\ndialect = \"scram\"\n");
    }
    text.push_str(&format!("kdf = \"{kdf_name}\"\niterations = {}\n", costs.iterations));
    if kdf == Kdf::Argon2id13 {
        text.push_str(&format!("memory = {memory_kib}\n"));
    }
    text.push_str(&format!(
        "salt = \"{}\"\nstored_key = \"{}\"\nserver_key = \"{}\"\n",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    ));
    Ok(text)
}

/// From the terminal, twice and unseen; else the first line of standard input.
fn read_password() -> Result<String, String> {
    let password = if io::stdin().is_terminal() {
        let password = ask("Password: ")?;
        if ask("Once more: ")? != password {
            return Err("the two passwords are not the same".to_owned());
        }
        password
    } else {
        read_line()?
    };
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    Ok(password)
}

fn ask(prompt: &str) -> Result<String, String> {
    let failed = |error: rustix::io::Errno| format!("the terminal cannot be kept from showing it: {error}");
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin).map_err(failed)?;
    let mut hidden = shown.clone();
    hidden.local_modes -= LocalModes::ECHO;
    hidden.local_modes |= LocalModes::ECHONL;
    // On standard error: standard output has the lines alone.
    let _ = write!(io::stderr(), "{prompt}");
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(failed)?;
    let line = read_line();
    let _ = tcsetattr(&stdin, OptionalActions::Now, &shown);
    line
}

fn read_line() -> Result<String, String> {
    let mut line = Vec::new();
    let stdin = io::stdin().lock();
    let read = io::Read::take(stdin, PASSWORD_BYTES_MAX + 2).read_until(b'\n', &mut line);
    read.map_err(|error| format!("the password cannot be read: {error}"))?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes"));
    }
    String::from_utf8(line).map_err(|_| "the password is not UTF-8".to_owned())
}

fn random<const COUNT: usize>() -> Result<[u8; COUNT], String> {
    let mut bytes = [0; COUNT];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| format!("the kernel gives no random numbers: {error}"))?;
    Ok(bytes)
}
