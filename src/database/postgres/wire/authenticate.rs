//! Who we are: trust, password, md5, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).
//!
//! A server proves itself as well where it can: what begins as SCRAM ends with its signature or not at all.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as Binding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use super::certificate;
use super::connect::Address;
use super::connection::Connection;
use super::deadline::Deadline;
use super::error::{Error, ServerError};
use super::message::{Challenge, Message};
use super::settings::{ChannelBinding, Settings};

/// How far it has come.
enum Progress {
    Begun,
    /// A password went out, and the server's word on it is to come.
    Sent,
    Scram(Box<ScramSha256>, Step),
    /// The server has proved that it knows the password.
    Proved,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    First,
    Last,
}

/// No exchange has more messages; a server that goes on and on is cut off.
const MESSAGES_MAX: usize = 64;

/// Answers what the server asks until it lets us in.
pub(super) fn run(connection: &mut Connection, settings: &Settings, deadline: Deadline) -> Result<(), Error> {
    let mut progress = Progress::Begun;
    let mut method = "trust";
    let mut bound = false;
    for _ in 0..MESSAGES_MAX {
        let unencrypted =
            !connection.stream.is_encrypted() && matches!(connection.target.address, Address::Tcp(_));
        let end_point = connection.stream.server_certificate().and_then(certificate::end_point);
        let frame = connection.frame(deadline, "the server to let this client in")?;
        let challenge = match connection.message(&frame)? {
            Message::Authentication(challenge) => challenge,
            Message::Error(error) => return Err(refused(method, error)),
            Message::NegotiateProtocolVersion => {
                return Err(Error::protocol("the server does not speak version 3.0"));
            }
            _ => {
                connection.handle(&frame)?;
                continue;
            }
        };
        let mut answer = bytes::BytesMut::new();
        match challenge {
            Challenge::Ok => {
                if let Progress::Scram(..) = progress {
                    return Err(unproved("it broke off before its proof that it knows the password"));
                }
                if settings.channel_binding == ChannelBinding::Require && !bound {
                    return Err(unbound(method, "the server let us in without it"));
                }
                return Ok(());
            }
            Challenge::CleartextPassword | Challenge::Md5 { .. } if !matches!(progress, Progress::Begun) => {
                return Err(Error::protocol("the server asks for a second password"));
            }
            Challenge::CleartextPassword => {
                method = "password";
                if settings.channel_binding == ChannelBinding::Require {
                    return Err(unbound(method, "the server asks for the password itself"));
                }
                if unencrypted && !settings.cleartext_password {
                    return Err(Error::Authentication {
                        method,
                        problem:
                            "the server asks for the password as it is, which anybody on the way could read: \
                                  set scram-sha-256 in its pg_hba.conf, or use TLS (sslmode=verify-full), \
                                  or say cleartext_password=allow"
                                .to_owned(),
                        server: None,
                    });
                }
                send_password(password(settings, method)?.as_bytes(), &mut answer)?;
                progress = Progress::Sent;
            }
            Challenge::Md5 { salt } => {
                method = "md5";
                if settings.channel_binding == ChannelBinding::Require {
                    return Err(unbound(method, "the server asks for a hash by md5"));
                }
                let password = password(settings, method)?;
                send_password(
                    md5_hash(settings.user.as_bytes(), password.as_bytes(), salt).as_bytes(),
                    &mut answer,
                )?;
                progress = Progress::Sent;
            }
            Challenge::Sasl { mechanisms } => {
                method = "scram-sha-256";
                if !matches!(progress, Progress::Begun) {
                    return Err(Error::protocol("the server begins a second time to ask who this is"));
                }
                let (mechanism, binding) =
                    choose(&mechanisms, settings.channel_binding, end_point, unencrypted)?;
                bound = mechanism == SCRAM_SHA_256_PLUS;
                let scram = ScramSha256::new(password(settings, method)?.as_bytes(), binding);
                frontend::sasl_initial_response(mechanism, scram.message(), &mut answer)
                    .map_err(|error| Error::protocol(error.to_string()))?;
                progress = Progress::Scram(Box::new(scram), Step::First);
            }
            Challenge::SaslContinue(message) => {
                let Progress::Scram(scram, step @ Step::First) = &mut progress else {
                    return Err(Error::protocol("the server goes on with SCRAM where it has not begun"));
                };
                // Its text may be longer than any that a server has, but a frame's bound is its bound.
                scram.update(message).map_err(|error| unproved(&error.to_string()))?;
                *step = Step::Last;
                frontend::sasl_response(scram.message(), &mut answer)
                    .map_err(|error| Error::protocol(error.to_string()))?;
            }
            Challenge::SaslFinal(message) => {
                let Progress::Scram(scram, Step::Last) = &mut progress else {
                    return Err(Error::protocol("the server ends SCRAM where it has not begun"));
                };
                scram.finish(message).map_err(|error| unproved(&error.to_string()))?;
                progress = Progress::Proved;
            }
            Challenge::Other(kind) => {
                let name = match kind {
                    2 => "Kerberos 5",
                    7 | 8 => "gss",
                    9 => "sspi",
                    _ => "a method that is not known",
                };
                return Err(Error::Authentication {
                    method: "unknown",
                    problem: format!(
                        "the server asks for {name} (AuthenticationRequest {kind}): \
                         set scram-sha-256 or cert in its pg_hba.conf"
                    ),
                    server: None,
                });
            }
        }
        connection.requests.bytes.unsplit(answer);
    }
    Err(Error::protocol("the server asks and asks who this is"))
}

