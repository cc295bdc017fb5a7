//! The opening handshake of WebSocket (RFC 6455 section 4.2), and what a browser or a lost client gets to see
//! in its place.

use base64::Engine;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use tungstenite::handshake::derive_accept_key;

use super::deflate::WindowBits;
use super::extension;
use crate::config::{CookieConfig, ListenAddress, Listener, ListenerMode};
use crate::cookie::{self, Cookie, CookieDigest};
use crate::link::http1::{Request, Response, bad_request};
use crate::link::{Encoding, Framing, LinkConfig, origin, page};
use crate::wamp::codec::Serializer;

/// The subprotocols of WAMP (basic profile, "WebSocket Transport") and what they stand for.
pub(in crate::link) const SUBPROTOCOLS: [(&str, Encoding); 6] = [
    ("wamp.2.json", encoding(Serializer::Json, Framing::WebSocket)),
    ("wamp.2.msgpack", encoding(Serializer::MsgPack, Framing::WebSocket)),
    ("wamp.2.cbor", encoding(Serializer::Cbor, Framing::WebSocket)),
    ("wamp.2.json.batched", encoding(Serializer::Json, Framing::WebSocketBatched)),
    ("wamp.2.msgpack.batched", encoding(Serializer::MsgPack, Framing::WebSocketBatched)),
    ("wamp.2.cbor.batched", encoding(Serializer::Cbor, Framing::WebSocketBatched)),
];

/// How much of an origin an answer repeats.
const ORIGIN_SHOWN_BYTES_MAX: usize = 200;

/// Some clients leave stray bits at the end of their key; all that counts is that it stands for 16 bytes.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

const fn encoding(serializer: Serializer, framing: Framing) -> Encoding {
    Encoding { serializer, framing }
}

/// What a listener offers, in the order of the table.
pub(in crate::link) fn offered(listener: &Listener) -> impl Iterator<Item = (&'static str, Encoding)> {
    SUBPROTOCOLS.into_iter().filter(|(_, encoding)| {
        listener.serializers.contains(&encoding.serializer)
            && (listener.batched || encoding.framing == Framing::WebSocket)
    })
}

/// A handshake that was accepted.
#[derive(Debug)]
pub(in crate::link) struct Accepted {
    /// `None` for an echo link.
    pub(in crate::link) encoding: Option<Encoding>,
    /// The window, where permessage-deflate was agreed on.
    pub(in crate::link) deflate: Option<WindowBits>,
    /// What came with the request.
    pub(in crate::link) cookie: Option<Box<CookieDigest>>,
    /// The answer.
    pub(in crate::link) reply: Vec<u8>,
}

/// Opens a WebSocket.
///
/// # Errors
/// The response to a request that is something else, or wrong; also the page of `GET /`.
pub(in crate::link) fn answer(config: &LinkConfig, request: &Request<'_, '_>) -> Result<Accepted, Response> {
    let listener = &config.listener;
    if !listener.websocket {
        return Err(bad_request(
            "This listener speaks RawSocket only; `websocket` is off in its configuration.",
        ));
    }
    let is_get = request.method == "GET";
    if !is_get && request.method != "HEAD" {
        let refusal = Response::text("405 Method Not Allowed", "This server answers GET and HEAD only.");
        return Err(refusal.with_header("Allow", "GET, HEAD"));
    }
    let is_endpoint = request.path == listener.path;
    let is_upgrade = is_get && has_element(request, "Upgrade", "websocket");
    if is_endpoint && is_upgrade {
        return open(config, request);
    }
    if request.path == "/" && !is_upgrade {
        return Err(page::answer(listener, request));
    }
    if is_endpoint {
        let text = "This is a WebSocket endpoint; connect to it with a WAMP client over WebSocket.";
        return Err(Response::text("426 Upgrade Required", text).with_upgrade());
    }
    let text = format!("There is nothing at this path. The WebSocket endpoint is {}.", listener.path);
    Err(Response::text("404 Not Found", text))
}

