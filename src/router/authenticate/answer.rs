//! What an authenticator, a procedure of a realm, answers about somebody who wants to log in.
//!
//! It is a role, or a map with what `[[realm.user]]` would say: who it is and, for methods where the router checks the
//! proof, what to check it with. Crossbar.io's words for it are understood as well.

use serde_json::{Map, Value};

use super::super::own_calls::{Answer, is_unavailable};
use crate::config::AuthMethod;
use crate::config::authentication::{
    Kdf, PublicKey, ScramDialect, ScramKeys, Secret, User, WampCraKey, is_authid,
};

/// Somebody that an authenticator knows.
#[derive(Debug)]
pub(in super::super) struct Answered {
    pub(in super::super) user: User,
    /// For WELCOME: a map in JSON, or empty.
    pub(in super::super) authextra: Box<str>,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Refused {
    /// The authenticator says so.
    Denied,
    /// It could not be found out.
    Failed(&'static str),
}

/// Reads an answer about `authid`, who uses `method` and, for cryptosign, announced a key.
pub(in super::super) fn read(
    answer: &Answer<'_>,
    method: AuthMethod,
    realm: &str,
    authid: Option<&str>,
    announced_key: Option<PublicKey>,
) -> Result<Answered, Refused> {
    let value = match answer {
        Answer::Result(Some(arguments)) => arguments.args.first(),
        Answer::Result(None) => None,
        Answer::Error(error) if is_unavailable(error) => {
            return Err(Refused::Failed("nobody who knows the users can be asked now; try again later"));
        }
        Answer::Error(_) => return Err(Refused::Denied),
        Answer::Timeout => return Err(Refused::Failed("who knows the users did not answer in time")),
    };
    const UNREADABLE: Refused =
        Refused::Failed("who knows the users answered with neither a role nor a map with `role`");
    let empty = Map::new();
    let (role, map) = match value {
        Some(Value::String(role)) => (role.as_str(), &empty),
        Some(Value::Object(map)) => (text(map, "role").ok_or(UNREADABLE)?, map),
        _ => return Err(UNREADABLE),
    };
    if text(map, "realm").is_some_and(|other| other != realm) {
        return Err(Refused::Failed("who knows the users answered with another realm"));
    }
    let Some(authid) = text(map, "authid").or(authid) else {
        return Err(Refused::Failed(
            "who knows the users answered without an `authid`, and the client gave none",
        ));
    };
    if !is_authid(authid) {
        return Err(Refused::Failed("who knows the users answered with an `authid` that none may have"));
    }
    let mut user = User::nobody(authid, role);
    let is_complete = match method {
        // The authenticator has checked it.
        AuthMethod::Ticket => true,
        AuthMethod::WampCra => {
            match (text(map, "secret"), text(map, "salt")) {
                (Some(key), Some(salt)) => {
                    let iterations = number(map, "iterations").unwrap_or(1000);
                    let key = Some(Secret::given(key));
                    user.wampcra = Some(WampCraKey { key, salt: salt.to_owned(), iterations });
                }
                (secret, _) => user.secret = secret.map(Secret::given),
            }
            user.secret.is_some() || user.wampcra.is_some()
        }
        AuthMethod::WampScram | AuthMethod::Scram => {
            let is_autobahns = method == AuthMethod::Scram;
            let dialect = if is_autobahns { ScramDialect::Autobahn } else { ScramDialect::WampScram };
            user.scram = scram_keys(map, dialect);
            user.scram.is_some()
        }
        AuthMethod::Cryptosign => {
            user.authorized_keys.extend(announced_key);
            announced_key.is_some()
        }
        _ => false,
    };
    if !is_complete {
        return Err(Refused::Failed("who knows the users did not say what this method is checked with"));
    }
    let authextra = match map.get("extra").or_else(|| map.get("authextra")) {
        Some(extra @ Value::Object(_)) => extra.to_string().into(),
        _ => Box::default(),
    };
    Ok(Answered { user, authextra })
}

fn scram_keys(map: &Map<String, Value>, dialect: ScramDialect) -> Option<ScramKeys> {
    Some(ScramKeys {
        dialect,
        kdf: match text(map, "kdf")? {
            "pbkdf2" => Kdf::Pbkdf2,
            "argon2id13" | "argon2id-13" => Kdf::Argon2id13,
            _ => return None,
        },
        iterations: number(map, "iterations")?,
        memory: number(map, "memory"),
        salt: text(map, "salt")?.to_owned(),
        stored_key: Some(Secret::given(text(map, "stored_key").or_else(|| text(map, "stored-key"))?)),
        server_key: Some(Secret::given(text(map, "server_key").or_else(|| text(map, "server-key"))?)),
    })
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key)?.as_str()
}

fn number(map: &Map<String, Value>, key: &str) -> Option<u32> {
    map.get(key)?.as_u64().and_then(|value| u32::try_from(value).ok())
}
