//! Where the load goes: a URL, taken apart.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The URL as it was given.
    pub(crate) url: String,
    pub(crate) place: Place,
    pub(crate) transport: Transport,
}

/// What a socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What is spoken on the socket below WAMP or NATS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Transport {
    /// WebSocket: the path of the request and its Host.
    WebSocket { path: String, host: String },
    /// RawSocket of WAMP.
    RawSocket,
    /// Nothing: NATS over TCP.
    Plain,
}

impl Target {
    /// The address, where it is one of TCP.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let form = "a target is ws://HOST:PORT/PATH, rs://HOST:PORT, ws+unix:///SOCKET, rs+unix:///SOCKET or nats://HOST:PORT";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url}: {form}"))?;
        let (place, transport) = match scheme {
            "ws" => {
                let (authority, path) = match rest.find('/') {
                    Some(at) => (&rest[..at], &rest[at..]),
                    None => (rest, "/"),
                };
                let transport = Transport::WebSocket { path: path.to_owned(), host: authority.to_owned() };
                (tcp(authority, 80)?, transport)
            }
            "rs" => (tcp(rest.trim_end_matches('/'), 8080)?, Transport::RawSocket),
            "nats" => (tcp(rest.trim_end_matches('/'), 4222)?, Transport::Plain),
            "ws+unix" => {
                let transport = Transport::WebSocket { path: "/ws".to_owned(), host: "localhost".to_owned() };
                (Place::Unix(rest.into()), transport)
            }
            "rs+unix" => (Place::Unix(rest.into()), Transport::RawSocket),
            "wss" | "rss" => return Err(format!("{url}: TLS is not driven; give the address behind it")),
            _ => return Err(format!("{url}: {form}")),
        };
        Ok(Self { url: url.to_owned(), place, transport })
    }
}

fn tcp(authority: &str, default_port: u16) -> Result<Place, String> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let full = if has_port { authority.to_owned() } else { format!("{authority}:{default_port}") };
    let mut addresses = full.to_socket_addrs().map_err(|error| format!("{authority}: {error}"))?;
    let address = addresses.next().ok_or_else(|| format!("{authority} has no address"))?;
    Ok(Place::Tcp(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target: Target = "ws://127.0.0.1:8080/ws".parse().unwrap();
        assert_eq!(target.place, Place::Tcp("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(
            target.transport,
            Transport::WebSocket { path: "/ws".to_owned(), host: "127.0.0.1:8080".to_owned() }
        );
        let target: Target = "rs://[::1]:9000".parse().unwrap();
        assert_eq!(target.place, Place::Tcp("[::1]:9000".parse().unwrap()));
        let target: Target = "nats://127.0.0.1".parse().unwrap();
        assert_eq!(target.place, Place::Tcp("127.0.0.1:4222".parse().unwrap()));
        let target: Target = "rs+unix:///run/a.sock".parse().unwrap();
        assert_eq!(target.place, Place::Unix("/run/a.sock".into()));
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_form() {
        for url in ["localhost", "http://localhost", "wss://localhost/ws", "ws://127.0.0.1:99999/"] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}