fn open(config: &LinkConfig, request: &Request<'_, '_>) -> Result<Accepted, Response> {
    let listener = &config.listener;
    let key = check_handshake(request)?;
    check_origin(listener, request)?;
    let (encoding, subprotocol) = choose_subprotocol(listener, request)?;
    let mut reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        derive_accept_key(key.as_bytes())
    );
    if let Some(subprotocol) = subprotocol {
        for part in ["Sec-WebSocket-Protocol: ", subprotocol, "\r\n"] {
            reply.push_str(part);
        }
    }
    let agreed = WindowBits::new(config.limits.compression_window_bits)
        .filter(|_| listener.compression)
        .and_then(|window| extension::agree(request.elements("Sec-WebSocket-Extensions"), window));
    if let Some(agreed) = agreed {
        agreed.push_header(&mut reply);
    }
    reply.push_str("\r\n");
    let name = listener.cookie.as_ref().map(|cookie| cookie.name.as_str());
    let cookie = name.and_then(|name| cookie::presented(request.values("Cookie"), name)).map(Box::new);
    Ok(Accepted { encoding, deflate: agreed.map(|agreed| agreed.window), cookie, reply: reply.into_bytes() })
}

/// The answer to a handshake, with a cookie for the browser.
#[must_use]
pub fn with_cookie(reply: &[u8], config: &CookieConfig, cookie: &Cookie) -> Vec<u8> {
    // In front of the empty line.
    let headers = reply.strip_suffix(b"\r\n").unwrap_or(reply);
    [headers, cookie.header(config).as_bytes(), b"\r\n"].concat()
}

/// The demands of RFC 6455 section 4.2.1; returns the key.
fn check_handshake<'b>(request: &Request<'_, 'b>) -> Result<&'b str, Response> {
    if request.version < 1 {
        return Err(bad_request("A WebSocket handshake needs HTTP/1.1."));
    }
    if !has_element(request, "Connection", "Upgrade") {
        return Err(bad_request("A WebSocket handshake needs the header `Connection: Upgrade`."));
    }
    // What followed as a body to one reader would be frames to another.
    if request.has_body() {
        return Err(bad_request("A WebSocket handshake has no body."));
    }
    if request.single("Sec-WebSocket-Version")? != Some("13") {
        let text = "This server speaks version 13 of WebSocket (RFC 6455).";
        return Err(Response::text("426 Upgrade Required", text)
            .with_upgrade()
            .with_header("Sec-WebSocket-Version", "13"));
    }
    let key = request.single("Sec-WebSocket-Key")?.unwrap_or_default();
    let mut nonce = [0; 18];
    if key.len() != 24 || KEY.decode_slice(key, &mut nonce) != Ok(16) {
        return Err(bad_request("The Sec-WebSocket-Key must be 16 bytes in base64."));
    }
    Ok(key)
}

fn check_origin(listener: &Listener, request: &Request<'_, '_>) -> Result<(), Response> {
    let origin = request.single("Origin")?;
    let is_loopback =
        matches!(listener.address, ListenAddress::Tcp(host, _) if host.to_canonical().is_loopback());
    if origin::is_allowed(&listener.origins, is_loopback, origin, request.single("Host")?) {
        return Ok(());
    }
    let origin = origin.unwrap_or_default();
    let mut shown = origin.len().min(ORIGIN_SHOWN_BYTES_MAX);
    while !origin.is_char_boundary(shown) {
        shown -= 1;
    }
    let text = format!(
        "Pages of the origin {:?} may not connect here. To let them, add it to `origins` of this \
         [[listener]] in the configuration of the router.",
        &origin[..shown]
    );
    Err(Response::text("403 Forbidden", text))
}

/// The first subprotocol that the client offers and the listener too. An echo link takes the client's first,
/// because browsers give up when none is chosen.
fn choose_subprotocol<'b>(
    listener: &Listener,
    request: &Request<'_, 'b>,
) -> Result<(Option<Encoding>, Option<&'b str>), Response> {
    let mut wanted = request
        .elements("Sec-WebSocket-Protocol")
        .filter_map(|element| std::str::from_utf8(element).ok())
        .filter(|name| name.bytes().all(is_token));
    if listener.mode == ListenerMode::Echo {
        return Ok((None, wanted.next()));
    }
    let chosen = wanted.find_map(|name| {
        offered(listener).find(|(offer, _)| *offer == name).map(|(_, encoding)| (Some(encoding), Some(name)))
    });
    chosen.ok_or_else(|| {
        let names: Vec<_> = offered(listener).map(|(name, _)| name).collect();
        bad_request(format!(
            "A WAMP client must offer one of these in Sec-WebSocket-Protocol: {}.",
            names.join(", ")
        ))
    })
}

fn has_element(request: &Request<'_, '_>, name: &str, wanted: &str) -> bool {
    request.elements(name).any(|element| element.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The characters of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
