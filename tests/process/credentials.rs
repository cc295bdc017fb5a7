//! `crosspoint keygen` and `crosspoint hash-password`: what they print is what a configuration takes, and right.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crosspoint::config::authentication::{Kdf, ScramDialect, bytes_of_hex};
use crosspoint::config::{self, User};
use crosspoint::password::{self, ScramCosts};
use ed25519_dalek::SigningKey;

fn crosspoint(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosspoint"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whatever does not want it may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn printed(arguments: &[&str], input: &str) -> String {
    let output = crosspoint(arguments, input);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The user that has these lines.
fn user(lines: &str) -> User {
    let text = format!(
        "[[realm]]\nname = \"a\"\n[[realm.role]]\nname = \"anonymous\"\n[[realm.user]]\nauthid = \"joe\"\n\
         role = \"anonymous\"\n{lines}"
    );
    let config = config::parse("", &text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    config.realms[0].users[0].clone()
}

#[test]
fn keys_are_a_pair_and_new_each_time() {
    let lines = printed(&["keygen"], "");
    assert_ne!(lines, printed(&["keygen"], ""));
    let private = lines.split("private_key = \"").nth(1).unwrap().split('"').next().unwrap();
    let key = SigningKey::from_bytes(&bytes_of_hex(private).unwrap());
    let public = lines.lines().filter(|line| !line.starts_with("private_key")).collect::<Vec<_>>().join("\n");
    assert_eq!(user(&public).authorized_keys, [key.verifying_key().to_bytes()]);
}

#[test]
fn a_key_of_wampcra_is_that_of_the_password() {
    let lines = printed(&["hash-password", "--method", "wampcra", "--iterations", "7"], "pencil\n");
    assert_ne!(lines, printed(&["hash-password", "--method", "wampcra", "--iterations", "7"], "pencil\n"));
    let own = user(&lines).wampcra.unwrap();
    assert_eq!(own.iterations, 7);
    assert_eq!(own.key.unwrap().expose(), password::wampcra_key("pencil", &own.salt, 7));
}

#[test]
fn a_hash_of_a_ticket_is_that_of_the_ticket() {
    let lines = printed(&["hash-password", "--method", "ticket", "--memory", "64"], "pencil\n");
    let hash = user(&lines).ticket_hash.unwrap();
    let hash = password::PasswordHash::parse(hash.expose()).unwrap();
    assert!(hash.matches(b"pencil") && !hash.matches(b"pencil\n"));
}

#[test]
fn the_keys_of_scram_are_those_of_the_password() {
    for (arguments, dialect, kdf) in [
        (
            &["--method", "wamp-scram", "--pbkdf2", "--iterations", "9"][..],
            ScramDialect::WampScram,
            Kdf::Pbkdf2,
        ),
        (&["--method", "wamp-scram", "--memory", "64"], ScramDialect::WampScram, Kdf::Argon2id13),
        (&["--method", "scram", "--memory", "64"], ScramDialect::Autobahn, Kdf::Argon2id13),
    ] {
        let arguments: Vec<&str> = ["hash-password"].iter().chain(arguments).copied().collect();
        // A soft hyphen is nothing (RFC 4013); the line may end as on Windows.
        let typed = if dialect == ScramDialect::WampScram { "pen\u{ad}cil\r\n" } else { "pencil" };
        let keys = user(&printed(&arguments, typed)).scram.unwrap();
        assert_eq!((keys.dialect, keys.kdf), (dialect, kdf));
        let costs =
            ScramCosts { kdf, iterations: keys.iterations, memory_kib: keys.memory.unwrap_or_default() };
        let salt = STANDARD.decode(&keys.salt).unwrap();
        let salted = password::salted_password(dialect, costs, "pencil", &salt).unwrap();
        let (stored_key, server_key) = password::scram_keys(&salted);
        assert_eq!(keys.stored_key.unwrap().expose(), STANDARD.encode(stored_key));
        assert_eq!(keys.server_key.unwrap().expose(), STANDARD.encode(server_key));
    }
}

#[test]
fn without_a_method_there_is_something_for_each() {
    let lines = printed(&["hash-password", "--iterations", "1", "--memory", "8"], "pencil\n");
    for part in ["ticket_hash = ", "[realm.user.wampcra]", "[realm.user.scram]", "dialect = \"scram\""] {
        assert!(lines.contains(part), "{lines}");
    }
    assert!(!lines.contains("pencil"));
}

#[test]
fn what_cannot_be_hashed_is_said() {
    for (arguments, input, code, problem) in [
        (&["hash-password"][..], "", 1, "the password is empty"),
        (&["hash-password"], "\n", 1, "the password is empty"),
        (&["hash-password", "--method", "wamp-scram"], "a\u{7}b", 1, "control characters"),
        (&["hash-password", "--memory", "1"], "pencil", 1, "no hash has these costs"),
        (&["hash-password", "--method", "ticked"], "pencil", 2, "there is no method `ticked`"),
        (&["hash-password", "--iterations", "0"], "pencil", 2, "from 1 to"),
        (&["hash-password", "--iterations"], "pencil", 2, "--iterations"),
        (&["keygen", "--iterations", "1"], "", 2, "--iterations"),
    ] {
        let output = crosspoint(arguments, input);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(problem), "{arguments:?}: {said}");
    }
}