/// The mechanism, and how it is bound to TLS. That we could have bound it is said where the server did not offer it, so
/// that somebody in between who took the offer away is found out.
fn choose(
    mechanisms: &[&str],
    wanted: ChannelBinding,
    end_point: Option<Vec<u8>>,
    unencrypted: bool,
) -> Result<(&'static str, Binding), Error> {
    let offered = mechanisms.contains(&SCRAM_SHA_256_PLUS);
    if wanted != ChannelBinding::Disable
        && offered
        && let Some(hash) = end_point.clone()
    {
        return Ok((SCRAM_SHA_256_PLUS, Binding::tls_server_end_point(hash)));
    }
    if wanted == ChannelBinding::Require {
        let problem = match (end_point, unencrypted) {
            (None, true) => "the connection is not encrypted",
            (None, false) => {
                "there is no certificate to bind to, or its signature (Ed25519) has no hash to bind by"
            }
            (Some(_), _) => "the server does not offer it",
        };
        return Err(unbound("scram-sha-256", problem));
    }
    if !mechanisms.contains(&SCRAM_SHA_256) {
        return Err(Error::Authentication {
            method: "sasl",
            problem: format!(
                "the server offers {}; spoken are {SCRAM_SHA_256} and, with TLS, {SCRAM_SHA_256_PLUS}",
                mechanisms.join(", ")
            ),
            server: None,
        });
    }
    let able = wanted != ChannelBinding::Disable && end_point.is_some();
    Ok((SCRAM_SHA_256, if able { Binding::unrequested() } else { Binding::unsupported() }))
}

fn password<'a>(settings: &'a Settings, method: &'static str) -> Result<&'a str, Error> {
    settings.password.as_ref().map(super::settings::Password::reveal).ok_or_else(|| Error::Authentication {
        method,
        problem:
            "the server asks for a password, and there is none: add it to the settings, or set PGPASSWORD"
                .to_owned(),
        server: None,
    })
}

fn send_password(password: &[u8], answer: &mut bytes::BytesMut) -> Result<(), Error> {
    frontend::password_message(password, answer).map_err(|_| Error::Misuse("the password has a zero byte"))
}

/// The server's no. Classes 28 and 08 are about who we are; others would have come later anyhow.
fn refused(method: &'static str, error: Box<ServerError>) -> Error {
    if !error.sqlstate.starts_with("28") {
        return Error::Server(error);
    }
    let problem = if error.sqlstate == "28P01" {
        "the user or the password is wrong"
    } else {
        "the server's pg_hba.conf does not let this user in from here in this way"
    };
    Error::Authentication { method, problem: problem.to_owned(), server: Some(error) }
}

fn unproved(problem: &str) -> Error {
    Error::Authentication {
        method: "scram-sha-256",
        problem: format!("the server did not prove that it knows the password: {problem}"),
        server: None,
    }
}

fn unbound(method: &'static str, problem: &str) -> Error {
    Error::Authentication {
        method,
        problem: format!(
            "channel_binding=require, and {problem}: it needs TLS, and scram-sha-256 in the server's pg_hba.conf"
        ),
        server: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_mechanism_is_chosen() {
        let both = [SCRAM_SHA_256_PLUS, SCRAM_SHA_256];
        let plain = [SCRAM_SHA_256];
        let hash = || Some(vec![1; 32]);
        let begin = |mechanisms: &[&str], wanted, end_point, unencrypted| {
            let (mechanism, binding) = choose(mechanisms, wanted, end_point, unencrypted).ok()?;
            let message = ScramSha256::new(b"x", binding).message()[..2].to_vec();
            Some((mechanism, String::from_utf8(message).unwrap()))
        };
        let prefer = ChannelBinding::Prefer;
        assert_eq!(begin(&both, prefer, hash(), false), Some((SCRAM_SHA_256_PLUS, "p=".to_owned())));
        // Encrypted, and the server has no binding: said, so that a server that has it knows that somebody lied.
        assert_eq!(begin(&plain, prefer, hash(), false), Some((SCRAM_SHA_256, "y,".to_owned())));
        assert_eq!(begin(&plain, prefer, None, true), Some((SCRAM_SHA_256, "n,".to_owned())));
        assert_eq!(
            begin(&both, ChannelBinding::Disable, hash(), false),
            Some((SCRAM_SHA_256, "n,".to_owned()))
        );
        let require = ChannelBinding::Require;
        assert_eq!(begin(&both, require, hash(), false), Some((SCRAM_SHA_256_PLUS, "p=".to_owned())));
        assert_eq!(begin(&plain, require, hash(), false), None);
        assert_eq!(begin(&both, require, None, true), None);
        assert_eq!(begin(&["OAUTHBEARER"], prefer, hash(), false), None);
    }
}
